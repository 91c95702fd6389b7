"""Resuming: which training state a run goes on from, and whether it may."""

import dataclasses
import pathlib
import shlex
import warnings
from typing import Any

import numpy as np

from files.config import Config, Recipe
from files.state import (
    UNREADABLE,
    Progress,
    TrainingState,
    read_progress,
    remove_checkpoint,
    state_step,
    training_states,
)

# Parts of the recipe that may differ when a run is resumed: they change its length or its rate, not what was learned.
MAY_CHANGE = {"epochs", "decay", "learning_rate", "clip_norm"}


def resume(folder: pathlib.Path, state: TrainingState, recipe: Recipe) -> None:
    """Restores the newest training state that has seen the learning rates of `recipe`, or else the newest one.

    No state is a fresh start, and so is one of other settings within the first epoch. There is a warning for each state
    that can't be read, and a note when the learning rates were others. Raises ValueError when the states are of other
    settings, or none can be read, or there are weights without a state.
    """
    found, problems, now = {}, [], state.progress
    for prefix in training_states(folder):
        try:
            found[prefix] = read_progress(prefix)
        except UNREADABLE as error:
            problems.append(unreadable(prefix, error))
    newest = next(iter(found.values()), now)
    if changed := other_settings(newest, now):
        if newest.epoch:
            raise ValueError(f"{folder} holds a run with other settings: {how_to_go_on(changed, now)}")
        print(f"{folder}: beginning anew, because the {newest.step} steps so far had other settings")
        for prefix in found:
            remove_checkpoint(prefix)
        return
    # A stable sort: among states of the same learning rates, the newest is still the first.
    for prefix, stored in sorted(found.items(), key=lambda item: not same_rates(item[1], recipe)):
        try:
            state.read(prefix)
        except UNREADABLE as error:
            problems.append(unreadable(prefix, error))
            continue
        announce(folder, state.progress, recipe)
        for later in training_states(folder):  # which the next resume must not take for its own
            if state_step(later) > stored.steps:
                remove_checkpoint(later)
        if stored.best_epoch == stored.epoch and not stored.step:
            state.model.save_weights_to(folder)  # whoever was killed before this
        state.progress.config, state.progress.recipe = now.config, now.recipe
        return
    if problems:
        raise ValueError(f"no usable training state in {folder} ({'; '.join(problems)}); remove it to start afresh")
    if (folder / "model.index").is_file():
        raise ValueError(
            f"{folder} holds trained weights, but no training state to go on from; choose another name, and "
            f"--start-from {folder} to begin with its weights"
        )


def unreadable(prefix: pathlib.Path, error: Exception) -> str:
    """What is wrong with a state, with a warning."""
    problem = f"{prefix}: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    warnings.warn(f"can't read {problem}; falling back to the state before", stacklevel=3)
    return problem


def other_settings(stored: Progress, now: Progress) -> dict[str, Any]:
    """The settings of a state that differ from those now, but for those that may."""
    before = dataclasses.asdict(Config(**stored.config)) | dataclasses.asdict(Recipe(**stored.recipe))
    after = now.config | now.recipe
    return {name: old for name, old in before.items() if name not in MAY_CHANGE and after[name] != old}


def how_to_go_on(changed: dict[str, Any], now: Progress) -> str:
    """What has changed, and the options that go on."""
    after = now.config | now.recipe
    listed = ", ".join(f"{name} {old!r} -> {after[name]!r}" for name, old in changed.items())
    options = " ".join(option(name, old) for name, old in changed.items())
    return f"{listed}. Go on with its own by {options}, or begin another run by another --name"


def option(name: str, value: Any) -> str:
    """A setting as an option of the command line."""
    word = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{word}" if value else f"--no-{word}"
    return f"--{word} {shlex.quote(str(value))}"


def same_rates(stored: Progress, recipe: Recipe) -> bool:
    """Whether a state has seen just the learning rates that `recipe` has for its epochs."""
    rates = stored.learning_rates
    return len(rates) <= recipe.epochs and np.allclose(
        rates, [recipe.learning_rate_in(epoch) for epoch in range(len(rates))], rtol=1e-5
    )


def announce(folder: pathlib.Path, progress: Progress, recipe: Recipe) -> None:
    """Says where a run goes on, and with what other settings."""
    where = f"epoch {progress.epoch} of {recipe.epochs}" + f" and {progress.step} steps" * bool(progress.step)
    print(f"{folder}: resuming after {where}, step {progress.steps}")
    now = dataclasses.asdict(recipe)
    changed = [f"{name} {progress.recipe[name]!r} -> {now[name]!r}" for name in MAY_CHANGE]
    changed = sorted(line for line, name in zip(changed, MAY_CHANGE, strict=True) if progress.recipe[name] != now[name])
    if changed:
        print(f"{folder}: going on with {', '.join(changed)}")
    if not same_rates(progress, recipe):
        print(f"{folder}: its epochs so far had other learning rates than a run with these settings from the start")

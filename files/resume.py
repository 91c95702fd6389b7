"""Resuming: which training state a run goes on from, and whether it may."""

import dataclasses
import itertools
import pathlib
import shlex
import shutil
import warnings
from typing import Any

import numpy as np

from files.config import Config, Recipe
from files.durable import flush, move
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


def resume(folder: pathlib.Path, state: TrainingState, recipe: Recipe, results: pathlib.Path) -> None:
    """Restores the newest training state that has seen the learning rates of `recipe`, or else the newest one.

    No state is a fresh start, and so is one of other settings within the first epoch. There is a warning for each state
    that can't be read. Where none can, the run begins anew, with a warning: training is deterministic and ends where it
    would have ended. What there was, the best weights and the logs included, is kept in `kept-1` (or the next number)
    in `folder`. There is a note when the learning rates were others.

    Raises ValueError when the states are of other settings, or there are weights without any state.
    """
    found, now = {}, state.progress
    for prefix in training_states(folder):
        try:
            found[prefix] = read_progress(prefix)
        except UNREADABLE as error:
            warn_unreadable(prefix, error)
    newest = next(iter(found.values()), now)
    if changed := other_settings(newest, now):
        if newest.epoch:
            raise ValueError(f"{folder} holds a run with other settings: {how_to_go_on(changed, now)}")
        print(f"{folder}: beginning anew, because the {newest.step} steps so far had other settings")
        for prefix in found:
            remove_checkpoint(prefix)
        return
    initial = [variable.numpy() for variable in state.variables]
    # A stable sort: among states of the same learning rates, the newest is still the first.
    for prefix, stored in sorted(found.items(), key=lambda item: not same_rates(item[1], recipe)):
        try:
            state.read(prefix)
        except UNREADABLE as error:
            warn_unreadable(prefix, error)
            continue
        announce(folder, state.progress, recipe)
        for later in training_states(folder):  # which the next resume must not take for its own
            if state_step(later) > stored.steps:
                remove_checkpoint(later)
        if stored.best_epoch == stored.epoch and not stored.step:
            state.model.save_weights_to(folder)  # whoever was killed before this
        state.progress.config, state.progress.recipe = now.config, now.recipe
        return
    has_weights = (folder / "model.index").is_file()
    if training_states(folder) or (has_weights and state_files(folder)):
        kept = set_aside(folder, results)
        warnings.warn(
            f"no training state in {folder} is whole: beginning anew; what there was, its best weights and logs "
            f"included, is kept in {kept}",
            stacklevel=2,
        )
        for variable, value in zip(state.variables, initial, strict=True):  # of which a read may have changed some
            variable.assign(value)
        state.stored.progress = now
    elif has_weights:
        raise ValueError(
            f"{folder} holds trained weights, but no training state to go on from; choose another name, and "
            f"--start-from {folder} to begin with its weights"
        )


def state_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of all states, whole or not."""
    return sorted((folder / "state").glob("step-*"))


def set_aside(folder: pathlib.Path, results: pathlib.Path) -> pathlib.Path:
    """Leaves a folder as that of a new run, and what it held in a new folder in it, which `SVG.load` reads.

    Whoever is killed meanwhile has lost nothing: the copy is whole before anything is removed, the states last.
    """
    kept = next(path for n in itertools.count(1) if not (path := folder / f"kept-{n}").exists())
    copies = folder / ".writing-kept"
    shutil.rmtree(copies, ignore_errors=True)
    (copies / "state").mkdir(parents=True)
    weights, states = sorted(folder.glob("model.*")), state_files(folder)
    logs = [path for path in (results / "losses.csv", results / "ssim.csv") if path.is_file()]
    for path in (*folder.glob("*.json"), *weights, *states, *logs):
        flush(shutil.copyfile(path, copies / ("state" if path in states else "") / path.name))
    flush(copies / "state")
    move(copies, kept)
    for path in (*weights, *states):
        path.unlink()
    return kept


def warn_unreadable(prefix: pathlib.Path, error: Exception) -> None:
    """Tells what is wrong with a state."""
    problem = (str(error).strip() or type(error).__name__).splitlines()[0]
    warnings.warn(f"can't read {prefix}: {problem}; falling back to the state before", stacklevel=3)


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

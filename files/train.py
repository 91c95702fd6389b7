"""Training: `fit` with callbacks for logs, samples and states, and a resume that goes on as if never stopped."""

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from files.callbacks import SampleVideos, Save, StopOnNaN, TellProgress, stop_at_the_next_step
from files.config import Config, Machine, Recipe
from files.data import make_dataset, print_found
from files.device import device_line, device_strategy
from files.durable import only_process
from files.hosts import Workers
from files.model_svg import SVG, Adam
from files.ops import BatchNorm, has_gpu
from files.progress import progress_bar
from files.resume import resume
from files.scheduled_sampling import ScheduledSamplingSVG
from files.state import Progress, TrainingState
from files.widen import start_from


def train(
    config: Config,
    recipe: Recipe,
    machine: Machine | None = None,
    name: str = "my_run",
    checkpoints: str | pathlib.Path = "checkpoints",
    results: str | pathlib.Path = "results",
    verbose: bool = True,
) -> SVG:
    """Trains to `recipe.epochs`, or resumes the run called `name` where it stopped.

    A new run begins with the weights of the checkpoint `recipe.start_from`, if there is one; its net may be wider.
    With other `epochs`, `decay` or `learning_rate` a run goes on from its newest state that has seen the same learning
    rates (a run is made longer from where its decay began), or else, with a note, from its newest state.

    Writes under `checkpoints`/`name` what `SVG.load` reads (the weights with the lowest validation loss), the recipe,
    and in `state/` the two newest training states and that before the decay; under `results`/`name` `losses.csv` (a row
    per epoch), `ssim.csv` (per epoch and predicted frame) and `tensorboard/`. All GPUs there are share the batch, those
    of other hosts included (files/hosts.py); then the first worker alone reads and writes all this. A run of which no
    state is whole any more begins anew, with a warning, and what there was is kept (files/resume.py). With `verbose` it
    shows a progress bar, and a line per epoch.
    Returns the model with its latest weights.

    Raises ValueError for settings that don't go together, when the folder holds a run with other settings or weights
    without a state, when another process trains it, when the workers have different settings, or when the checkpoint to
    start from doesn't fit; FileNotFoundError when that isn't there; FloatingPointError when loss or weights are no
    longer finite; Stopped, after saving, when it is told to stop; ConnectionError when another worker has ended.
    """
    machine, strategy = machine or Machine(), device_strategy()
    with Workers(strategy).none_lost() as workers:
        workers.check_same({**vars(config), **vars(recipe), **vars(machine.replace(store=None))})
        check_together(recipe, machine, workers)
        folders = run_folder(checkpoints, name), run_folder(results, name)
        return train_together(workers, config, recipe, machine, *folders, verbose)


def train_together(
    workers: Workers,
    config: Config,
    recipe: Recipe,
    machine: Machine,
    folder: pathlib.Path,
    results: pathlib.Path,
    verbose: bool,
) -> SVG:
    """`train`, of settings that have been checked."""
    strategy = workers.strategy
    print_found(config, "train", "val", store=machine.store)

    def shared(split: str, **options) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        options |= dict(batch_size=recipe.batch_size, seed=recipe.seed, store=machine.store)
        return strategy.distribute_datasets_from_function(
            lambda share: make_dataset(config, split, share=share, **options)
        )

    validation = shared("val", count=recipe.val_sequences, indices=True)
    if workers.first:
        print(f"{folder}: {device_line(machine.precision, machine.jit_compile, strategy.num_replicas_in_sync)}")
        if has_gpu() and not machine.jit_compile and not workers.several:
            print("steps on a GPU are faster with jit_compile, after a minute or so of compiling: see docs/training.md")
    keras.utils.set_random_seed(recipe.seed)
    with strategy.scope():
        model = build_model(config, recipe, machine)
    state = TrainingState(
        folder / "state", model, Progress(dataclasses.asdict(config), dataclasses.asdict(recipe)), workers
    )

    def begin() -> dict[str, Any]:
        lock.enter_context(only_process(folder / "state" / "lock", f"training {folder}"))
        resume(folder, state, recipe, results)
        progress = state.progress
        if progress.epoch >= recipe.epochs:
            print(
                f"{folder}: finished, nothing left to train: raise epochs above {progress.epoch} or choose another name"
            )
            return dataclasses.asdict(progress)
        if not progress.steps and recipe.start_from:
            start_from(SVG.load(recipe.start_from), model)
            print(f"{folder}: starting with the weights of {recipe.start_from}")
        config.save(folder / "config.json")
        recipe.save(folder / "recipe.json")
        results.mkdir(parents=True, exist_ok=True)
        progress.write_logs(results)
        return dataclasses.asdict(progress)

    with contextlib.ExitStack() as lock:
        progress = state.stored.progress = Progress(**workers.led(begin))
        workers.copy_from_first(state.variables)
        if progress.epoch >= recipe.epochs:
            return model
        save = Save(folder, state, recipe, results, machine.save_minutes)
        callbacks = [
            keras.callbacks.LearningRateScheduler(lambda epoch, _: recipe.learning_rate_in(epoch)),
            StopOnNaN(),
        ]
        bar = progress_bar(recipe.epochs * recipe.steps_per_epoch, progress.steps, shown=verbose and workers.first)
        if workers.first:
            callbacks += [
                SampleVideos(config, progress, results, machine.store),
                keras.callbacks.TensorBoard(str(results / "tensorboard"), write_graph=False),
            ]
        if not bar.disable:
            callbacks.append(TellProgress(bar, recipe, progress))
        callbacks.append(save)  # last: what it saves, the others have logged
        options = dict(validation_data=validation, callbacks=callbacks, shuffle=False, verbose=0)
        with bar, stop_at_the_next_step(save), advice(folder), warnings.catch_warnings():
            # A worker can't tell Keras for how many batches the held-out data lasts.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            while progress.epoch < recipe.epochs:
                training = shared("train", start=progress.sequences)
                fit_on(model, training, recipe, progress, **options)
        workers.sum(np.zeros(1, np.int32))  # none leaves before the first has saved: it would count as crashed
    return model


def check_together(recipe: Recipe, machine: Machine, workers: Workers) -> None:
    """Raises ValueError for settings of which each is right, but not with the others."""
    replicas = workers.strategy.num_replicas_in_sync
    if workers.several and machine.steps_per_execution > 1:
        raise ValueError(
            f"steps_per_execution is {machine.steps_per_execution}; expected 1, because Keras can't ask several "
            "workers for their next batch from within a graph"
        )
    if workers.several and machine.jit_compile and not has_gpu():
        raise ValueError("jit_compile is True; expected False, because XLA can't sum over several workers on CPUs")
    if recipe.steps_per_epoch % machine.steps_per_execution:
        raise ValueError(
            f"steps_per_execution is {machine.steps_per_execution}; expected a divisor of steps_per_epoch, "
            f"{recipe.steps_per_epoch}"
        )
    shares = replicas * machine.accumulate
    if recipe.batch_size % shares:
        below = recipe.batch_size // shares * shares
        fitting = f"{below} or {below + shares}" if below else f"{shares}"
        sharing = [f"{replicas} devices"] * (replicas > 1) + [f"{machine.accumulate} small batches"] * (
            machine.accumulate > 1
        )
        raise ValueError(
            f"batch_size is {recipe.batch_size}; {' of '.join(reversed(sharing))} share it evenly: take {fitting}"
        )


def run_folder(parent: str | pathlib.Path, name: str) -> pathlib.Path:
    """The folder of a run; raises ValueError for a name that would lead elsewhere."""
    if name != pathlib.PurePath(name).name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name for a run: expected that of a folder, without a path")
    return pathlib.Path(parent) / name


def build_model(config: Config, recipe: Recipe, machine: Machine) -> SVG:
    """The model, compiled with Adam as the recipe has it; the optimizer's state exists afterwards."""
    options = dict(precision=machine.precision, recompute=machine.recompute, seed=recipe.seed)
    if recipe.teacher_forcing < 1:
        model = ScheduledSamplingSVG(config, recipe.teacher_forcing, **options)
    else:
        model = SVG(config, **options)
    model.accumulate = machine.accumulate
    for layer in model._flatten_layers():
        if isinstance(layer, BatchNorm):
            layer.synchronized = recipe.sync_batch_norm
    model.compile(
        optimizer=Adam(recipe.learning_rate, beta_1=recipe.beta_1, global_clipnorm=recipe.clip_norm),
        jit_compile=machine.jit_compile,
        steps_per_execution=machine.steps_per_execution,
    )
    model.optimizer.build(model.trainable_variables)
    return model


def fit_on(model: SVG, training: tf.data.Dataset, recipe: Recipe, progress: Progress, **options) -> None:
    """Keras's `fit` to the last epoch, or, where an epoch has begun, to its end alone."""
    begun = progress.step > 0
    model.fit(
        training,
        initial_epoch=progress.epoch,
        epochs=progress.epoch + 1 if begun else recipe.epochs,
        steps_per_epoch=recipe.steps_per_epoch - progress.step,
        **options,
    )


@contextlib.contextmanager
def advice(folder: pathlib.Path) -> Iterator[None]:
    """Tells whose numbers aren't finite any more what to try."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(
            f"{error}. Try a lower learning_rate, clip_norm=1 or precision float32, under the same name: what was "
            f"saved before is kept in {folder}, and training goes on from there"
        ) from None

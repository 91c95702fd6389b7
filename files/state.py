"""Training states: weights, optimizer and progress, in TensorFlow's checkpoint format, written whole or not at all.

A state tells all that a resume needs to know, so that no other file has to be there or to be right.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import keras
import pandas as pd
import tensorflow as tf
from google.protobuf.message import DecodeError

from files.durable import move, replacing
from files.hosts import Workers

# What TensorFlow raises for a checkpoint that is missing, torn or of another shape.
UNREADABLE = (tf.errors.OpError, ValueError, AssertionError, IndexError, KeyError, TypeError, DecodeError)
SUFFIXES = (".data-00000-of-00001", ".index")  # of a checkpoint's files; without its index there is no checkpoint
STATE_NAME = re.compile(r"step-(\d+)(-before-decay)?\.index")
BEFORE_DECAY = "-before-decay"  # a state that is kept for making the run longer


@dataclasses.dataclass
class Progress:
    """How far a run has come, and all that it has logged."""

    config: dict[str, Any]
    recipe: dict[str, Any]
    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Steps of the epoch that has begun, skipped ones (of loss scaling) included."""
    rate: float = 0.0
    """The learning rate of that epoch."""
    running: list[float] = dataclasses.field(default_factory=list)
    """The variables of its running means."""
    loss_scale: list[float] = dataclasses.field(default_factory=list)
    """Those of loss scaling, with mixed_float16."""
    best: float = math.inf
    """The lowest validation loss."""
    best_epoch: int = 0
    """The epoch after which it was found."""
    losses: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """The rows of `losses.csv`."""
    ssim: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """The rows of `ssim.csv`."""

    @property
    def steps(self) -> int:
        """Training steps so far."""
        return self.epoch * self.recipe["steps_per_epoch"] + self.step

    @property
    def sequences(self) -> int:
        """Training sequences seen so far."""
        return self.steps * self.recipe["batch_size"]

    @property
    def learning_rates(self) -> list[float]:
        """That of each epoch, the begun one included."""
        return [row["learning_rate"] for row in self.losses] + [self.rate] * (self.step > 0)

    def write_logs(self, results: pathlib.Path) -> None:
        """Writes `losses.csv` and `ssim.csv`; before the first epoch there is nothing to tell."""
        for name, rows in (("losses.csv", self.losses), ("ssim.csv", self.ssim)):
            if rows:
                with replacing(results / name) as writing:
                    pd.DataFrame(rows).to_csv(writing, index=False, na_rep="nan", float_format="%.7g")
            else:
                (results / name).unlink(missing_ok=True)


class ProgressInCheckpoint(tf.train.experimental.PythonState):
    """Puts a `Progress` into a checkpoint, as JSON."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress

    def serialize(self) -> str:
        """For TensorFlow."""
        return json.dumps(dataclasses.asdict(self.progress))

    def deserialize(self, text: bytes) -> None:
        """For TensorFlow."""
        self.progress = Progress(**json.loads(text))


class TrainingState:
    """The states of one run under `folder`: two of them and that before the decay are kept."""

    def __init__(self, folder: pathlib.Path, model: keras.Model, progress: Progress, workers: Workers | None = None):
        self.folder, self.model = folder, model
        self.workers = workers or Workers(tf.distribute.get_strategy())
        self.stored = ProgressInCheckpoint(progress)
        # Loss scaling wraps Adam: unwrapped, a state fits every precision.
        self.scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        optimizer = model.optimizer.inner_optimizer if self.scaled else model.optimizer
        self.checkpoint = tf.train.Checkpoint(**model.nets, optimizer=optimizer, progress=self.stored)

    @property
    def progress(self) -> Progress:
        """As it was read, or has come on since."""
        return self.stored.progress

    @property
    def variables(self) -> list[keras.Variable]:
        """All that training changes."""
        return [*self.model.weights, *self.model.optimizer.variables]

    def _loss_scale(self) -> list[keras.Variable]:
        return [self.model.optimizer.dynamic_scale, self.model.optimizer.step_counter] if self.scaled else []

    def _running(self) -> list[keras.Variable]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def write(self, suffix: str = "") -> pathlib.Path:
        """Writes the state under the number of its step, and returns its prefix; the first worker does, all call this.

        Raises FloatingPointError when a weight isn't finite, and writes nothing.
        """
        progress = self.progress
        if not all_finite(self.model.variables):
            raise FloatingPointError(f"after step {progress.steps} there are weights that are no finite numbers")
        progress.loss_scale = [float(variable.numpy()) for variable in self._loss_scale()]
        progress.running = [float(variable.numpy()) for variable in self._running()] if progress.step else []
        prefix = self.folder / f"step-{progress.steps}{suffix}"
        if self.workers.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(self.checkpoint, prefix)
        return prefix

    def read(self, prefix: pathlib.Path) -> None:
        """Restores the model, its optimizer and the progress; raises one of UNREADABLE."""
        self.checkpoint.read(str(prefix)).assert_existing_objects_matched()
        for variable, value in zip(self._loss_scale(), self.progress.loss_scale, strict=False):
            variable.assign(value)

    def restore_running_means(self) -> None:
        """Goes on with the means of an epoch that has begun; `fit` sets them back at its start."""
        for variable, value in zip(self._running(), self.progress.running, strict=False):
            variable.assign(value)

    def keep_two(self) -> None:
        """Removes all states but the two newest and that before the decay."""
        passing = [prefix for prefix in training_states(self.folder.parent) if BEFORE_DECAY not in prefix.name]
        for prefix in passing[2:]:
            remove_checkpoint(prefix)


def all_finite(variables: Iterable[keras.Variable]) -> bool:
    """Whether no value is NaN or infinite."""
    return all(bool(tf.reduce_all(tf.math.is_finite(variable))) for variable in variables)


def write_checkpoint(checkpoint: tf.train.Checkpoint, prefix: pathlib.Path) -> None:
    """Writes `prefix`.index and `prefix`.data-00000-of-00001; the index, which makes it one, comes last.

    Raises OSError when that can't be done, as on a full disk.
    """
    writing = prefix.with_name(f".writing-{prefix.name}")
    remove_checkpoint(writing)  # as in `replacing`
    try:
        try:
            checkpoint.write(str(writing))
        except tf.errors.OpError as error:
            raise OSError(f"can't write {prefix}: {error.message.splitlines()[0].split('}} ')[-1]}") from None
        for suffix in SUFFIXES:
            move(pathlib.Path(f"{writing}{suffix}"), pathlib.Path(f"{prefix}{suffix}"))
    finally:
        remove_checkpoint(writing)


def remove_checkpoint(prefix: pathlib.Path) -> None:
    """Removes its files, the index first."""
    for suffix in reversed(SUFFIXES):
        pathlib.Path(f"{prefix}{suffix}").unlink(missing_ok=True)


def training_states(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The prefixes of the training states in a folder under `checkpoints/`, newest first."""
    found = [path for path in pathlib.Path(folder, "state").glob("step-*.index") if STATE_NAME.fullmatch(path.name)]
    return sorted((path.with_suffix("") for path in found), key=state_step, reverse=True)


def state_step(prefix: pathlib.Path) -> int:
    """After how many steps a training state was saved: 3000 for `step-3000` and `step-3000-before-decay`."""
    return int(prefix.name.split("-")[1])


def read_progress(prefix: pathlib.Path) -> Progress:
    """The progress that a state holds; raises one of UNREADABLE."""
    reader = tf.train.load_checkpoint(str(prefix))
    name = "progress/.ATTRIBUTES/py_state"
    if not reader.has_tensor(name):
        raise ValueError("it was written by an older version, which kept no progress in it")
    return Progress(**json.loads(reader.get_tensor(name)))

"""What happens during training beside the steps: saving, sampling, stopping, and showing the progress."""

import contextlib
import pathlib
import signal
import threading
import time
from collections.abc import Iterator

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tqdm import tqdm

from files.config import Config, Recipe
from files.data import make_dataset
from files.state import BEFORE_DECAY, Progress, TrainingState
from files.utils import film_strip, ssim


class Stopped(KeyboardInterrupt):
    """Training was stopped by Ctrl-C, a notebook's stop button or SIGTERM, and can go on."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback."""
        return [str(self)]


class StopOnNaN(keras.callbacks.Callback):
    """Ends training at the first loss that isn't finite."""

    def on_train_batch_end(self, batch, logs=None):
        """Raises FloatingPointError."""
        if not np.isfinite(logs["loss"]):
            raise FloatingPointError(f"the loss is {logs['loss']} at step {batch + 1} of the epoch")


class SampleVideos(keras.callbacks.Callback):
    """After each epoch: futures of the same held-out videos, their SSIM for `ssim.csv` and a film strip in TensorBoard.

    `ssim.csv` has per epoch and predicted frame the best sample's SSIM (the best on average over time), the mean of
    all samples' and that of an all-black frame, all averaged over videos. The log gets
    `val_ssim`, the best averaged over frames.
    """

    def __init__(
        self,
        config: Config,
        progress: Progress,
        results: pathlib.Path,
        store: str | None = None,
        n_videos: int = 8,
        n_samples: int = 10,
    ):
        super().__init__()
        self.config, self.progress, self.n_samples = config, progress, n_samples
        self.video = next(iter(make_dataset(config, "val", batch_size=n_videos, count=n_videos, store=store))).numpy()
        self.black = ssim(future := self.video[:, config.n_past :], np.zeros_like(future)).mean(0)  # [T]
        self.writer = tf.summary.create_file_writer(str(results / "tensorboard" / "samples"))

    def on_epoch_end(self, epoch, logs=None):
        """Samples and scores."""
        past, future = np.split(self.video, [self.config.n_past], axis=1)
        samples = self.model.generate(past, future.shape[1], self.n_samples, seed=self.model.seed).numpy()
        scores = ssim(future[:, None], samples)  # [B, N, T]
        best = scores.mean(-1).argmax(-1)  # [B]
        best_scores = np.take_along_axis(scores, best[:, None, None], 1)[:, 0].mean(0)  # [T]
        logs["val_ssim"] = float(best_scores.mean())
        rows = pd.DataFrame({"best": best_scores, "mean": scores.mean((0, 1)), "black": self.black})
        rows.insert(0, "frame", range(self.config.n_past + 1, self.config.n_frames + 1))
        rows.insert(0, "epoch", epoch)
        self.progress.ssim += rows.astype({"best": float, "mean": float, "black": float}).to_dict("records")
        futures = {"ground truth": future[0], "best": samples[0, best[0]], "random": samples[0, -1]}
        figure = film_strip({title: np.concatenate([past[0], video]) for title, video in futures.items()}, len(past[0]))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        with self.writer.as_default(step=epoch):
            tf.summary.image("samples", np.asarray(canvas.buffer_rgba())[None])


class TellProgress(keras.callbacks.Callback):
    """A bar with the time left, and a line for each epoch, both with the same four figures."""

    FIGURES = ("loss", "mse", "kld", "val_ssim")

    def __init__(self, bar: tqdm, recipe: Recipe, progress: Progress):
        super().__init__()
        self.bar, self.recipe, self.progress = bar, recipe, progress

    def on_epoch_begin(self, epoch, logs=None):
        """Counts from the steps so far: an epoch may have begun before."""
        self.first_step = self.progress.steps
        self.bar.set_description_str(f"epoch {epoch + 1} of {self.recipe.epochs}")

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        self.bar.set_postfix_str(self._figures(logs), refresh=False)
        self.bar.update(self.first_step + batch + 1 - self.bar.n)

    def on_epoch_end(self, epoch, logs=None):
        """Writes a line above the bar."""
        self.bar.write(f"epoch {epoch + 1} of {self.recipe.epochs}: {self._figures(logs)}", file=self.bar.fp)

    def _figures(self, logs: dict[str, float]) -> str:
        return ", ".join(f"{name} {logs[name]:.3g}" for name in self.FIGURES if name in logs)


class Save(keras.callbacks.Callback):
    """Saves the training state, the logs, and the weights if the validation loss is the lowest so far.

    That is after each epoch, within one when `minutes` have passed, and when training is told to stop. Several workers
    do it after the same step, which they agree on after each; the first one writes.
    """

    def __init__(
        self, folder: pathlib.Path, state: TrainingState, recipe: Recipe, results: pathlib.Path, minutes: float
    ):
        super().__init__()
        self.folder, self.state, self.recipe, self.results, self.minutes = folder, state, recipe, results, minutes
        self.stop = None  # the signal that asks for it
        self.saved = time.monotonic()

    @property
    def progress(self) -> Progress:
        """That of the run."""
        return self.state.progress

    def on_epoch_begin(self, epoch, logs=None):
        """Goes on with an epoch that has begun."""
        self.first_step = self.progress.step
        self.state.restore_running_means()

    def on_train_batch_end(self, batch, logs=None):
        """Saves within an epoch; raises Stopped."""
        progress = self.progress
        progress.step, progress.rate = self.first_step + batch + 1, self.recipe.learning_rate_in(progress.epoch)
        if self._agree() and progress.step < self.recipe.steps_per_epoch:
            self._write()

    def _agree(self) -> bool:
        """Whether to save, for all workers: the clock is the first one's, and whoever is told to stop stops all."""
        workers = self.state.workers
        due = workers.first and time.monotonic() - self.saved > 60 * self.minutes
        due, stops = workers.sum(np.array([due, self.stop is not None], np.int32))
        if stops and not self.stop:
            self.stop = "another worker"
        return bool(due or stops)

    def on_epoch_end(self, epoch, logs=None):
        """Saves an epoch; raises Stopped."""
        self._agree()
        progress = self.progress
        progress.epoch, progress.step = epoch + 1, 0
        row = {name: float(value) for name, value in sorted(logs.items())}
        progress.losses.append({"epoch": epoch, **row})
        if best := row["val_loss"] < progress.best:
            progress.best, progress.best_epoch = row["val_loss"], epoch + 1
        if epoch + 1 == self.recipe.constant_epochs < self.recipe.epochs:
            self.state.write(BEFORE_DECAY)
        self._write(best)

    def _write(self, best: bool = False) -> None:
        """The state first: the weights and the logs are written again by a resume."""
        prefix = self.state.write()
        if self.state.workers.first:
            if best:
                self.model.save_weights_to(self.folder)
            self.progress.write_logs(self.results)
            self.state.keep_two()
        self.saved = time.monotonic()
        if self.stop:
            raise Stopped(
                f"stopped by {self.stop} after epoch {self.progress.epoch} and {self.progress.step} steps; "
                f"saved in {prefix}. The same command, or notebook cell, goes on from there"
            )


@contextlib.contextmanager
def stop_at_the_next_step(save: Save) -> Iterator[None]:
    """Lets Ctrl-C, a notebook's stop button and SIGTERM save before they end training; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # where Python gives no signals
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give_back():
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number, frame):
        save.stop = signal.Signals(number).name
        give_back()
        print("\nstopping after this step", flush=True)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        give_back()

"""Training: `fit` with callbacks for logs, samples and checkpoints, and a resume that goes on as if never stopped."""

import csv
import math
import os
import pathlib
import warnings

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg

from files.config import Config
from files.data import make_dataset
from files.model_svg import SVG, UNREADABLE, state_step, training_states
from files.utils import film_strip, ssim
from files.widen import start_from

# Settings that may differ when a run is resumed: they change its length or its speed, not what a step computes.
MAY_CHANGE = {"epochs", "decay", "jit_compile", "recompute", "steps_per_execution"}


def train(
    config: Config,
    name: str,
    checkpoints: str | pathlib.Path = "checkpoints",
    results: str | pathlib.Path | None = None,
    verbose: int | str = "auto",
) -> SVG:
    """Trains to `config.epochs`, or resumes the run called `name` after its last finished epoch.

    A new run begins with the weights of the checkpoint `config.start_from`, if there is one; its net may be wider.
    With other `epochs` or another `decay` a run goes on from the newest state that has seen the same learning rates: a
    run is made longer from where its decay began.

    Writes under `checkpoints`/`name` what `SVG.load` reads (the weights with the lowest validation loss) and in
    `state/` the two newest training states and that before the decay; and under `results` (by default results/`name`)
    `losses.csv` (a row per epoch), `ssim.csv` (per epoch and predicted frame) and `tensorboard/`. All GPUs there are
    share the batch. Returns the model with its latest weights.

    Raises ValueError when the folder holds a run with other settings, or no training state that can be read, or when
    the checkpoint to start from doesn't fit; FileNotFoundError when it isn't there; FloatingPointError when the loss is
    no longer finite.
    """
    folder = pathlib.Path(checkpoints) / name
    results = pathlib.Path("results") / name if results is None else pathlib.Path(results)
    same_epochs = check_resumable(folder, config)
    validation = make_dataset(config, "val", count=config.val_sequences)

    keras.utils.set_random_seed(config.seed)
    with device_strategy().scope():
        model = SVG(config)
        compile_model(model)
        best = tf.Variable(math.inf, trainable=False)
    state = tf.train.Checkpoint(**model.nets, optimizer=model.optimizer, best=best)
    resume(folder, state, same_epochs * config.steps_per_epoch)
    step = int(model.optimizer.iterations.numpy())
    if not step and config.start_from:
        start_from(SVG.load(config.start_from), model)
        print(f"{folder}: starting with the weights of {config.start_from}")
    epoch = step // config.steps_per_epoch
    training = make_dataset(config, "train", start=step * config.batch_size)
    if step:
        print(f"{folder}: resuming after epoch {epoch} of {config.epochs}, step {step}")

    folder.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    config.save(folder / "config.json")
    keep_epochs(results / "losses.csv", epoch)
    keep_epochs(results / "ssim.csv", epoch)
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate(config, epoch)),
        StopOnNaN(folder),
        SampleVideos(config, results),
        keras.callbacks.CSVLogger(str(results / "losses.csv"), append=epoch > 0),
        keras.callbacks.TensorBoard(str(results / "tensorboard"), write_graph=False),
        SaveCheckpoints(config, folder, state, best),  # last: what it saves, the others have logged
    ]
    model.fit(
        training,
        initial_epoch=epoch,
        epochs=config.epochs,
        steps_per_epoch=config.steps_per_epoch,
        validation_data=validation,
        callbacks=callbacks,
        shuffle=False,  # the order is the dataset's own
        verbose=verbose,
    )
    return model


def device_strategy() -> tf.distribute.Strategy:
    """A replica for each GPU, if there are several; GPU memory is taken as it is needed."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()


def compile_model(model: SVG) -> None:
    """Compiles the model with Adam as the configuration has it; the optimizer's state exists afterwards."""
    config = model.config
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate, beta_1=config.beta_1, global_clipnorm=config.clip_norm),
        jit_compile=config.jit_compile,
        steps_per_execution=config.steps_per_execution,
    )
    model.optimizer.build(model.trainable_variables)


def constant_epochs(config: Config) -> int:
    """Epochs before the learning rate begins to fall."""
    return config.epochs - round(config.decay * config.epochs)


def learning_rate(config: Config, epoch: int) -> float:
    """Adam's rate in `epoch`, counted from 0: constant, then falling by the same amount with every epoch, never 0."""
    falling = config.epochs - constant_epochs(config)
    return config.learning_rate * min(1.0, (config.epochs - epoch) / (falling + 1))


# Resuming -----------------------------------------------------------------------------------------------------------


def check_resumable(folder: pathlib.Path, config: Config) -> int:
    """How many epochs of the run in `folder` had the learning rates of `config`, so that it can go on from there.

    Raises ValueError if `folder` holds a run that `config` can't go on with.
    """
    if not (folder / "config.json").is_file():
        return config.epochs
    stored = Config.load(folder / "config.json")
    changed = {
        name: (getattr(stored, name), getattr(config, name))
        for name in Config.__dataclass_fields__
        if name not in MAY_CHANGE and getattr(stored, name) != getattr(config, name)
    }
    if changed:
        listed = ", ".join(f"{name} {old!r} -> {new!r}" for name, (old, new) in changed.items())
        raise ValueError(f"{folder} holds a run with other settings ({listed}); choose another name or remove it")
    if (folder / "model.index").is_file() and not training_states(folder):
        raise ValueError(
            f"{folder} holds trained weights, but no training state to go on from; choose another name, and start_from "
            f"{folder} to begin with its weights"
        )
    epochs = min(stored.epochs, config.epochs)
    if all(learning_rate(stored, epoch) == learning_rate(config, epoch) for epoch in range(epochs)):
        return config.epochs
    return min(constant_epochs(stored), constant_epochs(config))


def resume(folder: pathlib.Path, state: tf.train.Checkpoint, last_step: int) -> None:
    """Restores the newest readable training state of at most `last_step` steps, with a warning for each unreadable one.

    No state is a fresh start. Raises ValueError when there are states, but none to go on from.
    """
    problems = []
    for prefix in training_states(folder):
        if state_step(prefix) > last_step:
            problems.append(f"{prefix}: its learning rates were others after step {last_step}")
            continue
        try:
            state.read(str(prefix)).assert_existing_objects_matched()
        except UNREADABLE as error:
            problems.append(f"{prefix}: {str(error).strip().splitlines()[0]}")
            warnings.warn(f"can't read {problems[-1]}; falling back to the state before", stacklevel=2)
        else:
            remove_states(folder, after=state_step(prefix))
            return
    if problems:
        raise ValueError(f"no usable training state in {folder} ({'; '.join(problems)}); remove it to start afresh")


def remove_states(folder: pathlib.Path, after: int) -> None:
    """Removes the training states of more than `after` steps, which the next run must not take for its own."""
    for prefix in training_states(folder):
        if state_step(prefix) > after:
            for file in prefix.parent.glob(f"{prefix.name}.*"):
                file.unlink()


def keep_epochs(path: pathlib.Path, epochs: int) -> None:
    """Drops the rows of later epochs from a log: they come again. Without any epoch, drops the log."""
    if not path.is_file():
        return
    if epochs == 0:
        path.unlink()
        return
    log = pd.read_csv(path).dropna()  # the last row of a killed run may be torn
    log[log["epoch"] < epochs].to_csv(path.with_suffix(".tmp"), index=False)
    os.replace(path.with_suffix(".tmp"), path)


# Callbacks ----------------------------------------------------------------------------------------------------------


class StopOnNaN(keras.callbacks.Callback):
    """Ends training at the first loss that isn't finite, before anything is saved."""

    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self.folder = folder

    def on_train_batch_end(self, batch, logs=None):
        """Raises FloatingPointError."""
        if not np.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"the loss is {logs['loss']} at step {int(self.model.optimizer.iterations)}. Try a lower "
                f"learning_rate, clip_norm=1 or precision float32; the last finished epoch is kept in {self.folder}"
            )


class SampleVideos(keras.callbacks.Callback):
    """After each epoch: futures of the same held-out videos, their SSIM in `ssim.csv` and a film strip in TensorBoard.

    `ssim.csv` has per epoch and predicted frame the best sample's SSIM (the best on average over time) and the mean of
    all samples', both averaged over videos. The log gets `val_ssim`, the best averaged over frames.
    """

    def __init__(self, config: Config, results: pathlib.Path, n_videos: int = 8, n_samples: int = 10):
        super().__init__()
        self.config, self.path, self.n_samples = config, results / "ssim.csv", n_samples
        self.video = next(iter(make_dataset(config, "val", batch_size=n_videos, count=n_videos))).numpy()
        self.writer = tf.summary.create_file_writer(str(results / "tensorboard" / "samples"))

    def on_epoch_end(self, epoch, logs=None):
        """Samples and writes."""
        past, future = np.split(self.video, [self.config.n_past], axis=1)
        samples = self.model.generate(past, future.shape[1], self.n_samples, seed=self.config.seed).numpy()
        scores = ssim(future[:, None], samples)  # [B, N, T]
        best = scores.mean(-1).argmax(-1)  # [B]
        best_scores = np.take_along_axis(scores, best[:, None, None], 1)[:, 0].mean(0)  # [T]
        logs["val_ssim"] = float(best_scores.mean())

        is_new = not self.path.is_file()
        with self.path.open("a", newline="") as file:
            rows = csv.writer(file)
            if is_new:
                rows.writerow(["epoch", "frame", "best", "mean"])
            columns = zip(best_scores, scores.mean((0, 1)), strict=True)
            rows.writerows([epoch, frame, *values] for frame, values in enumerate(columns, self.config.n_past + 1))

        futures = {"ground truth": future[0], "best": samples[0, best[0]], "random": samples[0, -1]}
        figure = film_strip({title: np.concatenate([past[0], video]) for title, video in futures.items()}, len(past[0]))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        with self.writer.as_default(step=epoch):
            tf.summary.image("samples", np.asarray(canvas.buffer_rgba())[None])


class SaveCheckpoints(keras.callbacks.Callback):
    """After each epoch: the training state, and the weights if the validation loss is the lowest so far."""

    def __init__(self, config: Config, folder: pathlib.Path, state: tf.train.Checkpoint, best: tf.Variable):
        super().__init__()
        self.constant_epochs, self.folder, self.state, self.best = constant_epochs(config), folder, state, best
        self.manager = tf.train.CheckpointManager(state, str(folder / "state"), max_to_keep=2, checkpoint_name="step")

    def on_epoch_end(self, epoch, logs=None):
        """Saves."""
        if logs["val_loss"] < float(self.best.numpy()):
            self.best.assign(logs["val_loss"])
            self.model.save_weights_to(self.folder)
        step = int(self.model.optimizer.iterations.numpy())
        self.manager.save(checkpoint_number=step)
        if epoch + 1 == self.constant_epochs < self.params["epochs"]:
            self.state.write(str(self.folder / "state" / f"step-{step}-before-decay"))  # the manager never deletes it

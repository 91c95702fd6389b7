"""What a GPU makes of this: parity with the authors' nets, time and memory of training and sampling, the benchmark.

`make check-gpu` takes a quarter of an hour at most and writes results/gpu.json after every case, so that whatever ends
it leaves what has been measured; a case that fails is recorded with its error, and the others go on. At the end it
prints tables and the options of the fastest training. `python tests/check_gpu.py --cpu --width 4 --batch 2 --matrix 64`
tries it on a CPU.
"""

import dataclasses
import datetime
import functools
import gc
import json
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import bench  # TensorFlow's settings come with it
import keras
import numpy as np
import pandas as pd
import parity
import tensorflow as tf
import tyro

from files.callbacks import StopOnNaN
from files.config import Config, Machine, Recipe
from files.data import make_dataset
from files.device import hardware
from files.model_svg import SVG
from files.ops import LSTM
from files.train import build_model

WARM_UP = 3  # calls of the training graph that aren't timed; the first one traces and compiles
PRODUCTS = 50  # matrix products in one call
HIDDEN = ("machine", "differences", "message", "seconds in all")  # figures that are in the file, but not in the tables


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured; the defaults are the paper's sizes."""

    width: int = 64
    """Channels of the first convolutional level."""
    batch: int = 100
    """Sequences in a training step; halved until they fit into memory."""
    n_past: int = 5
    """Frames given."""
    n_future: int = 10
    """Frames predicted in training."""
    precisions: tuple[str, ...] = ("float32", "mixed_bfloat16", "mixed_float16")
    """Keras's precisions; the first one is also that of training with recomputation and with two replicas."""
    steps: int = 50
    """Timed training steps of each case; fewer where they take long."""
    steps_per_execution: int = 10
    """Training steps per call, in the case that hides the host's latency."""
    samples: int = 100
    """Samples of one video."""
    frames: int = 20
    """Predicted frames of each sample."""
    repetitions: int = 5
    """Repetitions of every other measurement."""
    matrix: int = 4096
    """Rows and columns of the matrices whose product shows the device's peak."""
    golden: tuple[str, ...] = ("dcgan_64_1", "dcgan_128_1", "vgg_64_3")
    """Golden files that are compared."""
    minutes: float = 14.0
    """No case begins, and no training goes on, after so many minutes; the last case may need one more."""
    out: pathlib.Path = bench.ROOT / "results" / "gpu.json"
    """The file to write."""
    cpu: bool = False
    """Run on the CPU all the same, as two devices, to test this script."""

    @property
    def config(self) -> Config:
        """The model."""
        return Config(width=self.width, n_past=self.n_past, n_future=self.n_future)

    @property
    def device(self) -> str:
        """The kind of device that is measured."""
        return "CPU" if self.cpu else "GPU"


class Report:
    """The results so far, in memory and in the file."""

    def __init__(self, settings: Settings):
        self.path, self.deadline = settings.out, time.monotonic() + 60 * settings.minutes
        self.cases: dict[str, dict] = {}
        driver = pathlib.Path("/proc/driver/nvidia/version")
        self.results = {
            "command": " ".join(["python", "tests/check_gpu.py", *sys.argv[1:]]),
            "date": datetime.date.today().isoformat(),
            "machine": hardware(),
            "driver": driver.read_text().splitlines()[0] if driver.is_file() else None,
            "built for": dict(tf.sysconfig.get_build_info()),
            "settings": {name: value for name, value in dataclasses.asdict(settings).items() if name != "out"},
            "cases": self.cases,
        }

    def attempt(self, name: str, measure: Callable[[], dict]) -> None:
        """Records the figures of a case, or the error that it ended with, or that there was no time for it."""
        print(f"{name} ...", flush=True)
        if time.monotonic() > self.deadline:
            self.record(name, {"skipped": "out of time"})
            return
        self.record(name, {"error": "the process ended in this case"})
        start = time.monotonic()
        try:
            figures = measure() | {"seconds in all": time.monotonic() - start}
        except TimeoutError:
            figures = {"skipped": "out of time"}
        except Exception as error:  # whatever it is, the other cases go on
            message = str(error).strip() or "no message"  # TensorFlow's may be long
            figures = {"error": f"{type(error).__name__}: {message.splitlines()[0]}", "message": message}
        self.record(name, figures)
        keras.backend.clear_session()  # collects models, which hold themselves in cycles: the next needs the memory

    def record(self, name: str, figures: dict) -> None:
        """Writes the file anew."""
        self.cases[name] = figures
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.results, indent=1, default=str) + "\n")

    def with_figure(self, name: str) -> dict[str, dict]:
        """The cases that have a figure of that name."""
        return {case: figures for case, figures in self.cases.items() if name in figures}


# Parity -------------------------------------------------------------------------------------------------------------


def compared(case: parity.Case) -> Iterator[tuple[str, np.ndarray, np.ndarray, dict[str, float]]]:
    """The kind of each output, ours, the golden file's, and the tolerance of the tests."""
    for last_frame_skip in (False, True):
        for kind, pair in parity.evaluation(case, last_frame_skip).items():
            yield kind, *pair, parity.TOLERANCE
    losses, running, norms = parity.training(case)
    for kind, pair in losses.items():
        yield f"training, {kind}", *pair, parity.TOLERANCE
    for pair in running.values():
        yield "training, running statistics", *pair, parity.TOLERANCE
    rtol = parity.GRADIENT_RTOL[SVG.load(case.folder).config.backbone]
    for pair in norms.values():
        yield "training, gradient norms", *pair, dict(rtol=rtol, atol=0.0)


def differences(golden: tuple[str, ...], tf32: bool) -> dict:
    """The largest differences from the golden files for each kind of output, and whether the tests accept all of them.

    Absolute, and relative to the largest magnitude in the same array. `tf32` lets a GPU round the factors of float32
    products to 10 bits, as TensorFlow does by default.
    """
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    rows = []
    for name in golden:
        with tempfile.TemporaryDirectory() as folder:
            case = parity.import_case(parity.GOLDEN / f"golden_{name}.npz", pathlib.Path(folder))
            for kind, ours, theirs, tolerance in compared(case):
                absolute, largest = np.max(np.abs(ours - theirs)), np.max(np.abs(theirs))
                passed = np.allclose(ours, theirs, **tolerance)
                rows.append((kind, absolute, absolute / largest if largest else absolute, passed))
    outputs = pd.DataFrame(rows, columns=["output", "absolute", "relative", "passed"]).groupby("output", sort=False)
    worst = outputs.agg({"absolute": largest_of, "relative": largest_of, "passed": "all"})
    return {"passed": bool(worst["passed"].all()), "differences": worst.astype(object).to_dict("index")}


def largest_of(values: pd.Series) -> float:
    """The largest value, or NaN if there is one."""
    return float(values.max(skipna=False))


def in_fresh_process(function: Callable, *arguments) -> dict:
    """What a function returns elsewhere.

    A process may keep a convolution that was chosen without TF32 for later, when it is on.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(function, *arguments).result()


# Time and memory ----------------------------------------------------------------------------------------------------


class Peak:
    """Gigabytes of the first device at the peak since this was made, beside what was held before."""

    def __init__(self, settings: Settings):
        self.device = f"{settings.device}:0"
        tf.config.experimental.reset_memory_stats(self.device)
        self.before = tf.config.experimental.get_memory_info(self.device)["current"]

    def gigabytes(self) -> float:
        """The peak so far."""
        return (tf.config.experimental.get_memory_info(self.device)["peak"] - self.before) / 1e9


class Times(keras.callbacks.Callback):
    """When each call of the training graph ended; stops training at the deadline, or when timing takes too long.

    It stands after StopOnNaN, which reads the loss and so waits for the device.
    """

    def __init__(self, deadline: float, seconds: float):
        super().__init__()
        self.deadline, self.seconds, self.marks = deadline, seconds, [time.monotonic()]

    def on_train_batch_end(self, batch, logs=None):
        """Takes the time."""
        now = time.monotonic()
        self.marks.append(now)
        timing = now - self.marks[WARM_UP] if len(self.marks) > WARM_UP else 0.0
        if now > self.deadline or timing > self.seconds:
            self.model.stop_training = True


def peaks(settings: Settings) -> dict:
    """Operations per second of matrix products in each precision; float32 is TF32 where the GPU has it."""
    products = {name: bench.matrix_product(name, settings.matrix, PRODUCTS) for name in settings.precisions}
    operations = 2 * PRODUCTS * settings.matrix**3
    return {
        f"{name} [TFLOP/s]": operations / float(np.median(seconds)) / 1e12
        for name, seconds in bench.in_turns(products, settings.repetitions).items()
    }


def training(settings: Settings, report: Report, machine: Machine, devices: tuple[str, ...] = ()) -> dict:
    """`fit` as `files.train` calls it, on Moving MNIST; several `devices` share the batch."""
    strategy = tf.distribute.MirroredStrategy(devices) if devices else tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    calls = WARM_UP + -(-settings.steps // machine.steps_per_execution)

    def measure(batch: int) -> dict:
        times, peak = Times(report.deadline, seconds=60 * settings.minutes / 32), Peak(settings)
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = build_model(settings.config, Recipe(batch_size=batch), machine)
        history = model.fit(
            make_dataset(settings.config, "train", batch_size=batch),
            steps_per_epoch=calls * machine.steps_per_execution,
            callbacks=[StopOnNaN(), times],
            shuffle=False,
            verbose=0,
        )
        seconds = np.diff(times.marks) / machine.steps_per_execution
        if len(seconds) <= WARM_UP:
            raise TimeoutError
        step = float(np.median(seconds[WARM_UP:]))
        figures = {
            "batch": batch,
            "step [s]": step,
            "frames/s": batch * settings.config.n_frames / step,
            "tracing and compiling [s]": float(seconds[0] - step) * machine.steps_per_execution,
            "timed steps": (len(seconds) - WARM_UP) * machine.steps_per_execution,
            "peak [GB]": peak.gigabytes(),
            "loss": history.history["loss"][-1],
        }
        by_matrices = report.cases["matrix products"].get(f"{machine.precision} [TFLOP/s]")
        if by_matrices:
            operations = batch * bench.necessary_operations(settings.config)
            figures["share of peak"] = operations / step / (1e12 * by_matrices * replicas)
        return figures

    figures = with_batch_that_fits(measure, settings.batch, replicas)
    return {"machine": dataclasses.asdict(machine), "replicas": replicas, **figures}


def with_batch_that_fits(measure: Callable[[int], dict], batch: int, replicas: int = 1) -> dict:
    """`measure(batch)`, with half the batch as often as memory runs out."""
    while True:
        try:
            return measure(batch)
        except tf.errors.OpError as error:  # XLA's isn't always a ResourceExhaustedError
            no_memory = isinstance(error, tf.errors.ResourceExhaustedError) or "out of memory" in str(error).lower()
            if not no_memory or batch < 2 * replicas:
                raise
        batch = batch // 2 // replicas * replicas
        gc.collect()  # the model, which holds itself in cycles


def typed(machine: Machine) -> str:
    """The precision, and what else isn't as by default, as options of the command line."""
    changed = {
        field.name: getattr(machine, field.name)
        for field in dataclasses.fields(machine)
        if field.name == "precision" or getattr(machine, field.name) != field.default
    }
    return " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in changed.items()
    )


def sampling(settings: Settings, precision: str, jit_compile: bool) -> dict:
    """All samples of one video at once."""
    peak, model = Peak(settings), SVG(settings.config, precision)
    past = bench.random_video(1, settings.n_past).numpy()

    def generate():
        return model.generate(past, settings.frames, settings.samples, seed=0)

    if jit_compile:
        generate = tf.function(generate, jit_compile=True)
    seconds = float(np.median(bench.in_turns({"graph": generate}, settings.repetitions)["graph"]))
    return {
        "all samples [s]": seconds,
        "frames/s": settings.samples * settings.frames / seconds,
        "peak [GB]": peak.gigabytes(),
    }


def recurrence(settings: Settings) -> dict:
    """Seconds of an LSTM layer on the frames of a training step, forward and backward, compiled in several ways.

    `tf.scan` as the model has it, the same unrolled, both also with XLA, and Keras's layer, which is cuDNN's on a GPU.
    """
    config = settings.config
    x = tf.random.normal([config.n_frames - 1, settings.batch, config.rnn_size])
    layer, by_keras = LSTM(config.rnn_size), keras.layers.LSTM(config.rnn_size, return_sequences=True)
    start = layer.initial_state(settings.batch)

    def scan(x):
        return layer(x, start)[0]

    def unrolled(x):
        state, hs = start, []
        for projected in tf.unstack(layer.project(x)):
            state = layer.recur(state, projected)
            hs.append(state[0])
        return tf.stack(hs)

    def theirs(x):
        return by_keras(tf.transpose(x, [1, 0, 2]))

    def forward_and_backward(function, variables, jit_compile=False):
        @tf.function(jit_compile=jit_compile)
        def run():
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(tf.square(function(x)))
            return [tf.reduce_sum(gradient) for gradient in tape.gradient(loss, [x, *variables])]

        return run

    scan(x), theirs(x)  # makes the weights
    ours = [variable.value for variable in layer.trainable_variables]
    functions = {
        "tf.scan": forward_and_backward(scan, ours),
        "tf.scan, XLA": forward_and_backward(scan, ours, jit_compile=True),
        "unrolled": forward_and_backward(unrolled, ours),
        "unrolled, XLA": forward_and_backward(unrolled, ours, jit_compile=True),
        "Keras's layer": forward_and_backward(theirs, [variable.value for variable in by_keras.trainable_variables]),
    }
    seconds = bench.in_turns(functions, settings.repetitions)
    return {f"{name} [s]": float(np.median(values)) for name, values in seconds.items()}


def pipeline(settings: Settings) -> dict:
    """How fast the CPU makes training data: above the best training's frames/s, or it holds that up."""
    seconds = bench.pipeline(settings.repetitions)["3200 sequences"]
    return {"frames/s": 3200 * 15 / float(np.median(seconds))}


def benchmark(settings: Settings, measure: Callable, precision: str) -> dict:
    """The graph against the loop over frames, as `make bench` measures it."""
    shared = ("width", "n_past", "n_future", "samples", "frames")
    sizes = bench.Settings(
        batch=min(settings.batch, 32), repetitions=2, **{name: getattr(settings, name) for name in shared}
    )
    seconds = {name: float(np.median(values)) for name, values in measure(sizes, precision).items()}
    return {"graph [s]": seconds["graph"], "loop [s]": seconds["loop"], "ratio": seconds["loop"] / seconds["graph"]}


# All of it ----------------------------------------------------------------------------------------------------------


def cases(settings: Settings, report: Report) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Names and measurements, what matters most first; the fastest of some cases is known when they have been taken."""
    yield "matrix products", functools.partial(peaks, settings)
    for tf32 in (False, True):
        name = f"parity, TF32 {'on' if tf32 else 'off'}"
        yield name, functools.partial(in_fresh_process, differences, settings.golden, tf32)

    def train(machine: Machine, *devices: str) -> tuple[str, Callable[[], dict]]:
        several = f", {len(devices)} replicas" if devices else ""
        measure = functools.partial(training, settings, report, machine, devices)
        return f"training {typed(machine)}{several}", measure

    first, *_ = settings.precisions
    for jit_compile in (False, True):
        for precision in settings.precisions:
            yield train(Machine(precision, jit_compile))
    if best := fastest(report):
        yield train(best.replace(steps_per_execution=settings.steps_per_execution))
    yield train(Machine(first, recompute=True))
    devices = [f"{settings.device}:{k}" for k in range(len(tf.config.list_logical_devices(settings.device)))]
    if len(devices) > 1:
        yield train(Machine(first), *devices[:2])
    for precision in settings.precisions:
        for jit_compile in (False, True):
            name = f"sampling, {precision}{', XLA' if jit_compile else ''}"
            yield name, functools.partial(sampling, settings, precision, jit_compile)
    yield "LSTM", functools.partial(recurrence, settings)
    yield "data", functools.partial(pipeline, settings)
    for measure in (bench.training, bench.sampling):
        for precision in settings.precisions[:2]:
            name = f"benchmark, {measure.__name__}, {precision}"
            yield name, functools.partial(benchmark, settings, measure, precision)


def fastest(report: Report) -> Machine | None:
    """How training makes most frames per second on one device, if that has been measured."""
    single = [figures for figures in report.with_figure("machine").values() if figures["replicas"] == 1]
    best = max(single, key=lambda figures: figures["frames/s"], default=None)
    return Machine(**best["machine"]) if best else None


def tables(report: Report) -> Iterator[str]:
    """All figures, cases of one kind together, and what failed."""
    kinds: dict[str, dict[str, dict]] = {}
    for name, figures in report.cases.items():
        shown = {key: value for key, value in figures.items() if key not in HIDDEN}
        kinds.setdefault(name.replace(",", " ").split()[0], {})[name] = shown
    for cases_of_kind in kinds.values():
        yield pd.DataFrame.from_dict(cases_of_kind, "index").to_string(float_format="%.4g", na_rep="")
    for name, figures in report.with_figure("differences").items():
        yield f"{name}\n{pd.DataFrame.from_dict(figures['differences'], 'index').to_string(float_format='%.1e')}"


def main(settings: Settings) -> int:
    """Measures everything; 0 if parity holds and nothing failed."""
    tf.get_logger().setLevel("ERROR")  # every case traces functions anew, of which TensorFlow would warn
    if settings.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    elif not tf.config.list_physical_devices("GPU"):
        found = ", ".join(device.name for device in tf.config.list_physical_devices())
        print(
            f"TensorFlow finds no GPU here, only {found}. For NVIDIA GPUs on Linux:\n"
            "  .venv/bin/pip install -r requirements-gpu.txt"
        )
        return 1
    report = Report(settings)
    for name, measure in cases(settings, report):
        report.attempt(name, measure)
    print(*tables(report), sep="\n\n", end="\n\n")
    if best := fastest(report):
        print(f"fastest training: {typed(best)}")
    exact = report.cases["parity, TF32 off"].get("passed", False)
    failed = report.with_figure("error")
    print(f"parity with the authors' nets: {'holds' if exact else 'not shown'}; {len(failed)} cases failed")
    print(f"written: {settings.out}")
    return int(not exact or bool(failed))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))

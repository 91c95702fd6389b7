"""What each trick in `files/ops.py` earns: the graph as it is against the graph with one trick replaced.

In place of the trick stands what the libraries offer: Keras's layer, or TensorFlow's operation with its own gradient.
The two graphs are measured in turns, medians are compared, and memory is counted in fresh processes.
`python tests/bench_layers.py` measures the paper's width. Writes results/fast_layers.json.
"""

import contextlib
import dataclasses
import datetime
import functools
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import tyro
from bench import PRECISIONS, ROOT, Settings, graph_step, in_turns, peak_memory, random_video  # adds ROOT

from files import models, ops
from files.config import Config
from files.device import hardware
from files.model_svg import SVG

# The stand-ins ------------------------------------------------------------------------------------------------------


def keras_batch_norm(self, x, training=False, again=False):
    """`BatchNorm.call` by Keras; it counts a batch that comes `again` once more."""
    return keras.layers.BatchNormalization.call(self, x, training=training)


def library_leaky_relu(x):
    """`leaky_relu` with TensorFlow's gradient, which keeps x."""
    return tf.nn.leaky_relu(x, ops.LEAK)


def library_filter_gradient(fine, coarse):
    """`filter_gradient` by the library's kernel for every size and precision."""
    shape = [4, 4, fine.shape[-1], coarse.shape[-1]]
    return tf.raw_ops.Conv2DBackpropFilter(
        input=fine, filter_sizes=shape, out_backprop=coarse, strides=[1, 2, 2, 1], padding="SAME"
    )


def library_downconv(x, kernel):
    """`downconv` with TensorFlow's gradient."""
    return tf.nn.conv2d(x, kernel, 2, "SAME")


def library_upconv(x, kernel):
    """`upconv` with TensorFlow's gradient."""
    batch, height, width, _ = keras.ops.shape(x)
    return tf.nn.conv2d_transpose(x, kernel, [batch, 2 * height, 2 * width, kernel.shape[2]], 2, "SAME")


def scan_recurrence(projected, h0, c0, recurrent):
    """`recurrence` with TensorFlow's gradient of `tf.scan`, which keeps all that a step computes."""
    hs, cs = tf.scan(lambda state, x: ops.lstm_step(*state, x, recurrent), projected, (h0, c0))
    return hs, cs[-1]


class KerasLSTM(keras.Layer):
    """`LSTM` by Keras, for training alone; Keras's layer has time in the second axis."""

    initial_state = ops.LSTM.initial_state

    def __init__(self, units: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.units = units
        self.lstm = keras.layers.LSTM(units, return_sequences=True, return_state=True, dtype="float32")

    def call(self, x, state):
        hs, *state = self.lstm(tf.transpose(x, [1, 0, 2]), initial_state=list(state))
        return tf.transpose(hs, [1, 0, 2]), tuple(state)


def split_add_held(x, skip):
    """`add_held` with TensorFlow's gradient of split, sum and concatenation."""
    shape, own = [-1, *keras.ops.shape(skip)[1:]], keras.ops.shape(skip)[0] - 1
    x_own, x_held = tf.split(tf.reshape(x, shape), [own, -1])
    return tf.reshape(tf.concat([x_own + skip[:-1], x_held + skip[-1:]], 0), keras.ops.shape(x))


def held(skip, like):
    """Skips [S, B, ...], the last one repeated -> as many images as `like` [M * B, ...] has."""
    repeats = tf.shape(like)[0] // tf.shape(skip)[1] - tf.shape(skip)[0]
    skip = tf.concat([skip, tf.repeat(skip[-1:], repeats, 0)], 0)
    return tf.reshape(skip, [-1, *skip.shape[2:]])


def repeated_add_held(x, skip):
    """`add_held` of the last skip repeated for every later frame."""
    return x + held(skip, x)


def slice_first(x, count):
    """`with_first` by a slice."""
    return x, x[:count]


def unprojected_skip(self, skip):
    """`Conv.project_skip` that leaves the skip as it is; `joined_call` convolves it."""
    if not self.built:
        self.build(skip.shape)
    return tf.cast(skip, self.compute_dtype)


def joined_call(self, x, skip=None, **mode):
    """`Conv.call` that convolves x and skip together, each prediction with a copy of its skip."""
    kernel = self.kernel
    if skip is not None:
        x = tf.concat([tf.cast(x, self.compute_dtype), held(skip, x)], -1)
        kernel = tf.concat([kernel, self.skip_kernel], 3 if self.transposed else 2)
    y = self._convolve(x, kernel)
    return y + tf.cast(self.offset, y.dtype) if self.bias else y


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Stand-ins as (owner, name, stand-in), and where they can make a difference."""

    patches: tuple[tuple[object, str, Callable], ...]
    sampling: bool = False
    precisions: tuple[str, ...] = PRECISIONS


CONVOLUTIONS = (ops, "downconv", library_downconv), (ops, "upconv", library_upconv)
REPLACEMENTS = {
    "BatchNorm: Keras": Replacement(((ops.BatchNorm, "call", keras_batch_norm),), sampling=True),
    "leaky_relu: TensorFlow": Replacement(((models, "leaky_relu", library_leaky_relu),)),
    "filter_gradient: library's kernel": Replacement(
        ((ops, "filter_gradient", library_filter_gradient),), precisions=("mixed_bfloat16",)
    ),
    "upconv, downconv: no order of gradients": Replacement(
        ((ops.tf, "control_dependencies", lambda _: contextlib.nullcontext()),)
    ),
    "upconv, downconv: TensorFlow": Replacement(CONVOLUTIONS),
    "upconv_to_few: library's kernel": Replacement(((ops, "upconv_to_few", library_upconv),), sampling=True),
    "recurrence: tf.scan": Replacement(((ops, "recurrence", scan_recurrence),)),
    "LSTM: Keras": Replacement(((models, "LSTM", KerasLSTM),)),
    "add_held: TensorFlow's gradient": Replacement(((ops, "add_held", split_add_held),)),
    "add_held: skip repeated": Replacement(((ops, "add_held", repeated_add_held),)),
    "with_first: slice": Replacement(((models, "with_first", slice_first),)),
    "project_skip: x and skip together": Replacement(
        ((ops.Conv, "project_skip", unprojected_skip), (ops.Conv, "call", joined_call)), sampling=True
    ),
}
AS_IT_IS = "as it is"


# Measuring ----------------------------------------------------------------------------------------------------------


def with_replacement(name: str, make: Callable[[], Callable]) -> Callable:
    """The function that `make()` builds, with a trick replaced while it is built and traced."""

    def patched(function):
        @functools.wraps(function)
        def run():
            with contextlib.ExitStack() as stack:
                for patch in REPLACEMENTS[name].patches if name != AS_IT_IS else ():
                    stack.enter_context(mock.patch.object(*patch))
                return function()

        return run

    return patched(patched(make)())  # the first call traces


def make_step(settings: Settings, precision: str) -> Callable:
    """A training step on random videos."""
    config = Config(width=settings.width)
    return graph_step(SVG(config, precision), random_video(settings.batch, config.n_frames))


def make_sampling(settings: Settings, precision: str) -> Callable:
    """Sampling for random videos."""
    model = SVG(Config(width=settings.width), precision)
    past = random_video(settings.videos, model.config.n_past).numpy()

    def sample():
        return model.generate(past, settings.frames, settings.samples, seed=0)

    return sample


def seconds(settings: Settings, make: Callable, names: list[str]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """For each precision and replacement, seconds of the graph as it is and of the replacement, in turns."""
    results = {}
    for precision in PRECISIONS:
        build = functools.partial(make, settings, precision)
        base = with_replacement(AS_IT_IS, build)
        results[precision] = {}
        for name in names:
            if precision in REPLACEMENTS[name].precisions:
                pair = {AS_IT_IS: base, "replaced": with_replacement(name, build)}
                results[precision][name] = in_turns(pair, settings.repetitions)
                medians = [np.median(measured) for measured in results[precision][name].values()]
                print(f"{make.__name__}, {precision}, {name}: {medians[1] / medians[0]:.3f}", flush=True)
    return results


def step_memory(settings: Settings, precision: str, name: str) -> list[float]:
    """Gigabytes at the peak of training steps."""
    step = with_replacement(name, functools.partial(make_step, settings, precision))
    return peak_memory(step, settings.repetitions)


def memory(settings: Settings) -> dict[str, dict[str, list[float]]]:
    """For each precision, `step_memory` as it is and of each replacement, each in a fresh process."""
    results = {precision: {} for precision in PRECISIONS}
    for precision in PRECISIONS:
        for name in [AS_IT_IS, *REPLACEMENTS]:
            if name == AS_IT_IS or precision in REPLACEMENTS[name].precisions:
                with multiprocessing.get_context("spawn").Pool(1) as fresh:
                    results[precision][name] = fresh.apply(step_memory, (settings, precision, name))
                print(f"memory, {precision}, {name}: {np.median(results[precision][name]):.3f} GB", flush=True)
    return results


def table(results: dict) -> pd.DataFrame:
    """One row per replacement: what it needs of time and memory, as a multiple of the graph as it is."""
    columns = {}
    for kind in ("training step", "sampling"):
        for precision, rows in results[f"{kind} [s]"].items():
            columns[f"{kind}, {precision}"] = {
                name: np.median(row["replaced"]) / np.median(row[AS_IT_IS]) for name, row in rows.items()
            }
    for precision, rows in results["memory of a training step [GB]"].items():
        columns[f"memory, {precision}"] = {
            name: np.median(row) / np.median(rows[AS_IT_IS]) for name, row in rows.items() if name != AS_IT_IS
        }
    return pd.DataFrame(columns).reindex(REPLACEMENTS)


def main(settings: Settings) -> None:
    """Measures everything, writes results/fast_layers.json and prints the table of ratios."""
    load = os.getloadavg()[0]
    log = subprocess.run(["git", "log", "-1", "--format=%h %s"], cwd=ROOT, capture_output=True, text=True)
    in_samples = [name for name, replacement in REPLACEMENTS.items() if replacement.sampling]
    results = {
        "command": " ".join(["python", "tests/bench_layers.py", *sys.argv[1:]]),
        "commit": log.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": hardware(),
        "settings": dataclasses.asdict(settings),
        "memory of a training step [GB]": memory(settings),  # first: before this process takes a GPU's memory
        "training step [s]": seconds(settings, make_step, list(REPLACEMENTS)),
        "sampling [s]": seconds(settings, make_sampling, in_samples),
        "load before and after": [load, os.getloadavg()[0]],
    }
    ratios = table(results)
    results["replaced / as it is"] = {
        name: {column: round(ratio, 3) for column, ratio in row.dropna().items()} for name, row in ratios.iterrows()
    }
    path = ROOT / "results" / "fast_layers.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(ratios.to_string(float_format="%.3f", na_rep=""))


if __name__ == "__main__":
    main(tyro.cli(Settings))

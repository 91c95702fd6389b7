"""The benchmark: the graph against the loop over frames in `loop_svg.py`, which is built of Keras's own layers.

`python tests/bench.py` measures the paper's width; `python tests/bench.py --width 16` a narrow model in a few minutes.
Whatever is compared is measured in turns, and medians are reported. Writes results/bench.json and figs/bench.png.
"""

import dataclasses
import datetime
import json
import multiprocessing
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import tensorflow as tf  # noqa: E402
import tyro  # noqa: E402
from bench_videos import measure as measure_videos  # noqa: E402
from loop_svg import LoopSVG  # noqa: E402

from files.config import Config  # noqa: E402
from files.data import make_dataset  # noqa: E402
from files.device import hardware  # noqa: E402
from files.digits import digits_kept  # noqa: E402
from files.model_svg import SVG  # noqa: E402

PRECISIONS = ("float32", "mixed_bfloat16")
RIVALS = ("loop", "channels last", "one by one")  # the loop first; the others in some measurements alone


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured; the defaults are the paper's sizes."""

    width: int = 64
    """Channels of the first convolutional level."""
    batch: int = 32
    """Sequences in a training step."""
    n_past: int = 5
    """Frames given."""
    n_future: int = 10
    """Frames predicted in training."""
    videos: int = 1
    """Videos that are sampled at once."""
    samples: int = 100
    """Samples of each video."""
    frames: int = 20
    """Predicted frames of each sample."""
    repetitions: int = 5
    """Repetitions of every measurement, at least 5 for a median worth reporting."""

    @property
    def config(self) -> Config:
        """The model."""
        return Config(width=self.width, n_past=self.n_past, n_future=self.n_future)


def in_turns(functions: dict, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each function, called one after the other and over again; the first calls trace and don't count."""
    seconds = {name: [] for name in functions}
    for repetition in range(repetitions + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            tf.nest.map_structure(np.asarray, function())
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def matrix_product(precision: str, size: int = 4096, products: int = 1):
    """`products` of two matrices of this size, one after the other: the machine's peak.

    A GPU needs many in one call, for one takes it less time than the call.
    """
    matrix = tf.cast(tf.random.normal([size, size]) / size**0.5, keras.DTypePolicy(precision).compute_dtype)

    @tf.function
    def multiply():
        product = matrix
        for _ in range(products):
            product = tf.matmul(matrix, product)
        return tf.cast(product[0, 0], tf.float32)

    return multiply


def training_step(model: SVG | LoopSVG, video: tf.Tensor, loss):
    """A step of Adam on `loss(video, noise)`, as a graph."""
    optimizer = keras.optimizers.Adam(2e-3)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step():
        noise = tf.random.normal([video.shape[0], video.shape[1] - 1, model.config.z_dim])
        with tf.GradientTape() as tape:
            value = loss(video, noise)
        gradients = tape.gradient(value, [variable.value for variable in model.trainable_variables])
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    return step


def graph_step(model: SVG, video: tf.Tensor):
    """The training step of the graph."""
    return training_step(model, video, lambda x, noise: model(x, training=True, posterior_noise=noise)["loss"])


def loop_step(loop: LoopSVG, video: tf.Tensor):
    """The training step of the loop."""
    return training_step(loop, video, lambda x, noise: loop.loss(x, noise, training=True))


def random_video(batch: int, frames: int) -> tf.Tensor:
    """[B, T, 64, 64, 1], uniform in [0, 1]."""
    return tf.random.uniform([batch, frames, 64, 64, 1])


def training(settings: Settings, precision: str) -> dict[str, list[float]]:
    """Seconds of a training step as graph, as loop and with recomputation, and of the matrix product."""
    config = settings.config
    video = random_video(settings.batch, config.n_frames)
    functions = {
        "graph": graph_step(SVG(config, precision), video),
        "loop": loop_step(LoopSVG(SVG(config, precision)), video),
        "recompute": graph_step(SVG(config, precision, recompute=True), video),
        "matrix product": matrix_product(precision),
    }
    return in_turns(functions, settings.repetitions)


def necessary_operations(config: Config) -> float:
    """Floating-point operations that a training step needs per sequence: every frame encoded and decoded once.

    Convolutions of the DCGAN nets alone (the rest is below 2 %): two per multiplication, forward, and backward to
    inputs and to weights; the skip half of the decoder once per distinct frame; no gradient with respect to the video.
    """
    widths = [config.width * multiple for multiple in (1, 2, 4, 8)]
    positions = [32**2, 16**2, 8**2, 4**2]  # pixels of the coarser side of each level
    fine = [config.channels, *widths[:-1]]
    levels = [16 * p * c * f for p, c, f in zip(positions, fine, widths, strict=True)]  # multiplications per frame
    dense = 16 * widths[-1] * config.g_dim
    frames, skips = config.n_frames, config.n_past - 1
    forward = frames * (sum(levels) + dense) + (frames - 1) * (sum(levels) + dense) + skips * sum(levels)
    return 2 * (3 * forward - frames * levels[0])


def sampling(settings: Settings, precision: str) -> dict[str, list[float]]:
    """Seconds for all samples of a batch of videos: as graph, as loop over frames, and one sample after the other."""
    model = SVG(settings.config, precision)
    loop = LoopSVG(model)
    past = random_video(settings.videos, model.config.n_past)
    posterior_noise = tf.random.normal([settings.videos, settings.samples, model.config.n_past - 1, model.z_dim])
    prior_noise = tf.random.normal([settings.videos, settings.samples, settings.frames, model.z_dim])

    def one_by_one():
        return [loop.sample(past, posterior_noise[:, n], prior_noise[:, n]) for n in range(settings.samples)]

    functions = {
        "graph": lambda: model.generate(past, settings.frames, settings.samples, seed=0),
        "loop": lambda: loop.generate(past, posterior_noise, prior_noise),
        "one by one": one_by_one,
    }
    return in_turns(functions, settings.repetitions)


def tracing(repetitions: int) -> dict[str, list[float]]:
    """Seconds to trace and compile the training step of a narrow model, and its first call, for 10 and 100 frames."""
    seconds = {"10 frames": [], "100 frames": []}
    for _ in range(repetitions):
        for frames in (10, 100):
            model = SVG(Config(width=4, rnn_size=16, g_dim=8, n_future=frames - 5))
            step = graph_step(model, random_video(1, frames))
            start = time.perf_counter()
            step.get_concrete_function()
            step().numpy()
            first = time.perf_counter() - start
            start = time.perf_counter()
            step().numpy()
            seconds[f"{frames} frames"].append(first - (time.perf_counter() - start))
    return seconds


def step_memory(settings: Settings, frames: int, recompute: bool) -> list[float]:
    """`peak_memory` of a training step on 4 sequences."""
    model = SVG(Config(width=settings.width, n_future=frames - 5), recompute=recompute)
    return peak_memory(graph_step(model, random_video(4, frames)), settings.repetitions)


def peak_memory(step, repetitions: int) -> list[float]:
    """Gigabytes at the peak of training steps, beside what the weights and Adam's moments take.

    TensorFlow's own count; that of the first GPU, if there is one.
    """
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    step().numpy()
    gigabytes = []
    for _ in range(repetitions):
        before = tf.config.experimental.get_memory_info(device)["current"]
        tf.config.experimental.reset_memory_stats(device)
        step().numpy()
        gigabytes.append((tf.config.experimental.get_memory_info(device)["peak"] - before) / 1e9)
    return gigabytes


def memory(settings: Settings) -> dict[str, list[float]]:
    """`step_memory` of each case, in a fresh process: what the allocator wastes depends on what was there before."""
    cases = {"50 frames": (50, False), "100 frames": (100, False), "100 frames, recompute": (100, True)}
    gigabytes = {}
    for name, case in cases.items():
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            gigabytes[name] = fresh.apply(step_memory, (settings, *case))
    return gigabytes


def pipeline(repetitions: int) -> dict[str, list[float]]:
    """Seconds to make 3200 Moving MNIST sequences of 15 frames, in batches of 32."""
    batches = iter(make_dataset(Config(), "train", batch_size=32))

    def draw():
        for _ in range(100):
            batch = next(batches)
        return batch[0, 0, 0]

    return in_turns({"3200 sequences": draw}, repetitions)


def digits_kept_in(repetitions: int) -> dict[str, list[float]]:
    """Seconds to look for the digits in 100 samples of 20 frames."""
    (batch,) = make_dataset(Config(), "test", batch_size=1, n_frames=20, count=1, trajectories=True)
    samples = np.repeat(batch["video"], 100, 0)
    digits, position = batch["digit"][0].numpy(), batch["position"][0].numpy()
    return in_turns({"100 samples": lambda: digits_kept(samples, digits, position)}, repetitions)


def table(results: dict) -> pd.DataFrame:
    """One row per measurement: median seconds of the graph and its rivals, their ratios, and the share of the peak."""
    settings = Settings(**results["settings"])
    rows = []
    for kind in ("training", "sampling"):
        for precision, seconds in results[kind].items():
            medians = {name: float(np.median(times)) for name, times in seconds.items()}
            graph = medians["graph"]
            row = {"": f"{kind}, {precision}", "graph [s]": graph}
            for rival in (name for name in RIVALS if name in medians):
                row |= {f"{rival} [s]": medians[rival], f"{rival} / graph": medians[rival] / graph}
            if "matrix product" in medians:
                peak = 2 * 4096**3 / medians["matrix product"]
                operations = settings.batch * necessary_operations(settings.config)
                row |= {"GFLOP/s": operations / graph / 1e9, "share of peak": operations / graph / peak}
            rows.append(row)
    return pd.DataFrame(rows).set_index("")


def other_figures(results: dict) -> dict[str, float]:
    """The figures that compare no loop; the share counts only the operations that the model needs."""
    trace = {name: float(np.median(seconds)) for name, seconds in results["tracing [s]"].items()}
    gigabytes = {name: float(np.median(peaks)) for name, peaks in results["memory [GB]"].items()}
    steps = {name: float(np.median(seconds)) for name, seconds in results["training"]["float32"].items()}
    shares = table(results)["share of peak"].dropna()
    return {
        **{f"share of the speed of a matrix product: {name}": float(share) for name, share in shares.items()},
        "tracing 100 against 10 frames": trace["100 frames"] / trace["10 frames"],
        "memory 100 against 50 frames": gigabytes["100 frames"] / gigabytes["50 frames"],
        "memory with recompute": gigabytes["100 frames, recompute"] / gigabytes["100 frames"],
        "time with recompute, float32": steps["recompute"] / steps["graph"],
        "data, sequences/s": 3200 / float(np.median(results["data [s]"]["3200 sequences"])),
        "digits kept, s per 1000 samples": 10 * float(np.median(results["digits kept [s]"]["100 samples"])),
        **{name: float(np.median(values)) for name, values in results["videos"].items()},
    }


def plot(results: dict, path: pathlib.Path) -> None:
    """Bars of the loop's seconds over the graph's, with the range of the repetitions."""
    bars = {
        f"{kind}\n{precision}": np.array(seconds["loop"]) / np.array(seconds["graph"])
        for kind in ("training", "sampling")
        for precision, seconds in results[kind].items()
    }
    medians = np.array([np.median(ratios) for ratios in bars.values()])
    spread = [medians - [r.min() for r in bars.values()], [r.max() for r in bars.values()] - medians]
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.bar(bars.keys(), medians, yerr=spread, capsize=4)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("time of the loop / time of the graph")
    axes.set_title(f"width {results['settings']['width']}, {results['machine']['processor']}", fontsize=9)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)


def main(settings: Settings) -> None:
    """Measures everything, writes results/bench.json and figs/bench.png and prints the tables."""
    results = {
        "command": " ".join(["python", "tests/bench.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": hardware(),
        "settings": dataclasses.asdict(settings),
        "memory [GB]": memory(settings),  # first: TensorFlow in this process would take all of a GPU's memory
        "data [s]": pipeline(settings.repetitions),
        "digits kept [s]": digits_kept_in(settings.repetitions),
        "videos": measure_videos(settings.repetitions),
        "tracing [s]": tracing(settings.repetitions),
        "training": {precision: training(settings, precision) for precision in PRECISIONS},
        "sampling": {precision: sampling(settings, precision) for precision in PRECISIONS},
        "load before and after": [start_load, os.getloadavg()[0]],
    }
    results["other figures"] = other_figures(results)
    path = ROOT / "results" / "bench.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    plot(results, ROOT / "figs" / "bench.png")
    print(table(results).to_string(float_format="%.3g"))
    print(pd.Series(results["other figures"]).to_string(float_format="%.3g"))


if __name__ == "__main__":
    start_load = os.getloadavg()[0]
    main(tyro.cli(Settings))

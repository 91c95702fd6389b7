"""The evaluation protocol: best of N samples beside reference rows, the quality of the uncertainty, and the bound.

Sequences are scored a batch at a time and the scores put on disk, so that memory is bounded and a run that was killed
goes on where it stopped. The noise of a sequence is a function of the seed and its index alone. LPIPS and FVD are left
out: they need the weights of pretrained networks, which this project doesn't have.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import re
import shlex
import shutil
import time
import zipfile
import zlib
from typing import Literal

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from files.checks import check_number
from files.config import MOVING_MNIST, Config
from files.data import make_dataset, open_data, print_found, simulate_futures
from files.device import device_line, hardware, peak_memory
from files.durable import only_process, replacing
from files.folders import fingerprint
from files.model_svg import MAX_TEMPERATURE, SVG, gaussian_kl
from files.ops import has_gpu
from files.scores import METRICS, REFERENCES, Scores, frame_table, quality, sequence_table, table_rows
from files.train import run_folder
from files.utils import graph_ssim
from files.videos import BAIR, KTH, NoSplitError

MNIST_FUTURE, PUBLISHED_FUTURE = 20, {KTH: 30, BAIR: 28}  # frames predicted in the published tests
PSNR_CAP = 10 * np.log10(12 * 255**2)  # dB; the error of rounding to 8 bits, where equal frames would give infinity
SHOWN = 4  # sequences whose futures are kept as video
SHOWN_SAMPLES = 3  # of them, samples kept beside the best and the worst
VARIANCE_BATCHES = 16  # of 16 training sequences, to which the variance of the likelihood is fitted
TRAVERSAL = np.linspace(-3, 3, 7)  # standard deviations of the prior
TRAVERSAL_DIMENSIONS, TRAVERSAL_FRAMES = 10, 5
PART_NAME = re.compile(r"(\d{8})-(\d{8})\.npz")  # first sequence, and the one after the last
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError)  # what reading a part may raise


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, and on what; the defaults are the published protocol for Stochastic Moving MNIST.

    Raises ValueError, naming the field, for a count below 1 or a temperature below 0.
    """

    checkpoint: pathlib.Path
    """Folder of the model, under checkpoints/."""
    name: str | None = None
    """Results go to results/NAME, by default the name of the checkpoint's folder; those of another data set or split
    to a folder of their own in it."""
    data: str | None = None
    """Test set: a dataset's name, or the path of videos, which are all used unless they are divided into splits. By
    default the test split of the model's own data."""
    split: Literal["test", "val"] = "test"
    """Sequences to score; val are those held out from training, for choosing between models."""
    n_future: int | None = None
    """Frames predicted; by default as published: 20 for Moving MNIST, 28 for BAIR, 30 for KTH; for other videos as many
    as in training."""
    n_samples: int = 100
    """Samples of which the best is chosen."""
    n_sequences: int = 5000
    """Sequences; fewer where the test set has fewer."""
    n_importance: int = 10
    """Posterior samples of the importance-weighted bound."""
    seed: int = 0
    """Seed of the noise."""
    temperature: float = 1.0
    """Factor on the prior's sigma: below 1 the samples differ less. Results of another temperature go to a folder of
    their own."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Precision of the convolutional nets, whatever that of training was."""
    batch_size: int = 4
    """Sequences whose samples are in memory at once: memory grows with batch_size * n_samples."""
    results: pathlib.Path = pathlib.Path("results")
    """Folder of all results."""
    store: str | None = None
    """Folder for decoded videos; by default DATA.frames beside the data."""

    def __post_init__(self) -> None:
        for name in ("n_future", "n_samples", "n_sequences", "n_importance", "batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        check_number(0, MAX_TEMPERATURE, temperature=self.temperature)

    @property
    def folder(self) -> pathlib.Path:
        """Where the results go: one folder for each checkpoint, data set, split and temperature."""
        words = [] if self.data is None else [data_label(self.data)]
        words += [] if self.split == "test" else [self.split]
        words += [] if self.temperature == 1 else [f"temperature-{self.temperature:g}"]
        return run_folder(self.results, self.checkpoint.resolve().name if self.name is None else self.name).joinpath(
            *words
        )

    @property
    def command(self) -> str:
        """The command line that repeats this evaluation."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        words = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return shlex.join(["python", "-m", "files", "evaluate", *words])


def data_label(data: str) -> str:
    """A data set as the name of a folder; files of the same name in different places have different ones."""
    if data in MOVING_MNIST:
        return data
    path = pathlib.Path(data).resolve()
    return f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def evaluate(options: EvaluateOptions) -> dict:
    """Evaluates a checkpoint and writes `metrics.json`, `per_frame.csv`, `per_sequence.csv` and `samples.npz`.

    Returns what stands in `metrics.json`. The same options give the same figures whatever the batch size, up to the
    rounding of convolutions. An evaluation that was stopped goes on where it was; parts that are missing or damaged are
    scored again.

    Raises FileNotFoundError for a checkpoint or file that isn't there, ValueError for one that doesn't fit, for samples
    that are no numbers, and while another process does the same evaluation.
    """
    model = SVG.load(options.checkpoint, options.precision)
    config = model.config.replace(data=options.data or model.config.data)
    options = dataclasses.replace(options, n_future=options.n_future or published_future(config, options))
    print_found(config, options.split, n_frames=config.n_past + options.n_future, **how_to_open(options))
    count = min(options.n_sequences, len(open_test_set(config, options, batch_size=1)))
    print(f"{options.checkpoint}: {count} sequences, {device_line(options.precision)}")
    weights = weights_hash(model)
    parts = options.folder / f"parts-{run_hash(config, options, weights)}"
    with only_process(parts.with_suffix(".lock"), f"writing {parts}"):
        scores = score_sequences(model, config, options, count, parts)
        metrics = write_results(model, config, options, scores, weights)
        removing = parts.with_name(f"removing-{parts.name}")  # at once: whoever is killed leaves no half of the parts
        shutil.rmtree(removing, ignore_errors=True)
        parts.rename(removing)
        shutil.rmtree(removing)
    parts.with_suffix(".lock").unlink(missing_ok=True)
    print(summary(metrics))
    return metrics


def write_results(model: SVG, config: Config, options: EvaluateOptions, scores: Scores, weights: str) -> dict:
    """Writes the four files of an evaluation, `metrics.json` last, and returns what stands in it."""
    rows, variance = table_rows(scores), fit_variance(model, options.store)
    per_frame, per_sequence = frame_table(rows, scores, config.n_past), sequence_table(rows, scores, variance)
    metrics = {
        "command": options.command,
        "n_sequences": len(scores["index"]),
        "n_samples": options.n_samples,
        "n_past": config.n_past,
        "n_future": options.n_future,
        "seed": options.seed,
        "temperature": options.temperature,
        **quality(rows, scores, per_sequence, config.n_past),
        "variance": variance,
        "n_importance": options.n_importance,
        "data": config.data,
        "split": options.split,
        "data_sha256": hashlib.sha256(scores["sha256"].tobytes()).hexdigest(),
        "weights_sha256": weights,
        "config": dataclasses.asdict(model.config),
        "precision": options.precision,
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy", "pandas")},
        "hardware": hardware(),
        "batch_size": options.batch_size,
        "seconds": scores["seconds"].sum(),
        "peak_memory_bytes": peak_memory(),
    }
    metrics = keras.tree.map_structure(finite_or_none, metrics)
    for name, table in (("per_frame.csv", per_frame), ("per_sequence.csv", per_sequence)):
        with replacing(options.folder / name) as writing:
            table.to_csv(writing, index=False, float_format="%.6g")
    with replacing(options.folder / "samples.npz") as writing, writing.open("wb") as file:
        np.savez_compressed(file, **shown_arrays(model, scores))
    with replacing(options.folder / "metrics.json") as writing:
        writing.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics


# Scoring a batch of sequences ---------------------------------------------------------------------------------------


def how_to_open(options: EvaluateOptions) -> dict:
    """Data that is given is used whole; its decoded videos are kept where the options say."""
    return {"whole": options.data is not None, "store": options.store}


def published_future(config: Config, options: EvaluateOptions) -> int:
    """Frames that are predicted by default: as many as published, or as in training."""
    if config.data in MOVING_MNIST:
        return MNIST_FUTURE
    layout = open_data(config, options.split, config.n_past + 1, **how_to_open(options)).table.layout
    return PUBLISHED_FUTURE.get(layout, config.n_future)


def open_test_set(config: Config, options: EvaluateOptions, **kwargs) -> tf.data.Dataset:
    """The test sequences of n_past + n_future frames; for Moving MNIST with their trajectories."""
    return make_dataset(
        config,
        options.split,
        n_frames=config.n_past + options.n_future,
        trajectories=config.data in MOVING_MNIST,
        **how_to_open(options),
        **kwargs,
    )


def score_sequences(model: SVG, config: Config, options: EvaluateOptions, count: int, parts: pathlib.Path) -> Scores:
    """The scores of the first `count` sequences, on the leading axis: those in `parts`, and the others, put there.

    A file per batch, written whole or not at all.
    """
    parts.mkdir(parents=True, exist_ok=True)
    kept = read_parts(parts)
    done = sum(stop - start for start, stop in kept)
    progress = keras.utils.Progbar(count, unit_name="sequence")
    if done:
        progress.update(done)
    for start, stop in gaps(list(kept), count):
        videos = open_test_set(config, options, start=start, count=stop - start, batch_size=options.batch_size)
        for batch in videos:
            started = time.perf_counter()
            batch = batch if isinstance(batch, dict) else {"video": batch}
            scores = score_batch(model, config, batch, options, start)
            size = len(batch["video"])
            scores["seconds"] = np.full(size, (time.perf_counter() - started) / size)
            with replacing(parts / f"{start:08d}-{start + size:08d}.npz") as writing, writing.open("wb") as file:
                np.savez(file, **scores)
            kept[start, start + size] = scores
            start += size
            progress.add(size)
    in_order = [kept[part] for part in sorted(kept)]
    return {name: np.concatenate([part[name] for part in in_order])[:count] for name in in_order[0]}


def read_parts(parts: pathlib.Path) -> dict[tuple[int, int], Scores]:
    """The parts that are whole, by their first sequence and the one after their last; the others are removed."""
    kept = {}
    for path in sorted(parts.iterdir()):
        scores = read_part(path)
        start, stop = (scores["index"][0], scores["index"][-1] + 1) if scores else (0, 0)
        if scores and all(stop <= first or start >= last for first, last in kept):
            kept[int(start), int(stop)] = scores
        else:
            path.unlink()
    return kept


def read_part(path: pathlib.Path) -> Scores | None:
    """The scores of a part, or None if it is damaged or doesn't hold the sequences that its name tells."""
    named = PART_NAME.fullmatch(path.name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            scores = dict(arrays)
        complete = {len(values) for name, values in scores.items() if not name.startswith("shown_")}
        indices = range(*map(int, named.groups())) if named else range(0)
        return scores if list(scores["index"]) == list(indices) and complete == {len(indices)} else None
    except DAMAGED:
        return None


def gaps(parts: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The ranges of 0..count that no part (first, after the last) covers."""
    stops, starts = [0, *(stop for _, stop in sorted(parts))], [*(start for start, _ in sorted(parts)), count]
    return [(stop, start) for stop, start in zip(stops, starts, strict=True) if stop < start]


def noise(seed: int, indices: range, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1) of `shape` for each sequence: a function of seed and index, not of the batch."""
    draws = [np.random.default_rng([seed, index, stream]).standard_normal(shape, np.float32) for index in indices]
    return np.stack(draws)


def score_batch(
    model: SVG, config: Config, batch: dict[str, tf.Tensor], options: EvaluateOptions, start: int
) -> Scores:
    """All that the evaluation keeps of a batch of sequences, whose first has the index `start`.

    With B sequences of T frames, F of them predicted, and N samples: `psnr` and `ssim` [B, N, F], for Moving MNIST also
    `psnr_simulator` and `ssim_simulator`; `psnr_posterior` and so on [B, F], `spread` and `error` [B, F] (mean variance
    of the samples and squared error of their mean), mean pixel values `brightness` [B, N, F] and `brightness_truth`
    [B, F], `squared_error` [B, K, T-1], `log_ratio` [B, K], `kl` and `prior_sigma` [B, T-1], `bounced` [B, T],
    `sha256` [B, 32], `index` [B], and of the sequences to be shown the `shown_...` videos [., F or T, H, W, C], uint8.
    """
    video, n_past = batch["video"], model.config.n_past
    past, future = video[:, :n_past], video[:, n_past:]
    indices = range(start, start + len(video))
    latents = model.z_dim
    samples = model.generate(
        past,
        options.n_future,
        options.n_samples,
        posterior_noise=noise(options.seed, indices, 0, (options.n_samples, n_past - 1, latents)),
        prior_noise=noise(options.seed, indices, 1, (options.n_samples, options.n_future, latents)),
        temperature=options.temperature,
    )
    if not bool(tf.reduce_all(tf.math.is_finite(samples))):
        raise ValueError(f"samples of sequences {start} to {indices[-1]} are no finite numbers: the weights are broken")
    importance = noise(options.seed, indices, 2, (options.n_importance, video.shape[1] - 1, latents))
    posterior = model.reconstruct(video, tf.constant(importance[:, 0]))[:, n_past - 1 :]
    repeat = tf.repeat(past[:, -1:], options.n_future, axis=1)
    references = tf.stack([posterior, repeat, tf.zeros_like(future)], 1)  # in the order of REFERENCES

    samples, references = to_8_bits(samples), to_8_bits(references)
    scores = frame_scores(samples, future)
    if "velocity" in batch:
        simulated = simulate_futures(config.data, batch, n_past, options.n_samples, options.seed, start)
        scores |= {f"{name}_simulator": values for name, values in frame_scores(to_8_bits(simulated), future).items()}
    of_references = frame_scores(references, future)
    scores |= {f"{name}_{row}": of_references[name][:, k] for name in METRICS for k, row in enumerate(REFERENCES)}
    scores |= spread_and_error(samples, future)
    scores |= {"brightness": tf.reduce_mean(samples, [3, 4, 5]), "brightness_truth": tf.reduce_mean(future, [2, 3, 4])}
    scores |= posterior_scores(model, video, tf.constant(importance))
    scores |= shown(video, samples, posterior, scores["ssim"], max(0, SHOWN - start))
    scores = {name: value.numpy() for name, value in scores.items()}
    scores["bounced"] = np.any(batch["bounced"], -1) if "bounced" in batch else np.zeros(video.shape[:2], bool)
    digests = [hashlib.sha256(sequence.tobytes()).digest() for sequence in video.numpy()]
    scores["sha256"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    scores["index"] = np.array(indices)
    return scores


def to_8_bits(video: tf.Tensor) -> tf.Tensor:
    """Rounded as in an image file, still in [0, 1]."""
    return tf.round(video * 255.0) / 255.0


@tf.function
def frame_scores(predictions: tf.Tensor, future: tf.Tensor) -> dict[str, tf.Tensor]:
    """PSNR in dB, at most PSNR_CAP, and SSIM, each [B, N, F], of predictions [B, N, F, H, W, C] of [B, F, H, W, C]."""
    # A GPU's float32 product keeps 10 bits (TF32), of which SSIM's differences of squares would leave none.
    dtype = tf.float64 if has_gpu() else tf.float32

    def of_sequence(pair):
        ssim = graph_ssim(*(tf.cast(video, dtype) for video in pair))
        return tf.image.psnr(*pair, 1.0), tf.cast(ssim, tf.float32)

    psnr, ssim = tf.map_fn(of_sequence, (predictions, future), fn_output_signature=(tf.float32, tf.float32))
    return {"psnr": tf.minimum(psnr, PSNR_CAP), "ssim": ssim}


@tf.function(reduce_retracing=True)
def spread_and_error(samples: tf.Tensor, future: tf.Tensor) -> dict[str, tf.Tensor]:
    """Unbiased variance of samples [B, N, F, H, W, C] and squared error of their mean, averaged over pixels: [B, F].

    Half the mean squared distance between two samples is the unbiased variance.
    """
    count = tf.cast(tf.shape(samples)[1], tf.float32)
    variance = tf.math.reduce_variance(samples, 1) * count / (count - 1)  # NaN for a single sample
    error = tf.math.squared_difference(tf.reduce_mean(samples, 1), future)
    return {"spread": tf.reduce_mean(variance, [2, 3, 4]), "error": tf.reduce_mean(error, [2, 3, 4])}


@tf.function(reduce_retracing=True)
def posterior_scores(model: SVG, video: tf.Tensor, posterior_noise: tf.Tensor) -> dict[str, tf.Tensor]:
    """The terms of the bounds, of video [B, T, H, W, C] and noise [B, K, T-1, z].

    `squared_error` [B, K, T-1] is summed over pixels, `log_ratio` [B, K] is log p(z) - log q(z) summed over time and z;
    `kl` [B, T-1] is in nats, `prior_sigma` [B, T-1] the mean over z.
    """

    def of_sample(epsilon):
        out = model(video, posterior_noise=epsilon)
        error = tf.reduce_sum(tf.math.squared_difference(out["x_pred"], video[:, 1:]), [2, 3, 4])
        z = out["mu"] + tf.exp(0.5 * out["logvar"]) * epsilon
        log_p = -0.5 * (out["logvar_p"] + tf.math.squared_difference(z, out["mu_p"]) / tf.exp(out["logvar_p"]))
        log_q = -0.5 * (out["logvar"] + epsilon**2)
        kl = tf.reduce_sum(gaussian_kl(out["mu"], out["logvar"], out["mu_p"], out["logvar_p"]), -1)
        sigma = tf.reduce_mean(tf.exp(0.5 * out["logvar_p"]), -1)
        return error, tf.reduce_sum(log_p - log_q, [1, 2]), kl, sigma

    samples_first = tf.transpose(posterior_noise, [1, 0, 2, 3])
    error, log_ratio, kl, sigma = tf.map_fn(of_sample, samples_first, fn_output_signature=(tf.float32,) * 4)
    return {
        "squared_error": tf.transpose(error, [1, 0, 2]),
        "log_ratio": tf.transpose(log_ratio),
        "kl": kl[0],  # the same for all samples, as is sigma
        "prior_sigma": sigma[0],
    }


def shown(video, samples, posterior, ssim, count: int) -> dict[str, tf.Tensor]:
    """The futures of the first `count` sequences that are kept as video: uint8, best and worst by SSIM."""
    over_time = tf.reduce_mean(ssim, -1)
    futures = {
        "shown_truth": video,
        "shown_posterior": posterior,
        "shown_best": tf.gather(samples, tf.argmax(over_time, 1), batch_dims=1),
        "shown_worst": tf.gather(samples, tf.argmin(over_time, 1), batch_dims=1),
        "shown_samples": samples[:, :SHOWN_SAMPLES],
    }
    return {name: tf.cast(tf.round(value[:count] * 255.0), tf.uint8) for name, value in futures.items()}


# The bound's variance, and what is shown -----------------------------------------------------------------------------


def fit_variance(model: SVG, store: str | None) -> float:
    """The variance of the Gaussian likelihood that maximises the ELBO on training data: the mean squared error.

    NaN, with a note, where the training data isn't there.
    """
    try:
        videos = make_dataset(model.config, "train", count=VARIANCE_BATCHES * 16, batch_size=16, store=store)
    except (FileNotFoundError, NoSplitError):
        print(f"no bound: the training data {model.config.data} isn't there")
        return np.nan
    return float(np.mean([np.mean((model.reconstruct(video) - video[:, 1:]) ** 2) for video in videos]))


def shown_arrays(model: SVG, scores: Scores) -> dict[str, np.ndarray]:
    """`samples.npz`: the futures to be shown, the prior's sigma and the bounces beside them, and a traversal."""
    arrays = {name.removeprefix("shown_"): value for name, value in scores.items() if name.startswith("shown_")}
    count = len(arrays["truth"])
    arrays |= {name: scores[name][:count] for name in ("prior_sigma", "bounced")}
    if model.z_dim:
        undecided = scores["prior_sigma"][:count, model.config.n_past - 1].argmax()  # there z matters most
        past = arrays["truth"][undecided : undecided + 1, : model.config.n_past] / np.float32(255)
        arrays |= {"traversal": traverse(model, past), "traversal_values": TRAVERSAL}
    return arrays


def traverse(model: SVG, past: np.ndarray) -> np.ndarray:
    """Futures of past [1, n_past, H, W, C] with one dimension of the first predicted z moved, all else at its mean.

    Returns frame TRAVERSAL_FRAMES of each, [D, V, H, W, C] uint8, for the values TRAVERSAL, in standard deviations.
    """
    dimensions, values = min(model.z_dim, TRAVERSAL_DIMENSIONS), len(TRAVERSAL)
    prior_noise = np.zeros((dimensions, values, TRAVERSAL_FRAMES, model.z_dim), np.float32)
    moved = np.arange(dimensions)
    prior_noise[moved, :, 0, moved] = TRAVERSAL
    samples = dimensions * values
    futures = model.generate(
        past,
        TRAVERSAL_FRAMES,
        samples,
        posterior_noise=np.zeros((1, samples, past.shape[1] - 1, model.z_dim), np.float32),
        prior_noise=prior_noise.reshape(1, samples, TRAVERSAL_FRAMES, model.z_dim),
    )
    last = np.round(futures[0, :, -1].numpy() * 255).astype(np.uint8)
    return last.reshape(dimensions, values, *last.shape[1:])


# What was evaluated, and on what ------------------------------------------------------------------------------------


def weights_hash(model: SVG) -> str:
    """SHA-256 of all weights' bytes, in the order of `model.variables`."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def run_hash(config: Config, options: EvaluateOptions, weights: str) -> str:
    """Names the parts of a run: another model, test set or noise don't continue it, nor does another code."""
    same = {
        name: getattr(options, name)
        for name in ("data", "split", "n_future", "n_samples", "n_importance", "seed", "temperature", "precision")
    }
    same |= {"config": dataclasses.asdict(config), "weights": weights}
    same["code"] = pathlib.Path(__file__).read_text()  # it decides which scores a part holds
    same["files"] = None if config.data in MOVING_MNIST else fingerprint(pathlib.Path(config.data).expanduser())
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]


def finite_or_none(value):
    """For JSON, which has neither NaN nor NumPy's numbers."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def summary(metrics: dict) -> str:
    """The table of `metrics.json` as text: a row per kind of prediction, with 95 % intervals; and do samples fade?"""
    rows = {
        row: {name: f"{value['mean']:.4f} ± {value['interval'] or 0:.4f}" for name, value in values.items()}
        for row, values in metrics["table"].items()
    }
    table, brightness = pd.DataFrame(rows).T.to_string(), metrics["brightness"]
    if brightness["ratio"] is None:  # the truth is black
        return table
    return (
        f"{table}\nIn the last frame the samples have {brightness['ratio']:.2f} of the truth's brightness, "
        f"{brightness['faded']['mean']:.0%} of them less than half."
    )

"""The evaluation protocol: best of N samples beside reference rows, the quality of the uncertainty, and the bound.

Sequences are scored a batch at a time and the scores put on disk, so that memory is bounded and a run that was killed
goes on where it stopped. The noise of a sequence is a function of the seed and its index alone. LPIPS and FVD are left
out: they need the weights of pretrained networks, which this project doesn't have.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import shlex
import shutil
import sys
import time
from typing import Literal

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from files.config import Config
from files.data import MOVING_MNIST, make_dataset, simulate_futures
from files.model_svg import SVG, gaussian_kl
from files.scores import METRICS, REFERENCES, Scores, frame_table, quality, sequence_table, table_rows

PSNR_CAP = 10 * np.log10(12 * 255**2)  # dB; the error of rounding to 8 bits, where equal frames would give infinity
SHOWN = 4  # sequences whose futures are kept as video
SHOWN_SAMPLES = 3  # of them, samples kept beside the best and the worst
VARIANCE_BATCHES = 16  # of 16 training sequences, to which the variance of the likelihood is fitted
TRAVERSAL = np.linspace(-3, 3, 7)  # standard deviations of the prior
TRAVERSAL_DIMENSIONS, TRAVERSAL_FRAMES = 10, 5


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, and on what; the defaults are the published protocol for Stochastic Moving MNIST.

    Raises ValueError, naming the field, for a count below 1.
    """

    checkpoint: pathlib.Path
    """Folder of the model, under checkpoints/."""
    name: str | None = None
    """Results go to results/NAME; by default the name of the checkpoint's folder."""
    data: str | None = None
    """Test set: a dataset's name, or an .npy or .npz file of videos [N, T, H, W(, C)], which is used whole unless it
    has an array called test. By default the test split of the model's own data."""
    split: Literal["test", "val"] = "test"
    """Sequences to score; val are those held out from training, for choosing between models."""
    n_future: int = 20
    """Frames predicted (published: 20 for Stochastic Moving MNIST, 28 for BAIR, 30 for KTH)."""
    n_samples: int = 100
    """Samples of which the best is chosen."""
    n_sequences: int = 5000
    """Sequences; fewer where the test set has fewer."""
    n_importance: int = 10
    """Posterior samples of the importance-weighted bound."""
    seed: int = 0
    """Seed of the noise."""
    batch_size: int = 4
    """Sequences whose samples are in memory at once: memory grows with batch_size * n_samples."""
    results: pathlib.Path = pathlib.Path("results")
    """Folder of all results."""

    def __post_init__(self) -> None:
        for name in ("n_future", "n_samples", "n_sequences", "n_importance", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")

    @property
    def folder(self) -> pathlib.Path:
        """Where the results go."""
        return self.results / (self.name or self.checkpoint.resolve().name)

    @property
    def command(self) -> str:
        """The command line that repeats this evaluation."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        words = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return shlex.join(["python", "-m", "files", "evaluate", *words])


def evaluate(options: EvaluateOptions) -> dict:
    """Evaluates a checkpoint and writes `metrics.json`, `per_frame.csv`, `per_sequence.csv` and `samples.npz`.

    Returns what stands in `metrics.json`. The same options give the same figures whatever the batch size, up to the
    rounding of convolutions.

    Raises FileNotFoundError for a checkpoint or file that isn't there, ValueError for one that doesn't fit.
    """
    model = SVG.load(options.checkpoint)
    config = model.config.replace(data=options.data or model.config.data)
    count = min(options.n_sequences, len(open_test_set(config, options, batch_size=1)))
    weights = weights_hash(model)
    parts = options.folder / f"parts-{run_hash(config, options, weights)}"
    score_sequences(model, config, options, count, parts)
    scores = read_parts(parts, count)

    rows, variance = table_rows(scores), fit_variance(model)
    per_frame, per_sequence = frame_table(rows, scores, config.n_past), sequence_table(rows, scores, variance)
    metrics = {
        "command": options.command,
        "n_sequences": count,
        "n_samples": options.n_samples,
        "n_past": config.n_past,
        "n_future": options.n_future,
        "seed": options.seed,
        **quality(rows, scores, per_sequence, config.n_past),
        "variance": variance,
        "n_importance": options.n_importance,
        "data": config.data,
        "split": options.split,
        "data_sha256": hashlib.sha256(scores["sha256"].tobytes()).hexdigest(),
        "weights_sha256": weights,
        "config": dataclasses.asdict(model.config),
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy", "pandas")},
        "python": platform.python_version(),
        "hardware": hardware(),
        "batch_size": options.batch_size,
        "seconds": scores["seconds"].sum(),
        "peak_memory_bytes": peak_memory(),
    }
    metrics = keras.tree.map_structure(finite_or_none, metrics)

    per_frame.to_csv(options.folder / "per_frame.csv", index=False, float_format="%.6g")
    per_sequence.to_csv(options.folder / "per_sequence.csv", index=False, float_format="%.6g")
    np.savez_compressed(options.folder / "samples.npz", **shown_arrays(model, scores))
    (options.folder / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    for unfinished in options.folder.glob("parts-*"):
        shutil.rmtree(unfinished)
    print(summary(metrics))
    return metrics


# Scoring a batch of sequences ---------------------------------------------------------------------------------------


def open_test_set(config: Config, options: EvaluateOptions, **kwargs) -> tf.data.Dataset:
    """The test sequences of n_past + n_future frames; for Moving MNIST with their trajectories."""
    return make_dataset(
        config,
        options.split,
        n_frames=config.n_past + options.n_future,
        trajectories=config.data in MOVING_MNIST,
        whole=options.data is not None,
        **kwargs,
    )


def score_sequences(model: SVG, config: Config, options: EvaluateOptions, count: int, parts: pathlib.Path) -> None:
    """Scores the sequences that `parts` doesn't hold yet, a file per batch, written whole or not at all."""
    parts.mkdir(parents=True, exist_ok=True)
    done = max((int(path.stem.split("-")[1]) for path in parts.glob("*.npz")), default=0)
    if done >= count:
        return
    progress = keras.utils.Progbar(count - done, unit_name="sequence")
    for batch in open_test_set(config, options, start=done, count=count - done, batch_size=options.batch_size):
        started = time.perf_counter()
        batch = batch if isinstance(batch, dict) else {"video": batch}
        scores = score_batch(model, config, batch, options, done)
        size = len(batch["video"])
        scores["seconds"] = np.full(size, (time.perf_counter() - started) / size)
        writing = parts / "writing"
        with writing.open("wb") as file:
            np.savez(file, **scores)
        os.replace(writing, parts / f"{done:08d}-{done + size:08d}.npz")
        done += size
        progress.add(size)


def read_parts(parts: pathlib.Path, count: int) -> Scores:
    """The scores of the first `count` sequences, on the leading axis."""
    loaded = [dict(np.load(path)) for path in sorted(parts.glob("*.npz"))]
    return {name: np.concatenate([part[name] for part in loaded])[:count] for name in loaded[0]}


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
    `sha256` [B, 32], and for the sequences to be shown their `shown_...` videos [., F or T, H, W, C], uint8.
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
    )
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
    return scores


def to_8_bits(video: tf.Tensor) -> tf.Tensor:
    """Rounded as in an image file, still in [0, 1]."""
    return tf.round(video * 255.0) / 255.0


@tf.function
def frame_scores(predictions: tf.Tensor, future: tf.Tensor) -> dict[str, tf.Tensor]:
    """PSNR in dB, at most PSNR_CAP, and SSIM, each [B, N, F], of predictions [B, N, F, H, W, C] of [B, F, H, W, C]."""

    def of_sequence(pair):
        return tf.image.psnr(*pair, 1.0), graph_ssim(*pair)

    psnr, ssim = tf.map_fn(of_sequence, (predictions, future), fn_output_signature=(tf.float32, tf.float32))
    return {"psnr": tf.minimum(psnr, PSNR_CAP), "ssim": ssim}


def graph_ssim(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """`tf.image.ssim(a, b, 1.0)` of images [..., H, W, C] -> [...], with NumPy's broadcasting.

    Window and constants are those of Wang et al. (2004). The window is separable, and two matrix products are four
    times as fast on a CPU as the convolution of 11 x 11 in `tf.image.ssim`, which took half of an evaluation's time.
    """

    def window(size):  # [size - 10, size]: row i is centred on pixel i + 5
        offset = np.arange(size) - np.arange(size - 10)[:, None] - 5
        weights = np.where(np.abs(offset) <= 5, np.exp(-0.5 * (offset / 1.5) ** 2), 0)
        return tf.constant(weights / weights.sum(1, keepdims=True), tf.float32)

    def mean(x):
        return tf.einsum("ih,...hwc,jw->...ijc", window(x.shape[-3]), x, window(x.shape[-2]))

    mean_a, mean_b, c1, c2 = mean(a), mean(b), 0.01**2, 0.03**2
    covariance = mean(a * b) - mean_a * mean_b
    variances = mean(a**2) - mean_a**2 + mean(b**2) - mean_b**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return tf.reduce_mean(luminance * (2 * covariance + c2) / (variances + c2), [-3, -2, -1])


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
        out = model(video, posterior_noise=epsilon, teacher_forcing=1.0)  # whatever the training's, this is the bound
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


def fit_variance(model: SVG) -> float:
    """The variance of the Gaussian likelihood that maximises the ELBO on training data: the mean squared error.

    NaN, with a note, where the training data isn't there.
    """
    try:
        videos = make_dataset(model.config, "train", count=VARIANCE_BATCHES * 16, batch_size=16)
    except FileNotFoundError:
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
    file = pathlib.Path(config.data)
    same = {name: getattr(options, name) for name in ("data", "split", "n_future", "n_samples", "n_importance", "seed")}
    same |= {"config": dataclasses.asdict(config), "weights": weights}
    same["code"] = pathlib.Path(__file__).read_text()  # it decides which scores a part holds
    same["file"] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]


def hardware() -> dict:
    """Processor, cores and accelerators."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {"processor": names[0] if names else platform.processor(), "cores": os.cpu_count(), "gpus": gpus}


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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

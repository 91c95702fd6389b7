"""The evaluation: best of N samples beside reference rows, digits kept, the quality of the uncertainty, and the bound.

Sequences are scored a batch at a time and the scores put on disk, so that memory is bounded and a run that was killed
goes on where it stopped. The noise of a sequence is a function of the seed and its index alone.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import shlex
import shutil
import time
from typing import Literal

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from files import protocols
from files.checks import check_number, check_whole
from files.config import MOVING_MNIST, Config
from files.data import make_dataset, open_data, print_found
from files.device import device_line, hardware, peak_memory
from files.digits import KEPT, digits_kept
from files.durable import only_process, replacing
from files.folders import fingerprint
from files.fvd import VideoNet, video_distance
from files.model_svg import MAX_TEMPERATURE, SVG
from files.parts import gaps, read_parts
from files.perceptual import Distance, load_lpips
from files.protocols import Name as ProtocolName
from files.scores import Scores, frame_table, quality, sequence_table, table_rows
from files.scoring import importance_noise, references, samples_of, score_batch, to_8_bits
from files.train import run_folder
from files.videos import BAIR, KTH, NoSplitError

MNIST_FUTURE, PUBLISHED_FUTURE = 20, {KTH: 30, BAIR: 28}  # frames predicted in the published tests
SHOWN = 4  # sequences whose futures are kept as video
SHOWN_SAMPLES = 3  # of them, samples kept beside the best and the worst
VARIANCE_BATCHES = 16  # of 16 training sequences, to which the variance of the likelihood is fitted
TRAVERSAL = np.linspace(-3, 3, 7)  # standard deviations of the prior
TRAVERSAL_DIMENSIONS, TRAVERSAL_FRAMES = 10, 5
COLUMNS = {"psnr": "PSNR [dB]", "ssim": "SSIM", "lpips": "LPIPS", "kept": "digits kept", "distance": "pixels off"}
CODE = ("evaluate.py", "scoring.py", "scores.py", "digits.py", "protocols.py")  # decides which scores a part holds


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, and on what; the defaults are the published protocol for Stochastic Moving MNIST.

    Raises ValueError, naming the field, for a count below 1, a seed or temperature below 0, a split that the protocol
    doesn't take, or a layer of no network.
    """

    checkpoint: pathlib.Path | None = None
    """Folder of the model, under checkpoints/; or name it, or several to compare, without an option."""
    name: str | None = None
    """Results go to results/NAME, by default the name of the checkpoint's folder; those of another data set or split
    to a folder of their own in it."""
    data: str | None = None
    """Test set: a dataset's name, or the path of videos, which are all used unless they are divided into splits. By
    default the test split of the model's own data."""
    protocol: ProtocolName | None = None
    """A published test, to the letter: decides data, frames, samples and sequences, and prints the literature's figures
    beside ours. Results go to a folder of its name."""
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
    lpips: bool = False
    """Score LPIPS, too, with the package `lpips` (pip install lpips; it brings PyTorch and AlexNet's weights)."""
    fvd_model: pathlib.Path | None = None
    """Network for the Fréchet video distance, I3D for a published one: a SavedModel's folder or a Keras file that takes
    videos [N, T, 224, 224, 3]."""
    fvd_layer: str | None = None
    """Layer, output or tensor of that network whose values are its features; by default its output. The original's is
    RGB/inception_i3d/Mean:0."""
    fvd_range: tuple[float, float] = (-1.0, 1.0)
    """What that network takes for black and white."""
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
        check_whole(0, seed=self.seed)
        check_number(0, MAX_TEMPERATURE, temperature=self.temperature)
        if self.fvd_layer and not self.fvd_model:
            raise ValueError(f"fvd_layer is {self.fvd_layer}, but there is no fvd_model to take it from")
        if self.protocol and self.split != "test":
            raise ValueError(f"protocol {self.protocol} is one of the test split; expected no --split {self.split}")

    @property
    def folder(self) -> pathlib.Path:
        """Where the results go: one folder for each checkpoint, protocol or data set, split and
        temperature.
        """
        words = [self.protocol] if self.protocol else [] if self.data is None else [data_label(self.data)]
        words += [] if self.split == "test" else [self.split]
        words += [] if self.temperature == 1 else [f"temperature-{self.temperature:g}"]
        return run_folder(self.results, self.checkpoint.resolve().name if self.name is None else self.name).joinpath(
            *words
        )

    @property
    def command(self) -> str:
        """The command line that repeats this evaluation."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        words = ["python", "-m", "files", "evaluate"]
        for name, value in values.items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words += [f"--{option}", *map(str, value if isinstance(value, tuple) else [value])]
        return shlex.join(words)


def data_label(data: str) -> str:
    """A data set as the name of a folder; files of the same name in different places have different ones."""
    if data in MOVING_MNIST:
        return data
    path = pathlib.Path(data).resolve()
    return f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def evaluate(options: EvaluateOptions, again: bool = True) -> dict:
    """Evaluates a checkpoint and writes `metrics.json`, `per_frame.csv`, `per_sequence.csv` and `samples.npz`.

    Returns what stands in `metrics.json`. The same options give the same figures whatever the batch size, up to the
    rounding of convolutions. An evaluation that was stopped goes on where it was; parts that are missing or damaged are
    scored again. One that has ended is repeated, unless `again` is False and its results are there.

    Raises FileNotFoundError for a checkpoint or file that isn't there, ValueError for one that doesn't fit, for samples
    that are no numbers, and while another process does the same evaluation.
    """
    if options.checkpoint is None:
        raise ValueError("no checkpoint to evaluate; expected a folder under checkpoints/")
    model = SVG.load(options.checkpoint, options.precision)
    if options.protocol:
        options = dataclasses.replace(options, **protocols.settled(options, model.config.data))
    config = model.config.replace(data=options.data or model.config.data)
    options = dataclasses.replace(options, n_future=options.n_future or published_future(config, options))
    if options.protocol:
        protocols.check_protocol(options.protocol, config, layout_of(config, options))
    lpips = load_lpips() if options.lpips else None  # before hours of scoring
    print_found(config, options.split, n_frames=config.n_past + options.n_future, **how_to_open(options))
    count = min(options.n_sequences, len(open_test_set(config, options, batch_size=1)))
    print(f"{options.checkpoint}: {count} sequences, {device_line(options.precision)}")
    net = load_video_net(config, options, count) if options.fvd_model else None
    weights = weights_hash(model)
    run = run_hash(config, options, weights)
    if not again and (found := finished(options.folder, run, count, net)):
        print(f"{options.folder} has it already")
        return found
    parts = options.folder / f"parts-{run}"
    with only_process(parts.with_suffix(".lock"), f"writing {parts}"):
        scores = score_sequences(model, config, options, count, parts, lpips)
        fvd = video_distance(net, first_samples(model, config, options, count)) if net else None
        metrics = write_results(model, config, options, scores, run, weights, fvd)
        removing = parts.with_name(f"removing-{parts.name}")  # at once: whoever is killed leaves no half of the parts
        shutil.rmtree(removing, ignore_errors=True)
        parts.rename(removing)
        shutil.rmtree(removing)
    parts.with_suffix(".lock").unlink(missing_ok=True)
    print(summary(metrics))
    return metrics


def load_video_net(config: Config, options: EvaluateOptions, count: int) -> VideoNet:
    """The network for FVD, tried on two black videos: what doesn't fit is said before hours of scoring."""
    if count < 2:
        raise ValueError(f"the test set has {count} sequence; FVD needs at least 2, for a covariance")
    net = VideoNet(options.fvd_model, options.fvd_layer, options.fvd_range)
    net(tf.zeros([2, config.n_past + options.n_future, config.image_size, config.image_size, config.channels]))
    return net


def finished(folder: pathlib.Path, run: str, count: int, net: VideoNet | None) -> dict | None:
    """The `metrics.json` of just this evaluation, if it has ended."""
    path = folder / "metrics.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    if (found.get("run"), found.get("n_sequences")) != (run, count):
        return None
    same_fvd = (found["fvd"] or {}).items() >= net.identity.items() if net else not found["fvd"]
    return found if same_fvd else None


def write_results(
    model: SVG,
    config: Config,
    options: EvaluateOptions,
    scores: Scores,
    run: str,
    weights: str,
    fvd: dict | None = None,
) -> dict:
    """Writes the four files of an evaluation, `metrics.json` last, and returns what stands in it."""
    rows, variance = table_rows(scores), fit_variance(model, options.store)
    per_frame = frame_table(rows, scores, config.n_past)
    per_sequence = sequence_table(rows, scores, variance, config.image_size**2 * config.channels)
    metrics = {
        "command": options.command,
        "run": run,
        "n_sequences": len(scores["index"]),
        "n_samples": options.n_samples,
        "n_past": config.n_past,
        "n_future": options.n_future,
        "seed": options.seed,
        "temperature": options.temperature,
        **quality(rows, scores, per_sequence, config.n_past),
        "fvd": fvd,
        **({"protocol": protocols.protocol_results(options.protocol, scores)} if options.protocol else {}),
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
        np.savez_compressed(file, **shown_arrays(model, config, options, scores))
    with replacing(options.folder / "metrics.json") as writing:
        writing.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics


# All sequences, a batch at a time -----------------------------------------------------------------------------------


def how_to_open(options: EvaluateOptions) -> dict:
    """Data that is given is used whole; its decoded videos are kept where the options say."""
    return {"whole": options.data is not None, "store": options.store}


def published_future(config: Config, options: EvaluateOptions) -> int:
    """Frames that are predicted by default: as many as published, or as in training."""
    if config.data in MOVING_MNIST:
        return MNIST_FUTURE
    return PUBLISHED_FUTURE.get(layout_of(config, options), config.n_future)


def layout_of(config: Config, options: EvaluateOptions) -> str | None:
    """What kind of videos the data is; None for Moving MNIST, which is made."""
    if config.data in MOVING_MNIST:
        return None
    return open_data(config, options.split, config.n_past + 1, **how_to_open(options)).table.layout


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


def score_sequences(
    model: SVG,
    config: Config,
    options: EvaluateOptions,
    count: int,
    parts: pathlib.Path,
    lpips: Distance | None = None,
) -> Scores:
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
            scores = score_batch(model, config, batch, options, start, lpips)
            size = len(batch["video"])
            scores["seconds"] = np.full(size, (time.perf_counter() - started) / size)
            with replacing(parts / f"{start:08d}-{start + size:08d}.npz") as writing, writing.open("wb") as file:
                np.savez(file, **scores)
            kept[start, start + size] = scores
            start += size
            progress.add(size)
    in_order = [kept[part] for part in sorted(kept)]
    return {name: np.concatenate([part[name] for part in in_order])[:count] for name in in_order[0]}


def first_samples(model: SVG, config: Config, options: EvaluateOptions, count: int):
    """Pairs of true and generated videos [B, T, H, W, C], the first sample of each sequence, given frames included."""
    one, start = dataclasses.replace(options, n_samples=1), 0
    for batch in open_test_set(config, options, count=count, batch_size=options.batch_size):
        video = batch["video"] if isinstance(batch, dict) else batch
        past, indices = video[:, : config.n_past], range(start, start + len(video))
        yield video, tf.concat([past, to_8_bits(samples_of(model, past, one, indices)[:, 0])], 1)
        start += len(video)


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


def shown_arrays(model: SVG, config: Config, options: EvaluateOptions, scores: Scores) -> dict[str, np.ndarray]:
    """`samples.npz`: the futures to be shown, uint8, what is known of these sequences, and a traversal.

    The sequences are chosen by their mean share of digits kept, or else by the mean SSIM of their samples, as quantiles
    of all: neither the best nor the worst. They are sampled again, with the same noise.
    """
    order = np.argsort(ranked_by(scores), kind="stable")
    at = np.round((np.arange(SHOWN) + 0.5) / SHOWN * len(order) - 0.5).astype(int)
    chosen = order[np.unique(np.clip(at, 0, len(order) - 1))]
    futures = [shown_futures(model, config, options, scores, k) for k in chosen]
    arrays = {name: np.concatenate([future[name] for future in futures]) for name in futures[0]}
    arrays |= {name: scores[name][chosen] for name in ("index", "prior_sigma", "bounced")}
    arrays["rank"] = (np.argsort(order)[chosen] + 0.5) / len(order)
    if model.z_dim:
        undecided = arrays["prior_sigma"][:, model.config.n_past - 1].argmax()  # there z matters most
        past = arrays["truth"][undecided : undecided + 1, : model.config.n_past] / np.float32(255)
        arrays |= {"traversal": traverse(model, past), "traversal_values": TRAVERSAL}
    return arrays


def ranked_by(scores: Scores) -> np.ndarray:
    """By which sequences are chosen to be shown, [S]."""
    if "explained_samples" in scores:
        return (scores["explained_samples"] > KEPT).mean((1, 2))
    return scores["ssim"].mean((1, 2))


def shown_futures(model: SVG, config: Config, options: EvaluateOptions, scores: Scores, k: int) -> dict:
    """The futures of the k-th sequence, uint8 with a leading axis of 1: best and worst by SSIM, and the first ones."""
    index = int(scores["index"][k])
    batch = next(iter(open_test_set(config, options, start=index, count=1, batch_size=1)))
    video = batch["video"] if isinstance(batch, dict) else batch
    samples = samples_of(model, video[:, : config.n_past], options, [index])
    rows = references(model, video, importance_noise(model, video, options, [index])[:, 0])
    over_time = scores["ssim"][k].mean(-1)
    futures = {
        "truth": video,
        "posterior": rows["posterior"],
        "own_frames": rows["own_frames"],
        "best": samples[:, over_time.argmax()],
        "worst": samples[:, over_time.argmin()],
        "samples": samples[:, :SHOWN_SAMPLES],
    }
    futures = {name: np.round(np.asarray(value) * 255).astype(np.uint8) for name, value in futures.items()}
    if isinstance(batch, dict):  # frames of each that keep their digits, [1] or [1, n]
        true = batch["digit"][0], batch["position"][0, config.n_past :]
        for name in [name for name in futures if name != "truth"]:
            kept, _ = digits_kept(futures[name].reshape(-1, *futures[name].shape[-4:]) / np.float32(255), *true)
            futures[f"kept_{name}"] = kept.sum(1).reshape(futures[name].shape[:-4])
    return futures


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
        for name in (
            "data",
            "lpips",
            "protocol",
            "split",
            "n_future",
            "n_samples",
            "n_importance",
            "seed",
            "temperature",
            "precision",
        )
    }
    same |= {"config": dataclasses.asdict(config), "weights": weights}
    same["code"] = [pathlib.Path(__file__).with_name(name).read_text() for name in CODE]
    same["files"] = None if config.data in MOVING_MNIST else fingerprint(pathlib.Path(config.data).expanduser())
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]


def finite_or_none(value):
    """For JSON, which has neither NaN nor NumPy's numbers."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def summary(metrics: dict) -> str:
    """`metrics.json` as text: a row per kind of prediction, with 95 % intervals; then remarks and the protocol's table.

    The horizon, frames given and predicted, stands above.
    """
    rows = {
        protocols.TITLES.get(row, row): {name: cell(value) for name, value in values.items()}
        for row, values in metrics["table"].items()
    }
    names = {
        "psnr": "PSNR [dB]",
        "ssim": "SSIM",
        "lpips": "LPIPS",
        "kept": "digits kept",
        "distance": "off by [pixels]",
    }
    table = pd.DataFrame(rows).T.rename(columns=names).fillna("")
    lines = [f"{metrics['n_past']} frames given, {metrics['n_future']} predicted", table.to_string()]
    brightness = metrics["brightness"]
    if brightness["ratio"] is not None:  # the truth isn't black
        lines.append(
            f"In the last frame the samples have {brightness['ratio']:.2f} of the truth's brightness, "
            f"{brightness['faded']['mean']:.0%} of them less than half."
        )
    if "digits" in metrics:
        missed, false = (metrics["digits"][name] for name in ("missed", "false"))
        lines.append(
            f"Digits count as kept if more than {metrics['digits']['threshold']:g} of each is explained. That misses "
            f"{missed['truth']:.1%} of the true frames and {missed['posterior']:.1%} of the posterior's; it takes "
            f"{false['other_digits']:.1%} of frames of other digits for the true ones, and "
            f"{false['digit_missing']:.1%} of those in which one is missing."
        )
    if metrics["fvd"]:
        lines.append(f"FVD {metrics['fvd']['value']:.4g} ({metrics['fvd']['network']}; {metrics['fvd']['remark']})")
    if "protocol" in metrics:
        lines += ["", protocols.protocol_table(metrics["protocol"], metrics["n_sequences"])]
    return "\n".join(lines)


def cell(value: dict) -> str:
    """Mean and interval."""
    return "" if value["mean"] is None else f"{value['mean']:.4f} ± {value['interval'] or 0:.4f}"

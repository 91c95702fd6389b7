"""The published evaluation protocols by name, each to the letter, and the literature's figures beside ours.

Figures in this field depend on details: five frames more cost SRVP 0.87 dB on the same weights. So every protocol says
how many frames are given and predicted, how a frame's score is computed and what is averaged before the best of the
samples is chosen, which is always done per metric and per sequence.
"""

import dataclasses
import json
import pathlib
from typing import Literal

import pandas as pd
import tensorflow as tf

from files.config import MOVING_MNIST, Config
from files.ops import has_gpu
from files.scores import METRICS, REFERENCES, Scores, mean_interval
from files.utils import graph_ssim
from files.videos import BAIR, KTH

PUBLISHED = pathlib.Path(__file__).parent.parent / "results" / "published.json"
TITLES = {"own_frames": "own frames, posterior z"}
HIGHEST = 100.0  # dB, for frames that are equal to the last bit


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A published test: its data, its numbers, and how the authors' code scores a sample; none rounds to 8 bits."""

    data: str
    """Moving MNIST's variant, or the layout of the videos."""
    n_past: int
    """Frames given."""
    n_future: int
    """Frames predicted, over all of which scores are averaged."""
    n_samples: int
    """Samples of which the best is chosen."""
    n_sequences: int
    """Test sequences."""
    temperature: float = 1.0
    """Of the prior: what it has learned."""
    psnr: Literal["per frame", "of all frames"] = "per frame"
    """Per frame and channel, then averaged; or from the error averaged over frames."""
    ssim: Literal["gaussian", "uniform", "black and white"] = "gaussian"
    """Window of 11 x 11, sigma 1.5, data range 1; scikit-image's default of 7 x 7, with the data range of 2 that its
    old versions took for floats; or the first one, on frames rounded to 0 or 1."""


PROTOCOLS = {
    "srvp-smmnist": Protocol("smmnist_srvp", 5, 20, 100, 5000),
    "svg-smmnist": Protocol("smmnist", 5, 20, 100, 256, ssim="uniform"),  # curves are published, no table
    "srvp-kth": Protocol(KTH, 10, 30, 100, 1000),
    "srvp-bair": Protocol(BAIR, 2, 28, 100, 256),
    "mcvd-smmnist": Protocol("smmnist", 5, 10, 10, 256, psnr="of all frames", ssim="black and white"),
}
Name = Literal["srvp-smmnist", "svg-smmnist", "srvp-kth", "srvp-bair", "mcvd-smmnist"]


def check_protocol(name: str, config: Config, layout: str | None) -> None:
    """Raises ValueError where the model, or the `layout` of its videos, isn't what the protocol asks for."""
    protocol = PROTOCOLS[name]
    if config.n_past != protocol.n_past:
        raise ValueError(f"protocol {name} gives {protocol.n_past} frames; this model conditions on {config.n_past}")
    expected = protocol.data in MOVING_MNIST and config.data == protocol.data
    if not expected and layout not in (protocol.data, "array of videos"):
        raise ValueError(f"protocol {name} is one for {protocol.data}; the data is {config.data} ({layout or 'made'})")


@tf.function(reduce_retracing=True)
def protocol_scores(protocol: Protocol, predictions: tf.Tensor, future: tf.Tensor) -> dict[str, tf.Tensor]:
    """PSNR in dB and SSIM, each [B, N], of predictions [B, N, F, H, W, C] of [B, F, H, W, C], averaged over time."""

    def of_sequence(pair):
        a, b = pair
        error = tf.reduce_mean(tf.math.squared_difference(a, b), [-3, -2])  # [N, F, C]
        if protocol.psnr == "of all frames":
            error = tf.reduce_mean(error, [1, 2], keepdims=True)
        decibel = -10 * tf.math.log(tf.maximum(error, 10 ** (-HIGHEST / 10))) / tf.math.log(10.0)
        if protocol.ssim == "black and white":
            a, b = tf.round(a), tf.round(b)
        # A GPU's float32 product keeps 10 bits (TF32), of which SSIM's differences of squares would leave none.
        a, b = (tf.cast(video, tf.float64 if has_gpu() else tf.float32) for video in (a, b))
        similarity = graph_ssim(a, b, "uniform", 2.0) if protocol.ssim == "uniform" else graph_ssim(a, b)
        return tf.reduce_mean(decibel, [1, 2]), tf.cast(tf.reduce_mean(similarity, 1), tf.float32)

    scores = tf.map_fn(of_sequence, (predictions, future), fn_output_signature=(tf.float32, tf.float32))
    return dict(zip(METRICS, scores, strict=True))


def protocol_results(name: str, scores: Scores) -> dict:
    """What `metrics.json` holds of a protocol: its settings, our rows with 95 % intervals, and the literature's."""
    rows = {
        "best": {metric: scores[f"protocol_{metric}"].max(1) for metric in METRICS},
        "mean": {metric: scores[f"protocol_{metric}"].mean(1) for metric in METRICS},
    }
    rows |= {row: {metric: scores[f"protocol_{metric}_{row}"] for metric in METRICS} for row in REFERENCES}
    if "lpips" in scores:  # of predictions rounded to 8 bits, as the best of N per sequence
        over_time = scores["lpips"].mean(-1)
        rows["best"]["lpips"], rows["mean"]["lpips"] = over_time.min(1), over_time.mean(1)
    return {
        "name": name,
        **dataclasses.asdict(PROTOCOLS[name]),
        "table": {row: {m: mean_interval(values) for m, values in of_row.items()} for row, of_row in rows.items()},
        "published": json.loads(PUBLISHED.read_text())[name],
    }


def protocol_table(results: dict, n_sequences: int) -> str:
    """The protocol's table as text: our rows, then the literature's, each with its horizon and its source."""
    horizon = f"{results['n_past']} -> {results['n_future']}"
    titles = TITLES | {"best": f"best of {results['n_samples']}"}
    rows = [
        {
            "row": titles.get(row, row),
            "frames": horizon,
            **{name: f"{v['mean']:.4f} ± {v['interval'] or 0:.4f}" for name, v in values.items()},
            "source": "here",
        }
        for row, values in results["table"].items()
    ]
    for model in results["published"]["rows"]:
        figures = {name: model[name] for name in ("psnr", "ssim", "lpips", "fvd") if name in model}
        rows.append({"row": model["model"], "frames": horizon, **figures, "source": model["source"]})
    text = pd.DataFrame(rows).fillna("").to_string(index=False)
    lines = [f"Protocol {results['name']}, {results['published']['remark']}", text]
    if n_sequences != results["n_sequences"]:
        lines.append(f"{n_sequences} of {results['n_sequences']} sequences: no figures to be compared with others.")
    return "\n".join(lines)


def settled(options, own_data: str) -> dict:
    """What a protocol decides of the options of an evaluation, of a model trained on `own_data`.

    Raises ValueError for options that ask for something else; fewer sequences are taken, and a remark says so.
    """
    protocol, defaults = PROTOCOLS[options.protocol], type(options)()
    for name in ("n_future", "n_samples", "temperature"):
        asked, published = getattr(options, name), getattr(protocol, name)
        if asked not in (getattr(defaults, name), published):
            raise ValueError(f"{name} is {asked}; protocol {options.protocol} has {published}: leave it out")
    data = options.data
    if data is None and protocol.data in MOVING_MNIST and protocol.data != own_data:
        data = protocol.data
    return {
        "data": data,
        "n_future": protocol.n_future,
        "n_samples": protocol.n_samples,
        "n_sequences": min(options.n_sequences, protocol.n_sequences),
    }

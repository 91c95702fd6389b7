"""Sampling from a checkpoint: futures of test videos as a film strip, an animation or arrays."""

import dataclasses
import pathlib

import numpy as np

from files.config import MOVING_MNIST, Config
from files.data import load_videos, make_dataset
from files.device import device_line
from files.model_svg import SVG
from files.utils import film_strip, save_gif


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """Which futures to sample from which checkpoint, and where to write them."""

    checkpoint: pathlib.Path
    """Folder under checkpoints/."""
    n_samples: int = 5
    """Futures of each video."""
    n_future: int | None = None
    """Frames to predict; by default those of training."""
    video: int = 0
    """Index of the test video."""
    data: str | None = None
    """Another dataset, or a file of videos, all of which can be chosen; by default the test videos of training."""
    seed: int = 0
    """Seed of the noise; the same seed gives the same futures."""
    out: pathlib.Path = pathlib.Path("figs/samples.gif")
    """File to write: .gif (animation), .png (film strip) or .npz (arrays `truth` and `samples`)."""


def sample(options: SampleOptions) -> np.ndarray:
    """Samples futures of one test video, writes them and returns them [N, T, H, W, C].

    Raises FileNotFoundError for a missing checkpoint or data file, ValueError for anything that doesn't fit.
    """
    if options.out.suffix not in (".gif", ".png", ".npz"):
        raise ValueError(f"can't write {options.out}; expected a name ending in .gif, .png or .npz")
    model = SVG.load(options.checkpoint, **({"data": options.data} if options.data else {}))
    n_past, n_future = model.config.n_past, options.n_future or model.config.n_future
    print(f"{options.checkpoint}: {device_line('float32')}")
    truth = read_video(model.config, options, n_past + n_future)
    samples = model.generate(truth[None, :n_past], n_future, options.n_samples, options.seed).numpy()[0]

    options.out.parent.mkdir(parents=True, exist_ok=True)
    # A video of fewer frames than are predicted has no row of its own: there is no truth to compare with.
    rows = {"ground truth": truth} if len(truth) == n_past + n_future else {}
    rows |= {f"sample {n}": np.concatenate([truth[:n_past], future]) for n, future in enumerate(samples, 1)}
    if options.out.suffix == ".npz":
        np.savez_compressed(options.out, truth=truth, samples=samples)
    elif options.out.suffix == ".gif":
        save_gif(options.out, rows, n_past)
    else:
        film_strip(rows, n_past).savefig(options.out)
    print(f"wrote {options.out}: {options.n_samples} futures of {n_future} frames")
    return samples


def read_video(config: Config, options: SampleOptions, n_frames: int) -> np.ndarray:
    """The video that was asked for, [T, H, W, C]: its first `n_frames`, or, where it is shorter, all that it has.

    Raises ValueError when there is no video of that number.
    """
    whole = options.data is not None
    if config.data not in MOVING_MNIST:
        n_frames = max(config.n_past, min(n_frames, load_videos(config.data, "test", whole).shape[1]))
    count = len(make_dataset(config, "test", batch_size=1, n_frames=n_frames, whole=whole))
    if not 0 <= options.video < count:
        raise ValueError(f"video is {options.video}; there are {count}, counted from 0: expected 0 to {count - 1}")
    one = dict(batch_size=1, n_frames=n_frames, start=options.video, count=1, whole=whole)
    return next(iter(make_dataset(config, "test", **one))).numpy()[0]

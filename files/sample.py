"""Sampling from a checkpoint: futures of test videos as a film strip, an animation or arrays."""

import dataclasses
import pathlib

import numpy as np

from files.data import make_dataset
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
    """Another dataset, or a file of videos; by default that of training."""
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
    videos = make_dataset(model.config, "test", batch_size=1, n_frames=n_past + n_future, start=options.video, count=1)
    truth = next(iter(videos)).numpy()
    samples = model.generate(truth[:, :n_past], n_future, options.n_samples, options.seed).numpy()[0]

    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = {"ground truth": truth[0]}
    rows |= {f"sample {n}": np.concatenate([truth[0, :n_past], future]) for n, future in enumerate(samples, 1)}
    if options.out.suffix == ".npz":
        np.savez_compressed(options.out, truth=truth[0], samples=samples)
    elif options.out.suffix == ".gif":
        save_gif(options.out, rows, n_past)
    else:
        film_strip(rows, n_past).savefig(options.out)
    print(f"wrote {options.out}: {options.n_samples} futures of {n_future} frames")
    return samples

"""Sampling from a checkpoint: futures of test videos as a film strip, an animation or arrays."""

import dataclasses
import pathlib

import numpy as np

from files.checks import check_whole
from files.config import MOVING_MNIST, Config
from files.data import make_dataset, open_data
from files.device import device_line
from files.model_svg import MAX_COUNT, SVG
from files.utils import film_strip, save_gif
from files.videos import summary


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """Which futures to sample from which checkpoint, and where to write them.

    Raises ValueError, naming the field, for a count below 1.
    """

    checkpoint: pathlib.Path
    """Folder under checkpoints/."""
    n_samples: int = 5
    """Futures of each video."""
    n_future: int | None = None
    """Frames to predict; by default those of training."""
    video: int = 0
    """Number of the test video, counted from 0."""
    data: str | None = None
    """Another dataset, or the path of videos, all of which can be chosen; by default the test videos of training."""
    first: int | None = None
    """First given frame, counted from 0, or from the end if it is negative; by default that of the evaluation, but of
    DATA that is a single video the last frames are given."""
    store: str | None = None
    """Folder for decoded videos; by default DATA.frames beside the data."""
    seed: int = 0
    """Seed of the noise; the same seed gives the same futures."""
    temperature: float = 1.0
    """Factor on the prior's sigma: below 1 the futures differ less."""
    out: pathlib.Path = pathlib.Path("figs/samples.gif")
    """File to write: .gif (animation), .png (film strip) or .npz (arrays `truth` and `samples`)."""

    def __post_init__(self) -> None:
        check_whole(1, MAX_COUNT, n_samples=self.n_samples)
        if self.n_future is not None:
            check_whole(1, MAX_COUNT, n_future=self.n_future)


def sample(options: SampleOptions) -> np.ndarray:
    """Samples futures of one test video, writes them and returns them [N, T, H, W, C].

    Raises FileNotFoundError for a missing checkpoint or data file, ValueError for anything that doesn't fit.
    """
    if options.out.suffix not in (".gif", ".png", ".npz"):
        raise ValueError(f"can't write {options.out}; expected a name ending in .gif, .png or .npz")
    model = SVG.load(options.checkpoint, **({} if options.data is None else {"data": options.data}))
    n_past, n_future = model.config.n_past, options.n_future or model.config.n_future
    print(f"{options.checkpoint}: {device_line('float32')}")
    truth = read_video(model.config, options, n_future)
    samples = model.generate(
        truth[None, :n_past], n_future, options.n_samples, options.seed, temperature=options.temperature
    ).numpy()[0]

    options.out.parent.mkdir(parents=True, exist_ok=True)
    # A video that ends before the prediction does has no row of its own: there is no truth to compare with.
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


def read_video(config: Config, options: SampleOptions, n_future: int) -> np.ndarray:
    """The video that was asked for, [T, H, W, C]: the given frames and up to `n_future` that follow.

    Raises ValueError when there is no video of that number, or no such frames in it.
    """
    n_past, whole = config.n_past, options.data is not None
    if config.data in MOVING_MNIST:
        if options.first is not None:
            raise ValueError(f"first is {options.first}; {config.data} is made from its first given frame on")
        n_frames = n_past + n_future
        count = len(make_dataset(config, "test", batch_size=1, n_frames=n_frames))
        check_number(options.video, count)
        one = dict(batch_size=1, n_frames=n_frames, start=options.video, count=1)
        return next(iter(make_dataset(config, "test", **one))).numpy()[0]

    opened = open_data(config, "test", n_past, store=options.store, whole=whole)
    print(summary([opened.table]))
    check_number(options.video, len(opened.windows))
    which, first = opened.windows[options.video]
    length = opened.lengths[which]
    if options.first is not None:
        first = options.first + (length if options.first < 0 else 0)
        if not 0 <= first <= length - n_past:
            raise ValueError(
                f"first is {options.first}; {n_past} of {length} frames are given: expected 0 to {length - n_past}, or "
                f"{-length} to {-n_past}, counted from the end"
            )
    elif whole and len(opened.lengths) == 1:
        first = length - n_past
    frames = opened.read([which], [first], int(min(n_past + n_future, length - first)))[0]
    return frames / np.float32(255) if frames.dtype == np.uint8 else frames


def check_number(video: int, count: int) -> None:
    """Raises ValueError for a number that none of `count` videos has."""
    if not 0 <= video < count:
        raise ValueError(f"video is {video}; there are {count}, counted from 0: expected 0 to {count - 1}")

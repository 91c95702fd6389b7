"""Synthesised videos and data sets in the published layouts, for the tests and the benchmark."""

import io
import itertools
import pathlib
import zipfile
from collections.abc import Iterable

import av
import numpy as np
import tensorflow as tf

KTH_ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")


def moving_frames(count: int, width: int = 32, height: int = 24, seed: int = 0, grey: bool = False) -> np.ndarray:
    """Smooth random frames [T, H, W, 3], uint8, that move to the right, a pixel per frame."""
    rng = np.random.default_rng(seed)
    waves = rng.uniform(0.5, 3, (3, 2)).round() * 2 * np.pi
    y, x = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    shift = np.arange(count)[:, None, None] / width
    colours = [np.sin(a * (x - shift) + b * y + rng.uniform(0, 6)) for a, b in waves]
    frames = np.stack([colours[0]] * 3 if grey else colours, -1)
    return np.round(128 + 90 * frames).astype(np.uint8)


def write_clip(
    target: str | pathlib.Path | io.BytesIO,
    frames: np.ndarray,
    codec: str = "mpeg4",
    *,
    container: str | None = None,
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    times: Iterable[int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> None:
    """Encodes frames [T, H, W, 3 or 4]; `times` are their time stamps in ticks of 1 / `rate` s, for a variable rate."""
    with av.open(target if isinstance(target, io.BytesIO) else str(target), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        stream.bit_rate = 2_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        for frame, time in zip(frames, times if times is not None else itertools.count(), strict=False):
            picture = av.VideoFrame.from_ndarray(frame, "rgba" if frame.shape[-1] == 4 else "rgb24")
            picture.pts, picture.time_base = time, 1 / stream.average_rate
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def clip_bytes(frames: np.ndarray, container: str = "avi", **kwargs) -> bytes:
    """The same in memory."""
    buffer = io.BytesIO()
    write_clip(buffer, frames, container=container, **kwargs)
    return buffer.getvalue()


def make_kth(
    folder: pathlib.Path,
    persons: Iterable[int],
    frames: int | Iterable[int] = 50,
    *,
    actions: Iterable[str] = KTH_ACTIONS,
    ranges: dict[str, str] | None = None,
    zipped: bool = True,
    size: tuple[int, int] = (32, 24),
) -> dict[str, int]:
    """KTH as it is downloaded: a zip archive per action; returns the number of frames of each video.

    `frames` is the length of all videos, or the lengths that they have in turn; `ranges` are the lines of
    00sequences.txt by video, such as {"person01_boxing_d1": "1-20, 25-50"}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lengths = itertools.cycle([frames] if isinstance(frames, int) else list(frames))
    counts, clips = {}, {}
    for action in actions:
        members = {}
        for person, scenario in itertools.product(persons, range(1, 5)):
            name = f"person{person:02d}_{action}_d{scenario}"
            count = counts[name] = next(lengths)
            look = (count, (person + scenario) % 8)  # few are encoded, many are written
            clips[look] = clips.get(look) or clip_bytes(moving_frames(count, *size, seed=look[1], grey=True))
            members[f"{name}_uncomp.avi"] = clips[look]
        if zipped:
            with zipfile.ZipFile(folder / f"{action}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in members.items():
                    archive.writestr(name, data)
        else:
            (folder / action).mkdir(exist_ok=True)
            for name, data in members.items():
                (folder / action / name).write_bytes(data)
    if ranges is not None:
        lines = [f"{name}\t\tframes\t{listed}\n" for name, listed in ranges.items()]
        (folder / "00sequences.txt").write_text("a text before the list\n\n" + "".join(lines))
    return counts


def make_bair(
    folder: pathlib.Path, train_files: int = 2, test_files: int = 1, records: int = 4
) -> dict[str, np.ndarray]:
    """BAIR's softmotion30_44k; returns the frames of image_aux1 by split and file: uint8 [F, R, 30, 64, 64, 3]."""
    frames = {}
    for split, files in (("train", train_files), ("test", test_files)):
        target = folder / "softmotion30_44k" / split
        target.mkdir(parents=True)
        rng = np.random.default_rng(files)
        frames[split] = rng.integers(0, 256, (files, records, 30, 64, 64, 3), np.uint8)
        for k, videos in enumerate(frames[split]):
            with tf.io.TFRecordWriter(str(target / f"traj_{k * records}_to_{(k + 1) * records - 1}.tfrecords")) as out:
                for video in videos:
                    out.write(bair_example(video).SerializeToString())
    return frames


def bair_example(video: np.ndarray) -> tf.train.Example:
    """A record of BAIR's: frames [30, 64, 64, 3] of image_aux1, others of image_main, actions and positions."""
    features = {}
    for t, frame in enumerate(video):
        features[f"{t}/image_aux1/encoded"] = _bytes(frame)
        features[f"{t}/image_main/encoded"] = _bytes(255 - frame)
        features[f"{t}/action"] = tf.train.Feature(float_list=tf.train.FloatList(value=[0.0] * 4))
        features[f"{t}/endeffector_pos"] = tf.train.Feature(float_list=tf.train.FloatList(value=[0.0] * 3))
    return tf.train.Example(features=tf.train.Features(feature=features))


def _bytes(frame: np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[frame.tobytes()]))

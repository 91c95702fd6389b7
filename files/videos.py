"""Real videos: what a path holds, its splits, and the windows of frames that are drawn or evaluated.

`files/folders.py` finds videos, `files/decode.py` decodes and stores them; `files/arrays.py` and `files/bair.py` read
their layouts where they lie; `files/kth.py` knows KTH's names and ranges.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from files import arrays, bair, kth
from files.decode import PICTURE_SUFFIXES, VIDEO_SUFFIXES, FrameFormat, build_store, default_store, unique_name
from files.folders import SHARES, SPLITS, divide, find_videos, folder_split, named_split, part_of, parts_in_time

KTH, BAIR = "KTH actions", "BAIR robot pushing"  # layouts of which there are published tests
PACKED = (".tar", ".gz", ".tgz", ".rar", ".7z")


@dataclasses.dataclass(frozen=True)
class Table:
    """What was found, to be printed."""

    path: pathlib.Path
    layout: str
    rows: dict[str, tuple[int, int]]
    """Videos and frames of each split."""
    notes: tuple[str, ...]
    """What was skipped and why, where the frames are stored, and what else is worth knowing."""

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.layout}", f"{'split':8}{'videos':>10}{'frames':>12}"]
        lines += [f"{split:8}{videos:10,}{frames:12,}" for split, (videos, frames) in self.rows.items()]
        return "\n".join(lines + [f"- {note}" for note in self.notes])


def summary(tables: Sequence[Table]) -> str:
    """Tables of some splits of the same data as a line, and a line for each remark."""
    rows = {split: row for table in tables for split, row in table.rows.items()}
    found = [f"{split}: {n:,} video{'s' * (n != 1)}, {frames:,} frames" for split, (n, frames) in rows.items()]
    notes = dict.fromkeys(note for table in tables for note in table.notes)
    return "\n".join([f"{tables[0].path}: {tables[0].layout}; {'; '.join(found)}", *(f"- {note}" for note in notes)])


@dataclasses.dataclass(frozen=True)
class Split:
    """The videos of one split."""

    lengths: np.ndarray
    """int64 [N]: frames of each video."""
    clips: np.ndarray
    """int64 [K, 3]: video, first frame and number of frames of the stretches in which training windows lie."""
    chance: np.ndarray | None
    """float64 [K]: the probability that a training window is drawn from a clip; None: all are as likely."""
    windows: np.ndarray
    """int64 [M, 2]: video and first frame of the windows to evaluate, in order."""
    read: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    """(video [B], first frame [B], T) -> [B, T, H, W, C], uint8 or float32 in [0, 1]; threads may share it."""
    table: Table


@dataclasses.dataclass(frozen=True)
class Opened:
    """What a layout knows of a split, before the windows are chosen."""

    layout: str
    lengths: np.ndarray
    """int64 [N]: frames of each video."""
    read: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    notes: list[str]
    clips: np.ndarray | None = None
    """As in Split; None: whole videos."""
    windows: np.ndarray | None = None
    """Published ones; None: the first of each clip."""
    labels: tuple[str, ...] | None = None
    """Class of each video: class, video and clip are then drawn uniformly one after the other."""
    cut: bool = False
    """The clips are parts of videos that are divided in time, which are evaluated from end to end."""


class NoSplitError(ValueError):
    """The data has nothing for this split."""


def open_videos(
    path: str | pathlib.Path,
    split: str,
    *,
    image_size: int,
    channels: int,
    n_frames: int,
    frame_step: int = 1,
    crop: bool = False,
    store: str | pathlib.Path | None = None,
    whole: bool = False,
    progress: bool = True,
) -> Split:
    """Opens the videos of one split as windows of `n_frames`, and decodes what isn't decoded yet.

    `path` is a video, a folder of videos or of folders of pictures, a zip archive of either, KTH's or BAIR's folder as
    it is downloaded, or an .npy or .npz file of videos [N, T, H, W(, C)]. `image_size` (pixels), `channels` (1 or 3),
    `frame_step` (every how many-th frame) and `crop` (the centre, instead of squashing to a square) say what becomes of
    a frame. Decoded frames go to a folder in `store`, by default to `<path>.frames`. With `whole`, data that isn't
    divided into splits serves as a whole.

    Raises FileNotFoundError for a path that doesn't exist, NoSplitError (a ValueError) where there is nothing for the
    split, ValueError for data that can't be used.
    """
    path = _existing(path)
    form = FrameFormat(image_size, channels, frame_step, crop)
    opened = _open(path, split, form, n_frames, _store(path, store), whole, progress)
    clips, notes = opened.clips, list(opened.notes)
    if clips is None:
        clips = whole_videos(opened.lengths)
    fits = clips[:, 2] >= n_frames
    if not fits.any():
        parts = "parts of videos (too few videos are cut in time)" if opened.cut else "videos"
        raise ValueError(
            f"{path} has {parts} of {clips[:, 2].max(initial=0)} frames at most for {split!r}; {n_frames} are needed"
        )
    if not fits.all():
        notes.append(f"{split}: {np.sum(~fits)} of {len(fits)} clips are shorter than {n_frames} frames: not used")
    clips = clips[fits]
    windows = opened.windows
    if windows is None:
        windows = evaluation_windows(clips, n_frames, opened.cut)
    if not len(windows):
        raise ValueError(f"{path} has no window of {n_frames} frames to evaluate for {split!r}")
    _check_black(path, opened.read, windows, n_frames)
    chance = None if opened.labels is None else nested_chance(clips, opened.labels)
    table = Table(path, opened.layout, {split: _row(opened)}, tuple(notes))
    return Split(opened.lengths, clips, chance, windows, opened.read, table)


def prepare(
    path: str | pathlib.Path,
    *,
    image_size: int,
    channels: int,
    frame_step: int = 1,
    crop: bool = False,
    store: str | pathlib.Path | None = None,
    progress: bool = True,
) -> Table:
    """Finds the videos of all splits and decodes them, as `open_videos` would; returns a table to print.

    Raises FileNotFoundError for a path that doesn't exist, ValueError for data that can't be used.
    """
    path = _existing(path)
    form = FrameFormat(image_size, channels, frame_step, crop)
    rows, notes, layout = {}, {}, None
    for split in SPLITS:
        try:
            opened = _open(path, split, form, 1, _store(path, store), False, progress)
        except NoSplitError as error:
            notes[f"{split}: {error}"] = None
            continue
        layout, rows[split] = opened.layout, _row(opened)
        notes |= dict.fromkeys(opened.notes)  # each once
    if layout is None:
        raise NoSplitError("; ".join(notes))
    return Table(path, layout, rows, tuple(notes))


def _existing(path: str | pathlib.Path) -> pathlib.Path:
    path = pathlib.Path(os.path.abspath(pathlib.Path(path).expanduser()))
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {str(path)!r}; expected a video, a folder or an .npy or .npz file")
    return path


def _store(path: pathlib.Path, store: str | pathlib.Path | None) -> pathlib.Path:
    return default_store(path) if store is None else pathlib.Path(store).expanduser() / unique_name(path)


def _open(path, split, form, n_frames, store, whole, progress) -> Opened:
    if path.suffix in (".npy", ".npz") and path.is_file():
        return _open_array(path, split, form, store, whole)
    if files := bair.find_files(path):
        return _open_bair(path, files, split, form)
    return _open_decoded(path, split, form, n_frames, store, whole, progress)


def _row(opened: Opened) -> tuple[int, int]:
    frames = opened.clips[:, 2] if opened.cut else opened.lengths
    return int(np.sum(frames > 0)), int(frames.sum())


# Windows ------------------------------------------------------------------------------------------------------------


def whole_videos(lengths: np.ndarray) -> np.ndarray:
    """A clip for each video: int64 [N, 3]."""
    return np.stack([np.arange(len(lengths)), np.zeros_like(lengths), lengths], 1)


def evaluation_windows(clips: np.ndarray, n_frames: int, all_of_it: bool) -> np.ndarray:
    """The first window of each clip, or all that don't overlap: int64 [M, 2]."""
    if not all_of_it:
        return clips[:, :2]
    firsts = [range(first, first + frames - n_frames + 1, n_frames) for _, first, frames in clips]
    return np.array([(video, t) for (video, *_), starts in zip(clips, firsts, strict=True) for t in starts], np.int64)


def nested_chance(clips: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The probability of each clip if class, video and clip are drawn uniformly one after the other: float64 [K]."""
    videos = clips[:, 0]
    classes = np.array([labels[video] for video in videos])
    per_video = np.bincount(videos)
    videos_of = {label: len(np.unique(videos[classes == label])) for label in set(classes)}
    return np.array([1 / len(videos_of) / videos_of[c] / per_video[v] for c, v in zip(classes, videos, strict=True)])


def _check_black(path, read, windows, n_frames) -> None:
    some = windows[np.unique(np.linspace(0, len(windows) - 1, 16).astype(int))]
    if not any(read(some[k : k + 1, 0], some[k : k + 1, 1], n_frames).any() for k in range(len(some))):
        raise ValueError(f"{path}: all videos that were looked at ({len(some)}) are black; look at the files")


# Arrays and BAIR ----------------------------------------------------------------------------------------------------


def _open_array(path, split, form, store, whole) -> Opened:
    try:
        stored, divided, notes = arrays.open_array(path, split, form.shape, store)
    except LookupError as error:
        raise NoSplitError(error.args[0]) from None
    count, length = stored.count, stored.length
    clips, part, cut = None, range(count), False
    if not divided and not whole:
        if count < len(SPLITS):
            clips, cut = parts_in_time(np.full(count, length), split, SHARES), True
        else:
            part = range(*part_of(count, split, SHARES))
    arrays.check_values(path, stored, part)

    def read(which, first, n_frames):
        return stored.read(np.asarray(which) + part.start, first, n_frames, form.frame_step)

    lengths = np.full(len(part), -(-length // form.frame_step))
    if clips is not None:
        clips = _every(clips, form.frame_step)
    return Opened("array of videos", lengths, read, notes, clips, cut=cut)


def _open_bair(path, files, split, form) -> Opened:
    if form.shape != bair.FRAME:
        raise ValueError(f"{path}: BAIR's frames are {bair.FRAME}; the configuration expects {form.shape}")
    source = "test" if split == "test" else "train"
    if source not in files:
        raise NoSplitError(f"{path} has no TFRecord files for {split!r}")
    records = bair.index_records(files[source])
    if source == "train":
        records = records.take(bair.choose(len(records.table), split))
    lengths = np.full(len(records.table), -(-records.frames // form.frame_step))
    if not len(lengths):
        raise NoSplitError(f"{path} has no video for {split!r}")
    return Opened(BAIR, lengths, functools.partial(records.read, step=form.frame_step), [])


# Folders, archives and single videos --------------------------------------------------------------------------------


def _open_decoded(path, split, form, n_frames, store, whole, progress) -> Opened:
    videos, others, notes = find_videos(path)
    if not videos:
        hint = "; unpack it first" if path.suffix.lower() in PACKED else ""
        raise ValueError(
            f"{path} holds no video ({', '.join(VIDEO_SUFFIXES)}) and no folder of pictures "
            f"({', '.join(PICTURE_SUFFIXES)}){hint}"
        )
    named = any(named_split(video) for video in videos)
    a_set = path.is_dir() or path.suffix.lower() == ".zip"
    if a_set and not named and all(kth.key_of(video) for video in videos):
        return _open_kth(path, split, form, n_frames, store, progress, videos, others, notes)
    shares = None
    if named:
        videos, shares, split_notes = folder_split(videos, split)
        notes += split_notes
    elif not whole:
        videos, shares = divide(videos, split, SHARES)
    decoded, notes = _decode(path, split, videos, form, store, progress, notes)
    clips = parts_in_time(decoded.frames, split, shares) if shares else None
    layout = "videos" if a_set else "a video"
    return Opened(layout, decoded.frames, decoded.read, notes, clips, cut=clips is not None)


def _decode(path, split, videos, form, store, progress, notes):
    if not videos:
        raise NoSplitError(f"{path} has no video for {split!r}")
    decoded = build_store(videos, form, store, progress)
    damaged = [f"damaged: {name}: {problem}" for name, problem in decoded.problems.items()]
    return decoded, [*notes, *damaged, f"decoded frames are in {store / form.folder}"]


def _open_kth(path, split, form, n_frames, store, progress, videos, others, notes) -> Opened:
    chosen = kth.choose(videos, split)
    keys, step = list(chosen), form.frame_step
    form = dataclasses.replace(form, first_channel=True)
    notes = [*notes, *kth.missing(videos)]
    decoded, notes = _decode(path, split, list(chosen.values()), form, store, progress, notes)
    ranges = kth.read_ranges(others, videos[0].files[0].path)
    if ranges is None:
        notes.append(f"there is no {kth.LIST} beside the videos: windows are drawn from whole videos, empty scenes too")
    clips = _every(kth.clips(keys, decoded.frames * step, ranges), step)
    windows = None
    if split == "test":
        windows, published = kth.test_windows(keys, decoded.frames, n_frames)
        if not published or step > 1:
            notes.append(f"test: not SRVP's published windows; these need all videos and {kth.TEST_FRAMES} frames")
    elif split == "val":  # mixed, so that the first few are of all actions
        order = np.random.RandomState(42).permutation(len(clips))
        clips = clips[order]
    labels = tuple(action for _, action, _ in keys)
    return Opened(KTH, decoded.frames, decoded.read, notes, clips, windows, labels)


def _every(clips: np.ndarray, step: int) -> np.ndarray:
    """The same stretches of frames, counted in every `step`-th frame."""
    first, end = -(-clips[:, 1] // step), -(-(clips[:, 1] + clips[:, 2]) // step)
    return np.stack([clips[:, 0], first, end - first], 1)

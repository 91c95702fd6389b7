"""Folders and zip archives: the videos in them, and which split each belongs to."""

import collections
import hashlib
import os
import pathlib
import re
import zipfile
from collections.abc import Sequence

import numpy as np

from files.decode import PICTURE_SUFFIXES, VIDEO_SUFFIXES, File, Video

SPLITS = ("train", "val", "test")
SHARES = (0, 0.8, 0.9, 1)  # where train, val and test begin and end
SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
                 "test": "test", "testing": "test"}  # fmt: skip
JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")
CLIP_OF_GROUP = re.compile(r"(.*_g\d+)_c\d+")  # UCF-101 cuts the clips of a group from one video


def find_videos(path: pathlib.Path) -> tuple[list[Video], dict[str, File], list[str]]:
    """The videos of a path in natural order, its other files by name, and remarks.

    Raises ValueError for a damaged archive and for a folder of pictures that has the same frames twice.
    """
    folders, others, notes = collections.defaultdict(list), {}, []
    for name, file in _walk(path):
        if pathlib.PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES + PICTURE_SUFFIXES:
            folders[str(pathlib.PurePosixPath(name).parent)].append((name, file))
        else:
            others[name] = file
    videos = []
    for folder, found in folders.items():
        clips = [Video(name, (file,)) for name, file in found if name.lower().endswith(VIDEO_SUFFIXES)]
        pictures = [(name, file) for name, file in found if not name.lower().endswith(VIDEO_SUFFIXES)]
        videos += clips
        if clips and pictures:
            notes.append(f"{len(pictures)} pictures beside the videos in {folder!r} are left out")
        elif pictures:
            kinds = {pathlib.PurePosixPath(name).suffix.lower().replace("jpeg", "jpg") for name, _ in pictures}
            if len(kinds) > 1:
                raise ValueError(
                    f"{path}: the pictures in {folder!r} are of {len(kinds)} kinds ({', '.join(sorted(kinds))}); "
                    "if these are the same frames twice, remove one kind, otherwise convert them to one"
                )
            videos.append(Video(path.name if folder == "." else folder, tuple(file for _, file in pictures)))
    if left_out := [name for name in others if not name.endswith(".txt")]:
        notes.append(f"{len(left_out)} files that are no videos or pictures are left out ({left_out[0]}, ...)")
    videos, copies = _without_copies(videos)
    if copies:
        notes.append(f"{copies} videos in archives are there unpacked, too: left out")
    return sorted(videos, key=lambda video: natural(video.name)), others, notes


def fingerprint(path: pathlib.Path) -> str:
    """Names what a path holds, by the names, sizes and times of all its files; the time is bounded by their number."""
    files = [(name, file.size, file.version) for name, file in _walk(path)]
    return hashlib.sha256(repr(files).encode("utf-8", "surrogateescape")).hexdigest()


def natural(name: str) -> list:
    """A key that sorts 2 before 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _walk(path: pathlib.Path) -> list[tuple[str, File]]:
    """All files of a folder and of the archives in it, or a single one, by names with / in natural order."""
    if path.is_file():
        found = _members(path, "") if path.suffix.lower() == ".zip" else [(path.name, file_of(path))]
    else:
        found, seen = [], set()
        for root, folders, names in os.walk(path, followlinks=True):
            real = os.path.realpath(root)
            folders[:] = [] if real in seen else [f for f in folders if not _is_junk(f) and not f.endswith(".frames")]
            for name in names if real not in seen else []:
                file = pathlib.Path(root, name)
                inner = file.relative_to(path)
                if file.suffix.lower() == ".zip":
                    found += _members(file, inner.with_suffix("").as_posix() + "/")
                elif file.is_file():
                    found.append((inner.as_posix(), file_of(file)))
            seen.add(real)
    found = [(name, file) for name, file in found if not any(map(_is_junk, name.split("/")))]
    return sorted(found, key=lambda item: natural(item[0]))


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in JUNK


def file_of(path: pathlib.Path) -> File:
    status = path.stat()
    return File(path, status.st_size, status.st_mtime_ns)


def _members(path: pathlib.Path, prefix: str) -> list[tuple[str, File]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
    except Exception as error:  # of a dozen types on damaged bytes
        raise ValueError(f"{path} is a damaged zip archive ({error}); download it again") from None
    inner = {info.filename.split("/")[0] for info in members if not _is_junk(info.filename.split("/")[0])}
    if inner == {path.stem} and prefix:  # name.zip holding name/...: as unpacked
        prefix = prefix.removesuffix(path.stem + "/")
    return [(prefix + info.filename, File(path, info.file_size, info.CRC, info.filename)) for info in members]


def _without_copies(videos: list[Video]) -> tuple[list[Video], int]:
    """Without the archived videos that lie unpacked beside their archive: they would be in two splits."""

    def key(video):
        return pathlib.PurePosixPath(video.name).name, sum(file.size for file in video.files)

    unpacked = {key(video) for video in videos if not video.files[0].member}
    kept = [video for video in videos if not video.files[0].member or key(video) not in unpacked]
    return kept, len(videos) - len(kept)


# Splits -------------------------------------------------------------------------------------------------------------


def named_split(video: Video) -> str | None:
    named = [SPLIT_FOLDERS[part.lower()] for part in video.name.split("/") if part.lower() in SPLIT_FOLDERS]
    return named[0] if named else None


def folder_split(videos: list[Video], split: str):
    """The videos in the folders of one split, and as in `divide` how they are cut; val is a part of train at need."""
    by_split = collections.defaultdict(list)
    for video in videos:
        by_split[named_split(video)].append(video)
    notes, shares = [], None
    if by_split[None]:
        notes.append(f"{len(by_split[None])} videos outside of the folders train, val and test are left out")
    chosen = by_split[split]
    if not by_split["val"] and by_split["train"] and split != "test":
        notes.append("there is no folder val: the last tenth of train is val")
        chosen, shares = divide(by_split["train"], split, (0, 0.9, 1))
    return chosen, shares, notes


def split_edges(count: int, shares: Sequence[float]) -> np.ndarray:
    """Where parts begin and end among `count` things: int [P + 1]; none is empty, if there are enough."""
    edges, parts = np.round(np.array(shares) * count).astype(int), len(shares) - 1
    for k in range(1, parts):
        edges[k] = np.clip(edges[k], edges[k - 1] + 1, max(count - (parts - k), 0))
    return edges


def part_of(count: int, split: str, shares: Sequence[float]) -> tuple[int, int]:
    k = SPLITS.index(split)
    return tuple(split_edges(count, shares)[k : k + 2].tolist())


def divide(videos: list[Video], split: str, shares: Sequence[float]):
    """A split's part of each folder, in natural order; too few videos are all taken, to be cut in time by `shares`."""
    parts = len(shares) - 1
    folders = collections.defaultdict(lambda: collections.defaultdict(list))
    for video in videos:
        name = pathlib.PurePosixPath(video.name)
        group = CLIP_OF_GROUP.fullmatch(name.stem)
        folders[name.parent][group[1] if group else name].append(video)
    groups = [list(folder.values()) for folder in folders.values()]
    if min(map(len, groups)) < parts:  # a folder too small to be divided: all folders as one
        groups = [[group for folder in groups for group in folder]]
    if len(groups[0]) < parts:
        return videos, shares
    chosen = [group for folder in groups for group in folder[slice(*part_of(len(folder), split, shares))]]
    return [video for group in chosen for video in group], None


def parts_in_time(lengths: np.ndarray, split: str, shares: Sequence[float]) -> np.ndarray:
    """A split's part of the frames of each video, as clips: int64 [N, 3]."""
    parts = [part_of(int(length), split, shares) for length in lengths]
    return np.array([(video, start, max(end - start, 0)) for video, (start, end) in enumerate(parts)], np.int64)

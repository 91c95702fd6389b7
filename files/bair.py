"""BAIR robot pushing: its TFRecord files are read where they lie, through an index of the records."""

import contextlib
import dataclasses
import pathlib
import re
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

SPLITS = ("train", "test")
FRAME = (64, 64, 3)
CAMERA = "{}/image_aux1/encoded"  # raw RGB in spite of its name
AROUND = 12, 4  # bytes before and after a record: its length and two checksums


def find_files(path: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The TFRecord files of train and test: of `softmotion30_44k`, of its parent, or a single file, which is a test."""
    if path.is_file():
        return {"test": [path]} if path.suffix == ".tfrecords" else {}
    for root in (path, path / "softmotion30_44k"):
        files = {split: sorted((root / split).glob("*.tfrecords"), key=lambda file: file.stem) for split in SPLITS}
        files = {split: [file for file in found if file.name[0] != "."] for split, found in files.items()}
        if any(files.values()):
            return {split: found for split, found in files.items() if found}
    return {}


def choose(count: int, split: str) -> np.ndarray:
    """The records of a split among the sorted ones of train: SRVP's 95 % for train, 5 % for val."""
    order = np.arange(count)
    np.random.RandomState(42).shuffle(order)
    cut = int(0.95 * count)
    return np.sort(order[:cut] if split == "train" else order[cut:])


@dataclasses.dataclass(frozen=True)
class Records:
    """An index of records."""

    files: tuple[pathlib.Path, ...]
    table: np.ndarray
    """int64 [N, 4]: file, number in the file, offset and length in bytes."""
    frames: int
    """Frames of each video."""

    def take(self, chosen: np.ndarray) -> "Records":
        return dataclasses.replace(self, table=self.table[chosen])

    def read(self, which: np.ndarray, first: np.ndarray, n_frames: int, step: int = 1) -> np.ndarray:
        """Windows [B, T, 64, 64, 3], uint8, of the videos `which` [B] from the frames `first` [B] on.

        Frames are counted, and taken, `step` apart. Raises ValueError, naming file and record, for a damaged one.
        """
        windows = np.empty([len(which), n_frames, *FRAME], np.uint8)
        for window, record, start in zip(windows, which, first, strict=True):
            keys = [CAMERA.format(t * step) for t in range(start, start + n_frames)]
            try:  # Protocol Buffers' own parser takes a tenth of the time of tf.io.parse_example
                features = tf.train.Example.FromString(self._bytes(record)).features.feature
                pixels = b"".join(features[key].bytes_list.value[0] for key in keys)
                window[...] = np.frombuffer(pixels, np.uint8).reshape(window.shape)
            except (DecodeError, IndexError, ValueError) as error:
                raise ValueError(f"{self._name(record)} is damaged ({error}); download the file again") from None
        return windows

    def _bytes(self, record: int) -> bytes:
        file, _, offset, length = self.table[record]
        with open(self.files[file], "rb", buffering=0) as source:
            source.seek(offset)
            data = source.read(length)
        if len(data) != length:
            raise ValueError(f"it is cut: {len(data)} of {length} bytes are there")
        return data

    def _name(self, record: int) -> str:
        file, number, *_ = self.table[record]
        return f"record {number} of {self.files[file]}"


def index_records(files: Sequence[pathlib.Path]) -> Records:
    """Finds the records of TFRecord files; of each, only its length is read.

    Raises ValueError, naming file and record, where a file is cut or isn't BAIR's.
    """
    rows = []
    for k, file in enumerate(files):
        size, offset, number = file.stat().st_size, 0, 0
        with open(file, "rb", buffering=0) as source:
            while offset < size:
                source.seek(offset)
                head = source.read(AROUND[0])
                length = struct.unpack("<Q", head[:8])[0] if len(head) == AROUND[0] else size
                end = offset + sum(AROUND) + length
                if end > size:
                    raise ValueError(f"record {number} of {file} is cut or damaged; download the file again")
                rows.append((k, number, offset + AROUND[0], length))
                offset, number = end, number + 1
    if not rows:
        raise ValueError(f"{files[0].parent} has no records")
    records = Records(tuple(files), np.array(rows, np.int64), 0)
    return dataclasses.replace(records, frames=_count_frames(records))


def _count_frames(records: Records) -> int:
    """The frames of the first record, which all have."""
    example = tf.train.Example()
    with contextlib.suppress(Exception):  # what doesn't parse has no frames
        example.ParseFromString(records._bytes(0))
    keys = example.features.feature
    frames = sum(re.fullmatch(CAMERA.format(r"\d+"), key) is not None for key in keys)
    if not frames or len(keys[CAMERA.format(0)].bytes_list.value[0]) != np.prod(FRAME):
        raise ValueError(
            f"{records._name(0)} is none of BAIR's; expected {CAMERA.format(0)!r} with 64 x 64 x 3 bytes, found keys "
            f"{sorted(keys)[:5]}"
        )
    return frames

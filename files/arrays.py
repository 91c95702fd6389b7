"""Arrays of videos in .npy and .npz files: mapped, not loaded, and looked at for the usual mistakes."""

import contextlib
import dataclasses
import io
import math
import os
import pathlib
import shutil
import struct
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from files.checks import sentence

SPLITS = ("train", "val", "test")
LOOKED_AT = 64 << 20  # bytes of an array that are looked at; of a larger one, frames spread over all of it
CHECKED = 256 << 20  # bytes up to which the checksum of a stored array in an .npz is compared
BOMB = 1 << 30  # bytes above which a compressed array that inflates more than 200 times is refused
MANY_ARRAYS = 256 << 20  # bytes above which arrays that are read at once and inflate more than 10 times are refused
MAX_HEADER = 10_000  # bytes
BLOCK = 1 << 20  # bytes
ALIKE = 0.75  # ratio of the changes along two axes up to which the first one is taken for time; Moving MNIST has 0.58


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where the bytes of an array of videos lie."""

    path: pathlib.Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    time_first: bool = False

    @property
    def count(self) -> int:
        """Number of videos."""
        return self.shape[1 if self.time_first else 0]

    @property
    def length(self) -> int:
        """Frames of each video."""
        return self.shape[0 if self.time_first else 1]

    def frames(self, file: BinaryIO, video: int, times: np.ndarray) -> np.ndarray:
        """Some frames [T, H, W, C] of a video; they are read, as mapped pages would add up to memory in use."""
        if self.fortran:
            mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, "F")
            frames = np.array(mapped[times, video] if self.time_first else mapped[video, times])
        else:
            places = times * self.count + video if self.time_first else video * self.length + times
            frames = np.empty([len(times), *self.shape[2:]], self.dtype)
            in_one = places[-1] - places[0] == len(places) - 1
            for place, part in [(places[0], frames)] if in_one else zip(places, frames, strict=True):
                file.seek(self.offset + int(place) * frames[0].nbytes)
                if file.readinto(memoryview(part).cast("B")) != part.nbytes:
                    raise ValueError(f"{self.path} has become shorter; save it anew")
        return frames[..., None] if frames.ndim == 3 else frames

    def read(self, which: np.ndarray, first: np.ndarray, n_frames: int, step: int = 1) -> np.ndarray:
        """Windows [B, T, H, W, C], uint8 or float32, of the videos `which` [B] from the frames `first` [B] on.

        Frames are counted, and taken, `step` apart. Raises ValueError for floats that aren't in [0, 1].
        """
        times = (np.asarray(first)[:, None] + np.arange(n_frames)) * step  # [B, T]
        with open(self.path, "rb", buffering=0) as file:
            windows = np.stack([self.frames(file, int(n), t) for n, t in zip(which, times, strict=True)])
        if self.dtype.kind == "f" and not (windows.min() >= 0 and windows.max() <= 1):
            raise ValueError(f"{self.path} holds values from {windows.min()} to {windows.max()}; expected [0, 1]")
        return windows if self.dtype == np.uint8 else windows.astype(np.float32)


def open_array(
    path: pathlib.Path, split: str, frame: tuple[int, int, int], store: pathlib.Path
) -> tuple[Stored, bool, list[str]]:
    """The array of an .npy or .npz file that serves a split, whether the file is divided into splits, and remarks.

    An array called train, val or test serves that split alone, `sequences` (SRVP's test files) the test; any other
    single array serves all. A compressed array is first extracted to `store`. `frame` is the (H, W, C) expected.

    Raises ValueError for a file that can't be used, LookupError where it has nothing for the split.
    """
    with _damage_named(path):
        members = _read_npz(path) if path.suffix == ".npz" else None
    if members is None:
        stored, divided, key = _read_npy(path), False, None
    else:
        key = _choose(path, sorted(members), split)
        divided = key in SPLITS or key == "sequences"
        with _damage_named(path):
            stored = _open_member(path, members[key], store)
    notes = []
    if key not in SPLITS:
        stored, notes = _turn(path, stored, known=key == "sequences")
    _check_shape(path, stored, frame)
    return stored, divided, notes


def _choose(path: pathlib.Path, names: list[str], split: str) -> str:
    if split in names:
        return split
    if "sequences" in names and not set(names) & set(SPLITS):
        if split == "test":
            return "sequences"
        raise LookupError(f"{path} is a test set of SRVP; it has nothing for {split!r}")
    if len(names) == 1 and names[0] not in SPLITS:
        return names[0]
    raise LookupError(f"{path} holds arrays {names}; expected one called {split!r}, or a single one of another name")


# Files --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zipfile and NumPy raise a dozen types on damaged bytes
        raise ValueError(
            f"{path} is no .npy or .npz file of plain arrays ({sentence(error)}); save it with numpy.save or "
            "numpy.savez"
        ) from None


def _read_npy(path: pathlib.Path) -> Stored:
    with _damage_named(path), open(path, "rb") as file:
        return _read_header(file, path, os.path.getsize(path))


def _read_npz(path: pathlib.Path) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    if others := [name for name in members if not name.endswith(".npy")]:
        raise ValueError(f"it holds {others[0]!r}; an archive of pictures or videos has to be called .zip")
    if not members:
        raise ValueError("it is empty")
    return {name.removesuffix(".npy"): info for name, info in members.items()}


def _read_header(file: BinaryIO, path: pathlib.Path, size: int) -> Stored:
    """The header at the position of `file`, in front of an array; both have `size` bytes."""
    start = file.tell()
    prefix = file.read(8)
    if prefix[:6] != b"\x93NUMPY" or tuple(prefix[6:]) not in ((1, 0), (2, 0)):
        raise ValueError("it doesn't begin as a plain array does")
    width, read = (
        (2, np.lib.format.read_array_header_1_0) if prefix[6] == 1 else (4, np.lib.format.read_array_header_2_0)
    )
    length = file.read(width)
    announced = int.from_bytes(length, "little")
    if announced > MAX_HEADER:  # before a byte of it is read
        raise ValueError(f"its header has {announced} bytes")
    shape, fortran, dtype = read(io.BytesIO(length + file.read(announced)), MAX_HEADER)
    offset = 8 + width + announced
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not unpickled")
    if any(side < 0 for side in shape):
        raise ValueError(f"its header announces the shape {shape}")
    needed = math.prod(shape) * dtype.itemsize
    if offset + needed != size:
        raise ValueError(f"{needed} bytes are announced for {shape} {dtype}, but {size - offset} are there")
    return Stored(path, start + offset, dtype, shape, fortran)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz of numbers, in memory.

    Raises ValueError for a file that can't be used.
    """
    arrays = {}
    with _damage_named(path):
        members = _read_npz(path)
        total, size = sum(info.file_size for info in members.values()), os.path.getsize(path)
        if total > max(MANY_ARRAYS, 10 * size):
            raise ValueError(f"it would inflate from {size} to {total} bytes")
        with zipfile.ZipFile(path) as archive:
            for name, info in members.items():
                with archive.open(info) as member:
                    stored = _read_header(member, path, info.file_size)
                    if stored.dtype.kind not in "biuf":
                        raise ValueError(f"{name!r} holds {stored.dtype}; expected numbers")
                    # No more than was announced is inflated; at the end the checksum is compared.
                    data = member.read(math.prod(stored.shape) * stored.dtype.itemsize)
                order = "F" if stored.fortran else "C"
                arrays[name] = np.frombuffer(data, stored.dtype).reshape(stored.shape, order=order)
    return arrays


def _open_member(path: pathlib.Path, info: zipfile.ZipInfo, store: pathlib.Path) -> Stored:
    """An array of an .npz: in place where it isn't compressed, else extracted to the store."""
    if info.file_size > max(BOMB, 200 * info.compress_size):
        raise ValueError(f"{info.filename!r} would inflate from {info.compress_size} to {info.file_size} bytes")
    with zipfile.ZipFile(path) as archive, archive.open(info) as member:
        stored = _read_header(member, path, info.file_size)
        if info.compress_type == zipfile.ZIP_STORED:
            if info.file_size <= CHECKED:
                while member.read(BLOCK):  # the last one compares the checksum
                    pass
            return dataclasses.replace(stored, offset=_data_offset(path, info) + stored.offset)
    target = store / "arrays" / f"{pathlib.PurePath(info.filename).stem[:80]}-{info.CRC:08x}-{info.file_size}.npy"
    if not (target.is_file() and target.stat().st_size == info.file_size):
        _extract(path, info, target)
    return dataclasses.replace(stored, path=target)


def _data_offset(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)  # the lengths of the name and of the extra field
        return info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))


def _extract(path: pathlib.Path, info: zipfile.ZipInfo, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if info.file_size > (free := shutil.disk_usage(target.parent).free):
        raise ValueError(
            f"it inflates to {info.file_size / 1e9:.3g} GB, but {target.parent} has {free / 1e9:.3g} GB free; choose "
            "another place for the store"
        )
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(info) as member, open(part, "wb") as out:
            shutil.copyfileobj(member, out, BLOCK)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


# What looks wrong ---------------------------------------------------------------------------------------------------


def _turn(path: pathlib.Path, stored: Stored, known: bool) -> tuple[Stored, list[str]]:
    """Arrays that are published as [T, N, H, W] are turned; others that look like it are refused."""
    if len(stored.shape) not in (4, 5):
        return stored, []
    a, b = stored.shape[:2]
    moving_mnist = "mnist_test_seq" in path.stem or stored.shape[:2] == (20, 10_000)
    if a < b and (known or moving_mnist):
        turned = dataclasses.replace(stored, time_first=True)
        return turned, [f"{stored.shape} is taken as [T, N, ...]: {b} videos of {a} frames, as it is published"]
    if not known and _first_axis_is_time(stored):
        raise ValueError(
            f"{path} has shape {stored.shape}, and two axes could be time: neighbours along the first are more alike "
            "than along the second. If time is first, save numpy.moveaxis(videos, 0, 1); if it isn't, save arrays "
            "called train, val and test with numpy.savez, which are taken as [N, T, H, W, C] without a question"
        )
    return stored, []


def _first_axis_is_time(stored: Stored) -> bool:
    """Whether frames change less along the first axis than along the second."""
    if min(stored.shape[:2]) < 2 or stored.dtype.kind not in "uif":
        return False
    rng, differences = np.random.default_rng(0), np.zeros(2)
    with open(stored.path, "rb", buffering=0) as file:
        for n, t in rng.integers(0, np.array(stored.shape[:2]) - 1, (64, 2)):
            here, later = stored.frames(file, n, np.array([t, t + 1])).astype(np.float64)
            beside = stored.frames(file, n + 1, np.array([t])).astype(np.float64)
            differences += np.abs(here - beside).mean(), np.abs(here - later).mean()
    return differences[0] < ALIKE * differences[1]


def _check_shape(path: pathlib.Path, stored: Stored, frame: tuple[int, int, int]) -> None:
    shape, dtype = stored.shape, stored.dtype
    if len(shape) not in (4, 5):
        hint = "; a single video needs a first axis: videos[None]" if len(shape) == 3 else ""
        raise ValueError(f"{path} holds an array of shape {shape}; expected [N, T, H, W(, C)]{hint}")
    if dtype != np.uint8 and dtype.kind != "f":
        raise ValueError(f"{path} holds {dtype}; expected uint8 in 0..255 or float in [0, 1]")
    if 0 in shape:
        raise ValueError(f"{path} holds an array of shape {shape}, which is empty")
    found = shape[2:] if len(shape) == 5 else (*shape[2:], 1)
    if found != frame:
        hint = ""
        if len(shape) == 5 and shape[2] in (1, 3) and shape[4] not in (1, 3):
            hint = "; channels are first: save numpy.moveaxis(videos, 2, -1)"
        elif len(shape) == 4 and shape[3] in (1, 3):
            hint = "; a single video needs a first axis: videos[None]"
        raise ValueError(f"{path} has frames {found}; the configuration expects {frame}{hint}")


def check_values(path: pathlib.Path, stored: Stored, videos: range) -> None:
    """Looks at the values of some of the videos, of all where they are few.

    Raises ValueError for values that are no brightness from 0 to 255 (uint8) or 0 to 1 (float).
    """
    low, high = _range(stored, videos)
    found = f"{path} holds {stored.dtype} values from {low} to {high}"
    if stored.dtype.kind == "f" and not (low >= 0 and high <= 1):
        if -1 <= low < 0 and high <= 1:
            way_out = "they seem to be in [-1, 1]: save (videos + 1) / 2"
        elif low >= 0 and 1 < high <= 255:
            way_out = "they seem to be in [0, 255]: save them as uint8, or divide them by 255"
        else:
            way_out = "NaN and infinity have to be replaced" if not np.isfinite([low, high]).all() else "scale them"
        raise ValueError(f"{found}; expected float in [0, 1] without NaN, or uint8; {way_out}")
    if high == 0:
        raise ValueError(f"{found}: all videos are black; save them anew")
    if stored.dtype == np.uint8 and high == 1:
        raise ValueError(f"{found}; expected 0 to 255; if 1 is white, multiply them by 255")
    if stored.dtype.kind == "f" and high <= 1.001 / 255:
        raise ValueError(f"{found}; expected 0 to 1; they seem to be divided by 255 twice: multiply them by 255")


def _range(stored: Stored, videos: range) -> tuple[float, float]:
    """The smallest and the largest value of frames spread evenly over the videos; NaN where there is one."""
    total = len(videos) * stored.length
    frame_bytes = math.prod(stored.shape[2:]) * stored.dtype.itemsize
    some = np.unique(np.linspace(0, total - 1, max(2, min(total, LOOKED_AT // frame_bytes))).astype(int))
    low, high = [], []
    with open(stored.path, "rb", buffering=0) as file:
        for video in np.unique(some // stored.length):
            times = some[some // stored.length == video] % stored.length
            for part in np.array_split(times, -(-len(times) // 256)):
                frames = stored.frames(file, videos.start + int(video), part)
                low.append(frames.min())
                high.append(frames.max())
    return np.min(low), np.max(high)

"""Decoding: every video once, in order, into one uint8 .npy [T, H, W, C] of a store, from which windows are read.

Nothing seeks in a compressed video: with B-frames or a variable frame rate a seek lands on another frame. A video is
written to a .part file that is renamed when it is complete, so that a build that was killed goes on where it stopped.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
from av.video.reformatter import VideoReformatter

from files.progress import progress_bar

VIDEO_SUFFIXES = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".wmv", ".webp")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Without this a text file could be taken for a playlist, which makes the library open whatever the playlist names.
CONTAINERS = "avi,mov,mp4,matroska,webm,gif,mpeg,mpegvideo,mpegts,asf,m4v"
BLOCK = 64  # frames held while decoding one video
HEADER = 128  # bytes before the first frame of a stored .npy
LOST = 0.1  # share of the frames announced in the header whose absence is called damage
JOURNAL = "videos.jsonl"  # a line for each video of a store: fingerprint, frames, problem
STALE = 600  # seconds after which a .part file that nobody has written to is left over from a killed build
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class FrameFormat:
    """What becomes of a frame; each format has its own folder in the store."""

    image_size: int
    """Height and width in pixels."""
    channels: int
    """1 or 3."""
    frame_step: int = 1
    """Every how many-th frame is kept."""
    crop: bool = False
    """Keep the proportions and cut the centre, instead of squashing the frame to a square as the authors do."""
    first_channel: bool = False
    """Grey is the first channel, as the authors take it for KTH, instead of luma."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, self.channels

    @property
    def folder(self) -> str:
        """The name of the format's folder in a store."""
        name = "x".join(map(str, self.shape))
        name += f"-step{self.frame_step}" * (self.frame_step > 1) + "-crop" * self.crop
        return name + "-first-channel" * (self.first_channel and self.channels == 1)


@dataclasses.dataclass(frozen=True)
class File:
    """A file in a folder, or a member of a zip archive, which is read in place."""

    path: pathlib.Path
    size: int
    version: int
    """Changes when the content does: the time of the last change, or a member's CRC."""
    member: str | None = None

    def open(self) -> BinaryIO:
        return _archive(self.path).open(self.member) if self.member else open(self.path, "rb")


_open_archives = threading.local()  # zip files can't be shared between threads that open members


def _archive(path: pathlib.Path) -> zipfile.ZipFile:
    archives, identity = _open_archives.__dict__, (path, path.stat().st_mtime_ns)
    if archives.get("identity") != identity:
        archives.update(identity=identity, zip=zipfile.ZipFile(path))
    return archives["zip"]


@dataclasses.dataclass(frozen=True)
class Video:
    """A video to decode: one video file, or the pictures of one folder in order."""

    name: str
    files: tuple[File, ...]

    @property
    def suffix(self) -> str:
        return pathlib.PurePath(self.files[0].member or self.files[0].path).suffix.lower()

    @property
    def fingerprint(self) -> str:
        parts = [(file.member or file.path.name, file.size, file.version) for file in self.files]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class DamageError(Exception):
    """Why a video ends here."""


# Frames of one video ------------------------------------------------------------------------------------------------


def decode_frames(video: Video, form: FrameFormat) -> Iterator[np.ndarray]:
    """The frames of a video, in order: uint8 [H, W, C].

    Raises DamageError where a video that can't be read to its end stops.
    """
    still = video.suffix in PICTURE_SUFFIXES or video.suffix == ".webp"  # the library reads no animated webp
    frames = _picture_frames(video) if still else _stream_frames(video)
    reformatter = VideoReformatter()
    try:
        for frame in itertools.islice(frames, 0, None, form.frame_step):
            yield _resize(frame, form, reformatter)
    except av.FFmpegError as error:
        raise DamageError(error.strerror) from None
    except Exception as error:  # decoders and zip files raise a dozen types on damaged bytes
        raise DamageError(str(error) or type(error).__name__) from None


def _stream_frames(video: Video) -> Iterator[av.VideoFrame]:
    if not video.files[0].size:
        raise DamageError("it is empty")
    with video.files[0].open() as source, _container(source) as container:
        stream = _video_stream(container)
        stream.codec_context.thread_count = 1  # videos are decoded in parallel, not the frames of one
        count = 0
        for count, frame in enumerate(container.decode(stream), 1):
            if frame.is_corrupt:
                raise DamageError(f"frame {count} is damaged")
            yield frame
        if count < (1 - LOST) * stream.frames:
            raise DamageError(f"it ends after {count} frames; its header announces {stream.frames}")


def _container(source: BinaryIO):
    return av.open(source, options={"format_whitelist": CONTAINERS}, metadata_errors="replace")


def _video_stream(container):
    if not container.streams.video:
        raise DamageError("it has no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise DamageError("its codec is unknown, or its header is cut")
    return stream


def _picture_frames(video: Video) -> Iterator[av.VideoFrame]:
    for file in video.files:
        with file.open() as source, PIL.Image.open(source, formats=("PNG", "JPEG", "WEBP")) as picture:
            for k in range(getattr(picture, "n_frames", 1) if video.suffix == ".webp" else 1):
                picture.seek(k)
                yield av.VideoFrame.from_ndarray(_rgb(picture), "rgb24")


def _rgb(picture: PIL.Image.Image) -> np.ndarray:
    picture = PIL.ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 bits, which convert() would clip to 255
        grey = np.round(np.asarray(picture) / 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    return np.ascontiguousarray(picture.convert("RGB"))


def _resize(frame: av.VideoFrame, form: FrameFormat, reformatter: VideoReformatter) -> np.ndarray:
    quarter_turns = frame.rotation // 90  # counterclockwise
    if form.crop:
        side = min(frame.width, frame.height)
        left, top = (frame.width - side) // 2, (frame.height - side) // 2
        square = frame.to_ndarray(format="rgb24")[top : top + side, left : left + side]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(square), "rgb24")
    size = form.image_size
    # The filter and flags of the authors' `ffmpeg -s 64x64`.
    rgb = reformatter.reformat(frame, size, size, "rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
    rgb = np.rot90(rgb, quarter_turns)
    if form.channels == 3:
        return rgb
    return rgb[..., :1] if form.first_channel else np.round(rgb @ LUMA).astype(np.uint8)[..., None]


# The store ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Store:
    """Decoded videos, each in a .npy of its own."""

    files: tuple[pathlib.Path, ...]
    frames: np.ndarray
    """int64 [N]: frames of each video."""
    problems: dict[str, str]
    """Why the videos of these names are damaged; their good beginning is kept."""
    form: FrameFormat

    def read(self, which: np.ndarray, first: np.ndarray, n_frames: int) -> np.ndarray:
        """Windows [B, T, H, W, C], uint8, of the videos `which` [B] from the frames `first` [B] on."""
        windows = np.empty([len(which), n_frames, *self.form.shape], np.uint8)
        frame_bytes = int(np.prod(self.form.shape))
        for window, video, start in zip(windows, which, first, strict=True):
            with open(self.files[video], "rb", buffering=0) as file:
                file.seek(HEADER + int(start) * frame_bytes)
                if file.readinto(window) != window.nbytes:
                    raise ValueError(f"{self.files[video]} is cut; delete it, and it is decoded again")
        return windows


def default_store(path: pathlib.Path) -> pathlib.Path:
    """`<path>.frames` beside the data, or a folder in ~/.cache/svg where that can't be written."""
    beside = path.with_name(path.name + ".frames")
    if beside.is_dir() or os.access(path.parent, os.W_OK):
        return beside
    return pathlib.Path.home() / ".cache" / "svg" / unique_name(path)


def unique_name(path: pathlib.Path) -> str:
    """A folder's name for data of that path, so that two of them can share a store."""
    return f"{path.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def build_store(videos: Sequence[Video], form: FrameFormat, folder: pathlib.Path, progress: bool = True) -> Store:
    """Decodes the videos that the store doesn't hold yet, in parallel, and opens it.

    Raises ValueError where nothing can be decoded, more than half of the videos are damaged, the disk is too small or
    the folder can't be written.
    """
    folder = folder / form.folder
    journal = _read_journal(folder / JOURNAL)
    targets = {video.name: folder / _file_name(video.name) for video in videos}

    def done(video):
        entry = journal.get(video.name, {})
        return entry.get("fingerprint") == video.fingerprint and _is_whole(targets[video.name], entry, form)

    todo = [video for video in videos if not done(video)]
    if todo:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale_parts(folder)
            _check_space(todo, form, folder)
            _decode_all(todo, form, targets, journal, folder / JOURNAL, progress)
        except OSError as error:
            raise ValueError(f"can't decode to {folder}: {error}; choose another place for the store") from None
    problems = {video.name: journal[video.name]["problem"] for video in videos if journal[video.name]["problem"]}
    frames = np.array([journal[video.name]["frames"] for video in videos], np.int64)
    examples = "; ".join(f"{name}: {problem}" for name, problem in list(problems.items())[:3])
    if len(videos) > 1 and len(problems) > len(videos) / 2:
        raise ValueError(f"{len(problems)} of {len(videos)} videos are damaged, more than half ({examples})")
    if not frames.any():
        raise ValueError(f"no frame can be decoded ({examples})")
    return Store(tuple(targets[video.name] for video in videos), frames, problems, form)


def _file_name(name: str) -> str:
    """A file name for a video of any name: readable, short, unique, and inside of the store whatever it holds."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._")[-80:]
    return f"{readable}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}.npy"


def _read_journal(path: pathlib.Path) -> dict[str, dict]:
    entries = {}
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a kill has cut: decoded again
                entry = json.loads(line)
                entries[entry["video"]] = {key: entry[key] for key in ("fingerprint", "frames", "problem")}
    return entries


def _is_whole(file: pathlib.Path, entry: dict, form: FrameFormat) -> bool:
    expected = HEADER + entry["frames"] * int(np.prod(form.shape))
    return entry["frames"] == 0 or (file.is_file() and file.stat().st_size == expected)


def _remove_stale_parts(folder: pathlib.Path) -> None:
    for part in folder.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()


def _check_space(videos: Sequence[Video], form: FrameFormat, folder: pathlib.Path) -> None:
    """Compares the free space with what the headers of some videos announce, if they are to be believed."""
    some = videos[:: -(-len(videos) // 32)]
    frames = np.mean([_announced_frames(video) for video in some]) * len(videos) / form.frame_step
    needed, free = frames * np.prod(form.shape), shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"the decoded videos need about {needed / 1e9:.3g} GB, but {folder} has {free / 1e9:.3g} GB free; "
            "choose another place for the store"
        )


def _announced_frames(video: Video) -> int:
    if video.suffix in PICTURE_SUFFIXES:
        return len(video.files)
    with contextlib.suppress(Exception), video.files[0].open() as source, _container(source) as container:
        stream = _video_stream(container)
        return stream.frames or int((container.duration or 0) / av.time_base * (stream.average_rate or 0))
    return 0


def _decode_all(todo, form, targets, journal, path, progress) -> None:
    if progress:
        print(f"decoding {len(todo)} video{'s' * (len(todo) > 1)} to {path.parent}")
    frames, started = 0, time.monotonic()
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        with open(path, "a", encoding="utf-8") as log, progress_bar(len(todo), shown=progress) as bar:
            work = {pool.submit(decode_video, video, form, targets[video.name]): video for video in todo}
            for future in concurrent.futures.as_completed(work):
                video, (count, problem) = work[future], future.result()
                journal[video.name] = {"fingerprint": video.fingerprint, "frames": count, "problem": problem}
                log.write(json.dumps({"video": video.name, **journal[video.name]}) + "\n")
                log.flush()
                frames += count
                bar.set_postfix_str(f"{frames / (time.monotonic() - started):.0f} frames/s", refresh=False)
                bar.update()
            os.fsync(log.fileno())
    finally:
        pool.shutdown(cancel_futures=True)


def decode_video(video: Video, form: FrameFormat, target: pathlib.Path) -> tuple[int, str | None]:
    """Decodes one video to the .npy `target`, and returns its frames and why it is damaged, if it is.

    Raises OSError when it can't be written.
    """
    frames = decode_frames(video, form)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as out:
            write_header(out, 0, form)
            count, problem = 0, None
            while problem is None and (block := _take(frames, BLOCK)):
                if isinstance(block[-1], DamageError):
                    problem = str(block.pop())
                count += len(block)
                out.write(b"".join(frame.tobytes() for frame in block))
            out.seek(0)
            write_header(out, count, form)
            out.flush()
            os.fsync(out.fileno())
        if count:
            os.replace(part, target)
        if problem and count:
            problem = f"{problem} (after {count} frames)"
        return count, problem or (None if count else "it has no frames")
    finally:
        part.unlink(missing_ok=True)


def _take(frames: Iterator[np.ndarray], count: int) -> list:
    """The next frames; the last element is the DamageError that ended them, if one did."""
    block = []
    try:
        for frame in itertools.islice(frames, count):
            block.append(frame)
    except DamageError as error:
        block.append(error)
    return block


def write_header(out: BinaryIO, frames: int, form: FrameFormat) -> None:
    """The header of an .npy; NumPy leaves room for the first axis to grow, so that its length never changes."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (frames, *form.shape)}
    np.lib.format.write_array_header_1_0(out, header)

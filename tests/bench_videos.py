"""The benchmark's part on real videos, made here in the published layouts: decoding, reading, and memory.

`python tests/bench_videos.py` measures just this and prints it; `tests/bench.py` includes it.
"""

import multiprocessing
import os
import pathlib
import re
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
import tensorflow as tf
from make_videos import make_bair, make_kth, moving_frames, write_clip

from files.config import PRESETS, Config
from files.data import make_dataset, prepare_data
from files.decode import FrameFormat, Video, decode_frames
from files.folders import file_of

CLIP = 480, 160, 120  # frames, width, height of a clip as KTH's
KTH, BAIR = PRESETS["kth"].config, PRESETS["bair"].config
BATCH, BATCHES = 100, 20
ARRAY = 7325, 100, 64, 64  # uint8: 3 GB


def measure(repetitions: int) -> dict[str, list[float]]:
    """Rates, the larger the better, and what a large array costs; a value per repetition."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        return {
            "decoding KTH-like avi on one core, frames/s": decoding(folder, repetitions),
            "windows of 20 frames from the store, per second": reading(kth_like(folder), repetitions),
            "BAIR's sequences of 12 frames, per second": reading(bair_like(folder), repetitions),
            **large_array(folder, repetitions),
        }


def decoding(folder: pathlib.Path, repetitions: int) -> list[float]:
    """Frames per second of the processor's time to 64 x 64, one clip after the other in one thread."""
    write_clip(folder / "clip.avi", moving_frames(*CLIP, grey=True))
    video, rates = Video("clip", (file_of(folder / "clip.avi"),)), []
    for _ in range(repetitions):
        start = time.process_time()
        frames = sum(1 for _ in range(5) for _ in decode_frames(video, FrameFormat(64, 1, first_channel=True)))
        rates.append(frames / (time.process_time() - start))
    return rates


def kth_like(folder: pathlib.Path) -> Config:
    """240 decoded videos of ten persons, in six archives."""
    make_kth(folder / "kth", range(1, 11), 200)
    config = KTH.replace(data=str(folder / "kth"))
    prepare_data(config)
    return config


def bair_like(folder: pathlib.Path) -> Config:
    """512 videos in files as BAIR's."""
    make_bair(folder / "bair", train_files=2, records=256)
    return BAIR.replace(data=str(folder / "bair"))


def reading(config: Config, repetitions: int) -> list[float]:
    """Training windows per second in batches of 100."""
    batches, rates = iter(make_dataset(config, "train", batch_size=BATCH)), []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        for _ in range(BATCHES):
            next(batches)
        rates.append(BATCH * BATCHES / (time.perf_counter() - start))
    return rates[1:]  # the first one traces


def large_array(folder: pathlib.Path, repetitions: int) -> dict[str, list[float]]:
    """Memory and time to the first batch of a 3 GB .npy, each in a fresh process."""
    array = np.lib.format.open_memmap(folder / "large.npy", "w+", np.uint8, ARRAY)
    rng, brighter = np.random.default_rng(0), np.arange(ARRAY[1], dtype=np.uint8)[:, None, None]
    for video in array:  # that change little over time, as the axes would be questioned otherwise
        video[:] = rng.integers(0, 150, ARRAY[2:], np.uint8) + brighter
    array.flush()
    costs = []
    for _ in range(repetitions):
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            costs.append(fresh.apply(first_batch, (str(folder / "large.npy"),)))
    megabytes, seconds = zip(*costs, strict=True)
    return {"a 3 GB array, MB more": list(megabytes), "a 3 GB array, seconds to the first batch": list(seconds)}


def first_batch(path: str) -> tuple[float, float]:
    """Megabytes that the peak of this process rises by until the first batch is there, and the seconds it takes."""
    tf.zeros([1]).numpy()  # starts TensorFlow
    before, start = peak_megabytes(), time.perf_counter()
    next(iter(make_dataset(Config(data=path, n_past=10), "train", batch_size=BATCH)))
    return peak_megabytes() - before, time.perf_counter() - start


def peak_megabytes() -> float:
    """The largest resident size so far, as Linux tells it; `getrusage` would count that of the parent process, too."""
    status = pathlib.Path("/proc/self/status")
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+)", status.read_text()) if status.is_file() else ["nan"]
    return float(kilobytes) / 1000


if __name__ == "__main__":
    before = os.getloadavg()[0]
    for name, values in measure(5).items():
        print(f"{name:55}{np.median(values):12,.3g}   from {min(values):,.3g} to {max(values):,.3g}")
    print(f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after")

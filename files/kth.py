"""KTH actions: names, splits, the listed ranges of frames, and SRVP's test windows."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from files.decode import File, Video

ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")  # in the order of SRVP's draws
NAME = re.compile(rf"person(\d\d)_({'|'.join(ACTIONS)})_d(\d)(_uncomp)?(\.\w+)?")
PERSONS = {"train": range(1, 20), "val": range(20, 21), "test": range(21, 26)}
LIST = "00sequences.txt"
VIDEOS = 599  # person13_handclapping_d3 was never published
TEST_WINDOWS = 1000
TEST_FRAMES = 40

Key = tuple[int, str, int]  # person, action, scenario


def key_of(video: Video) -> Key | None:
    """Person, action and scenario of a video with a name such as person01_boxing_d1_uncomp.avi."""
    match = NAME.fullmatch(pathlib.PurePosixPath(video.name).name)
    return match and (int(match[1]), match[2], int(match[3]))


def choose(videos: Sequence[Video], split: str) -> dict[Key, Video]:
    """The videos of a split's persons, each once."""
    return {key_of(video): video for video in videos if key_of(video)[0] in PERSONS[split]}


def missing(videos: Sequence[Video]) -> list[str]:
    """A remark on the videos that aren't there."""
    keys = {key_of(video) for video in videos}
    if len(keys) >= VIDEOS:
        return []
    wholly = [action for action in ACTIONS if action not in {key[1] for key in keys}]
    absent = [str(person) for person in range(1, 26) if person not in {key[0] for key in keys}]
    wholly += [f"persons {', '.join(absent)}"] * bool(absent)
    return [f"{VIDEOS - len(keys)} of {VIDEOS} videos are missing" + f", all of {', '.join(wholly)}" * bool(wholly)]


def read_ranges(others: dict[str, File], near: pathlib.Path) -> dict[Key, list[tuple[int, int]]] | None:
    """First and last frame, from 1 on, of the stretches with somebody in the picture; None without a list.

    The list is looked for among `others` (the other files of a folder, by name) and beside the file `near`.
    """
    lists = [file for name, file in others.items() if pathlib.PurePosixPath(name).name == LIST]
    if not lists and (beside := near.with_name(LIST)).is_file():
        lists = [File(beside, 0, 0)]
    if not lists:
        return None
    with lists[0].open() as file:
        text = file.read().decode("utf-8", errors="replace")
    lines = re.findall(rf"^\s*person(\d\d)_({'|'.join(ACTIONS)})_d(\d)\s+frames\s+(.*)$", text, re.MULTILINE)
    return {
        (int(person), action, int(scenario)): [(int(a), int(b)) for a, b in re.findall(r"(\d+)-(\d+)", ranges)]
        for person, action, scenario, ranges in lines
    }


def clips(keys: Sequence[Key], lengths: np.ndarray, ranges: dict[Key, list[tuple[int, int]]] | None) -> np.ndarray:
    """The listed ranges of each video, or all of a video that isn't listed: int64 [K, 3], video, first frame, frames.

    `lengths` are the frames that there are; the list goes beyond them in places.
    """
    rows = []
    for video, (key, length) in enumerate(zip(keys, lengths, strict=True)):
        for first, last in (ranges or {}).get(key) or [(1, length)]:
            rows.append((video, first - 1, max(min(last, length) - first + 1, 0)))
    return np.array(rows, np.int64)


def test_windows(keys: Sequence[Key], lengths: np.ndarray, n_frames: int) -> tuple[np.ndarray, bool]:
    """SRVP's test: video and first frame of each window, int64 [1000, 2], and whether they are the published ones.

    Of videos that are missing or shorter than a window nothing is drawn; without one such window there are none.
    """
    span = max(n_frames, TEST_FRAMES)
    usable = {key: video for video, key in enumerate(keys) if lengths[video] >= span}
    random, rows, misses = np.random.RandomState(42), [], 0
    while usable and len(rows) < TEST_WINDOWS:
        action, person, scenario = ACTIONS[random.randint(6)], random.randint(21, 26), random.randint(1, 5)
        video = usable.get((person, action, scenario))
        if video is None:
            misses += 1
        else:
            rows.append((video, random.randint(lengths[video] - span + 1)))
    return np.array(rows, np.int64).reshape(-1, 2), span == TEST_FRAMES and not misses

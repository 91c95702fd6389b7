"""The scores of an evaluation on disk, a file per batch: what was killed goes on, and what is damaged is done again."""

import pathlib
import re
import zipfile
import zlib

import numpy as np

from files.scores import Scores

PART_NAME = re.compile(r"(\d{8})-(\d{8})\.npz")  # first sequence, and the one after the last
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError)  # what reading a part may raise


def read_parts(parts: pathlib.Path) -> dict[tuple[int, int], Scores]:
    """The parts that are whole, by their first sequence and the one after their last; the others are removed."""
    kept = {}
    for path in sorted(parts.iterdir()):
        scores = read_part(path)
        start, stop = (scores["index"][0], scores["index"][-1] + 1) if scores else (0, 0)
        if scores and all(stop <= first or start >= last for first, last in kept):
            kept[int(start), int(stop)] = scores
        else:
            path.unlink()
    return kept


def read_part(path: pathlib.Path) -> Scores | None:
    """The scores of a part, or None if it is damaged or doesn't hold the sequences that its name tells."""
    named = PART_NAME.fullmatch(path.name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            scores = dict(arrays)
        complete = {len(values) for values in scores.values()}
        indices = range(*map(int, named.groups())) if named else range(0)
        return scores if list(scores["index"]) == list(indices) and complete == {len(indices)} else None
    except DAMAGED:
        return None


def gaps(parts: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The ranges of 0..count that no part (first, after the last) covers."""
    stops, starts = [0, *(stop for _, stop in sorted(parts))], [*(start for start, _ in sorted(parts)), count]
    return [(stop, start) for stop, start in zip(stops, starts, strict=True) if stop < start]

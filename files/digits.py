"""Do digits stay themselves? The placements of Moving MNIST's true digits that explain a frame best.

No metric of pixels tells a digit that has become another one from one that is where it wasn't expected. Here the
generator's own digits are looked for in each frame, wherever they may be, and composed as it composes them: summed and
clipped. A frame keeps its digits if each is explained to more than `KEPT`.
"""

import numpy as np
from scipy import fft

from files.data import CANVAS

KEPT = 0.5  # explained share above which a digit counts as kept; an evaluation shows how often that is wrong
HIDDEN = 0.25  # of a digit's energy: of less than this to be seen, errors aren't judged more strictly
ROUNDS = 2  # of placing each digit in turn
CHUNK = 1000  # frames that are fitted at once


def digits_kept(samples: np.ndarray, digits: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each frame of samples still shows all true digits, and how far from their true places.

    `samples` [N, T, 64, 64, 1] are in [0, 1], `digits` [D, S, S] uint8, `position` [T, D, 2] the row and column of the
    true digits' upper left corners in these frames, in pixels; the last two as `make_dataset(..., trajectories=True)`
    gives them. Returns `kept` [N, T], bool, and the mean distance of the digits from their true places in pixels,
    [N, T], which has a meaning only where they are kept.

    Raises ValueError for shapes that don't fit.
    """
    samples, digits, position = np.asarray(samples), np.asarray(digits), np.asarray(position)
    if samples.ndim != 5 or samples.shape[2:] != (CANVAS, CANVAS, 1) or 0 in samples.shape:
        raise ValueError(f"samples have shape {samples.shape}; expected [N, T, {CANVAS}, {CANVAS}, 1]")
    if samples.dtype.kind != "f" or not (samples.min() >= 0 and samples.max() <= 1):
        raise ValueError(
            f"samples are {samples.dtype} or not in [0, 1]; expected floats in [0, 1] (divide uint8 by 255)"
        )
    if digits.ndim != 3 or digits.shape[1] != digits.shape[2] or digits.dtype != np.uint8:
        raise ValueError(f"digits are {digits.dtype} of shape {digits.shape}; expected uint8 of shape [D, S, S]")
    if position.dtype.kind not in "iuf" or position.shape != (samples.shape[1], len(digits), 2):
        expected = [samples.shape[1], len(digits), 2]
        raise ValueError(
            f"position is {position.dtype} of shape {position.shape}; expected numbers of shape {expected}"
        )
    explained, distance = explain_video(samples[..., 0], digits, position)
    return explained > KEPT, distance


def explain_video(video: np.ndarray, digits: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The explained share of video [..., T, 64, 64], and the mean distance of its digits from `position`, [..., T]."""
    explained, corner = explain(video.reshape(-1, CANVAS, CANVAS), digits)
    distance = np.linalg.norm(corner.reshape(*video.shape[:-2], -1, 2) - np.round(position), axis=-1)
    return explained.reshape(video.shape[:-2]), distance.mean(-1).astype(np.float32)


def explain(frames: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The explained share [M] of frames [M, 64, 64] by digits [D, S, S], and the digits' upper left corners [M, D, 2].

    The share is that of the digit that is explained worst, and of two figures the worse: 1 - e / v, with e the squared
    error in the digit's square and v the energy of that part of the digit that is seen beside the others, and the
    brightness of that part, as a share of what it should be. It is 1 for a frame that is composed of just these digits,
    a for digits at a times their brightness, 0 or less where one is missing, and low for a blot that covers a digit and
    more, which is bright enough but has a large error.
    """
    chunks = [_explain(frames[start : start + CHUNK], digits) for start in range(0, len(frames), CHUNK)]
    explained, corner = zip(*chunks, strict=True)
    return np.concatenate(explained), np.concatenate(corner)


def _explain(frames, digits):
    frames, digits = np.asarray(frames, np.float32), np.asarray(digits, np.float32) / 255
    starts = [_place(frames, digits, first) for first in range(len(digits))]
    errors = np.stack([np.square(frames - compose(draw(digits, corner))).sum((1, 2)) for corner in starts])
    corner = np.choose(errors.argmin(0)[:, None, None], starts)
    return explained_share(frames, digits, corner), corner


def _place(frames: np.ndarray, digits: np.ndarray, first: int) -> np.ndarray:
    """Corners [M, D, 2] of the digits, each placed in turn where it lowers the error most beside those already placed.

    With m the others' composition, a digit d adds min(d, 1 - m), which is (1 - m) d where either is 0 or 1. So the
    error falls by 2 (f - m)(1 - m) d - (1 - m)^2 d^2, summed over pixels: two correlations for all places at once.
    """
    count, size = len(digits), digits.shape[-1]
    padded = np.pad(digits, [(0, 0), (0, CANVAS - size), (0, CANVAS - size)])
    spectra, squared = np.conj(fft.rfft2(padded)), np.conj(fft.rfft2(padded**2))
    drawn = np.zeros((len(frames), count, CANVAS, CANVAS), np.float32)
    corner = np.zeros((len(frames), count, 2), int)
    for k in (np.arange(ROUNDS * count) + first) % count:
        others = compose(np.delete(drawn, k, 1))
        room = 1 - others
        gain = 2 * fft.rfft2((frames - others) * room, workers=-1) * spectra[k]
        gain -= fft.rfft2(room**2, workers=-1) * squared[k]
        places = CANVAS - size + 1
        gain = fft.irfft2(gain, s=(CANVAS, CANVAS), workers=-1)[:, :places, :places]
        corner[:, k] = np.stack(np.divmod(gain.reshape(len(frames), -1).argmax(1), places), -1)
        drawn[:, k] = draw(digits[k : k + 1], corner[:, k : k + 1])[:, 0]
    return corner


def draw(digits: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Digits [D, S, S] each alone on a canvas, with its upper left corner at [M, D, 2]: [M, D, 64, 64]."""
    canvas = np.zeros((*corner.shape[:2], CANVAS, CANVAS), digits.dtype)
    pixels = np.arange(digits.shape[-1])
    rows, columns = corner[..., 0, None, None] + pixels[:, None], corner[..., 1, None, None] + pixels
    canvas[np.arange(len(corner))[:, None, None, None], np.arange(len(digits))[:, None, None], rows, columns] = digits
    return canvas


def compose(drawn: np.ndarray) -> np.ndarray:
    """Digits [M, D, H, W] summed and clipped, as the generator does: [M, H, W]."""
    return np.minimum(drawn.sum(1), 1)


def explained_share(frames: np.ndarray, digits: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """As `explain`, of digits that are placed: [M]."""
    drawn, size = draw(digits, corner), digits.shape[-1]
    composition = compose(drawn)
    missing = composition - frames
    inside = (np.arange(CANVAS) >= corner[..., None]) & (np.arange(CANVAS) < corner[..., None] + size)  # [M, D, 2, 64]
    shares = []
    for k in range(len(digits)):
        seen = composition - compose(np.delete(drawn, k, 1))
        energy = np.maximum(np.square(seen).sum((1, 2)), HIDDEN * np.square(digits[k]).sum())
        rows, columns = inside[:, k].astype(np.float32).swapaxes(0, 1)
        error = np.einsum("mhw,mh,mw->m", np.square(missing), rows, columns, optimize=True)
        shares += [1 - error / energy, 1 - np.einsum("mhw,mhw->m", missing, seen) / energy]
    return np.min(shares, 0)

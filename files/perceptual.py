"""LPIPS (Zhang et al. 2018), by the package `lpips` if the user has installed it; it brings PyTorch and the weights."""

from collections.abc import Callable

import numpy as np

from files.checks import sentence

CHUNK = 100  # images in the network at once

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # two times images [M, 3, H, W] in [-1, 1] -> [M]


def load_lpips() -> Distance:
    """Version 0.1 with AlexNet, as it is published.

    Raises ValueError where the package isn't installed, or the weights, which PyTorch downloads once, can't be read.
    """
    try:
        import lpips
        import torch
    except ImportError as error:
        raise ValueError(f"--lpips needs a package that isn't there ({error}): pip install lpips") from error
    try:
        net = lpips.LPIPS(net="alex", version="0.1", verbose=False).eval()
    except (OSError, RuntimeError) as error:  # no connection; a damaged file
        raise ValueError(f"--lpips downloads AlexNet's weights once, which failed: {sentence(error)}") from error

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(a), torch.from_numpy(b)).numpy().reshape(-1)

    return distance


def lpips_scores(distance: Distance, predictions: np.ndarray, future: np.ndarray) -> np.ndarray:
    """LPIPS [B, N, F] of predictions [B, N, F, H, W, C] of [B, F, H, W, C] in [0, 1]; grey is made RGB."""
    predictions, future = np.asarray(predictions), np.asarray(future)
    pairs = predictions, np.broadcast_to(future[:, None], predictions.shape)
    images = [_images(video) for video in pairs]
    chunks = range(0, len(images[0]), CHUNK)
    scores = [distance(*(image[start : start + CHUNK] for image in images)) for start in chunks]
    return np.concatenate(scores).reshape(predictions.shape[:3]).astype(np.float32)


def _images(video: np.ndarray) -> np.ndarray:
    """[..., H, W, C] in [0, 1] -> [M, 3, H, W] in [-1, 1]."""
    channels_first = np.moveaxis(video.reshape(-1, *video.shape[-3:]), -1, 1)
    rgb = np.broadcast_to(channels_first, (len(channels_first), 3, *channels_first.shape[2:]))
    return np.ascontiguousarray(2 * rgb - 1, np.float32)

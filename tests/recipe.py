"""The recipe of the golden files: weights, video and noise from NumPy alone, each array from its own generator."""

import ast
import zlib

import numpy as np


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The recipe's array called `name`, float32."""
    draws = rng(name)
    if name.endswith("running_var"):
        value = draws.uniform(0.5, 1.5, shape)
    elif name.endswith(("running_mean", "bias")) or name.split(".")[-1].startswith("bias_"):
        value = 0.1 * draws.standard_normal(shape)
    elif len(shape) == 1:
        value = 1 + 0.1 * draws.standard_normal(shape)
    else:
        value = draws.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)


def weights(golden) -> dict[str, np.ndarray]:
    """All arrays that a golden file names, in the authors' parameter names."""
    shapes = [ast.literal_eval(str(shape)) for shape in golden["meta/shapes"]]
    return {str(name): weight(str(name), shape) for name, shape in zip(golden["meta/names"], shapes, strict=True)}


def inputs(shape: tuple[int, ...], z_dim: int) -> dict[str, np.ndarray]:
    """video [B, T, H, W, C] in [0, 1], posterior_noise and prior_noise [B, T-1, z]."""
    noise = (shape[0], shape[1] - 1, z_dim)
    return {
        "video": rng("video").uniform(0, 1, shape).astype(np.float32),
        "posterior_noise": rng("eps_posterior").standard_normal(noise).astype(np.float32),
        "prior_noise": rng("eps_prior").standard_normal(noise).astype(np.float32),
    }

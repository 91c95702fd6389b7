"""Starting from another checkpoint: its weights, in a model of the same width or a wider one.

A net that is made wider computes at first what the narrow one did, and goes on learning from there. The idea is that of
Net2Net (Chen et al., ICLR 2016); here new channels start at random, and their weights into the old channels at 0.
"""

import dataclasses

import numpy as np

from files.config import Architecture
from files.layout import layout
from files.model_svg import SVG


def start_from(source: SVG, model: SVG) -> None:
    """Copies the weights of `source` into `model`, which may be wider: both then compute the same.

    Raises ValueError when the models differ in more than width, or `model` is the narrower one.
    """
    changed = []
    for name in (field.name for field in dataclasses.fields(Architecture)):
        old, new = getattr(source.config, name), getattr(model.config, name)
        if old > new if name == "width" else old != new:
            changed.append(f"{name} {old!r} -> {new!r}")
    if changed:
        raise ValueError(f"can't start from a checkpoint with {', '.join(changed)}; only the width may grow")
    for weight, other in zip(layout(model), layout(source), strict=True):
        for variable, narrow in zip(weight.variables, other.variables, strict=True):
            new = widened(weight.opened(narrow.numpy()), weight.opened(variable.numpy()), weight.axes)
            variable.assign(new.reshape(variable.shape))


def widened(old: np.ndarray, new: np.ndarray, axes: str) -> np.ndarray:
    """`new` with `old` in its first channels, and with 0 between new inputs (axis "i" of `axes`) and old outputs."""
    new, first = new.copy(), [slice(size) for size in old.shape]
    new[tuple(slice(None) if axis == "i" else part for axis, part in zip(axes, first, strict=True))] = 0
    new[tuple(first)] = old
    return new

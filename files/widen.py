"""Starting from another checkpoint: its weights, in a model of the same width or a wider one.

A net that is made wider computes at first what the narrow one did, and goes on learning from there. The idea is that of
Net2Net (Chen et al., ICLR 2016); here new channels start at random, and their weights into the old channels at 0.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from files.config import Architecture
from files.model_svg import SVG


def start_from(source: SVG, model: SVG) -> None:
    """Copies the weights of `source` into `model`, which may be wider: both then compute the same.

    Raises ValueError when the models differ in more than width, or `model` is the narrower one.
    """
    names = [field.name for field in dataclasses.fields(Architecture) if field.name != "width"]
    settings = [(name, getattr(source.config, name), getattr(model.config, name)) for name in names]
    changed = [f"{name} {old!r} -> {new!r}" for name, old, new in settings if old != new]
    if source.config.width > model.config.width:
        changed.append(f"width {source.config.width} -> {model.config.width}")
    if changed:
        raise ValueError(f"can't start from a checkpoint with {', '.join(changed)}; only the width may grow")
    for (weight, view, inputs), (other, other_view, _) in zip(
        weights_to_widen(model), weights_to_widen(source), strict=True
    ):
        new = widened(other.numpy().reshape(other_view), weight.numpy().reshape(view), inputs)
        weight.assign(new.reshape(weight.shape))


def weights_to_widen(model: SVG) -> Iterator[tuple[tf.Variable, list[int], int | None]]:
    """Each weight, the shape in which channels have an axis of their own, and the axis of the input channels, if any.

    Weights without such an axis, as of batch norm, or with one that doesn't depend on the width, have None.
    """
    encoder, decoder = model.encoder, model.decoder
    convolutions = [block.conv for net in (encoder, decoder) for level in net.levels for block in level]
    inputs = {}
    for conv in [*convolutions, decoder.to_pixels]:
        for kernel in (conv.kernel, conv.skip_kernel) if conv.skip else (conv.kernel,):
            inputs[id(kernel)] = 3 if conv.transposed else 2
    for net in model.nets.values():
        for weight in net.variables:
            if weight is encoder.head.kernel:  # [16 C, g]: 4 x 4 pixels of C channels
                yield weight, [16, -1, weight.shape[1]], 1
            elif weight is decoder.stem.kernel:  # [g, 16 C]
                yield weight, [weight.shape[0], 16, -1], None
            else:
                yield weight, list(weight.shape), inputs.get(id(weight))


def widened(old: np.ndarray, new: np.ndarray, inputs: int | None) -> np.ndarray:
    """`new` with `old` in its first channels, and with 0 between new inputs (axis `inputs`) and old outputs."""
    new, first = new.copy(), [slice(size) for size in old.shape]
    if inputs is not None:
        new[tuple(slice(None) if axis == inputs else part for axis, part in enumerate(first))] = 0
    new[tuple(first)] = old
    return new

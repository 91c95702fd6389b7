"""The layout of all weights: what each axis of our variables is, and of the authors' PyTorch arrays.

The import of their checkpoints follows from it, and the widening of a net. Whoever changes a layer changes it here.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np

from files.model_svg import SVG
from files.models import ConvBlock, FramePredictor, Recurrent
from files.ops import BatchNorm, Conv


@dataclasses.dataclass(frozen=True)
class Weight:
    """A weight of a layer: our variable of it, and the authors' array.

    Each axis has a letter: h and w of a kernel, i the layer's inputs, o its outputs. Where the authors' layer sees
    `concat([x, skip])`, there are two variables of ours: the halves of axis i.
    """

    variables: Sequence[keras.Variable]
    names: Sequence[str]
    """Of the authors' array; where they have two, `combine` makes it one."""
    ours: str = "o"
    """Our axes, a space between them: "hwi o" is a matrix whose rows are 4 x 4 pixels of i channels."""
    theirs: str = "o"
    """The axes of the authors' array."""
    mirrored: bool = False
    """Their h and w run backwards."""
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.add

    @property
    def axes(self) -> str:
        """The letters of `opened`."""
        return self.ours.replace(" ", "")

    def opened(self, value: np.ndarray) -> np.ndarray:
        """`value`, of our shape, with an axis per letter: [16 i, o] -> [4, 4, i, o]."""
        shape = []
        for letters, size in zip(self.ours.split(), value.shape, strict=True):
            shape += [size] if len(letters) == 1 else [4 if letter in "hw" else size // 16 for letter in letters]
        return np.asarray(value).reshape(shape)

    def to_theirs(self, values: Iterable[np.ndarray]) -> np.ndarray:
        """Values of `variables`, or their gradients -> the first of the authors' arrays; a second one is 0."""
        whole = np.concatenate([self.opened(value) for value in values], self.axes.find("i"))
        turned = whole[::-1, ::-1] if self.mirrored else whole
        return turned.transpose([self.axes.index(axis) for axis in self.theirs])

    def to_ours(self, arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The authors' arrays -> a value for each of `variables`."""
        turned = functools.reduce(self.combine, arrays).transpose([self.theirs.index(axis) for axis in self.axes])
        whole = turned[::-1, ::-1] if self.mirrored else turned
        halves = np.split(whole, len(self.variables), self.axes.find("i"))
        return [half.reshape(variable.shape) for half, variable in zip(halves, self.variables, strict=True)]


def layout(model: SVG) -> Iterator[Weight]:
    """All weights of the model."""
    encoder, decoder, vgg = model.encoder, model.decoder, model.config.backbone == "vgg"
    for k, level in enumerate(encoder.levels, 1):
        for j, block in enumerate(level):
            yield from _block(block, f"encoder.c{k}.{j}.main" if vgg else f"encoder.c{k}.main")
    head = f"encoder.c{len(encoder.levels) + 1}"
    yield Weight([encoder.head.kernel], [f"{head}.0.weight"], "hwi o", "oihw")
    yield from _norm(encoder.head_norm, head)

    yield Weight([decoder.stem.kernel], ["decoder.upc1.0.weight"], "i hwo", "iohw")
    yield from _norm(decoder.stem_norm, "decoder.upc1")
    for k, level in enumerate(decoder.levels, 2):
        for j, block in enumerate(level):
            yield from _block(block, f"decoder.upc{k}.{j}.main" if vgg else f"decoder.upc{k}.main")
    last = len(decoder.levels) + (1 if vgg else 2)
    yield from _conv(decoder.to_pixels, f"decoder.upc{last}.1" if vgg else f"decoder.upc{last}.0", transposed=True)

    nets = {"frame_predictor": model.frame_predictor, "posterior": model.posterior, "prior": model.prior}
    for name, net in nets.items():
        if isinstance(net, Recurrent):
            yield from _recurrent(net, name)


def _block(block: ConvBlock, name: str) -> Iterator[Weight]:
    yield from _conv(block.conv, f"{name}.0", block.conv.transposed)
    yield from _norm(block.norm, name)


def _conv(conv: Conv, name: str, transposed: bool) -> Iterator[Weight]:
    kernels = [conv.kernel, conv.skip_kernel] if conv.skip else [conv.kernel]
    ours, theirs = "h w o i" if conv.transposed else "h w i o", "iohw" if transposed else "oihw"
    # With stride 1 a transposed convolution is a convolution with the mirrored kernel.
    yield Weight(kernels, [f"{name}.weight"], ours, theirs, mirrored=transposed and not conv.transposed)
    if conv.bias:
        yield Weight([conv.offset], [f"{name}.bias"])


def _norm(norm: BatchNorm, name: str) -> Iterator[Weight]:
    yield Weight([norm.gamma], [f"{name}.1.weight"])
    yield Weight([norm.beta], [f"{name}.1.bias"])
    # Batch norm takes the bias of the convolution before it away: moving it into the mean changes no output, in
    # training or evaluation.
    yield Weight([norm.moving_mean], [f"{name}.1.running_mean", f"{name}.0.bias"], combine=np.subtract)
    yield Weight([norm.moving_variance], [f"{name}.1.running_var"])


def _recurrent(net: Recurrent, name: str) -> Iterator[Weight]:
    yield from _dense(net.embed, f"{name}.embed")
    for k, lstm in enumerate(net.lstms):
        cell = f"{name}.lstm.{k}"
        yield Weight([lstm.kernel], [f"{cell}.weight_ih"], "i o", "oi")
        yield Weight([lstm.recurrent], [f"{cell}.weight_hh"], "i o", "oi")
        yield Weight([lstm.bias], [f"{cell}.bias_ih", f"{cell}.bias_hh"])
    if isinstance(net, FramePredictor):
        yield from _dense(net.out, f"{name}.output.0")
    else:
        yield from _dense(net.mu, f"{name}.mu_net")
        yield from _dense(net.logvar, f"{name}.logvar_net")


def _dense(dense: keras.layers.Dense, name: str) -> Iterator[Weight]:
    yield Weight([dense.kernel], [f"{name}.weight"], "i o", "oi")
    yield Weight([dense.bias], [f"{name}.bias"])

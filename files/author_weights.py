"""Weights of the authors' PyTorch code: which of their arrays belongs to which of our variables, and how."""

from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np

from files.config import Config
from files.model_svg import SVG
from files.models import ConvBlock, Decoder, Encoder, Recurrent
from files.ops import BatchNorm, Conv

Arrays = Mapping[str, np.ndarray]
# One of our variables, the authors' arrays that make it, and how.
Binding = tuple[keras.Variable, tuple[str, ...], Callable[..., np.ndarray]]


def load_author_weights(model: SVG, arrays: Arrays) -> None:
    """Sets all weights of `model` from arrays in the authors' parameter names and PyTorch's layout.

    Raises ValueError for arrays that are missing, left over or of another shape; the model is then unchanged.
    """
    values, used = [], set()
    for variable, names, convert in bindings(model):
        if missing := [name for name in names if name not in arrays]:
            raise ValueError(f"array {missing[0]!r} is missing among the {len(arrays)} given")
        given = [np.asarray(arrays[name]) for name in names]
        shapes = [array.shape for array in given]
        try:
            value = convert(*(array.astype(np.float32) for array in given))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{names[0]} of shape {shapes[0]} has no place in this model: {error}") from None
        if value.shape != tuple(variable.shape) or len(set(shapes)) > 1:
            raise ValueError(
                f"{' and '.join(names)} of shape {' and '.join(map(str, shapes))} make an array of shape {value.shape};"
                f" the model expects {variable.shape}"
            )
        values.append((variable, value))
        used.update(names)
    # num_batches_tracked is PyTorch's counter, without effect on what the nets compute.
    if left := sorted(name for name in set(arrays) - used if not name.endswith("num_batches_tracked")):
        raise ValueError(f"arrays {left[:3]} have no place in this model ({len(left)} in all)")
    for variable, value in values:
        variable.assign(value)


def infer_config(arrays: Arrays, **settings) -> Config:
    """The configuration that the arrays' names and shapes tell, with `settings` (n_past, data, ...) on top.

    Raises ValueError when the arrays are not those of an SVG model.
    """

    def has(net: str) -> bool:
        return any(name.startswith(f"{net}.") for name in arrays)

    try:
        vgg = "encoder.c1.0.main.0.weight" in arrays
        first = arrays["encoder.c1.0.main.0.weight" if vgg else "encoder.c1.main.0.weight"]
        image_size = 128 if "encoder.c6.0.weight" in arrays else 64
        head = arrays["encoder.c6.0.weight" if image_size == 128 else "encoder.c5.0.weight"]
        rnn_size = arrays["frame_predictor.embed.bias"].size
        latent = {"z_dim": arrays["posterior.mu_net.bias"].size} if has("posterior") else {}
    except KeyError as error:
        raise ValueError(f"array {error} is missing: these are not the weights of an SVG model") from None
    for name, weight in (("first", first), ("last", head)):
        if weight.ndim != 4:
            raise ValueError(f"the encoder's {name} weight has shape {weight.shape}; expected (out, in, height, width)")

    def layers(net: str) -> int:
        return max(1, sum(name.startswith(f"{net}.lstm.") and name.endswith("weight_hh") for name in arrays))

    found = dict(
        backbone="vgg" if vgg else "dcgan",
        image_size=image_size,
        channels=first.shape[1],
        width=first.shape[0],
        g_dim=head.shape[0],
        rnn_size=rnn_size,
        prior="learned" if has("prior") else "fixed" if has("posterior") else "none",
        posterior_layers=layers("posterior"),
        prior_layers=layers("prior"),
        predictor_layers=layers("frame_predictor"),
        data="smmnist" if (image_size, first.shape[1]) == (64, 1) else "data/videos.npz",
    )
    return Config(**{**found, **latent, **settings})


def bindings(model: SVG) -> Iterator[Binding]:
    """All of the model's variables, each with the authors' arrays that it is made of."""
    vgg = model.config.backbone == "vgg"
    yield from _encoder(model.encoder, vgg)
    yield from _decoder(model.decoder, vgg)
    nets = {"frame_predictor": model.frame_predictor, "posterior": model.posterior, "prior": model.prior}
    for name, net in nets.items():
        if isinstance(net, Recurrent):
            yield from _recurrent(net, name)


def _encoder(encoder: Encoder, vgg: bool) -> Iterator[Binding]:
    for k, level in enumerate(encoder.levels, 1):
        for j, block in enumerate(level):
            yield from _block(block, f"encoder.c{k}.{j}.main" if vgg else f"encoder.c{k}.main")
    head = f"encoder.c{len(encoder.levels) + 1}"
    # (out, in, 4, 4) -> rows in the order of [4, 4, in] flattened
    yield encoder.head.kernel, (f"{head}.0.weight",), lambda w: w.transpose(2, 3, 1, 0).reshape(-1, len(w))
    yield from _norm(encoder.head_norm, f"{head}.1", f"{head}.0.bias")


def _decoder(decoder: Decoder, vgg: bool) -> Iterator[Binding]:
    # (in, out, 4, 4) -> columns in the order of [4, 4, out] flattened
    yield decoder.stem.kernel, ("decoder.upc1.0.weight",), lambda w: w.transpose(0, 2, 3, 1).reshape(len(w), -1)
    yield from _norm(decoder.stem_norm, "decoder.upc1.1", "decoder.upc1.0.bias")
    for k, level in enumerate(decoder.levels, 2):
        for j, block in enumerate(level):
            yield from _block(block, f"decoder.upc{k}.{j}.main" if vgg else f"decoder.upc{k}.main")
    last = len(decoder.levels) + (1 if vgg else 2)
    yield from _conv(decoder.to_pixels, f"decoder.upc{last}.1" if vgg else f"decoder.upc{last}.0", transposed=True)


def _block(block: ConvBlock, name: str) -> Iterator[Binding]:
    yield from _conv(block.conv, f"{name}.0", block.conv.transposed)
    yield from _norm(block.norm, f"{name}.1", f"{name}.0.bias")


def _conv(conv: Conv, name: str, transposed: bool) -> Iterator[Binding]:
    def ours(weight):
        if not transposed:
            return weight.transpose(2, 3, 1, 0)  # (out, in, kh, kw) -> [kh, kw, in, out]
        if conv.transposed:
            return weight.transpose(2, 3, 1, 0)  # (in, out, kh, kw) -> [kh, kw, out, in]
        # With stride 1 a transposed convolution is a convolution with the mirrored kernel.
        return weight.transpose(2, 3, 0, 1)[::-1, ::-1]

    if conv.skip:  # their input is concat([x, skip])
        axis = 3 if conv.transposed else 2
        yield conv.kernel, (f"{name}.weight",), lambda w: np.split(ours(w), 2, axis)[0]
        yield conv.skip_kernel, (f"{name}.weight",), lambda w: np.split(ours(w), 2, axis)[1]
    else:
        yield conv.kernel, (f"{name}.weight",), ours
    if conv.bias:
        yield conv.offset, (f"{name}.bias",), lambda b: b


def _norm(norm: BatchNorm, name: str, conv_bias: str) -> Iterator[Binding]:
    yield norm.gamma, (f"{name}.weight",), lambda w: w
    yield norm.beta, (f"{name}.bias",), lambda b: b
    # Batch norm takes a bias before it away: moving it into the mean changes no output, in training or evaluation.
    yield norm.moving_mean, (f"{name}.running_mean", conv_bias), lambda mean, bias: mean - bias
    yield norm.moving_variance, (f"{name}.running_var",), lambda variance: variance


def _recurrent(net: Recurrent, name: str) -> Iterator[Binding]:
    yield from _dense(net.embed, f"{name}.embed")
    for k, lstm in enumerate(net.lstms):
        cell = f"{name}.lstm.{k}"
        yield lstm.kernel, (f"{cell}.weight_ih",), np.transpose
        yield lstm.recurrent, (f"{cell}.weight_hh",), np.transpose
        yield lstm.bias, (f"{cell}.bias_ih", f"{cell}.bias_hh"), np.add
    if name == "frame_predictor":
        yield from _dense(net.out, f"{name}.output.0")
    else:
        yield from _dense(net.mu, f"{name}.mu_net")
        yield from _dense(net.logvar, f"{name}.logvar_net")


def _dense(dense: keras.layers.Dense, name: str) -> Iterator[Binding]:
    yield dense.kernel, (f"{name}.weight",), np.transpose
    yield dense.bias, (f"{name}.bias",), lambda b: b

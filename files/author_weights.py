"""Weights of the authors' PyTorch code: reading them into a model, and telling which model they are of."""

from collections.abc import Mapping

import numpy as np

from files.config import Config
from files.layout import layout
from files.model_svg import SVG

Arrays = Mapping[str, np.ndarray]


def load_author_weights(model: SVG, arrays: Arrays) -> None:
    """Sets all weights of `model` from arrays in the authors' parameter names and PyTorch's layout.

    Raises ValueError for arrays that are missing, left over, of another shape or not finite; the model is then
    unchanged.
    """
    values, used = [], set()
    for weight in layout(model):
        expected, given = weight.to_theirs(weight.variables).shape, []
        for name in weight.names:
            if name not in arrays:
                raise ValueError(f"array {name!r} is missing among the {len(arrays)} given")
            try:
                with np.errstate(over="ignore"):
                    given.append(np.asarray(arrays[name], np.float32))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{name} holds no numbers: {error}") from None
            if given[-1].shape != expected:
                raise ValueError(f"{name} has shape {given[-1].shape}; the model expects {expected}")
            if not np.isfinite(given[-1]).all():
                raise ValueError(f"{name} holds values that are no finite numbers: no video comes of such weights")
        values += zip(weight.variables, weight.to_ours(given), strict=True)
        used.update(weight.names)
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
    config = Config(**{**found, **latent, **settings})
    if config.least_weights > (numbers := sum(array.size for array in arrays.values())):
        raise ValueError(f"the arrays hold {numbers} numbers, and the model that their names and shapes tell has more")
    return config

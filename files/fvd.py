"""Fréchet video distance (Unterthiner et al. 2018) with the user's own network: its weights can't be shipped.

FVD is the Fréchet distance between two Gaussians that have the means and covariances of a network's features of true
and of generated videos. Published figures take the I3D network trained on Kinetics-400, as TensorFlow Hub has it
(`i3d-kinetics-400`), its tensor `RGB/inception_i3d/Mean:0`, videos of 224 x 224 in [-1, 1], given frames included. A
figure of any other network is none of theirs.
"""

import pathlib
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf
from scipy import linalg

from files.checks import sentence

SIZE = 224  # pixels
BATCH = 4  # videos in the network at once


class VideoNet:
    """A network from videos to features: a TensorFlow SavedModel or a Keras file, up to one of its layers.

    `layer` names a Keras layer, or an output or a tensor of a SavedModel; by default the network's own output.
    `values` are what black and white have to be.

    Raises FileNotFoundError where there is no such file, ValueError for one that can't be read, an unknown layer, other
    inputs than one of shape [N, T, 224, 224, 3], or values that are the same or no numbers.
    """

    def __init__(self, path: pathlib.Path, layer: str | None = None, values: tuple[float, float] = (-1.0, 1.0)):
        path = pathlib.Path(path)
        if not np.isfinite(values).all() or values[0] == values[1]:
            raise ValueError(f"black and white are {values[0]} and {values[1]}; expected two different numbers")
        if not path.exists():
            raise FileNotFoundError(
                f"no network {path}; expected a SavedModel's folder or a Keras file with I3D's weights"
            )
        self.path, self.layer, (self.low, self.high) = path, layer, values
        try:
            load = _saved_model if path.is_dir() else _keras_file
            self.function, shapes = load(path, layer)
        except (OSError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is no SavedModel or Keras file that can be read: {sentence(error)}") from error
        expected = [None, None, SIZE, SIZE, 3]
        if len(shapes) != 1 or not tf.TensorShape(shapes[0]).is_compatible_with(expected):
            found = ", ".join(map(str, shapes))
            raise ValueError(f"{path} takes {found}; expected one input [N, T, {SIZE}, {SIZE}, 3]")

    @property
    def identity(self) -> dict:
        """What a figure has to name: `network`, `layer` and `values`."""
        return {"network": self.path.name, "layer": self.layer, "values": [self.low, self.high]}

    def __call__(self, video: tf.Tensor) -> np.ndarray:
        """Features [B, D] of video [B, T, H, W, C] in [0, 1], resized as the original does, grey made RGB.

        Raises ValueError where the network can't compute with T frames, or gives other values than these.
        """
        batch, frames = video.shape[:2]
        # TensorFlow 1's bilinear resize, which doesn't align the centres of pixels.
        resized = tf.compat.v1.image.resize_bilinear(tf.reshape(video, [-1, *video.shape[2:]]), (SIZE, SIZE))
        rgb = tf.broadcast_to(tf.reshape(resized, [batch, frames, SIZE, SIZE, -1]), [batch, frames, SIZE, SIZE, 3])
        try:
            features = self.function(self.low + (self.high - self.low) * rgb).numpy()
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise ValueError(f"{self.path} can't take {frames} frames of float32: {sentence(error)}") from error
        if features.ndim != 2 or len(features) != batch:
            raise ValueError(
                f"{self.layer or 'the output'} of {self.path} has shape {list(features.shape)} for {batch} videos; "
                f"expected features [{batch}, D]: name another layer"
            )
        if not np.isfinite(features).all():
            raise ValueError(
                f"features of {self.path} are no finite numbers; it was given videos in [{self.low}, {self.high}]"
            )
        return features


def _keras_file(path: pathlib.Path, layer: str | None):
    model = keras.saving.load_model(path, compile=False)
    if layer is not None:
        names = [part.name for part in model.layers]
        if layer not in names:
            raise ValueError(f"no layer {layer} in {path}; there are {', '.join(names[-20:])}")
        model = keras.Model(model.inputs, model.get_layer(layer).output)
    if len(model.outputs) > 1:
        raise ValueError(f"{path} has {len(model.outputs)} outputs; choose one of its layers")
    function = tf.function(lambda video: model(video, training=False), reduce_retracing=True)
    return function, [given.shape for given in model.inputs]


def _saved_model(path: pathlib.Path, layer: str | None):
    loaded = tf.saved_model.load(str(path))
    names = [name for name in ("serving_default", "default") if name in loaded.signatures]
    if not names:
        raise ValueError(f"{path} has signatures {list(loaded.signatures)}; expected serving_default or default")
    signature = loaded.signatures[names[0]]
    inputs = signature.structured_input_signature[1]
    name, shapes = next(iter(inputs)), [given.shape for given in inputs.values()]
    outputs = sorted(signature.structured_outputs)
    if layer is None and len(outputs) > 1:
        raise ValueError(f"{path} has outputs {', '.join(outputs)}; choose one of them as layer")
    if layer is None or layer in outputs:
        return lambda x: (loaded, signature(**{name: x})[layer or outputs[0]])[1], shapes
    try:  # a tensor inside of a graph of TensorFlow 1, as the original is
        part = signature.prune(signature.inputs[0], [signature.graph.get_tensor_by_name(layer)])
    except (KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"no output or tensor {layer} in {path}; its outputs are {', '.join(outputs)}") from error
    return lambda x: (loaded, part(x)[0])[1], shapes


class Moments:
    """Mean and covariance of features that come a batch at a time, which aren't kept (Chan et al. 1983)."""

    def __init__(self):
        self.count, self.mean, self.scatter = 0, 0.0, 0.0

    def add(self, features: np.ndarray) -> None:
        """Takes features [B, D] into account."""
        features = np.asarray(features, np.float64)
        mean, count = features.mean(0), self.count + len(features)
        centred, apart = features - mean, mean - self.mean
        self.scatter = self.scatter + centred.T @ centred
        self.scatter = self.scatter + np.outer(apart, apart) * self.count * len(features) / count
        self.mean = self.mean + apart * len(features) / count
        self.count = count

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased one, [D, D]; raises ValueError for fewer than two sequences."""
        if self.count < 2:
            raise ValueError(f"there are features of {self.count} sequences; expected at least 2 for a covariance")
        return self.scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), between two Gaussians (Dowson and Landau 1982)."""
    values, vectors = linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    # C_a C_b has the eigenvalues of this symmetric matrix.
    product = linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(np.maximum(product, 0)).sum()
    return float(np.square(a.mean - b.mean).sum() + trace)


def video_distance(net: VideoNet, pairs: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> dict:
    """FVD of true and generated videos, in pairs of batches [B, T, H, W, C] in [0, 1], given frames included.

    Returns `value`, `n_sequences`, `n_features`, what `net.identity` holds, and a `remark` on how far to trust it.
    """
    true, generated = Moments(), Moments()
    for pair in pairs:
        for moments, video in zip((true, generated), pair, strict=True):
            for start in range(0, len(video), BATCH):
                moments.add(net(video[start : start + BATCH]))
    value, features = frechet_distance(true, generated), len(true.mean)
    remark = "one sample per sequence, given frames included"
    if true.count <= features:
        remark += (
            f"; {true.count} sequences are too few for the covariance of {features} features, which is singular: "
            "the distance comes out too large, and the more so the fewer there are"
        )
    return {
        "value": value,
        "n_sequences": true.count,
        "n_features": features,
        **net.identity,
        "remark": remark,
    }

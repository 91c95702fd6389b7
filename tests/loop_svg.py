"""The comparison: SVG-LP from Keras's own layers in a Python loop over frames, as the authors drive theirs.

Each training step encodes frames i-1 and i, concatenates the skips and decodes, one frame at a time; to sample a video
several times, it is repeated in the batch, its conditioning too. Under `tf.function` the loop unrolls into a graph that
grows with the video. It shares nothing with `files/` but the weights, which it takes in the authors' layout, so that
equal results are a check of both.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from files.layout import layout
from files.model_svg import SVG


def block(convolution: keras.Layer, activation: str) -> keras.Layer:
    """Convolution, batch norm, activation."""
    norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    return keras.Sequential([convolution, norm, layers.Activation(activation)])


def leaky_relu(x: tf.Tensor) -> tf.Tensor:
    """Of the authors' slope."""
    return tf.nn.leaky_relu(x, 0.2)


class LSTMNet:
    """Dense embedding, LSTM cells, and one or two dense heads; float32."""

    def __init__(self, units: int, depth: int, heads: list[keras.Layer]):
        self.embed = layers.Dense(units, dtype="float32")
        self.cells = [layers.LSTMCell(units, dtype="float32") for _ in range(depth)]
        self.heads = heads
        self.parts = [self.embed, *self.cells, *self.heads]

    def start(self, batch):
        """Zero states."""
        return [[tf.zeros([batch, cell.units])] * 2 for cell in self.cells]

    def __call__(self, x: tf.Tensor, states: list):
        """x [B, C] -> the heads' outputs and the states after."""
        x, after = self.embed(x), []
        for cell, state in zip(self.cells, states, strict=True):
            x, state = cell(x, state)
            after.append(state)
        return [head(x) for head in self.heads], after


class LoopSVG:
    """SVG-LP with DCGAN-64 and the weights of `model`; its methods are what a training step and sampling compute."""

    def __init__(self, model: SVG):
        self.config = config = model.config
        widths = [config.width * multiple for multiple in (1, 2, 4, 8)]
        level = dict(kernel_size=4, strides=2, padding="same", use_bias=False, dtype=model.dtype_policy)
        ends = dict(kernel_size=4, padding="valid", use_bias=False, dtype=model.dtype_policy)
        self.down = [block(layers.Conv2D(width, **level), leaky_relu) for width in widths]
        self.head = block(layers.Conv2D(config.g_dim, **ends), "tanh")
        self.stem = block(layers.Conv2DTranspose(widths[-1], **ends), leaky_relu)
        self.up = [block(layers.Conv2DTranspose(width, **level), leaky_relu) for width in widths[-2::-1]]
        self.to_pixels = layers.Conv2DTranspose(
            config.channels, 4, 2, "same", activation="sigmoid", dtype=model.dtype_policy
        )
        z = [config.z_dim] * 2
        dense = lambda units, **kwargs: layers.Dense(units, dtype="float32", **kwargs)  # noqa: E731
        self.posterior = LSTMNet(config.rnn_size, config.posterior_layers, list(map(dense, z)))
        self.prior = LSTMNet(config.rnn_size, config.prior_layers, list(map(dense, z)))
        self.predictor = LSTMNet(config.rnn_size, config.predictor_layers, [dense(config.g_dim, activation="tanh")])
        nets = [self.predictor, self.posterior] + [self.prior] * (config.prior == "learned")
        convolutional = [*self.down, self.head, self.stem, *self.up, self.to_pixels]
        self.layers = [*convolutional, *(part for net in nets for part in net.parts)]
        video = tf.zeros([1, config.n_past + 1, 64, 64, config.channels])
        self.loss(video, tf.zeros([1, config.n_past, config.z_dim]))  # builds
        for variable, value in zip(self.variables(), plain_values(model, lambda v: v), strict=True):
            variable.assign(value)

    def variables(self) -> list[keras.Variable]:
        """In the order of `plain_values`."""
        return [variable for layer in self.layers for variable in layer.weights if "seed" not in variable.path]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """What gradients are for."""
        return [variable for variable in self.variables() if variable.trainable]

    def encode(self, x: tf.Tensor, training: bool = False):
        """[B, H, W, C] -> h [B, g] and the skips, from fine to coarse."""
        skips = []
        for net in self.down:
            x = net(x, training=training)
            skips.append(x)
        h = self.head(x, training=training)
        return tf.cast(tf.reshape(h, [-1, self.config.g_dim]), tf.float32), skips

    def decode(self, h: tf.Tensor, skips: list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """h [B, g] and the skips -> [B, H, W, C]."""
        x = self.stem(h[:, None, None], training=training)
        for net, skip in zip(self.up, skips[:0:-1], strict=True):
            x = net(tf.concat([x, skip], -1), training=training)
        return tf.cast(self.to_pixels(tf.concat([x, skips[0]], -1)), tf.float32)

    def p(self, h: tf.Tensor, state):
        """mu and logvar of the prior."""
        if self.config.prior == "fixed":
            return [tf.zeros([tf.shape(h)[0], self.config.z_dim])] * 2, state
        return self.prior(h, state)

    def loss(self, video: tf.Tensor, noise: tf.Tensor, training: bool = False, is_true=None) -> tf.Tensor:
        """The loss of video [B, T, H, W, C] with posterior noise [B, T-1, z], frame by frame.

        Where `is_true` [T, B, 1, 1, 1] is False, a prediction is fed, without a gradient through its pixels.
        """
        n_past, batch = self.config.n_past, tf.shape(video)[0]
        q_state, p_state, state = (net.start(batch) for net in (self.posterior, self.prior, self.predictor))
        mse = kld = 0.0
        x_pred = video[:, 0]
        for i in range(1, video.shape[1]):
            x = video[:, i - 1]
            if is_true is not None:
                x = tf.where(is_true[i - 1], x, tf.stop_gradient(x_pred))
            h, own_skips = self.encode(x, training)
            h_target, _ = self.encode(video[:, i], training)
            if i == 1 or i < n_past or self.config.last_frame_skip:
                skips = own_skips
            (mu, logvar), q_state = self.posterior(h_target, q_state)
            (mu_p, logvar_p), p_state = self.p(h, p_state)
            z = mu + tf.exp(0.5 * logvar) * noise[:, i - 1]
            (h_pred,), state = self.predictor(tf.concat([h, z], -1), state)
            x_pred = self.decode(h_pred, skips, training)
            mse += tf.reduce_mean(tf.math.squared_difference(x_pred, video[:, i]))
            kl = 0.5 * (logvar_p - logvar) + (tf.exp(logvar) + (mu - mu_p) ** 2) / (2 * tf.exp(logvar_p)) - 0.5
            kld += tf.reduce_sum(kl) / tf.cast(batch, tf.float32)
        return mse + self.config.beta * kld

    @tf.function
    def sample(self, past: tf.Tensor, posterior_noise: tf.Tensor, prior_noise: tf.Tensor) -> tf.Tensor:
        """A sample of each video: past [B, P, H, W, C], noise [B, P-1, z], [B, T, z] -> [B, T, H, W, C]."""
        n_past, batch = past.shape[1], tf.shape(past)[0]
        q_state, p_state, state = (net.start(batch) for net in (self.posterior, self.prior, self.predictor))
        x, predicted = past[:, 0], []
        for i in range(1, n_past + prior_noise.shape[1]):
            h, own_skips = self.encode(x)
            if i == 1 or i < n_past or self.config.last_frame_skip:
                skips = own_skips
            (mu, logvar), p_state = self.p(h, p_state)
            if i < n_past:
                h_target, _ = self.encode(past[:, i])
                (mu, logvar), q_state = self.posterior(h_target, q_state)
                z = mu + tf.exp(0.5 * logvar) * posterior_noise[:, i - 1]
            else:
                z = mu + tf.exp(0.5 * logvar) * prior_noise[:, i - n_past]
            (h_pred,), state = self.predictor(tf.concat([h, z], -1), state)
            x = past[:, i] if i < n_past else self.decode(h_pred, skips)
            if i >= n_past:
                predicted.append(x)
        return tf.stack(predicted, 1)

    def generate(self, past, posterior_noise, prior_noise) -> tf.Tensor:
        """As `SVG.generate` with given noise [B, N, ...], all samples as one batch: -> [B, N, T, H, W, C]."""
        videos, samples = prior_noise.shape[:2]
        noise = [tf.reshape(n, [videos * samples, -1, self.config.z_dim]) for n in (posterior_noise, prior_noise)]
        frames = self.sample(tf.repeat(past, samples, axis=0), *noise)
        return tf.reshape(frames, [videos, samples, *frames.shape[1:]])


def plain_values(model: SVG, value) -> list[np.ndarray]:
    """`value(variable)` of every weight of `model`, in the shapes and the order of Keras's layers.

    With `value` the identity these are weights; with a look-up of gradients, gradients.
    """
    theirs = [weight.to_theirs(map(value, weight.variables)) for weight in layout(model)]
    # PyTorch's (out, in, h, w) -> [h, w, in, out], and so for transposed convolutions with in and out changed about.
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    return [array.transpose(axes[array.ndim]) for array in theirs]

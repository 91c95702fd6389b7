"""The Keras parts of SVG: convolutional encoder and decoder (DCGAN, VGG), frame predictor, posterior and prior.

Time is the leading axis here: M frames of B videos are [M, B, ...]. The convolutional nets fold M and B into one batch
axis and see all frames in one call; the recurrent nets run one `tf.scan` per LSTM layer. Recurrent nets and everything
probabilistic are float32; `dtype` sets the precision of the convolutions.
"""

import functools
import itertools

import keras
import tensorflow as tf
from keras import Layer, layers

from files.config import Architecture
from files.ops import LSTM, BatchNorm, Conv, dense, leaky_relu, name_parts, recomputed, with_first

State = tuple[tuple[tf.Tensor, tf.Tensor], ...]  # (h, c), each [B, rnn_size], for every LSTM layer


# Convolutional parts ------------------------------------------------------------------------------------------------


class ConvBlock(Layer):
    """Convolution, batch norm, leaky ReLU: a level of the DCGAN nets and a layer of the VGG nets.

    The authors' convolutions have a bias here; batch norm takes it away again, so that ours have none.
    """

    def __init__(self, filters: int, size: int, strides: int = 1, transposed=False, skip=False, **kwargs):
        super().__init__(**kwargs)
        self.conv = Conv(filters, size, strides, transposed, skip, dtype=self.dtype_policy, name="conv")
        self.norm = BatchNorm(dtype=self.dtype_policy, name="norm")

    def call(self, x: tf.Tensor, skip: tf.Tensor | None = None, **mode) -> tf.Tensor:
        """x [M * B, H, W, C] and a projected skip -> [M * B, H', W', filters]; `mode` as in `BatchNorm`."""
        return leaky_relu(self.norm(self.conv(x, skip), **mode))

    def project_skip(self, skip: tf.Tensor) -> tf.Tensor:
        """As in `Conv`."""
        return self.conv.project_skip(skip)


class Encoder(Layer):
    """Frames -> h and the skip connections: one per level, from fine to coarse."""

    def __init__(self, config: Architecture, recompute: bool, **kwargs):
        super().__init__(**kwargs)
        self.levels = encoder_levels(config, self.dtype_policy)
        self.segments = [self.levels] if config.backbone == "dcgan" else [[level] for level in self.levels]
        self.recompute = recompute
        name_parts(self, "block", [block for level in self.levels for block in level])
        self.pool = config.backbone == "vgg"
        self.head = dense(config.g_dim, use_bias=False, dtype=self.dtype_policy, name="head")
        self.head_norm = BatchNorm(dtype=self.dtype_policy, name="head_norm")

    def call(
        self, frames: tf.Tensor, n_skips: int | None = None, training: bool = False
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """[M, B, H, W, C] -> h [M, B, g_dim], float32 in [-1, 1], and skips [n_skips, B, H', W', C'].

        The skips are those of the first `n_skips` frames, by default of all.
        """
        count, batch = keras.ops.shape(frames)[:2]
        x = tf.reshape(frames, [count * batch, *frames.shape[2:]])
        skips = []
        for levels in self.segments:
            run = functools.partial(
                self._encode, levels, None if n_skips is None else n_skips * batch, training=training
            )
            x, *finer = recomputed(run, x) if self.recompute else run(x)
            skips += [
                tf.reshape(skip, [count if n_skips is None else n_skips, batch, *skip.shape[1:]]) for skip in finer
            ]
        # The authors' 4 x 4 convolution without padding, on 4 x 4 pixels, is a matrix product.
        h = self.head_norm(self.head(tf.reshape(x, [count * batch, 16 * x.shape[-1]])), training=training)
        return tf.reshape(tf.tanh(tf.cast(h, tf.float32)), [count, batch, h.shape[-1]]), skips

    def _encode(self, levels, n_skips, x, **mode) -> tuple[tf.Tensor, ...]:
        """x [N, H, W, C] after `levels`, and the skips of its first `n_skips` images, one per level."""
        skips = []
        for level in levels:
            for block in level:
                x = block(x, **mode)
            x, skip = (x, x) if n_skips is None else with_first(x, n_skips)
            skips.append(skip)
            if self.pool:
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        return x, *skips


class Decoder(Layer):
    """h and the skip connections, as `project_skips` gives them, -> frames."""

    def __init__(self, config: Architecture, recompute: bool, **kwargs):
        super().__init__(**kwargs)
        self.coarsest = level_widths(config)[-1]
        self.stem = dense(16 * self.coarsest, use_bias=False, dtype=self.dtype_policy, name="stem")
        self.stem_norm = BatchNorm(dtype=self.dtype_policy, name="stem_norm")
        self.levels = decoder_levels(config, self.dtype_policy)
        name_parts(self, "block", [block for level in self.levels for block in level])
        if config.backbone == "dcgan":
            self.upsample = None
            self.to_pixels = Conv(config.channels, 4, 2, True, True, True, dtype=self.dtype_policy, name="to_pixels")
            self.segments = [self.levels[:-1], [self.levels[-1], [self.to_pixels]]]
        else:
            self.upsample = layers.UpSampling2D(2, dtype=self.dtype_policy)
            self.to_pixels = Conv(config.channels, 3, 1, bias=True, dtype=self.dtype_policy, name="to_pixels")
            *coarser, finest = self.levels
            self.segments = [*([level] for level in coarser), [[*finest, self.to_pixels]]]
        self.recompute = recompute

    def project_skips(self, skips: list[tf.Tensor]) -> list[tf.Tensor]:
        """The encoder's skips [S, B, ...] -> what they add in each level, [S, B, ...], from coarse to fine."""
        projected = []
        for (join, *_), skip in zip(itertools.chain(*self.segments), reversed(skips), strict=True):
            y = join.project_skip(tf.reshape(skip, [-1, *skip.shape[2:]]))
            projected.append(tf.reshape(y, [*keras.ops.shape(skip)[:2], *y.shape[1:]]))
        return projected

    def call(self, h: tf.Tensor, projected_skips: list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """h [M, B, g_dim] and projected skips [S, B, ...], S <= M, the last one held -> [M, B, H, W, C] in [0, 1]."""
        count, batch = keras.ops.shape(h)[:2]
        # The authors' transposed convolution from one pixel to 4 x 4 is a matrix product.
        x = tf.reshape(self.stem(tf.reshape(h, [count * batch, h.shape[-1]])), [count * batch, 4, 4, self.coarsest])
        x = leaky_relu(self.stem_norm(x, training=training))
        skips = iter(projected_skips)
        for levels in self.segments:
            run = functools.partial(self._decode, levels, training=training)
            inputs = [x, *itertools.islice(skips, len(levels))]
            x = recomputed(run, *inputs) if self.recompute else run(*inputs)
        frames = tf.sigmoid(tf.cast(x, tf.float32))
        return tf.reshape(frames, [count, batch, *frames.shape[1:]])

    def _decode(self, levels, x, *projected_skips, **mode) -> tf.Tensor:
        """x [N, H, W, C] after `levels`, each of which takes a skip first."""
        for (join, *blocks), skip in zip(levels, projected_skips, strict=True):
            x = join(x if self.upsample is None else self.upsample(x), skip, **mode)
            for block in blocks:
                x = block(x, **mode)
        return x


def level_widths(config: Architecture) -> list[int]:
    """Channels of each level, from fine to coarse."""
    multiples = {64: [1, 2, 4, 8], 128: [1, 2, 4, 8, 8]}[config.image_size]
    return [config.width * multiple for multiple in multiples]


def vgg_depths(config: Architecture) -> list[int]:
    """Convolutions of each VGG level, from fine to coarse."""
    return {64: [2, 2, 3, 3], 128: [2, 2, 3, 3, 3]}[config.image_size]


def encoder_levels(config: Architecture, dtype) -> list[list[ConvBlock]]:
    """The convolutional blocks of each level, from fine to coarse."""
    if config.backbone == "dcgan":
        return [[ConvBlock(width, 4, 2, dtype=dtype)] for width in level_widths(config)]
    widths = zip(level_widths(config), vgg_depths(config), strict=True)
    return [[ConvBlock(width, 3, dtype=dtype) for _ in range(depth)] for width, depth in widths]


def decoder_levels(config: Architecture, dtype) -> list[list[ConvBlock]]:
    """The convolutional blocks of each level, from coarse to fine; the first of a level takes the skip."""
    widths = level_widths(config)
    finer = list(zip(widths[1:], widths[:-1], strict=True))[::-1]  # (this level's width, the next finer one's)
    if config.backbone == "dcgan":
        return [[ConvBlock(to, 4, 2, transposed=True, skip=True, dtype=dtype)] for _, to in finer]
    levels = [
        [ConvBlock(width, 3, skip=True, dtype=dtype)]
        + [ConvBlock(width, 3, dtype=dtype) for _ in range(depth - 2)]
        + [ConvBlock(to, 3, dtype=dtype)]
        for (width, to), depth in zip(finer, vgg_depths(config)[:0:-1], strict=True)
    ]
    return [*levels, [ConvBlock(widths[0], 3, skip=True, dtype=dtype)]]


# Recurrent parts ----------------------------------------------------------------------------------------------------


class Recurrent(Layer):
    """Dense embedding, LSTM layers, and a readout that subclasses define."""

    def __init__(self, units: int, depth: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.embed = dense(units, name="embed")
        self.lstms = [LSTM(units, name=f"lstm{k}") for k in range(depth)]
        name_parts(self, "lstm", self.lstms)

    def readout(self, y: tf.Tensor):
        """What the net returns for the last layer's h [..., units]."""
        raise NotImplementedError

    def initial_state(self, batch: int | tf.Tensor) -> State:
        """The state before the first frame."""
        return tuple(lstm.initial_state(batch) for lstm in self.lstms)

    def call(self, x: tf.Tensor, state: State | None = None):
        """All frames at once: x [T, B, C] -> (readout [T, B, ...], state after the last frame)."""
        if state is None:
            state = self.initial_state(tf.shape(x)[1])
        y, after = self.embed(x), []
        for lstm, before in zip(self.lstms, state, strict=True):
            y, state = lstm(y, before)
            after.append(state)
        return self.readout(y), tuple(after)

    def step(self, x: tf.Tensor, state: State):
        """One frame: x [B, C] -> (readout [B, ...], state after it)."""
        y, after = self.embed(x), []
        for lstm, before in zip(self.lstms, state, strict=True):
            y, c = lstm.recur(before, lstm.project(y))
            after.append((y, c))
        return self.readout(y), tuple(after)


class FramePredictor(Recurrent):
    """[h_{t-1}, z_t] -> the predicted h_t, in [-1, 1]."""

    def __init__(self, g_dim: int, units: int, depth: int, **kwargs):
        super().__init__(units, depth, **kwargs)
        self.out = dense(g_dim, activation="tanh", name="out")

    def readout(self, y):
        """[..., units] -> [..., g_dim]."""
        return self.out(y)


class GaussianLSTM(Recurrent):
    """h_t -> mean and log variance of z: the posterior q(z_t | x_{1:t}), or the learned prior p(z_t | x_{1:t-1})."""

    def __init__(self, z_dim: int, units: int, depth: int, **kwargs):
        super().__init__(units, depth, **kwargs)
        self.mu = dense(z_dim, name="mu")
        self.logvar = dense(z_dim, name="logvar")

    def readout(self, y):
        """[..., units] -> mu and log sigma^2, each [..., z_dim]."""
        return self.mu(y), self.logvar(y)


class StandardNormal(Layer):
    """N(0, I) with the interface of GaussianLSTM: the fixed prior of SVG-FP, and with z_dim 0 no latent at all."""

    def __init__(self, z_dim: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.z_dim = z_dim

    def initial_state(self, batch: int | tf.Tensor) -> State:
        """Nothing to remember."""
        return ()

    def call(self, x: tf.Tensor, state: State | None = None):
        """x [..., C] -> zero mu and log sigma^2, each [..., z_dim], and an empty state."""
        zeros = tf.zeros(tf.concat([tf.shape(x)[:-1], [self.z_dim]], 0))
        return (zeros, zeros), ()

    step = call

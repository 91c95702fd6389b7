"""The fast layers: convolution, batch norm and LSTM with gradients of their own, and recomputed activations.

Each computes what a layer of Keras does; results/shipped/fast_layers.json holds what each earns in time and memory.
Work-arounds for TensorFlow's CPU kernels apply only where there is no GPU.
"""

import itertools

import keras
import tensorflow as tf
from keras import Layer, initializers, layers

LEAK = 0.2  # slope of the leaky ReLU


def weights() -> initializers.Initializer:
    """N(0, 0.02), a new instance for each weight: Keras initializers repeat their values."""
    return initializers.RandomNormal(0.0, 0.02)


def dense(units: int, **kwargs) -> layers.Dense:
    """A dense layer with the authors' initial weights."""
    return layers.Dense(units, kernel_initializer=weights(), **kwargs)


def has_gpu() -> bool:
    """Whether the convolutions run on a GPU's library, which needs none of the work-arounds for that of the CPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def replicas() -> int:
    """How many train together, where this runs in one of them."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


# Convolutional layers ----------------------------------------------------------------------------------------------


class BatchNorm(layers.BatchNormalization):
    """Batch norm on TensorFlow's fused kernel; Keras 3 composes it from several passes over the data.

    The moving variance is that of the unbiased estimate, as in PyTorch. With `synchronized`, replicas that train
    together share their statistics.
    """

    synchronized = False

    def __init__(self, **kwargs):
        super().__init__(momentum=0.9, epsilon=1e-5, gamma_initializer=initializers.RandomNormal(1.0, 0.02), **kwargs)

    def call(self, x: tf.Tensor, training: bool = False, again: bool = False) -> tf.Tensor:
        """Normalises [..., C] over all axes but the last.

        In training mode the moving statistics follow the batches; one that comes `again` has been counted.
        """
        if training and self.synchronized and replicas() > 1:
            y, mean, variance = self.normalise_together(x)
        else:
            y, mean, variance = self.normalise(x, training)
        if training and not again:
            self.moving_mean.assign(self.momentum * self.moving_mean + (1 - self.momentum) * mean)
            self.moving_variance.assign(self.momentum * self.moving_variance + (1 - self.momentum) * variance)
        return y

    def normalise(self, x: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """By the kernel: y, and the mean and the unbiased variance of x."""
        shape = keras.ops.shape(x)
        folded = tf.reshape(x, [-1, 1, 1, x.shape[-1]]) if x.shape.rank == 2 else x
        empty = tf.zeros([0])
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=folded,
            scale=self.gamma,
            offset=self.beta,
            mean=empty if training else self.moving_mean,
            variance=empty if training else self.moving_variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        return tf.reshape(y, shape), mean, variance

    def normalise_together(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """As `normalise` in training, with the statistics of all replicas' x, which have the same size."""
        wide = tf.cast(x, tf.float32)
        axes = list(range(x.shape.rank - 1))
        moments = tf.stack([tf.reduce_mean(wide, axes), tf.reduce_mean(tf.square(wide), axes)])
        context = tf.distribute.get_replica_context()
        mean, square = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.SUM, moments) / replicas())
        variance = square - tf.square(mean)
        y = (wide - mean) * tf.math.rsqrt(variance + self.epsilon) * self.gamma + self.beta
        count = tf.cast(replicas() * tf.size(x) // x.shape[-1], tf.float32)
        return tf.cast(y, x.dtype), mean, variance * count / (count - 1)


class Conv(Layer):
    """Convolution, or transposed convolution, of x or of `concat([x, skip])`.

    Convolution is linear, so that of a concatenation is a sum: `call(x)` convolves x, `project_skip(skip)` the skip,
    which is needed once per distinct frame instead of once per prediction.
    """

    def __init__(self, filters: int, size: int, strides: int, transposed=False, skip=False, bias=False, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.size, self.strides = filters, size, strides
        self.transposed, self.skip, self.bias = transposed, skip, bias

    def build(self, shape):
        ends = (self.filters, shape[-1]) if self.transposed else (shape[-1], self.filters)
        shape = (self.size, self.size, *ends)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=weights())
        if self.skip:  # the skip has as many channels as x
            self.skip_kernel = self.add_weight(name="skip_kernel", shape=shape, initializer=weights())
        if self.bias:
            self.offset = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def _convolve(self, x, kernel):
        x, kernel = tf.cast(x, self.compute_dtype), tf.cast(kernel, self.compute_dtype)
        if self.strides == 1:
            return tf.nn.conv2d(x, kernel, 1, "SAME")
        return upconv(x, kernel) if self.transposed else downconv(x, kernel)

    def call(self, x: tf.Tensor, skip: tf.Tensor | None = None, **mode) -> tf.Tensor:
        """x [M * B, H, W, C] and a projected skip [S, B, H', W', filters] -> [M * B, H', W', filters]; any `mode`."""
        y = self._convolve(x, self.kernel)
        if self.bias:
            y += tf.cast(self.offset, y.dtype)  # for one channel, bias_add's gradient is slow
        return y if skip is None else add_held(y, skip)

    def project_skip(self, skip: tf.Tensor) -> tf.Tensor:
        """[N, H, W, C] -> [N, H', W', filters]: what the skip adds to the convolution's output."""
        if not self.built:
            self.build(skip.shape)
        return self._convolve(skip, self.skip_kernel)


@tf.custom_gradient
def downconv(x: tf.Tensor, kernel: tf.Tensor):
    """4 x 4 convolution with stride 2: x [N, 2H, 2W, C] and kernel [4, 4, C, F] -> [N, H, W, F]."""
    y = tf.nn.conv2d(x, kernel, 2, "SAME")

    def gradient(dy):
        dkernel = filter_gradient(x, dy)
        with tf.control_dependencies([dkernel]):  # frees x before dx is made: a tenth of a step's memory
            return tf.nn.conv2d_transpose(dy, kernel, keras.ops.shape(x), 2, "SAME"), dkernel

    return y, gradient


@tf.custom_gradient
def upconv(x: tf.Tensor, kernel: tf.Tensor):
    """Transposed 4 x 4 convolution with stride 2: x [N, H, W, C] and kernel [4, 4, F, C] -> [N, 2H, 2W, F]."""
    batch, height, width, _ = keras.ops.shape(x)
    if kernel.shape[2] <= 4 and not has_gpu():  # to pixels
        y = upconv_to_few(x, kernel)
    else:
        y = tf.nn.conv2d_transpose(x, kernel, [batch, 2 * height, 2 * width, kernel.shape[2]], 2, "SAME")

    def gradient(dy):
        dkernel = filter_gradient(dy, x)
        with tf.control_dependencies([dkernel]):  # frees x before dx is made: a tenth of a step's memory
            return tf.nn.conv2d(dy, kernel, 2, "SAME"), dkernel

    return y, gradient


def upconv_to_few(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`upconv` to few filters: one matrix product spreads each pixel over 4 x 4, and the overlaps are summed.

    The CPU library's kernel takes three to four times as long, because it has no work for its vectors' width: 5 to 9 %
    of the time of sampling (fast_layers.json).
    """
    batch, height, width, channels = keras.ops.shape(x)
    filters = kernel.shape[2]
    spread = tf.matmul(tf.reshape(x, [-1, channels]), tf.reshape(kernel, [-1, channels]), transpose_b=True)
    # The 4 x 4 taps of a pixel are 2 x 2 groups of 2 x 2: those of four neighbours meet in each group of the image.
    spread = tf.transpose(tf.reshape(spread, [batch, height, width, 2, 2, 2, 2, filters]), [3, 5, 0, 1, 4, 2, 6, 7])
    shifted = [
        tf.pad(spread[i, j], [[0, 0], [i, 1 - i], [0, 0], [j, 1 - j], [0, 0], [0, 0]]) for i in (0, 1) for j in (0, 1)
    ]
    image = tf.reshape(tf.add_n(shifted), [batch, 2 * height + 2, 2 * width + 2, filters])
    return image[:, 1:-1, 1:-1]


def filter_gradient(fine: tf.Tensor, coarse: tf.Tensor) -> tf.Tensor:
    """Gradient of the kernel [4, 4, C, F] between `fine` [N, 2H, 2W, C] and `coarse` [N, H, W, F].

    In bfloat16, without a GPU, small images are left to matrix products: the CPU library's kernel takes twice as long.
    They save a quarter of a training step's time and take a third more memory (fast_layers.json).
    """
    _, height, width, filters = keras.ops.shape(coarse)
    channels = fine.shape[-1]
    if height > 8 or fine.dtype != tf.bfloat16 or has_gpu():
        shape = [4, 4, channels, filters]
        return tf.raw_ops.Conv2DBackpropFilter(
            input=fine, filter_sizes=shape, out_backprop=coarse, strides=[1, 2, 2, 1], padding="SAME"
        )
    # Pixels in 2 x 2 groups: the kernel becomes 2 x 2 with stride 1, and each of its taps is one matrix product.
    groups = tf.nn.space_to_depth(tf.pad(fine, [[0, 0], [1, 1], [1, 1], [0, 0]]), 2)  # [N, H + 1, W + 1, 4 C]
    flat = tf.reshape(coarse, [-1, filters])
    taps = [
        tf.matmul(tf.reshape(groups[:, i : i + height, j : j + width], [-1, 4 * channels]), flat, transpose_a=True)
        for i in (0, 1)
        for j in (0, 1)
    ]
    taps = tf.reshape(tf.stack(taps), [2, 2, 2, 2, channels, filters])  # group's row, column, pixel's row, column
    return tf.reshape(tf.transpose(taps, [0, 2, 1, 3, 4, 5]), [4, 4, channels, filters])


def recomputed(run, *inputs: tf.Tensor):
    """`run(*inputs, again=False)`, of which training keeps the inputs alone.

    The backward pass calls `run(*inputs, again=True)` for all else that it needs.
    """
    passes = itertools.count()
    return tf.recompute_grad(lambda *inputs: run(*inputs, again=next(passes) > 0))(*inputs)


@tf.custom_gradient
def leaky_relu(x: tf.Tensor):
    """Leaky ReLU whose gradient looks at the sign of the output, so that the input needn't be kept.

    That saves a sixth to a quarter of a training step's memory (fast_layers.json).
    """
    y = tf.nn.leaky_relu(x, LEAK)
    return y, lambda dy: tf.raw_ops.LeakyReluGrad(gradients=dy, features=y, alpha=LEAK)


def name_parts(parent: Layer, name: str, parts: list[Layer]) -> None:
    """Makes each layer of a list an attribute, too: `tf.train.Checkpoint` follows attributes, not Keras's lists."""
    for k, part in enumerate(parts):
        setattr(parent, f"{name}{k}", part)


@tf.custom_gradient
def add_held(x: tf.Tensor, skip: tf.Tensor):
    """Adds frame s of `skip` [S, B, ...] to frame s of `x` [M * B, ...], and the last one to all later frames.

    The gradient is here for memory: TensorFlow's own copies dy (fast_layers.json).
    """
    shape, own = [-1, *keras.ops.shape(skip)[1:]], keras.ops.shape(skip)[0] - 1
    x_own, x_held = tf.split(tf.reshape(x, shape), [own, -1])
    skip_own, skip_held = tf.split(skip, [own, 1])
    y = tf.concat([x_own + skip_own, x_held + skip_held], 0)

    def gradient(dy):
        dy_own, dy_held = tf.split(tf.reshape(dy, shape), [own, -1])
        return dy, tf.concat([dy_own, tf.reduce_sum(dy_held, 0, keepdims=True)], 0)

    return tf.reshape(y, keras.ops.shape(x)), gradient


@tf.custom_gradient
def with_first(x: tf.Tensor, count: tf.Tensor):
    """x and a copy of x[:count] (a slice would share, and so keep, the memory of x).

    The gradients are joined without a zero for every other element. Both are for memory (fast_layers.json).
    """

    def gradient(dx, dfirst):
        first, others = tf.split(dx, [count, -1])
        return tf.concat([first + dfirst, others], 0), None

    return (tf.identity(x), tf.gather(x, tf.range(count))), gradient


# The recurrent layer ------------------------------------------------------------------------------------------------


class LSTM(Layer):
    """One LSTM layer: all input projections in one matrix product, then one `tf.scan` over the recurrence.

    Gates are in the order input, forget, candidate, output, as in PyTorch and Keras.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.units = units

    def build(self, x_shape, *_):
        def weight(name, *shape):
            uniform = initializers.RandomUniform(-(self.units**-0.5), self.units**-0.5)
            return self.add_weight(name=name, shape=shape, initializer=uniform, autocast=False)  # always float32

        self.kernel = weight("kernel", x_shape[-1], 4 * self.units)
        self.recurrent = weight("recurrent", self.units, 4 * self.units)
        self.bias = weight("bias", 4 * self.units)

    def initial_state(self, batch: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Zero h and c [B, units]."""
        return tf.zeros([batch, self.units]), tf.zeros([batch, self.units])

    def project(self, x: tf.Tensor) -> tf.Tensor:
        """[..., C] -> [..., 4 * units]: the inputs' part of the gates."""
        return tf.tensordot(x, self.kernel, 1) + self.bias  # tf.matmul's gradient would be a product per frame

    def recur(self, state, projected):
        """One step: (h, c), each [B, units], and the projected input [B, 4 * units] -> the next (h, c)."""
        return lstm_step(*state, projected, tf.convert_to_tensor(self.recurrent))

    def call(self, x: tf.Tensor, state) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        """[T, B, C] and the state before -> h [T, B, units] and the state after."""
        projected = self.project(x)
        if x.shape[0] == 0:  # tf.scan can't stack no frames of an unknown batch size
            return projected[..., : self.units], state
        hs, c = recurrence(projected, *state, tf.convert_to_tensor(self.recurrent))
        return hs, (hs[-1], c)


def gates(projected: tf.Tensor, h: tf.Tensor, recurrent: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The gates i, f, g, o, each [..., units], from the projected input [..., 4 * units] and h [..., units] before."""
    i, f, g, o = tf.split(projected + tf.tensordot(h, recurrent, 1), 4, axis=-1)
    return tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)


def lstm_step(h, c, projected, recurrent):
    """h and c before, each [B, units], and the projected input [B, 4 * units] -> the next h and c."""
    i, f, g, o = gates(projected, h, recurrent)
    c = f * c + i * g
    return o * tf.tanh(c), c


@tf.custom_gradient
def recurrence(projected: tf.Tensor, h0: tf.Tensor, c0: tf.Tensor, recurrent: tf.Tensor):
    """An LSTM: projected inputs [T, B, 4 * units] and the state before -> h [T, B, units] and c after the last frame.

    The gradient keeps h and c alone: the gates, and what else the backward scan multiplies with, are computed again for
    all frames at once, and the gradient of the recurrent kernel is one product over all frames.
    """
    hs, cs = tf.scan(lambda state, x: lstm_step(*state, x, recurrent), projected, (h0, c0))

    def gradient(dhs, dc_last):
        h_before, c_before = (tf.concat([s0[None], s[:-1]], 0) for s0, s in ((h0, hs), (c0, cs)))
        i, f, g, o = gates(projected, h_before, recurrent)
        tanh_c = tf.tanh(cs)
        h_by_c = o * (1 - tanh_c**2)  # derivative of h by c
        c_by_ifg = [g * i * (1 - i), c_before * f * (1 - f), i * (1 - g**2)]  # by what goes into sigmoid and tanh
        by_projected = tf.concat([*c_by_ifg, tanh_c * o * (1 - o)], -1)
        transposed = tf.transpose(recurrent)  # here, because a product with a transposed matrix is slow in a loop

        def step_back(after, frame):
            dprojected, dc = after
            dh, h_by_c, f, by_projected = frame
            dh += tf.matmul(dprojected, transposed)
            dc += dh * h_by_c
            return tf.concat([dc, dc, dc, dh], -1) * by_projected, dc * f

        end = tf.zeros_like(projected[0]), dc_last
        dprojected, dc_before = tf.scan(step_back, (dhs, h_by_c, f, by_projected), end, reverse=True)
        dh0 = tf.matmul(dprojected[0], transposed)
        return dprojected, dh0, dc_before[0], tf.tensordot(h_before, dprojected, [[0, 1], [0, 1]])

    return (hs, cs[-1]), gradient

"""What makes the graph fast must not change what it computes: against TensorFlow's own operations and gradients."""

import numpy as np
import pytest
import tensorflow as tf

from files.config import Config
from files.model_svg import SVG
from files.ops import downconv, filter_gradient, leaky_relu, upconv
from files.scheduled_sampling import ScheduledSamplingSVG

SMALL = Config(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=3, n_future=2)


def normal(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape), tf.float32)


def outputs_and_gradients(function, *inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = function(*inputs)
        loss = tf.reduce_sum(y * tf.sin(y))
    return [y, *tape.gradient(loss, inputs)]


@pytest.mark.parametrize(("size", "filters"), [(4, 6), (16, 6), (8, 1), (16, 3)])
def test_upconv_is_the_transposed_convolution(size, filters):
    x, kernel = normal(2, size, size, 5), normal(4, 4, filters, 5)
    expected = outputs_and_gradients(
        lambda x, kernel: tf.nn.conv2d_transpose(x, kernel, [2, 2 * size, 2 * size, filters], 2, "SAME"), x, kernel
    )
    for ours, theirs in zip(outputs_and_gradients(upconv, x, kernel), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [8, 32])
def test_downconv_is_the_convolution(size):
    x, kernel = normal(2, size, size, 3), normal(4, 4, 3, 6)
    expected = outputs_and_gradients(lambda x, kernel: tf.nn.conv2d(x, kernel, 2, "SAME"), x, kernel)
    for ours, theirs in zip(outputs_and_gradients(downconv, x, kernel), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [4, 8, 16])  # of the coarse image; up to 8 x 8 by matrix products
def test_filter_gradient_in_bfloat16_is_that_of_float32_rounded(size):
    random = np.random.default_rng(size)
    # Small whole numbers are exact in bfloat16, as are their sums in float32.
    fine, coarse = (random.integers(-2, 3, (2, n, n, c)).astype(np.float32) for n, c in ((2 * size, 3), (size, 5)))
    expected = tf.raw_ops.Conv2DBackpropFilter(
        input=fine, filter_sizes=[4, 4, 3, 5], out_backprop=coarse, strides=[1, 2, 2, 1], padding="SAME"
    )
    ours = filter_gradient(tf.cast(fine, tf.bfloat16), tf.cast(coarse, tf.bfloat16))
    np.testing.assert_allclose(tf.cast(ours, tf.float32), expected, rtol=2**-8)


def test_leaky_relu_is_tensorflows():
    x = normal(5, 7)
    expected = outputs_and_gradients(lambda x: tf.nn.leaky_relu(x, 0.2), x)
    for ours, theirs in zip(outputs_and_gradients(leaky_relu, x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def training_pass(model: SVG, video: np.ndarray, noise: np.ndarray, **options):
    """Loss and gradients of one pass in training mode."""
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(**options)
    def run():
        with tf.GradientTape() as tape:
            loss = model(video, training=True, posterior_noise=noise)["loss"]
        return loss, tape.gradient(loss, weights)

    return run


def small_inputs(config: Config):
    video = np.random.default_rng(0).uniform(0, 1, (2, config.n_frames, 64, 64, 1)).astype(np.float32)
    return video, np.random.default_rng(1).normal(size=(2, config.n_frames - 1, config.z_dim)).astype(np.float32)


def new_model(config: Config, teacher_forcing: float, **options) -> SVG:
    return SVG(config, **options) if teacher_forcing == 1 else ScheduledSamplingSVG(config, teacher_forcing, **options)


def twins(config: Config, teacher_forcing: float, **options) -> tuple[SVG, SVG]:
    """Two models of the same weights, the second with other options."""
    first, second = new_model(config, teacher_forcing), new_model(config, teacher_forcing, **options)
    for index, (a, b) in enumerate(zip(first.trainable_variables, second.trainable_variables, strict=True)):
        value = np.random.default_rng(index).normal(0, 0.2, a.shape)
        a.assign(value)
        b.assign(value)
    return first, second


def assert_same_pass(kept, other):
    np.testing.assert_allclose(kept[0], other[0], rtol=1e-4)
    for a, b in zip(kept[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())


@pytest.mark.parametrize("teacher_forcing", [1.0, 0.0])
@pytest.mark.parametrize("backbone", ["dcgan", "vgg"])
def test_recomputed_activations_change_neither_gradients_nor_moving_statistics(backbone, teacher_forcing):
    config = SMALL.replace(backbone=backbone)
    kept, recomputed = twins(config, teacher_forcing, recompute=True)
    inputs = small_inputs(config)
    assert_same_pass(training_pass(kept, *inputs)(), training_pass(recomputed, *inputs)())
    for a, b in zip(kept.non_trainable_variables, recomputed.non_trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # updated once, not once more in the backward pass


@pytest.mark.parametrize(("backbone", "teacher_forcing"), [("dcgan", 1.0), ("vgg", 1.0), ("dcgan", 0.0)])
def test_recompute_needs_little_more_than_half_of_the_memory(backbone, teacher_forcing):
    def peak(recompute):
        config = Config(width=8, rnn_size=16, n_future=95, backbone=backbone)
        run = training_pass(new_model(config, teacher_forcing, recompute=recompute), *small_inputs(config))
        run()
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        peaks = []
        for _ in range(5):  # what the allocator wastes varies
            tf.config.experimental.reset_memory_stats("CPU:0")
            run()
            peaks.append(tf.config.experimental.get_memory_info("CPU:0")["peak"] - before)
        return min(peaks)

    assert peak(recompute=True) < 0.6 * peak(recompute=False)  # what else the process has done makes a difference

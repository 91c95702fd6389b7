"""The graph against Keras's layers in a loop over frames: loss, gradients and samples, for each setting that counts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from loop_svg import LoopSVG, plain_values

from files.config import Config
from files.model_svg import SVG
from files.scheduled_sampling import ScheduledSamplingSVG

SMALL = Config(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=3, n_future=2)
SETTINGS = {
    "dcgan": {},
    "last_frame_skip": dict(last_frame_skip=True),
    "fixed_prior": dict(prior="fixed"),
    "one_past_frame": dict(n_past=1),
}
TEACHER_FORCING = 0.4


def randomised(config: Config, teacher_forcing: float = 1.0) -> SVG:
    """A model with batch-norm statistics far from their initial values, and kernels so large that all inputs count."""
    keras.utils.set_random_seed(0)
    model = SVG(config) if teacher_forcing == 1 else ScheduledSamplingSVG(config, teacher_forcing)
    draws = np.random.default_rng(0)
    for variable in model.variables:
        value = variable.numpy()
        scale = 0.1 if value.ndim < 2 else 2 / np.sqrt(np.prod(value.shape[:-1]))
        noise = draws.normal(0, scale, value.shape)
        variable.assign(value + (np.abs(noise) if "variance" in variable.path else noise))
    return model


def inputs(config: Config):
    draws = np.random.default_rng(1)
    frame = (config.image_size, config.image_size, config.channels)
    video = draws.uniform(0, 1, (2, config.n_frames, *frame)).astype(np.float32)
    return video, draws.normal(size=(2, config.n_frames - 1, config.z_dim)).astype(np.float32)


@pytest.mark.parametrize("own_frames", [False, True], ids=["true frames", "own frames"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_graph_and_loop_have_the_same_loss_and_gradients(setting, own_frames):
    config = SMALL.replace(**SETTINGS[setting], n_future=5 if own_frames else 2)
    model = randomised(config, TEACHER_FORCING if own_frames else 1.0)
    loop = LoopSVG(model)
    video, noise = inputs(config)
    coins = np.random.default_rng(3).uniform(size=(2, config.n_frames)).astype(np.float32)
    is_true = (coins < TEACHER_FORCING).T[:, :, None, None, None]
    is_true[: config.n_past] = True
    given = {"coins": coins} if own_frames else {}

    def loss_and_gradients(loss, variables):
        weights = [variable.value for variable in variables]

        @tf.function
        def run():
            with tf.GradientTape() as tape:
                value = loss()
            return value, tape.gradient(value, weights, unconnected_gradients="zero")

        return run()

    expected, loop_gradients = loss_and_gradients(
        lambda: loop.loss(video, noise, is_true=is_true if own_frames else None), loop.trainable_variables
    )

    @tf.function(input_signature=[tf.TensorSpec([None, *value.shape[1:]]) for value in (video, noise)])
    def graph(video, noise):  # traced as `fit` does it: the batch size is unknown
        return model(video, posterior_noise=noise, **given)["loss"]

    loss, gradients = loss_and_gradients(lambda: graph(video, noise), model.trainable_variables)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    by_variable = {id(v): gradient for v, gradient in zip(model.trainable_variables, gradients, strict=True)}
    ours = plain_values(model, lambda v: by_variable.get(id(v), v))
    trained = [gradient for variable, gradient in zip(loop.variables(), ours, strict=True) if variable.trainable]
    for variable, gradient, other in zip(loop.trainable_variables, trained, loop_gradients, strict=True):
        scale = np.abs(other).max() + 1e-6
        np.testing.assert_allclose(gradient, other, atol=1e-3 * scale, err_msg=variable.path)


@pytest.mark.parametrize("setting", SETTINGS)
def test_graph_and_loop_generate_the_same_samples(setting):
    config = SMALL.replace(**SETTINGS[setting])
    model = randomised(config)
    video, _ = inputs(config)
    draws = np.random.default_rng(2)
    past = video[:, : config.n_past]
    posterior_noise = draws.normal(size=(2, 2, config.n_past - 1, config.z_dim)).astype(np.float32)
    prior_noise = draws.normal(size=(2, 2, config.n_future, config.z_dim)).astype(np.float32)
    model.generate(past[:1], 1)  # from the second shape on, the graph is one of unknown sizes
    graph = model.generate(past, config.n_future, 2, posterior_noise=posterior_noise, prior_noise=prior_noise)
    loop = LoopSVG(model).generate(past, posterior_noise, prior_noise)
    np.testing.assert_allclose(graph, loop, atol=1e-4)

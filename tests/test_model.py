"""The graph against closed forms, other libraries and plain loops; the golden files are in test_golden.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from files.config import Machine, Recipe
from files.model_svg import SVG, gaussian_kl
from files.models import GaussianLSTM
from files.ops import LSTM, BatchNorm, add_held
from files.train import build_model


def rng():
    return np.random.default_rng(0)


def compiled(config, teacher_forcing=1.0, **machine):
    """A model as `train` makes it; the checkpoint to start from matters to `train` alone."""
    return build_model(config, Recipe(teacher_forcing=teacher_forcing, start_from="a checkpoint"), Machine(**machine))


def one_step(config, video, strategy=None, **settings):
    """A model after one training step, and the step's logs."""
    keras.utils.set_random_seed(1)
    with (strategy or tf.distribute.get_strategy()).scope():
        model = compiled(config, **settings)
    data = tf.data.Dataset.from_tensors(video)
    logs = model.fit(data, verbose=0, shuffle=False).history
    return model, {name: values[0] for name, values in logs.items()}


# Parts --------------------------------------------------------------------------------------------------------------


def test_kl_is_the_integral_that_defines_it():
    for mu, logvar, mu_p, logvar_p in rng().normal(size=(5, 4)):
        q, p = stats.norm(mu, np.exp(logvar / 2)), stats.norm(mu_p, np.exp(logvar_p / 2))
        expected, _ = integrate.quad(lambda z, q=q, p=p: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -20, 20, limit=200)
        np.testing.assert_allclose(gaussian_kl(mu, logvar, mu_p, logvar_p), expected, rtol=1e-4)


def test_lstm_and_its_gradients_are_those_of_keras():
    ours, theirs = LSTM(5), keras.layers.LSTM(5, return_sequences=True, return_state=True)
    random = rng()
    x = tf.constant(random.normal(size=(7, 2, 3)), tf.float32)  # [T, B, C]
    state = [tf.constant(random.normal(size=(2, 5)), tf.float32) for _ in range(2)]
    ours(x, state)
    theirs(tf.transpose(x, [1, 0, 2]))
    theirs.set_weights([ours.kernel, ours.recurrent, ours.bias])
    factors = [random.normal(size=size) for size in ((7, 2, 5), (2, 5), (2, 5))]

    def run(layer):
        """h of all frames, h and c after the last one, and the gradients of a weighted sum of all of them."""
        with tf.GradientTape() as tape:
            tape.watch([x, state])
            if layer is ours:
                hs, (h, c) = ours(x, state)
            else:
                hs, h, c = theirs(tf.transpose(x, [1, 0, 2]), initial_state=state)
                hs = tf.transpose(hs, [1, 0, 2])
            total = sum(tf.reduce_sum(value * factor) for value, factor in zip((hs, h, c), factors, strict=True))
        return [hs, h, c, *tape.gradient(total, [x, *state, *(weight.value for weight in layer.weights)])]

    for value, wanted in zip(run(ours), run(theirs), strict=True):
        np.testing.assert_allclose(value, wanted, atol=5e-6)


def test_the_state_after_no_frame_is_the_state_before():
    state = (tf.ones([2, 4]), 2 * tf.ones([2, 4]))
    _, after = LSTM(4)(tf.zeros([0, 2, 3]), state)
    np.testing.assert_array_equal(after, state)


def test_stepping_is_the_same_as_seeing_all_frames_at_once():
    net = GaussianLSTM(3, units=6, depth=2)
    x = rng().normal(size=(5, 2, 4)).astype(np.float32)
    (mu, logvar), after = net(x)
    state = net.initial_state(2)
    for t, frame in enumerate(x):
        (mu_t, logvar_t), state = net.step(frame, state)
        np.testing.assert_allclose(mu[t], mu_t, atol=1e-6)
        np.testing.assert_allclose(logvar[t], logvar_t, atol=1e-6)
    for a, b in zip(tf.nest.flatten(after), tf.nest.flatten(state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 4, 3), (50, 3)])
def test_batch_norm_against_numpy(shape):
    x = rng().normal(2, 3, size=shape).astype(np.float32)
    norm = BatchNorm()
    norm.build(shape)
    norm.gamma.assign([1.0, 2.0, 3.0])
    norm.beta.assign([0.5, 0.0, -1.0])
    axes = tuple(range(len(shape) - 1))
    mean, variance = x.mean(axes), x.var(axes)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * [1, 2, 3] + [0.5, 0, -1]
    np.testing.assert_allclose(norm(x, training=True), expected, atol=1e-5)
    unbiased = x.var(axes, ddof=1)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * unbiased, atol=1e-5)
    expected = (x - 0.1 * mean) / np.sqrt(0.9 + 0.1 * unbiased + 1e-5) * [1, 2, 3] + [0.5, 0, -1]
    np.testing.assert_allclose(norm(x, training=False), expected, atol=1e-5)


@pytest.mark.parametrize(("own", "frames"), [(1, 4), (3, 4), (4, 4), (1, 1)])
def test_held_skips_are_added_as_a_gather_would(own, frames):
    x = rng().normal(size=(frames * 2, 3, 3, 1)).astype(np.float32)
    skip = rng().normal(size=(own, 2, 3, 3, 1)).astype(np.float32)
    repeated = skip[np.minimum(np.arange(frames), own - 1)]
    np.testing.assert_allclose(add_held(tf.constant(x), tf.constant(skip)), x + repeated.reshape(x.shape), atol=1e-6)


# The whole graph ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("teacher_forcing", [1.0, 0.0])
def test_the_graph_has_as_many_nodes_for_100_frames_as_for_10(tiny, teacher_forcing):
    model = compiled(tiny, teacher_forcing)

    def step(video):
        with tf.GradientTape() as tape:
            loss = model(video, training=True)["loss"]
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    def nodes(function, *specs):
        return all_nodes(tf.function(function).get_concrete_function(*specs).graph.as_graph_def())

    def noise(frames):
        return tf.TensorSpec([2, 3, frames, tiny.z_dim])

    training = {nodes(step, tf.TensorSpec([2, time, 64, 64, 1])) for time in (10, 100)}
    past = tf.TensorSpec([2, tiny.n_past, 64, 64, 1])
    generate = SVG._generate.python_function
    sampling = {
        nodes(lambda *given: generate(model, *given), past, noise(tiny.n_past - 1), noise(frames))
        for frames in (10, 100)
    }
    assert len(training) == 1
    assert len(sampling) == 1


def all_nodes(graph) -> int:
    """Nodes of a graph and of the functions in it, such as the bodies of scans."""
    functions = getattr(graph, "library").function  # noqa: B009
    return len(graph.node) + sum(len(function.node_def) for function in functions)


def test_training_noise_differs_by_step_and_evaluation_noise_does_not(tiny, lively, random_video):
    model = lively(tiny)
    model.compile(optimizer="adam")
    model.optimizer.build(model.trainable_variables)
    video = random_video(2, 6, 64, 64, 1)

    def predictions(training):
        for step in (0, 1, 0):
            model.optimizer.iterations.assign(step)
            yield model(video, training=training)["h_pred"].numpy()

    evaluation = list(predictions(False))  # first: training moves the batch-norm statistics
    np.testing.assert_array_equal(evaluation[0], evaluation[1])
    first, second, again = predictions(True)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 1e-3


def test_training_reduces_the_loss_it_reports(tiny, random_video):
    video = random_video(2, 6, 64, 64, 1)
    model, logs = one_step(tiny, video)
    after = model(video)
    frames = video.shape[1] - 1
    assert {"loss", "mse", "kld", "posterior_sigma", "prior_sigma"} <= set(logs)
    np.testing.assert_allclose(logs["loss"], frames * (logs["mse"] + tiny.beta * logs["kld"]), rtol=1e-5)
    evaluated = model.evaluate(video, batch_size=2, verbose=0, return_dict=True)
    np.testing.assert_allclose(evaluated["loss"], after["loss"], rtol=1e-5)
    np.testing.assert_allclose(evaluated["mse"], np.mean((after["x_pred"] - video[:, 1:]) ** 2), rtol=1e-5)
    np.testing.assert_allclose(evaluated["posterior_sigma"], np.exp(after["logvar"] / 2).mean(), rtol=1e-5)


def test_training_on_own_frames_learns_but_keeps_the_statistics_of_batch_norm(tiny, lively, random_video):
    model = lively(tiny, teacher_forcing=0.0)
    statistics = [v for v in model.variables if "moving" in v.path]
    for variable in statistics:
        variable.assign(variable + 0.5)
    model.compile(optimizer="adam")
    before = [v.numpy() for v in model.trainable_variables]
    video = random_video(2, 6, 64, 64, 1)
    loss = float(model(video)["loss"])  # in evaluation mode, and yet that of the training step
    step = model.fit(video, batch_size=2, verbose=0, shuffle=False).history["loss"][0]
    assert len(statistics) == 2 * 9  # mean and variance of 5 norms in the encoder and 4 in the decoder
    for variable in statistics:
        np.testing.assert_array_equal(variable, 0.5 + ("variance" in variable.path) * np.ones(variable.shape))
    assert not any(np.array_equal(v, value) for v, value in zip(model.trainable_variables, before, strict=True))
    np.testing.assert_allclose(step, loss, rtol=0.05)  # the noise differs


def test_reconstruction_is_from_true_frames_however_the_model_was_trained(tiny, lively, random_video):
    video, noise = random_video(2, 6, 64, 64, 1), rng().normal(size=(2, 5, 3)).astype(np.float32)
    forced = lively(tiny)
    own = lively(tiny, teacher_forcing=0.0)
    np.testing.assert_array_equal(own.reconstruct(video, noise), forced.reconstruct(video, noise))
    from_own = own(video, posterior_noise=noise)["x_pred"]
    np.testing.assert_allclose(from_own[:, :3], forced(video, posterior_noise=noise)["x_pred"][:, :3], atol=1e-6)
    assert np.abs(from_own[:, 3:] - own.reconstruct(video, noise)[:, 3:]).max() > 1e-4


# Generation ---------------------------------------------------------------------------------------------------------


def test_samples_are_those_of_separate_calls_with_the_same_noise(tiny, lively, random_video):
    model = lively(tiny)
    past = random_video(2, 3, 64, 64, 1)
    eps = rng().normal(size=(2, 4, 2, 3)).astype(np.float32), rng().normal(size=(2, 4, 5, 3)).astype(np.float32)
    together = model.generate(past, 5, 4, posterior_noise=eps[0], prior_noise=eps[1])
    assert together.shape == (2, 4, 5, 64, 64, 1)
    for b in range(2):
        for n in range(4):
            noise = dict(posterior_noise=eps[0][b : b + 1, n : n + 1], prior_noise=eps[1][b : b + 1, n : n + 1])
            alone = model.generate(past[b : b + 1], 5, **noise)
            np.testing.assert_allclose(together[b, n], alone[0, 0], atol=1e-5)


@pytest.mark.parametrize("skip", [False, True])
def test_generation_goes_on_as_it_began(tiny, lively, random_video, skip):
    """The first frames of a long future are those of a short one: nothing later looks back on them."""
    model = lively(tiny.replace(last_frame_skip=skip))
    past = random_video(1, 3, 64, 64, 1)
    prior_noise = rng().normal(size=(1, 2, 100, 3)).astype(np.float32)
    posterior_noise = rng().normal(size=(1, 2, 2, 3)).astype(np.float32)
    long = model.generate(past, 100, 2, posterior_noise=posterior_noise, prior_noise=prior_noise)
    for n in (1, 7):
        short = model.generate(past, n, 2, posterior_noise=posterior_noise, prior_noise=prior_noise[:, :, :n])
        np.testing.assert_allclose(long[:, :, :n], short, atol=1e-5)
    assert long.shape[2] == 100


def test_one_given_frame_is_enough(tiny, lively, random_video):
    model = lively(tiny.replace(n_past=1))
    assert model.generate(random_video(2, 1, 64, 64, 1), 3, 2, seed=0).shape == (2, 2, 3, 64, 64, 1)
    assert model(random_video(2, 4, 64, 64, 1))["x_pred"].shape == (2, 3, 64, 64, 1)


def test_seeds(tiny, lively, random_video):
    model = lively(tiny)
    past = random_video(1, 3, 64, 64, 1)
    a, b, c = (model.generate(past, 4, 2, seed=seed).numpy() for seed in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3
    assert np.abs(a[:, 0] - a[:, 1]).max() > 1e-3
    assert not np.array_equal(model.generate(past, 4), model.generate(past, 4))


def test_temperature_is_a_factor_on_the_priors_sigma(tiny, lively, random_video):
    model, hotter = lively(tiny), lively(tiny)
    bias = hotter.prior.logvar.bias
    bias.assign_add(tf.fill(bias.shape, 2 * tf.math.log(1.7)))  # of log sigma^2
    past = random_video(2, 3, 64, 64, 1)
    np.testing.assert_allclose(
        model.generate(past, 4, 2, seed=0, temperature=1.7), hotter.generate(past, 4, 2, seed=0), atol=1e-5
    )
    assert np.abs(model.generate(past, 4, 2, seed=0) - hotter.generate(past, 4, 2, seed=0)).max() > 1e-3
    for wrong in (-0.1, float("nan"), float("inf"), None):
        with pytest.raises(ValueError, match=f"temperature is {wrong}; expected a number from 0 to 1000"):
            model.generate(past, 4, temperature=wrong)


def test_without_a_latent_all_futures_are_one(tiny, lively, random_video):
    model = lively(tiny.replace(prior="none"))
    samples = model.generate(random_video(1, 3, 64, 64, 1), 4, 3).numpy()
    np.testing.assert_allclose(samples[:, 1:], samples[:, :1].repeat(2, 1), atol=1e-6)
    assert float(model(random_video(1, 5, 64, 64, 1))["kld"]) == 0


def test_batch_norm_is_in_evaluation_mode_when_sampling(tiny, lively, random_video):
    model = lively(tiny)
    videos = random_video(4, 6, 64, 64, 1)
    before = [v.numpy() for v in model.non_trainable_variables]
    noise = rng().normal(size=(4, 5, 3)).astype(np.float32)
    both = model.reconstruct(videos, posterior_noise=noise)
    alone = model.reconstruct(videos[:1], posterior_noise=noise[:1])
    np.testing.assert_allclose(both[:1], alone, atol=1e-5)  # no video is normalised with another
    model.generate(videos[:, :3], 2)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


# Precision, compilation, distribution -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "teacher_forcing"), [("mixed_bfloat16", 1.0), ("mixed_float16", 1.0), ("mixed_bfloat16", 0.0)]
)
def test_mixed_precision_is_close_to_float32(tiny, random_video, precision, teacher_forcing):
    video = random_video(2, 6, 64, 64, 1)
    full, full_logs = one_step(tiny, video, teacher_forcing=teacher_forcing)
    mixed, logs = one_step(tiny, video, teacher_forcing=teacher_forcing, precision=precision)
    assert isinstance(mixed.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    np.testing.assert_allclose(logs["loss"], full_logs["loss"], rtol=1e-2)
    assert {v.dtype for v in mixed.trainable_variables} == {"float32"}
    kernel = mixed.encoder.levels[0][0].conv.kernel
    assert np.abs(kernel - full.encoder.levels[0][0].conv.kernel).mean() < 1e-3  # Adam's first step is +-2e-3
    outputs = mixed(video)
    assert {value.dtype for value in outputs.values()} == {tf.float32}
    assert mixed.generate(video[:, :3], 2, 2).dtype == tf.float32


@pytest.mark.parametrize("teacher_forcing", [1.0, 0.0])
def test_xla_computes_the_same_step(tiny, random_video, teacher_forcing):
    video = random_video(2, 6, 64, 64, 1)
    plain, plain_logs = one_step(tiny, video, teacher_forcing=teacher_forcing)
    by_xla, logs = one_step(tiny, video, teacher_forcing=teacher_forcing, jit_compile=True)
    np.testing.assert_allclose(logs["loss"], plain_logs["loss"], rtol=1e-4)
    for a, b in zip(plain.non_trainable_variables, by_xla.non_trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert by_xla.jit_compile


def test_two_devices_on_the_same_video_take_the_step_of_one(tiny, random_video, two_devices):
    """Without noise and with the same half of the batch on both, the mean gradient is that of one half."""
    config = tiny.replace(prior="none")
    video = random_video(2, 6, 64, 64, 1)
    alone, alone_logs = one_step(config, video)
    both, logs = one_step(config, np.concatenate([video, video]), two_devices)
    np.testing.assert_allclose(logs["loss"], alone_logs["loss"], rtol=1e-5)
    for a, b in zip(alone.weights, both.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


# Bad input ----------------------------------------------------------------------------------------------------------


def test_bad_videos_are_refused(tiny, random_video):
    model = SVG(tiny)
    good = random_video(2, 6, 64, 64, 1)
    bad = {
        r"shape \(2, 6, 64, 64\); expected \[B, T, 64, 64, 1\]": good[..., 0],
        r"shape \(2, 6, 32, 32, 1\)": good[:, :, :32, :32],
        r"shape \(2, 6, 64, 64, 3\)": good.repeat(3, -1),
        "uint8; expected float32": (good * 255).astype(np.uint8),
        "float64; expected float32": good.astype(float),
        r"0 to 2|0\.0\d* to 2\.0|to 1\.9": good * 2,
        "nan": np.where(good > 0.9, np.float32("nan"), good),
        "empty": good[:0],
    }
    for message, video in bad.items():
        with pytest.raises(ValueError, match=message):
            model(video)
        with pytest.raises(ValueError, match=message.replace(" 6,", " 3,")):
            model.generate(video[:, :3], 2)
        with pytest.raises(ValueError, match=message):
            model.reconstruct(video)
    with pytest.raises(ValueError, match="3 frames; expected at least 4"):
        model(good[:, :3])
    with pytest.raises(ValueError, match="3 frames; expected at least 4"):
        model.reconstruct(good[:, :3])
    with pytest.raises(ValueError, match=r"2 frames; expected the 3 .*n_past"):
        model.generate(good[:, :2], 2)
    with pytest.raises(ValueError, match="n_samples is 0"):
        model.generate(good[:, :3], 2, 0)
    noise = np.zeros((2, 1, 5, 3), np.float32)
    with pytest.raises(ValueError, match=r"prior_noise is float32 of shape \[2, 1, 5, 3\]; .* shape \[2, 1, 2, 3\]"):
        model.generate(good[:, :3], 2, prior_noise=noise)
    for wrong in (noise[:1, 0], noise[:, 0].astype(float), noise[:, 0, :4], noise):  # a batch of 1 would be broadcast
        for run in (model, model.reconstruct):
            with pytest.raises(ValueError, match=r"posterior_noise is float.*expected float32 of shape \[2, 5, 3\]"):
                run(good, posterior_noise=wrong)
    with pytest.raises(ValueError, match="save_weights_to"):
        model.save("x.keras")

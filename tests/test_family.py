"""Every preset, backbone and kind of prior: it builds, trains and samples, and is as large as the authors'."""

import numpy as np
import pytest
import tensorflow as tf

from files.config import preset
from files.model_svg import SVG

SMALL = dict(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=2, n_future=2)
PRESETS = ["smmnist", "smmnist_srvp", "bair", "kth", "kth_128"]


@pytest.fixture(autouse=True)
def eagerly_but_for_one(request):
    """Without graphs, whose tracing would take a minute here; one preset keeps them."""
    tf.config.run_functions_eagerly("bair" not in request.node.name)
    yield
    tf.config.run_functions_eagerly(False)


def train_step(model: SVG, video: np.ndarray) -> list[str]:
    """One step of Adam; returns the nets whose every weight has moved."""
    before = {name: [weight.numpy() for weight in net.weights] for name, net in model.nets.items()}
    model.compile(optimizer="adam", run_eagerly=tf.config.functions_run_eagerly())
    history = model.fit(video, batch_size=len(video), epochs=1, verbose=0).history
    assert np.isfinite(history["loss"][0])
    return [
        name
        for name, net in model.nets.items()
        if net.weights and all(np.any(new.numpy() != old) for new, old in zip(net.weights, before[name], strict=True))
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_preset_trains_and_samples(name, lively, random_video):
    config = preset(name).config.replace(**SMALL)
    model = lively(config)
    video = random_video(2, config.n_frames, config.image_size, config.image_size, config.channels)
    assert train_step(model, video) == ["encoder", "decoder", "frame_predictor", "posterior", "prior"]

    samples = model.generate(video[:, :2], n_future=3, n_samples=2, seed=0).numpy()
    assert samples.shape == (2, 2, 3, *video.shape[2:])
    assert np.all((samples > 0) & (samples < 1))
    assert np.any(samples[:, 0] != samples[:, 1])


@pytest.mark.parametrize(
    ("prior", "trained", "is_stochastic"),
    [
        ("learned", ["encoder", "decoder", "frame_predictor", "posterior", "prior"], True),
        ("fixed", ["encoder", "decoder", "frame_predictor", "posterior"], True),
        ("none", ["encoder", "decoder", "frame_predictor"], False),
    ],
)
def test_priors(prior, trained, is_stochastic, lively, random_video):
    config = preset("smmnist").config.replace(**SMALL, prior=prior)
    model = lively(config)
    video = random_video(2, config.n_frames, config.image_size, config.image_size, config.channels)
    assert train_step(model, video) == trained

    outputs = model(video)
    kld, mu, logvar = (outputs[name].numpy() for name in ("kld", "mu", "logvar"))
    if prior == "fixed":  # KL(N(mu, sigma^2) || N(0, 1)) in closed form, averaged over the batch of 2
        np.testing.assert_allclose(kld, 0.25 * np.sum(np.exp(logvar) + mu**2 - 1 - logvar), rtol=1e-4)
    if prior == "none":
        assert kld == 0
        assert outputs["loss"] == outputs["mse"]
    samples = model.generate(video[:, :2], n_future=2, n_samples=2, seed=0).numpy()
    assert np.any(samples[:, 0] != samples[:, 1]) == is_stochastic


@pytest.mark.parametrize("layers", [1, 3])
def test_number_of_lstm_layers(layers, lively, random_video):
    depths = dict(posterior_layers=layers, prior_layers=layers, predictor_layers=layers)
    config = preset("smmnist").config.replace(**SMALL, **depths)
    model = lively(config)
    video = random_video(2, config.n_frames, config.image_size, config.image_size, config.channels)
    assert train_step(model, video) == ["encoder", "decoder", "frame_predictor", "posterior", "prior"]
    # Dense layers 8 -> 16 and 16 -> 3 twice, and LSTM layers of 4 gates with 16 + 16 inputs and a bias.
    assert model.prior.count_params() == 8 * 16 + 16 + 2 * (16 * 3 + 3) + layers * 4 * 16 * (16 + 16 + 1)


# Parameters of the authors' nets, counted in PyTorch (tests/golden/authors_nets.py at full width).
AUTHORS = {
    "smmnist": 12_614_057,
    "smmnist_srvp": 12_614_057,
    "bair": 22_831_747,
    "kth": 22_778_081,
    "kth_128": 39_302_369,
}
# Biases before a batch norm, which has its own: of the encoder's levels and head, the decoder's stem and levels.
BIASES = {
    "dcgan_64": (64 + 128 + 256 + 512) + 128 + 512 + (256 + 128 + 64),
    "vgg_64": (2 * 64 + 2 * 128 + 3 * 256 + 3 * 512) + 128 + 512 + (2 * 512 + 256) + (2 * 256 + 128) + (128 + 64) + 64,
    "vgg_128": (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512) + 128 + 512
    + 3 * 512 + (2 * 512 + 256) + (2 * 256 + 128) + (128 + 64) + 64,
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_beside_the_authors(name):
    config = preset(name).config
    ours = sum(weight.shape.num_elements() for weight in SVG(config).trainable_weights)
    # PyTorch's LSTM cells have two biases that are only ever added; ours have one. There are 4 cells of 4 * 256 gates.
    assert ours == AUTHORS[name] - BIASES[f"{config.backbone}_{config.image_size}"] - 4 * 4 * 256

import dataclasses
import json

import pytest

from files.config import PRESETS, Config, preset

# facts of the paper and of the authors' code: backbone, image, channels, past, future, z, beta, learning rate
PUBLISHED = {
    "smmnist": ("dcgan", 64, 1, 5, 10, 10, 1e-4, 2e-3),
    "bair": ("vgg", 64, 3, 2, 10, 64, 1e-4, 2e-3),
    "kth": ("vgg", 64, 1, 10, 10, 24, 1e-6, 8e-4),
    "kth_128": ("vgg", 128, 1, 10, 10, 24, 1e-6, 8e-4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_settings(name):
    c = PRESETS[name]
    fields = (c.backbone, c.image_size, c.channels, c.n_past, c.n_future, c.z_dim, c.beta, c.learning_rate)
    assert fields == PUBLISHED[name]
    assert (c.g_dim, c.rnn_size, c.batch_size, c.steps_per_epoch, c.epochs, c.width) == (128, 256, 100, 600, 300, 64)
    assert (c.posterior_layers, c.prior_layers, c.predictor_layers, c.beta_1) == (1, 1, 2, 0.9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_past", 0), ("n_future", 0), ("width", 0), ("batch_size", 2.5), ("image_size", 100), ("channels", 2),
        ("backbone", "resnet"), ("prior", "uniform"), ("precision", "float64"), ("learning_rate", 0.0), ("beta", -1.0),
        ("beta", float("nan")), ("clip_norm", 0.0), ("num_digits", 4), ("seed", -1), ("channels", 3),
        ("teacher_forcing", 0.5), ("teacher_forcing", 1.5),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        Config(**{field: value})


def test_unknown_preset_and_unknown_setting_list_what_there_is():
    with pytest.raises(ValueError, match=r"'mnist'.*smmnist, smmnist_srvp"):
        preset("mnist")
    with pytest.raises(ValueError, match=r"batchsize.*batch_size"):
        preset("smmnist", batchsize=3)


def test_json_holds_every_setting_and_gives_them_back(tmp_path):
    config = preset("smmnist", width=8, clip_norm=0.5, prior="fixed")
    config.save(tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text()) == dataclasses.asdict(config)
    assert Config.load(tmp_path / "config.json") == config
    assert Config.load(tmp_path / "config.json", width=16).width == 16


@pytest.mark.parametrize(("text", "message"), [("{", "JSON"), ("[]", "JSON object"), ('{"widht": 3}', "widht")])
def test_damaged_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Config.load(tmp_path / "config.json")

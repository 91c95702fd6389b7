import dataclasses
import json

import pytest

from files.config import PRESETS, Config, Machine, Recipe, preset

# facts of the paper and of the authors' code: backbone, image, channels, past, future, z, beta, learning rate
PUBLISHED = {
    "smmnist": ("dcgan", 64, 1, 5, 10, 10, 1e-4, 2e-3),
    "bair": ("vgg", 64, 3, 2, 10, 64, 1e-4, 2e-3),
    "kth": ("vgg", 64, 1, 10, 10, 24, 1e-6, 8e-4),
    "kth_128": ("vgg", 128, 1, 10, 10, 24, 1e-6, 8e-4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_settings(name):
    c, r = PRESETS[name].config, PRESETS[name].recipe
    fields = (c.backbone, c.image_size, c.channels, c.n_past, c.n_future, c.z_dim, c.beta, r.learning_rate)
    assert fields == PUBLISHED[name]
    assert (c.g_dim, c.rnn_size, c.width) == (128, 256, 64)
    assert (c.posterior_layers, c.prior_layers, c.predictor_layers) == (1, 1, 2)
    assert (r.batch_size, r.steps_per_epoch, r.epochs, r.beta_1) == (100, 600, 300, 0.9)
    assert (r.decay, r.clip_norm, r.teacher_forcing) == (0, None, 1)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        (Config, "n_past", 0), (Config, "n_past", 10**9), (Config, "n_past", 10**400), (Config, "n_future", 0),
        (Config, "width", 0), (Config, "width", True), (Config, "width", "4"), (Config, "width", None),
        (Config, "posterior_layers", 10**9), (Config, "image_size", 100), (Config, "image_size", 64.0),
        (Config, "channels", 2), (Config, "backbone", "resnet"), (Config, "prior", "uniform"),
        (Config, "beta", -1.0), (Config, "beta", float("nan")), (Config, "beta", float("inf")), (Config, "beta", "1"),
        (Config, "num_digits", 4), (Config, "last_frame_skip", "false"), (Config, "last_frame_skip", 1),
        (Config, "data", 3), (Config, "frame_step", 0), (Config, "frame_step", 2), (Config, "crop", 1),
        (Config, "crop", True),
        (Recipe, "batch_size", 2.5), (Recipe, "learning_rate", 0.0),
        (Recipe, "learning_rate", float("inf")), (Recipe, "beta_1", 1.5), (Recipe, "beta_1", 1),
        (Recipe, "clip_norm", 0.0), (Recipe, "decay", 1.1), (Recipe, "seed", -1), (Recipe, "seed", 2**40),
        (Recipe, "teacher_forcing", 0.5), (Recipe, "teacher_forcing", 1.5), (Recipe, "start_from", 1),
        (Machine, "precision", "float64"), (Machine, "jit_compile", "yes"), (Machine, "steps_per_execution", 0),
        (Machine, "save_minutes", 0.0), (Machine, "store", 1),
        (Config, "data", ""), (Recipe, "start_from", ""), (Machine, "store", ""),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(part, field, value):
    with pytest.raises(ValueError, match=rf"{field}.*(expected|needs)"):
        part(**{field: value})


def test_moving_mnist_has_one_size():
    with pytest.raises(ValueError, match="frames of 64 x 64 x 1; image_size is 64, channels 3"):
        Config(channels=3)
    assert Config(data="videos.npy", channels=3, frame_step=2, crop=True).channels == 3


def test_no_field_is_in_two_parts():
    names = [field.name for part in (Config, Recipe, Machine) for field in dataclasses.fields(part)]
    assert len(set(names)) == len(names)


def test_a_checkpoint_of_before_there_were_videos_has_the_defaults(tmp_path):
    values = {k: v for k, v in dataclasses.asdict(Config(width=8)).items() if k not in ("frame_step", "crop")}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert Config.load(tmp_path / "config.json") == Config(width=8, frame_step=1, crop=False)


def test_unknown_preset_and_unknown_setting_list_what_there_is():
    with pytest.raises(ValueError, match=r"'mnist'.*smmnist, smmnist_srvp"):
        preset("mnist")
    with pytest.raises(ValueError, match=r"batchsize.*batch_size"):
        preset("smmnist").recipe.replace(batchsize=3)


@pytest.mark.parametrize("part", [Config(width=8, prior="fixed"), Recipe(clip_norm=0.5), Machine(recompute=True)])
def test_json_holds_every_setting_and_gives_them_back(tmp_path, part):
    part.save(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == dataclasses.asdict(part)
    assert type(part).load(tmp_path / "x.json") == part
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_file_of_all_three_parts_is_read_as_checkpoints_once_had_it(tmp_path):
    parts = Config(width=8, last_frame_skip=True), Recipe(epochs=6, clip_norm=1.0), Machine(precision="mixed_bfloat16")
    values = {name: value for part in parts for name, value in dataclasses.asdict(part).items()}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert tuple(type(part).load(tmp_path / "config.json") for part in parts) == parts
    assert Config.load(tmp_path / "config.json", width=16).width == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ("[]", "JSON object"),
        ('{"widht": 3}', "widht"),
        ("[" * 10**5, "JSON"),
        ('{"width": null}', "width"),
    ],
)  # fmt: skip
def test_damaged_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Config.load(tmp_path / "config.json")

"""Starting from another checkpoint: a wider model computes what the narrow one did, and all of it learns."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from files.data import make_dataset
from files.model_svg import SVG
from files.train import train
from files.widen import start_from


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{}, {"width": 8}, {"width": 8, "backbone": "vgg", "channels": 3, "data": "x"}, {"width": 6, "image_size": 128,
     "data": "x"}],
    ids=str,
)  # fmt: skip
def test_a_wider_model_computes_what_the_narrow_one_does(tiny, lively, random_video, settings, training):
    config = tiny.replace(**settings)
    narrow = lively(config.replace(width=4))
    for variable in narrow.non_trainable_variables:  # batch norm's statistics, which start as 0 and 1
        variable.assign(np.random.default_rng(1).uniform(0.5, 1.5, variable.shape))
    wide = SVG(config)
    start_from(narrow, wide)
    video = random_video(2, 5, config.image_size, config.image_size, config.channels)
    noise = np.random.default_rng(2).normal(size=(2, 4, config.z_dim)).astype(np.float32)
    expected, outputs = (model(video, training=training, posterior_noise=noise) for model in (narrow, wide))
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_every_new_weight_learns(tiny, lively, random_video):
    wide = SVG(tiny.replace(width=6))
    start_from(lively(tiny), wide)
    video = random_video(2, 5, 64, 64, 1)
    # From new to old channels the kernels are 0, so that what leads into new channels gets its gradient a step later.
    wide.optimizer = tf.keras.optimizers.SGD(0.01)
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = wide(video, training=True)["loss"]
        gradients = tape.gradient(loss, wide.trainable_variables)
        wide.optimizer.apply_gradients(zip(gradients, wide.trainable_variables, strict=True))
    for variable, gradient in zip(wide.trainable_variables, gradients, strict=True):
        assert np.mean(tf.convert_to_tensor(gradient).numpy() != 0) > 0.9, variable.path


@pytest.mark.parametrize("teacher_forcing", [1.0, 0.5])
def test_training_starts_from_the_weights_of_the_checkpoint_and_resumes_from_its_own(
    tiny, short, lively, tmp_path, eagerly, teacher_forcing
):
    recipe = short.replace(teacher_forcing=teacher_forcing, start_from=str(tmp_path / "narrow"), steps_per_epoch=1)
    narrow = lively(tiny, teacher_forcing)
    narrow.save_weights_to(tmp_path / "narrow")
    config, folders = tiny.replace(width=8), dict(checkpoints=tmp_path, results=tmp_path / "results", verbose=0)
    train(config, recipe.replace(epochs=1), name="run", **folders)
    narrow.compile(optimizer="adam")  # the noise of a training step depends on the optimizer's step
    narrow.optimizer.build(narrow.trainable_variables)
    video = next(iter(make_dataset(tiny, "train", batch_size=2)))
    expected = float(narrow(video, training=True)["loss"])
    assert pd.read_csv(tmp_path / "results/run/losses.csv")["loss"].tolist() == pytest.approx([expected], rel=1e-4)

    resumed = train(config, recipe, name="run", **folders)
    uninterrupted = train(config, recipe, name="direct", **folders)
    for a, b in zip(resumed.weights, uninterrupted.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 2}, "width 4 -> 2"),
        ({"rnn_size": 32, "g_dim": 12}, "g_dim 8 -> 12, rnn_size 16 -> 32"),
        ({"predictor_layers": 3}, "predictor_layers 2 -> 3"),
        ({"prior": "fixed"}, "prior 'learned' -> 'fixed'"),
    ],
    ids=str,
)
def test_only_the_width_may_grow(tiny, settings, message):
    with pytest.raises(ValueError, match=f"with {message}; only the width"):
        start_from(SVG(tiny), SVG(tiny.replace(**settings)))

"""The Fréchet distance against closed forms and SciPy's matrix root, networks made here, and LPIPS with a stand-in."""

import dataclasses
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import linalg

from files import fvd, perceptual
from files.evaluate import EvaluateOptions, evaluate


def moments(features, *cuts):
    found = fvd.Moments()
    for part in np.split(features, cuts):
        found.add(part)
    return found


def gaussian(mean, covariance, count=400):
    """Features with exactly this mean and unbiased covariance."""
    noise = np.random.default_rng(0).normal(size=(count, len(mean)))
    noise = noise - noise.mean(0)
    white = noise @ np.linalg.inv(linalg.cholesky(np.cov(noise.T)))
    return np.asarray(mean) + white @ linalg.cholesky(np.asarray(covariance, float))


def test_moments_are_numpys_whatever_the_batches():
    features = np.random.default_rng(0).normal(3, 2, (100, 5))
    for cuts in ((), (10, 11, 60), (1,)):
        found = moments(features, *cuts)
        np.testing.assert_allclose(found.mean, features.mean(0))
        np.testing.assert_allclose(found.covariance, np.cov(features.T))
    shuffled = moments(np.random.default_rng(1).permutation(features), 30)
    np.testing.assert_allclose(shuffled.covariance, np.cov(features.T))
    with pytest.raises(ValueError, match="features of 1 sequences; expected at least 2"):
        _ = moments(features[:1]).covariance


def test_distance_of_two_gaussians():
    a = moments(gaussian([0, 0, 1], np.diag([1.0, 4.0, 9.0])))
    b = moments(gaussian([1, 2, 1], np.diag([4.0, 4.0, 1.0])))
    assert fvd.frechet_distance(a, b) == pytest.approx(1 + 4 + 1 + 0 + 4)  # of the means, and of each sigma
    assert fvd.frechet_distance(b, a) == pytest.approx(10)
    assert fvd.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    full = np.array([[2, 1, 0], [1, 3, 1], [0, 1, 2]])
    c = moments(gaussian([0, 0, 0], full))
    trace = np.trace(a.covariance + c.covariance - 2 * linalg.sqrtm(a.covariance @ c.covariance).real)
    assert fvd.frechet_distance(a, c) == pytest.approx(1 + trace)
    few = moments(gaussian([0, 0, 0], full)[:3])  # a singular covariance
    assert fvd.frechet_distance(few, few) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small network in three forms: of each video the mean of each colour, and twice that."""
    folder = tmp_path_factory.mktemp("networks")
    inputs = keras.Input([None, 224, 224, 3])
    means = keras.layers.GlobalAveragePooling3D(name="means")(inputs)
    model = keras.Model(inputs, keras.layers.Rescaling(2.0, name="twice")(means))
    model.save(folder / "net.keras")
    model.export(folder / "exported", verbose=False)

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # as the original is saved
        video = tf.compat.v1.placeholder(tf.float32, [None, None, 224, 224, 3])
        one = tf.compat.v1.get_variable("one", initializer=1.0)
        means = tf.identity(one * tf.reduce_mean(video, [1, 2, 3]), name="RGB/means")
        session.run(tf.compat.v1.global_variables_initializer())
        outputs = {"a": 2 * means, "b": means + 0}
        tf.compat.v1.saved_model.simple_save(session, str(folder / "saved"), {"rgb": video}, outputs)
    return folder


@pytest.mark.parametrize(
    ("file", "layer", "factor"),
    [("net.keras", None, 2), ("net.keras", "means", 1), ("exported", None, 2), ("saved", "a", 2), ("saved", "b", 1),
     ("saved", "RGB/means:0", 1)],
)  # fmt: skip
def test_features_are_those_of_the_layer(network, file, layer, factor):
    grey = np.random.default_rng(0).uniform(0, 1, (2, 3, 8, 8, 1)).astype(np.float32)
    features = fvd.VideoNet(network / file, layer, values=(-1, 3))(tf.constant(grey))
    # The old resize takes pixel i * 8 / 224 of the source, and the last one beyond it.
    at = np.arange(224) * 8 / 224
    weights = np.maximum(0, 1 - np.abs(np.minimum(at, 7)[:, None] - np.arange(8)))
    means = np.einsum("btijc,xi,yj->bc", grey, weights, weights) / 224**2 / 3
    np.testing.assert_allclose(features, factor * (4 * means - 1).repeat(3, 1), rtol=1e-4)


def test_videos_of_one_colour_are_as_far_apart_as_their_colours(network):
    rng = np.random.default_rng(0)
    levels = [rng.uniform(0, 1, (6, 1, 1, 1, 3)).astype(np.float32) for _ in range(2)]
    true, generated = (np.broadcast_to(level, (6, 2, 8, 8, 3)) for level in levels)
    net = fvd.VideoNet(network / "net.keras", "means", values=(0, 1))
    batches = [(true[:4], generated[:4]), (true[4:], generated[4:])]
    found = fvd.video_distance(net, batches)
    expected = fvd.frechet_distance(*(moments(level.reshape(6, 3)) for level in levels))
    assert found["value"] == pytest.approx(expected, rel=1e-3)
    assert (found["n_sequences"], found["n_features"]) == (6, 3)
    assert "too few" not in found["remark"]
    assert fvd.video_distance(net, batches[::-1])["value"] == pytest.approx(found["value"], rel=1e-6)
    assert fvd.video_distance(net, [(true, true)])["value"] == pytest.approx(0, abs=1e-9)
    few = fvd.video_distance(net, [(true[:3], generated[:3])])
    assert "3 sequences are too few for the covariance of 3 features" in few["remark"]
    assert "too large" in few["remark"]


def test_networks_that_cannot_be_used(network, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no network .*; expected a SavedModel's folder or a Keras file"):
        fvd.VideoNet(tmp_path / "nothing")
    (tmp_path / "text.keras").write_text("no network")
    with pytest.raises(ValueError, match=r"is no SavedModel or Keras file that can be read|File not found"):
        fvd.VideoNet(tmp_path / "text.keras")
    with pytest.raises(ValueError, match="is no SavedModel or Keras file that can be read"):
        fvd.VideoNet(tmp_path)
    with pytest.raises(ValueError, match=r"no layer logits in .*; there are .*means, twice"):
        fvd.VideoNet(network / "net.keras", "logits")
    with pytest.raises(ValueError, match=r"no output or tensor logits in .*; its outputs are a, b"):
        fvd.VideoNet(network / "saved", "logits")
    with pytest.raises(ValueError, match="has outputs a, b; choose one"):
        fvd.VideoNet(network / "saved")
    inputs = keras.Input([None, 112, 112, 3])
    keras.Model(inputs, keras.layers.GlobalAveragePooling3D()(inputs)).save(tmp_path / "small.keras")
    with pytest.raises(ValueError, match=r"takes \(None, None, 112, 112, 3\); expected one input \[N, T, 224"):
        fvd.VideoNet(tmp_path / "small.keras")
    inputs = keras.Input([None, 224, 224, 3])
    keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs)).save(tmp_path / "flat.keras")
    with pytest.raises(ValueError, match=r"the output of .* has shape .* for 1 videos; expected features"):
        fvd.VideoNet(tmp_path / "flat.keras")(tf.zeros([1, 1, 8, 8, 1]))
    both = keras.Input([None, 224, 224, 3]), keras.Input([None, 224, 224, 3])
    means = [keras.layers.GlobalAveragePooling3D()(given) for given in both]
    keras.Model(both, keras.layers.Add()(means)).save(tmp_path / "two.keras")
    with pytest.raises(ValueError, match=r"takes \(None, .*\), \(None, .*\); expected one input"):
        fvd.VideoNet(tmp_path / "two.keras")
    keras.Model(both[0], [means[0], 2 * means[0]]).save(tmp_path / "outputs.keras")
    with pytest.raises(ValueError, match=r"has 2 outputs; choose one of its layers"):
        fvd.VideoNet(tmp_path / "outputs.keras")
    for values in ((1, 1), (0, float("nan"))):
        with pytest.raises(ValueError, match=r"black and white are .*; expected two different numbers"):
            fvd.VideoNet(network / "net.keras", values=values)


def test_a_network_for_other_videos_fails_before_anything_is_scored(tmp_path, lively, tiny):
    """Of sixteen frames, or with features that are no numbers: nothing but a try shows that."""
    lively(tiny).save_weights_to(tmp_path / "tiny")
    inputs = keras.Input([16, 224, 224, 3])
    keras.Model(inputs, keras.layers.GlobalAveragePooling3D()(inputs)).save(tmp_path / "sixteen.keras")
    inputs = keras.Input([None, 224, 224, 3])
    means = keras.layers.GlobalAveragePooling3D()(inputs)
    keras.Model(inputs, keras.layers.Rescaling(float("inf"))(means)).save(tmp_path / "infinite.keras")
    options = EvaluateOptions(tmp_path / "tiny", n_future=2, n_sequences=2, results=tmp_path / "results")

    def fails(pattern, **others):
        with pytest.raises(ValueError, match=pattern):
            evaluate(dataclasses.replace(options, **others))

    fails(r"sixteen.keras can't take 5 frames of float32", fvd_model=tmp_path / "sixteen.keras")
    fails(r"infinite.keras are no finite numbers; .* \[-1.0, 1.0\]", fvd_model=tmp_path / "infinite.keras")
    fails(r"test set has 1 sequence; FVD needs at least 2", fvd_model=tmp_path / "infinite.keras", n_sequences=1)
    fails(r"fvd_layer is means, but there is no fvd_model", fvd_layer="means")
    assert not (tmp_path / "results").exists()


# LPIPS --------------------------------------------------------------------------------------------------------------


def test_lpips_sees_rgb_images_in_order(monkeypatch):
    rng = np.random.default_rng(0)
    predictions, future = rng.uniform(0, 1, (2, 3, 4, 8, 8, 1)), rng.uniform(0, 1, (2, 4, 8, 8, 1))
    shapes = []

    def distance(a, b):
        shapes.append(a.shape)
        assert a.min() >= -1
        assert a.min() < -0.5
        return np.abs(a - b).mean((1, 2, 3))

    monkeypatch.setattr(perceptual, "CHUNK", 10)
    found = perceptual.lpips_scores(distance, predictions, future)
    np.testing.assert_allclose(found, 2 * np.abs(predictions - future[:, None]).mean((3, 4, 5)), rtol=1e-5)
    assert shapes == [(10, 3, 8, 8), (10, 3, 8, 8), (4, 3, 8, 8)]


def test_the_package_is_asked_for_its_published_version(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ValueError, match=r"--lpips needs a package that isn't there .*: pip install lpips"):
        perceptual.load_lpips()
    asked = {}

    def no_connection(**options):
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=no_connection))
    with pytest.raises(ValueError, match=r"--lpips downloads AlexNet's weights once, which failed: no route to host"):
        perceptual.load_lpips()

    class Net:
        def __init__(self, **options):
            asked.update(options)

        def eval(self):
            return self

        def __call__(self, a, b):
            return types.SimpleNamespace(numpy=lambda: np.abs(a - b).mean((1, 2, 3), keepdims=True))

    class Nothing:
        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Net))
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(from_numpy=lambda x: x, no_grad=Nothing))
    found = perceptual.load_lpips()(np.zeros((2, 3, 4, 4)), np.ones((2, 3, 4, 4)))
    np.testing.assert_array_equal(found, [1, 1])
    assert (asked["net"], asked["version"]) == ("alex", "0.1")

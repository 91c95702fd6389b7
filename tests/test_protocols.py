"""The published protocols against scikit-image and their definitions, and what they refuse."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from files import evaluate as evaluation
from files import protocols
from files.config import Config
from files.data import make_dataset
from files.evaluate import EvaluateOptions, evaluate
from files.fvd import VideoNet, video_distance
from files.model_svg import SVG
from files.videos import KTH

pytestmark = pytest.mark.usefixtures("eagerly")  # tracing takes longer than a few steps


@pytest.fixture(scope="module", params=[1, 3])
def pair(request):
    """Predictions [1, 2, 3, 16, 16, C] and truth [1, 3, 16, 16, C]."""
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 1, (1, *n, 3, 16, 16, request.param)).astype(np.float32) for n in ((2,), ())]


def by_definition(name, predictions, future):
    """PSNR and SSIM [N] of one sequence, by scikit-image."""
    protocol = protocols.PROTOCOLS[name]
    channels = range(future.shape[-1])
    psnr, ssim = [], []
    for sample in predictions[0]:
        frames = list(zip(sample, future[0], strict=True))
        if protocol.psnr == "of all frames":
            psnr.append(-10 * np.log10(np.mean([np.mean((a - b) ** 2) for a, b in frames])))
        else:
            psnr.append(np.mean([peak_signal_noise_ratio(b[..., c], a[..., c], data_range=1) for a, b in frames
                                 for c in channels]))  # fmt: skip
        if protocol.ssim == "uniform":
            options = dict(data_range=2)
        else:
            options = dict(data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        if protocol.ssim == "black and white":
            frames = [(np.round(a), np.round(b)) for a, b in frames]
        ssim.append(np.mean([structural_similarity(a[..., c].astype(float), b[..., c].astype(float), **options)
                             for a, b in frames for c in channels]))  # fmt: skip
    return {"psnr": psnr, "ssim": ssim}


def videos_and_samples(config, model):
    """Two test sequences and their samples [2, 3, 4, 64, 64, 1], rounded to 8 bits, with the evaluation's noise."""
    (video,) = make_dataset(config, "test", n_frames=7, count=2, batch_size=2)
    noise = [np.stack([np.random.default_rng([0, k, stream]).standard_normal(shape, np.float32) for k in range(2)])
             for stream, shape in ((0, (3, 2, 3)), (1, (3, 4, 3)))]  # fmt: skip
    samples = model.generate(video[:, :3], 4, 3, posterior_noise=noise[0], prior_noise=noise[1])
    return video.numpy(), np.round(samples.numpy() * 255).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("name", ["srvp-smmnist", "svg-smmnist", "mcvd-smmnist"])
def test_scores_are_those_of_the_definition(pair, name):
    found = protocols.protocol_scores(protocols.PROTOCOLS[name], *map(tf.constant, pair))
    for metric, values in by_definition(name, *pair).items():
        np.testing.assert_allclose(found[metric][0], values, atol=2e-5)


def test_every_protocol_is_published_with_its_sources():
    published = json.loads(protocols.PUBLISHED.read_text())
    assert set(published) == set(protocols.PROTOCOLS) == set(protocols.Name.__args__)
    for entry in published.values():
        assert all({"model", "source"} <= set(row) for row in entry["rows"])
    (svg, *_) = published["srvp-smmnist"]["rows"]
    assert (svg["psnr"], svg["ssim"]) == (14.50, 0.7090)


def test_what_does_not_fit_a_protocol_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gives 10 frames; this model conditions on 5"):
        protocols.check_protocol("srvp-kth", Config(data="videos"), KTH)
    with pytest.raises(ValueError, match=r"is one for KTH actions; the data is smmnist \(made\)"):
        protocols.check_protocol("srvp-kth", Config(n_past=10), None)
    protocols.check_protocol("srvp-kth", Config(n_past=10, data="svg_test_set_40.npz"), "array of videos")
    with pytest.raises(ValueError, match="n_samples is 7; protocol mcvd-smmnist has 10: leave it out"):
        protocols.settled(EvaluateOptions(tmp_path, protocol="mcvd-smmnist", n_samples=7), "smmnist")
    with pytest.raises(ValueError, match=r"temperature is 0.5; protocol mcvd-smmnist has 1.0: leave it out"):
        protocols.settled(EvaluateOptions(tmp_path, protocol="mcvd-smmnist", temperature=0.5), "smmnist")
    with pytest.raises(ValueError, match="is one of the test split"):
        EvaluateOptions(tmp_path, protocol="srvp-smmnist", split="val")


def test_a_protocol_decides_data_and_numbers_and_prints_the_literature(tiny, lively, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "VARIANCE_BATCHES", 1)
    monkeypatch.setattr(evaluation, "SHOWN", 1)
    short = dataclasses.replace(protocols.PROTOCOLS["srvp-smmnist"], n_past=3, n_future=4, n_samples=3, n_sequences=2)
    monkeypatch.setitem(protocols.PROTOCOLS, "srvp-smmnist", short)
    lively(tiny).save_weights_to(tmp_path / "small")
    monkeypatch.setattr(evaluation, "load_lpips", lambda: lambda a, b: np.abs(a - b).mean((1, 2, 3)))
    inputs = keras.Input([None, 224, 224, 3])
    keras.Model(inputs, keras.layers.GlobalAveragePooling3D()(inputs)).save(tmp_path / "net.keras")
    options = EvaluateOptions(
        tmp_path / "small", protocol="srvp-smmnist", n_importance=1, results=tmp_path, lpips=True,
        fvd_model=tmp_path / "net.keras",
    )  # fmt: skip
    metrics = evaluate(options)
    assert options.folder == tmp_path / "small" / "srvp-smmnist"
    assert (metrics["data"], metrics["n_future"], metrics["n_samples"]) == ("smmnist_srvp", 4, 3)
    assert metrics["n_sequences"] == 2
    table = metrics["protocol"]["table"]
    assert table["best"]["psnr"]["mean"] == pytest.approx(metrics["table"]["best"]["psnr"]["mean"], abs=0.05)
    videos, samples = videos_and_samples(tiny.replace(data="smmnist_srvp"), SVG.load(tmp_path / "small"))
    distance = 2 * np.abs(samples - videos[:, None, 3:]).mean((2, 3, 4, 5))
    assert table["best"]["lpips"]["mean"] == pytest.approx(distance.min(1).mean(), rel=1e-3)  # lower is better
    generated = np.concatenate([videos[:, :3], samples[:, 0]], 1)
    found = video_distance(VideoNet(tmp_path / "net.keras"), [(tf.constant(videos), tf.constant(generated))])
    assert metrics["fvd"]["value"] == pytest.approx(found["value"], rel=1e-2)
    for values, same in ([-1, 1], True), ([0, 1], False):  # of another network or range, it is none of these results
        net = VideoNet(tmp_path / "net.keras", values=values)
        assert bool(evaluation.finished(options.folder, metrics["run"], 2, net)) is same
    assert not evaluation.finished(options.folder, metrics["run"], 2, None)
    assert metrics["command"].endswith("--fvd-range -1.0 1.0 --batch-size 4 --results " + str(tmp_path))
    assert " --lpips --fvd-model " in metrics["command"]
    printed = capsys.readouterr().out
    assert "Franceschi et al. 2020" in printed
    assert "3 -> 4" in printed
    assert "2 sequences are too few for the covariance of 3 features" in printed
    assert "to be compared" not in printed  # all sequences of this test
    assert metrics["protocol"]["published"]["rows"][1]["psnr"] == 16.93

"""Metrics against TensorFlow's and numbers worked out by hand; figures against what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from matplotlib.colors import to_rgb
from PIL import Image
from skimage import metrics

from files import utils

C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for data range 1


def videos(count, frames=4, size=16, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, frames, size, size, channels)).astype(np.float32)


# Metrics ------------------------------------------------------------------------------------------------------------


def test_ssim_of_constant_images_is_the_luminance_term():
    a, b = np.full((11, 11, 1), 0.25), np.full((11, 11, 1), 0.75)
    assert utils.ssim(a, b) == pytest.approx(0.3751 / 0.6251, abs=1e-9)  # (2ab + c1) / (a² + b² + c1)


def test_ssim_of_one_pixel_against_black():
    point = np.zeros((11, 11, 1))
    point[5, 5] = 1
    w = 0.0707622  # the window's centre: (1 / sum over k = -5..5 of exp(-k² / (2 * 1.5²)))²
    expected = C1 / (w**2 + C1) * C2 / (w - w**2 + C2)
    assert utils.ssim(point, np.zeros((11, 11, 1))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_tensorflow(channels):
    a, b = videos(2, size=20, channels=channels), videos(2, size=20, channels=channels, seed=1)
    b = np.float32(0.7) * a + np.float32(0.3) * b
    np.testing.assert_allclose(utils.ssim(a, b), tf.image.ssim(a, b, 1.0), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_metrics_are_those_of_scikit_image(channels):
    a, b = videos(2, size=20, channels=channels), videos(2, size=20, channels=channels, seed=1)
    b = np.float32(0.7) * a + np.float32(0.3) * b
    window = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1)
    expected = {
        utils.ssim: lambda a, b: metrics.structural_similarity(a, b, data_range=1.0, **window),
        utils.psnr: lambda a, b: metrics.peak_signal_noise_ratio(a, b, data_range=1.0),
    }
    for ours, theirs in expected.items():
        of_each = [[theirs(*images) for images in zip(*pair, strict=True)] for pair in zip(a, b, strict=True)]
        np.testing.assert_allclose(ours(a, b), of_each, atol=1e-6)


def test_psnr():
    a = np.full((2, 3, 8, 8, 1), 0.5)
    b = a + np.array([0.1, 0.01]).reshape(2, 1, 1, 1, 1)
    np.testing.assert_allclose(utils.psnr(a, b), [[20] * 3, [40] * 3])
    assert np.all(np.isposinf(utils.psnr(a, a)))


def test_metrics_broadcast_samples_against_their_truth():
    truth, samples = videos(2)[:, None], videos(10, seed=1).reshape(2, 5, 4, 16, 16, 1)
    for metric in (utils.ssim, utils.psnr):
        values = metric(truth, samples)
        assert values.shape == (2, 5, 4)
        assert values[1, 3, 2] == pytest.approx(float(metric(truth[1, 0, 2], samples[1, 3, 2])))


def test_metrics_refuse_images_of_different_size():
    for metric in (utils.ssim, utils.psnr):
        with pytest.raises(ValueError, match=r"sizes \(16, 16, 1\) and \(16, 17, 1\)"):
            metric(np.zeros((16, 16, 1)), np.zeros((16, 17, 1)))


# Videos -------------------------------------------------------------------------------------------------------------


def rows_of_videos():
    return dict(zip(["ground truth", "best", "worst"], videos(3, frames=5), strict=True))


def test_film_strip_shows_all_frames_with_their_borders():
    rows = rows_of_videos()
    (ax,) = utils.film_strip(rows, n_past=2).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3", "4", "5"]

    green, red = to_rgb(utils.GREEN), to_rgb(utils.RED)
    expected = [green] * 5 + ([green] * 2 + [red] * 3) * 2
    assert [border.get_edgecolor()[:3] for border in ax.patches] == expected
    assert [border.get_linestyle() for border in ax.patches] == [
        "-" if colour == green else "--" for colour in expected
    ]

    sheet = np.asarray(ax.images[0].get_array())
    for border, frame in zip(ax.patches, np.concatenate(list(rows.values())), strict=True):
        x, y = np.ceil(border.get_xy()).astype(int) + 1
        np.testing.assert_array_equal(sheet[y : y + 16, x : x + 16], np.repeat(frame, 3, -1))


def test_gif_shows_all_frames_with_their_borders(tmp_path):
    utils.save_gif(tmp_path / "new" / "futures.gif", rows_of_videos(), n_past=2, frames_per_second=4)
    with Image.open(tmp_path / "new" / "futures.gif") as gif:
        assert gif.n_frames == 5
        assert gif.info["duration"] == 250  # ms
        colours = []
        for frame in range(5):
            gif.seek(frame)
            pixels = np.asarray(gif.convert("RGB"), int)
            green, red = ((np.abs(pixels - colour).max(-1) < 8).any() for colour in ([0, 158, 115], [213, 94, 0]))
            colours.append([green, red])
    assert colours == [[True, False]] * 2 + [[True, True]] * 3  # the ground truth stays green


@pytest.mark.parametrize("draw", [utils.film_strip, lambda rows, n_past: utils.save_gif("unwritten.gif", rows, n_past)])
@pytest.mark.parametrize("shapes", [[], [(3, 8, 8, 1), (4, 8, 8, 1)], [(8, 8, 1)]], ids=str)
def test_rows_of_different_shapes_are_refused(draw, shapes):
    rows = {f"row {k}": np.zeros(shape) for k, shape in enumerate(shapes)}
    with pytest.raises(ValueError, match=r"expected one or more videos of the same shape \[T, H, W, C\]"):
        draw(rows, 1)


# Curves -------------------------------------------------------------------------------------------------------------


def line(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def test_losses_are_drawn_from_the_log(tmp_path):
    log = pd.DataFrame({"epoch": [0, 1], "loss": [3.0, 2], "mse": [0.3, 0.2], "kld": [1.0, 4]})
    log = log.assign(val_loss=[5.0, 4], val_mse=[0.5, 0.4], val_kld=[2.0, 3])
    log.to_csv(tmp_path / "losses.csv", index=False)
    for ax, name in zip(utils.plot_losses(tmp_path / "losses.csv").axes, ("loss", "mse", "kld"), strict=True):
        for label, column in (("training", name), ("validation", f"val_{name}")):
            x, y = line(ax, label)
            assert list(x) == [1, 2]
            assert list(y) == list(log[column])


def test_ssim_over_epochs_and_over_time():
    table = pd.DataFrame(
        {"epoch": [0, 0, 1, 1], "frame": [6, 7, 6, 7], "best": [0.2, 0.4, 0.6, 0.7], "mean": [0.1] * 4}
    )
    over_epochs, over_time = utils.plot_ssim(table).axes
    np.testing.assert_allclose(line(over_epochs, "best sample"), [[1, 2], [0.3, 0.65]])
    np.testing.assert_allclose(line(over_time, "best sample"), [[6, 7], [0.6, 0.7]])


def test_metric_over_time_with_its_interval():
    rows = ["best", "mean", "posterior", "repeat", "black", "simulator_best"]
    table = pd.DataFrame(
        {"row": row, "metric": metric, "frame": frame, "mean": k + frame / 10, "interval": 0.25}
        for k, row in enumerate(rows) for metric in ("ssim", "psnr") for frame in (6, 7)
    )  # fmt: skip
    (ax,) = utils.plot_over_time(table, "psnr", n_samples=100).axes
    np.testing.assert_allclose(line(ax, "best of 100 samples"), [[6, 7], [0.6, 0.7]])
    np.testing.assert_allclose(line(ax, "all black"), [[6, 7], [4.6, 4.7]])
    band = ax.collections[1].get_paths()[0].vertices  # of the second row drawn, the best
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.35, 0.95))
    assert ax.get_ylabel() == "PSNR (dB)"
    (of_ssim,) = utils.plot_over_time(table, "ssim", n_samples=100).axes
    np.testing.assert_allclose(line(of_ssim, "best of 100 by the simulator"), [[6, 7], [5.6, 5.7]])


def test_bounces_are_marked_beside_sigma():
    sigma = np.arange(8.0).reshape(2, 4)  # frames 2 to 5 of two sequences
    bounced = np.array([[True, True, False, True, False], [False] * 4 + [True]])
    around = {"everywhere": 3.0, "lag": [0, 1], "mean": [5.0, 4.0], "interval": [0.1, 0.1], "auc": [0.75, None]}
    around["auc_interval"] = [0.01, None]
    examples = utils.plot_prior_sigma(sigma, bounced, n_past=2, around=around).axes[:2]
    drawn = [[list(line.get_xdata()) for line in ax.lines] for ax in (examples[0], examples[-1])]
    assert drawn[0] == [[4, 4], [3, 4, 5]]  # one bounce after the past, and the curve
    np.testing.assert_array_equal(examples[0].lines[-1].get_ydata(), [1, 2, 3])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: utils.film_strip(rows_of_videos(), 1),
        lambda: utils.plot_spread_skill([0.1, 0.2], [0.1, 0.3]),
        lambda: utils.plot_traversal(np.zeros((2, 3, 8, 8, 1)), np.array([-1, 0, 1])),
        lambda: utils.plot_best_of_n({name: {"mean": [1, 2], "interval": [0.1, None]} for name in ("psnr", "ssim")}),
    ],
)
def test_figures_are_not_left_open(draw):
    assert isinstance(draw(), plt.Figure)
    assert plt.get_fignums() == []

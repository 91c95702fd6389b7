"""Statistics and bounds of the evaluation against SciPy, closed forms and brute force."""

import numpy as np
import pytest
from scipy import stats

from files import scores


def test_best_sample_is_chosen_after_averaging_over_time():
    values = np.array([[[9, 0, 0], [4, 4, 4], [0, 5, 0]]])  # one sequence, three samples, three frames
    np.testing.assert_array_equal(scores.best_sample(values), [[4, 4, 4]])
    assert scores.best_of_n(values)["mean"] == pytest.approx([3, 4, 4])


def test_interval():
    assert scores.mean_interval([1, 2, 3]) == pytest.approx({"mean": 2, "interval": 1.96 / np.sqrt(3)})


def test_bounds_are_exact_with_the_exact_posterior():
    """p(z) = N(0, 1), p(x | z) = N(z, v): the posterior is N(x / (1 + v), v / (1 + v)), and x is N(0, 1 + v)."""
    x, v = 0.8, 0.3
    mean, sigma = x / (1 + v), np.sqrt(v / (1 + v))
    z = mean + sigma * np.array([-1, 1])  # two samples with the posterior's mean and variance
    log_ratio = stats.norm.logpdf(z) - stats.norm.logpdf(z, mean, sigma)
    kl = 0.5 * (mean**2 + sigma**2 - 1) - np.log(sigma)
    kept = {"squared_error": ((x - z) ** 2)[None, :, None], "log_ratio": log_ratio[None], "kl": np.array([[kl]])}
    exact = stats.norm.logpdf(x, 0, np.sqrt(1 + v))
    found = scores.bounds(kept, v, pixels=1)
    assert (found["elbo"][0], found["importance_weighted"][0]) == pytest.approx((exact, exact))


def test_faded_samples_are_counted_in_the_last_frame():
    truth = np.array([[0.9, 0.2], [0.9, 0.4]])
    samples = np.array([[[0.0, 0.09], [0.0, 0.11]], [[0.0, 0.1], [0.0, 0.1]]])  # [S, N, F]
    found = scores.brightness_at_end(samples, truth)
    assert found["ratio"] == pytest.approx(0.1 / 0.3)
    assert found["faded"]["mean"] == pytest.approx(3 / 4)
    assert np.isnan(scores.brightness_at_end(samples, 0 * truth)["ratio"])


def test_roc_area_counts_pairs():
    rng = np.random.default_rng(0)
    score, event = rng.integers(0, 10, (6, 20)), rng.uniform(size=(6, 20)) < 0.3
    positive, negative = score[event][:, None], score[~event][None]
    pairs = np.mean((positive > negative) + 0.5 * (positive == negative))
    assert scores.roc_area(score, event) == pytest.approx(pairs)
    assert np.isnan(scores.roc_area(score, np.zeros_like(event)))


def test_roc_interval_is_that_of_delong():
    rng = np.random.default_rng(0)
    event = rng.uniform(size=(500, 1)) < 0.4
    score = rng.normal(event, 1.0)
    wins = score[event][:, None] > score[~event][None]
    # DeLong et al. (1988), for sequences of one frame.
    by_event, by_other = wins.mean(1), wins.mean(0)
    variance = by_event.var(ddof=1) / len(by_event) + by_other.var(ddof=1) / len(by_other)
    assert scores.roc_interval(score, event, draws=1000) == pytest.approx(1.96 * np.sqrt(variance), rel=0.1)
    # The same again as further frames of each sequence tells nothing new.
    twice = np.repeat(score, 2, 1), np.repeat(event, 2, 1)
    assert scores.roc_interval(*twice, draws=1000) == pytest.approx(1.96 * np.sqrt(variance), rel=0.1)


def test_sigma_that_rises_one_frame_after_each_bounce_is_found():
    bounced = np.random.default_rng(0).uniform(size=(50, 30)) < 0.1
    sigma = np.where(bounced[:, :-1], 2.0, 1.0)  # of frames 1 to 29: high where the frame before has a bounce
    found = scores.sigma_around_bounces(sigma, bounced, n_past=5)
    at = found["lag"].index(1)
    assert found["mean"][at] == 2
    assert found["auc"][at] == 1
    assert found["everywhere"] == pytest.approx(1 + bounced[:, 4:-1].mean())
    others = np.delete(found["auc"], at)
    np.testing.assert_allclose(others, 0.5, atol=0.05)


def test_samples_from_the_distribution_of_the_truth_are_calibrated():
    rng = np.random.default_rng(0)
    width = rng.uniform(0.1, 1, (2000, 1, 10, 1))  # the standard deviation of each sequence and frame
    draws = width * rng.standard_normal((2000, 1 + 8, 10, 50))  # the truth and eight samples of 50 pixels
    truth, samples = draws[:, 0], draws[:, 1:]
    spread, error = samples.var(1, ddof=1).mean(-1), ((samples.mean(1) - truth) ** 2).mean(-1)
    found = scores.spread_skill(spread, error, n_samples=8)
    assert found["ratio"] == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found["spread"], found["error"], rtol=0.03)
    assert found["spread"][0] == pytest.approx(np.sqrt(9 / 8) * 0.145, rel=0.05)  # the narrowest tenth: 0.1 to 0.19
    assert scores.spread_skill(spread, 4 * error, n_samples=8)["ratio"] == pytest.approx(0.5, abs=0.01)

"""The measure of digits kept: frames composed here by hand, with digits moved, faded, lost, blurred or exchanged."""

import numpy as np
import pytest
from scipy import ndimage

from files import digits as measure
from files.data import make_dataset, mnist_digits

FRAMES = 60


@pytest.fixture(scope="module", params=[28, 32])
def digits(request):
    """Digits [6, S, S]; of an eight and a one, the thin one can hide behind the other."""
    return mnist_digits("test", request.param)[[61, 2, 0, 1, 3, 4]]


def frames_of(digits, corners, brightness=1.0):
    """Frames [M, 64, 64] of the digits at [M, D, 2], summed and clipped."""
    frames = np.zeros((len(corners), 64, 64))
    for frame, places in zip(frames, corners, strict=True):
        for digit, (row, column) in zip(digits, places, strict=True):
            frame[row : row + len(digit), column : column + len(digit)] += digit / 255
    return np.minimum(frames, 1) * brightness


def random_corners(digits, count=2):
    return np.random.default_rng(0).integers(0, 64 - digits.shape[-1] + 1, (FRAMES, count, 2))


def shares_kept(frames, digits, corners):
    kept, error = measure.digits_kept(frames[None, ..., None], digits, corners)
    return kept[0].mean(), error[0]


def test_digits_are_found_wherever_they_are_and_however_they_overlap(digits):
    corners = random_corners(digits)
    frames = frames_of(digits[:2], corners)
    explained, found = measure.explain(frames, digits[:2])
    np.testing.assert_array_equal(found, corners)
    np.testing.assert_allclose(explained, 1, atol=1e-5)
    moved = corners + np.array([[3, 4], [0, 0]])
    kept, error = shares_kept(frames, digits[:2], moved)
    assert kept == 1
    np.testing.assert_allclose(error, 2.5)  # the mean of 5 and 0


def test_the_place_of_a_single_digit_is_that_of_brute_force(digits):
    frames = np.random.default_rng(1).uniform(0, 0.6, (3, 64, 64)) + frames_of(
        digits[:1], random_corners(digits, 1)[:3]
    )
    size = digits.shape[-1]
    places = np.stack(np.meshgrid(*[np.arange(64 - size + 1)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
    candidates = frames_of(digits[:1], places)
    error = np.square(frames[:, None] - candidates).sum((2, 3))
    np.testing.assert_array_equal(measure.explain(frames, digits[:1])[1], places[error.argmin(1)])


@pytest.mark.parametrize("brightness", [0.3, 0.45, 0.55, 0.9])
def test_a_faded_digit_is_not_kept(digits, brightness):
    corners = np.tile([[[2, 3], [30, 31]]], (1, 1, 1))  # apart, so that all of both is seen
    frames = frames_of(digits[:2], corners, brightness)
    np.testing.assert_allclose(measure.explain(frames, digits[:2])[0], brightness, atol=1e-5)
    assert shares_kept(frames, digits[:2], corners)[0] == (brightness > 0.5)


def test_what_is_no_longer_the_two_digits_is_not_kept(digits):
    corners, pair = random_corners(digits), digits[:2]
    frames = frames_of(pair, corners)
    blot = np.minimum(3 * ndimage.gaussian_filter(frames, (0, 2, 2)), 1)
    wrong = {
        "black": 0 * frames,
        "blots": blot,
        "other digits": frames_of(digits[2:4], corners),
        "one other digit": frames_of(digits[[0, 4]], corners),
        "all white": 0 * frames + 1,
    }
    for name, shown in wrong.items():
        assert shares_kept(shown, pair, corners)[0] < 0.05, name
    assert shares_kept(frames_of(pair[:1], corners[:, :1]), pair, corners)[0] < 0.2  # the one may hide in the eight
    assert shares_kept(ndimage.gaussian_filter(frames, (0, 0.8, 0.8)), pair, corners)[0] > 0.95


def test_the_generator_keeps_its_digits(tiny):
    (batch,) = make_dataset(
        tiny.replace(data="smmnist_srvp"), "test", batch_size=3, n_frames=8, count=3, trajectories=True
    )
    for video, digits, position in zip(batch["video"], batch["digit"], batch["position"], strict=True):
        kept, error = measure.digits_kept(video[None], digits, position)
        assert kept.all()
        assert not error.any()


def test_shapes_that_do_not_fit(digits):
    samples, position = np.zeros((2, 3, 64, 64, 1)), np.zeros((3, 2, 2))
    with pytest.raises(ValueError, match=r"samples have shape \(3, 64, 64, 1\); expected \[N, T, 64, 64, 1\]"):
        measure.digits_kept(samples[0], digits[:2], position)
    with pytest.raises(ValueError, match=r"expected floats in \[0, 1\]"):
        measure.digits_kept(samples + 2, digits[:2], position)
    with pytest.raises(ValueError, match="digits are float64 of shape"):
        measure.digits_kept(samples, digits[:2] / 255, position)
    with pytest.raises(
        ValueError, match=r"position is float64 of shape \(2, 2, 2\); expected numbers of shape \[3, 2, 2\]"
    ):
        measure.digits_kept(samples, digits[:2], position[1:])

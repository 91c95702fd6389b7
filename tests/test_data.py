"""The datasets against plain loops over frames, written from the published rules, and against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from files.config import Config
from files.data import MAX_IMPACTS, load_videos, make_dataset, mnist_digits, moving_mnist, simulate_futures

T = 40
VARIANTS = ["smmnist", "smmnist_srvp", "mmnist"]


def first(config, split="train", batch_size=100, **kwargs):
    return next(iter(make_dataset(config, split, batch_size=batch_size, **kwargs)))


# Reference: one digit, one frame at a time --------------------------------------------------------------------------


def walk_svg(start, speed, free, inward, deterministic=False):
    """Denton and Fergus: y before x; put back on the wall; into the wall 1..4 inwards, the other -4..4."""
    reach = 64 - 32
    position, velocity, path = list(start), list(speed), []
    for t in range(len(free)):
        bounced = False
        for axis in (0, 1):
            if position[axis] < 0 or position[axis] >= reach:
                sign = 1 if position[axis] < 0 else -1
                position[axis] = 0 if sign > 0 else reach - 1
                if deterministic:
                    velocity[axis] = -velocity[axis]
                else:
                    velocity[axis] = sign * inward[t, axis, axis]
                    velocity[1 - axis] = free[t, axis, 1 - axis]
                bounced = True
        path.append((*position, *velocity, bounced))
        position = [p + v for p, v in zip(position, velocity, strict=True)]
    return np.array(path, float)


def walk_srvp(start, speed, free, inward):
    """SRVP: follow the straight line to the wall it meets first, redraw, travel the rest of the time step."""
    reach = 64 - 28
    position, velocity, path = np.array(start, float), np.array(speed, float), []
    for t in range(len(free)):
        if t:
            position, velocity, bounced = travel(position, velocity, free[t], reach)
        else:
            bounced = False
        path.append((*position, *velocity, bounced))
    return np.array(path)


def travel(position, velocity, redraws, reach):
    time, impacts = 1.0, 0
    while True:
        with np.errstate(divide="ignore", invalid="ignore"):
            to_wall = np.where(velocity > 0, (reach - position) / velocity, -position / velocity)
        to_wall = np.where(velocity == 0, np.inf, to_wall)
        if to_wall.min() >= time - 1e-9:
            return position + velocity * time, velocity, impacts > 0
        hit = to_wall <= to_wall.min() + 1e-9
        position = position + velocity * to_wall.min()
        time -= to_wall.min()
        position[hit] = np.round(position[hit])
        new = redraws[impacts].astype(float)
        new[hit] = np.where(position[hit] <= 0, abs(new[hit]), -abs(new[hit]))
        velocity, impacts = new, impacts + 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_trajectories_and_frames_follow_the_published_rules(variant):
    config = Config(data=variant)
    draw, _, _ = moving_mnist(config, "train", T, seed=3)
    count = 60
    batch = first(config, batch_size=count, seed=3, n_frames=T, count=count, trajectories=True)
    bounces = 0
    for i in range(count):
        drawn = {key: value.numpy() for key, value in draw(tf.constant(i, tf.int64)).items()}
        canvas = np.zeros((T, 64, 64))
        for d in range(2):
            walk = walk_srvp if variant == "smmnist_srvp" else walk_svg
            extra = {"deterministic": True} if variant == "mmnist" else {}
            stocks = drawn["free"][:, :, d], drawn["inward"][:, :, d]
            path = walk(drawn["start"][d], drawn["speed"][d], *stocks, **extra)
            ours = [batch["position"][i, :, d], batch["velocity"][i, :, d], batch["bounced"][i, :, d, None]]
            np.testing.assert_allclose(np.concatenate(ours, -1), path, atol=1e-6)
            bounces += path[:, 4].sum()
            digit = drawn["digit"][d] / 255
            for t, (row, column) in enumerate(np.round(batch["position"][i, :, d]).astype(int)):
                canvas[t, row : row + len(digit), column : column + len(digit)] += digit
        np.testing.assert_allclose(batch["video"][i, ..., 0], np.minimum(canvas, 1), atol=1e-6)
    assert bounces > count  # the rules at the walls were needed


@pytest.mark.parametrize("variant", VARIANTS)
def test_simulated_futures_go_on_from_the_given_frames_by_the_published_rules(variant):
    past, samples, seed = 3, 4, 7
    batch = first(Config(data=variant), batch_size=6, n_frames=T, count=6, trajectories=True)
    futures = simulate_futures(variant, batch, past, samples, seed, start=0).numpy()
    batch = {name: value.numpy() for name, value in batch.items()}
    assert futures.shape == (6, samples, T - past, 64, 64, 1)
    part = {name: value[2:4] for name, value in batch.items()}
    np.testing.assert_array_equal(simulate_futures(variant, part, past, samples, seed, start=2), futures[2:4])

    equal = []
    for i in range(6):
        random = np.random.default_rng([seed, i])
        shape = (samples, T - past + 1, MAX_IMPACTS, 2, 2)
        free, inward = random.integers(-4, 5, shape, np.int32), random.integers(1, 5, shape, np.int32)
        state = [batch[name][i, past - 1] for name in ("position", "velocity")]
        for n in range(samples):
            canvas = np.zeros((T - past + 1, 64, 64))
            for d in range(2):
                walk = walk_srvp if variant == "smmnist_srvp" else walk_svg
                extra = {"deterministic": True} if variant == "mmnist" else {}
                path = walk(state[0][d], state[1][d], free[n, :, :, d], inward[n, :, :, d], **extra)
                digit = batch["digit"][i, d] / 255
                for t, (row, column) in enumerate(np.round(path[:, :2]).astype(int)):
                    canvas[t, row : row + len(digit), column : column + len(digit)] += digit
            equal += list(np.isclose(futures[i, n, ..., 0], np.minimum(canvas[1:], 1), atol=1e-6).all((1, 2)))
        bounces = batch["bounced"][i, past:].any(-1)
        same = bounces.argmax() if bounces.any() and variant != "mmnist" else T
        for future in futures[i]:
            np.testing.assert_allclose(future[:same], batch["video"][i, past:][:same], atol=1e-6)
    assert np.mean(equal) > 0.99  # a position of a half, but for its last bit, may be rounded either way


@pytest.mark.parametrize("variant", VARIANTS)
def test_draws_are_uniform_over_the_published_ranges(variant):
    config = Config(data=variant, num_digits=1)
    drawn = next(iter(tf.data.Dataset.range(2000).map(moving_mnist(config, "train", 2, seed=0)[0]).batch(2000)))
    start, speed, free, inward = (drawn[key].numpy() for key in ("start", "speed", "free", "inward"))
    top = 36 if variant == "smmnist_srvp" else 31
    assert (start.min(), start.max()) == (0, top)
    for values, low, high in ((start, 0, top), (speed, -4, 4), (free, -4, 4), (inward, 1, 4)):
        share = np.bincount(values.ravel() - low, minlength=high - low + 1) / values.size
        assert len(share) == high - low + 1
        # 5 standard errors of a share
        np.testing.assert_allclose(share, 1 / len(share), atol=5 * np.sqrt(1 / len(share) / values.size))


@pytest.mark.parametrize("digits", [1, 3])
def test_number_of_digits(digits):
    batch = first(Config(num_digits=digits), batch_size=2, count=2, trajectories=True)
    assert batch["position"].shape == (2, 15, digits, 2)


# Pure functions of (seed, index) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_sequence_depends_on_seed_and_index_alone(variant, split):
    config = Config(data=variant)
    one = np.concatenate(list(make_dataset(config, split, batch_size=7, count=21)))
    other = np.concatenate(list(make_dataset(config, split, batch_size=4, start=5, count=16)))
    np.testing.assert_array_equal(one[5:], other)
    assert not np.array_equal(one[0], one[1])
    other_seed = np.concatenate(list(make_dataset(config, split, batch_size=21, seed=1, count=21)))
    assert np.array_equal(one, other_seed) == (split != "train")  # held-out data is the same for all


def test_training_never_ends_and_the_other_splits_do():
    config = Config()
    assert (
        make_dataset(config, "test", batch_size=5000, n_frames=2).reduce(0, lambda n, _: n + 1) == 1
    )  # 10 000 digits, 2 each
    assert len(first(config, batch_size=3, start=10**9)) == 3


# Digits -------------------------------------------------------------------------------------------------------------


def test_splits_share_no_digit_and_keep_train_and_test_of_mnist_apart():
    with np.load("data/mnist.npz") as mnist:
        np.testing.assert_array_equal(
            np.concatenate([mnist_digits("train", 28), mnist_digits("val", 28)]), mnist["x_train"]
        )
        np.testing.assert_array_equal(mnist_digits("test", 28), mnist["x_test"])
    assert len(mnist_digits("val", 28)) == 5000


def test_resized_digits_are_pillows_bilinear_ones():
    from PIL import Image

    ours = mnist_digits("test", 32)[:50].astype(int)
    originals = mnist_digits("test", 28)[:50]
    theirs = [np.asarray(Image.fromarray(digit).resize((32, 32), Image.Resampling.BILINEAR)) for digit in originals]
    assert np.abs(ours - theirs).max() <= 1  # of 255: both round


def test_the_test_split_uses_each_digit_once():
    draw, _, length = moving_mnist(Config(data="smmnist_srvp"), "test", 2, seed=0)
    drawn = tf.data.Dataset.range(length).map(lambda i: draw(i)["digit"]).batch(length)
    digits = next(iter(drawn)).numpy().reshape(10_000, -1)
    expected = mnist_digits("test", 28).reshape(10_000, -1)
    np.testing.assert_array_equal(digits[np.lexsort(digits.T)], expected[np.lexsort(expected.T)])


# A user's own videos ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_own_videos(tmp_path, dtype, suffix):
    videos = np.random.default_rng(0).integers(0, 256, (20, 9, 64, 64), dtype=np.uint8)
    stored = videos if dtype == np.uint8 else (videos / 255).astype(dtype)
    path = tmp_path / f"videos{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, stored)
    config = Config(data=str(path), n_past=2, n_future=4)
    expected = (videos / 255).astype(np.float32)[..., None]
    np.testing.assert_allclose(first(config, "val", batch_size=9), expected[16:18, :6], atol=1e-7)
    np.testing.assert_allclose(first(config, "test", batch_size=9), expected[18:, :6], atol=1e-7)
    windows = {(n, t): expected[n, t : t + 6] for n in range(16) for t in range(4)}
    seen = set()
    for window in first(config, batch_size=200, count=200).numpy():
        seen |= {key for key, value in windows.items() if np.allclose(window, value, atol=1e-6)}
    assert len(seen) > 50  # of the 64 there are


def test_an_array_for_each_split(tmp_path):
    arrays = {name: np.full((2, 5, 64, 64, 3), value, np.uint8) for name, value in (("train", 0), ("test", 51))}
    np.savez(tmp_path / "videos.npz", **arrays)
    config = Config(data=str(tmp_path / "videos.npz"), channels=3, n_past=2, n_future=2)
    np.testing.assert_allclose(first(config, "test", batch_size=1), 0.2)
    with pytest.raises(ValueError, match=r"test.*train.*'val'"):
        make_dataset(config, "val", batch_size=1)


def test_bad_files_are_refused(tmp_path):
    def message(value, **settings):
        np.save(tmp_path / "bad.npy", value, allow_pickle=True)
        with pytest.raises(ValueError, match=r"bad\.npy") as error:
            make_dataset(Config(data=str(tmp_path / "bad.npy"), **settings), "train", batch_size=1)
        return str(error.value)

    good = np.zeros((10, 20, 64, 64), np.float32)
    assert "Python objects" in message(np.array([{}]))
    assert "shape (3, 4)" in message(np.zeros((3, 4)))
    assert "int64" in message(good.astype(np.int64))
    assert "0.0 to 2.0" in message(np.where(np.arange(64) == 5, 2, good))
    assert "nan" in message(np.where(np.arange(64) == 5, np.nan, good))
    assert "(32, 32, 1)" in message(good[:, :, :32, :32])
    assert "20 frames; 31" in message(good, n_past=21)
    assert "(64, 64, 1)" in message(good, channels=3)
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"bad\.npy"):
        load_videos(tmp_path / "bad.npy")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz.*smmnist"):
        make_dataset(Config(data="nowhere.npz"), "train", batch_size=1)
    np.save(tmp_path / "good.npy", good)
    with pytest.raises(ValueError, match="trajectories"):
        make_dataset(Config(data=str(tmp_path / "good.npy")), "train", batch_size=1, trajectories=True)
    with pytest.raises(ValueError, match=r"'valid'.*train, val, test"):
        make_dataset(Config(), "valid", batch_size=1)


def test_more_frames_than_pixels_can_be_counted_are_refused():
    """Pixels are counted by int32: 2^31 of them are 524,288 frames of 64 x 64."""
    with pytest.raises(ValueError, match="524288 frames in one batch; at most 524287"):
        make_dataset(Config(), "train", batch_size=2**17, n_frames=4)
    batch = first(Config(), batch_size=1, n_frames=6, count=1, trajectories=True)
    with pytest.raises(ValueError, match="at most 524287"):
        simulate_futures("smmnist", batch, 2, 2**17, seed=0, start=0)

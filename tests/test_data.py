"""The datasets against plain loops over frames, written from the published rules, and against NumPy."""

import collections
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from make_videos import clip_bytes, make_bair, make_kth, moving_frames, write_clip

from files.config import Config
from files.data import MAX_IMPACTS, make_dataset, mnist_digits, moving_mnist, prepare_data, simulate_futures

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


# Arrays of videos ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_of_videos(tmp_path, dtype, suffix):
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


@pytest.mark.parametrize("seed", [0, 5])
def test_arrays_are_drawn_from_as_runs_before_there_were_other_videos_did(tmp_path, seed):
    """Which video, and which of its frames is the first: the numbers that were drawn then, written out."""
    np.save(tmp_path / "videos.npy", np.random.default_rng(0).integers(1, 256, (20, 9, 64, 64), np.uint8))
    stored = np.load(tmp_path / "videos.npy")
    config = Config(data=str(tmp_path / "videos.npy"), n_past=2, n_future=4)
    (windows,) = make_dataset(config, "train", batch_size=50, seed=seed, start=7, count=50)
    for index, window in zip(range(7, 57), windows.numpy(), strict=True):
        keys = [tf.constant([index, 3 * seed * 16 + stream], tf.int64) for stream in (0, 1)]
        which = int(tf.random.stateless_uniform([], keys[0], 0, 16, tf.int32))
        start = int(tf.random.stateless_uniform([], keys[1], 0, 9 - 6 + 1, tf.int32))
        np.testing.assert_allclose(window[..., 0], stored[which, start : start + 6] / 255, atol=1e-7)


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

    good = np.full((10, 20, 64, 64), 0.5, np.float32)
    assert "Python objects" in message(np.array([{}]))
    assert "shape (3, 4)" in message(np.zeros((3, 4)))
    assert "int64" in message(good.astype(np.int64))
    assert "0.5 to 2.0" in message(np.where(np.arange(64) == 5, 2, good))
    assert "nan" in message(np.where(np.arange(64) == 5, np.nan, good))
    assert "(32, 32, 1)" in message(good[:, :, :32, :32])
    assert "20 frames at most for 'train'; 31" in message(good, n_past=21)
    assert "(64, 64, 1)" in message(good, channels=3)
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


# Other videos -------------------------------------------------------------------------------------------------------

LOSSLESS = {"codec": "png", "pix_fmt": "rgb24"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A configuration of each layout, and what lies in the files: video -> frames [T, H, W, C], if it isn't lossy."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "clips").mkdir()
    clips = [rng.integers(0, 256, (count, 64, 64, 3), np.uint8) for count in range(7, 17)]
    for k, frames in enumerate(clips):
        write_clip(folder / "clips" / f"{k}.avi", frames, **LOSSLESS)
    ranges = {"person01_boxing_d1": "1-9, 12-30", "person02_walking_d3": "5-20"}
    make_kth(folder / "kth", [1, 2, 20, 21], 45, ranges=ranges)
    bair = make_bair(folder / "bair", train_files=3, records=4)
    names = sorted(range(3), key=lambda k: f"traj_{k * 4}_to_{k * 4 + 3}")
    short = {"n_past": 2, "n_future": 3}
    configs = {
        "clips": Config(data=str(folder / "clips"), channels=3, **short),
        "kth": Config(data=str(folder / "kth"), **short),
        "bair": Config(data=str(folder / "bair"), channels=3, **short),
    }
    return configs, {"clips": clips, "bair": [video for k in names for video in bair["train"][k]]}


@pytest.mark.parametrize("layout", ["clips", "bair"])
def test_training_windows_are_frames_of_the_files(sources, layout):
    config, videos = sources[0][layout], sources[1][layout]
    if layout == "clips":
        videos = videos[:8]
    else:
        order = np.arange(12)
        np.random.RandomState(42).shuffle(order)
        videos = [videos[k] for k in sorted(order[:11])]
    windows = {
        frames[t : t + 5].tobytes(): (k, t) for k, frames in enumerate(videos) for t in range(len(frames) - 5 + 1)
    }
    batch = first(config, batch_size=300, count=300).numpy()
    assert (batch.dtype, batch.shape) == (np.float32, (300, 5, 64, 64, 3))
    drawn = [windows[np.round(window * 255).astype(np.uint8).tobytes()] for window in batch]
    np.testing.assert_allclose(batch * 255, np.round(batch * 255), atol=1e-4)
    by_video = np.bincount([k for k, _ in drawn], minlength=len(videos))
    assert np.abs(by_video / 300 - 1 / len(videos)).max() < 5 * np.sqrt(1 / len(videos) / 300)  # uniform
    starts = [t for _, t in drawn]
    assert (min(starts), max(starts)) == (0, 9 if layout == "clips" else 25)  # up to the last one there is


def test_kth_is_drawn_by_class_video_and_listed_range(tmp_path):
    """Each frame tells its video on the left and its number on the right."""
    videos = {"person01_boxing_d1": 1, "person01_walking_d1": 2, "person02_walking_d1": 3, "person02_walking_d2": 4}
    for name, video in videos.items():
        frames = np.full((40, 16, 16, 3), video, np.uint8)
        frames[:, :, 8:] = np.arange(40)[:, None, None, None]
        write_clip(tmp_path / f"{name}_uncomp.avi", frames, **LOSSLESS)
    (tmp_path / "00sequences.txt").write_text("person01_boxing_d1\tframes\t1-20, 31-40, 21-24\n")
    batch = first(Config(data=str(tmp_path), n_past=2, n_future=4), batch_size=600, count=600).numpy()
    pixels = np.round(batch[:, :, 8, :, 0] * 255).astype(int)
    numbers = pixels[..., 56]
    np.testing.assert_array_equal(numbers, numbers[:, :1] + np.arange(6))
    shares = collections.Counter()
    for video, start in zip(pixels[:, 0, 8], numbers[:, 0], strict=True):
        if video == 1:  # frames 21 to 24, counted from 1, are too few
            assert start <= 14 or 30 <= start <= 34
        shares[int(video), bool(video == 1 and start >= 30)] += 1 / 600
    expected = {(1, False): 1 / 4, (1, True): 1 / 4, (2, False): 1 / 6, (3, False): 1 / 6, (4, False): 1 / 6}
    assert shares == pytest.approx(expected, abs=5 * np.sqrt(1 / 4 / 600))


@pytest.mark.parametrize("layout", ["clips", "kth", "bair"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_window_depends_on_seed_and_index_alone(sources, layout, split):
    config = sources[0][layout]
    how = dict(seed=3, indices=True)
    whole = make_dataset(config, split, batch_size=8, count=23, **how)
    videos, indices = (np.concatenate(parts) for parts in zip(*whole, strict=True))
    resumed = make_dataset(config, split, batch_size=5, start=8, count=15, **how)
    later = list(resumed)
    if len(videos) > 8:
        np.testing.assert_array_equal(np.concatenate([video for video, _ in later]), videos[8:])
    assert indices.tolist() == list(range(len(videos)))
    other = np.concatenate(list(make_dataset(config, split, batch_size=23, count=23, seed=4)))
    assert np.array_equal(other, videos) == (split != "train")


def test_held_out_videos_are_evaluated_once_and_in_order(sources):
    config, clips = sources[0]["clips"], sources[1]["clips"]
    for split, k in (("val", 8), ("test", 9)):
        (batch,) = make_dataset(config, split, batch_size=50, count=50)
        np.testing.assert_allclose(batch, clips[k][None, :5] / 255, atol=1e-7)
    every = make_dataset(config, "test", batch_size=3, whole=True)
    np.testing.assert_allclose(np.concatenate(list(every)), [clip[:5] / 255 for clip in clips], atol=1e-7)
    assert len(make_dataset(config, "test", batch_size=1, n_frames=8, whole=True)) == 9  # one is shorter
    with pytest.raises(ValueError, match="16 frames at most for 'test'; 17 are needed"):
        make_dataset(config, "test", batch_size=1, n_frames=17, whole=True)


KINDS = {  # of clips in one folder
    "0.avi": {},
    "1.mp4": {"codec": "libx264", "options": {"bf": "3"}},
    "2.mov": {"codec": "qtrle", "pix_fmt": "rgb24"},
    "3.mkv": {"codec": "ffv1", "pix_fmt": "yuv444p"},
    "4.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}},
    "5.mpg": {"codec": "mpeg1video"},
    "6.wmv": {"codec": "wmv2"},
}


def test_a_folder_of_ten_kinds_of_clips(tmp_path):
    folder, frames = tmp_path / "clips", [moving_frames(12, 64, 64, seed=k, grey=True) for k in range(10)]
    for name in ("7", "8"):
        (folder / name).mkdir(parents=True)
    for (name, how), clip in zip(KINDS.items(), frames, strict=False):
        write_clip(folder / name, clip, **how)
    for k, suffix in ((7, "png"), (8, "jpg")):
        for t, frame in enumerate(frames[k]):
            PIL.Image.fromarray(frame).save(folder / str(k) / f"{t}.{suffix}")
    with zipfile.ZipFile(folder / "9.zip", "w") as archive:
        archive.writestr("clip.avi", clip_bytes(frames[9], **LOSSLESS))
    config = Config(data=str(folder), n_past=4, n_future=8)
    table = prepare_data(config)
    assert sum(videos for videos, _ in table.rows.values()) == 10
    assert sum(frames for _, frames in table.rows.values()) == 120
    assert not any("damaged" in note or "left out" in note for note in table.notes)
    (batch,) = make_dataset(config, "test", batch_size=10, whole=True)
    error = np.abs(batch.numpy() * 255 - np.stack(frames)[..., :1]).mean((1, 2, 3, 4))
    assert error.max() < 6  # each is nearest to its own, though some codecs lose much
    for video, clip in zip(batch.numpy() * 255, frames, strict=True):
        distances = [np.abs(video - other[..., :1]).mean() for other in frames]
        assert np.argmin(distances) == [other is clip for other in frames].index(True)


def test_frame_step_crop_and_store_are_the_ones_chosen(tmp_path):
    wide = np.zeros((12, 64, 96, 3), np.uint8)
    wide[:, :, 16:80] = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    write_clip(tmp_path / "wide.avi", wide, **LOSSLESS)
    config = Config(data=str(tmp_path / "wide.avi"), channels=3, n_past=2, n_future=2, frame_step=3, crop=True)
    (batch,) = make_dataset(config, "test", batch_size=9, whole=True, store=tmp_path / "store")
    np.testing.assert_allclose(batch[0], wide[::3, :, 16:80] / 255, atol=1e-7)
    assert {path.name for path in tmp_path.iterdir()} == {"wide.avi", "store"}
    assert len(list((tmp_path / "store").glob("wide.avi-*/64x64x3-step3-crop/*.npy"))) == 1
    assert prepare_data(config, tmp_path / "store").rows == {"train": (1, 2), "val": (1, 1), "test": (1, 1)}
    with pytest.raises(ValueError, match="smmnist is made as it is needed"):
        prepare_data(Config())


def test_an_epoch_reads_a_batch_at_a_time(sources, monkeypatch):
    """Python is called once per batch, whatever its size."""
    import files.data

    calls, open_videos = [], files.data.open_videos

    def counted(*args, **kwargs):
        opened = open_videos(*args, **kwargs)
        read = lambda which, first, n: calls.append(len(which)) or opened.read(which, first, n)  # noqa: E731
        return opened.__class__(**{**vars(opened), "read": read})

    monkeypatch.setattr(files.data, "open_videos", counted)
    assert len(list(make_dataset(sources[0]["bair"], "train", batch_size=20, count=100))) == 5
    assert sorted(calls) == [1, 20, 20, 20, 20, 20]  # the first one tells the type


ENDS_WHILE_READING = """
import sys
import time

sys.path.insert(0, sys.argv[1])
import files.data
from files.config import Config

def slowly(*args, **kwargs):
    opened = open_videos(*args, **kwargs)
    read = lambda *window: time.sleep(0.03) or opened.read(*window)
    return opened.__class__(**{**vars(opened), "read": read})

open_videos, files.data.open_videos = files.data.open_videos, slowly
class Cycle:
    pass

held = Cycle()  # removed only when Python ends
held.itself = held
held.batches = iter(files.data.make_dataset(Config(data=sys.argv[2], channels=3, n_past=2), "train", batch_size=2))
next(held.batches)
"""


def test_python_ends_while_batches_are_being_read(tmp_path):
    """It would wait for ever for a thread that waits for Python's lock."""
    np.save(tmp_path / "videos.npy", np.random.default_rng(0).integers(1, 256, (10, 14, 64, 64, 3), np.uint8))
    root = str(pathlib.Path(__file__).parent.parent)
    subprocess.run([sys.executable, "-c", ENDS_WHILE_READING, root, tmp_path / "videos.npy"], check=True, timeout=100)

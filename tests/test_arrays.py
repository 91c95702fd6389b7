"""Arrays of videos: what is read, against NumPy; what looks wrong and what is damaged is one sentence."""

import io
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from make_videos import moving_frames

from files.videos import NoSplitError, open_videos, prepare

FORM = {"image_size": 64, "channels": 1, "progress": False}


def random_videos(count=20, frames=9, channels=()):
    return np.random.default_rng(0).integers(0, 256, (count, frames, 64, 64, *channels), np.uint8)


def opened(path, split="train", n_frames=4, **options):
    return open_videos(path, split, n_frames=n_frames, **{**FORM, **options})


def windows_of(split, n_frames):
    return split.read(split.windows[:, 0], split.windows[:, 1], n_frames)


# What is read -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed", "fortran", "big-endian"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_windows_are_those_of_the_array(tmp_path, kind, dtype):
    videos = random_videos() if dtype == np.uint8 else (random_videos() / 255).astype(dtype)
    path = tmp_path / ("videos.npz" if kind in ("npz", "compressed") else "videos.npy")
    stored = {
        "fortran": np.asfortranarray(videos),
        "big-endian": videos.astype(videos.dtype.newbyteorder(">")),
    }.get(kind, videos)
    {"npz": np.savez, "compressed": np.savez_compressed}.get(kind, np.save)(path, stored)
    train, val, test = (opened(path, split) for split in ("train", "val", "test"))
    expected = videos if dtype == np.uint8 else videos.astype(np.float32)
    ours = train.read(np.array([0, 15, 7]), np.array([5, 0, 2]), 4)
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(ours[..., 0], [expected[0, 5:9], expected[15, :4], expected[7, 2:6]])
    np.testing.assert_array_equal(windows_of(val, 4)[..., 0], expected[16:18, :4])
    np.testing.assert_array_equal(windows_of(test, 4)[..., 0], expected[18:, :4])
    np.testing.assert_array_equal(windows_of(opened(path, "test", whole=True), 9)[..., 0], expected)
    assert train.clips.tolist() == [[n, 0, 9] for n in range(16)]
    assert train.chance is None
    stepped = opened(path, "test", 3, frame_step=4)
    np.testing.assert_array_equal(windows_of(stepped, 3)[..., 0], expected[18:, ::4])


@pytest.mark.parametrize("count", [8, 10, 15, 20, 25, 33, 100])
def test_the_split_is_that_of_rounded_shares(tmp_path, count):
    np.save(tmp_path / "videos.npy", np.full((count, 2, 64, 64), 100, np.uint8))
    bounds = np.round(np.array([0, 0.8, 0.9, 1]) * count).astype(int)
    sizes = [len(opened(tmp_path / "videos.npy", split, 2).windows) for split in ("train", "val", "test")]
    assert sizes == np.diff(bounds).tolist()


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_videos_are_cut_in_time(tmp_path, count):
    videos = random_videos(count, 50)
    np.save(tmp_path / "videos.npy", videos)
    parts = [opened(tmp_path / "videos.npy", split, 2) for split in ("train", "val", "test")]
    assert [part.clips[-1].tolist() for part in parts] == [
        [count - 1, 0, 40],
        [count - 1, 40, 5],
        [count - 1, 45, 5],
    ]
    assert parts[1].windows.tolist()[:2] == [[0, 40], [0, 42]]  # all that don't overlap
    np.testing.assert_array_equal(windows_of(parts[2], 2)[-1, ..., 0], videos[-1, 47:49])


def test_an_npz_with_an_array_for_each_split(tmp_path):
    arrays = {split: random_videos(k + 2) // (k + 1) for k, split in enumerate(("train", "val", "test"))}
    np.savez(tmp_path / "videos.npz", **arrays)
    for split, videos in arrays.items():
        for whole in (False, True):
            np.testing.assert_array_equal(
                windows_of(opened(tmp_path / "videos.npz", split, whole=whole), 9)[..., 0], videos
            )


def test_an_array_named_after_a_split_serves_no_other(tmp_path):
    for name, others in (("test", ("train", "val")), ("train", ("val", "test"))):
        np.savez(tmp_path / "videos.npz", **{name: random_videos()})
        assert len(opened(tmp_path / "videos.npz", name).windows) == 20
        for split in others:
            with pytest.raises(NoSplitError, match=rf"videos\.npz.*\['{name}'\].*'{split}'"):
                opened(tmp_path / "videos.npz", split, whole=True)


@pytest.mark.parametrize("time_first", [False, True])
def test_srvps_test_files_as_they_are(tmp_path, time_first):
    videos = random_videos(50, 25)
    stored = videos.swapaxes(0, 1) if time_first else videos
    np.savez_compressed(tmp_path / "kth.npz", sequences=stored, persons=np.arange(50), actions=np.array(["run"] * 50))
    test = opened(tmp_path / "kth.npz", "test", 25)
    np.testing.assert_array_equal(windows_of(test, 25)[..., 0], videos)
    with pytest.raises(NoSplitError, match=r"kth\.npz.*test set.*'train'"):
        opened(tmp_path / "kth.npz", "train")


def test_moving_mnists_test_set_is_turned(tmp_path):
    videos = random_videos(30, 20)
    np.save(tmp_path / "mnist_test_seq.npy", videos.swapaxes(0, 1))
    test = opened(tmp_path / "mnist_test_seq.npy", "test", 20, whole=True)
    np.testing.assert_array_equal(windows_of(test, 20)[..., 0], videos)
    assert "30 videos of 20 frames" in str(test.table)
    np.save(tmp_path / "mnist_test_seq.npy", videos)  # somebody has turned it already
    np.testing.assert_array_equal(
        windows_of(opened(tmp_path / "mnist_test_seq.npy", "val", 20), 20)[..., 0], videos[24:27]
    )

    other = np.lib.format.open_memmap(tmp_path / "other.npy", "w+", np.uint8, (20, 10_000, 64, 64))  # sparse
    other[:, 0], other[3, 17] = 200, np.arange(64)
    other.flush()
    test = opened(tmp_path / "other.npy", "train", 20)
    assert len(test.clips) == 8000
    np.testing.assert_array_equal(test.read([17], [2], 2)[0, 1, ..., 0], np.broadcast_to(np.arange(64), (64, 64)))


def test_an_npz_is_read_in_place_or_extracted_once(tmp_path):
    np.savez(tmp_path / "a.npz", random_videos())
    opened(tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    np.savez_compressed(tmp_path / "b.npz", train=random_videos(), test=random_videos(3))
    opened(tmp_path / "b.npz", "test", store=tmp_path / "elsewhere")
    [test] = (tmp_path / "elsewhere").glob("b.npz-*/arrays/*")
    np.testing.assert_array_equal(np.load(test), random_videos(3))
    before = test.stat().st_mtime_ns
    opened(tmp_path / "b.npz", "test", store=tmp_path / "elsewhere")
    assert test.stat().st_mtime_ns == before


def test_the_table_of_an_array(tmp_path):
    np.save(tmp_path / "a.npy", random_videos())
    assert prepare(tmp_path / "a.npy", **FORM).rows == {"train": (16, 144), "val": (2, 18), "test": (2, 18)}


# What looks wrong ---------------------------------------------------------------------------------------------------


def wrong(kind):
    pixels = random_videos(10, 6)
    unit = (pixels / 255).astype(np.float32)
    nan = unit.copy()
    nan[0, 3, 2, 2] = np.nan
    time_first = np.stack([moving_frames(12, 64, 64, seed=k)[..., 0] for k in range(10)], 1)
    return {
        "bits": (pixels % 2, r"uint8 values from 0 to 1;.*multiply them by 255"),
        "twice": (unit / 255, r"float32 values from 0\.0 to 0\.0039.*twice"),
        "signed": (unit * 2 - 1, r"values from -1\.0 to 1\.0.*\[-1, 1\].*\(videos \+ 1\) / 2"),
        "floats to 255": (unit * 255, r"values from 0\.0 to 255\.0.*uint8"),
        "beyond": (unit * 2 - 1.5, r"values from -1\.5 to 0\.5.*expected float in \[0, 1\]"),
        "nan": (nan, "nan"),
        "black": (pixels * 0, "from 0 to 0: all videos are black"),
        "channels first": (pixels[:, :, None], r"\(1, 64, 64\).*channels are first.*numpy\.moveaxis\(videos, 2, -1\)"),
        "time first": (
            time_first,
            r"shape \(12, 10, 64, 64\), and two axes could be time.*numpy\.moveaxis\(videos, 0, 1\)",
        ),
        "one video": (pixels[0], r"shape \(6, 64, 64\).*videos\[None\]"),
        "one colour video": (random_videos(1, 6, (3,))[0], r"\(64, 3, 1\).*videos\[None\]"),
        "integers": (pixels.astype(np.int64), "int64; expected uint8"),
        "size": (pixels[:, :, :32, :32], r"frames \(32, 32, 1\).*expects \(64, 64, 1\)"),
        "colours": (random_videos(10, 6, (3,)), r"frames \(64, 64, 3\).*expects \(64, 64, 1\)"),
        "short": (pixels[:, :3], "3 frames at most for 'train'; 4 are needed"),
        "empty": (pixels[:0], "empty"),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["bits", "twice", "signed", "floats to 255", "beyond", "nan", "black", "channels first", "time first", "one video",
     "one colour video", "integers", "size", "colours", "short", "empty"],
)  # fmt: skip
def test_what_looks_wrong_is_said_with_the_way_out(tmp_path, kind):
    array, message = wrong(kind)
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=r"bad\.npy.*" + message) as error:
        opened(tmp_path / "bad.npy")
    assert "\n" not in str(error.value)


def test_the_way_out_of_two_axes_that_could_be_time(tmp_path):
    array, _ = wrong("time first")
    np.save(tmp_path / "turned.npy", np.moveaxis(array, 0, 1))
    assert opened(tmp_path / "turned.npy").clips[0, 2] == 12
    np.savez(tmp_path / "named.npz", train=array)
    assert opened(tmp_path / "named.npz").clips[0, 2] == 10


def test_a_value_that_no_sample_showed_stops_when_it_is_read(tmp_path):
    np.save(tmp_path / "a.npy", (random_videos(40) / 255).astype(np.float32))
    split = opened(tmp_path / "a.npy")
    changed = np.load(tmp_path / "a.npy", mmap_mode="r+")
    changed[3, 5] = np.nan
    changed.flush()
    split.read([3], [0], 4)
    with pytest.raises(ValueError, match=r"a\.npy.*nan"):
        split.read([2, 3], [0, 2], 4)


# Damage -------------------------------------------------------------------------------------------------------------


def refused_or_right(path, expected):
    """Either one sentence that names the file, or the very same pixels."""
    message = None
    try:
        ours = windows_of(opened(path, "test", 2), 2)
    except ValueError as error:
        message = str(error)
    if message is None:
        np.testing.assert_array_equal(ours[..., 0], expected)
        return "read"
    assert str(path) in message
    assert "\n" not in message
    return "refused"


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_a_cut_array_is_one_sentence(tmp_path, kind):
    videos = random_videos(10, 2)
    whole, path = tmp_path / f"whole.{kind[:3]}", tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    save = {"npy": np.save, "npz": np.savez}.get(kind, np.savez_compressed)
    with open(whole, "wb") as file:
        save(file, videos)
    data = whole.read_bytes()
    for length in [0, 1, 5, 9, 11, 60, 127, 128, 129, *np.linspace(130, len(data) - 1, 30).astype(int)]:
        path.write_bytes(data[:length])
        assert refused_or_right(path, videos[9:]) == "refused", length


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_a_flipped_bit_is_one_sentence_or_harmless(tmp_path, kind):
    videos, rng = random_videos(10, 2), np.random.default_rng(1)
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    save = {"npy": np.save, "npz": np.savez}.get(kind, np.savez_compressed)
    save(path, videos)
    data = path.read_bytes()
    places = [*range(128), *range(len(data) - 120, len(data)), *rng.integers(0, len(data), 40)]
    outcomes = []
    for place in places if kind != "npy" else places[:128]:  # .npy has no checksum of the pixels
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        outcomes.append(refused_or_right(path, videos[9:]))
    assert outcomes.count("refused") > len(outcomes) / 3


def header_bomb():
    header = b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little")
    return header + b" " * 20_000


def deep_header():
    text = b"-" * 9_000 + b"1"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def announces(shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue() + b"\0" * 100


def zip_of(members, compression=zipfile.ZIP_DEFLATED, announced=None):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for info in archive.infolist() if announced else []:
            info.file_size = announced
    return buffer.getvalue()


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.npy", b"no array", "no .npy or .npz"),
        ("a.npy", saved(np.array([{}])), "Python objects"),
        ("a.npz", zip_of({"a.npy": saved(np.array([{}]))}), "Python objects"),
        ("a.npy", saved(np.zeros((3, 3, 64, 64), [("a", "u1")])), "expected uint8"),
        ("a.npy", header_bomb(), "header has 2147483648 bytes"),
        ("a.npz", zip_of({"a.npy": header_bomb()}), "header has 2147483648 bytes"),
        ("a.npy", deep_header(), "no .npy or .npz"),
        ("a.npy", announces((1 << 70, 3, 64, 64)), "announced"),
        ("a.npy", announces((-1, -1, 64, 64)), "shape"),
        ("a.npz", zip_of({"a.npy": announces((5 << 20, 1, 64, 64))}, announced=20 << 30), "inflate"),
        ("a.npz", zip_of({"1.png": b"png", "2.png": b"png"}), "'1.png'.*called .zip"),
        ("a.npz", zip_of({}), "empty"),
        ("a.npz", b"\x93NUMPY\x01\x00", "zip"),
    ],
)
def test_what_is_no_array_is_one_sentence(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}.*{message}") as error:
        opened(tmp_path / name)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_is_said_before_extracting(tmp_path, monkeypatch):
    from files import arrays

    np.savez_compressed(tmp_path / "a.npz", random_videos())
    usage = arrays.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"a\.npz.*GB free; choose another place"):
        opened(tmp_path / "a.npz")


# Memory -------------------------------------------------------------------------------------------------------------

# What `open_videos` does for an array, without TensorFlow, whose import takes most of the time.
MEASURED = """
import pathlib, resource, sys, time
import numpy as np
from files import arrays
rng, peak = np.random.default_rng(0), lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start, path = peak(), time.perf_counter(), pathlib.Path(sys.argv[1])
stored, *_ = arrays.open_array(path, "train", (64, 64, 1), path.parent)
arrays.check_values(path, stored, range(2960))
stored.read(np.arange(16), np.zeros(16, int), 20)
seconds = time.perf_counter() - start
for _ in range(60):
    stored.read(rng.integers(0, 2960, 16), rng.integers(0, 30, 16), 20)
print(peak() - before, seconds)
"""


def test_memory_does_not_grow_with_the_array(tmp_path):
    videos = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (3700, 50, 64, 64))  # 3 GB, sparse
    videos[::500] = 0.5
    videos.flush()
    del videos
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "big.npy")]
    root = pathlib.Path(__file__).parent.parent
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=root).stdout
    os.unlink(tmp_path / "big.npy")
    megabytes, seconds = map(float, out.split())
    assert megabytes < 300
    assert seconds < 2

"""Layouts, splits and windows: against what was put into the files and plain copies of the published recipes."""

import collections
import io
import os
import zipfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from make_videos import KTH_ACTIONS, bair_example, clip_bytes, make_bair, make_kth, moving_frames, write_clip

from files import kth
from files.videos import NoSplitError, open_videos, prepare

GREY = {"image_size": 64, "channels": 1, "progress": False}
RGB = {"image_size": 64, "channels": 3, "progress": False}
SPLITS = ("train", "val", "test")
LOSSLESS = {"codec": "png", "pix_fmt": "rgb24"}


def shade(value, count=6):
    """A clip whose frames have the brightness `value`, so that one knows which it is."""
    return np.full((count, 16, 16, 3), value, np.uint8)


def write_shades(folder, values, count=6, name="clip{}.avi"):
    folder.mkdir(parents=True, exist_ok=True)
    for value in values:
        write_clip(folder / name.format(value), shade(value, count), **LOSSLESS)


def shades(path, split, n_frames=4, **options):
    """The brightness of each window to evaluate."""
    opened = open_videos(path, split, n_frames=n_frames, **{**GREY, **options})
    windows = opened.read(opened.windows[:, 0], opened.windows[:, 1], n_frames)
    assert windows.shape == (len(opened.windows), n_frames, 64, 64, 1)
    assert (windows == windows[:, :1, :1, :1]).all()
    return windows[:, 0, 0, 0, 0].tolist()


def splits(path, **options):
    return [shades(path, split, **options) for split in SPLITS]


# Folders and archives -----------------------------------------------------------------------------------------------


def test_a_folder_is_divided_in_natural_order_within_each_folder(tmp_path):
    write_shades(tmp_path / "data" / "run", range(1, 21))
    write_shades(tmp_path / "data" / "walk", range(101, 111))
    train, val, test = splits(tmp_path / "data")
    assert train == [*range(1, 17), *range(101, 109)]
    assert val == [17, 18, 109]
    assert test == [19, 20, 110]
    assert shades(tmp_path / "data", "test", whole=True) == [*range(1, 21), *range(101, 111)]


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_few_videos_leave_one_for_each_split(tmp_path, count):
    write_shades(tmp_path / "data", range(1, count + 1))
    train, val, test = splits(tmp_path / "data")
    assert [len(train), len(val), len(test)] == [count - 2, 1, 1]
    assert train + val + test == list(range(1, count + 1))


def test_folders_that_are_too_small_are_divided_as_one(tmp_path):
    for value in range(10, 20):
        write_shades(tmp_path / "data" / f"person{value}", [value])
    assert splits(tmp_path / "data") == [[*range(10, 18)], [18], [19]]


def test_clips_that_ucf_101_cut_from_one_video_stay_together(tmp_path):
    for group in range(1, 11):
        write_shades(
            tmp_path / "data" / "Archery", [group * 10, group * 10 + 1], name=f"v_Archery_g{group:02d}_c{{}}.avi"
        )
    train, val, test = splits(tmp_path / "data")
    assert (val, test) == ([90, 91], [100, 101])
    assert len(train) == 16


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "testing")])
def test_folders_named_after_splits_are_splits(tmp_path, names):
    for k, name in enumerate(names):
        write_shades(tmp_path / "data" / "class" / name / "deeper", [10 * k + 1, 10 * k + 2])
    write_shades(tmp_path / "data" / "other", [99])
    assert splits(tmp_path / "data") == [[1, 2], [11, 12], [21, 22]]
    assert "1 videos outside of the folders train, val and test" in str(prepare(tmp_path / "data", **GREY))


def test_without_a_folder_val_a_tenth_of_train_is_val(tmp_path):
    write_shades(tmp_path / "data" / "train", range(1, 21))
    write_shades(tmp_path / "data" / "test", [30])
    assert splits(tmp_path / "data") == [[*range(1, 19)], [19, 20], [30]]
    os.rename(tmp_path / "data" / "test", tmp_path / "away")
    with pytest.raises(NoSplitError, match="'test'"):
        shades(tmp_path / "data", "test")


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_single_video_is_cut_in_time(tmp_path, suffix):
    frames = np.repeat(np.arange(50, 200, dtype=np.uint8), 64 * 64 * 3).reshape(150, 64, 64, 3)
    how = LOSSLESS if suffix == ".avi" else {"codec": "libx264", "options": {"crf": "1"}}
    write_clip(tmp_path / f"my clip é{suffix}", frames, **how)
    seen = []
    for split, first, count in (("train", 0, 120), ("val", 120, 15), ("test", 135, 15)):
        opened = open_videos(tmp_path / f"my clip é{suffix}", split, n_frames=4, **GREY)
        assert opened.clips.tolist() == [[0, first, count]]
        assert opened.windows[:, 1].tolist() == list(range(first, first + count - 3, 4))
        window = opened.read(np.array([0]), np.array([first]), count)[0, :, 0, 0, 0]
        np.testing.assert_allclose(window, np.arange(first, first + count) + 50, atol=2)
        seen += range(first, first + count)
    assert seen == list(range(150))
    assert opened.table.layout == "a video"
    with pytest.raises(ValueError, match=r"cut in time.* of 15 frames at most for 'val'; 16 are needed"):
        open_videos(tmp_path / f"my clip é{suffix}", "val", n_frames=16, **GREY)


def png(value):
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((16, 16), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_folders_of_pictures_are_videos_in_natural_order(tmp_path):
    for video in range(1, 5):
        (tmp_path / "data" / f"v{video}").mkdir(parents=True)
        for t in range(12):
            (tmp_path / "data" / f"v{video}" / f"{t}.png").write_bytes(png(video * 20 + t))
    opened = open_videos(tmp_path / "data", "test", n_frames=12, whole=True, **GREY)
    pixels = opened.read(opened.windows[:, 0], opened.windows[:, 1], 12)[..., 0, 0, 0]
    np.testing.assert_array_equal(pixels, [[video * 20 + t for t in range(12)] for video in range(1, 5)])
    single = open_videos(tmp_path / "data" / "v2", "train", n_frames=4, **GREY)
    assert single.clips.tolist() == [[0, 0, 10]]


def test_pictures_of_two_kinds_are_refused_and_those_beside_videos_left_out(tmp_path):
    (tmp_path / "data" / "v").mkdir(parents=True)
    for t in range(4):
        (tmp_path / "data" / "v" / f"{t}.png").write_bytes(png(t))
        PIL.Image.fromarray(np.full((16, 16), t, np.uint8)).save(tmp_path / "data" / "v" / f"{t}.jpg")
    with pytest.raises(ValueError, match=r"data: the pictures in 'v' are of 2 kinds \(\.jpg, \.png\).*remove one"):
        shades(tmp_path / "data", "train")
    write_shades(tmp_path / "data" / "v", [1, 2, 3])
    assert "8 pictures beside the videos in 'v' are left out" in str(prepare(tmp_path / "data", **GREY))


def test_archives_are_read_in_place(tmp_path):
    with zipfile.ZipFile(tmp_path / "clips.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for value in range(1, 11):
            archive.writestr(f"clips/{value}.avi", clip_bytes(shade(value), **LOSSLESS))
        archive.writestr("../../outside.avi", clip_bytes(shade(77), **LOSSLESS))
    (tmp_path / "b").mkdir()
    with zipfile.ZipFile(tmp_path / "b" / "test.zip", "w") as archive:
        for value in range(4):
            for t in range(5):
                archive.writestr(f"{value}/{t}.png", png(40 + value))
    write_shades(tmp_path / "b" / "train", range(1, 4))
    assert sorted(shades(tmp_path / "clips.zip", "test", whole=True)) == [*range(1, 11)]  # none from outside
    assert splits(tmp_path / "b") == [[1, 2], [3], [40, 41, 42, 43]]
    assert {path.name for path in tmp_path.iterdir()} == {"clips.zip", "clips.zip.frames", "b", "b.frames"}
    assert not (tmp_path.parent / "outside.avi").exists()


def test_what_is_there_packed_and_unpacked_is_taken_once(tmp_path):
    write_shades(tmp_path / "data" / "run", range(1, 6))
    with zipfile.ZipFile(tmp_path / "data" / "run.zip", "w") as archive:
        for clip in (tmp_path / "data" / "run").iterdir():
            archive.write(clip, f"run/{clip.name}")
    assert shades(tmp_path / "data", "test", whole=True) == [1, 2, 3, 4, 5]
    assert "5 videos in archives are there unpacked" in str(prepare(tmp_path / "data", **GREY))


def test_hidden_files_and_those_of_other_systems_are_ignored(tmp_path):
    write_shades(tmp_path / "data", [1, 2, 3])
    for junk in (
        "._clip1.avi",
        ".DS_Store",
        "Thumbs.db",
        "__MACOSX/clip1.avi",
        ".git/clip1.avi",
        "old.frames/clip.avi",
    ):
        (tmp_path / "data" / junk).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / junk).write_bytes(b"junk")
    (tmp_path / "data" / "notes.pdf").write_bytes(b"")
    os.symlink(tmp_path / "data", tmp_path / "data" / "loop")
    assert shades(tmp_path / "data", "test", whole=True) == [1, 2, 3]
    table = prepare(tmp_path / "data", **GREY)
    assert any("1 files that are no videos or pictures are left out (notes.pdf" in note for note in table.notes)
    assert not any("damaged" in note for note in table.notes)


def test_short_videos_are_left_out_and_counted(tmp_path):
    write_shades(tmp_path / "data", [1, 2, 3], count=6)
    write_shades(tmp_path / "data", [4, 5], count=3)
    opened = open_videos(tmp_path / "data", "train", n_frames=5, whole=True, **GREY)
    assert opened.clips.tolist() == [[0, 0, 6], [1, 0, 6], [2, 0, 6]]
    assert opened.lengths.tolist() == [6, 6, 6, 3, 3]
    assert "2 of 5 clips are shorter than 5 frames" in str(opened.table)
    with pytest.raises(ValueError, match="videos of 6 frames at most for 'train'; 7 are needed"):
        open_videos(tmp_path / "data", "train", n_frames=7, **GREY)


def test_prepare_decodes_all_and_prints_a_table(tmp_path):
    write_shades(tmp_path / "data", range(10, 20))
    (tmp_path / "data" / "clip17.avi").write_text("no video")
    table = prepare(tmp_path / "data", **GREY)
    assert table.rows == {"train": (7, 42), "val": (1, 6), "test": (1, 6)}
    text = str(table)
    assert "data: videos" in text
    assert "clip17.avi: Invalid data" in text
    assert str(tmp_path / "data.frames" / "64x64x1") in text
    decoded = list((tmp_path / "data.frames").rglob("*.npy"))
    assert len(decoded) == 9
    before = {path: path.stat().st_mtime_ns for path in decoded}
    open_videos(tmp_path / "data", "train", n_frames=3, **GREY)
    assert before == {path: path.stat().st_mtime_ns for path in decoded}
    write_shades(tmp_path / "b" / "data", [60])
    for path in (tmp_path / "data", tmp_path / "b" / "data"):  # of the same name, in the same store
        prepare(path, store=tmp_path / "store", **RGB)
    assert sorted(len(list(folder.rglob("64x64x3/*.npy"))) for folder in (tmp_path / "store").iterdir()) == [1, 9]


def test_paths_that_hold_no_videos(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere"):
        shades(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no video"):
        shades(tmp_path / "empty", "train")
    (tmp_path / "bair.tar").write_bytes(b"tar")
    with pytest.raises(ValueError, match=r"bair\.tar holds no video.*unpack it first"):
        shades(tmp_path / "bair.tar", "train")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"cut\.zip is a damaged zip archive"):
        shades(tmp_path / "cut.zip", "train")
    write_shades(tmp_path / "dark", [0, 0, 0])
    with pytest.raises(ValueError, match=r"dark: all videos that were looked at .* are black"):
        shades(tmp_path / "dark", "train")


def test_one_call_per_batch_in_a_parallel_pipeline(tmp_path):
    frames = np.stack([moving_frames(30, 64, 64, seed=k) for k in range(3)])
    for k, clip in enumerate(frames):
        write_clip(tmp_path / f"{k}.avi", clip, **LOSSLESS)
    opened = open_videos(tmp_path, "train", n_frames=8, whole=True, store=tmp_path / "store", **RGB)

    def read(index):
        which, first = index % 3, index % 23
        return tf.numpy_function(lambda w, f: opened.read(w, f, 8), [which, first], tf.uint8, stateful=False), index

    batches = tf.data.Dataset.range(200).batch(10).map(read, num_parallel_calls=4)
    for windows, index in batches.as_numpy_iterator():
        np.testing.assert_array_equal(windows, [frames[i % 3, i % 23 : i % 23 + 8] for i in index])


# KTH ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kth_folder(tmp_path_factory):
    """All of the validation and the test, and two persons of train, with a list of ranges."""
    folder = tmp_path_factory.mktemp("my data") / "kth"
    ranges = {"person01_boxing_d1": "1-20, 31-99", "person01_boxing_d2": "5-14", "person01_boxing_d3": "*missing*"}
    counts = make_kth(folder, [1, 19, 20, *range(21, 26)], range(50, 61), ranges=ranges)
    return folder, counts


def by_archive(names):
    return sorted(names, key=lambda name: (name.split("_")[1], name))


def test_kth_splits_its_persons(kth_folder):
    folder, counts = kth_folder
    table = prepare(folder, **GREY)
    assert table.layout == "KTH actions"
    for split, persons in (("train", [1, 19]), ("val", [20]), ("test", range(21, 26))):
        theirs = [count for name, count in counts.items() if int(name[6:8]) in persons]
        assert table.rows[split] == (len(theirs), sum(theirs))
    assert "407 of 599 videos are missing, all of persons 2, 3," in str(table)
    assert not any("00sequences" in note for note in table.notes)
    assert {path.name for path in folder.iterdir()} == {f"{action}.zip" for action in KTH_ACTIONS} | {"00sequences.txt"}


def test_kths_test_is_srvps(kth_folder):
    folder, counts = kth_folder
    test = open_videos(folder, "test", n_frames=40, **GREY)
    lengths = {name: count for name, count in counts.items() if int(name[6:8]) >= 21}
    names = by_archive(lengths)
    np.random.seed(42)  # noqa: NPY002 - SRVP's recipe, line by line
    expected = []
    for _ in range(1000):
        action = KTH_ACTIONS[np.random.randint(len(KTH_ACTIONS))]  # noqa: NPY002
        person = np.random.randint(21, 26)  # noqa: NPY002
        trial = np.random.randint(1, 5)  # noqa: NPY002
        name = f"person{person:02d}_{action}_d{trial}"
        expected.append((names.index(name), np.random.randint(lengths[name] - 40 + 1)))  # noqa: NPY002
    assert test.windows.tolist() == [list(window) for window in expected]
    assert not any("published" in note for note in test.table.notes)
    video = 17
    clip = moving_frames(
        lengths[names[video]], 32, 24, seed=(int(names[video][6:8]) + int(names[video][-1])) % 8, grey=True
    )
    theirs = np.asarray(PIL.Image.fromarray(clip[3]).resize((64, 64), PIL.Image.Resampling.BICUBIC))[..., 0]
    ours = test.read(np.array([video]), np.array([3]), 1)[0, 0, ..., 0]
    assert np.abs(ours.astype(float) - theirs).mean() < 6
    shorter = open_videos(folder, "test", n_frames=20, **GREY)
    np.testing.assert_array_equal(shorter.windows, test.windows)  # the same windows, not to their end


def test_kths_windows_lie_in_the_listed_ranges(kth_folder):
    folder, counts = kth_folder
    train = open_videos(folder, "train", n_frames=15, **GREY)
    rows = collections.defaultdict(list)
    for video, first, frames in train.clips.tolist():
        rows[video].append((first, frames))
    assert rows[0] == [(0, 20), (30, counts["person01_boxing_d1"] - 30)]  # the list goes beyond the video
    assert 1 not in rows  # ten frames are too few
    assert rows[2] == [(0, counts["person01_boxing_d3"])]
    assert "train: 1 of 49 clips are shorter than 15 frames" in str(train.table)
    # A class, a video of it and a range of that: each as likely.
    videos = 2 * 4 - 1  # of boxing that are long enough
    assert train.chance[:2].tolist() == pytest.approx([1 / 6 / videos / 2] * 2)
    assert train.chance.sum() == pytest.approx(1)
    by_class = collections.Counter()
    names = by_archive(name for name in counts if name[6:8] in ("01", "19"))
    for (video, *_), chance in zip(train.clips, train.chance, strict=True):
        by_class[names[video].split("_")[1]] += chance
    assert list(by_class.values()) == pytest.approx([1 / 6] * 6)
    stepped = open_videos(folder, "train", n_frames=5, frame_step=2, **GREY)
    assert stepped.clips[:3].tolist()[:2] == [
        [0, 0, 10],
        [0, 15, (counts["person01_boxing_d1"] + 1) // 2 - 15],
    ]
    assert stepped.clips[2].tolist() == [1, 2, 5]  # frames 5 to 14, from 1 on: the 3rd, 4th, ... of every second


def test_kth_unpacked_without_a_list(tmp_path):
    make_kth(tmp_path / "kth", [5, 20, 22], 45, actions=["boxing", "running"], zipped=False)
    train = open_videos(tmp_path / "kth", "train", n_frames=10, **GREY)
    assert train.clips.tolist() == [[k, 0, 45] for k in range(8)]
    assert "there is no 00sequences.txt beside the videos: windows are drawn from whole videos" in str(train.table)
    assert "all of handclapping, handwaving, jogging, walking, persons 1, 2, 3, 4, 6" in str(train.table)
    test = open_videos(tmp_path / "kth", "test", n_frames=10, **GREY)
    assert len(test.windows) == 1000
    assert set(test.windows[:, 0]) == set(range(8))
    assert "not SRVP's published windows" in str(test.table)
    make_kth(tmp_path / "few", [5], 45, actions=["boxing"])
    with pytest.raises(NoSplitError, match="'val'"):
        open_videos(tmp_path / "few" / "boxing.zip", "val", n_frames=10, **GREY)


def test_kths_grey_is_the_first_channel(tmp_path):
    (tmp_path / "kth").mkdir()
    colour = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    write_clip(tmp_path / "kth" / "person03_walking_d2_uncomp.avi", colour, **LOSSLESS)
    train = open_videos(tmp_path / "kth", "train", n_frames=12, **GREY)
    np.testing.assert_array_equal(train.read([0], [0], 12)[0], colour[..., :1])


def test_kths_validation_begins_with_all_actions(kth_folder):
    folder, _ = kth_folder
    val = open_videos(folder, "val", n_frames=10, **GREY)
    names = sorted(f"{action}_d{scenario}" for action in KTH_ACTIONS for scenario in range(1, 5))
    assert {names[video].split("_")[0] for video in val.windows[:16, 0]} == set(KTH_ACTIONS)
    assert len(val.windows) == 24


def test_the_published_list_is_understood(tmp_path):
    text = (
        "Training:   person11, 12\n\nperson01_boxing_d1      frames  1-95, 96-185, 186-245, 246-360\n"
        "person13_handclapping_d3  *missing*\nperson25_walking_d4\tframes\t1-75, 60-90 \n"
    )
    (tmp_path / "00sequences.txt").write_text(text)
    assert kth.read_ranges({}, tmp_path / "boxing.zip") == {
        (1, "boxing", 1): [(1, 95), (96, 185), (186, 245), (246, 360)],
        (25, "walking", 4): [(1, 75), (60, 90)],
    }


# BAIR ---------------------------------------------------------------------------------------------------------------


def test_bair_is_read_where_it_lies(tmp_path):
    frames = make_bair(tmp_path / "bair", train_files=12, test_files=1, records=3)
    names = sorted(f"traj_{k * 3}_to_{k * 3 + 2}" for k in range(12))  # as strings: 12 before 3
    sorted_videos = np.concatenate([frames["train"][int(name.split("_")[1]) // 3] for name in names])
    ids = list(range(36))
    np.random.RandomState(42).shuffle(ids)
    parts = {"train": sorted(ids[: int(0.95 * 36)]), "val": sorted(ids[int(0.95 * 36) :])}
    for folder in (tmp_path / "bair", tmp_path / "bair" / "softmotion30_44k"):
        for split, chosen in parts.items():
            opened = open_videos(folder, split, n_frames=30, **RGB)
            assert opened.clips.tolist() == [[k, 0, 30] for k in range(len(chosen))]
            ours = opened.read(opened.windows[:, 0], opened.windows[:, 1], 30)
            np.testing.assert_array_equal(ours, sorted_videos[chosen])
    test = open_videos(tmp_path / "bair", "test", n_frames=12, **RGB)
    np.testing.assert_array_equal(
        test.read([2, 0], [0, 17], 12), [frames["test"][0, 2, :12], frames["test"][0, 0, 17:29]]
    )
    stepped = open_videos(tmp_path / "bair", "test", n_frames=10, frame_step=3, **RGB)
    np.testing.assert_array_equal(stepped.read([1], [0], 10)[0], frames["test"][0, 1, ::3])
    assert {path.name for path in tmp_path.iterdir()} == {"bair"}

    single = next((tmp_path / "bair" / "softmotion30_44k" / "test").iterdir())
    assert open_videos(single, "test", n_frames=30, **RGB).windows.tolist() == [[0, 0], [1, 0], [2, 0]]
    with pytest.raises(NoSplitError, match="no TFRecord files for 'train'"):
        open_videos(single, "train", n_frames=30, **RGB)
    with pytest.raises(ValueError, match=r"\(64, 64, 3\).*\(64, 64, 1\)"):
        open_videos(single, "test", n_frames=30, **GREY)
    assert prepare(tmp_path / "bair", **RGB).rows == {"train": (34, 1020), "val": (2, 60), "test": (3, 90)}


def test_a_damaged_record_is_named_with_its_file(tmp_path):
    make_bair(tmp_path, train_files=1, records=3)
    file = next((tmp_path / "softmotion30_44k" / "test").iterdir())
    data = file.read_bytes()
    record = len(data) // 3
    for length in (2 * record + 5, 2 * record + 5000, 3 * record - 1):
        file.write_bytes(data[:length])
        with pytest.raises(ValueError, match=rf"record 2 of .*{file.name} is cut or damaged"):
            open_videos(file, "test", n_frames=30, **RGB)
    key = data.index(b"\x145/image_aux1/encoded", record) + 1  # behind its length, 20: not that of 15/...
    file.write_bytes(data[:key] + b"X" + data[key + 1 :])
    opened = open_videos(file, "test", n_frames=4, **RGB)
    opened.read([0, 2], [3, 3], 4)
    with pytest.raises(ValueError, match=rf"record 1 of .*{file.name} is damaged") as error:
        opened.read([0, 1], [3, 3], 4)
    assert "\n" not in str(error.value)
    file.write_bytes(data)
    opened = open_videos(file, "test", n_frames=4, **RGB)
    os.truncate(file, 2 * record + 5000)
    with pytest.raises(ValueError, match=rf"record 2 of .*{file.name} is damaged .it is cut"):
        opened.read([2], [0], 4)


def test_other_tfrecords_are_refused(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecords")) as out:
        out.write(b"text")
    with pytest.raises(ValueError, match=r"record 0 of .*a\.tfrecords is none of BAIR's"):
        open_videos(tmp_path / "a.tfrecords", "test", n_frames=4, **RGB)
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecords")) as out:
        out.write(bair_example(np.zeros((3, 32, 32, 3), np.uint8)).SerializeToString())
    with pytest.raises(ValueError, match="none of BAIR's"):
        open_videos(tmp_path / "a.tfrecords", "test", n_frames=2, **RGB)
    (tmp_path / "a.tfrecords").write_bytes(b"")
    with pytest.raises(ValueError, match="no records"):
        open_videos(tmp_path / "a.tfrecords", "test", n_frames=2, **RGB)

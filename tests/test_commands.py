"""The commands on folders of clips, KTH and BAIR as they are downloaded, through `main`, at a tiny width."""

import json
import pathlib
import re

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from make_videos import make_bair, make_kth, moving_frames, write_clip

from files import evaluate as evaluation
from files.__main__ import main, sentence
from files.config import Config, Machine
from files.data import make_dataset
from files.evaluate import EvaluateOptions, run_hash
from files.folders import fingerprint
from files.model_svg import SVG
from files.sample import SampleOptions, read_video
from files.train import train

pytestmark = pytest.mark.usefixtures("eagerly")
LOSSLESS = {"codec": "png", "pix_fmt": "rgb24"}
TINY, SHORT, FEW = (
    options.split()
    for options in (
        "--width 4 --g-dim 8 --z-dim 3 --rnn-size 16 --n-past 2 --n-future 2 --backbone dcgan",
        "--batch-size 2 --steps-per-epoch 2 --epochs 1 --val-sequences 3",
        "--n-samples 2 --n-sequences 2 --n-importance 1 --batch-size 1",
    )
)
CLIP_FRAMES = [12, 9, 13, 8, 10, 11, 12, 14, 9, 10]


@pytest.fixture(scope="module")
def frames():
    """Frames [T, 64, 64, 3] of ten clips."""
    return [moving_frames(count, 64, 64, seed=k) for k, count in enumerate(CLIP_FRAMES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, frames):
    """A folder of downloads, which is the working folder of the commands."""
    folder = tmp_path_factory.mktemp("downloads")
    (folder / "clips").mkdir()
    for k, clip in enumerate(frames):
        write_clip(folder / "clips" / f"{k}.avi", clip, **LOSSLESS)
    (folder / "clips" / "notes.pdf").write_bytes(b"no video")
    make_kth(folder / "data" / "kth", [1, 20, 21], 45)
    make_bair(folder / "data" / "bair", train_files=1, records=20)
    return folder


@pytest.fixture(autouse=True)
def working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def checkpoint(folder, lively):
    """A model for clips in colour, of 2 given frames, with weights that show."""
    config = Config(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=2, n_future=3, data="clips", channels=3)
    lively(config).save_weights_to(folder / "checkpoints" / "clips")
    return folder / "checkpoints" / "clips"


# From the download to figures ---------------------------------------------------------------------------------------

SOURCES = {
    "clips": (["--data", "clips", "--channels", "3"], ": videos", (8, 1, 1), [], 2),
    "kth": (["--preset", "kth"], ": KTH actions", (24, 24, 24), [], 30),
    "bair": (["--preset", "bair"], ": BAIR robot pushing", (19, 1, 20), ["--n-future", "5"], 5),
}


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_downloaded_is_prepared_trained_on_evaluated_and_sampled(folder, name, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "VARIANCE_BATCHES", 1)
    options, layout, counts, horizon, future = SOURCES[name]
    main(["prepare", *options])
    out = capsys.readouterr().out
    assert f"{options[1] if name == 'clips' else f'data/{name}'}{layout}\n" in out
    table = [line.split() for line in out.splitlines() if line.startswith(("train ", "val ", "test "))]
    assert [(split, int(videos)) for split, videos, _ in table] == list(
        zip(("train", "val", "test"), counts, strict=True)
    )

    main(["train", "--name", name, *options, *TINY, *SHORT])
    out = capsys.readouterr().out
    assert f"{layout}; train: {counts[0]:,} videos, " in out
    assert "decoding" not in out  # that is done
    for note, of in (("there is no 00sequences.txt", "kth"), ("1 files that are no videos", "clips")):
        assert out.count(note) == (name == of)
    assert pd.read_csv(f"results/{name}/losses.csv")["val_loss"].notna().all()
    assert json.loads(pathlib.Path(f"checkpoints/{name}/config.json").read_text())["data"] in (name, f"data/{name}")

    main(["evaluate", "--checkpoint", f"checkpoints/{name}", *FEW, *horizon])
    out = capsys.readouterr().out
    assert out.count(f"{layout}; test: {counts[2]:,} video") == 1
    metrics = json.loads(pathlib.Path(f"results/{name}/metrics.json").read_text())
    assert metrics["n_future"] == future
    assert f"--n-future {future}" in metrics["command"]
    assert metrics["n_sequences"] == min(counts[2], 2)
    assert np.isfinite(metrics["variance"])

    main(["sample", "--checkpoint", f"checkpoints/{name}", "--n-samples", "2", "--out", f"{name}.npz"])
    assert capsys.readouterr().out.count(layout) == 1
    with np.load(f"{name}.npz") as written:
        assert written["truth"].shape[0] == 4
        assert written["samples"].shape == (2, 2, *written["truth"].shape[1:])


def test_a_run_on_videos_that_was_stopped_ends_as_an_uninterrupted_one(folder, tiny, short):
    config = tiny.replace(data="data/kth", n_past=2, n_future=2)
    short = short.replace(steps_per_epoch=1, val_sequences=2)
    how = dict(machine=Machine(store=str(folder / "store")), checkpoints=folder, results=folder / "r", verbose=0)
    train(config, short.replace(epochs=1), name="stopped", **how)
    resumed = train(config, short, name="stopped", **how)
    expected = train(config, short, name="uninterrupted", **how)
    for a, b in zip(resumed.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert [path.name.rsplit("-", 1)[0] for path in (folder / "store").iterdir()] == ["kth"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare"], "smmnist is made as it is needed"),
        (["prepare", "--data", "nowhere"], r"no dataset or file 'nowhere'; expected one of smmnist.*data/README.md"),
        (["prepare", "--data", "clips", "--frame-step", "0"], "frame_step is 0; expected a whole number in"),
        (["train", "--name", "x", "--data", "clips/0.avi", *TINY], "for 'val'; 4 are needed"),
        (["train", "--name", "x", "--data", "clips", "--n-past", "9", "--channels", "3"], "of 14 frames at most"),
    ],
)
def test_what_cant_be_used_is_told_in_a_sentence(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main(arguments)


def test_damage_that_is_met_in_a_batch_is_told_in_a_sentence(tmp_path):
    make_bair(tmp_path, train_files=1, records=4)
    [file] = (tmp_path / "softmotion30_44k" / "train").iterdir()
    data = bytearray(file.read_bytes())
    key = data.index(b"\x145/image_aux1/encoded", len(data) // 4) + 1  # of frame 5, behind its length, in record 1
    data[key] = ord("X")
    file.write_bytes(data)
    config = Config(data=str(tmp_path), channels=3, n_past=2, n_future=4)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        list(make_dataset(config, "train", batch_size=4, count=100))
    told = rf"record 1 of {file} is damaged \(.*\); download the file again"
    assert re.fullmatch(told, sentence(error.value))
    assert sentence(RuntimeError("another")) is None


# The futures of an own video ----------------------------------------------------------------------------------------


def chosen(data=None, **options):
    """The video of which futures are sampled, by a model of two given frames that predicts three."""
    config = Config(data=data or "clips", channels=3, n_past=2)
    video = read_video(config, SampleOptions(pathlib.Path("checkpoint"), data=data, **options), 3)
    assert video.dtype == np.float32
    return np.round(video * 255).astype(np.uint8)


def test_the_last_frames_of_a_single_video_are_given_or_those_asked_for(frames, capsys):
    clip = frames[0]
    np.testing.assert_array_equal(chosen("clips/0.avi"), clip[-2:])
    assert "clips/0.avi: a video; test: 1 video, 12 frames" in capsys.readouterr().out
    for first, given in ((0, clip[:5]), (5, clip[5:10]), (8, clip[8:]), (-2, clip[-2:]), (-12, clip[:5])):
        np.testing.assert_array_equal(chosen("clips/0.avi", first=first), given)
    for first in (11, -1, -13):
        with pytest.raises(ValueError, match=rf"first is {first}.*expected 0 to 10, or -12 to -2"):
            chosen("clips/0.avi", first=first)


def test_any_video_of_a_folder_can_be_chosen(frames):
    for video in (0, 5, 9):  # not only those of the test, and counted from 0
        np.testing.assert_array_equal(chosen("clips", video=video), frames[video][:5])
    np.testing.assert_array_equal(chosen("clips", video=3, first=-4), frames[3][-4:])
    for video in (10, -1):
        with pytest.raises(ValueError, match=f"video is {video}; there are 10, counted from 0: expected 0 to 9"):
            chosen("clips", video=video)
    np.testing.assert_array_equal(chosen(), frames[9][:5])  # of the model's own data: the test
    with pytest.raises(ValueError, match="first is 3; smmnist is made"):
        read_video(Config(), SampleOptions(pathlib.Path("checkpoint"), first=3), 3)


def test_the_fifth_video_of_an_array():
    videos = np.random.default_rng(0).integers(1, 256, (20, 6, 64, 64, 3), np.uint8)
    np.save("videos.npy", videos)
    np.testing.assert_array_equal(chosen("videos.npy", video=5), videos[5, :5])


def test_a_row_of_truth_is_drawn_where_there_is_one(checkpoint, monkeypatch, frames):
    from files import sample

    drawn, film_strip = [], sample.film_strip
    monkeypatch.setattr(sample, "film_strip", lambda rows, n: drawn.append(rows) or film_strip(rows, n))
    write_clip("given.avi", frames[0][:2], **LOSSLESS)
    for options in (["given.avi"], ["clips/0.avi", "--first", "1"]):
        main(["sample", "--checkpoint", str(checkpoint), "--n-samples", "2", "--out", "x.png", "--data", *options])
    assert [list(rows) for rows in drawn] == [["sample 1", "sample 2"], ["ground truth", "sample 1", "sample 2"]]
    np.testing.assert_allclose(drawn[0]["sample 1"][:2], frames[0][:2] / 255, atol=1e-7)
    write_clip("short.avi", frames[0][:1], **LOSSLESS)
    with pytest.raises(ValueError, match="1 frames at most for 'test'; 2 are needed"):
        main(["sample", "--checkpoint", str(checkpoint), "--data", "short.avi"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-future", "0"], "n_future is 0; expected a whole number from 1 to 1000000"),
        (["--n-future", "-2"], "n_future is -2; expected"),
        (["--n-samples", "0"], "n_samples is 0; expected"),
        (["--data", ""], "--data has no value; expected one, or to leave the option out"),
        (["--store="], "--store has no value"),
    ],
    ids=str,
)
def test_nothing_given_is_not_taken_for_nothing_said(options, message):
    with pytest.raises(ValueError, match=message):
        main(["sample", "--checkpoint", "checkpoints/clips", *options])


def test_samples_have_the_temperature_that_was_asked_for(checkpoint, frames):
    arguments = ["sample", "--checkpoint", str(checkpoint), "--data", "clips/0.avi", "--n-samples", "2", "--seed", "3"]
    main([*arguments, "--temperature", "0.5", "--out", "cool.npz"])
    past = frames[0][None, -2:] / np.float32(255)
    expected = SVG.load(checkpoint).generate(past, 3, 2, seed=3, temperature=0.5)
    with np.load("cool.npz") as written:
        np.testing.assert_allclose(written["samples"], expected[0], atol=1e-5)


# Evaluation ---------------------------------------------------------------------------------------------------------


def test_given_data_is_evaluated_whole_and_only_with_training_data_there_is_a_bound(checkpoint, folder, capsys):
    np.save("own.npy", np.random.default_rng(0).integers(1, 256, (3, 6, 64, 64, 3), np.uint8))
    SVG.load(checkpoint, data="gone").save_weights_to(folder / "checkpoints" / "gone")
    main(["evaluate", "--checkpoint", "checkpoints/gone", "--data", "own.npy", *FEW, "--n-sequences", "9"])
    assert "no bound: the training data gone isn't there" in capsys.readouterr().out
    [written] = pathlib.Path("results/gone").glob("own-*/metrics.json")
    metrics = json.loads(written.read_text())
    assert (metrics["n_sequences"], metrics["n_future"], metrics["variance"]) == (3, 3, None)


def test_moving_mnists_evaluation_predicts_20_frames(tmp_path):
    options = EvaluateOptions(tmp_path)
    assert evaluation.published_future(Config(n_future=3), options) == 20
    assert evaluation.published_future(Config(n_future=3, data="data/bair", channels=3), options) == 28


def test_files_that_change_dont_continue_an_evaluation(tmp_path, frames):
    (tmp_path / "clips").mkdir()
    path, options = tmp_path / "clips" / "a.avi", EvaluateOptions(tmp_path)
    config, hashes = Config(data=str(tmp_path / "clips"), channels=3), []
    for clip in (frames[0], frames[0][:9]):
        write_clip(path, clip, **LOSSLESS)
        hashes.append(run_hash(config, options, "weights"))
        assert run_hash(config, options, "weights") == hashes[-1]
    write_clip(tmp_path / "clips" / "b.avi", frames[1], **LOSSLESS)
    (tmp_path / "clips" / "x.frames").mkdir()
    hashes.append(run_hash(config, options, "weights"))
    (tmp_path / "clips" / "x.frames" / "decoded.npy").write_bytes(b"")  # no file of the data's
    assert run_hash(config, options, "weights") == hashes[-1]
    assert len(set(hashes)) == 3
    assert fingerprint(path) != fingerprint(tmp_path / "clips")

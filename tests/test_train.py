"""Training, resuming and loading, through the command line and the functions behind it."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from files.data import make_dataset
from files.model_svg import SVG
from files.train import check_resumable, compile_model, learning_rate, resume, train

ROOT = pathlib.Path(__file__).parent.parent
EPOCHS, STEPS = 6, 3
RUN = f"""
train --preset smmnist --name run --width 4 --g-dim 8 --z-dim 3 --rnn-size 16 --n-past 2 --n-future 2 --batch-size 2
--steps-per-epoch {STEPS} --epochs {EPOCHS} --val-sequences 2 --beta 1e-3 --decay 0.5 --clip-norm 1
""".split()


def command(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "files", *arguments], cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(folder, *arguments):
    process = command(folder, *arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def final_state(folder):
    """All arrays of a finished run's last training state: weights, batch-norm statistics, Adam's moments, step."""
    reader = tf.train.load_checkpoint(str(folder / f"checkpoints/run/state/step-{EPOCHS * STEPS}"))
    names = [name for name in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in name]
    return {name: reader.get_tensor(name) for name in names}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, output = run(folder, *RUN)
    assert code == 0, output
    return folder


def test_a_killed_run_ends_where_an_uninterrupted_one_does(uninterrupted, tmp_path):
    process = command(tmp_path, *RUN)
    state = tmp_path / "checkpoints/run/state"
    while not (state / f"step-{2 * STEPS}.index").is_file():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (state / f"step-{EPOCHS * STEPS}.index").is_file()

    code, output = run(tmp_path, *RUN)
    assert code == 0, output
    assert "resuming after epoch" in output
    expected, resumed = final_state(uninterrupted), final_state(tmp_path)
    assert len(expected) > 100
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    for log in ("losses.csv", "ssim.csv"):
        logs = [pd.read_csv(folder / "results/run" / log) for folder in (uninterrupted, tmp_path)]
        pd.testing.assert_frame_equal(*logs, rtol=1e-4)
    assert len(pd.read_csv(tmp_path / "results/run/losses.csv")) == EPOCHS


def test_training_leaves_what_it_promises(uninterrupted):
    for path in (
        "checkpoints/run/config.json", "checkpoints/run/model.index", "checkpoints/run/model.data-00000-of-00001",
        "results/run/losses.csv", "results/run/ssim.csv",
    ):  # fmt: skip
        assert (uninterrupted / path).is_file(), path
    states = {path.stem for path in (uninterrupted / "checkpoints/run/state").glob("step-*.index")}
    assert states == {"step-18", "step-15", "step-9-before-decay"}
    assert len(list((uninterrupted / "results/run/tensorboard").rglob("events.*"))) == 3
    ssim = pd.read_csv(uninterrupted / "results/run/ssim.csv")
    assert ssim["frame"].tolist() == [3, 4] * EPOCHS
    assert (ssim["best"] <= 1).all()


def test_load_gives_the_weights_of_the_best_epoch(uninterrupted):
    model = SVG.load(uninterrupted / "checkpoints/run")
    losses = pd.read_csv(uninterrupted / "results/run/losses.csv")
    model.compile()
    found = model.evaluate(make_dataset(model.config, "val", count=2), verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], losses["val_loss"].min(), rtol=1e-4)


def test_sampling_from_the_command_line(uninterrupted, tmp_path):
    arguments = ["sample", "--checkpoint", str(uninterrupted / "checkpoints/run"), "--n-samples", "2", "--seed", "1"]
    code, output = run(tmp_path, *arguments, "--out", "figs/x.npz", "--n-future", "5")
    assert code == 0, output
    with np.load(tmp_path / "figs/x.npz") as stored:
        model = SVG.load(uninterrupted / "checkpoints/run")
        expected = model.generate(stored["truth"][None, :2], 5, 2, seed=1)
        np.testing.assert_allclose(stored["samples"], expected[0], atol=1e-5)
    code, output = run(tmp_path, *arguments, "--out", "figs/x.mp4")
    assert code != 0
    assert "error: can't write figs/x.mp4; expected" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--preset", "mnist", "--name", "x"], "error: unknown preset 'mnist'; there are smmnist"),
        (["train", "--name", "x", "--n-past", "0"], "n_past is 0"),
        (["train", "--name", "x", "--data", "no.npz"], "error: no dataset or file 'no.npz'"),
        (["sample", "--checkpoint", "nowhere"], "error: nowhere is no checkpoint"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, arguments, message):
    code, output = run(tmp_path, *arguments)
    assert code != 0
    assert message in output
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())  # nothing half written


# Damaged and foreign checkpoints ------------------------------------------------------------------------------------


@pytest.fixture
def trained(tiny, tmp_path):
    """A finished run of two epochs in a folder of its own, and its configuration."""
    train(tiny, "run", tmp_path, tmp_path / "results", verbose=0)
    return tmp_path, tiny


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def test_a_truncated_state_falls_back_to_the_one_before(trained):
    folder, config = trained
    cut(folder / "run/state/step-6.data-00000-of-00001")
    with pytest.warns(UserWarning, match=r"step-6.*falling back"):
        model = train(config, "run", folder, folder / "results", verbose=0)
    assert int(model.optimizer.iterations) == 6
    assert pd.read_csv(folder / "results/losses.csv")["epoch"].tolist() == [0, 1]

    cut(folder / "run/model.data-00000-of-00001")
    with pytest.warns(UserWarning, match="loaded step-6, because of model"):
        loaded = SVG.load(folder / "run")
    for a, b in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)

    for path in (folder / "run/state").glob("step-*.data*"):
        cut(path)
    with pytest.raises(ValueError, match=r"no usable checkpoint .*model.*step-6.*step-3"):
        SVG.load(folder / "run")
    with pytest.warns(UserWarning, match="falling back"), pytest.raises(ValueError, match="no usable training state"):
        train(config, "run", folder, folder / "results", verbose=0)


def test_resuming_from_an_earlier_state_removes_the_later_ones(trained):
    folder, config = trained
    model = SVG(config)
    compile_model(model)
    state = tf.train.Checkpoint(**model.nets, optimizer=model.optimizer, best=tf.Variable(0.0))
    resume(folder / "run", state, last_step=3)
    assert int(model.optimizer.iterations) == 3
    assert {path.name for path in (folder / "run/state").glob("step-*")} == {
        "step-3.index", "step-3.data-00000-of-00001",
    }  # fmt: skip


def test_a_folder_of_another_kind_is_refused(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        SVG.load(tmp_path / "nothing")
    model = SVG(tiny)
    model.save_weights_to(tmp_path / "x")
    with pytest.raises(ValueError, match=r"no usable checkpoint.*'width': 8"):
        SVG.load(tmp_path / "x", width=8)
    with pytest.raises(ValueError, match=r"other settings \(width 4 -> 8\)"):
        check_resumable(tmp_path / "x", tiny.replace(width=8))
    with pytest.raises(ValueError, match="no training state"):
        check_resumable(tmp_path / "x", tiny.replace(epochs=9))
    assert check_resumable(tmp_path / "y", tiny) == tiny.epochs


@pytest.mark.parametrize("settings", [{}, {"backbone": "vgg"}, {"prior": "fixed"}, {"prior": "none"}], ids=str)
def test_load_restores_every_array_and_takes_overrides(tiny, tmp_path, settings):
    model = SVG(tiny.replace(**settings))
    values = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(values.uniform(0.5, 1.5, variable.shape))
    model.save_weights_to(tmp_path / "x")
    loaded = SVG.load(tmp_path / "x", last_frame_skip=True)
    assert loaded.config == tiny.replace(last_frame_skip=True, **settings)
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_loss_that_is_no_number_ends_training_before_anything_is_saved(tiny, tmp_path):
    with pytest.raises(FloatingPointError, match=r"learning_rate.*clip_norm"):
        train(tiny.replace(learning_rate=1e30), "run", tmp_path, tmp_path / "results", verbose=0)
    assert not list(tmp_path.glob("run/state/step-*"))


@pytest.mark.parametrize(
    ("decay", "rates"), [(0.0, [4, 4, 4, 4, 4]), (0.6, [4, 4, 3, 2, 1]), (1.0, [20 / 6, 16 / 6, 2, 8 / 6, 4 / 6])]
)
def test_learning_rate_is_constant_then_falls_linearly(tiny, decay, rates):
    config = tiny.replace(learning_rate=4.0, epochs=5, decay=decay)
    assert [learning_rate(config, epoch) for epoch in range(5)] == pytest.approx(rates)


def test_clipping_is_that_configured(tiny):
    for clip_norm in (None, 0.5):
        model = SVG(tiny.replace(clip_norm=clip_norm))
        compile_model(model)
        assert model.optimizer.global_clipnorm == clip_norm


def test_a_run_made_longer_ends_where_a_run_of_that_length_does(tiny, tmp_path):
    short, long = tiny.replace(epochs=2, decay=0.5), tiny.replace(epochs=4, decay=0.5)
    train(short, "run", tmp_path, tmp_path / "results", verbose=0)
    lengthened = train(long, "run", tmp_path, tmp_path / "results", verbose=0)
    expected = train(long, "direct", tmp_path, tmp_path / "direct_results", verbose=0)
    for a, b in zip(lengthened.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    logs = [pd.read_csv(folder / "losses.csv") for folder in (tmp_path / "results", tmp_path / "direct_results")]
    pd.testing.assert_frame_equal(*logs, rtol=1e-4)
    np.testing.assert_allclose(logs[0]["learning_rate"], 2e-3 * np.array([1, 1, 2 / 3, 1 / 3]), rtol=1e-5)
    with pytest.raises(ValueError, match=r"no usable training state.*its learning rates were others after step 0"):
        train(long.replace(decay=1.0), "run", tmp_path, tmp_path / "results", verbose=0)

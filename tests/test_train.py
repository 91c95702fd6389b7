"""Training, resuming and loading, through the command line and the functions behind it."""

import contextlib
import io
import json
import pathlib
import re
import runpy
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from IPython.core.interactiveshell import InteractiveShell

from files.callbacks import Stopped
from files.config import Machine, Recipe
from files.data import make_dataset
from files.durable import only_process
from files.model_svg import SVG, draw_each
from files.scheduled_sampling import ScheduledSamplingSVG
from files.state import state_step, training_states
from files.train import build_model, train

ROOT = pathlib.Path(__file__).parent.parent
EPOCHS, STEPS = 4, 3
RUN = f"""
train --preset smmnist --name run --width 4 --g-dim 8 --z-dim 3 --rnn-size 16 --n-past 2 --n-future 2 --batch-size 2
--steps-per-epoch {STEPS} --epochs {EPOCHS} --val-sequences 3 --beta 1e-3 --decay 0.5 --clip-norm 1
""".split()


def command(folder, *arguments):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "files", *arguments], cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(folder, *arguments):
    """The command in this process, in which TensorFlow has been imported: exit code and output."""
    output, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["files", *arguments])
        try:
            runpy.run_module("files", run_name="__main__")
        except SystemExit as stop:
            code = stop.code
    return code, f"{output.getvalue()}\n{code}"  # a text is printed by Python


def final_state(folder):
    """All arrays of a finished run's last training state: weights, batch-norm statistics, Adam's moments, step."""
    reader = tf.train.load_checkpoint(str(folder / f"checkpoints/run/state/step-{EPOCHS * STEPS}"))
    names = [name for name in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in name]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_end(folder, other):
    """Weights, optimizer and logs are those of the other run."""
    expected, resumed = final_state(other), final_state(folder)
    assert len(expected) > 100
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    for log in ("losses.csv", "ssim.csv"):
        logs = [pd.read_csv(path / "results/run" / log) for path in (other, folder)]
        pd.testing.assert_frame_equal(*logs, rtol=1e-4)
    assert pd.read_csv(folder / "results/run/losses.csv")["epoch"].tolist() == list(range(EPOCHS))


def wait_for(process, condition):
    """Until the condition holds; the process must be running all the time."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, output = run(folder, *RUN)
    assert code == 0, output
    assert re.search(r"on CPU: .+ \(\d+ cores\); 1 replica, float32, without XLA", output)
    return folder


def last_step(folder):
    return max(map(state_step, training_states(folder / "checkpoints/run")), default=0)


def test_a_run_that_is_killed_and_stopped_ends_where_an_uninterrupted_one_does(uninterrupted, tmp_path):
    arguments = [*RUN, "--save-minutes", "1e-9"]  # after every step
    for how, code, step in ((signal.SIGKILL, -9, 1), (signal.SIGTERM, 130, 5)):
        process = command(tmp_path, *arguments)
        wait_for(process, lambda step=step: last_step(tmp_path) >= step)
        process.send_signal(how)
        output, _ = process.communicate()
        assert process.returncode == code
        assert ("resuming after epoch" in output) == (how != signal.SIGKILL)
        last = training_states(tmp_path / "checkpoints/run")[0]
        assert step <= state_step(last) < EPOCHS * STEPS
        if how != signal.SIGKILL:
            assert f"stopped by {how.name} after epoch" in output
            assert f"saved in {last.relative_to(tmp_path)}. The same command" in output
            assert "python -m files train --preset smmnist --name run --width 4" in output
            assert "Traceback" not in output

    returned, output = run(tmp_path, *arguments)
    assert returned == 0, output
    assert "resuming after epoch" in output
    assert_same_end(tmp_path, uninterrupted)


def test_a_finished_run_says_so_and_stays_as_it_is(uninterrupted):
    before = final_state(uninterrupted)
    code, output = run(uninterrupted, *RUN)
    assert code == 0, output
    assert f"finished, nothing left to train: raise epochs above {EPOCHS} or choose another name" in output
    assert all(np.array_equal(value, before[name]) for name, value in final_state(uninterrupted).items())


def test_training_leaves_what_it_promises(uninterrupted):
    for path in (
        "checkpoints/run/config.json", "checkpoints/run/recipe.json", "checkpoints/run/model.index",
        "checkpoints/run/model.data-00000-of-00001", "results/run/losses.csv", "results/run/ssim.csv",
    ):  # fmt: skip
        assert (uninterrupted / path).is_file(), path
    states = {path.stem for path in (uninterrupted / "checkpoints/run/state").glob("step-*.index")}
    assert states == {"step-12", "step-9", "step-6-before-decay"}
    assert len(list((uninterrupted / "results/run/tensorboard").rglob("events.*"))) == 3
    ssim = pd.read_csv(uninterrupted / "results/run/ssim.csv")
    assert ssim["frame"].tolist() == [3, 4] * EPOCHS
    assert (ssim["best"] <= 1).all()
    assert "precision" not in json.loads((uninterrupted / "checkpoints/run/config.json").read_text())
    assert Recipe.load(uninterrupted / "checkpoints/run/recipe.json").epochs == EPOCHS


def test_load_gives_the_weights_of_the_best_epoch(uninterrupted):
    model = SVG.load(uninterrupted / "checkpoints/run")
    losses = pd.read_csv(uninterrupted / "results/run/losses.csv")
    model.compile()
    held_out = make_dataset(model.config, "val", batch_size=1, count=3, indices=True)  # in other batches than training
    found = model.evaluate(held_out, verbose=0, return_dict=True)
    best = losses.loc[losses["val_loss"].idxmin()]
    for name in ("loss", "mse", "kld"):  # the noise depends on a sequence's index alone, and sequences count the same
        np.testing.assert_allclose(found[name], best[f"val_{name}"], rtol=1e-4)


def test_sampling_from_the_command_line(uninterrupted, tmp_path, eagerly):
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
    code, output = run(tmp_path, *arguments, "--video", "5000")
    assert code != 0
    assert "error: video is 5000; there are 5000, counted from 0: expected 0 to 4999" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--preset", "mnist", "--name", "x"], "error: unknown preset 'mnist'; there are smmnist"),
        (["train", "--name", "x", "--n-past", "0"], "n_past is 0"),
        (["train", "--name", "x", "--data", "no.npz"], "error: no dataset or file 'no.npz'"),
        (["train", "--name", "../x"], "error: '../x' is no name for a run"),
        (["train", "--name", "x", "--steps-per-execution", "7"], "7; expected a divisor of steps_per_epoch, 600"),
        (["sample", "--checkpoint", "nowhere"], "error: nowhere is no checkpoint"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, arguments, message):
    code, output = run(tmp_path, *arguments)
    assert code != 0
    assert message in output
    assert not list(tmp_path.iterdir())  # nothing half written


FAKE_GPU = """
import sys
from tensorflow.python.eager import context

sys.path.insert(0, sys.argv[1])
import files
found = context.context()
found._initialize_physical_devices()
found._physical_devices.append(context.PhysicalDevice("/physical_device:GPU:0", "GPU"))
import tensorflow as tf
assert tf.config.list_physical_devices("GPU")
tf.config.run_functions_eagerly(True)
tf.zeros([1]).numpy()  # initialises the devices, as a notebook does before it trains
from files.config import Config, Recipe
from files.train import train

config = Config(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=2, n_future=2)
train(config, Recipe(batch_size=2, steps_per_epoch=1, epochs=1, val_sequences=2), name="run", verbose=2)
"""


def test_training_starts_where_there_is_a_gpu(tmp_path):
    """A device that TensorFlow has found, but that isn't there, is enough to fail whoever sets it up too late."""
    command = [sys.executable, "-c", FAKE_GPU, str(ROOT)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert "on GPU: " in process.stdout
    assert "faster with jit_compile" in process.stdout
    assert (tmp_path / "checkpoints/run/model.index").is_file()


# Within this process ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny):
    """Fewer frames: without graphs each of them takes its time."""
    return tiny.replace(n_past=2, n_future=2)


@pytest.fixture(scope="module")
def short(short):
    return short.replace(val_sequences=2)


@pytest.fixture
def training(tiny, short, tmp_path, eagerly):
    """A function that trains, and its folder: other settings than those of `tiny` and `short` as keywords."""

    def run(name="run", config=tiny, machine=None, **recipe):
        return train(config, short.replace(**recipe), machine, name, tmp_path, tmp_path / "results", verbose=0)

    return run, tmp_path


def epochs_logged(folder, name="run"):
    return pd.read_csv(folder / "results" / name / "losses.csv")["epoch"].tolist()


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def test_a_truncated_state_falls_back_to_the_one_before(training):
    run, folder = training
    run()
    cut(folder / "run/state/step-6.data-00000-of-00001")
    with pytest.warns(UserWarning, match=r"step-6.*falling back"):
        model = run()
    assert int(model.optimizer.iterations) == 6
    assert epochs_logged(folder) == [0, 1]

    cut(folder / "run/model.data-00000-of-00001")
    with pytest.warns(UserWarning, match="loaded step-6, because of model"):
        loaded = SVG.load(folder / "run")
    for a, b in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)

    for path in (folder / "run/state").glob("step-*.data*"):
        cut(path)
    with pytest.raises(ValueError, match=r"no usable checkpoint .*model.*step-6.*step-3"):
        SVG.load(folder / "run")
    with pytest.warns(UserWarning, match=r"beginning anew; what there was, .* is kept in \S+kept-1"):
        anew = run()
    for a, b in zip(anew.weights, model.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert epochs_logged(folder) == [0, 1]


def test_a_folder_of_another_kind_is_refused(tiny, training):
    run, folder = training
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        SVG.load(folder / "nothing")
    SVG(tiny).save_weights_to(folder / "run")
    with pytest.raises(ValueError, match=r"no usable checkpoint.*'width': 8"):
        SVG.load(folder / "run", width=8)
    with pytest.raises(ValueError, match=r"no training state.*--start-from \S+run to begin with its weights"):
        run()


def test_other_settings_are_refused_with_the_options_that_go_on(tiny, training):
    run, _ = training
    run()
    message = (
        r"other settings: width 4 -> 8, batch_size 2 -> 4\. "
        r"Go on with its own by --width 4 --batch-size 2, or begin another run by another --name"
    )
    with pytest.raises(ValueError, match=message):
        run(config=tiny.replace(width=8), batch_size=4, learning_rate=1e-3)


def test_other_settings_within_the_first_epoch_begin_anew(training, capsys):
    """Nobody wants to go on with what a mistake has begun; an epoch that was finished is worth a question."""
    run, folder = training
    stop_after(1, run)
    assert [path.name for path in training_states(folder / "run")] == ["step-1"]
    model = run(batch_size=3, epochs=1)
    assert "beginning anew, because the 1 steps so far had other settings" in capsys.readouterr().out
    expected = run("direct", batch_size=3, epochs=1)
    for a, b in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@contextlib.contextmanager
def press_in_step(steps):
    """Presses Ctrl-C in the step of that number."""

    class Press(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch + 1 == steps:
                signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("files.train.StopOnNaN", Press)
        yield


def stop_after(steps, run):
    """Presses Ctrl-C in the step of that number; `run` trains."""
    with press_in_step(steps), pytest.raises(Stopped) as stopped:
        run()
    return stopped.value


def test_ctrl_c_ends_the_command_as_it_does_others(tmp_path, eagerly):
    with press_in_step(2):
        code, output = run(tmp_path, *RUN)
    assert code == 130
    assert "stopped by SIGINT after epoch 0 and 2 steps; saved in checkpoints/run/state/step-2. The same" in output
    assert last_step(tmp_path) == 2


def test_a_notebook_shows_one_line_when_it_is_stopped(training, capsys):
    run, _ = training
    stopped = stop_after(2, run)
    shell = InteractiveShell.instance()
    shell.user_ns["stopped"] = stopped
    shell.run_cell("raise stopped")
    shown = capsys.readouterr()
    assert f"{stopped}\n" in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err
    assert re.fullmatch(r"stopped by SIGINT after epoch 0 and 2 steps; saved in \S+step-2\. The same.*", str(stopped))


@pytest.mark.parametrize("settings", [{}, {"backbone": "vgg"}, {"prior": "fixed"}, {"prior": "none"}], ids=str)
def test_load_restores_every_array_and_takes_overrides(tiny, tmp_path, settings):
    model = SVG(tiny.replace(**settings), "mixed_bfloat16")
    values = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(values.uniform(0.5, 1.5, variable.shape))
    model.save_weights_to(tmp_path / "x")
    loaded = SVG.load(tmp_path / "x", last_frame_skip=True)
    assert loaded.config == tiny.replace(last_frame_skip=True, **settings)
    assert loaded.encoder.compute_dtype == "float32"
    assert SVG.load(tmp_path / "x", "mixed_bfloat16").encoder.compute_dtype == "bfloat16"
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_scheduled_sampling_run_loads_as_a_model_of_the_papers_loss(
    tiny, short, lively, tmp_path, random_video, eagerly
):
    lively(tiny).save_weights_to(tmp_path / "start")
    recipe = short.replace(teacher_forcing=0.0, start_from=str(tmp_path / "start"), epochs=1)
    trained = train(tiny, recipe, None, "own", tmp_path, tmp_path / "results", verbose=0)
    assert isinstance(trained, ScheduledSamplingSVG)
    loaded = SVG.load(tmp_path / "own")
    assert type(loaded) is SVG
    video = random_video(2, 6, 64, 64, 1)
    error = np.square(loaded.reconstruct(video) - video[:, 1:]).mean((0, 2, 3, 4)).sum()
    np.testing.assert_allclose(loaded(video)["mse"], error, rtol=1e-5)
    assert np.abs(trained(video)["x_pred"] - loaded(video)["x_pred"]).max() > 1e-5


def test_a_loss_that_is_no_number_ends_training_before_anything_is_saved(training):
    run, folder = training
    with pytest.raises(FloatingPointError, match=r"learning_rate.*clip_norm.*same name"):
        run(learning_rate=1e30)
    assert not training_states(folder / "run")
    run(batch_size=3)  # nothing was trained: whatever is corrected holds
    assert epochs_logged(folder) == [0, 1]


def test_weights_that_are_no_numbers_are_never_saved_and_a_lower_rate_goes_on(training, monkeypatch):
    """The last step of an epoch breaks the weights: its loss, computed before, is still a number."""
    run, folder = training
    run(epochs=1)
    original = keras.optimizers.Adam.apply

    def break_weights(self, gradients, trainable_variables=None):
        original(self, gradients, trainable_variables)
        trainable_variables[0].assign(
            tf.where(tf.equal(self.iterations, 6), np.float32("nan"), 1.0) * trainable_variables[0]
        )

    monkeypatch.setattr(keras.optimizers.Adam, "apply", break_weights)
    with pytest.raises(FloatingPointError, match=r"after step 6 .* learning_rate"):
        run()
    monkeypatch.undo()
    assert [path.name for path in training_states(folder / "run")] == ["step-3"]
    model = run(learning_rate=1e-4)
    assert all(np.isfinite(variable).all() for variable in model.variables)
    assert pd.read_csv(folder / "results/run/losses.csv")["learning_rate"].tolist() == pytest.approx([2e-3, 1e-4])


def test_skipped_steps_of_loss_scaling_count(training, monkeypatch):
    """With float16 the first steps may be skipped for too large a scale; an epoch has its steps all the same."""
    monkeypatch.setattr(keras.optimizers.LossScaleOptimizer, "__init__", scaled_too_much(monkeypatch))
    run, folder = training
    half = Machine(precision="mixed_float16")
    skipped = int(run(machine=half, epochs=1).optimizer.iterations)
    model = run(machine=half)
    assert skipped < 3  # what is tested happened
    assert int(model.optimizer.iterations) < 6
    assert epochs_logged(folder) == [0, 1]
    assert [path.name for path in training_states(folder / "run")] == ["step-6", "step-3"]
    uninterrupted = run("direct", machine=half)
    assert float(model.optimizer.dynamic_scale) == float(uninterrupted.optimizer.dynamic_scale)
    for a, b in zip(model.weights, uninterrupted.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert epochs_logged(folder, "direct") == [0, 1]
    run(epochs=3)  # in float32: the precision is the machine's, not the run's
    assert epochs_logged(folder) == [0, 1, 2]


def scaled_too_much(monkeypatch):
    original = keras.optimizers.LossScaleOptimizer.__init__
    return lambda self, *args, **kwargs: original(self, *args, **{**kwargs, "initial_scale": 2.0**36})


def test_steps_per_execution_divides_an_epoch_and_changes_nothing_else(training):
    run, _ = training
    settings = dict(steps_per_epoch=4)
    with pytest.raises(ValueError, match="steps_per_execution is 3; expected a divisor of steps_per_epoch, 4"):
        run(machine=Machine(steps_per_execution=3), **settings)
    run(machine=Machine(steps_per_execution=2), epochs=1, **settings)
    model = run(machine=Machine(steps_per_execution=4), **settings)
    expected = run("one", **settings)
    assert int(model.optimizer.iterations) == 8
    for a, b in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_log_of_a_model_without_a_latent_keeps_its_rows(tiny, training):
    run, folder = training
    run(config=tiny.replace(prior="none"), epochs=1)
    run(config=tiny.replace(prior="none"))
    assert epochs_logged(folder) == [0, 1]


def test_two_names_have_logs_of_their_own(training):
    run, folder = training
    run("a", epochs=1)
    run("b", epochs=2)
    run("a", epochs=1)
    assert (epochs_logged(folder, "a"), epochs_logged(folder, "b")) == ([0], [0, 1])


def test_a_run_that_another_process_trains_is_refused(training):
    run, folder = training
    with only_process(folder / "run/state/lock", "training"), pytest.raises(ValueError, match="another process is"):
        run()
    run(epochs=1)
    assert epochs_logged(folder) == [0]


@pytest.mark.parametrize(
    ("decay", "rates"), [(0.0, [4, 4, 4, 4, 4]), (0.6, [4, 4, 3, 2, 1]), (1.0, [20 / 6, 16 / 6, 2, 8 / 6, 4 / 6])]
)
def test_learning_rate_is_constant_then_falls_linearly(decay, rates):
    recipe = Recipe(learning_rate=4.0, epochs=5, decay=decay)
    assert [recipe.learning_rate_in(epoch) for epoch in range(5)] == pytest.approx(rates)


def test_clipping_is_that_configured(tiny):
    for clip_norm in (None, 0.5):
        assert build_model(tiny, Recipe(clip_norm=clip_norm), Machine()).optimizer.global_clipnorm == clip_norm


def test_a_run_made_longer_ends_where_a_run_of_that_length_does(training, capsys):
    run, folder = training
    run(epochs=2, decay=0.5)
    lengthened = run(epochs=4, decay=0.5)
    expected = run("direct", epochs=4, decay=0.5)
    for a, b in zip(lengthened.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    logs = [pd.read_csv(folder / "results" / name / "losses.csv") for name in ("run", "direct")]
    pd.testing.assert_frame_equal(*logs, rtol=1e-4)
    np.testing.assert_allclose(logs[0]["learning_rate"], 2e-3 * np.array([1, 1, 2 / 3, 1 / 3]), rtol=1e-5)


def test_epochs_can_be_changed_whatever_the_learning_rates_were(training, capsys):
    """Preset `quick` decays from the start, so that no epoch of a shorter run has the rate of a longer one."""
    run, folder = training
    run(epochs=1, decay=1.0)
    run(epochs=3, decay=1.0)
    assert epochs_logged(folder) == [0, 1, 2]
    rates = 2e-3 * np.array([1 / 2, 2 / 4, 1 / 4])
    np.testing.assert_allclose(pd.read_csv(folder / "results/run/losses.csv")["learning_rate"], rates, rtol=1e-5)
    output = capsys.readouterr().out
    assert "going on with epochs 1 -> 3" in output
    assert "other learning rates than a run with these settings" in output
    run(epochs=2, decay=1.0)
    assert "finished, nothing left to train: raise epochs above 3" in capsys.readouterr().out
    assert epochs_logged(folder) == [0, 1, 2]


# Several devices ----------------------------------------------------------------------------------------------------


def test_a_batch_that_devices_dont_share_evenly_is_refused(training, two_devices, monkeypatch):
    monkeypatch.setattr("files.train.device_strategy", lambda: two_devices)
    run, folder = training
    with pytest.raises(ValueError, match="batch_size is 3; 2 devices share it evenly: take 2 or 4"):
        run(batch_size=3)
    assert not (folder / "run").exists()


def test_two_devices_log_and_resume_as_one_does(training, two_devices, monkeypatch):
    """Of 5 held-out sequences in batches of 2, one device gets none of the last batch."""
    run, folder = training
    alone = run("alone", epochs=1, val_sequences=5, learning_rate=1e-9)
    monkeypatch.setattr("files.train.device_strategy", lambda: two_devices)
    both = run("both", epochs=1, val_sequences=5, learning_rate=1e-9)
    logs = [pd.read_csv(folder / "results" / name / "losses.csv").iloc[0] for name in ("alone", "both")]
    for name in ("val_loss", "val_mse", "val_kld", "val_prior_sigma"):
        # Batch norm's statistics differ a little.
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=0.05, err_msg=name)
    assert len(alone.weights) == len(both.weights)
    run("both", epochs=2, val_sequences=5, learning_rate=1e-9)
    assert epochs_logged(folder, "both") == [0, 1]


def test_held_out_noise_is_a_function_of_the_index():
    whole = draw_each(tf.random.stateless_normal, [4, 3], tf.range(6), -1).numpy()
    np.testing.assert_array_equal(whole[2:4], draw_each(tf.random.stateless_normal, [4, 3], tf.range(2, 4), -1))
    assert len(np.unique(whole)) == whole.size


def test_a_run_shows_a_line_per_epoch_and_a_bar_to_its_end(tiny, short, tmp_path, capsys, eagerly):
    train(tiny, short, None, "run", tmp_path, tmp_path / "results")
    shown = capsys.readouterr()
    logged = pd.read_csv(tmp_path / "results" / "run" / "losses.csv")
    for epoch, row in enumerate(logged.itertuples(), 1):
        figures = ", ".join(f"{name} {getattr(row, name):.3g}" for name in ("loss", "mse", "kld", "val_ssim"))
        assert f"epoch {epoch} of 2: {figures}\n" in shown.out
    assert re.search(r"epoch 2 of 2 100% \|.*\| 00:00 left", shown.out)
    assert "jit_compile" not in shown.out  # nothing to advise on a CPU
    train(tiny, short.replace(epochs=3), None, "run", tmp_path, tmp_path / "results", verbose=False)
    assert "epoch 3 of 3" not in capsys.readouterr().out

"""Whatever ends a training, and at whatever point: it goes on from a whole state, and logs follow the state.

That a run which goes on from its states ends where an uninterrupted one does is shown in test_train.py; here every
state of the folder in which a kill, a power failure or a full disk may leave it is looked at.
"""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from files import evaluate as evaluation
from files.config import Machine
from files.evaluate import EvaluateOptions
from files.model_svg import SVG
from files.resume import resume
from files.state import Progress, TrainingState, state_step, training_states
from files.train import build_model, train

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")  # Python's audit events
STEPS, EPOCHS = 2, 3


@pytest.fixture(scope="module")
def recipe(short):
    return short.replace(steps_per_epoch=STEPS, epochs=EPOCHS, decay=0.4)  # its state before the decay is kept, too


class Snapshots:
    """Copies of a folder before each file operation of this process in it: what a kill at that point leaves.

    Those that have changed nothing leave no other copy than the one before.
    """

    def __init__(self, watched: pathlib.Path, kept: pathlib.Path):
        self.watched, self.kept, self.operations, self.active = watched, kept, [], False
        self.content = None
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if not self.active or event not in OPERATIONS:
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(str(self.watched)):
            return
        self.active = False  # the copy has file operations of its own
        self.operations.append(f"{event} {pathlib.Path(path).relative_to(self.watched)}")
        content = {file: file.read_bytes() for file in self.watched.rglob("*") if file.is_file()}
        if content != self.content:
            shutil.copytree(self.watched, self.kept / f"{len(self.operations):04d}")
        self.content, self.active = content, True


@pytest.fixture(scope="module")
def killed(tiny, recipe, tmp_path_factory):
    """An uninterrupted run, and what a kill at each of its file operations would have left."""
    folder = tmp_path_factory.mktemp("watched")
    snapshots = Snapshots(folder, tmp_path_factory.mktemp("snapshots"))
    tf.config.run_functions_eagerly(True)
    machine = Machine(save_minutes=1e-9)  # a state after every step
    snapshots.active = True
    train(tiny, recipe, machine, "run", folder / "checkpoints", folder / "results", verbose=0)
    snapshots.active = False
    tf.config.run_functions_eagerly(False)
    return folder, snapshots


@pytest.fixture(scope="module")
def model(tiny, recipe):
    return build_model(tiny, recipe, Machine())


def resumed(model, folder, recipe) -> Progress:
    """How far a resume comes, and the weights that it reads are in `model`."""
    state = TrainingState(folder / "checkpoints/run/state", model, new_progress(model, recipe))
    (folder / "results/run").mkdir(parents=True, exist_ok=True)
    resume(folder / "checkpoints/run", state, recipe, folder / "results/run")
    state.progress.write_logs(folder / "results/run")
    return state.progress


def new_progress(model, recipe) -> Progress:
    return Progress(vars(model.config), vars(recipe))


def weights_after(model, folder, recipe) -> dict[int, list[np.ndarray]]:
    """The weights of each step of the uninterrupted run, read from the snapshots."""
    found = {}
    for snapshot in sorted(folder.iterdir()):
        for prefix in training_states(snapshot / "checkpoints/run"):
            step = int(prefix.name.split("-")[1])
            if step not in found:
                state = TrainingState(prefix.parent, model, new_progress(model, recipe))
                state.read(prefix)
                found[step] = [weight.numpy() for weight in model.weights]
    return found


def assert_goes_on(model, folder, recipe, expected, logs, at_least):
    """A resume finds a whole state of at least so many steps, its weights, and the logs that go with it."""
    progress = resumed(model, folder, recipe)
    assert progress.steps >= at_least
    if progress.steps:
        for weight, value in zip(model.weights, expected[progress.steps], strict=True):
            np.testing.assert_array_equal(weight, value)
    for name, log in logs.items():
        if progress.epoch:
            kept = log[log["epoch"] < progress.epoch]
            pd.testing.assert_frame_equal(pd.read_csv(folder / "results/run" / name), kept.reset_index(drop=True))
    if progress.epoch:  # the weights to load are those of the best epoch so far
        files = ("config.json", "model.index", "model.data-00000-of-00001")
        content = tuple((folder / "checkpoints/run" / file).read_bytes() for file in files)
        for weight, value in zip(loaded_weights(content, folder), expected[progress.best_epoch * STEPS], strict=True):
            np.testing.assert_array_equal(weight, value)
    return progress


LOADED = {}  # what has been loaded, by the content of the files: most snapshots hold the same


def loaded_weights(content: tuple[bytes, ...], folder: pathlib.Path) -> list[np.ndarray]:
    if content not in LOADED:
        LOADED[content] = [weight.numpy() for weight in SVG.load(folder / "checkpoints/run").weights]
    return LOADED[content]


@pytest.fixture(scope="module")
def expected(model, killed, recipe):
    folder, snapshots = killed
    logs = {name: pd.read_csv(folder / "results/run" / name) for name in ("losses.csv", "ssim.csv")}
    return weights_after(model, snapshots.kept, recipe), logs


def test_every_file_operation_is_a_safe_place_to_be_killed(model, killed, expected, recipe):
    _, snapshots = killed
    newest, last = 0, 0
    assert len(snapshots.operations) > 100
    for snapshot in sorted(snapshots.kept.iterdir()):
        states = training_states(snapshot / "checkpoints/run")
        newest = max([newest, *(int(prefix.name.split("-")[1]) for prefix in states)])  # never lost again
        last = assert_goes_on(model, snapshot, recipe, *expected, at_least=newest).steps
    assert newest == last == STEPS * EPOCHS


def damages(path: pathlib.Path) -> dict[str, callable]:
    return {
        "missing": path.unlink,
        "empty": lambda: path.write_bytes(b""),
        "cut": lambda: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "zeros": lambda: path.write_bytes(bytes(path.stat().st_size)),
    }


def test_any_one_file_may_be_damaged_by_a_power_failure(model, killed, expected, recipe, tmp_path):
    folder, _ = killed
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "events" not in path.name]
    assert len(files) >= 12
    for file in files:
        for damage in ("missing", "empty", "cut", "zeros"):
            shutil.copytree(folder, tmp_path / "run")
            damages(tmp_path / "run" / file)[damage]()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                progress = resumed(model, tmp_path / "run", recipe)
            assert progress.steps >= STEPS * EPOCHS - 1, (file, damage)
            for weight, value in zip(model.weights, expected[0][progress.steps], strict=True):
                np.testing.assert_array_equal(weight, value)
            for name, log in expected[1].items():
                kept = log[log["epoch"] < progress.epoch].reset_index(drop=True)
                pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run/results/run" / name), kept)
            shutil.rmtree(tmp_path / "run")


def written_last(folder: pathlib.Path, operations: list[str]) -> list[str]:
    """The files of the finished run, newest first: each was written aside and renamed."""
    written = [words.removeprefix("os.rename ").replace(".writing-", "") for words in operations]
    return [file for file in dict.fromkeys(reversed(written)) if (folder / file).is_file()]


def whole_states(folder: pathlib.Path, damaged: list[str]) -> list[int]:
    """The steps of the states that have none of the damaged files."""
    states = training_states(folder / "checkpoints/run")
    return [state_step(state) for state in states if not any(f"{state.name}." in file for file in damaged)]


@pytest.mark.filterwarnings("ignore")
def test_the_newest_files_may_be_damaged_together(model, killed, expected, recipe, tmp_path):
    """However many: training goes on from the newest state that is whole, or anew."""
    folder, snapshots = killed
    newest = written_last(folder, snapshots.operations)
    assert len(newest) >= 12
    steps = []
    for count in range(2, len(newest) + 1):
        for damage in ("missing", "empty", "cut", "zeros"):
            copy = tmp_path / f"{count}-{damage}"
            shutil.copytree(folder, copy)
            for file in newest[:count]:
                damages(copy / file)[damage]()
            before = [weight.numpy() for weight in model.weights]
            progress = resumed(model, copy, recipe)
            steps.append(progress.steps)
            assert progress.steps == max(whole_states(folder, newest[:count]), default=0), (count, damage)
            for weight, value in zip(model.weights, expected[0].get(progress.steps, before), strict=True):
                np.testing.assert_array_equal(weight, value)
            for name, log in expected[1].items():
                path, kept = copy / "results/run" / name, log[log["epoch"] < progress.epoch].reset_index(drop=True)
                assert path.exists() == bool(progress.epoch)
                assert not progress.epoch or pd.read_csv(path).equals(kept)
            shutil.rmtree(copy)
    assert set(steps) == {0, STEPS * 2, STEPS * EPOCHS - 1, STEPS * EPOCHS}  # what is tested happened


def test_where_no_state_is_whole_a_run_begins_anew_and_loses_nothing(model, killed, recipe, tmp_path):
    """Also when it is killed at any file operation meanwhile, and begins anew again."""
    weights = tmp_path / "watched/checkpoints/run/model.data-00000-of-00001"
    shutil.copytree(killed[0], tmp_path / "watched")
    for prefix in training_states(weights.parent):
        damages(pathlib.Path(f"{prefix}.index"))["cut"]()
    best, state = weights.read_bytes(), {path.name: path.read_bytes() for path in (weights.parent / "state").glob("s*")}
    logs = {path.name: path.read_bytes() for path in (tmp_path / "watched/results/run").glob("*.csv")}

    def kept(folder):
        return [path.parent for path in folder.rglob("model.data-*") if path.read_bytes() == best]

    snapshots = Snapshots(tmp_path / "watched", tmp_path / "snapshots")
    snapshots.active = True
    with pytest.warns(
        UserWarning, match=r"no training state .* is whole: beginning anew; .* is kept in \S+/run/kept-1"
    ):
        assert resumed(model, tmp_path / "watched", recipe).steps == 0
    snapshots.active = False
    [folder] = kept(tmp_path / "watched")
    assert folder == weights.parent / "kept-1"
    for parent, files in ((folder, logs), (folder / "state", state)):
        assert {name: (parent / name).read_bytes() for name in files} == files
    assert len(SVG.load(folder).weights) == len(model.weights)
    for snapshot in sorted((tmp_path / "snapshots").iterdir()):
        assert kept(snapshot)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert resumed(model, snapshot, recipe).steps == 0
        assert any(found.name.startswith("kept") for found in kept(snapshot))
        for found in kept(snapshot):
            assert (found / "model.index").is_file()
            assert not (found / ".writing-kept").exists()


def figures(folder: pathlib.Path) -> dict:
    """What an evaluation finds: all but its command, its time and its memory."""
    metrics = json.loads((folder / "metrics.json").read_text())
    found = {name: value for name, value in metrics.items() if name not in ("command", "seconds", "peak_memory_bytes")}
    found |= {name: (folder / name).read_text() for name in ("per_frame.csv", "per_sequence.csv")}
    with np.load(folder / "samples.npz") as arrays:
        return found | {name: (array.shape, array.tobytes()) for name, array in arrays.items()}


def test_an_evaluation_killed_at_any_file_operation_finds_the_same(model, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation.SVG, "load", lambda *_: model)
    monkeypatch.setattr(evaluation, "fit_variance", lambda *_: 0.1)
    (tmp_path / "watched").mkdir()
    options = EvaluateOptions(
        tmp_path / "model", results=tmp_path / "watched", n_future=2, n_samples=2, n_sequences=2, n_importance=1,
        batch_size=1,
    )  # fmt: skip
    snapshots = Snapshots(tmp_path / "watched", tmp_path / "snapshots")
    snapshots.active = True
    evaluation.evaluate(options)
    snapshots.active = False
    expected, files = figures(options.folder), {path.name for path in options.folder.iterdir()}
    assert len(snapshots.operations) > 20
    for snapshot in sorted((tmp_path / "snapshots").iterdir()):
        again = dataclasses.replace(options, results=snapshot)
        evaluation.evaluate(again)
        assert figures(again.folder) == expected
        assert {path.name for path in again.folder.iterdir()} == files  # nothing half written is left


def test_a_full_disk_loses_nothing_that_was_there(tiny, recipe, model, expected, tmp_path, monkeypatch, eagerly):
    """From the second save on, nothing can be flushed to disk any more; then there is space again."""
    folders = dict(checkpoints=tmp_path / "checkpoints", results=tmp_path / "results", verbose=0)
    flush, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train(tiny, recipe, name="run", **folders)
    monkeypatch.undo()
    assert 0 < len(training_states(tmp_path / "checkpoints/run")) <= 2
    finished = train(tiny, recipe, name="run", **folders)
    for weight, value in zip(finished.weights, expected[0][STEPS * EPOCHS], strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-5, atol=1e-7)
    assert not list(tmp_path.rglob(".writing*"))

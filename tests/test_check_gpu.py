"""The check of a GPU, run on the CPU at a tiny size, so that it works when a GPU comes."""

import json
import math
import os
import pathlib
import subprocess
import sys
import types

import check_gpu
import parity
import pytest
import tensorflow as tf
import tyro

from files.config import Machine

SCRIPT = pathlib.Path(__file__).with_name("check_gpu.py")
CPU = types.SimpleNamespace(name="CPU")
TINY = (
    "--cpu --width 4 --batch 2 --n-past 2 --n-future 1 --steps 2 --steps-per-execution 2 --samples 2 --frames 2 "
    "--repetitions 1 --matrix 64 --golden dcgan_64_1_fixed --precisions float32"
)
TRAINING = {
    "step [s]", "frames/s", "tracing and compiling [s]", "timed steps", "peak [GB]", "loss", "share of peak", "batch",
}  # fmt: skip
FIGURES = {
    "matrix products": {"float32 [TFLOP/s]"},
    "parity, TF32 off": {"passed"},
    "parity, TF32 on": {"passed"},
    "training --precision float32": TRAINING,
    "training --precision float32 --jit-compile": TRAINING,
    "training --precision float32 --recompute": TRAINING,
    "training --precision float32, 2 replicas": TRAINING,
    "sampling, float32": {"all samples [s]", "frames/s", "peak [GB]"},
    "sampling, float32, XLA": {"all samples [s]", "frames/s", "peak [GB]"},
    "LSTM": {f"{name} [s]" for name in ("tf.scan", "tf.scan, XLA", "unrolled", "unrolled, XLA", "Keras's layer")},
    "data": {"frames/s"},
    "benchmark, training, float32": {"graph [s]", "loop [s]", "ratio"},
    "benchmark, sampling, float32": {"graph [s]", "loop [s]", "ratio"},
}


def run(*options: str) -> subprocess.CompletedProcess:
    """The script in a process that sees no GPU, and in which XLA saves its own time."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, env=environment)


@pytest.fixture
def report(tmp_path) -> check_gpu.Report:
    return check_gpu.Report(check_gpu.Settings(cpu=True, out=tmp_path / "gpu.json"))


def test_on_the_cpu_every_case_has_its_figures(tmp_path):
    out = tmp_path / "made" / "gpu.json"
    done = run(*TINY.split(), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    cases = results["cases"]

    assert not [name for name, figures in cases.items() if {"error", "skipped"} & set(figures)]
    (several_steps,) = set(cases) - set(FIGURES)  # the fastest training, whichever that is
    assert several_steps.endswith(" --steps-per-execution 2")
    for name, expected in (FIGURES | {several_steps: TRAINING}).items():
        assert expected <= set(cases[name]), name
        assert all(math.isfinite(cases[name][figure]) and cases[name][figure] > 0 for figure in expected), name

    assert cases["training --precision float32, 2 replicas"]["replicas"] == 2
    outputs = cases["parity, TF32 off"]["differences"]
    assert {"x_pred", "generated", "training, loss", "training, gradient norms"} <= set(outputs)
    assert all(0 <= difference["absolute"] < 1e-4 for difference in outputs.values())
    assert results["settings"]["width"] == 4
    assert results["machine"]["tensorflow"] == tf.__version__

    trained = {name: figures["frames/s"] for name, figures in cases.items() if figures.get("replicas") == 1}
    fastest = max(trained, key=trained.get).removeprefix("training ")
    assert f"fastest training: {fastest}\n" in done.stdout
    assert all(name in done.stdout for name in cases)


def test_without_a_gpu_it_says_so_and_stops(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind="CPU": [CPU] * (kind == "CPU"))
    assert check_gpu.main(check_gpu.Settings(out=tmp_path / "gpu.json")) == 1
    out = capsys.readouterr().out
    assert "TensorFlow finds no GPU here, only CPU" in out
    assert "pip install -r requirements-gpu.txt" in out
    assert not list(tmp_path.iterdir())


def test_without_time_every_case_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # which the script sets
    options = [*TINY.split(), "--minutes", "0", "--out", str(tmp_path / "gpu.json")]
    assert check_gpu.main(tyro.cli(check_gpu.Settings, args=options)) == 1  # nothing was shown
    cases = json.loads((tmp_path / "gpu.json").read_text())["cases"]
    assert set(cases) == set(FIGURES)
    assert all(figures == {"skipped": "out of time"} for figures in cases.values())


def test_a_case_that_fails_is_recorded_and_the_others_go_on(report):
    def fail():
        raise tf.errors.InternalError(None, None, "XLA can't\nbecause of that")

    def crash():
        raise SystemExit  # stands for whatever ends the process

    report.attempt("bad", fail)
    report.attempt("good", lambda: {"figure": 1})
    with pytest.raises(SystemExit):
        report.attempt("crash", crash)
    cases = json.loads(report.path.read_text())["cases"]
    assert cases["bad"] == {"error": "InternalError: XLA can't", "message": "XLA can't\nbecause of that"}
    assert cases["good"]["figure"] == 1
    assert cases["crash"] == {"error": "the process ended in this case"}


@pytest.mark.parametrize(("replicas", "tried"), [(1, [100, 50, 25, 12]), (2, [100, 50, 24, 12])])
def test_the_batch_is_halved_until_it_fits(replicas, tried):
    batches = []

    def measure(batch):
        batches.append(batch)
        if batch == 100:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        if batch > 12:
            raise tf.errors.InternalError(None, None, "Out of memory while trying to allocate")
        return {"batch": batch}

    assert check_gpu.with_batch_that_fits(measure, 100, replicas) == {"batch": 12}
    assert batches == tried


@pytest.mark.parametrize(
    ("error", "tried"), [(tf.errors.ResourceExhaustedError, [4, 2, 1]), (tf.errors.InternalError, [4])]
)
def test_what_never_fits_or_is_another_error_fails(error, tried):
    batches = []

    def measure(batch):
        batches.append(batch)
        raise error(None, None, "no")

    with pytest.raises(error):
        check_gpu.with_batch_that_fits(measure, 4)
    assert batches == tried


@pytest.mark.parametrize(
    ("deadline", "seconds", "stopped_after"), [(1e3, 1e3, None), (2.5, 1e3, 3), (1e3, 1.5, check_gpu.WARM_UP + 2)]
)
def test_training_stops_at_the_deadline_and_when_timing_takes_too_long(monkeypatch, deadline, seconds, stopped_after):
    clock = iter(range(100))
    monkeypatch.setattr(check_gpu.time, "monotonic", lambda: next(clock))
    times, model = check_gpu.Times(deadline, seconds), types.SimpleNamespace(stop_training=False)
    times.set_model(model)
    calls = 0
    while calls < 20 and not model.stop_training:
        calls += 1
        times.on_train_batch_end(calls)
    assert calls == (stopped_after or 20)


def test_parity_fails_for_other_numbers(monkeypatch):
    right = parity.recipe.inputs

    def wrong(*arguments):
        inputs = right(*arguments)
        return inputs | {"posterior_noise": inputs["posterior_noise"] + 0.1}

    monkeypatch.setattr(parity.recipe, "inputs", wrong)
    found = check_gpu.differences(("dcgan_64_1_fixed",), tf32=True)
    assert not found["passed"]
    assert found["differences"]["h"]["passed"]  # which no noise enters
    assert not found["differences"]["h_pred"]["passed"]
    assert found["differences"]["h_pred"]["absolute"] > 1e-4


def test_options_are_as_they_are_typed():
    machine = Machine("mixed_bfloat16", jit_compile=True, steps_per_execution=10)
    assert check_gpu.typed(machine) == "--precision mixed_bfloat16 --jit-compile --steps-per-execution 10"
    assert check_gpu.typed(Machine()) == "--precision float32"

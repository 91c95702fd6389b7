"""TensorFlow's start-up notes stay away, errors don't."""

import contextlib
import os
import pathlib
import subprocess
import sys

from files import _without_notes

ROOT = pathlib.Path(__file__).parent.parent


def test_a_command_writes_nothing_but_its_own_lines(tmp_path):
    options = ["--checkpoint", "checkpoints/smmnist_srvp", "--n-samples", "1", "--n-future", "2"]
    command = [sys.executable, "-m", "files", "sample", *options, "--out", str(tmp_path / "futures.gif")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert len(run.stdout.splitlines()) == 2


def test_notes_are_hidden_unless_an_error_is_raised(capfd):
    with _without_notes():
        os.write(2, b"a note\n")
    os.write(2, b"after it\n")
    assert capfd.readouterr().err == "after it\n"
    with contextlib.suppress(ImportError), _without_notes():
        os.write(2, b"the reason\n")
        raise ImportError
    assert capfd.readouterr().err == "the reason\n"

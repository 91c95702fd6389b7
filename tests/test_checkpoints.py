"""What is shipped belongs together: weights, settings, test set, figures, and the texts that quote them."""

import dataclasses
import hashlib
import json
import pathlib
import re
import subprocess

import numpy as np
import pytest
from tables import TABLES, TEXTS, filled

from files import __main__ as command_line
from files.config import Config, Machine, Recipe
from files.data import make_dataset
from files.evaluate import weights_hash
from files.model_svg import SVG
from files.protocols import PROTOCOLS

ROOT = pathlib.Path(__file__).parent.parent
SHIPPED = sorted(path.parent.name for path in ROOT.glob("checkpoints/*/README.md"))
RESULTS = ROOT / "results" / "shipped"


def stored_metrics(name: str) -> dict:
    return json.loads((RESULTS / name / "metrics.json").read_text())


@pytest.mark.parametrize("name", SHIPPED)
def test_metrics_are_those_of_the_shipped_weights(name):
    folder, metrics = ROOT / "checkpoints" / name, stored_metrics(name)
    assert weights_hash(SVG.load(folder)) == metrics["weights_sha256"]
    stored = dataclasses.asdict(Config.load(folder / "config.json"))
    # Settings that came later than the evaluation have their defaults.
    later = {k: v for k, v in vars(Config()).items() if k not in metrics["config"]}
    assert stored.items() <= (metrics["config"] | later).items()


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*-smmnist.json")), ids=lambda path: path.stem)
def test_a_protocol_was_followed_to_the_end_with_the_shipped_weights(path):
    metrics = json.loads(path.read_text())
    assert metrics["weights_sha256"] == stored_metrics(path.parent.name)["weights_sha256"]
    assert metrics["protocol"]["name"] == path.stem
    for name in ("n_past", "n_future", "n_samples", "n_sequences", "data"):
        assert metrics[name] == getattr(PROTOCOLS[path.stem], name), name


def test_what_was_measured_beside_it_is_of_the_same_weights():
    weights = stored_metrics("smmnist_srvp")["weights_sha256"]
    others = [*RESULTS.glob("smmnist_srvp_200/**/metrics.json"), *RESULTS.glob("smmnist_srvp/fvd*.json")]
    assert [json.loads(path.read_text())["weights_sha256"] for path in others] == [weights] * 7


@pytest.mark.parametrize("name", SHIPPED)
def test_the_test_set_is_the_one_that_was_evaluated(name):
    metrics = stored_metrics(name)
    config = Config.load(ROOT / "checkpoints" / name / "config.json")
    frames, count = metrics["n_past"] + metrics["n_future"], metrics["n_sequences"]
    digest = hashlib.sha256()
    for batch in make_dataset(config, metrics["split"], n_frames=frames, count=count, batch_size=50):
        for video in np.asarray(batch):
            digest.update(hashlib.sha256(video.tobytes()).digest())
    assert digest.hexdigest() == metrics["data_sha256"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_cards_commands_are_the_stored_settings(name, monkeypatch):
    stages = {}
    monkeypatch.setattr(command_line, "run_train", lambda *settings: stages.update({settings[-1]: settings[:-1]}))
    (script,) = re.findall(r"```sh\n(.*?)```", (ROOT / "checkpoints" / name / "README.md").read_text(), re.DOTALL)
    echo = 'python() { shift 2; printf "%s " "$@"; echo; }\n'  # without -m files
    commands = subprocess.run(["sh", "-c", echo + script], capture_output=True, text=True, check=True).stdout
    for command in commands.splitlines():
        command_line.main(command.split())
    assert list(stages)[-1] == name
    for stage, settings in stages.items():
        if stage in SHIPPED:
            folder = ROOT / "checkpoints" / stage
            stored = Config.load(folder / "config.json"), Recipe.load(folder / "recipe.json")
        else:  # settings of the machine included
            file = ROOT / "results" / "stages" / stage / "config.json"
            stored = Config.load(file), Recipe.load(file), Machine.load(file)
        assert settings[: len(stored)] == stored, stage


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_as_the_command_makes_them(path):
    text = path.read_text()
    assert text == filled(text), "run: python tests/tables.py"


def test_every_table_has_its_place():
    names = [name for path in TEXTS for name in re.findall(r"<!-- table: (.+) -->", path.read_text())]
    assert set(names) == set(TABLES)


def test_checkpoints_stay_small_enough_for_git():
    sizes = [path.stat().st_size for name in SHIPPED for path in (ROOT / "checkpoints" / name).glob("model.*")]
    assert 0 < sum(sizes) < 60e6

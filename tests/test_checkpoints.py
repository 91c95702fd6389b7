"""What is shipped belongs together: weights, settings, test set, figures, and the texts that quote them."""

import dataclasses
import hashlib
import json
import pathlib
import re
import subprocess

import numpy as np
import pytest

import files.train
from files.__main__ import main
from files.config import Config, Machine, Recipe
from files.data import make_dataset
from files.evaluate import EvaluateOptions, weights_hash
from files.model_svg import SVG

ROOT = pathlib.Path(__file__).parent.parent
SHIPPED = sorted(path.parent.name for path in ROOT.glob("checkpoints/*/README.md"))
CARDS = [f"checkpoints/{name}/README.md" for name in SHIPPED]
ROWS = {  # a row's title in the texts, and its name in metrics.json
    "best of 100": "best",
    "mean over samples": "mean",
    "a single sample": "single",
    "posterior reconstruction (sees the future)": "posterior",
    "last given frame repeated": "repeat",
    "all black": "black",
    "futures by the simulator itself, best of 100": "simulator_best",
    "futures by the simulator itself, mean": "simulator_mean",
}


def stored_metrics(name: str) -> dict:
    return json.loads((ROOT / "results" / "shipped" / name / "metrics.json").read_text())


@pytest.mark.parametrize("name", SHIPPED)
def test_metrics_are_those_of_the_shipped_weights(name):
    folder, metrics = ROOT / "checkpoints" / name, stored_metrics(name)
    assert weights_hash(SVG.load(folder)) == metrics["weights_sha256"]
    parts = Config.load(folder / "config.json"), Recipe.load(folder / "recipe.json")
    stored = {key: value for part in parts for key, value in dataclasses.asdict(part).items()}
    # Settings that came later than the evaluation have their defaults.
    later = {k: v for part in (Config(), Recipe()) for k, v in vars(part).items() if k not in metrics["config"]}
    assert stored.items() <= (metrics["config"] | later).items()


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
    monkeypatch.setattr(files.train, "train", lambda *settings: stages.update({settings[-1]: settings[:-1]}))
    (script,) = re.findall(r"```sh\n(.*?)```", (ROOT / "checkpoints" / name / "README.md").read_text(), re.DOTALL)
    echo = 'python() { shift 2; printf "%s " "$@"; echo; }\n'  # without -m files
    commands = subprocess.run(["sh", "-c", echo + script], capture_output=True, text=True, check=True).stdout
    for command in commands.splitlines():
        main(command.split())
    assert list(stages)[-1] == name
    for stage, settings in stages.items():
        if stage in SHIPPED:
            folder = ROOT / "checkpoints" / stage
            stored = Config.load(folder / "config.json"), Recipe.load(folder / "recipe.json")
        else:  # settings of the machine included
            file = ROOT / "results" / "stages" / stage / "config.json"
            stored = Config.load(file), Recipe.load(file), Machine.load(file)
        assert settings[: len(stored)] == stored, stage


@pytest.mark.parametrize(("text", "name"), [("README.md", "smmnist_srvp"), *zip(CARDS, SHIPPED, strict=True)])
def test_tables_quote_the_metrics(text, name):
    quoted = re.findall(r"^\| ([^|*]+) \| ([\d.]+ ± [\d.]+) \| ([\d.]+ ± [\d.]+) \|$", (ROOT / text).read_text(), re.M)
    metrics = stored_metrics(name)

    def stored(row, metric, like):
        digits = len(like.split()[-1].split(".")[1])
        return " ± ".join(f"{metrics['table'][row][metric][key]:.{digits}f}" for key in ("mean", "interval"))

    for title, psnr, ssim in quoted:
        assert (psnr, ssim) == (stored(ROWS[title], "psnr", psnr), stored(ROWS[title], "ssim", ssim)), title
    assert len(quoted) >= 7
    assert f"`{command_of(metrics)}`" in " ".join((ROOT / text).read_text().split())


def command_of(metrics: dict) -> str:
    """The evaluation's command without the options that have their defaults."""
    count = metrics["n_sequences"]
    count = "" if count == EvaluateOptions.n_sequences else f" --n-sequences {count}"
    checkpoint = re.search(r"--checkpoint (\S+)", metrics["command"])[1]
    # Once a checkpoint computed in the precision that it was trained in.
    precision = metrics.get("precision") or metrics["config"]["precision"]
    options = f"--batch-size {metrics['batch_size']} --precision {precision}"
    return f"python -m files evaluate --checkpoint {checkpoint}{count} {options}"


def test_checkpoints_stay_small_enough_for_git():
    sizes = [path.stat().st_size for name in SHIPPED for path in (ROOT / "checkpoints" / name).glob("model.*")]
    assert 0 < sum(sizes) < 60e6

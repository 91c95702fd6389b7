"""Several checkpoints in one table: differences against SciPy's paired intervals, and what can't be compared."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from files import __main__ as command_line
from files import compare as comparing
from files import evaluate as evaluation
from files import utils
from files.compare import compare
from files.config import Config
from files.evaluate import EvaluateOptions
from files.figures import FigureOptions, make_figures, temperature_curve

pytestmark = pytest.mark.usefixtures("eagerly")  # tracing takes longer than a few steps


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Checkpoints a, b and c, and instead of their evaluation columns of random numbers: what is kept of each."""
    rng, columns = np.random.default_rng(0), {}
    for name, data in (("a", "smmnist_srvp"), ("b", "smmnist"), ("c", "smmnist_srvp")):
        (tmp_path / name).mkdir()
        Config(data=data).save(tmp_path / name / "config.json")

    def evaluate(options, again):
        assert not again  # what is there isn't repeated
        name = options.checkpoint.name
        common = np.random.default_rng(1).normal(size=50)
        columns[name] = {f"{metric}_{row}": common + 0.1 * rng.normal(size=50) for row in ("best", "mean")
                         for metric in ("psnr", "kept")}  # fmt: skip
        options.folder.mkdir(parents=True)
        pd.DataFrame(columns[name]).to_csv(options.folder / "per_sequence.csv", float_format="%.12g")
        frames = {"metric": "psnr", "frame": [6, 7], "mean": [20.0, 19.0], "interval": 0.1}
        pd.DataFrame({"row": "best", **frames}).to_csv(options.folder / "per_frame.csv")
        settings = dict(n_sequences=50, n_samples=4, n_past=5, n_future=2, seed=0, temperature=1.0, split="test")
        data = options.data or Config.load(options.checkpoint / "config.json").data
        return {**settings, "data": data, "data_sha256": data}

    monkeypatch.setattr(comparing, "evaluate", evaluate)
    return [tmp_path / name for name in "abc"], EvaluateOptions(results=tmp_path / "results"), columns


def test_differences_are_paired(fake, capsys):
    checkpoints, options, columns = fake
    results = compare(checkpoints, options)
    found = results["table"]["b"]["best"]["psnr"]
    difference = columns["b"]["psnr_best"] - columns["a"]["psnr_best"]
    assert found["mean"] == pytest.approx(columns["b"]["psnr_best"].mean())
    assert found["difference"] == pytest.approx(difference.mean())
    assert found["difference_interval"] == pytest.approx(1.96 * stats.sem(difference))
    assert found["difference_interval"] < found["interval"] / 3  # as sequences differ more than checkpoints
    assert "difference" not in results["table"]["a"]["best"]["psnr"]
    folder = options.results / "comparisons" / "a-b-c"
    assert json.loads((folder / "comparison.json").read_text()) == results
    assert results["data"] == "smmnist_srvp"  # that of the first
    assert list(pd.read_csv(folder / "per_frame.csv")["checkpoint"]) == ["a", "a", "b", "b", "c", "c"]
    assert "minus a" in capsys.readouterr().out
    assert utils.plot_comparison(folder / "per_frame.csv", 4).axes


def test_checkpoints_are_named_with_or_without_an_option(fake, monkeypatch):
    checkpoints, _, _ = fake
    compared, alone = [], []
    monkeypatch.setattr(command_line, "run_compare", lambda named, options: compared.append(named))
    monkeypatch.setattr(command_line, "run_evaluate", lambda options: alone.append(options.checkpoint))
    a, b, c = map(str, checkpoints)
    command_line.main(["evaluate", a, b, c, "--n-samples", "3"])
    command_line.main(["evaluate", "--checkpoint", a, "--n-samples", "3", b])
    command_line.main(["evaluate", a])
    command_line.main(["evaluate", "--checkpoint", b])
    assert compared == [checkpoints, checkpoints[:2]]
    assert alone == checkpoints[:2]


def test_the_temperatures_of_the_same_evaluation_make_a_curve(tmp_path):
    rng = np.random.default_rng(0)
    tables = {}
    for folder, temperature, count in ((".", 1.0, 30), ("temperature-0.5", 0.5, 20), ("temperature-2", 2.0, 25)):
        (tmp_path / folder).mkdir(exist_ok=True)
        settings = dict(n_samples=4, n_past=5, n_future=2, seed=0, data="x", weights_sha256="y")
        if temperature == 2:
            settings["seed"] = 1  # another evaluation
        settings |= {"temperature": temperature, "n_sequences": count}
        (tmp_path / folder / "metrics.json").write_text(json.dumps(settings))
        names = ("diversity", "psnr_best", "psnr_mean", "kept_mean")
        tables[temperature] = pd.DataFrame(rng.uniform(0, 1, (count, 4)), columns=names)
        tables[temperature].to_csv(tmp_path / folder / "per_sequence.csv")
    curve = temperature_curve(tmp_path).set_index(["temperature", "metric"])
    assert set(curve.index.get_level_values(0)) == {0.5, 1}
    values = tables[1.0]["diversity"][:20]  # the sequences that both have
    assert curve.loc[(1, "diversity"), "mean"] == pytest.approx(values.mean())
    assert curve.loc[(1, "diversity"), "interval"] == pytest.approx(1.96 * stats.sem(values))
    assert len(utils.plot_temperature(curve.reset_index()).axes) == 3
    assert len(utils.plot_temperature(curve.drop("kept_mean", level="metric").reset_index()).axes) == 2
    figs = tmp_path / "figs"  # without samples.npz there is nothing else to draw
    assert make_figures(FigureOptions(tmp_path, figs, tmp_path)) == [figs / "temperature.png"]
    assert not len(temperature_curve(tmp_path / "temperature-2"))


def test_what_cannot_be_compared(fake, tmp_path):
    checkpoints, options, _ = fake
    with pytest.raises(ValueError, match="called a, a; expected different names"):
        compare([checkpoints[0]] * 2, options)
    Config(data="smmnist", n_past=3).save(tmp_path / "b" / "config.json")
    with pytest.raises(ValueError, match="checkpoints a, b, c differ in n_past: 3, 5"):
        compare(checkpoints, options)
    with pytest.raises(FileNotFoundError):
        compare([checkpoints[0], tmp_path / "nothing"], options)
    with pytest.raises(ValueError, match="name is x"):
        compare(checkpoints, dataclasses.replace(options, name="x"))
    one = dict(n_sequences=5, n_samples=4, n_past=5, n_future=2, seed=0, temperature=1.0, split="test", data_sha256="1")
    with pytest.raises(ValueError, match="on different sequences: n_future is 2 and 3"):
        comparing.check_same({"a": one, "b": one | {"n_future": 3}})
    with pytest.raises(ValueError, match="no checkpoint to evaluate"):
        evaluation.evaluate(options)

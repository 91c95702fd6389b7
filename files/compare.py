"""Several checkpoints on the same sequences with the same noise: one table with paired intervals of the differences."""

import dataclasses
import json
import pathlib

import numpy as np
import pandas as pd

from files.config import Config
from files.durable import replacing
from files.evaluate import COLUMNS, EvaluateOptions, cell, evaluate
from files.protocols import TITLES
from files.scores import mean_interval

ROWS = ("best", "mean", "posterior", "own_frames")  # of the table; the other rows don't depend on the model
METRICS = ("psnr", "ssim", "lpips", "kept", "distance")
SETTINGS = ("n_sequences", "n_samples", "n_past", "n_future", "seed", "temperature", "split")


def compare(checkpoints: list[pathlib.Path], options: EvaluateOptions) -> dict:
    """Evaluates checkpoints on the test sequences of the first and writes `comparison.json` and `per_frame.csv`.

    They go to a folder comparisons/A-B-C of the results, and the evaluation of each checkpoint to its own, as ever; one
    that is there already isn't repeated.
    Returns what stands in `comparison.json`: for each checkpoint, row and metric the mean, and for all but the first
    the difference to the first, both with 95 % intervals; those of the differences are paired, sequence by sequence.

    Raises ValueError for checkpoints of one name, or of other videos, and where their sequences aren't the same,
    besides what `evaluate` raises.
    """
    names = [path.resolve().name for path in checkpoints]
    if len(set(names)) < len(names):
        raise ValueError(f"checkpoints are called {', '.join(names)}; expected different names, as results are")
    if options.name is not None:
        raise ValueError(f"name is {options.name}; several checkpoints have their own names")
    configs = [Config.load(path / "config.json") for path in checkpoints]
    for setting in ("n_past", "image_size", "channels"):  # before hours of scoring
        if len(found := {getattr(config, setting) for config in configs}) > 1:
            raise ValueError(
                f"checkpoints {', '.join(names)} differ in {setting}: {', '.join(map(str, sorted(found)))}"
            )
    metrics, tables, frames = {}, {}, []
    for name, path, config in zip(names, checkpoints, configs, strict=True):
        one = dataclasses.replace(options, checkpoint=path)
        if options.data is None and options.protocol is None and config.data != configs[0].data:
            one = dataclasses.replace(one, data=configs[0].data)
        metrics[name] = evaluate(one, again=False)
        tables[name] = pd.read_csv(one.folder / "per_sequence.csv")
        frames.append(pd.read_csv(one.folder / "per_frame.csv").assign(checkpoint=name))
    check_same(metrics)
    results = {
        "checkpoints": names,
        **{name: metrics[names[0]][name] for name in (*SETTINGS, "data", "data_sha256")},
        "table": {name: differences(tables[name], tables[names[0]] if name != names[0] else None) for name in names},
    }
    folder = options.results / "comparisons" / "-".join(names)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "per_frame.csv") as writing:
        pd.concat(frames).to_csv(writing, index=False, float_format="%.6g")
    with replacing(folder / "comparison.json") as writing:
        writing.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    print(comparison_table(results))
    return results


def check_same(metrics: dict[str, dict]) -> None:
    """Raises ValueError, naming it, where evaluations differ in what makes figures comparable."""
    first, *others = metrics
    for name in others:
        for setting in (*SETTINGS, "data_sha256"):
            if metrics[name][setting] != metrics[first][setting]:
                said = f"{metrics[first][setting]} and {metrics[name][setting]}"
                raise ValueError(f"{first} and {name} were evaluated on different sequences: {setting} is {said}")


def differences(table: pd.DataFrame, reference: pd.DataFrame | None) -> dict:
    """Row -> metric -> `mean` and `interval`, and `difference`, `difference_interval` to the reference, if given."""
    found = {}
    for row in ROWS:
        for metric in METRICS:
            column = f"{metric}_{row}"
            if column not in table:
                continue
            values = finite(mean_interval(table[column]))
            if reference is not None:
                difference = finite(mean_interval(table[column] - reference[column]))
                values |= {"difference": difference["mean"], "difference_interval": difference["interval"]}
            found.setdefault(row, {})[metric] = values
    return found


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """For JSON, which has no NaN."""
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def comparison_table(results: dict) -> str:
    """The comparison as text; a star marks a difference that is larger than its interval."""
    first, lines = results["checkpoints"][0], []
    for row, by_metric in results["table"][first].items():
        for metric in by_metric:
            for name in results["checkpoints"]:
                value = results["table"][name][row][metric]
                line = {"row": TITLES.get(row, row), "": COLUMNS[metric], "checkpoint": name, "mean": cell(value)}
                if name != first:
                    difference = {"mean": value["difference"], "interval": value["difference_interval"]}
                    clear = None not in difference.values() and abs(difference["mean"]) > difference["interval"]
                    line[f"minus {first}"] = cell(difference) + (" *" if clear else "")
                lines.append(line)
    heading = (
        f"{results['n_sequences']} sequences of {results['data']}, {results['n_past']} frames given, "
        f"{results['n_future']} predicted, {results['n_samples']} samples; 95 % intervals, paired for differences"
    )
    return f"{heading}\n{pd.DataFrame(lines).fillna('').to_string(index=False)}\n* larger than its interval"

"""All figures of the project, from the files in results/: `python -m files figures`."""

import dataclasses
import json
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from files import utils
from files.evaluate import weights_hash
from files.model_svg import SVG
from files.scores import mean_interval

SHIPPED = ("shipped", "stages")  # folders of results/ that come with the project: what is made from them is there, too


@dataclasses.dataclass(frozen=True)
class FigureOptions:
    """From what to draw figures, and where to."""

    results: pathlib.Path = pathlib.Path("results")
    """Folder of results: logs of training, evaluations."""
    figs: pathlib.Path = pathlib.Path("figs")
    """Folder of figures; those of RESULTS/NAME go to FIGS/NAME."""
    checkpoints: pathlib.Path = pathlib.Path("checkpoints")
    """Folder of checkpoints: an evaluation of other weights than those of CHECKPOINTS/NAME is not drawn."""


def make_figures(options: FigureOptions) -> list[pathlib.Path]:
    """Draws what `results` and its subfolders hold, without what is shipped. Returns the paths of the figures.

    Raises FileNotFoundError if there is nothing to draw.
    """
    paths, hashes = [], {}
    for folder in [options.results, *sorted(path for path in options.results.rglob("*") if path.is_dir())]:
        name = folder.relative_to(options.results)
        if name.parts[:1] and name.parts[0] in SHIPPED:
            continue
        out, figures = options.figs / name, training_figures(folder)
        if (folder / "metrics.json").is_file():
            checkpoint = options.checkpoints.joinpath(*name.parts[:1])
            if checkpoint not in hashes and (checkpoint / "config.json").is_file():
                hashes[checkpoint] = weights_hash(SVG.load(checkpoint))
            if is_of(folder, hashes.get(checkpoint)):
                if (folder / "samples.npz").is_file():
                    figures |= evaluation_figures(folder)
                    paths += save_animations(folder, out)
                if len(curve := temperature_curve(folder)):
                    figures["temperature"] = utils.plot_temperature(curve)
            else:
                print(f"{folder} was evaluated with other weights than {checkpoint} has now: not drawn")
        if (folder / "comparison.json").is_file():
            n_samples = json.loads((folder / "comparison.json").read_text())["n_samples"]
            figures["comparison"] = utils.plot_comparison(folder / "per_frame.csv", n_samples)
        paths += [save(figure, out / f"{figure_name}.png", folder) for figure_name, figure in figures.items()]
    if not paths:
        raise FileNotFoundError(
            f"{options.results} holds no losses.csv, ssim.csv, metrics.json or comparison.json; "
            "train or evaluate a model"
        )
    return paths


def find_evaluation(name: str, model: SVG, results: str | pathlib.Path = "results") -> pathlib.Path | None:
    """The folder with the test figures of just these weights, the user's or those shipped; None if there is none."""
    weights = weights_hash(model)
    found = [pathlib.Path(results, name), pathlib.Path(results, "shipped", name)]
    return next((folder for folder in found if (folder / "metrics.json").is_file() and is_of(folder, weights)), None)


def is_of(evaluation: pathlib.Path, weights: str | None) -> bool:
    """Whether an evaluation is one of the weights with that hash, or of weights that are unknown."""
    return weights in (None, json.loads((evaluation / "metrics.json").read_text())["weights_sha256"])


def save(figure: plt.Figure, path: pathlib.Path, source: pathlib.Path) -> pathlib.Path:
    """Writes a PNG that says in its metadata how it was made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made_by = f"python -m files figures, from {source.name}"
    figure.savefig(path, metadata={"Description": made_by})
    return path


def training_figures(folder: pathlib.Path) -> dict[str, plt.Figure]:
    """Figures of `losses.csv` and `ssim.csv`, where these are."""
    plots = {"loss": ("losses.csv", utils.plot_losses), "ssim": ("ssim.csv", utils.plot_ssim)}
    return {name: plot(folder / file) for name, (file, plot) in plots.items() if (folder / file).is_file()}


def evaluation_figures(folder: pathlib.Path) -> dict[str, plt.Figure]:
    """Figures of an evaluation: figures over time, best of N, uncertainty, film strips."""
    metrics = json.loads((folder / "metrics.json").read_text())
    per_frame = pd.read_csv(folder / "per_frame.csv")
    samples = np.load(folder / "samples.npz")
    figures = {
        f"{metric}_over_time": utils.plot_over_time(per_frame, metric, metrics["n_samples"])
        for metric in ("psnr", "ssim")
    }
    if "kept" in set(per_frame["metric"]):
        figures["digits_kept"] = utils.plot_digits_kept(per_frame)
    figures["best_of_n"] = utils.plot_best_of_n(metrics["best_of"])
    if metrics["spread_skill"]["ratio"] is not None:
        figures["spread_skill"] = utils.plot_spread_skill(
            metrics["spread_skill"]["spread"], metrics["spread_skill"]["error"]
        )
    if "lag" in metrics["prior_sigma"]:
        figures["prior_sigma"] = utils.plot_prior_sigma(
            samples["prior_sigma"], samples["bounced"], metrics["n_past"], metrics["prior_sigma"]
        )
    if "traversal" in samples:
        figures["traversal"] = utils.plot_traversal(samples["traversal"] / 255, samples["traversal_values"])
    for k, rows in enumerate(futures(samples, metrics["n_past"]), 1):
        figures[f"futures_{k}"] = strip = utils.film_strip(rows, metrics["n_past"])
        if "rank" in samples:
            score = "share of digits kept" if "digits" in metrics else "mean SSIM"
            remark = "\nin brackets: predicted frames that keep all digits" if "digits" in metrics else ""
            strip.axes[0].set_title(
                f"Sequence {samples['index'][k - 1]}: its samples' {score} is above that of "
                f"{samples['rank'][k - 1]:.0%} of all sequences{remark}",
                fontsize=10,
            )
    return figures


def temperature_curve(folder: pathlib.Path) -> pd.DataFrame:
    """Diversity and scores of an evaluation and those of the same at other temperatures, in folders inside of it.

    Columns temperature, metric, mean and interval, on the sequences that all of them have; no rows where there is only
    one temperature. An evaluation with other samples, seed or weights is left out.
    """
    same = ("n_samples", "n_past", "n_future", "seed", "data", "weights_sha256")
    folders = [folder, *sorted(path.parent for path in folder.glob("temperature-*/metrics.json"))]
    metrics = [json.loads((path / "metrics.json").read_text()) for path in folders]
    fitting = [k for k, found in enumerate(metrics) if all(found[name] == metrics[0][name] for name in same)]
    if len(fitting) < 2:
        return pd.DataFrame()
    count = min(metrics[k]["n_sequences"] for k in fitting)
    rows = []
    for k in fitting:
        table = pd.read_csv(folders[k] / "per_sequence.csv")[:count]
        rows += [
            {"temperature": metrics[k].get("temperature", 1.0), "metric": name, **mean_interval(table[name])}
            for name in ("diversity", "psnr_best", "psnr_mean", "ssim_best", "ssim_mean", "kept_mean")
            if name in table
        ]
    return pd.DataFrame(rows)


def save_animations(folder: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """The futures of an evaluation as animated GIFs."""
    n_past = json.loads((folder / "metrics.json").read_text())["n_past"]
    paths = []
    for k, rows in enumerate(futures(np.load(folder / "samples.npz"), n_past), 1):
        paths.append(out / f"futures_{k}.gif")
        utils.save_gif(paths[-1], rows, n_past)
    return paths


def futures(samples, n_past: int) -> list[utils.Rows]:
    """For each sequence of `samples.npz` its rows: the truth and, after the given frames, the futures.

    For Moving MNIST titles say in how many predicted frames the digits are kept.
    """
    past, truth = samples["truth"][:, :n_past], samples["truth"]
    titles = {"posterior": "posterior", "own_frames": "own frames", "best": "best SSIM", "worst": "worst SSIM"}
    rows = {title: (samples[name], samples.get(f"kept_{name}")) for name, title in titles.items() if name in samples}
    kept = samples.get("kept_samples")
    for k in range(samples["samples"].shape[1]):
        rows[f"sample {k + 1}"] = samples["samples"][:, k], None if kept is None else kept[:, k]
    whole = []
    for k in range(len(truth)):
        found = {utils.GROUND_TRUTH: truth[k] / 255}
        for title, (future, kept) in rows.items():
            title = title if kept is None else f"{title} ({kept[k]}/{future.shape[1]})"
            found[title] = np.concatenate([past[k], future[k]]) / 255
        whole.append(found)
    return whole

"""All figures of the project, from the files in results/: `python -m files figures`, or `make figs`."""

import json
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from files import utils


def make_figures(results: str | pathlib.Path = "results", figs: str | pathlib.Path = "figs") -> list[pathlib.Path]:
    """Draws what `results` and its subfolders hold; the figures of results/NAME go to figs/NAME. Returns their paths.

    Raises FileNotFoundError if there is nothing to draw.
    """
    results, figs = pathlib.Path(results), pathlib.Path(figs)
    paths = []
    for folder in [results, *sorted(path for path in results.glob("*") if path.is_dir())]:
        out = figs / folder.relative_to(results)
        figures = training_figures(folder) | evaluation_figures(folder)
        paths += [save(figure, out / f"{name}.png", folder) for name, figure in figures.items()]
        paths += save_animations(folder, out)
    if not paths:
        raise FileNotFoundError(f"{results} holds no losses.csv, ssim.csv or metrics.json; train or evaluate a model")
    return paths


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
    """Figures of an evaluation, where there is one: figures over time, best of N, uncertainty, film strips."""
    if not (folder / "metrics.json").is_file():
        return {}
    metrics = json.loads((folder / "metrics.json").read_text())
    per_frame = pd.read_csv(folder / "per_frame.csv")
    samples = np.load(folder / "samples.npz")
    figures = {
        f"{metric}_over_time": utils.plot_over_time(per_frame, metric, metrics["n_samples"])
        for metric in ("psnr", "ssim")
    }
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
    strips = enumerate(futures(samples, metrics["n_past"]), 1)
    return figures | {f"futures_{k}": utils.film_strip(rows, metrics["n_past"]) for k, rows in strips}


def save_animations(folder: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """The futures of an evaluation, where there is one, as animated GIFs."""
    if not (folder / "metrics.json").is_file():
        return []
    n_past = json.loads((folder / "metrics.json").read_text())["n_past"]
    paths = []
    for k, rows in enumerate(futures(np.load(folder / "samples.npz"), n_past), 1):
        paths.append(out / f"futures_{k}.gif")
        utils.save_gif(paths[-1], rows, n_past)
    return paths


def futures(samples, n_past: int) -> list[utils.Rows]:
    """For each sequence of `samples.npz` its rows: the truth and, after the given frames, the futures."""
    past, truth = samples["truth"][:, :n_past], samples["truth"]
    rows = {name: samples[name] for name in ("posterior", "best", "worst")}
    rows |= {f"sample {k + 1}": samples["samples"][:, k] for k in range(samples["samples"].shape[1])}
    whole = {utils.GROUND_TRUTH: truth}
    whole |= {title: np.concatenate([past, future], 1) for title, future in rows.items()}
    return [{title: videos[k] / 255 for title, videos in whole.items()} for k in range(len(truth))]

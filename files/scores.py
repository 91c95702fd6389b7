"""From the scores of all sequences to tables: best of N, intervals, calibration, the prior's sigma, the bounds.

Everything here is NumPy and pandas on arrays whose leading axis is the sequence. In shapes S is the number of
sequences, N that of samples, T that of frames, F that of predicted ones, K that of posterior samples.
"""

import numpy as np
import pandas as pd

from files.digits import KEPT

METRICS = ("psnr", "ssim")  # and "lpips", where it is scored
LOWER_IS_BETTER = ("lpips",)
REFERENCES = ("posterior", "own_frames", "repeat", "black")  # rows of the table beside best, mean and single
DIGITS_THERE, DIGITS_GONE = ("truth", "posterior"), ("other_digits", "digit_missing")
LAGS = range(-5, 6)  # frames around a bounce

Scores = dict[str, np.ndarray]  # what `score_batch` in files/scoring.py keeps of each sequence
Rows = dict[str, dict[str, np.ndarray]]  # row of the table -> metric -> values [S, F]


# Tables -------------------------------------------------------------------------------------------------------------


def table_rows(scores: Scores) -> Rows:
    """The rows: best (chosen per metric after averaging over time), mean, single, references.

    For Moving MNIST also best and mean of the simulator's own futures, which are samples from the true distribution.
    """
    names = measured(scores)
    rows = {
        "best": {name: best_sample(scores[name], name in LOWER_IS_BETTER) for name in names},
        "mean": {name: scores[name].mean(1) for name in names},
        "single": {name: scores[name][:, 0] for name in names},
    }
    if "ssim_simulator" in scores:
        futures = {name: scores[f"{name}_simulator"] for name in names}
        rows["simulator_best"] = {name: best_sample(v, name in LOWER_IS_BETTER) for name, v in futures.items()}
        rows["simulator_mean"] = {name: values.mean(1) for name, values in futures.items()}
    rows |= {row: {name: scores[f"{name}_{row}"] for name in names} for row in REFERENCES}
    for row, values in digit_rows(scores).items():
        rows[row] = rows[row] | values
    return rows


def measured(scores: Scores) -> list[str]:
    """The metrics of frames that were scored."""
    return [name for name in (*METRICS, "lpips") if name in scores]


def digit_rows(scores: Scores) -> Rows:
    """For Moving MNIST: `kept`, whether a frame shows the true digits, and `distance` from their places where it does.

    In pixels; NaN where no digits are kept. `best` is the sample with the best SSIM, `mean` that over the first samples
    of each sequence.
    """
    if "explained_truth" not in scores:
        return {}
    names = {"best": "best", "simulator_mean": "simulator", "posterior": "posterior", "own_frames": "own_frames"}
    kept = {row: scores[f"explained_{name}"] > KEPT for row, name in names.items()}
    distance = {row: np.where(kept[row], scores[f"distance_{name}"], np.nan) for row, name in names.items()}
    of_samples = scores["explained_samples"] > KEPT  # [S, n, F]
    from_samples = np.where(of_samples, scores["distance_samples"], np.nan)
    kept |= {"mean": of_samples.mean(1), "single": of_samples[:, 0]}
    distance |= {"mean": mean_of_known(from_samples, 1), "single": from_samples[:, 0]}
    return {row: {"kept": kept[row].astype(float), "distance": distance[row]} for row in kept}


def digit_errors(scores: Scores) -> dict:
    """How often the threshold of `kept` is wrong, as shares of frames: digits that are there, and ones that aren't."""
    share = {name: float((scores[f"explained_{name}"] > KEPT).mean()) for name in (*DIGITS_THERE, *DIGITS_GONE)}
    return {
        "threshold": KEPT,
        "n_samples": scores["explained_samples"].shape[1],
        "missed": {name: 1 - share[name] for name in DIGITS_THERE},
        "false": {name: share[name] for name in DIGITS_GONE},
    }


def quality(rows: Rows, scores: Scores, per_sequence: pd.DataFrame, n_past: int) -> dict:
    """The part of `metrics.json` that tells how good the model is; each mean comes with its 95 % interval."""
    return {
        "table": {
            row: {metric: mean_interval(mean_of_known(values, -1)) for metric, values in by_metric.items()}
            for row, by_metric in rows.items()
        },
        "best_of": {name: best_of_n(scores[name], name in LOWER_IS_BETTER) for name in measured(scores)},
        **{name: mean_interval(per_sequence[name]) for name in ("diversity", "elbo", "importance_weighted")},
        "brightness": brightness_at_end(scores["brightness"], scores["brightness_truth"]),
        "spread_skill": spread_skill(scores["spread"], scores["error"], scores["psnr"].shape[1]),
        "prior_sigma": sigma_around_bounces(scores["prior_sigma"], scores["bounced"], n_past),
        **({"digits": digit_errors(scores)} if "explained_truth" in scores else {}),
    }


def frame_table(rows: Rows, scores: Scores, n_past: int) -> pd.DataFrame:
    """`per_frame.csv`: mean and interval of each row and metric at each frame, counted from 1."""
    series = [(row, metric, n_past + 1, values) for row, metrics in rows.items() for metric, values in metrics.items()]
    series += [
        ("samples", "diversity", n_past + 1, 2 * scores["spread"]),
        ("samples", "error of the mean", n_past + 1, scores["error"]),
        ("samples", "brightness", n_past + 1, scores["brightness"].mean(1)),
        ("truth", "brightness", n_past + 1, scores["brightness_truth"]),
        ("prior", "sigma", 2, scores["prior_sigma"]),
        ("posterior", "kl", 2, scores["kl"]),
    ]
    if "explained_other_digits" in scores:
        series.append(("other_digits", "kept", n_past + 1, scores["explained_other_digits"] > KEPT))
    return pd.DataFrame(
        {"row": row, "metric": metric, "frame": first + frame, **mean_interval(values[:, frame])}
        for row, metric, first, values in series
        for frame in range(values.shape[1])
    )


def sequence_table(rows: Rows, scores: Scores, variance: float, pixels: int) -> pd.DataFrame:
    """`per_sequence.csv`: the averages over time of each sequence.

    `diversity` is the mean squared distance per pixel between two samples; a frame has so many `pixels`.
    """
    columns = {
        f"{metric}_{row}": mean_of_known(values, -1)
        for row, by_metric in rows.items()
        for metric, values in by_metric.items()
    }
    best = {
        f"best_sample_{name}": index_of_best(scores[name].mean(-1), name in LOWER_IS_BETTER)
        for name in measured(scores)
    }
    table = pd.DataFrame(
        {**columns, **best, "diversity": 2 * scores["spread"].mean(-1), **bounds(scores, variance, pixels)}
    )
    return table.rename_axis("sequence").reset_index()


# Statistics ---------------------------------------------------------------------------------------------------------


def mean_interval(values: np.ndarray) -> dict[str, float]:
    """Mean over sequences and half the width of its 95 % interval, 1.96 standard errors; NaN is left out."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return {"mean": np.mean(values) if len(values) else np.nan, "interval": 1.96 * error}


def mean_of_known(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis of what isn't NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return np.divide(
        np.where(known, values, 0).sum(axis),
        known.sum(axis),
        where=known.any(axis),
        out=np.full(known.any(axis).shape, np.nan),
    )


def index_of_best(values: np.ndarray, lower: bool = False) -> np.ndarray:
    """[S, N] -> [S]: the sample with the largest value, or the smallest where `lower` is better."""
    return values.argmin(1) if lower else values.argmax(1)


def best_sample(values: np.ndarray, lower: bool = False) -> np.ndarray:
    """[S, N, F] -> [S, F]: the sample whose average over time is best."""
    best = index_of_best(values.mean(-1), lower)
    return np.take_along_axis(values, best[:, None, None], 1)[:, 0]


def best_of_n(values: np.ndarray, lower: bool = False) -> dict[str, list[float]]:
    """Mean and interval of the best of the first 1, 2, ... N samples; values [S, N, F]."""
    best = (np.minimum if lower else np.maximum).accumulate(values.mean(-1), 1)
    return pd.DataFrame([mean_interval(best[:, n]) for n in range(best.shape[1])]).to_dict("list")


def brightness_at_end(samples: np.ndarray, truth: np.ndarray) -> dict:
    """Do samples fade, which SSIM rewards on a black ground? Mean pixel values of samples [S, N, F] and truth [S, F].

    In the last frame: `ratio` of the mean brightness of the samples to the truth's, and `faded`, the share of samples
    that have less than half of the brightness of their sequence's truth.
    """
    samples, truth = samples[..., -1], truth[:, -1]
    ratio = samples.mean() / truth.mean() if truth.any() else np.nan
    return {"ratio": ratio, "faded": mean_interval((samples < 0.5 * truth[:, None]).mean(1))}


def spread_skill(spread: np.ndarray, error: np.ndarray, n_samples: int, n_bins: int = 10) -> dict:
    """Does the error of the samples' mean grow with the spread of the samples? Both [S, F], squared pixel values.

    Were truth and samples drawn from the same distribution, the expected squared error would be (1 + 1/N) times the
    variance (Fortin et al. 2014); `ratio` is the root of their quotient, below 1 for samples that are too much alike.
    `spread` and `error` are root mean squares in bins of equally many frames of growing spread. A single sample has no
    spread, and its ratio is NaN.
    """
    if n_samples == 1:  # has no spread
        return {"ratio": np.nan}
    expected = spread.ravel().astype(np.float64) * (1 + 1 / n_samples)
    frames = pd.DataFrame({"spread": expected, "error": error.ravel().astype(np.float64)})
    bins = pd.qcut(frames["spread"].rank(method="first"), n_bins, labels=False)
    binned = np.sqrt(frames.groupby(bins).mean())
    return {
        "ratio": np.sqrt(frames["spread"].mean() / frames["error"].mean()),
        "correlation": np.sqrt(frames).corr().loc["spread", "error"],
        **binned.to_dict("list"),
    }


def sigma_around_bounces(sigma: np.ndarray, bounced: np.ndarray, n_past: int) -> dict:
    """The prior's sigma [S, T-1] (of frames 1 to T-1, counted from 0) against bounces [S, T] in predicted frames.

    For each lag: mean and interval of sigma that many frames after a bounce, and the area under the ROC curve, with
    its interval, of sigma as a detector of 'there was a bounce so many frames ago'. Lag 0 is the frame of the bounce;
    in `smmnist` the digit is put on the wall in that frame and its new, random velocity shows in the next one. Without
    bounces or sigma, only the mean of sigma over all predicted frames, which stands under `everywhere`.
    """
    everywhere = np.mean(sigma[:, n_past - 1 :])
    if not bounced.any() or not np.isfinite(everywhere):
        return {"everywhere": everywhere}
    frames = np.arange(n_past, bounced.shape[1])
    result = {"lag": [], "mean": [], "interval": [], "auc": [], "auc_interval": []}
    for lag in LAGS:
        inside = frames[(frames - lag >= 1) & (frames - lag < bounced.shape[1])]
        values, events = sigma[:, inside - 1], bounced[:, inside - lag]
        areas = {"auc": roc_area(values, events), "auc_interval": roc_interval(values, events)}
        for name, value in {"lag": lag, **mean_interval(values[events]), **areas}.items():
            result[name].append(value)
    return {"everywhere": everywhere, **result}


def roc_area(score: np.ndarray, event: np.ndarray) -> float:
    """Chance that the score of an event is above that of a non-event, ties counting half; NaN without both."""
    score, event = score.ravel(), event.ravel()
    positive, negative = event.sum(), (~event).sum()
    if not positive or not negative:
        return np.nan
    ranks = pd.Series(score).rank().to_numpy()
    return (ranks[event].sum() - positive * (positive + 1) / 2) / (positive * negative)


def roc_interval(score: np.ndarray, event: np.ndarray, draws: int = 200) -> float:
    """Half the width of the 95 % interval of `roc_area`, 1.96 standard errors, from resampled sequences (bootstrap).

    Both [S, F]; the frames of a sequence depend on each other, so that whole sequences are drawn.
    """
    drawn = np.random.default_rng(0).integers(len(score), size=(draws, len(score)))
    return 1.96 * np.std([roc_area(score[sequences], event[sequences]) for sequences in drawn], ddof=1)


def bounds(scores: Scores, variance: float, pixels: int) -> dict[str, np.ndarray]:
    """ELBO and importance-weighted bound on log p(x_2..T | x_1) of each sequence [S], in nats per frame.

    The density is that of pixel values in [0, 1] under N(x_pred, variance). The second bound is
    log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x) (Burda et al. 2016), never below the first on average.
    """
    squared_error = scores["squared_error"].astype(np.float64)  # [S, K, T-1]
    log_likelihood = -0.5 * (pixels * np.log(2 * np.pi * variance) + squared_error / variance).sum(-1)
    log_weights = log_likelihood + scores["log_ratio"]
    frames = squared_error.shape[-1]
    return {
        "elbo": (log_likelihood.mean(1) - scores["kl"].sum(-1)) / frames,
        "importance_weighted": (np.logaddexp.reduce(log_weights, 1) - np.log(log_weights.shape[1])) / frames,
    }

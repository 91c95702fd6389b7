"""SSIM and PSNR on arrays, and every figure: a function each, from arrays or tables to a matplotlib figure.

Green with a solid line marks frames that were given, orange-red with a dashed line those that were predicted; the
colours are from the palette of Okabe and Ito, which the colour-blind can tell apart.
"""

import itertools
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import tensorflow as tf
from matplotlib import animation, ticker

from files.checks import check_whole, short

BLUE, ORANGE, GREEN, RED, PURPLE, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#000000"
SKY = "#56B4E9"
GIVEN = {"edgecolor": GREEN, "linestyle": "-"}
PREDICTED = {"edgecolor": RED, "linestyle": "--"}
COLORS = [BLUE, RED, GREEN, ORANGE, PURPLE, BLACK]
LINES = ["-", "--", "-."]
GROUND_TRUTH = "ground truth"  # the row whose frames are all real
LABELS = {
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "kept": "share of frames with all digits kept",
    "distance": "digits kept: pixels off the true place",
}
STYLE = {
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}

Rows = dict[str, np.ndarray]  # title -> video [T, H, W, C] in [0, 1]


# Metrics ------------------------------------------------------------------------------------------------------------


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of images [..., H, W, C] in [0, 1] -> [...]; 1 for equal images.

    With the published 11 x 11 Gaussian window of sigma 1.5 and data range 1 (Wang et al. 2004), as `tf.image.ssim`.
    The leading axes are broadcast.

    Raises ValueError for images that differ in size or are smaller than the window.
    """
    a, b = _images(a, b)
    if min(a.shape[-3:-1]) < 11:
        raise ValueError(f"images have the size {a.shape[-3:]}; expected [H, W, C] of at least 11 x 11")
    return graph_ssim(tf.constant(a), tf.constant(b)).numpy()


def _images(*images: np.ndarray) -> list[np.ndarray]:
    """The images as float64; raises ValueError for others than images [..., H, W, C] of one size."""
    images = [np.asarray(value, np.float64) for value in images]
    a, b = (value.shape for value in images)
    if len(a) < 3 or a[-3:] != b[-3:] or 0 in a[-3:]:
        raise ValueError(f"images have sizes {a[-3:]} and {b[-3:]}; expected the same [H, W, C]")
    np.broadcast_shapes(a[:-3], b[:-3])
    return images


def graph_ssim(a: tf.Tensor, b: tf.Tensor, window: str = "gaussian", data_range: float = 1.0) -> tf.Tensor:
    """`tf.image.ssim(a, b, data_range)` of images [..., H, W, C] -> [...], with NumPy's broadcasting.

    Window and constants are those of Wang et al. (2004), or with "uniform" scikit-image's default, 7 x 7 pixels and the
    sample covariance. The window is separable, and two matrix products are four times as fast on a CPU as the
    convolution of 11 x 11 in `tf.image.ssim`, which took half of an evaluation's time.
    """
    reach, weight = {"gaussian": (5, lambda x: np.exp(-0.5 * (x / 1.5) ** 2)), "uniform": (3, np.ones_like)}[window]
    covered = (2 * reach + 1) ** 2
    unbiased = covered / (covered - 1) if window == "uniform" else 1.0

    def weights(size):  # [size - 2 reach, size]: row i is centred on pixel i + reach
        offset = np.arange(size) - np.arange(size - 2 * reach)[:, None] - reach
        inside = np.where(np.abs(offset) <= reach, weight(offset.astype(float)), 0)
        return tf.constant(inside / inside.sum(1, keepdims=True), a.dtype)

    def mean(x):
        return tf.einsum("ih,...hwc,jw->...ijc", weights(x.shape[-3]), x, weights(x.shape[-2]))

    mean_a, mean_b, c1, c2 = mean(a), mean(b), (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    variances = unbiased * (mean(a**2) - mean_a**2 + mean(b**2) - mean_b**2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return tf.reduce_mean(luminance * (2 * covariance + c2) / (variances + c2), [-3, -2, -1])


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of images [..., H, W, C] in [0, 1] -> [...]; infinite for equal images.

    The leading axes are broadcast.

    Raises ValueError for images that differ in size.
    """
    a, b = _images(a, b)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.mean((a - b) ** 2, (-3, -2, -1)))


# Videos -------------------------------------------------------------------------------------------------------------


def _check_rows(rows: Rows, n_past: int) -> None:
    if not isinstance(rows, dict):
        raise TypeError(f"rows are {short(rows)}; expected a dictionary of videos by their titles")
    shapes = {title: np.shape(video) for title, video in rows.items()}
    shape = next(iter(shapes.values()), ())
    if len(set(shapes.values())) > 1 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise ValueError(
            f"rows have shapes {shapes}; expected one or more videos of the same shape [T, H, W, C], C being 1 or 3"
        )
    if kinds := {str(np.asarray(video).dtype) for video in rows.values() if np.asarray(video).dtype.kind not in "biuf"}:
        raise ValueError(f"rows hold {', '.join(sorted(kinds))}; expected numbers")
    check_whole(0, shape[0], n_past=n_past)


def frame_style(title: str, frame: int, n_past: int) -> dict[str, str]:
    """How a frame, counted from 0, of the row with that title is framed: as given or as predicted."""
    return GIVEN if title == GROUND_TRUTH or frame < n_past else PREDICTED


def to_rgb(video: np.ndarray) -> np.ndarray:
    """[..., 1 or 3] -> [..., 3] in [0, 1]."""
    return np.clip(np.broadcast_to(video, (*np.shape(video)[:-1], 3)), 0, 1)


def _sheet(images: np.ndarray, row_titles: list, column_titles: list) -> tuple[plt.Figure, plt.Axes, np.ndarray]:
    """A figure of images [R, K, H, W, C] in rows and columns, and the upper left corner of each, [R, K, 2] as x, y."""
    rows, columns, height, width, _ = images.shape
    gap = max(2, width // 10)
    padded = np.pad(to_rgb(images), [(0, 0), (0, 0), (gap, gap), (gap, gap), (0, 0)], constant_values=1)
    high, wide = padded.shape[2:4]
    fig, ax = plt.subplots(figsize=(1.2 + 0.45 * columns, 0.45 + 0.45 * rows * height / width))
    plt.close(fig)  # a notebook shows the returned figure, and only that
    ax.imshow(padded.transpose(0, 2, 1, 3, 4).reshape(rows * high, columns * wide, 3), interpolation="nearest")
    ax.set_yticks((np.arange(rows) + 0.5) * high, row_titles)
    ax.set_xticks((np.arange(columns) + 0.5) * wide, column_titles)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    x, y = np.meshgrid(np.arange(columns) * wide + gap, np.arange(rows) * high + gap)
    return fig, ax, np.stack([x, y], -1)


@plt.rc_context(STYLE)
def film_strip(rows: Rows, n_past: int, every: int = 1) -> plt.Figure:
    """Videos [T, H, W, C] below each other, a row with its title for each; columns are every `every`-th frame.

    The first `n_past` frames of a row, and all of the row "ground truth", are framed as given, the others as predicted.

    Raises ValueError for rows of different shapes.
    """
    _check_rows(rows, n_past)
    check_whole(1, every=every)
    videos = np.stack(list(rows.values()))
    frames, (height, width) = range(0, videos.shape[1], every), videos.shape[2:4]
    fig, ax, corners = _sheet(videos[:, ::every], list(rows), [frame + 1 for frame in frames])
    for title, row in zip(rows, corners, strict=True):
        for frame, corner in zip(frames, row, strict=True):
            border = frame_style(title, frame, n_past)
            ax.add_patch(plt.Rectangle(corner - 1.5, width + 2, height + 2, fill=False, linewidth=1.6, **border))
    ax.set_xlabel("frame (solid green: given or true; dashed red: predicted)")
    return fig


@plt.rc_context(STYLE)
def plot_traversal(images: np.ndarray, values: np.ndarray) -> plt.Figure:
    """Images [D, V, H, W, C] in [0, 1] of futures in which dimension d of one z takes the values [V].

    The values are in standard deviations of the prior.
    """
    titles = [f"z[{dimension}]" for dimension in range(len(images))]
    fig, ax, _ = _sheet(images, titles, [rf"{value:+g}$\sigma$" if value else "0" for value in values])
    ax.set_xlabel("value of one dimension of one z,\nall others at the prior's mean")
    return fig


@plt.rc_context(STYLE)
def save_gif(path: str | pathlib.Path, rows: Rows, n_past: int, frames_per_second: float = 4) -> None:
    """Writes the videos [T, H, W, C] side by side as an animated GIF, with titles and framed as in `film_strip`.

    Raises ValueError for rows of different shapes.
    """
    _check_rows(rows, n_past)
    if not 0 < frames_per_second < 1000:
        raise ValueError(f"frames_per_second is {frames_per_second}; expected a number above 0")
    columns = min(len(rows), 5)
    lines = -(-len(rows) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(1.3 * columns, 1.5 * lines + 0.3), squeeze=False, dpi=90)
    plt.close(fig)
    heading = fig.suptitle(" ", fontsize=10)
    for ax in axes.flat:
        ax.axis("off")
    panels = []
    for ax, (title, video) in zip(axes.flat, rows.items(), strict=False):  # the last line of panels may be shorter
        ax.set_title(title, fontsize=9)
        image = ax.imshow(to_rgb(video[0]), interpolation="nearest")
        height, width = video.shape[1:3]
        border = ax.add_patch(plt.Rectangle((-1.5, -1.5), width + 2, height + 2, fill=False, lw=3, clip_on=False))
        panels.append((title, video, image, border))

    fig.draw_without_rendering()
    fig.set_layout_engine("none")  # laid out once, not for each frame

    def show(frame):
        heading.set_text(f"frame {frame + 1}: {'given' if frame < n_past else 'predicted'}")
        for title, video, image, border in panels:
            image.set_data(to_rgb(video[frame]))
            border.set(**frame_style(title, frame, n_past))

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    movie = animation.FuncAnimation(fig, show, frames=len(panels[0][1]))
    movie.save(path, writer=animation.PillowWriter(fps=frames_per_second))


# Curves -------------------------------------------------------------------------------------------------------------


def _table(csv_or_frame: str | pathlib.Path | pd.DataFrame) -> pd.DataFrame:
    return csv_or_frame if isinstance(csv_or_frame, pd.DataFrame) else pd.read_csv(csv_or_frame)


@plt.rc_context(STYLE)
def plot_losses(csv_or_frame: str | pathlib.Path | pd.DataFrame) -> plt.Figure:
    """Loss, mse and kld over the epochs, from the log of training; with `val_...` columns those of validation too.

    Raises KeyError for a table without one of the columns epoch, loss, mse, kld.
    """
    table = _table(csv_or_frame)
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.2))
    plt.close(fig)
    labels = {
        "loss": "loss per sequence (mse + β · kld)",
        "mse": "mse per frame and pixel",
        "kld": "kld per frame (nats)",
    }
    for ax, (name, label) in zip(axes, labels.items(), strict=True):
        ax.plot(table["epoch"] + 1, table[name], color=BLUE, marker=".", label="training")
        if f"val_{name}" in table:
            ax.plot(table["epoch"] + 1, table[f"val_{name}"], color=RED, linestyle="--", marker=".", label="validation")
        ax.set(xlabel="epoch", ylabel=label, yscale="linear" if name == "kld" else "log")
        ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
    axes[0].legend()
    return fig


@plt.rc_context(STYLE)
def plot_ssim(csv_or_frame: str | pathlib.Path | pd.DataFrame) -> plt.Figure:
    """SSIM of sampled futures, of the best sample and of the mean one: over the epochs, and over time after the last.

    The table has the columns epoch, frame (of the video, from 1), best and mean, and black, the SSIM of a black frame,
    unless it was made by an older version.

    Raises KeyError for a table without one of them.
    """
    table = _table(csv_or_frame)
    last = table[table["epoch"] == table["epoch"].max()]
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    plt.close(fig)
    curves = [("best", "best sample", BLUE, "-"), ("mean", "mean sample", RED, "--")]
    curves += [("black", "all black", BLACK, ":")] * ("black" in table)
    for name, label, color, line in curves:
        by_epoch = table.groupby("epoch")[name].mean()
        axes[0].plot(by_epoch.index + 1, by_epoch, color=color, linestyle=line, marker=".", label=label)
        axes[1].plot(last["frame"], last[name], color=color, linestyle=line, marker=".", label=label)
    axes[0].set(xlabel="epoch", ylabel="SSIM, mean of predicted frames")
    axes[1].set(xlabel="frame of the video", ylabel=f"SSIM after epoch {last['epoch'].iloc[0] + 1}")
    for ax in axes:
        ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
    axes[0].legend()
    return fig


@plt.rc_context(STYLE)
def plot_runs(logs: dict[str, str | pathlib.Path | pd.DataFrame]) -> plt.Figure:
    """Validation mse and kld and the best sample's SSIM of several runs over their epochs; logs are by their titles."""
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.2))
    plt.close(fig)
    names = {"val_mse": "mse per frame and pixel", "val_kld": "kld per frame (nats)", "val_ssim": "SSIM, best of ten"}
    for (title, log), color, line in zip(logs.items(), itertools.cycle(COLORS), itertools.cycle(LINES), strict=False):
        table = _table(log)
        for ax, name in zip(axes, names, strict=True):
            ax.plot(table["epoch"] + 1, table[name], color=color, linestyle=line, marker=".", label=title)
    for ax, label in zip(axes, names.values(), strict=True):
        ax.set(xlabel="epoch", ylabel=label)
        ax.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
    axes[0].legend()
    return fig


@plt.rc_context(STYLE)
def plot_trajectories(position: np.ndarray, bounced: np.ndarray) -> plt.Figure:
    """Row and column of each digit over time, from `position` [T, D, 2] in pixels, with `bounced` [T, D] marked."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    plt.close(fig)
    frames = np.arange(1, len(position) + 1)
    for ax, axis, name in zip(axes, (0, 1), ("row", "column"), strict=True):
        for digit, (color, line) in enumerate(zip((BLUE, RED, GREEN)[: position.shape[1]], LINES, strict=False)):
            path, bounces = position[:, digit, axis], bounced[:, digit]
            ax.plot(frames, path, color=color, linestyle=line, marker=".", label=f"digit {digit + 1}")
            ax.plot(frames[bounces], path[bounces], "D", color=BLACK, fillstyle="none", markersize=9)
        ax.set(xlabel="frame", ylabel=f"{name} of the corner (pixels)")
    axes[0].plot([], [], "D", color=BLACK, fillstyle="none", label="bounce")
    axes[0].legend()
    return fig


@plt.rc_context(STYLE)
def plot_over_time(csv_or_frame: str | pathlib.Path | pd.DataFrame, metric: str, n_samples: int) -> plt.Figure:
    """One metric, "ssim" or "psnr", over the predicted frames with 95 % intervals, from `per_frame.csv`.

    The rows are best and mean of the samples, the posterior's reconstruction, own frames fed back with the posterior's
    z, the last frame repeated, black, and, in SSIM, the best of as many futures from the simulator of Moving MNIST (its
    PSNR, infinite until a digit first bounces, would dwarf the others). Those that the table lacks are left out.
    """
    table = _table(csv_or_frame)
    table = table[table["metric"] == metric]
    rows = {
        "posterior": ("posterior (sees the true frame)", GREEN, "-."),
        "own_frames": ("own frames, posterior's z", SKY, "-."),
        "best": (f"best of {n_samples} samples", BLUE, "-"),
        "mean": ("mean over samples", RED, "--"),
        "repeat": ("last given frame repeated", ORANGE, ":"),
        "black": ("all black", BLACK, ":"),
    }
    if metric == "ssim":
        rows = {"simulator_best": (f"best of {n_samples} by the simulator", PURPLE, "--")} | rows
    fig, ax = plt.subplots(figsize=(7, 3.6))
    plt.close(fig)
    _bands(ax, table, rows)
    ax.set(xlabel="frame", ylabel=LABELS[metric])
    fig.legend(loc="outside right upper")
    return fig


def _bands(ax: plt.Axes, table: pd.DataFrame, rows: dict[str, tuple[str, str, str]]) -> None:
    """Mean and 95 % interval over frames of the rows (row -> label, colour, line) that the table has."""
    for row, (label, color, line) in rows.items():
        values = table[table["row"] == row]
        if len(values):
            ax.plot(values["frame"], values["mean"], color=color, linestyle=line, label=label)
            low, high = values["mean"] - values["interval"], values["mean"] + values["interval"]
            ax.fill_between(values["frame"], low, high, color=color, alpha=0.2, linewidth=0)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))


@plt.rc_context(STYLE)
def plot_digits_kept(csv_or_frame: str | pathlib.Path | pd.DataFrame) -> plt.Figure:
    """Share of frames that still show the true digits, and how far these are from their places, from `per_frame.csv`.

    Over the predicted frames, with 95 % intervals. The control, frames of other digits on the true paths, shows what
    the measure finds where there is nothing to be found.
    """
    table = _table(csv_or_frame)
    rows = {
        "simulator_mean": ("simulator", PURPLE, "--"),
        "posterior": ("posterior (sees the true frame)", GREEN, "-."),
        "own_frames": ("own frames, posterior's z", SKY, "-."),
        "mean": ("samples, mean", RED, "--"),
        "best": ("sample with the best SSIM", BLUE, "-"),
        "other_digits": ("control: other digits", BLACK, ":"),
    }
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    plt.close(fig)
    for ax, metric in zip(axes, ("kept", "distance"), strict=True):
        _bands(ax, table[table["metric"] == metric], rows)
        ax.set(xlabel="frame", ylabel=LABELS[metric])
    axes[0].set_ylim(-0.03, 1.03)
    axes[1].set_ylim(bottom=0)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right upper")
    return fig


@plt.rc_context(STYLE)
def plot_comparison(csv_or_frame: str | pathlib.Path | pd.DataFrame, n_samples: int) -> plt.Figure:
    """Several checkpoints over the predicted frames, with 95 % intervals: best (solid) and mean sample (dashed).

    PSNR, SSIM and, for Moving MNIST, the share of frames with all digits kept, of the mean sample and (dotted) of own
    frames with the posterior's z. The table is `per_frame.csv` of a comparison, with the column `checkpoint`.
    """
    table = _table(csv_or_frame)
    names = list(dict.fromkeys(table["checkpoint"]))
    colors = [BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK]
    metrics = [metric for metric in ("psnr", "ssim", "kept") if metric in set(table["metric"])]
    fig, axes = plt.subplots(1, len(metrics), figsize=(4 * len(metrics), 3.6), squeeze=False)
    plt.close(fig)
    for ax, metric in zip(axes[0], metrics, strict=True):
        lines = {"mean": "--", "own_frames": ":"} if metric == "kept" else {"best": "-", "mean": "--"}
        for k, name in enumerate(names):
            one = table[(table["checkpoint"] == name) & (table["metric"] == metric)]
            _bands(ax, one, {row: (name, colors[k % len(colors)], line) for row, line in lines.items()})
        ax.set(xlabel="frame", ylabel=LABELS[metric])
    handles = [plt.Line2D([], [], color=colors[k % len(colors)], label=name) for k, name in enumerate(names)]
    kinds = {f"best of {n_samples} samples": "-", "mean over samples": "--", "own frames, posterior's z": ":"}
    kinds = dict(list(kinds.items())[: 3 if "kept" in metrics else 2])
    handles += [plt.Line2D([], [], color="gray", linestyle=line, label=kind) for kind, line in kinds.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return fig


@plt.rc_context(STYLE)
def plot_temperature(csv_or_frame: str | pathlib.Path | pd.DataFrame) -> plt.Figure:
    """PSNR, diversity of the samples and, for Moving MNIST, digits kept against the temperature, with 95 % intervals.

    The table has the columns temperature, metric (psnr_best, psnr_mean, diversity and perhaps kept_mean), mean and
    interval. Temperature 1 is the prior as it was learned.
    """
    table = _table(csv_or_frame)
    by_metric = {name: values.sort_values("temperature") for name, values in table.groupby("metric")}
    panels = {
        "PSNR (dB)": {"psnr_best": ("best sample", BLUE, "-"), "psnr_mean": ("mean over samples", RED, "--")},
        "diversity: mean squared\ndistance of two samples": {"diversity": ("", BLACK, "-")},
        LABELS["kept"]: {"kept_mean": ("", GREEN, "-")},
    }
    panels = {label: lines for label, lines in panels.items() if set(lines) <= set(by_metric)}
    fig, axes = plt.subplots(1, len(panels), figsize=(3.8 * len(panels), 3.4))
    plt.close(fig)
    for ax, (ylabel, lines) in zip(axes, panels.items(), strict=True):
        for name, (label, color, line) in lines.items():
            values = by_metric[name]
            ax.errorbar(
                values["temperature"], values["mean"], values["interval"], color=color, linestyle=line, label=label,
                marker="o", capsize=2, elinewidth=0.8,
            )  # fmt: skip
        ax.set(xlabel=r"temperature, a factor on the prior's $\sigma$", ylabel=ylabel)
        if len(lines) > 1:
            ax.legend(loc="best")
        else:
            ax.set_ylim(0, None)
    return fig


@plt.rc_context(STYLE)
def plot_best_of_n(best_of: dict[str, dict[str, list[float]]]) -> plt.Figure:
    """PSNR and SSIM of the best of the first N samples against N, with 95 % intervals.

    `best_of` maps "psnr" and "ssim" to the lists `mean` and `interval`, for N = 1, 2, ...
    """
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    plt.close(fig)
    for ax, (metric, label) in zip(axes, {"psnr": "PSNR (dB)", "ssim": "SSIM"}.items(), strict=True):
        mean, interval = (np.array(best_of[metric][name], float) for name in ("mean", "interval"))
        number = np.arange(1, len(mean) + 1)
        ax.plot(number, mean, color=BLUE)
        ax.fill_between(number, mean - interval, mean + interval, color=BLUE, alpha=0.2, linewidth=0)
        ax.set(xscale="log", xlabel="number of samples N", ylabel=f"best {label}")
        ax.xaxis.set_major_formatter("{x:g}")
    return fig


@plt.rc_context(STYLE)
def plot_spread_skill(spread: np.ndarray, error: np.ndarray) -> plt.Figure:
    """Error of the samples' mean against the spread of the samples, root mean squares of pixels in bins of frames.

    On the diagonal the samples are as far from each other as the truth is from them.
    """
    fig, ax = plt.subplots(figsize=(4, 3.6))
    plt.close(fig)
    end = 1.05 * max(*spread, *error)
    ax.plot([0, end], [0, end], color=BLACK, linestyle=":", label="calibrated")
    ax.plot(spread, error, color=BLUE, marker="o", label="model")
    ax.set(
        xlabel="spread of the samples (pixel value)",
        ylabel="error of their mean (pixel value)",
        xlim=(0, end),
        ylim=(0, end),
        aspect="equal",
    )
    ax.legend()
    return fig


@plt.rc_context(STYLE)
def plot_prior_sigma(sigma: np.ndarray, bounced: np.ndarray, n_past: int, around: dict[str, list[float]]) -> plt.Figure:
    """The prior's sigma after `n_past` frames in up to three sequences, bounces marked, and its mean around a bounce.

    `sigma` [S, T-1] is that of frames 2 to T, `bounced` [S, T]; `around` has the lists `lag`, `mean`, `interval`,
    `auc` and `auc_interval` and the number `everywhere`, the mean over all frames.
    """
    sigma, bounced = sigma[:, n_past - 1 :], bounced[:, n_past:]
    examples = min(3, len(sigma))
    mosaic = [[f"example {k}", "around", "roc"] for k in range(examples)]
    fig, axes = plt.subplot_mosaic(mosaic, figsize=(11, 3.6), width_ratios=[1.5, 1, 1])
    plt.close(fig)
    frames = np.arange(n_past + 1, n_past + 1 + sigma.shape[1])
    low, high = sigma[:examples].min(), sigma[:examples].max()
    for k in range(examples):
        ax = axes[f"example {k}"]
        for frame in frames[bounced[k]]:
            ax.axvline(frame, color=RED, linestyle="--", linewidth=1)
        ax.plot(frames, sigma[k], color=BLUE)
        ax.set(ylim=(low - 0.1 * (high - low), high + 0.1 * (high - low)))
        ax.tick_params(labelbottom=k == examples - 1)
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes["example 0"].set_title(r"$\sigma$ of the prior, mean over z (dashed: a bounce)")
    ax.set_xlabel("frame")

    names = ("lag", "mean", "interval", "auc", "auc_interval")
    lag, mean, interval, auc, auc_interval = (np.array(around[name], float) for name in names)
    axes["around"].plot(lag, mean, color=BLUE, marker=".")
    axes["around"].fill_between(lag, mean - interval, mean + interval, color=BLUE, alpha=0.2, linewidth=0)
    axes["around"].axhline(around["everywhere"], color=BLACK, linestyle=":", label="all frames")
    axes["around"].set(title=r"mean $\sigma$ around a bounce", xlabel="frames after the bounce")
    axes["around"].legend()
    axes["roc"].plot(lag, auc, color=BLUE, marker=".")
    axes["roc"].fill_between(lag, auc - auc_interval, auc + auc_interval, color=BLUE, alpha=0.2, linewidth=0)
    axes["roc"].axhline(0.5, color=BLACK, linestyle=":", label="chance")
    axes["roc"].set(title=r"ROC area of $\sigma$", xlabel="frames after the bounce")
    axes["roc"].legend()
    return fig

"""SSIM and PSNR on arrays, and every figure: a function each, from arrays or tables to a matplotlib figure.

Green with a solid line marks frames that were given, orange-red with a dashed line those that were predicted; the
colours are from the palette of Okabe and Ito, which the colour-blind can tell apart.
"""

import functools
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import animation, ticker
from skimage import metrics

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000",
)  # fmt: skip
GIVEN = {"edgecolor": GREEN, "linestyle": "-"}
PREDICTED = {"edgecolor": RED, "linestyle": "--"}
GROUND_TRUTH = "ground truth"  # the row whose frames are all real
LINES = ["-", "--", "-.", ":"]
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


def _per_image(metric):
    """A metric of two images as one of two stacks of images, with NumPy's broadcasting of the stacks."""
    return np.vectorize(metric, signature="(h,w,c),(h,w,c)->()", otypes=[float])


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of images [..., H, W, C] in [0, 1] -> [...]; 1 for equal images.

    With the published 11 x 11 Gaussian window of sigma 1.5 and data range 1 (Wang et al. 2004), as `tf.image.ssim`.
    The leading axes are broadcast.

    Raises ValueError for images that differ in size or are smaller than the window.
    """
    window = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    return _per_image(functools.partial(metrics.structural_similarity, data_range=1.0, channel_axis=-1, **window))(a, b)


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of images [..., H, W, C] in [0, 1] -> [...]; infinite for equal images.

    The leading axes are broadcast.

    Raises ValueError for images that differ in size.
    """
    with np.errstate(divide="ignore"):
        return _per_image(functools.partial(metrics.peak_signal_noise_ratio, data_range=1.0))(a, b)


# Videos -------------------------------------------------------------------------------------------------------------


def _check_rows(rows: Rows, n_past: int) -> None:
    shapes = {title: np.shape(video) for title, video in rows.items()}
    if not shapes or len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 4:
        raise ValueError(f"rows have shapes {shapes}; expected one or more videos of the same shape [T, H, W, C]")
    frames = next(iter(shapes.values()))[0]
    if not 0 <= n_past <= frames:
        raise ValueError(f"n_past is {n_past}; expected 0 to {frames}, the frames of a row")


def _border(title: str, frame: int, n_past: int) -> dict:
    return GIVEN if title == GROUND_TRUTH or frame < n_past else PREDICTED


def _to_rgb(video: np.ndarray) -> np.ndarray:
    """[..., 1 or 3] -> [..., 3] in [0, 1]."""
    return np.clip(np.broadcast_to(video, (*np.shape(video)[:-1], 3)), 0, 1)


@plt.rc_context(STYLE)
def film_strip(rows: Rows, n_past: int) -> plt.Figure:
    """Videos [T, H, W, C] below each other, a row with its title for each; columns are frames.

    The first `n_past` frames of a row, and all of the row "ground truth", are framed as given, the others as predicted.

    Raises ValueError for rows of different shapes.
    """
    _check_rows(rows, n_past)
    videos = _to_rgb(np.stack(list(rows.values())))  # [R, T, H, W, 3]
    count, frames, height, width, _ = videos.shape
    gap = max(2, width // 10)
    padded = np.pad(videos, [(0, 0), (0, 0), (gap, gap), (gap, gap), (0, 0)], constant_values=1)
    sheet = padded.transpose(0, 2, 1, 3, 4).reshape(count * (height + 2 * gap), frames * (width + 2 * gap), 3)

    fig, ax = plt.subplots(figsize=(1.2 + 0.45 * frames, 0.45 + 0.45 * count * height / width))
    plt.close(fig)  # a notebook shows the returned figure, and only that
    ax.imshow(sheet, interpolation="nearest")
    for row, title in enumerate(rows):
        for frame in range(frames):
            corner = (frame * (width + 2 * gap) + gap - 1.5, row * (height + 2 * gap) + gap - 1.5)
            border = _border(title, frame, n_past)
            ax.add_patch(plt.Rectangle(corner, width + 2, height + 2, fill=False, linewidth=1.6, **border))
    ax.set_yticks((np.arange(count) + 0.5) * (height + 2 * gap), list(rows))
    ax.set_xticks((np.arange(frames) + 0.5) * (width + 2 * gap), np.arange(1, frames + 1))
    ax.set_xlabel("frame (solid green: given or true; dashed red: predicted)")
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return fig


@plt.rc_context(STYLE)
def save_gif(path: str | pathlib.Path, rows: Rows, n_past: int, frames_per_second: float = 4) -> None:
    """Writes the videos [T, H, W, C] side by side as an animated GIF, with titles and framed as in `film_strip`.

    Raises ValueError for rows of different shapes.
    """
    _check_rows(rows, n_past)
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
        image = ax.imshow(_to_rgb(video[0]), interpolation="nearest")
        height, width = video.shape[1:3]
        border = ax.add_patch(plt.Rectangle((-1.5, -1.5), width + 2, height + 2, fill=False, lw=3, clip_on=False))
        panels.append((title, video, image, border))

    def show(frame):
        heading.set_text(f"frame {frame + 1}: {'given' if frame < n_past else 'predicted'}")
        for title, video, image, border in panels:
            image.set_data(_to_rgb(video[frame]))
            border.set(**_border(title, frame, n_past))

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
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes[0].legend()
    return fig


@plt.rc_context(STYLE)
def plot_ssim(csv_or_frame: str | pathlib.Path | pd.DataFrame) -> plt.Figure:
    """SSIM of sampled futures, of the best sample and of the mean one: over the epochs, and over time after the last.

    The table has the columns epoch, frame (of the video, from 1), best and mean.

    Raises KeyError for a table without one of them.
    """
    table = _table(csv_or_frame)
    last = table[table["epoch"] == table["epoch"].max()]
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    plt.close(fig)
    for name, color, line in (("best", BLUE, "-"), ("mean", RED, "--")):
        by_epoch = table.groupby("epoch")[name].mean()
        axes[0].plot(by_epoch.index + 1, by_epoch, color=color, linestyle=line, marker=".", label=f"{name} sample")
        axes[1].plot(last["frame"], last[name], color=color, linestyle=line, marker=".", label=f"{name} sample")
    axes[0].set(xlabel="epoch", ylabel="SSIM, mean of predicted frames")
    axes[1].set(xlabel="frame of the video", ylabel=f"SSIM after epoch {last['epoch'].iloc[0] + 1}")
    for ax in axes:
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
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

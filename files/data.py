"""Datasets: each is a `tf.data.Dataset` of float32 video [B, T, H, W, C] in [0, 1].

Moving MNIST is made inside the `tf.data` graph, videos are read there a batch at a time. Sequence i of a split is a
pure function of (seed, i): neither batch size nor parallelism changes it, and a run that is resumed at step k sees what
the uninterrupted one would have seen.
"""

import atexit
import functools
import pathlib
import threading
import time

import numpy as np
import tensorflow as tf

from files.checks import check_whole, short
from files.config import MOVING_MNIST, Config
from files.folders import SPLITS
from files.videos import Split, Table, open_videos, prepare, summary

MNIST = pathlib.Path(__file__).parent.parent / "data" / "mnist.npz"
CANVAS = 64  # pixels
MAX_SPEED = 4  # pixels per frame
VAL_DIGITS = 5000  # the last training digits are held out for validation
MAX_IMPACTS = 8  # redraws kept in stock for one digit in one frame; more than three impacts are very rare
MAX_FRAMES = (2**31 - 1) // CANVAS**2  # in a batch: pixels are counted by int32
AHEAD = tf.data.AUTOTUNE


def make_dataset(
    config: Config,
    split: str,
    *,
    batch_size: int,
    seed: int = 0,
    n_frames: int | None = None,
    start: int = 0,
    count: int | None = None,
    indices: bool = False,
    trajectories: bool = False,
    whole: bool = False,
    store: str | pathlib.Path | None = None,
    share: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Batches of video [B, T, H, W, C], float32 in [0, 1].

    `split` is train, val or test; train never ends, unless `count` is given, and depends on `seed`, as held-out data
    does not. `start` is the index of the first sequence (step * batch size when a run is resumed) and `count` the
    number of sequences; of held-out videos there are never more than windows to evaluate. The last batch may be
    smaller. With `indices` each element is a pair of video and index [B].
    With `trajectories` (Moving MNIST only) each element is a dict of `video` and, for D digits, `position`
    (float64 [B, T, D, 2], row and column of the digit's upper left corner in pixels), `velocity` (float64, the same
    shape, pixels per frame, as it is after the frame's bounces), `bounced` (bool [B, T, D]) and `digit` (uint8
    [B, D, S, S]).
    `whole` takes all videos of data that isn't divided into splits. Videos are decoded to the folder `store`, by
    default one beside them. `share`, from `tf.distribute.Strategy.distribute_datasets_from_function`, makes only what
    this worker's replicas take of each batch, in batches for one replica.

    Raises ValueError for an unknown split and for data that can't be used; FileNotFoundError for an unknown dataset or
    a path that isn't there.
    """
    if not isinstance(config, Config):
        raise TypeError(f"config is {short(config)}; expected a Config")
    check_whole(1, batch_size=batch_size, **{"n_frames": n_frames} if n_frames is not None else {})
    check_whole(0, 2**62, start=start, seed=seed, **{"count": count} if count is not None else {})
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    n_frames = n_frames or config.n_frames
    if config.data in MOVING_MNIST:
        check_pixels(batch_size * n_frames)
    source = moving_mnist if config.data in MOVING_MNIST else functools.partial(videos, whole=whole, store=store)
    if trajectories and config.data not in MOVING_MNIST:
        raise ValueError(f"trajectories are known for {', '.join(MOVING_MNIST)} only; the data is {config.data!r}")
    draw, render, length = source(config, split, n_frames, seed if split == "train" else 0)

    stop = start + count if count else (np.iinfo(np.int64).max if split == "train" else length)
    if split != "train" and config.data not in MOVING_MNIST:
        stop = min(stop, length)
    numbers = tf.data.Dataset.range(start, stop)
    if share is not None and share.num_input_pipelines > 1:
        numbers = numbers.batch(batch_size // share.num_input_pipelines)
        numbers = numbers.shard(share.num_input_pipelines, share.input_pipeline_id).unbatch()
        if count is None and split == "train":
            numbers = numbers.repeat()  # says that it never ends: workers needn't ask each other in each step
    if share is not None:
        batch_size = share.get_per_replica_batch_size(batch_size)
    sequences = numbers.map(lambda i: (draw(i), i), num_parallel_calls=AHEAD)
    batches = sequences.batch(batch_size, num_parallel_calls=AHEAD)
    shape = [None, n_frames, config.image_size, config.image_size, config.channels]

    def finish(drawn, index):
        batch = render(drawn)
        batch["video"] = tf.ensure_shape(batch["video"], shape)
        element = batch if trajectories else batch["video"]
        return (element, index) if indices else element

    batches = batches.map(finish, num_parallel_calls=AHEAD)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(AHEAD).with_options(options)


def random_key(index: tf.Tensor, seed: int, stream: int) -> tf.Tensor:
    """The key of `tf.random.stateless_*` for one sequence and one of its up to 16 streams of random numbers."""
    return tf.stack([tf.cast(index, tf.int64), tf.constant(seed * 16 + stream, tf.int64)])


# Moving MNIST -------------------------------------------------------------------------------------------------------


@functools.cache
def mnist_digits(split: str, size: int) -> np.ndarray:
    """MNIST digits [N, size, size], uint8; val is the last 5000 of the training digits.

    28 pixels are the originals; other sizes are resized bilinearly, as the authors do for 32.
    """
    with np.load(MNIST, allow_pickle=False) as arrays:
        digits = arrays["x_test"] if split == "test" else arrays["x_train"]
    if split != "test":
        digits = digits[-VAL_DIGITS:] if split == "val" else digits[:-VAL_DIGITS]
    if size == digits.shape[1]:
        return digits
    resized = tf.image.resize(digits[..., None], (size, size))[..., 0]
    return tf.cast(tf.round(resized), tf.uint8).numpy()


def moving_mnist(config: Config, split: str, n_frames: int, seed: int):
    """`draw` (index -> random numbers of one sequence), `render` (a batch of them -> video) and the split's length."""
    digits_per_video = config.num_digits
    with tf.device("CPU"):
        digits = tf.constant(mnist_digits(split, 28 if config.data == "smmnist_srvp" else 32))
    seed = 3 * seed + SPLITS.index(split)
    reach = CANVAS - digits.shape[1]  # the largest position that is still inside, in pixels
    starts = reach + 1 if config.data == "smmnist_srvp" else reach
    # Each held-out digit is used once before any is used again, as in the published test of SRVP.
    order = tf.constant(np.random.default_rng(seed).permutation(len(digits)))

    def draw(index):
        def integers(stream, shape, low, high):
            return tf.random.stateless_uniform(shape, random_key(index, seed, stream), low, high, tf.int32)

        if split == "train":
            which = integers(0, [digits_per_video], 0, len(digits))
        else:
            which = tf.gather(
                order, (index * digits_per_video + tf.range(digits_per_video, dtype=tf.int64)) % len(order)
            )
        redraws = [n_frames, MAX_IMPACTS, digits_per_video, 2]
        return {
            "digit": tf.gather(digits, which),
            "start": integers(1, [digits_per_video, 2], 0, starts),
            "speed": integers(2, [digits_per_video, 2], -MAX_SPEED, MAX_SPEED + 1),
            "free": integers(3, redraws, -MAX_SPEED, MAX_SPEED + 1),
            "inward": integers(4, redraws, 1, MAX_SPEED + 1),
        }

    render = functools.partial(render_moving_mnist, config.data)
    return draw, render, len(digits) // digits_per_video


@tf.function(reduce_retracing=True)
def render_moving_mnist(variant: str, drawn: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The numbers drawn for a batch of sequences -> `video` [B, T, 64, 64, 1], its trajectory and its digits."""
    digit = drawn["digit"]
    numbers = {name: tf.cast(value, tf.float64) for name, value in drawn.items() if name != "digit"}
    path = trajectory(variant, CANVAS - digit.shape[-1], **numbers)
    video = paste(digit, tf.cast(tf.round(path["position"]), tf.int32))[..., None]
    return {"video": video, **path, "digit": digit}


def simulate_futures(
    variant: str, sequences: dict[str, tf.Tensor], n_past: int, n_samples: int, seed: int, start: int
) -> tf.Tensor:
    """What the simulator itself would go on with: futures [B, N, F, 64, 64, 1] of Moving MNIST sequences.

    They begin with the true positions and velocities of the last given frame, which no model knows exactly, and draw
    all later bounces anew: what a model that has learned the true distribution would sample. `sequences` is a batch of
    `make_dataset(..., trajectories=True)` whose first sequence has the index `start`; the numbers drawn are a function
    of `seed` and that index.
    """
    position, velocity, digit = (sequences[name] for name in ("position", "velocity", "digit"))
    batch, frames, digits, _ = position.shape
    check_pixels(batch * n_samples * (frames - n_past + 1))
    shape = [n_samples, frames - n_past + 1, MAX_IMPACTS, digits, 2]
    generators = [np.random.default_rng([seed, index]) for index in range(start, start + batch)]

    def integers(low, high):  # [B * N, F + 1, K, D, 2]
        return np.concatenate([generator.integers(low, high, shape, np.int32) for generator in generators])

    drawn = {
        "digit": tf.repeat(digit, n_samples, 0),
        "start": tf.repeat(position[:, n_past - 1], n_samples, 0),
        "speed": tf.repeat(velocity[:, n_past - 1], n_samples, 0),
        "free": integers(-MAX_SPEED, MAX_SPEED + 1),
        "inward": integers(1, MAX_SPEED + 1),
    }
    video = render_moving_mnist(variant, drawn)["video"]
    return tf.reshape(video[:, 1:], [batch, n_samples, -1, *video.shape[2:]])  # the first is the last given frame


def trajectory(variant, reach, start, speed, free, inward):
    """Positions, velocities and bounces of a batch of digits, all float64, pixels and pixels per frame.

    `reach` is the largest position inside; `start` and `speed` are [B, D, 2]; `free` and `inward` [B, T, K, D, 2] are
    stocks of random velocities.
    """
    bounce = {"smmnist": _bounce_svg, "smmnist_srvp": _bounce_srvp, "mmnist": _bounce_deterministic}[variant]

    def step(state, redraws):
        position, velocity, _ = state
        return bounce(position + velocity, velocity, *redraws, reach=reach)

    time_major = [tf.transpose(stock, [1, 2, 0, 3, 4]) for stock in (free, inward)]  # [T, K, B, D, 2]
    # The first frame shows the start itself: one step back, so that the scan's first step arrives there.
    initial = (start - speed, speed, tf.zeros(tf.shape(start)[:-1], tf.bool))
    position, velocity, bounced = tf.scan(step, tuple(time_major), initial)
    return {
        "position": tf.transpose(position, [1, 0, 2, 3]),
        "velocity": tf.transpose(velocity, [1, 0, 2, 3]),
        "bounced": tf.transpose(bounced, [1, 0, 2]),
    }


def _hit_wall(position, velocity, axis, reach, redrawn, reflected):
    """A digit past a wall of one axis is put back on it and gets new velocities (Denton and Fergus' rule)."""
    low, high = position[..., axis] < 0, position[..., axis] >= reach
    hit = low | high
    at_low = tf.cast(low, position.dtype)
    on_wall = (1 - at_low) * (reach - 1)
    along = tf.one_hot(axis, 2, on_value=True, off_value=False)
    turned = tf.where(along, (2 * at_low - 1)[..., None] * reflected, redrawn)
    position = tf.where(hit[..., None] & along, on_wall[..., None], position)
    return position, tf.where(hit[..., None], turned, velocity), hit


def _bounce_svg(position, velocity, free, inward, reach):
    position, velocity, hit_y = _hit_wall(position, velocity, 0, reach, free[0], inward[0])
    position, velocity, hit_x = _hit_wall(position, velocity, 1, reach, free[1], inward[1])
    return position, velocity, hit_y | hit_x


def _bounce_deterministic(position, velocity, free, inward, reach):
    position, velocity, hit_y = _hit_wall(position, velocity, 0, reach, velocity, tf.abs(velocity))
    position, velocity, hit_x = _hit_wall(position, velocity, 1, reach, velocity, tf.abs(velocity))
    return position, velocity, hit_y | hit_x


def _bounce_srvp(position, velocity, free, inward, reach, tolerance=1e-8):
    """Exact points of impact, earliest first; the rest of the time step is travelled at the redrawn velocity."""

    def overshoot(position):
        return tf.maximum(-position, position - reach)

    def outside(position):
        return tf.reduce_any(overshoot(position) > tolerance, -1)

    def impact(k, position, velocity, bounced):
        past_wall = overshoot(position) > tolerance
        time_left = tf.math.divide_no_nan(overshoot(position), tf.abs(velocity)) * tf.cast(past_wall, position.dtype)
        earliest = tf.reduce_max(time_left, -1, keepdims=True)
        on_wall = past_wall & (time_left >= earliest - tolerance)
        point = position - velocity * earliest
        point = tf.where(on_wall, tf.round(point), point)
        inwards = tf.where(position < 0, tf.abs(free[k]), -tf.abs(free[k]))
        redrawn = tf.where(on_wall, inwards, free[k])
        out = tf.reduce_any(past_wall, -1)
        position = tf.where(out[..., None], point + redrawn * earliest, position)
        return k + 1, position, tf.where(out[..., None], redrawn, velocity), bounced | out

    def go_on(k, position, velocity, bounced):
        return (k < MAX_IMPACTS) & tf.reduce_any(outside(position))

    nothing = tf.zeros_like(outside(position))
    _, position, velocity, bounced = tf.while_loop(go_on, impact, (0, position, velocity, nothing))
    return tf.clip_by_value(position, 0, reach), velocity, bounced


def check_pixels(frames: int) -> None:
    """Raises ValueError for more frames in one batch than `paste` can count the pixels of."""
    if frames > MAX_FRAMES:
        raise ValueError(
            f"{frames} frames in one batch; at most {MAX_FRAMES} can be drawn at once: take smaller batches"
        )


def paste(digits, position):
    """Frames [B, T, 64, 64] of the digits [B, D, S, S] (uint8) at [B, T, D, 2], summed and clipped to [0, 1]."""
    batch, time, count = tf.unstack(tf.shape(position)[:3])
    size = digits.shape[-1]
    frame = tf.reshape(tf.range(batch * time) * CANVAS**2, [batch, time, 1])
    corner = frame + position[..., 0] * CANVAS + position[..., 1]  # [B, T, D], index of the upper left pixel
    rows, columns = tf.meshgrid(tf.range(size), tf.range(size), indexing="ij")
    pixel = corner[..., None] + tf.reshape(rows * CANVAS + columns, [-1])  # [B, T, D, S * S]
    values = tf.reshape(tf.cast(digits, tf.float32) / 255.0, [batch, 1, count, size**2])
    values = tf.broadcast_to(values, tf.shape(pixel))
    video = tf.math.unsorted_segment_sum(values, pixel, batch * time * CANVAS**2)
    return tf.minimum(tf.reshape(video, [batch, time, CANVAS, CANVAS]), 1.0)


# Videos -------------------------------------------------------------------------------------------------------------


def open_data(
    config: Config,
    split: str,
    n_frames: int,
    *,
    store: str | pathlib.Path | None = None,
    whole: bool = False,
) -> Split:
    """Opens the videos `config.data` for windows of `n_frames`, as `files/videos.py` tells; decodes them at need.

    Raises FileNotFoundError where there are none, ValueError for those that can't be used.
    """
    check_exists(config)
    return open_videos(config.data, split, **form_of(config), n_frames=n_frames, store=store, whole=whole)


def prepare_data(config: Config, store: str | pathlib.Path | None = None) -> Table:
    """Decodes the videos of all splits of `config.data`, and returns a table of them; raises as `open_data` does."""
    if config.data in MOVING_MNIST:
        raise ValueError(f"{config.data} is made as it is needed; expected the path of videos to prepare")
    check_exists(config)
    return prepare(config.data, **form_of(config), store=store)


def form_of(config: Config) -> dict[str, int | bool]:
    """What becomes of a frame."""
    return {name: getattr(config, name) for name in ("image_size", "channels", "frame_step", "crop")}


def check_exists(config: Config) -> None:
    """Raises FileNotFoundError where `config.data` is neither a dataset's name nor a path that is there."""
    if not pathlib.Path(config.data).expanduser().exists():
        raise FileNotFoundError(
            f"no dataset or file {config.data!r}; expected one of {', '.join(MOVING_MNIST)}, or the path of a video, a "
            "folder of videos, or an .npy or .npz file; data/README.md tells what is downloaded to where"
        )


def print_found(config: Config, *splits: str, n_frames: int | None = None, **options) -> None:
    """Prints a line with what `config.data` holds for some splits, and the remarks on it; `options` of `open_data`."""
    if config.data not in MOVING_MNIST:
        tables = [open_data(config, split, n_frames or config.n_frames, **options).table for split in splits]
        print(summary(tables))


class _Reading:
    """Counts the threads that read, and lets Python end only when there are none.

    A thread that wants Python's lock after its end waits for ever, and so would the removal of an iterator, for its
    batch. Pipelines come to rest as soon as their buffers are full.
    """

    def __init__(self, rest: float = 0.2):
        self.lock, self.rest, self.running, self.last = threading.Lock(), rest, 0, -rest
        atexit.register(self.wait)

    def __enter__(self) -> None:
        with self.lock:
            self.running += 1

    def __exit__(self, *_) -> None:
        with self.lock:
            self.running, self.last = self.running - 1, time.monotonic()

    def wait(self, at_most: float = 30.0) -> None:
        """Until nothing has been read for `rest` seconds."""
        end = time.monotonic() + at_most
        while (self.running or time.monotonic() - self.last < self.rest) and time.monotonic() < end:
            time.sleep(self.rest / 10)


_reading = _Reading()


def videos(config: Config, split: str, n_frames: int, seed: int, **options):
    """As `moving_mnist`, for the videos `config.data`: random windows in training, those to evaluate in the others."""
    opened = open_data(config, split, n_frames, **options)
    with tf.device("CPU"):
        clips, windows = tf.constant(opened.clips), tf.constant(opened.windows)
        cumulative = None if opened.chance is None else tf.constant(np.cumsum(opened.chance))
    pixels = opened.read(*opened.windows[:1].T, 1).dtype
    scale = 255.0 if pixels == np.uint8 else 1.0
    seed = 3 * seed + SPLITS.index(split)

    def draw_clip(key):
        if cumulative is None:
            return clips[tf.random.stateless_uniform([], key, 0, len(clips), tf.int32)]
        number = tf.random.stateless_uniform([1], key, dtype=tf.float64)
        return clips[tf.minimum(tf.searchsorted(cumulative, number, "right")[0], len(clips) - 1)]

    def draw(index):
        if split == "train":
            video, start, frames = tf.unstack(draw_clip(random_key(index, seed, 0)))
            starts = tf.cast(frames - n_frames + 1, tf.int32)
            later = tf.random.stateless_uniform([], random_key(index, seed, 1), 0, starts, tf.int32)
            return {"which": video, "first": start + tf.cast(later, tf.int64)}
        which, first = tf.unstack(windows[index])
        return {"which": which, "first": first}

    def read(which, first):
        with _reading:
            return opened.read(which, first, n_frames)

    def render(drawn):
        stored = tf.numpy_function(read, [drawn["which"], drawn["first"]], pixels, stateful=False)
        return {"video": tf.cast(stored, tf.float32) / scale}

    return draw, render, len(windows)

"""The vectorised SVG-LP graph: ELBO, generation and reconstruction without a Python loop over frames.

Training is teacher forced, so that every convolution sees all frames in one call; only the LSTMs' recurrences are scans
over time. Generation feeds frames back: its scan body is one whole step, with the samples in the batch axis.
"""

import os
import pathlib
import warnings

import keras
import numpy as np
import tensorflow as tf

from files.checks import check_number, check_whole, sentence, short
from files.config import Config
from files.hosts import several_workers
from files.models import Decoder, Encoder, FramePredictor, GaussianLSTM, StandardNormal
from files.ops import replicas
from files.state import SUFFIXES, UNREADABLE, all_finite, training_states, write_checkpoint

# The second half of a noise seed; each training step has a number above 0 of its own.
FIXED, POSTERIOR, PRIOR = 0, -1, -2

MAX_COUNT = 1_000_000  # of frames or samples in one call
MAX_TEMPERATURE = 1000.0

Gaussian = tuple[tf.Tensor, tf.Tensor]  # mu and log sigma^2, each [T-1, B, z]


class SVG(keras.Model):
    """Stochastic video generation with a learned prior (SVG-LP), a fixed one (SVG-FP) or no latent at all.

    Train it with `compile` and `fit` on batches of video [B, T, H, W, C]; see `files/train.py`. `precision` is Keras's
    dtype policy of the convolutional nets, `recompute` saves memory in training, `seed` is that of the noise. On
    several replicas the optimizer has to be the `Adam` of this module.
    """

    accumulate = 1  # small batches in a training step

    def __init__(self, config: Config, precision: str = "float32", recompute: bool = False, seed: int = 0):
        if not isinstance(config, Config):
            raise TypeError(f"config is {short(config)}; expected a Config")
        super().__init__(dtype=precision, autocast=False, name="svg")
        self.config, self.seed = config, seed
        self.z_dim = 0 if config.prior == "none" else config.z_dim
        self.encoder = Encoder(config, recompute, dtype=precision, name="encoder")
        self.decoder = Decoder(config, recompute, dtype=precision, name="decoder")
        self.frame_predictor = FramePredictor(config.g_dim, config.rnn_size, config.predictor_layers, name="predictor")
        self.posterior = self.prior = StandardNormal(self.z_dim, name="no_latent")
        if config.prior != "none":
            self.posterior = GaussianLSTM(self.z_dim, config.rnn_size, config.posterior_layers, name="posterior")
            self.prior = StandardNormal(self.z_dim, name="prior")
        if config.prior == "learned":
            self.prior = GaussianLSTM(self.z_dim, config.rnn_size, config.prior_layers, name="prior")
        # "loss" stands in for Keras's own, which counts a smaller last batch differently on several replicas.
        names = ("loss", "mse", "kld", "posterior_sigma", "prior_sigma")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}
        self.build()

    def build(self, video_shape=None) -> None:
        """Makes all weights."""
        if not self.built:
            self.built = True
            size = self.config.image_size
            SVG.call(self, tf.zeros([1, self.config.n_past + 1, size, size, self.config.channels]))

    def __call__(self, video: tf.Tensor, *args, **kwargs):
        """Keras's own, of a video that is one: errors in `call` would come with a page of its arguments."""
        check_video(video, self.config, at_least=self.least_frames)
        noise = kwargs.get("posterior_noise")
        if noise is not None:
            noise = check_noise("posterior_noise", noise, [video.shape[0], video.shape[1] - 1, self.z_dim])
            kwargs["posterior_noise"] = noise
        return super().__call__(video, *args, **kwargs)

    @property
    def least_frames(self) -> int:
        """Of a video for the ELBO."""
        return self.config.n_past + 1

    # The ELBO -------------------------------------------------------------------------------------------------------

    def call(
        self, video: tf.Tensor, training: bool = False, posterior_noise: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """The ELBO of video [B, T, H, W, C], float32 in [0, 1], in which every prediction follows from true frames.

        `posterior_noise` [B, T-1, z], float32, is N(0, 1); by default it is drawn from `seed`, in training anew for
        each step. Index t of a prediction stands for frame t + 1. Returns `h` [B, T, g], `mu`, `logvar`, `mu_p`,
        `logvar_p` [B, T-1, z], `h_pred` [B, T-1, g], `x_pred` [B, T-1, H, W, C], and `mse`, `kld`, `loss` of `elbo`.

        Raises ValueError for a video of wrong rank, size, channels, dtype, range or length, and for noise that doesn't
        fit.
        """
        x = time_major(video)  # [T, B, H, W, C]
        h, skips, q, z = self.observe(x, self._noise(x, training, posterior_noise), training)
        p, h_pred, x_pred = self.predict(h[:-1], skips, z, training)
        return self.elbo(x, h, q, p, h_pred, x_pred)

    def observe(self, x: tf.Tensor, noise: tf.Tensor, training: bool):
        """Frames x [T, B, H, W, C] -> h [T, B, g], skips, and z [T-1, B, z] from the posterior q(z_t | x_1:t)."""
        h, skips = self.encoder(x, n_skips=self._own_skips(keras.ops.shape(x)[0]), training=training)
        (mu, logvar), _ = self.posterior(h[1:])
        return h, skips, (mu, logvar), mu + tf.exp(0.5 * logvar) * noise

    def predict(self, h: tf.Tensor, skips: list[tf.Tensor], z: tf.Tensor, training: bool):
        """h of the frames before [T-1, B, g] and z -> the prior p(z_t | x_1:t-1), h_pred and x_pred, time first."""
        p, _ = self.prior(h)
        h_pred, _ = self.frame_predictor(tf.concat([h, z], -1))
        return p, h_pred, self.decoder(h_pred, self.decoder.project_skips(skips), training=training)

    def elbo(self, x, h, q: Gaussian, p: Gaussian, h_pred, x_pred) -> dict[str, tf.Tensor]:
        """All that `call` returns, batch first, and the loss: the negative of the paper's equation 3.

        With a Gaussian likelihood that is `loss` = mse + beta * kld; `mse` is summed over time and averaged over the
        rest, `kld` summed over time and z and averaged over the batch.
        """
        mse = tf.reduce_sum(tf.reduce_mean(tf.math.squared_difference(x_pred, x[1:]), [1, 2, 3, 4]))
        kld = tf.reduce_mean(tf.reduce_sum(gaussian_kl(*q, *p), [0, 2]))
        sequences = dict(h=h, mu=q[0], logvar=q[1], mu_p=p[0], logvar_p=p[1], h_pred=h_pred, x_pred=x_pred)
        outputs = {name: time_major(value) for name, value in sequences.items()}  # the same swap leads back
        return {**outputs, "mse": mse, "kld": kld, "loss": mse + self.config.beta * kld}

    def _own_skips(self, time: int | tf.Tensor) -> int | tf.Tensor:
        """How many of the T-1 predictions have a skip frame of their own; the last of these is held for the rest.

        Prediction i = 1..T-1 takes the skip of frame i-1 while i < n_past, then that of frame n_past-2 (authors' code).
        """
        return time - 1 if self.config.last_frame_skip else max(1, self.config.n_past - 1)

    def _noise(self, x: tf.Tensor, training: bool, posterior_noise: tf.Tensor | None) -> tf.Tensor:
        """N(0, 1) [T-1, B, z] for x [T, B, ...]: that given, [B, T-1, z], or drawn."""
        time, batch = keras.ops.shape(x)[:2]
        if posterior_noise is None:
            return self.drawn(tf.random.stateless_normal, [time - 1, batch, self.z_dim], 1, training)
        return time_major(tf.convert_to_tensor(posterior_noise))

    def drawn(self, draw, shape: list, axis: int, training: bool, seed_offset: int = 0) -> tf.Tensor:
        """Random numbers of this shape; sequences are along `axis`.

        In training they are this replica's share of those for the whole step, so that the number of replicas makes no
        difference; no other step has the same, and a resumed run draws them again.
        """
        stream, optimizer = tf.constant(FIXED, tf.int64), getattr(self, "optimizer", None)
        if training and optimizer is not None and tf.distribute.get_replica_context() is not None:
            stream = 1 + tf.cast(optimizer.iterations, tf.int64)
        seed = tf.stack([tf.constant(self.seed + seed_offset, tf.int64), stream])
        if not training or replicas() == 1:
            return draw(shape, seed)
        batch = shape[axis]
        whole = draw([*shape[:axis], replicas() * batch, *shape[axis + 1 :]], seed)
        before = tf.distribute.get_replica_context().replica_id_in_sync_group * batch
        return tf.gather(whole, before + tf.range(batch), axis=axis)

    # Training and validation: what Keras's `fit` and `evaluate` call ------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> tf.Tensor:
        """The loss that `call` returned, as this replica's share: gradients are summed over replicas."""
        return y_pred["loss"] / tf.distribute.get_strategy().num_replicas_in_sync

    def train_step(self, data) -> dict[str, tf.Tensor]:
        """A step of the optimizer on the gradient of the whole batch, which `accumulate` small batches add up to."""
        video, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        draws = self.step_draws(tf.shape(video)[0], video.shape[1])
        parts = tf.nest.map_structure(lambda value: tf.split(value, self.accumulate), {"video": video, **draws})
        total = []
        for k in range(self.accumulate):
            with tf.control_dependencies(total):  # one after the other, or they'd need the memory of all
                part = {name: tf.identity(values[k]) for name, values in parts.items()}
            with tf.GradientTape() as tape:
                y_pred = self(part.pop("video"), training=True, **part)
                loss = self.optimizer.scale_loss(self.compute_loss(y_pred=y_pred) / self.accumulate)
            gradients = tape.gradient(loss, self.trainable_weights)
            total = [a + b for a, b in zip(total, gradients, strict=True)] if total else gradients
            logs = self.compute_metrics(None, None, y_pred)
        if replicas() > 1:  # before loss scaling and clipping look at it
            total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, total)
        self.optimizer.apply_gradients(zip(total, self.trainable_weights, strict=True))
        return logs

    def step_draws(self, batch: tf.Tensor, time: int) -> dict[str, tf.Tensor]:
        """The random numbers that `call` takes for this replica's `batch` sequences of a training step."""
        noise = self.drawn(tf.random.stateless_normal, [time - 1, batch, self.z_dim], 1, True)
        return {"posterior_noise": time_major(noise)}

    def test_step(self, data) -> dict[str, tf.Tensor]:
        """The ELBO of video, or of (video, index): then a sequence's noise is a function of its index [B] alone."""
        video, index, _ = keras.utils.unpack_x_y_sample_weight(data)
        draws = {} if index is None else self.held_out_draws(index, video.shape[1])
        # A device may get no sequence of the last batch, and then there is nothing to compute.
        means = tf.cond(
            tf.shape(video)[0] > 0,
            lambda: self._means(self(video, **draws)),
            lambda: dict.fromkeys(self.trackers, tf.zeros([])),
        )
        return self._track(means, tf.shape(video)[0])

    def held_out_draws(self, index: tf.Tensor, time: int) -> dict[str, tf.Tensor]:
        """The random numbers that `call` takes for held-out sequences of `time` frames: functions of `index` [B]."""
        return {"posterior_noise": draw_each(tf.random.stateless_normal, [time - 1, self.z_dim], index, POSTERIOR)}

    def compute_metrics(self, x, y, y_pred, sample_weight=None) -> dict[str, tf.Tensor]:
        """Means over sequences: loss (as it is minimised), mse and kld per predicted frame, sigma of both Gaussians."""
        return self._track(self._means(y_pred), tf.shape(y_pred["mu"])[0])

    def _means(self, y_pred: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Of one batch."""
        frames = y_pred["mu"].shape[1]
        return {
            "loss": y_pred["loss"],
            "mse": y_pred["mse"] / frames,
            "kld": y_pred["kld"] / frames,
            "posterior_sigma": tf.reduce_mean(tf.exp(0.5 * y_pred["logvar"])),
            "prior_sigma": tf.reduce_mean(tf.exp(0.5 * y_pred["logvar_p"])),
        }

    def _track(self, means: dict[str, tf.Tensor], batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """The running means after one more batch, in which every sequence counts the same."""
        for name, mean in means.items():
            self.trackers[name].update_state(mean, sample_weight=batch)
        result = self.get_metrics_result()
        if several_workers(tf.distribute.get_strategy()):  # Keras takes the mean along an axis
            return {name: tf.reshape(value, [1]) for name, value in result.items()}
        return result

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        """Nothing is left to build; Keras would take a mean over replicas that fails for pairs on several workers."""

    def get_config(self):
        """Keras's own file formats are refused, with a ValueError: there is one way to save a model."""
        raise ValueError("save this model with model.save_weights_to(folder), and read it with SVG.load(folder)")

    def save(self, *args, **kwargs):
        """As `get_config`, which Keras would ask for with half of a file written."""
        self.get_config()

    # Generation -----------------------------------------------------------------------------------------------------

    def generate(
        self,
        past: tf.Tensor,
        n_future: int,
        n_samples: int = 1,
        seed: int | None = None,
        posterior_noise: tf.Tensor | None = None,
        prior_noise: tf.Tensor | None = None,
        temperature: float = 1.0,
    ) -> tf.Tensor:
        """Samples futures of `past` [B, n_past, H, W, C] -> [B, N, n_future, H, W, C], float32 in [0, 1].

        While the past lasts, z is drawn from the posterior; from then on from the prior, and predicted frames are fed
        back (paper, section 3.1). Batch norm is in evaluation mode. The same seed gives the same videos; None draws a
        new seed. Noise, where given, is N(0, 1), float32: `posterior_noise` [B, N, n_past-1, z],
        `prior_noise` [B, N, n_future, z]. `temperature`, at least 0, is a factor on the prior's sigma: below 1 the
        futures of a video differ less, and at 0 each z is the prior's mean; the paper's samples have 1.

        Raises ValueError for a bad video, or counts, noise or a temperature that don't fit.
        """
        check_whole(1, MAX_COUNT, n_future=n_future, n_samples=n_samples)
        check_whole(-(2**63), 2**63 - 1, seed=0 if seed is None else seed)
        check_number(0, MAX_TEMPERATURE, temperature=temperature)
        past = np.asarray(past)
        check_video(past, self.config, exactly=self.config.n_past)
        seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed

        def noise(given, name, frames, stream):
            shape = [len(past), n_samples, frames, self.z_dim]
            if given is None:
                return tf.random.stateless_normal(shape, [seed, stream])
            return check_noise(name, given, shape)

        return self._generate(
            tf.convert_to_tensor(past),
            noise(posterior_noise, "posterior_noise", past.shape[1] - 1, POSTERIOR),
            float(temperature) * noise(prior_noise, "prior_noise", n_future, PRIOR),
        )

    @tf.function(reduce_retracing=True)
    def _generate(self, past, posterior_noise, prior_noise):
        batch, samples = keras.ops.shape(prior_noise)[:2]

        def per_sample(value):  # [B, ...] -> [N * B, ...]
            return tf.tile(value, tf.concat([[samples], tf.ones_like(tf.shape(value)[1:])], 0))

        def time_first(noise):  # [B, N, T, z] -> [T, N * B, z]
            noise = tf.transpose(noise, [2, 1, 0, 3])
            return tf.reshape(noise, [-1, samples * batch, self.z_dim])

        # The past, once per video: only z and what depends on it differ between samples.
        h, skips = self.encoder(time_major(past))  # [P, B, g]
        (mu, logvar), _ = self.posterior(h[1:])
        _, prior_state = self.prior(h[:-1])
        repeat = [1, samples, 1]
        z = tf.tile(mu, repeat) + tf.exp(0.5 * tf.tile(logvar, repeat)) * time_first(posterior_noise)
        _, predictor_state = self.frame_predictor(tf.concat([tf.tile(h[:-1], repeat), z], -1))
        prior_state = tf.nest.map_structure(per_sample, prior_state)

        def draw_z(h, state, noise):
            (mu, logvar), state = self.prior.step(h, state)
            return mu + tf.exp(0.5 * logvar) * noise, state

        latest = tf.tile(past[None, :, -1], [samples, 1, 1, 1, 1])  # [N, B, H, W, C]
        skips = self.held_skips(skips, past.shape[1])
        video = self.imagine(latest, skips, prior_state, predictor_state, time_first(prior_noise), draw_z)
        return tf.transpose(video, [2, 1, 0, 3, 4, 5])

    def held_skips(self, skips: list[tf.Tensor], past: int) -> list[tf.Tensor]:
        """What predictions after `past` frames take from the skips of these, projected: [1, B, ...]."""
        held = max(past - 2, 0)
        return self.decoder.project_skips([skip[held : held + 1] for skip in skips])

    def imagine(self, x, skips, z_state, predictor_state, inputs, next_z, feed=lambda x_pred, given: x_pred):
        """Predicts a frame per input [T, ...] and feeds it back, batch norm in evaluation mode: [T, N, B, H, W, C].

        x [N, B, H, W, C] is the frame before; `skips` [1, B, ...] are projected, and unused with `last_frame_skip`;
        `next_z(h, z_state, input)` gives z [N * B, z] and its next state; `feed(x_pred, input)` the frame that is fed,
        and returned, instead of the prediction.
        """

        def step(before, given):
            x, z_state, predictor_state = before
            h, own_skips = self.encoder(x)  # [N, B, g]
            own_skips = self.decoder.project_skips(own_skips) if self.config.last_frame_skip else skips
            h = tf.reshape(h, [-1, self.config.g_dim])
            z, z_state = next_z(h, z_state, given)
            h_pred, predictor_state = self.frame_predictor.step(tf.concat([h, z], -1), predictor_state)
            x_pred = self.decoder(tf.reshape(h_pred, [*keras.ops.shape(x)[:2], self.config.g_dim]), own_skips)
            return feed(x_pred, given), z_state, predictor_state

        video, *_ = tf.scan(step, inputs, (x, z_state, predictor_state))
        return video

    def reconstruct(self, video: tf.Tensor, posterior_noise: tf.Tensor | None = None) -> tf.Tensor:
        """Decodes every frame but the first from the posterior: [B, T, H, W, C] -> [B, T-1, H, W, C] in [0, 1].

        Every prediction follows from true frames. Batch norm is in evaluation mode; `posterior_noise` as in `call`.

        Raises ValueError for a bad video or noise that doesn't fit.
        """
        video = np.asarray(video)
        check_video(video, self.config, at_least=self.least_frames)
        if posterior_noise is not None:
            shape = [len(video), video.shape[1] - 1, self.z_dim]
            posterior_noise = check_noise("posterior_noise", posterior_noise, shape)
        return self._reconstruct(tf.convert_to_tensor(video), posterior_noise)

    @tf.function(reduce_retracing=True)
    def _reconstruct(self, video, posterior_noise):
        return SVG.call(self, video, posterior_noise=posterior_noise)["x_pred"]

    # Checkpoints ----------------------------------------------------------------------------------------------------

    @property
    def nets(self) -> dict[str, keras.Layer]:
        """The parts that hold weights, by the names that they have in a checkpoint."""
        names = ("encoder", "decoder", "frame_predictor", "posterior", "prior")
        return {name: getattr(self, name) for name in names}

    def save_weights_to(self, folder: str | pathlib.Path) -> None:
        """Writes `config.json`, `model.index` and `model.data-00000-of-00001` (TensorFlow's checkpoint format)."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        write_checkpoint(tf.train.Checkpoint(**self.nets), folder / "model")

    @classmethod
    def load(cls, folder: str | pathlib.Path, precision: str = "float32", **overrides) -> "SVG":
        """Rebuilds a model from a folder under `checkpoints/` alone, with `overrides` of its configuration.

        It computes in float32 whatever it was trained in, unless another `precision` is asked for.

        Its weights are those of `model.index`, the best of a run; where these are missing or damaged, those of the
        newest training state that can be read, with a warning.

        Raises FileNotFoundError for a folder without a checkpoint, ValueError for one that can't be read or doesn't fit
        the configuration.
        """
        folder = pathlib.Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} is no checkpoint: it has no config.json; train one or name another folder"
            )
        refuse_ways_out(folder)
        config = Config.load(folder / "config.json", **overrides)
        prefixes, changed = [folder / "model", *training_states(folder)], f" with {overrides}" if overrides else ""
        data = [pathlib.Path(f"{prefix}{SUFFIXES[0]}") for prefix in prefixes]
        bytes_there = max((path.stat().st_size for path in data if path.is_file()), default=0)
        if 4 * config.least_weights > bytes_there:  # or a few digits in config.json would take all memory there is
            raise ValueError(
                f"no usable checkpoint in {folder}{changed}: {', '.join(prefix.name for prefix in prefixes)} have "
                f"{bytes_there} bytes at most, and the weights of such a model more"
            )
        model = cls(config, precision)
        saved, problems = tf.train.Checkpoint(**model.nets), []
        for prefix in prefixes:
            if not pathlib.Path(f"{prefix}.index").is_file():
                problems.append(f"{prefix.name}: it isn't there")
                continue
            try:
                saved.read(str(prefix)).assert_existing_objects_matched().expect_partial()
                if not all_finite(model.variables):
                    raise ValueError("it holds weights that are no finite numbers")
            except UNREADABLE as error:
                problems.append(f"{prefix.name}: {sentence(error)}")
            else:
                if problems:
                    warnings.warn(f"{folder}: loaded {prefix.name}, because of {'; '.join(problems)}", stacklevel=2)
                return model
        raise ValueError(f"no usable checkpoint in {folder}{changed}: {'; '.join(problems)}")


def refuse_ways_out(folder: pathlib.Path) -> None:
    """Raises ValueError for a checkpoint's file that is a link out of its folder, or no file at all."""
    for path in (folder / "config.json", *folder.glob("model.*"), folder / "state", *folder.glob("state/*")):
        if not pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise ValueError(f"{path} is a link that leads out of {folder}; put a copy there instead")
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is no regular file")


class Adam(keras.optimizers.Adam):
    """Keras's, for gradients that `SVG.train_step` has summed over replicas.

    Keras sums them after it has clipped them, and after loss scaling has looked for what isn't finite: each replica's
    by itself, so that the step would depend on the number of replicas.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return list(grads_and_vars)


def check_video(
    video: tf.Tensor | np.ndarray, config: Config, at_least: int | None = None, exactly: int | None = None
) -> None:
    """Raises ValueError unless `video` is float32 [B, T, H, W, C] of the configured size, with values in [0, 1].

    Values are looked at only outside a graph.
    """
    if not hasattr(video, "shape") or not hasattr(video, "dtype"):
        raise ValueError(f"video is {short(video)}; expected an array")
    shape = tuple(video.shape)
    frame = (config.image_size, config.image_size, config.channels)
    if len(shape) != 5 or shape[2:] != frame:
        raise ValueError(f"video has shape {shape}; expected [B, T, {', '.join(map(str, frame))}]")
    dtype = tf.as_dtype(video.dtype)
    if dtype != tf.float32:
        raise ValueError(f"video is {dtype.name}; expected float32 in [0, 1] (divide uint8 by 255)")
    if exactly is not None and shape[1] != exactly:
        raise ValueError(f"video has {shape[1]} frames; expected the {exactly} that the model conditions on (n_past)")
    if at_least is not None and (shape[1] is None or shape[1] < at_least):
        raise ValueError(f"video has {shape[1]} frames; expected at least {at_least}")
    if 0 in shape:
        raise ValueError(f"video of shape {shape} is empty")
    if not tf.is_symbolic_tensor(video):
        low, high = float(np.min(video)), float(np.max(video))
        if not (low >= 0 and high <= 1):
            raise ValueError(f"video has values from {low} to {high}; expected [0, 1] without NaN")


def check_noise(name: str, noise: tf.Tensor | np.ndarray, shape: list[int | None]) -> tf.Tensor:
    """The noise as a tensor; raises ValueError unless it is float32 of this shape, in which None is unknown yet."""
    noise = noise if hasattr(noise, "dtype") else np.asarray(noise)
    dtype, given = tf.as_dtype(noise.dtype).name, list(noise.shape)
    same = len(given) == len(shape) and all(a == b or None in (a, b) for a, b in zip(given, shape, strict=True))
    if not same or dtype != "float32":
        raise ValueError(f"{name} is {dtype} of shape {given}; expected float32 of shape {shape}")
    return tf.convert_to_tensor(noise)


def draw_each(draw, shape: list[int], index: tf.Tensor, stream: int) -> tf.Tensor:
    """Random numbers [B, *shape]: for each sequence `draw(shape, seed)`, whose seed is its index [B] and the stream."""
    seeds = tf.stack([tf.cast(index, tf.int64), tf.fill(tf.shape(index), tf.constant(stream, tf.int64))], -1)
    return tf.map_fn(lambda seed: draw(shape, seed), seeds, fn_output_signature=tf.TensorSpec(shape))


def time_major(x: tf.Tensor) -> tf.Tensor:
    """[B, T, ...] -> [T, B, ...], and back."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def gaussian_kl(mu: tf.Tensor, logvar: tf.Tensor, mu_p: tf.Tensor, logvar_p: tf.Tensor) -> tf.Tensor:
    """KL(N(mu, exp(logvar)) || N(mu_p, exp(logvar_p))) of each element, in nats."""
    distance = tf.exp(logvar) + tf.math.squared_difference(mu, mu_p)
    return 0.5 * (logvar_p - logvar + distance / tf.exp(logvar_p) - 1)

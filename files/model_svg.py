"""The vectorised SVG-LP graph: ELBO, training, generation and reconstruction without a Python loop over frames.

Training is teacher forced, so that every convolution sees all frames in one call; only the LSTMs' recurrences are scans
over time. Generation feeds frames back: its scan body is one whole step, with the samples in the batch axis. Training
on own frames makes these by the same scan first, and then treats them as the given ones.
"""

import os
import pathlib
import warnings

import keras
import numpy as np
import tensorflow as tf

from files.config import Config
from files.models import Decoder, Encoder, FramePredictor, GaussianLSTM, StandardNormal

# The second half of a noise seed; training step k of replica r has a number above 0 of its own.
TEACHER_FORCED, POSTERIOR, PRIOR = 0, -1, -2
COINS = 7  # added to the first half: draws of their own

# What TensorFlow raises for a checkpoint that is missing, torn or of another shape.
UNREADABLE = (tf.errors.OpError, ValueError, AssertionError, IndexError)


class SVG(keras.Model):
    """Stochastic video generation with a learned prior (SVG-LP), a fixed one (SVG-FP) or no latent at all.

    Train it with `compile` and `fit` on batches of video [B, T, H, W, C]; see `files/train.py`.
    """

    def __init__(self, config: Config):
        super().__init__(dtype=config.precision, autocast=False, name="svg")
        self.config = config
        self.z_dim = 0 if config.prior == "none" else config.z_dim
        self.encoder = Encoder(config, dtype=config.precision, name="encoder")
        self.decoder = Decoder(config, dtype=config.precision, name="decoder")
        self.frame_predictor = FramePredictor(config.g_dim, config.rnn_size, config.predictor_layers, name="predictor")
        self.posterior = self.prior = StandardNormal(self.z_dim, name="no_latent")
        if config.prior != "none":
            self.posterior = GaussianLSTM(self.z_dim, config.rnn_size, config.posterior_layers, name="posterior")
            self.prior = StandardNormal(self.z_dim, name="prior")
        if config.prior == "learned":
            self.prior = GaussianLSTM(self.z_dim, config.rnn_size, config.prior_layers, name="prior")
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in ("mse", "kld", "posterior_sigma", "prior_sigma")
        }
        self.build()

    def build(self, video_shape=None) -> None:
        """Makes all weights."""
        if not self.built:
            self.built = True
            size = self.config.image_size
            self.call(tf.zeros([1, self.config.n_past + 1, size, size, self.config.channels]))

    # The graph of training ------------------------------------------------------------------------------------------

    def call(
        self,
        video: tf.Tensor,
        training: bool = False,
        posterior_noise: tf.Tensor | None = None,
        teacher_forcing: float | None = None,
    ) -> dict[str, tf.Tensor]:
        """One pass over video [B, T, H, W, C], float32 in [0, 1]; from true frames, the losses are those of the ELBO.

        `posterior_noise` [B, T-1, z] is N(0, 1); by default it is drawn from the configured seed, in training anew for
        each step. Index t of a prediction stands for frame t + 1. `teacher_forcing`, by default as configured, is the
        probability that predictor and prior see a true frame after the past; below 1, the others are the model's own,
        and batch norm is in evaluation mode in training, too.

        Returns `h` [B, T, g], `mu`, `logvar`, `mu_p`, `logvar_p` [B, T-1, z], `h_pred` [B, T-1, g],
        `x_pred` [B, T-1, H, W, C], and the scalars `mse` (summed over time, averaged over the rest), `kld` (summed
        over time and z, averaged over the batch) and `loss` = mse + beta * kld (the negative of the paper's equation 3,
        with a Gaussian likelihood).

        Raises ValueError for a video of wrong rank, size, channels, dtype, range or length.
        """
        check_video(video, self.config, at_least=self.config.n_past + 1)
        x = time_major(video)  # [T, B, H, W, C]
        time, batch = x.shape[0], tf.shape(x)[1]
        if posterior_noise is None:
            noise = tf.random.stateless_normal([time - 1, batch, self.z_dim], self._noise_seed(training))
        else:
            noise = time_major(posterior_noise)

        if teacher_forcing is None:
            teacher_forcing = self.config.teacher_forcing
        batch_norm = training and teacher_forcing == 1
        h, skips = self.encoder(x, n_skips=self._own_skips(time), training=batch_norm)  # h: [T, B, g]
        (mu, logvar), _ = self.posterior(h[1:])  # q(z_t | x_1:t), [T-1, B, z]
        z = mu + tf.exp(0.5 * logvar) * noise
        h_fed = h[:-1]
        if teacher_forcing < 1 and time > self.config.n_past + 1:
            coins_seed = self._noise_seed(training) + tf.constant([COINS, 0], tf.int64)
            is_true = tf.random.stateless_uniform([time, batch, 1, 1, 1], coins_seed) < teacher_forcing
            h_fed, skips = self._with_own_frames(x, h, skips, z, is_true)
        (mu_p, logvar_p), _ = self.prior(h_fed)  # p(z_t | x_1:t-1)
        h_pred, _ = self.frame_predictor(tf.concat([h_fed, z], -1))
        x_pred = self.decoder(h_pred, self.decoder.project_skips(skips), training=batch_norm)  # [T-1, B, H, W, C]

        mse = tf.reduce_sum(tf.reduce_mean(tf.math.squared_difference(x_pred, x[1:]), [1, 2, 3, 4]))
        kld = tf.reduce_sum(gaussian_kl(mu, logvar, mu_p, logvar_p)) / tf.cast(batch, tf.float32)
        sequences = dict(h=h, mu=mu, logvar=logvar, mu_p=mu_p, logvar_p=logvar_p, h_pred=h_pred, x_pred=x_pred)
        outputs = {name: time_major(value) for name, value in sequences.items()}  # the same swap leads back
        return {**outputs, "mse": mse, "kld": kld, "loss": mse + self.config.beta * kld}

    def _with_own_frames(self, x, h, skips, z, is_true):
        """h [T-1, B, g] and skips of the frames that are fed: after the past, the model's own but where `is_true`.

        The own frames follow from z; no gradient goes through their pixels (scheduled sampling with a constant
        probability: Bengio et al., 2015, section 2.4).
        """
        past = self.config.n_past

        def next_z(h, state, given):
            return given[0], state

        def feed(x_pred, given):
            return tf.where(given[2], given[1], x_pred)

        _, state = self.frame_predictor(tf.concat([h[: past - 1], z[: past - 1]], -1))
        inputs = z[past - 1 : -1], x[past:-1], is_true[past:-1]
        fed = self._feed_back(h[past - 1], self._held_skips(skips, past), (), state, inputs, next_z, feed)
        h_fed, fed_skips = self.encoder(tf.stop_gradient(fed[:, 0]))
        if self.config.last_frame_skip:
            skips = [tf.concat([skip[:past], later], 0) for skip, later in zip(skips, fed_skips, strict=True)]
        return tf.concat([h[:past], h_fed], 0), skips

    def _own_skips(self, time: int) -> int:
        """How many of the T-1 predictions have a skip frame of their own; the last of these is held for the rest.

        Prediction i = 1..T-1 takes the skip of frame i-1 while i < n_past, then that of frame n_past-2 (authors' code).
        """
        return time - 1 if self.config.last_frame_skip else max(1, self.config.n_past - 1)

    def _noise_seed(self, training: bool) -> tf.Tensor:
        """Two numbers that, in training, no other step or replica has: a resumed run draws the same noise again."""
        stream = tf.constant(TEACHER_FORCED, tf.int64)
        optimizer, replica = getattr(self, "optimizer", None), tf.distribute.get_replica_context()
        if training and optimizer is not None and replica is not None:
            draws_before = tf.cast(optimizer.iterations, tf.int64) * replica.num_replicas_in_sync
            stream = 1 + draws_before + tf.cast(replica.replica_id_in_sync_group, tf.int64)
        return tf.stack([tf.constant(self.config.seed, tf.int64), stream])

    # Keras's train_step and test_step call these two ----------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> tf.Tensor:
        """The loss that `call` returned, as this replica's share: gradients are summed over replicas."""
        return y_pred["loss"] / tf.distribute.get_strategy().num_replicas_in_sync

    def compute_metrics(self, x, y, y_pred, sample_weight=None) -> dict[str, tf.Tensor]:
        """Running means: loss (as it is minimised), mse and kld per predicted frame, mean sigma of both Gaussians."""
        frames = y_pred["mu"].shape[1]
        values = {
            "mse": y_pred["mse"] / frames,
            "kld": y_pred["kld"] / frames,
            "posterior_sigma": tf.exp(0.5 * y_pred["logvar"]),
            "prior_sigma": tf.exp(0.5 * y_pred["logvar_p"]),
        }
        for name, value in values.items():
            self.trackers[name].update_state(value)
        return self.get_metrics_result()

    # Generation -----------------------------------------------------------------------------------------------------

    def generate(
        self,
        past: tf.Tensor,
        n_future: int,
        n_samples: int = 1,
        seed: int | None = None,
        posterior_noise: tf.Tensor | None = None,
        prior_noise: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Samples futures of `past` [B, n_past, H, W, C] -> [B, N, n_future, H, W, C], float32 in [0, 1].

        While the past lasts, z is drawn from the posterior; from then on from the prior, and predicted frames are fed
        back (paper, section 3.1). Batch norm is in evaluation mode. The same seed gives the same videos; None draws a
        new seed. Noise, where given, is N(0, 1): `posterior_noise` [B, N, n_past-1, z], `prior_noise`
        [B, N, n_future, z].

        Raises ValueError for a bad video, or counts or noise that don't fit.
        """
        for name, value in (("n_future", n_future), ("n_samples", n_samples)):
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        past = np.asarray(past)
        check_video(past, self.config, exactly=self.config.n_past)
        seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed

        def noise(given, name, frames, stream):
            shape = [len(past), n_samples, frames, self.z_dim]
            if given is None:
                return tf.random.stateless_normal(shape, [seed, stream])
            if list(given.shape) != shape:
                raise ValueError(f"{name} has shape {list(given.shape)}; expected {shape}")
            return tf.convert_to_tensor(given, tf.float32)

        return self._generate(
            tf.convert_to_tensor(past),
            noise(posterior_noise, "posterior_noise", past.shape[1] - 1, POSTERIOR),
            noise(prior_noise, "prior_noise", n_future, PRIOR),
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

        held = self._held_skips(skips, past.shape[1])
        noise = time_first(prior_noise)
        video = self._feed_back(per_sample(h[-1]), held, prior_state, predictor_state, noise, draw_z)
        return tf.transpose(video, [2, 1, 0, 3, 4, 5])

    def _held_skips(self, skips, past: int) -> list[tf.Tensor]:
        """What the first prediction after `past` frames takes from the skips of these, projected: [1, B, ...]."""
        held = past - 1 if self.config.last_frame_skip else max(past - 2, 0)
        return self.decoder.project_skips([skip[held : held + 1] for skip in skips])

    def _feed_back(self, h, skips, z_state, predictor_state, inputs, next_z, feed=lambda x_pred, given: x_pred):
        """Predicts a frame per input [T, ...] and feeds it back, batch norm in evaluation mode: [T, N, B, H, W, C].

        h [N * B, g] is that of the frame before; `skips` [1, B, ...] are projected, and held but with
        `last_frame_skip`; `next_z(h, z_state, input)` gives z [N * B, z] and its next state; `feed(x_pred, input)` the
        frame that is fed, and returned, instead of the prediction [N, B, H, W, C].
        """
        batch = keras.ops.shape(skips[0])[1]

        def predict(h, skips, z_state, predictor_state, given):
            """One frame: h [N * B, g] of the frame before -> x [N, B, H, W, C] and the states."""
            z, z_state = next_z(h, z_state, given)
            h_pred, predictor_state = self.frame_predictor.step(tf.concat([h, z], -1), predictor_state)
            h_pred = tf.reshape(h_pred, [-1, batch, self.config.g_dim])
            return feed(self.decoder(h_pred, skips), given), z_state, predictor_state

        def step(before, given):
            x, z_state, predictor_state = before
            h, own_skips = self.encoder(x)  # [N, B, g]
            own_skips = self.decoder.project_skips(own_skips) if self.config.last_frame_skip else skips
            h = tf.reshape(h, [-1, self.config.g_dim])
            return predict(h, own_skips, z_state, predictor_state, given)

        # The first frame follows from the given past; the scan encodes a predicted frame in each step.
        first_input, later_inputs = (tf.nest.map_structure(cut, inputs) for cut in (lambda v: v[0], lambda v: v[1:]))
        first = predict(h, skips, z_state, predictor_state, first_input)
        later, *_ = tf.scan(step, later_inputs, first)
        return tf.concat([first[0][None], later], 0)

    def reconstruct(self, video: tf.Tensor, posterior_noise: tf.Tensor | None = None) -> tf.Tensor:
        """Decodes every frame but the first from the posterior: [B, T, H, W, C] -> [B, T-1, H, W, C] in [0, 1].

        Every prediction follows from true frames. Batch norm is in evaluation mode; `posterior_noise` as in `call`.

        Raises ValueError for a bad video.
        """
        video = np.asarray(video)
        check_video(video, self.config, at_least=self.config.n_past + 1)
        return self._reconstruct(tf.convert_to_tensor(video), posterior_noise)

    @tf.function
    def _reconstruct(self, video, posterior_noise):
        return self(video, training=False, posterior_noise=posterior_noise, teacher_forcing=1.0)["x_pred"]

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
        # Under another name first: whoever is killed while writing keeps the file before.
        tf.train.Checkpoint(**self.nets).write(str(folder / "writing"))
        for suffix in (".data-00000-of-00001", ".index"):
            os.replace(folder / f"writing{suffix}", folder / f"model{suffix}")

    @classmethod
    def load(cls, folder: str | pathlib.Path, **overrides) -> "SVG":
        """Rebuilds a model from a folder under `checkpoints/` alone, with `overrides` of its configuration.

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
        stored = Config.load(folder / "config.json")
        model = cls(stored.replace(**overrides))
        saved, problems = tf.train.Checkpoint(**model.nets), []
        for prefix in [folder / "model", *training_states(folder)]:
            try:
                saved.read(str(prefix)).assert_existing_objects_matched().expect_partial()
            except UNREADABLE as error:
                problems.append(f"{prefix.name}: {str(error).strip().splitlines()[0]}")
            else:
                if problems:
                    warnings.warn(f"{folder}: loaded {prefix.name}, because of {'; '.join(problems)}", stacklevel=2)
                return model
        changed = f" with {overrides}" if overrides else ""
        raise ValueError(f"no usable checkpoint in {folder}{changed}: {'; '.join(problems)}")


def training_states(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints of training states in a folder under `checkpoints/`, newest first."""
    states = pathlib.Path(folder, "state").glob("step-*.index")
    return sorted((path.with_suffix("") for path in states), key=state_step, reverse=True)


def state_step(prefix: pathlib.Path) -> int:
    """After how many steps a training state was saved: 3000 for `step-3000` and `step-3000-before-decay`."""
    return int(prefix.name.split("-")[1])


def check_video(
    video: tf.Tensor | np.ndarray, config: Config, at_least: int | None = None, exactly: int | None = None
) -> None:
    """Raises ValueError unless `video` is float32 [B, T, H, W, C] of the configured size, with values in [0, 1].

    Values are looked at only outside a graph.
    """
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


def time_major(x: tf.Tensor) -> tf.Tensor:
    """[B, T, ...] -> [T, B, ...], and back."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def gaussian_kl(mu: tf.Tensor, logvar: tf.Tensor, mu_p: tf.Tensor, logvar_p: tf.Tensor) -> tf.Tensor:
    """KL(N(mu, exp(logvar)) || N(mu_p, exp(logvar_p))) of each element, in nats."""
    distance = tf.exp(logvar) + tf.math.squared_difference(mu, mu_p)
    return 0.5 * (logvar_p - logvar + distance / tf.exp(logvar_p) - 1)

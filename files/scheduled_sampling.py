"""Scheduled sampling (Bengio et al. 2015), which isn't in the paper: training on frames that the model made itself.

Generation feeds frames back that training with teacher forcing never shows. Here each frame after the past is, with a
constant probability, the model's own (their section 2.4). Only training knows this class: `SVG.load` gives an `SVG`.
"""

import tensorflow as tf

from files.config import Config
from files.model_svg import SVG, draw_each, time_major

COINS = 7  # a stream of random numbers of their own


class ScheduledSamplingSVG(SVG):
    """An SVG whose loss, in training and validation, is that of frames fed as they are with a probability only."""

    def __init__(self, config: Config, teacher_forcing: float, **kwargs):
        super().__init__(config, **kwargs)
        self.teacher_forcing = teacher_forcing

    @property
    def least_frames(self) -> int:
        """Of a video for the ELBO: at least one frame is fed after the past."""
        return self.config.n_past + 2

    def call(
        self,
        video: tf.Tensor,
        training: bool = False,
        posterior_noise: tf.Tensor | None = None,
        coins: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """As `SVG.call`; predictor and prior see a true frame after the past where a coin is below `teacher_forcing`.

        `coins` [B, T] are uniform in [0, 1), by default drawn as the noise is. The targets are the true frames. No
        gradient goes through the pixels of an own frame, and batch norm is in evaluation mode, as it will be when
        sampling.
        """
        x = time_major(video)  # [T, B, H, W, C]
        if coins is None:
            coins = self._coins(tf.shape(x)[1], x.shape[0], training)
        is_true = tf.transpose(coins)[:, :, None, None, None] < self.teacher_forcing
        h, skips, q, z = self.observe(x, self._noise(x, training, posterior_noise), training=False)
        h_fed, skips = self.with_own_frames(x, h, skips, z, is_true)
        p, h_pred, x_pred = self.predict(h_fed, skips, z, training=False)
        return self.elbo(x, h, q, p, h_pred, x_pred)

    def _coins(self, batch: tf.Tensor, time: int, training: bool) -> tf.Tensor:
        return self.drawn(tf.random.stateless_uniform, [batch, time], 0, training, COINS)

    def step_draws(self, batch: tf.Tensor, time: int) -> dict[str, tf.Tensor]:
        """As in `SVG`, and the coins."""
        return {**super().step_draws(batch, time), "coins": self._coins(batch, time, training=True)}

    def held_out_draws(self, index: tf.Tensor, time: int) -> dict[str, tf.Tensor]:
        """As in `SVG`, and the coins."""
        coins = draw_each(tf.random.stateless_uniform, [time], index, COINS)
        return {**super().held_out_draws(index, time), "coins": coins}

    def with_own_frames(self, x, h, skips, z, is_true):
        """h [T-1, B, g] and skips of the frames that are fed: after the past, the model's own but where `is_true`."""
        past = self.config.n_past

        def next_z(h, state, given):
            return given[0], state

        def feed(x_pred, given):
            return tf.where(given[2], given[1], x_pred)

        _, state = self.frame_predictor(tf.concat([h[: past - 1], z[: past - 1]], -1))
        inputs = z[past - 1 : -1], x[past:-1], is_true[past:-1]
        fed = self.imagine(x[None, past - 1], self.held_skips(skips, past), (), state, inputs, next_z, feed)
        h_fed, fed_skips = self.encoder(tf.stop_gradient(fed[:, 0]))
        if self.config.last_frame_skip:
            skips = [tf.concat([skip[:past], later], 0) for skip, later in zip(skips, fed_skips, strict=True)]
        return tf.concat([h[:past], h_fed], 0), skips

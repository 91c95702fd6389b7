"""The comparison: the same model, weights and layers driven as a Python loop over frames, as the authors drive theirs.

Each training step encodes frames i-1 and i, and decodes with its skip connections, one frame at a time; each sample of
a video repeats the conditioning. Under `tf.function` the loop unrolls into a graph that grows with the video.
"""

import tensorflow as tf

from files.model_svg import SVG, gaussian_kl


def draw_z(gaussian, noise: tf.Tensor) -> tf.Tensor:
    """z [B, z] from (mu, logvar) and N(0, 1) noise of the same shape."""
    mu, logvar = gaussian
    return mu + tf.exp(0.5 * logvar) * noise


def encode(model: SVG, frame: tf.Tensor, training: bool = False):
    """[B, H, W, C] -> h [B, g] and skips, each [1, B, ...]."""
    h, skips = model.encoder(frame[None], training=training)
    return h[0], skips


def decode(model: SVG, h: tf.Tensor, skips: list[tf.Tensor], training: bool = False) -> tf.Tensor:
    """h [B, g] and skips, each [1, B, ...] -> [B, H, W, C]: both halves of each level, as for `concat([x, skip])`."""
    return model.decoder(h[None], model.decoder.project_skips(skips), training=training)[0]


def loop_loss(model: SVG, video: tf.Tensor, noise: tf.Tensor, training: bool = False) -> tf.Tensor:
    """The loss of video [B, T, H, W, C] with posterior noise [B, T-1, z], frame by frame."""
    config, batch = model.config, tf.shape(video)[0]
    nets = (model.posterior, model.prior, model.frame_predictor)
    posterior_state, prior_state, predictor_state = (net.initial_state(batch) for net in nets)
    mse = kld = 0.0
    for i in range(1, video.shape[1]):
        h, own_skips = encode(model, video[:, i - 1], training)
        h_target, _ = encode(model, video[:, i], training)
        if i == 1 or i < config.n_past or config.last_frame_skip:
            skips = own_skips
        posterior, posterior_state = model.posterior.step(h_target, posterior_state)
        prior, prior_state = model.prior.step(h, prior_state)
        z = draw_z(posterior, noise[:, i - 1])
        h_pred, predictor_state = model.frame_predictor.step(tf.concat([h, z], -1), predictor_state)
        x_pred = decode(model, h_pred, skips, training)
        mse += tf.reduce_mean(tf.math.squared_difference(x_pred, video[:, i]))
        kld += tf.reduce_sum(gaussian_kl(*posterior, *prior)) / tf.cast(batch, tf.float32)
    return mse + config.beta * kld


@tf.function
def loop_sample(model: SVG, past: tf.Tensor, posterior_noise: tf.Tensor, prior_noise: tf.Tensor) -> tf.Tensor:
    """One sample, conditioning included: past [B, P, H, W, C], noise [B, P-1, z] and [B, T, z] -> [B, T, H, W, C]."""
    config, batch = model.config, tf.shape(past)[0]
    nets = (model.posterior, model.prior, model.frame_predictor)
    posterior_state, prior_state, predictor_state = (net.initial_state(batch) for net in nets)
    x, n_past = past[:, 0], past.shape[1]
    predicted = []
    for i in range(1, n_past + prior_noise.shape[1]):
        h, own_skips = encode(model, x)
        if i == 1 or i < n_past or config.last_frame_skip:
            skips = own_skips
        prior, prior_state = model.prior.step(h, prior_state)
        if i < n_past:
            h_target, _ = encode(model, past[:, i])
            posterior, posterior_state = model.posterior.step(h_target, posterior_state)
            z = draw_z(posterior, posterior_noise[:, i - 1])
        else:
            z = draw_z(prior, prior_noise[:, i - n_past])
        h_pred, predictor_state = model.frame_predictor.step(tf.concat([h, z], -1), predictor_state)
        x = past[:, i] if i < n_past else decode(model, h_pred, skips)
        if i >= n_past:
            predicted.append(x)
    return tf.stack(predicted, 1)


def loop_generate(model: SVG, past, posterior_noise, prior_noise) -> tf.Tensor:
    """As `SVG.generate` with given noise, one sample after the other: -> [B, N, T, H, W, C]."""
    past, posterior_noise, prior_noise = map(tf.convert_to_tensor, (past, posterior_noise, prior_noise))
    samples = range(prior_noise.shape[1])
    return tf.stack([loop_sample(model, past, posterior_noise[:, n], prior_noise[:, n]) for n in samples], 1)

"""What the evaluation keeps of a batch of sequences: scores of samples and of reference rows, frame by frame.

All of it is a function of a sequence, its index and the seed, not of the batch.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from files import digits
from files.config import Config
from files.data import mnist_digits, simulate_futures
from files.model_svg import SVG, gaussian_kl, time_major
from files.ops import has_gpu
from files.perceptual import Distance, lpips_scores
from files.protocols import PROTOCOLS, protocol_scores
from files.scores import REFERENCES, Scores
from files.utils import graph_ssim

PSNR_CAP = 10 * np.log10(12 * 255**2)  # dB; the error of rounding to 8 bits, where equal frames would give infinity
DIGIT_SAMPLES = 10  # of each sequence, in which digits are looked for


def score_batch(
    model: SVG, config: Config, batch: dict[str, tf.Tensor], options, start: int, lpips: Distance | None = None
) -> Scores:
    """All that the evaluation keeps of a batch of sequences, whose first has the index `start`.

    With B sequences of T frames, F of them predicted, and N samples: `psnr`, `ssim` and, with `lpips`, that too
    [B, N, F], for Moving MNIST also `psnr_simulator` and so on; `psnr_posterior` and so on [B, F], `spread` and `error`
    [B, F] (mean variance of the samples and squared error of their mean), mean pixel values `brightness` [B, N, F] and
    `brightness_truth` [B, F], `squared_error` [B, K, T-1], `log_ratio` [B, K], `kl` and `prior_sigma` [B, T-1],
    `bounced` [B, T], `sha256` [B, 32], `index` [B]; those of `digit_scores`, and of `protocol_scores`, [B, N] or for
    references [B].
    """
    video, n_past = batch["video"], model.config.n_past
    future, indices = video[:, n_past:], range(start, start + len(video))
    unrounded = samples_of(model, video[:, :n_past], options, indices)
    if not bool(tf.reduce_all(tf.math.is_finite(unrounded))):
        raise ValueError(f"samples of sequences {start} to {indices[-1]} are no finite numbers: the weights are broken")
    importance = importance_noise(model, video, options, indices)
    rows = references(model, video, importance[:, 0])

    samples, rounded = to_8_bits(unrounded), to_8_bits(tf.stack([rows[row] for row in REFERENCES], 1))

    def score(predictions):
        more = {} if lpips is None else {"lpips": lpips_scores(lpips, predictions, future)}
        return frame_scores(predictions, future) | more

    scores, of_references = score(samples), score(rounded)
    scores |= {f"{name}_{row}": v[:, k] for name, v in of_references.items() for k, row in enumerate(REFERENCES)}
    if "velocity" in batch:
        simulated = simulate_futures(config.data, batch, n_past, options.n_samples, options.seed, start)
        scores |= {f"{name}_simulator": values for name, values in score(to_8_bits(simulated)).items()}
        best = tf.gather(samples, tf.argmax(tf.reduce_mean(scores["ssim"], -1), 1), batch_dims=1)
        shown = {name: rounded[:, REFERENCES.index(name)] for name in ("posterior", "own_frames")}
        shown |= {"samples": samples[:, :DIGIT_SAMPLES], "best": best, "simulator": simulated[:, 0]}
        scores |= digit_scores(shown, batch, n_past, options.seed, indices)
    if options.protocol:
        protocol = PROTOCOLS[options.protocol]
        scores |= {f"protocol_{name}": values for name, values in protocol_scores(protocol, unrounded, future).items()}
        found = protocol_scores(protocol, tf.stack([rows[row] for row in REFERENCES], 1), future)
        scores |= {f"protocol_{name}_{row}": v[:, k] for name, v in found.items() for k, row in enumerate(REFERENCES)}
    scores |= spread_and_error(samples, future)
    scores |= {"brightness": tf.reduce_mean(samples, [3, 4, 5]), "brightness_truth": tf.reduce_mean(future, [2, 3, 4])}
    scores |= posterior_scores(model, video, importance)
    scores = {name: np.asarray(value) for name, value in scores.items()}
    scores["bounced"] = np.any(batch["bounced"], -1) if "bounced" in batch else np.zeros(video.shape[:2], bool)
    digests = [hashlib.sha256(sequence.tobytes()).digest() for sequence in video.numpy()]
    scores["sha256"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    scores["index"] = np.array(indices)
    return scores


# What is scored -----------------------------------------------------------------------------------------------------


def noise(seed: int, indices: Iterable[int], stream: int, shape: tuple[int, ...]) -> np.ndarray:
    """N(0, 1) of `shape` for each sequence: a function of seed and index, not of the batch."""
    draws = [np.random.default_rng([seed, index, stream]).standard_normal(shape, np.float32) for index in indices]
    return np.stack(draws)


def samples_of(model: SVG, past: tf.Tensor, options, indices: Iterable[int]) -> tf.Tensor:
    """The samples [B, N, F, H, W, C] that the evaluation scores, of past [B, n_past, H, W, C] with these indices."""
    latents, n_samples = model.z_dim, options.n_samples
    return model.generate(
        past,
        options.n_future,
        n_samples,
        posterior_noise=noise(options.seed, indices, 0, (n_samples, past.shape[1] - 1, latents)),
        prior_noise=noise(options.seed, indices, 1, (n_samples, options.n_future, latents)),
        temperature=options.temperature,
    )


def importance_noise(model: SVG, video: tf.Tensor, options, indices: Iterable[int]) -> tf.Tensor:
    """The noise [B, K, T-1, z] of the posterior samples; the first is that of the reconstructions."""
    return tf.constant(noise(options.seed, indices, 2, (options.n_importance, video.shape[1] - 1, model.z_dim)))


def references(model: SVG, video: tf.Tensor, posterior_noise: tf.Tensor) -> dict[str, tf.Tensor]:
    """The predictions [B, F, H, W, C] that samples are compared with, for video [B, T, H, W, C] and noise [B, T-1, z].

    `posterior` follows from true frames, `own_frames` from the model's own ones, both with the posterior's z, which
    knows the true future; `repeat` is the last given frame, `black` all zeros.
    """
    n_past = model.config.n_past
    future = video[:, n_past:]
    return {
        "posterior": model.reconstruct(video, posterior_noise)[:, n_past - 1 :],
        "own_frames": own_frames(model, video, posterior_noise),
        "repeat": tf.repeat(video[:, n_past - 1 : n_past], future.shape[1], axis=1),
        "black": tf.zeros_like(future),
    }


@tf.function(reduce_retracing=True)
def own_frames(model: SVG, video: tf.Tensor, posterior_noise: tf.Tensor) -> tf.Tensor:
    """Future of video [B, T, H, W, C] from own frames fed back, with z from the posterior: [B, F, H, W, C].

    As `generate`, but that z knows every move. What is wrong here is wrong with the nets; what samples miss beside it
    is the prior's.
    """
    x, n_past = time_major(video), model.config.n_past
    h, skips, _, z = model.observe(x, time_major(posterior_noise), training=False)
    _, state = model.frame_predictor(tf.concat([h[: n_past - 1], z[: n_past - 1]], -1))
    skips = model.held_skips(skips, n_past)
    future = model.imagine(x[None, n_past - 1], skips, (), state, z[n_past - 1 :], lambda h, state, z: (z, state))
    return time_major(future[:, 0])


# Scores -------------------------------------------------------------------------------------------------------------


def digit_scores(shown: dict, batch: dict, n_past: int, seed: int, indices: Iterable[int]) -> Scores:
    """How well the true digits explain frames, and how far from their places they are then (see files/digits.py).

    `shown` are videos [B, F, 64, 64, 1] or [B, n, F, 64, 64, 1] by the names of rows. Returns `explained_ROW` and
    `distance_ROW` [B, F] or [B, n, F] of these, of the truth, and of two controls: other digits on the same paths, and
    the last digit missing.
    """
    true_digits, position = batch["digit"].numpy(), np.round(batch["position"].numpy()[:, n_past:])
    pool = mnist_digits("test", true_digits.shape[-1])
    shown = {name: np.asarray(video)[..., 0] for name, video in shown.items()}
    scores = {}
    for k, index in enumerate(indices):
        found, corner = true_digits[k], position[k].astype(int)
        others = pool[np.random.default_rng([seed, index, 3]).integers(len(pool), size=len(found))]
        videos = {name: video[k] for name, video in shown.items()} | {
            "truth": digits.compose(digits.draw(found, corner) / np.float32(255)),
            "other_digits": digits.compose(digits.draw(others, corner) / np.float32(255)),
            "digit_missing": digits.compose(digits.draw(found[:-1], corner[:, :-1]) / np.float32(255)),
        }
        for name, video in videos.items():
            explained, distance = digits.explain_video(video, found, corner)
            scores.setdefault(f"explained_{name}", []).append(explained)
            scores.setdefault(f"distance_{name}", []).append(distance)
    return {name: np.stack(values) for name, values in scores.items()}


def to_8_bits(video: tf.Tensor) -> tf.Tensor:
    """Rounded as in an image file, still in [0, 1]."""
    return tf.round(video * 255.0) / 255.0


@tf.function
def frame_scores(predictions: tf.Tensor, future: tf.Tensor) -> dict[str, tf.Tensor]:
    """PSNR in dB, at most PSNR_CAP, and SSIM, each [B, N, F], of predictions [B, N, F, H, W, C] of [B, F, H, W, C]."""
    # A GPU's float32 product keeps 10 bits (TF32), of which SSIM's differences of squares would leave none.
    dtype = tf.float64 if has_gpu() else tf.float32

    def of_sequence(pair):
        ssim = graph_ssim(*(tf.cast(video, dtype) for video in pair))
        return tf.image.psnr(*pair, 1.0), tf.cast(ssim, tf.float32)

    psnr, ssim = tf.map_fn(of_sequence, (predictions, future), fn_output_signature=(tf.float32, tf.float32))
    return {"psnr": tf.minimum(psnr, PSNR_CAP), "ssim": ssim}


@tf.function(reduce_retracing=True)
def spread_and_error(samples: tf.Tensor, future: tf.Tensor) -> dict[str, tf.Tensor]:
    """Unbiased variance of samples [B, N, F, H, W, C] and squared error of their mean, averaged over pixels: [B, F].

    Half the mean squared distance between two samples is the unbiased variance.
    """
    count = tf.cast(tf.shape(samples)[1], tf.float32)
    variance = tf.math.reduce_variance(samples, 1) * count / (count - 1)  # NaN for a single sample
    error = tf.math.squared_difference(tf.reduce_mean(samples, 1), future)
    return {"spread": tf.reduce_mean(variance, [2, 3, 4]), "error": tf.reduce_mean(error, [2, 3, 4])}


@tf.function(reduce_retracing=True)
def posterior_scores(model: SVG, video: tf.Tensor, posterior_noise: tf.Tensor) -> dict[str, tf.Tensor]:
    """The terms of the bounds, of video [B, T, H, W, C] and noise [B, K, T-1, z].

    `squared_error` [B, K, T-1] is summed over pixels, `log_ratio` [B, K] is log p(z) - log q(z) summed over time and z;
    `kl` [B, T-1] is in nats, `prior_sigma` [B, T-1] the mean over z.
    """

    def of_sample(epsilon):
        out = model(video, posterior_noise=epsilon)
        error = tf.reduce_sum(tf.math.squared_difference(out["x_pred"], video[:, 1:]), [2, 3, 4])
        z = out["mu"] + tf.exp(0.5 * out["logvar"]) * epsilon
        log_p = -0.5 * (out["logvar_p"] + tf.math.squared_difference(z, out["mu_p"]) / tf.exp(out["logvar_p"]))
        log_q = -0.5 * (out["logvar"] + epsilon**2)
        kl = tf.reduce_sum(gaussian_kl(out["mu"], out["logvar"], out["mu_p"], out["logvar_p"]), -1)
        sigma = tf.reduce_mean(tf.exp(0.5 * out["logvar_p"]), -1)
        return error, tf.reduce_sum(log_p - log_q, [1, 2]), kl, sigma

    samples_first = tf.transpose(posterior_noise, [1, 0, 2, 3])
    error, log_ratio, kl, sigma = tf.map_fn(of_sample, samples_first, fn_output_signature=(tf.float32,) * 4)
    return {
        "squared_error": tf.transpose(error, [1, 0, 2]),
        "log_ratio": tf.transpose(log_ratio),
        "kl": kl[0],  # the same for all samples, as is sigma
        "prior_sigma": sigma[0],
    }

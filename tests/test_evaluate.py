"""The evaluation against scikit-image, SciPy, closed forms and brute force; its resume; its files and figures."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import special, stats
from scipy.spatial.distance import pdist

from files import evaluate as evaluation
from files import scoring, utils
from files.data import make_dataset, simulate_futures
from files.digits import digits_kept
from files.evaluate import EvaluateOptions, evaluate
from files.figures import FigureOptions, find_evaluation, make_figures
from files.model_svg import SVG
from files.scheduled_sampling import ScheduledSamplingSVG

SEQUENCES, SAMPLES, PAST, FUTURE = 5, 4, 3, 4


def own_frames(model, video, posterior_noise):
    """Of a model in training that is fed nothing but its own frames after the past."""
    trained = ScheduledSamplingSVG(model.config, teacher_forcing=0.0)
    for variable, value in zip(trained.variables, model.variables, strict=True):
        variable.assign(value)
    coins = np.ones(video.shape[:2], np.float32)
    return trained(video, posterior_noise=posterior_noise, coins=coins)["x_pred"].numpy()[:, PAST - 1 :]


@pytest.fixture(scope="module", autouse=True)
def few_futures_and_training_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "SHOWN", 2)
        patch.setattr(scoring, "DIGIT_SAMPLES", 2)
        patch.setattr(evaluation, "VARIANCE_BATCHES", 4)
        tf.config.run_functions_eagerly(True)  # tracing takes longer than a few sequences
        yield
        tf.config.run_functions_eagerly(False)


def figure_options(results, figs):
    return FigureOptions(results, figs, checkpoints=results / "no checkpoints")


# A whole evaluation -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny, lively):
    return lively(tiny)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    model.save_weights_to(folder)
    return folder


@pytest.fixture(scope="module")
def options(checkpoint, tmp_path_factory):
    return EvaluateOptions(
        checkpoint, n_future=FUTURE, n_samples=SAMPLES, n_sequences=SEQUENCES, n_importance=2, batch_size=2,
        results=tmp_path_factory.mktemp("results"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(options):
    """The folder that an evaluation has written, and what it returned."""
    return options.folder, evaluate(options)


@pytest.fixture(scope="module")
def expected(model):
    """Scores of the same sequences and samples: row -> metric -> values [S, F], by NumPy and scikit-image."""
    sequences = dict(n_frames=PAST + FUTURE, count=SEQUENCES, batch_size=SEQUENCES, trajectories=True)
    (batch,) = make_dataset(model.config, "test", **sequences)
    video = batch["video"].numpy()
    past, future = video[:, :PAST], video[:, PAST:]
    z = model.z_dim

    def noise(stream, *shape):
        generators = [np.random.default_rng([0, index, stream]) for index in range(SEQUENCES)]
        return np.stack([rng.standard_normal(shape, np.float32) for rng in generators])

    samples = model.generate(
        past, FUTURE, SAMPLES,
        posterior_noise=noise(0, SAMPLES, PAST - 1, z), prior_noise=noise(1, SAMPLES, FUTURE, z),
    ).numpy()  # fmt: skip
    posterior_noise = noise(2, 2, PAST + FUTURE - 1, z)[:, 0]
    predictions = {
        "samples": samples,
        "simulator": simulate_futures(model.config.data, batch, PAST, SAMPLES, seed=0, start=0).numpy(),
        "posterior": model.reconstruct(video, posterior_noise).numpy()[:, None, PAST - 1 :],
        "own_frames": own_frames(model, video, posterior_noise)[:, None],
        "repeat": np.repeat(past[:, None, -1:], FUTURE, 2),
        "black": np.zeros_like(future)[:, None],
    }
    rounded = {row: np.round(255 * values) / 255 for row, values in predictions.items()}
    metrics = {"psnr": utils.psnr, "ssim": utils.ssim}
    scores = {row: {name: f(values, future[:, None]) for name, f in metrics.items()} for row, values in rounded.items()}
    of_samples, simulated = scores.pop("samples"), scores.pop("simulator")
    table = {row: {name: values[:, 0] for name, values in by_metric.items()} for row, by_metric in scores.items()}
    table["single"] = {name: values[:, 0] for name, values in of_samples.items()}
    for row, by_metric in {"": of_samples, "simulator_": simulated}.items():
        by_metric = {name: np.minimum(values, scoring.PSNR_CAP) for name, values in by_metric.items()}
        best = {name: values.mean(-1).argmax(1) for name, values in by_metric.items()}
        table[f"{row}mean"] = {name: values.mean(1) for name, values in by_metric.items()}
        table[f"{row}best"] = {
            name: np.stack([values[s, best[name][s]] for s in range(SEQUENCES)]) for name, values in by_metric.items()
        }
    return table, rounded["samples"], video


def test_table_is_that_of_scikit_image(results, expected):
    folder, metrics = results
    table, *_ = expected
    assert set(metrics["table"]) == set(table)
    per_sequence, per_frame = pd.read_csv(folder / "per_sequence.csv"), pd.read_csv(folder / "per_frame.csv")
    for row, by_metric in table.items():
        for metric, values in by_metric.items():
            over_time = values.mean(-1)
            half_width = 1.96 * stats.sem(over_time)
            written = metrics["table"][row][metric]
            assert (written["mean"], written["interval"]) == pytest.approx((over_time.mean(), half_width), abs=2e-4)
            np.testing.assert_allclose(per_sequence[f"{metric}_{row}"], over_time, atol=2e-4)
            frames = per_frame[(per_frame["row"] == row) & (per_frame["metric"] == metric)]
            assert list(frames["frame"]) == list(range(PAST + 1, PAST + FUTURE + 1))
            np.testing.assert_allclose(frames["mean"], values.mean(0), atol=2e-4)
            np.testing.assert_allclose(frames["interval"], 1.96 * stats.sem(values), atol=2e-4)
    for metric in ("psnr", "ssim"):
        assert metrics["best_of"][metric]["mean"][-1] == pytest.approx(metrics["table"]["best"][metric]["mean"])


def test_diversity_is_the_distance_between_samples(results, expected):
    folder, _ = results
    _, samples, video = expected
    flat = samples.reshape(SEQUENCES, SAMPLES, -1)
    distances = [pdist(sequence, "sqeuclidean").mean() / flat.shape[-1] for sequence in flat]
    np.testing.assert_allclose(pd.read_csv(folder / "per_sequence.csv")["diversity"], distances, rtol=1e-3)

    error = ((samples.mean(1) - video[:, PAST:]) ** 2).mean((2, 3, 4))
    written = pd.read_csv(folder / "per_frame.csv").query("metric == 'error of the mean'")
    np.testing.assert_allclose(written["mean"], error.mean(0), rtol=1e-3)


def test_brightness_is_that_of_samples_and_truth(results, expected):
    folder, metrics = results
    _, samples, video = expected
    per_frame = pd.read_csv(folder / "per_frame.csv").query("metric == 'brightness'").set_index("row")["mean"]
    of_samples, of_truth = samples.mean((0, 1, 3, 4, 5)), video[:, PAST:].mean((0, 2, 3, 4))
    np.testing.assert_allclose(per_frame["samples"], of_samples, rtol=1e-3)
    np.testing.assert_allclose(per_frame["truth"], of_truth, rtol=1e-3)
    assert metrics["brightness"]["ratio"] == pytest.approx(of_samples[-1] / of_truth[-1], rel=1e-3)


def test_best_and_worst_futures_of_sequences_in_between_are_kept(results, expected):
    _, samples, video = expected
    kept = np.load(results[0] / "samples.npz")
    share = pd.read_csv(results[0] / "per_sequence.csv")["kept_mean"]
    assert list(kept["index"]) == list(share.sort_values(kind="stable").index[[1, 3]])  # of five
    np.testing.assert_array_equal(kept["truth"], np.round(255 * video[kept["index"]]).astype(np.uint8))
    similarity = utils.ssim(samples, video[:, None, PAST:]).mean(-1)[kept["index"]]
    for name, chosen in (("best", similarity.argmax(1)), ("worst", similarity.argmin(1))):
        for k, video_kept in enumerate(kept[name] / 255):
            assert np.abs(video_kept - samples[kept["index"][k], chosen[k]]).max() < 1.5 / 255


def test_digits_kept_are_those_of_the_measure(results, expected, model):
    folder, metrics = results
    _, samples, video = expected
    sequences = dict(n_frames=PAST + FUTURE, count=SEQUENCES, batch_size=SEQUENCES, trajectories=True)
    (batch,) = make_dataset(model.config, "test", **sequences)
    noise = np.stack([np.random.default_rng([0, k, 2]).standard_normal((2, PAST + FUTURE - 1, 3), np.float32)[0]
                      for k in range(SEQUENCES)])  # fmt: skip
    rows = {
        "mean": samples[:, :2],
        "single": samples[:, :1],
        "posterior": np.round(255 * model.reconstruct(video, noise).numpy()[:, None, PAST - 1 :]) / 255,
    }
    per_sequence = pd.read_csv(folder / "per_sequence.csv")
    for row, videos in rows.items():
        for k in range(SEQUENCES):
            kept, error = digits_kept(videos[k], batch["digit"][k], batch["position"][k, PAST:])
            assert per_sequence[f"kept_{row}"][k] == pytest.approx(kept.mean(), abs=1e-4)
            if kept.any():
                assert per_sequence[f"distance_{row}"][k] == pytest.approx(error[kept].mean(), rel=1e-3)
    assert metrics["table"]["simulator_mean"]["kept"]["mean"] == 1
    assert metrics["digits"]["missed"]["truth"] == 0
    assert metrics["digits"]["false"]["other_digits"] < 0.1


@pytest.mark.parametrize("skip", [False, True])
def test_own_frames_with_the_posteriors_z_are_those_of_training_on_own_frames(tiny, lively, random_video, skip):
    model = lively(tiny.replace(last_frame_skip=skip))
    video = random_video(2, PAST + FUTURE, 64, 64, 1)
    noise = np.random.default_rng(0).standard_normal((2, PAST + FUTURE - 1, 3)).astype(np.float32)
    own = scoring.references(model, tf.constant(video), tf.constant(noise))["own_frames"]
    np.testing.assert_allclose(own, own_frames(model, video, noise), atol=1e-5)


def test_bounds_are_those_of_scipy_densities(results, model):
    folder, metrics = results
    video = next(iter(make_dataset(model.config, "test", n_frames=PAST + FUTURE, count=1, batch_size=1))).numpy()
    noise = np.random.default_rng([0, 0, 2]).standard_normal((2, PAST + FUTURE - 1, model.z_dim), np.float32)
    log_likelihood, log_weight = [], []
    for epsilon in noise:
        out = {name: value.numpy() for name, value in model(video, posterior_noise=epsilon[None]).items()}
        sigma, sigma_p = np.exp(out["logvar"] / 2), np.exp(out["logvar_p"] / 2)
        z = out["mu"] + sigma * epsilon
        log_likelihood.append(stats.norm.logpdf(video[:, 1:], out["x_pred"], np.sqrt(metrics["variance"])).sum())
        log_p, log_q = stats.norm.logpdf(z, out["mu_p"], sigma_p), stats.norm.logpdf(z, out["mu"], sigma)
        log_weight.append(log_likelihood[-1] + log_p.sum() - log_q.sum())
    kl = np.log(sigma_p / sigma) + (sigma**2 + (out["mu"] - out["mu_p"]) ** 2) / (2 * sigma_p**2) - 0.5
    frames = PAST + FUTURE - 1
    first = pd.read_csv(folder / "per_sequence.csv").iloc[0]
    assert first["elbo"] == pytest.approx((np.mean(log_likelihood) - kl.sum()) / frames, rel=1e-4)
    importance_weighted = (special.logsumexp(log_weight) - np.log(2)) / frames
    assert first["importance_weighted"] == pytest.approx(importance_weighted, rel=1e-4)


def test_variance_is_the_optimum_on_training_data(results, model, tiny):
    count = 16 * evaluation.VARIANCE_BATCHES
    (video,) = make_dataset(tiny, "train", count=count, batch_size=count)
    error = (model.reconstruct(video) - video[:, 1:]).numpy()  # with other noise, so that it's equal up to chance
    best = results[1]["variance"]
    likelihood = [stats.norm.logpdf(error, 0, np.sqrt(scale * best)).mean() for scale in (0.9, 1, 1.1)]
    assert likelihood[1] == max(likelihood)


def test_killed_evaluation_goes_on_and_batch_size_makes_no_difference(results, options, tmp_path, monkeypatch):
    folder, metrics = results
    scored = []
    score_batch = evaluation.score_batch

    def killed_in_the_third_batch(*args):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(args[4])
        return score_batch(*args)

    again = {**vars(options), "results": tmp_path}
    monkeypatch.setattr(evaluation, "score_batch", killed_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        evaluate(EvaluateOptions(**{**again, "batch_size": 1}))
    assert not (tmp_path / "small" / "metrics.json").exists()
    monkeypatch.setattr(evaluation, "score_batch", lambda *args: scored.append(args[4]) or score_batch(*args))
    resumed = evaluate(EvaluateOptions(**{**again, "batch_size": 3}))

    assert scored == [0, 1, 2]  # two batches of one sequence, then the three that were left
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [
        "metrics.json", "per_frame.csv", "per_sequence.csv", "samples.npz",
    ]  # fmt: skip
    for name in ("per_sequence.csv", "per_frame.csv"):
        one, other = pd.read_csv(folder / name), pd.read_csv(tmp_path / "small" / name)
        pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-4)
    assert resumed["data_sha256"] == metrics["data_sha256"]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "missing": lambda parts: parts[0].unlink(),
    "empty": lambda parts: parts[1].write_bytes(b""),
    "cut": lambda parts: cut(parts[1]),
    "a bit flipped": lambda parts: flip(parts[2]),
    "the one before again": lambda parts: parts[1].write_bytes(parts[0].read_bytes()),
    "half removed": lambda parts: [part.unlink() for part in parts[:2]],
    "a stray file": lambda parts: (parts[0].parent / ".writing-x.npz").write_bytes(b"x"),
}


@pytest.fixture(scope="module")
def scored(options, tmp_path_factory):
    """An evaluation that was killed when all sequences had been scored: the folder of its parts."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "write_results", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(dataclasses.replace(options, results=folder))
    return folder


def killed(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("damage", DAMAGE)
def test_parts_that_are_missing_or_damaged_are_scored_again(results, options, scored, tmp_path, damage):
    shutil.copytree(scored, tmp_path / "results")
    (folder,) = (tmp_path / "results" / "small").glob("parts-*[!k]")
    parts = sorted(folder.iterdir())
    assert len(parts) == 3  # of 2, 2 and 1 sequences
    DAMAGE[damage](parts)
    metrics = evaluate(dataclasses.replace(options, results=tmp_path / "results"))
    for name in ("table", "n_sequences", "data_sha256"):
        assert metrics[name] == results[1][name]
    one, other = pd.read_csv(results[0] / "per_sequence.csv"), pd.read_csv(tmp_path / "results/small/per_sequence.csv")
    pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-4)
    assert not list((tmp_path / "results/small").glob("*parts*"))


def test_an_evaluation_that_has_ended_is_repeated_only_on_request(results, options, monkeypatch):
    monkeypatch.setattr(evaluation, "score_batch", killed)
    assert evaluate(options, again=False) == results[1]
    for other in ({"n_sequences": 4}, {"n_samples": 3}, {"temperature": 0.5}):
        with pytest.raises(KeyboardInterrupt):
            evaluate(dataclasses.replace(options, **other), again=False)
    with pytest.raises(KeyboardInterrupt):
        evaluate(options)
    for parts in options.folder.glob("**/parts-*"):
        shutil.rmtree(parts) if parts.is_dir() else parts.unlink()
    (options.folder / "temperature-0.5").rmdir()


def test_splits_and_data_sets_have_folders_of_their_own(results, options, tmp_path):
    folder, metrics = results
    part = folder / "parts-of-another" / "00000000-00000004.npz"  # an evaluation that was killed
    part.parent.mkdir()
    part.write_bytes(b"")
    held_out = dataclasses.replace(options, split="val", n_sequences=2, n_samples=2)
    assert held_out.folder == folder / "val"
    assert evaluate(held_out)["split"] == "val"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert part.exists()
    shutil.rmtree(part.parent)
    folders = {
        dataclasses.replace(options, data=data, split=split, temperature=temperature).folder
        for data in (None, "smmnist_srvp", "a/videos.npy", "b/videos.npy")
        for split in ("val", "test")
        for temperature in (1, 0.5)
    }
    assert len(folders) == 16


def test_a_single_sample_has_no_spread(options, tmp_path):
    metrics = evaluate(dataclasses.replace(options, n_samples=1, n_sequences=2, results=tmp_path))
    assert metrics["spread_skill"] == {"ratio": None}
    assert metrics["diversity"]["mean"] is None
    assert metrics["table"]["best"] == metrics["table"]["mean"]
    assert make_figures(figure_options(tmp_path, tmp_path / "figs"))


def test_samples_that_are_no_numbers_end_an_evaluation_at_once(options, model, tiny, lively, tmp_path):
    broken = lively(tiny)
    variance = broken.decoder.stem_norm.moving_variance
    variance.assign(-tf.ones_like(variance))  # finite, as else it would not be loaded; its root is not
    broken.save_weights_to(tmp_path / "broken")
    with pytest.raises(ValueError, match="samples of sequences 0 to 1 are no finite numbers"):
        evaluate(dataclasses.replace(options, checkpoint=tmp_path / "broken", results=tmp_path))


def test_the_same_evaluation_twice_at_once_is_refused(options, tmp_path, monkeypatch):
    again = dataclasses.replace(options, results=tmp_path, n_sequences=1)

    def another(*args):
        with pytest.raises(ValueError, match="another process is writing"):
            evaluate(again)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "score_batch", another)
    with pytest.raises(KeyboardInterrupt):
        evaluate(again)


def test_figures_of_other_weights_are_not_shown(results, options, checkpoint, model, tiny, lively, tmp_path, capsys):
    folder, _ = results
    found = FigureOptions(folder.parent, tmp_path / "figs", checkpoint.parent)
    assert any(path.name == "best_of_n.png" for path in make_figures(found))
    assert find_evaluation("small", model, folder.parent) == folder
    retrained = lively(tiny)
    retrained.decoder.to_pixels.offset.assign([1.0])
    retrained.save_weights_to(tmp_path / "small")
    assert find_evaluation("small", retrained, folder.parent) is None
    with pytest.raises(FileNotFoundError):
        make_figures(dataclasses.replace(found, checkpoints=tmp_path))
    assert "small was evaluated with other weights than" in capsys.readouterr().out


def test_another_seed_or_model_does_not_continue_a_run(options, tiny):
    runs = [
        evaluation.run_hash(tiny, options, "weights"),
        evaluation.run_hash(tiny, EvaluateOptions(**{**vars(options), "seed": 1}), "weights"),
        evaluation.run_hash(tiny, EvaluateOptions(**{**vars(options), "temperature": 0.5}), "weights"),
        evaluation.run_hash(tiny, options, "other weights"),
        evaluation.run_hash(tiny.replace(data="smmnist_srvp"), options, "weights"),
    ]
    assert len(set(runs)) == len(runs)
    assert evaluation.run_hash(tiny, EvaluateOptions(**{**vars(options), "batch_size": 9}), "weights") == runs[0]


def test_metrics_file_says_what_was_evaluated(results, options, tiny):
    folder, metrics = results
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert metrics["command"].startswith(f"python -m files evaluate --checkpoint {options.checkpoint} --split test ")
    assert metrics["config"]["width"] == tiny.width
    assert metrics["versions"]["tensorflow"] == tf.__version__
    assert metrics["peak_memory_bytes"] > 1e8
    assert metrics["fvd"] is None
    assert "lpips" not in metrics["table"]["best"]


def test_figures_are_made_from_the_results(results, tmp_path):
    shutil.copytree(results[0], tmp_path / "results" / "small", ignore=shutil.ignore_patterns("val"))
    figs = tmp_path / "figs"
    made = {path.relative_to(figs).as_posix() for path in make_figures(figure_options(tmp_path / "results", figs))}
    curves = [
        "digits_kept",
        "psnr_over_time",
        "ssim_over_time",
        "best_of_n",
        "spread_skill",
        "prior_sigma",
        "traversal",
    ]
    futures = [f"futures_{k}" for k in range(1, evaluation.SHOWN + 1)]
    assert made == {f"small/{n}.png" for n in curves + futures} | {f"small/{n}.gif" for n in futures}
    assert all((figs / name).stat().st_size > 1000 for name in made)


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="train or evaluate"):
        make_figures(figure_options(tmp_path, tmp_path / "figs"))


def test_any_array_of_videos_is_a_test_set_as_a_whole(tmp_path, tiny, lively):
    """With the deterministic baseline, whose samples are all the same."""
    lively(tiny.replace(prior="none")).save_weights_to(tmp_path / "baseline")
    videos = np.random.default_rng(0).integers(0, 256, (3, PAST + 2, 64, 64), np.uint8)
    np.save(tmp_path / "videos.npy", videos)
    file = str(tmp_path / "videos.npy")
    options = EvaluateOptions(tmp_path / "baseline", "mine", file, n_future=2, n_samples=2, results=tmp_path)
    metrics = evaluate(options)
    assert metrics["n_sequences"] == 3  # not the last tenth of them
    black = utils.psnr(videos[:, PAST:, ..., None] / 255, np.zeros((64, 64, 1))).mean()
    assert metrics["table"]["black"]["psnr"]["mean"] == pytest.approx(black, abs=1e-3)
    assert metrics["diversity"]["mean"] == 0
    assert metrics["elbo"]["mean"] == pytest.approx(metrics["importance_weighted"]["mean"])
    assert "auc" not in metrics["prior_sigma"]
    assert make_figures(figure_options(tmp_path, tmp_path / "figs"))


def test_held_out_sequences_are_scored_on_request(options):
    metrics = evaluate(dataclasses.replace(options, split="val", name="held_out"))
    videos = make_dataset(
        SVG.load(options.checkpoint).config, "val", n_frames=PAST + FUTURE, count=SEQUENCES, batch_size=9
    )
    future = np.concatenate([batch.numpy() for batch in videos])[:, PAST:]
    black = -10 * np.log10(np.square(future).mean((2, 3, 4)))
    assert metrics["split"] == "val"
    assert metrics["table"]["black"]["psnr"]["mean"] == pytest.approx(black.mean(), rel=1e-4)


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match="n_samples is 0"):
        EvaluateOptions(tmp_path, n_samples=0)
    with pytest.raises(ValueError, match="seed is -1"):
        EvaluateOptions(tmp_path, seed=-1)
    with pytest.raises(ValueError, match="temperature is nan"):
        EvaluateOptions(tmp_path, temperature=float("nan"))
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        evaluate(EvaluateOptions(tmp_path / "nothing"))


# Its parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64, 1), (16, 24, 3)])
def test_ssim_in_the_graph_is_that_of_tensorflow(shape):
    a, b = np.random.default_rng(0).uniform(0, 1, (2, 3, *shape)).astype(np.float32)
    a[0] = b[1] = 0  # black frames
    b[2] = 0.9 * a[2]
    np.testing.assert_allclose(utils.graph_ssim(a, b), tf.image.ssim(a, b, 1.0), atol=2e-6)
    np.testing.assert_allclose(utils.graph_ssim(a[:, None], b)[2, 0], utils.ssim(a[2], b[0]), atol=2e-6)


def test_psnr_of_equal_frames_is_finite():
    video = np.random.default_rng(0).uniform(0, 1, (1, 2, 16, 16, 1)).astype(np.float32)
    psnr = scoring.frame_scores(video[:, None], video)["psnr"]
    np.testing.assert_allclose(psnr, np.full((1, 1, 2), 58.92), atol=0.01)  # 10 log10 (12 * 255²)


def test_noise_depends_on_seed_and_sequence_alone():
    whole = scoring.noise(3, range(10), 1, (4, 2))
    np.testing.assert_array_equal(whole[7:9], scoring.noise(3, range(7, 9), 1, (4, 2)))
    np.testing.assert_array_equal(whole[:, :2], scoring.noise(3, range(10), 1, (2, 2)))  # fewer samples: the first
    distinct = [whole[0], whole[1], scoring.noise(3, [0], 2, (4, 2))[0], scoring.noise(4, [0], 1, (4, 2))[0]]
    assert len(np.unique(distinct)) == 4 * 8


def test_traversal_moves_one_dimension(tiny, model, random_video):
    past = random_video(1, tiny.n_past, 64, 64, 1)
    images = evaluation.traverse(model, past)
    assert images.shape == (3, 7, 64, 64, 1)
    noise = np.zeros((1, 1, evaluation.TRAVERSAL_FRAMES, 3), np.float32)
    noise[0, 0, 0, 1] = evaluation.TRAVERSAL[5]
    still = np.zeros((1, 1, tiny.n_past - 1, 3), np.float32)
    moved = model.generate(past, evaluation.TRAVERSAL_FRAMES, posterior_noise=still, prior_noise=noise)
    np.testing.assert_allclose(images[1, 5] / 255, moved[0, 0, -1], atol=1 / 255)
    assert (images[:, 3] == images[0, 3]).all()
    assert images[1, 5].tolist() != images[1, 3].tolist()

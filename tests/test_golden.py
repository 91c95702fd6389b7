"""The model against golden files: what the authors' nets compute in PyTorch on the same weights, video and noise."""

import dataclasses
import functools
import pathlib

import numpy as np
import pytest
import recipe
import tensorflow as tf

from files.import_checkpoint import ImportOptions, import_checkpoint
from files.layout import layout
from files.model_svg import SVG, time_major

FILES = sorted(pathlib.Path(__file__).parent.glob("golden/golden_*.npz"))
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@dataclasses.dataclass
class Case:
    """A golden file, the weights and inputs that the recipe gives for it, and where the weights were imported to."""

    golden: np.lib.npyio.NpzFile
    weights: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    n_past: int
    folder: pathlib.Path


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem.removeprefix("golden_"))
def case(request, tmp_path_factory) -> Case:
    golden = np.load(request.param)
    batch, time, n_past, _, z_dim, _, size, channels = map(int, golden["meta/shape"])
    weights, folder = recipe.weights(golden), tmp_path_factory.mktemp("imported")
    np.savez(folder / "weights.npz", **weights)
    import_checkpoint(ImportOptions(folder / "weights.npz", folder, n_past))
    return Case(golden, weights, recipe.inputs((batch, time, size, size, channels), z_dim), n_past, folder)


def stat(array) -> np.ndarray:
    """Mean, population standard deviation and largest magnitude."""
    return np.array([np.mean(array), np.std(array), np.max(np.abs(array))])


def check_frames(frames: np.ndarray, golden, key: str) -> None:
    """`frames` against the stored pixels, every n-th of both axes, and the statistics of all pixels."""
    close(stat(frames), golden[f"{key}/stat"])
    stride = frames.shape[2] // golden[key].shape[2]
    close(frames[:, :, ::stride, ::stride], golden[key])


@pytest.mark.parametrize("last_frame_skip", [False, True])
def test_evaluation(case, last_frame_skip):
    golden, inputs, n_past = case.golden, case.inputs, case.n_past
    model = SVG.load(case.folder, last_frame_skip=last_frame_skip)
    prefix = f"eval/last_frame_skip={last_frame_skip}/"

    outputs = model(inputs["video"], posterior_noise=inputs["posterior_noise"])
    for name in ("h", "mu", "logvar", "mu_p", "logvar_p", "h_pred", "mse", "kld", "loss"):
        close(outputs[name].numpy(), golden[prefix + name], err_msg=name)
    check_frames(outputs["x_pred"].numpy(), golden, f"{prefix}x_pred")

    generated = model.generate(
        inputs["video"][:, :n_past],
        n_future=inputs["video"].shape[1] - n_past,
        posterior_noise=inputs["posterior_noise"][:, None, : n_past - 1],  # one sample
        prior_noise=inputs["prior_noise"][:, None, n_past - 1 :],
    )
    check_frames(generated[:, 0].numpy(), golden, f"{prefix}generated")


def test_skip_connections(case):
    golden = case.golden
    _, skips = SVG.load(case.folder).encoder(time_major(tf.constant(case.inputs["video"])))
    for k, skip in enumerate(skips):
        close(stat(skip.numpy()), golden[f"eval/skip{k}/stat"], err_msg=f"skip {k}")
    assert f"eval/skip{len(skips)}/stat" not in golden


def test_training_losses_gradients_and_running_statistics(case):
    golden, weights, inputs = case.golden, case.weights, case.inputs
    model = SVG.load(case.folder)
    with tf.GradientTape() as tape:
        outputs = model(inputs["video"], training=True, posterior_noise=inputs["posterior_noise"])
    for name in ("mse", "kld", "loss"):
        close(outputs[name].numpy(), golden[f"train/{name}"], err_msg=name)

    variables = model.trainable_variables
    gradients = tape.gradient(outputs["loss"], [variable.value for variable in variables])
    gradient_of = {id(variable): gradient for variable, gradient in zip(variables, gradients, strict=True)}
    norms = {}
    for weight in layout(model):
        names = weight.names
        if "running_" in names[0]:
            value = weight.variables[0].numpy() + sum(weights[bias] for bias in names[1:])  # ours lacks that bias
            close(stat(value), golden[f"train/{names[0]}/stat"], err_msg=names[0])
        else:
            norm = tf.linalg.global_norm([gradient_of[id(variable)] for variable in weight.variables])
            norms.update(dict.fromkeys(names, norm))
    # Of millions of leaky ReLUs and max poolings, rounding turns a few the other way; gradients move by the square root
    # of their share. PyTorch's own in float32 and float64 are up to 1 % apart for VGG.
    rtol = 2e-2 if model.config.backbone == "vgg" else 1e-3
    for name, norm in norms.items():
        np.testing.assert_allclose(norm, golden[f"train/grad_norm/{name}"], rtol=rtol, err_msg=name)

    # The rest are biases before a batch norm, which have no effect; ours has none.
    expected = {key.removeprefix("train/grad_norm/"): golden[key] for key in golden if "grad_norm" in key}
    without = set(expected) - set(norms)
    assert all(name.endswith(".0.bias") and expected[name] < 1e-5 * max(expected.values()) for name in without)

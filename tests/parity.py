"""The model on the inputs of a golden file: what it computes beside what the authors' nets do, by name.

`test_golden.py` checks these pairs on the CPU, `check_gpu.py` on a GPU.
"""

import dataclasses
import pathlib

import numpy as np
import recipe
import tensorflow as tf

from files.import_checkpoint import ImportOptions, import_checkpoint
from files.layout import layout
from files.model_svg import SVG

GOLDEN = pathlib.Path(__file__).parent / "golden"
TOLERANCE = dict(rtol=1e-4, atol=1e-4)
# Of millions of leaky ReLUs and max poolings, rounding turns a few the other way; gradients move by the square root
# of their share. PyTorch's own in float32 and float64 are up to 1 % apart for VGG.
GRADIENT_RTOL = {"dcgan": 1e-3, "vgg": 2e-2}

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]  # ours and the golden file's


@dataclasses.dataclass
class Case:
    """A golden file, the weights and inputs that the recipe gives for it, and where the weights were imported to."""

    golden: np.lib.npyio.NpzFile
    weights: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    n_past: int
    folder: pathlib.Path


def import_case(path: pathlib.Path, folder: pathlib.Path) -> Case:
    """Imports the weights of a golden file into `folder`."""
    golden = np.load(path)
    batch, time, n_past, _, z_dim, _, size, channels = map(int, golden["meta/shape"])
    weights = recipe.weights(golden)
    np.savez(folder / "weights.npz", **weights)
    import_checkpoint(ImportOptions(folder / "weights.npz", folder, n_past))
    return Case(golden, weights, recipe.inputs((batch, time, size, size, channels), z_dim), n_past, folder)


def stat(array) -> np.ndarray:
    """Mean, population standard deviation and largest magnitude."""
    return np.array([np.mean(array), np.std(array), np.max(np.abs(array))])


def evaluation(case: Case, last_frame_skip: bool) -> Pairs:
    """Every output in evaluation mode, and a generated video.

    Of frames the file has every n-th pixel of both axes, and the statistics of all.
    """
    inputs, n_past, prefix = case.inputs, case.n_past, f"eval/last_frame_skip={last_frame_skip}/"
    model = SVG.load(case.folder, last_frame_skip=last_frame_skip)
    outputs = model(inputs["video"], posterior_noise=inputs["posterior_noise"])
    generated = model.generate(
        inputs["video"][:, :n_past],
        n_future=inputs["video"].shape[1] - n_past,
        posterior_noise=inputs["posterior_noise"][:, None, : n_past - 1],  # one sample
        prior_noise=inputs["prior_noise"][:, None, n_past - 1 :],
    )
    names = ("h", "mu", "logvar", "mu_p", "logvar_p", "h_pred", "mse", "kld", "loss")
    pairs = {name: (outputs[name].numpy(), case.golden[prefix + name]) for name in names}
    for name, video in (("x_pred", outputs["x_pred"].numpy()), ("generated", generated[:, 0].numpy())):
        golden = case.golden[prefix + name]
        stride = video.shape[2] // golden.shape[2]
        pairs[name] = video[:, :, ::stride, ::stride], golden
        pairs[f"{name}, statistics"] = stat(video), case.golden[f"{prefix}{name}/stat"]
    return pairs


def training(case: Case) -> tuple[Pairs, Pairs, Pairs]:
    """Losses, statistics of the running statistics, and norms of the gradients, of one pass in training mode."""
    golden, inputs = case.golden, case.inputs
    model = SVG.load(case.folder)
    with tf.GradientTape() as tape:
        outputs = model(inputs["video"], training=True, posterior_noise=inputs["posterior_noise"])
    losses = {name: (outputs[name].numpy(), golden[f"train/{name}"]) for name in ("mse", "kld", "loss")}

    variables = model.trainable_variables
    gradients = tape.gradient(outputs["loss"], [variable.value for variable in variables])
    gradient_of = {id(variable): gradient for variable, gradient in zip(variables, gradients, strict=True)}
    running, norms = {}, {}
    for weight in layout(model):
        names = weight.names
        if "running_" in names[0]:
            value = weight.variables[0].numpy() + sum(case.weights[bias] for bias in names[1:])  # ours lacks that bias
            running[names[0]] = stat(value), golden[f"train/{names[0]}/stat"]
        else:
            norm = tf.linalg.global_norm([gradient_of[id(variable)] for variable in weight.variables]).numpy()
            norms |= {name: (norm, golden[f"train/grad_norm/{name}"]) for name in names}
    return losses, running, norms

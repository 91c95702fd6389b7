"""The model against golden files: what the authors' nets compute in PyTorch on the same weights, video and noise."""

import functools

import numpy as np
import parity
import pytest
import tensorflow as tf

from files.model_svg import SVG, time_major

FILES = sorted(parity.GOLDEN.glob("golden_*.npz"))
close = functools.partial(np.testing.assert_allclose, **parity.TOLERANCE)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem.removeprefix("golden_"))
def case(request, tmp_path_factory) -> parity.Case:
    return parity.import_case(request.param, tmp_path_factory.mktemp("imported"))


@pytest.mark.parametrize("last_frame_skip", [False, True])
def test_evaluation(case, last_frame_skip):
    for name, (ours, golden) in parity.evaluation(case, last_frame_skip).items():
        close(ours, golden, err_msg=name)


def test_skip_connections(case):
    golden = case.golden
    _, skips = SVG.load(case.folder).encoder(time_major(tf.constant(case.inputs["video"])))
    for k, skip in enumerate(skips):
        close(parity.stat(skip.numpy()), golden[f"eval/skip{k}/stat"], err_msg=f"skip {k}")
    assert f"eval/skip{len(skips)}/stat" not in golden


def test_training_losses_gradients_and_running_statistics(case):
    losses, running, norms = parity.training(case)
    for name, (ours, golden) in (losses | running).items():
        close(ours, golden, err_msg=name)
    rtol = parity.GRADIENT_RTOL[SVG.load(case.folder).config.backbone]
    for name, (ours, golden) in norms.items():
        np.testing.assert_allclose(ours, golden, rtol=rtol, err_msg=name)

    # The rest are biases before a batch norm, which have no effect; ours has none.
    golden = case.golden
    expected = {key.removeprefix("train/grad_norm/"): golden[key] for key in golden if "grad_norm" in key}
    without = set(expected) - set(norms)
    assert all(name.endswith(".0.bias") and expected[name] < 1e-5 * max(expected.values()) for name in without)

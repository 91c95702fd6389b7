"""Several workers, several devices, several small batches: the same training, whatever shares it.

Workers are real processes that meet on the loopback. They run without graphs, whose tracing would take long.
"""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from files.config import Config, Machine, Recipe
from files.data import make_dataset
from files.ops import BatchNorm
from files.train import train

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 2
CONFIG = Config(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=2, n_future=2, beta=1e-2)
ITERATIONS = "optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE"
RECIPE = Recipe(
    batch_size=4, steps_per_epoch=STEPS, epochs=2, val_sequences=7, learning_rate=1e-3, sync_batch_norm=True,
    clip_norm=0.01,
)  # fmt: skip

# Arguments: folder, recipe, the number of the step at which a signal comes, and that signal (0: none).
WORKER = """
import json, os, pathlib, sys
import tensorflow as tf
from files.__main__ import main
from files.callbacks import SampleVideos
from files.model_svg import SVG

folder, recipe, step, signal = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), *map(int, sys.argv[3:])
tf.config.run_functions_eagerly(True)
SampleVideos.__init__.__defaults__ = 1, 2  # few and so fast
seen = {"train": [], "val": []}
train_step, test_step = SVG.train_step, SVG.test_step

def watched_train_step(self, video):
    if signal and len(seen["train"]) + 1 == step:
        os.kill(os.getpid(), signal)
    seen["train"].append([float(total) for total in tf.reduce_sum(video, [1, 2, 3, 4])])
    return train_step(self, video)

def watched_test_step(self, data):
    seen["val"].append(data[1].numpy().tolist())
    return test_step(self, data)

SVG.train_step, SVG.test_step = watched_train_step, watched_test_step
os.chdir(folder)
options = dict(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=2, n_future=2, beta=1e-2, save_minutes=1e-9, **recipe)
words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if not isinstance(value, bool)]
words += [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
try:
    main(["train", "--name", "run", *words])
except KeyboardInterrupt as stop:
    print(stop)
    sys.exit(130)
pathlib.Path("seen.json").write_text(json.dumps(seen))
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def by_tf_config() -> list[dict[str, str]]:
    """What the environment of each of two workers has in addition."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})}
        for index in range(2)
    ]


def by_slurm() -> list[dict[str, str]]:
    """As srun sets it for two tasks on one host; the job's number leads to ports that are free most likely."""
    job = random.randrange(20000)
    step = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": 2, "SLURM_STEP_NODELIST": "localhost"}
    step["SLURM_STEP_TASKS_PER_NODE"] = "2"
    return [{name: str(value) for name, value in (step | {"SLURM_PROCID": index}).items()} for index in range(2)]


def two_workers(folder, recipe, environments, step=0, number=0, last=30):
    """Runs both, each in a folder of its own; the second one gets signal `number`. Returns exit codes and outputs.

    One that the death of the other leaves waiting is killed after `last` seconds.
    """
    settings = {name: value for name, value in vars(recipe).items() if value not in (None, False)}
    processes = []
    for index, environment in enumerate(environments):
        (folder / str(index)).mkdir(parents=True, exist_ok=True)
        arguments = [folder / str(index), json.dumps(settings), step, number if index == 1 else 0]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **environment},
            )
        )  # fmt: skip
    outputs = [processes[1].communicate(timeout=300)[0]]
    try:
        outputs.insert(0, processes[0].communicate(timeout=last)[0])
    except subprocess.TimeoutExpired:
        processes[0].kill()
        outputs.insert(0, processes[0].communicate()[0])
    return [process.returncode for process in processes], outputs


def logs(folder, name="run"):
    return pd.read_csv(folder / "results" / name / "losses.csv").drop(columns=["learning_rate", "val_ssim"])


def final_weights(folder):
    reader = tf.train.load_checkpoint(str(folder / f"checkpoints/run/state/step-{2 * STEPS}"))
    names = [name for name in reader.get_variable_to_shape_map() if "VARIABLE_VALUE" in name]
    assert len(names) > 100
    return {name: reader.get_tensor(name) for name in names}


@pytest.fixture(scope="module")
def recipe(lively, tmp_path_factory):
    """From weights with which every input, noise and statistic shows in the losses."""
    folder = tmp_path_factory.mktemp("start")
    lively(CONFIG).save_weights_to(folder)
    return RECIPE.replace(start_from=str(folder))


@pytest.fixture(scope="module")
def shared(recipe, tmp_path_factory):
    """A training by two workers: the folder that holds theirs."""
    folder = tmp_path_factory.mktemp("shared")
    codes, outputs = two_workers(folder, recipe, by_tf_config())
    assert codes == [0, 0], outputs
    return folder


def in_this_process(folder, name, recipe, machine=None):
    train(CONFIG, recipe, machine, name, folder, folder / "results", verbose=0)
    return logs(folder, name)


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    tf.config.run_functions_eagerly(True)
    yield in_this_process(folder, "run", recipe)
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def on_two_devices(monkeypatch, two_devices):
    monkeypatch.setattr("files.train.device_strategy", lambda: two_devices)


def assert_same_losses(found, expected):
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)


def test_two_workers_have_the_losses_of_one(alone, shared):
    assert_same_losses(logs(shared / "0"), alone)


def test_two_devices_have_the_losses_of_one(alone, recipe, tmp_path, on_two_devices, eagerly):
    assert_same_losses(in_this_process(tmp_path, "both", recipe), alone)


def test_without_synchronised_batch_norm_two_devices_learn_something_else(
    alone, recipe, tmp_path, on_two_devices, eagerly
):
    found = in_this_process(tmp_path, "own", recipe.replace(sync_batch_norm=False, epochs=1))
    with pytest.raises(AssertionError, match=r"DataFrame.*are different"):
        assert_same_losses(found, alone[:1])


def test_the_first_worker_alone_writes(shared):
    assert [path.name for path in (shared / "1").iterdir()] == ["seen.json"]
    assert {path.name for path in (shared / "0").iterdir()} == {"seen.json", "checkpoints", "results"}


def test_workers_share_every_batch_and_no_sequence_comes_twice(shared):
    seen = [json.loads((shared / str(index) / "seen.json").read_text()) for index in range(2)]
    steps = [first + second for first, second in zip(*(worker["train"] for worker in seen), strict=True)]
    batches = make_dataset(CONFIG, "train", batch_size=4, count=4 * 2 * STEPS)
    np.testing.assert_allclose(steps, [tf.reduce_sum(batch, [1, 2, 3, 4]) for batch in batches], rtol=1e-5)
    assert [[len(share) for share in worker["train"]] for worker in seen] == [[2] * 2 * STEPS] * 2
    for epoch in (slice(0, 2), slice(2, 4)):
        indices = [index for worker in seen for step in worker["val"][epoch] for index in step]
        assert sorted(indices) == list(range(RECIPE.val_sequences))


def test_workers_stopped_then_killed_end_where_uninterrupted_ones_do(shared, recipe, tmp_path):
    """SIGTERM for one stops both after the same step; when one is killed, the other ends or is ended, too."""
    codes, outputs = two_workers(tmp_path, recipe, by_slurm(), 1, signal.SIGTERM)
    assert codes == [130, 130], outputs
    assert "stopped by another worker after epoch 0 and 1 steps" in outputs[0]
    assert "stopped by SIGTERM after epoch 0 and 1 steps" in outputs[1]

    codes, outputs = two_workers(tmp_path, recipe, by_slurm(), 3, signal.SIGKILL)  # of this start: the last step
    assert "resuming after epoch 0 of 2 and 1 steps" in outputs[0]
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    codes, outputs = two_workers(tmp_path, recipe, by_tf_config())
    assert codes == [0, 0], outputs
    assert "resuming after epoch 1 of 2 and 1 steps" in outputs[0]
    expected, resumed = final_weights(shared / "0"), final_weights(tmp_path / "0")
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    pd.testing.assert_frame_equal(logs(tmp_path / "0"), logs(shared / "0"), rtol=1e-4)


def test_synchronised_batch_norm_is_that_of_the_whole_batch(two_devices):
    """Output, gradients and moving statistics."""
    random_numbers = np.random.default_rng(0)
    x, factors = (random_numbers.normal(3, 2, (4, 5, 5, 3)).astype(np.float32) for _ in range(2))

    def run(strategy, shares):
        with strategy.scope():
            norm = BatchNorm(dtype="float32")
            norm.build(x.shape)
            norm.synchronized = True
            norm.gamma.assign([0.5, 1.0, 2.0])

        def step(x, factors):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = norm(x, training=True)
                total = tf.reduce_sum(y * factors)
            dx, dgamma, dbeta = tape.gradient(total, [x, norm.gamma.value, norm.beta.value])
            context = tf.distribute.get_replica_context()
            return y, dx, *context.all_reduce(tf.distribute.ReduceOp.SUM, [dgamma, dbeta])

        def values(whole):
            parts = tf.split(whole, shares)
            return strategy.experimental_distribute_values_from_function(
                lambda context: parts[context.replica_id_in_sync_group]
            )

        results = [strategy.experimental_local_results(v) for v in strategy.run(step, (values(x), values(factors)))]
        whole = [tf.concat(results[k], 0) for k in (0, 1)] + [results[k][0] for k in (2, 3)]
        return [*whole, norm.moving_mean.numpy(), norm.moving_variance.numpy()]

    both = run(two_devices, 2)
    for a, b in zip(both, run(tf.distribute.get_strategy(), 1), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


# Small batches that make a step -------------------------------------------------------------------------------------


def test_accumulated_gradients_are_the_mean_over_small_batches(tiny, lively, random_video, eagerly):
    """A step of gradient descent with rate 1, by hand; the noise is that of the whole batch."""
    video = tf.constant(random_video(4, 6, 64, 64, 1))
    noise = tf.random.stateless_normal([5, 4, tiny.z_dim], [0, 1])
    model, by_hand = lively(tiny), lively(tiny)
    model.accumulate = 2
    model.compile(keras.optimizers.SGD(1.0))
    logs = model.fit(tf.data.Dataset.from_tensors(video), verbose=0, shuffle=False).history
    before, losses, total = [variable.numpy() for variable in by_hand.trainable_weights], [], 0
    for part in (slice(0, 2), slice(2, 4)):
        with tf.GradientTape() as tape:
            y = by_hand(video[part], training=True, posterior_noise=tf.transpose(noise[:, part], [1, 0, 2]))
        gradients = tape.gradient(y["loss"], by_hand.trainable_weights)
        total = [gradient / 2 for gradient in gradients] if not losses else [
            a + gradient / 2 for a, gradient in zip(total, gradients, strict=True)
        ]  # fmt: skip
        losses.append(float(y["loss"]))
    assert losses[0] != losses[1]
    np.testing.assert_allclose(logs["loss"], np.mean(losses), rtol=1e-5)
    for variable, value, gradient in zip(model.trainable_weights, before, total, strict=True):
        np.testing.assert_allclose(variable, value - gradient, rtol=1e-4, atol=1e-5, err_msg=variable.path)
    assert int(model.optimizer.iterations) == 1


def test_small_batches_dont_count_as_steps(tmp_path, eagerly):
    in_this_process(tmp_path, "run", RECIPE.replace(epochs=1, val_sequences=2), Machine(accumulate=2))
    assert [path.name for path in (tmp_path / "run/state").glob("*.index")] == [f"step-{STEPS}.index"]
    assert tf.train.load_variable(str(tmp_path / f"run/state/step-{STEPS}"), ITERATIONS) == STEPS


def test_batches_that_cant_be_cut_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size is 4; 3 small batches share it evenly: take 3 or 6"):
        in_this_process(tmp_path, "run", RECIPE, Machine(accumulate=3))


def test_batches_that_cant_be_cut_for_two_devices_are_refused(tmp_path, on_two_devices):
    with pytest.raises(ValueError, match="batch_size is 4; 3 small batches of 2 devices share it evenly: take 6"):
        in_this_process(tmp_path, "run", RECIPE, Machine(accumulate=3))

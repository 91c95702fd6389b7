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
import types

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from files.config import Config, Machine, Recipe
from files.data import make_dataset
from files.ops import BatchNorm
from files.train import build_model, check_together, train

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 2
CONFIG = Config(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=2, n_future=2, beta=1e-2)
ITERATIONS = "optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE"
RECIPE = Recipe(
    batch_size=4, steps_per_epoch=STEPS, epochs=2, val_sequences=7, learning_rate=1e-3, sync_batch_norm=True,
    clip_norm=0.01,
)  # fmt: skip

OPTIONS = (  # CONFIG and RECIPE
    "--width 4 --g-dim 8 --z-dim 3 --rnn-size 16 --n-past 2 --n-future 2 --beta 1e-2 --batch-size 4 --epochs 2 "
    "--steps-per-epoch 2 --val-sequences 7 --learning-rate 1e-3 --sync-batch-norm --clip-norm 0.01 --save-minutes 1e-9"
)

# Arguments: folder, and a list of trainings, each [name, options, step, signal]: that comes at the step of this number.
WORKER = """
import json, os, pathlib, sys
import tensorflow as tf
from files.__main__ import main
from files.callbacks import SampleVideos
from files.model_svg import SVG

tf.config.run_functions_eagerly(True)
SampleVideos.__init__.__defaults__ = None, 1, 2  # few and so fast
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
os.chdir(sys.argv[1])
for name, options, step, signal in json.loads(sys.argv[2]):
    seen = {"train": [], "val": []}
    try:
        main(["train", "--name", name, *options])
    except (KeyboardInterrupt, ValueError, OSError) as end:
        print(f"{type(end).__name__}: {end}")
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


def two_workers(folder, environments, *trainings) -> tuple[list[int], list[str]]:
    """Runs the trainings (the first worker's beside the second's) on both, each in a folder of its own.

    Returns exit codes and outputs.
    """
    processes = []
    for index, environment in enumerate(environments):
        (folder / str(index)).mkdir(parents=True, exist_ok=True)
        arguments = [folder / str(index), json.dumps([training[index] for training in trainings])]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **environment},
            )
        )  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def logs(folder, name="run"):
    return pd.read_csv(folder / "results" / name / "losses.csv").drop(columns=["learning_rate", "val_ssim"])


def final_weights(folder, name):
    reader = tf.train.load_checkpoint(str(folder / f"checkpoints/{name}/state/step-{2 * STEPS}"))
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
def workers(recipe, tmp_path_factory):
    """Two trainings by two workers: `run`, stopped, killed and gone on with, and `whole`. Their folder, and outputs.

    Starting a worker takes most of the time, so that it does all that can be done in one process.
    """
    folder = tmp_path_factory.mktemp("workers")
    options = [*OPTIONS.split(), "--start-from", recipe.start_from]

    def training(name, step=0, first=0, second=0):
        return [name, options, step, first], [name, options, step, second]

    other = ["other", options, 0, 0], ["other", [*options, "--width", "8", "--clip-norm", "1"], 0, 0]
    begun = two_workers(
        folder, by_slurm(), other, training("run", 1, second=signal.SIGTERM), training("run", 3, first=signal.SIGKILL)
    )
    ended = two_workers(folder, by_tf_config(), training("run"), training("whole"))
    assert ended[0] == [0, 0], (begun, ended)
    return folder, begun, ended


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


def test_two_workers_have_the_losses_of_one(alone, workers):
    assert_same_losses(logs(workers[0] / "0", "whole"), alone)


def test_two_devices_have_the_losses_of_one(alone, recipe, tmp_path, on_two_devices, eagerly):
    assert_same_losses(in_this_process(tmp_path, "both", recipe.replace(epochs=1)), alone[:1])


@pytest.mark.parametrize("synchronised", [True, False])
def test_batch_norm_is_synchronised_where_the_recipe_says_so(synchronised):
    model = build_model(CONFIG, RECIPE.replace(sync_batch_norm=synchronised), Machine())
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNorm)]
    assert [norm.synchronized for norm in norms] == [synchronised] * len(norms)
    assert len(norms) > 5


def test_the_first_worker_alone_writes(workers):
    assert [path.name for path in (workers[0] / "1").iterdir()] == ["seen.json"]
    assert {path.name for path in (workers[0] / "0").iterdir()} == {"seen.json", "checkpoints", "results"}
    assert {path.name for path in (workers[0] / "0/checkpoints").iterdir()} == {"run", "whole"}


def test_workers_share_every_batch_and_no_sequence_comes_twice(workers):
    seen = [json.loads((workers[0] / str(index) / "seen.json").read_text()) for index in range(2)]
    steps = [first + second for first, second in zip(*(worker["train"] for worker in seen), strict=True)]
    batches = make_dataset(CONFIG, "train", batch_size=4, count=4 * 2 * STEPS)
    np.testing.assert_allclose(steps, [tf.reduce_sum(batch, [1, 2, 3, 4]) for batch in batches], rtol=1e-5)
    assert [[len(share) for share in worker["train"]] for worker in seen] == [[2] * 2 * STEPS] * 2
    for epoch in (slice(0, 2), slice(2, 4)):
        indices = [index for worker in seen for step in worker["val"][epoch] for index in step]
        assert sorted(indices) == list(range(RECIPE.val_sequences))


def test_workers_with_other_settings_are_refused(workers):
    message = "ValueError: not all workers have the same clip_norm, width; start them with the same command"
    _, outputs = workers[1]
    assert all(message in output for output in outputs), outputs


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine(steps_per_execution=2), "steps_per_execution is 2; expected 1"),
        (Machine(jit_compile=True), "XLA"),
    ],
)
def test_what_several_workers_cant_do_is_refused(machine, message):
    two = types.SimpleNamespace(several=True, strategy=types.SimpleNamespace(num_replicas_in_sync=2))
    with pytest.raises(ValueError, match=message):
        check_together(RECIPE, machine, two)


def test_workers_stopped_then_killed_end_where_uninterrupted_ones_do(workers):
    """SIGTERM for one stops both after the same step; when one is killed, the other says so and ends."""
    folder, (codes, outputs), (_, last_outputs) = workers
    assert "Stopped: stopped by another worker after epoch 0 and 1 steps" in outputs[0]
    assert "Stopped: stopped by SIGTERM after epoch 0 and 1 steps" in outputs[1]
    assert "resuming after epoch 0 of 2 and 1 steps" in outputs[0]
    assert codes[0] == -signal.SIGKILL
    assert "ConnectionError: another worker has ended or can't be reached any more" in outputs[1]
    assert "resuming after epoch 1 of 2 and 1 steps" in last_outputs[0]
    expected, resumed = (final_weights(folder / "0", name) for name in ("whole", "run"))
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    pd.testing.assert_frame_equal(logs(folder / "0", "run"), logs(folder / "0", "whole"), rtol=1e-4)


def test_synchronised_batch_norm_is_that_of_the_whole_batch(two_devices):
    """Output, gradients and moving statistics; without that they are others."""
    random_numbers = np.random.default_rng(0)
    x, factors = (random_numbers.normal(3, 2, (4, 5, 5, 3)).astype(np.float32) for _ in range(2))

    def run(strategy, shares, synchronised=True):
        with strategy.scope():
            norm = BatchNorm(dtype="float32")
            norm.build(x.shape)
            norm.synchronized = synchronised
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

    both, each = run(two_devices, 2), run(two_devices, 2, synchronised=False)
    whole = run(tf.distribute.get_strategy(), 1)
    for a, b in zip(whole, both, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert not np.allclose(whole[0], each[0], rtol=1e-2)


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
    in_this_process(
        tmp_path, "run", RECIPE.replace(epochs=1, steps_per_epoch=1, val_sequences=2), Machine(accumulate=2)
    )
    assert [path.name for path in (tmp_path / "run/state").glob("*.index")] == ["step-1.index"]
    assert tf.train.load_variable(str(tmp_path / "run/state/step-1"), ITERATIONS) == 1


def test_batches_that_cant_be_cut_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size is 4; 3 small batches share it evenly: take 3 or 6"):
        in_this_process(tmp_path, "run", RECIPE, Machine(accumulate=3))


def test_batches_that_cant_be_cut_for_two_devices_are_refused(tmp_path, on_two_devices):
    with pytest.raises(ValueError, match="batch_size is 4; 3 small batches of 2 devices share it evenly: take 6"):
        in_this_process(tmp_path, "run", RECIPE, Machine(accumulate=3))

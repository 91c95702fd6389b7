"""What it costs that two workers wait for each other: seconds per training step of one process, and of two.

Each worker has one core and one thread, and the same share of sequences, so that without any cost both take equally
long. `python tests/bench_hosts.py`, two to three minutes; prints a table.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, SHARE, STEPS = 16, 8, 12


def worker(replicas: int, sync: bool) -> None:
    """Trains and prints the median of its steps, without the first two."""
    sys.path.insert(0, str(ROOT))
    import keras

    from files.config import Config, Machine, Recipe
    from files.data import make_dataset
    from files.device import device_strategy
    from files.train import build_model

    strategy = device_strategy()
    recipe, config = Recipe(batch_size=SHARE * replicas, sync_batch_norm=sync), Config(width=WIDTH)
    with strategy.scope():
        model = build_model(config, recipe, Machine())
    data = strategy.distribute_datasets_from_function(
        lambda share: make_dataset(config, "train", batch_size=recipe.batch_size, share=share)
    )
    times = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])
            times.append(time.perf_counter())

    model.fit(data, steps_per_epoch=STEPS, verbose=0, shuffle=False, callbacks=[Clock()])
    print("SECONDS", np.median(np.diff(times)[1:]))


def seconds_per_step(replicas: int, sync: bool) -> float:
    """Of the slowest worker."""
    sockets = [socket.socket() for _ in range(replicas)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(replicas):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        environment |= {"TF_CONFIG": json.dumps(cluster)} if replicas > 1 else {}
        command = [sys.executable, __file__, "--worker", str(replicas)] + ["--sync"] * sync
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        os.sched_setaffinity(processes[-1].pid, {index})
    outputs = [process.communicate()[0] for process in processes]
    return max(float(output.split("SECONDS")[1]) for output in outputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", type=int)
    parser.add_argument("--sync", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.sync)
    else:
        print(f"width {WIDTH}, {SHARE} x 15 frames per worker; load {os.getloadavg()[0]:.1f}")
        for name, case in {
            "1 process": (1, False),
            "2 processes": (2, False),
            "2 processes, --sync-batch-norm": (2, True),
        }.items():
            print(f"{name}: {seconds_per_step(*case):.3f} s per step", flush=True)

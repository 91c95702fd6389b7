"""Several processes, the workers, that train one model on one host or many: who they are, what they tell each other.

They take the same steps. The first one alone reads and writes states, logs and pictures, and the others get from it
what it has read, so that they need no folder in common.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def workers_strategy() -> tf.distribute.Strategy | None:
    """A replica for each GPU of each worker that TF_CONFIG names, or that SLURM has started; None if there is but one.

    Raises ValueError when TensorFlow has computed something before: then it's too late.
    """
    if "TF_CONFIG" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        os.environ["TF_CONFIG"] = json.dumps(slurm_cluster())
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if sum(len(addresses) for addresses in resolver.cluster_spec().as_dict().values()) < 2:
        return None
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise ValueError(f"several workers have to meet before TensorFlow computes anything: {error}") from None


def slurm_cluster() -> dict[str, Any]:
    """The tasks of this SLURM step, as TF_CONFIG has it; which GPUs a task sees is for SLURM to say."""
    tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
    # A port of its own for each step that may share the host, below those that systems give to clients.
    port = 12000 + (int(os.environ.get("SLURM_JOB_ID", 0)) + int(os.environ.get("SLURM_STEP_ID", 0))) % 20000
    # The resolver wants to hand out GPUs, and fails where there is none for each task.
    slurm = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=port, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
    )
    cluster = slurm.cluster_spec().as_dict()
    return {"cluster": cluster, "task": {"type": slurm.task_type, "index": slurm.task_id}}


class Workers:
    """The workers of a strategy; without several of them, nothing here takes time."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.several = several_workers(strategy)
        self.first = not self.several or strategy.extended.should_checkpoint

    def sum(self, value: np.ndarray) -> np.ndarray:
        """Over workers, all of which have to call this."""
        if not self.several:
            return value

        def once(context):  # a worker may have several replicas
            local = context.replica_id_in_sync_group % len(self.strategy.extended.worker_devices)
            return tf.constant(value if local == 0 else np.zeros_like(value))

        values = self.strategy.experimental_distribute_values_from_function(once)
        return self.strategy.reduce("SUM", values, axis=None).numpy()

    def of_first(self, value: np.ndarray) -> np.ndarray:
        """That of the first worker; the others' must have its shape and type."""
        return self.sum(value if self.first else np.zeros_like(value))

    def led(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, a value for JSON, on the first worker, where alone it runs.

        Raises there what it raises, and ValueError on the others.
        """
        if not self.several:
            return work()
        result = error = None
        if self.first:
            try:
                result = work()
            except Exception as problem:
                error = problem
        told = json.dumps([result, error and f"the first worker: {error}"]).encode()
        size = self.of_first(np.array(len(told)))
        told = np.resize(np.frombuffer(told, np.uint8).astype(np.int32), size)
        result, problem = json.loads(self.of_first(told).astype(np.uint8).tobytes())
        if error:
            raise error
        if problem:
            raise ValueError(problem)
        return result

    def check_same(self, settings: dict[str, Any]) -> None:
        """Raises ValueError on all workers, naming them, for settings that aren't the same on all."""
        if not self.several:
            return
        of_first = self.led(lambda: settings)
        names = sorted(of_first)
        others = self.sum(np.array([settings.get(name) != of_first[name] for name in names], np.int32))
        if others.any():
            different = ", ".join(name for name, count in zip(names, others, strict=True) if count)
            raise ValueError(f"not all workers have the same {different}; start them with the same command")

    @contextlib.contextmanager
    def none_lost(self) -> Iterator["Workers"]:
        """Raises ConnectionError, in place of TensorFlow's errors, when another worker has ended meanwhile."""
        try:
            yield self
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            if not self.several:
                raise
            raise ConnectionError(
                "another worker has ended or can't be reached any more, and may have said why; start all of them again "
                "with the same command: training goes on from the last state"
            ) from error

    def copy_from_first(self, variables: list[keras.Variable]) -> None:
        """Gives all workers the first one's values."""
        if self.several:
            for variable in variables:
                variable.assign(self.of_first(variable.numpy()))


def several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy joins several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.extended._in_multi_worker_mode()

"""What this runs on: devices, the line that says so, and the hardware that a figure belongs to."""

import contextlib
import functools
import os
import pathlib
import platform
import sys

import keras
import tensorflow as tf

from files.hosts import workers_strategy

try:
    import resource
except ImportError:  # Windows has none
    resource = None


@functools.cache  # TensorFlow takes the collective operations of a second one for those of the first
def device_strategy() -> tf.distribute.Strategy:
    """A replica for each GPU of each worker (files/hosts.py), if there are several; to be called before all else."""
    if (workers := workers_strategy()) is not None:
        return workers
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def device_line(precision: str, jit_compile: bool = False, replicas: int = 1) -> str:
    """Where and how something is computed, in one line."""
    found = hardware()
    names = found["gpus"] or [f"{found['processor']} ({found['cores']} cores)"]
    kind = "GPU" if found["gpus"] else "CPU"
    shared = f"{replicas} replicas" if replicas > 1 else "1 replica"
    return f"on {kind}: {', '.join(names)}; {shared}, {precision}, {'with' if jit_compile else 'without'} XLA"


def hardware() -> dict:
    """Processor, the instructions that make a difference here, cores, GPUs, and versions."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "features": " ".join(name for name in ("avx512f", "avx512_bf16", "amx_bf16") if f" {name}" in text),
        "cores": os.cpu_count(),
        "gpus": [gpu_name(gpu) for gpu in tf.config.list_physical_devices("GPU")],
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def gpu_name(gpu: tf.config.PhysicalDevice) -> str:
    """The model, where the driver tells."""
    with contextlib.suppress(ValueError, tf.errors.OpError):
        return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
    return gpu.name


def peak_memory() -> int | None:
    """The largest resident size of this process so far, in bytes; None where the system doesn't tell."""
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""What this runs on, as it is told."""

import pathlib
import subprocess
import sys

import pytest

from files.device import device_line, hardware, peak_memory

ROOT = pathlib.Path(__file__).parent.parent


def test_the_line_tells_processor_replicas_precision_and_xla():
    line = device_line("mixed_bfloat16", jit_compile=True, replicas=2)
    assert line.startswith(f"on CPU: {hardware()['processor']} (")
    assert line.endswith("2 replicas, mixed_bfloat16, with XLA")


def test_peak_memory_is_that_of_the_kernel():
    status = pathlib.Path("/proc/self/status").read_text()
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak_memory() == pytest.approx(1024 * int(kilobytes), rel=0.05)


def test_without_the_resource_module_all_else_works():
    """As on Windows, which has none."""
    code = "import sys; sys.modules['resource'] = None; from files import device, evaluate; print(device.peak_memory())"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert process.stdout == "None\n", process.stderr

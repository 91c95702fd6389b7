"""SVG-LP (Denton and Fergus, ICML 2018) in TensorFlow: configuration, data, model, training, evaluation, plots."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Hides what is written to file descriptor 2, unless an error is raised.

    TensorFlow's C++ code writes there while it is imported, whatever its settings are.
    """
    with tempfile.TemporaryFile() as notes:
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except Exception:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


# TensorFlow's notes hide what users look for. TF_CPP_MIN_LOG_LEVEL=0 shows them, and why a GPU isn't found.
_hidden = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3" and sys.stderr is not None
# GPU memory as it is needed. TensorFlow reads this when it first looks for devices; after that it can't be changed.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

with _without_notes() if _hidden else contextlib.nullcontext():
    import tensorflow

if _hidden:
    tensorflow.get_logger().setLevel("ERROR")

"""Packages that the notebook needs, where `make` didn't install them: on Colab and Kaggle."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys


def install_missing(requirements: str | pathlib.Path = "requirements.txt") -> list[str]:
    """Installs those of the first paragraph of `requirements` that aren't there at all, and returns them.

    What is there stays as it is, TensorFlow above all, which on Colab and Kaggle fits their GPUs.
    """
    first = pathlib.Path(requirements).read_text().split("\n\n")[0]
    needed = [line for line in first.splitlines() if not line.startswith("#")]
    missing = [requirement for requirement in needed if not is_installed(re.match(r"[\w-]+", requirement)[0])]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
    return missing


def is_installed(name: str) -> bool:
    """Whether a package of that name is, in whatever version."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

"""Checks of what users and files give: one sentence says what is wrong with it, and is short whatever that is."""

import re
import reprlib
from typing import Any

import numpy as np

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def short(value: Any) -> str:
    """Its `repr`, on one line, cut: that of an object that holds another one twice, and so on, may be endless."""
    return _cut(_SHORT.repr(value))


def sentence(error: Exception) -> str:
    """What an error says, on one line, cut, without the names of TensorFlow's operations."""
    return _cut(re.sub(r"{{.*?}}|\[Op:\w*\]", "", str(error)[:2000])) or type(error).__name__


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def check_whole(least: int, most: int = 2**31 - 1, **values: Any) -> None:
    """Raises ValueError, naming it, for a value that is no whole number from `least` to `most`."""
    for name, value in values.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not least <= value <= most:
            raise ValueError(f"{name} is {short(value)}; expected a whole number from {least} to {most}")


def check_number(least: float, most: float, **values: Any) -> None:
    """Raises ValueError, naming it, for a value that is no number from `least` to `most`."""
    for name, value in values.items():
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not least <= value <= most:
            raise ValueError(f"{name} is {short(value)}; expected a number from {least:g} to {most:g}")

"""Long runs don't leak: what is compiled once serves all lengths, batches and numbers of samples, and memory stays."""

import ctypes
import gc
import sys

import keras
import numpy as np
import pytest

from files.config import Recipe
from files.model_svg import SVG
from files.train import train

LEAK = 0.1  # MB per epoch, or per ten calls, that would be one


class MallocInfo(ctypes.Structure):
    """What glibc's mallinfo2 returns, two fields of which are needed; the resident size would count its caches, too."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", *"abc", "hblkhd", *"de", "uordblks", *"fg")]


def megabytes() -> float:
    """What has been allocated and not freed, but for Python's small objects; 0 where the C library can't tell."""
    gc.collect()
    told = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if told is None:
        return 0.0
    told.restype = MallocInfo
    info = told()
    return (info.uordblks + info.hblkhd) / 2**20


@pytest.mark.parametrize(("changes", "calls"), [({}, 300), (dict(last_frame_skip=True, n_past=1), 5)], ids=str)
def test_calls_of_many_lengths_neither_trace_nor_keep_memory(tiny, changes, calls, random_video):
    model = SVG(tiny.replace(**changes))
    rng, past = np.random.default_rng(0), model.config.n_past
    first = [(1, 1, 1), (1, 1, 2), (2, 3, 1), (2, 1, 3), (1, 1, 2)]
    sizes, before = [*first, *rng.integers(1, 4, (calls, 3)).tolist()], 0.0
    for number, (batch, frames, samples) in enumerate(sizes):
        shape = batch, samples, frames, 64, 64, 1
        assert model.generate(random_video(batch, past, 64, 64, 1), frames, samples).shape == shape
        if number == len(sizes) // 3:
            before = megabytes()
    if calls > 100:  # the first ones are still traced
        assert megabytes() - before < LEAK * calls * 2 / 3 / 10
    for batch, frames in rng.integers(1, 5, (calls // 3, 2)).tolist():
        video = random_video(batch, past + frames, 64, 64, 1)
        assert model.reconstruct(video).shape == (batch, past + frames - 1, 64, 64, 1)
    assert model._generate.experimental_get_tracing_count() <= 5
    assert model._reconstruct.experimental_get_tracing_count() <= 4


def test_epochs_neither_trace_nor_keep_memory(tiny, tmp_path, monkeypatch):
    config = tiny.replace(width=2, g_dim=4, rnn_size=4, n_past=1, n_future=1)
    epochs, warm_up, held, traced = 30, 10, [], []

    def counting(function):  # Python runs what is compiled only while it is traced
        return lambda *args, **kwargs: traced.append(function) or function(*args, **kwargs)

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch + 1 in (warm_up, epochs):
                held.append((megabytes(), len(gc.get_objects()), len(traced)))

    monkeypatch.setattr(SVG, "call", counting(SVG.call))
    monkeypatch.setattr(SVG, "imagine", counting(SVG.imagine))
    monkeypatch.setattr("files.train.StopOnNaN", Watch)
    recipe = Recipe(batch_size=1, steps_per_epoch=1, epochs=epochs, val_sequences=1)
    train(config, recipe, None, "run", tmp_path, tmp_path / "results", verbose=0)
    (memory, objects, traces), (memory_after, objects_after, traces_after) = held
    assert memory_after - memory < LEAK * (epochs - warm_up)
    assert objects_after - objects < 100 * (epochs - warm_up)  # a row of the logs has some
    assert traces_after == traces > 2

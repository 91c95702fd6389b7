"""Long runs don't leak: what is compiled once serves all lengths, batches and numbers of samples."""

import numpy as np
import pytest

from files.model_svg import SVG


@pytest.mark.parametrize(("changes", "calls"), [({}, 100), (dict(last_frame_skip=True, n_past=1), 5)], ids=str)
def test_the_number_of_traces_is_bounded(tiny, changes, calls, random_video):
    model = SVG(tiny.replace(**changes))
    rng, past = np.random.default_rng(0), model.config.n_past
    first = [(1, 1, 1), (1, 1, 2), (2, 3, 1), (2, 1, 3), (1, 1, 2)]
    for batch, frames, samples in (*first, *rng.integers(1, 4, (calls, 3)).tolist()):
        shape = batch, samples, frames, 64, 64, 1
        assert model.generate(random_video(batch, past, 64, 64, 1), frames, samples).shape == shape
    for batch, frames in rng.integers(1, 5, (calls, 2)).tolist():
        video = random_video(batch, past + frames, 64, 64, 1)
        assert model.reconstruct(video).shape == (batch, past + frames - 1, 64, 64, 1)
    assert model._generate.experimental_get_tracing_count() <= 5
    assert model._reconstruct.experimental_get_tracing_count() <= 4

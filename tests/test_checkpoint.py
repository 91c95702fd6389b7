"""Every variable of a model is in its checkpoint."""

import numpy as np
import pytest

from files.config import Config
from files.model_svg import SVG

TINY = Config(width=4, g_dim=8, z_dim=3, rnn_size=16)


@pytest.mark.parametrize("settings", [{}, {"backbone": "vgg"}, {"prior": "fixed"}, {"prior": "none"}], ids=str)
def test_all_variables_survive_save_and_load(tmp_path, settings):
    model = SVG(TINY.replace(**settings))
    values = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(values.uniform(0.5, 1.5, variable.shape))
    model.save_weights_to(tmp_path)
    loaded = SVG.load(tmp_path)
    assert len(loaded.variables) == len(model.variables)
    for variable, expected in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy(), err_msg=expected.path)

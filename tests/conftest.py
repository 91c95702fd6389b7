"""What all tests share: two logical CPUs for the distribution strategy, and a tiny configuration."""

import numpy as np
import pytest
import tensorflow as tf

from files.config import Config, Recipe
from files.model_svg import SVG
from files.scheduled_sampling import ScheduledSamplingSVG

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def two_devices() -> tf.distribute.Strategy:
    """One for all tests: TensorFlow takes the collective operations of a second one for those of the first."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def tiny() -> Config:
    """A model that builds in a second."""
    return Config(width=4, g_dim=8, z_dim=3, rnn_size=16, n_past=3, n_future=3)


@pytest.fixture(scope="session")
def short() -> Recipe:
    """A training that ends in seconds."""
    return Recipe(batch_size=2, steps_per_epoch=3, epochs=2, val_sequences=4)


@pytest.fixture(scope="session")
def lively():
    """A function: configuration -> model whose weights are large enough for every input to show in every output."""

    def build(config: Config, teacher_forcing: float = 1.0) -> SVG:
        model = SVG(config) if teacher_forcing == 1 else ScheduledSamplingSVG(config, teacher_forcing)
        rng = np.random.default_rng(0)
        for variable in model.trainable_variables:
            shape = variable.shape
            scale = np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.1
            variable.assign(rng.normal(1.0 if "gamma" in variable.path else 0.0, scale, shape))
        return model

    return build


@pytest.fixture
def eagerly():
    """Without graphs, whose tracing takes ten times as long as a few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def random_video():
    """A function: shape [B, T, H, W, C] -> float32 video in [0, 1]."""
    return lambda *shape: np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)

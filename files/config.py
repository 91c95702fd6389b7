"""Every hyper-parameter in one frozen dataclass, and the published settings as named presets."""

import dataclasses
import json
import pathlib
from typing import Literal, get_args, get_origin, get_type_hints


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What determines the shape of every weight; the defaults are the paper's for Stochastic Moving MNIST."""

    image_size: Literal[64, 128] = 64
    """Height and width of a frame in pixels."""
    channels: int = 1
    """Channels of a frame: 1 or 3."""
    backbone: Literal["dcgan", "vgg"] = "dcgan"
    """Convolutional encoder and decoder."""
    width: int = 64
    """Channels of the first convolutional level (the paper's: 64); all others are multiples of it."""
    g_dim: int = 128
    """Size of the encoder's output h."""
    z_dim: int = 10
    """Size of the latent z_t."""
    rnn_size: int = 256
    """Units of each LSTM layer."""
    posterior_layers: int = 1
    """LSTM layers of the posterior."""
    prior_layers: int = 1
    """LSTM layers of the learned prior."""
    predictor_layers: int = 2
    """LSTM layers of the frame predictor."""
    prior: Literal["learned", "fixed", "none"] = "learned"
    """learned: SVG-LP; fixed: N(0, I), SVG-FP; none: the deterministic baseline without z."""


@dataclasses.dataclass(frozen=True)
class Config(Architecture):
    """Hyper-parameters of data, model and training; the defaults are the paper's for Stochastic Moving MNIST.

    Raises ValueError, naming the field, for a value that no model can be built or trained with.
    """

    data: str = "smmnist"
    """Dataset: smmnist (Denton and Fergus), smmnist_srvp (Franceschi et al.), mmnist (deterministic bounce), or the
    path of an .npy or .npz file of videos [N, T, H, W(, C)], uint8 or float in [0, 1]."""
    num_digits: int = 2
    """Digits per Moving MNIST video, 1 to 3."""

    n_past: int = 5
    """Frames given."""
    n_future: int = 10
    """Frames predicted in training; generation goes on for as long as asked."""

    last_frame_skip: bool = False
    """Take the skip connections from the latest frame for ever, instead of holding those of the past."""

    start_from: str | None = None
    """Folder of a checkpoint whose weights training starts with, of the same model or of one that is less wide."""
    teacher_forcing: float = 1.0
    """Probability that a frame after the past is fed as it is in training, as in the paper; else it is the model's own.
    Below 1, batch norm keeps the statistics of `start_from`."""
    beta: float = 1e-4
    """Weight of the KL term."""
    learning_rate: float = 2e-3
    """Adam's learning rate."""
    beta_1: float = 0.9
    """Adam's beta_1."""
    decay: float = 0.0
    """Share of the epochs, the last ones, over which the learning rate falls linearly towards zero; 0: it is constant
    as in the paper."""
    clip_norm: float | None = None
    """Clip the gradient to this global norm."""
    batch_size: int = 100
    """Sequences per training step, over all devices."""
    steps_per_epoch: int = 600
    """Training steps per epoch; state is saved at the end of each epoch."""
    epochs: int = 300
    """Epochs in all."""
    val_sequences: int = 500
    """Held-out sequences evaluated after each epoch."""
    seed: int = 0
    """Seed of weights, data and noise."""

    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras's dtype policy of the convolutional nets; recurrent nets and losses are always float32."""
    jit_compile: bool = False
    """Compile the training step with XLA."""
    steps_per_execution: int = 1
    """Training steps per call of the compiled graph; more hides the host's latency on a fast GPU."""
    recompute: bool = False
    """Recompute the convolutional activations in the backward pass: half of the memory, more time."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, get_args(hint)))}")
            if hint is int and (not isinstance(value, int) or value < (name != "seed")):
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1 (seed: 0)")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value!r}; expected a number above 0")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is {self.decay!r}; expected a share of the epochs, from 0 to 1")
        if not self.beta >= 0:
            raise ValueError(f"beta is {self.beta!r}; expected a number of at least 0")
        if not 0 <= self.teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing is {self.teacher_forcing!r}; expected a probability, from 0 to 1")
        if self.teacher_forcing < 1 and self.start_from is None:
            raise ValueError("teacher_forcing below 1 needs start_from: a trained model has to make the own frames")
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels!r}; expected 1 or 3")
        if self.data in ("smmnist", "smmnist_srvp", "mmnist"):
            if not 1 <= self.num_digits <= 3:
                raise ValueError(f"num_digits is {self.num_digits!r}; expected 1 to 3")
            if (self.image_size, self.channels) != (64, 1):
                raise ValueError(
                    f"{self.data} has frames of 64 x 64 x 1; image_size is {self.image_size}, channels {self.channels}"
                )

    @property
    def n_frames(self) -> int:
        """Frames of a training sequence."""
        return self.n_past + self.n_future

    def replace(self, **overrides) -> "Config":
        """A copy with other values.

        Raises ValueError for a field that doesn't exist.
        """
        fields = {field.name for field in dataclasses.fields(self)}
        if unknown := set(overrides) - fields:
            raise ValueError(f"unknown settings {sorted(unknown)}; there are {', '.join(sorted(fields))}")
        return dataclasses.replace(self, **overrides)

    def save(self, path: str | pathlib.Path) -> None:
        """Write all settings as JSON."""
        pathlib.Path(path).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | pathlib.Path, **overrides) -> "Config":
        """Read settings that `save` wrote, with `overrides` on top.

        Raises ValueError when the file isn't JSON or names settings that don't exist.
        """
        try:
            values = json.loads(pathlib.Path(path).read_text())
        except ValueError as error:
            raise ValueError(f"{path} is no configuration in JSON: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} holds a {type(values).__name__}; expected a JSON object of settings")
        return cls().replace(**values).replace(**overrides)


_KTH = Config(
    data="data/kth.npz", backbone="vgg", n_past=10, n_future=10, z_dim=24, beta=1e-6, learning_rate=8e-4,
)  # fmt: skip

PRESETS: dict[str, Config] = {
    "smmnist": Config(),
    "smmnist_srvp": Config(data="smmnist_srvp"),
    "bair": Config(data="data/bair.npz", backbone="vgg", channels=3, n_past=2, n_future=10, z_dim=64),
    "kth": _KTH,
    "kth_128": _KTH.replace(image_size=128),
    # Minutes on two CPU cores: narrow nets, small batches, a rate that decays.
    "quick": Config(
        width=16, batch_size=16, learning_rate=1e-3, decay=1.0, clip_norm=1.0, steps_per_epoch=100, epochs=12,
        val_sequences=64,
    ),
}  # fmt: skip


def preset(name: str, **overrides) -> Config:
    """The settings called `name` in PRESETS, with `overrides` on top.

    Raises ValueError for an unknown preset or setting.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name].replace(**overrides)

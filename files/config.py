"""All settings in three parts, each a frozen dataclass: model and data, training recipe, this machine; and presets.

`Config` is what a checkpoint is, `Recipe` how it is trained, `Machine` how fast. A field's type tells its range.
"""

import dataclasses
import json
import pathlib
import types
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from files.checks import short
from files.durable import replacing

MAX_JSON = 1 << 20  # bytes of a file of settings, which has some 1000
MOVING_MNIST = ("smmnist", "smmnist_srvp", "mmnist")  # datasets that are made on the fly


@dataclasses.dataclass(frozen=True)
class Within:
    """The range of a number, as in mathematics: "[0, 1)" holds 0, but not 1."""

    interval: str

    def __contains__(self, value: float) -> bool:
        low, high = map(float, self.interval[1:-1].split(","))
        above = value >= low if self.interval[0] == "[" else value > low
        return above and (value <= high if self.interval[-1] == "]" else value < high)


Seed = Annotated[int, Within(f"[0, {2**31 - 1}]")]
Count = Annotated[int, Within("[1, 1e9]")]
Frames = Annotated[int, Within("[1, 10000]")]
Units = Annotated[int, Within("[1, 10000]")]
Layers = Annotated[int, Within("[1, 20]")]
Share = Annotated[float, Within("[0, 1]")]
Positive = Annotated[float, Within("(0, inf)")]
Part = TypeVar("Part", bound="Settings")


class Settings:
    """What the three parts share: checks, copies with other values, and JSON."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            check(name, getattr(self, name), hint)

    def replace(self: Part, **overrides: Any) -> Part:
        """A copy with other values.

        Raises ValueError for a field that doesn't exist or a value that it can't have.
        """
        refuse_unknown(overrides, field_names(type(self)))
        return dataclasses.replace(self, **overrides)

    def save(self, path: str | pathlib.Path) -> None:
        """Writes all settings as JSON; whoever is killed meanwhile leaves the file as it was."""
        with replacing(path) as writing:
            writing.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls: type[Part], path: str | pathlib.Path, **overrides: Any) -> Part:
        """Reads settings that `save` wrote, with `overrides` on top.

        Raises ValueError when the file isn't JSON, or names settings that don't exist or a value that they can't have.
        """
        path = pathlib.Path(path)
        if (size := path.stat().st_size) > MAX_JSON:
            raise ValueError(f"{path} has {size} bytes; expected a JSON object of settings")
        try:
            values = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no configuration in JSON: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} holds a {type(values).__name__}; expected a JSON object of settings")
        # Checkpoints once held all three parts in one file.
        refuse_unknown(values, field_names(Config, Recipe, Machine))
        own = {name: value for name, value in values.items() if name in field_names(cls)}
        return cls().replace(**own).replace(**overrides)


def field_names(*parts: type) -> list[str]:
    """The names of all fields."""
    return [field.name for part in parts for field in dataclasses.fields(part)]


def refuse_unknown(values: dict[str, Any], known: list[str]) -> None:
    """Raises ValueError for a name that isn't known."""
    if unknown := set(values) - set(known):
        raise ValueError(f"unknown settings {short(sorted(unknown))}; there are {', '.join(sorted(known))}")


def check(name: str, value: Any, hint: Any) -> None:
    """Raises ValueError, naming the field, for a value that its type hint doesn't allow."""
    if get_origin(hint) in (Union, types.UnionType):  # or None
        if value is None:
            return
        hint, _ = get_args(hint)
    kind, *within = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(kind) is Literal:
        fits = any(value == allowed and type(value) is type(allowed) for allowed in get_args(kind))
        expected = f"one of {', '.join(map(repr, get_args(kind)))}"
    else:
        fits = type(value) in ((int, float) if kind is float else (kind,)) and value != ""  # where None is meant
        expected = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}[kind]
    for interval in within:
        fits = fits and value in interval
        expected += f" in {interval.interval}"
    if not fits:
        raise ValueError(f"{name} is {short(value)}; expected {expected}")


@dataclasses.dataclass(frozen=True)
class Architecture(Settings):
    """What determines the shape of every weight; the defaults are the paper's for Stochastic Moving MNIST."""

    image_size: Literal[64, 128] = 64
    """Height and width of a frame in pixels."""
    channels: Literal[1, 3] = 1
    """Channels of a frame."""
    backbone: Literal["dcgan", "vgg"] = "dcgan"
    """Convolutional encoder and decoder."""
    width: Units = 64
    """Channels of the first convolutional level (the paper's: 64); all others are multiples of it."""
    g_dim: Units = 128
    """Size of the encoder's output h."""
    z_dim: Units = 10
    """Size of the latent z_t."""
    rnn_size: Units = 256
    """Units of each LSTM layer."""
    posterior_layers: Layers = 1
    """LSTM layers of the posterior."""
    prior_layers: Layers = 1
    """LSTM layers of the learned prior."""
    predictor_layers: Layers = 2
    """LSTM layers of the frame predictor."""
    prior: Literal["learned", "fixed", "none"] = "learned"
    """learned: SVG-LP; fixed: N(0, I), SVG-FP; none: the deterministic baseline without z."""

    @property
    def least_weights(self) -> int:
        """Fewer than any such model has: what a file must hold before a model of the sizes that it tells is built."""
        latent, learned = self.prior != "none", self.prior == "learned"
        layers = self.predictor_layers + latent * self.posterior_layers + learned * self.prior_layers
        recurrent = self.rnn_size * (8 * layers * self.rnn_size + 2 * self.g_dim + 3 * latent * self.z_dim)
        return recurrent + self.width * (1000 * self.width + 128 * self.g_dim)


@dataclasses.dataclass(frozen=True)
class Config(Architecture):
    """The model and its data: all that `SVG.load` needs. The defaults are the paper's for Stochastic Moving MNIST.

    Raises ValueError, naming the field, for a value that no model can be built with.
    """

    data: str = "smmnist"
    """Dataset: smmnist (Denton and Fergus), smmnist_srvp (Franceschi et al.), mmnist (deterministic bounce), or the
    path of videos: a video, a folder or zip archive of videos or of folders of pictures, KTH's or BAIR's folder as it
    is downloaded, or an .npy or .npz array [N, T, H, W(, C)], uint8 or float in [0, 1]."""
    frame_step: Annotated[int, Within("[1, 1000]")] = 1
    """Every how many-th frame of a video is taken."""
    crop: bool = False
    """Cut the centre out of frames that are decoded, instead of squashing them to a square as the authors do."""
    num_digits: Annotated[int, Within("[1, 3]")] = 2
    """Digits per Moving MNIST video."""
    n_past: Frames = 5
    """Frames given."""
    n_future: Frames = 10
    """Frames predicted in training; generation goes on for as long as asked."""
    last_frame_skip: bool = False
    """Take the skip connections from the latest frame at all times, instead of holding those of the past."""
    beta: Annotated[float, Within("[0, inf)")] = 1e-4
    """Weight of the KL term."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data in MOVING_MNIST and (self.image_size, self.channels) != (64, 1):
            raise ValueError(
                f"{self.data} has frames of 64 x 64 x 1; image_size is {self.image_size}, channels {self.channels}"
            )
        if self.data in MOVING_MNIST and (self.frame_step > 1 or self.crop):
            raise ValueError(
                f"frame_step is {self.frame_step}, crop {self.crop}; expected 1 and False, as {self.data} is made"
            )

    @property
    def n_frames(self) -> int:
        """Frames of a training sequence."""
        return self.n_past + self.n_future


@dataclasses.dataclass(frozen=True)
class Recipe(Settings):
    """How the model is trained; the defaults are the paper's for Stochastic Moving MNIST.

    Raises ValueError, naming the field, for a value that no training can have.
    """

    batch_size: Count = 100
    """Sequences per training step, over all devices."""
    steps_per_epoch: Count = 600
    """Training steps per epoch; state is saved at the end of each epoch."""
    epochs: Count = 300
    """Epochs in all."""
    learning_rate: Positive = 2e-3
    """Adam's learning rate."""
    beta_1: Annotated[float, Within("[0, 1)")] = 0.9
    """Adam's beta_1."""
    decay: Share = 0.0
    """Share of the epochs, the last ones, over which the learning rate falls linearly towards zero; 0: it is constant
    as in the paper."""
    clip_norm: Positive | None = None
    """Clip the gradient to this global norm."""
    start_from: str | None = None
    """Folder of a checkpoint whose weights training starts with, of the same model or of one that is less wide."""
    teacher_forcing: Share = 1.0
    """Probability that a frame after the past is fed as it is in training, as in the paper; below 1 this is scheduled
    sampling (files/scheduled_sampling.py), and batch norm keeps the statistics of `start_from`."""
    sync_batch_norm: bool = False
    """Batch norm takes its statistics over all devices, so that their number makes no difference. Off as usual: each
    device's are those of its own share, which needs no waiting for the others in each layer."""
    val_sequences: Count = 500
    """Held-out sequences evaluated after each epoch."""
    seed: Seed = 0
    """Seed of weights, training data and noise; held-out data is the same for all seeds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_forcing < 1 and self.start_from is None:
            raise ValueError("teacher_forcing below 1 needs start_from: a trained model has to make the own frames")

    @property
    def constant_epochs(self) -> int:
        """Epochs before the learning rate begins to fall."""
        return self.epochs - round(self.decay * self.epochs)

    def learning_rate_in(self, epoch: int) -> float:
        """Adam's rate in `epoch`, counted from 0: constant, then falling by the same amount each epoch, never 0."""
        falling = self.epochs - self.constant_epochs
        return self.learning_rate * min(1.0, (self.epochs - epoch) / (falling + 1))


@dataclasses.dataclass(frozen=True)
class Machine(Settings):
    """How training runs on this machine: its speed and memory, not what is learned.

    Raises ValueError, naming the field, for a value that there isn't.
    """

    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras's dtype policy of the convolutional nets; recurrent nets and losses are always float32."""
    jit_compile: bool = False
    """Compile the training step with XLA."""
    steps_per_execution: Count = 1
    """Training steps per call of the compiled graph, a divisor of steps_per_epoch; more hides the host's latency on a
    fast GPU."""
    recompute: bool = False
    """Recompute the convolutional activations in the backward pass: half of the memory, more time."""
    accumulate: Count = 1
    """Small batches, one after the other, whose gradients make a step: so much less memory. Batch norm takes the
    statistics of each, as it does of each of several devices' shares."""
    save_minutes: Positive = 10.0
    """Save the training state within an epoch, too, when so many minutes have passed."""
    store: str | None = None
    """Folder for decoded videos; by default DATA.frames beside the data."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """Published settings: a model on its data, and the recipe to train it."""

    config: Config
    recipe: Recipe


_KTH = Preset(
    Config(data="data/kth", backbone="vgg", n_past=10, n_future=10, z_dim=24, beta=1e-6),
    Recipe(learning_rate=8e-4),
)

PRESETS: dict[str, Preset] = {
    "smmnist": Preset(Config(), Recipe()),
    "smmnist_srvp": Preset(Config(data="smmnist_srvp"), Recipe()),
    "bair": Preset(Config(data="data/bair", backbone="vgg", channels=3, n_past=2, n_future=10, z_dim=64), Recipe()),
    "kth": _KTH,
    "kth_128": Preset(_KTH.config.replace(image_size=128), _KTH.recipe),
    # Minutes on two CPU cores: narrow nets, small batches, a rate that decays.
    "quick": Preset(
        Config(width=16),
        Recipe(
            batch_size=16, steps_per_epoch=100, epochs=12, learning_rate=1e-3, decay=1.0, clip_norm=1.0,
            val_sequences=64,
        ),
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """The settings called `name` in PRESETS.

    Raises ValueError for an unknown preset.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

"""Import of the authors' checkpoints: `model.pth` of their PyTorch code, or an .npz of arrays in their parameter names.

A .pth is a pickle, and a pickle is a program. It is read here without PyTorch, by an unpickler that knows no function
and no class of its own: every name in the file becomes an inert `Shell`, names off the allow-list are refused, and the
arrays are cut from the file's bytes afterwards.
"""

import collections
import dataclasses
import io
import math
import pathlib
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
import tyro

from files.author_weights import Arrays, infer_config, load_author_weights
from files.model_svg import SVG
from files.state import training_states

NETS = ("encoder", "decoder", "frame_predictor", "posterior", "prior")  # SVG-FP has no prior
SETTINGS = ("n_past", "n_future", "last_frame_skip", "num_digits", "beta")  # that both have
DATASETS = {"smmnist": "smmnist", "bair": "data/bair", "kth": "data/kth"}

# What reading a damaged file may raise; a refused name is an UnpicklingError.
DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, EOFError, LookupError, TypeError, ValueError,
    AttributeError, OverflowError, RecursionError, NotImplementedError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Which checkpoint of the authors' code to import, and where to."""

    source: tyro.conf.Positional[pathlib.Path]
    """Their model.pth, or an .npz of arrays in their parameter names (encoder.c1.main.0.weight, ...)."""
    folder: tyro.conf.Positional[pathlib.Path]
    """Folder to write, checkpoints/NAME."""
    n_past: int | None = None
    """Frames given; needed where the source doesn't tell: an .npz has none of their options."""


def import_checkpoint(options: ImportOptions) -> SVG:
    """Writes the checkpoint that `SVG.load` reads, and returns the model.

    Backbone, sizes and kind of prior come from the arrays, n_past, beta and the like from the options in a .pth.

    Raises FileNotFoundError for a source that doesn't exist, FileExistsError for a folder that holds a training run,
    ValueError for a source that is damaged, refused or no SVG model, or that doesn't tell n_past.
    """
    if training_states(options.folder):
        raise FileExistsError(f"{options.folder} holds a training run; import into another folder")
    is_npz = options.source.suffix == ".npz"
    arrays, settings = (read_npz(options.source), {}) if is_npz else read_pth(options.source)
    if options.n_past is not None:
        settings["n_past"] = options.n_past
    if "n_past" not in settings:
        raise ValueError(f"{options.source} doesn't tell how many frames are given; say so with --n-past")
    model = SVG(infer_config(arrays, **settings))
    load_author_weights(model, arrays)
    model.save_weights_to(options.folder)
    config = model.config
    print(
        f"wrote {options.folder}: {config.backbone} {config.image_size} x {config.image_size} x {config.channels}, "
        f"prior {config.prior}, n_past {config.n_past}, {model.count_params():,} weights"
    )
    return model


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz, without unpickling.

    Raises FileNotFoundError, or ValueError for a file that is damaged or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except DAMAGED as error:
        raise ValueError(f"{path} is no readable .npz: {error}") from None


def read_pth(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of the authors' model.pth in their parameter names, and its options as settings of `Config`.

    Reads PyTorch's zip format, the default since 1.6, and the one before.

    Raises FileNotFoundError, or ValueError for a file that is damaged, refused, or no checkpoint of theirs.
    """
    data = path.read_bytes()
    try:
        checkpoint, storages = read_zip(data) if data.startswith(b"PK") else read_legacy(data)
        arrays = {}
        for net in NETS:
            if net in checkpoint:
                arrays.update(module_arrays(checkpoint[net], net, storages))
        return arrays, opt_settings(checkpoint["opt"].state if "opt" in checkpoint else {})
    except DAMAGED as error:
        raise ValueError(f"{path} is no readable checkpoint of the authors' code: {error}") from None


def opt_settings(opt: dict) -> dict:
    """The authors' command-line options as settings of `Config`, as far as both have them."""
    settings = {name: opt[name] for name in SETTINGS if name in opt}
    if opt.get("dataset") in DATASETS:
        settings["data"] = DATASETS[opt["dataset"]]
    return settings


# PyTorch's file formats ---------------------------------------------------------------------------------------------


class Shell:
    """Stands for any object of the pickle: keeps what the object would be made of, and does nothing."""

    def __new__(cls, *args):
        self = super().__new__(cls)
        self.args, self.state = args, {}
        return self

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        self.state = state


class Parameter(Shell):
    """A tensor in a wrapper, as its first argument."""


class Tensor(Shell):
    """Arguments: storage, offset, shape, strides, in elements."""


# Names that a checkpoint of the authors may hold. Only the two containers are what they say.
CONTAINERS = {
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
}
TENSORS = {
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_parameter": Parameter,
    "torch.nn.parameter.Parameter": Parameter,
    "torch.autograd.variable.Variable": Parameter,
}
DTYPES = {
    "torch.HalfStorage": "<f2", "torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8",
    "torch.IntStorage": "<i4", "torch.LongStorage": "<i8",
}  # fmt: skip
INERT = re.compile(
    r"argparse\.Namespace|torch\.Size|models\.\w+\.\w+|torch\.nn\.modules\.\w+\.\w+|torch\.optim\.\w+\.\w+"
    r"|torch\.nn\.backends\.thnn\._get_thnn_function_backend"
)


class InertUnpickler(pickle.Unpickler):
    """Builds shells alone; `storages` collects the dtype and number of elements of each storage by its key."""

    def __init__(self, stream):
        super().__init__(stream, encoding="latin1")
        self.storages: dict[str, tuple[str, int]] = {}

    def find_class(self, module: str, name: str):
        """The stand-in for a name; raises UnpicklingError for one that isn't on the list."""
        path = f"{module}.{name}"
        if path in CONTAINERS:
            return CONTAINERS[path]
        if path in TENSORS:
            return TENSORS[path]
        if path in DTYPES or INERT.fullmatch(path):
            return type(path, (Shell,), {})
        raise pickle.UnpicklingError(f"refused to load {path}, which no checkpoint of theirs needs")

    def persistent_load(self, pid):
        """A storage becomes its key; the class of a module, which the old format writes so, is itself."""
        if pid[0] == "module":
            return pid[1]
        kind, storage_type, key, _, count, *view = pid
        if kind != "storage" or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"persistent object {kind!r} is unknown")
        self.storages[key] = DTYPES[storage_type.__name__], count
        return key


def read_zip(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """The pickled object, and the storages' elements by key, of PyTorch's zip format."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        unpickler = InertUnpickler(archive.open(pickled))
        checkpoint = unpickler.load()
        folder = pickled.removesuffix("data.pkl")
        return checkpoint, {
            key: elements(archive.read(f"{folder}data/{key}"), dtype, count)
            for key, (dtype, count) in unpickler.storages.items()
        }


def read_legacy(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """The same of the format before: five pickles, then each storage's length (int64) and bytes."""
    stream = io.BytesIO(data)
    magic, _version, _system = (InertUnpickler(stream).load() for _ in range(3))
    if magic != 0x1950A86A20F9469CFC6C:
        raise ValueError("it doesn't begin as a file of PyTorch does")
    unpickler = InertUnpickler(stream)
    checkpoint = unpickler.load()
    storages = {}
    for key in InertUnpickler(stream).load():
        dtype, count = unpickler.storages[key]
        if int.from_bytes(stream.read(8), "little") != count:
            raise ValueError(f"storage {key} hasn't the length that was announced")
        storages[key] = elements(stream.read(count * np.dtype(dtype).itemsize), dtype, count)
    return checkpoint, storages


def elements(data: bytes, dtype: str, count: int) -> np.ndarray:
    """A storage's `count` elements; raises ValueError for too few bytes."""
    return np.frombuffer(data, dtype, count)


# Modules ------------------------------------------------------------------------------------------------------------


def module_arrays(module: Shell, name: str, storages: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters and buffers of a module and of those inside it, with dotted names that begin with `name`."""
    tensors = {**module.state["_parameters"], **module.state["_buffers"]}
    for key, tensor in tensors.items():
        if tensor is not None:
            yield f"{name}.{key}", tensor_array(tensor, storages)
    for key, child in module.state["_modules"].items():
        yield from module_arrays(child, f"{name}.{key}", storages)


def tensor_array(tensor: Shell, storages: Arrays) -> np.ndarray:
    """The array of a tensor or parameter; raises ValueError for one that reaches beyond its storage."""
    while isinstance(tensor, Parameter):
        (tensor, *_) = tensor.args
    key, offset, shape, strides, *_ = tensor.args
    storage = storages[key]
    if math.prod(shape) > storage.size:
        raise ValueError(f"a tensor of shape {shape} is larger than its storage of {storage.size} elements")
    size = storage.itemsize
    return np.ndarray(shape, storage.dtype, storage, offset * size, [stride * size for stride in strides])

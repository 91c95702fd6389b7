"""Import of the authors' checkpoints: `model.pth` of their PyTorch code, or an .npz of arrays in their parameter names.

A .pth is a pickle, and a pickle is a program. It is read here without PyTorch and without `pickle`, by an interpreter
of the few instructions that a checkpoint needs: every object becomes an inert `Shell`, names off the allow-list are
refused, and the arrays are cut from the file's bytes afterwards. Whatever the file, time and memory are bounded by its
size: nothing that it announces is believed before it is compared with what is there, and nothing is copied or visited
as often as the file likes.
"""

import dataclasses
import io
import math
import pathlib
import pickletools
import re
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import tyro

from files.arrays import read_arrays
from files.author_weights import Arrays, infer_config, load_author_weights
from files.checks import sentence, short
from files.model_svg import SVG
from files.state import training_states

NETS = ("encoder", "decoder", "frame_predictor", "posterior", "prior")  # SVG-FP has no prior
SETTINGS = ("n_past", "n_future", "last_frame_skip", "num_digits", "beta")  # that both have
DATASETS = {"smmnist": "smmnist", "bair": "data/bair", "kth": "data/kth"}

MAX_FILE = 1 << 30  # bytes; theirs have some 100 MB
MAX_PICKLED = 16 << 20  # bytes of a file's pickles; theirs have some 100 kB
MAX_INSTRUCTIONS = 500_000  # of a pickle; theirs have some 10,000
MAX_NAME = 200  # characters of a parameter's name


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
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return read_arrays(path)


def read_pth(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of the authors' model.pth in their parameter names, and its options as settings of `Config`.

    Reads PyTorch's zip format, the default since 1.6, and the one before.

    Raises FileNotFoundError, or ValueError for a file that is damaged, refused, or no checkpoint of theirs.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        try:
            return read_checkpoint(file, path.stat().st_size)
        except Exception as error:  # zipfile, pickletools and NumPy raise a dozen types on damaged bytes
            raise ValueError(f"{path} is no readable checkpoint of the authors' code: {sentence(error)}") from None


def read_checkpoint(file: BinaryIO, size: int) -> tuple[dict[str, np.ndarray], dict]:
    """As `read_pth`, from a file of `size` bytes; raises whatever its bytes lead to."""
    if size > MAX_FILE:
        raise ValueError(f"it has {size} bytes, and theirs have less than {MAX_FILE}")
    zipped = file.read(2) == b"PK"
    file.seek(0)
    checkpoint, storages = read_zip(file, size) if zipped else read_legacy(file, size)
    if not isinstance(checkpoint, dict):
        raise ValueError("it isn't a dictionary of nets")
    arrays, seen = {}, set()
    for net in NETS:
        if net in checkpoint:
            arrays.update(module_arrays(checkpoint[net], net, storages, seen))
    if sum(array.size for array in arrays.values()) > sum(storage.size for storage in storages.values()):
        raise ValueError("its tensors share their numbers")  # and the model would be larger than the file
    return arrays, opt_settings(checkpoint["opt"].state if "opt" in checkpoint else {})


def opt_settings(opt: dict) -> dict:
    """The authors' command-line options as settings of `Config`, as far as both have them."""
    settings = {name: opt[name] for name in SETTINGS if name in opt}
    for name, value in settings.items():
        if type(value) not in (int, float, bool):
            raise ValueError(f"its option {name} is {short(value)}; expected a number")
    dataset = opt.get("dataset")
    if isinstance(dataset, str) and dataset in DATASETS:
        settings["data"] = DATASETS[dataset]
    return settings


# PyTorch's file formats ---------------------------------------------------------------------------------------------


class Name(str):
    """Stands for a function or class of the pickle."""

    __slots__ = ()


@dataclasses.dataclass(eq=False, slots=True)
class Shell:
    """Stands for any object of the pickle: keeps what the object would be made of, and does nothing."""

    name: Name
    args: tuple
    state: Any = None


@dataclasses.dataclass(frozen=True)
class Storage:
    """Stands for a tensor's numbers: where they are, and how many there should be."""

    key: str
    dtype: str
    count: int


# Names that a checkpoint of the authors may hold.
ORDERED_DICT = "collections.OrderedDict"
TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")  # of storage, offset, shape, strides, ...
WRAPPERS = (  # of a tensor, ...
    "torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter", "torch.autograd.variable.Variable",
)  # fmt: skip
DTYPES = {
    "torch.HalfStorage": "<f2", "torch.FloatStorage": "<f4", "torch.DoubleStorage": "<f8",
    "torch.IntStorage": "<i4", "torch.LongStorage": "<i8",
}  # fmt: skip
INERT = re.compile(
    r"argparse\.Namespace|torch\.Size|models\.\w+\.\w+|torch\.nn\.modules\.\w+\.\w+|torch\.optim\.\w+\.\w+"
    r"|torch\.nn\.backends\.thnn\._get_thnn_function_backend|(__builtin__|builtins)\.set"
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class Interpreter:
    """Runs one pickle; `storages` collects those that it names, by their keys.

    Each instruction takes constant time and memory, but for its own bytes and for items that it moves from the stack.
    """

    def __init__(self):
        self.storages: dict[str, Storage] = {}
        self.stack, self.marks, self.memo = [], [], {}
        self.left = MAX_INSTRUCTIONS

    def load(self, stream: BinaryIO) -> Any:
        """The object that the pickle at the position of `stream` describes."""
        for opcode, arg, _ in pickletools.genops(stream):
            self.spend(1)
            if opcode.name == "STOP":
                return self.stack.pop()
            self.run(opcode.name, arg)
        raise EOFError

    def spend(self, work: int) -> None:
        """Raises ValueError for a pickle that makes more work than one of theirs."""
        self.left -= work
        if self.left < 0:
            raise ValueError(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")

    def run(self, opcode: str, arg: Any) -> None:
        """Runs one instruction but STOP."""
        stack, memo = self.stack, self.memo
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(arg)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(arg)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(CONSTANTS[opcode])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_SET":
                stack.append(Shell(Name("builtins.set"), ()))
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "MARK":
                self.marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND":
                stack[-2].append(stack.pop())
            case "APPENDS":
                items = self.since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items(stack[-1], [key], [value])
            case "SETITEMS":
                items = self.since_mark()
                set_items(stack[-1], items[::2], items[1::2])
            case "ADDITEMS":  # to a set, none of which is looked at
                self.since_mark()
            case "GLOBAL":
                stack.append(allowed(arg.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [allowed(".".join(stack[-2:]))]
            case "REDUCE" | "NEWOBJ":
                args = stack.pop()
                stack.append(self.make(stack.pop(), args))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Shell):
                    stack[-1].state = state
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case _:
                raise ValueError(f"its pickle has the instruction {opcode}, which no checkpoint of theirs needs")

    def since_mark(self) -> list:
        """The items that were put on the stack since the mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def make(self, name: Name, args: tuple) -> Shell | dict:
        """An object; only a dictionary is what it says."""
        if not isinstance(name, Name) or not isinstance(args, tuple):
            raise ValueError("it calls what is no function")
        if name != ORDERED_DICT:
            return Shell(name, args)
        items, made = args[0] if args else [], {}
        self.spend(len(items))  # the same list can be copied again and again
        for key, value in items:
            set_items(made, [key], [value])
        return made

    def persistent(self, pid: tuple) -> Any:
        """A storage; the old format writes the class of a module so, too, which is itself."""
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise ValueError("it has a persistent object of no kind")
        if pid[0] == "module":
            return pid[1]
        kind, storage_type, key, _, count, *view = pid[:6]
        if kind != "storage" or any(part is not None for part in view):
            raise ValueError(f"persistent object {short(kind)} is unknown")
        if not isinstance(storage_type, Name) or not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError("a storage is announced with parts of wrong types")
        storage = Storage(key, DTYPES[storage_type], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {short(key)} is announced twice")
        return storage


def allowed(path: str) -> Name:
    """The name; raises ValueError for one that isn't on the list."""
    if len(path) > MAX_NAME:
        raise ValueError("it has a name that is longer than any of theirs")
    if path == ORDERED_DICT or path in TENSORS + WRAPPERS or path in DTYPES or INERT.fullmatch(path):
        return Name(path)
    raise ValueError(f"refused to load {path}, which no checkpoint of theirs needs")


def set_items(target: dict, keys: list, values: list) -> None:
    """Sets those whose key is a text: no others are read here, and hashing a tuple of tuples may take for ever."""
    for key, value in zip(keys, values, strict=True):
        if isinstance(key, str):
            if len(key) > MAX_NAME:
                raise ValueError("it has a name that is longer than any of theirs")
            target[key] = value


def read_zip(file: BinaryIO, size: int) -> tuple[Any, dict[str, np.ndarray]]:
    """The pickled object, and the storages' elements by key, of PyTorch's zip format."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in members):
            raise ValueError("it is compressed or encrypted, and PyTorch's are neither")
        if sum(info.file_size for info in members) > size:
            raise ValueError("the parts that it announces are larger than the whole")
        (pickled,) = (info for info in members if info.filename.endswith("/data.pkl"))
        if pickled.file_size > MAX_PICKLED:
            raise ValueError(f"its pickle has {pickled.file_size} bytes")
        interpreter = Interpreter()
        checkpoint = interpreter.load(io.BytesIO(archive.read(pickled)))
        folder = pickled.filename.removesuffix("data.pkl")
        return checkpoint, {
            key: elements(archive.read(f"{folder}data/{key}"), storage) for key, storage in interpreter.storages.items()
        }


def read_legacy(file: BinaryIO, size: int) -> tuple[Any, dict[str, np.ndarray]]:
    """The same of the format before: five pickles, then each storage's length (int64) and bytes."""
    stream = io.BytesIO(file.read(MAX_PICKLED))
    magic, _version, _system = (Interpreter().load(stream) for _ in range(3))
    if magic != 0x1950A86A20F9469CFC6C:
        raise ValueError("it doesn't begin as a file of PyTorch does")
    interpreter = Interpreter()
    checkpoint = interpreter.load(stream)
    keys, storages = Interpreter().load(stream), {}
    file.seek(stream.tell())
    for key in keys:
        storage = interpreter.storages[key] if isinstance(key, str) else None
        if storage is None or int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError(f"storage {short(key)} hasn't the length that was announced")
        length = storage.count * np.dtype(storage.dtype).itemsize
        if length > size - file.tell():
            raise ValueError(f"storage {short(key)} is cut")
        storages[key] = elements(file.read(length), storage)
    return checkpoint, storages


def elements(data: bytes, storage: Storage) -> np.ndarray:
    """A storage's elements; raises ValueError for too few bytes."""
    return np.frombuffer(data, storage.dtype, storage.count)


# Modules ------------------------------------------------------------------------------------------------------------


def module_arrays(module: Shell, name: str, storages: Arrays, seen: set[int]) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters and buffers of a module and of those inside it, with dotted names that begin with `name`.

    `seen` are the ids of the dictionaries that were visited. Raises ValueError for one that is part of two modules, or
    of itself: visiting each of its places may take for ever.
    """
    if len(name) > MAX_NAME:
        raise ValueError("its modules are nested too deep")
    parts = [module.state[part] for part in ("_parameters", "_buffers", "_modules")]
    if seen & set(map(id, parts)) or len(set(map(id, parts))) < len(parts):
        raise ValueError(f"{name} is part of another module, too")
    seen.update(map(id, parts))
    for key, tensor in (*parts[0].items(), *parts[1].items()):
        if tensor is not None:
            yield f"{name}.{key}", tensor_array(tensor, storages)
    for key, child in parts[2].items():
        yield from module_arrays(child, f"{name}.{key}", storages, seen)


def tensor_array(tensor: Shell, storages: Arrays) -> np.ndarray:
    """The array of a tensor or parameter; raises ValueError for one that reaches beyond its storage."""
    if tensor.name in WRAPPERS:
        tensor = tensor.args[0]
    storage, offset, shape, strides = tensor.args[:4] if tensor.name in TENSORS else (None,) * 4
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor has parts of wrong types")
    if len(shape) > 8 or any(type(number) is not int or number < 0 for number in (offset, *shape, *strides[:8])):
        raise ValueError(f"a tensor has shape {short(shape)}, strides {short(strides)}, offset {short(offset)}")
    numbers = storages[storage.key]
    if math.prod(shape) > numbers.size:
        raise ValueError(f"a tensor of shape {short(shape)} is larger than its storage of {numbers.size} elements")
    size = numbers.itemsize
    return np.ndarray(shape, numbers.dtype, numbers, offset * size, [stride * size for stride in strides])

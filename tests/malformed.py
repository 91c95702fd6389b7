"""Malformed .pth and .npz files, and a process that reads them and tells each one's outcome, time and memory.

`python tests/malformed.py FIRST` reads those from number FIRST on, and prints a line of JSON for each.
"""

import io
import itertools
import json
import os
import pathlib
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
SECONDS, BYTES = 10, 1 << 30  # what a case may take
MAGIC = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
# What pickles are made of, and some that no checkpoint needs.
PIECES = [
    b"\x80\x02", b"}", b"]", b")", b"\x8f", b"(", b"t", b"\x85", b"\x86", b"\x87", b"s", b"u", b"a", b"e", b"\x90",
    b"N", b"\x88", b"\x89", b"K\x05", b"M\x05\x00", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\x7f" * 8, b"G" + b"\x7f" * 8,
    b"X\x01\x00\x00\x00a",
    b"X\xff\xff\xff\x7f", b"X\x08\x00\x00\x00_buffers", b"U\x01x", b"T\xff\xff\xff\xff", b"q\x00",
    b"q\x01", b"r\xff\xff\xff\x7f", b"h\x00", b"h\x01", b"j\x00\x00\x00\x00", b"\x94", b"\x95" + b"\xff" * 8, b"R",
    b"\x81", b"b", b"Q", b"0", b"1", b"2", b"\x8b\xff\xff\xff\x7f", b"I1\n", b"L9\n", b"\x8e" + b"\xff" * 8,
    b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
    b"cmodels.dcgan_64\nencoder\n", b"cargparse\nNamespace\n", b"cos\nsystem\n", b"X\x07\x00\x00\x00encoder",
    b"X\x07\x00\x00\x00storage", b".",
]  # fmt: skip


def examples(strategy: st.SearchStrategy, count: int) -> list:
    """Values that hypothesis draws, the same ones each time."""
    found = []

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(value):
        found.append(value)

    collect()
    return found


def damaged(data: bytes, rng: np.random.Generator, flips: int, cuts: int, lengths: int, first: int, end: int):
    """Kinds of damage, and bytes with it; most of it between `first` and `end`."""
    for place in (*rng.integers(first, end, flips), *rng.integers(0, len(data), flips // 4)):
        changed = bytearray(data)
        changed[place] ^= 1 << rng.integers(8)
        yield "bit flip", bytes(changed)
    for length in (*rng.integers(0, len(data), cuts // 2), *rng.integers(0, end, cuts // 2)):
        yield "cut", data[:length]
    for place in rng.integers(first, end - 8, lengths):
        huge = [b"\xff\xff\xff\x7f", b"\xff" * 8, b"\x00\x00\x00\x40", b"\xff\xff\xff\xff"][rng.integers(4)]
        yield "huge length", data[:place] + huge + data[place + len(huge) :]
    for place in rng.integers(first, end, lengths):
        yield "other byte", data[:place] + bytes([rng.integers(256)]) + data[place + 1 :]


# .pth ---------------------------------------------------------------------------------------------------------------


def zipped(pickled: bytes, storages: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


def legacy(pickled: bytes, keys: object = (), tail: bytes = b"") -> bytes:
    return b"".join([*(pickle.dumps(value, 2) for value in MAGIC), pickled, pickle.dumps(keys, 2), tail])


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(count: int = 4, key: bytes = text("0"), kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    return b"(" + text("storage") + kind + key + text("cpu") + number(count) + b"tQ"


def tensor(offset: int = 0, shape=(4,), strides=(1,), of: bytes | None = None) -> bytes:
    parts = (storage() if of is None else of) + number(offset) + numbers(shape) + numbers(strides)
    return b"ctorch._utils\n_rebuild_tensor\n(" + parts + b"tR"


def module(buffers: bytes = b"}", modules: bytes = b"}", parameters: bytes = b"}") -> bytes:
    state = dictionary({"_parameters": parameters, "_buffers": buffers, "_modules": modules})
    return b"cmodels.dcgan_64\nencoder\n)\x81" + state + b"b"


def encoder(value: bytes) -> bytes:
    return b"\x80\x02" + dictionary({"encoder": value}) + b"."


def doubled(times: int, start: bytes = b")", pair: bytes = b"\x86") -> bytes:
    """An object that holds the one before twice, and so on: 2 ** times in all, from a few bytes."""
    return start + b"".join(b"q\x00h\x00h\x00" + pair for _ in range(times))


def shared_modules(times: int) -> bytes:
    """A module of two modules that are the same one, and so on."""
    built = module(dictionary({"x": tensor()})) + b"q\x00"
    for _ in range(times):
        built += b"0" + module(modules=dictionary({"a": b"h\x00", "b": b"h\x00"})) + b"q\x00"
    return built.replace(b"q\x000", b"q\x000")


def nested_modules(depth: int, name: str = "a") -> bytes:
    """A module in a module, and so on: each dictionary is put into the one around it once it is whole."""
    opened = b"cmodels.dcgan_64\nencoder\n)\x81}(" + text("_parameters") + b"}" + text("_buffers") + b"}"
    return (opened + text("_modules") + b"}" + text(name)) * depth + module() + b"sub" * depth


def opt(value: bytes, name: str = "n_past") -> bytes:
    return b"\x80\x02" + dictionary({"opt": b"cargparse\nNamespace\n)\x81" + dictionary({name: value}) + b"b"}) + b"."


def inflating(size: int) -> bytes:
    """The deflated form of `size` zeros, 1 MiB at a time."""
    packer = zlib.compressobj(9, wbits=-15)
    once = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return once * (size >> 20) + b"\x03\x00"


def patched(data: bytes, member: int, **fields: int) -> bytes:
    """A zip archive whose directory says something else of one of its members."""
    offsets = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<I"), "size": (24, "<I"), "header": (42, "<I")}
    place = data.index(b"PK\x01\x02")
    for _ in range(member):
        place = data.index(b"PK\x01\x02", place + 1)
    changed = bytearray(data)
    for name, value in fields.items():
        struct.pack_into(offsets[name][1], changed, place + offsets[name][0], value)
        if name == "flags":  # the member's own header has them, too
            struct.pack_into("<H", changed, struct.unpack_from("<I", changed, place + 42)[0] + 6, value)
    return bytes(changed)


def bomb(pickled: bytes, size: int, announced: int) -> bytes:
    archive = zipped(pickled, {"0": inflating(size)})
    return patched(archive, 1, method=zipfile.ZIP_DEFLATED, size=announced)


def crafted_pth() -> Iterator[tuple[str, bytes]]:
    """Attacks one by one."""
    good, four = encoder(module(dictionary({"x": tensor()}))), {"0": bytes(16)}
    for index in (2**20, 2**27, 2**30, 2**31 - 1, 2**32 - 1):
        yield "memo index", zipped(b"\x80\x02}r" + struct.pack("<I", index) + b".")
        yield "memo index", legacy(b"\x80\x02}r" + struct.pack("<I", index) + b".")
    for opcode in (b"X", b"T", b"B", b"\x8b"):
        for length in (2**27, 2**30, 2**31 - 1):
            yield "huge length", zipped(b"\x80\x02" + opcode + struct.pack("<I", length) + b"abc.")
            yield "huge length", legacy(b"\x80\x02" + opcode + struct.pack("<I", length) + b"abc.")
    for opcode in (b"\x8d", b"\x8e", b"\x95", b"\x96"):
        for length in (2**30, 2**40, 2**63 - 1):
            yield "huge length", zipped(b"\x80\x05" + opcode + struct.pack("<Q", length) + b"abc.")
            yield "huge length", legacy(b"\x80\x05" + opcode + struct.pack("<Q", length) + b"abc.")
    for offset, shape, strides in [
        (-1, (2,), (1,)), (3, (4,), (-1,)), (3, (2, 2), (-1, 1)), (0, (2,), (2**62,)), (2**2000, (1,), (1,)),
        (0, (2**2000,), (0,)), (0, (2**40, 2**40), (0, 0)), (0, (0, 2**62), (1, 1)), (0, (2**31,), (0,)),
        (0, (-1, -4), (1, 1)), (0, (1,) * 40, (1,) * 40), (0, (1,) * 65, (0,) * 65), (0, (4,), ()), (0, (), (1,)),
        (0, (5,), (1,)), (1, (4,), (1,)), (0, (2, 2), (3, 1)), (2**62, (1,), (1,)), (0, (1,) * 3000, (1,) * 3000),
    ]:  # fmt: skip
        yield "strides", zipped(encoder(module(dictionary({"x": tensor(offset, shape, strides)}))), four)
    for count in (-1, 3, 2**31, 2**40, 2**62, 2**2000):
        for make in (zipped, lambda data, _: legacy(data, ["0"], (2**62).to_bytes(8, "little") + bytes(16))):
            yield "huge length", make(encoder(module(dictionary({"x": tensor(of=storage(count))}))), four)
    for depth in (1000, 100_000):
        for start, end in ((b"]", b"a"), (b"(", b"t"), (b"}K\x01", b"s"), (b"}" + text("a"), b"s")):
            nested = start * depth + b"N" + end * depth
            yield "deep nesting", zipped(encoder(nested))
            yield "deep nesting", zipped(encoder(b"0" + nested + b"h\x00").replace(b"0", b"", 1))
            yield "deep nesting", zipped(opt(nested))
    for depth, name in ((20, "a"), (300, "a"), (5_000, "a"), (90, "a" * 100_000), (300, "a" * 10_000)):
        yield "deep nesting", zipped(encoder(nested_modules(depth, name)))
    for times in (24, 60, 200):
        for value in (doubled(times), doubled(times, b"]", b"\x86")):
            yield "doubled object", zipped(opt(value))
            yield "doubled object", zipped(opt(value, "dataset"))
            yield "doubled object", zipped(b"\x80\x02}" + value + b"Ns.")
            yield "doubled object", zipped(encoder(b"}" + value + b"Ns"))
            yield "doubled object", legacy(encoder(value))
            yield "doubled object", legacy(good, [1], b"").replace(pickle.dumps([1], 2), b"\x80\x02]" + value + b"a.")
            yield "doubled object", zipped(b"\x80\x02" + value + b"Q.")
            yield "doubled object", zipped(encoder(module(dictionary({"x": tensor(of=storage(4, value))}))), four)
            yield "doubled object", zipped(encoder(module(dictionary({"x": tensor(of=value)}))), four)
            yield "doubled object", zipped(b"\x80\x02c__builtin__\nset\n](" + value + b"e\x85R.")
        yield "shared modules", zipped(encoder(shared_modules(times)), four)
        yield "shared modules", legacy(encoder(shared_modules(times)), ["0"], struct.pack("<q", 4) + bytes(16))
    many = 20_000
    shared = dictionary({"x": tensor()}) + b"q\x01"
    yield "shared modules", zipped(
        encoder(module(modules=b"}(" + b"".join(text(str(k)) + b"h\x01" for k in range(many)) + b"u").replace(
            b"}(", shared + b"0}(", 1)), four
    )  # fmt: skip
    for name, argument in (("ccollections\nOrderedDict\n", "e"), ("c__builtin__\nset\n", "e")):
        items = b"](" + b"".join(text(str(k)) + b"N\x86" for k in range(many)) + argument.encode() + b"\x85q\x01"
        yield "copied often", zipped(b"\x80\x02" + items + (name.encode() + b"h\x01R") * many + b".")
    wide = b"(" + b"N" * many * 5 + b"tq\x01"
    yield "copied often", zipped(b"\x80\x02" + wide + b"cmodels.a\nb\nq\x02" + b"h\x02h\x01R" * many * 2 + b".")
    yield (
        "copied often",
        zipped(b"\x80\x02" + text("\u0061" * 8_000_000) + b"q\x01" + (b"h\x01" + text("b") + b"\x93") * 9),
    )
    yield "many instructions", zipped(b"\x80\x02" + b"}" * 16_000_000 + b".")
    yield "many instructions", zipped(b"\x80\x02" + b"\x8f" * 12_000_000 + b".")
    yield "many instructions", legacy(b"\x80\x02" + b"(" * 4_000_000 + b".")
    yield "many instructions", zipped(b"\x80\x02L" + b"9" * 1_000_000 + b"L\n.")
    for pid in (
        b"N", b")", b"K\x05", text("storage"), b"]", text("module") + b"\x85", b"N\x85", text("storage") + b"N\x86",
        b"(" + text("storage") + b"NNNNt", b"(" + text("view") + b"ctorch\nFloatStorage\n" + text("0") * 2 + b"K\x04t",
        b"(" + text("storage") + text("torch.FloatStorage") + text("0") * 2 + b"K\x04t",
        b"(" + text("storage") + b"cmodels.a\nb\n" + text("0") * 2 + b"K\x04t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + b"K\x00" + text("0") + b"K\x04t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("../x") + text("0") + b"K\x04t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") * 2 + b"G" + b"\x40" * 8 + b"t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") * 2 + b"K\x04" + b"K\x01t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") * 2 + b"K\x04" + b"N" * 50_000 + b"t",
    ):  # fmt: skip
        yield "persistent id", zipped(encoder(module(dictionary({"x": tensor(of=pid + b"Q")}))), four)
        yield "persistent id", legacy(encoder(pid + b"Q"), ["0"], struct.pack("<q", 4) + bytes(16))
    yield "zip bomb", bomb(good, 2 << 30, 16)
    yield "zip bomb", bomb(good, 2 << 30, 2**31)
    yield "zip bomb", bomb(encoder(module(dictionary({"x": tensor(of=storage(2**29))}))), 2 << 30, 2**31)
    packed = patched(zipped(inflating(2 << 30)), 0, method=zipfile.ZIP_DEFLATED, size=2**31)
    yield "zip bomb", packed
    yield "zip bomb", patched(packed, 0, size=100)
    keys = {str(k): bytes(16) for k in range(2000)}
    tensors = dictionary({key: tensor(of=storage(2_000_000, text(key))) for key in keys})
    overlapping = zipped(encoder(module(tensors)), {"0": bytes(8_000_000), **keys})
    place = struct.unpack_from("<I", overlapping, overlapping.index(b"PK\x01\x02") + 42)[0]
    yield "zip bomb", patched(patched(overlapping, 3, size=8_000_000), 4, size=8_000_000, header=place)
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED):
        yield "odd zip", zipped(good, four, method)
        yield "odd zip", patched(zipped(good, four), 0, method=method)
        yield "odd zip", patched(zipped(good, four), 1, method=method)
    for method in (1, 6, 9, 93, 99, 65535):
        yield "odd zip", patched(zipped(good, four), 1, method=method)
    for flags in (1, 0x41, 0x20, 0x800, 0x2001):
        yield "odd zip", patched(zipped(good, four), 0, flags=flags)
        yield "odd zip", patched(zipped(good, four), 1, flags=flags)
    for field, value in itertools.product(("crc", "size", "header"), (0, 1, 2**31, 2**32 - 1)):
        yield "odd zip", patched(zipped(good, four), 1, **{field: value})
    for content in (
        b"",
        b"PK",
        b"PK\x05\x06" + bytes(18),
        b"PK\x03\x04" * 99,
        bytes(999),
        b"\x89PNG\r\n",
        b"{}",
        b"\x80",
    ):
        yield "no checkpoint", content
    for value in (
        3,
        None,
        [],
        "x" * 10**6,
        {"encoder": None},
        {"opt": {}},
        {"opt": 3},
        {"encoder": [1]},
        {"prior": ""},
    ):
        yield "no checkpoint", zipped(pickle.dumps(value, 2))
        yield "no checkpoint", legacy(pickle.dumps(value, 4))


def pth_cases() -> Iterator[tuple[str, bytes]]:
    """Kind and content of each."""
    yield from crafted_pth()
    rng = np.random.default_rng(0)
    for name in ("svg_fp_zip", "svg_lp_2018", "svg_lp_legacy"):
        data = (GOLDEN / f"{name}.pth").read_bytes()
        yield from damaged(data, rng, flips=100, cuts=30, lengths=30, first=0, end=30_000)
        if name == "svg_fp_zip":
            yield from damaged(data, rng, flips=40, cuts=0, lengths=20, first=len(data) - 9000, end=len(data))
    for pieces in examples(st.lists(st.sampled_from(PIECES), max_size=40), 150):
        yield "hypothesis", zipped(b"\x80\x02" + b"".join(pieces) + b".", {"0": bytes(16), "a": bytes(16)})
    leaves, keys = st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.sampled_from(["encoder", "opt"])
    values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner))
    for state in examples(values, 80):
        yield "hypothesis", legacy(pickle.dumps(state, 2))


# .npz ---------------------------------------------------------------------------------------------------------------


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def header(words: str, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    width = "<H" if version == b"\x01\x00" else "<I"
    return (
        b"\x93NUMPY" + version + struct.pack(width, len(words) if length is None else length) + words.encode("latin1")
    )


def archive_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npz_cases(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, bytes]]:
    """Kind and content of each."""
    rng = np.random.default_rng(0)
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        data = buffer.getvalue()
        yield from damaged(data, rng, flips=30, cuts=16, lengths=16, first=0, end=2000)
        yield from damaged(data, rng, flips=30, cuts=0, lengths=10, first=len(data) - 3000, end=len(data))
    name = "encoder.c1.main.0.weight.npy"
    whole = saved(np.zeros((2, 2), np.float32))
    for kind in ("O", "S5", "U5", "M8[s]", "m8[s]", "V8", "c16", [("a", "f4"), ("b", "O")], [("a", "f4")]):
        yield "types", archive_of({name: saved(np.zeros(3, kind))})
    for version in (b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"):
        most = 2**16 - 1 if version == b"\x01\x00" else 2**32 - 1
        yield "header", archive_of({name: header("x" * 100, version, most)})
        for words in (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }", "[" * 9000, "-" * 9000 + "1",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "{'descr': '|O', 'fortran_order': 0}", "",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 1.5), }", "1" * 9000, "(" * 150 + ")" * 150,
            "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807), }",
            "{'descr': [('a', 'f4', (1000000000,))], 'fortran_order': False, 'shape': (1,), }",
        ):  # fmt: skip
            yield "header", archive_of({name: header(words, version)})
    packed = inflating(1 << 30)
    for count in (1, 20):
        data = archive_of({f"{k}.npy": packed for k in range(count)})
        for member in range(count):
            data = patched(data, member, method=zipfile.ZIP_DEFLATED, size=1 << 30)
        yield "zip bomb", data
        yield "zip bomb", patched(data, 0, size=len(whole))
    shape = ((1 << 30) - 128) // 4
    words = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape},), }}".ljust(117) + "\n"
    packer = zlib.compressobj(9, wbits=-15)
    begin = packer.compress(header(words)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = archive_of({f"{k}.npy": begin + packed for k in range(20)})
    for member in range(20):
        data = patched(data, member, method=zipfile.ZIP_DEFLATED, size=(1 << 30))
    yield "zip bomb", data
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        yield "odd zip", archive_of({name: whole}, method)
    for flags, method in itertools.product((0, 1, 0x41), (1, 8, 14, 99)):
        yield "odd zip", patched(archive_of({name: whole}), 0, flags=flags, method=method)
    for members in (
        {},
        {"x.png": b""},
        {name: b""},
        {"x": whole},
        {"../x.npy": whole},
        {name: whole, "\udc80.npy": whole},
    ):
        try:
            yield "no arrays", archive_of(members)
        except UnicodeEncodeError:
            continue
    for content in (b"", b"PK", whole, bytes(99)):
        yield "no arrays", content
    shapes = st.lists(st.integers(0, 5), max_size=5).map(tuple)
    for changes in examples(st.dictionaries(st.sampled_from(sorted(arrays)), shapes, min_size=1, max_size=3), 60):
        buffer = io.BytesIO()
        np.savez(buffer, **{**arrays, **{key: np.zeros(size, np.float32) for key, size in changes.items()}})
        yield "hypothesis", buffer.getvalue()
    huge = np.broadcast_to(np.float32(0), (10_000,))
    for names in itertools.combinations(("frame_predictor.embed.bias", "posterior.mu_net.bias"), 1):
        buffer = io.BytesIO()
        extra = {f"frame_predictor.lstm.{k}.weight_hh": huge for k in range(20)}
        np.savez(buffer, **{**arrays, **extra, **dict.fromkeys(names, huge)})
        yield "huge model", buffer.getvalue()


# Reading them -------------------------------------------------------------------------------------------------------


def cases() -> Iterator[tuple[str, str, bytes]]:
    """Suffix, kind and content."""
    from files.import_checkpoint import read_pth

    yield from ((".pth", *case) for case in pth_cases())
    yield from ((".npz", *case) for case in npz_cases(read_pth(GOLDEN / "svg_fp_zip.pth")[0]))


def peak(reset: bool = False) -> int:
    """The most memory that this process had, in bytes, since it was last reset."""
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS" if reset else "VmHWM"))


def read(path: pathlib.Path) -> None:
    """What the import does before it builds a model."""
    from files.author_weights import infer_config
    from files.import_checkpoint import read_npz, read_pth

    arrays, options = (read_npz(path), {}) if path.suffix == ".npz" else read_pth(path)
    infer_config(arrays, **{"n_past": 2, **options})


def main(first: int) -> None:
    """Reads the cases, a line for each; one that takes too long ends the process."""
    import files.model_svg  # noqa: F401, before memory is measured

    with tempfile.TemporaryDirectory() as folder:
        for index, (suffix, kind, content) in enumerate(cases()):
            if index < first:
                continue
            path = pathlib.Path(folder, f"model{suffix}")
            path.write_bytes(content)
            del content
            address_space = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            before, start = peak(reset=True), time.perf_counter()
            resource.setrlimit(resource.RLIMIT_AS, (address_space + 2 * BYTES, resource.RLIM_INFINITY))
            signal.alarm(SECONDS + 1)
            try:
                read(path)
                error, message = "", ""
            except Exception as problem:
                error, message = type(problem).__name__, str(problem)
            signal.alarm(0)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            seconds, memory = time.perf_counter() - start, peak() - before
            ours = error in ("", "ValueError") and "\n" not in message and len(message) < 700
            named = not error or path.name in message or "SVG model" in message or "expected" in message
            row = dict(kind=f"{suffix} {kind}", error=error, message=message[:300], seconds=seconds, memory=memory)
            print(json.dumps({**row, "fine": ours and (named or "the arrays hold" in message)}), flush=True)


def outcomes() -> list[dict]:
    """A row for each case, from processes of their own."""
    rows, search = [], os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    while True:
        command = [sys.executable, __file__, str(len(rows))]
        run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": search})
        rows += [json.loads(line) for line in run.stdout.splitlines()]
        if run.returncode == 0:
            return rows
        if run.returncode > 0:
            raise RuntimeError(run.stderr[-2000:])
        rows.append(dict(kind="?", error="killed", message="", seconds=SECONDS + 1, memory=0, fine=False))


if __name__ == "__main__":
    main(int(sys.argv[1]))

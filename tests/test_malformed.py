"""Malformed input of every kind ends in one sentence of ours, soon and in little memory; and long runs don't leak."""

import collections
import json
import os
import pathlib
import shutil
import sys
import time
import typing

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from malformed import BYTES, SECONDS, outcomes

from files import scores, utils
from files.__main__ import main
from files.config import Config
from files.data import make_dataset
from files.digits import digits_kept
from files.evaluate import EvaluateOptions
from files.import_checkpoint import ImportOptions, import_checkpoint, read_pth
from files.model_svg import SVG
from files.train import run_folder

TINY = Config(width=2, g_dim=4, z_dim=2, rnn_size=4, n_past=2, n_future=2)
COUNTS = collections.Counter()
DRAWN = dict(derandomize=True, database=None, deadline=None, phases=[Phase.generate])
DRAWN |= dict(suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def told():
    """Prints the number of cases at the end."""
    yield
    print(json.dumps(COUNTS, indent=1), sum(COUNTS.values()), "cases")


BAD = [None, "x", "", b"x", [], {}, (), [[1], [2, 3]], 1.5, float("nan"), -1, 10**30, object(), {"a": 1}, {1, 2}, "3"]
BAD += [np.zeros((2, 0)), np.array(["a"]), np.array([None]), np.zeros(3, "M8[s]"), np.zeros((1, 2, 64, 64, 1), bool)]
BAD += [np.zeros((1, 2, 64, 64, 1), complex), np.full((1, 2, 64, 64, 1), np.nan, np.float32), type]


def said(function, *given, kind: str, errors=(ValueError, TypeError, OSError), **named) -> str | None:
    """What is wrong with the arguments, in a sentence, or None where nothing is; fails for any other outcome."""
    COUNTS[kind] += 1
    start = time.perf_counter()
    try:
        function(*given, **named)
        message = None
    except errors as error:
        message = str(error) or repr(error)
    assert not message or ("\n" not in message and "{{" not in message and len(message) < 1000), message
    assert time.perf_counter() - start < SECONDS
    return message


# Files of weights ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")
def test_files_of_the_authors_weights():
    rows, worst = outcomes(), collections.defaultdict(lambda: [0, 0, 0])
    for row in rows:
        count, seconds, memory = worst[row["kind"]]
        worst[row["kind"]] = [count + 1, max(seconds, row["seconds"]), max(memory, row["memory"])]
    for kind, (count, seconds, memory) in worst.items():
        print(f"{kind}: {count} cases, {seconds:.2f} s and {memory / 2**20:.0f} MiB at worst")
        COUNTS[kind] += count
    bad = [row for row in rows if not row["fine"] or row["seconds"] > SECONDS or row["memory"] > BYTES]
    assert not bad, bad[:3]
    assert len(rows) > 1500


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_weights_that_are_no_finite_numbers_are_not_imported(tmp_path, value):
    arrays, _ = read_pth(pathlib.Path(__file__).parent / "golden" / "svg_fp_zip.pth")
    arrays["decoder.upc1.0.weight"] = np.full_like(arrays["decoder.upc1.0.weight"], value, np.float64)
    np.savez(tmp_path / "weights.npz", **arrays)
    options = ImportOptions(tmp_path / "weights.npz", tmp_path / "out", n_past=2)
    assert "decoder.upc1.0.weight" in said(import_checkpoint, options, kind="import")
    assert not (tmp_path / "out").exists()


def test_a_pipe_is_no_checkpoint(tmp_path):
    for name in ("x.pth", "x.npz"):
        os.mkfifo(tmp_path / name)
        assert name in said(import_checkpoint, ImportOptions(tmp_path / name, tmp_path / "out"), kind="import")


# config.json --------------------------------------------------------------------------------------------------------


def loaded(path: pathlib.Path, text: str | bytes) -> Config | None:
    """The configuration that a text is, or None if it is refused in a sentence that names file or field."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    found = []
    message = said(lambda: found.append(Config.load(path)), kind="config.json", errors=ValueError)
    names = (str(path), "unknown settings", *typing.get_type_hints(Config), "frames of 64 x 64")
    assert message is None or any(name in message for name in names), message
    return found[0] if found else None


VALUES = ["null", '"x"', '"' + "x" * 100_000 + '"', "[]", "{}", "true", "1.5", "NaN", "Infinity", "-Infinity", "1e400"]
VALUES += ["-1", "0", "1000000000", "1" + "0" * 400, "1" + "0" * 6000, "[" * 900 + "]" * 900, '"\\ud800"', '"\\u0000"']


def test_every_setting_with_every_odd_value(tmp_path):
    for name in typing.get_type_hints(Config):
        for value in VALUES:
            config = loaded(tmp_path / "config.json", f'{{"{name}": {value}}}')
            assert config is None or name in ("data", "beta", "last_frame_skip", "channels"), (name, value[:20], config)


def test_damaged_configurations(tmp_path):
    path, rng = tmp_path / "config.json", np.random.default_rng(0)
    TINY.save(path)
    text = path.read_bytes()
    for place in rng.integers(0, len(text), 150):
        changed = bytearray(text)
        changed[place] ^= 1 << rng.integers(8)
        loaded(path, bytes(changed))
    for length in rng.integers(0, len(text), 50):
        assert loaded(path, text[:length]) is None
    for text in ("[" * 10**5, '{"a":' * 10**5, "\ufeff{}", "{}" * 9, '{"x": ' + "9" * 10**6 + "}", " " * (2 << 20), ""):
        assert loaded(path, text) is None
    keys = '{"' + '": 1, "'.join(f"{k}" * 100 for k in range(1000)) + '": 1}'
    assert loaded(path, keys) is None


def test_any_json(tmp_path):
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner))
    fields = st.sampled_from(list(typing.get_type_hints(Config)))

    @settings(max_examples=150, **DRAWN)
    @given(st.dictionaries(fields, values, max_size=3) | values)
    def check(value):
        loaded(tmp_path / "config.json", json.dumps(value))

    check()


# Folders of checkpoints ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return SVG(TINY)


@pytest.fixture
def folder(model, tmp_path):
    model.save_weights_to(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    "changes",
    [
        dict(width=10_000), dict(rnn_size=10_000), dict(g_dim=10_000), dict(z_dim=10_000),
        dict(posterior_layers=20, rnn_size=5000), dict(prior_layers=20, predictor_layers=20, rnn_size=10_000),
        dict(backbone="vgg", width=10_000), dict(prior="none", rnn_size=10_000), dict(rnn_size=5), dict(prior="fixed"),
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_of_another_model_is_refused_before_it_is_built(folder, changes):
    TINY.replace(**changes).save(folder / "config.json")
    message = said(SVG.load, folder, kind="checkpoint folder")
    if changes == {"prior": "fixed"}:  # a part of what is there
        assert message is None
    else:
        assert "no usable checkpoint" in message


@pytest.mark.parametrize(
    "changes", [{}, dict(backbone="vgg", prior="none"), dict(image_size=128, data="a.npy", width=9)]
)
def test_models_have_more_weights_than_the_least(changes):
    config = TINY.replace(**changes)
    assert config.least_weights < SVG(config).count_params()
    assert Config().least_weights > 5_000_000


@pytest.mark.parametrize("name", ["config.json", "model.index", "model.data-00000-of-00001", "state", "loop", "pipe"])
def test_nothing_outside_of_a_checkpoint_is_read(folder, name, tmp_path):
    outside = tmp_path / "outside"
    if name == "state":
        outside.mkdir()
        (folder / "state").symlink_to(outside)
    elif name == "loop":
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(folder / "config.json")
    elif name == "pipe":
        (folder / "model.index").unlink()
        os.mkfifo(folder / "model.index")
    else:
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)
    message = said(SVG.load, folder, kind="checkpoint folder")
    assert str(folder) in message


def test_settings_that_name_files_are_not_followed(folder, tmp_path):
    settings = {"data": str(tmp_path / "secret.npy"), "start_from": str(tmp_path / "secret"), "image_size": 64}
    values = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(values))
    opened, watching = [], [True]

    def watch(event, arguments):
        if watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    assert said(SVG.load, folder, kind="checkpoint folder") is None
    watching.clear()
    assert not [path for path in opened if "secret" in path]
    assert str(folder / "config.json") in opened


def test_saving_writes_through_no_link(folder, model, tmp_path):
    for name in ("config.json", ".writing-config.json", "model.index", ".writing-model.index"):
        mine = tmp_path / "mine"
        mine.write_text("mine")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(mine)
        model.save_weights_to(folder)
        assert mine.read_text() == "mine", name
        COUNTS["checkpoint folder"] += 1
    assert SVG.load(folder).config == TINY


def test_a_link_to_the_folder_and_within_it_is_fine(folder, tmp_path):
    (folder / "config.json").rename(folder / "other.json")
    (folder / "config.json").symlink_to("other.json")
    (tmp_path / "link").symlink_to(folder)
    assert SVG.load(tmp_path / "link").config == TINY


@pytest.mark.parametrize("name", ["step-x", "step-", "step-1-before", "step-99999999999999999999"])
def test_a_stray_state_does_not_hide_good_weights(folder, name):
    (folder / "state").mkdir()
    (folder / "state" / f"{name}.index").write_bytes(b"stray")
    assert said(SVG.load, folder, kind="checkpoint folder") is None


def test_an_object_graph_of_garbage(folder):
    rng = np.random.default_rng(0)
    reader = tf.train.load_checkpoint(str(folder / "model"))
    graph = reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if not name.startswith("_")}
    graphs = [b"", b"garbage", b"\xff" * 100, graph[:100], graph[:-100]]
    for place in rng.integers(0, len(graph), 3):
        changed = bytearray(graph)
        changed[place] ^= 1 << rng.integers(8)
        graphs.append(bytes(changed))
    names = list(values)
    for garbage in (*graphs, 1.5, [b"a", b"b"]):
        prefix = str(folder / "model")
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=["_CHECKPOINTABLE_OBJECT_GRAPH", *names],
            shape_and_slices=[""] * (len(names) + 1),
            tensors=[tf.constant(garbage), *map(tf.constant, values.values())],
        )  # fmt: skip
        message = said(SVG.load, folder, kind="checkpoint folder")
        assert message is None or str(folder) in message
        assert message or garbage not in graphs[:5]


def test_weights_that_are_no_finite_numbers_are_not_loaded(folder, tmp_path):
    broken = SVG(TINY)
    broken.decoder.stem.kernel.assign(broken.decoder.stem.kernel * np.nan)
    broken.save_weights_to(tmp_path / "broken")
    message = said(SVG.load, tmp_path / "broken", kind="checkpoint folder")
    assert "no finite numbers" in message
    (tmp_path / "broken" / "state").mkdir()
    for path in folder.glob("model.*"):
        shutil.copy(path, tmp_path / "broken" / "state" / path.name.replace("model", "step-1"))
    with pytest.warns(UserWarning, match="loaded step-1, because of model: it holds weights that are no finite"):
        SVG.load(tmp_path / "broken")


# The command line ---------------------------------------------------------------------------------------------------

COMMANDS = [
    ["sample", "--checkpoint", "x", "--n-samples", "many"], ["sample", "--checkpoint", "x", "--n-samples", "1e3"],
    ["sample", "--checkpoint", "x", "--video"], ["sample"], ["sample", "--checkpoint", "x", "--out", "x.exe"],
    ["sample", "--checkpoint", "\udcff\u202e"], ["sample", "--checkpoint", "x" * 500], ["sample", "--checkpoint", ""],
    ["sample", "--checkpoint", "x", "--seed", "9" * 5000], ["evaluate", "--checkpoint", "x", "--n-samples", "0"],
    ["evaluate", "--checkpoint", "x", "--n-future", "-1"], ["evaluate", "--checkpoint", "x", "--split", "all"],
    ["evaluate", "--checkpoint", "x", "--batch-size", "nan"], ["evaluate", "--checkpoint", "/dev/null"],
    ["evaluate", "--checkpoint", "x\0y"], ["import", "nothing.pth", "x"], ["import", "nothing.pth"], ["import"],
    ["import", "nothing.pth", "x", "--n-past", "two"], ["import", "/dev/null", "x"], ["import", "/", "x"],
    ["train"], ["train", "--name"], ["train", "--name", "x", "--epochs", "-1"], ["train", "--preset", "x"],
    ["train", "--name", "x", "--epochs", "1e99"], ["train", "--name", "x", "--epochs", "NaN"],
    ["train", "--name", "x", "--learning-rate", "nan"], ["train", "--name", "x", "--learning-rate", "-inf"],
    ["train", "--name", "x", "--backbone", "resnet"], ["train", "--name", "x", "--widht", "3"],
    ["train", "--name", "x", "--width", "9" * 400], ["train", "--name", "x", "--clip-norm", "None?"],
    ["train", "--name", "x", "--data", "nothing\udc80.npy"], ["train", "--name", "x", "--data", ""],
    ["train", "--name", "x", "--data", "a\0b"], ["train", "--name", "../x"], ["train", "--name", "/x"],
    ["train", "--name", ""], ["train", "--name", ".."], ["train", "--name", "a/b"], ["tranie"], [], ["--name", "x"],
    ["figures", "--results"], ["figures", "--resutls", "x"], ["\u0000"], ["train", "\U0001f600"],
    ["train", "--name", "x", "--start-from", "nothing"], ["train", "--name", "x", "--seed", "-1"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: ascii(" ".join(arguments))[:60])
def test_command_lines(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        message = said(main, arguments, kind="command line")
    except SystemExit as stop:
        message = stop.code and str(stop.code) + "".join(capsys.readouterr())
    assert message
    made = {path.name for path in tmp_path.rglob("*")}
    assert made <= {"checkpoints", "x", "results", "state", "lock"}


def test_names_do_not_leave_their_folders(tmp_path):
    words = st.sampled_from(
        ["..", ".", "/", "\\", "a", "~", "\0", "", "\u2024\u2024", "\u2215", "C:", "x" * 300, "-", "*"]
    )

    @settings(max_examples=200, **DRAWN)
    @given(st.text(max_size=9) | st.lists(words, max_size=5).map("".join))
    def check(name):
        options = EvaluateOptions(tmp_path, name=name, results=tmp_path / "results", data="smmnist")
        for find, inner in (
            (lambda: run_folder(tmp_path / "results", name), ()),
            (lambda: options.folder, ("smmnist",)),
        ):
            found = []
            message = said(lambda find=find, found=found: found.append(find()), kind="names")
            assert message or found[0] == (tmp_path / "results").joinpath(name, *inner)
            assert message or ("/" not in name and name not in ("", ".", ".."))

    check()


# Public functions ---------------------------------------------------------------------------------------------------


def calls(model) -> dict:
    """Functions of one argument, all others being right."""
    past = np.zeros((1, 2, 64, 64, 1), np.float32)
    video, rows = np.zeros((1, 4, 64, 64, 1), np.float32), {"a": np.zeros((2, 16, 16, 1))}
    image = np.zeros((16, 16, 1))
    samples, digits, position = np.zeros((1, 2, 64, 64, 1)), np.zeros((2, 28, 28), np.uint8), np.zeros((2, 2, 2))
    return {
        "generate past": lambda bad: model.generate(bad, 1),
        "generate n_future": lambda bad: model.generate(past, bad),
        "generate n_samples": lambda bad: model.generate(past, 1, bad),
        "generate seed": lambda bad: model.generate(past, 1, seed=bad),
        "generate temperature": lambda bad: model.generate(past, 1, temperature=bad),
        "generate prior_noise": lambda bad: model.generate(past, 1, prior_noise=bad),
        "generate posterior_noise": lambda bad: model.generate(past, 1, posterior_noise=bad),
        "digits_kept samples": lambda bad: digits_kept(bad, digits, position),
        "digits_kept digits": lambda bad: digits_kept(samples, bad, position),
        "digits_kept position": lambda bad: digits_kept(samples, digits, bad),
        "reconstruct": model.reconstruct,
        "reconstruct noise": lambda bad: model.reconstruct(video, bad),
        "call": model,
        "call noise": lambda bad: model(video, posterior_noise=bad),
        "SVG": SVG,
        "load": SVG.load,
        "make_dataset config": lambda bad: make_dataset(bad, "val", batch_size=1),
        "make_dataset split": lambda bad: make_dataset(TINY, bad, batch_size=1),
        **{
            f"make_dataset {name}": lambda bad, name=name: make_dataset(TINY, "val", **{"batch_size": 1, name: bad})
            for name in ("batch_size", "seed", "n_frames", "start", "count")
        },
        "film_strip rows": lambda bad: utils.film_strip(bad, 1),
        "film_strip row": lambda bad: utils.film_strip({"a": bad}, 1),
        "film_strip n_past": lambda bad: utils.film_strip(rows, bad),
        "save_gif rows": lambda bad: utils.save_gif("x.gif", bad, 1),
        "save_gif n_past": lambda bad: utils.save_gif("x.gif", rows, bad),
        "save_gif speed": lambda bad: utils.save_gif("x.gif", rows, 1, bad),
        "ssim": lambda bad: utils.ssim(image, bad),
        "psnr": lambda bad: utils.psnr(bad, image),
        "mean_interval": scores.mean_interval,
    }


@pytest.mark.filterwarnings("ignore")
def test_public_functions(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = []
    for name, function in calls(model).items():
        for bad in BAD:
            try:
                if said(function, bad, kind="public functions") is None:
                    taken.append((name, repr(bad)[:20]))
            except BaseException as error:
                raise AssertionError(f"{name} of {bad!r}: {type(error).__name__}") from error
    print(taken)
    optional = {"seed", "noise", "prior_noise", "posterior_noise", "n_frames", "count"}
    wrong = [
        case for case in taken
        if not (case[1] == "None" and case[0].split()[-1] in optional)
        and case[0] not in ("mean_interval", "save_gif speed", "generate seed", "generate temperature")
    ]  # fmt: skip
    assert not wrong


def test_images_that_cannot_be_broadcast():
    for function in (utils.ssim, utils.psnr):
        assert said(function, np.zeros((2, 16, 16, 1)), np.zeros((3, 16, 16, 1)), kind="public functions")

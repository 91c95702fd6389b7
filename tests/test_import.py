"""Import of the authors' checkpoints: both of PyTorch's file formats, hostile and damaged files."""

import dataclasses
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
import recipe

from files.author_weights import infer_config, load_author_weights
from files.config import Architecture
from files.import_checkpoint import ImportOptions, import_checkpoint, read_npz, read_pth
from files.layout import layout
from files.model_svg import SVG

GOLDEN = pathlib.Path(__file__).parent / "golden"
CHECKPOINTS = sorted(GOLDEN.glob("*.pth"))


@pytest.fixture(scope="module")
def arrays():
    """The weights of the smallest checkpoint."""
    return read_pth(GOLDEN / "svg_fp_zip.pth")[0]


@pytest.fixture(scope="module")
def npz(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "weights.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_pth_gives_the_arrays_and_options_that_were_saved(path):
    arrays, settings = read_pth(path)
    prior = {name for name in arrays if name.startswith("prior.")}
    assert len(prior) == (0 if "fp" in path.stem else 10)
    # Encoder and decoder have 10 convolutions of 2 arrays, 9 batch norms of 5; then predictor and posterior.
    assert len(arrays) - len(prior) == 10 * 2 + 9 * 5 + 12 + 10
    for name, value in arrays.items():
        if name.endswith("num_batches_tracked"):
            assert value == 0
        else:
            np.testing.assert_array_equal(value, recipe.weight(name, value.shape), err_msg=name)
    assert settings == dict(n_past=3, n_future=7, last_frame_skip=True, num_digits=2, beta=1e-6, data="data/kth")


def test_imported_pth_computes_what_the_npz_does(npz, tmp_path):
    source = GOLDEN / "svg_fp_zip.pth"
    import_checkpoint(ImportOptions(source, tmp_path / "pth"))
    import_checkpoint(ImportOptions(npz, tmp_path / "npz", n_past=3))
    from_pth, from_npz = SVG.load(tmp_path / "pth"), SVG.load(tmp_path / "npz", last_frame_skip=True)
    assert from_pth.config.prior == "fixed"
    assert (from_pth.config.width, from_pth.config.g_dim, from_pth.config.z_dim) == (2, 4, 2)
    inputs = recipe.inputs((1, 4, 64, 64, 1), z_dim=2)
    x_pred = [
        model(inputs["video"], posterior_noise=inputs["posterior_noise"])["x_pred"] for model in (from_pth, from_npz)
    ]
    np.testing.assert_array_equal(*x_pred)


def test_n_past_option_overrides_that_of_the_checkpoint(tmp_path):
    import_checkpoint(ImportOptions(GOLDEN / "svg_lp_2018.pth", tmp_path / "x", n_past=2))
    assert SVG.load(tmp_path / "x").config.n_past == 2


def test_npz_without_n_past_is_refused(npz, tmp_path):
    with pytest.raises(ValueError, match="--n-past"):
        import_checkpoint(ImportOptions(npz, tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_folder_of_a_training_run_is_left_alone(npz, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "step-100.index").touch()
    with pytest.raises(FileExistsError, match="training run"):
        import_checkpoint(ImportOptions(npz, tmp_path, n_past=3))
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    "settings",
    [{}, {"prior": "fixed", "channels": 3}, {"backbone": "vgg", "posterior_layers": 2}, {"backbone": "vgg",
     "image_size": 128}],
    ids=str,
)  # fmt: skip
def test_our_weights_in_the_authors_layout_load_again(tiny, settings):
    source, copy = (SVG(tiny.replace(**settings, data="data/videos.npz")) for _ in range(2))
    ours, loaded = ([weight for net in model.nets.values() for weight in net.weights] for model in (source, copy))
    draws = np.random.default_rng(0)
    for variable in ours:
        variable.assign(draws.normal(size=variable.shape))
    arrays = {}
    for weight in layout(source):
        value = weight.to_theirs(weight.variables)
        arrays |= {name: np.zeros_like(value) for name in weight.names} | {weight.names[0]: value}
    load_author_weights(copy, arrays)
    for variable, other in zip(ours, loaded, strict=True):
        np.testing.assert_array_equal(variable, other, err_msg=variable.path)
    found = infer_config(arrays)
    for field in dataclasses.fields(Architecture):
        assert getattr(found, field.name) == getattr(source.config, field.name), field.name


# Hostile files ------------------------------------------------------------------------------------------------------


class Attack:
    """Runs a function when it is unpickled in the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write_zip(path: pathlib.Path, pickled: bytes, storages: dict[str, bytes] | None = None) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def write_legacy(path: pathlib.Path, pickled: bytes) -> pathlib.Path:
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*head, pickled, pickle.dumps([], 2)]))
    return path


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("protocol", [2, 4])
def test_hostile_pickle_is_refused_by_name_and_runs_nothing(write, protocol, tmp_path):
    trace = tmp_path / "trace"
    pickled = pickle.dumps({"encoder": Attack(os.mkdir, str(trace))}, protocol)
    pickle.loads(pickled)
    assert trace.exists()  # the attack works on those who unpickle
    trace.rmdir()
    with pytest.raises(ValueError, match=r"refused to load (posix|nt)\.mkdir"):
        read_pth(write(tmp_path / "model.pth", pickled))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"),
        ("torch.hub", "load"), ("models", "lstm"), ("torch.nn.modules.module.Module", "x.y"), ("numpy", "load"),
        ("torch.nn.modules.conv.os", "system"), ("_codecs", "encode"), ("torch.storage", "_load_from_bytes"),
    ],
)  # fmt: skip
def test_names_off_the_list_are_refused(module, name, tmp_path):
    short = [b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)]
    pickled = b"\x80\x04" + short[0] + short[1] + b"\x93."  # STACK_GLOBAL
    with pytest.raises(ValueError, match=f"refused to load {module}.{name}"):
        read_pth(write_zip(tmp_path / "model.pth", pickled))


def test_objects_in_an_npz_are_refused(tmp_path):
    trace = tmp_path / "trace"
    np.savez(tmp_path / "x.npz", weight=np.array([Attack(os.mkdir, str(trace))], dtype=object))
    with pytest.raises(ValueError, match=r"x\.npz is no \.npy or \.npz"):
        read_npz(tmp_path / "x.npz")
    assert not trace.exists()


def tensor_pickle(offset: int, shape: tuple, strides: tuple) -> bytes:
    """{"encoder": module with one buffer} of a storage with 4 floats, written opcode by opcode."""

    def ints(values):
        return b"(" + b"".join(b"J" + value.to_bytes(4, "little", signed=True) for value in values) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + ints([offset])[1:-1] + ints(shape) + ints(strides) + b"tR"

    def dictionary(**values):
        items = b"".join(b"X" + len(key).to_bytes(4, "little") + key.encode() + value for key, value in values.items())
        return b"}(" + items + b"u"

    state = dictionary(_parameters=b"}", _buffers=dictionary(x=tensor), _modules=b"}")
    module = b"cmodels.dcgan_64\nencoder\n)\x81" + state + b"b"
    return b"\x80\x02" + dictionary(encoder=module) + b"."


def test_tensor_is_cut_from_its_storage(tmp_path):
    path = write_zip(
        tmp_path / "model.pth", tensor_pickle(1, (3,), (1,)), {"0": np.arange(4, dtype=np.float32).tobytes()}
    )
    arrays, settings = read_pth(path)
    np.testing.assert_array_equal(arrays["encoder.x"], [1, 2, 3])
    assert settings == {}


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (2, (3,), (1,)), (-1, (2,), (1,)), (0, (2, 2), (3, 1)), (1, (2,), (-2,)), (0, (2,), (2**30,)),
        (0, (10**5, 10**5), (0, 0)), (0, (-1,), (1,)),
    ],
)  # fmt: skip
def test_tensor_beyond_its_storage_is_refused(offset, shape, strides, tmp_path):
    path = write_zip(tmp_path / "model.pth", tensor_pickle(offset, shape, strides), {"0": bytes(16)})
    with pytest.raises(ValueError, match="no readable checkpoint"):
        read_pth(path)


# Damaged files and wrong arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.999])
def test_truncated_pth(path, share, tmp_path):
    data = path.read_bytes()
    (tmp_path / "model.pth").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"model\.pth is no readable checkpoint"):
        read_pth(tmp_path / "model.pth")


@pytest.mark.parametrize("value", [3, {"encoder": 3}, {"opt": [1]}, [1, 2]])
def test_pickle_of_something_else(value, tmp_path):
    path = write_zip(tmp_path / "model.pth", pickle.dumps(value, 2))
    with pytest.raises(ValueError, match=r"no readable checkpoint|not the weights of an SVG model"):
        import_checkpoint(ImportOptions(path, tmp_path / "out", n_past=3))


def test_truncated_npz(npz, tmp_path):
    (tmp_path / "x.npz").write_bytes(npz.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"x\.npz is no \.npy or \.npz"):
        import_checkpoint(ImportOptions(tmp_path / "x.npz", tmp_path / "out", n_past=3))


def test_missing_source(tmp_path):
    for name in ("x.npz", "model.pth"):
        with pytest.raises(FileNotFoundError):
            import_checkpoint(ImportOptions(tmp_path / name, tmp_path / "out", n_past=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("encoder.c1.main.0.weight"), "encoder.c1.*missing"),
        (lambda arrays: arrays.pop("posterior.mu_net.bias"), "posterior.mu_net.bias.*missing"),
        (lambda arrays: arrays.pop("decoder.upc3.main.1.running_var"), "decoder.upc3.*missing"),
        (lambda arrays: arrays.update({"prior_of_mine.x": np.zeros(3)}), "prior_of_mine.x.*no place"),
        (lambda arrays: arrays.update({"posterior.embed.bias": np.zeros(5)}), "posterior.embed.bias.*shape"),
        (lambda arrays: arrays.update({"encoder.c1.main.1.running_mean": np.zeros(1)}), "running_mean.*shape"),
        (lambda arrays: arrays.update({"encoder.c1.main.0.weight": np.zeros(5)}), "shape"),
        (lambda arrays: arrays.update({"decoder.upc2.main.0.weight": np.zeros((3, 3))}), "decoder.upc2.main.0.weight"),
        (lambda arrays: arrays.update({"posterior.embed.weight": np.array(["x"])}), "posterior.embed.weight"),
        (lambda arrays: arrays.clear(), "not the weights of an SVG model"),
    ],
)
def test_wrong_arrays(arrays, change, message):
    changed = dict(arrays)
    change(changed)
    with pytest.raises(ValueError, match=message):
        load_author_weights(SVG(infer_config(changed)), changed)


def test_model_keeps_its_weights_when_arrays_are_wrong(arrays):
    model = SVG(infer_config(arrays))
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(ValueError, match="no place"):
        load_author_weights(model, {**arrays, "x": np.zeros(1)})
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)

"""Makes the small checkpoints in this folder as the authors' training scripts save them; see README.md here.

python tests/golden/make_checkpoints.py
"""

import argparse
import pathlib
import sys
import types

import torch
from authors_nets import GaussianLSTM, make_nets
from make_golden import load_recipe

FOLDER = pathlib.Path(__file__).parent
SIZES = dict(width=2, g_dim=4, z_dim=2, rnn_size=4)
OPTIONS = dict(
    lr=8e-4, beta1=0.8, batch_size=50, optimizer=torch.optim.Adam, niter=200, seed=3, epoch_size=500, image_width=64,
    channels=1, dataset="kth", n_past=3, n_future=7, n_eval=30, rnn_size=4, z_dim=2, g_dim=4, beta=1e-6, model="dcgan",
    num_digits=2, last_frame_skip=True, max_step=10, log_dir="logs/lp", data_threads=5,
)  # fmt: skip


def authors_class(module: str, name: str) -> type:
    """An empty module class that pickles under the authors' name for it."""
    path = f"models.{module}"
    for part in ("models", path):
        sys.modules.setdefault(part, types.ModuleType(part))
    made = type(name, (torch.nn.Module,), {"__module__": path})
    return sys.modules[path].__dict__.setdefault(name, made)


def rename(nets: torch.nn.ModuleDict, backbone: str) -> dict[str, torch.nn.Module]:
    """The nets with the authors' classes, each LSTM net with a state of tensors that need a gradient."""
    for name, net in nets.items():
        if name in ("encoder", "decoder"):
            net.__class__ = authors_class(backbone, name)
        else:
            net.__class__ = authors_class("lstm", "gaussian_lstm" if isinstance(net, GaussianLSTM) else "lstm")
            net.hidden = [(cell.bias_hh[None, :4] * 1, cell.bias_hh[None, 4:8] * 1) for cell in net.lstm]
        for module in net.modules():
            if type(module) is torch.nn.Module:  # a convolution block
                del module.forward
                module.__class__ = authors_class(backbone, "dcgan_conv" if name == "encoder" else "dcgan_upconv")
    return dict(nets)


def checkpoint(prior: str = "learned", **options) -> dict:
    """What the authors save: whole modules and the command-line options."""
    nets = make_nets("dcgan", 64, prior=prior, **SIZES)
    load_recipe(nets)
    return {**rename(nets, "dcgan_64"), "opt": argparse.Namespace(**OPTIONS, **options)}


def write_as_today() -> None:
    """SVG-FP in the zip format, SVG-LP in the legacy format, from a CUDA device."""
    torch.save(checkpoint("fixed"), FOLDER / "svg_fp_zip.pth")
    torch.save(checkpoint(), FOLDER / "svg_lp_legacy.pth", _use_new_zipfile_serialization=False)


def write_as_in_2018() -> None:
    """SVG-LP as PyTorch 0.3 to 0.4 pickled it, as far as that differs from today's legacy format."""
    # Parameters were made by their class, with a state set afterwards; tensors by the first version of the function.
    torch.nn.Parameter.__reduce_ex__ = lambda self, _: (torch.nn.Parameter, (self.data,), (True, False, None))
    torch.Tensor.__reduce_ex__ = lambda self, _: (
        torch._utils._rebuild_tensor,
        (self.detach()._typed_storage(), self.storage_offset(), tuple(self.shape), self.stride()),
    )
    # Every module held the table of its functions.
    backends = types.ModuleType("torch.nn.backends.thnn")
    exec("def _get_thnn_function_backend(): pass", backends.__dict__)
    sys.modules.update({"torch.nn.backends": types.ModuleType("torch.nn.backends"), backends.__name__: backends})
    backend = type("Backend", (), {"__reduce__": lambda self: (backends._get_thnn_function_backend, ())})()
    saved = checkpoint()
    for net in saved.values():
        for module in net.modules() if isinstance(net, torch.nn.Module) else ():
            module._backend = backend
    torch.save(saved, FOLDER / "svg_lp_2018.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    # The legacy format quotes the classes' sources with their path; these are of no use.
    torch.serialization.get_source_lines_and_file = lambda _: (["class Net: ...\n"], 0, "models.py")
    # The authors trained on a GPU; here the file merely says so.
    torch.serialization.register_package(0, lambda _: "cuda:0", lambda storage, _: storage)
    write_as_today()
    write_as_in_2018()

"""The authors' nets in PyTorch, of any width: the parameter names, layer order and arithmetic of their modules.

Written for the golden files and for `tests/bench_torch.py`, which need PyTorch; nothing else imports it.
"""

from itertools import pairwise

import torch
from torch import nn


def conv_block(n_in: int, n_out: int, vgg: bool, transposed: bool = False) -> nn.Module:
    """Convolution, batch norm and leaky ReLU under the name `main`."""
    convolution = nn.ConvTranspose2d if transposed else nn.Conv2d
    size, stride = (3, 1) if vgg else (4, 2)
    block = nn.Module()
    block.main = nn.Sequential(convolution(n_in, n_out, size, stride, 1), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2))
    block.forward = block.main.forward
    return block


def vgg_level(*widths: int) -> nn.Sequential:
    """3 x 3 convolutions from each width to the next."""
    return nn.Sequential(*(conv_block(n_in, n_out, vgg=True) for n_in, n_out in pairwise(widths)))


def level_widths(image: int, width: int) -> list[int]:
    """Channels of each level, from fine to coarse."""
    return [width * multiple for multiple in ([1, 2, 4, 8] if image == 64 else [1, 2, 4, 8, 8])]


def vgg_depths(image: int) -> list[int]:
    """Convolutions of each VGG level, from fine to coarse."""
    return [2, 2, 3, 3] if image == 64 else [2, 2, 3, 3, 3]


class Encoder(nn.Module):
    """[N, C, H, W] -> h [N, g_dim] and the skips, from fine to coarse."""

    def __init__(self, backbone: str, image: int, width: int, g_dim: int, channels: int):
        super().__init__()
        widths = level_widths(image, width)
        self.vgg, self.count = backbone == "vgg", len(widths)
        for k, (n_in, n_out) in enumerate(zip([channels, *widths], widths, strict=False), 1):
            if self.vgg:
                level = vgg_level(n_in, *[n_out] * vgg_depths(image)[k - 1])
            else:
                level = conv_block(n_in, n_out, vgg=False)
            self.add_module(f"c{k}", level)
        head = nn.Sequential(nn.Conv2d(widths[-1], g_dim, 4, 1, 0), nn.BatchNorm2d(g_dim), nn.Tanh())
        self.add_module(f"c{self.count + 1}", head)

    def forward(self, x):
        skips = []
        for k in range(1, self.count + 1):
            x = getattr(self, f"c{k}")(x)
            skips.append(x)
            if self.vgg:
                x = nn.functional.max_pool2d(x, 2)
        return getattr(self, f"c{self.count + 1}")(x).flatten(1), skips


class Decoder(nn.Module):
    """h [N, g_dim] and the skips -> [N, C, H, W] in (0, 1)."""

    def __init__(self, backbone: str, image: int, width: int, g_dim: int, channels: int):
        super().__init__()
        widths = level_widths(image, width)[::-1]  # from coarse to fine
        self.vgg, self.count = backbone == "vgg", len(widths)
        self.upc1 = nn.Sequential(
            nn.ConvTranspose2d(g_dim, widths[0], 4, 1, 0), nn.BatchNorm2d(widths[0]), nn.LeakyReLU(0.2)
        )
        for k, (n_in, n_out) in enumerate(pairwise(widths), 2):
            if self.vgg:
                depth = vgg_depths(image)[::-1][k - 2]
                level = vgg_level(2 * n_in, *[n_in] * (depth - 1), n_out)
            else:
                level = conv_block(2 * n_in, n_out, vgg=False, transposed=True)
            self.add_module(f"upc{k}", level)
        if self.vgg:
            last = [conv_block(2 * width, width, vgg=True), nn.ConvTranspose2d(width, channels, 3, 1, 1)]
        else:
            last = [nn.ConvTranspose2d(2 * width, channels, 4, 2, 1)]
        self.add_module(f"upc{self.count + 1}", nn.Sequential(*last, nn.Sigmoid()))

    def forward(self, h, skips):
        x = self.upc1(h[:, :, None, None])
        for k, skip in enumerate(reversed(skips), 2):
            if self.vgg:
                x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = getattr(self, f"upc{k}")(torch.cat([x, skip], 1))
        return x


class Recurrent(nn.Module):
    """Linear embedding and LSTM cells; the state, a pair per cell, starts at zero."""

    def __init__(self, n_in: int, units: int, depth: int):
        super().__init__()
        self.embed = nn.Linear(n_in, units)
        self.lstm = nn.ModuleList([nn.LSTMCell(units, units) for _ in range(depth)])
        self.reset()

    def reset(self):
        self.hidden = [None] * len(self.lstm)

    def last_h(self, x):
        x = self.embed(x)
        for k, cell in enumerate(self.lstm):
            self.hidden[k] = cell(x, self.hidden[k])
            x = self.hidden[k][0]
        return x


class FramePredictor(Recurrent):
    """[N, g + z] -> [N, g]."""

    def __init__(self, n_in: int, n_out: int, units: int, depth: int):
        super().__init__(n_in, units, depth)
        self.output = nn.Sequential(nn.Linear(units, n_out), nn.Tanh())

    def forward(self, x):
        return self.output(self.last_h(x))


class GaussianLSTM(Recurrent):
    """[N, g] -> mu and logvar [N, z]."""

    def __init__(self, n_in: int, n_out: int, units: int, depth: int):
        super().__init__(n_in, units, depth)
        self.mu_net, self.logvar_net = nn.Linear(units, n_out), nn.Linear(units, n_out)

    def forward(self, x):
        y = self.last_h(x)
        return self.mu_net(y), self.logvar_net(y)


def make_nets(
    backbone: str,
    image: int,
    channels: int = 1,
    width: int = 64,
    g_dim: int = 128,
    z_dim: int = 10,
    rnn_size: int = 256,
    prior: str = "learned",
    depths: tuple[int, int, int] = (1, 1, 2),
) -> nn.ModuleDict:
    """The nets under the names of the authors' checkpoints; `depths` are those of posterior, prior and predictor.

    SVG-FP (`prior` fixed) has no prior net, the deterministic baseline (none) no posterior either.
    """
    z_dim = 0 if prior == "none" else z_dim
    convolutional = backbone, image, width, g_dim, channels
    nets = {
        "encoder": Encoder(*convolutional),
        "decoder": Decoder(*convolutional),
        "frame_predictor": FramePredictor(g_dim + z_dim, g_dim, rnn_size, depths[2]),
    }
    if prior != "none":
        nets["posterior"] = GaussianLSTM(g_dim, z_dim, rnn_size, depths[0])
    if prior == "learned":
        nets["prior"] = GaussianLSTM(g_dim, z_dim, rnn_size, depths[1])
    return nn.ModuleDict(nets)

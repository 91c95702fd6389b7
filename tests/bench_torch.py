"""The graph against the authors' loop in PyTorch, in turns: a training step, and sampling.

All samples of a video are one batch, and also one after the other, as in the authors' script.

Needs `pip install torch==2.13.0`. Both have the same weights, and their losses are compared before anything is timed.
Writes results/bench_torch.json.
"""

import copy
import dataclasses
import datetime
import json
import os
import pathlib
import sys

import bench  # TensorFlow's settings come with it
import numpy as np
import tensorflow as tf
import torch
import tyro

sys.path.insert(0, str(pathlib.Path(__file__).parent / "golden"))
from authors_nets import make_nets
from make_golden import Reference

from files.author_weights import load_author_weights
from files.config import Config
from files.device import hardware
from files.model_svg import SVG


def autocast(precision: str) -> torch.autocast:
    """PyTorch's counterpart of Keras's precision."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed_bfloat16")


def as_torch(video: tf.Tensor) -> torch.Tensor:
    """[B, T, H, W, C] -> [T, B, C, H, W], as the authors' code has it."""
    return torch.from_numpy(video.numpy()).permute(1, 0, 4, 2, 3).contiguous()


def loss(nets: torch.nn.ModuleDict, x: torch.Tensor, noise: torch.Tensor, config: Config) -> torch.Tensor:
    """The loss of x [T, B, C, H, W] with noise [B, T-1, z], frame by frame as in the authors' training script."""
    for name in ("frame_predictor", "posterior", "prior"):
        nets[name].reset()
    mse = kld = 0
    for i in range(1, len(x)):
        h, own_skips = nets["encoder"](x[i - 1])
        h_target, _ = nets["encoder"](x[i])
        if i < config.n_past:
            skips = own_skips
        mu, logvar = nets["posterior"](h_target)
        mu_p, logvar_p = nets["prior"](h)
        z = mu + torch.exp(0.5 * logvar) * noise[:, i - 1]
        x_pred = nets["decoder"](nets["frame_predictor"](torch.cat([h, z], 1)), skips)
        mse += torch.nn.functional.mse_loss(x_pred, x[i])
        sigma, sigma_p = torch.exp(0.5 * logvar), torch.exp(0.5 * logvar_p)
        kl = torch.log(sigma_p / sigma) + (torch.exp(logvar) + (mu - mu_p) ** 2) / (2 * torch.exp(logvar_p)) - 0.5
        kld += kl.sum() / len(mu)
    return mse + config.beta * kld


def torch_step(nets: torch.nn.ModuleDict, x: torch.Tensor, config: Config, precision: str):
    """A training step of the loop, with Adam."""
    optimizer = torch.optim.Adam(nets.parameters(), lr=2e-3)

    def step():
        optimizer.zero_grad()
        noise = torch.randn(x.shape[1], len(x) - 1, config.z_dim)
        with autocast(precision):
            value = loss(nets, x, noise, config)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def same_weights(config: Config, precision: str) -> tuple[SVG, torch.nn.ModuleDict]:
    """Both models.

    Raises AssertionError unless their losses are equal in float32, whatever the precision that is timed.
    """
    nets = make_nets("dcgan", 64, width=config.width)
    model = SVG(config)
    load_author_weights(model, {name: value.numpy() for name, value in nets.state_dict().items()})
    video, noise = bench.random_video(2, config.n_frames), tf.random.normal([2, config.n_frames - 1, config.z_dim])
    with torch.no_grad():
        theirs = loss(nets.eval(), as_torch(video), torch.from_numpy(noise.numpy()), config).item()
    np.testing.assert_allclose(model(video, posterior_noise=noise)["loss"], theirs, rtol=1e-4)
    timed = SVG(config, precision)
    timed.set_weights(model.get_weights())
    return timed, nets


def training(settings: bench.Settings, precision: str) -> dict[str, list[float]]:
    """Seconds of a training step; of the loop also with PyTorch's other memory format."""
    config = settings.config
    model, nets = same_weights(config, precision)
    video = bench.random_video(settings.batch, config.n_frames)
    channels_last = copy.deepcopy(nets).to(memory_format=torch.channels_last)
    functions = {
        "graph": bench.graph_step(model, video),
        "loop": torch_step(nets.train(), as_torch(video), config, precision),
        "channels last": torch_step(channels_last.train(), as_torch(video), config, precision),
    }
    return bench.in_turns(functions, settings.repetitions)


def sampling(settings: bench.Settings, precision: str) -> dict[str, list[float]]:
    """Seconds for all samples of a batch of videos; the loop repeats the conditioning for each."""
    config = settings.config
    model, nets = same_weights(config, precision)
    past = bench.random_video(settings.videos, config.n_past)
    x = as_torch(tf.pad(past, [[0, 0], [0, settings.frames], [0, 0], [0, 0], [0, 0]]))

    def sample(x: torch.Tensor) -> np.ndarray:
        noise = torch.randn(2, x.shape[1], len(x) - 1, config.z_dim)
        with torch.no_grad(), autocast(precision):
            frames = Reference(nets.eval(), config.n_past, config.z_dim, False).generate(x, *noise)
        return frames.float().numpy()

    functions = {
        "graph": lambda: model.generate(past, settings.frames, settings.samples, seed=0),
        "loop": lambda: sample(x.repeat_interleave(settings.samples, dim=1)),
        "one by one": lambda: [sample(x) for _ in range(settings.samples)],
    }
    return bench.in_turns(functions, settings.repetitions)


def main(settings: bench.Settings) -> None:
    """Measures, writes results/bench_torch.json and prints a table."""
    results = {
        "command": " ".join(["python", "tests/bench_torch.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": hardware() | {"torch": torch.__version__},
        "settings": dataclasses.asdict(settings),
        "training": {precision: training(settings, precision) for precision in bench.PRECISIONS},
        "sampling": {precision: sampling(settings, precision) for precision in bench.PRECISIONS},
        "load before and after": [start_load, os.getloadavg()[0]],
    }
    (bench.ROOT / "results" / "bench_torch.json").write_text(json.dumps(results, indent=1) + "\n")
    print(bench.table(results).to_string(float_format="%.3g"))


if __name__ == "__main__":
    start_load = os.getloadavg()[0]
    main(tyro.cli(bench.Settings))

"""Makes the golden files in this folder with PyTorch; see README.md here.

python tests/golden/make_golden.py            writes the small golden files
python tests/golden/make_golden.py --check    repeats golden_dcgan_64_1.npz and prints the largest differences
"""

import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import recipe
from authors_nets import make_nets

FOLDER = pathlib.Path(__file__).parent
BETA = 1e-4


class StandardNormal:
    """N(0, I) in the place of a learned prior."""

    def __init__(self, z_dim: int):
        self.z_dim = z_dim

    def __call__(self, h):
        return torch.zeros(len(h), self.z_dim), torch.zeros(len(h), self.z_dim)


class Reference:
    """The authors' training and generation loops on given weights, video and noise."""

    def __init__(self, nets, n_past: int, z_dim: int, last_frame_skip: bool):
        self.n_past, self.last_frame_skip = n_past, last_frame_skip
        self.encoder, self.decoder, self.frame_predictor = nets["encoder"], nets["decoder"], nets["frame_predictor"]
        self.posterior = nets["posterior"] if "posterior" in nets else StandardNormal(z_dim)
        self.prior = nets["prior"] if "prior" in nets else StandardNormal(z_dim)
        for name in ("frame_predictor", "posterior", "prior"):
            if name in nets:
                nets[name].reset()

    def skip_frame(self, i: int) -> int:
        """Whose skips the prediction of frame i takes."""
        return i - 1 if self.last_frame_skip or i < self.n_past else self.n_past - 2

    def teacher_forced(self, x, noise) -> dict[str, torch.Tensor]:
        """x [T, B, C, H, W], noise [B, T-1, z]; the convolutional nets see all their frames in one call."""
        time, batch = x.shape[:2]
        h, skips = self.encoder(x.flatten(0, 1))
        h = h.unflatten(0, (time, batch))
        skips = [skip.unflatten(0, (time, batch)) for skip in skips]
        posterior, prior, h_pred = [], [], []
        for i in range(1, time):
            mu, logvar = self.posterior(h[i])
            posterior.append((mu, logvar))
            prior.append(self.prior(h[i - 1]))
            z = mu + torch.exp(0.5 * logvar) * noise[:, i - 1]
            h_pred.append(self.frame_predictor(torch.cat([h[i - 1], z], 1)))
        own = [self.skip_frame(i) for i in range(1, time)]
        x_pred = self.decoder(torch.cat(h_pred), [skip[own].flatten(0, 1) for skip in skips])
        x_pred = x_pred.unflatten(0, (time - 1, batch))
        (mu, logvar), (mu_p, logvar_p) = (
            (torch.stack([m for m, _ in pairs]), torch.stack([v for _, v in pairs])) for pairs in (posterior, prior)
        )
        mse = sum(torch.nn.functional.mse_loss(x_pred[i], x[i + 1]) for i in range(time - 1))
        sigma, sigma_p = torch.exp(0.5 * logvar), torch.exp(0.5 * logvar_p)
        kld = torch.log(sigma_p / sigma) + (torch.exp(logvar) + (mu - mu_p) ** 2) / (2 * torch.exp(logvar_p)) - 0.5
        kld = kld.sum() / batch
        sequences = dict(h=h, mu=mu, logvar=logvar, mu_p=mu_p, logvar_p=logvar_p, h_pred=torch.stack(h_pred))
        sequences["x_pred"] = x_pred.movedim(2, -1)  # channels last
        outputs = {name: value.transpose(0, 1) for name, value in sequences.items()}
        return {**outputs, "skips": skips, "mse": mse, "kld": kld, "loss": mse + BETA * kld}

    def generate(self, x, posterior_noise, prior_noise) -> torch.Tensor:
        """Frames from n_past on, [B, T - n_past, H, W, C]; noise is indexed by i - 1."""
        x_in, generated = x[0], []
        for i in range(1, len(x)):
            h, skips = self.encoder(x_in)
            if i - 1 == self.skip_frame(i):
                held = skips
            mu_p, logvar_p = self.prior(h)
            if i < self.n_past:
                mu, logvar = self.posterior(self.encoder(x[i])[0])
                z = mu + torch.exp(0.5 * logvar) * posterior_noise[:, i - 1]
                self.frame_predictor(torch.cat([h, z], 1))
                x_in = x[i]
            else:
                z = mu_p + torch.exp(0.5 * logvar_p) * prior_noise[:, i - 1]
                x_in = self.decoder(self.frame_predictor(torch.cat([h, z], 1)), held)
                generated.append(x_in)
        return torch.stack(generated, 1).movedim(2, -1)


def stat(array) -> np.ndarray:
    """Mean, population standard deviation and largest magnitude."""
    array = np.asarray(array, np.float64)
    return np.array([array.mean(), array.std(), np.abs(array).max()])


def load_recipe(nets) -> dict[str, tuple[int, ...]]:
    """Gives the nets the recipe's weights; returns their names and shapes."""
    state = {name: value for name, value in nets.state_dict().items() if not name.endswith("num_batches_tracked")}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    weights = {name: torch.from_numpy(recipe.weight(name, shape)) for name, shape in shapes.items()}
    nets.load_state_dict(weights, strict=False)
    return shapes


def golden(
    backbone: str, image: int, channels: int, batch: int, time: int, n_past: int,
    width=64, g_dim=128, z_dim=10, rnn_size=256, prior="learned", depths=(1, 1, 2), stride=4,
) -> dict[str, np.ndarray]:  # fmt: skip
    """All arrays of a golden file; `stride` is that of the pixels stored of each frame."""
    z_dim = 0 if prior == "none" else z_dim
    nets = make_nets(backbone, image, channels, width, g_dim, z_dim, rnn_size, prior, depths)
    shapes = load_recipe(nets)
    inputs = recipe.inputs((batch, time, image, image, channels), z_dim)
    x = torch.from_numpy(inputs["video"]).permute(1, 0, 4, 2, 3)
    noise = torch.from_numpy(inputs["posterior_noise"]), torch.from_numpy(inputs["prior_noise"])
    out = {}

    nets.eval()
    for last_frame_skip in (False, True):
        prefix = f"eval/last_frame_skip={last_frame_skip}/"
        with torch.no_grad():
            outputs = Reference(nets, n_past, z_dim, last_frame_skip).teacher_forced(x, noise[0])
            outputs["generated"] = Reference(nets, n_past, z_dim, last_frame_skip).generate(x, *noise)
        for k, skip in enumerate(outputs.pop("skips")):
            out[f"eval/skip{k}/stat"] = stat(skip)
        for name, value in outputs.items():
            value = value.numpy()
            if name in ("x_pred", "generated"):
                out[f"{prefix}{name}/stat"] = stat(value)
                value = value[:, :, ::stride, ::stride]
            out[prefix + name] = value if value.ndim else np.float64(value)

    nets.train()
    outputs = Reference(nets, n_past, z_dim, last_frame_skip=False).teacher_forced(x, noise[0])
    outputs["loss"].backward()
    for name in ("mse", "kld", "loss"):
        out[f"train/{name}"] = np.float64(outputs[name].item())
    for name, parameter in nets.named_parameters():
        out[f"train/grad_norm/{name}"] = np.float64(0 if parameter.grad is None else parameter.grad.norm())
    for name, value in nets.state_dict().items():
        if "running" in name:
            out[f"train/{name}/stat"] = stat(value)

    out["meta/shape"] = np.array([batch, time, n_past, g_dim, z_dim, rnn_size, image, channels])
    out["meta/names"] = np.array(list(shapes))
    out["meta/shapes"] = np.array([str(shape) for shape in shapes.values()])
    return out


SMALL = dict(batch=2, time=5, n_past=3, width=4, g_dim=8, z_dim=3, rnn_size=8, stride=8)
GOLDEN = {
    "dcgan_64_1_fixed": dict(backbone="dcgan", image=64, channels=1, prior="fixed", **SMALL),
    "dcgan_64_1_none": dict(backbone="dcgan", image=64, channels=1, prior="none", **SMALL),
    "dcgan_128_1": dict(backbone="dcgan", image=128, channels=1, depths=(2, 3, 1), **SMALL),
    "vgg_64_1": dict(backbone="vgg", image=64, channels=1, **SMALL),
    "vgg_64_3": dict(backbone="vgg", image=64, channels=3, **SMALL),
    "vgg_128_1": dict(backbone="vgg", image=128, channels=1, **SMALL),
}


def check() -> None:
    """Prints how far this script's results are from the golden file that others made."""
    given = np.load(FOLDER / "golden_dcgan_64_1.npz")
    made = golden("dcgan", 64, 1, batch=3, time=8, n_past=4)
    print("only here:", sorted(set(made) - set(given.files)), "only there:", sorted(set(given.files) - set(made)))
    assert all(np.array_equal(made[name], given[name]) for name in ("meta/shape", "meta/names", "meta/shapes"))
    errors = {name: np.abs(made[name] - given[name]).max() for name in given.files if not name.startswith("meta/")}
    for name in sorted(errors, key=errors.get, reverse=True)[:5]:
        print(f"{errors[name]:.1e} {name}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--check" in sys.argv:
        check()
    else:
        for name, settings in GOLDEN.items():
            np.savez_compressed(FOLDER / f"golden_{name}.npz", **golden(**settings))

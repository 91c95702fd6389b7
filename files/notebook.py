"""What svg.ipynb shows: pictures with a text for those who can't see them, and settings with their sentences."""

import base64
import io
import pathlib

import docstring_parser
import matplotlib.pyplot as plt
import pandas as pd
from pandas.io.formats.style import Styler

from files.config import Config, Machine, Preset, Recipe, Settings, field_names, refuse_unknown

# Those that one looks for first; `vars(config)` and so on show all.
MAIN_SETTINGS = (
    "data", "n_past", "n_future", "backbone", "width", "z_dim", "prior", "beta", "batch_size", "steps_per_epoch",
    "epochs", "learning_rate", "decay", "seed", "precision",
)  # fmt: skip

WIDE = 900  # pixels of a picture, at most: what fits beside JupyterLab's file browser


def change_settings(chosen: Preset, machine: Machine, changes: dict) -> tuple[Config, Recipe, Machine]:
    """The three parts of the settings, with changes given by name, whichever part they belong to.

    Raises ValueError for a setting that doesn't exist or a value that it can't have.
    """
    parts = chosen.config, chosen.recipe, machine
    refuse_unknown(changes, field_names(*map(type, parts)))
    own = [{name: value for name, value in changes.items() if name in field_names(type(part))} for part in parts]
    config, recipe, machine = (part.replace(**values) for part, values in zip(parts, own, strict=True))
    return config, recipe, machine


def settings_table(*parts: Settings) -> Styler:
    """The main settings, their values, and the first sentence of files/config.py on each."""
    rows = {}
    for part in parts:
        for kind in type(part).__mro__[:-1]:
            for field in docstring_parser.parse_from_object(kind).params:
                value = getattr(part, field.arg_name)
                meaning = " ".join(field.description.split())
                rows[field.arg_name] = (value, meaning.split(". ")[0].rstrip("."))
    table = pd.DataFrame(rows, index=["value", "meaning"]).T.loc[list(MAIN_SETTINGS)]
    left = {"selector": "th, td", "props": "text-align: left"}
    return table.style.set_table_styles([left]).format(str)


class Picture:
    """A figure, or the GIF or PNG at a path, as the notebook shows it; `alt` says what is to be seen.

    JupyterLab keeps `alt` beside the picture, and the exported page has it as the picture's alternative text. On a
    narrow screen pictures aren't made smaller ("unconfined"), but can be moved sideways.
    """

    def __init__(self, source: plt.Figure | str | pathlib.Path, alt: str):
        self.alt, data = alt, io.BytesIO()
        if isinstance(source, plt.Figure):
            source.savefig(data, format="png", dpi=min(source.dpi, WIDE / source.get_figwidth()))
        else:
            data.write(pathlib.Path(source).read_bytes())
        self.data = data.getvalue()

    def _repr_mimebundle_(self, **kwargs):
        """A GIF passes as PNG, because exports drop GIFs; browsers look at the content."""
        bundle = {"image/png": base64.b64encode(self.data).decode(), "text/plain": self.alt}
        return bundle, {"image/png": {"alt": self.alt, "unconfined": True}}


def describe_evaluation(metrics: dict) -> str:
    """What the figures of a `metrics.json` say, in sentences; nothing for no figures."""
    if not metrics:
        return ""
    table, n = metrics["table"], metrics["n_samples"]

    def both(row: str) -> str:
        return f"{table[row]['psnr']['mean']:.2f} dB and {table[row]['ssim']['mean']:.3f}"

    lines = [
        f"On {metrics['n_sequences']} test sequences, {metrics['n_past']} frames given and {metrics['n_future']} "
        f"predicted, the best of {n} samples has a PSNR of {both('best')} of SSIM, the mean sample {both('mean')}.",
        f"The posterior, which is told what happened and sees the true frames, has {both('posterior')}: so much the "
        "nets can draw. The rest is lost by feeding frames back, and by not knowing the future.",
        f"An all-black video has {both('black')}. On mostly black frames a digit in the wrong place costs more than no "
        "digit, so a table without such rows says little.",
    ]
    if "own_frames" in table:
        lines.append(f"With the posterior's z, but its own frames fed back, the model has {both('own_frames')}.")
    if "kept" in table["best"]:
        best, posterior = (f"{100 * table[row]['kept']['mean']:.0f} %" for row in ("best", "posterior"))
        lines.append(
            f"The best sample shows both true digits in {best} of its frames, the posterior in {posterior}; in the "
            "others one is faint, or has become another."
        )
    if "simulator_best" in table:
        lines.append(f"A perfect model would have {both('simulator_best')} for the best of {n}: it, too, has to guess.")
    best_of = {metric: metrics["best_of"][metric]["mean"] for metric in ("psnr", "ssim")}
    if n >= 100:
        psnr, ssim = (values[99] - values[9] for values in best_of.values())
        lines.append(f"From 10 to 100 samples the best one gains {psnr:.1f} dB and {ssim:.2f} of SSIM.")
    sigma = metrics["prior_sigma"]
    if "lag" in sigma:
        auc = sigma["auc"][sigma["lag"].index(0)]
        lines.append(
            f"Sigma of the prior in a frame tells with an area under the ROC curve of {auc:.3f} whether a digit "
            "bounces in it; chance is 0.5."
        )
    if metrics["spread_skill"]["ratio"] is not None:
        lines.append(
            f"The spread of the samples is {metrics['spread_skill']['ratio']:.2f} of what their error asks for; below "
            "1 they differ less than real futures do."
        )
    if brightness := metrics.get("brightness"):
        lines.append(
            f"In the last frame the samples have {brightness['ratio']:.2f} of the truth's brightness, and "
            f"{100 * brightness['faded']['mean']:.0f} % of them less than half of it: they have faded."
        )
    return "\n".join(f"- {line}" for line in lines)

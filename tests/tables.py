"""The tables of README.md, results/README.md and the cards, made from what was measured.

`python tests/tables.py` writes them anew, between the lines `<!-- table: NAME -->` and `<!-- end of table -->`.
"""

import csv
import json
import pathlib
import re

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "results" / "shipped"
STAGES = ROOT / "results" / "stages"
TEXTS = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted(ROOT.glob("checkpoints/*/README.md"))]

ROWS = {  # of metrics.json
    "best": "best of {n_samples}",
    "mean": "mean over samples",
    "single": "a single sample",
    "posterior": "posterior reconstruction (sees the future)",
    "own_frames": "own frames fed back, z of the posterior",
    "repeat": "last given frame repeated",
    "black": "all black",
    "simulator_best": "the simulator's own futures, best of {n_samples}",
    "simulator_mean": "the simulator's own futures, mean",
}
METRICS = {"psnr": ("PSNR [dB]", 2), "ssim": ("SSIM", 3), "kept": ("digits kept", 3)}  # with their decimal places
PUBLISHED = {  # Franceschi et al. 2020, table of Stochastic Moving MNIST
    "smmnist_srvp": [
        ("published SVG-LP, best of 100", "14.50", "0.7090"),
        ("published SRVP, best of 100", "16.93", "0.7799"),
    ],
}
MACHINES = {  # how the files are called, for the processor doesn't tell its generation
    "zen4": "two cores of an AMD EPYC (Zen 4: AVX-512 with bfloat16)",
    "zen5": "two cores of an AMD EPYC (Zen 5: AVX-512 with bfloat16)",
    "xeon": "two cores of an Intel Xeon with AMX",
}
MEASURED = {
    "training": "training step of {batch} x 15 frames",
    "sampling": "sampling {samples} futures of {frames} frames",
}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stored(path: pathlib.Path) -> dict:
    """A JSON file."""
    return json.loads(path.read_text())


def interval(value: dict, places: int) -> str:
    """Mean and 95 % interval."""
    return f"{value['mean']:.{places}f} ± {value['interval']:.{places}f}"


def metrics_table(name: str, rows: list[str]) -> str:
    """Rows of a checkpoint's metrics, what was published for the same test, and how they were measured."""
    metrics = stored(SHIPPED / name / "metrics.json")
    with_places = METRICS | {"ssim": ("SSIM", 3 if metrics["n_sequences"] < 5000 else 4)}
    columns = {metric: column for metric, column in with_places.items() if metric in metrics["table"]["best"]}

    def cell(row: str, metric: str) -> str:
        found = metrics["table"][row].get(metric)
        return interval(found, columns[metric][1]) if found else ""

    ours = [[ROWS[row].format(**metrics), *(cell(row, metric) for metric in columns)] for row in rows]
    published = [[*row, *[""] * (len(columns) - 2)] for row in PUBLISHED.get(name, [])]
    return markdown(["", *(title for title, _ in columns.values())], ours[:1] + published + ours[1:])


def command_of(metrics: dict) -> str:
    """The evaluation's command without the options that have their defaults."""
    if "protocol" in metrics:
        count = f" --protocol {metrics['protocol']['name']}"
    else:
        count = "" if metrics["n_sequences"] == 5000 else f" --n-sequences {metrics['n_sequences']}"
    checkpoint = re.search(r"--checkpoint (\S+)", metrics["command"])[1]
    # Once a checkpoint computed in the precision that it was trained in.
    precision = metrics.get("precision") or metrics["config"]["precision"]
    return (
        f"python -m files evaluate --checkpoint {checkpoint}{count} "
        f"--batch-size {metrics['batch_size']} --precision {precision}"
    )


def card(name: str) -> str:
    """All rows of a checkpoint, how they were measured, and the figures that its text needs."""
    metrics = stored(SHIPPED / name / "metrics.json")
    sigma = metrics["prior_sigma"]
    peaks = [
        f"{sigma['auc'][i]:.3f} ± {sigma['auc_interval'][i]:.3f} {when}"
        for i, when in ((sigma["lag"].index(0), "in the frame of the bounce"), (sigma["lag"].index(1), "in the next"))
    ]
    lines = [
        f"`{command_of(metrics)}`",
        "",
        f"{metrics['n_sequences']} test sequences, {metrics['n_past']} frames given, {metrics['n_future']} predicted, "
        f"{metrics['n_samples']} samples each; mean and 95 % interval over sequences.",
        f"{metrics['seconds'] / 60:.0f} minutes and {metrics['peak_memory_bytes'] / 1e9:.1f} GB on "
        f"{metrics['hardware']['cores']} cores ({metrics['hardware']['processor']}).",
        "",
        metrics_table(name, [row for row in ROWS if row in metrics["table"]]),
        "",
        f"- The prior's sigma detects a bounce with an area under the ROC curve of {' and '.join(peaks)}.",
        f"- The spread of the samples is {metrics['spread_skill']['ratio']:.2f} of what their error asks for: "
        "they are too much alike.",
    ]
    if faded := metrics.get("brightness"):
        lines.append(
            f"- In the last frame the samples have {faded['ratio']:.2f} of the truth's brightness; "
            f"{100 * faded['faded']['mean']:.0f} % of them have less than half of it."
        )
    if found := metrics.get("digits"):
        missed, false = found["missed"]["truth"], found["false"]["other_digits"]
        lines.append(
            "- Digits kept is the share of predicted frames that show both true digits, wherever they are: in the "
            f"sample with the best SSIM, and on average over the first {found['n_samples']}. It misses "
            f"{100 * missed:.1f} % of the true frames, and takes {100 * false:.1f} % of frames of other digits for "
            "the true ones."
        )
    return "\n".join(lines)


def protocols_table() -> str:
    """Our rows under each published protocol that was followed to the end, then the literature's."""
    rows = []
    for path in sorted([*SHIPPED.glob("*/metrics.json"), *SHIPPED.glob("*/*-smmnist.json")]):
        metrics = stored(path)
        if "protocol" not in metrics:
            continue
        protocol, name = metrics["protocol"], path.parent.name
        horizon = f"{protocol['n_past']} -> {protocol['n_future']}"
        titles = {
            "best": f"`{name}`, best of {protocol['n_samples']}",
            "mean": f"`{name}`, mean over samples",
            "posterior": ROWS["posterior"],
            "own_frames": ROWS["own_frames"],
            "black": ROWS["black"],
        }
        for row, title in titles.items():
            found = protocol["table"][row]
            figures = interval(found["psnr"], 2), interval(found["ssim"], 4)
            rows.append([f"`{protocol['name']}`" if row == "best" else "", title, horizon, *figures])
        for model in protocol["published"]["rows"]:
            figures = f"{model['psnr']:.2f}", f"{model['ssim']:.4f}"
            rows.append(["", f"{model['model']} ({model['source']})", horizon, *figures])
    return markdown(["protocol", "model", "frames", "PSNR [dB]", "SSIM"], rows)


def comparison_table() -> str:
    """Both checkpoints on the same sequences with the same noise: means, and the paired difference."""
    results = stored(SHIPPED / "comparisons" / "smmnist_srvp-smmnist" / "comparison.json")
    first, second = (results["table"][name] for name in results["checkpoints"])
    rows = []
    for row, title in (("best", "best of {n_samples}"), ("mean", ROWS["mean"]), ("own_frames", ROWS["own_frames"])):
        for metric, (name, places) in METRICS.items():
            a, b = first[row][metric], second[row][metric]
            difference = {"mean": b["difference"], "interval": b["difference_interval"]}
            first_cell = title.format(**results) if metric == "psnr" else ""
            rows.append([first_cell, name, interval(a, places), interval(b, places), interval(difference, places)])
    return markdown(["", "", *(f"`{name}`" for name in results["checkpoints"]), "difference"], rows)


def temperature_table() -> str:
    """How samples change with the factor on the prior's sigma."""
    rows = []
    for path in SHIPPED.glob("smmnist_srvp_200/**/metrics.json"):
        metrics = stored(path)
        cells = [interval(metrics["table"][row][m], METRICS[m][1]) for m in METRICS for row in ("best", "mean")]
        faded = f"{100 * metrics['brightness']['faded']['mean']:.0f} %"
        rows.append([metrics["temperature"], f"{metrics['diversity']['mean']:.4f}", *cells, faded])
    header = [f"{name}, {row}" for name, _ in METRICS.values() for row in ("best", "mean")]
    return markdown(["temperature", "diversity", *header, "faded"], [[f"{t:g}", *cells] for t, *cells in sorted(rows)])


def fvd_table() -> str:
    """The Fréchet distance with a network of random weights."""
    rows = []
    for path in sorted((SHIPPED / "smmnist_srvp").glob("fvd*.json")):
        metrics = stored(path)
        fvd = metrics["fvd"]
        rows.append([f"{metrics['temperature']:g}", f"{fvd['value']:.6f}", str(fvd["n_sequences"])])
    return markdown(["temperature", "Fréchet distance", "sequences"], rows)


def ssim_over_frames() -> str:
    """SSIM of the checkpoint for the paper's data at some predicted frames, and of an all-black video."""
    with open(SHIPPED / "smmnist" / "per_frame.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "ssim" and row["row"] in ("mean", "black")]
    n_past = min(int(row["frame"]) for row in rows) - 1
    shown = (1, 5, 10, 15, 20)
    ssim = {(row["row"], int(row["frame"]) - n_past): float(row["mean"]) for row in rows}
    titles = {"mean": "mean over samples", "black": "all black"}
    return markdown(
        ["predicted frame", *map(str, shown)],
        [[title, *(f"{ssim[row, frame]:.3f}" for frame in shown)] for row, title in titles.items()],
    )


def stages_table(name: str) -> str:
    """The stages of a checkpoint's training: what their logs tell, and what `results/stages/NAME.csv` says."""
    with open(STAGES / f"{name}.csv", newline="") as file:
        header, *rows = csv.reader(file)

    def cells(stage: str) -> list[str]:
        last = stage == name
        recipe = stored(ROOT / "checkpoints" / name / "recipe.json" if last else STAGES / stage / "config.json")
        with open((SHIPPED if last else STAGES) / stage / "losses.csv", newline="") as file:
            lowest = min(float(row["val_loss"]) for row in csv.DictReader(file))
        steps = recipe["epochs"] * recipe["steps_per_epoch"]
        own = ", on own frames" if recipe.get("teacher_forcing", 1) < 1 else ""
        return [f"{steps:,}".replace(",", " "), f"{lowest:.4f}{own}"]

    return markdown(
        ["stage", "steps", "lowest validation loss", *header[1:]],
        [[f"`{stage}`", *cells(stage), *others] for stage, *others in rows],
    )


def benchmarks(kind: str) -> dict[str, dict]:
    """Machine -> results of `bench.py` (kind "bench") or `bench_torch.py`, the newest first."""
    found = {name: SHIPPED / f"{kind}_{name}.json" for name in MACHINES}
    results = {name: stored(path) for name, path in found.items() if path.is_file()}
    return dict(sorted(results.items(), key=lambda item: item[1]["date"], reverse=True))


def measurements(results: dict) -> list[tuple[str, dict[str, float]]]:
    """Title and median seconds of each measurement."""
    return [
        (
            f"{MEASURED[kind].format(**results['settings'])}, {precision.removeprefix('mixed_')}",
            {name: float(np.median(times)) for name, times in seconds.items()},
        )
        for kind in MEASURED
        for precision, seconds in results[kind].items()
    ]


def speed() -> str:
    """Ours against the fastest form of the authors' PyTorch, where the samples are one batch."""
    machine, results = next(iter(benchmarks("bench_torch").items()))
    rows = []
    for title, medians in measurements(results):
        rivals = [medians[name] for name in ("loop", "channels last") if name in medians]
        if rivals:
            graph, rival = medians["graph"], min(rivals)
            rows.append([title, f"{graph:.2f} s", f"{rival:.2f} s", f"{rival / graph:.1f}"])
    header = [f"width {results['settings']['width']}; {MACHINES[machine].split(':')[0].split(' (')[0]}", "here"]
    return markdown([*header, "PyTorch", "times faster"], rows)


def rivals(kind: str, names: dict[str, str]) -> str:
    """Medians of one benchmark on every machine, with how many times the graph's time each rival takes."""
    parts = []
    for machine, results in benchmarks(kind).items():
        rows = []
        for title, medians in measurements(results):
            graph = medians["graph"]
            times = [f"{medians[n]:.2f} s, {medians[n] / graph:.1f} x" if n in medians else "" for n in names]
            rows.append([title, f"{graph:.2f} s", *times])
        parts.append(f"On {MACHINES[machine]}, {results['date']}:\n\n" + markdown(["", "here", *names.values()], rows))
    return "\n\n".join(parts)


def other_figures() -> str:
    """What `bench.py` measures without a rival, on every machine."""
    columns = {MACHINES[name]: results["other figures"] for name, results in benchmarks("bench").items()}
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    return markdown(["", *columns], [[name, *(number(c.get(name)) for c in columns.values())] for name in names])


def number(value: float | None) -> str:
    """Three digits, or whole ones; nothing for None."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def gpu_table() -> str:
    """Training on a GPU, as `check_gpu.py` measured them."""
    rows = []
    for name, case in stored(SHIPPED / "gpu_h100.json")["cases"].items():
        if "step [s]" in case:
            figures = (
                f"{1e3 * case['step [s]']:.1f}",
                f"{case['frames/s']:,.0f}",
                f"{case['tracing and compiling [s]']:.0f}",
                f"{case['peak [GB]']:.1f}",
                f"{case['share of peak']:.2f}",
            )
            rows.append([f"`{name.removeprefix('training ')}`", *figures])
    header = ["training", "ms per step", "frames/s", "s to trace and compile", "GB", "share of a product's speed"]
    return markdown(header, rows)


def gpu_sampling() -> str:
    """Sampling on a GPU with and without XLA."""
    seconds = stored(SHIPPED / "gpu_h100_sampling.json")["sampling"]
    names = {"graph": "as it is", "graph, XLA": "with XLA"}
    rows = [
        [precision.removeprefix("mixed_"), *(f"{1e3 * np.median(times[name]):.0f} ms" for name in names)]
        for precision, times in seconds.items()
    ]
    return markdown(["100 futures of 20 frames", *names.values()], rows)


def gpu_parity() -> str:
    """The largest relative difference from the authors' nets for each kind of output."""
    cases = stored(SHIPPED / "gpu_h100.json")["cases"]
    off, on = (cases[f"parity, TF32 {state}"]["differences"] for state in ("off", "on"))
    rows = [[name, *(f"{found[name]['relative']:.0e}" for found in (off, on))] for name in off]
    return markdown(["largest difference, relative", "TF32 off", "TF32 on"], rows)


def layers_table() -> str:
    """What each trick of files/ops.py earns: the library's time or memory over ours."""
    ratios = stored(SHIPPED / "fast_layers.json")["replaced / as it is"]
    names = list(next(iter(ratios.values())))
    return markdown(
        ["in place of ours", *names],
        [[title, *(f"{row[name]:.2f}" if name in row else "" for name in names)] for title, row in ratios.items()],
    )


TABLES = {
    "results": lambda: metrics_table("smmnist_srvp", ["best", "mean", "black", "simulator_best"]),
    "speed": speed,
    "torch": lambda: rivals(
        "bench_torch",
        {"loop": "PyTorch", "channels last": "PyTorch, channels last", "one by one": "PyTorch, one sample at a time"},
    ),
    "bench": lambda: rivals("bench", {"loop": "Keras's layers in a loop", "one by one": "one sample at a time"}),
    "other figures": other_figures,
    "layers": layers_table,
    "GPU": gpu_table,
    "sampling on a GPU": gpu_sampling,
    "parity on a GPU": gpu_parity,
    "protocols": protocols_table,
    "comparison": comparison_table,
    "temperature": temperature_table,
    "FVD": fvd_table,
    "SSIM over the frames": ssim_over_frames,
    **{f"metrics of {name}": lambda name=name: card(name) for name in ("smmnist", "smmnist_srvp")},
    **{f"stages of {name}": lambda name=name: stages_table(name) for name in ("smmnist", "smmnist_srvp")},
}


def filled(text: str) -> str:
    """The text with every table as it is made now."""
    pattern = r"(<!-- table: ([^>\n]+) -->\n).*?(<!-- end of table -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    for path in TEXTS:
        path.write_text(filled(path.read_text()))

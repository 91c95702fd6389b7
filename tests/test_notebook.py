"""What the notebook shows, its page, and the executed copy that is committed."""

import base64
import io
import json
import pathlib
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import PIL.Image
import pytest

from files import packages
from files.config import Machine, preset
from files.notebook import Picture, change_settings, describe_evaluation, settings_table
from files.page import WIDGET, PageExporter, sources_hash, tidy
from files.widgets import EDGE, MAX_SAMPLES, SIZE, TITLE, Sampler

ROOT = pathlib.Path(__file__).parents[1]
PNG = base64.b64encode(b"\x89PNG").decode()


def outputs(notebook, kind: str) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == kind]


def test_settings_are_shown_with_their_sentences_and_changed_by_name():
    parts = change_settings(preset("quick"), Machine(), {"beta": 0.5, "epochs": 3, "precision": "mixed_bfloat16"})
    shown = settings_table(*parts).data
    assert shown.loc["beta"].tolist() == [0.5, "Weight of the KL term"]
    assert shown.loc["n_past"].tolist() == [5, "Frames given"]
    assert shown.loc[["epochs", "precision"], "value"].tolist() == [3, "mixed_bfloat16"]
    with pytest.raises(ValueError, match=r"unknown settings \['betta'\]"):
        change_settings(preset("quick"), Machine(), {"betta": 0.5})


def test_pictures_have_a_text_and_fit_beside_a_file_browser(tmp_path):
    figure, _ = plt.subplots(figsize=(20, 2), dpi=120)
    data, metadata = Picture(figure, "a wide figure")._repr_mimebundle_()
    assert PIL.Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).width == 900
    assert metadata["image/png"]["alt"] == data["text/plain"] == "a wide figure"
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    assert base64.b64decode(Picture(tmp_path / "a.gif", "")._repr_mimebundle_()[0]["image/png"]) == b"GIF89a"


def test_the_page_has_title_texts_and_formulas_and_needs_no_network():
    shown = nbformat.v4.new_output(
        "display_data",
        {"image/png": PNG, WIDGET: {"model_id": "1"}, "text/plain": "x"},
        metadata={"image/png": {"alt": 'a "picture"'}},
    )
    bar = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("\r10%", "\r100%\n")]
    notebook = nbformat.v4.new_notebook(
        metadata={"title": "Futures", "widgets": {"a": 1}, "papermill": {"b": 2}},
        cells=[
            nbformat.v4.new_markdown_cell("The $\\sigma_t$ of\n\n$$\\sum_{t<T} x_t$$\n"),
            nbformat.v4.new_code_cell("1", outputs=[shown, *bar], metadata={"papermill": {}, "tags": ["parameters"]}),
        ],
    )
    tidied = tidy(notebook)
    assert "widgets" not in tidied.metadata
    assert "papermill" not in tidied.metadata
    assert tidied.cells[1].metadata == {"tags": ["parameters"]}
    assert [output.text for output in outputs(tidied, "stream")] == ["100%\n"]
    page, _ = PageExporter().from_notebook_node(tidied)
    assert "<title>Futures</title>" in page
    assert 'alt="a &quot;picture&quot;"' in page or "alt='a \"picture\"'" in page
    assert re.findall(r'aria-label="(.*?)"', page) == ["\\sigma_t", "\\sum_{t&lt;T} x_t"]
    assert page.count("<svg") == 2
    assert not re.search(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="?(?:https?:)?//', page)
    assert "import(" not in page


def test_the_committed_copy_is_executed_small_and_clean():
    """`make executed` after a change of its code."""
    path = ROOT / "svg.ipynb"
    assert path.stat().st_size < 2e6
    notebook = nbformat.read(path, 4)
    assert notebook.metadata.get("executed") == sources_hash(notebook)
    assert "widgets" not in notebook.metadata
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert outputs(notebook, "error") == []
    assert [output.text for output in outputs(notebook, "stream") if output.name == "stderr"] == []
    pictures = [
        output
        for output in outputs(notebook, "display_data") + outputs(notebook, "execute_result")
        if "image/png" in output.data
    ]
    assert len(pictures) > 10
    assert all(picture.metadata["image/png"]["alt"] for picture in pictures)
    assert not re.search(r"/(?:home|root|work|tmp|Users)/", json.dumps(notebook))


def test_only_what_is_missing_is_installed(tmp_path, monkeypatch):
    (tmp_path / "r.txt").write_text("# Python\ntensorflow>=99\nno-such-package>=1,<2\n\n# For `make`\nno-such-tool\n")
    commands = []
    monkeypatch.setattr(packages.subprocess, "run", lambda command, check: commands.append(command))
    assert packages.install_missing(tmp_path / "r.txt") == ["no-such-package>=1,<2"]
    assert [command[-1] for command in commands] == ["no-such-package>=1,<2"]
    assert packages.install_missing(ROOT / "requirements.txt") == []


def test_the_sampler_shows_what_the_model_generates(tiny, lively, random_video):
    model, videos = lively(tiny), random_video(3, tiny.n_frames, 64, 64, 1)
    sampler = Sampler(model, videos, video=2)
    sampler.samples.value, sampler.seed.value, sampler.frame.value = 2, 5, tiny.n_past
    expected = model.generate(videos[2:, : tiny.n_past], tiny.n_future, MAX_SAMPLES, seed=5).numpy()[0, 1, 0, ..., 0]
    shown = np.asarray(PIL.Image.open(io.BytesIO(sampler.picture.value)).convert("L"))
    left = 2 * (shown.shape[1] // 3) + EDGE  # the ground truth and two samples, side by side
    panel = shown[TITLE + EDGE : TITLE + EDGE + SIZE : 2, left : left + SIZE : 2]
    np.testing.assert_array_equal(panel, np.round(255 * expected))
    with_other_seed = sampler.picture.value
    sampler.seed.value = 6
    assert sampler.picture.value != with_other_seed
    bundle, metadata = sampler._repr_mimebundle_()
    gif = PIL.Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert gif.n_frames == tiny.n_frames
    assert WIDGET in bundle
    assert metadata["image/png"]["alt"]


def test_sentences_quote_the_evaluation():
    """What `metrics.json` is told as, against the scores of the sequences."""
    folder = ROOT / "results" / "shipped" / "smmnist_srvp"
    said = describe_evaluation(json.loads((folder / "metrics.json").read_text()))
    scores = pd.read_csv(folder / "per_sequence.csv").mean()
    assert f"the best of 100 samples has a PSNR of {scores.psnr_best:.2f} dB and {scores.ssim_best:.3f} of SSIM" in said
    best, posterior = (f"{share:.0%}".replace("%", " %") for share in (scores.kept_best, scores.kept_posterior))
    assert f"shows both true digits in {best} of its frames, the posterior in {posterior};" in said
    assert describe_evaluation({}) == ""

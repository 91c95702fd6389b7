"""The texts: links lead somewhere, pictures are described, code and commands run as they are printed."""

import pathlib
import re
import shlex

import numpy as np
import pytest

from files import __main__ as command_line

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("*.md", "docs/*.md", "data/*.md", "results/*.md", "checkpoints/*/README.md", "tests/golden/*.md")
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for folder in FOLDERS for path in sorted(ROOT.glob(folder))}


def anchors(text: str) -> set[str]:
    """Of its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere_and_pictures_are_described(name):
    for picture, title, target in re.findall(r"(!?)\[([^\]]*)\]\(([^)]+)\)", TEXTS[name]):
        if picture:
            assert len(title) > 20, target
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            linked = (ROOT / name).parent / path if path else ROOT / name
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked.read_text()), target


def test_every_file_has_its_line():
    files = {path.name for path in ROOT.glob("files/*.py")} - {"__init__.py"}
    assert files <= set(re.findall(r"[a-z_]+\.py", TEXTS["docs/model.md"]))


def test_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 110


def test_readmes_code_runs_as_it_is_printed(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.+?)```", TEXTS["README.md"], re.DOTALL)
    names = {}
    exec(code, names)
    futures = names["futures"].numpy()
    assert futures.shape == (1, 8, 20, 64, 64, 1)
    assert np.ptp(futures[0, :, -1], axis=0).max() > 0.5


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if "python -m files" in text])
def test_commands_have_the_options_that_they_are_printed_with(name, monkeypatch):
    for run in ("prepare_data", "run_train", "run_sample", "run_evaluate", "run_import", "make_figures"):
        monkeypatch.setattr(command_line, run, lambda *args: [])
    blocks = "\n".join(re.findall(r"```sh\n(.+?)```", TEXTS[name], re.DOTALL)).replace("\\\n", " ")
    for command in re.findall(r"python -m files (.+)", blocks):
        command_line.main(shlex.split(command.replace("$common", ""), comments=True))

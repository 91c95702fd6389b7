"""The notebook as a user has it, in JupyterLab in a real browser: `make test-browser`. Skipped without Chromium.

SCREENSHOTS=folder keeps a picture of each screen, light, dark and as narrow as a phone.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
# Without these, Chromium asks its maker's hosts for this and that.
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
SHORTEST = '{"width": 4, "steps_per_epoch": 2, "batch_size": 4, "val_sequences": 4}'
MINUTES = 60_000  # ms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The project, in which a run leaves no traces, with a notebook of the shortest setting."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("files", "data", "requirements.txt", "results/shipped", "checkpoints/smmnist_srvp"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    notebook = json.loads((ROOT / "svg.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = [*cell["source"], f"\nepochs, changes = 1, {SHORTEST}"]
    (folder / "svg.ipynb").write_text(json.dumps(notebook))
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """That of a running JupyterLab."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root", "--expose-app-in-browser"]
    options += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    home = {"HOME": str(folder), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], cwd=folder, env=os.environ | home, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(60):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api")
                break
            time.sleep(1)
        else:
            pytest.fail((folder / "server.log").read_text())
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def page(address):
    """A tab that shows the notebook."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *QUIET])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}/lab/tree/svg.ipynb")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.isReady", timeout=2 * MINUTES)
        page.wait_for_function(
            "window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=2 * MINUTES,
        )
        yield page
        browser.close()


def screenshot(page, name: str) -> None:
    """Kept for looking at, if SCREENSHOTS says where."""
    if where := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=pathlib.Path(where, f"{name}.png"))


def cells(page) -> list[dict]:
    """The notebook's cells as the browser has them."""
    return page.evaluate("window.jupyterapp.shell.currentWidget.content.model.toJSON().cells")


def scroll_to(page, source: str) -> None:
    """Brings the first cell whose source contains `source` into view."""
    index = next(k for k, cell in enumerate(cells(page)) if source in "".join(cell["source"]))
    page.evaluate(
        "async index => { const notebook = window.jupyterapp.shell.currentWidget.content;"
        " notebook.activeCellIndex = index; await notebook.scrollToItem(index, 'start'); }",
        index,
    )


def test_all_cells_run_without_an_error_or_a_word_on_stderr(page):
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    code = [cell for cell in cells(page) if cell["cell_type"] == "code"]
    assert len(code) > 15
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []


def test_every_picture_has_a_text(page):
    outputs = [output for cell in cells(page) for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) > 10
    assert [picture for picture in pictures if not picture["metadata"].get("image/png", {}).get("alt")] == []


PICTURE = """async () => {
    const response = await fetch(document.querySelector('img.widget-image').src);
    return Array.from(new Uint8Array(await response.arrayBuffer())).join();
}"""


def changed_picture(page, before: str) -> str:
    """The sampler's picture, as soon as it is another one."""
    page.wait_for_function(f"async before => (await ({PICTURE})()) !== before", arg=before, timeout=MINUTES)
    return page.evaluate(PICTURE)


def test_the_sampler_shows_other_futures_for_another_seed_and_the_same_for_the_same(page):
    scroll_to(page, "Sampler(demo")
    page.wait_for_selector("img.widget-image", timeout=MINUTES)
    screenshot(page, "sampler")
    first = page.evaluate(PICTURE)
    seed = page.locator(".widget-text input[type=number]")
    seed.fill("7")
    seed.press("Enter")
    other = changed_picture(page, first)
    seed.fill("0")
    seed.press("Enter")
    assert changed_picture(page, other) == first


def test_screens(page):
    """Every part of the notebook can be shown: light, dark, and as narrow as a phone."""
    parts = [line for cell in cells(page) for line in "".join(cell["source"]).splitlines() if line.startswith("## ")]
    for theme in ("Light", "Dark"):
        page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", f"JupyterLab {theme}"
        )
        page.wait_for_function(f"document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
        for number, part in enumerate(parts):
            scroll_to(page, part)
            page.wait_for_timeout(300 if os.environ.get("SCREENSHOTS") else 0)
            screenshot(page, f"{theme.lower()}-{number}")
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("window.jupyterapp.shell.collapseLeft()")
    for number, part in enumerate(parts):
        scroll_to(page, part)
        page.wait_for_timeout(300 if os.environ.get("SCREENSHOTS") else 0)
        screenshot(page, f"phone-{number}")
    assert len(parts) > 5

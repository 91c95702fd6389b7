"""The executed notebook: tidied, so that GitHub shows it, and as a page that needs no network.

`python -m files.page executed.ipynb out` writes the notebook for an out that ends in .ipynb, otherwise the page.
"""

import hashlib
import html
import pathlib
import sys

import jinja2
import nbformat
import ziamath
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

WIDGET = "application/vnd.jupyter.widget-view+json"
TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block extra_css -%}
<style>
.maths { display: inline-block; }
.maths svg { max-width: none; }
div.maths { display: block; text-align: center; overflow-x: auto; }
/* Wide film strips and tables keep their size on a phone, and are moved sideways. */
@media (max-width: 700px) {
  .jp-OutputArea-output { overflow-x: auto; }
  .jp-RenderedImage img { max-width: none; }
  .jp-RenderedHTMLCommon table { display: block; overflow-x: auto; }
  .jp-InputPrompt, .jp-OutputPrompt { display: none; }
}
</style>
{%- endblock -%}
{%- block data_png scoped -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data['image/png'] }}"
alt="{{ output | get_metadata('alt', 'image/png') | escape_html }}">
</div>
{%- endblock -%}
"""


class PageExporter(HTMLExporter):
    """To HTML as nbconvert does it, with formulas as drawings and without anything from the network."""

    def __init__(self, **kwargs):
        loader = jinja2.DictLoader({"page.html.j2": TEMPLATE})
        super().__init__(template_file="page.html.j2", extra_loaders=[loader], **kwargs)

    def markdown2html(self, source: str) -> str:
        """As nbconvert's own, with the renderer below."""
        return MarkdownWithMath(renderer=Renderer(escape=False)).render(source)


class Renderer(IPythonRenderer):
    """Draws formulas, which nbconvert leaves to a script from the network."""

    def inline_math(self, body: str) -> str:
        """One within a line."""
        return draw_formula(body, inline=True)

    def block_math(self, body: str) -> str:
        """One between two paragraphs."""
        return draw_formula(body, inline=False)


def draw_formula(latex: str, inline: bool) -> str:
    """HTML with a formula as SVG, for which `latex` is the alternative text."""
    latex = " ".join(latex.split())
    drawing = ziamath.Latex(latex, size=15 if inline else 18, inline=inline, color="currentColor")
    label = html.escape(latex, quote=True)
    if inline:
        lowered = f"vertical-align:{drawing.getyofst():.1f}px"
        return f'<span class="maths" role="img" aria-label="{label}" style="{lowered}">{drawing.svg()}</span>'
    return f'<div class="maths" role="img" aria-label="{label}">{drawing.svg()}</div>'


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leaves what a reader needs: no traces of the run, no widgets, of which the pictures stay, one text per stream."""
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    for name in ("widgets", "papermill"):
        notebook.metadata.pop(name, None)
    notebook.metadata["executed"] = sources_hash(notebook)
    for cell in notebook.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
    return notebook


def sources_hash(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of all code, which tells whether the outputs are those of this code."""
    code = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def write_page(executed: str | pathlib.Path, out: str | pathlib.Path) -> None:
    """Tidies an executed notebook, and writes it as a notebook or, by its suffix, a page."""
    notebook, out = tidy(nbformat.read(executed, 4)), pathlib.Path(out)
    if out.suffix == ".ipynb":
        nbformat.write(notebook, out)
    else:
        page, _ = PageExporter().from_notebook_node(notebook)
        out.write_text(page)


if __name__ == "__main__":
    write_page(*sys.argv[1:])

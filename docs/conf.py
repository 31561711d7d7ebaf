"""Configuration of Sphinx. `make docs` builds the documentation."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE)]

import generate  # noqa: E402 - found by the line above
from docutils import nodes  # noqa: E402 - as above
from sphinx.addnodes import desc_returns  # noqa: E402 - as above

project = "imagelake"
release = version = tomllib.loads((_HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]
# Docstrings have code in single backticks, as Markdown has.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# `make tutorial` runs the notebook.
nb_execution_mode = "off"
html_theme = "furo"
html_title = "imagelake"
html_show_copyright = False
# Everything a page needs is in site/: no font or script is fetched from elsewhere.
html_copy_source = False
html_show_sourcelink = False


def setup(app: Any) -> None:  # noqa: ANN401 - Sphinx is not installed where types are checked
    """Write the reference pages before Sphinx looks for pages."""
    app.connect("builder-inited", lambda _: generate.write(_HERE / "reference"))
    app.connect("autodoc-process-docstring", _mark_text, priority=100)
    # Napoleon, which makes ":vartype NAME: TYPE" of "Attributes:", has the priority 500.
    app.connect("autodoc-process-docstring", _shorten_attributes, priority=900)
    app.connect("autodoc-process-signature", _hide_constructor)
    app.connect("doctree-read", _shorten_results)


def _mark_text(_: Any, what: str, *rest: Any) -> None:  # noqa: ANN401 - Sphinx's signature
    """Start the text of "Returns:" and of properties with a colon: napoleon reads what precedes a colon as a type."""
    lines: list[str] = rest[-1]
    texts = [at + 1 for at, line in enumerate(lines[:-1]) if line.strip() in ("Returns:", "Yields:")]
    for at in [0] if what in ("property", "attribute") and lines else texts:
        text = lines[at].lstrip()
        lines[at] = f"{lines[at].removesuffix(text)}: {text}"


def _hide_constructor(_: Any, what: str, name: str, value: Any, *__: Any) -> tuple[str, None] | None:  # noqa: ANN401 - Sphinx's signature
    """Leave out the arguments of a class that users do not construct themselves."""
    return ("", None) if what == "class" and (name.startswith("pipeline.") or hasattr(value, "model_fields")) else None


def _shorten_attributes(_: Any, what: str, *rest: Any) -> None:  # noqa: ANN401 - Sphinx's signature
    """Name the types of attributes without their modules, and the union of all baselines by its alias."""
    if what == "class":
        rest[-1][:] = [_short(line) if line.startswith(":vartype ") else line for line in rest[-1]]


def _shorten_results(_: Any, doctree: Any) -> None:  # noqa: ANN401 - Sphinx's signature
    """Write NDArray[uint8] for ndarray[tuple[Any, ...], dtype[uint8]], also in signatures of overloads."""
    for node in doctree.findall(desc_returns):
        if "ndarray[" in (text := node.astext()):
            node.clear()
            node.append(nodes.Text(_short(text.removeprefix(" -> "))))


def _short(text: str) -> str:
    plain = re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(\w+)\]\]", r"NDArray[\1]", text)
    named = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", plain)
    return re.sub(r"\w+Part(?: \| \w+Part)+", "Baseline", named)

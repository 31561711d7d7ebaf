"""Configuration of Sphinx. `make docs` builds the documentation."""

import sys
import tomllib
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE)]

import generate  # noqa: E402 - found by the line above

project = "imagelake"
release = version = tomllib.loads((_HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]
# Docstrings have code in single backticks, as Markdown has.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
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
    app.connect("autodoc-process-signature", _hide_constructor)


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

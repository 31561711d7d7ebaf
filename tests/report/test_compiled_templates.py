"""Compiled templates are kept beside the modules of the report, and used only if nothing has changed."""

import os
import sys
from pathlib import Path

import jinja2
import pytest

from pipeline.report.compiled_templates import CompiledTemplates


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of compiled modules."""
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "compiled"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return tmp_path / "compiled"


def compiled_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.pyc"))


def render(code: Path, *, text: str = "{{ 1 + 1 }} {{ name | upper }}") -> str:
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": text}), autoescape=True, bytecode_cache=CompiledTemplates([code])
    )
    return environment.get_template("page").render(name="<a>")


def test_a_compiled_template_is_kept_and_used(folder: Path) -> None:
    assert render(Path(__file__)) == "2 &lt;A&gt;"
    (kept,) = compiled_in(folder)
    before = kept.stat().st_mtime_ns
    assert render(Path(__file__)) == "2 &lt;A&gt;"
    assert [kept] == compiled_in(folder)
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_damaged_one_is_made_again(folder: Path, content: bytes | None) -> None:
    render(Path(__file__))
    (kept,) = compiled_in(folder)
    whole = kept.read_bytes()
    kept.write_bytes(whole[:60] if content is None else content)
    assert render(Path(__file__)) == "2 &lt;A&gt;"
    assert kept.read_bytes() == whole


def test_another_template_or_another_module_is_compiled_again(folder: Path, tmp_path: Path) -> None:
    code = tmp_path / "filters.py"
    code.touch()
    render(code)
    (kept,) = compiled_in(folder)
    first = kept.read_bytes()
    assert render(code, text="{{ 3 }}") == "3"
    second = kept.read_bytes()
    os.utime(code, ns=(1, 1))
    assert render(code, text="{{ 3 }}") == "3"
    assert len({first, second, kept.read_bytes()}) == 3


def test_nothing_is_kept_where_python_keeps_no_modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert render(Path(__file__)) == "2 &lt;A&gt;"
    assert not compiled_in(folder)


def test_a_folder_that_cannot_be_written_to_is_no_error(folder: Path) -> None:
    folder.write_text("a file")
    assert render(Path(__file__)) == "2 &lt;A&gt;"

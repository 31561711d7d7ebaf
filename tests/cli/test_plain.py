"""Text of strangers made fit for a terminal: whatever it holds, nothing of it is an order, and letters stay."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hostile import HARM, NAMES
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import cli
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.progress import Progress, plain

PIPELINE = Path(cli.__file__).parents[1]
# Any text at all, and often what does harm; also bytes of file names that are no UTF-8.
CHARACTERS = st.characters(exclude_categories=()) | st.sampled_from("\x1b\x9b\n\r\b\0\u202e\u2066\udcff\x7f[]äb")
ANYTHING = st.text(CHARACTERS) | st.sampled_from(NAMES)
PLACES = (ast.Name, ast.Attribute)
PRINTS = r"print|warn|(click\.)?s?echo|click\.echo_via_pager|error\.show|(sys\.)?(stdout|stderr)|tqdm\.write"
MAY_PRINT = {
    "cli/terminal.py": {"click.echo", "sys.stdout", "sys.stderr"},
    "cli/show.py": {"click.echo"},
    # The address with the token, which `print_line` would hide.
    "cli/review.py": {"click.echo"},
    # Discards what cannot be written.
    "cli/streams.py": {"sys.stdout", "sys.stderr"},
    "progress.py": {"sys.stderr"},
    "sources/remote.py": {"sys.stderr"},
    # What workers and Ray themselves said.
    "engines/ray.py": {"sys.stderr", "tqdm.write"},
}


@given(ANYTHING)
@example("\udcff\ud800")
@example("".join(map(chr, range(0x3000))))
def test_plain_leaves_letters_and_spells_the_rest(text: str) -> None:
    shown = plain(text)
    assert HARM.findall(shown) == []
    shown.encode()
    assert plain(shown) == shown
    if text.isalnum():
        assert shown == text


@given(ANYTHING)
def test_whatever_is_said_is_one_line_of_utf_8(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("click.echo", lambda line, **_: said.append(line))
        print_line(text)
    assert [HARM.findall(line) for line in said] == [[]]
    said[0].encode()


@given(st.lists(ANYTHING, min_size=1, max_size=3))
def test_frames_and_json_hold_any_text(texts: list[str]) -> None:
    rows = [text.encode("utf-8", "replace").decode() for text in texts]
    name = f"{rows[0]}x"
    frame = pl.DataFrame({name: rows, "lists": [rows] * len(rows), "b": [row.encode() for row in rows]})
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("click.echo", lambda line, **_: said.append(line))
        show_frame(frame)
        assert [line for line in said if HARM.search(line)] == []
        said.clear()
        show_json({"frame": frame, "text": texts})
        assert said[0].isascii()
        assert HARM.findall(said[0].replace("\n", "")) == []
        data = json.loads(said[0])
    assert data["text"] == texts
    assert [row[name] for row in data["frame"]] == rows


def test_a_terminal_that_knows_no_umlauts_gets_escapes() -> None:
    code = "from pipeline.cli.terminal import print_line; print_line('aäb漢\\x1b')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert done.stdout == b"a\\xe4b\\u6f22\\x1b\n"


def test_the_bar_is_plain_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress() as progress:
        progress.step("train \x1b[2J\u202eä")
    assert "train \\x1b[2J\\u202eä" in capsys.readouterr().err


def test_nothing_else_prints() -> None:
    """A new command cannot forget: only `print_line`, `show_json` and the bar write to where people look."""
    found = {str(file.relative_to(PIPELINE)): printing(file) for file in PIPELINE.rglob("*.py")}
    assert {file: words for file, words in found.items() if words - MAY_PRINT.get(file, set())} == {}


def printing(file: Path) -> set[str]:
    words = [ast.unparse(node) for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, PLACES)]
    return {word for word in words if re.fullmatch(PRINTS, word)}

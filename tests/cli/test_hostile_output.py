"""What commands print of a lake in which every name is hostile: harmless as text, exact as JSON."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import HARM, LETTERS, NAMES, build_named

from pipeline import cli
from pipeline.sources.labels import normal_label

COMMAND = Path(sys.executable).with_name("imagelake")
Printed = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The recipe and the lake."""
    return build_named(tmp_path_factory.mktemp("printed"), NAMES)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Printed:
    """Run the command as a person does, and hand out its exit code and every byte of stdout and stderr."""

    def run(*words: object) -> tuple[int, bytes, bytes]:
        monkeypatch.setattr(sys, "argv", ["imagelake", *map(str, words)])
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        sys.stdout.flush()
        return int(stopped.value.code or 0), *capfdbinary.readouterr()

    return run


def harmless(data: bytes) -> str:
    """Hold bytes to being UTF-8 whose lines give no orders."""
    text = data.decode()
    assert HARM.findall(text.replace("\n", "")) == []
    return text


COMMANDS = {
    "status": ("status", "{lake}", "--recipe", "{recipe}"),
    "overlap": ("overlap", "{lake}", "--split", "main"),
    "pairs": ("overlap", "{lake}", "--rule", "cosine:0.95", "--conflicts"),
    "page": ("overlap", "{lake}", "--rule", "exact", "--html", "{folder}/\x1b[2J.html"),
    "clusters": ("overlap", "{lake}", "--rule", "exact", "--clusters"),
    "cluster page": ("overlap", "{lake}", "--rule", "exact", "--clusters", "--html", "{folder}/\x1b[2J.html"),
    "show": ("show", "{lake}", "0.png", "1.png"),
    "pictures": ("show", "{lake}", "0.png", "1.png", "9.png", "--png", "{folder}/\x1b[2J"),
    "sql": ("sql", "{lake}", "select label, list(path) paths, {{'k': any_value(path)}} k from images group by label"),
    "columns": ("sql", "{lake}", 'select 1 as "\x1b[2J\u202e\n", 2 as "\\x1b[2J"'),
    "bytes": ("sql", "{lake}", "select encode(label) as label from images limit 3"),
    "verify": ("verify", "{lake}"),
    "history": ("history", "{lake}"),
    "export": ("export", "{lake}", "main", "{folder}/\x1b[2J\u202e", "--to", "npz"),
    "vacuum": ("vacuum", "{lake}", "--older-than", "0", "--keep-last", "1", "--dry-run"),
    "report": ("report", "{lake}", "--out", "{folder}/\x9b\n.html"),
    "build": ("build", "{recipe}", "--workers", "1"),
}


@pytest.mark.quick_cases(9)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_names_harmlessly(
    name: str, made: tuple[Path, Path], printed: Printed, tmp_path: Path
) -> None:
    for number, more in enumerate(((), ("--json",))):
        folder = tmp_path / str(number)
        folder.mkdir()
        words = [word.format(recipe=made[0], lake=made[1], folder=folder) for word in COMMANDS[name]]
        code, out, err = printed(*words, *more)
        assert (code, err) == (0, b"")
        harmless(out)
        if more:
            assert out.isascii()
            json.loads(out)


def test_letters_of_every_script_stay_and_orders_are_spelled(made: tuple[Path, Path], printed: Printed) -> None:
    text = harmless(printed("sql", made[1], "select distinct label from images")[1])
    assert LETTERS in text
    assert "\\x1b[2J\\x1b]0;owned\\x07" in text
    assert "\\u202egnp.exe" in text
    assert "\ufffd" not in text


def test_json_is_exact(made: tuple[Path, Path], printed: Printed) -> None:
    data = json.loads(printed("sql", made[1], "select distinct label from images where split = 'train'", "--json")[1])
    assert sorted(row["label"] for row in data) == sorted(filter(None, map(normal_label, NAMES)))


@pytest.mark.parametrize(
    "words",
    [
        ("status", "{evil}"),
        ("build", "{evil}.toml"),
        ("sql", "{lake}", 'from "{evil}"'),
        ("sql", "{lake}", "select error('{evil}')"),
        ("sql", "{lake}", "select label::int from images order by label"),
        ("overlap", "{lake}", "--split", "{evil}"),
        ("overlap", "{lake}", "--rule", "{evil}"),
        ("export", "{lake}", "{evil}", "{evil}", "--to", "npz"),
        ("export", "{lake}", "main", "{evil}", "--to", "{evil}"),
        ("vacuum", "{lake}", "--older-than", "{evil}"),
        ("{evil}",),
        ("status", "--{evil}"),
        ("status", "a", "{evil}"),
    ],
)
def test_errors_are_harmless_too(words: tuple[str, ...], made: tuple[Path, Path], printed: Printed) -> None:
    evil = "\x1b[2J\r\n\u202e\x9b\udcffäö"
    code, out, err = printed(*(word.format(evil=evil, lake=made[1]) for word in words))
    assert code in {1, 2}
    assert out == b""
    text = harmless(err)
    assert text.endswith("\n")
    assert code == 2 or text.count("\n") == 1
    assert "\udcff" not in text


def test_a_recipe_of_a_stranger_is_refused_harmlessly(printed: Printed, tmp_path: Path) -> None:
    evil = json.dumps("\x1b[2J\u202e")
    for text in (
        f"{evil} = 1",
        f"[lake]\nroot = 'x'\n{evil} = 2",
        f"[lake]\nroot = 'x'\n[[source]]\nuri = {evil}\ndataset = 'd'\nsplit = 's'",
        f"[lake]\nroot = 'x'\n[[source]]\nuri = 'x'\ndataset = {evil}\nsplit = 's'",
        f"[lake]\nroot = 'x'\n[dedup]\nrules = [{evil}]\n[[source]]\nuri = 'x'\ndataset = 'd'",
        "[lake]\nroot = 'x\x1b[2J",
    ):
        (tmp_path / "r.toml").write_text(text, encoding="utf-8")
        code, _, err = printed("build", tmp_path / "r.toml")
        assert code == 1
        assert harmless(err).count("\n") == 1


def test_a_terminal_gets_the_same_as_a_file(made: tuple[Path, Path], printed: Printed) -> None:
    words = ("sql", str(made[1]), "select distinct label from images where length(label) < 99 order by all")
    plainly = harmless(printed(*words)[1])
    ours, theirs = pty.openpty()
    with subprocess.Popen([COMMAND, *words], stdout=theirs) as run:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # how Linux says that the other side has hung up
            pass
        os.close(ours)
    assert run.returncode == 0
    lines = harmless(shown.replace(b"\r\n", b"\n")).splitlines()
    assert [line for line in lines if "gnp" in line] == [line for line in plainly.splitlines() if "gnp" in line]
    assert len(lines) == len(plainly.splitlines())

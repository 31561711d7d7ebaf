"""Options have one name for one thing in all commands; help and errors hold no escapes where lines should be."""

import re
import sys
from collections import defaultdict
from pathlib import Path

import click
import pytest
from commands import Run

from pipeline import cli
from pipeline.errors import RecipeError
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe

COMMANDS = list(cli._COMMANDS)  # noqa: SLF001 - the list itself
ESCAPE = re.compile(r"\\[a-z0-9]|\x08")
# Names of older versions, by command: they work, and no help shows them.
BEFORE = {"sql": {"--at"}, "synth": {"--form"}}


def command(name: str) -> click.Command:
    found = cli._imagelake.get_command(click.Context(cli._imagelake), name)  # noqa: SLF001
    assert isinstance(found, click.Command)
    return found


@pytest.mark.parametrize("name", ["", *COMMANDS])
@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_help_holds_no_escapes(name: str, columns: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = run(*filter(None, [name]), "--help")
    assert done.exit_code == 0
    assert ESCAPE.findall(done.stdout) == []


@pytest.mark.parametrize("name", ["overlap", "sql", "export", "vacuum"])
def test_examples_in_help_keep_their_lines(name: str, run: Run) -> None:
    examples = [line for line in run(name, "--help").stdout.splitlines() if line.startswith(f"  imagelake {name} ")]
    assert examples
    assert all(len(example.split()) > 3 for example in examples)


def test_one_parameter_has_one_name_in_every_command() -> None:
    names = defaultdict(set)
    for name in COMMANDS:
        for option in command(name).params:
            if isinstance(option, click.Option) and option.name:
                names[option.name].add(tuple(sorted({*option.opts} - BEFORE.get(name, set()))))
    assert {parameter: found for parameter, found in names.items() if len(found) > 1} == {}
    assert names["release"] == {("--release",)}
    assert names["json_"] == {("--json",)}
    assert names["form"] == {("--to",)}


def test_one_name_takes_one_kind_of_value_in_every_command() -> None:
    kinds = defaultdict(set)
    for name in COMMANDS:
        for option in command(name).params:
            if isinstance(option, click.Option):
                for word in {word for word in option.opts if word.startswith("--")} - BEFORE.get(name, set()):
                    kinds[word].add("words" if isinstance(option.type, click.Choice) else option.type.name)
    assert {word: found for word, found in kinds.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json(name: str) -> None:
    found = command(name)
    for one in found.commands.values() if isinstance(found, click.Group) else [found]:
        assert any(option.name == "json_" for option in one.params)


@pytest.mark.parametrize(("name", "before"), [(name, word) for name, words in BEFORE.items() for word in words])
def test_names_of_older_versions_are_not_shown(name: str, before: str, run: Run) -> None:
    assert before not in run(name, "--help").stdout
    assert before in {word for option in command(name).params for word in option.opts}


def test_names_of_older_versions_work(small_lake: Lake, run: Run, tmp_path: Path) -> None:
    for word in ("--at", "--release"):
        assert run("sql", small_lake.root, "select 7 as x", word, 1).stdout.splitlines()[3] == "│ 7 │"
    refused = run("sql", small_lake.root, "select 1", "--at", "first")
    assert "Invalid value for '--release'" in refused.stderr
    run("synth", tmp_path / "a", "--form", "folder", "--rows", 100, "--workers", 1)
    run("synth", tmp_path / "b", "--to", "folder", "--rows", 100, "--workers", 1)
    made = [sorted(path.name for path in (tmp_path / name).rglob("*")) for name in "ab"]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "lake", "main", "out"], "Missing option '--to'. Choose from npz, npy, parquet, "),
        (["export", "lake", "main", "out", "--to", "zarr"], "'zarr' is not one of 'npz', 'npy'"),
        (["synth", "out", "--to", "zip"], "'zip' is not one of 'tar', 'folder'"),
        (["export", "lake", "main", "out", "--t", "npz"], "No such option '--t'"),
        (["sql", "lake"], "Missing argument 'QUERY'"),
        (["overlap"], "Missing argument 'LAKE'"),
    ],
)
def test_errors_of_usage_hold_no_escapes(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["imagelake", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert ESCAPE.findall(shown.err) == []


@pytest.mark.parametrize("text", ['uri = "a\nb"\n', "uri = 'a\n", "uri\n= 1\n", 'uri = ["a",\n"b\n]', "[lake\n]"])
def test_errors_of_toml_hold_no_escapes(text: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match="not valid TOML") as caught:
        read_recipe(file)
    assert ESCAPE.findall(str(caught.value)) == []

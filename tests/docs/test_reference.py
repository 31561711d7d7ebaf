"""The documentation has every command, option, recipe key, column and public name, and its links and commands work."""

import importlib.util
import json
import re
import shlex
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

import imagelake
import schemas
from pipeline import cli
from pipeline.recipe import Recipe
from pipeline.shard import REASONS

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
GROUP = next(value for value in vars(cli).values() if isinstance(value, click.Group))
COMMANDS = GROUP.list_commands(click.Context(GROUP))


def load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATED = {f"reference/{name}": make() for name, make in load_generator().PAGES.items()}


def notebook_text(path: Path) -> str:
    """Write a notebook as Markdown: its text, and its commands as blocks; code in Python is left out."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif text.startswith("%%sh\n"):
            parts.append(f"```sh\n{text.removeprefix('%%sh')}\n```")
    return "\n\n".join(parts)


# All that people read: pages of the documentation and the Markdown files beside the code.
TEXTS = {
    **{path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))},
    **{path.relative_to(DOCS).as_posix(): notebook_text(path) for path in sorted(DOCS.rglob("*.ipynb"))},
    **GENERATED,
    **{
        f"../{name}": (PROJECT / name).read_text(encoding="utf-8")
        for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
    },
}


def sections(page: str) -> dict[str, str]:
    """Split a page at its second-level headings."""
    parts = re.split(r"^## (.*)$", GENERATED[page], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def with_groups(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """List the words of every command; a command with commands below it is replaced by these."""
    for name in names:
        command = found(name)
        if isinstance(command, click.Group):
            yield from ((name, below) for below in command.commands)
        else:
            yield (name,)


def found(*words: str) -> click.Command | None:
    """Find a command by its words, as far as they name commands; None if the first is none."""
    command: click.Command | None = GROUP
    for word in words:
        below = command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
        if below is None:
            return command if command is not GROUP else None
        command = below
    return command


@pytest.mark.parametrize("words", list(with_groups(COMMANDS)), ids=" ".join)
def test_every_command_and_option_is_in_the_reference(words: tuple[str, ...]) -> None:
    text = sections("reference/commands.md")[f"imagelake {' '.join(words)}"]
    command = found(*words)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option):
            assert re.search(rf"`[^`\n]*{re.escape(option.opts[0])}\b[^`\n]*` \| \S", text), option.opts[0]
    shown = CliRunner().invoke(GROUP, [*words, "--help"]).output
    listed = set(re.findall(r"(?m)^ {2}(?:-\w, )?(--[a-z-]+)", shown)) - {"--help"}
    assert listed
    assert [option for option in listed if option not in text] == []


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from models(inner)


def test_every_recipe_key_is_in_the_reference() -> None:
    found = sections("reference/recipe.md")
    missing = []
    for name, field in Recipe.model_fields.items():
        if field.exclude:
            continue
        titles = [title for title in found if re.fullmatch(rf"`\[+{name}\]+`.*", title)]
        assert titles, name
        text = "".join(found[title] for title in titles)
        for model in models(field.annotation):
            for key, inner in model.model_fields.items():
                if not inner.exclude and f"| `{inner.alias or key}` |" not in text:
                    missing.append(f"{name}.{key}")
                for part in models(inner.annotation):
                    (role,) = (title for title in found if f"`{key}`" in title)
                    missing += [
                        f"{name}.{key}.{deep}"
                        for deep, deepest in part.model_fields.items()
                        if f"| `{deepest.alias or deep}` |" not in found[role]
                    ]
    assert missing == []


def test_every_recipe_key_has_a_meaning_in_the_reference() -> None:
    rows = [
        (title, *re.split(r"(?<!\\)\|", line)[1:-1])
        for title, text in sections("reference/recipe.md").items()
        for line in text.split("\n")
        if line.startswith("| `")
    ]
    assert len(rows) > 100
    # A meaning is at least two words: "Of the images." alone does not say what the key is.
    unclear = [row for row in rows if not re.match(r" [^\s|]+ \S", row[-1]) or row[-1].startswith((" Of ", " For "))]
    assert [(title, key) for title, key, *_ in unclear] == []


def test_every_table_and_column_is_in_the_reference_with_its_meaning() -> None:
    found = sections("reference/tables.md")
    assert list(found) == list(schemas.TABLES)
    for name, table in schemas.TABLES.items():
        for column in table.schema.names:
            assert re.search(rf"\| `{column}` \| `.+` \| (yes)? \| \S", found[name]), f"{name}.{column}"


def test_the_python_api_lists_every_table() -> None:
    listed = re.findall(r"\w+", imagelake.Lake.scan.__doc__ or "")
    assert [name for name in schemas.TABLES if name not in listed] == []


def test_every_reason_code_is_in_the_reference() -> None:
    assert [code for code in REASONS if f"| `{code}` | " not in sections("reference/tables.md")["rejects"]] == []


def test_every_public_name_is_in_the_reference() -> None:
    page = GENERATED["reference/python.md"]
    assert [name for name in imagelake.__all__ if f":: imagelake.{name}\n" not in page] == []


def test_a_missing_option_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    page = GENERATED["reference/commands.md"]
    monkeypatch.setitem(GENERATED, "reference/commands.md", page.replace("--prune", "--plume"))
    with pytest.raises(AssertionError):
        test_every_command_and_option_is_in_the_reference(("build",))


def test_every_page_is_in_the_navigation_and_every_entry_exists() -> None:
    pages = {name.rpartition(".")[0] for name in TEXTS if not name.startswith("../")} - {"README"}
    listed = {"index"}
    for name, text in TEXTS.items():
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text, flags=re.DOTALL):
            folder = Path(name).parent
            for entry in [line for line in block.split("\n") if line and not line.startswith(":")]:
                full = (folder / entry).as_posix()
                matching = {page for page in pages if Path(page).match(full)} if "*" in entry else {full} & pages
                assert matching, f"{name} names {entry}"
                listed |= matching
    assert pages - listed == set()


def test_every_relative_link_leads_to_a_file() -> None:
    broken = []
    for name, text in TEXTS.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if "://" in target or target.startswith("#"):
                continue
            file = (DOCS / name).parent / target.partition("#")[0]
            # Generated pages are in no clone, so a link to one from another page is dead where a repository is read.
            generated = file.resolve().relative_to(PROJECT).as_posix().removeprefix("docs/") in GENERATED
            if name not in GENERATED if generated else not file.exists():
                broken.append(f"{name}: {target}")
    assert broken == []


def lines_of_code(text: str) -> Iterator[str]:
    """List the lines of code blocks, fenced or indented; a line that ends in a backslash continues."""
    for block in re.findall(r"^```(?:sh|console)?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").split("\n")
    yield from re.findall(r"(?m)^ {4}(\S.*)$", text)


def command_lines() -> Iterator[tuple[str, str]]:
    for name, text in TEXTS.items():
        for line in lines_of_code(text):
            if re.match(r"(\$ )?imagelake [a-z-]", line):
                yield name, line.removeprefix("$ ")
        for line in re.findall(r"`(imagelake [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            yield name, line


LINES = [pair for pair in command_lines() if "reference/commands" not in pair[0]]


def test_there_are_command_lines_to_check() -> None:
    assert len(LINES) > 80
    assert {shlex.split(line)[1] for _, line in LINES} >= set(COMMANDS)


def test_every_command_line_has_a_known_command_and_known_options() -> None:
    wrong = []
    for name, line in LINES:
        words = shlex.split(re.sub(r"(\s{2,}\S.*| > \S+)$", "", line))
        command = found(*words[1:])
        if command is None:
            wrong.append(f"{name}: {line}: no command {words[1]}")
            continue
        known = {option for param in command.params for option in param.opts} | {"--help"}
        wrong += [f"{name}: {line}: {word}" for word in words if word.startswith("-") and word not in known]
    assert wrong == []


def test_the_readme_is_short() -> None:
    assert len(TEXTS["../README.md"].splitlines()) <= 120


def test_every_path_of_the_project_in_a_text_exists() -> None:
    named = {
        (name, path)
        for name, text in TEXTS.items()
        for path in re.findall(r"`((?:tests|pipeline|schemas|imagelake|docs|data|\.ci|\.github)/[\w./-]*)`", text)
        # Written by a command that the text shows, and not kept in git.
        if not path.startswith(("data/demo", "docs/reference"))
    }
    assert named
    assert [pair for pair in sorted(named) if not (PROJECT / pair[1]).exists()] == []


def test_every_python_file_in_a_text_exists() -> None:
    """A file may be named without its folder, as the tests and benchmarks in docs/benchmarks are."""
    files = {
        path.relative_to(PROJECT).as_posix()
        for folder in ("benchmarks", "docs", "imagelake", "pipeline", "schemas", "tests")
        for path in (PROJECT / folder).rglob("*.py")
    }
    named = {(name, path) for name, text in TEXTS.items() for path in re.findall(r"`([\w./-]+\.py)`", text)}
    # Files of users, in examples.
    named = {pair for pair in named if pair[1] not in ("pipeline.py", "schemas.py", "train.py")}
    assert len(named) > 30
    assert [pair for pair in sorted(named) if not any(f"/{file}".endswith(f"/{pair[1]}") for file in files)] == []


def test_the_architecture_names_folders_and_functions_that_exist() -> None:
    text = TEXTS["../ARCHITECTURE.md"]
    folders = {path.name for path in (PROJECT / "pipeline").rglob("*") if path.is_dir()} | {"benchmarks", "schemas"}
    named = set(re.findall(r"`(?:[\w.]+/)*(\w+)/`", text)) - {"imagelake", "pipeline"}
    assert len(named) > 20
    assert named - folders == set()
    for module, name in re.findall(r"`((?:\w+/)+\w+)\.(\w+)`", text):
        if name != "py":
            code = (PROJECT / "pipeline" / f"{module}.py").read_text(encoding="utf-8")
            assert re.search(rf"(?m)^(?:def |class )?{name}\b", code), f"{module}.{name}"
    files = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    assert [file for file in files if not any((PROJECT / base / file).is_file() for base in (".", "pipeline"))] == []
    # Registries in capital letters, such as `FORMS` in `sources/forms.py`.
    registries = re.findall(r"`([A-Z_]{4,})`(?: and `[A-Z_]+`)? in\s+`((?:\w+/)+\w+\.py)`", text)
    assert len(registries) > 5
    for name, file in registries:
        base = PROJECT if file.startswith("schemas/") else PROJECT / "pipeline"
        assert re.search(rf"(?m)^{name}\b", (base / file).read_text(encoding="utf-8")), f"{name} in {file}"


def test_every_law_of_the_architecture_has_a_test() -> None:
    laws = re.findall(r"(?m)^\| (\d+)\. .*\| ([^|]+) \|$", TEXTS["../ARCHITECTURE.md"])
    assert [number for number, _ in laws] == [str(number) for number in range(1, len(laws) + 1)]
    assert len(laws) >= 8
    for number, tests in laws:
        files = re.findall(r"`(tests/[\w/]+\.py)`", tests)
        assert files, number
        assert all("def test_" in (PROJECT / file).read_text(encoding="utf-8") for file in files)

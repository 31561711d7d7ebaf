"""Write the reference pages of the documentation from the code: commands, recipe keys, tables and the Python API.

`conf.py` calls `write` before every build of the documentation, so these pages cannot differ from the code. Each
function returns one page as Markdown. Run by hand: `python docs/generate.py`.
"""

import importlib
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import click
import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

PROJECT = Path(__file__).resolve().parents[1]
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))

import schemas  # noqa: E402 - found by the line above
from pipeline import cli, recipe  # noqa: E402
from pipeline.shard import REASONS  # noqa: E402

_NOTE = "% Written by docs/generate.py. Do not edit.\n"
_TOML = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "table"}
_COMMANDS = """# Commands

Every command has `--help`. Results go to stdout, progress and errors to stderr. The exit code is 0 after success, 1
after an error of the run, 2 after wrong arguments, and 130 after Ctrl-C; `check` has its own. `LAKE` is a folder or
`s3://bucket/prefix`."""
_RECIPE = """# Recipe keys

A recipe is a TOML file. An unknown key is an error that names the nearest known key. Relative paths start from the
folder of the recipe. See [rules](rules.md) for the names of rules, and [own images](../how-to/own-images.md) for a
start."""
_TABLES = f"""# Tables

A lake is a set of Delta tables. Read them with `Lake.scan`, with [SQL](../how-to/sql.md), or with any reader of
Delta Lake. Ids and hashes are 16 bytes; `imagelake sql` shows them as 32 hexadecimal digits. Version of the tables:
{schemas.VERSION}."""
# Public methods that only imagelake itself calls: `Lake.working` and `Feed.part`.
_INTERNAL = ("working", "part")
_PYTHON = """# Python API

`from imagelake import Lake` is the supported way to use imagelake from Python. Classes with a longer name are
returned by the methods of these; do not construct them."""


def commands() -> str:
    """Describe every command: usage, text of `--help`, arguments and options."""
    group = command_group()
    context = click.Context(group, info_name="imagelake")
    parts = [_COMMANDS]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            parts += _command(command, click.Context(command, parent=context, info_name=name))
    return _page(parts)


def command_group() -> click.Group:
    """Find the `imagelake` command."""
    return next(value for value in vars(cli).values() if isinstance(value, click.Group))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """Describe a command, then the commands below it."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    # Arguments without a help text are in the usage line and in the text above.
    records = [record for param in command.params if (record := param.get_help_record(context))]
    rows = [record for record in records if record[1]]
    table = _table(("option", "meaning"), [(f"`{names}`", _escaped(text)) for names, text in rows])
    label = context.command_path.removeprefix("imagelake ").replace(" ", "-")
    yield f"({label}-command)=\n## {context.command_path}\n\n    {usage}\n\n{_help(command)}\n\n{table}"
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from _command(below, click.Context(below, parent=context, info_name=name))


def _help(command: click.Command) -> str:
    """Turn click's help text into Markdown: a paragraph that starts with a backspace keeps its lines."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(
        textwrap.indent(text.removeprefix("\b").strip("\n"), "    ") if text.startswith("\b") else _escaped(text)
        for text in paragraphs
    )


def recipe_keys() -> str:
    """Describe every key of a recipe: type, default and meaning."""
    return _page([_RECIPE, *(_section(title, model) for model, title in recipe_sections().items())])


def recipe_sections() -> dict[type[BaseModel], str]:
    """List the tables of a recipe: the model of each and its title. The roles of a split share a model."""
    titles: dict[type[BaseModel], str] = {}
    for name, field in _fields(recipe.Recipe):
        listed = typing.get_origin(field.annotation) is tuple
        models = models_in(field.annotation)
        for model in models:
            titles[model] = of = f"`[[{name}]]`" if listed else f"`[{name}]`"
            if len(models) > 1:
                titles[model] = f"{of} with {_chosen_by(model)}"
            for inner, inside in _fields(model):
                for part in models_in(inside.annotation):
                    before = titles[part].removesuffix(f" of {of}") + ", " if part in titles else ""
                    titles[part] = f"{before}`{inner}` of {of}"
    return titles


def _chosen_by(model: type[BaseModel]) -> str:
    """Name the key, or the value of the key `model`, that chooses a part among several."""
    if issubclass(model, recipe.CheckPart):
        return f"`{model.kind}`"
    (name,) = typing.get_args(model.model_fields["model"].annotation)
    return f'`model = "{name}"`'


def models_in(annotation: object) -> list[type[BaseModel]]:
    """List the pydantic models that a type annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = [model for inner in typing.get_args(annotation) for model in models_in(inner)]
    return list(dict.fromkeys(found))


def _section(title: str, model: type[BaseModel]) -> str:
    about, meanings = _docstring(model)
    about = _sentence(re.sub(r"^`\[.*?\]`: ", "", about))
    rows = [
        (
            f"`{name}`",
            f"`{_type(field)}`",
            f"{_default(model, key, field)}",
            _escaped(_sentence(field.description or meanings.get(key, ""))),
        )
        for name, field, key in ((field.alias or key, field, key) for key, field in _own_fields(model))
    ]
    return f"## {title}\n\n{_escaped(about)}\n\n{_table(('key', 'type', 'default', 'meaning'), rows)}"


def _own_fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    return ((key, field) for key, field in model.model_fields.items() if not field.exclude)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """List the fields that a recipe may set, by the names they have there."""
    return ((field.alias or key, field) for key, field in _own_fields(model))


def _docstring(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Read the text of a model's docstring, and the meaning of each attribute, also of those in its base classes."""
    meanings: dict[str, str] = {}
    for part in reversed(model.__mro__):
        _, _, listed = inspect.cleandoc(part.__doc__ or "").partition("\nAttributes:\n")
        for match in re.finditer(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE):
            meanings[match[1]] = " ".join(match[2].split())
    return inspect.cleandoc(model.__doc__ or "").partition("\nAttributes:\n")[0].strip(), meanings


def _type(field: FieldInfo) -> str:
    """Name the type of a key as TOML has it, without the models and checks behind it."""
    return _type_name(field.annotation)


def _type_name(annotation: Any) -> str:  # noqa: ANN401 - a typing construct
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if models_in(annotation):
        return "table"
    if origin is typing.Literal:
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in inner if part is not type(None))
    if origin in (typing.Annotated, tuple):
        return ("list of " if origin is tuple else "") + _type_name(inner[0])
    plain = _TOML.get(origin or annotation)
    return plain or getattr(annotation, "__name__", str(annotation))


def _default(model: type[BaseModel], key: str, field: FieldInfo) -> str:
    if field.is_required():
        # The only key that `parse_recipe` fills in before the model checks it.
        return "from `uri`" if (model.__name__, key) == ("SourcePart", "dataset") else "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel):
        return "-"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{part}"' for part in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def tables() -> str:
    """Describe every table of a lake, column by column."""
    parts = [_TABLES]
    for table in schemas.TABLES.values():
        about = [f"{_sentence(table.doc)}"]
        if table.partition_by:
            about.append(f"Partitioned by {', '.join(f'`{name}`' for name in table.partition_by)}.")
        if not table.released:
            about.append("Not part of a release: readers see its newest version.")
        rows = [
            (f"`{field.name}`", f"`{field.type}`", "yes" if field.nullable else "", _column(field))
            for field in table.schema
        ]
        parts.append(
            f"({table.name}-table)=\n## {table.name}\n\n{' '.join(about)}\n\n"
            + _table(("column", "type", "may be null", "meaning"), rows)
        )
        if table.name == "rejects":
            reasons = [(f"`{code}`", _escaped(_sentence(text))) for code, text in REASONS.items()]
            parts.append("Reason codes:\n\n" + _table(("reason", "meaning"), reasons))
    return _page(parts)


def _column(field: pa.Field) -> str:
    notes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    unit = notes.get("unit")
    return _escaped(_sentence(f"{notes.get('doc', '')}{f' ({unit})' if unit else ''}"))


def python_api() -> str:
    """Describe the public names of `imagelake`, and the classes that their methods return."""
    package = importlib.import_module("imagelake")
    public = {name: getattr(package, name) for name in package.__all__}
    kinds: dict[str, list[str]] = {"Classes": [], "Functions": [], "Errors": []}
    for name, value in public.items():
        if not isinstance(value, type):
            kinds["Functions"].append(_directive("autofunction", f"imagelake.{name}"))
        elif issubclass(value, BaseException):
            kinds["Errors"].append(_directive("autoexception", f"imagelake.{name}"))
        else:
            kinds["Classes"].append(_class_directive(f"imagelake.{name}"))
    kinds["Classes"] += [
        _class_directive(f"{value.__module__}.{value.__qualname__}")
        for value in returned_classes([value for value in public.values() if not _is_error(value)])
        if value not in public.values()
    ]
    parts = [_PYTHON]
    parts += [f"## {kind}\n\n" + "\n\n".join(listed) for kind, listed in kinds.items() if listed]
    return _page(parts)


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def returned_classes(found: list[Any]) -> list[type]:
    """Find the classes of this project that functions and methods return, and those that their methods return."""
    seen: list[type] = []
    waiting = list(found)
    while waiting:
        value = waiting.pop(0)
        called = (
            [part for name, part in vars(value).items() if not name.startswith("_")] if _is_class(value) else [value]
        )
        for function in called:
            if not inspect.isfunction(function):
                continue
            result = inspect.signature(function).return_annotation
            if _is_class(result) and result.__module__.startswith("pipeline.") and result not in seen:
                seen.append(result)
                waiting.append(result)
    return seen


def _is_class(value: object) -> TypeGuard[type]:
    return isinstance(value, type) and not typing.get_args(value)


def _class_directive(name: str) -> str:
    """Document a class with its methods, without those of pydantic and those that only imagelake calls."""
    hidden = ", ".join(["model_config", "model_post_init", *_INTERNAL])
    return _directive("autoclass", name, ["members:", f"exclude-members: {hidden}"])


def _directive(kind: str, name: str, options: list[str] | None = None) -> str:
    lines = [f".. {kind}:: {name}", *(f"   :{option}" for option in options or [])]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```"


def _sentence(text: str) -> str:
    """Start a text with a capital, unless its first word is a name, and end it with a full stop."""
    first = text.partition(" ")[0]
    start = text[:1] if re.search(r"[_/\d]", first) else text[:1].upper()
    return f"{start}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Escape what Markdown would read as markup, outside of `code`; an option becomes code."""
    plain = re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"`\1`", " ".join(text.split()))
    parts = re.split(r"(`[^`]*`)", plain)
    return "".join(part if part.startswith("`") else re.sub(r"([\\<>*_\[\]{}$])", r"\\\1", part) for part in parts)


def _page(parts: list[str]) -> str:
    return _NOTE + "\n" + "\n\n".join(parts) + "\n"


PAGES = {"commands.md": commands, "recipe.md": recipe_keys, "tables.md": tables, "python.md": python_api}


def write(folder: Path) -> None:
    """Write the pages; one that has not changed keeps its time, so that Sphinx does not read it again."""
    for name, make in PAGES.items():
        file, text = folder / name, make()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parent / "reference")

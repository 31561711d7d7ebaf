"""What `imagelake export` writes beside pictures, so that class names come back when an export is a source.

- imagefolder: `labels.json` names the class of every folder, as folders cannot have every name. It lies in the folder
  that is the source, or in the one above where the source is the folder of a role.
- webdataset: the first member of a tar, `__classes__`, names the classes 0, 1, ... that `.cls` files hold.
- every form: `export.json` says what the export is. It holds nothing that a picture lacks.

Only files with exactly the content that an export writes count. Others are files like any other.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.shard import Refused
from pipeline.sources.archives.samples import Member

_LABELS, _ABOUT, _CLASSES, _NUMBERS = "labels.json", "export.json", "__classes__", ".cls"
_ENTRY = {"label_index", "label", "folder"}
_ABOUT_KEYS = {"imagelake", "lake", "release", "split", "form", "sanitized", "images", "classes", "roles", "digest"}
_UNLABELLED = "_unlabelled"
_NONE = -1
# More than a million classes need.
_MOST_BYTES = 2**28
_NUMBER = re.compile(rb"-?\d{1,18}")


def class_folders(folder: Path) -> dict[str, str | None]:
    """Read the class of every folder of an imagefolder export.

    Args:
        folder: the export, or the folder of a role in it.

    Returns:
        Label by name of the folder, None for images without one. Empty where the folder is no such export.
    """
    return _folders(folder / _LABELS) or _folders(folder.parent / _LABELS)


def own_files(folder: Path) -> set[str]:
    """Name the files at the top of a folder that an export wrote about itself: they are no data."""
    about = _json(folder / _ABOUT)
    is_export = isinstance(about, dict) and about.keys() >= _ABOUT_KEYS
    return {*([_ABOUT] if is_export else []), *([_LABELS] if _folders(folder / _LABELS) else [])}


def with_class_names(members: Iterator[Member]) -> Iterator[Member]:
    """Put names in place of the numbers in `.cls` files of a tar that names its classes; take that list out.

    A number without a name makes the file one that cannot be read. -1 is no label.
    """
    names: list[str] | None = None
    for member in members:
        if member.path == _CLASSES and member.refused is None and (found := _names(member.data)) is not None:
            names = found
        elif names is not None and member.path.endswith(_NUMBERS) and member.refused is None:
            yield _named(member, names)
        else:
            yield member


def _named(member: Member, names: Sequence[str]) -> Member:
    text = member.data.strip()
    number = int(text) if _NUMBER.fullmatch(text) else len(names)
    if number == _NONE:
        return member._replace(data=b"")
    if 0 <= number < len(names):
        return member._replace(data=names[number].encode())
    detail = f"'{text[:20].decode('ascii', 'backslashreplace')}' is none of the {len(names)} classes in {_CLASSES}"
    return member._replace(data=b"", refused=Refused(member.path, None, "bad_row", detail, member.size))


def _names(data: bytes) -> list[str] | None:
    """Read a JSON list of class names; None where the data are something else."""
    names = _parsed(data)
    return names if isinstance(names, list) and all(map(_is_text, names)) else None


def _folders(file: Path) -> dict[str, str | None]:
    """Read labels.json; empty where it is not exactly as an export writes it."""
    entries = _json(file)
    if not isinstance(entries, list) or not all(isinstance(item, dict) and item.keys() == _ENTRY for item in entries):
        return {}
    *named, last = [*entries] or [{}]
    if last != {"label_index": _NONE, "label": None, "folder": _UNLABELLED}:
        return {}
    texts = all(_is_text(item["label"]) and _is_text(item["folder"]) for item in named)
    if not texts or [item["label_index"] for item in named] != list(range(len(named))):
        return {}
    folders: dict[str, str | None] = {item["folder"]: item["label"] for item in named}
    return {**folders, _UNLABELLED: None} if len(folders) == len(named) else {}


def _is_text(value: Any) -> bool:  # noqa: ANN401 - whatever JSON can hold
    """Tell text that a table can hold: without half a character."""
    return isinstance(value, str) and value == value.encode("utf-8", "ignore").decode()


def _json(file: Path) -> Any:  # noqa: ANN401 - whatever JSON can hold
    try:
        return _parsed(file.read_bytes()) if file.is_file() and file.stat().st_size <= _MOST_BYTES else None
    except OSError:
        return None


def _parsed(data: bytes) -> Any:  # noqa: ANN401 - whatever JSON can hold
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None

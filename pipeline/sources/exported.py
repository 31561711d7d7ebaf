"""Read the class names of an export of imagelake, if an export is a source.

- imagefolder: `labels.json` names the class of every folder, because not every label is a valid name of a folder. It is
  in the folder of the source, or in the one above if the source is the folder of a role.
- webdataset: the first member of a tar, `__classes__`, names the classes 0, 1, ... that `.cls` files contain.
- every form: `export.json` describes the export, and `manifest.csv` lists its files. They are not needed to read it.

Only files with exactly the content that an export writes are used. Others are files like any other.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.shard import Reject
from pipeline.sources.archives.samples import Member

_LABELS, _EXPORT, _CLASSES, _NUMBERS = "labels.json", "export.json", "__classes__", ".cls"
_MANIFEST = "manifest.csv"
_ENTRY_KEYS = {"label_index", "label", "folder"}
_EXPORT_KEYS = {"imagelake", "lake", "release", "split", "form", "sanitized", "images", "classes", "roles", "digest"}
_UNLABELLED = "_unlabelled"
_NO_LABEL = -1
# More than a million classes need.
_MAX_BYTES = 2**28
_NUMBER = re.compile(rb"-?\d{1,18}")


def class_folders(folder: Path) -> dict[str, str | None]:
    """Read the class of every folder of an imagefolder export.

    Args:
        folder: the export, or the folder of a role in it.

    Returns:
        Label by name of the folder; None for images without a label. Empty if the folder is not such an export.
    """
    return _folder_labels(folder / _LABELS) or _folder_labels(folder.parent / _LABELS)


def export_files(folder: Path) -> set[str]:
    """Return the files at the top of a folder that describe an export, and are no data."""
    export = _read_json(folder / _EXPORT)
    is_export = isinstance(export, dict) and export.keys() >= _EXPORT_KEYS
    return {*([_EXPORT, _MANIFEST] if is_export else []), *([_LABELS] if _folder_labels(folder / _LABELS) else [])}


def with_class_names(members: Iterator[Member]) -> Iterator[Member]:
    """Replace the numbers in the `.cls` files of an exported tar by class names, and drop the list of names.

    A number without a name makes the file a reject. -1 is no label.
    """
    names: list[str] | None = None
    for member in members:
        if member.path == _CLASSES and member.reject is None and (found := _class_names(member.data)) is not None:
            names = found
        elif names is not None and member.path.endswith(_NUMBERS) and member.reject is None:
            yield _with_class_name(member, names)
        else:
            yield member


def _with_class_name(member: Member, names: Sequence[str]) -> Member:
    text = member.data.strip()
    number = int(text) if _NUMBER.fullmatch(text) else len(names)
    if number == _NO_LABEL:
        return member._replace(data=b"")
    if 0 <= number < len(names):
        return member._replace(data=names[number].encode())
    detail = f"'{text[:20].decode('ascii', 'backslashreplace')}' is none of the {len(names)} classes in {_CLASSES}"
    return member._replace(data=b"", reject=Reject(member.path, None, "bad_row", detail, member.size))


def _class_names(data: bytes) -> list[str] | None:
    """Read a JSON list of class names; None if the data are something else."""
    names = _parse_json(data)
    return names if isinstance(names, list) and all(map(_is_text, names)) else None


def _folder_labels(file: Path) -> dict[str, str | None]:
    """Read labels.json; empty if it is not exactly as an export writes it."""
    entries = _read_json(file)
    if not isinstance(entries, list) or not all(
        isinstance(item, dict) and item.keys() == _ENTRY_KEYS for item in entries
    ):
        return {}
    *named, last = [*entries] or [{}]
    if last != {"label_index": _NO_LABEL, "label": None, "folder": _UNLABELLED}:
        return {}
    texts = all(_is_text(item["label"]) and _is_text(item["folder"]) for item in named)
    if not texts or [item["label_index"] for item in named] != list(range(len(named))):
        return {}
    folders: dict[str, str | None] = {item["folder"]: item["label"] for item in named}
    return {**folders, _UNLABELLED: None} if len(folders) == len(named) else {}


def _is_text(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Return whether a value is text that a table can store: without half a character."""
    return isinstance(value, str) and value == value.encode("utf-8", "ignore").decode()


def _read_json(file: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return _parse_json(file.read_bytes()) if file.is_file() and file.stat().st_size <= _MAX_BYTES else None
    except OSError:
        return None


def _parse_json(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None

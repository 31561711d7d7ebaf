"""A sample of a WebDataset: the files that share a name up to its first dot, and the label among them."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.encoded import Refused

CLASS, JSON = "cls", "json"
_KEYS = ("label", "cls", "class")
# Folder, name up to its first dot, ending.
_NAME = re.compile(r"(?:(.*/|)([^/.][^/.]*))\.([^/]*)", re.DOTALL)


class Member(NamedTuple):
    """One file of the archive.

    Attributes:
        path: its name, cleaned.
        data: its content; empty where it is refused or not needed.
        size: bytes of content.
        refused: why it is not read, or None.
    """

    path: str
    data: bytes
    size: int
    refused: Refused | None = None


def key_of(path: str) -> str:
    """Tell what the files of a sample share: the path up to the first dot of the name."""
    found = _NAME.fullmatch(path)
    return f"{found[1]}{found[2]}" if found else path


def ending_of(path: str) -> str:
    """Tell what sets the files of a sample apart: the name behind its first dot; empty where it begins with one."""
    found = _NAME.fullmatch(path)
    return found[3].lower() if found else ""


def has_label(sample: Sequence[Member]) -> bool:
    """Tell whether a sample holds a label where one is looked for.

    Raises:
        ValueError: its JSON cannot be read.
    """
    endings = {ending_of(member.path): member for member in sample}
    return CLASS in endings or (JSON in endings and not _values(endings[JSON]).keys().isdisjoint(_KEYS))


def label_in(asked: str | None, sample: Sequence[Member]) -> str | None:
    """Read the label of a sample.

    Args:
        asked: the recipe's `labels`: an ending or a key of the JSON; empty for no label, None for the usual ones.
        sample: its files.

    Raises:
        ValueError: it cannot be read; says why.
    """
    if asked == "":
        return None
    named = {ending_of(member.path): member for member in reversed(sample)}
    text, notes = named.get((asked or CLASS).lower()), named.get(JSON)
    if text is not None:
        return _text(text).strip() or None
    values = {} if notes is None else _values(notes)
    key = next((key for key in ((asked,) if asked else _KEYS) if key in values), None)
    if key is not None:
        return _spelled(key, values[key])
    if asked:
        raise ValueError(f"the sample has no file .{asked}, and no .json with '{asked}'")
    return None


def _text(member: Member) -> str:
    if member.refused is not None:
        raise ValueError(f"{member.path}: {member.refused.detail}")
    try:
        return member.data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{member.path} is no UTF-8 text") from None


def _values(member: Member) -> dict[str, Any]:
    text = _text(member)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{member.path} is no JSON ({error})") from None
    return values if isinstance(values, dict) else {}


def _spelled(key: str, value: Any) -> str | None:  # noqa: ANN401 - whatever JSON can hold
    """Spell a value of JSON as a label: words and whole numbers are labels."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int):
        return str(value).lower()
    if not isinstance(value, str | None):
        raise ValueError(f"'{key}' is neither words nor a whole number")  # noqa: TRY004 - a value, not a type, is wrong
    try:
        text = (value or "").strip()
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"'{key}' is no text: half a character") from None
    return text or None

"""Delimited text: separators, fields and columns, for CSV of pixels and lists of files."""

import csv
import re
from collections.abc import Sequence

from pipeline.errors import SourceError
from pipeline.sources.source import Source

BOM = b"\xef\xbb\xbf"
BLANKS = " \t\r\n"
# In the order in which they are preferred where two give as many fields.
SEPARATORS = ("\t", ",", ";", "|")
# What pandas and numpy write where there is no value.
NO_VALUE = ("", "nan", "NaN", "<NA>")
# No first line is longer; so many columns are named in messages.
_LONGEST = 2**26
_NAMED = 12


def is_utf16(head: bytes) -> bool:
    """Tell by its first bytes whether a file is UTF-16 text, with a byte-order mark or of plain letters without one."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    even, odd = head[:64:2], head[1:64:2]
    return len(odd) > 3 and any({0} == set(zeros) and 0 not in text for zeros, text in ((odd, even), (even, odd)))  # noqa: PLR2004 - an IDX file begins with two zeros


def check_encoding(source: Source, head: bytes) -> None:
    """Refuse UTF-16 text.

    Raises:
        SourceError: the file is UTF-16.
    """
    if is_utf16(head):
        raise SourceError(
            f"{source.title}: {source.path} is UTF-16 text, as Excel's 'Unicode text' is. Save it as UTF-8."
        )


def first_line(data: bytes) -> str:
    """Read the first line that is not blank, without byte-order mark and line end."""
    start = len(BOM) if data.startswith(BOM) else 0
    while data[start : start + 1] in (b"\r", b"\n"):
        start += 1
    end = data.find(b"\n", start, start + _LONGEST)
    line = data[start : end if end >= 0 else start + _LONGEST]
    return line.decode("utf-8", "replace").removesuffix("\r")


def fields_of(line: str, separator: str) -> list[str]:
    """Split a line at a separator, as CSV has it: quotes are taken away, and blanks around the fields."""
    try:
        return [
            field.strip(BLANKS) for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
        ]
    except csv.Error:  # a lone carriage return or a field of more than 128 KiB
        return [field.strip(BLANKS + '"') for field in line.split(separator)]


def separators_of(line: str) -> list[str]:
    """List the separators that a line has, those that give the most fields first; a comma where it has none."""
    counts = {separator: len(fields_of(line, separator)) for separator in SEPARATORS if separator in line}
    return sorted(counts, key=lambda separator: -counts[separator]) or [","]


def position_of(name: str, columns: int) -> int | None:
    """Read the position of a column: "first", "last", or a number counted from 0; None for anything else."""
    if name in ("first", "last"):
        return 0 if name == "first" else columns - 1
    return int(name) if re.fullmatch(r"\d{1,9}", name) and int(name) < columns else None


def listed(names: Sequence[str]) -> str:
    """Write the first columns of a table for a message."""
    shown = ", ".join(name[:40] or '""' for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"

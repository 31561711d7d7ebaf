"""Split delimited text into fields: separators, quotes, encodings and columns, for CSV of pixels and lists of files."""

import csv
import re
from collections.abc import Sequence

from pipeline.errors import SourceError
from pipeline.sources.source import Source

BOM = b"\xef\xbb\xbf"
BLANKS = " \t\r\n"
# In order of preference: the first one is taken if two give the same number of fields.
SEPARATORS = ("\t", ",", ";", "|")
# What pandas and NumPy write for a missing value.
MISSING_VALUES = ("", "nan", "NaN", "<NA>")
_MAX_LINE_BYTES = 2**26
_MAX_COLUMNS_SHOWN = 12


def is_utf16(head: bytes) -> bool:
    """Return whether a file is UTF-16 text, by its first bytes: a byte-order mark, or ASCII letters as UTF-16."""
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
    """Return the first line that is not blank, without byte-order mark and line end."""
    start = len(BOM) if data.startswith(BOM) else 0
    while data[start : start + 1] in (b"\r", b"\n"):
        start += 1
    end = data.find(b"\n", start, start + _MAX_LINE_BYTES)
    line = data[start : end if end >= 0 else start + _MAX_LINE_BYTES]
    return line.decode("utf-8", "replace").removesuffix("\r")


def split_fields(line: str, separator: str) -> list[str]:
    """Split a line of CSV into fields, without quotes and without blanks around them."""
    try:
        fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # for example a lone carriage return, or a field of more than 128 KiB
        return [field.strip(BLANKS + '"') for field in line.split(separator)]
    return [field.strip(BLANKS) for field in fields]


def separators_of(line: str) -> list[str]:
    """List the separators in a line, the one that gives most fields first; a comma if there are none."""
    counts = {separator: len(split_fields(line, separator)) for separator in SEPARATORS if separator in line}
    return sorted(counts, key=lambda separator: -counts[separator]) or [","]


def position_of(name: str, columns: int) -> int | None:
    """Parse the position of a column: "first", "last", or a number from 0; None for anything else."""
    if name in ("first", "last"):
        return 0 if name == "first" else columns - 1
    return int(name) if re.fullmatch(r"\d{1,9}", name) and int(name) < columns else None


def describe_columns(names: Sequence[str]) -> str:
    """List the names of the first 12 columns for a message, and the number of the others."""
    shown = ", ".join(name[:40] or '""' for name in names[:_MAX_COLUMNS_SHOWN])
    more = len(names) - _MAX_COLUMNS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown

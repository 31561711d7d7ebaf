"""CSV with one picture a row: `label,pixel0,...,pixel783` (the digit-recognizer form), the label optional.

With a header, the label is the column of that name. Without one, a column too many for a picture is the label, in
front. The values of a colour picture lie as (height, width, 3).

A row with a wrong number of values, or a value that is no whole number from 0 to 255, is a reject, not an error. Blank
lines are no rows, but keep their number: the path of a row is its line, counted from 0 behind the header.
"""

import csv
import math
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.encoded import Encoded, Pixels, Refused, Survey
from pipeline.errors import SourceError
from pipeline.sources.source import DAMAGED, IMAGES_PER_SHARD, Source, files_fingerprint, one_line, opened, shard_key

_LABEL = "label"
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_AROUND = ' \t\r\n"'
# No row is longer: a file without line ends would be read whole.
_LONGEST = 2**26


class _Layout(NamedTuple):
    """Columns of the file: how many, which is the label, and the (height, width, channels) of the others."""

    columns: int
    label: int | None
    shape: tuple[int, int, int]
    header: bool


def recognises(path: Path, head: bytes) -> bool:
    """Tell a CSV by its first line; see `pipeline.sources`."""
    line = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].removesuffix(b"\r")
    return not path.is_dir() and line.count(b",") > 1 and line.decode("utf-8", "ignore").isprintable()


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time; see `pipeline.sources`."""
    return Survey(files_fingerprint(source, source.path))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the file into runs of rows while it streams past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    found = False
    with opened(source, source.path) as stream:
        lines = _lines(source, stream)
        first = next(lines, b"")
        layout = _layout(source, first)
        pending = [] if layout.header else [first]
        start = 0
        for number, chunk in enumerate(_chunks(pending, lines)):
            key = shard_key(source, number)
            blank = not any(map(bytes.strip, chunk))
            if not blank and (wanted is None or key in wanted):
                yield _encode(key, fingerprint, start, chunk, layout)
            found = found or not blank
            start += len(chunk)
    if not found:
        raise SourceError(f"{source.title}: {source.path} holds no rows. Check that it is the right file.")


def _lines(source: Source, stream: IO[bytes]) -> Iterator[bytes]:
    try:
        while line := stream.readline(_LONGEST):
            yield line
    except DAMAGED as error:
        raise SourceError(
            f"{source.title}: {source.path} is damaged or cut short ({one_line(error)}). Fetch it again."
        ) from error


def _chunks(pending: list[bytes], lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    while chunk := pending + list(islice(lines, IMAGES_PER_SHARD - len(pending))):
        yield chunk
        pending = []


def _layout(source: Source, first: bytes) -> _Layout:
    text = first.decode("utf-8", "replace").removeprefix("\ufeff")
    names = [name.strip(_AROUND) for name in text.split(",")]
    lowered = [name.lower() for name in names]
    # A first value that is no number may be a label: only the pixels tell a header from a row.
    header = _LABEL in lowered or not any(map(_NUMBER.fullmatch, names[1:]))
    if header:
        label = lowered.index(_LABEL) if _LABEL in lowered else None
        shape = _shape(source, len(names) - (label is not None))
    else:
        label, shape = _bare(source, len(names))
    if shape is None:
        raise SourceError(
            f"{source.title}: the {len(names)} columns of {source.path} are no picture. Expected "
            "'label,pixel0,pixel1,...' with a square number of pixels, or set decode.size to the picture's size."
        )
    return _Layout(len(names), label, shape, header)


def _bare(source: Source, columns: int) -> tuple[int | None, tuple[int, int, int] | None]:
    """Tell label and shape without a header: the recipe's size comes first, with a label or not, then any square."""
    tries = [(label, size) for size in (source.size, None) for label in (None, 0)]
    found = ((label, _fit(size, columns - (label is not None))) for label, size in tries)
    return next(((label, shape) for label, shape in found if shape), (None, None))


def _shape(source: Source, pixels: int) -> tuple[int, int, int] | None:
    return _fit(source.size, pixels) or _fit(None, pixels)


def _fit(size: tuple[int, int] | None, pixels: int) -> tuple[int, int, int] | None:
    sides = ((c, size or (math.isqrt(pixels // c),) * 2) for c in (1, 3))
    return next(((h, w, c) for c, (h, w) in sides if h * w * c == pixels > 1), None)


def _encode(key: str, fingerprint: str, start: int, lines: list[bytes], layout: _Layout) -> Encoded:
    values, labels, good = _parse(lines, layout)
    rows = np.flatnonzero(good)
    bad = [row for row in np.flatnonzero(~good).tolist() if lines[row].strip()]
    return Encoded(
        shard=key,
        fingerprint=fingerprint,
        paths=tuple(map(str, (rows + start).tolist())),
        labels=tuple(labels),
        contents=Pixels(values.reshape(len(rows), *layout.shape)),
        refused=tuple(
            Refused(str(start + row), None, "bad_row", _fault(lines[row], layout), len(lines[row])) for row in bad
        ),
    )


def _parse(lines: list[bytes], layout: _Layout) -> tuple[NDArray[np.uint8], list[str | None], NDArray[np.bool_]]:
    """Read rows as text first and numbers after, so that a bad value is one null and not the end of the file."""
    plain, quoted = _unquote(lines, layout)
    commas = np.fromiter((line.count(b",") for line in plain), dtype=np.int64, count=len(plain))
    whole = (commas == layout.columns - 1) & _is_text(lines)
    frame = _frame(b"".join(line for line, ok in zip(plain, whole.tolist(), strict=True) if ok), layout)
    names = [name for position, name in enumerate(frame.columns) if position != layout.label]
    numbers = frame.select(pl.col(names).cast(pl.UInt8, strict=False))
    read = numbers.select(ok=pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    good = whole.copy()
    good[whole] = read
    labels = [None] * int(read.sum()) if layout.label is None else frame.to_series(layout.label).filter(read).to_list()
    if quoted:
        labels = [quoted.get(row, label) for row, label in zip(np.flatnonzero(good).tolist(), labels, strict=True)]
    return np.ascontiguousarray(numbers.filter(read).to_numpy()), labels, good


def _unquote(lines: list[bytes], layout: _Layout) -> tuple[list[bytes], dict[int, str | None]]:
    """Take quotes away, and labels with them, which alone can hold a comma: rows with quotes are few or none."""
    rows = [row for row, line in enumerate(lines) if b'"' in line]
    if not rows:
        return lines, {}
    plain, labels = list(lines), dict[int, str | None]()
    for row in rows:
        fields = _fields(lines[row])
        if len(fields) == layout.columns and layout.label is not None:
            labels[row] = fields[layout.label].strip() or None
            fields[layout.label] = ""
        plain[row] = ",".join(fields).encode("utf-8", "surrogateescape") + b"\n"
    return plain, labels


def _fields(line: bytes) -> list[str]:
    text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    try:
        return next(csv.reader([text]), [])
    except csv.Error:  # a lone carriage return, say
        return text.split(",")


def _is_text(lines: list[bytes]) -> NDArray[np.bool_]:
    """Tell which rows are UTF-8: read as anything else, two labels could become one."""
    try:
        b"".join(lines).decode()
    except UnicodeDecodeError:
        return np.fromiter(map(_is_utf8, lines), dtype=np.bool_, count=len(lines))
    return np.ones(len(lines), dtype=np.bool_)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _frame(data: bytes, layout: _Layout) -> pl.DataFrame:
    schema = {f"column_{position}": pl.String for position in range(layout.columns)}
    if not data:
        return pl.DataFrame(schema=schema)
    frame = pl.read_csv(data, has_header=False, schema=schema, quote_char=None)
    return frame.select(pl.all().str.strip_chars(_AROUND).replace("", None))


def _is_pixel(value: str) -> bool:
    # Python refuses to read a number of thousands of digits.
    return value.isdecimal() and int(value.lstrip("0")[:4] or "0") <= 255  # noqa: PLR2004 - the largest pixel


def _fault(line: bytes, layout: _Layout) -> str:
    if not _is_utf8(line):
        return "the row is no UTF-8 text: save the file as UTF-8"
    values = _fields(line)
    if len(values) != layout.columns:
        return f"{len(values)} values where the file has {layout.columns} columns"
    pixels = ((position, value.strip(_AROUND)) for position, value in enumerate(values) if position != layout.label)
    position, value = next(((p, v) for p, v in pixels if not _is_pixel(v)), (0, ""))
    return f"column {position} holds {value[:20]!r}, no whole number from 0 to 255"

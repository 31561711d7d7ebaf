"""CSV with one picture a row: `label,pixel0,...,pixel783` (the digit-recognizer form), the label optional.

A row with a wrong number of values, or a value that is no whole number from 0 to 255, is a reject, not an error.
"""

import math
import zlib
from collections.abc import Iterator, Set
from itertools import islice
from typing import IO, NamedTuple

import numpy as np
import polars as pl

from pipeline.encoded import Encoded, Pixels, Refused, Survey
from pipeline.errors import SourceError
from pipeline.sources.source import IMAGES_PER_SHARD, Source, files_fingerprint, opened, shard_key

_LABEL = "label"


class _Layout(NamedTuple):
    """Columns of the file: how many, which is the label, and the (height, width, channels) of the others."""

    columns: int
    label: int | None
    shape: tuple[int, int, int]
    header: bool


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time; see `pipeline.sources`."""
    return Survey(files_fingerprint(source, source.path))


def read(source: Source, wanted: Set[str] | None = None) -> Iterator[Encoded]:
    """Cut the file into runs of rows while it streams past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    layout = _layout(source)
    with opened(source, source.path) as stream:
        if layout.header:
            stream.readline()
        start = 0
        for number, lines in enumerate(_chunks(source, stream)):
            key = shard_key(source, number)
            if wanted is None or key in wanted:
                yield _encode(key, fingerprint, start, lines, layout)
            start += len(lines)
        if not start:
            raise SourceError(f"{source.title}: {source.path} holds no rows.")


def _chunks(source: Source, stream: IO[bytes]) -> Iterator[list[bytes]]:
    try:
        while lines := list(islice(stream, IMAGES_PER_SHARD)):
            yield lines
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{source.title}: {source.path} is damaged or cut short ({error}).") from error


def _layout(source: Source) -> _Layout:
    with opened(source, source.path) as stream:
        first = next(_chunks(source, stream), [b""])[0]
    names = [
        name.strip().strip('"') for name in first.decode("utf-8", "replace").strip().removeprefix("\ufeff").split(",")
    ]
    header = not names[0].lstrip("-").isdigit()
    label = names.index(_LABEL) if header and _LABEL in names else None
    if not header and _shape(source, len(names)) is None:
        label = 0  # without a header, one column too many for a picture is the label, in front
    shape = _shape(source, len(names) - (label is not None))
    if shape is None:
        raise SourceError(
            f"{source.title}: the {len(names)} columns of {source.path} are no picture. Expected "
            "'label,pixel0,pixel1,...' with a square number of pixels, or set decode.size to the picture's size."
        )
    return _Layout(len(names), label, shape, header)


def _shape(source: Source, pixels: int) -> tuple[int, int, int] | None:
    sizes = [source.size] if source.size else []
    sizes += [(math.isqrt(pixels // channels),) * 2 for channels in (1, 3)]
    fits = [(h, w, c) for h, w in sizes for c in (1, 3) if h * w * c == pixels > 1]
    return fits[0] if fits else None


def _encode(key: str, fingerprint: str, start: int, lines: list[bytes], layout: _Layout) -> Encoded:
    values, labels, good = _parse(lines, layout)
    rows = np.flatnonzero(good)
    return Encoded(
        shard=key,
        fingerprint=fingerprint,
        paths=tuple(map(str, (rows + start).tolist())),
        labels=tuple(labels),
        contents=Pixels(values.reshape(len(rows), *layout.shape)),
        refused=tuple(
            Refused(str(start + row), None, "bad_row", _fault(lines[row], layout), len(lines[row]))
            for row in np.flatnonzero(~good).tolist()
        ),
    )


def _parse(lines: list[bytes], layout: _Layout) -> tuple[np.ndarray, list[str | None], np.ndarray]:
    """Read rows as text first and numbers after, so that a bad value is one null and not the end of the file."""
    commas = np.fromiter((line.count(b",") for line in lines), dtype=np.int64, count=len(lines))
    whole = commas == layout.columns - 1
    frame = _frame(b"".join(line for line, ok in zip(lines, whole.tolist(), strict=True) if ok), layout)
    names = [name for position, name in enumerate(frame.columns) if position != layout.label]
    numbers = frame.select(pl.col(names).str.strip_chars().cast(pl.UInt8, strict=False))
    read = numbers.select(ok=pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    good = whole.copy()
    good[whole] = read
    labels = [None] * int(read.sum()) if layout.label is None else frame.to_series(layout.label).filter(read).to_list()
    return np.ascontiguousarray(numbers.filter(read).to_numpy()), labels, good


def _frame(data: bytes, layout: _Layout) -> pl.DataFrame:
    schema = {f"column_{position}": pl.String for position in range(layout.columns)}
    if not data:
        return pl.DataFrame(schema=schema)
    return pl.read_csv(data, has_header=False, schema=schema, quote_char=None, encoding="utf8-lossy")


def _fault(line: bytes, layout: _Layout) -> str:
    found = line.count(b",") + 1
    if found != layout.columns:
        return f"{found} values where the file has {layout.columns} columns"
    return "a value that is no whole number from 0 to 255"

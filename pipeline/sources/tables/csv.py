"""CSV with one picture a row: `label,pixel0,...,pixel783` (the digit-recognizer form), the label optional.

Fields are separated by commas, semicolons, tabs or `|`, and may be quoted. A first line that holds no numbers, or
numbers that count its columns, is a header.

With a header:

- Pixels are columns with numbers in their names that make a picture: `pixel0, pixel1, ...`, `px1, px2, ...`, `0, 1,
  ...`, `V1, V2, ...`, or row and column as `1x1, 1x2, ...`, `r0c0, r0c1, ...`, `x0y0, x1y0, ...`. They are put in the
  order of their numbers. Names without "pixel" or "px" count from 64 columns on, or where they make decode.size.
- The label is the column with a usual name (`label`, `class`, `category`, `target`, `y`, `digit`, `character`, `cls`
  and the like, see `label_names`), wherever it stands.
- Columns called like an index or a file name (`id`, `index`, `Unnamed: 0`, no name, `ImageId`, `row_id`, ...) are left
  out. Any other column is an error that names it.

Without a header:

- Every column is a pixel, or every one but the label at one end of the row, as the number of columns tells: a picture
  of decode.size first, then any square from 64 values on.
- The label is the end whose values are no pixels (text, or numbers above 255). Where both ends could be pixels, the
  first 10,000 rows (or 64 MiB) decide, if there are 30: one end must look like classes (few small numbers, none in more
  than 60 of 100 rows), and both the column beside it and the other end like corners of a picture (one value in 90 of
  100 rows, or numbers with large gaps). Otherwise it is an error that names the key.

The recipe's `labels` is the name of the label's column in the header, or `"first"`, `"last"` or a position from 0;
`labels = ""` says that there is no label. With either, other columns are left out. The recipe's `images` is what the
names of all pixel columns begin with, or their first and last position from 0, as in `images = "1-784"`.

The values of a colour picture lie as (height, width, 3). Pixels are whole numbers from 0 to 255, and may be written as
255.0 or 2.55e+02. An empty label or NaN is no label.

A row with a wrong number of values or a value that is no pixel is a reject, not an error. Blank lines are no rows, but
keep their number: the path of a row is its line, counted from 0 behind the header.
"""

import csv
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Pixels, Refused, Survey
from pipeline.sources.labels import usual_labels
from pipeline.sources.source import DAMAGED, IMAGES_PER_SHARD, Source, files_fingerprint, one_line, opened, shard_key
from pipeline.sources.tables.csv_columns import LARGEST, Layout, choose_layout, is_pixel, no_pixels
from pipeline.sources.tables.delimited import (
    BOM,
    NO_VALUE,
    SEPARATORS,
    check_encoding,
    fields_of,
    first_line,
    is_utf16,
    separators_of,
)

_AROUND = ' \t\r\n"'
# No row is longer: a file without line ends would be read whole.
_LONGEST = 2**26
# Rows that the layout is chosen by.
_SAMPLE_ROWS, _SAMPLE_BYTES = 10_000, 2**26


def recognises(path: Path, head: bytes) -> bool:
    """Tell a table by its first line: three fields or more, or two of which one is called like a label."""
    if path.is_dir():
        return False
    if is_utf16(head):
        return any(separator.encode() in head for separator in SEPARATORS)
    line = first_line(head)
    names = fields_of(line, separators_of(line)[0])
    enough = len(names) > 2 or (len(names) == 2 and bool(usual_labels(names)))  # noqa: PLR2004 - see above
    return enough and line.replace("\ufffd", "").replace("\t", "").isprintable()


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time; see `pipeline.sources`."""
    fingerprint = files_fingerprint(source, source.path)
    keys = [source.part.images, source.part.labels]
    return Survey(fingerprint if keys == [None, None] else digest_of([fingerprint, *keys]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the file into runs of rows while it streams past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    found = False
    with opened(source, source.path) as stream:
        lines = _lines(source, stream)
        sample = _sample(lines)
        check_encoding(source, b"".join(sample[:1]))
        at = next((at for at, line in enumerate(sample) if line.strip()), None)
        if at is None:
            raise _without_rows(source)
        layout = choose_layout(source, sample[at:])
        rows = chain(sample[at + 1 :] if layout.header else sample, lines)
        start = 0
        for number, chunk in enumerate(_chunks(rows)):
            key = shard_key(source, number)
            blank = not any(map(bytes.strip, chunk))
            if not blank and (wanted is None or key in wanted):
                shard = _encode(key, fingerprint, start, chunk, layout)
                if not found and not shard.paths and not layout.sure:
                    raise no_pixels(source, fields_of(first_line(sample[at]), layout.separator), _no_row(shard))
                yield shard
            found = found or not blank
            start += len(chunk)
    if not found:
        raise _without_rows(source)


def _without_rows(source: Source) -> SourceError:
    return SourceError(f"{source.title}: {source.path} holds no rows. Check that it is the right file.")


def _no_row(shard: Encoded) -> str:
    first = shard.refused[0]
    return f"none of its first {len(shard.refused)} rows holds pixels; in row {first.path}, {first.detail}"


def _lines(source: Source, stream: IO[bytes]) -> Iterator[bytes]:
    try:
        line = stream.readline(_LONGEST).removeprefix(BOM)
        while line:
            yield line
            line = stream.readline(_LONGEST)
    except DAMAGED as error:
        raise SourceError(
            f"{source.title}: {source.path} is damaged or cut short ({one_line(error)}). Fetch it again."
        ) from error


def _sample(lines: Iterator[bytes]) -> list[bytes]:
    found, size = [], 0
    for line in islice(lines, _SAMPLE_ROWS):
        found.append(line)
        size += len(line)
        if size > _SAMPLE_BYTES:
            break
    return found


def _chunks(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    while chunk := list(islice(lines, IMAGES_PER_SHARD)):
        yield chunk


def _encode(key: str, fingerprint: str, start: int, lines: list[bytes], layout: Layout) -> Encoded:
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


def _parse(lines: list[bytes], layout: Layout) -> tuple[NDArray[np.uint8], list[str | None], NDArray[np.bool_]]:
    """Read rows as text first and numbers after, so that a bad value is one null and not the end of the file."""
    plain, quoted = _unquote(lines, layout)
    separator = layout.separator.encode()
    counts = np.fromiter((line.count(separator) for line in plain), dtype=np.int64, count=len(plain))
    whole = (counts == layout.columns - 1) & _is_text(lines)
    frame = _frame(b"".join(line for line, ok in zip(plain, whole.tolist(), strict=True) if ok), layout)
    numbers = _numbers(frame.select(pl.nth(list(layout.pixels))))
    read = numbers.select(ok=pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    good = whole.copy()
    good[whole] = read
    labels: list[str | None] = [None] * int(read.sum())
    if layout.label is not None:
        labels = _labels(frame.to_series(layout.label).filter(read))
    if quoted:
        labels = [quoted.get(row, label) for row, label in zip(np.flatnonzero(good).tolist(), labels, strict=True)]
    return np.ascontiguousarray(numbers.filter(read).to_numpy()), labels, good


def _numbers(texts: pl.DataFrame) -> pl.DataFrame:
    """Read pixels; null where a text is none."""
    numbers = texts.select(pl.all().cast(pl.UInt8, strict=False))
    odd = [text.name for text in texts if numbers[text.name].null_count() > text.null_count()]
    if not odd:
        return numbers
    # With a decimal point: 255.0, or 2.55e+02 as numpy writes it. Columns that need it are few, or the file is all so.
    value = pl.col(odd).cast(pl.Float64, strict=False)
    is_whole = pl.col(odd).str.contains(".", literal=True) & (value == value.floor()) & value.is_between(0, LARGEST)
    with_point = pl.when(is_whole).then(value).cast(pl.UInt8)
    return numbers.with_columns(texts.select(pl.col(odd).cast(pl.UInt8, strict=False).fill_null(with_point)))


def _labels(texts: pl.Series) -> list[str | None]:
    """Read labels: none where there is no value, and whole numbers that numpy wrote as 7.000e+00 as such."""
    texts = texts.set(texts.is_in(NO_VALUE), None)
    numbers = texts.filter(texts.str.contains(r"^-?\d\.\d+[eE][+-]\d+$")).unique()
    whole = {text: str(int(float(text))) for text in numbers if float(text).is_integer()}
    return texts.replace(whole).to_list()


def _unquote(lines: list[bytes], layout: Layout) -> tuple[list[bytes], dict[int, str | None]]:
    """Take quotes away, and all but the pixels with them, which alone can hold a separator: few rows have quotes."""
    rows = [row for row, line in enumerate(lines) if b'"' in line]
    if not rows:
        return lines, {}
    plain, labels = list(lines), dict[int, str | None]()
    others = sorted(set(range(layout.columns)).difference(layout.pixels))
    for row in rows:
        fields = _fields(lines[row], layout)
        if len(fields) == layout.columns:
            if layout.label is not None:
                text = fields[layout.label].strip()
                labels[row] = None if text in NO_VALUE else text
            for at in others:
                fields[at] = ""
        plain[row] = layout.separator.join(fields).encode("utf-8", "surrogateescape") + b"\n"
    return plain, labels


def _fields(line: bytes, layout: Layout) -> list[str]:
    text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    try:
        return next(csv.reader([text], delimiter=layout.separator), [])
    except csv.Error:  # a lone carriage return, say
        return text.split(layout.separator)


def _is_text(lines: Sequence[bytes]) -> NDArray[np.bool_]:
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


def _frame(data: bytes, layout: Layout) -> pl.DataFrame:
    schema = {f"column_{position}": pl.String for position in range(layout.columns)}
    if not data:
        return pl.DataFrame(schema=schema)
    frame = pl.read_csv(data, separator=layout.separator, has_header=False, schema=schema, quote_char=None)
    return frame.select(pl.all().str.strip_chars(_AROUND).replace("", None))


def _fault(line: bytes, layout: Layout) -> str:
    if not _is_utf8(line):
        return "the row is no UTF-8 text: save the file as UTF-8"
    values = _fields(line, layout)
    if len(values) != layout.columns:
        return f"{len(values)} values where the file has {layout.columns} columns"
    pixels = ((position, values[position].strip(_AROUND)) for position in layout.pixels)
    position, value = next(((p, v) for p, v in pixels if not is_pixel(v)), (0, ""))
    return f"column {position} holds {value[:20]!r}, no whole number from 0 to 255"

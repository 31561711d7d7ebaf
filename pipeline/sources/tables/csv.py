"""Read a CSV with one image a row: `label,pixel0,...,pixel783` (the digit-recognizer form), the label optional.

Fields are separated by commas, semicolons, tabs or `|`, and may be quoted. The first line is a header unless it holds
numbers that do not count its columns.

With a header:

- Pixels are columns with numbers in their names that make an image: `pixel0, pixel1, ...`, `px1, px2, ...`, `0, 1,
  ...`, `V1, V2, ...`, or row and column as `1x1, 1x2, ...`, `r0c0, r0c1, ...`, `x0y0, x1y0, ...`. Their numbers give
  the order. Names without "pixel" or "px" count from 64 columns on, or if they make decode.size.
- The label is the column with a usual name (`label`, `class`, `category`, `target`, `y`, `digit`, `character`, `cls`
  and the like, see `sources.labels`), at any position.
- Columns called like an index or a file name (`id`, `index`, `Unnamed: 0`, no name, `ImageId`, `row_id`, ...) are
  ignored. Any other column is an error that names it.

Without a header:

- Every column is a pixel, or every one but the label at one end of the row. The number of columns decides: an image of
  decode.size first, then any square from 64 values on.
- The label is the end whose values are not pixels (text, or numbers above 255). If both ends could be pixels, the
  first 10,000 rows (or 16 MiB) decide, if there are at least 30: one end must look like classes (few small numbers,
  none in more than 60 of 100 rows), and both the column next to it and the other end like corners of an image (one
  value in 90 of 100 rows, or numbers with large gaps). Otherwise it is an error that names the key.

The recipe's `labels` is the name of the label's column in the header, or `"first"`, `"last"` or a position from 0;
`labels = ""` means no label. With `labels`, other columns are ignored. The recipe's `images` is the beginning of the
names of all pixel columns, or their first and last position from 0, as in `images = "1-784"`.

The values of a colour image are in the order (height, width, 3). Pixels are whole numbers from 0 to 255, and may be
written as 255.0 or 2.55e+02. An empty label or NaN means no label.

A row with a wrong number of values or a value that is not a pixel is a reject, not an error. Blank lines are skipped
but counted: the path of a row is its line number below the header, from 0.
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

from pipeline.errors import SourceError, one_line
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Pixels, Reject, Survey
from pipeline.sources.labels import usual_labels
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    files_fingerprint,
    opened,
    shard_key,
)
from pipeline.sources.tables.csv_columns import MAX_PIXEL, Layout, choose_layout, is_pixel, not_pixels_error
from pipeline.sources.tables.delimited import (
    BOM,
    MISSING_VALUES,
    SEPARATORS,
    check_encoding,
    first_line,
    is_utf16,
    separators_of,
    split_fields,
)

_SEPARATORS = tuple(separator.encode() for separator in SEPARATORS)
_BLANKS_AND_QUOTES = ' \t\r\n"'
# A longer row is an error: a compressed file without line ends may be of any size.
_MAX_ROW_BYTES = 2**23
_MAX_COLUMNS = 2**18
# The layout is chosen from the first rows.
_SAMPLE_ROWS, _SAMPLE_BYTES = 10_000, 2**24


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a table by its first line: three or more fields, or two of which one is called like a label."""
    if path.is_dir():
        return False
    if is_utf16(head):
        return any(separator.encode() in head for separator in SEPARATORS)
    line = first_line(head)
    names = split_fields(line, separators_of(line)[0])
    enough = len(names) > 2 or (len(names) == 2 and bool(usual_labels(names)))  # noqa: PLR2004 - see above
    return enough and line.replace("\ufffd", "").replace("\t", "").isprintable()


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time, and the keys of the recipe; see `FormModule`."""
    fingerprint = files_fingerprint(source, source.path)
    keys = [source.part.images, source.part.labels]
    return Survey(fingerprint if keys == [None, None] else digest_of([fingerprint, *keys]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield shards of consecutive rows while the file streams; see `FormModule`."""
    fingerprint = survey(source).fingerprint
    found = False
    with opened(source, source.path) as stream:
        lines = _lines(source, stream)
        sample = _sample(lines)
        check_encoding(source, b"".join(sample[:1]))
        begin = next((number for number, line in enumerate(sample) if line.strip()), None)
        if begin is None:
            raise _no_rows_error(source)
        layout = choose_layout(source, sample[begin:])
        rows = chain(sample[begin + 1 :] if layout.header else sample, lines)
        start = 0
        for number, chunk in enumerate(_chunks(rows)):
            key = shard_key(source, number)
            is_blank = not any(map(bytes.strip, chunk))
            if not is_blank and (wanted is None or key in wanted):
                shard = _make_shard(key, fingerprint, start, chunk, layout)
                if not found and not shard.paths and not layout.is_certain:
                    raise not_pixels_error(
                        source, split_fields(first_line(sample[begin]), layout.separator), _first_reject(shard)
                    )
                yield shard
            found = found or not is_blank
            start += len(chunk)
    if not found:
        raise _no_rows_error(source)


def _no_rows_error(source: Source) -> SourceError:
    return SourceError(f"{source.title}: {source.path} holds no rows. Check that it is the right file.")


def _first_reject(shard: Encoded) -> str:
    first = shard.rejects[0]
    return f"none of its first {len(shard.rejects)} rows holds pixels; in row {first.path}, {first.detail}"


def _lines(source: Source, stream: IO[bytes]) -> Iterator[bytes]:
    try:
        line, number = stream.readline(_MAX_ROW_BYTES + 1).removeprefix(BOM), 1
        while line:
            if len(line) > _MAX_ROW_BYTES or max(map(line.count, _SEPARATORS)) >= _MAX_COLUMNS:
                raise SourceError(
                    f"{source.title}: line {number} of {source.path} has more than {_MAX_ROW_BYTES >> 20} MiB or "
                    f"{_MAX_COLUMNS:,} values. Check that it has one image a line."
                )
            yield line
            line, number = stream.readline(_MAX_ROW_BYTES + 1), number + 1
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
    chunk, size = list[bytes](), 0
    for line in lines:
        if len(chunk) == IMAGES_PER_SHARD or size > BYTES_PER_SHARD:
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield chunk


def _make_shard(key: str, fingerprint: str, start: int, lines: list[bytes], layout: Layout) -> Encoded:
    values, labels, valid = _parse(lines, layout)
    rows = np.flatnonzero(valid)
    rejected = [row for row in np.flatnonzero(~valid).tolist() if lines[row].strip()]
    return Encoded(
        shard=key,
        fingerprint=fingerprint,
        paths=tuple(map(str, (rows + start).tolist())),
        labels=tuple(labels),
        contents=Pixels(values.reshape(len(rows), *layout.shape)),
        rejects=tuple(
            Reject(str(start + row), None, "bad_row", _reject_detail(lines[row], layout), len(lines[row]))
            for row in rejected
        ),
    )


def _parse(lines: list[bytes], layout: Layout) -> tuple[NDArray[np.uint8], list[str | None], NDArray[np.bool_]]:
    """Parse rows as text first and as numbers after, so that an invalid value costs one row and not the file.

    Returns:
        Pixels of the valid rows, (valid rows, pixels); their labels; whether each of `lines` is valid.
    """
    plain, quoted = _unquote(lines, layout)
    separator = layout.separator.encode()
    counts = np.fromiter((line.count(separator) for line in plain), dtype=np.int64, count=len(plain))
    complete = (counts == layout.columns - 1) & _are_utf8(lines)
    frame = _text_columns(b"".join(line for line, ok in zip(plain, complete.tolist(), strict=True) if ok), layout)
    numbers = _to_pixels(frame.select(pl.nth(list(layout.pixels))))
    parsed = numbers.select(ok=pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    valid = complete.copy()
    valid[complete] = parsed
    labels: list[str | None] = [None] * int(parsed.sum())
    if layout.label is not None:
        labels = _to_labels(frame.to_series(layout.label).filter(parsed))
    if quoted:
        labels = [quoted.get(row, label) for row, label in zip(np.flatnonzero(valid).tolist(), labels, strict=True)]
    return np.ascontiguousarray(numbers.filter(parsed).to_numpy()), labels, valid


def _to_pixels(texts: pl.DataFrame) -> pl.DataFrame:
    """Parse pixels; null if a text is not a pixel."""
    numbers = texts.select(pl.all().cast(pl.UInt8, strict=False))
    failed = [text.name for text in texts if numbers[text.name].null_count() > text.null_count()]
    if not failed:
        return numbers
    # With a decimal point: 255.0, or 2.55e+02 as NumPy writes it. Few columns need it, or all.
    value = pl.col(failed).cast(pl.Float64, strict=False)
    is_whole = (
        pl.col(failed).str.contains(".", literal=True) & (value == value.floor()) & value.is_between(0, MAX_PIXEL)
    )
    decimals = pl.when(is_whole).then(value).cast(pl.UInt8)
    return numbers.with_columns(texts.select(pl.col(failed).cast(pl.UInt8, strict=False).fill_null(decimals)))


def _to_labels(texts: pl.Series) -> list[str | None]:
    """Parse labels: None for a missing value; 7.000e+00, as NumPy writes whole numbers, becomes 7."""
    texts = texts.set(texts.is_in(MISSING_VALUES), None)
    numbers = texts.filter(texts.str.contains(r"^-?\d\.\d+[eE][+-]\d+$")).unique()
    shorter = {text: str(int(float(text))) for text in numbers if float(text).is_integer()}
    return texts.replace(shorter).to_list()


def _unquote(lines: list[bytes], layout: Layout) -> tuple[list[bytes], dict[int, str | None]]:
    """Remove quotes, and empty all fields but the pixels, because quoted text can hold a separator.

    Few rows have quotes.

    Returns:
        The rows, and the labels of those that had quotes by row.
    """
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
                labels[row] = None if text in MISSING_VALUES else text
            for position in others:
                fields[position] = ""
        plain[row] = layout.separator.join(fields).encode("utf-8", "surrogateescape") + b"\n"
    return plain, labels


def _fields(line: bytes, layout: Layout) -> list[str]:
    text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    try:
        return next(csv.reader([text], delimiter=layout.separator), [])
    except csv.Error:  # for example a lone carriage return
        return text.split(layout.separator)


def _are_utf8(lines: Sequence[bytes]) -> NDArray[np.bool_]:
    """Return which rows are UTF-8. In another encoding two labels could become the same text."""
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


def _text_columns(data: bytes, layout: Layout) -> pl.DataFrame:
    schema = {f"column_{position}": pl.String for position in range(layout.columns)}
    if not data:
        return pl.DataFrame(schema=schema)
    frame = pl.read_csv(data, separator=layout.separator, has_header=False, schema=schema, quote_char=None)
    return frame.select(pl.all().str.strip_chars(_BLANKS_AND_QUOTES).replace("", None))


def _reject_detail(line: bytes, layout: Layout) -> str:
    if not _is_utf8(line):
        return "the row is no UTF-8 text: save the file as UTF-8"
    values = _fields(line, layout)
    if len(values) != layout.columns:
        return f"{len(values)} values where the file has {layout.columns} columns"
    pixels = ((position, values[position].strip(_BLANKS_AND_QUOTES)) for position in layout.pixels)
    position, value = next(((p, v) for p, v in pixels if not is_pixel(v)), (0, ""))
    return f"column {position} holds {value[:20]!r}, no whole number from 0 to 255"

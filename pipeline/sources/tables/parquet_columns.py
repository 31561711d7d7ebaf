"""Choose the columns of images and labels of a Parquet file, and convert their values.

The recipe's `images` and `labels` name the columns; `labels = ""` means no labels. Otherwise the metadata of Hugging
Face, the type or a usual name decides. A label is text (also UTF-8 bytes), a whole number (also a float or decimal) or
a boolean; null and NaN mean no label. A column called like a label with other values, such as lists or structs, is an
error. If no column is called like a label, any column that may be one is an error, except ids of rows.

A binary column holds raw pixels (uint8, row by row, channels last) if there are columns `height` and `width` and at
least half of the first rows have height * width * channels bytes. Without a column `channels` the number of bytes
decides between 1 and 3. A row whose sizes are invalid or do not fit its number of bytes is a reject.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.shard import Blobs, Pixels
from pipeline.sources.labels import is_id, resembles_label, usual_labels
from pipeline.sources.source import Source

_HEIGHT, _WIDTH, _CHANNELS = "height", "width", "channels"
_LARGEST_SIDE = 2**31 - 1
# Headers of portable graymap and pixmap, which hold raw pixels of any size, by number of channels.
_PNM_HEADERS = {1: b"P5\n%d %d\n255\n", 3: b"P6\n%d %d\n255\n"}


def side_columns(schema: pa.Schema, image: str) -> tuple[str, ...]:
    """Find the columns of heights, widths and, if there is one, channels.

    Args:
        schema: schema of the file.
        image: name of the column of images.

    Returns:
        Two or three names; none if `image` is not plain binary, or heights or widths are missing.
    """
    kinds = [field.type for field in schema if field.name == image]
    if len(kinds) != 1 or pa.types.is_struct(kinds[0]):
        return ()
    numbers = [field.name for field in schema if pa.types.is_integer(field.type)]
    named = {name.lower(): name for name in numbers if numbers.count(name) == 1}
    if _HEIGHT not in named or _WIDTH not in named:
        return ()
    return tuple(named[name] for name in (_HEIGHT, _WIDTH, _CHANNELS) if name in named)


def sizes_table(columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.Table:
    """Make a table of the columns that `side_columns` found."""
    # Numbers that are too large become null, which is not a valid size.
    read = [pc.if_else(pc.less_equal(column, _LARGEST_SIDE), column, None).cast(pa.int64()) for column in columns]
    return pa.table(read, names=[_HEIGHT, _WIDTH, _CHANNELS][: len(read)])


def are_valid_sizes(sides: pa.Table) -> pa.ChunkedArray:
    """Return for each row whether its sizes are those of an image: booleans without nulls."""
    good = pc.and_(pc.greater(sides[_HEIGHT], 0), pc.greater(sides[_WIDTH], 0))
    if _CHANNELS in sides.column_names:
        good = pc.and_(good, pc.is_in(sides[_CHANNELS], value_set=pa.array(list(_PNM_HEADERS), pa.int64())))
    return pc.fill_null(good, False)  # noqa: FBT003 - the value that nulls become


def describe_sizes(sides: pa.Table) -> list[str]:
    """Return a text with the sizes of each row, for rejects."""
    return [
        "no picture has these sizes: " + ", ".join(f"{name} {value}" for name, value in row.items())
        for row in sides.to_pylist()
    ]


def to_large_binary(images: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Cast a column of any binary type to large_binary, which all functions of Arrow support."""
    return images.cast(pa.large_binary())


def sizes_fit_bytes(images: pa.Array, sides: pa.Table) -> bool:
    """Return whether a column holds raw pixels: in at least half of the rows the number of bytes fits the sizes.

    Args:
        images: as `to_large_binary` returns them.
        sides: as `sizes_table` returns them.
    """
    there = pc.and_(images.is_valid(), are_valid_sizes(sides).combine_chunks())
    if not there.true_count:
        return False
    sizes = pc.binary_length(images.filter(there)).to_numpy(zero_copy_only=False)
    _, channels = _shapes(sizes, sides.filter(there))
    return bool(2 * np.count_nonzero(channels) >= len(channels))


def images_from_pixels(images: pa.ChunkedArray, sides: pa.Table) -> Blobs | Pixels:
    """Make images of raw pixels.

    Args:
        images: n rows without nulls, as `to_large_binary` returns them.
        sides: their sizes, for which `are_valid_sizes` is true.

    Returns:
        Pixels if all images have one shape; else each as a PNM file, in order. The file of a row whose number of bytes
        does not fit its sizes is cut short.
    """
    data = images.combine_chunks()
    sizes = pc.binary_length(data).to_numpy(zero_copy_only=False)
    areas, channels = _shapes(sizes, sides)
    shapes = np.stack([*areas, channels], axis=1)
    if len(shapes) and channels[0] and (shapes == shapes[0]).all():
        first = int(np.frombuffer(data.buffers()[1], np.int64)[data.offset])
        flat = np.frombuffer(data.buffers()[2], np.uint8)
        return Pixels(flat[first : first + int(sizes.sum())].reshape(len(shapes), *shapes[0].tolist()))
    rows = zip(data.to_pylist(), shapes.tolist(), strict=True)
    return Blobs(tuple(_pnm_file(pixels, *shape) for pixels, shape in rows))


def _shapes(
    sizes: NDArray[np.integer], sides: pa.Table
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """Return heights and widths, and the channels: 0 if the number of bytes does not fit."""
    height, width = (sides[name].to_numpy() for name in (_HEIGHT, _WIDTH))
    # Below 2**62, as every side is below 2**31.
    ratio, rest = np.divmod(sizes, height * width)
    found = np.where((rest == 0) & np.isin(ratio, list(_PNM_HEADERS)), ratio, 0)
    if _CHANNELS in sides.column_names:
        found = np.where(found == sides[_CHANNELS].to_numpy(), found, 0)
    return (height, width), found


def _pnm_file(pixels: bytes, height: int, width: int, channels: int) -> bytes:
    head = _PNM_HEADERS[channels or 1] % (width, height)
    return head + pixels if channels else head


_BYTES, _PATH = "bytes", "path"
_IMAGE_NAMES = frozenset(["image", "images", "img", "picture"])
# Name of a column of raw pixels, if there are columns of their sizes.
_RAW_PIXELS_NAME = "pixels"
_HUGGINGFACE_KEY = b"huggingface"
_CONTROL_CHARACTERS = r"[\x00-\x08\x0e-\x1f\x7f]"
# The index of a pandas table.
_INDEX = re.compile(r"__index_level_\d+__$")
_MAX_COLUMNS_SHOWN = 30
_UNUSABLE_LABELS = "neither text nor numbers and cannot be the labels"


class Columns(NamedTuple):
    """The columns to read.

    Attributes:
        image: name of the column of images.
        leaf: its path in the file's schema, with `.bytes` for a struct.
        label: name of the column of labels, or None.
        names: name of class 0, 1, ... if the labels are numbers and the file names its classes; else empty.
        sides: names of the columns of heights, widths and, if there is one, channels, if the images may be raw pixels;
            else empty.
    """

    image: str
    leaf: str
    label: str | None
    names: tuple[str, ...]
    sides: tuple[str, ...] = ()


def choose_columns(source: Source, schema: pa.Schema, read_first: Callable[[str], pa.ChunkedArray]) -> Columns:
    """Find the columns of images and labels: by the recipe, the metadata of Hugging Face, the type, or a usual name.

    Args:
        source: its `images` and `labels` name the columns; `labels = ""` means that there are none.
        schema: schema of the file.
        read_first: reads the first rows of a column. Called only for columns of bytes, floats or decimals with unusual
            names.

    Raises:
        SourceError: no column fits, several do, or the named one has another type. The message lists the columns.
    """
    features = _huggingface_features(schema)
    leaves = {field.name: leaf for field in schema if (leaf := _image_leaf(field))}
    image = source.part.images or _only_name(
        [name for name in leaves if features.get(name, {}).get("_type") == "Image"],
        [name for name in leaves if name.lower() in _IMAGE_NAMES],
        [name for name in leaves if name == _RAW_PIXELS_NAME and side_columns(schema, name)],
        [name for name in leaves if not usual_labels([name])],
    )
    if image is None:
        what = "several columns" if leaves else "no column of binary values"
        raise _unclear_error(source, schema, "images", f"{what} may be the images")
    _check_name(source, schema, image, "images")
    if image not in leaves:
        raise _unclear_error(source, schema, "images", f"column '{image}' is not binary and cannot be the images")
    label = _choose_label(source, schema, features, image, read_first)
    names = features.get(label or "", {}).get("names")
    kind = pa.null() if label is None else _value_type(schema.field(label).type)
    numbers = pa.types.is_integer(kind) or _may_be_whole(kind)
    named = tuple(map(str, names)) if numbers and isinstance(names, list) else ()
    return Columns(image, leaves[image], label, named, side_columns(schema, image))


def encoded_images(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the encoded images of a column: binary, null if a row has none."""
    return pc.struct_field(images, _BYTES) if pa.types.is_struct(images.type) else images


def missing_image_details(images: pa.ChunkedArray) -> list[str]:
    """Return the reject details of rows without an encoded image, in order."""
    fields = images.type.fields if pa.types.is_struct(images.type) else []
    if not any(field.name == _PATH and pa.types.is_string(field.type) for field in fields):
        return ["the row has no image"] * len(images)
    paths = pc.struct_field(images, _PATH)
    details = pc.binary_join_element_wise("the row has no image, only the path ", paths, "")
    filled: list[str] = pc.fill_null(details, "the row has no image").to_pylist()
    return filled


def label_texts(source: Source, columns: Columns, rows: pa.ChunkedArray, first: int = 0) -> pa.ChunkedArray:
    """Convert labels to text: whole numbers stay numbers or become the names of their classes; null means no label.

    Args:
        source: the source, for errors.
        columns: the chosen columns.
        rows: rows of the label column.
        first: number of the first of these rows in the file.

    Returns:
        As many strings. An empty label, NaN, and Hugging Face's -1 where classes have names, are null.

    Raises:
        SourceError: a number has no name or is not whole, or bytes are not text. The message names the row.
    """
    if pa.types.is_dictionary(rows.type):
        rows = pa.chunked_array([part.dictionary_decode() for part in rows.chunks], rows.type.value_type)
    if columns.names or _may_be_whole(rows.type):
        rows = _whole_numbers(source, columns, rows, first)
    if columns.names:
        return _class_names(source, columns, rows)
    text = _decode_utf8(source, columns, rows, first) if _is_binary(rows.type) else rows.cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), None, text)


def _whole_numbers(source: Source, columns: Columns, rows: pa.ChunkedArray, first: int) -> pa.ChunkedArray:
    if pa.types.is_float16(rows.type):
        rows = pa.chunked_array([pa.array(rows.to_numpy().astype(np.float32))])
    if pa.types.is_floating(rows.type):
        rows = pc.if_else(pc.is_nan(rows), None, rows)
    try:
        return rows.cast(pa.int64())
    except pa.ArrowInvalid as error:
        row, value = next((row, value) for row, value in enumerate(rows) if not _is_whole(value))
        raise SourceError(
            f"{source.title}: the labels in column '{columns.label}' of {source.path} are not whole numbers: row "
            f"{first + row} has {value}. {_advice('labels')}"
        ) from error


def _is_whole(value: pa.Scalar) -> bool:
    try:
        value.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def _decode_utf8(source: Source, columns: Columns, rows: pa.ChunkedArray, first: int) -> pa.ChunkedArray:
    """Decode bytes as UTF-8; those of a fixed size may end with zeros."""
    fixed = pa.types.is_fixed_size_binary(rows.type)
    try:
        text = rows.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        wrong = [not _is_utf8(value) for value in rows.to_pylist()]
    else:
        short = pc.utf8_rtrim(text, "\0") if fixed else text
        # Only zeros may be a number; they are not an empty label.
        found = pc.match_substring_regex(pc.if_else(pc.equal(short, ""), text, short), _CONTROL_CHARACTERS)
        if not pc.any(found).as_py():
            return short
        wrong = found.to_pylist()
    raise SourceError(
        f"{source.title}: the label in row {first + wrong.index(True)} of column '{columns.label}' of {source.path} is "
        f"not UTF-8 text. {_advice('labels')}"
    )


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _class_names(source: Source, columns: Columns, numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    known = pc.if_else(pc.equal(numbers, -1), None, numbers)
    span = pc.min_max(known).as_py()
    odd = next((n for n in span.values() if n is not None and not 0 <= n < len(columns.names)), None)
    if odd is not None:
        raise SourceError(
            f"{source.title}: label {odd} in column '{columns.label}' of {source.path} has no name: the file names "
            f"{len(columns.names)} classes. The file is inconsistent: fetch it again, or ask its publisher."
        )
    return pc.take(pa.array(columns.names, pa.string()), known)


def _choose_label(
    source: Source,
    schema: pa.Schema,
    features: dict[str, dict[str, Any]],
    image: str,
    read_first: Callable[[str], pa.ChunkedArray],
) -> str | None:
    key = source.part.labels
    if key == "":
        return None
    others = [field.name for field in schema if field.name != image]
    noted = [name for name in others if features.get(name, {}).get("_type") == "ClassLabel"]
    called = noted or [others[at] for at in usual_labels(others)]
    if key is None and len(called) > 1:
        raise _unclear_error(source, schema, "labels", f"one of several columns may be the labels ({_quoted(called)})")
    found = key or _only_name(called)
    if found is None:
        possible = [
            name for name in others if not _INDEX.match(name) and _may_hold_labels(schema.field(name), read_first)
        ]
        if possible:
            what = "one of several columns" if len(possible) > 1 else "a column"
            raise _unclear_error(source, schema, "labels", f"{what} may be the labels, or none, ({_quoted(possible)})")
        return None
    _check_name(source, schema, found, "labels")
    kind = schema.field(found).type
    if found == image or not _may_be_label(kind):
        raise _unclear_error(source, schema, "labels", f"column '{found}' ({_type_text(kind)}) is {_UNUSABLE_LABELS}")
    return found


def _may_hold_labels(field: pa.Field, read_first: Callable[[str], pa.ChunkedArray]) -> bool:
    """Return whether a column without a usual name may be the labels: by its name, type or first values."""
    if is_id(field.name):
        return False
    kind = _value_type(field.type)
    if any(map(resembles_label, (field.name, *_names_inside(kind)))):
        return True
    if _is_binary(kind):
        return _holds_text(read_first(field.name))
    if _may_be_whole(kind):
        values = [value for value in read_first(field.name).to_pylist() if value is not None and not math.isnan(value)]
        return bool(values) and all(value % 1 == 0 for value in values)
    return _may_be_label(kind)


def _holds_text(values: pa.ChunkedArray) -> bool:
    texts = [value for value in values.to_pylist() if value]
    return bool(texts) and all(_is_utf8(value) and value.rstrip(b"\0").decode().isprintable() for value in texts)


def _names_inside(kind: pa.DataType) -> list[str]:
    fields = [kind.field(at) for at in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    return [name for field in fields for name in (field.name, *_names_inside(field.type))]


def _check_name(source: Source, schema: pa.Schema, name: str, key: str) -> None:
    count = len(schema.get_all_field_indices(name))
    if count != 1:
        raise _unclear_error(source, schema, key, f"{'more than one' if count else 'no'} column '{name}'")


def _unclear_error(source: Source, schema: pa.Schema, key: str, what: str) -> SourceError:
    listed = ", ".join(f"{field.name} ({_type_text(field.type)})" for field in list(schema)[:_MAX_COLUMNS_SHOWN])
    more = f" and {len(schema) - _MAX_COLUMNS_SHOWN} more" if len(schema) > _MAX_COLUMNS_SHOWN else ""
    return SourceError(f"{source.title}: {what} in {source.path}. It has: {listed}{more}. {_advice(key, 'one')}")


def _advice(key: str, which: str = "another column") -> str:
    none = ', or labels = "" for none' if key == "labels" else ""
    return f'Name {which} with {key} = "..." in the recipe{none}.'


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _type_text(kind: pa.DataType) -> str:
    text = " ".join(str(kind).split())
    return text if len(text) <= 100 else f"{text[:97]}..."  # noqa: PLR2004 - a struct can have a thousand fields


def _only_name(*tries: Iterable[str]) -> str | None:
    """Return the only name of the first list that has names; None if it has several."""
    found: Sequence[str] = next((names for names in map(list, tries) if names), [])
    return found[0] if len(found) == 1 else None


def _image_leaf(field: pa.Field) -> str | None:
    if _is_binary(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type) and any(f.name == _BYTES and _is_binary(f.type) for f in field.type.fields):
        return f"{field.name}.{_BYTES}"
    return None


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _may_be_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _may_be_label(kind: pa.DataType) -> bool:
    inner = _value_type(kind)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, _is_binary)
    numbers = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_null, _may_be_whole)
    return any(test(inner) for test in (*text, *numbers))


def _huggingface_features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Read the features that Hugging Face's `datasets` stores for each column; empty if there are none."""
    try:
        features = json.loads((schema.metadata or {})[_HUGGINGFACE_KEY])["info"]["features"]
        return {name: note for name, note in features.items() if isinstance(note, dict)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}

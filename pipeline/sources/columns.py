"""Which columns of a Parquet file are its images and its labels, and what they hold."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SourceError
from pipeline.sources.source import Source

_BYTES, _PATH = "bytes", "path"
_IMAGE_NAMES = frozenset(["image", "images", "img", "picture"])
_LABEL_NAMES = frozenset(["label", "labels", "class", "category", "target", "cls"])
_NOTES = b"huggingface"


class Columns(NamedTuple):
    """The columns that are read.

    Attributes:
        image: name of the column of images.
        leaf: what of it holds the encoded image.
        label: name of the column of labels, or None.
        names: name of class 0, 1, ... where the labels are numbers and the file names its classes; else empty.
    """

    image: str
    leaf: str
    label: str | None
    names: tuple[str, ...]


def choose_columns(source: Source, schema: pa.Schema) -> Columns:
    """Find the columns of images and labels: by the recipe, Hugging Face's notes, the type, or a usual name.

    Args:
        source: its `images` and `labels` name the columns; the empty name of `labels` says that there are none.
        schema: of the file.

    Raises:
        SourceError: listing the columns: none may be meant, or several, or the one that is named is of another type.
    """
    notes = _notes(schema)
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(field))}
    image = source.part.images or _first_alone(
        [name for name in leaves if notes.get(name, {}).get("_type") == "Image"],
        [name for name in leaves if name.lower() in _IMAGE_NAMES],
        leaves,
    )
    if image is None:
        what = "several columns" if leaves else "no column of binary values"
        raise _unclear(source, schema, "images", f"{what} may be the images")
    _check_name(source, schema, image, "images")
    if image not in leaves:
        raise _unclear(source, schema, "images", f"column '{image}' is not binary and cannot be the images")
    label = _label(source, schema, notes, image)
    names = notes.get(label or "", {}).get("names")
    numbers = label is not None and pa.types.is_integer(schema.field(label).type)
    return Columns(image, leaves[image], label, tuple(map(str, names)) if numbers and isinstance(names, list) else ())


def encoded_of(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take the encoded images out of a column of them: binary, null where there is none."""
    return pc.struct_field(images, _BYTES) if pa.types.is_struct(images.type) else images


def faults_of(images: pa.ChunkedArray) -> list[str]:
    """Tell what a column of rows without an encoded image holds instead, row by row."""
    fields = images.type.fields if pa.types.is_struct(images.type) else []
    if not any(field.name == _PATH and pa.types.is_string(field.type) for field in fields):
        return ["the row has no image"] * len(images)
    paths = pc.struct_field(images, _PATH)
    told = pc.binary_join_element_wise("the row has no image, only the path ", paths, "")
    filled: list[str] = pc.fill_null(told, "the row has no image").to_pylist()
    return filled


def labels_of(source: Source, columns: Columns, rows: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read labels as text: whole numbers as such or by the names of their classes; null for none.

    Args:
        source: which errors name.
        columns: of which the label column is meant.
        rows: rows of it.

    Returns:
        As many strings. An empty label, and Hugging Face's -1 where classes have names, are null.

    Raises:
        SourceError: a number has no name, or is no whole number.
    """
    kind = rows.type
    if pa.types.is_dictionary(kind):
        rows, kind = rows.cast(kind.value_type), kind.value_type
    if columns.names:
        return _named(source, columns, rows.cast(pa.int64()))
    if pa.types.is_floating(kind):
        try:
            rows = rows.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise SourceError(
                f"{source.title}: the labels in column '{columns.label}' of {source.path} are no whole numbers. Name "
                'another column with labels = "..." in the recipe, or none with labels = "".'
            ) from error
    text = rows.cast(pa.string())
    return pc.if_else(pc.equal(text, ""), None, text)


def _named(source: Source, columns: Columns, numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    known = pc.if_else(pc.equal(numbers, -1), None, numbers)
    span = pc.min_max(known).as_py()
    odd = next((n for n in span.values() if n is not None and not 0 <= n < len(columns.names)), None)
    if odd is not None:
        raise SourceError(
            f"{source.title}: label {odd} in column '{columns.label}' of {source.path} has no name: the file names "
            f"{len(columns.names)} classes. It contradicts itself: fetch it again, or ask its publisher."
        )
    return pc.take(pa.array(columns.names, pa.string()), known)


def _label(source: Source, schema: pa.Schema, notes: dict[str, dict[str, Any]], image: str) -> str | None:
    asked = source.part.labels
    if asked == "":
        return None
    possible = [field.name for field in schema if field.name != image and _may_be_label(field.type)]
    found = asked or _first_alone(
        [name for name in possible if notes.get(name, {}).get("_type") == "ClassLabel"],
        [name for name in possible if name.lower() in _LABEL_NAMES],
    )
    if found is None:
        if any(not pa.types.is_floating(schema.field(name).type) for name in possible):
            raise _unclear(source, schema, "labels", "one of several columns may be the labels, or none,")
        return None
    _check_name(source, schema, found, "labels")
    if found not in possible:
        raise _unclear(
            source, schema, "labels", f"column '{found}' is neither text nor numbers and cannot be the labels"
        )
    return found


def _check_name(source: Source, schema: pa.Schema, name: str, key: str) -> None:
    count = len(schema.get_all_field_indices(name))
    if count != 1:
        raise _unclear(source, schema, key, f"{'more than one' if count else 'no'} column '{name}'")


def _unclear(source: Source, schema: pa.Schema, key: str, what: str) -> SourceError:
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    none = ', or labels = "" for none' if key == "labels" else ""
    return SourceError(
        f'{source.title}: {what} in {source.path}. It has: {listed}. Name one with {key} = "..." in the recipe{none}.'
    )


def _first_alone(*tries: Iterable[str]) -> str | None:
    """Take the only name of the first list that has names; None where it has several."""
    found: Sequence[str] = next((names for names in map(list, tries) if names), [])
    return found[0] if len(found) == 1 else None


def _leaf(field: pa.Field) -> str | None:
    if _is_binary(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type) and any(f.name == _BYTES and _is_binary(f.type) for f in field.type.fields):
        return f"{field.name}.{_BYTES}"
    return None


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _may_be_label(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    numbers = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_null)
    return any(test(inner) for test in (*text, *numbers))


def _notes(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Read what Hugging Face's `datasets` notes of each column in the file; nothing where there are no such notes."""
    try:
        features = json.loads((schema.metadata or {})[_NOTES])["info"]["features"]
        return {name: note for name, note in features.items() if isinstance(note, dict)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}

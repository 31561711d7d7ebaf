"""Read attributes, facts about images that a recipe names: from a table, COCO annotations, or a pattern on the paths.

Values have one of the types of `attribute_types.TYPES`.

- CSV: the type of a column follows from all its values. `007` is text, because a number would lose the zeros.
- Parquet and JSON lines have types. Lists are several values of one image. Columns of bytes are left out; a struct
  becomes its JSON text.
- COCO annotations (a `.json` file) give each image the names of its categories, as the attribute `labels`.

References:
    Lin et al. 2014, Microsoft COCO: Common Objects in Context.
"""

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.datatypes import DataTypeClass

from pipeline.errors import SourceError, one_line
from pipeline.recipe import AttributesPart
from pipeline.sources.attribute_types import with_types
from pipeline.sources.labels import plain
from pipeline.sources.tables.delimited import first_line, is_utf16, separators_of
from pipeline.storage import check_expansion, check_regular

# The attribute that COCO annotations and the key `labels` make.
LABELS = "labels"
# The columns that identify an image, most exact first, and other names of `path`.
KEYS = ("image_id", "file_digest", "path")
_PATH_NAMES = ("path", "file", "filename", "filepath", "image", "img", "imagepath", "imagefile", "imgpath")
_KEY_BYTES = {"image_id": 16, "file_digest": 32}
# Attributes of one file, and bytes of a text file.
_MAX_ATTRIBUTES, _MAX_BYTES = 200, 2**30
_HEAD_BYTES = 2**16

# What Polars calls the second column of a name, and what its messages mean.
_DOUBLED = re.compile(r"_duplicated_[0-9]+$")
_REASONS = {
    "more fields than defined": "a line has more values than the first line has names; quote values with a separator",
    "invalid utf-8": "it is not UTF-8 text; save it as UTF-8",
    "not properly escaped": 'a value starts with " and does not end with it; write a " inside of quotes as ""',
    "empty CSV|empty reader|Eof at character 0$": "it is empty",
    "error deserializing value": "COCO annotations have numbers as ids, and text as file_name and name; it has others",
    "while (building|constructing) Series": "a name has objects in some lines and other values in others",
    "NDJSON line expected": 'every line must be a JSON object, such as {"path": "a.png", "patient": "p1"}',
    r"\bat character [0-9]+": "it is not valid JSON",
}

# What the manifest of an export writes before the names of attributes, and how it writes several values.
_EXPORTED = "attr:"
_LIST = r"""^\["([^"\\]|\\.)*"(,"([^"\\]|\\.)*")*\]$"""


class Attributes(NamedTuple):
    """The attributes that a file gives.

    Attributes:
        key: the column that identifies the images, one of `KEYS`.
        rows: a column `key` (text, or bytes of an id or digest; null if it is neither), then a column for each
            attribute, of a type of `TYPES` or a list of one; rows in the order of the file.
        invalid: by attribute, how many values do not have the type that the recipe requires. They are null.
        left_out: columns that cannot be attributes.
        uncertain: by label column, how many values are -1, where others are 0. They count as 0.
        other_form: how many paths are in another Unicode form than in the lake.
    """

    key: str
    rows: pl.DataFrame
    invalid: Mapping[str, int]
    left_out: Sequence[str]
    uncertain: Mapping[str, int] = MappingProxyType({})
    other_form: int = 0


def table_files(uri: Path) -> list[Path]:
    """List the files that the uri of an `[[attributes]]` names: one, or the Parquet files of a folder or pattern.

    Files whose names start with . or _ are left out, as other tools do. The list is sorted, and empty if there is none.
    """
    if uri.is_dir():
        found = list(uri.rglob("*.parquet"))
    elif not uri.exists() and glob.has_magic(str(uri)):
        found = list(map(Path, glob.glob(str(uri), recursive=True)))  # noqa: PTH207 - of an absolute pattern
    else:
        return [uri] if uri.exists() else []
    return sorted(file for file in found if file.is_file() and not file.name.startswith((".", "_")))


def read_attributes(
    part: AttributesPart, file: Path, images: pl.DataFrame | None = None, *, is_source: bool = False
) -> Attributes:
    """Read the file of an `[[attributes]]`.

    Args:
        part: the recipe's `[[attributes]]`, with a uri.
        file: the file.
        images: columns image_id, file_digest and path of the images that it may name. Of several columns that may name
            them, the one that names the most is the key.
        is_source: whether it is the table that a source reads the images from. Then, if it has no column that names
            the images, each row is of the image whose path is the number of the row, as in such sources.

    Raises:
        SourceError: the file is missing, cannot be read, or names no images; or the recipe names a column that it does
            not have.
    """
    try:
        rows, is_text, of_bytes = _read_files(part, table_files(file) or [file])
    except FileNotFoundError:
        raise SourceError(f"attributes: {file} does not exist. Correct the uri of its [[attributes]].") from None
    except IsADirectoryError:
        raise SourceError(
            f"attributes: {file} is a folder without Parquet files. Name a file in the uri of its [[attributes]]."
        ) from None
    except (OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        why = next((text for sign, text in _REASONS.items() if re.search(sign, str(error))), one_line(error))
        raise SourceError(f"attributes: {file} cannot be read ({why}).") from error
    if is_source and file.is_file() and not any(map(_is_key, rows.columns)):
        rows = rows.with_columns(pl.int_range(pl.len()).cast(pl.String).alias("path"))
    column, key = _key_column(file, rows, images)
    wanted = _wanted_columns(part, file, column, rows.columns)
    rows = rows.select(_keys(rows[column], key), *wanted)
    other_form = 0
    if key == "path" and images is not None:
        keys, other_form = _match_paths(rows["key"], images["path"])
        rows = rows.with_columns(keys)
    left_out = [name for name in wanted if not _has_text(rows[name].dtype, lists=True)]
    rows, uncertain = rows.drop(left_out), dict[str, int]()
    # The table of a source has its images there.
    left_out += [] if is_source else of_bytes
    if part.labels:
        rows, uncertain = _with_labels(part, file, rows)
    if unknown := sorted(set(part.types) - set(rows.columns[1:])):
        known = ", ".join(rows.columns[1:][:12])
        raise SourceError(
            f"attributes: types names '{unknown[0]}', but the attributes of {file} are {known}. Correct the recipe."
        )
    return Attributes(key, *with_types(rows, part.types, infer=is_text), left_out, uncertain, other_form)


def match_patterns(part: AttributesPart, images: pl.DataFrame) -> Attributes:
    """Read attributes from the paths of images.

    Args:
        part: the recipe's `[[attributes]]`, with patterns.
        images: column path.
    """
    values = [
        pl.col("path").str.extract(pattern, min(1, _groups(pattern))).alias(name)
        for name, pattern in (part.patterns or {}).items()
    ]
    # Without a key where no pattern matches.
    rows = images.select(pl.col("path").alias("key"), *values).with_columns(
        pl.when(pl.any_horizontal(pl.exclude("key") != "")).then("key").alias("key")
    )
    return Attributes("path", *with_types(rows, part.types, infer=True), ())


def _read_files(part: AttributesPart, files: Sequence[Path]) -> tuple[pl.DataFrame, bool, list[str]]:
    """Read one file as `_read` does, or the rows of several Parquet files, of the columns that any of them has."""
    for file in files:
        check_regular(file, folders=False)
    if len(files) == 1:
        return _read(part, files[0])
    if other := [file for file in files if not _is_parquet(file)]:
        raise ValueError(f"{other[0].name} is no Parquet file; several files must be Parquet, so name one file")
    if keyed := [file for file in files if "=" in file.parent.name]:
        raise ValueError(f"columns in names of folders, such as {keyed[0].parent.name}, are not read; write one file")
    read = [_read_parquet(part, file) for file in files]
    rows = pl.concat([rows for rows, _ in read], how="diagonal_relaxed")
    return rows, False, sorted({name for _, names in read for name in names})


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _read(part: AttributesPart, file: Path) -> tuple[pl.DataFrame, bool, list[str]]:
    """Read the columns of a file that may be needed; whether they are all text; and columns of bytes, not read."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head.startswith(b"PAR1"):
        rows, of_bytes = _read_parquet(part, file)
        return rows, False, of_bytes
    if file.stat().st_size > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES >> 30} GiB; write it as Parquet")
    if is_utf16(head):
        raise ValueError("UTF-16 text; save it as UTF-8")
    if head.startswith(b"PK\3\4"):
        raise ValueError("a ZIP archive, such as an Excel workbook; save it as CSV")
    if file.suffix.lower() == ".json":
        rows = _read_coco(file)
        return rows.select(_needed(part, rows.columns)), False, []
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        rows = pl.read_ndjson(file, infer_schema_length=None)
        return rows.select(_needed(part, rows.columns)), False, []
    separator = separators_of(first_line(head))[0]
    table = pl.scan_csv(file, separator=separator, infer_schema=False, glob=False).rename(str.strip)
    names = table.collect_schema().names()
    if doubled := [name for name in names if _DOUBLED.search(name) and _DOUBLED.sub("", name) in names]:
        raise ValueError(f"its first line names the column '{_DOUBLED.sub('', doubled[0])}' twice")
    exported = {name: name.removeprefix(_EXPORTED) for name in names if name.startswith(_EXPORTED)}
    exported = {name: plain_name for name, plain_name in exported.items() if plain_name not in names}
    rows = table.rename(exported).select(_needed(part, [exported.get(name, name) for name in names])).collect()
    lists = [name for name in exported.values() if name in rows.columns and rows[name].str.contains(_LIST).all()]
    return rows.with_columns(pl.col(lists).str.json_decode(pl.List(pl.String))), True, []


def _read_parquet(part: AttributesPart, file: Path) -> tuple[pl.DataFrame, list[str]]:
    """Read the columns of a Parquet file, without those of bytes, and list the names of these."""
    metadata = pq.read_metadata(file)
    check_expansion(metadata)
    schema = metadata.schema.to_arrow_schema()
    of_bytes = [field.name for field in schema if field.name not in KEYS and _holds_bytes(field.type)]
    needed = _needed(part, schema.names)
    names = [name for name in needed if name not in of_bytes]
    if not names:
        raise ValueError("it has no column that can be an attribute")
    return pl.DataFrame(pq.read_table(file, columns=names)), [name for name in needed if name in of_bytes]


def _needed(part: AttributesPart, names: Sequence[str]) -> list[str]:
    """List the columns that may be keys, and those that the recipe names; all if it names none.

    Raises:
        ValueError: a column of the recipe is missing.
    """
    if part.columns is None and set(part.labels or ()) <= set(names):
        return list(names)
    named = {*(part.columns or ()), *(part.labels or ())}
    if missing := sorted(named - set(names)):
        raise ValueError(f"it has no column '{missing[0]}'; its columns: {', '.join(names[:12])}")
    return [name for name in names if name in named or _is_key(name)]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(at).type) for at in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _read_coco(file: Path) -> pl.DataFrame:
    """Read the categories of every image of COCO annotations: file_name, and labels, a list of names."""
    number = pl.Int64()
    wanted: dict[str, dict[str, pl.DataType]] = {
        "images": {"id": number, "file_name": pl.String()},
        "annotations": {"image_id": number, "category_id": number},
        "categories": {"id": number, "name": pl.String()},
    }
    schema = {name: pl.List(pl.Struct(fields)) for name, fields in wanted.items()}
    parts = pl.read_json(file, schema=schema)
    if len(parts) != 1 or any(parts[name][0] is None for name in wanted):
        raise ValueError(
            "no COCO annotations: an object with images, annotations and categories is needed; other records must be "
            "JSON lines, in a file that ends in .jsonl"
        )
    images, annotations, categories = (
        parts.select(name).explode(name).drop_nulls().unnest(name).drop_nulls() for name in wanted
    )
    if categories["id"].n_unique() != len(categories) or images["id"].n_unique() != len(images):
        raise ValueError("an id of an image or category occurs twice")
    unknown = annotations.join(categories, left_on="category_id", right_on="id", how="anti")["category_id"]
    if len(unknown):
        listed = ", ".join(map(str, unknown.unique().sort().head(5)))
        raise ValueError(f"{len(unknown):,} annotations are of a category id that categories does not list: {listed}")
    named = (
        annotations.join(categories, left_on="category_id", right_on="id")
        .select("image_id", "name")
        .unique()
        .sort("image_id", "name")
        .group_by("image_id", maintain_order=True)
        .agg(pl.col("name").alias(LABELS))
    )
    return images.join(named, left_on="id", right_on="image_id", how="left", maintain_order="left").select(
        "file_name", LABELS
    )


def _is_key(name: str) -> bool:
    return name in KEYS or plain(name) in _PATH_NAMES


def _match_paths(keys: pl.Series, paths: pl.Series) -> tuple[pl.Series, int]:
    """Read paths as the lake writes them, where an image has that path: with /, without ./ at the start, in its form.

    macOS and other systems write letters with accents in several Unicode forms. A path in another form counts if only
    one path of the lake has its form C.

    Returns:
        The paths, and how many of them are in another form than in the lake.
    """
    normalized = keys.str.replace_all("\\", "/", literal=True).str.replace(r"^(\./)+", "")
    keys = normalized.zip_with(~keys.is_in(paths.implode()) & normalized.is_in(paths.implode()), keys)
    known = keys.is_in(paths.implode()) | keys.is_null()
    if known.all():
        return keys, 0
    forms = pl.DataFrame({"path": paths.unique()}).with_columns(form=pl.col("path").str.normalize("NFC"))
    forms = forms.filter(~pl.col("form").is_duplicated())
    found = pl.DataFrame({"form": normalized.str.normalize("NFC")}).join(
        forms, on="form", how="left", maintain_order="left"
    )
    other = found["path"].is_not_null() & ~known
    return found["path"].zip_with(other, keys).alias("key"), int(other.sum())


def _key_column(file: Path, rows: pl.DataFrame, images: pl.DataFrame | None) -> tuple[str, str]:
    """Find the column that identifies the images, and which of `KEYS` it has.

    Of several columns it is the one that names the most images, such as the digest in the manifest of another lake,
    whose ids and paths are others; of equal ones the most exact.

    Raises:
        SourceError: there is none.
    """
    names = [name for name in KEYS if name in rows.columns]
    # Some data sets have file names in a column image_id.
    without = [name for name in names if len(rows) and _keys(rows[name], name).is_null().all()]
    paths = [name for known in _PATH_NAMES for name in rows.columns if plain(name) == known]
    found = [(name, name) for name in names if name not in without]
    found += [(name, "path") for name in (*paths, *without)]
    if not found:
        shown = ", ".join(rows.columns[:12])
        raise SourceError(
            f"attributes: {file} has no column path, image_id or file_digest that names the images; it has {shown}. "
            "Rename the column with the paths to path. In a CSV, the first line must name the columns."
        )
    if len(found) == 1 or images is None:
        return found[0]
    return max(found, key=lambda named: _count_named(rows[named[0]], named[1], images))


def _count_named(column: pl.Series, key: str, images: pl.DataFrame) -> int:
    """Count the rows that name an image."""
    keys = _keys(column, key)
    keys = _match_paths(keys, images["path"])[0] if key == "path" else keys
    return int(keys.is_in(images[key].drop_nulls().implode()).sum())


def _wanted_columns(part: AttributesPart, file: Path, key: str, names: Sequence[str]) -> list[str]:
    """List the columns to read.

    Raises:
        SourceError: there are too many.
    """
    named = [*(part.columns or ()), *(part.labels or ())]
    every = part.columns is None
    wanted = [name for name in names if name not in KEYS and name != key and (every or name in named)]
    if every and len(wanted) > _MAX_ATTRIBUTES:
        raise SourceError(
            f"attributes: {file} has {len(wanted):,} columns; at most {_MAX_ATTRIBUTES} become attributes. Write those "
            "you need in its [[attributes]]: columns = [...]."
        )
    return wanted


def _keys(column: pl.Series, key: str) -> pl.Series:
    """Return the keys of the rows: text, or the bytes of ids and digests, null where they are none."""
    if key == "path":
        return column.cast(pl.String).str.strip_chars().alias("key")
    if column.dtype != pl.Binary:
        column = column.cast(pl.String).str.strip_chars().str.to_lowercase().str.decode("hex", strict=False)
    size = column.bin.size()
    return pl.select(pl.when(size == _KEY_BYTES[key]).then(column).alias("key")).to_series()


def _with_labels(part: AttributesPart, file: Path, rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Replace the label columns by one column of lists: the names of those that are 1.

    Some files write -1 instead of 0, such as those of CelebA. In others, such as those of CheXpert, -1 beside 0 means
    that the label is uncertain.

    Returns:
        The rows; by label column, how many values are uncertain.

    Raises:
        SourceError: a label column has another value than 0, 1 or -1.
    """
    names = list(part.labels or ())
    if LABELS in rows.columns and LABELS not in names:
        raise SourceError(
            f"attributes: {file} has a column '{LABELS}', but labels = [...] makes an attribute of that name. "
            f"Write the other columns to read in columns = [...], without '{LABELS}'."
        )
    texts = rows.select(pl.col(names).cast(pl.String).str.strip_chars().str.to_lowercase())
    yes, zero, minus = ["1", "true", "1.0"], ["0", "false", "0.0"], ["-1", "-1.0"]
    for column in texts:
        odd = column.filter(column.is_not_null() & ~column.is_in([*yes, *zero, *minus, ""]))
        if len(odd):
            raise SourceError(
                f"attributes: {file} has {len(odd):,} values in its column of labels '{column.name}' that are neither "
                f"0 nor 1, such as '{odd[0][:40]}'. Correct them, or take the column out of labels = [...]."
            )
    has_zero = texts.select(pl.any_horizontal(pl.all().is_in(zero).any())).item()
    uncertain = texts.select(pl.all().is_in(minus).sum()).row(0, named=True) if has_zero else {}
    chosen = texts.select(
        pl.concat_list(pl.when(pl.col(name).is_in(yes)).then(pl.lit(name)) for name in names).list.drop_nulls()
    ).to_series()
    found = {name: count for name, count in uncertain.items() if count}
    return rows.drop(names).with_columns(chosen.alias(LABELS)), found


def _has_text(kind: pl.DataType | DataTypeClass, *, lists: bool) -> bool:
    """Return whether values of a type can be attributes, or, with `lists`, lists of such values."""
    if isinstance(kind, pl.List | pl.Array):
        return lists and kind.inner is not None and _has_text(kind.inner, lists=False)
    if isinstance(kind, pl.Struct):
        return all(_has_text(field.dtype, lists=True) for field in kind.fields)
    plain_types = (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null)
    return kind.is_numeric() or (kind.is_temporal() and kind != pl.Duration) or kind in plain_types


def _groups(pattern: str) -> int:
    """Count the groups of a regular expression."""
    found = pl.select(pl.lit("").str.extract_groups(pattern)).to_series().dtype
    return len(found.fields) if isinstance(found, pl.Struct) else 0

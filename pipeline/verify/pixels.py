"""Check the files of a shard: hash pixels, originals, image ids and index keys again, and compare with the stored."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.arrow_columns import to_binary
from pipeline.dedup.rules import index_images, parse_rule, sort_index
from pipeline.hashing import content_hashes, file_digest, image_ids, pixel_sums
from pipeline.lake.parquet_writer import Part
from pipeline.pixels import runs_of_one_shape
from pipeline.verify.faults import MAX_IMAGES, UNREADABLE_KINDS, Fault
from pipeline.verify.parquet_file import TableFile, read_row_groups
from pipeline.verify.references import check_references

# Columns of the index that are made from pixels.
_KEY_COLUMNS = ("bucket", "key", "signature", "vector")
# Length of a SHA-256.
_DIGEST_BYTES = 32
_SHAPE = ("height", "width", "channels")
_NO_IMAGES = {"image_id": pl.Binary, "path": pl.String, "file_size": pl.Int64}
_NO_ORIGINALS = {"image_id": pl.Binary, "file_digest": pl.Binary, "location": pl.String}
# Columns of images that faults of the index name.
_IMAGE_COLUMNS = ("image_id", "path", "label")


class FileGroup(NamedTuple):
    """Files that one worker checks together: those of a shard, or some of other tables.

    Attributes:
        root: the lake's place.
        images: the images of a shard; empty for files of other tables.
        index_files: by rule, the file of the index for the shard.
        others: files of other tables.
        originals: the originals of the shard.
        rules: rules of the index that read pixels: every image must have keys of each.
        read_references: whether referenced files are hashed, too.
    """

    root: str
    images: Sequence[Part] = ()
    index_files: Mapping[str, Part] = {}
    others: Sequence[TableFile] = ()
    originals: Sequence[Part] = ()
    rules: Sequence[str] = ()
    read_references: bool = False


class GroupResult(NamedTuple):
    """The result of checking a `FileGroup`.

    Attributes:
        files: number of files.
        images: number of images that were hashed.
        broken: faults of files that cannot be read, or are not what their commit records.
        wrong: faults of values that are not what they were made from.
        references: number of referenced files that were looked for.
        outside: faults of these.
    """

    files: int
    images: int
    broken: Sequence[Fault]
    wrong: Sequence[Fault]
    references: int
    outside: Sequence[Fault]


def check_files(group: FileGroup) -> GroupResult:
    """Read every file of a group, and hash the pixels of a shard again; runs in a worker.

    Holds one row group at a time, and the ids and keys of a shard.

    Raises:
        StorageError: a bucket does not answer.
    """
    broken: list[Fault] = []
    wrong: list[Fault] = []
    for other in group.others:
        for _ in read_row_groups(other, broken):
            pass
    expected: dict[str, list[pa.Table]] = {rule: [] for rule in group.rules}
    images: list[pa.Table] = []
    for part in group.images:
        file = TableFile(group.root, "images", part)
        for rows in read_row_groups(file, broken):
            wrong += _check_images(file, rows, expected)
            images.append(_image_columns(rows))
    # Of a file with another digest no row group is read.
    damaged = bool(wrong or not images) or any(
        fault.table == "images" and fault.kind in UNREADABLE_KINDS for fault in broken
    )
    stored = {rule: _read_index(group, part, broken) for rule, part in group.index_files.items()}
    listed = pl.DataFrame(pa.concat_tables(images)) if images else None
    if listed is not None and not damaged:
        wrong += _check_index(group, stored, expected, listed)
    # Where images are damaged, their originals are only compared with their own digests.
    known = None if listed is None or damaged else listed
    references: list[pl.DataFrame] = []
    outside: list[Fault] = []
    for part in group.originals:
        file = TableFile(group.root, "originals", part)
        wrong += _check_originals(file, known, broken, references)
        outside += check_references(file, references[-1], read=group.read_references)
    count = len(group.images) + len(group.index_files) + len(group.originals) + len(group.others)
    return GroupResult(count, sum(map(len, images)), broken, wrong, sum(map(len, references)), outside)


def compare_index(
    file: TableFile,
    stored: Sequence[pa.Table],
    expected: Sequence[pa.Table],
    images_file: TableFile,
    images: pl.DataFrame,
) -> Iterator[Fault]:
    """Compare a file of the index with the rows made again from the images: all values, and their order.

    Args:
        file: the file of the index.
        stored: its row groups.
        expected: rows made from the images; empty if they cannot be made, as for the user's own vectors.
        images_file: the file of the images.
        images: columns image_id, path and label of all images.

    Yields:
        Entries that are missing, wrong or of no image; labels that differ from those of the images.
    """
    found = pa.concat_tables(stored) if stored else sort_index(list(expected)[:0]) if expected else None
    if found is None or (expected and found.equals(sort_index(list(expected)))):
        return
    rows = pl.DataFrame(found)
    made = pl.DataFrame(pa.concat_tables(expected)) if expected else images
    both = rows.join(made, on="image_id", suffix="_made")
    same = (
        [pl.col(name).eq_missing(pl.col(f"{name}_made")) for name in _KEY_COLUMNS] if expected else [pl.lit(value=True)]
    )
    wrong = {
        "has no keys of images": made.join(rows, on="image_id", how="anti"),
        "has wrong keys": both.filter(~pl.all_horizontal(same)),
        "has images twice": rows.filter(pl.col("image_id").is_duplicated()),
    }
    faults = [_index_fault(file, text, damaged, images) for text, damaged in wrong.items() if len(damaged)]
    extra = len(rows.join(made, on="image_id", how="anti"))
    faults += [file.fault("changed", "has keys of images that its shard does not have", extra)] if extra else []
    # Either label may be the right one. A repair makes both again from the source.
    other = both.filter(~pl.col("label").eq_missing(pl.col("label_made")))
    faults += [_index_fault(images_file, "its labels are not those of the index", other, images)] if len(other) else []
    yield from faults or ([file.fault("changed", "its rows are in another order", len(rows))] if expected else [])


def _index_fault(file: TableFile, text: str, rows: pl.DataFrame, images: pl.DataFrame) -> Fault:
    first = rows.head(MAX_IMAGES).select("image_id")
    named = first.join(images, on="image_id", how="left", maintain_order="left")
    return file.fault("changed", text, len(rows), named["path"].drop_nulls().to_list())


def _read_index(group: FileGroup, part: Part, broken: list[Fault]) -> list[pa.Table] | None:
    """Read a file of the index; None if some of it cannot be read."""
    before = len(broken)
    rows = list(read_row_groups(TableFile(group.root, "index", part), broken))
    unreadable = any(fault.kind in UNREADABLE_KINDS for fault in broken[before:])
    return None if unreadable or not rows else rows


def _check_index(
    group: FileGroup,
    stored: Mapping[str, list[pa.Table] | None],
    expected: Mapping[str, list[pa.Table]],
    images: pl.DataFrame,
) -> Iterator[Fault]:
    images_file = TableFile(group.root, "images", group.images[0])
    for rule in group.rules:
        if rule not in group.index_files:
            text = f"the index has no keys of rule {rule}"
            partition = {"rule": rule, **images_file.part.partition}
            yield Fault("missing", text, "index", "", partition, len(images), images["path"][:MAX_IMAGES].to_list())
    for rule, rows in stored.items():
        if rows is not None:
            file = TableFile(group.root, "index", group.index_files[rule])
            yield from compare_index(file, rows, expected.get(rule, ()), images_file, images)


def _check_images(file: TableFile, rows: pa.Table, expected: Mapping[str, list[pa.Table]]) -> list[Fault]:
    """Compare a row group with its hashes, and append its index rows to `expected`."""
    shapes = np.stack([rows[name].to_numpy() for name in _SHAPE], axis=1).astype(np.int64)
    odd = (shapes <= 0).any(axis=1) | (_lengths(rows) != shapes.prod(axis=1))
    faults: list[Fault] = []
    if odd.any():
        # Rows of another shape than their pixels cannot be hashed; the others are hashed without index keys.
        faults.append(_fault(file, rows, odd, "the shape is not that of the pixels"))
        rows, expected = rows.filter(pa.array(~odd)).combine_chunks(), {}
    checked: list[pa.Table] = []
    masks: list[dict[str, NDArray[np.bool_]]] = []
    for run, pixels in runs_of_one_shape(rows):
        checked.append(run)
        masks.append(_wrong_hashes(file, run, pixels))
        for rule, tables in expected.items():
            tables.append(index_images(parse_rule(rule), run, pixels))
    return faults + (list(_hash_faults(file, rows, masks)) if checked else [])


def _wrong_hashes(file: TableFile, rows: pa.Table, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """Return, by the text of a fault, which images of one shape have it."""
    partition = file.part.partition
    ids = to_binary(image_ids(partition["dataset"], partition["split"], rows["path"].to_pylist()))
    hashes = to_binary(content_hashes(pixels))
    sums, squares = map(pa.array, pixel_sums(pixels))
    expected = {
        "the pixels do not match their content_hash": {"content_hash": hashes},
        "the path does not match its image_id": {"image_id": ids},
        "the pixels do not match their sums": {"pixel_sum": sums, "pixel_squares": squares},
    }
    masks = {text: _differ(rows, columns) for text, columns in expected.items()}
    return {**masks, "the file_digest is not 32 bytes long": _has_odd_digest(rows)}


def _hash_faults(file: TableFile, rows: pa.Table, masks: Sequence[Mapping[str, NDArray[np.bool_]]]) -> Iterator[Fault]:
    """Make one fault for each text, of the images that no text before has; the masks are those of the rows' runs."""
    listed = np.zeros(len(rows), dtype=bool)
    for text in masks[0]:
        new = np.concatenate([of_run[text] for of_run in masks]) & ~listed
        listed |= new
        if new.any():
            yield _fault(file, rows, new, text)


def _image_columns(rows: pa.Table) -> pa.Table:
    """Select what checks of originals need; files of imagelake 0.5 have no digests."""
    named = rows.select([*_IMAGE_COLUMNS, "file_size"])
    digests = rows["file_digest"] if "file_digest" in rows.column_names else pa.nulls(len(rows), pa.binary())
    return named.append_column("file_digest", digests)


def _check_originals(
    file: TableFile, images: pl.DataFrame | None, broken: list[Fault], references: list[pl.DataFrame]
) -> Iterator[Fault]:
    """Hash every original again, and compare the rows of the shard with its images.

    Args:
        file: the file of originals.
        images: columns image_id, path, file_digest and file_size of all images of the shard; None if they are damaged.
        broken: faults of the file are appended here.
        references: the rows with a location are appended here, with the path and the size of their file.
    """
    before = len(broken)
    found: list[pl.DataFrame] = []
    wrong: list[pl.DataFrame] = []
    for rows in read_row_groups(file, broken):
        listed = pl.DataFrame(rows.select(["image_id", "file_digest", "location"]))
        wrong.append(listed.filter(pl.Series(_digests_differ(rows), dtype=pl.Boolean)))
        found.append(listed)
    paths = pl.DataFrame(schema=_NO_IMAGES) if images is None else images
    stored = pl.concat(found) if found else pl.DataFrame(schema=_NO_ORIGINALS)
    sizes = paths.select("image_id", "path", "file_size")
    # Without the images nothing is known of the files.
    references.append(stored.drop_nulls("location").join(sizes, on="image_id", maintain_order="left"))
    faults = {"the bytes do not match their file_digest": pl.concat(wrong)} if wrong else {}
    if images is not None and not any(fault.kind in UNREADABLE_KINDS for fault in broken[before:]):
        both = stored.join(images, on="image_id", suffix="_of_image")
        faults["the file_digest is not that of the image"] = both.filter(
            ~pl.col("file_digest").eq_missing(pl.col("file_digest_of_image"))
        )
        faults["images have no original"] = images.join(stored, on="image_id", how="anti")
        faults["has images twice"] = stored.filter(pl.col("image_id").is_duplicated())
        faults["has originals of images that its shard does not have"] = stored.join(images, on="image_id", how="anti")
    for text, damaged in faults.items():
        if len(damaged):
            named = damaged.head(MAX_IMAGES).select("image_id").join(paths, on="image_id", maintain_order="left")
            yield file.fault("changed", text, len(damaged), named["path"].to_list())


def _digests_differ(rows: pa.Table) -> NDArray[np.bool_]:
    """Find originals whose bytes do not have their digest; where the bytes are not stored, its length is checked."""
    stored = zip(rows["bytes"].chunk(0), rows["file_digest"].to_pylist(), strict=True)
    return np.array(
        [
            digest != file_digest(memoryview(data.as_buffer())) if data.is_valid else len(digest) != _DIGEST_BYTES
            for data, digest in stored
        ],
        dtype=bool,
    )


def _differ(rows: pa.Table, columns: Mapping[str, pa.Array]) -> NDArray[np.bool_]:
    wrong = np.zeros(len(rows), dtype=bool)
    for name, values in columns.items():
        if not rows[name].chunk(0).equals(values):
            wrong |= pc.not_equal(rows[name].chunk(0), values).to_numpy(zero_copy_only=False)
    return wrong


def _has_odd_digest(rows: pa.Table) -> NDArray[np.bool_]:
    """Find digests of a wrong length. Files of imagelake 0.5 have no such column, and a digest may be null."""
    if "file_digest" not in rows.column_names:
        return np.zeros(len(rows), dtype=bool)
    odd: NDArray[np.bool_] = (
        pc.not_equal(pc.binary_length(rows["file_digest"]), _DIGEST_BYTES).fill_null(fill_value=False).to_numpy()
    )
    return odd


def _fault(file: TableFile, rows: pa.Table, wrong: NDArray[np.bool_], text: str) -> Fault:
    paths = rows["path"].filter(pa.array(wrong))[:MAX_IMAGES].to_pylist()
    return file.fault("changed", text, int(wrong.sum()), paths)


def _lengths(rows: pa.Table) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pc.binary_length(rows["pixels"]).to_numpy().astype(np.int64)
    return lengths

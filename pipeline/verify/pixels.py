"""Hash every pixel row of a shard again, and from the same bytes its image_id and its keys in the index.

Hold the index of a shard against what its pixels give.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.arrow_binary import from_binary, to_binary
from pipeline.dedup.index import index_table, sort_index
from pipeline.dedup.rules import parse_rule
from pipeline.hashing import content_hashes, image_ids, pixel_sums
from pipeline.lake.parquet_writer import Part
from pipeline.verify.faults import MOST, UNREAD, Fault
from pipeline.verify.parquet_file import Named, read_through

# What the index holds of an image, but for its label.
_HELD = ("bucket", "key", "signature", "vector")


def compare_index(
    file: Named, held: Sequence[pa.Table], made: Sequence[pa.Table], images: Named, known: pl.DataFrame
) -> Iterator[Fault]:
    """Compare a file of the index with the rows that the images give, in every value and in their order.

    Args:
        file: the file.
        held: its row groups.
        made: what the images give; no tables where that cannot be told, as of the user's vectors.
        images: the file of the images.
        known: columns image_id, path and label of all of them.

    Yields:
        What is wrong: entries that are missing, wrong or of no image; labels that are not those of the images.
    """
    found = pa.concat_tables(held) if held else sort_index(list(made)[:0]) if made else None
    if found is None or (made and found.equals(sort_index(list(made)))):
        return
    rows = pl.DataFrame(found)
    expected = pl.DataFrame(pa.concat_tables(made)) if made else known
    both = rows.join(expected, on="image_id", suffix="_made")
    same = [pl.col(name).eq_missing(pl.col(f"{name}_made")) for name in _HELD] if made else [pl.lit(value=True)]
    wrong = {
        "has no keys of images": expected.join(rows, on="image_id", how="anti"),
        "has wrong keys": both.filter(~pl.all_horizontal(same)),
        "has images twice": rows.filter(pl.col("image_id").is_duplicated()),
    }
    faults = [_index_fault(file, text, hurt, known) for text, hurt in wrong.items() if len(hurt)]
    extra = len(rows.join(expected, on="image_id", how="anti"))
    faults += [file.fault("changed", "has keys of what is no image of its shard", extra)] if extra else []
    # Which of the two is right cannot be told: reading the images again makes both anew.
    other = both.filter(~pl.col("label").eq_missing(pl.col("label_made")))
    faults += [_index_fault(images, "its labels are not those of the index", other, known)] if len(other) else []
    yield from faults or ([file.fault("changed", "its rows are not in their order", len(rows))] if made else [])


def _index_fault(file: Named, text: str, rows: pl.DataFrame, known: pl.DataFrame) -> Fault:
    named = rows.head(MOST).select("image_id").join(known, on="image_id", how="left", maintain_order="left")
    return file.fault("changed", text, len(rows), named["path"].drop_nulls().to_list())


_SHAPE = ("height", "width", "channels")
_KNOWN = ("image_id", "path", "label")


class Files(NamedTuple):
    """Files to be checked together, by one worker: those of a shard, or one of another table.

    Attributes:
        root: the lake's place.
        images: the images of a shard; none where the files are of another table.
        keys: by rule, its file of the index.
        others: files of other tables.
        rules: rules that read pixels and that the index has: each image must have keys of all.
    """

    root: str
    images: Sequence[Part] = ()
    keys: Mapping[str, Part] = {}
    others: Sequence[Named] = ()
    rules: Sequence[str] = ()


class Checked(NamedTuple):
    """What came of checking some files.

    Attributes:
        files: how many they are.
        images: images that were hashed.
        broken: what keeps files from being read, or from being what their commit says.
        wrong: values that are not what they were made from.
    """

    files: int
    images: int
    broken: Sequence[Fault]
    wrong: Sequence[Fault]


def check_files(files: Files) -> Checked:
    """Read files through, and where they are of a shard, hash its pixels again; runs in a worker.

    One row group is held at a time, and of a shard its ids and keys.
    """
    broken: list[Fault] = []
    wrong: list[Fault] = []
    for other in files.others:
        for _ in read_through(other, broken):
            pass
    made: dict[str, list[pa.Table]] = {rule: [] for rule in files.rules}
    known: list[pa.Table] = []
    for part in files.images:
        named = Named(files.root, "images", part)
        for rows in read_through(named, broken):
            wrong += _check_group(named, rows, made)
            known.append(rows.select(_KNOWN))
    hurt = bool(wrong) or any(fault.table == "images" and fault.kind in UNREAD for fault in broken)
    held = {rule: _index_of(files, part, broken) for rule, part in files.keys.items()}
    if files.images and not hurt:
        wrong += _check_index(files, held, made, pl.DataFrame(pa.concat_tables(known)))
    count = len(files.images) + len(files.keys) + len(files.others)
    return Checked(count, sum(map(len, known)), broken, wrong)


def _index_of(files: Files, part: Part, broken: list[Fault]) -> list[pa.Table] | None:
    """Read a file of the index; None where not all of it can be read."""
    before = len(broken)
    rows = list(read_through(Named(files.root, "index", part), broken))
    return None if any(fault.kind in UNREAD for fault in broken[before:]) else rows


def _check_index(
    files: Files, held: Mapping[str, list[pa.Table] | None], made: Mapping[str, list[pa.Table]], known: pl.DataFrame
) -> Iterator[Fault]:
    images = Named(files.root, "images", files.images[0])
    for rule in files.rules:
        if rule not in files.keys:
            text = f"the index has no keys of rule {rule}"
            partition = {"rule": rule, **images.part.partition}
            yield Fault("missing", text, "index", "", partition, len(known), known["path"][:MOST].to_list())
    for rule, rows in held.items():
        if rows is not None:
            yield from compare_index(
                Named(files.root, "index", files.keys[rule]), rows, made.get(rule, ()), images, known
            )


def _check_group(file: Named, rows: pa.Table, made: Mapping[str, list[pa.Table]]) -> list[Fault]:
    """Hold a row group against its hashes; its keys are added to what is made."""
    shapes = np.stack([rows[name].to_numpy() for name in _SHAPE], axis=1).astype(np.int64)
    shape = _most_common(shapes)
    odd = (shapes != shape).any(axis=1) | (_lengths(rows) != prod(shape))
    if odd.any():
        # A row group is of one shape: what is not cannot be hashed, and what is, is hashed without keys.
        fault = _fault(file, rows, odd, "the shape is not that of the pixels")
        rows = rows.filter(pa.array(~odd)).combine_chunks()
        return [fault, *(_check_group(file, rows, {}) if len(rows) else [])]
    pixels = from_binary(rows["pixels"].chunk(0), prod(shape)).reshape(len(rows), *shape)
    faults = list(_changed(file, rows, pixels))
    for rule, tables in made.items():
        tables.append(index_table(parse_rule(rule), rows["image_id"].chunk(0), rows["label"].chunk(0), pixels))
    return faults


def _changed(file: Named, rows: pa.Table, pixels: NDArray[np.uint8]) -> Iterator[Fault]:
    partition = file.part.partition
    ids = to_binary(image_ids(partition["dataset"], partition["split"], rows["path"].to_pylist()))
    hashes = to_binary(content_hashes(pixels))
    sums, squares = map(pa.array, pixel_sums(pixels))
    made = {
        "the pixels do not match their content_hash": {"content_hash": hashes},
        "the path does not match its image_id": {"image_id": ids},
        "the pixels do not match their sums": {"pixel_sum": sums, "pixel_squares": squares},
    }
    told = np.zeros(len(rows), dtype=bool)
    for text, columns in made.items():
        wrong = np.zeros(len(rows), dtype=bool)
        for name, values in columns.items():
            if not rows[name].chunk(0).equals(values):
                wrong |= pc.not_equal(rows[name].chunk(0), values).to_numpy(zero_copy_only=False)
        new = wrong & ~told
        told |= wrong
        if new.any():
            yield _fault(file, rows, new, text)


def _fault(file: Named, rows: pa.Table, hurt: NDArray[np.bool_], text: str) -> Fault:
    return file.fault("changed", text, int(hurt.sum()), rows["path"].filter(pa.array(hurt))[:MOST].to_pylist())


def _lengths(rows: pa.Table) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pc.binary_length(rows["pixels"]).to_numpy().astype(np.int64)
    return lengths


def _most_common(shapes: NDArray[np.int64]) -> tuple[int, ...]:
    if (shapes == shapes[0]).all():
        return tuple(map(int, shapes[0]))
    found, counts = np.unique(shapes, axis=0, return_counts=True)
    return tuple(map(int, found[counts.argmax()]))

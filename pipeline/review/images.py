"""Find single images by path or id, read them, and write them as PNG files."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import storage
from pipeline.arrays.exports.imagefolder import UNLABELLED, folder_names
from pipeline.arrays.exports.selection import Chunk, encode_chunk, locate_role, read_chunks
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.sources.source import readable_name
from pipeline.storage.atomic import atomic_file

_ID = re.compile(r"[0-9a-fA-F]{32}")
_FACTS = ["dataset", "split", "path", "label", "height", "width", "channels", "image_id"]
# Pixels that are read at a time.
_CHUNK_BYTES = 2**26
_EXAMPLES = 3


class FoundImages(NamedTuple):
    """Images that were found by path or id.

    Attributes:
        release: the release.
        rows: columns item (what was searched for), dataset, split, path, label, height, width, channels, image_id, and
            roles: a list of split_name, role, kept, dropped_by and reason, sorted by split_name; and attributes: a list
            of name and value, sorted. In the order of the items; a path that several sources have is several rows,
            ordered by dataset and split. Every image once.
    """

    release: int
    rows: pl.DataFrame


def find_images(
    lake: Lake, items: Sequence[str], *, dataset: str | None = None, split: str | None = None
) -> FoundImages:
    """Find images by their path in the source, or by their id. Reads no pixels.

    Args:
        lake: the lake of a release.
        items: paths, such as "A/1.png", or "0" for the first row of a CSV file; or ids of 32 hexadecimal digits.
        dataset: only images of this dataset.
        split: only images of this split of the sources.

    Raises:
        LakeError: no image has such a path or id. The message says whether the file was rejected, and gives the nearest
            paths.
    """
    wanted = pl.DataFrame({"item": [readable_name(item) for item in dict.fromkeys(items)]}).with_row_index("place")
    ids = wanted.filter(pl.col("item").str.contains(f"^{_ID.pattern}$")).with_columns(
        image_id=pl.col("item").str.to_lowercase().str.decode("hex")
    )
    images = lake.scan("images").select(_FACTS)
    if dataset is not None:
        images = images.filter(pl.col("dataset") == readable_name(dataset))
    if split is not None:
        images = images.filter(pl.col("split") == readable_name(split))
    has_path = pl.col("path").is_in(wanted["item"].implode())
    rows = images.filter(has_path | pl.col("image_id").is_in(ids["image_id"].implode())).collect()
    by_path = rows.join(wanted, left_on="path", right_on="item", coalesce=False)
    found = pl.concat([by_path, rows.join(ids, on="image_id")], how="diagonal")
    missing = wanted.join(found, on="place", how="anti", maintain_order="left")["item"].to_list()
    if missing:
        _raise_not_found(lake, missing, dataset, split)
    rows = found.sort("place", "dataset", "split", "path", "image_id").unique(
        "image_id", keep="first", maintain_order=True
    )
    rows = _with_attributes(lake, _with_roles(lake, rows))
    return FoundImages(lake.release, rows.select("item", *_FACTS, "roles", "attributes"))


def read_found(lake: Lake, found: FoundImages) -> Iterator[tuple[Chunk, int]]:
    """Read the pixels of found images, in their order; files that are damaged are an error.

    Yields:
        Consecutive images, at most 64 MiB of pixels or one image, and the position of the first of them.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """
    role = locate_role("found", found.rows, lake.snapshot.file_places("images"))
    return ((chunk, chunk.start) for chunk in read_chunks(role, _CHUNK_BYTES))


def first_pictures(lake: Lake, found: FoundImages, count: int) -> list[NDArray[np.uint8]]:
    """Read the first of the found images: (height, width) for gray, (height, width, 3) for RGB."""
    few = found._replace(rows=found.rows.head(count))
    return [picture for chunk, _ in read_found(lake, few) for picture in chunk.images.pictures()]


def write_pngs(lake: Lake, found: FoundImages, folder: str) -> list[str]:
    """Write found images as PNG files LABEL-IMAGE_ID.png; in LABEL, unusual characters are %XX.

    Args:
        lake: the lake of the release.
        found: what to write.
        folder: it is created if it does not exist; files of the same names are replaced.

    Returns:
        The files, in the order of `found`.

    Raises:
        LakeError: the folder cannot be written to.
        DamagedLakeError: a file of the lake is missing or damaged.
        DiskFullError: no space is left.
    """
    if storage.is_bucket(folder):
        raise LakeError(f"{folder}: pictures cannot be written to a bucket. Name a folder on this machine.")
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LakeError(f"{folder}: cannot be written to ({error.strerror}). Name another folder.") from error
    names = folder_names(found.rows["label"].drop_nulls().unique().sort())
    files = [
        target / f"{UNLABELLED if label is None else names[label]}-{image_id.hex()}.png"
        for label, image_id in found.rows.select("label", "image_id").iter_rows()
    ]
    for chunk, start in read_found(lake, found):
        for file, data in zip(files[start : chunk.stop], encode_chunk(chunk), strict=True):
            with atomic_file(file, "the picture") as draft:
                draft.write_bytes(data)
    return [str(file) for file in files]


def _with_roles(lake: Lake, rows: pl.DataFrame) -> pl.DataFrame:
    facts = ["split_name", "role", "kept", "dropped_by", "reason"]
    roles = (
        lake.scan("splits")
        .filter(pl.col("image_id").is_in(rows["image_id"].implode()))
        .sort("split_name")
        .group_by("image_id", maintain_order=True)
        .agg(roles=pl.struct(facts))
        .collect()
    )
    return rows.join(roles, on="image_id", how="left", maintain_order="left").with_columns(
        pl.col("roles").fill_null([])
    )


def _with_attributes(lake: Lake, rows: pl.DataFrame) -> pl.DataFrame:
    attributes = (
        lake.scan("attributes")
        .filter(pl.col("image_id").is_in(rows["image_id"].implode()))
        .sort("name", "value")
        .group_by("image_id", maintain_order=True)
        .agg(attributes=pl.struct("name", "value"))
        .collect()
    )
    return rows.join(attributes, on="image_id", how="left", maintain_order="left").with_columns(
        pl.col("attributes").fill_null([])
    )


def _raise_not_found(lake: Lake, missing: list[str], dataset: str | None, split: str | None) -> NoReturn:
    item = missing[0]
    filters = [f"dataset '{dataset}'"] if dataset is not None else []
    filters += [f"split '{split}'"] if split is not None else []
    where = f" in {' and '.join(filters)}" if filters else ""
    others = f", and none for {len(missing) - 1:,} more" if len(missing) > 1 else ""
    raise LakeError(f"{lake.root} has no image with the path or id '{item}'{where}{others}{_hint(lake, item)}")


def _hint(lake: Lake, item: str) -> str:
    """Say where else the item is: in another source, among the rejects, or as the end of a path."""
    images, source = lake.scan("images"), pl.format("{}/{}", "dataset", "split")
    elsewhere = images.filter(pl.col("path") == item).select(source).unique().collect().to_series().sort()
    if len(elsewhere):
        return f". These sources have it: {', '.join(elsewhere)}."
    rejected = lake.scan("rejects").filter(pl.col("path") == item).sort("dataset", "split").head(1).collect()
    if len(rejected):
        row = rejected.row(0, named=True)
        return f": {row['dataset']}/{row['split']} has this file as a reject, {row['reason']}: {row['detail']}."
    # The path of a file on disk starts with folders above the source; that of an archive may have more folders.
    end = f"/{item.removeprefix('./').lstrip('/')}"
    inner = pl.format("/{}", "path")
    like = images.filter(inner.str.ends_with(end) | pl.lit(end).str.ends_with(inner)).select("path").unique()
    near = like.sort("path").head(_EXAMPLES).collect().to_series()
    if len(near):
        return f"; did you mean {' or '.join(repr(path) for path in near)}?"
    first = images.select("path").head(1).collect().to_series().to_list()
    example = f", which are like '{first[0]}'" if first else ""
    return f'. List the paths{example}: imagelake sql {lake.root} "from images"'

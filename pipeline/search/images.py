"""Find images of a lake by path, id or digest."""

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import polars as pl

from pipeline.errors import LakeError
from pipeline.lake.reads import check_tables, check_values, explain_failures
from pipeline.search.tables import Tables
from pipeline.sources.source import readable_name

# By number of hexadecimal digits, the columns in which an item is searched for besides `path`.
_DIGITS = {32: ("image_id", "content_hash"), 64: ("file_digest",)}
_FACTS = ["dataset", "split", "path", "label", "height", "width", "channels", "image_id"]
_ROLE, _ATTRIBUTE = ["split_name", "role", "kept", "dropped_by", "reason"], ["name", "value"]
# Paths that an error names.
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


@explain_failures
def find_images(
    lake: Tables, items: Sequence[str], *, dataset: str | None = None, split: str | None = None
) -> FoundImages:
    """Find images by their path in the source, by their id, or by a digest. Reads no pixels.

    Args:
        lake: the lake of a release.
        items: paths, such as "A/1.png", or "0" for the first row of a CSV file; ids or content hashes of 32 hexadecimal
            digits; SHA-256 digests of files, of 64.
        dataset: only images of this dataset.
        split: only images of this split of the sources.

    Raises:
        LakeError: no image has such a path, id or digest. The message says whether the file was rejected, and gives the
            nearest paths.
        DamagedLakeError: a file of the lake is missing or damaged.
    """
    check_tables(lake.snapshot, "rejects", "splits", "attributes")
    rows, missing = locate_images(lake, items, dataset=dataset, split=split)
    if missing:
        raise_not_found(lake, missing, dataset, split)
    rows = _with_lists(lake, rows, "splits", "roles", _ROLE, ["split_name"])
    rows = _with_lists(lake, rows, "attributes", "attributes", _ATTRIBUTE, _ATTRIBUTE)
    return FoundImages(lake.release, rows.select("item", *_FACTS, "roles", "attributes"))


def locate_images(
    lake: Tables,
    items: Sequence[str],
    *,
    dataset: str | None = None,
    split: str | None = None,
    facts: Sequence[str] = _FACTS,
) -> tuple[pl.DataFrame, list[str]]:
    """Find images as `find_images` does, without roles and attributes.

    Args:
        lake: the lake of a release.
        items: paths, ids or digests.
        dataset: only images of this dataset.
        split: only images of this split of the sources.
        facts: columns of the images table to read, image_id, path, dataset and split among them.

    Returns:
        The column item and the facts, in the order of the items, and the items that no image has.
    """
    wanted = pl.DataFrame({"item": [stored_name(item) for item in dict.fromkeys(items)]}).with_row_index("place")
    images = lake.scan("images")
    if dataset is not None:
        images = images.filter(pl.col("dataset") == stored_name(dataset))
    if split is not None:
        images = images.filter(pl.col("split") == stored_name(split))
    # By column, what is searched for in it.
    searched = {"path": wanted}
    for digits, columns in _DIGITS.items():
        of_length = wanted.filter(pl.col("item").str.contains(f"^[0-9a-fA-F]{{{digits}}}$"))
        if len(of_length):
            digests = of_length.with_columns(key=pl.col("item").str.to_lowercase().str.decode("hex"))
            searched |= dict.fromkeys(columns, digests)
    keyed = {name: rows.rename({"item": name} if name == "path" else {"key": name}) for name, rows in searched.items()}
    check_values(lake.snapshot, "images", [*facts, *keyed])
    conditions = [pl.col(name).is_in(rows[name].implode()) for name, rows in keyed.items()]
    rows = images.filter(pl.any_horizontal(conditions)).select({*facts, *keyed}).collect()
    parts = [rows.join(of.select("place", name), on=name).select("place", *facts) for name, of in keyed.items()]
    found = pl.concat(parts).join(wanted, on="place").sort("place", "dataset", "split", "path", "image_id")
    missing = wanted.join(found, on="place", how="anti", maintain_order="left")["item"].to_list()
    return found.unique("image_id", keep="first", maintain_order=True).select("item", *facts), missing


def stored_name(item: str) -> str:
    """Write an item as paths are stored; half of a surrogate pair, which no path has, as an escape."""
    return readable_name(re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda half: ascii(half[0])[1:-1], item))


def _with_lists(  # noqa: PLR0913, PLR0917 - what to read, and how to order it
    lake: Tables, rows: pl.DataFrame, table: str, name: str, columns: list[str], order: list[str]
) -> pl.DataFrame:
    """Add a column `name`: by image, the list of its rows in a table, of some columns and in order."""
    lists = (
        lake.scan(table)
        .filter(pl.col("image_id").is_in(rows["image_id"].implode()))
        .sort(order)
        .group_by("image_id", maintain_order=True)
        .agg(pl.struct(columns).alias(name))
        .collect()
    )
    return rows.join(lists, on="image_id", how="left", maintain_order="left").with_columns(pl.col(name).fill_null([]))


def raise_not_found(lake: Tables, missing: list[str], dataset: str | None, split: str | None) -> NoReturn:
    """Raise the error for items that no image has; it gives the nearest paths."""
    item = missing[0]
    filters = [f"dataset '{dataset}'"] if dataset is not None else []
    filters += [f"split '{split}'"] if split is not None else []
    where = f" in {' and '.join(filters)}" if filters else ""
    others = f", and none for {len(missing) - 1:,} more" if len(missing) > 1 else ""
    raise LakeError(f"{lake.root} has no image with the path, id or digest '{item}'{where}{others}{_hint(lake, item)}")


def _hint(lake: Tables, item: str) -> str:
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

"""Hash every pixel row again, and from the same bytes its image_id and its keys in the index."""

from collections.abc import Iterator, Sequence
from math import prod
from urllib.parse import unquote

import polars as pl
import pyarrow as pa

from pipeline import storage
from pipeline.dedup.index import index_table
from pipeline.dedup.rules import parse_rule
from pipeline.flow.embed import name_of
from pipeline.flow.verify.check import MOST, Check
from pipeline.handle import Lake
from pipeline.hashing import content_hashes, image_ids, pixel_sums
from pipeline.lake.reading import file_names
from pipeline.rows import from_binary, to_binary

_KEYS = ("rule", "image_id", "key", "signature", "vector")
# Of a vector, a hash is kept.
_KEPT = ("rule", "image_id", "key", "signature", pl.col("vector").hash())


def pixels_hash(lake: Lake) -> Check:
    """Read every pixel once, a row group at a time; only ids and keys are kept."""
    index = lake.scan("index").select(_KEPT).collect()
    rules = [rule for rule in index["rule"].unique().sort().to_list() if name_of(rule) is None]
    index = index.filter(pl.col("rule").is_in(rules))
    checked, faults, keys = 0, list[str](), [index.clear()]
    for name in file_names(lake.root, "images", lake.versions["images"]):
        try:
            for rows in _row_groups(name):
                wrong, found = _check_group(name, rows, rules)
                faults += wrong
                keys += found
                checked += len(rows)
        except (OSError, ValueError, pa.ArrowException) as error:
            faults.append(f"{name}: cannot be read ({' '.join(str(error).split())[:200]})")
    return Check("pixels, ids and index keys match their hashes", checked, faults + _compare(index, pl.concat(keys)))


def _row_groups(name: str) -> Iterator[pa.Table]:
    with storage.open_parquet(name) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group).combine_chunks()


def _check_group(name: str, rows: pa.Table, rules: Sequence[str]) -> tuple[list[str], list[pl.DataFrame]]:
    dataset, split = (unquote(part.split("=", 1)[1]) for part in name.split("/")[-4:-2])
    shape = tuple(rows[column][0].as_py() for column in ("height", "width", "channels"))
    pixels = from_binary(rows["pixels"].chunk(0), prod(shape)).reshape(len(rows), *shape)
    ids = pl.Series(to_binary(image_ids(dataset, split, rows["path"].to_pylist())))
    hashes = pl.Series(to_binary(content_hashes(pixels)))
    sums, squares = map(pl.Series, pixel_sums(pixels))
    wrong = (
        (hashes != pl.Series(rows["content_hash"]))
        | (ids != pl.Series(rows["image_id"]))
        | (sums != pl.Series(rows["pixel_sum"]))
        | (squares != pl.Series(rows["pixel_squares"]))
    )
    paths = pl.Series(rows["path"]).filter(wrong).head(MOST)
    keys = [
        pl.DataFrame(index_table(parse_rule(rule), rows["image_id"].chunk(0), rows["label"].chunk(0), pixels))
        .with_columns(rule=pl.lit(rule))
        .select(_KEPT)
        for rule in rules
    ]
    return [f"{name}: {path}: the pixels or the path do not match their hash or sums" for path in paths], keys


def _compare(index: pl.DataFrame, keys: pl.DataFrame) -> list[str]:
    lost = keys.join(index, on=_KEYS, how="anti", nulls_equal=True).group_by("rule").len().sort("rule").rows()
    extra = index.join(keys, on=_KEYS, how="anti", nulls_equal=True).group_by("rule").len().sort("rule").rows()
    return [f"index of rule {rule}: {count} keys are missing or wrong" for rule, count in lost] + [
        f"index of rule {rule}: {count} keys belong to no image" for rule, count in extra
    ]

"""Check at rest what a lake promises: hash its pixels again, and hold it against its laws."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq

import schemas
from pipeline.arrays.gather import column_as_array
from pipeline.dedup.clusters import cluster_by_keys
from pipeline.dedup.index import index_table
from pipeline.dedup.rules import parse_rule
from pipeline.handle import Lake
from pipeline.hashing import content_hashes, image_ids
from pipeline.lake.commits import read_meta
from pipeline.lake.reading import file_names, polars_schema
from pipeline.rows import to_binary

_MOST = 5


class Check(NamedTuple):
    """One thing that was checked: how many rows, and what is wrong, worst first, at most a few lines."""

    name: str
    checked: int
    faults: Sequence[str]


def verify(root: str) -> list[Check]:
    """Check the newest release of a lake.

    Reads every table and every pixel, one row group at a time.

    Raises:
        NoReleaseError: the lake has no release.
    """
    lake = Lake(root)
    checks: list[Callable[[Lake], Check]] = [
        _schemas_hold,
        _pixels_hash,
        _every_file_is_counted,
        _ids_are_unique,
        _clusters_follow_from_index,
        _splits_name_images,
        _no_cluster_straddles,
        _drops_have_reasons,
    ]
    return [check(lake) for check in checks]


def _schemas_hold(lake: Lake) -> Check:
    faults = [
        f"{name}: columns differ from the declared schema"
        for name, table in schemas.TABLES.items()
        if lake.scan(name).collect_schema() != polars_schema(table.schema)
    ]
    return Check("tables have their declared columns", len(schemas.TABLES), faults)


def _pixels_hash(lake: Lake) -> Check:
    """Hash pixels, ids and index keys again, from the bytes."""
    index = lake.scan("index").select("rule", "image_id", "key", "signature").collect()
    rules = index["rule"].unique().sort().to_list()
    checked, faults, keys = 0, [], []
    for name in file_names(lake.root, "images", lake.versions["images"]):
        partition = dict(part.split("=", 1) for part in name.split("/")[-4:-1])
        with pq.ParquetFile(name) as file:
            for group in range(file.num_row_groups):
                try:
                    rows = file.read_row_group(group)
                    shape = tuple(rows[column][0].as_py() for column in ("height", "width", "channels"))
                    pixels = column_as_array(rows["pixels"].combine_chunks(), shape).reshape(len(rows), *shape)
                except (OSError, ValueError) as error:
                    faults.append(f"{name}: row group {group} cannot be read ({error})")
                    continue
                ids = image_ids(partition["dataset"], partition["split"], rows["path"].to_pylist())
                hashes = pl.Series(to_binary(content_hashes(pixels)))
                wrong = (hashes != pl.Series(rows["content_hash"])) | (
                    pl.Series(to_binary(ids)) != pl.Series(rows["image_id"])
                )
                faults += [
                    f"{name}: {path}: the pixels or path do not match their hash"
                    for path in pl.Series(rows["path"]).filter(wrong).head(_MOST)
                ]
                checked += len(rows)
                labels = rows["label"].combine_chunks()
                keys += [
                    pl.DataFrame(
                        index_table(parse_rule(rule), rows["image_id"].combine_chunks(), labels, pixels)
                    ).select(pl.lit(rule).alias("rule"), "image_id", "key", "signature")
                    for rule in rules
                ]
    if keys:
        lost = pl.concat(keys).join(index, on=index.columns, how="anti")
        faults += [
            f"index of rule {rule}: {count} keys are missing or wrong"
            for rule, count in lost.group_by("rule").len().sort("rule").rows()
        ]
        if (extra := len(index) - sum(map(len, keys))) > 0:
            faults.append(f"index: {extra} keys belong to no image")
    return Check("pixels, ids and index keys match their hashes", checked, faults)


def _every_file_is_counted(lake: Lake) -> Check:
    key = ["dataset", "split", "shard"]
    shards = lake.scan("shards").collect()
    images = lake.scan("images").group_by(key).agg(images=pl.len()).collect()
    rejects = lake.scan("rejects").group_by(key).agg(files=pl.len()).collect()
    both = shards.join(images, on=key, how="full", coalesce=True).join(rejects, on=key, how="full", coalesce=True)
    wrong = both.with_columns(pl.col("rows", "rejects", "images", "files").fill_null(0)).filter(
        (pl.col("rows") != pl.col("images")) | (pl.col("rejects") != pl.col("files"))
    )
    faults = [
        f"{d}/{s} shard {shard}: counts of images and rejects differ from its row"
        for d, s, shard in wrong.select(key).head(_MOST).rows()
    ]
    return Check(
        "every file is one image or one reject",
        int(shards.select(pl.sum("rows") + pl.sum("rejects")).item() or 0),
        faults,
    )


def _ids_are_unique(lake: Lake) -> Check:
    ids = lake.scan("images").select("image_id").collect().to_series()
    twice = len(ids) - ids.n_unique()
    return Check("image ids are unique", len(ids), [f"{twice} ids occur more than once"] if twice else [])


def _clusters_follow_from_index(lake: Lake) -> Check:
    clusters = lake.scan("clusters").collect()
    same = cluster_by_keys(lake.scan("index")).collect().equals(clusters)
    return Check(
        "clusters follow from the index",
        len(clusters),
        [] if same else ["clusters differ from those of the index"],
    )


def _splits_name_images(lake: Lake) -> Check:
    rows = lake.scan("splits").select("split_name", "role", "rank", "image_id").collect()
    lost = rows.lazy().join(lake.scan("images").select("image_id"), on="image_id", how="anti").collect()
    faults = [
        f"split '{name}': {count} of its images are not in the lake"
        for name, count in lost.group_by("split_name").len().sort("split_name").rows()
    ]
    ranks = rows.group_by("split_name", "role").agg(whole=(pl.col("rank").sort() == pl.int_range(pl.len())).all())
    faults += [
        f"split '{name}': the ranks of {role} have gaps"
        for name, role in ranks.filter(~pl.col("whole")).select("split_name", "role").sort(pl.all()).rows()
    ]
    return Check("splits name images of the lake", len(rows), faults)


def _no_cluster_straddles(lake: Lake) -> Check:
    """Law 4: in a sanitized split no cluster of the chosen rules has kept rows in two roles."""
    specs = {name: unit["spec"] for name, unit in read_meta(lake.root, "splits").units.items()}
    faults = []
    kept = lake.scan("splits").filter("kept").select("split_name", "image_id", "role")
    for name, spec in sorted(specs.items()):
        for rule in spec["sanitize"]:
            over = (
                lake.scan("clusters")
                .filter(pl.col("rule") == rule)
                .join(kept.filter(split_name=name), on="image_id")
                .group_by("cluster_id")
                .agg(roles=pl.col("role").n_unique())
                .filter(pl.col("roles") > 1)
                .collect()
            )
            if len(over):
                faults.append(f"split '{name}': {len(over)} clusters of rule {rule} have kept rows in two roles")
    return Check("no cluster straddles two roles of a sanitized split", len(specs), faults)


def _drops_have_reasons(lake: Lake) -> Check:
    dropped = lake.scan("splits").filter(~pl.col("kept"))
    bare = dropped.filter(pl.col("dropped_by").is_null() | pl.col("dropped_for").is_null())
    count = bare.select(pl.len()).collect().item()
    return Check(
        "every dropped row names its rule and image",
        dropped.select(pl.len()).collect().item(),
        [f"{count} rows do not"] if count else [],
    )

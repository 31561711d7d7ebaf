"""Time and memory of `imagelake diff` and `imagelake check` on a lake of a million images.

    python benchmarks/diff.py [--images 1000000] [--folder FOLDER]

The tables are written directly, with random pixels of 784 bytes an image. Release 2 changes images of a tenth of the
shards, the roles of one image in a hundred, and merges clusters. Release 3 has the same rows as release 2 in new files
of images, as if all sources had been read anew. The numbers of changes are compared with those that were made.
"""

import argparse
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from watched import run

import schemas
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import WRITER_LETTERS, Part, Writer
from pipeline.lake.releases import publish
from pipeline.lake.transaction import Commit, Transaction, all_files, transaction

_PER_SHARD, _PIXELS, _RUNS = 10_000, 784, 3
_IMAGELAKE = (sys.executable, "-m", "imagelake")
_RECIPE = {"base": "/", "file": None, "values": {"source": [{"uri": "x", "dataset": "d", "split": "train"}]}}
_CHECKS = """
[[source]]
uri = "x"
[[check]]
split = "main"
rule = "exact"
overlap = 1_000_000
[[check]]
rule = "exact"
conflicts = 1_000_000
[[check]]
min_per_class = 1
[[check]]
split = "main"
drift = 1.0
"""


def ids(count: int, seed: int, size: int = 16) -> pl.Series:
    """Make random values of `size` bytes."""
    data = np.random.default_rng(seed).bytes(count * size)
    return pl.Series([data[at : at + size] for at in range(0, len(data), size)], dtype=pl.Binary)


def first_release(count: int) -> pl.DataFrame:
    """Make images with their role and cluster: a tenth are in clusters of two."""
    number = pl.Series("number", range(count), dtype=pl.Int64)
    frame = pl.DataFrame({"number": number, "image_id": ids(count, 0), "file_digest": ids(count, 1, 32)})
    clustered = pl.when(pl.col("number") < count // 10)
    return frame.with_columns(
        path=pl.format("{}.png", "number"),
        label=(pl.col("number") % 10).cast(pl.String),
        shard=(pl.col("number") // _PER_SHARD).cast(pl.String),
        role=pl.when(pl.col("number") % 10 < 8).then(pl.lit("train")).otherwise(pl.lit("test")),
        cluster_id=clustered.then(pl.col("image_id").first().over(pl.col("number") // 2)),
    )


def second_release(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Change rows, and count the changes: of every 400 images of the first shards one of each kind."""
    kind = pl.when(pl.col("number") < len(rows) // 10).then(pl.col("number") % 400)
    flips = (pl.col("number") % 100 == 50) & (kind != 300).fill_null(value=True)
    # Every hundredth cluster of the second shards is merged with the one before.
    joins = (pl.col("number") // 2 % 100 == 1) & pl.col("cluster_id").is_not_null()
    before = pl.col("cluster_id").shift(2)
    changed = rows.with_columns(
        image_id=pl.when(kind == 100).then(ids(len(rows), 2)).otherwise("image_id"),
        path=pl.when(kind == 100).then(pl.format("m{}", "path")).otherwise("path"),
        label=pl.when(kind == 0).then(pl.lit("other")).otherwise("label"),
        role=pl.when(flips).then(pl.lit("valid")).otherwise("role"),
        cluster_id=pl.when(joins).then(before).otherwise("cluster_id"),
        kind=kind,
        flips=flips,
        joins=joins,
    )
    made = changed.filter(kind=200)
    added = made.with_columns(ids(len(made), 3).alias("image_id"), ids(len(made), 4, 32).alias("file_digest"))
    counts = {
        **dict.fromkeys(("added", "gone", "relabelled", "moved"), len(made)),
        "changed_role": int(changed["flips"].sum()),
        "clusters_merged": int(changed["joins"].sum()) // 2,
    }
    kept = changed.filter((pl.col("kind") != 300).fill_null(value=True))
    return pl.concat([kept, added.with_columns(pl.format("n{}", "path").alias("path"))]), counts


def image_parts(writer: Writer, rows: pl.DataFrame) -> Iterator[Part]:
    """Write the images of every shard as one file, with random pixels."""
    schema = schemas.TABLES["images"].file_schema
    numbers = {"height": 28, "width": 28, "channels": 1, "pixel_sum": 0, "pixel_squares": 0, "file_size": _PIXELS}
    for (shard,), some in rows.group_by("shard", maintain_order=True):
        full = some.with_columns(
            ids(len(some), 5, _PIXELS).alias("pixels"),
            content_hash="image_id",
            **{name: pl.lit(value) for name, value in numbers.items()},
        )
        partition = {"dataset": "d", "split": "train", "shard": str(shard)}
        yield from writer.write("images", full.select(schema.names).to_arrow().cast(schema), partition)


def commit(lake: Transaction, rows: pl.DataFrame, shards: set[str]) -> None:
    """Commit the images of some shards, and all rows of splits and clusters; publish a release."""
    images = list(image_parts(lake.writer, rows.filter(pl.col("shard").is_in(shards))))
    lake.commit(Commit("images", images, Metadata("sources"), lambda partition: partition["shard"] in shards))
    of_split = {"rank": pl.col("number"), "label_index": None, "kept": True, "split_name": pl.lit("main")}
    of_rule = {"rule": pl.lit("exact"), "dataset": pl.lit("d"), "split": pl.lit("train")}
    for table, values, some, partition in (
        ("splits", of_split, rows, {"split_name": "main"}),
        ("clusters", of_rule, rows.drop_nulls("cluster_id"), {"rule": "exact"}),
    ):
        schema = schemas.TABLES[table].file_schema
        full = some.with_columns(**values, dropped_by=None, dropped_for=None, reason=None)
        parts = lake.writer.write(table, full.select(schema.names).to_arrow().cast(schema), partition)
        lake.commit(Commit(table, parts, Metadata("made", {"exact": {}, "main": {}}), all_files))
    publish(lake, uuid.uuid4().hex, "made", _RECIPE)


def make_lake(root: str, count: int) -> dict[str, int]:
    """Make the three releases; the result is the number of changes from the first to the second."""
    rows = first_release(count)
    after, counts = second_release(rows)
    every = set(rows["shard"])
    few = set(rows["shard"].unique(maintain_order=True).head(max(1, len(every) // 10)))
    with transaction(Writer(root, uuid.uuid4().hex[:WRITER_LETTERS])) as lake:
        commit(lake, rows, every)
        commit(lake, after, few)
        commit(lake, after, every)
    return counts


def measure(title: str, *words: Any) -> str:
    """Run a command several times; print the medians of time, processor time and peak memory; return its output."""
    values, output = [], ""
    for _ in range(_RUNS):
        before = os.times()
        ran = run([*_IMAGELAKE, *map(str, words)])
        after = os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        values.append((ran.seconds, processor, ran.megabytes))
        output = ran.output
    seconds, processor, memory = map(median, zip(*values, strict=True))
    figures = f"{seconds:>8.2f} s {processor:>8.2f} s of processors {memory:>8.0f} MiB"
    print(f"{title:<48}{figures}", flush=True)  # noqa: T201 - the result
    return output


def main() -> None:
    """Make the lake, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as folder:
        root = f"{folder}/lake"
        made = make_lake(root, options.images)
        found = json.loads(measure("diff 1 2: a tenth of the shards changed", "diff", root, 1, 2, "--json"))
        counts = {name: found[name]["count"] for name in made}
        if counts != made:
            raise SystemExit(f"diff counts {counts}, but {made} were made")
        again = json.loads(measure("diff 1 3: every file of images is another", "diff", root, 1, 3, "--json"))
        if {name: again[name] for name in made} != {name: found[name] for name in made}:
            raise SystemExit("diff 1 3 has other rows than diff 1 2")
        measure("diff 2 3: every file is another, and no row", "diff", root, 2, 3)
        measure("diff 3 3: nothing differs", "diff", root, 3, 3)
        (recipe := Path(folder, "checks.toml")).write_text(_CHECKS, encoding="utf-8")
        measure("check: overlap, conflicts, classes and drift", "check", root, "--recipe", recipe)


if __name__ == "__main__":
    main()

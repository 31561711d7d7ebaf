"""Law: the clusters of the rule `file` are the files with equal bytes, and no image without a digest is in one."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from making import as_folder, as_tar, encoded, recipe

from pipeline.builder.build import build
from pipeline.dedup.rules import index_images, parse_rule
from pipeline.engines.local import LocalEngine
from pipeline.errors import RecipeError
from pipeline.lake_handle import Lake
from pipeline.verify import verify

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
FILES = {
    "A/one.jpg": encoded(PICTURE, "JPEG", quality=90),
    "A/other.jpg": encoded(PICTURE, "JPEG", quality=90, comment=b"the same pixels"),
    "A/small.png": encoded(PICTURE),
    "B/copy.jpg": encoded(PICTURE, "JPEG", quality=90),
    "B/copy.png": encoded(PICTURE),
    "B/alone.png": encoded(255 - PICTURE),
}


def clusters(root: str, rule: str) -> list[list[str]]:
    lake = Lake(root)
    paths = lake.scan("images").select("image_id", "path")
    found = lake.scan("clusters").filter(rule=rule).join(paths, on="image_id")
    return found.group_by("cluster_id").agg(pl.col("path").sort()).collect()["path"].sort().to_list()


def test_equal_bytes_are_a_cluster(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", FILES)
    as_tar(tmp_path / "again.tar", {"A/one.jpg": FILES["A/one.jpg"]}, "w")
    sources = ({"uri": "set"}, {"uri": "again.tar", "split": "test"})
    made = recipe(tmp_path, *sources, dedup={"rules": ["file", "exact"]})
    build(made, engine=LocalEngine(1))
    assert clusters(made.root, "file") == [["A/one.jpg", "A/one.jpg", "B/copy.jpg"], ["A/small.png", "B/copy.png"]]
    assert clusters(made.root, "exact")[0] == ["A/one.jpg", "A/one.jpg", "A/other.jpg", "B/copy.jpg"]
    assert [fault for check in verify(made.root) for fault in check.faults] == []
    # A rule that comes later is made from the images of the lake.
    later = recipe(tmp_path, *sources, lake={"root": "later"}, dedup={"rules": ["exact"]})
    build(later, engine=LocalEngine(1))
    build(recipe(tmp_path, *sources, lake={"root": "later"}, dedup={"rules": ["file"]}), engine=LocalEngine(1))
    assert clusters(later.root, "file") == clusters(made.root, "file")


def test_an_image_without_a_digest_is_alone() -> None:
    ids = [bytes([number]) * 16 for number in range(4)]
    pixels = np.zeros((4, 1, 1, 1), np.uint8)
    rows = pa.table({"image_id": ids, "label": pa.nulls(4, pa.string())})
    digests = pa.array([b"a" * 32, None, b"a" * 32, None], pa.binary())
    rule = parse_rule("file")
    keys = [
        list(zip(found["key"].to_pylist(), found["signature"].to_pylist(), strict=True))
        for found in (index_images(rule, one, pixels) for one in (rows, rows.append_column("file_digest", digests)))
    ]
    assert len(set(keys[0])) == 4
    assert keys[1][0] == keys[1][2]
    assert keys[1][1::2] == keys[0][1::2]


def test_the_rule_takes_no_parameter() -> None:
    with pytest.raises(RecipeError, match="rule 'file:sha1': it takes no parameter; write file"):
        parse_rule("file:sha1")

"""Damage to a lake in a bucket is found and repaired as in a folder."""

from pathlib import Path

import numpy as np
import pytest
from damaged_lakes import tables_of
from lakes import files
from making import as_folder, files_of, recipe
from s3 import Bucket

from pipeline import storage
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake.delta_log import DeltaLog
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.repair import repair
from pipeline.verify import verify


def test_a_lake_in_a_bucket_is_checked_and_repaired(tmp_path: Path, lake_bucket: Bucket) -> None:
    as_folder(tmp_path / "in", {**files_of(12), "A/bad.png": b"no image"})
    lake = {"root": f"s3://{lake_bucket.name}/lake"}
    asked = recipe(tmp_path, {"uri": "in"}, lake=lake, dedup={"rules": ["exact", "cosine:0.95"]})
    build(asked, engine=LocalEngine(1))
    before = tables_of(asked.root)
    for table in ("images", "rejects", "shards", "clusters", "releases"):
        for part in files(asked.root, table):
            place = f"{asked.root}/{table}/{part.path}"
            storage.write(place, storage.read(place)[:-40]) if table == "images" else storage.delete([place])
    named = {fault.table: fault.kind for check in verify(asked.root) for fault in check.faults if fault.table}
    assert named == {"images": "unreadable", "rejects": "missing", "shards": "missing", "releases": "missing"}
    assert repair(asked, engine=LocalEngine(1)).still_damaged == ()
    assert [check for check in verify(asked.root) if check.faults] == []
    assert all(rows.equals(before[name]) for name, rows in tables_of(asked.root).items())


@pytest.mark.slow
def test_lost_tables_and_logs_in_a_bucket_are_repaired_as_in_folders(tmp_path: Path, lake_bucket: Bucket) -> None:
    as_folder(tmp_path / "in", {**files_of(12), "A/bad.png": b"no image"})
    # Names of folders above the lake look like partitions.
    root = f"s3://{lake_bucket.name}/split=zzz/a=b/lake"
    split = {"name": "main", "train": {"from": "train"}}
    asked = recipe(tmp_path, {"uri": "in"}, lake={"root": root}, dedup={"rules": ["exact"]}, split=[split])
    build(asked, engine=LocalEngine(1))
    before, labels = tables_of(root), Lake(root).arrays("main", "train")[1]
    storage.delete([f"{root}/clusters/{name}" for name in storage.list_files(f"{root}/clusters")])
    storage.delete([f"{root}/splits/{files(root, 'splits')[0].path}"])
    logs = {table: DeltaLog(root, table).file(Snapshot(root).version(table)) for table in ("images", "rejects")}
    # Delta skips an action that it does not know.
    storage.write(logs["images"], storage.read(logs["images"]).replace(b'{"add"', b'{"xxx"'))
    storage.write(logs["rejects"], storage.read(logs["rejects"])[:40])
    named = {fault.table for check in verify(root) for fault in check.faults if fault.kind != "unchecked"}
    assert named == {"clusters", "splits", "images", "rejects"}
    with pytest.raises(LakeError):
        Lake(root).arrays("main", "train")
    repair(asked, engine=LocalEngine(1))
    assert [fault for check in verify(root) for fault in check.faults] == []
    assert all(rows.equals(before[name]) for name, rows in tables_of(root).items())
    assert np.array_equal(Lake(root).arrays("main", "train")[1], labels)

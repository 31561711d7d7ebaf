from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from lakes import commit, files, list_releases, newest, open_part, publish, read_meta, scan_table, versions, write_part

import schemas
from pipeline.errors import DiskFullError, LakeError, NewerLakeError, NoReleaseError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.releases import release_versions
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum

SCHEMA = schemas.TABLES["clusters"].schema


def rows(*ids: bytes) -> pa.Table:
    made = [
        {"cluster_id": ids[0], "image_id": i, "label": None, "dataset": "d", "split": "s", "rule": "exact"} for i in ids
    ]
    return pa.Table.from_pylist(made, schema=SCHEMA)


def put(root: str, rule: str, *ids: bytes, fingerprint: str = "f") -> int:
    part = write_part(root, "clusters", {"rule": rule}, rows(*ids))
    assert part is not None
    return commit(
        root, "clusters", [part], lambda p: p["rule"] == rule, Metadata("dedup", {rule: {"fingerprint": fingerprint}})
    )


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def test_a_commit_replaces_a_partition_and_leaves_the_others(root: str) -> None:
    put(root, "maxpool:4", b"1", b"2")
    put(root, "exact", b"3")
    put(root, "maxpool:4", b"4")
    found = scan_table(root, "clusters", None).select("rule", "image_id").collect().rows()
    assert found == [("exact", b"3"), ("maxpool:4", b"4")]
    assert scan_table(root, "clusters", 1).select("image_id").collect().to_series().to_list() == [b"1", b"2"]


def test_rows_come_in_the_order_of_partitions_not_of_commits(tmp_path: Path) -> None:
    for name, order in (("a", "xyz"), ("b", "zxy")):
        for rule in order:
            put(str(tmp_path / name), rule, rule.encode())
    a, b = (scan_table(str(tmp_path / name), "clusters", None).collect() for name in "ab")
    assert a.equals(b)


def test_a_commit_says_what_it_stands_for(root: str) -> None:
    assert read_meta(root, "clusters") == Metadata("")
    put(root, "exact", b"1", fingerprint="abc")
    assert read_meta(root, "clusters") == Metadata("dedup", {"exact": {"fingerprint": "abc"}}, {})


def test_plain_delta_readers_see_the_same_rows(root: str) -> None:
    put(root, "maxpool:4", b"1", b"2")
    ours = scan_table(root, "clusters", None).collect()
    assert pl.scan_delta(f"{root}/clusters").select(ours.columns).collect().equals(ours)


def test_a_failed_part_leaves_nothing_behind(root: str) -> None:
    with pytest.raises(ZeroDivisionError), open_part(root, "clusters", {"rule": "exact"}) as writer:  # noqa: PT012 - both lines matter
        writer.write(rows(b"1"))
        _ = 1 / 0
    assert not [path for path in Path(root).rglob("*") if path.is_file()]
    assert files(root, "clusters") == []


def test_a_full_disk_says_so_and_leaves_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(DiskFullError, match="free some space and build again"):
        put(root, "exact", b"1")
    assert not [path for path in Path(root).rglob("*") if path.is_file()]


def test_a_release_is_the_only_thing_readers_see(root: str) -> None:
    put(root, "exact", b"1")
    with pytest.raises(NoReleaseError, match="holds no finished build"):
        Lake(root)
    assert publish(root, "digest", "first", {}) == 1
    put(root, "exact", b"2")
    lake = Lake(root)
    assert lake.release == 1
    assert lake.scan("clusters").collect()["image_id"].to_list() == [b"1"]
    assert publish(root, "digest", "second", {}) == 2
    assert Lake(root).scan("clusters").collect()["image_id"].to_list() == [b"2"]
    assert lake.scan("clusters").collect()["image_id"].to_list() == [b"1"]
    assert Lake(root).at(1).scan("clusters").collect()["image_id"].to_list() == [b"1"]


def test_publishing_twice_commits_once(root: str) -> None:
    put(root, "exact", b"1")
    publish(root, "digest", "first", {})
    before = versions(root)
    assert publish(root, "digest", "again", {}) == 1
    assert versions(root) == before
    assert newest(root) == len(list_releases(root)) == 1


def test_a_release_that_is_not_there(root: str) -> None:
    put(root, "exact", b"1")
    publish(root, "digest", "", {})
    with pytest.raises(NoReleaseError, match=r"no release 7; there is 1. See: imagelake history"):
        release_versions(Snapshot(root), 7)


def test_an_unknown_table_names_the_nearest(root: str) -> None:
    put(root, "exact", b"1")
    publish(root, "digest", "", {})
    with pytest.raises(LakeError, match="Did you mean 'clusters'"):
        Lake(root).scan("cluster")


def test_a_lake_of_a_newer_schema_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "exact", b"1")
    publish(root, "digest", "", {})
    monkeypatch.setattr(schemas, "VERSION", 0)
    with pytest.raises(
        NewerLakeError, match=r"made by a newer imagelake \(schema 5; this one reads up to 0\). Upgrade"
    ):
        Lake(root)


def test_a_damaged_table_names_verify(root: str) -> None:
    put(root, "exact", b"1")
    for log in Path(root, "clusters", "_delta_log").glob("*.json"):
        log.write_text("{ not json")
    with pytest.raises(LakeError, match="imagelake verify"):
        Snapshot(root).open("clusters")


def test_vacuum_keeps_what_a_release_needs_and_commits_nothing(root: str) -> None:
    put(root, "exact", b"1")
    publish(root, "digest", "", {})
    put(root, "exact", b"2")  # never published, replaced below: needed by nobody
    put(root, "exact", b"3")
    publish(root, "digest", "", {})
    stray = Path(root, "images", "stray.parquet")
    stray.write_bytes(b"left by a killed build")
    before = versions(root)
    assert vacuum(root, older_than_hours=24, dry_run=False) == []
    gone = vacuum(root, older_than_hours=0, dry_run=True)
    assert len(gone) == 2
    assert stray.exists()
    assert vacuum(root, older_than_hours=0, dry_run=False) == gone
    assert not stray.exists()
    assert versions(root) == before
    for release, value in ((1, b"1"), (2, b"3")):
        assert Lake(root, release).scan("clusters").collect()["image_id"].to_list() == [value]


def test_the_log_is_never_trimmed_behind_a_release(root: str) -> None:
    put(root, "exact", b"1")
    settings = DeltaTable(f"{root}/clusters").metadata().configuration
    assert settings["delta.enableExpiredLogCleanup"] == "false"

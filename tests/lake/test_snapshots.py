"""A snapshot never changes, whatever is committed meanwhile; a transaction makes the next one."""

import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from lakes import writer_of

import schemas
from pipeline.errors import BusyLakeError, LakeError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.snapshot import MISSING, Snapshot
from pipeline.lake.transaction import Commit, Transaction, transaction

SCHEMA = schemas.TABLES["clusters"].schema


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def change(writer: Writer, rule: str, image: bytes, **units: str) -> Commit:
    row = {"cluster_id": image, "image_id": image, "label": None, "dataset": "d", "split": "s", "rule": rule}
    added = writer.write("clusters", pa.Table.from_pylist([row], schema=SCHEMA), {"rule": rule})
    metadata = Metadata("dedup", {name: {"fingerprint": value} for name, value in units.items()})
    return Commit("clusters", added, metadata, lambda partition: partition["rule"] == rule)


def put(root: str, rule: str, image: bytes, **units: str) -> None:
    with transaction(writer_of(root)) as lake:
        lake.commit(change(lake.writer, rule, image, **units))


def images(snapshot: Snapshot) -> list[bytes]:
    return snapshot.scan("clusters").collect()["image_id"].to_list()


def test_a_snapshot_stays_at_the_version_that_it_first_read(root: str) -> None:
    put(root, "exact", b"1", exact="one")
    used, unused = Snapshot(root), Snapshot(root)
    assert used.version("clusters") == 1
    put(root, "exact", b"2", exact="two")
    assert images(used) == [b"1"]
    assert used.metadata("clusters").units == {"exact": {"fingerprint": "one"}}
    assert images(unused) == [b"2"], "a table is fixed when it is first used"
    assert images(used.with_newest("clusters")) == [b"2"]
    assert images(unused.with_version("clusters", 1)) == [b"1"]


def test_a_lake_that_is_not_there_has_no_rows(root: str) -> None:
    snapshot = Snapshot(root)
    assert (snapshot.version("images"), snapshot.versions) == (MISSING, {})
    assert snapshot.scan("images").collect().is_empty()
    assert snapshot.metadata("images") == Metadata("")
    assert list(snapshot.history("images")) == []


def test_a_worker_reads_what_the_driver_reads(root: str) -> None:
    put(root, "exact", b"1")
    put(root, "sign", b"2")
    snapshot = Snapshot(root)
    left_out = snapshot.without(snapshot.file_places("clusters", lambda partition: partition["rule"] == "sign"))
    assert images(left_out) == [b"1"]
    sent: Snapshot = pickle.loads(pickle.dumps(left_out))  # noqa: S301 - what this test just made
    put(root, "exact", b"3")
    assert images(sent) == [b"1"]
    assert [part.partition["rule"] for part in sent.files("clusters")] == ["exact", "sign"]


def test_each_commit_of_a_transaction_makes_another_snapshot(root: str) -> None:
    with transaction(writer_of(root)) as lake:
        before = lake.snapshot
        lake.commit(change(lake.writer, "exact", b"1", exact="one"))
        between = lake.snapshot
        lake.commit(change(lake.writer, "exact", b"2", exact="two"))
        lake.commit(change(lake.writer, "sign", b"3"))
        assert (images(before), images(between), images(lake.snapshot)) == ([], [b"1"], [b"2", b"3"])
        lake.restore("clusters", between.version("clusters"))
        assert images(lake.snapshot) == [b"1"]
        assert lake.snapshot.metadata("clusters").units == {"exact": {"fingerprint": "one"}}
    stages = [metadata.units.get("exact", {}).get("fingerprint") for _, metadata in Snapshot(root).history("clusters")]
    assert stages == ["one", None, "two", "one", None]


def test_files_that_are_left_out_stay_left_out_after_a_commit(root: str) -> None:
    put(root, "exact", b"1")
    with transaction(writer_of(root)) as lake:
        lake.leave_out(lake.snapshot.file_places("clusters"))
        lake.commit(change(lake.writer, "sign", b"2"))
        assert images(lake.snapshot) == [b"2"]
        lake.leave_out(())
        assert images(lake.snapshot) == [b"1", b"2"]


def test_one_transaction_at_a_time(root: str) -> None:
    waited: list[int] = []
    with transaction(writer_of(root)), pytest.raises(BusyLakeError), transaction(writer_of(root)):
        pass
    with transaction(writer_of(root), lambda: waited.append(1)):
        assert waited == []


def test_a_transaction_without_its_lock_neither_reads_nor_commits(root: str) -> None:
    lost: list[str] = []

    def check() -> None:
        if lost:
            raise LakeError("the lock is lost")

    with transaction(writer_of(root)):
        lake = Transaction(writer_of(root), check)
        made = change(lake.writer, "exact", b"1")
        lost.append("now")
        for use in (lambda: lake.snapshot, lambda: lake.commit(made)):
            with pytest.raises(LakeError, match="lost"):
                use()
    assert images(Snapshot(root)) == []


def test_a_table_that_another_writer_moved_is_not_changed(root: str) -> None:
    put(root, "exact", b"1")
    with transaction(writer_of(root)) as lake:
        made = change(lake.writer, "exact", b"2")
        assert images(lake.snapshot) == [b"1"]
        other = Transaction(writer_of(root), lambda: None)
        other.commit(change(other.writer, "exact", b"of the other"))
        with pytest.raises(LakeError, match=r"another writer was faster.*build again"):
            lake.commit(made)
    assert images(Snapshot(root)) == [b"of the other"]

"""Orphan files of killed builds are deleted. Files that any version names, and files of other programs, are kept."""

from pathlib import Path

import pyarrow as pa
import pytest
from lakes import commit, restore, scan_table, writer_of, writing

import schemas
from pipeline.errors import DiskFullError, LakeError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.writers import heartbeats as writers
from pipeline.lake.writers.heartbeats import check_registered, delete_orphan_files, living_writers, registered

SCHEMA = schemas.TABLES["clusters"].schema
DEAD = "0" * 12


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def part(writer: Writer, rule: str, image: bytes) -> Part:
    row = {"cluster_id": b"c", "image_id": image, "label": None, "dataset": "d", "split": "s", "rule": rule}
    (made,) = writer.write("clusters", pa.Table.from_pylist([row], schema=SCHEMA), {"rule": rule})
    return made


def put(root: str, rule: str, image: bytes) -> None:
    commit(root, "clusters", [part(writer_of(root), rule, image)], lambda p: p["rule"] == rule, Metadata("dedup"))


def work(root: str, error: BaseException) -> None:
    with registered(root) as writer:
        part(writer, "exact", b"of the work")
        raise error


def heartbeats(root: str) -> list[str]:
    return sorted(file.name for file in (Path(root) / ".writers").iterdir())


def left_by_a_dead_writer(root: str) -> Part:
    """Leave what kill -9 leaves: a heartbeat without a lock, and a file with the name of its writer."""
    (Path(root) / ".writers").mkdir(exist_ok=True)
    (Path(root) / ".writers" / DEAD).touch()
    return part(Writer(root, DEAD), "exact", b"of the dead")


def images(root: str, version: int | None = None) -> list[bytes]:
    return scan_table(root, "clusters", version).select("image_id").collect().to_series().to_list()


def test_only_files_that_no_version_names_are_deleted(root: str) -> None:
    put(root, "maxpool:4", b"1")
    put(root, "maxpool:4", b"2")
    put(root, "a rule/with %25", b"3")
    left = [part(writer_of(root), "maxpool:4", b"4"), part(writer_of(root), "exact", b"5")]
    assert delete_orphan_files(root) == sorted(f"clusters/{item.path}" for item in left)
    assert delete_orphan_files(root) == []
    assert [images(root, version) for version in (1, 2)] == [[b"1"], [b"2"]]
    assert sorted(images(root)) == [b"2", b"3"]


def test_files_of_a_restored_version_are_kept(root: str) -> None:
    put(root, "maxpool:4", b"1")
    put(root, "maxpool:4", b"2")
    restore(root, "clusters", 1)
    delete_orphan_files(root)
    assert images(root) == [b"1"]
    assert images(root, 2) == [b"2"]


def test_files_of_a_table_that_was_never_committed_are_deleted(root: str) -> None:
    left = part(writer_of(root), "exact", b"1")
    assert delete_orphan_files(root) == [f"clusters/{left.path}"]


@pytest.mark.slow
def test_a_hundred_commits_and_their_checkpoint_are_kept(root: str) -> None:
    for number in range(101):
        put(root, "exact", bytes([number]))
    left = part(writer_of(root), "exact", b"x")
    assert list(Path(root).glob("clusters/_delta_log/*.checkpoint.parquet"))
    assert delete_orphan_files(root) == [f"clusters/{left.path}"]
    assert images(root) == [bytes([100])]
    assert images(root, 50) == [bytes([49])]


def test_commits_that_were_never_finished_are_deleted(root: str) -> None:
    put(root, "exact", b"1")
    log = Path(root) / "clusters" / "_delta_log"
    names = ("00000000000000000002.json#1", "_commit_0b1f.json.tmp")
    for name in names:
        (log / name).write_text("{")
    assert delete_orphan_files(root) == sorted(f"clusters/_delta_log/{name}" for name in names)
    assert images(root) == [b"1"]


def test_files_of_other_programs_are_kept(root: str) -> None:
    put(root, "exact", b"1")
    others = [
        Path(root) / "notes.parquet",
        Path(root) / "clusters" / "rule=exact" / "mine.parquet",
        Path(root) / "clusters" / f"{'0' * 32}.parquet",
        Path(root) / "images" / f"{'0' * 32}.parquet",
        Path(root) / "else" / f"{'0' * 32}.parquet",
    ]
    for file in others:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    assert delete_orphan_files(root) == []
    assert all(file.exists() for file in others)


@pytest.mark.parametrize("missing", ["*0.json", "*.json"])
def test_nothing_is_deleted_from_a_table_whose_log_has_a_gap(root: str, missing: str) -> None:
    put(root, "exact", b"1")
    put(root, "sign", b"2")
    (Path(root) / "releases" / "_delta_log" / f"{1:020}.json").touch()
    for file in (Path(root) / "clusters" / "_delta_log").glob(missing):
        file.unlink()
    part(writer_of(root), "exact", b"3")
    assert delete_orphan_files(root) == []


def test_a_log_that_cannot_be_read_is_an_error_and_deletes_nothing(root: str) -> None:
    put(root, "exact", b"1")
    left = part(writer_of(root), "exact", b"2")
    (Path(root) / "clusters" / "_delta_log" / "00000000000000000002.json").write_text("{")
    with pytest.raises(LakeError, match=r"clusters: its log cannot be read .*imagelake verify"):
        delete_orphan_files(root)
    assert (Path(root) / "clusters" / left.path).exists()


def test_a_writer_that_succeeds_keeps_its_files_and_no_heartbeat(root: str) -> None:
    with registered(root) as writer:
        left = part(writer, "exact", b"1")
        assert heartbeats(root) == [writer.name]
    assert Path(left.path).name.startswith(writer.name)
    assert (Path(root) / "clusters" / left.path).exists()
    assert heartbeats(root) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_keeps_neither_files_nor_heartbeat(root: str, error: type[BaseException]) -> None:
    put(root, "exact", b"1")
    with pytest.raises(error):
        work(root, error())
    assert len(list(Path(root).rglob("*.parquet"))) == 1
    assert heartbeats(root) == []


def test_the_next_writer_deletes_the_orphan_files_of_a_dead_one(root: str) -> None:
    put(root, "exact", b"1")
    left = left_by_a_dead_writer(root)
    with registered(root) as writer:
        assert not (Path(root) / "clusters" / left.path).exists()
        assert heartbeats(root) == [writer.name]
    assert images(root) == [b"1"]


def test_files_of_a_live_writer_are_kept(root: str) -> None:
    with registered(root) as first:
        mine = part(first, "exact", b"1")
        dead = left_by_a_dead_writer(root)
        with pytest.raises(ValueError, match="second"):
            work(root, ValueError("second"))
        assert (Path(root) / "clusters" / mine.path).exists()
        assert not (Path(root) / "clusters" / dead.path).exists()
        assert living_writers(root) == {first.name}
        assert heartbeats(root) == [first.name]


def test_orphan_files_are_kept_while_another_writer_commits(root: str) -> None:
    left = left_by_a_dead_writer(root)
    with writing(root), registered(root):
        assert (Path(root) / "clusters" / left.path).exists()
    with registered(root):
        assert not (Path(root) / "clusters" / left.path).exists()


def test_a_writer_without_its_heartbeat_may_not_commit(root: str) -> None:
    with registered(root) as writer, writing(root):
        check_registered(writer)
        (Path(root) / ".writers" / writer.name).unlink()
        with pytest.raises(LakeError, match=r"another build deleted its files.*build again"):
            check_registered(writer)


def test_logs_are_not_read_if_no_writer_died(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: object) -> None:
        raise AssertionError("the lake was looked through")

    monkeypatch.setattr(writers, "delete_orphan_files", looked)
    with registered(root):
        pass


def test_an_error_is_not_hidden_by_a_log_that_cannot_be_read(root: str) -> None:
    put(root, "exact", b"1")
    (Path(root) / "clusters" / "_delta_log" / "00000000000000000002.json").write_text("{")
    with pytest.raises(DiskFullError, match="full"):
        work(root, DiskFullError("full"))

"""Releases that are given up, and what keeps others from it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from lakes import (
    commit,
    find_pins,
    give_up,
    list_releases,
    publish,
    read_meta,
    register_export,
    versions,
    write_part,
    writing,
)

import schemas
from pipeline.errors import LakeError, NoReleaseError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.releases import spans
from pipeline.lake.vacuum import delete_unneeded_files
from pipeline.lake.writers.heartbeats import registered
from pipeline.lake_handle import Lake
from pipeline.maintenance import history, vacuum, vacuum_releases

EXPORT = {
    "export_id": "e",
    "split_name": "main",
    "roles": "train",
    "form": "npz",
    "sanitized": True,
    "target": "/out",
    "images": 1,
    "digest": "d",
}


def put(root: str, name: str, rows: list[dict[str, Any]], partition: dict[str, str] | None = None) -> None:
    part = write_part(root, name, partition or {}, pa.Table.from_pylist(rows, schema=schemas.TABLES[name].schema))
    commit(root, name, [part] if part else [], lambda _: True, Metadata("test"))


def release(root: str, value: bytes, scored: int | None = None) -> int:
    """Publish a release whose one cluster is `value`; its scores, where asked for, were made of release `scored`."""
    row = {"cluster_id": value, "image_id": value, "label": None, "dataset": "d", "split": "s", "rule": "exact"}
    put(root, "clusters", [row], {"rule": "exact"})
    if scored is not None:
        texts = dict.fromkeys(("run_id", "model", "split_name", "eval_on", "metric"), "x")
        put(root, "scores", [{**texts, "train_size": 1, "value": 0.5, "seed": 0, "seconds": 0.0, "release": scored}])
    number = publish(root, "digest", "", {"file": None})
    assert number is not None
    return number


def shown(root: str, number: int) -> list[bytes]:
    ids: list[bytes] = Lake(root, number).scan("clusters").collect()["image_id"].to_list()
    return ids


def give(root: str, keep_last: int, *, dry_run: bool = False, force: bool = False) -> Any:
    return vacuum_releases(root, keep_last=keep_last, older_than_hours=0, dry_run=dry_run, force=force)


@pytest.fixture(scope="module")
def five_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five releases, none pinned. Read only."""
    made = tmp_path_factory.mktemp("five") / "lake"
    for number in range(1, 6):
        assert release(str(made), b"%d" % number) == number
    return made


@pytest.fixture
def root(five_releases: Path, tmp_path: Path) -> str:
    """Five releases, none pinned, for this test alone."""
    return str(shutil.copytree(five_releases, tmp_path / "lake"))


def test_older_releases_go_with_their_files_and_the_others_read_as_before(root: str) -> None:
    planned = give(root, 2, dry_run=True)
    assert list_releases(root)["release"].to_list() == [1, 2, 3, 4, 5]
    done = give(root, 2)
    assert done == planned
    assert (done.deleted_releases, done.kept, done.pinned, done.broken) == ([1, 2, 3], [4, 5], {}, {})
    assert len([path for path in done.deleted if path.startswith("clusters/")]) == 3
    assert not [path for path in done.deleted if Path(root, path).exists()]
    assert [shown(root, number) for number in (4, 5)] == [[b"4"], [b"5"]]
    assert list_releases(root)["release"].to_list() == [4, 5]
    assert give(root, 2) == give(root, 9)
    assert vacuum(root, older_than_hours=0, dry_run=True) == []


def test_opening_a_release_given_up_says_so(root: str) -> None:
    give_up(root, [2, 3])
    with pytest.raises(NoReleaseError, match=r"release 3 was deleted by vacuum \(20.*\); there are 1, 4 to 5. See"):
        Lake(root, 3)
    assert release(root, b"6") == 6
    give(root, 1)
    assert release(root, b"7") == 7
    with pytest.raises(NoReleaseError, match=r"release 2 was deleted by vacuum \(20.*\); there are 6 to 7"):
        Lake(root, 2)
    with pytest.raises(NoReleaseError, match="has no release 8; there are 6 to 7"):
        Lake(root, 8)
    assert read_meta(root, "releases").units["recipe"] == {"file": None}


def test_a_reader_of_a_release_given_up_meanwhile_is_told(root: str) -> None:
    old, new = Lake(root, 2), Lake(root)
    give(root, 1)
    with pytest.raises(NoReleaseError, match="release 2 was deleted by vacuum"):
        old.scan("clusters")
    with pytest.raises(NoReleaseError, match="release 2 was deleted by vacuum"):
        old.sql("select * from clusters")
    assert new.scan("clusters").collect()["image_id"].to_list() == [b"5"]


def test_the_newest_release_stays(root: str) -> None:
    assert give(root, 1, force=True).kept == [5]
    assert shown(root, 5) == [b"5"]
    with pytest.raises(ValueError, match="the newest release cannot be deleted"):
        give_up(root, [5])
    assert list_releases(root)["release"].to_list() == [5]


def test_an_export_pins_its_release_unless_forced(root: str) -> None:
    register_export(root, {**EXPORT, "release": 2})
    named = {2: ["export of main as npz to /out"]}
    done = give(root, 1)
    assert (done.deleted_releases, done.pinned) == ([1, 3, 4], named)
    assert shown(root, 2) == [b"2"]
    assert history(root).select("release", "pinned").rows() == [(2, named[2]), (5, [])]
    forced = give(root, 1, force=True)
    assert (forced.deleted_releases, forced.pinned, forced.broken) == ([2], {}, named)
    with pytest.raises(NoReleaseError, match="deleted by vacuum"):
        Lake(root, 2)
    assert len(Lake(root).scan("exports").collect()) == 1
    assert find_pins(root, [5]) == {}


def test_scores_of_releases_that_stay_pin_in_turn(tmp_path: Path) -> None:
    root = str(tmp_path / "lake")
    release(root, b"1", scored=1)
    release(root, b"2")  # its scores are still those of 1
    release(root, b"3", scored=3)
    release(root, b"4", scored=4)
    release(root, b"5", scored=4)
    assert find_pins(root, [5]) == {4: ["scores of 5"]}
    assert find_pins(root, [2]) == {1: ["scores of 2"]}
    register_export(root, {**EXPORT, "release": 2})
    done = give(root, 1)
    assert done.deleted_releases == [3]
    assert done.pinned == {1: ["scores of 2"], 2: ["export of main as npz to /out"], 4: ["scores of 5"]}
    for number in done.kept:
        rows = Lake(root, number).scan("scores").collect()
        assert all(Lake(root, named).release == named for named in rows["release"])


def test_killed_between_commit_and_deletion_nothing_dangles(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, sys\nfrom pipeline import maintenance as m\n"
        "m.delete_unneeded_files = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        "m.vacuum_releases(sys.argv[1], keep_last=2, older_than_hours=0, dry_run=False, force=False)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, root], check=False).returncode == -9
    assert list_releases(root)["release"].to_list() == [4, 5]
    assert [shown(root, number) for number in (4, 5)] == [[b"4"], [b"5"]]
    assert len(vacuum(root, older_than_hours=0, dry_run=False)) > 3

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipeline.lake.transaction.Transaction.commit", fail)
    with pytest.raises(OSError, match="Input"):
        give(root, 1)
    assert [shown(root, number) for number in (4, 5)] == [[b"4"], [b"5"]]


def test_young_files_stay_but_their_release_is_gone_at_once(root: str) -> None:
    done = vacuum_releases(root, keep_last=1, older_than_hours=24, dry_run=False, force=False)
    assert (done.deleted_releases, done.deleted) == ([1, 2, 3, 4], [])
    with pytest.raises(NoReleaseError):
        Lake(root, 1)


def test_files_of_a_writer_that_lives_stay(root: str) -> None:
    row = {"cluster_id": b"new", "image_id": b"new", "label": None, "dataset": "d", "split": "s"}
    table = pa.Table.from_pylist([row], schema=schemas.TABLES["clusters"].file_schema)
    with registered(root) as writer:
        (part,) = writer.write("clusters", table, {"rule": "sign"})
        assert vacuum(root, older_than_hours=0, dry_run=False) == []
        assert Path(root, "clusters", part.path).exists()


def test_plain_vacuum_keeps_every_release(root: str) -> None:
    before = versions(root)
    assert vacuum(root, older_than_hours=0, dry_run=False) == []
    assert versions(root) == before
    assert [shown(root, number) for number in range(1, 6)] == [[b"%d" % number] for number in range(1, 6)]


def test_the_lock_is_asked_for(root: str) -> None:
    with writing(root), pytest.raises(LakeError, match="another build is writing"):
        give(root, 1)
    with pytest.raises(NoReleaseError, match="no finished build"):
        give(f"{root}/none", 1)


def test_a_lake_without_exports_gets_the_table_with_its_next_build(root: str) -> None:
    """As lakes of schema 2 are: no table, and releases that do not name it."""
    subprocess.run(["rm", "-r", f"{root}/exports"], check=True)
    assert Lake(root).scan("exports").collect().is_empty()
    assert Lake(root).sql("select count(*) from exports").fetchall() == [(0,)]
    assert find_pins(root, [5]) == {}
    assert publish(root, "digest", "", {"file": None}) == 5
    assert Path(root, "exports", "_delta_log").exists()


def test_a_release_reads_tables_that_came_after_it_as_empty(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Lake(root, 1)
    register_export(root, {**EXPORT, "release": 1})
    texts = dict.fromkeys(("run_id", "model", "split_name", "eval_on", "metric"), "x")
    put(root, "scores", [{**texts, "train_size": 1, "value": 0.5, "seed": 0, "seconds": 0.0, "release": 6}])
    monkeypatch.delitem(held.versions, "scores")
    assert held.scan("scores").collect().is_empty()
    assert held.sql("select count(*) from scores").fetchall() == [(0,)]
    assert len(held.scan("exports").collect()) == 1


@pytest.mark.parametrize(
    ("numbers", "words"), [([1], "1"), ([1, 2], "1 to 2"), ([1, 4, 5, 6, 9], "1, 4 to 6, 9"), ([3, 5], "3, 5")]
)
def test_numbers_in_words(numbers: list[int], words: str) -> None:
    assert spans(numbers) == words


def test_files_are_deleted_only_by_vacuum(root: str) -> None:
    files = {path for path in Path(root).rglob("*.parquet") if "_delta_log" not in path.parts}
    give_up(root, [1])
    assert files <= set(Path(root).rglob("*.parquet"))
    with writing(root) as lake:
        assert delete_unneeded_files(lake, older_than_hours=0, dry_run=True, also={})

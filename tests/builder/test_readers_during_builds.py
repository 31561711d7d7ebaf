"""While others build: whoever reads sees a whole release, the same at every look; exports are pinned, files stay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from forked import start_command
from making import as_folder, files_of, recipe
from together import building, differing, in_turn, laws, left_over, rows_of

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import NoReleaseError
from pipeline.export import export
from pipeline.lake_handle import Lake
from pipeline.maintenance import history, overlap, status, vacuum_releases
from pipeline.recipe import Recipe
from pipeline.verify import verify

pytestmark = pytest.mark.slow

TOML = """
[lake]
root = "lake"
[[source]]
uri = "{uri}"
dataset = "d"
split = "{split}"
[dedup]
rules = ["exact", "sign"]
"""
SPLIT = {"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    files = files_of(20)
    as_folder(tmp_path / "a", {**files, "A/bad.png": b"no image"})
    as_folder(tmp_path / "b", {**files_of(9, seed=1), "B/copy.png": files["A/00000.png"]})
    return tmp_path


def of(base: Path, *uris: str, root: str = "lake", rules: tuple[str, ...] = ("exact", "cosine:0.9")) -> Recipe:
    sources = [{"uri": uri, "split": "train" if uri == "a" else "test"} for uri in uris]
    part = {"split": [SPLIT]} if "b" in uris else {}
    model = {"baseline": [{"model": "logistic", "split": "main", "train_sizes": [10], "max_iter": 3}]} if part else {}
    return recipe(base, *sources, lake={"root": root}, dedup={"rules": list(rules)}, **part, **model)


def looking(monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> list[int]:
    """Look at the lake after every commit of every table, as a reader would; counts how often."""
    looks: list[int] = []
    real = DeltaTable.create_write_transaction

    def committed(table: DeltaTable, *args: Any, **options: Any) -> None:
        real(table, *args, **options)
        look()
        looks.append(1)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", committed)
    return looks


def test_after_every_commit_the_last_release_reads_as_before(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = str(base / "lake")
    build(of(base, "a", "b"), engine=LocalEngine(1))
    before, held, state = rows_of(lake), Lake(lake), status(lake).tables
    as_folder(base / "b", {f"A/new{i}.png": data for i, data in enumerate(files_of(5, seed=3).values())})
    seen: list[int] = []

    def look() -> None:
        now = Lake(lake)
        seen.append(now.release)
        assert laws(now) == []
        first = rows_of(lake, 1)
        assert all(rows.equals(first[name]) for name, rows in before.items())
        assert all(held.scan(name).collect().equals(rows) for name, rows in before.items())
        if now.release == 1 and len(seen) % 4:
            return
        assert now.sql("select count(*) from images").fetchall() == [(30 if now.release == 1 else 35,)]
        assert overlap(now).matrix is not None
        assert now.release == 2 or status(lake).tables.equals(state)

    looks = looking(monkeypatch, look)
    assert build(of(base, "a", "b"), engine=LocalEngine(1)).release == 2
    assert seen == [1] * (len(looks) - 1) + [2]
    assert len(looks) == 11, "images, index, rejects, shards, pairs, clusters, splits, misses, models, scores, releases"


def test_before_the_first_release_there_is_none(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def look() -> None:
        try:
            found.append(Lake(base / "lake").release)
        except NoReleaseError:
            found.append(0)

    looking(monkeypatch, look)
    build(of(base, "a"), engine=LocalEngine(1))
    assert found == [0] * (len(found) - 1) + [1]


def test_an_export_while_others_build(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of the release that there was when it began, waits to be pinned, and vacuum then keeps that release."""
    lake = str(base / "lake")
    build(of(base, "a", "b"), engine=LocalEngine(1))
    as_folder(base / "b", {"A/new.png": files_of(1, seed=3)["A/00000.png"]})
    done: list[Any] = []

    def export_it() -> None:
        done.append(export(lake, "main", base / "out", "npz", engine=LocalEngine(1)))

    in_turn(monkeypatch, building(of(base, "a", "b")), building(of(base, "b")), between=export_it)
    assert (done[0].release, done[0].unpinned) == (1, "")
    kept = vacuum_releases(lake, keep_last=1, older_than_hours=0, dry_run=False, force=False)
    assert kept.pinned[1][-1].startswith("export of main as npz")
    assert history(lake)["release"].to_list() == kept.kept
    assert laws(Lake(lake, 1)) == laws(Lake(lake)) == left_over(lake) == []


def test_releases_are_given_up_while_another_build_decodes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = str(base / "lake")
    for number in range(2):
        as_folder(base / "a", {f"A/n{number}.png": files_of(1, seed=30 + number)["A/00000.png"]})
        build(of(base, "a"), engine=LocalEngine(1))

    def give_up() -> None:
        assert vacuum_releases(lake, keep_last=1, older_than_hours=0, dry_run=False, force=False).deleted_releases == [
            1
        ]

    done = in_turn(monkeypatch, building(of(base, "a", "b")), building(of(base, "a")), between=give_up)
    assert [built.release for built in done] == [3, 4]
    assert all(not check.faults for check in verify(lake))
    assert differing(lake, build(of(base, "a", "b", root="fresh"), engine=LocalEngine(1)).root) == []


def test_two_commands_at_the_same_time(base: Path) -> None:
    for uri, split in (("a", "train"), ("b", "test")):
        (base / f"{uri}.toml").write_text(TOML.format(uri=uri, split=split))
    runs = [start_command("build", base / f"{uri}.toml", "--workers", 1, report=True) for uri in "ab"]
    assert [run.wait() for run in runs] == [0, 0]
    lake = str(base / "lake")
    assert [laws(Lake(lake, number)) for number in (1, 2)] == [[], []]
    assert left_over(lake) == []
    assert Lake(lake).scan("images").select(pl.len()).collect().item() == 30
    assert (base / "lake" / "report.html").exists()

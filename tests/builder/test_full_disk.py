"""A disk that is really full at a given moment: one clear error, a lake as before, and a next build that ends."""

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from making import as_folder, files_of, recipe
from small_disks import fill, small_disk, use_up_names
from together import differing, laws, left_over, rows_of

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import DiskFullError, NoReleaseError
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum, vacuum_releases
from pipeline.recipe import Recipe
from pipeline.verify import verify

pytestmark = pytest.mark.slow

SPLIT = {"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}
SAID = "no space is left on the disk of .*The lake is unchanged; free some space and build again"
CREATE, COMMIT = ("deltalake", "DeltaTable.create"), ("deltalake", "DeltaTable.create_write_transaction")
WRITE = ("pipeline.lake.parquet_writer", "PartWriter.write")
# When it fills up: the nth time that something begins.
FIRST = {f"making table {n}": (*CREATE, n) for n in range(1, 12)} | {f"commit {n}": (*COMMIT, n) for n in range(1, 8)}
LATER = {
    "the mark of the build": ("pipeline.lake.writers.heartbeats", "_make_locked", 1),
    "the images": (*WRITE, 1),
    "the index": (*WRITE, 2),
    "the rejects": (*WRITE, 4),
    "a later file": (*WRITE, 7),
    **{f"commit {n}": (*COMMIT, n) for n in range(1, 8)},
}
# What ends otherwise than its neighbours is tried each time, the rest by `make stress`.
OFTEN = ("making table 1", "commit 7", "restoring 2")


def marks(place: str, *often: str) -> list[pytest.MarkDecorator]:
    return [] if place in often else [pytest.mark.stress]


def some(places: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=marks(name, *OFTEN)) for name in places]


UNDONE = {f"restoring {n}": ("deltalake", "DeltaTable.restore", n) for n in (1, 2, 3)}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "size=4m,nr_inodes=4k") as made:
        yield made


def of(base: Path, root: Path) -> Recipe:
    if not (base / "a").exists():
        as_folder(base / "a", {**files_of(20), "A/bad.png": b"no image"})
        as_folder(base / "b", files_of(8, seed=1))
    parts: dict[str, Any] = {"dedup": {"rules": ["exact", "sign"]}, "split": [SPLIT]}
    return recipe(base, {"uri": "a"}, {"uri": "b", "split": "test"}, lake={"root": str(root)}, **parts)


def made(asked: Recipe) -> str:
    return build(asked, engine=LocalEngine(1)).root


def change(base: Path) -> None:
    as_folder(base / "a", {f"B/new{i}.png": data for i, data in enumerate(files_of(9, seed=5).values())})


def full_at(place: tuple[str, str, int], disk: Path, patch: pytest.MonkeyPatch, how: Callable[[Path], None]) -> None:
    """Let the disk be full from the moment on in which something begins for the nth time."""
    module, name, nth = place
    owner: Any = import_module(module)
    *inner, last = name.split(".")
    for part in inner:
        owner = getattr(owner, part)
    real, begun = getattr(owner, last), 0

    def filling(*args: Any, **options: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == nth:
            how(disk)
        return real(*args, **options)

    patch.setattr(owner, last, filling)


def free(disk: Path) -> None:
    (disk / "fill").unlink()


def good_again(base: Path, lake: Path) -> bool:
    """Build, and tell whether all is as if nothing had been, and nothing lies about."""
    made(of(base, lake))
    fresh = made(of(base, base / "fresh"))
    sound = all(not check.faults for check in verify(str(lake))) and not laws(Lake(lake))
    return sound and differing(str(lake), fresh) == left_over(str(lake)) == []


@pytest.mark.parametrize("place", some(FIRST))
def test_full_during_the_first_build(place: str, tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = of(tmp_path, disk / "lake")
    with monkeypatch.context() as patch:
        full_at(FIRST[place], disk, patch, fill)
        with pytest.raises(DiskFullError, match=SAID):
            made(asked)
    with pytest.raises(NoReleaseError):
        Lake(disk / "lake")
    free(disk)
    assert good_again(tmp_path, disk / "lake")


@pytest.mark.parametrize(
    ("how", "place"),
    [
        *(pytest.param(fill, place, marks=marks(place, "the images", "commit 4")) for place in LATER),
        *(
            pytest.param(use_up_names, place, marks=marks(place, "the mark of the build", "commit 4"))
            for place in LATER
        ),
    ],
)
def test_full_during_a_later_build(
    place: str, how: Callable[[Path], None], tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how is fill and place == "the mark of the build":
        pytest.skip("a mark has no bytes")
    asked = of(tmp_path, disk / "lake")
    before = rows_of(made(asked))
    change(tmp_path)
    with monkeypatch.context() as patch:
        full_at(LATER[place], disk, patch, how)
        with pytest.raises(DiskFullError, match=SAID):
            made(asked)
        assert Lake(disk / "lake").release == 1
        assert all(rows.equals(before[name]) for name, rows in rows_of(asked.root).items())
    if how is fill:
        free(disk)
    else:
        for file in (disk / "names").iterdir():
            file.unlink()
    assert good_again(tmp_path, disk / "lake")
    assert all(rows.equals(before[name]) for name, rows in rows_of(asked.root, 1).items())


@pytest.mark.parametrize("place", some(UNDONE))
def test_full_while_a_half_commit_is_undone(
    place: str, tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = of(tmp_path, disk / "lake")
    before = rows_of(made(asked))
    change(tmp_path)
    with monkeypatch.context() as patch:
        full_at((*COMMIT, 4), disk, patch, fill)
        with pytest.raises(DiskFullError, match=SAID):
            made(asked)
    free(disk)
    with monkeypatch.context() as patch:
        full_at(UNDONE[place], disk, patch, fill)
        with pytest.raises(DiskFullError, match=SAID):
            made(asked)
    assert all(rows.equals(before[name]) for name, rows in rows_of(asked.root).items())
    free(disk)
    assert good_again(tmp_path, disk / "lake")


def test_vacuum_works_on_a_full_disk(tmp_path: Path, disk: Path) -> None:
    """That is what it is for; giving up releases writes a little, and says so where it cannot."""
    asked = of(tmp_path, disk / "lake")
    made(asked)
    change(tmp_path)
    made(asked)
    left = f"index/rule=exact/dataset=d/split=train/shard=gone/{'0' * 32}.parquet"
    as_folder(disk / "lake", {left: b"x" * 2**16})
    fill(disk)
    with pytest.raises(DiskFullError, match=SAID):
        vacuum_releases(asked.root, keep_last=1, older_than_hours=0, dry_run=False, force=False)
    assert vacuum(asked.root, older_than_hours=0, dry_run=False) == [left]
    assert vacuum_releases(
        asked.root, keep_last=1, older_than_hours=0, dry_run=False, force=False
    ).deleted_releases == [1]
    free(disk)
    assert good_again(tmp_path, disk / "lake")


@pytest.mark.usefixtures("reports")
def test_full_while_only_the_report_is_written(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = of(tmp_path, disk / "lake")
    with monkeypatch.context() as patch:
        full_at(("pipeline.builder.build", "try_to_write_report", 1), disk, patch, fill)
        built = build(asked, engine=LocalEngine(1))
    assert (built.release, built.report) == (1, "")
    assert "release 1 is published, but its report is not written" in built.report_error
    assert "no space is left on the disk for the report" in built.report_error
    free(disk)
    again = build(asked, engine=LocalEngine(1))
    assert (again.release, again.report_error, Path(again.report).is_file()) == (1, "", True)

"""Of a damaged lake, find, why, diff, check and show give the answer of the whole one, or an error in one line."""

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from damaged_lakes import DAMAGES, PARTS, SOURCES, Case, cut, flip
from lakes import files, give_up
from making import as_folder, files_of, recipe

from pipeline.builder.build import build
from pipeline.checks import run_checks
from pipeline.engines.local import LocalEngine
from pipeline.errors import DamagedLakeError, LakeError, NoReleaseError
from pipeline.lake.reads import explain_failures
from pipeline.lake_handle import Lake
from pipeline.review.diff import write_diff
from pipeline.review.found import write_found
from pipeline.search import find, queries
from pipeline.search.images import find_images

CHECKS: list[dict[str, Any]] = [
    {"split": "main", "rule": "exact"},
    {"rule": "exact", "conflicts": 0},
    {"rejects": 0},
    {"min_per_class": 3, "split": "main"},
    {"drift": 0.01, "split": "main", "against": "previous"},
]


def plain(value: Any) -> str:
    """Write an answer as text, without times."""
    parts = value._asdict() if hasattr(value, "_asdict") else value
    return repr([(name, of.rows() if isinstance(of, pl.DataFrame) else of) for name, of in parts.items()])


def ask_all(root: str, base: Path, checks: Any) -> list[Callable[[], str]]:
    """List questions about a lake of two releases; each opens the lake."""
    ids = [row.hex() for row in Lake(root).scan("images").select("image_id").sort("image_id").collect()["image_id"]]
    few = [ids[0], ids[-1]]
    return [
        lambda: plain(Lake(root).find(base / "query")),
        lambda: plain(Lake(root).find(base / "query", rule="file")),
        *(lambda item=item: plain(Lake(root).why(item)) for item in [*few, "B/bad.png"]),
        lambda: plain(Lake(root).diff(1)),
        lambda: repr([one._replace(seconds=0) for one in run_checks(Lake(root), checks).results]),
        lambda: plain(find_images(Lake(root), few)),
    ]


def answer(ask: Callable[[], str]) -> str | None:
    """Ask a question; None if the answer is an error that a person can read."""
    with suppress(LakeError):
        return ask()
    return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small lake of two releases. Read only."""
    base = tmp_path_factory.mktemp("whole")
    train = files_of(12)
    as_folder(base / "train", {**train, "B/bad.png": b"bad"})
    as_folder(base / "test", {**files_of(6, seed=1), "A/copy.png": train["A/00000.png"]})
    as_folder(base / "query", {"1.png": train["A/00000.png"], "2.png": train["B/00001.png"]})
    for _ in range(2):
        build(recipe_of(base), engine=LocalEngine(1))
        as_folder(base / "test", {"B/new.png": train["B/00003.png"]})
    return base


def recipe_of(base: Path) -> Any:
    return recipe(
        base,
        {"uri": "train"},
        {"uri": "test", "split": "test"},
        dedup={"rules": ["exact", "cosine:0.9"]},
        attributes=[{"patterns": {"number": r"(\d+)"}}],
        split=[{"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}],
        check=CHECKS,
    )


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "base"))


# Where a byte is changed: in the values, the page headers and statistics, the schema, the length of the footer.
PLACES = {"images": (0.9, -300, -6), "clusters": (0.2,), "attributes": (0.3,)}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("table", PLACES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_answer_is_of_damaged_bytes(base: Path, table: str) -> None:
    root = str(base / "lake")
    asked = ask_all(root, base, recipe_of(base))
    before = [ask() for ask in asked]
    errors = 0
    file = Path(root, table, files(root, table)[0].path)
    data = file.read_bytes()
    for place in PLACES[table]:
        flip(file, int(place * len(data)) if isinstance(place, float) else len(data) + place)
        found = [answer(ask) for ask in asked]
        assert all(now in (None, was) for now, was in zip(found, before, strict=True))
        errors += found.count(None)
        file.write_bytes(data)
    assert errors >= len(PLACES[table])
    cut(file, len(data) // 2)
    assert None in [answer(ask) for ask in asked]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_answer_is_of_a_damaged_file_of_any_table(case: Case, damage: str) -> None:
    (case.base / "test/B/bad.png").rename(case.base / "test/B/moved.png")
    as_folder(case.base / "test", {**files_of(4, seed=9), "B/bad.png": b"bad"})
    build(case.recipe, engine=LocalEngine(1))
    as_folder(case.base / "query", files_of(3))
    checks = recipe(case.base, *SOURCES, **PARTS, check=CHECKS)
    asked = ask_all(case.root, case.base, checks)
    before = [ask() for ask in asked]
    chance = random.Random(damage)
    for table in sorted(path.name for path in Path(case.root).iterdir() if (path / "_delta_log").exists()):
        file = chance.choice(sorted(Path(case.root, table).glob("**/[!_]*.parquet")))
        data = file.read_bytes()
        DAMAGES[damage](chance, file)
        found = [answer(ask) for ask in asked]
        assert all(now in (None, was) for now, was in zip(found, before, strict=True)), file
        file.write_bytes(data)


def test_no_page_shows_damaged_pixels(base: Path, tmp_path: Path) -> None:
    lake, page = Lake(base / "lake"), tmp_path / "page.html"
    found, changes = lake.find(base / "query", rule="exact"), lake.diff(1)
    for part in lake.snapshot.files("images"):
        file = Path(lake.root, "images", part.path)
        rows = pl.read_parquet(file, hive_partitioning=False)
        rows.with_columns(pl.lit(bytes(784)).alias("pixels")).write_parquet(file)
    with pytest.raises(DamagedLakeError, match="pixels of the image"):
        write_found(lake, [str(base / "query")], found, page)
    with pytest.raises(DamagedLakeError, match="pixels of the image"):
        write_diff(lake, changes, page)


def test_a_release_that_is_deleted_during_a_search_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(base / "lake", 1)
    decode = queries.decode_queries

    def delete_release(*args: Any) -> Any:
        give_up(lake.root, [1])
        for part in lake.snapshot.files("images"):
            Path(lake.root, "images", part.path).unlink(missing_ok=True)
        return decode(*args)

    monkeypatch.setattr(find, "decode_queries", delete_release)
    for ask in (lambda: lake.find(base / "query"), lambda: lake.why("A/00000.png"), lambda: lake.diff(2)):
        with pytest.raises(NoReleaseError, match="release 1 was deleted by vacuum"):
            ask()


def test_an_error_of_a_library_names_the_damaged_file(base: Path) -> None:
    lake = Lake(base / "lake")

    @explain_failures
    def read(lake: Lake) -> None:
        lake.scan("shards").select(pl.col("none")).collect()

    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        read(lake)
    file = Path(lake.root, "shards", files(lake.root, "shards")[0].path)
    flip(file, file.stat().st_size // 2)
    with pytest.raises(DamagedLakeError, match=file.name):
        read(lake)


def test_a_read_during_which_releases_came_is_repeated(base: Path) -> None:
    lake, calls = Lake(base / "lake"), []

    @explain_failures
    def read(lake: Lake) -> int:
        calls.append(lake.release)
        if len(calls) == 1:
            give_up(lake.root, [1])
            raise DamagedLakeError("a file of release 1 is missing")
        return lake.release

    assert (read(lake), calls) == (2, [2, 2])

"""`build --repair` restores every table to what a fresh build makes, or lists what it cannot restore."""

import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from damaged_lakes import DAMAGES, Case, cut, values_of
from lakes import files
from making import files_of

import schemas
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import SourceError
from pipeline.lake_handle import Lake
from pipeline.maintenance import history
from pipeline.repair import repair

pytestmark = pytest.mark.slow

# Tables that a build can make again; a commit of the release and an export cannot be.
DERIVED = [name for name in schemas.TABLES if name not in ("releases", "exports")]


def test_an_undamaged_lake_has_no_new_commit(case: Case) -> None:
    assert case.faults() == []
    before = sorted(case.base.glob("lake/*/_delta_log/*"))
    built = case.repair()
    assert (built.damaged, built.done, built.still_damaged, built.release) == (0, (), (), 1)
    assert sorted(case.base.glob("lake/*/_delta_log/*")) == before


def test_missing_files_are_named_with_their_rows_and_source(case: Case) -> None:
    # The shards table holds the names of the sources.
    lost = {table: case.file(table) for table in DERIVED if table != "shards"}
    listed = {Path(case.root, table, part.path): part for table in lost for part in files(case.root, table)}
    for file in lost.values():
        file.unlink()
    found = {fault.table: fault for fault in case.faults()}
    assert found.keys() == lost.keys()
    for table, file in lost.items():
        fault, part = found[table], listed[file]
        assert (fault.kind, fault.file, fault.rows) == ("missing", str(file), part.rows)
        assert fault.partition == part.partition
        if table in ("images", "index"):
            assert fault.source in ("train.tar.gz", "test", "more")


# Tables that do not depend on one another share a case.
@pytest.mark.parametrize(
    "tables",
    [
        ["images"],
        ["shards"],
        ["index"],
        ["clusters", "rejects", "scores"],
        ["bases", "misses"],
        ["pairs", "splits"],
    ],
    ids=" and ".join,
)
def test_missing_files_are_restored(case: Case, tables: list[str]) -> None:
    lost = [case.file(table) for table in tables]
    for file in lost:
        file.unlink()
    built = case.repair()
    assert (built.damaged, built.still_damaged, built.release) == (len(tables), (), 2)
    assert built.done
    assert case.differing() == []
    # The older release still names the missing files.
    assert not any(file.exists() for file in lost)


def damage_at_random(case: Case, chance: random.Random, table: str) -> tuple[str, Path, bool]:
    """Damage a random file of a table; return how, which, and whether its values changed or cannot be read."""
    file = Path(case.root, table, chance.choice([part.path for part in files(case.root, table)]))
    before = values_of(file)
    how = chance.choice(list(DAMAGES))
    DAMAGES[how](chance, file)
    after = values_of(file) if file.exists() else None
    assert before is not None
    return how, file, after is None or not after.equals(before)


@pytest.mark.parametrize(("rounds", "together"), [(2, 5), pytest.param(400, 1, marks=pytest.mark.stress)])
def test_random_faults_are_found_and_repaired(case: Case, rounds: int, together: int) -> None:
    chance, counts, keep = random.Random(rounds), Counter[str](), case.base.with_name("keep")
    shutil.copytree(case.base, keep)
    for _ in range(rounds):
        damaged = [damage_at_random(case, chance, table) for table in chance.sample(DERIVED, together)]
        found = {fault.file for fault in case.faults()}
        for how, file, changed in damaged:
            outcome = "found" if str(file) in found else "not found, as it changes no value"
            counts.update([f"{how}: injected", f"{how}: {outcome}"])
            assert str(file) in found or not changed, f"{how} {file}"
        assert case.repair().still_damaged == (), damaged
        assert case.faults() == [], damaged
        assert case.differing() == [], damaged
        shutil.rmtree(case.base)
        shutil.copytree(keep, case.base)
    sys.stdout.write("\n".join(f"{name} {number}" for name, number in sorted(counts.items())) + "\n")


def test_several_faults_at_once(case: Case) -> None:
    for table in ("shards", "images", "clusters", "splits", "misses", "rejects", "bases"):
        case.file(table).unlink()
    built = case.repair()
    assert (built.still_damaged, case.faults(), case.differing()) == ((), [], [])
    assert case.repair().done == ()


def test_shards_and_rejects_that_are_damaged_together_are_restored(case: Case) -> None:
    cut(case.file("shards"), 100)
    cut(case.file("rejects", "split=test"), 100)
    assert (case.repair().still_damaged, case.faults(), case.differing()) == ((), [], [])


def test_values_of_a_damaged_file_name_no_other_damage(case: Case) -> None:
    file = case.file("shards")
    rows = pl.read_parquet(file)
    rows.with_columns(pl.col("shard") + "x", rows=pl.col("rows") + 1).write_parquet(file)
    assert [fault.file for fault in case.faults()] == [str(file)]
    assert (case.repair().still_damaged, case.faults(), case.differing()) == ((), [], [])


def test_rows_of_releases_are_restored_from_their_commits(case: Case) -> None:
    case.file("images").unlink()
    case.repair()
    before = history(case.root).drop("note", "created_at")
    for part in files(case.root, "releases"):
        Path(case.root, "releases", part.path).unlink()
    assert {fault.table for fault in case.faults()} == {"releases"}
    assert [item.unit for item in case.repair().done] == ["releases"]
    assert history(case.root).drop("note", "created_at").equals(before)
    assert case.faults() == []
    assert Lake(case.root, 1).versions["images"] < Lake(case.root, 2).versions["images"]


def test_lost_exports_are_listed_and_nothing_else_is_lost(case: Case) -> None:
    case.file("exports").unlink()
    (line,) = case.repair().still_damaged
    assert line.startswith("exports: 1 of its files (written")
    assert case.faults() == []
    assert case.repair().still_damaged == ()


def test_damage_of_a_missing_source_stays_and_is_listed(case: Case) -> None:
    lost, back = case.file("images", "shard=test"), case.file("images", "split=train")
    lost.unlink()
    cut(back, 100)
    shutil.move(case.base / "test", case.base / "away")
    built = case.repair()
    (stays,) = built.still_damaged
    assert "20 images stay damaged" in stays
    assert "source test is gone" in stays
    assert [item.unit for item in built.done if item.stage == "repair"] == [
        "d/train shard train-8bd6a5bd-00000"
    ] or built.done
    assert [fault.file for fault in case.faults()] == [str(lost)]
    shutil.move(case.base / "away", case.base / "test")
    assert (case.repair().still_damaged, case.differing()) == ((), [])


def test_a_missing_source_without_damage_is_only_listed(case: Case) -> None:
    case.file("clusters").unlink()
    shutil.move(case.base / "test", case.base / "away")
    (line,) = case.repair().still_damaged
    assert line.startswith("source test: was not read")
    assert case.differing() == []
    with pytest.raises(SourceError):
        case.repair()


def test_a_shard_that_its_source_no_longer_has_is_not_dropped(case: Case) -> None:
    """A folder names its shards by their first file, and every file of this one is gone."""
    lost = case.file("images", "shard=more")
    lost.unlink()
    shutil.rmtree(case.base / "more")
    (case.base / "more").mkdir()
    (stays,) = case.repair().still_damaged
    assert "6 images stay damaged" in stays
    assert [fault.file for fault in case.faults()] == [str(lost)]


def test_a_changed_source_is_read_as_it_is_now(case: Case) -> None:
    case.file("images", "shard=test").unlink()
    (case.base / "test" / "A" / "new.png").write_bytes(files_of(3, seed=9)["A/00000.png"])
    built = case.repair()
    assert (built.still_damaged, case.faults(), built.images) == ((), [], 67)


def test_rejects_of_a_missing_source_stay(case: Case) -> None:
    file = case.file("rejects", "split=test")
    cut(file, 10)
    shutil.move(case.base / "more", case.base / "away")
    assert any("its rejects stay damaged" in line for line in case.repair().still_damaged)
    assert str(file) in [fault.file for fault in case.faults()]
    shutil.move(case.base / "away", case.base / "more")
    assert (case.repair().still_damaged, case.differing()) == ((), [])


def test_a_source_that_changed_unnoticed_makes_everything_again(case: Case) -> None:
    """A file with the same name, size and time has other pixels: nothing made of the old ones is kept."""
    case.file("images", "shard=test").unlink()
    one, other = (case.base / "test" / "A" / name for name in ("00000.png", "copy0.png"))
    size, time = one.stat().st_size, one.stat().st_mtime_ns
    one.write_bytes(other.read_bytes()[:size].ljust(size, b"\0"))
    os.utime(one, ns=(time, time))
    assert (case.repair().still_damaged, case.faults()) == ((), [])


def test_a_shards_table_that_cannot_be_restored_makes_the_build_read_all_sources(case: Case) -> None:
    case.file("shards").unlink()
    (case.base / "test" / "A" / "new.png").write_bytes(files_of(3, seed=9)["A/00000.png"])
    (case.base / "test" / "B" / "bad.png").write_bytes(b"no image, changed")
    built = case.repair()
    assert (built.still_damaged, built.images, built.read) == ((), 67, 71)


def test_a_shards_table_is_restored_though_its_source_has_a_new_file(case: Case) -> None:
    case.file("shards").unlink()
    (case.base / "test" / "A" / "new.png").write_bytes(files_of(3, seed=9)["A/00000.png"])
    built = case.repair()
    assert (built.still_damaged, built.images, built.read) == ((), 67, 1)


def test_images_of_unknown_settings_are_not_taken(case: Case) -> None:
    """The recipe changed and the shards table, which records the settings of the images, is lost."""
    case.file("shards").unlink()
    (case.base / "test" / "A" / "new.png").write_bytes(files_of(3, seed=9)["A/00000.png"])
    decode = case.recipe.decode.model_copy(update={"size": (14, 14)})
    repair(case.recipe.model_copy(update={"decode": decode}), engine=LocalEngine(1))
    assert Lake(case.root).scan("images").select("height").unique().collect().to_series().to_list() == [14]


def test_scores_are_restored_from_an_older_version(case: Case) -> None:
    before = Lake(case.root).scan("scores").collect()
    grown = case.recipe.model_copy(
        update={"baseline": (*case.recipe.baseline, case.recipe.baseline[0].model_copy(update={"seed": 5}))}
    )
    build(grown)
    case.file("scores").unlink()
    built = case.repair()
    assert "restored from an older version" in " ".join(item.reason for item in built.done)
    assert before.join(
        Lake(case.root).scan("scores").collect(), on=before.columns, how="anti", nulls_equal=True
    ).is_empty()
    assert case.faults() == []


def test_a_split_with_groups_goes_on_from_an_older_release(case: Case) -> None:
    # The file has a new time, so everything made of it is made again, with equal results.
    (case.base / "train.tar.gz").touch()
    build(case.recipe, engine=LocalEngine(1))
    file = case.file("splits", "grouped")
    rows = pl.read_parquet(file, hive_partitioning=False)
    file.unlink()
    reason = next(item.reason for item in case.repair().done if item.unit == "grouped")
    assert "continued from release 1" in reason
    assert "its rows are equal to those of release 2" in reason
    assert pl.read_parquet(case.file("splits", "grouped"), hive_partitioning=False).equals(rows)


def test_damage_beside_a_missing_file_of_attributes_is_restored(case: Case) -> None:
    lost = case.file("clusters"), case.file("images", "split=train"), case.file("splits", "grouped")
    for file in lost:
        file.unlink()
    shutil.move(case.base / "facts.csv", case.base / "away.csv")
    (line,) = case.repair().still_damaged
    assert line == (
        f"attributes of d: not joined again, because {case.base / 'facts.csv'} does not exist; put the file back"
    )
    assert (case.faults(), case.differing()) == ([], [])
    with pytest.raises(SourceError, match=r"facts\.csv does not exist"):
        case.repair()
    shutil.move(case.base / "away.csv", case.base / "facts.csv")
    assert (case.repair().still_damaged, case.faults(), case.differing()) == ((), [], [])


def test_damaged_attributes_whose_file_is_missing_stay_and_the_rest_is_restored(case: Case) -> None:
    file = case.file("attributes")
    cut(file, 100)
    case.file("images", "split=train").unlink()
    case.file("clusters").unlink()
    shutil.move(case.base / "facts.csv", case.base / "away.csv")
    stays = case.repair().still_damaged
    assert [line.partition(" because")[0] for line in stays] == [
        "attributes of d: not joined again,",
        "attributes of d: cannot be made again without that file",
    ]
    assert [fault.file for fault in case.faults()] == [str(file)]
    shutil.move(case.base / "away.csv", case.base / "facts.csv")
    assert (case.repair().still_damaged, case.faults(), case.differing()) == ((), [], [])


@pytest.mark.parametrize("tables", [["attributes"], ["attributes", "images"], ["images"]], ids=" and ".join)
def test_lost_tables_beside_a_missing_file_of_attributes_are_made_again(case: Case, tables: list[str]) -> None:
    for table in tables:
        shutil.rmtree(Path(case.root, table))
    shutil.move(case.base / "facts.csv", case.base / "away.csv")
    stays = case.repair().still_damaged
    assert stays[0].startswith("attributes of d: not joined again")
    assert case.faults() == []
    assert case.differing() == (["attributes"] if "attributes" in tables else [])
    shutil.move(case.base / "away.csv", case.base / "facts.csv")
    case.build()
    assert (case.faults(), case.differing()) == ([], [])

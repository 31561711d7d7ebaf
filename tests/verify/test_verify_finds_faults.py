"""Every check of `verify` finds its faults in a damaged copy of a lake."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Run
from damaged_lakes import renamed
from lakes import file_names

import schemas
from pipeline.engines import Engine
from pipeline.lake_handle import Lake
from pipeline.verify import verify

Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture
def lake(small_lake: Lake, tmp_path: Path) -> Lake:
    shutil.copytree(small_lake.root, tmp_path / "lake")
    return Lake(tmp_path / "lake")


def damage(lake: Lake, table: str, change: Change) -> None:
    """Rewrite the first file of a table, with the right digest, so that only its values are wrong."""
    name = file_names(lake.root, table, lake.versions[table])[0]
    rows = change(pl.read_parquet(name, hive_partitioning=False))
    pq.write_table(rows.to_arrow().cast(schemas.TABLES[table].file_schema), name)
    renamed(Path(name))


def flip_a_pixel(rows: pl.DataFrame) -> pl.DataFrame:
    pixels = rows["pixels"].to_list()
    pixels[0] = bytes([pixels[0][0] ^ 1]) + pixels[0][1:]
    return rows.with_columns(pl.Series("pixels", pixels, dtype=pl.Binary))


def keep_all(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(
        kept=pl.lit(value=True), dropped_by=pl.lit(None, pl.String), dropped_for=pl.lit(None, pl.Binary)
    )


FAULTS: dict[str, tuple[str, Change, str]] = {
    "a flipped bit": ("images", flip_a_pixel, "pixels, ids and index keys"),
    "another path": ("images", lambda rows: rows.with_columns(path=pl.col("path") + "x"), "pixels, ids and index keys"),
    "a short digest": (
        "images",
        lambda rows: rows.with_columns(pl.col("file_digest").bin.slice(0, 31)),
        "pixels, ids and index keys",
    ),
    "a wrong sum": ("images", lambda rows: rows.with_columns(pl.col("pixel_sum") + 1), "pixels, ids and index keys"),
    "a lost image": ("images", lambda rows: rows.tail(-1), "every file is one image or one reject"),
    "a lost reject": ("rejects", lambda rows: rows.tail(-1), "every file is one image or one reject"),
    "an image twice": ("images", lambda rows: pl.concat([rows, rows.head(1)]), "image ids are unique"),
    "a wrong key": ("index", lambda rows: rows.with_columns(pl.col("key") + 1), "pixels, ids and index keys"),
    "a lost key": ("index", lambda rows: rows.tail(-1), "pixels, ids and index keys"),
    "a lost cluster": ("clusters", lambda rows: rows.tail(-2), "clusters follow from index and pairs"),
    "a rank with a gap": ("splits", lambda rows: rows.with_columns(pl.col("rank") * 2), "splits name images"),
    "an unknown image": (
        "splits",
        lambda rows: rows.with_columns(image_id=pl.lit(b"?" * 16)),
        "splits name images of the lake",
    ),
    "a straddling cluster": ("splits", keep_all, "no cluster of sanitize"),
    "a drop without reason": (
        "splits",
        lambda rows: rows.with_columns(dropped_by=pl.lit(None, pl.String)),
        "every dropped row names its rule, its image and its reason",
    ),
}


@pytest.mark.quick_cases(7)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_its_check(lake: Lake, fault: str) -> None:
    table, change, check = FAULTS[fault]
    damage(lake, table, change)
    faults = {found.name: found.faults for found in verify(lake.root) if check in found.name}
    assert [fault for found in faults.values() for fault in found if fault.kind != "unchecked"]


def test_a_good_lake_passes(small_lake: Lake) -> None:
    assert [check for check in verify(small_lake.root) if check.faults] == []


def test_a_flipped_bit_is_named_by_file_and_image(lake: Lake) -> None:
    damage(lake, "images", flip_a_pixel)
    lake = Lake(lake.root)
    name = file_names(lake.root, "images", lake.versions["images"])[0]
    path = pl.read_parquet(name, hive_partitioning=False)["path"][0]
    faults = [fault for check in verify(lake.root) for fault in check.faults]
    assert any(fault.file == name and list(fault.images) == [path] and path in str(fault) for fault in faults)


def test_a_missing_and_a_cut_file_are_faults_not_crashes(lake: Lake) -> None:
    first, second = file_names(lake.root, "images", lake.versions["images"])
    Path(first).unlink()
    data = Path(second).read_bytes()
    Path(second).write_bytes(data[: len(data) // 2])
    faults = {fault.file: fault for check in verify(lake.root) for fault in check.faults if fault.file}
    assert [(faults[name].kind, faults[name].rows) for name in (first, second)] == [
        ("missing", 40),
        ("unreadable", 120),
    ]
    assert "40 images of d/test shard test-" in str(faults[first])
    assert "from train" in str(faults[second])


@pytest.mark.slow
def test_all_engines_find_the_same(lake: Lake, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.verify.tables._SMALL", 0)
    damage(lake, "images", flip_a_pixel)
    Path(file_names(lake.root, "index", lake.versions["index"])[0]).unlink()
    assert verify(lake.root, engine=engine) == verify(lake.root)


def test_the_command_prints_faults_as_json(lake: Lake, run: Run) -> None:
    name = file_names(lake.root, "images", lake.versions["images"])[0]
    Path(name).unlink()
    ran = run("verify", lake.root, "--json", "--workers", 1)
    (fault,) = next(
        check for check in json.loads(ran.stdout) if "there and whole" in check["name"] and check["faults"]
    )["faults"]
    assert ran.exit_code == 1
    assert (fault["kind"], fault["table"], fault["file"], fault["rows"]) == ("missing", "images", name, 40)
    assert fault["partition"]["split"] == "test"
    assert fault["source"] == "test"
    assert "build RECIPE.toml --repair" in run("verify", lake.root).stdout


def test_a_column_too_few_is_a_fault(lake: Lake) -> None:
    name = file_names(lake.root, "clusters", lake.versions["clusters"])[0]
    pq.write_table(pa.table({"cluster_id": [b"x"]}), name)
    assert any(check.faults for check in verify(lake.root))

"""Random verdicts about random lakes: grown and fresh lakes are equal, verify finds nothing, and undo restores all."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import rows_by_content
from making import as_folder, encoded, pictures, recipe

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe
from pipeline.verdicts.files import export_verdicts, import_verdicts
from pipeline.verdicts.journal import Picture, Verdict, record, withdraw
from pipeline.verify import verify

TABLES = ("images", "pairs", "clusters", "splits")
SHARES = {"train": {"from": "train", "share": 0.7}, "test": {"from": "train", "share": 0.3}}
SPLITS: list[dict[str, Any]] = [
    {"name": "plain", "sanitize": ["exact", "cosine:0.97"], "train": {"from": "train"}, "test": {"from": "test"}},
    {"name": "first", "sanitize": "cosine:0.95", "within": "first", "conflicts": "majority", **SHARES},
    {"name": "none", "sanitize": "exact", "within": "none", "conflicts": "drop", **SHARES},
    {"name": "grouped", "groups": ["exact", "cosine:0.97"], "sanitize": "sign", **SHARES},
]


def recipe_of(base: Path, clusters: str, root: str = "lake") -> Recipe:
    rules = {"rules": ["exact", "sign", "cosine:0.95"], "clusters": clusters}
    sources = ({"uri": "train"}, {"uri": "test", "split": "test"})
    return recipe(base, *sources, lake={"root": root}, decode={"size": [28, 28]}, dedup=rules, split=SPLITS)


def some_files(chance: random.Random, count: int, seed: int) -> dict[str, bytes]:
    """Make files of which many are copies or near copies of others, in three classes and two splits."""
    drawn = pictures(6)
    files = {}
    for number in range(count):
        picture = drawn[chance.randrange(6)].copy()
        if chance.random() < 0.7:
            picture[:2, : chance.randrange(1, 4)] = chance.choice((0, 255))
        kind = chance.choice(("train", "train", "test"))
        files[f"{kind}/{chance.choice('ABC')}/{seed}-{number}.png"] = encoded(np.ascontiguousarray(picture))
    return files


def decide(chance: random.Random, lake: Lake, count: int) -> None:
    """Record random verdicts about pictures of the lake."""
    rows = lake.scan("images").select("content_hash", "file_digest").unique().sort("file_digest").collect().rows()
    for _ in range(count):
        one, other = (Picture(*chance.choice(rows)) for _ in range(2))
        verdict = chance.choice(("same", "different", "different", "keep", "drop", "label", "wrong_label", "not_sure"))
        pair = other if verdict in ("same", "different") else None
        label = chance.choice("AB") if verdict == "label" else None
        if pair != one:
            record(lake.root, [Verdict(verdict, one, pair, label)], chance.choice(("ann", "bob")))


def rows_of(lake: Lake) -> dict[str, pl.DataFrame]:
    return {table: rows_by_content(lake.root, table) for table in TABLES}


def faults_of(lake: Lake) -> list[str]:
    return [str(fault) for check in verify(lake.root) for fault in check.faults]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("seed", range(12))
def test_a_grown_lake_is_a_fresh_one_and_undo_restores_it(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    clusters = ("components", "stars")[seed % 2]
    as_folder(tmp_path, {**some_files(chance, 26, 0), "test/A/one.png": encoded(pictures(1, 50)[0])})
    grown = recipe_of(tmp_path, clusters)
    build(grown, engine=LocalEngine(1))
    for round_ in (1, 2):
        decide(chance, Lake(grown.root), 8)
        if round_ == 2:
            as_folder(tmp_path, some_files(chance, 5, round_))
        build(grown, engine=LocalEngine(1))
        assert faults_of(Lake(grown.root)) == []
        assert build(grown, engine=LocalEngine(1)).done == ()
    lake = Lake(grown.root)
    base = tmp_path / "fresh"
    for name in ("train", "test"):
        shutil.copytree(tmp_path / name, base / name)
    fresh = recipe_of(base, clusters)
    export_verdicts(lake.root, tmp_path / "verdicts.parquet")
    import_verdicts(fresh.root, tmp_path / "verdicts.parquet")
    build(fresh, engine=LocalEngine(1))
    left, right = rows_of(lake), rows_of(Lake(fresh.root))
    # A split with groups continues from the release before, so only its fresh lake is drawn from nothing.
    for rows in (left, right):
        rows["splits"] = rows["splits"].filter(pl.col("split_name") != "grouped")
    assert [table for table in TABLES if not left[table].equals(right[table])] == []
    withdraw(fresh.root, [row[0] for row in lake.verdicts().standing.select("verdict_id").rows()])
    while len(standing := Lake(fresh.root).verdicts().standing):
        withdraw(fresh.root, standing["verdict_id"].to_list())
    build(fresh, engine=LocalEngine(1))
    without = recipe_of(base, clusters, "without")
    build(without, engine=LocalEngine(1))
    left, right = rows_of(Lake(fresh.root)), rows_of(Lake(without.root))
    for rows in (left, right):
        rows["splits"] = rows["splits"].filter(pl.col("split_name") != "grouped")
    assert [table for table in TABLES if not left[table].equals(right[table])] == []

"""Law 2 across engines: tables are equal row for row, however the work was cut."""

from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from examples import slow_but
from making import DATA, as_folder, encoded, needs_data, recipe

from pipeline.builder import clusters as cluster
from pipeline.builder import pairs as compare
from pipeline.builder import pairs as pair
from pipeline.builder.build import build
from pipeline.dedup import held_pairs
from pipeline.engines import Engine
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.verdicts.files import import_verdicts

TABLES = ("images", "rejects", "shards", "index", "pairs", "clusters", "splits")
RULES = ["exact", "sign", "maxpool:4", "cosine:0.95", "hamming:6"]
SPLIT = {"name": "main", "sanitize": "sign", "train": {"from": "train"}, "test": {"from": "test"}}


def rows_of(root: str) -> dict[str, pl.DataFrame]:
    lake = Lake(root)
    return {name: lake.scan(name).collect() for name in TABLES}


def assert_same(one: str, other: str) -> None:
    left, right = rows_of(one), rows_of(other)
    for name in TABLES:
        assert left[name].equals(right[name]), name
    assert len(left["pairs"])
    assert len(left["clusters"])


def alike(base: Path, sources: int) -> list[dict[str, Any]]:
    """Make sources of 40 pictures each, of which many are nearly alike, some are equal, and one is no picture."""
    chance = np.random.default_rng(5)
    kinds = chance.integers(0, 256, (12, 16, 16), dtype=np.uint8)
    listed: list[dict[str, Any]] = []
    for number in range(sources):
        noise = chance.integers(0, 3, (40, 16, 16), dtype=np.uint8) * (chance.random((40, 1, 1)) < 0.7)
        made = np.minimum(kinds[chance.integers(0, 12, 40)].astype(int) + noise, 255).astype(np.uint8)
        files = {f"{'AB'[i % 2]}/{number}-{i:02d}.png": encoded(made[i]) for i in range(40)}
        as_folder(base / f"in{number}", {**files, "A/empty.png": b""} if number == 0 else files)
        listed.append({"uri": f"in{number}", "split": "test" if number == sources - 1 else "train"})
    return listed


def decisions(base: Path) -> Path:
    """Write verdicts about some of these pictures, as a person does by hand."""
    digests = [sha256(file.read_bytes()).hexdigest() for file in sorted((base / "in0").glob("?/0-*.png"))]
    pairs = [("same", digests[0], digests[1]), *(("different", digests[2], other) for other in digests[3:12])]
    rows = [",".join((*pair, "")) for pair in pairs if pair[1] != pair[2]]
    rows += [f"drop,{digests[20]},,", f"label,{digests[21]},,B", f"keep,{digests[22]},,"]
    file = base / "verdicts.csv"
    file.write_text("\n".join(["verdict,file_digest,other_file_digest,label", *rows]) + "\n")
    return file


@pytest.mark.parametrize("between", slow_but(["all"], ["all", "splits"]))
def test_how_work_is_cut_shows_in_no_table(tmp_path: Path, ray_here: Engine, between: str) -> None:
    listed = alike(tmp_path, sources=6)
    parts: dict[str, Any] = {"dedup": {"rules": RULES, "between": between}, "split": [SPLIT]}

    verdicts = decisions(tmp_path)

    def make(root: str, engine: Engine, count: int = 6) -> str:
        import_verdicts(str(tmp_path / root), verdicts)
        wanted = [*listed[: count - 1], listed[-1]]
        return build(recipe(tmp_path, *wanted, lake={"root": root}, **parts), engine=engine).root

    whole = make("whole", LocalEngine(1))
    assert Lake(whole).scan("splits").filter(pl.col("reason") == "verdict").collect().height
    assert any(
        unit.get("verdicts", {}).get("apart") for unit in Lake(whole).snapshot.metadata("clusters").units.values()
    )
    with patch.object(pair, "_BLOCK_IMAGES", 50), patch.object(compare, "_GROUP_PAIRS", 100):
        assert_same(whole, make("blocks", LocalEngine(1)))
        with patch.object(cluster, "_ROWS_PER_TASK", 40):
            assert_same(whole, make("tasks", ray_here))
    with patch.object(cluster, "_ROWS_PER_TASK", 40):
        assert_same(whole, make("few", ray_here))
        make("grown", ray_here, count=4)
        make("grown", ray_here)
    make("grown-here", LocalEngine(1), count=4)
    assert_same(make("grown-here", LocalEngine(1)), str(tmp_path / "grown"))


def test_too_many_pairs_are_too_many_for_workers(tmp_path: Path, ray_here: Engine) -> None:
    dedup = {"rules": ["hamming:6"], "max_pairs": 500, "clusters": "stars"}
    with pytest.raises(LakeError, match="more pairs than dedup.max_pairs"):
        build(recipe(tmp_path, *alike(tmp_path, sources=4), dedup=dedup), engine=ray_here)


def test_workers_find_the_same_spanning_forest(tmp_path: Path, ray_here: Engine) -> None:
    listed = alike(tmp_path, sources=4)
    dedup = {"rules": ["hamming:6", "cosine:0.95"], "max_pairs": 50}

    def make(root: str, engine: Engine) -> str:
        return build(recipe(tmp_path, *listed, lake={"root": root}, dedup=dedup), engine=engine).root

    here = make("here", LocalEngine(1))
    assert all(unit["found"] > 50 for unit in Lake(here).snapshot.metadata("pairs").units.values())
    with patch.object(compare, "_BLOCK_IMAGES", 50), patch.multiple(held_pairs, _BATCH_PAIRS=20, _SAMPLED=4):
        assert_same(here, make("blocks", LocalEngine(1)))
        assert_same(here, make("workers", ray_here))


@pytest.mark.ray
def test_attributes_and_originals_are_the_same_on_ray(tmp_path: Path, ray_here: Engine) -> None:
    listed = alike(tmp_path, sources=2)
    names = sorted(path.relative_to(tmp_path / "in0").as_posix() for path in (tmp_path / "in0").rglob("*.png"))
    rows = [f"{name},p{number % 11},{number % 2},{number % 3 // 2}" for number, name in enumerate(names)]
    (tmp_path / "facts.csv").write_text("\n".join(["path,patient,cat,dog", *rows]))
    shares = {role: {"from": "train", "share": 0.5} for role in ("train", "test")}
    parts: dict[str, Any] = {
        "decode": {"originals": "keep"},
        "dedup": {"rules": RULES},
        "issues": {"blurry": 0.01, "label": 0.01, "outlier": 0.01},
        "attributes": [
            {"uri": "facts.csv", "split": "train", "columns": ["patient"], "labels": ["cat", "dog"]},
            {"patterns": {"number": r"-(\d+)"}},
        ],
        "split": [
            {"name": "patients", "groups": ["attr:patient", "exact"], **shares},
            {"name": "labels", "groups": ["attr:patient"], "stratify": "attr:labels", **shares},
            {"name": "order", "order": "attr:number", **shares},
        ],
    }
    built = [
        build(recipe(tmp_path, *listed, lake={"root": root}, **parts), engine=engine)
        for root, engine in (("local", LocalEngine(1)), ("ray", ray_here))
    ]
    one, other = ([note for note in each.notes if note.startswith("attribute")] for each in built)
    assert one == other != []
    assert_same(built[0].root, built[1].root)
    for name in ("originals", "attributes", "measurements", "issues"):
        here, there = (Lake(each.root).scan(name).collect() for each in built)
        assert here.equals(there)
        assert len(here)


@needs_data
def test_real_pictures_make_the_same_tables(tmp_path: Path, ray_here: Engine) -> None:
    listed = [
        {"uri": str(DATA / "notMNIST_large_sample.tar.gz"), "dataset": "notmnist"},
        {"uri": str(DATA / "notMNIST_small.tar.gz"), "dataset": "notmnist", "split": "test"},
    ]
    parts: dict[str, Any] = {"decode": {"size": [28, 28]}, "dedup": {"rules": RULES}, "split": [SPLIT]}
    local, ray = (
        build(recipe(tmp_path, *listed, lake={"root": root}, **parts), engine=engine).root
        for root, engine in (("local", LocalEngine(2)), ("ray", ray_here))
    )
    assert_same(local, ray)

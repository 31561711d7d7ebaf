"""A lake that version 0.5.0 built opens, reads as it did, and is built on, verified and repaired."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from making import DATA

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake.releases import stored_decode
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.maintenance import last_recipe, status
from pipeline.recipe import read_recipe
from pipeline.repair import repair
from pipeline.verify import verify

ARCHIVE = DATA / "lake-0.5.0.tar.gz"
pytestmark = [
    pytest.mark.skipif(not ARCHIVE.exists(), reason="the lake of 0.5.0 (../shared/data) is not here"),
]
LEFT_OUT = ("seconds", "memory", "uri", "fingerprint")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "v0.5.0"


def digests(lake: Lake, expected: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Digest the columns that 0.5.0 had of every table of a release, as its own script did."""
    found = {}
    for name, told in expected.items():
        release, table = name.split()
        if int(release) == lake.release:
            rows = lake.scan(table).collect().select(told["columns"])
            lines = sorted(repr(row) for row in rows.rows())
            digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
            found[name] = {"rows": len(lines), "columns": told["columns"], "digest": digest}
    return found


def test_it_reads_as_it_did_and_is_found_again_with_its_sources(old: Path) -> None:
    expected = json.loads((old / "expected.json").read_text())
    lake = Lake(old / "lake")
    assert {**digests(lake.at(1), expected), **digests(lake, expected)} == expected
    assert all(not check.faults for check in verify(str(old / "lake")))
    # It was moved together with its recipe and sources. Unpacked, these have other times.
    assert last_recipe(str(old / "lake")).file == (old / "recipe.toml").resolve()
    assert {todo.unit for todo in status(str(old / "lake")).todo} >= {"glyphs/train (g/train)", "glyphs/test (g/test)"}


def test_it_is_built_on(old: Path, run: Run) -> None:
    expected = json.loads((old / "expected.json").read_text())
    few = sorted((old / "g" / "train").rglob("*.png"))[:3]
    for number, file in enumerate(few):
        shutil.copy(file, file.with_name(f"copy{number}.png"))
    built = build(read_recipe(old / "recipe.toml"), engine=LocalEngine(1))
    # What its recipe did not say stays as it was: gray, and rejects of everything else.
    assert (built.mode, built.mode_decided, stored_decode(Snapshot(built.root))["on_mismatch"]) == (
        "L",
        False,
        "reject",
    )
    assert built.read < 3_000
    lake = Lake(old / "lake")
    assert len(lake.scan("images").collect()) == built.images
    assert {**digests(lake.at(1), expected), **digests(lake.at(2), expected)} == expected
    assert all(not check.faults for check in verify(str(old / "lake")))
    assert "nothing to do" in run("build", old / "lake", "--workers", 1).output


def test_it_is_repaired(old: Path) -> None:
    file = max((old / "lake" / "images").rglob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    file.unlink()
    built = repair(read_recipe(old / "recipe.toml"), engine=LocalEngine(1))
    assert built.damaged
    assert not built.still_damaged
    assert all(not check.faults for check in verify(str(old / "lake")))

"""Law: a file that is as it was is not decoded again, and the lake is as if it had been."""

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from damaged_lakes import flip
from examples import few, slow_but
from hypothesis import given
from hypothesis import strategies as st
from lakes import rows_by_content
from making import as_folder, encoded, files_of, recipe

from pipeline.builder import worker
from pipeline.builder.build import Built, build
from pipeline.engines.local import LocalEngine
from pipeline.errors import DamagedLakeError
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe
from pipeline.repair import repair
from pipeline.sources import folder
from pipeline.verify import verify

TABLES = ("images", "originals", "index", "rejects", "shards", "pairs", "clusters", "splits")
RULES = ["exact", "sign", "hamming:6", "cosine:0.95"]
SPLIT: dict[str, Any] = {
    "split": [{"name": "main", "sanitize": "sign", "train": {"from": "train"}}],
}


def lake_of(base: Path, root: str = "lake", **decode: Any) -> Recipe:
    return recipe(base, {"uri": "set"}, lake={"root": root}, dedup={"rules": RULES}, decode=decode, **SPLIT)


def built(made: Recipe, workers: int = 1) -> Built:
    return build(made, engine=LocalEngine(workers))


def photographs(count: int, seed: int = 0) -> dict[str, bytes]:
    """Pictures of several shapes and formats, every fourth nearly the same, and some files that are no pictures."""
    noise = np.random.default_rng(seed)
    forms = ("JPEG", "PNG", "WEBP")
    made = {}
    for i in range(count):
        pattern = np.random.default_rng(i % 4).integers(0, 200, (5, 6, 3)).repeat(5, 0).repeat(5, 1)[: 22 + i % 2]
        pixels = (pattern + noise.integers(0, 20, pattern.shape)).astype(np.uint8)
        made[f"{'AB'[i % 2]}/{i:03}-{seed}.x"] = encoded(pixels, forms[i % 3])
    return {**made, f"A/no-picture-{seed}.x": b"no picture", f"B/empty-{seed}.x": b""}


def tables(root: str) -> dict[str, pl.DataFrame]:
    return {name: rows_by_content(root, name) for name in TABLES}


def check(made: Recipe) -> None:
    """Compare a grown lake with one from nothing, row for row."""
    assert [fault for one in verify(made.root) for fault in one.faults] == []
    fresh = made.model_copy(update={"lake": made.lake.model_copy(update={"root": "fresh"})})
    built(fresh)
    grown, new = tables(made.root), tables(fresh.root)
    assert not new["index"].is_empty()
    for name, rows in new.items():
        assert grown[name].equals(rows), name


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_LARGEST", 8)


@pytest.mark.parametrize(
    "decode",
    slow_but([{"longest": 16}], [{"size": [28, 28]}, {"longest": 16}, {"longest": 16, "originals": "reference"}]),
)
@pytest.mark.usefixtures("small_shards")
def test_only_new_and_changed_files_are_decoded(tmp_path: Path, decode: dict[str, Any]) -> None:
    as_folder(tmp_path / "set", photographs(40))
    made = lake_of(tmp_path, mode="RGB", **decode)
    assert built(made).read == 42
    as_folder(tmp_path / "set", photographs(3, seed=1))
    (tmp_path / "set" / "A" / "000-0.x").write_bytes(photographs(1, seed=5)["A/000-5.x"])
    (tmp_path / "set" / "B" / "001-0.x").unlink()
    done = built(made, workers=2)
    # Rejects are read again with their shard: there are at most two of the old ones.
    assert 6 <= done.read <= 8
    assert done.images == 42
    assert tables(made.root)["pairs"].height > 50
    check(made)


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_a_moved_label_takes_the_stored_pixels(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", files_of(20))
    made = lake_of(tmp_path)
    built(made)
    (tmp_path / "set" / "A").rename(tmp_path / "set" / "C")
    # The path has changed, so these are other files.
    assert built(made).read == 10
    check(made)


def test_a_touched_file_is_decoded_again(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", files_of(10))
    made = lake_of(tmp_path)
    built(made)
    os.utime(tmp_path / "set" / "A" / "00000.png", ns=(1, 1))
    assert built(made).read == 1
    assert built(made).read == 0


def test_other_settings_decode_everything(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", files_of(10))
    built(lake_of(tmp_path))
    assert built(lake_of(tmp_path, size=[10, 10])).read == 10


@pytest.mark.parametrize("table", slow_but(["originals"], ["images", "originals"]))
def test_rows_of_a_damaged_file_are_not_taken(tmp_path: Path, table: str) -> None:
    as_folder(tmp_path / "set", photographs(10))
    made = lake_of(tmp_path, mode="RGB", longest=16, originals="keep")
    built(made)
    (file,) = Snapshot(made.root).file_places(table)
    flip(Path(file), Path(file).stat().st_size // 3)
    as_folder(tmp_path / "set", photographs(1, seed=1))
    os.utime(tmp_path / "set" / "A" / "000-0.x", ns=(1, 1))
    assert built(made).read == 15
    check(made)


def test_files_of_a_lost_shard_are_read_again(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", files_of(10))
    made = lake_of(tmp_path)
    built(made)
    Path(Snapshot(made.root).file_places("images")[0]).unlink()
    as_folder(tmp_path / "set", {"A/new.png": files_of(1, seed=1)["A/00000.png"]})
    assert built(made).read == 11
    check(made)


def test_a_damaged_file_is_not_indexed_by_a_new_rule(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", files_of(10))
    made = lake_of(tmp_path)
    built(made)
    (file,) = Snapshot(made.root).file_places("images")
    flip(Path(file), Path(file).stat().st_size // 3)
    more = made.model_copy(update={"dedup": made.dedup.model_copy(update={"rules": (*RULES, "maxpool:4")})})
    with pytest.raises(DamagedLakeError, match=file):
        built(more)


@pytest.mark.slow
def test_a_lake_without_states_decodes_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(tmp_path / "set", files_of(10))
    made = lake_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "states_of", lambda *_: b"")
        built(made)
    as_folder(tmp_path / "set", files_of(1, seed=9) | {"A/new.png": files_of(1, seed=10)["A/00000.png"]})
    assert built(made).read == 11
    as_folder(tmp_path / "set", {"A/newer.png": files_of(1, seed=11)["A/00000.png"]})
    assert built(made).read == 1
    check(made)


def shards(made: Recipe) -> set[str]:
    return set(Lake(made.root).scan("shards").select("shard").collect().to_series())


@pytest.mark.slow
def test_new_files_change_no_other_shard_and_small_shards_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_LARGEST", 20)
    data = list(files_of(60).items())
    as_folder(tmp_path / "set", dict(data[:40]))
    made = lake_of(tmp_path)
    built(made)
    first = shards(made)
    assert len(first) == 2
    for at in range(40, 60):
        as_folder(tmp_path / "set", dict(data[at : at + 1]))
        assert built(made).read == 1
        assert first < shards(made)
        # As many as the files have bits.
        assert len(shards(made)) == 2 + (at - 39).bit_count()
    assert built(made).done == ()
    check(made)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("table", "damaged", "changes"),
    [
        ("images", 2, False),
        ("originals", 1, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product(["images", "originals", "index"], [1, 2, 4], [False, True])
        ),
    ],
)
def test_shards_of_a_lake_that_grew_are_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, table: str, damaged: int, changes: bool
) -> None:
    monkeypatch.setattr(folder, "_LARGEST", 8)
    data = photographs(20)
    data = {name: data[name] for name in sorted(data)}
    made = lake_of(tmp_path, mode="RGB", longest=16, originals="keep")
    for start, stop in ((0, 12), (12, 16), (16, 18), (18, 22)):
        as_folder(tmp_path / "set", dict(list(data.items())[start:stop]))
        built(made)
    files = Snapshot(made.root).file_places(table, lambda p: p.get("rule", "sign") == "sign")
    for file in files[:damaged]:
        flip(Path(file), Path(file).stat().st_size // 3)
    if changes:
        as_folder(tmp_path / "set", photographs(1, seed=1))
    done = repair(made, engine=LocalEngine(1))
    assert (done.still_damaged, bool(done.damaged)) == ((), True)
    assert built(made).done == ()
    check(made)


def test_units_of_a_lake_that_grew_have_the_fingerprints_of_one_from_nothing(tmp_path: Path) -> None:
    data = list(files_of(20).items())
    as_folder(tmp_path / "set", dict(data[:15]))
    made = lake_of(tmp_path)
    built(made)
    as_folder(tmp_path / "set", dict(data[15:]))
    built(made)
    fresh = lake_of(tmp_path, "fresh")
    built(fresh)
    for table in ("pairs", "clusters", "splits"):
        grown, new = (Snapshot(one.root).metadata(table).units for one in (made, fresh))
        assert {name: unit["fingerprint"] for name, unit in grown.items()} == {
            name: unit["fingerprint"] for name, unit in new.items()
        }


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
@few(15, thorough=50)
@given(steps=st.lists(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("+-~")), max_size=6), max_size=3))
def test_any_history_makes_the_same_lake(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    base = tmp_path_factory.mktemp("history")
    data = photographs(31)
    names = sorted(data)
    as_folder(base / "set", {name: data[name] for name in names[:15]})
    made = lake_of(base, mode="RGB", longest=16)
    built(made)
    for number, step in enumerate(steps):
        for which, what in step:
            file = base / "set" / names[which]
            if what == "-":
                file.unlink(missing_ok=True)
            else:
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(
                    data[names[which]]
                    if what == "+"
                    else photographs(31, seed=number + 2)[names[which].replace("-0.x", f"-{number + 2}.x")]
                )
        built(made)
    check(made)


def test_a_small_change_of_many_folders_decodes_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many shards change as there are; one in a hundred files is new."""
    monkeypatch.setattr(folder, "_LARGEST", 50)
    as_folder(tmp_path / "set", files_of(400, classes="ABCDEFGHIJ"))
    made = lake_of(tmp_path)
    built(made)
    new = {f"{name[:2]}n{name[2:]}": data for name, data in files_of(10, classes="ABCDEFGHIJ", seed=3).items()}
    as_folder(tmp_path / "set", new)
    assert built(made).read == 10

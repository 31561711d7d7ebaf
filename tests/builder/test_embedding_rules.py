"""Rules embedding:NAME:t in a lake: pairs are those of the vectors as they are now, and of no other images."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakes import rows_by_content, versions
from making import as_folder, encoded, pictures, recipe
from numpy.typing import NDArray

from pipeline.builder import pairs as compare
from pipeline.builder import pairs as pair
from pipeline.builder.build import Built, build
from pipeline.builder.publish import ReportResult
from pipeline.dedup.matching import Block, ScoredPairs, scored_pairs
from pipeline.engines.local import LocalEngine
from pipeline.errors import RecipeError, SourceError
from pipeline.lake_handle import Lake
from pipeline.maintenance import status
from pipeline.verify import verify

pytestmark = pytest.mark.slow

Vectors = dict[str, NDArray[np.float64]]
Pairs = dict[tuple[str, str], float]

RULE = "embedding:clip:0.9"
TABLES = ("images", "shards", "index", "pairs", "clusters")
CLIP = {"name": "clip", "uri": "clip.parquet", "dataset": "d"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, which takes longer than the build, and cut folders into several shards."""
    monkeypatch.setattr("pipeline.builder.build.try_to_write_report", lambda lake: ReportResult(lake.root))
    monkeypatch.setattr("pipeline.sources.folder._LARGEST", 7)


def vectors_of(split: str, n: int, d: int = 8) -> Vectors:
    """Vectors of any length around five centres, the same for all splits, some equal and some zero; by path."""
    rng = np.random.default_rng(sum(split.encode()))
    rows = np.random.default_rng(d).normal(size=(5, d))[rng.integers(0, 5, n)]
    rows = (rows + rng.normal(size=(n, d)) * rng.choice([0, 0.2, 1], (n, 1))) * rng.uniform(0.01, 100, (n, 1))
    rows[rng.random(n) < 0.1] = 0
    return {f"{'AB'[k % 2]}/{split}{k:03d}.png": row for k, row in enumerate(rows)}


CLOCK = count(10**18, 10**9)


def write(base: Path, vectors: Vectors, file: str = "clip.parquet") -> None:
    """Write vectors, in an order of their own and with one that no image has, at a time of their own."""
    rows = {"no/such.png": next(iter(vectors.values())), **dict(reversed(vectors.items()))}
    pq.write_table(pa.table({"path": list(rows), "embedding": list(rows.values())}), base / file)
    now = next(CLOCK)
    os.utime(base / file, ns=(now, now))


def pictured(base: Path, split: str, vectors: Vectors, seed: int = 0) -> None:
    made = pictures(len(vectors), seed + sum(split.encode()), (6, 6))
    as_folder(base / split, {path: encoded(made[k]) for k, path in enumerate(vectors)})


def make(
    base: Path, *splits: str, prune: bool = False, rules: tuple[str, ...] = ("exact", RULE), **parts: Any
) -> Built:
    listed = [{"uri": split, "split": split} for split in splits]
    asked = recipe(base, *listed, **{"embedding": [CLIP], "dedup": {"rules": rules}, **parts})
    return build(asked, engine=LocalEngine(1), prune=prune)


def pairs_of(root: str, rule: str = RULE) -> Pairs:
    """The pairs of a lake by path; each is there once."""
    names = dict(Lake(root).scan("images").select("image_id", "path").collect().iter_rows())
    rows = Lake(root).scan("pairs").filter(pl.col("rule") == rule).collect()
    ordered = [(*sorted((names[row["left_id"]], names[row["right_id"]])), row["score"]) for row in rows.to_dicts()]
    assert len({row[:2] for row in ordered}) == len(ordered)
    return {(left, right): score for left, right, score in ordered}


def brute(vectors: Vectors, least: float = 0.9) -> Pairs:
    """All pairs in float64, none of which is so near the threshold that rounding to float32 could matter."""
    rows = {path: row / np.linalg.norm(row) for path, row in sorted(vectors.items()) if row.any()}
    paths, unit = list(rows), np.stack(list(rows.values()))
    cosine = unit @ unit.T
    assert np.abs(cosine - least).min() > 1e-6
    return {(paths[i], paths[j]): float(cosine[i, j]) for i, j in np.argwhere(np.triu(cosine, 1) >= least)}


def check(root: str, vectors: Vectors, rule: str = RULE) -> None:
    found, wanted = pairs_of(root, rule), brute(vectors, float(rule.split(":")[2]))
    assert wanted
    assert found == pytest.approx(wanted, abs=1e-6)


def whole(root: str) -> None:
    assert all(not check.faults for check in verify(root))


def world(base: Path, **counts: int) -> Vectors:
    """Folders of so many images each, with one file of vectors for all."""
    parts = {split: vectors_of(split, n) for split, n in counts.items()}
    for split, part in parts.items():
        pictured(base, split, part)
    every = {path: row for part in parts.values() for path, row in part.items()}
    write(base, every)
    return every


def test_pairs_are_those_of_the_vectors_in_float64(tmp_path: Path) -> None:
    vectors = world(tmp_path, train=25, test=12)
    rules = tuple(f"embedding:clip:{least}" for least in ("0.5", "0.9", "0.9999"))
    root = make(tmp_path, "train", "test", rules=rules).root
    for rule in rules:
        check(root, vectors, rule)
    whole(root)


def test_another_file_makes_pairs_anew_and_the_same_file_commits_nothing(tmp_path: Path) -> None:
    vectors = world(tmp_path, train=20)
    root = make(tmp_path, "train").root
    held, before = versions(root), pairs_of(root)
    assert (make(tmp_path, "train").done, status(root).todo, versions(root)) == ((), [], held)
    vectors = dict(zip(vectors, reversed(list(vectors.values())), strict=True))
    write(tmp_path, vectors)
    assert [item.unit for item in status(root).todo] == [RULE]
    assert [item.unit for item in make(tmp_path, "train").done] == [RULE]
    assert pairs_of(root) != before
    check(root, vectors)
    whole(root)
    assert make(tmp_path, "train").done == ()


def test_an_image_without_a_vector_is_named_and_the_lake_stays_as_it_was(tmp_path: Path) -> None:
    vectors = world(tmp_path, train=20)
    root = make(tmp_path, "train").root
    held = {name: Lake(root).scan(name).collect() for name in TABLES}
    more = vectors_of("test", 9)
    pictured(tmp_path, "test", more)
    said = r"'clip': .*clip.parquet has no vector for 9 of 9 images, the first is ./test00..png of d/test. Add the"
    for _ in range(2):
        with pytest.raises(SourceError, match=said):
            make(tmp_path, "train", "test")
        assert Lake(root).release == 1
        assert all(Lake(root).scan(name).collect().equals(rows) for name, rows in held.items())
    write(tmp_path, {**vectors, **more})
    check(make(tmp_path, "train", "test").root, {**vectors, **more})


def test_an_embedding_of_one_split_covers_no_other(tmp_path: Path) -> None:
    vectors = world(tmp_path, train=20, test=9)
    root = make(tmp_path, "train", "test", embedding=[{**CLIP, "split": "test"}]).root
    check(root, {path: row for path, row in vectors.items() if "test" in path})
    indexed = Lake(root).scan("index").filter(pl.col("rule") == RULE).collect()
    assert indexed["split"].unique().to_list() == ["test"]
    assert len(indexed) == 9
    assert make(tmp_path, "train", "test", embedding=[{**CLIP, "split": "test"}]).done == ()
    check(make(tmp_path, "train", "test").root, vectors)


def two(base: Path, d: int = 8) -> tuple[list[dict[str, str]], Vectors]:
    """Two files of one name, for two splits; the second has vectors of width d."""
    parts = {"train": vectors_of("train", 20), "test": vectors_of("test", 9, d)}
    for split, part in parts.items():
        pictured(base, split, part)
        write(base, part, f"{split}.parquet")
    return [{**CLIP, "uri": f"{split}.parquet", "split": split} for split in parts], parts["train"] | parts["test"]


def test_two_files_of_one_name_cover_two_splits(tmp_path: Path) -> None:
    listed, vectors = two(tmp_path)
    check(make(tmp_path, "train", "test", embedding=listed).root, vectors)
    assert make(tmp_path, "train", "test", embedding=listed).done == ()


def test_vectors_of_unlike_width_under_one_name_are_an_error(tmp_path: Path) -> None:
    listed, _ = two(tmp_path, 5)
    with pytest.raises(SourceError, match=r"embedding 'clip': .*test.parquet"):
        make(tmp_path, "train", "test", embedding=listed)


def test_two_files_of_one_name_for_the_same_images_are_an_error(tmp_path: Path) -> None:
    listed, _ = two(tmp_path)
    with pytest.raises(RecipeError, match="clip"):
        make(tmp_path, "train", "test", embedding=[*listed, {**CLIP, "uri": "test.parquet"}])


class Compared:
    """Which pairs of images are compared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pairs: set[frozenset[bytes]] = set()
        monkeypatch.setattr(compare, "scored_pairs", self.match)

    def match(self, rule: Any, left: Block, right: Block | None, read: Any) -> Iterator[ScoredPairs]:
        a, b = ([bytes(one) for one in side.image_ids] for side in (left, right or left))
        pairs = {frozenset((i, j)) for i in a for j in b if i != j}
        assert not pairs & self.pairs, "compared twice"
        self.pairs |= pairs
        return scored_pairs(rule, left, right, read)


def test_a_new_source_is_compared_with_all_and_nothing_else_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "_BLOCK_IMAGES", 8)
    vectors = world(tmp_path, train=20, test=9)
    old = set(Lake(make(tmp_path, "train").root).scan("images").collect()["image_id"])
    seen = Compared(monkeypatch)
    root = make(tmp_path, "train", "test").root
    new = set(Lake(root).scan("images").collect()["image_id"]) - old
    assert seen.pairs == {frozenset((i, j)) for i in new for j in old | new if i != j}
    check(root, vectors)


def test_images_that_change_and_go_take_their_pairs_with_them(tmp_path: Path) -> None:
    vectors = world(tmp_path, train=20, test=9)
    root = make(tmp_path, "train", "test").root
    gone = sorted(path for path in vectors if "train" in path)[3:15:4]
    for path in gone:
        (tmp_path / "train" / path).unlink()
        del vectors[path]
    other = next(path for path in vectors if "train" in path)
    (tmp_path / "train" / other).write_bytes(encoded(pictures(1, 99, (6, 6))[0]))
    check(make(tmp_path, "train", "test").root, vectors)
    make(tmp_path, "train", "test", lake={"root": "fresh"})
    for name in TABLES:
        one, two = (rows_by_content(lake, name) for lake in (root, str(tmp_path / "fresh")))
        assert one.equals(two), name
    whole(root)
    check(make(tmp_path, "test", prune=True).root, {path: row for path, row in vectors.items() if "test" in path})


def test_vectors_are_found_by_image_id(tmp_path: Path) -> None:
    vectors = world(tmp_path, train=20)
    ids = dict(Lake(make(tmp_path, "train").root).scan("images").select("path", "image_id").collect().iter_rows())
    rows = {"image_id": [ids[path] for path in vectors], "embedding": list(vectors.values())}
    pq.write_table(pa.table(rows), tmp_path / "by_id.parquet")
    check(make(tmp_path, "train", embedding=[{**CLIP, "uri": "by_id.parquet"}]).root, vectors)


def test_a_name_that_nothing_defines_is_an_error_and_one_that_the_lake_knows_is_not(tmp_path: Path) -> None:
    vectors = world(tmp_path, train=20)
    with pytest.raises(RecipeError, match="'embedding:clop:0.9' compares by embedding 'clop', but no \\[\\[embedding"):
        make(tmp_path, "train", rules=("embedding:clop:0.9",))
    root = make(tmp_path, "train").root
    write(tmp_path, vectors)
    check(make(tmp_path, "train", embedding=[]).root, vectors)
    make(tmp_path, "train", rules=("exact",), prune=True)
    assert RULE not in Lake(root).scan("index").collect()["rule"]

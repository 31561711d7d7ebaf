"""Whatever is added, changed and removed, in any order: index, pairs and clusters are those of a build from nothing."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lakes import files, rows_by_content, versions
from making import as_folder, encoded, recipe
from numpy.typing import NDArray

from pipeline.builder import pairs as compare
from pipeline.builder import pairs as pair
from pipeline.builder.build import Built, build
from pipeline.builder.publish import ReportResult
from pipeline.dedup.decided import NOTHING
from pipeline.dedup.rules import entries_of
from pipeline.dedup.rules.cosine import Cosine
from pipeline.dedup.stored_rules import find_stored_rule, read_clusters
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.pixels import Located, locate
from pipeline.recipe import Recipe
from pipeline.verify import verify

pytestmark = pytest.mark.slow

Pictures = list[NDArray[np.uint8]]
Step = tuple[str, str, int]

RULES = ("exact", "hamming:6", "hamming:3:dhash", "cosine:0.9")
COMPARED = ("images", "shards", "index", "pairs", "clusters")
# Two are folders, of pictures of two sizes and in several shards; the third is one file with one shard.
SOURCES = {"one": "one", "two": "two", "three": "three.npz"}
SIZES = ((6, 6), (8, 7))
STEPS = st.tuples(
    st.sampled_from(["change", "add", "remove", "source", "rule", "method", "move", "touch"]),
    st.sampled_from(list(SOURCES)),
    st.integers(0, 10**6),
)
# So small that a build meets several blocks on either side, and files that are written as one again.
SMALL: dict[str, Any] = {"_BLOCK_IMAGES": 20, "_MAX_FILES": 3}


def near_copies(rng: np.random.Generator, n: int, size: tuple[int, int]) -> Pictures:
    """Pictures like one of five, the same five for all sources: with one pixel or all a little different, or none."""
    bases = np.random.default_rng(size[0]).integers(0, 200, (5, *size))
    made = bases[rng.integers(0, 5, n)]
    made[np.arange(n), rng.integers(0, size[0], n), 0] += rng.choice([0, 5, 50], n)
    made = made + rng.integers(0, 5, (n, *size)) * rng.choice([0, 1], (n, 1, 1))
    made[rng.random(n) < 0.1] = 77
    return list(made.astype(np.uint8))


class World:
    """A few sources on disk, the recipe of the moment, and the lake that follows it."""

    def __init__(self, base: Path, rng: np.random.Generator) -> None:
        self.base = base
        self.images = {name: self.some(rng, name, int(rng.integers(6, 24))) for name in SOURCES}
        self.named, self.rules, self.method = ["one", "three"], ["exact", "cosine:0.9"], "components"
        self.most = 10**6
        for name in SOURCES:
            self.write(name)

    def some(self, rng: np.random.Generator, name: str, n: int) -> Pictures:
        mixed = SIZES[rng.integers(0, 2)]
        return near_copies(rng, n - n // 3, SIZES[0]) + near_copies(rng, n // 3, SIZES[0] if name == "three" else mixed)

    def write(self, name: str) -> None:
        if name == "three":
            np.savez(self.base / "three.npz", images=np.stack(self.images[name]))
            return
        made = {f"A/{k:03d}.png": encoded(picture) for k, picture in enumerate(self.images[name])}
        there = {f"A/{file.name}": file for file in (self.base / name / "A").glob("*.png")}
        same = {path for path, file in there.items() if made.get(path) == file.read_bytes()}
        as_folder(self.base / name, {path: data for path, data in made.items() if path not in same})
        for path in there.keys() - made.keys():
            there[path].unlink()

    def take(self, step: Step) -> bool:
        """Change the world; tells whether a source or a rule is gone from the recipe."""
        what, name, seed = step
        rng, images = np.random.default_rng(seed), self.images[name]
        if what == "change":
            for k in rng.integers(0, len(images), 2):
                images[k] = self.some(rng, name, 1)[0]
        elif what == "add":
            images += self.some(rng, name, int(rng.integers(1, 8)))
        elif what == "remove":
            del images[1 :: int(rng.integers(2, 5))]
        elif what == "move":
            self.images["two"] += [picture for picture in images[:3] if picture.shape == SIZES[0]]
            self.write("two")
        elif what == "touch":
            (self.base / "one" / "A" / "000.png").touch()
        elif what == "method":
            self.method = "stars" if self.method == "components" else "components"
        self.write(name)
        if what not in {"source", "rule"}:
            return False
        kept, chosen = (self.named, name) if what == "source" else (self.rules, RULES[seed % len(RULES)])
        gone = chosen in kept and len(kept) > 1
        kept[:] = [item for item in kept if item != chosen] + ([] if gone else [chosen])
        return gone

    def recipe(self, root: str) -> Recipe:
        listed = [{"uri": SOURCES[name], "split": name} for name in sorted(self.named)]
        dedup = {"rules": self.rules, "clusters": self.method, "max_pairs": self.most}
        return recipe(self.base, *listed, lake={"root": root}, dedup=dedup)

    def build(self, root: str = "lake", *, prune: bool = False) -> Built:
        return build(self.recipe(root), engine=LocalEngine(1), prune=prune)

    def check(self) -> None:
        """Compare the lake with one built from nothing."""
        root = self.build(f"fresh{len(list(self.base.iterdir()))}").root
        for name in COMPARED:
            left, right = (rows_by_content(lake, name) for lake in (str(self.base / "lake"), root))
            assert not left.is_duplicated().any()
            assert left.equals(right), f"table {name} differs"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut folders into many shards, and leave out the report, which takes longer than the build."""
    monkeypatch.setattr("pipeline.sources.folder._LARGEST", 9)
    monkeypatch.setattr("pipeline.builder.build.try_to_write_report", lambda lake: ReportResult(lake.root))


def follow(steps: Sequence[Step], seed: int) -> None:
    """Take steps and build after each, in small pieces; compare every fourth with a build from nothing in one piece."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), np.random.default_rng(seed))
        with patch.multiple(pair, **SMALL):
            root = world.build().root
        for number, step in enumerate(steps, 1):
            gone = world.take(step)
            with patch.multiple(pair, **SMALL):
                world.build(prune=gone or step[2] % 2 == 0)
            if number == len(steps) or number % 4 == 0:
                world.check()
            assert all(parts_of(root, rule) <= SMALL["_MAX_FILES"] for rule in world.rules)
        before = versions(root)
        assert world.build(prune=True).done == ()
        assert versions(root) == before
        assert all(not check.faults for check in verify(root))


def parts_of(root: str, rule: str) -> int:
    return sum(part.partition["rule"] == rule for part in files(root, "pairs"))


@settings(max_examples=1, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(STEPS, min_size=3, max_size=3), st.integers(0, 10**6))
def test_a_lake_that_grew_equals_one_built_from_nothing(steps: list[Step], seed: int) -> None:
    follow(steps, seed)


def test_every_kind_of_step_in_turn() -> None:
    kinds = [("rule", "one", 1), ("source", "two", 0), ("move", "one", 0), ("change", "two", 3), ("method", "one", 0)]
    kinds += [("rule", "one", 2), ("remove", "three", 7), ("rule", "one", 3), ("touch", "one", 5), ("source", "one", 2)]
    follow(kinds, 1)


class Reads:
    """Which images' pixels the stage of pairs reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: set[bytes] = set()
        monkeypatch.setattr(compare, "locate", self.locate)

    def locate(self, names: Sequence[str], image_ids: pl.Series) -> Located:
        self.ids |= set(image_ids)
        return locate(names, image_ids)


def candidates(root: str, rule: str) -> tuple[set[bytes], set[frozenset[bytes]]]:
    """All images, and the pairs among all of them that may be candidates of a rule, or nearly."""
    rows = Lake(root).scan("index").filter(pl.col("rule") == rule).collect().to_arrow()
    comparison = Cosine(float(rule.split(":")[1]) - 0.01)
    ids = rows["image_id"].to_pylist()
    found = comparison.candidates(entries_of(rows), None)
    return set(ids), {frozenset((ids[i], ids[j])) for part in found for i, j in zip(part.left, part.right, strict=True)}


def test_of_old_images_only_candidates_of_new_ones_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, np.random.default_rng(4))
    world.images["one"] += near_copies(np.random.default_rng(5), 60, SIZES[0])
    world.named, world.rules = ["one"], ["cosine:0.9"]
    world.write("one")
    before, _ = candidates(world.build().root, "cosine:0.9")
    reads = Reads(monkeypatch)
    world.images["two"], world.named = near_copies(np.random.default_rng(6), 2, SIZES[0]), ["one", "two"]
    world.write("two")
    after, near = candidates(world.build().root, "cosine:0.9")
    allowed = {image for both in near if both - before for image in both}
    assert len(after - before) == 2
    assert reads.ids <= allowed
    assert reads.ids & before
    assert len(allowed & before) < len(before) / 2
    world.check()


def test_removing_images_and_rules_that_words_decide_read_no_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, np.random.default_rng(4))
    world.build()
    reads = Reads(monkeypatch)
    world.named.remove("one")
    world.build(prune=True)
    world.rules += ["hamming:6"]
    world.build()
    assert reads.ids == set()
    world.check()


def test_pairs_of_many_builds_are_written_as_one_again(tmp_path: Path) -> None:
    listed = [{"uri": f"{k}.npz", "split": f"s{k}"} for k in range(3)]
    dedup = {"rules": ["cosine:0.9"]}
    counts = []
    for k, part in enumerate(listed):
        np.savez(tmp_path / part["uri"], images=np.stack(near_copies(np.random.default_rng(k), 9, SIZES[0])))
        with patch.multiple(pair, _BLOCK_IMAGES=20, _MAX_FILES=2):
            root = build(recipe(tmp_path, *listed[: k + 1], dedup=dedup), engine=LocalEngine(1)).root
        counts.append(parts_of(root, "cosine:0.9"))
    assert counts == [1, 2, 1]
    fresh = build(recipe(tmp_path, *listed, lake={"root": "fresh"}, dedup=dedup), engine=LocalEngine(1)).root
    assert all(rows_by_content(root, name).equals(rows_by_content(fresh, name)) for name in COMPARED)


def test_too_many_pairs_for_stars_stop_the_build_and_change_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, np.random.default_rng(4))
    world.method = "stars"
    root = world.build().root
    held = Lake(root).scan("pairs").collect()
    world.most = len(held)
    world.images["one"] += near_copies(np.random.default_rng(5), 40, SIZES[0])
    world.write("one")
    with pytest.raises(LakeError, match="'cosine:0.9' finds more pairs than dedup.max_pairs allows"):
        world.build()
    assert Lake(root).scan("pairs").collect().equals(held)
    world.most = 10**6
    world.build()
    world.check()


def found(root: str) -> dict[str, int]:
    units = Lake(root).snapshot.metadata("pairs").units
    return {rule: unit["found"] for rule, unit in units.items() if "found" in unit}


def test_a_rule_with_too_many_pairs_has_a_spanning_forest_however_the_lake_grew(tmp_path: Path) -> None:
    world = World(tmp_path, np.random.default_rng(4))
    world.rules = ["hamming:6", "cosine:0.9"]
    with patch.multiple(pair, **SMALL):
        root = world.build().root
        pairs = Lake(root).scan("pairs").collect()
        whole = {rule: pairs.filter(rule=rule) for rule in world.rules}
        counts = {rule: len(rows) for rule, rows in whole.items()}
        # A lower limit: the stored pairs are reduced, and nothing is compared again.
        world.most = min(counts.values()) - 1
        with patch.object(compare, "_find_pairs", side_effect=AssertionError):
            notes = world.build().notes
        assert found(root) == counts
        assert (
            sum(f"{count:,} pairs are more than dedup.max_pairs" in note for count in counts.values() for note in notes)
            == 2
        )
        world.check()
        stored = Lake(root).scan("pairs").collect()
        assert stored.join(pairs, on=pairs.columns, how="anti").is_empty()
        # More images, fewer, changed ones; then a higher limit again.
        for step in [
            ("add", "one", 3),
            ("add", "two", 5),
            ("source", "two", 0),
            ("remove", "one", 7),
            ("change", "three", 3),
        ]:
            world.take(step)
            world.build()
            world.check()
        assert set(found(root)) == set(world.rules)
        assert all(not check.faults for check in verify(root))
        assert world.build().done == ()
        world.most = 10**6
        world.build()
        assert found(root) == {}
        world.check()


@pytest.mark.parametrize("threshold", ["hamming:2", "cosine:0.97"])
def test_a_stricter_threshold_of_a_spanning_forest_has_the_clusters_of_all_pairs(
    tmp_path: Path, threshold: str
) -> None:
    world = World(tmp_path, np.random.default_rng(4))
    world.rules = ["hamming:6", "cosine:0.9"]
    whole = Lake(world.build("whole").root)
    world.most = 3
    forest = Lake(world.build("forest").root)
    assert set(found(str(forest.root))) == set(world.rules)
    of_whole, of_forest = (
        read_clusters(
            find_stored_rule(threshold, lake.snapshot.metadata("clusters").units),
            lambda table, rule, lake=lake: lake.scan(table).filter(rule=rule),  # type: ignore[misc] # the lake of this turn
            NOTHING,
        ).collect()
        for lake in (whole, forest)
    )
    assert len(of_whole)
    assert of_whole.equals(of_forest)

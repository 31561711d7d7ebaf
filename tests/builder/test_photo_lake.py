"""Rule photo in a lake: one basis for ever; and what is compared where only splits are compared with one another."""

import shutil
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import versions
from making import recipe
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.builder import pairs as pair
from pipeline.builder.build import Built, build
from pipeline.builder.publish import ReportResult
from pipeline.dedup.joins.streaming import one_blas_thread
from pipeline.dedup.matching import Block, match
from pipeline.dedup.photo.thumbnails import pack
from pipeline.dedup.rules import entries_of, parse_rule
from pipeline.dedup.rules.photo import Photo
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.verify import verify

pytestmark = pytest.mark.slow

Pairs = dict[tuple[bytes, bytes], float]

RULE = "photo:0.4"
RULES = (RULE, "cosine:0.9", "hamming:6")
SPLITS = ("one", "two", "three")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave out the report, which takes longer than the build; threads of BLAS wait for one another on busy cores."""
    monkeypatch.setattr("pipeline.builder.build.try_to_write_report", lambda lake: ReportResult(lake.root))
    with one_blas_thread():
        yield


@lru_cache
def crops(seed: int, n: int) -> NDArray[np.uint8]:
    """Crops of a photograph, half of them near one of seven places that are the same for all: (n, 40, 40, 3)."""
    photo, rng = Image.fromarray(load_sample_image("china.jpg")), np.random.default_rng(seed)
    places = np.random.default_rng(1).uniform((0, 120), (500, 300), (7, 2))
    corners = np.where(
        rng.random((n, 1)) < 0.5, places[rng.integers(0, 7, n)], rng.uniform((0, 100), (520, 310), (n, 2))
    )
    corners = corners + rng.uniform(-2, 2, (n, 2))
    made = [photo.resize((40, 40), Image.Resampling.BOX, box=(x, y, x + 90, y + 90)) for x, y in np.abs(corners)]
    turned = [np.asarray(picture)[:, :: rng.choice([1, 1, 1, -1])] for picture in made]
    return np.stack(turned)


def written(base: Path, *names: str, n: int = 16) -> None:
    for name in names:
        np.savez(base / f"{name}.npz", images=crops(sum(name.encode()), n))


def make(base: Path, *names: str, prune: bool = False, root: str = "lake", **dedup: Any) -> Built:
    listed = [{"uri": f"{name}.npz", "split": name} for name in names]
    asked = {"rules": [RULE], **dedup}
    found = recipe(base, *listed, lake={"root": root}, dedup=asked, decode={"mode": "RGB"})
    return build(found, engine=LocalEngine(1), prune=prune)


def pairs_of(root: str, rule: str = RULE) -> Pairs:
    rows = Lake(root).scan("pairs").filter(pl.col("rule") == rule).collect()
    found = {(row["left_id"], row["right_id"]): row["score"] for row in rows.to_dicts()}
    assert len(found) == len(rows), "a pair twice"
    assert all(left < right for left, right in found)
    return found


def basis_of(root: str) -> bytes:
    rows = Lake(root).scan("bases").collect()
    assert len(rows) == 1
    return bytes(rows["basis"].item())


def matched(root: str) -> Pairs:
    """Pairs of all images at once, by the lake's basis."""
    rows = Lake(root).scan("index").filter(pl.col("rule") == RULE).collect().sample(fraction=1, shuffle=True, seed=0)
    comparison = parse_rule(RULE).comparison
    assert isinstance(comparison, Photo)
    table = rows.rechunk().to_arrow()
    ids = np.frombuffer(b"".join(rows["image_id"]), np.uint8).reshape(-1, 16)
    block = Block(ids, entries_of(table))
    found: Pairs = {}
    for part in match(comparison.using(basis_of(root)), block, None, lambda _: pytest.fail("reads pixels")):
        found |= {(row["left_id"], row["right_id"]): row["score"] for row in part.to_pylist()}
    return found


def splits_of(root: str) -> dict[bytes, tuple[str, str]]:
    rows = Lake(root).scan("images").select("image_id", "dataset", "split").collect()
    return {image: (dataset, split) for image, dataset, split in rows.iter_rows()}


def apart(pairs: Pairs, root: str) -> Pairs:
    split = splits_of(root)
    return {(i, j): score for (i, j), score in pairs.items() if split[i] != split[j]}


def whole(root: str) -> None:
    assert [check for check in verify(root) if check.faults] == []


def test_later_images_are_compared_by_the_first_ones_basis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "_BLOCK_IMAGES", 10)
    monkeypatch.setattr(pair, "_MAX_FILES", 2)
    written(tmp_path, *SPLITS)
    root = make(tmp_path, "one").root
    basis = basis_of(root)
    for count in (2, 3):
        make(tmp_path, *SPLITS[:count])
        assert basis_of(root) == basis
        assert pairs_of(root) == matched(root)
    assert apart(pairs_of(root), root)
    whole(root)


def test_a_lake_that_grew_has_the_pairs_of_one_with_the_same_basis(tmp_path: Path) -> None:
    written(tmp_path, *SPLITS)
    grown = make(tmp_path, "one").root
    other = shutil.copytree(grown, str(tmp_path / "other"))
    for count in (2, 3):
        make(tmp_path, *SPLITS[:count])
    make(tmp_path, *SPLITS, root="other")
    for name in ("images", "index", "pairs", "clusters", "bases"):
        one, two = (Lake(root).scan(name).collect() for root in (grown, other))
        assert one.sort(one.columns).equals(two.sort(two.columns)), name


def test_nothing_to_do_commits_nothing(tmp_path: Path) -> None:
    written(tmp_path, "one")
    root = make(tmp_path, "one").root
    before = versions(root)
    assert make(tmp_path, "one").done == ()
    assert versions(root) == before


def test_a_rule_that_is_dropped_and_comes_again_has_the_same_pairs_and_basis(tmp_path: Path) -> None:
    written(tmp_path, "one", "two")
    root = make(tmp_path, "one").root
    make(tmp_path, "one", "two")
    basis, pairs = basis_of(root), pairs_of(root)
    make(tmp_path, "one", "two", rules=["exact"], prune=True)
    assert pairs_of(root) == {}
    assert RULE not in Lake(root).scan("index").collect()["rule"]
    whole(root)
    make(tmp_path, "one", "two", rules=["exact", RULE])
    assert pairs_of(root) == pairs
    assert basis_of(root) == basis
    assert pairs


def test_two_rules_share_the_basis_and_the_stricter_finds_a_part_of_the_pairs(tmp_path: Path) -> None:
    written(tmp_path, "one", "two")
    root = make(tmp_path, "one", "two", rules=[RULE, "photo:0.6"]).root
    basis_of(root)
    loose, strict = pairs_of(root), pairs_of(root, "photo:0.6")
    assert strict == {ids: score for ids, score in loose.items() if score >= np.float32(0.6)}
    assert len(loose) > len(strict) > 0


def test_removed_images_take_their_pairs_with_them(tmp_path: Path) -> None:
    written(tmp_path, *SPLITS)
    root = make(tmp_path, *SPLITS).root
    make(tmp_path, "one", "three", prune=True)
    assert pairs_of(root) == matched(root)
    np.savez(tmp_path / "one.npz", images=crops(5, 3))
    make(tmp_path, "one", "three")
    assert pairs_of(root) == matched(root)
    whole(root)


def test_too_many_pairs_for_stars_change_nothing_and_the_next_build_finds_them(tmp_path: Path) -> None:
    written(tmp_path, "one", "two")
    with pytest.raises(LakeError, match=f"'{RULE}' finds more pairs than dedup.max_pairs allows"):
        make(tmp_path, "one", "two", max_pairs=1, clusters="stars")
    root = make(tmp_path, "one", "two").root
    assert pairs_of(root) == matched(root)


@pytest.mark.parametrize("held", [1, pytest.param(2, marks=pytest.mark.stress)])
def test_a_basis_of_next_to_no_images_will_do(tmp_path: Path, held: int) -> None:
    """The first source has next to no images: the basis is fitted to these, and the next build uses it."""
    written(tmp_path, "two")
    (tmp_path / "one" / "A").mkdir(parents=True)
    (tmp_path / "one" / "A" / "none.png").write_bytes(b"")
    for k in range(held):
        Image.fromarray(crops(3, 2)[k]).save(tmp_path / "one" / "A" / f"{k}.png")
    first, second = ({"uri": name, "split": name} for name in ("one", "two.npz"))
    parts: dict[str, Any] = {"dedup": {"rules": [RULE]}, "decode": {"mode": "RGB"}}
    root = build(recipe(tmp_path, first, **parts), engine=LocalEngine(1)).root
    assert pairs_of(root) == {}
    build(recipe(tmp_path, first, {**second, "split": "two"}, **parts), engine=LocalEngine(1))
    assert pairs_of(root) == matched(root)
    assert Lake(root).scan("bases").collect()["images"].item() == held


def steps(base: Path, between: str, root: str) -> Iterator[str]:
    """Build a lake in two steps; the root after each."""
    for count in (1, 3):
        yield make(base, *SPLITS[:count], rules=list(RULES), between=between, root=root).root


def test_between_splits_gives_the_pairs_of_all_across_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "_BLOCK_IMAGES", 10)
    written(tmp_path, *SPLITS)
    for every, between in zip(steps(tmp_path, "all", "all"), steps(tmp_path, "splits", "between"), strict=True):
        for rule in RULES:
            wanted = apart(pairs_of(every, rule), every)
            assert pairs_of(between, rule) == wanted
            assert bool(wanted) == (Lake(every).release > 1)
            assert len(pairs_of(every, rule)) > len(wanted)
    whole(between)


def test_another_between_finds_the_pairs_anew_each_time(tmp_path: Path) -> None:
    written(tmp_path, *SPLITS)
    root = make(tmp_path, *SPLITS, rules=list(RULES)).root
    for one, other in pairwise(["all", "splits", "all"]):
        before = {rule: pairs_of(root, rule) for rule in RULES}
        built = make(tmp_path, *SPLITS, rules=list(RULES), between=other)
        assert {item.unit for item in built.done} == set(RULES), (one, other)
        for rule in RULES:
            after = pairs_of(root, rule)
            large, small = (before[rule], after) if other == "splits" else (after, before[rule])
            assert small == apart(large, root)
            assert len(small) < len(large)
    assert make(tmp_path, *SPLITS, rules=list(RULES), between="all").done == ()


def index_files(root: str, rule: str) -> set[str]:
    return {part.path for part in Lake(root).snapshot.files("index") if part.partition["rule"] == rule}


def test_an_index_of_an_older_version_is_made_again_for_this_rule_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "one", "two")
    rules = ["exact", "hamming:6", RULE]
    with monkeypatch.context() as older:
        older.setattr("pipeline.dedup.rules._FAMILY_VERSIONS", {})
        root = make(tmp_path, "one", "two", rules=rules).root
        assert make(tmp_path, "one", "two", rules=rules).done == ()
    before, pairs, basis = {rule: index_files(root, rule) for rule in rules}, pairs_of(root), basis_of(root)
    with monkeypatch.context() as other:
        other.setattr("pipeline.dedup.rules.photo.pack", lambda images: pack(images) ^ np.uint8(1))
        whole(root)
    built = make(tmp_path, "one", "two", rules=rules)
    assert {item.unit for item in built.done} == {RULE}
    after = {rule: index_files(root, rule) for rule in rules}
    assert {rule: after[rule] == before[rule] for rule in rules} == {"exact": True, "hamming:6": True, RULE: False}
    assert (pairs_of(root), basis_of(root)) == (pairs, basis)
    assert make(tmp_path, "one", "two", rules=rules).done == ()
    whole(root)
    with monkeypatch.context() as other:
        other.setattr("pipeline.dedup.rules.photo.pack", lambda images: pack(images) ^ np.uint8(1))
        assert [check for check in verify(root) if check.faults]


def test_turned_pictures_are_pairs_unless_the_rule_is_upright(tmp_path: Path) -> None:
    pictures = crops(11, 12)
    np.savez(tmp_path / "one.npz", images=pictures)
    np.savez(tmp_path / "two.npz", images=np.rot90(pictures, axes=(1, 2)))
    root = make(tmp_path, "one", "two", rules=[RULE, "photo:0.4:upright"]).root
    turned, upright = pairs_of(root), pairs_of(root, "photo:0.4:upright")
    assert set(upright) < set(turned)
    assert len(set(turned) - set(upright)) >= len(pictures)
    assert all(turned[ids] >= score for ids, score in upright.items())
    whole(root)

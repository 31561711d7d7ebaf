"""Two builds at once on one lake: each lands whole or not at all, and neither loses what the other brought in."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from making import as_folder, files_of, recipe
from together import building, differing, in_turn, laws, left_over, rows_of

from pipeline.builder.build import Built, build
from pipeline.builder.commit_ingest import IngestPlan
from pipeline.builder.ingest import check_files
from pipeline.engines.local import LocalEngine
from pipeline.errors import CheckError, LakeError, SourceError
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum
from pipeline.recipe import Recipe
from pipeline.verify import verify

pytestmark = pytest.mark.slow

A, B = {"uri": "a"}, {"uri": "b", "split": "test"}
RULES = {"rules": ["exact", "sign"]}
SPLIT = {"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}
SMALL: dict[str, Any] = {"decode": {"size": [14, 14], "on_mismatch": "resize"}}
ONLY = {"name": "only", "train": {"from": "train"}}
SAID_SAME = "another build committed the same shards meanwhile; those of this build were dropped"


# Lakes that one build made of the sources, by the state of the sources and the recipe.
_ONES: dict[str, Path] = {}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of pictures, of which five are in both; tests take a copy."""
    folder, files = tmp_path_factory.mktemp("sources"), files_of(20)
    as_folder(folder / "a", {**files, "A/bad.png": b"no image"})
    copies = {f"B/copy{i}.png": files[f"A/{2 * i:05d}.png"] for i in range(5)}
    as_folder(folder / "b", {**files_of(15, seed=1), **copies})
    return folder


@pytest.fixture
def base(sources: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sources, tmp_path, dirs_exist_ok=True))


def of(base: Path, *sources: dict[str, Any], root: str = "lake", **parts: Any) -> Recipe:
    return recipe(base, *sources, lake={"root": root}, **{"dedup": RULES, **parts})


def made(*recipes: Recipe, prune: bool = False) -> str:
    """Build one recipe after the other."""
    for asked in recipes:
        built = build(asked, engine=LocalEngine(1), prune=prune)
    return built.root


def sound(root: str) -> bool:
    """Tell whether nothing is wrong at all with the newest release, and nothing lies about."""
    return not laws(Lake(root)) and left_over(root) == [] and all(not check.faults for check in verify(root))


def as_one(base: Path, *sources: dict[str, Any], **parts: Any) -> bool:
    """Tell whether the lake has what one build of these sources makes, and nothing lies about."""
    files = sorted(file for source in sources for file in (base / source["uri"]).rglob("*.png"))
    key = repr([sources, parts, [(str(file.relative_to(base)), file.stat().st_mtime_ns) for file in files]])
    if key not in _ONES:
        _ONES[key] = Path(made(of(base, *sources, root="one", **parts))).rename(base.parent / f"one{len(_ONES)}")
    lake = str(base / "lake")
    return left_over(lake) == [] and differing(lake, str(_ONES[key])) == []


def change(base: Path, seed: int = 9) -> None:
    as_folder(base / "a", {f"A/new{seed}.png": files_of(1, seed=seed)["A/00000.png"]})
    os.utime(base / "a" / "A" / f"new{seed}.png", ns=(seed, seed))


def test_different_sources_both_land(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = in_turn(monkeypatch, building(of(base, A)), building(of(base, B)))
    assert (first.release, second.release) == (1, 2)
    lake = str(base / "lake")
    assert sound(lake)
    assert as_one(base, A, B)
    alone = made(of(base, A, root="alone"))
    assert all(rows.equals(rows_of(alone)[name]) for name, rows in rows_of(lake, 1).items())


def test_different_sources_into_a_lake_that_is_there(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(of(base, A, B, split=[SPLIT]))
    change(base)
    as_folder(base / "b", {"A/more.png": files_of(1, seed=8)["A/00000.png"]})
    first, second = in_turn(monkeypatch, building(of(base, A)), building(of(base, B)))
    assert [item.reason for item in first.done if item.stage == "ingest"] == ["1 of 2 shards is new or changed, 0 gone"]
    assert (first.release, second.release) == (2, 3)
    assert as_one(base, A, B, split=[SPLIT])


def test_the_same_source_one_wins_and_the_other_says_so(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = in_turn(monkeypatch, building(of(base, A)), building(of(base, A)))
    assert SAID_SAME not in [item.reason for item in first.done]
    assert [(item.stage, item.unit, item.reason) for item in second.done] == [("ingest", "d/train (a)", SAID_SAME)]
    assert (first.release, second.release, second.images, second.rejects) == (1, 1, 20, 1)
    assert as_one(base, A)


def test_of_two_sources_one_may_be_there_already(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = in_turn(monkeypatch, building(of(base, A)), building(of(base, A, B)))
    assert [item.reason for item in second.done if item.stage == "ingest"] == [SAID_SAME, "new"]
    assert (first.images, second.images) == (20, 40)
    assert as_one(base, A, B)


def test_four_builds_of_one_source(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = in_turn(monkeypatch, *[building(of(base, A, B))] * 4)
    assert [built.release for built in done] == [1] * 4
    assert as_one(base, A, B)


def test_what_is_there_already_may_be_all_there_is(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has a recipe of its own, so it makes a release, though it brings nothing in."""
    first, second = in_turn(monkeypatch, building(of(base, A)), building(of(base, A, split=[ONLY])))
    assert (first.release, second.release) == (1, 2)
    assert as_one(base, A, split=[ONLY])


@pytest.mark.parametrize("last_first", [False, True], ids=["older first", "newer first"])
def test_a_source_that_changed_between_two_readings(
    base: Path, monkeypatch: pytest.MonkeyPatch, *, last_first: bool
) -> None:
    made(of(base, B))
    asked = of(base, A)
    done = in_turn(monkeypatch, *[building(asked)] * 2, between=lambda: change(base), last_first=last_first)
    landed, refused = reversed(done) if last_first else done
    assert isinstance(refused, LakeError)
    assert "another build changed d/train (a) since this one began, to another state" in str(refused)
    lake = str(base / "lake")
    assert (landed.release, Lake(lake).release, landed.images) == (2, 2, 41 if last_first else 40)
    assert sound(lake)
    made(asked)
    assert as_one(base, A, B)


def test_a_change_of_a_source_that_is_there_already(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(of(base, A, B))
    change(base)
    done = in_turn(monkeypatch, *[building(of(base, A))] * 2, between=lambda: change(base, 10))
    assert isinstance(done[1], LakeError)
    assert sound(str(base / "lake"))
    made(of(base, A))
    assert as_one(base, A, B)


@pytest.mark.parametrize("last_first", [False, True])
def test_prune_spares_what_came_meanwhile(base: Path, monkeypatch: pytest.MonkeyPatch, *, last_first: bool) -> None:
    as_folder(base / "c", files_of(10, seed=4))
    c = {"uri": "c", "split": "valid"}
    made(of(base, A, c))
    calls = building(of(base, A), prune=True), building(of(base, B))
    done = in_turn(monkeypatch, *calls, last_first=last_first)
    assert all(isinstance(item, Built) for item in done)
    assert as_one(base, A, B)


def test_what_changed_meanwhile_is_not_pruned(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(of(base, A, B))
    change(base)
    done = in_turn(monkeypatch, building(of(base, A)), building(of(base, B), prune=True))
    assert isinstance(done[0], Built)
    assert isinstance(done[1], LakeError)
    assert as_one(base, A, B)


def test_both_prune_the_same(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(of(base, A, B))
    done = in_turn(monkeypatch, *[building(of(base, A), prune=True)] * 2)
    assert all(isinstance(item, Built) for item in done)
    assert as_one(base, A)


def test_a_source_that_was_pruned_while_others_were_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second build found `a` as it wanted it, and did not read it; then the first took it out."""
    made(of(base, A))
    as_folder(base / "c", files_of(10, seed=4))
    calls = building(of(base, {"uri": "c", "split": "valid"}), prune=True), building(of(base, A, B))
    done = in_turn(monkeypatch, *calls)
    assert isinstance(done[0], Built)
    assert isinstance(done[1], LakeError)
    assert sound(str(base / "lake"))
    made(of(base, A, B))
    assert as_one(base, A, B, {"uri": "c", "split": "valid"})


def test_a_source_that_was_pruned_while_nothing_was_to_be_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(of(base, A, B))

    def prune_meanwhile(plan: IngestPlan, *, every: bool) -> None:
        monkeypatch.setattr("pipeline.builder.build.check_files", check_files)
        made(of(base, B), prune=True)
        check_files(plan, every=every)

    monkeypatch.setattr("pipeline.builder.build.check_files", prune_meanwhile)
    with pytest.raises(LakeError, match="another build changed d/train"):
        made(of(base, A, B, dedup={"rules": ["exact", "sign", "maxpool:2"]}))
    assert sound(str(base / "lake"))
    assert as_one(base, B)


def test_decode_settings_that_differ(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = in_turn(monkeypatch, building(of(base, A)), building(of(base, A, **SMALL)))
    assert isinstance(done[1], LakeError)
    assert as_one(base, A)
    made(of(base, A, **SMALL))
    assert as_one(base, A, **SMALL)


def test_a_source_that_was_decoded_otherwise_while_others_were_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(of(base, A))
    done = in_turn(monkeypatch, building(of(base, A, **SMALL)), building(of(base, A, B)))
    assert isinstance(done[1], LakeError)
    assert as_one(base, A, **SMALL)


def test_a_source_that_grew_while_others_were_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the second did not read itself, it takes as the first brought it in: newer than it knew it."""
    made(of(base, A))
    calls = building(of(base, A, B)), building(of(base, A))
    done = in_turn(monkeypatch, *calls, between=lambda: change(base), last_first=True)
    assert [built.release for built in done] == [3, 2]
    assert as_one(base, A, B)


def test_rules_that_differ(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"rules": ["maxpool:4", "cosine:0.9"]}
    in_turn(monkeypatch, building(of(base, A)), building(of(base, B, dedup=other)))
    assert as_one(base, A, B, dedup={"rules": ["maxpool:4", "cosine:0.9", "exact", "sign"]})


def test_one_path_in_two_sources_is_refused_whoever_comes_second(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(base / "c", files_of(3, seed=5))
    done = in_turn(monkeypatch, building(of(base, A)), building(of(base, {"uri": "c"})))
    assert isinstance(done[1], SourceError)
    assert as_one(base, A)


def test_a_build_that_fails_beside_a_good_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = building(of(base, {**B, "min_per_class": 500}))
    for last_first in (False, True):
        done = in_turn(monkeypatch, building(of(base, A)), greedy, last_first=last_first)
        assert isinstance(done[0], Built)
        assert isinstance(done[1], CheckError)
        assert as_one(base, A)
        change(base)


def test_vacuum_spares_the_files_of_a_build_that_decodes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(of(base, B))
    lake, deleted = str(base / "lake"), list[str]()

    def clean() -> None:
        assert any(path.startswith("images/") for path in left_over(lake))
        deleted.extend(vacuum(lake, older_than_hours=0, dry_run=False))

    in_turn(monkeypatch, building(of(base, A)), building(of(base, B)), between=clean)
    assert deleted == []
    assert as_one(base, A, B)

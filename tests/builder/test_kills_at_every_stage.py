"""Law 3 at every stage: kill -9 the real command at a random moment of a given stage, read, build again, compare."""

import os
import random
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from lakes import list_releases, writing
from making import as_folder, as_tar, files_of
from staged import EVERY, Staged
from together import differing, digest, laws, left_over

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe
from pipeline.verify import verify

pytestmark = pytest.mark.slow

SOURCE = '[[source]]\nuri = "{uri}"\ndataset = "g"\nsplit = "{split}"\n'
RECIPE = r"""
[lake]
root = "{root}"
{sources}
[decode]
originals = "keep"
[[attributes]]
patterns = {{ number = '(\d+)' }}
[[attributes]]
uri = "facts.csv"
split = "train"
[dedup]
rules = [{rules}]
[issues]
outlier = 0.01
[[split]]
name = "main"
sanitize = "exact"
train = {{ from = "train" }}
test = {{ from = "test" }}
[[baseline]]
model = "logistic"
split = "main"
train_sizes = [20]
max_iter = 5
"""
# Rare: they need what only some rounds have.
OF_A_VACUUM, OF_THE_DEAD = ("vacuum", "give up"), ("sweep", "undo")


def write_facts(base: Path) -> None:
    rows = [f"{name},p{number % 9}" for number, name in enumerate(files_of(60))]
    (base / "facts.csv").write_text("\n".join(["path,patient", *rows]))


def recipe_at(base: Path, root: str, *, more: bool) -> Path:
    """Write a recipe; with `more` it has a source and a rule that pruning by the other drops."""
    sources = [SOURCE.format(uri=uri, split=split) for uri, split in (("in.tar", "train"), ("test", "test"))]
    rules = '"exact", "sign", "cosine:0.9"'
    if more:
        sources.append(SOURCE.format(uri="more", split="more"))
        rules += ', "maxpool:4"'
    file = base / f"{root}-{'more' if more else 'less'}.toml"
    file.write_text(RECIPE.format(root=root, sources="".join(sources), rules=rules))
    return file


class Rounds:
    """A lake, and what was done to it."""

    def __init__(self, base: Path, seed: int, *, reports: bool = False) -> None:
        self.base, self.chance = base, random.Random(seed)
        self.lake = str(base / "lake")
        self.hits, self.tries, self.spans = Counter[str](), 0, dict[str, float]()
        self.seen: dict[int, str] = {}
        as_tar(base / "in.tar", {**files_of(60), "A/bad.png": b"no image"})
        as_folder(base / "test", {**files_of(25, seed=2), "A/copy.png": files_of(1)["A/00000.png"]})
        as_folder(base / "more", files_of(10, seed=3))
        write_facts(base)
        self.reports = reports
        self.heal()

    def heal(self, *, more: bool = True) -> None:
        """Build undisturbed, as the next build does."""
        build(read_recipe(recipe_at(self.base, "lake", more=more)), engine=LocalEngine(1))
        assert left_over(self.lake) == []

    def change(self) -> None:
        number = self.tries
        as_folder(self.base / "test", {f"A/new{number}.png": files_of(1, seed=100 + number)["A/00000.png"]})
        os.utime(self.base / "in.tar", ns=(number + 1, number + 1))

    def words(self, aim: str) -> list[object]:
        """The command in which a stage occurs."""
        if aim in OF_A_VACUUM:
            return ["vacuum", self.lake, "--older-than", 0, *(("--keep-last", 3) if aim == "give up" else ())]
        if aim == "pin":
            return ["export", self.lake, "main", self.base / f"out{self.tries}", "--to", "npz", "--workers", 1]
        self.change()
        prunes = aim == "prune" or self.chance.random() < 0.1
        recipe = recipe_at(self.base, "lake", more=not prunes)
        workers = 2 if self.chance.random() < 0.1 else 1
        return ["build", recipe, "--workers", workers, *(["--prune"] if prunes else [])]

    def kill_one(self, aim: str) -> None:
        """Run a command, kill it at a random moment of a stage, and see whether the lake reads as before."""
        self.tries += 1
        if aim == "prune":
            self.heal()
        release, before = Lake(self.lake).release, digest(Lake(self.lake))
        self.seen[release] = before
        with ExitStack() as held:
            if aim == "lock":
                held.enter_context(writing(self.lake))
            staged = Staged(*self.words(aim), report=self.reports)
            if staged.until(aim):
                time.sleep(self.chance.uniform(0, min(1.0, self.spans.get(aim, 0.05))))
                fell = staged.kill()
            else:
                fell = "not reached" if staged.end() == 0 else "failed"
        assert fell != "failed", aim
        self.hits[fell] += 1
        for stage, span in staged.spans.items():
            self.spans[stage] = max(self.spans.get(stage, 0.0), span)
        assert laws(Lake(self.lake)) == []
        if Lake(self.lake).release == release:
            assert digest(Lake(self.lake)) == before, f"killed in {fell}, the lake reads otherwise than before"

    @property
    def killed(self) -> int:
        return self.hits.total() - self.hits["not reached"] - self.hits["over"]

    def aims(self) -> list[str]:
        """The stages that were hit least of those that the next command can come to."""
        dead = any((self.base / "lake" / ".writers").iterdir())
        able = [stage for stage in EVERY if dead or stage not in OF_THE_DEAD]
        least = min(self.hits[stage] for stage in able)
        return [stage for stage in able if self.hits[stage] == least]

    def finish(self) -> None:
        """Build undisturbed once more: the lake is as if nothing had been, and so is every release that is left."""
        self.heal()
        fresh = read_recipe(recipe_at(self.base, "fresh", more=True))
        assert differing(self.lake, build(fresh, engine=LocalEngine(1)).root) == []
        assert all(not check.faults for check in verify(self.lake))
        for number in list_releases(self.lake)["release"]:
            assert digest(Lake(self.lake, number)) == self.seen.get(number, digest(Lake(self.lake, number)))
        told = ", ".join(f"{stage} {count}" for stage, count in sorted(self.hits.items()))
        print(f"\n{self.killed} builds killed, nothing lost; they fell in: {told}")  # noqa: T201 - shown by make stress


def test_a_kill_in_a_few_stages(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, seed=1)
    for aim in ("commit attributes", "prune", "lock", "vacuum"):
        rounds.kill_one(aim)
    rounds.finish()


@pytest.mark.stress
def test_two_hundred_kills_hit_every_stage(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, seed=2, reports=True)
    while rounds.killed < 200:
        rounds.kill_one(rounds.chance.choice(rounds.aims()))
        if rounds.chance.random() < 0.6:
            rounds.heal()
        assert rounds.tries < 400, rounds.hits
    rounds.finish()
    assert not [stage for stage in EVERY if not rounds.hits[stage]], rounds.hits


def beside_each_other(base: Path, rounds: int, seed: int) -> None:
    """Two builds of different sources at once, one killed: the other lands, and then the killed one's next."""
    chance, lake = random.Random(seed), str(base / "lake")
    write_facts(base)
    for uri, count in (("a", 40), ("b", 20)):
        as_folder(base / uri, files_of(count, seed=count))
        text = RECIPE.partition("[[split]]")[0]
        split = "train" if uri == "a" else "test"
        sources = SOURCE.format(uri=uri, split=split)
        (base / f"{uri}.toml").write_text(text.format(root="lake", sources=sources, rules='"exact", "sign"'))
    recipes = [read_recipe(base / f"{uri}.toml") for uri in "ab"]
    for recipe in recipes:
        build(recipe, engine=LocalEngine(1))
    fell = Counter[str]()
    for number in range(rounds):
        for uri in "ab":
            as_folder(base / uri, {f"A/n{number}.png": files_of(1, seed=500 + number)["A/00000.png"]})
        doomed, other = (Staged("build", base / f"{uri}.toml", "--workers", 1, report=False) for uri in "ab")
        doomed.until(chance.choice(("mark", "decode", "lock", "commit images", "commit shards", "release")))
        fell[doomed.kill()] += 1
        assert other.end() == 0
        assert f"A/n{number}.png" in Lake(lake).scan("images").filter(split="test").collect()["path"].to_list()
        assert laws(Lake(lake)) == []
        build(recipes[0], engine=LocalEngine(1))
        assert left_over(lake) == []
        assert all(not check.faults for check in verify(lake))
    print(f"\n{rounds} builds killed beside others, which landed; they fell in: {dict(fell)}")  # noqa: T201 - as above


def test_a_build_killed_beside_another(tmp_path: Path) -> None:
    beside_each_other(tmp_path, rounds=1, seed=1)


@pytest.mark.stress
def test_many_builds_killed_beside_others(tmp_path: Path) -> None:
    beside_each_other(tmp_path, rounds=25, seed=2)

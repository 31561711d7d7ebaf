"""What leakage does, measured through a whole build: labels that can only be known by having seen the picture."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import commit, read_meta, versions, writing
from making import as_folder, encoded, files_of, pictures, recipe

from pipeline.builder.baselines import run_units, score_baselines
from pipeline.builder.build import Built, build, plan
from pipeline.engines.local import LocalEngine
from pipeline.lake.delta_log import Metadata
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe
from pipeline.report import summarize

RULES = ("exact", "sign")
# The test role keeps what it shares with train: only the original train role knows it.
SPLIT = {
    "name": "main",
    "keep": ["test", "train", "valid"],
    "sanitize": "exact",
    "train": {"from": "train"},
    "test": {"from": "test"},
}
BASELINE = {"model": "logistic", "split": "main", "train_sizes": [40, "all"], "seeds": 4, "max_iter": 60}
ORIGINAL = {**BASELINE, "train_on": "original"}


def planted(base: Path) -> Path:
    """Plant 15 equal copies and 10 with equal signs among 90 test images; train has 120 random pictures."""
    train = files_of(120)
    twins = {f"{name[0]}/copy{name[2:]}": data for name, data in list(train.items())[:15]}
    # Every pixel on its own side of mid-gray: equal signs, other values.
    faint = np.where(pictures(120)[20:30] >= 128, 255, 0).astype(np.uint8)
    twins |= {f"{'AB'[number % 2]}/faint{number}.png": encoded(picture) for number, picture in enumerate(faint)}
    as_folder(base / "train", train)
    as_folder(base / "test", {**files_of(65, seed=1), **twins})
    return base


def asked(base: Path, *, rules: tuple[str, ...] = RULES, **parts: Any) -> Recipe:
    given = {"dedup": {"rules": rules}, "split": [SPLIT], "baseline": [ORIGINAL, BASELINE], **parts}
    return recipe(base, {"uri": "train"}, {"uri": "test", "split": "test"}, **given)


def make(base: Path, **parts: Any) -> Built:
    return build(asked(base, **parts), engine=LocalEngine(1))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(make(planted(tmp_path_factory.mktemp("leak"))).root)


@pytest.fixture
def copy(lake: Lake, tmp_path: Path) -> Path:
    """A copy of the lake and of its sources, times included: for a build there, nothing is new."""
    return Path(shutil.copytree(Path(lake.root).parent, tmp_path, dirs_exist_ok=True))


def values(lake: Lake, *, train_dropped: int) -> dict[tuple[int, str, str | None, str], float]:
    """Read the rows over all seeds of the run that may be trained on so many dropped images."""
    rows = lake.scan("scores").filter(pl.col("label").is_null(), role="test").collect()
    runs = rows.filter(metric="train_dropped", value=float(train_dropped))["run_id"].unique()
    own = rows.filter(
        pl.col("run_id").is_in(runs.implode()),
        ~pl.col("metric").is_in(["accuracy", "loss", "leak", "precision", "recall", "f1"]),
    )
    keys = own.select("train_size", "eval_on", "rule", "metric")
    assert keys.is_unique().all()
    return dict(zip(keys.rows(), own["value"], strict=True))


def test_a_leak_of_random_labels_is_found(lake: Lake) -> None:
    """Copies are known by heart, the others guessed; what was published lies in between."""
    found = values(lake, train_dropped=15)
    assert found[120, "overlap", "exact", "images"] == 15
    assert found[120, "overlap", "sign", "images"] == 25
    assert found[120, "original", None, "images"] == 90
    assert found[120, "original", None, "seeds"] == 4
    assert found[120, "overlap", "exact", "accuracy_mean"] == 1
    assert found[120, "overlap", "sign", "accuracy_mean"] == 1
    assert found[120, "sanitized", "sign", "accuracy_mean"] == pytest.approx(0.5, abs=0.15)
    for rule in RULES:
        assert 0 < found[120, "original", rule, "leak_low"] < found[120, "original", rule, "leak_mean"]
    assert found[120, "original", "sign", "leak_mean"] > found[120, "original", "exact", "leak_mean"]
    # A third of the train role has a third of the twins.
    assert found[40, "original", "sign", "leak_mean"] < found[120, "original", "sign", "leak_mean"]


def test_a_model_of_the_sanitized_role_has_seen_no_copy(lake: Lake) -> None:
    found = values(lake, train_dropped=0)
    assert found[105, "overlap", "exact", "images"] == 0
    assert found[105, "original", "exact", "leak_mean"] == 0
    # By a rule that the split is not sanitized by there is overlap still.
    assert found[105, "overlap", "sign", "images"] == 10
    assert found[105, "original", "sign", "leak_mean"] > 0


def test_parts_are_those_of_the_clusters(lake: Lake) -> None:
    splits = lake.scan("splits").collect()
    for kept_only, dropped in ((False, 15), (True, 0)):
        found = values(lake, train_dropped=dropped)
        trained = splits.filter(pl.col("role") == "train", pl.col("kept") | (not kept_only))["image_id"].to_list()
        test = splits.filter(role="test")["image_id"].to_list()
        for rule in RULES:
            rows = lake.scan("clusters").filter(rule=rule).select("cluster_id", "image_id").collect().rows()
            seen = {cluster for cluster, image in rows if image in set(trained)}
            overlap = {image for cluster, image in rows if cluster in seen} & set(test)
            for size in {key[0] for key in found}:
                assert found[size, "overlap", rule, "images"] == len(overlap)
                assert found[size, "sanitized", rule, "images"] == len(test) - len(overlap)


def test_original_is_the_weighted_mean_of_its_parts_for_every_seed(lake: Lake) -> None:
    rows = lake.scan("scores").filter(role="test").collect()
    keys = ["run_id", "train_size", "seed"]
    counts = rows.filter(metric="images").select("run_id", "train_size", "eval_on", "rule", images="value")
    right = rows.filter(metric="accuracy").join(
        counts, on=["run_id", "train_size", "eval_on", "rule"], nulls_equal=True
    )
    right = right.with_columns(hits=(pl.col("value") * pl.col("images")).round())
    whole = dict(right.filter(eval_on="original").select(pl.struct(keys).struct.json_encode(), "hits").rows())
    halves = right.filter(pl.col("eval_on") != "original").group_by(*keys, "rule").agg(pl.col("hits").sum())
    assert len(whole) == 2 * 2 * 4
    assert len(halves) == len(whole) * 3
    assert all(whole[key] == hits for key, hits in halves.select(pl.struct(keys).struct.json_encode(), "hits").rows())


def test_a_build_with_nothing_to_do_commits_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions(str(copy / "lake"))

    def opened(*_: object) -> None:
        raise AssertionError("a pixel or a cluster was read")

    monkeypatch.setattr("pipeline.builder.baselines.gather", opened)
    monkeypatch.setattr("pipeline.builder.baselines.find_overlaps", opened)
    assert make(copy).done == ()
    assert versions(str(copy / "lake")) == before


def test_the_first_seed_does_not_depend_on_the_others(tmp_path: Path, lake: Lake) -> None:
    alone = Lake(make(planted(tmp_path), baseline=[{**ORIGINAL, "seeds": 1}]).root)
    keys = ["train_size", "eval_on", "rule", "value"]
    of_one, of_four = (
        one.scan("scores").filter(metric="accuracy", seed=0, role="test").collect().select("run_id", *keys)
        for one in (alone, lake)
    )
    run = lake.scan("scores").filter(metric="train_dropped", value=15.0).collect()["run_id"][0]
    assert of_one.select(keys).equals(of_four.filter(run_id=run).select(keys))


def test_the_same_recipe_measures_the_same(tmp_path: Path, lake: Lake) -> None:
    """Law 2, also where baselines share one reading of the pixels, and in another order."""
    again = Lake(make(planted(tmp_path), baseline=[BASELINE, ORIGINAL]).root)
    left, right = (
        one.scan("scores").drop("seconds", "memory").collect().sort(pl.all().exclude("value"), nulls_last=True)
        for one in (again, lake)
    )
    assert left.equals(right)


def test_a_new_rule_is_measured_and_told(tmp_path: Path) -> None:
    make(planted(tmp_path), rules=("exact",))
    told = plan(asked(tmp_path))
    assert [(item.stage, item.reason) for item in told] == [("dedup", "new")] + [
        ("baselines", "the rules of the lake change")
    ] * 2
    done = make(tmp_path).done
    assert [item[:2] for item in done] == [item[:2] for item in told]
    rules = Lake(tmp_path / "lake").scan("scores").collect()["rule"].unique().sort().to_list()
    assert rules == [None, *RULES]


def test_clusters_that_change_are_measured_by_what_they_say(copy: Path) -> None:
    """A rule that finds other clusters in the same split is measured again; one that finds the same is not."""
    root = str(copy / "lake")
    for fingerprint, removed, done in (("same rows", "", 0), ("no rows", "sign", 2)):
        units = dict(read_meta(root, "clusters").units)
        meta = Metadata("dedup", {**units, "sign": {**units["sign"], "fingerprint": fingerprint}})
        commit(root, "clusters", [], lambda partition, gone=removed: partition["rule"] == gone, meta)  # type: ignore[misc] # bound now
        with writing(root) as lake:
            wanted = run_units(lake.snapshot, asked(copy), prune=False)
            found, changes = score_baselines(lake.snapshot, lake.writer, wanted)
            for change in changes:
                lake.commit(change)
        assert [item.reason for item in found] == ["its input changed"] * done
    scores = (
        Lake.working(Snapshot(root)).scan("scores").filter(metric="images", eval_on="overlap", rule="sign").collect()
    )
    assert set(scores["value"]) == {0}


def test_a_touched_file_trains_nothing_and_a_new_copy_does(copy: Path) -> None:
    train = files_of(120)
    as_folder(copy / "test", {"A/again.png": train["A/00000.png"]})
    assert [item.stage for item in make(copy).done] == [
        "ingest",
        "dedup",
        "dedup",
        "splits",
        "baselines",
        "baselines",
    ]
    (copy / "train" / "A" / "00000.png").touch()
    assert [item.stage for item in make(copy).done] == ["ingest", "dedup", "dedup", "splits"]


def test_the_report_shows_it(lake: Lake) -> None:
    given = summarize(
        lake.scan,
        lake="x",
        release=1,
        created_at=None,
        overlap=lambda *_: pl.DataFrame(
            schema={"rule": pl.String, "role": pl.String, "other": pl.String, "images": pl.Int64}
        ),
    )
    original, sanitized = given["accuracy"]
    assert (original["train_dropped"], sanitized["train_dropped"]) == (15, 0)
    most = original["leakage"][0]
    assert (most["train_size"], most["seeds"], most["images"]) == (120, 4, 90)
    assert [(row["rule"], row["images"]) for row in most["rules"]] == [("exact", 15), ("sign", 25), (None, 0)]
    assert most["rules"][0]["overlap"]["mean"] == 1
    # The split leaves its test role whole: the headline goes by the rule.
    best = given["headline"]["accuracy"]
    assert best["drop"] == most["rules"][0]["leak"]["mean"] > 0


def test_a_model_that_misses_nothing_has_no_rows_of_misses(tmp_path: Path) -> None:
    for part, seed in (("train", 0), ("test", 1)):
        shades = np.random.default_rng(seed).integers(0, 60, (20, 8, 8)).astype(np.uint8)
        shades[1::2] += 190
        as_folder(tmp_path / part, {f"{'AB'[n % 2]}/{n}.png": encoded(shade) for n, shade in enumerate(shades)})
    lake = Lake(make(tmp_path, baseline=[{"model": "logistic", "split": "main"}]).root)
    accuracy = lake.scan("scores").filter(role="test", eval_on="original", metric="accuracy").collect()
    assert accuracy["value"].to_list() == [1]
    assert lake.scan("misses").collect().is_empty()

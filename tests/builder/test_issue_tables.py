"""The tables measurements and issues: found once, kept up to date, and read by splits, checks and commands."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from commands import Run
from damaged_lakes import renamed
from lakes import read_meta, rows_by_content, versions
from making import as_folder, encoded, recipe
from numpy.typing import NDArray

import schemas
from pipeline.builder import issues as step
from pipeline.builder.build import Built, build, plan
from pipeline.checks import run_checks
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError, RecipeError
from pipeline.issues.measure import measure
from pipeline.lake_handle import Lake
from pipeline.repair import repair
from pipeline.verify import verify

TABLES = ("measurements", "issues")
SPLIT = {"name": "main", "train": {"from": "train", "share": 0.5}, "test": {"from": "train", "share": 0.5}}


def drawing(label: str, seed: int) -> NDArray[np.uint8]:
    """Draw a bar on noise, at another place in each class."""
    drawn = np.random.default_rng([seed, ord(label)]).integers(0, 90, (28, 28))
    drawn[:, (ord(label) - ord("A")) * 6 + 2] += 150
    return drawn.astype(np.uint8)


def files_of(count: int = 40, classes: str = "ABC") -> dict[str, bytes]:
    """Draw pictures of each class, a blank one, a dark one, a wrong label and a copy of a picture."""
    files = {f"{label}/{i:03d}.png": encoded(drawing(label, i)) for label in classes for i in range(count)}
    blank = np.full((28, 28), 30, np.uint8)
    return {
        **files,
        "A/blank.png": encoded(blank),
        "B/dark.png": encoded((drawing("B", 900) * 0.2).astype(np.uint8)),
        "A/wrong.png": encoded(drawing("B", 901)),
        "A/copy.png": files["A/003.png"],
    }


@pytest.fixture
def base(tmp_path: Path) -> Path:
    as_folder(tmp_path / "a", files_of())
    return tmp_path


def asked(base: Path, issues: Mapping[str, Any] | None = None, **parts: Any) -> Any:
    chosen = {} if issues is None else {"issues": dict(issues)}
    return recipe(base, {"uri": "a"}, decode={"mode": "L"}, **chosen, **parts)


def make(base: Path, issues: Mapping[str, Any] | None = None, workers: int = 1, **options: Any) -> Built:
    prune = options.pop("prune", False)
    return build(asked(base, issues, **options), engine=LocalEngine(workers), prune=prune)


def found(root: str) -> dict[str, set[str]]:
    """List the paths of each kind of issue."""
    rows = Lake(root).scan("issues").join(Lake(root).scan("images"), on="image_id").collect()
    return {kind: set(rows.filter(kind=kind)["path"]) for kind in rows["kind"].unique()}


def sound(root: str) -> bool:
    return not any(check.faults for check in verify(root))


EVERYTHING = {"label": True, "outlier": 0.2}


def test_planted_issues_are_listed_and_a_second_build_does_nothing(base: Path) -> None:
    built = make(base, EVERYTHING)
    lists = found(built.root)
    assert lists["blank"] == {"A/blank.png"}
    assert lists["dark"] == {"B/dark.png"}
    assert lists["label"] == {"A/wrong.png"}
    assert "A/wrong.png" in lists["outlier"]
    assert ("issues", "label", "new; 1 image") in built.done
    row = Lake(built.root).scan("issues").filter(kind="label").collect().row(0, named=True)
    assert (row["suggested_label"], row["agreement"]) == ("B", 1)
    assert len(Lake(built.root).scan("measurements").collect()) == len(files_of()) - 1
    assert sound(built.root)
    before = versions(built.root)
    assert plan(asked(base, EVERYTHING)) == []
    assert make(base, EVERYTHING).done == ()
    assert versions(built.root) == before


def test_a_picture_with_two_labels_is_not_its_own_neighbour(base: Path) -> None:
    bars = np.tile(np.arange(28) % 2 * 200, (28, 1)).astype(np.uint8)
    as_folder(base / "a", {"A/wrong.png": encoded(bars), "B/wrong.png": encoded(bars)})
    built = make(base, {"label": 0.01})
    rows = Lake(built.root).scan("issues").filter(kind="label").collect()
    pictures = Lake(built.root).scan("images").select("image_id", "content_hash").collect()
    both = rows.join(pictures, on="image_id").join(
        pictures.rename({"image_id": "other_id", "content_hash": "other"}), on="other_id"
    )
    assert len(both)
    assert (rows["agreement"] == 0).any()  # listed by the model alone
    assert (both["content_hash"] != both["other"]).all()


def test_a_lake_without_issues_has_empty_tables(base: Path) -> None:
    built = make(base)
    assert all(Lake(built.root).scan(table).collect().is_empty() for table in TABLES)
    assert [versions(built.root)[table] for table in TABLES] == [0, 0]


def test_a_threshold_reads_no_pixels(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(base, {"label": True})
    monkeypatch.setattr(step, "read_file", None)
    built = make(base, {"dark": 0.01, "blank": False})
    of_pixels = ["low_information", "dark", "bright", "low_contrast", "blurry", "border"]
    assert [(item.stage, item.unit, item.reason.partition(";")[0]) for item in built.done] == [
        *(("issues", kind, "its settings changed") for kind in of_pixels),
        ("issues", "blank", "no longer in the recipe"),
        ("issues", "label", "no longer in the recipe"),
    ]
    assert len(found(built.root)["dark"]) > 10
    assert sound(built.root)


def test_a_blank_picture_has_other_issues_if_blank_is_false(base: Path) -> None:
    as_folder(base / "a", {"C/white.png": encoded(np.full((28, 28), 255, np.uint8))})
    lists = found(make(base, {}).root)
    assert lists["blank"] == {"A/blank.png", "C/white.png"}
    built = make(base, {"blank": False})
    assert "blank" not in found(built.root)
    assert found(built.root)["bright"] == {"C/white.png"}
    assert found(built.root)["low_information"] >= lists["blank"]
    assert sound(built.root)
    # Other kinds follow a change of blank. A change of bright alone leaves blank images out as well.
    assert found(make(base, {"blank": 0.9}).root) == lists
    assert found(make(base, {"blank": 0.9, "bright": 0.5}).root) == lists
    assert sound(built.root)


def test_only_new_pictures_are_measured(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(base, {})
    measured: list[int] = []

    def counted(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        measured.append(len(pixels))
        return measure(pixels)

    monkeypatch.setattr(step, "measure", counted)
    new = files_of()
    as_folder(base / "a", {"C/copy.png": new["A/005.png"], "C/new.png": encoded(np.full((9, 9), 250, np.uint8))})
    (base / "a/B/dark.png").unlink()
    built = make(base, {})
    assert measured == [1]
    assert found(built.root)["blank"] == {"A/blank.png", "C/new.png"}
    assert sound(built.root)


def test_a_lake_that_grew_equals_a_new_one_on_any_number_of_workers(
    base: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "_FEW", 0)
    later = [base / "a/A/blank.png", *sorted((base / "a/C").iterdir())[::2]]
    aside = tmp_path_factory.mktemp("aside")
    for file in later:
        (aside / file.parent.name).mkdir(exist_ok=True)
        shutil.move(file, aside / file.parent.name / file.name)
    make(base, EVERYTHING)
    for file in later:
        shutil.move(aside / file.parent.name / file.name, file)
    grown = make(base, EVERYTHING, workers=2)
    fresh = tmp_path_factory.mktemp("fresh")
    shutil.copytree(base / "a", fresh / "a")
    new = make(fresh, EVERYTHING)
    for table in TABLES:
        assert rows_by_content(grown.root, table).equals(rows_by_content(new.root, table)), table
        assert len(rows_by_content(new.root, table))
    monkeypatch.setattr(step, "_IN_MEMORY", 0)
    shutil.rmtree(fresh / "lake")
    again = make(fresh, EVERYTHING)
    assert rows_by_content(again.root, "issues").equals(rows_by_content(grown.root, "issues"))


def test_issues_stay_without_the_recipe_until_they_are_pruned(base: Path) -> None:
    first = make(base, {})
    lists = found(first.root)
    assert make(base).done[0].stage == "release"
    assert found(first.root) == lists
    pruned = make(base, prune=True)
    assert {item.stage for item in pruned.done} == {"issues"}
    assert found(pruned.root) == {}
    assert Lake(pruned.root).scan("measurements").collect().is_empty()
    assert sound(pruned.root)


def test_a_split_drops_by_issue(base: Path, run: Run) -> None:
    part = {**SPLIT, "drop_issues": ["dark", "blank"], "sanitize": "exact"}
    built = make(base, {}, split=[part])
    dropped = (
        Lake(built.root).scan("splits").filter(reason="issue").join(Lake(built.root).scan("images"), on="image_id")
    )
    rows = dropped.select("path", "kept", "dropped_by", "dropped_for").sort("path").collect().rows()
    assert rows == [("A/blank.png", False, "blank", None), ("B/dark.png", False, "dark", None)]
    assert sound(built.root)
    said = run("why", built.root, "A/blank.png").stdout
    assert "issue blank: 1.000 (nearly all pixels have one gray level)" in said
    assert "dropped by blank (issue: the split drops images with this issue)" in said
    grouped = make(base, {}, split=[{**part, "groups": ["exact"], "sanitize": ()}])
    assert len(Lake(grouped.root).scan("splits").filter(reason="issue").collect()) == 2
    # Another threshold of another kind leaves the split as it is.
    again = make(base, {"bright": 0.9}, split=[{**part, "groups": ["exact"], "sanitize": ()}])
    assert [item.stage for item in again.done] == ["issues"]
    planned = plan(asked(base, {"dark": 0.01}, split=[{**part, "groups": ["exact"], "sanitize": ()}]))
    assert {item.stage for item in planned} == {"issues", "splits"}
    more = make(base, {"dark": 0.01}, split=[{**part, "groups": ["exact"], "sanitize": ()}])
    assert {item.stage for item in more.done} == {"issues", "splits"}
    assert len(Lake(more.root).scan("splits").filter(reason="issue").collect()) > 10
    assert sound(more.root)


def test_protected_images_are_not_dropped_by_issue(base: Path) -> None:
    built = make(base, {}, split=[{**SPLIT, "drop_issues": "blank", "protected": "d"}])
    assert Lake(built.root).scan("splits").select(pl.col("kept").all()).collect().item()


@pytest.mark.parametrize(
    ("issues", "split", "message"),
    [
        ({"blury": 0.5}, {}, "unknown key issues.blury; did you mean 'blurry'?"),
        ({"blurry": 0}, {}, "issues.blurry: 0 is neither true, false nor a score above 0 and at most 1"),
        ({"blurry": 1.5}, {}, "issues.blurry: 1.5 is neither true, false nor a score above 0 and at most 1"),
        ({"blurry": "yes"}, {}, "issues.blurry: 'yes' is neither"),
        ({"blank": False}, {"drop_issues": "blank"}, "which [issues] does not list: write blank = true there"),
        ({}, {"drop_issues": "blurred"}, "by issue 'blurred', which is no kind of issue; did you mean 'blurry'?"),
        (None, {"drop_issues": "blank"}, "split 'main' drops images by issue 'blank', but there is no [issues]"),
    ],
)
def test_faults_of_the_recipe(
    tmp_path: Path, issues: Mapping[str, Any] | None, split: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as raised:
        asked(tmp_path, issues, split=[{**SPLIT, **split}])
    assert message in str(raised.value)


def test_recipes_and_splits_without_issues_keep_their_digests(tmp_path: Path) -> None:
    plain = asked(tmp_path, split=[SPLIT])
    assert "drop_issues" not in plain.split[0].model_dump()
    assert asked(tmp_path, {}).digest != asked(tmp_path).digest
    assert asked(tmp_path, {"dark": 1}).digest == asked(tmp_path, {"dark": 1.0}).digest


@pytest.mark.parametrize("table", TABLES)
def test_damage_is_repaired(base: Path, table: str) -> None:
    built = make(base, EVERYTHING, split=[{**SPLIT, "drop_issues": "label"}])
    before = {name: Lake(built.root).scan(name).collect() for name in (*TABLES, "splits")}
    for part in Lake(built.root).snapshot.file_places(table):
        Path(part).unlink()
    assert not sound(built.root)
    again = repair(asked(base, EVERYTHING, split=[{**SPLIT, "drop_issues": "label"}]), engine=LocalEngine(1))
    assert again.still_damaged == ()
    assert all(Lake(built.root).scan(name).collect().equals(rows) for name, rows in before.items())
    assert sound(built.root)


@pytest.mark.parametrize("table", TABLES)
def test_a_lost_table_is_made_again(base: Path, table: str) -> None:
    built = make(base, EVERYTHING)
    before = Lake(built.root).scan(table).collect()
    shutil.rmtree(base / "lake" / table)
    repair(asked(base, EVERYTHING), engine=LocalEngine(1))
    assert Lake(built.root).scan(table).collect().equals(before)
    assert sound(built.root)


def test_verify_finds_wrong_scores(base: Path) -> None:
    built = make(base, {})
    file = Path(Lake(built.root).snapshot.file_places("issues", lambda part: part["kind"] == "dark")[0])
    rows = pl.read_parquet(file, hive_partitioning=False).with_columns(score=pl.col("score") / 2)
    pq.write_table(rows.to_arrow().cast(schemas.TABLES["issues"].file_schema), file)
    renamed(file)
    faults = [fault.text for check in verify(built.root) for fault in check.faults]
    assert "issues differ from the scores of their measurements" in faults


def test_the_command_lists_the_strongest_first(base: Path, run: Run) -> None:
    root = make(base, {"dark": 0.01, "label": True}).root
    listed = json.loads(run("issues", root, "--kind", "dark", "--limit", "3", "--json").stdout)
    assert listed["shown"][0]["path"] == "B/dark.png"
    scores = [row["score"] for row in listed["shown"]]
    assert (len(scores), sorted(scores, reverse=True)) == (3, scores)
    assert listed["counts"][0]["kind"] == "dark"
    text = run("issues", root).stdout
    assert "A/wrong.png" in text
    assert "nearly all pixels have one gray level" in text
    with pytest.raises(LakeError, match="has no issue 'blury'; did you mean 'blurry'?"):
        run("issues", root, "--kind", "blury")


def test_the_command_says_what_to_do_without_issues(base: Path, run: Run) -> None:
    with pytest.raises(LakeError, match="Add an \\[issues\\] to the recipe"):
        run("issues", make(base).root)


def test_diff_counts_issues_and_checks_limit_them(base: Path) -> None:
    checks = [
        {"issues": 0, "issue": "blank"},
        {"issues": 0.5},
        {"issues": 1, "issue": "dark", "split": "main"},
        {"issues": 0, "split": "main"},
        {"issues": 0, "issue": "outlier"},
    ]
    make(base, {}, split=[{**SPLIT, "drop_issues": "blank"}], check=checks)
    as_folder(base / "a", {"C/new.png": encoded(np.full((28, 28), 250, np.uint8))})
    built = make(base, {}, split=[{**SPLIT, "drop_issues": "blank"}], check=checks)
    assert Lake(built.root).diff(1).issues["blank"] == (1, 2)
    results = run_checks(Lake(built.root)).results
    assert [one.result for one in results] == ["failed", "passed", "passed", "failed", "error"]
    assert (results[0].found, results[0].detail) == (2, "2 blank; such as d/train A/blank.png")
    assert results[1].check == "share of images with issues"
    with pytest.raises(RecipeError, match="issues: 1.5 is neither a whole number"):
        asked(base, {}, check=[{"issues": 1.5}])
    with pytest.raises(RecipeError, match='issue = "blur" is no kind of issue; did you mean'):
        asked(base, {}, check=[{"issues": 1, "issue": "blur"}])


def test_the_report_shows_issues(base: Path, reports: None) -> None:  # noqa: ARG001 - a fixture
    built = make(base, {"label": True})
    page = Path(built.report).read_text(encoding="utf-8")
    assert 'id="issues"' in page
    assert 'alt="1 images with issue label"' in page


def test_metadata_count_the_images(base: Path) -> None:
    units = read_meta(make(base, {}).root, "issues").units
    assert (units["blank"]["images"], units["bright"]["images"]) == (1, 0)

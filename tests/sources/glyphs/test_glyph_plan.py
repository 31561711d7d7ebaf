"""The plan and the truth: proportions, counts, labels, originals."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.sources.glyphs import FULL_ROWS, TRUTH, Kind, blocks, plan_glyphs, planted_counts, truth


@pytest.mark.parametrize("rows", [100, 101, 565, 3000, 20_000])
@pytest.mark.parametrize("seed", [0, -1, 2**70])
def test_every_kind_is_planted_in_the_known_number(rows: int, seed: int) -> None:
    plan = plan_glyphs(rows, seed)
    told = Counter(truth(plan)["kind"].to_pylist())
    assert told == planted_counts(plan)
    assert set(told) == {kind.truth_name for kind in Kind}
    assert sum(told.values()) == len(plan.labels)
    assert planted_counts(plan) == planted_counts(plan_glyphs(rows, 99))


def test_the_full_set_has_the_sizes_of_notmnist() -> None:
    plan = plan_glyphs(FULL_ROWS, seed=1)
    assert (len(plan.span("train")), len(plan.span("test"))) == (529_114, 18_726)


def test_a_smaller_set_keeps_the_proportion() -> None:
    assert len(plan_glyphs(10_000, seed=1).span("test")) == round(10_000 * 18_726 / 529_114)


def test_labels_are_balanced_in_each_part() -> None:
    plan = plan_glyphs(3000, seed=1)
    for split in ("train", "test"):
        counts = np.bincount(plan.labels[plan.span(split)], minlength=10)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("rows", [100, 3000])
def test_every_copy_has_an_original_where_its_kind_says(rows: int) -> None:
    table = truth(plan_glyphs(rows, seed=2)).to_pylist()
    by_key = {(row["split"], row["path"]): row for row in table}
    for row in table:
        kind, original = row["kind"], by_key.get((row["of_split"], row["of_path"]))
        if kind in {"original", "empty", "truncated", "not_an_image"}:
            assert row["of_split"] is None
            assert row["of_path"] is None
            continue
        assert original is not None
        assert original["kind"] == "original"
        assert (original["label"] == row["label"]) == (kind != "conflict")
        of_split = row["split"] if kind in {"exact_copy", "conflict"} else "train"
        assert original["split"] == of_split
        assert kind != "cross_copy" or row["split"] == "test"


def test_paths_are_unique_and_lie_in_their_labels_folder() -> None:
    table = truth(plan_glyphs(3000, seed=3)).to_pylist()
    assert len({row["path"] for row in table}) == len(table)
    assert all(row["path"].startswith(f"{row['label']}/") for row in table)


def test_the_truth_survives_parquet_with_its_documentation(tmp_path: Path) -> None:
    table = truth(plan_glyphs(100, seed=4))
    pq.write_table(table, tmp_path / "truth.parquet")
    back = pq.read_table(tmp_path / "truth.parquet")
    assert back.equals(table)
    assert all(back.schema.field(name).metadata[b"doc"] for name in TRUTH.names)


def test_too_small_a_set_is_refused_with_advice() -> None:
    with pytest.raises(SourceError, match="Set rows to 100 or more"):
        plan_glyphs(99, seed=1)


def test_an_unknown_part_is_refused_with_advice() -> None:
    with pytest.raises(SourceError, match="Parts: train, test"):
        blocks(plan_glyphs(100, seed=1), "valid")


def test_planning_imports_neither_pillow_nor_matplotlib() -> None:
    asked = "import sys, pipeline.sources.glyphs; print({'PIL', 'matplotlib'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", asked], text=True) == "set()\n"

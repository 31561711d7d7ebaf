"""The counted facts of shared/data/README.md, straight from the tables."""

import numpy as np
import polars as pl
import pytest
from making import needs_data

from pipeline.dedup.clusters import overlap_matrix, redundancy
from pipeline.lake_handle import Lake
from pipeline.maintenance import overlap
from pipeline.sql import first_rows
from pipeline.verify import verify

pytestmark = needs_data

# rule: distinct, clusters, redundant, conflicts (of small), small in sample, sample in small
FACTS = {
    "exact": (18_232, 236, 492, 2, 297, 78),
    "sign": (17_891, 390, 833, 3, 533, 165),
    "maxpool:2": (18_181, 236, 543, 3, 347, 88),
    "maxpool:4": (17_969, 297, 755, 5, 515, 129),
}
READABLE = {label: 1872 + (label in "BCDE") for label in "ABCDEFGHIJ"}


def test_images_and_rejects(notmnist_lake: Lake) -> None:
    counts = first_rows(notmnist_lake, "select split, count(*) n from images group by all order by all", most=100).first
    assert counts.rows() == [("test", 18_724), ("train", 3_493)]
    small = notmnist_lake.scan("images").filter(split="test").group_by("label").len().sort("label").collect()
    assert dict(small.rows()) == READABLE
    rejects = notmnist_lake.scan("rejects").sort("path").select("reason", "label", "file_size").collect()
    assert rejects.rows() == [("empty", "A", 0), ("empty", "F", 0)]


@pytest.mark.parametrize("rule", FACTS)
def test_figures_of_a_rule(notmnist_lake: Lake, rule: str) -> None:
    distinct, clusters, redundant, conflicts, small_in_sample, sample_in_small = FACTS[rule]
    members = notmnist_lake.scan("images").select("image_id", role="split")
    mine = notmnist_lake.scan("clusters").filter(pl.col("rule") == rule)
    inside = redundancy(mine, members).filter(role="test").row(0)
    assert inside == (rule, "test", clusters, redundant, conflicts)
    keys = notmnist_lake.scan("index").filter(pl.col("rule") == rule, pl.col("split") == "test")
    assert keys.select("key", "signature").unique().collect().height == distinct == 18_724 - redundant
    cells = {row[1:3]: row[3] for row in overlap_matrix(mine, members).rows()}
    assert cells["test", "train"] == small_in_sample
    assert cells["train", "test"] == sample_in_small


def test_the_overlap_command_says_the_same(notmnist_lake: Lake) -> None:
    found = overlap(notmnist_lake)
    cells = {row["rule"]: row["notmnist/train"] for row in found.matrix.to_dicts() if row["role"] == "notmnist/test"}
    assert cells == {rule: facts[4] for rule, facts in FACTS.items()}


def test_sign_agrees_with_the_dense_formula_image_by_image(notmnist_lake: Lake) -> None:
    """inner(X, Y) / inner(|X|, |Y|) >= 1 of every fourth small image with all 3,493 of the sample, exactly."""
    test, _ = notmnist_lake.arrays("main", "test", sanitized=False)
    train, _ = notmnist_lake.arrays("main", "train", sanitized=False)
    # x = (p - 127.5) / 255 times 510: whole numbers, whose sums of 784 products float64 has without rounding.
    left, right = (2 * pixels.reshape(len(pixels), -1).astype(np.float64) - 255 for pixels in (test[::4], train))
    dense = np.zeros(len(left), bool)
    for start in range(0, len(left), 2048):
        block = left[start : start + 2048]
        dense[start : start + 2048] = (block @ right.T >= np.abs(block) @ np.abs(right).T).any(axis=1)
    kept = notmnist_lake.members("main", "test", sanitized=False)["kept"].to_numpy()[::4]
    assert dense.sum() > 100
    assert np.array_equal(dense, ~kept)


def test_normalised_mean_and_deviation_of_small_from_pixels_and_from_sums(notmnist_lake: Lake) -> None:
    pixels, _ = notmnist_lake.arrays("main", "test", sanitized=False)
    values = (np.arange(256) - 127.5) / 255
    counts = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    mean = (values * counts).sum()
    assert round(mean, 4) == -0.0746
    assert round(float(np.sqrt(((values - mean) ** 2 * counts).sum())), 4) == 0.4586
    query = """
        with m as (select sum(pixel_sum) / sum(height * width) as mean,
                          sum(pixel_squares) / sum(height * width) as square
                   from images where split = 'test')
        select (mean - 127.5) / 255 as mean, sqrt(square - mean * mean) / 255 as deviation from m
    """
    assert [round(value, 4) for value in first_rows(notmnist_lake, query, most=100).first.row(0)] == [-0.0746, 0.4586]


def test_every_law_holds_at_rest(notmnist_lake: Lake) -> None:
    checks = verify(notmnist_lake.root)
    assert [check for check in checks if check.faults] == []
    assert next(check.checked for check in checks if "pixels" in check.name) == 22_217

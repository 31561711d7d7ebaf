"""Which images a fit sees: made by id and seed alone, the first seed by rank."""

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.baselines.eval_data import draw_samples
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart, parse_baseline


def ids(count: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(number.to_bytes(16, "big") for number in range(count)), np.uint8).reshape(-1, 16)


def spec(**changes: Any) -> BaselinePart:
    return parse_baseline({"model": "logistic", "split": "main", **changes})


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_first_seed_takes_the_first_ranks(seeds: int) -> None:
    drawn = draw_samples(spec(train_sizes=[10, "all"], seed=7, seeds=seeds), ids(50))
    first = [sample for sample in drawn if sample.seed == 7]
    assert [(sample.size, sample.rows.tolist()) for sample in first] == [
        (10, list(range(10))),
        (50, list(range(50))),
    ]
    assert [(sample.size, sample.seed) for sample in drawn] == [(n, 7 + k) for n in (10, 50) for k in range(seeds)]


def test_further_seeds_draw_without_replacement_each_its_own() -> None:
    drawn = draw_samples(spec(train_sizes=[20], seeds=6), ids(100))
    assert all(len(set(sample.rows.tolist())) == 20 for sample in drawn)
    assert len({tuple(sample.rows.tolist()) for sample in drawn}) == 6
    assert not any(sample.resampled for sample in drawn)


def test_a_larger_sample_holds_the_smaller_one_of_its_seed() -> None:
    small, large = (draw_samples(spec(train_sizes=[size], seeds=3), ids(100)) for size in (20, 60))
    for one, other in zip(small, large, strict=True):
        assert other.rows[:20].tolist() == one.rows.tolist()


def test_the_whole_role_is_drawn_with_replacement() -> None:
    """Of a bootstrap sample 1 - 1/e of the images are different ones."""
    first, *others = draw_samples(spec(seeds=6), ids(5000))
    assert first.rows.tolist() == list(range(5000))
    assert all(sample.resampled for sample in (first, *others))
    for sample in others:
        assert sample.rows.min() >= 0
        assert sample.rows.max() < 5000
        assert len(set(sample.rows.tolist())) / 5000 == pytest.approx(1 - np.exp(-1), abs=0.03)
    assert len({tuple(sample.rows.tolist()) for sample in others}) == 5


def test_every_image_is_drawn_equally_often() -> None:
    counts = np.zeros(100)
    for sample in draw_samples(spec(train_sizes=[30], seeds=1001), ids(100))[1:]:
        counts[sample.rows] += 1
    assert counts.sum() == 30_000
    # 300 each, with a standard deviation of sqrt(1000 * 0.3 * 0.7) = 14.5.
    assert np.abs(counts - 300).max() < 5 * 14.5


@pytest.mark.parametrize("size", [20, "all"])
def test_with_replacement_every_seed_draws_so_at_every_size(size: int | str) -> None:
    drawn = draw_samples(spec(train_sizes=[size], seeds=3, replacement=True), ids(1000))
    count = 1000 if size == "all" else size
    assert len({tuple(sample.rows.tolist()) for sample in drawn}) == 3
    assert not any(sample.resampled for sample in drawn)
    for sample in drawn:
        assert (len(sample.rows), sample.size) == (count, count)
        assert sample.rows.min() >= 0
        assert sample.rows.max() < 1000
    if size == "all":
        assert all(len(set(sample.rows.tolist())) < 700 for sample in drawn)


def test_with_replacement_images_are_drawn_evenly_and_a_larger_sample_holds_the_smaller_one() -> None:
    small, large = draw_samples(spec(train_sizes=[300, 900], replacement=True), ids(1000))
    assert large.rows[:300].tolist() == small.rows.tolist()
    counts = np.zeros(100)
    for seed in range(1000):
        (sample,) = draw_samples(spec(train_sizes=[30], seed=seed, replacement=True), ids(100))
        counts += np.bincount(sample.rows, minlength=100)
    # 300 each, with a standard deviation of sqrt(300).
    assert np.abs(counts - 300).max() < 5 * 300**0.5


def test_samples_are_golden() -> None:
    """A promise to old lakes: a run with the same name has the same numbers."""
    drawn = draw_samples(spec(train_sizes=[7, "all"], seed=3, seeds=3), ids(40))
    digest = hashlib.sha256(b"".join(sample.rows.astype("<i8").tobytes() for sample in drawn)).hexdigest()
    assert digest[:16] == "cf56203f5413a9f7"


def test_seeds_start_over_where_scikit_learn_takes_no_more() -> None:
    drawn = draw_samples(spec(train_sizes=[5], seed=2**32 - 1, seeds=3), ids(9))
    assert [sample.seed for sample in drawn] == [2**32 - 1, 0, 1]


def test_more_than_there_is_cannot_be_drawn() -> None:
    with pytest.raises(BaselineError, match="has train sizes .60.*keeps 50 images"):
        draw_samples(spec(train_sizes=[10, 60], seeds=2), ids(50))
    with pytest.raises(BaselineError, match="keeps 0 images"):
        draw_samples(spec(), ids(0))

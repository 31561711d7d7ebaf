"""Intervals against published values, scipy, and what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.baselines.measure import estimate, newcombe, over_seeds, student_quantile, wilson

SHARES = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(hits: int, images: int, low: float, high: float) -> None:
    """Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3."""
    found = wilson(hits / images, images)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(SHARES)
def test_wilson_is_that_of_scipy(share: tuple[int, int]) -> None:
    hits, images = share
    expected = stats.binomtest(hits, images).proportion_ci(method="wilson")
    found = wilson(hits / images, images)
    assert found[1:] == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= found.mean <= found.high <= 1


@pytest.mark.parametrize(
    ("left", "right", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_newcombe_gives_the_published_intervals(
    left: tuple[int, int], right: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe, 1998, table II, method 10."""
    found = newcombe(left[0] / left[1], left[1], right[0] / right[1], right[1])
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(SHARES, SHARES)
def test_newcombe_stays_between_minus_one_and_one(left: tuple[int, int], right: tuple[int, int]) -> None:
    found = newcombe(left[0] / left[1], left[1], right[0] / right[1], right[1])
    assert -1 - 1e-12 <= found.low <= found.mean <= found.high <= 1 + 1e-12


@given(VALUES)
def test_samples_of_their_own_give_the_interval_of_the_mean(values: list[float]) -> None:
    found = over_seeds(values, resampled=False)
    assert found is not None
    error = stats.sem(values)
    half = stats.t.ppf(0.975, len(values) - 1) * error
    assert found == pytest.approx((np.mean(values), np.mean(values) - half, np.mean(values) + half), abs=1e-9)


@given(VALUES.filter(lambda values: len(values) > 2))
def test_bootstrap_samples_give_the_error_of_the_first_value(values: list[float]) -> None:
    """Of one training set: their spread is not divided by the root of their number, and does not move the value."""
    found = over_seeds(values, resampled=True)
    assert found is not None
    half = stats.t.ppf(0.975, len(values) - 2) * np.std(values[1:], ddof=1)
    assert found == pytest.approx((values[0], values[0] - half, values[0] + half), abs=1e-9)
    assert found.mean == values[0] == estimate(values, resampled=True)


def test_a_worked_example_of_three_seeds() -> None:
    found = over_seeds([0.90, 0.92, 0.94], resampled=False)
    assert found is not None
    assert [round(value, 4) for value in found] == [0.92, 0.8703, 0.9697]


@pytest.mark.parametrize(("count", "resampled"), [(1, False), (1, True), (2, True)])
def test_too_few_values_have_no_interval(count: int, *, resampled: bool) -> None:
    assert over_seeds([0.5] * count, resampled=resampled) is None


def test_quantiles_are_those_of_the_printed_tables() -> None:
    found = [round(student_quantile(degrees), 3) for degrees in (1, 2, 4, 9, 30)]
    assert found == [12.706, 4.303, 2.776, 2.262, 2.042]


def test_an_interval_over_seeds_covers_what_it_says() -> None:
    """In 95 % of 2,000 experiments, give or take three standard errors."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(0.9, 0.01, (2000, 5))
    for resampled, truth in ((False, 0.9), (True, 0.9)):
        found = [over_seeds(list(row), resampled=resampled) for row in drawn]
        covered = np.mean([one is not None and one.low <= truth <= one.high for one in found])
        assert abs(covered - 0.95) < 0.015, resampled

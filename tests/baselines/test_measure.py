"""Rows of the scores table: laws that hold for any model, and a leak that was planted."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.baselines.eval_data import EvalData, draw_samples, name_parts
from pipeline.baselines.fit import Cost
from pipeline.baselines.measure import Fit, measure, newcombe, wilson
from pipeline.baselines.model import Examples
from pipeline.baselines.score import Misclassified, Scored, score
from pipeline.recipe import parse_baseline

Key = tuple[str, str | None, str]
CASES = st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())


def measured(fits: list[Fit], kept: Any, seen: Any, *, resampled: bool = False) -> dict[Key, float]:
    """Measure on two ways to tell the overlap; the rows over all seeds."""
    rows = measure(fits, name_parts(kept, {"exact": seen}), resampled=resampled, train_dropped=9)
    return {(row["eval_on"], row["rule"], row["metric"]): row["value"] for row in rows}


def drawn(count: int, seeds: int, seed: int) -> tuple[list[Fit], NDArray[np.bool_], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    fits = [Fit(number, Cost(0.5, 100 + number), rng.random(count) < rng.random()) for number in range(seeds)]
    return fits, rng.random(count) < 0.7, rng.random(count) < 0.3


@given(CASES)
def test_original_is_the_weighted_mean_of_sanitized_and_overlap(case: tuple[int, int, int, bool]) -> None:
    """Exactly, in images: what a share counts comes out whole."""
    count, seeds, seed, resampled = case
    fits, kept, seen = drawn(count, seeds, seed)
    for rule, fit in product((None, "exact"), fits):
        rows = list(measure([fit], name_parts(kept, {"exact": seen}), resampled=resampled, train_dropped=0))
        found = {(row["eval_on"], row["rule"], row["metric"]): row["value"] for row in rows}
        images = [found[eval_on, rule, "images"] for eval_on in ("sanitized", "overlap")]
        shares = [found.get((eval_on, rule, "accuracy"), 0.0) for eval_on in ("sanitized", "overlap")]
        right = [round(share * of) for share, of in zip(shares, images, strict=True)]
        assert sum(images) == found["original", None, "images"] == count
        assert sum(right) == fit.correct.sum() == round(found["original", None, "accuracy"] * count)
        assert found["original", None, "accuracy"] == sum(right) / count


@given(CASES)
def test_estimates_lie_in_their_intervals(case: tuple[int, int, int, bool]) -> None:
    count, seeds, seed, resampled = case
    fits, kept, seen = drawn(count, seeds, seed)
    found = measured(fits, kept, seen, resampled=resampled)
    for (eval_on, rule, metric), value in found.items():
        if metric.endswith("_mean"):
            stem = metric.removesuffix("_mean")
            low, high = (found[eval_on, rule, f"{stem}_{end}"] for end in ("low", "high"))
            assert (-1 if stem == "leak" else 0) <= low <= value + 1e-12
            assert value - 1e-12 <= high <= 1


@given(CASES)
def test_the_leak_is_original_less_sanitized_of_the_same_seed(case: tuple[int, int, int, bool]) -> None:
    count, seeds, seed, resampled = case
    fits, kept, seen = drawn(count, seeds, seed)
    rows = list(measure(fits, name_parts(kept, {"exact": seen}), resampled=resampled, train_dropped=0))
    leaks = {(row["rule"], row["seed"]): row["value"] for row in rows if row["metric"] == "leak"}
    for rule, rest in ((None, kept), ("exact", ~seen)):
        expected = {(rule, fit.seed): fit.correct.mean() - fit.correct[rest].mean() for fit in fits if rest.any()}
        assert {key: value for key, value in leaks.items() if key[0] == rule} == expected


def test_one_seed_has_the_intervals_of_its_test_images() -> None:
    fit = Fit(0, Cost(1.0, None), np.array([True] * 9 + [False] + [True] * 3 + [False] * 7))
    seen = np.arange(20) < 10
    found = measured([fit], np.ones(20, dtype=np.bool_), seen)
    assert found["original", None, "seeds"] == 1
    among = wilson(0.6, 20)
    for names in (("accuracy_low", "accuracy_high"), ("wilson_low", "wilson_high")):
        assert [found["original", None, name] for name in names] == [among.low, among.high]
    gap = newcombe(0.9, 10, 0.3, 10)
    assert found["original", "exact", "leak"] == found["original", "exact", "leak_mean"] == pytest.approx(0.3)
    assert [found["original", "exact", f"leak_{end}"] for end in ("low", "high")] == [gap.low / 2, gap.high / 2]
    assert [found["original", None, f"leak_{end}"] for end in ("mean", "low", "high")] == [0, 0, 0]


def test_several_seeds_have_the_interval_over_them_and_that_of_the_images() -> None:
    fits = [Fit(seed, Cost(2.0, None), np.arange(10) < right) for seed, right in enumerate((6, 7, 8))]
    found = measured(fits, np.arange(10) < 5, np.zeros(10, dtype=np.bool_))
    assert found["original", None, "seeds"] == 3
    half = 4.302653 * 0.1 / 3**0.5
    assert found["original", None, "accuracy_mean"] == pytest.approx(0.7)
    assert found["original", None, "accuracy_low"] == pytest.approx(0.7 - half)
    assert found["original", None, "accuracy_high"] == pytest.approx(0.7 + half)
    assert found["original", None, "wilson_low"] == pytest.approx(wilson(0.7, 10).low)
    assert found["original", None, "train_dropped"] == 9
    assert found["overlap", "exact", "images"] == 0
    assert ("overlap", "exact", "accuracy_mean") not in found


def test_two_seeds_on_the_whole_role_have_no_spread_to_measure() -> None:
    fits = [Fit(seed, Cost(2.0, None), np.arange(10) < right) for seed, right in enumerate((6, 9))]
    found = measured(fits, np.ones(10, dtype=np.bool_), np.arange(10) < 3, resampled=True)
    assert found["original", None, "seeds"] == 1
    assert found["original", None, "accuracy_mean"] == 0.6
    assert found["original", None, "accuracy_low"] == wilson(0.6, 10).low


def test_the_loss_is_measured_on_the_parts_of_the_own_sanitizing() -> None:
    kept, losses = np.arange(10) < 4, [np.arange(10) / 10, np.arange(10) / 5]
    fits = [Fit(seed, Cost(2.0, None), kept, loss) for seed, loss in enumerate(losses)]
    rows = list(measure(fits, name_parts(kept, {"exact": kept}), resampled=False, train_dropped=0))
    found = {(row["eval_on"], row["seed"]): row["value"] for row in rows if row["metric"] == "loss"}
    parts = {"original": np.ones(10, np.bool_), "sanitized": kept, "overlap": ~kept}
    assert found == {(name, seed): losses[seed][rows].mean() for name, rows in parts.items() for seed in (0, 1)}
    means = {row["eval_on"]: row["value"] for row in rows if row["metric"] == "loss_mean"}
    assert means == pytest.approx({name: np.mean([loss[rows] for loss in losses]) for name, rows in parts.items()})
    assert {row["rule"] for row in rows if row["metric"].startswith("loss")} == {None}


def test_a_model_without_probabilities_has_no_loss() -> None:
    fit = Fit(0, Cost(1.0, None), np.ones(4, dtype=np.bool_))
    assert not [key for key in measured([fit], np.ones(4, np.bool_), np.zeros(4, np.bool_)) if "loss" in key[2]]


def test_nothing_sanitized_has_no_leak() -> None:
    fit = Fit(0, Cost(1.0, None), np.ones(4, dtype=np.bool_))
    found = measured([fit], np.ones(4, dtype=np.bool_), np.ones(4, dtype=np.bool_))
    assert ("original", "exact", "leak") not in found
    assert found["sanitized", "exact", "images"] == 0


def test_rows_over_all_seeds_tell_what_all_took() -> None:
    fits, kept, seen = drawn(10, 3, 0)
    rows = list(measure(fits, name_parts(kept, {"exact": seen}), resampled=False, train_dropped=0))
    for row in rows:
        took = (0.5, 100 + row["seed"]) if row["metric"] in {"accuracy", "leak"} else (1.5, 102)
        assert (row["seconds"], row["memory"]) == took


def planted(seeds: int, size: int | str, **changes: Any) -> tuple[list[dict[str, Any]], Misclassified]:
    """Learn random labels of random pictures: nothing but having seen a picture helps."""
    rng = np.random.default_rng(1)
    train = rng.integers(0, 256, (300, 400), dtype=np.uint8)
    labels = rng.integers(0, 2, 300)
    copies = rng.permutation(300)[:100]
    test = np.concatenate([train[copies], rng.integers(0, 256, (300, 400), dtype=np.uint8)])
    answers = np.concatenate([labels[copies], rng.integers(0, 2, 300)])
    asked = {"model": "logistic", "split": "main", "train_sizes": [size], "seeds": seeds, "train_on": "original"}
    spec = parse_baseline({**asked, **changes})
    samples = draw_samples(spec, rng.integers(0, 256, (300, 16), dtype=np.uint8))
    parts = name_parts(np.ones(400, dtype=np.bool_), {"exact": np.arange(400) < 100})
    roles = {"test": Examples(test, answers)}
    data = EvalData(Examples(train, labels), roles, {"test": parts}, ("a", "b"), (20, 20, 1))
    scored = score(spec, samples, data)
    assert scored.misses is not None
    return scored.rows, scored.misses


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_planted_leak_is_measured(seeds: int) -> None:
    rows, misses = planted(seeds, "all")
    first = [row for row in rows if (row["role"], row["seed"], row["label"]) == ("test", 0, None)]
    found = {(row["eval_on"], row["rule"], row["metric"]): row["value"] for row in first}
    assert found["overlap", "exact", "accuracy_mean"] == 1
    assert found["sanitized", "exact", "accuracy_mean"] == pytest.approx(0.5, abs=0.09)
    leak, low = (found["original", "exact", f"leak_{end}"] for end in ("mean", "low"))
    assert leak == pytest.approx(0.125, abs=0.03)
    assert low > 0
    # What was missed is what the accuracy of the first seed does not count, and no copy is among it.
    missed = [row for row in first if (row["metric"], row["eval_on"]) == ("accuracy", "original")]
    assert [row["value"] for row in missed] == [(400 - len(misses.rows)) / 400]
    assert misses.rows.min() >= 100
    assert (misses.labels != misses.predicted).all()
    assert misses.probability is not None
    assert misses.probability.min() >= 0.5


def test_equal_seeds_give_equal_rows_and_other_seeds_others() -> None:
    first, second = (
        [{name: value for name, value in row.items() if name not in {"seconds", "memory"}} for row in rows]
        for rows, _ in (planted(3, 100), planted(3, 100))
    )
    assert first == second
    test = [row for row in first if row["role"] == "test"]
    assert {row["seed"] for row in test if row["metric"] == "accuracy"} == {0, 1, 2}
    overlap = [
        row["value"] for row in test if (row["eval_on"], row["metric"], row["rule"]) == ("overlap", "accuracy", "exact")
    ]
    assert len(set(overlap)) > 1


def test_every_role_has_its_loss() -> None:
    rows, _ = planted(1, 100)
    found = {row["role"]: row["value"] for row in rows if (row["metric"], row["eval_on"]) == ("loss_mean", "original")}
    # The labels are random: the model has learnt those of train, and is wrong about test with high probability.
    assert found["train"] < 0.1
    assert found["test"] > np.log(2)


def test_confusion_counts_every_test_image_once() -> None:
    rows, _ = planted(2, 100)
    for role, images in (("test", 400), ("train", 100)):
        cells = [row for row in rows if (row["role"], row["metric"], row["eval_on"]) == (role, "confusion", "original")]
        assert sum(row["value"] for row in cells) == images
        assert {row["label"] for row in cells} <= {"a", "b"}
        (right,) = [
            row["value"]
            for row in rows
            if (row["role"], row["metric"], row["eval_on"], row["rule"], row["seed"])
            == (role, "accuracy", "original", None, 0)
        ]
        assert sum(row["value"] for row in cells if row["label"] == row["predicted"]) == round(right * images)


def test_one_class_against_the_rest_has_folds_and_a_threshold_of_them() -> None:
    rows, misses = planted(1, "all", positive="a", folds=3, precision=0.6)
    assert list(misses.names) == ["not a", "a"]
    told = {(row["role"], row["eval_on"], row["metric"]) for row in rows}
    for metric in ("fold_accuracy", "accuracy", "confusion", "curve_precision", "average_precision"):
        assert ("train", "cross-validated", metric) in told
    folds = [row["value"] for row in rows if row["metric"] == "fold_accuracy"]
    (mean,) = [row["value"] for row in rows if (row["metric"], row["eval_on"]) == ("accuracy", "cross-validated")]
    assert len(folds) == 3
    assert mean == pytest.approx(np.mean(folds))
    # Chosen on the folds, and the same for the test images.
    thresholds = {row["value"] for row in rows if row["metric"] == "threshold"}
    assert len(thresholds) <= 1
    chosen = [row["value"] for row in rows if (row["metric"], row["role"]) == ("precision_at", "train")]
    assert all(value >= 0.6 for value in chosen)


def test_without_test_images_nothing_is_missed() -> None:
    spec = parse_baseline({"model": "logistic", "split": "main"})
    nothing = Examples(np.empty((0, 4), np.uint8), np.empty(0, np.int64))
    data = EvalData(nothing, {"test": nothing}, {"test": name_parts(np.empty(0, np.bool_), {})}, ("a", "b"), (2, 2, 1))
    assert score(spec, [], data) == Scored([], None, [])


def test_a_positive_class_must_be_one_of_the_split() -> None:
    with pytest.raises(ValueError, match="has positive = 'z', but the classes of split 'main' are a, b"):
        planted(1, "all", positive="z")

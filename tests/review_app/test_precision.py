"""Precision by score, and the threshold that follows from decided pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviewing import App

from pipeline.review_app.precision import LEAST, bins_of, propose, wilson
from pipeline.verdicts import journal

TRUE_THRESHOLD = 0.7


def decided(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stored scores from 0.5 to 1, and decided ones; the same with a probability that grows around 0.7."""
    random = np.random.default_rng(seed)
    stored = random.uniform(0.5, 1, 20_000).astype(np.float32)
    scores = random.choice(stored, count, replace=False)
    chance = 1 / (1 + np.exp(-(scores - TRUE_THRESHOLD) * 40))
    return stored, scores, random.random(count) < chance


def test_the_threshold_is_near_the_true_one_and_inside_its_interval() -> None:
    stored, scores, same = decided(400)
    found = propose(stored, scores, same, 0.9)
    chance = 1 / (1 + np.exp(-(np.sort(stored).astype(float) - TRUE_THRESHOLD) * 40))
    mean_above = np.cumsum(chance[::-1])[::-1] / np.arange(len(chance), 0, -1)
    truth = np.sort(stored)[(mean_above >= 0.9).argmax()]
    assert found.boldest is not None
    assert found.threshold is not None
    assert found.surest is not None
    assert found.boldest <= truth <= found.surest
    assert found.boldest <= found.threshold <= found.surest
    assert abs(found.threshold - truth) < 0.04
    assert found.kept == np.count_nonzero(stored >= np.float32(found.threshold))
    assert (np.diff(found.precision) >= -1e-12).all()


def test_the_interval_covers_the_truth_in_most_samples() -> None:
    stored, _, _ = decided(1)
    chance = 1 / (1 + np.exp(-(np.sort(stored).astype(float) - TRUE_THRESHOLD) * 40))
    truth = chance.mean()
    covered = []
    for seed in range(60):
        _, scores, same = decided(100, seed)
        found = propose(stored, scores, same, 0.9)
        covered.append(found.low[0] <= truth <= found.high[0])
    assert np.mean(covered) >= 0.85


def test_a_few_pairs_that_are_all_the_same_prove_little() -> None:
    stored = np.linspace(0.5, 1, 1000, dtype=np.float32)
    scores = stored[::50][:LEAST]
    found = propose(stored, scores, np.ones(len(scores), np.bool_), 0.95)
    assert found.threshold == pytest.approx(0.5)
    assert found.surest is None
    assert found.low[0] < 0.9


def test_pairs_of_high_scores_only_say_little_about_low_ones() -> None:
    stored = np.linspace(0.5, 1, 1000, dtype=np.float32)
    top, spread = stored[-100:], stored[::10]
    same = np.ones(100, np.bool_)
    assert propose(stored, top, same, 0.9).low[0] < 0.5
    assert propose(stored, spread, same, 0.9).low[0] > 0.9


def test_no_threshold_reaches_what_no_pair_does() -> None:
    stored = np.linspace(0.5, 1, 100, dtype=np.float32)
    found = propose(stored, stored[:50], np.zeros(50, np.bool_), 0.95)
    assert (found.threshold, found.surest, found.kept) == (None, None, 0)


@given(st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=LEAST, max_size=80), st.integers(1, 400))
def test_any_decisions_give_an_ordered_answer(rows: list[tuple[int, bool]], more: int) -> None:
    scores = np.array([score / 64 for score, _ in rows], np.float32)
    same = np.array([one for _, one in rows])
    stored = np.concatenate([scores, np.random.default_rng(more).integers(0, 65, more).astype(np.float32) / 64])
    found = propose(stored, scores, same, 0.9)
    assert (found.low <= found.precision + 1e-9).all()
    assert (found.precision <= found.high + 1e-9).all()
    assert sum(one.pairs for one in bins_of(scores, same)) == len(rows)
    again = propose(stored, scores, same, 0.9)
    assert np.array_equal(found.low, again.low)
    assert found.threshold == again.threshold


def test_wilson_interval_of_the_literature() -> None:
    # 81 of 263: Newcombe (1998), Two-sided confidence intervals for the single proportion, table I.
    low, high = wilson(np.array(81 / 263), np.array(263))
    assert (round(float(low), 4), round(float(high), 4)) == (0.2553, 0.3662)


def test_the_page_asks_for_pairs_then_proposes_a_threshold(app: App) -> None:
    assert f"From {LEAST} on" in app.get("/precision?rule=cosine:0.95")
    page = app.get("/queue/pairs?rule=cosine:0.95&order=mixed")
    for number in range(LEAST + 5):
        page = app.press(page, "different" if number % 8 == 0 else "same")
    found = app.get("/precision?rule=cosine:0.95&target=0.8")
    assert "<svg" in found
    assert "80.0 % of the pairs are the same" in found
    assert len(journal.read_verdicts(app.lake.root)) == LEAST + 5
    assert app.client.get("/precision?target=2").status_code == 409
    assert app.client.get("/precision?rule=sign").status_code == 409

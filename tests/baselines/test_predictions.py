"""Metrics of predictions, against scikit-learn and against counting by hand."""

import numpy as np
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix, log_loss, precision_recall_fscore_support

from pipeline.baselines import metrics as confusion
from pipeline.baselines.fit import measure_cost
from pipeline.baselines.metrics import curve_rows, precision_recall, rows_for_precision, threshold_for
from pipeline.baselines.model import Examples, Model, Pixels, Scores
from pipeline.baselines.predict import Predictions, merge_predictions, predict

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)
# Few different scores, so that many are equal; labels 0 and 1.
SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=1, max_size=40)


def said(labels: list[int], predicted: list[int]) -> Predictions:
    return Predictions(np.array(labels), np.array(predicted), np.zeros(len(labels)), np.zeros(len(labels)), None)


def scored(rows: list[tuple[int, int]]) -> Predictions:
    labels, scores = np.array(rows).T
    return Predictions(labels, (scores > 0).astype(np.int64), scores / 2, np.zeros(len(scores)), None)


def linear(pixels: Pixels) -> Scores:
    """Three scores of two pixels; many are equal."""
    left, right = pixels[:, 0].astype(np.float64), pixels[:, 1].astype(np.float64)
    return np.stack([left, right, np.full(len(pixels), 2.0)], axis=1)


def test_blocks_make_no_difference() -> None:
    rng = np.random.default_rng(0)
    pictures = Examples(rng.integers(0, 5, (20_000, 2), dtype=np.uint8), rng.integers(0, 3, 20_000))
    scores = linear(pictures.pixels)
    predictions = predict(Model({}, linear, probable=True), pictures)
    np.testing.assert_array_equal(predictions.predicted, scores.argmax(axis=1))
    np.testing.assert_array_equal(predictions.score, scores[:, 2])
    assert predictions.probability is not None
    np.testing.assert_array_equal(predictions.probability, scores.max(axis=1))
    plain = predict(Model({}, linear, probable=False), pictures)
    assert (plain.probability, plain.loss) == (None, None)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_loss_is_that_of_scikit_learn_also_where_a_class_is_ruled_out(kind: type) -> None:
    rng = np.random.default_rng(3)
    shares: Scores = rng.dirichlet(np.full(4, 0.02), 256).astype(kind)
    shares[:4] = np.eye(4)
    examples = Examples(np.arange(256, dtype=np.uint8).reshape(-1, 1), rng.integers(0, 4, 256))
    predictions = predict(Model({}, lambda pixels: shares[pixels[:, 0]], probable=True), examples)
    assert predictions.loss is not None
    assert predictions.loss.mean() == pytest.approx(log_loss(examples.labels, shares, labels=range(4)), rel=1e-6)
    ruled_out = shares[np.arange(256), examples.labels] == 0
    assert ruled_out.any()
    assert predictions.loss[ruled_out] == pytest.approx(-np.log(np.finfo(kind).eps))


def test_no_images_have_no_predictions() -> None:
    predictions = predict(Model({}, linear, probable=True), Examples(np.empty((0, 2), np.uint8), np.empty(0, np.int64)))
    assert [len(predictions.labels), len(predictions.predicted), len(predictions.correct)] == [0, 0, 0]


@given(st.permutations(range(12)), st.lists(st.integers(0, 12), max_size=3), st.booleans())
def test_parts_are_merged_in_the_order_of_the_whole(order: list[int], cuts: list[int], probable: bool) -> None:  # noqa: FBT001 - hypothesis hands it in
    of_class = (np.arange(12) / 12, np.arange(12) / 5) if probable else (None, None)
    whole = Predictions(np.arange(12), np.arange(12) * 2, np.arange(12) / 3, np.arange(12) / 7, *of_class)
    parts = [part.astype(np.int64) for part in np.split(np.array(order), sorted(cuts))]
    found = merge_predictions([(part, whole.take(part)) for part in parts])
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_array_equal(one, other)


@few(40)
@given(PAIRS)
def test_confusion_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = map(list, zip(*pairs, strict=True))
    names = list("abcde")
    rows = list(confusion.confusion_rows(said(labels, predicted), names))
    found = {(row["metric"], row["label"], row["predicted"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    for (true, answer), count in np.ndenumerate(confusion_matrix(labels, predicted, labels=range(5))):
        assert found.get(("confusion", names[true], names[answer]), 0) == count
        assert count or ("confusion", names[true], names[answer]) not in found
    by_class = precision_recall_fscore_support(labels, predicted, labels=range(5), zero_division=0)
    means = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    met = sorted({*labels, *predicted})
    for metric, values, mean in zip(("precision", "recall", "f1", "support"), by_class, means, strict=True):
        expected = {(metric, names[place], None): values[place] for place in met}
        if metric != "support":
            expected[metric, None, None] = mean
        assert {key: value for key, value in found.items() if key[0] == metric} == pytest.approx(expected)


def brute(predictions: Predictions) -> list[tuple[float, float, float]]:
    """Every threshold that occurs, ascending, with the precision and recall of what reaches it."""
    found = []
    for threshold in sorted(set(predictions.score.tolist())):
        reached = [
            label for label, score in zip(predictions.labels, predictions.score, strict=True) if score >= threshold
        ]
        found.append((threshold, sum(reached) / len(reached), sum(reached) / predictions.labels.sum()))
    return found


@few(50)
@given(SCORED.filter(lambda rows: any(label for label, _ in rows)))
def test_the_curve_has_every_threshold(rows: list[tuple[int, int]]) -> None:
    predictions = scored(rows)
    curve = precision_recall(predictions)
    assert curve is not None
    found = list(zip(curve.threshold, curve.precision, curve.recall, strict=True))
    assert found == [pytest.approx(point) for point in brute(predictions)]
    assert curve.average == pytest.approx(average_precision_score(predictions.labels, predictions.score))


@few(50)
@given(SCORED.filter(lambda rows: any(label for label, _ in rows)), st.floats(0.01, 0.99))
def test_the_threshold_for_a_precision_is_the_lowest(rows: list[tuple[int, int]], precision: float) -> None:
    predictions = scored(rows)
    curve = precision_recall(predictions)
    assert curve is not None
    place = threshold_for(curve, precision)
    enough = [point for point in brute(predictions) if point[1] >= precision]
    assert (place is None) == (not enough)
    told = {row["metric"]: row for row in rows_for_precision(predictions, predictions, "b", precision)}
    if place is None:
        assert told == {}
        return
    assert (curve.threshold[place], curve.precision[place], curve.recall[place]) == pytest.approx(enough[0])
    values = [told[metric]["value"] for metric in ("threshold", "precision_at", "recall_at")]
    assert values == pytest.approx(enough[0])
    assert {(row["label"], row["point"]) for row in told.values()} == {("b", precision)}


def test_a_threshold_is_measured_on_images_that_it_was_not_chosen_on() -> None:
    chosen_on = scored([(0, -2), (1, 2), (1, 4)])
    applied_to = scored([(0, 3), (1, 4), (1, 0), (0, -4)])
    values = {row["metric"]: row["value"] for row in rows_for_precision(chosen_on, applied_to, "b", 0.9)}
    assert values == {"threshold": 1.0, "precision_at": 0.5, "recall_at": 0.5}


@few(50)
@given(SCORED.filter(lambda rows: any(label for label, _ in rows)))
def test_a_drawn_curve_is_part_of_the_whole_one(rows: list[tuple[int, int]]) -> None:
    predictions = scored(rows)
    drawn = list(curve_rows(predictions, "b"))
    points = [
        (one["point"], one["value"], other["value"]) for one, other in zip(drawn[:-1:2], drawn[1:-1:2], strict=True)
    ]
    assert {row["metric"] for row in drawn} == {"curve_precision", "curve_recall", "average_precision"}
    whole = brute(predictions)
    assert all(point in [pytest.approx(one) for one in whole] for point in points)
    # From all images to the fewest; the highest threshold may reach none of the class.
    assert max(recall for *_, recall in points) == 1
    assert min(recall for *_, recall in points) == min(recall for *_, recall in whole)


def test_a_long_curve_is_thinned_out_evenly_over_recall() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5000)
    predictions = Predictions(labels, labels, labels + rng.normal(size=5000), np.zeros(5000), None)
    recall = [row["value"] for row in curve_rows(predictions, "b") if row["metric"] == "curve_recall"]
    assert 95 <= len(recall) <= 100
    assert np.abs(np.diff(recall)).max() < 0.02


def test_no_image_of_the_class_has_no_curve() -> None:
    nothing = scored([(0, 1), (0, 2)])
    assert precision_recall(nothing) is None
    assert list(curve_rows(nothing, "b")) == []
    assert list(rows_for_precision(nothing, nothing, "b", 0.9)) == []


def test_the_cost_has_seconds_and_memory() -> None:
    made, cost = measure_cost(lambda: np.ones(2**23).sum())
    assert made == 2**23
    assert cost.seconds > 0
    assert cost.memory is None or cost.memory > 2**26

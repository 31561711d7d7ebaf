"""Read a split and the scores of a model from a lake, as the arrays and single numbers that plain scripts have."""

import io
import json
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from pipeline.dedup.clusters import overlap_matrix
from pipeline.lake_handle import Lake
from pipeline.recipe import BaselinePart, parse_baseline

# Both sides divide the same whole numbers.
EXACT = 1e-12


class Role(NamedTuple):
    """All images of a role, in the order of the split."""

    ids: list[bytes]
    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]
    kept: NDArray[np.bool_]


def role_of(lake: Lake, role: str, split: str = "main") -> Role:
    rows = lake.members(split, role, sanitized=False)
    pictures, labels = lake.arrays(split, role, sanitized=False)
    return Role(rows["image_id"].to_list(), pictures, labels, rows["kept"].to_numpy())


def roles_of(lake: Lake) -> dict[str, Role]:
    return {name: role_of(lake, name) for name in ("train", "valid", "test")}


def overlap_of(lake: Lake) -> dict[tuple[str, str, str], int]:
    """Count by rule, role and other role, as the report and `imagelake overlap` do."""
    members = lake.scan("splits").filter(split_name="main").select("image_id", "role")
    return {row[:3]: row[3] for row in overlap_matrix(lake.scan("clusters"), members).rows()}


def dropped_of(lake: Lake) -> dict[tuple[str, str, str], int]:
    """Count by role, rule and reason the rows that were dropped."""
    dropped = lake.scan("splits").filter(~pl.col("kept"), split_name="main")
    return {row[:3]: row[3] for row in dropped.group_by("role", "dropped_by", "reason").len().collect().rows()}


class Run(NamedTuple):
    """The scores of a model that was trained once at every size."""

    rows: pl.DataFrame
    stored: pl.DataFrame
    misses: pl.DataFrame
    names: list[str]

    def column(self, metric: str, column: str = "value", **where: Any) -> list[float]:
        """Return a column of the rows of a metric, ordered by `point`; keys that are not named are null."""
        nulls = [pl.col(name).is_null() for name in ("rule", "label", "predicted") if where.get(name) is None]
        equal = [pl.col(name) == value for name, value in where.items() if value is not None]
        found = self.rows.filter(pl.col("metric") == metric, *nulls, *equal).sort("point")
        return found[column].to_list()

    def value(self, metric: str, **where: Any) -> float:
        (only,) = self.column(metric, **where)
        return only

    @property
    def part(self) -> BaselinePart:
        return parse_baseline(json.loads(self.rows["settings"][0]))

    def weights(self, size: int) -> dict[str, NDArray[Any]]:
        """Return the fitted numbers of the model of a train size."""
        row = self.stored.row(by_predicate=pl.col("train_size") == size, named=True)
        with np.load(io.BytesIO(row["weights"]), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


def run_of(lake: Lake, model: str) -> Run:
    rows, stored, misses = (
        lake.scan(name).filter(model=model, split_name="main").collect() for name in ("scores", "models", "misses")
    )
    return Run(rows, stored, misses, stored["classes"][0].to_list())


def check_scores(
    run: Run,
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.floating] | None = None,
    /,
    **where: Any,
) -> None:
    """Compare with a plain script's predictions of the same images: number, accuracy, confusion, rates and loss.

    Args:
        run: what imagelake says.
        labels: (n,) true classes.
        predicted: (n,) the script's predictions.
        probabilities: (n, classes), for the loss. It is of float32 sums, so it is compared to 5 digits.
        where: train_size, role, eval_on, and rule if it is not the split's own. By such a rule there is no confusion.
    """
    if where["eval_on"] != "cross-validated":
        assert run.value("images", **where) == len(labels)
    if not len(labels):
        return
    assert run.value("accuracy", **where) == pytest.approx(accuracy_score(labels, predicted), abs=EXACT)
    if probabilities is not None:
        numbers = range(len(run.names))
        expected = log_loss(labels, probabilities, labels=list(numbers))
        assert run.value("loss", **where) == pytest.approx(expected, rel=1e-5)
    if where.get("rule") is None:
        _check_confusion(run, labels, predicted, where)


def _check_confusion(run: Run, labels: NDArray[np.int64], predicted: NDArray[np.int64], where: dict[str, Any]) -> None:
    numbers = list(range(len(run.names)))
    named = run.rows.filter(pl.col("label").is_not_null(), **where)
    cells = {row[:2]: row[2] for row in named.filter(metric="confusion").select("label", "predicted", "value").rows()}
    found = [[cells.get((true, said), 0) for said in run.names] for true in run.names]
    np.testing.assert_array_equal(found, confusion_matrix(labels, predicted, labels=numbers))
    occurring = sorted({*labels.tolist(), *predicted.tolist()})
    for average, classes in ((None, [run.names[number] for number in occurring]), ("macro", [None])):
        rates = precision_recall_fscore_support(labels, predicted, labels=occurring, average=average, zero_division=0)
        for metric, values in zip(("precision", "recall", "f1", "support"), rates, strict=True):
            if values is None:  # the support of an average
                continue
            for name, value in zip(classes, np.atleast_1d(values), strict=True):
                assert run.value(metric, label=name, **where) == pytest.approx(value, abs=EXACT), (metric, name)


def check_misses(run: Run, role: Role, predicted: NDArray[np.int64]) -> None:
    """Compare the misclassified images of the largest model with a plain script's predictions of the test role."""
    wrong = np.flatnonzero(predicted != role.labels)
    names = np.array(run.names)
    assert run.misses["image_id"].to_list() == [role.ids[row] for row in wrong]
    assert run.misses["predicted"].to_list() == names[predicted[wrong]].tolist()
    assert run.misses["label"].to_list() == names[role.labels[wrong]].tolist()
    assert run.misses["kept"].to_list() == role.kept[wrong].tolist()


def check_parts(
    run: Run,
    images: Role,
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.floating] | None = None,
    /,
    **where: Any,
) -> None:
    """Compare all of a role, and what the split's own sanitizing keeps and drops of it."""
    parts = {"original": np.ones(len(images.kept), np.bool_), "sanitized": images.kept, "overlap": ~images.kept}
    for eval_on, rows in parts.items():
        of_part = None if probabilities is None else probabilities[rows]
        check_scores(run, images.labels[rows], predicted[rows], of_part, eval_on=eval_on, **where)

"""Details of a run beyond accuracy: classes, epochs, folds, thresholds, time and memory."""

import json
from itertools import pairwise
from typing import Any

import pytest
from scored import accuracy, confusion, curve, row, table

from pipeline.report.accuracy import accuracy_curves, compare_models
from pipeline.report.charts import threshold_chart, training_chart
from pipeline.report.runs import MOST_CLASSES, MOST_EPOCHS, PAIRS, describe_runs

Rows = list[dict[str, Any]]


def describe(rows: Rows, seed: int = 0) -> list[dict[str, Any]]:
    scores = table("scores", rows).sample(fraction=1, shuffle=True, seed=seed).lazy()
    return describe_runs(scores, accuracy_curves(scores))


COUNTS = {("a", "a"): 3, ("a", "b"): 1, ("b", "b"): 2, ("c", "a"): 2}


def test_classes_stand_in_a_matrix_with_what_they_are_in_rows() -> None:
    (run,) = describe(accuracy() + confusion(COUNTS))
    found = run["confusion"]
    assert (run["seed"], run["images"], run["detailed"], run["train_size"]) == (5, 8, True, 100)
    assert (found["classes"], found["images"], found["wrong"]) == (3, 8, 3)
    assert (found["names"], found["cells"]) == (["a", "b", "c"], [[3, 1, 0], [0, 2, 0], [2, 0, 0]])
    assert [(rate["label"], rate["f1"], rate["support"]) for rate in found["rates"]] == [
        ("a", 0.0, 4),
        ("b", 0.1, 2),
        ("c", 0.2, 2),
    ]
    assert found["mean"] == {"precision": 0.3, "recall": 0.3, "f1": 0.3}
    assert found["pairs"] == [
        {"label": "c", "predicted": "a", "images": 2, "share": 1.0},
        {"label": "a", "predicted": "b", "images": 1, "share": 0.25},
    ]


def test_too_many_classes_become_the_pairs_that_are_mistaken_most() -> None:
    count = 1000
    counts = {(f"{n:04}", f"{n:04}"): 9 for n in range(count)}
    counts |= {(f"{n:04}", f"{(n + 1) % count:04}"): 1 + (n == 500) for n in range(count)}
    (run,) = describe(accuracy() + confusion(counts))
    found = run["confusion"]
    assert (found["classes"], found["names"], found["cells"], found["pairs_total"]) == (
        count,
        [],
        [],
        count,
    )
    assert len(found["pairs"]) == PAIRS
    assert [(pair["label"], pair["images"]) for pair in found["pairs"][:3]] == [
        ("0500", 2),
        ("0000", 1),
        ("0001", 1),
    ]
    assert len(found["rates"]) == MOST_CLASSES
    assert [rate["label"] for rate in found["rates"][:3]] == ["0000", "0010", "0020"]


def test_only_the_first_fit_of_the_largest_size_and_the_whole_test_role_are_told_by_class() -> None:
    other = {("a", "b"): 99}
    rows = accuracy() + confusion(COUNTS) + accuracy(train_size=10) + confusion(other, train_size=10)
    for elsewhere in ({"eval_on": "sanitized"}, {"role": "valid"}, {"role": "train"}):
        rows += confusion(other, **elsewhere)
    rows += [row("accuracy", 0.7, seed=1)]
    (run,) = describe(rows)
    assert (run["confusion"]["images"], run["seed"]) == (8, 5)


def test_an_older_lake_has_no_details() -> None:
    blank = dict.fromkeys(("role", "memory"))
    (run,) = describe([{**one, **blank} for one in accuracy()])
    assert (run["detailed"], run["confusion"], run["folds"], run["epochs"], run["thresholds"]) == (
        False,
        None,
        None,
        [],
        None,
    )


def test_runs_stand_as_their_curves_do() -> None:
    rows = accuracy(release=1) + accuracy(release=2, run_id="9") + accuracy(model="dense", run_id="8")
    assert [(run["model"], run["release"]) for run in describe(rows)] == [
        ("dense", 4),
        ("logistic", 2),
        ("logistic", 1),
    ]


def test_epochs_are_those_of_the_first_seed() -> None:
    rows = accuracy()
    for seed, more in ((5, 0.0), (6, 1.0)):
        rows += [row("epoch_loss", more + 1 / n, role="train", point=n, seed=seed) for n in (1, 2, 10)]
        rows += [row("epoch_accuracy", 0.5, role="valid", eval_on="sanitized", point=n, seed=seed) for n in (1, 2)]
        rows += [row("epoch_loss", 3.0, role="valid", eval_on="sanitized", point=2, seed=seed)]
        rows += [row("epoch_accuracy", 0.25, role="train", point=n, seed=seed) for n in (2, 10)]
    (run,) = describe(rows)
    assert run["epochs"] == [
        {"epoch": 1, "loss": 1.0, "accuracy": None, "valid_loss": None, "valid_accuracy": 0.5},
        {"epoch": 2, "loss": 0.5, "accuracy": 0.25, "valid_loss": 3.0, "valid_accuracy": 0.5},
        {"epoch": 10, "loss": 0.1, "accuracy": 0.25, "valid_loss": None, "valid_accuracy": None},
    ]
    assert run["listed"] == run["epochs"]
    svg = training_chart(run)
    assert all(f">{text}<" in svg for text in ("accuracy", "loss, nats", "train", "valid"))


@pytest.mark.parametrize("count", [100, 101, 250])
def test_of_many_epochs_some_are_listed_and_the_last_always(count: int) -> None:
    (run,) = describe(accuracy() + [row("epoch_loss", 1 / n, role="train", point=n) for n in range(1, count + 1)])
    listed = [epoch["epoch"] for epoch in run["listed"]]
    assert len(run["epochs"]) == count
    assert len(listed) <= MOST_EPOCHS
    assert listed[-1] == count
    assert len({later - earlier for earlier, later in pairwise(listed)}) == 1


def test_without_a_valid_role_the_loss_is_drawn_alone() -> None:
    (run,) = describe(accuracy() + [row("epoch_loss", 1 / n, role="train", point=n) for n in (1, 2)])
    svg = training_chart(run)
    assert ">loss, nats<" in svg
    assert ">train<" in svg
    assert ">valid<" not in svg
    assert ">accuracy<" not in svg


def test_folds_are_described_with_their_confusion() -> None:
    where = {"role": "train", "eval_on": "cross-validated"}
    rows = accuracy() + confusion(COUNTS) + confusion({("a", "a"): 6}, **where)
    rows += [row("fold_accuracy", 0.5 + n / 10, point=n, **where) for n in (1, 2, 3)] + [row("accuracy", 0.7, **where)]
    (run,) = describe(rows)
    folds = run["folds"]
    assert folds["accuracies"] == [{"fold": n, "accuracy": pytest.approx(0.5 + n / 10)} for n in (1, 2, 3)]
    assert (folds["mean"], folds["confusion"]["images"], run["confusion"]["images"]) == (0.7, 6, 8)


def test_thresholds_are_described_place_by_place() -> None:
    folds: dict[str, Any] = {"role": "train", "eval_on": "cross-validated"}
    (run,) = describe(accuracy() + curve(0.8) + curve(0.7, role="valid") + curve(0.6, **folds))
    thresholds = run["thresholds"]
    assert thresholds["label"] == "5"
    assert [(one["place"], one["average_precision"]) for one in thresholds["curves"]] == [
        ("cross-validated", 0.6),
        ("valid", 0.7),
        ("test", 0.8),
    ]
    assert [point["threshold"] for point in thresholds["curves"][0]["points"]] == [-2.0, 1.0, 3.0]
    (wanted,) = thresholds["wanted"]
    assert (wanted["precision"], wanted["threshold"], wanted["chosen_on"]) == (0.9, 3.0, "cross-validated")
    assert [(one["place"], one["precision"], one["recall"]) for one in wanted["places"]][-1] == ("test", 0.8, 0.4)
    for label in ("train, cross-validated", "valid", "test"):
        assert label in threshold_chart(run)


def test_without_folds_the_threshold_was_chosen_on_valid() -> None:
    (run,) = describe(accuracy() + curve(0.8) + curve(0.7, role="valid"))
    assert [one["chosen_on"] for one in run["thresholds"]["wanted"]] == ["valid"]


def test_a_precision_that_is_never_reached_leaves_the_curve() -> None:
    (run,) = describe(accuracy() + curve(0.8, wanted=None))
    assert run["thresholds"]["wanted"] == []
    assert threshold_chart(run).startswith("<svg")


def test_order_of_rows_does_not_matter() -> None:
    rows = (
        accuracy() + confusion(COUNTS) + curve(0.8) + [row("epoch_loss", 1 / n, role="train", point=n) for n in (1, 2)]
    )
    assert describe(rows, seed=1) == describe(rows, seed=2) == describe(rows, seed=3)


def test_a_point_has_all_roles_and_what_its_fits_took() -> None:
    rows = accuracy() + accuracy(0.9, role="train") + accuracy(0.8, role="valid")
    rows += [row("accuracy", 0.7, seed=6, seconds=4.0, memory=2**22), row("accuracy", 0.1, eval_on="cross-validated")]
    rows += [row("chosen_c", value, role="train", seed=seed) for seed, value in ((5, 0.5), (6, 0.25))]
    ((point,),) = (one["points"] for one in accuracy_curves(table("scores", rows).lazy()))
    assert (point["train"], point["valid"], point["original"], point["sanitized"]) == (0.9, 0.8, 0.75, None)
    assert (point["seconds"], point["memory"], point["chosen"]) == (3.0, 2**22, {"c": [0.25, 0.5]})


def test_a_point_has_the_losses_of_all_roles() -> None:
    rows = [*accuracy(), row("loss_mean", 0.5), row("loss_mean", 0.25, role="train")]
    rows += [row("loss_mean", 0.75, eval_on="sanitized"), row("loss", 9.0)]
    ((point,),) = (one["points"] for one in accuracy_curves(table("scores", rows).lazy()))
    expected = {"train": 0.25, "valid": None, "original": 0.5, "sanitized": 0.75, "overlap": None}
    assert point["losses"] == expected


def test_without_a_test_role_a_run_is_described_by_the_others() -> None:
    rows = accuracy(0.9, role="train") + accuracy(0.8, role="valid")
    ((curve,), (run,)) = (accuracy_curves(table("scores", rows).lazy()), describe(rows))
    (point,) = curve["points"]
    assert (point["train"], point["valid"], point["original"], point["seconds"]) == (0.9, 0.8, None, 2.0)
    assert (curve["leakage"], run["detailed"], run["confusion"]) == ([], False, None)


def models(*runs: tuple[str, str, float, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Compare models of (model, split, accuracy, settings)."""
    rows: Rows = []
    for number, (model, split, value, settings) in enumerate(runs):
        where = {"model": model, "split_name": split, "run_id": str(number), "settings": json.dumps(settings)}
        rows += accuracy(value, **where) + accuracy(value, eval_on="sanitized", **where)
    found = compare_models(accuracy_curves(table("scores", rows).lazy()))
    return [(one["model"], one["split_name"], one["positive"], one["sanitized"], one["best"]) for one in found]


def test_models_of_the_same_images_and_classes_stand_together_the_best_first() -> None:
    five = {"positive": "5"}
    found = models(
        ("logistic", "main", 0.8, {}),
        ("dense", "main", 0.9, {}),
        ("never", "main", 0.99, five),
        ("sgd-binary", "main", 0.95, five),
        ("logistic", "other", 1.0, {}),
    )
    assert found == [
        ("dense", "main", None, 0.9, True),
        ("logistic", "main", None, 0.8, False),
        ("never", "main", "5", 0.99, False),
        ("sgd-binary", "main", "5", 0.95, True),
        ("logistic", "other", None, 1.0, False),
    ]


def test_a_model_of_an_unknown_version_is_compared_too() -> None:
    assert models(("transformer", "main", 0.5, {}), ("never", "main", 0.9, {"positive": "5"})) == [
        ("transformer", "main", None, 0.5, False),
        ("never", "main", "5", 0.9, False),
    ]

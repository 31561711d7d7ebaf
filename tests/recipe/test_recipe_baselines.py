"""Parts of baselines are stored in lakes: a dump that changes would train every model of every lake again."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.recipe import BaselinePart, parse_baseline, parse_recipe
from pipeline.recipe.baselines import PARTS, dump_for_digest

COMMON = '"split": "main", "train_sizes": ["all"], "seed": 0, "seeds": 1, "train_on": "sanitized"'
# Written by version 0.6.0, whose parts had the settings of all models.
DUMPS: list[tuple[dict[str, Any], str]] = [
    ({"model": "logistic"}, f'{{"model": "logistic", {COMMON}, "c": 1.0, "max_iter": 100}}'),
    (
        {
            "model": "logistic",
            "c": 0.5,
            "positive": "5",
            "precision": 0.9,
            "folds": 3,
            "train_sizes": [10, "all"],
            "seed": 4,
            "seeds": 2,
            "train_on": "original",
        },
        (
            '{"model": "logistic", "split": "main", "train_sizes": [10, "all"], "seed": 4, "seeds": 2, '
            '"train_on": "original", "positive": "5", "folds": 3, "precision": 0.9, "c": 0.5, "max_iter": 100}'
        ),
    ),
    (
        {"model": "softmax-sgd"},
        f'{{"model": "softmax-sgd", {COMMON}, "epochs": 20, "batch_size": 128, "learning_rate": 0.1}}',
    ),
    (
        {"model": "softmax-sgd", "patience": 2, "learning_rate": 1},
        f'{{"model": "softmax-sgd", {COMMON}, "epochs": 20, "batch_size": 128, "learning_rate": 1.0, "patience": 2}}',
    ),
    (
        {"model": "sgd-binary", "positive": "5"},
        f'{{"model": "sgd-binary", {COMMON}, "positive": "5", "alpha": 0.0001, "max_iter": 1000}}',
    ),
    ({"model": "never", "positive": "5"}, f'{{"model": "never", {COMMON}, "positive": "5"}}'),
    ({"model": "svm-linear"}, f'{{"model": "svm-linear", {COMMON}, "candidates": 20, "search_size": 2000}}'),
    ({"model": "svm-linear", "c": 1}, f'{{"model": "svm-linear", {COMMON}, "c": 1.0}}'),
    (
        {"model": "svm-linear", "candidates": 3},
        f'{{"model": "svm-linear", {COMMON}, "candidates": 3, "search_size": 2000}}',
    ),
    (
        {"model": "svm-linear", "search_size": "all"},
        f'{{"model": "svm-linear", {COMMON}, "candidates": 20, "search_size": "all"}}',
    ),
    (
        {"model": "dense"},
        f'{{"model": "dense", {COMMON}, "epochs": 30, "batch_size": 512, "learning_rate": 0.001, "hidden": 400}}',
    ),
    (
        {"model": "dense", "hidden": 10},
        f'{{"model": "dense", {COMMON}, "epochs": 30, "batch_size": 512, "learning_rate": 0.001, "hidden": 10}}',
    ),
    (
        {"model": "lenet", "patience": 1},
        f'{{"model": "lenet", {COMMON}, "epochs": 8, "batch_size": 128, "learning_rate": 0.001, "patience": 1}}',
    ),
]


# Keys of version 0.6.0, and what they are called in a dump if they do not have their default.
LATER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"model": "logistic"}, {"replacement": True}),
    ({"model": "svm-linear"}, {"c_values": [0.5, 2.0]}),
    ({"model": "svm-linear"}, {"c_range": [0.5, 2.0], "break_ties": False}),
    ({"model": "svm-linear", "c": 1.0}, {"break_ties": False}),
    ({"model": "lenet"}, {"padding": 0}),
]


def dump(part: BaselinePart) -> str:
    """Dump a part as builds do for fingerprints and the table of scores."""
    return json.dumps(part.run_settings)


@pytest.mark.parametrize(("values", "expected"), DUMPS)
def test_dumps_are_golden_and_read_back(values: dict[str, Any], expected: str) -> None:
    part = parse_baseline({**values, "split": "main"})
    assert dump(part) == expected
    back = parse_baseline(json.loads(expected))
    assert back == part
    assert dump(back) == expected


@pytest.mark.parametrize(("values", "later"), LATER)
def test_later_keys_are_dumped_only_if_they_are_set(values: dict[str, Any], later: dict[str, Any]) -> None:
    plain, part = (parse_baseline({**values, **more, "split": "main"}) for more in ({}, later))
    dumped = json.loads(dump(part))
    assert {key: value for key, value in dumped.items() if key not in later} == json.loads(dump(plain))
    assert {key: dumped[key] for key in later} == later
    assert parse_baseline(dumped) == part
    assert part.run_settings == dumped
    assert dump_for_digest(part) == {**dump_for_digest(plain), **later}


def test_later_keys_at_their_default_change_no_digest() -> None:
    for values, later in LATER:
        part = parse_baseline({**values, "split": "main"})
        same = parse_baseline({**values, "split": "main", **{key: part.later[key] for key in later}})
        assert dump_for_digest(same) == dump_for_digest(part)
        assert not set(dump_for_digest(part)) & set(later)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "svm-linear", "c": 1, "c_values": [1]}, "take c_values out, or c"),
        ({"model": "svm-linear", "c": 1, "c_range": [1, 2]}, "take c_range out, or c"),
        ({"model": "svm-linear", "c_values": [1], "c_range": [1, 2]}, "exclude one another"),
        ({"model": "svm-linear", "c_range": [2, 2]}, r"c_range = \[2.0, 2.0\] is empty"),
        ({"model": "svm-linear", "c_values": []}, "at least 1 item"),
        ({"model": "svm-linear", "c_values": [0]}, "greater than 0"),
        ({"model": "svm-linear", "break_ties": 0}, "valid boolean"),
        ({"model": "lenet", "padding": 5}, "less than or equal to 4"),
        ({"model": "dense", "padding": 0}, "'dense' has no setting 'padding'"),
        ({"model": "logistic", "replacement": True, "folds": 3}, "copies of an image would be in several folds"),
    ],
)
def test_wrong_settings_are_errors_that_say_what_to_change(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_baseline({**values, "split": "main"})


def test_every_model_has_a_golden_dump() -> None:
    assert {values["model"] for values, _ in DUMPS} == set(PARTS)


def test_the_digest_of_a_recipe_is_golden() -> None:
    roles = {"train": {}, "valid": {"size": 3}, "test": {"size": 5}}
    split = {"name": "main", **{role: {"from": "train", **part} for role, part in roles.items()}}
    values: dict[str, Any] = {"source": [{"uri": "a", "dataset": "d", "split": "train"}], "split": [split]}
    assert parse_recipe(values, base=Path("/x")).digest == "ee2e9545abc6a679aa78da821091054f"
    baselines = [{**one, "split": "main"} for one, _ in DUMPS]
    assert parse_recipe({**values, "baseline": baselines}, base=Path("/x")).digest == "a7c48742dbe85518ad886a6e5aca7897"

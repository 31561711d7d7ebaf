"""`notmnist_sign.toml` against the assignment's own logic: MD5, the dense ratio, logistic regression by train size."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from lake_rows import Role, check_misses, check_parts, check_scores, overlap_of, roles_of, run_of
from making import needs_data
from notebook import seen_by_md5, seen_by_ratio
from plain import Mask, doubled, fit_logistic, max_pooled, scaled
from recipe_files import built, load_for_letters

from pipeline.dedup.rules import sign
from pipeline.engines.local import HERE
from pipeline.lake_handle import Lake

SIZES = [50, 100, 1000]
RULES = ("exact", "maxpool:4", "sign")
# By rule, role and other role: which images of the role occur in the other.
Seen = dict[tuple[str, str, str], Mask]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    values = load_for_letters("notmnist_sign", train=2_000, valid=300, test=2_500)
    values["baseline"][0]["train_sizes"] = SIZES
    return built(values, tmp_path_factory.mktemp("sign"), HERE)


@pytest.fixture(scope="module")
def roles(lake: Lake) -> dict[str, Role]:
    return roles_of(lake)


@pytest.fixture(scope="module")
def seen(roles: dict[str, Role]) -> Seen:
    """The overlap by the notebooks' formulas; the dense one in whole numbers, so that nothing is rounded."""
    found: Seen = {}
    for role, other in permutations(roles, 2):
        left, right = roles[role].pictures, roles[other].pictures
        found["exact", role, other] = seen_by_md5(left, right)
        found["maxpool:4", role, other] = seen_by_md5(max_pooled(left), max_pooled(right))
        found["sign", role, other] = seen_by_ratio(doubled(left), doubled(right))
    return found


@pytest.mark.slow
@needs_data
def test_as_many_images_overlap_by_every_rule(lake: Lake, seen: Seen) -> None:
    found = overlap_of(lake)
    assert {key: found.get(key, 0) for key in seen} == {key: mask.sum() for key, mask in seen.items()}


@needs_data
def test_the_same_rows_are_kept(roles: dict[str, Role], seen: Seen) -> None:
    """Valid loses what is in train, and test what is in train or valid."""
    assert roles["train"].kept.all()
    np.testing.assert_array_equal(roles["valid"].kept, ~seen["sign", "valid", "train"])
    np.testing.assert_array_equal(roles["test"].kept, ~(seen["sign", "test", "train"] | seen["sign", "test", "valid"]))
    assert 0 < (~roles["test"].kept).sum() < 300


@needs_data
@pytest.mark.parametrize("size", SIZES)
def test_logistic_regression_scores_as_scikit_learn(lake: Lake, roles: dict[str, Role], seen: Seen, size: int) -> None:
    run, train, test = run_of(lake, "logistic"), roles["train"], roles["test"]
    inputs = scaled(train.pictures[:size])
    model = fit_logistic(inputs, train.labels[:size])
    where: dict[str, Any] = {"train_size": size, "role": "train", "eval_on": "original"}
    check_scores(run, train.labels[:size], model.predict(inputs), model.predict_proba(inputs), **where)
    for name in ("valid", "test"):
        inputs = scaled(roles[name].pictures)
        check_parts(run, roles[name], model.predict(inputs), model.predict_proba(inputs), role=name, train_size=size)
    predicted = model.predict(scaled(test.pictures))
    for rule in RULES:
        overlap = seen[rule, "test", "train"]
        for eval_on, rows in (("overlap", overlap), ("sanitized", ~overlap)):
            part = {"train_size": size, "role": "test", "eval_on": eval_on, "rule": rule}
            check_scores(run, test.labels[rows], predicted[rows], **part)
    if size == max(SIZES):
        check_misses(run, test, predicted)


@needs_data
def test_on_letters_the_ratio_in_float32_finds_all_that_the_exact_one_finds(roles: dict[str, Role], seen: Seen) -> None:
    """If all pixels agree in sign, both sums are of the same products: rounding cannot make the two sums differ."""
    test, train = (scaled(roles[name].pictures).reshape(-1, 28, 28) for name in ("test", "train"))
    assert (seen_by_ratio(test, train) >= seen["sign", "test", "train"]).all()


def test_the_ratio_in_float32_also_finds_saturated_pictures_that_differ_in_one_pixel() -> None:
    """127 instead of 128 changes the ratio by 4e-8, less than float32 resolves. Exact arithmetic and the rule do."""
    first = np.random.default_rng(0).integers(0, 2, (20, 28, 28), dtype=np.uint8) * 255
    second = first.copy()
    first[:, 14, 14], second[:, 14, 14] = 127, 128
    single = seen_by_ratio(scaled(first).reshape(-1, 28, 28), scaled(second).reshape(-1, 28, 28))
    assert single.any()
    assert not seen_by_ratio(doubled(first), doubled(second)).any()
    keys = [sign.rule(None)(pictures[..., None]) for pictures in (first, second)]
    assert (keys[0] != keys[1]).any(axis=1).all()

"""`notmnist_maxpool_within.toml` against the notebook's own logic: keys of 4 x 4 maxima, unique rows, a random sample.

The notebook draws its training rows with numpy; here they are the ones that imagelake drew.
"""

from typing import Any

import numpy as np
import pytest
from lake_rows import Role, Run, check_misses, check_parts, check_scores, dropped_of, overlap_of, roles_of, run_of
from making import needs_data
from notebook import seen_by_md5
from plain import Labels, Mask, Pictures, fit_logistic, max_pooled, scaled
from recipe_files import built, load_for_letters

from pipeline.baselines.eval_data import draw_samples
from pipeline.engines.local import HERE
from pipeline.lake_handle import Lake

pytestmark = [needs_data, pytest.mark.slow]

SIZES = [50, 100, 1000]


def first_of_each(pictures: Pictures) -> Mask:
    """Tell which pictures have a key that no earlier one has."""
    _, first = np.unique(max_pooled(pictures).reshape(len(pictures), -1), axis=0, return_index=True)
    return np.isin(np.arange(len(pictures)), first)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    values = load_for_letters("notmnist_maxpool_within", train=3_000, valid=300, test=5_000)
    values["baseline"][0]["train_sizes"] = SIZES
    return built(values, tmp_path_factory.mktemp("maxpool"), HERE)


@pytest.fixture(scope="module")
def roles(lake: Lake) -> dict[str, Role]:
    return roles_of(lake)


@pytest.fixture(scope="module")
def run(lake: Lake) -> Run:
    return run_of(lake, "logistic")


@pytest.fixture(scope="module")
def drawn(run: Run, roles: dict[str, Role]) -> dict[int, Labels]:
    """The positions in the train role that each size is trained on."""
    kept = np.flatnonzero(roles["train"].kept)
    ids = np.frombuffer(b"".join(roles["train"].ids), np.uint8).reshape(-1, 16)
    return {sample.size: kept[sample.rows] for sample in draw_samples(run.part, ids[kept])}


def test_overlap_goes_first_then_duplicates_in_a_role(lake: Lake, roles: dict[str, Role]) -> None:
    pooled = {name: max_pooled(role.pictures) for name, role in roles.items()}
    new = {
        "train": np.ones(len(pooled["train"]), np.bool_),
        "valid": ~seen_by_md5(pooled["valid"], pooled["train"]),
        "test": ~seen_by_md5(pooled["test"], pooled["train"], pooled["valid"]),
    }
    expected = {}
    for name, role in roles.items():
        kept = new[name].copy()
        kept[kept] = first_of_each(role.pictures[kept])
        np.testing.assert_array_equal(role.kept, kept)
        expected[name, "maxpool:4", "overlap"] = (~new[name]).sum()
        expected[name, "maxpool:4", "repeat"] = (new[name] & ~kept).sum()
    assert dropped_of(lake) == {key: count for key, count in expected.items() if count}
    assert expected["test", "maxpool:4", "repeat"] > 50


def test_as_many_images_repeat_inside_a_role_and_between_roles(lake: Lake, roles: dict[str, Role]) -> None:
    pooled = {name: max_pooled(role.pictures) for name, role in roles.items()}
    expected = {}
    for name, images in pooled.items():
        _, counts = np.unique(images.reshape(len(images), -1), axis=0, return_counts=True)
        expected["maxpool:4", name, name] = counts[counts > 1].sum()
        for other in set(pooled) - {name}:
            expected["maxpool:4", name, other] = seen_by_md5(images, pooled[other]).sum()
    assert overlap_of(lake) == {key: count for key, count in expected.items() if count}


@pytest.mark.parametrize("size", SIZES)
def test_logistic_regression_on_the_sample_scores_as_scikit_learn(
    run: Run, roles: dict[str, Role], drawn: dict[int, Labels], size: int
) -> None:
    train, rows = roles["train"], drawn[size]
    assert len(rows) == size
    assert set(rows.tolist()) <= set(np.flatnonzero(train.kept).tolist())
    inputs = scaled(train.pictures[rows])
    model = fit_logistic(inputs, train.labels[rows])
    where: dict[str, Any] = {"train_size": size, "role": "train", "eval_on": "original"}
    check_scores(run, train.labels[rows], model.predict(inputs), model.predict_proba(inputs), **where)
    for name in ("valid", "test"):
        inputs = scaled(roles[name].pictures)
        predicted, probabilities = model.predict(inputs), model.predict_proba(inputs)
        check_parts(run, roles[name], predicted, probabilities, role=name, train_size=size)
        if (name, size) == ("test", max(SIZES)):
            check_misses(run, roles[name], predicted)


def test_the_sample_has_rows_several_times(drawn: dict[int, Labels]) -> None:
    """1,000 draws of about 2,900 rows: 2,900 * (1 - exp(-1000 / 2900)) = 846 rows, give or take 10."""
    assert abs(len(set(drawn[1000].tolist())) - 846) < 50

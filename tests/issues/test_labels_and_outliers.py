"""Wrong labels and outliers are found, whatever the order of the pictures and the number of threads."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from pipeline.issues.features import LARGEST, features
from pipeline.issues.labels import FOLDS, MIN_PICTURES, PASSES, find_suspects, folds_of
from pipeline.issues.neighbours import NEAREST, agreement, find_outliers, nearest

CLASSES = 4
COUNT = 400


def pictures(seed: int = 0, count: int = COUNT) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw noisy bars, at another place in each class: features and class numbers."""
    chance = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    drawn = chance.integers(0, 90, (count, 28, 28, 1))
    drawn[np.arange(count), :, labels * 6 + 2] += 120
    return features(drawn.astype(np.uint8)), labels


def folds(count: int = COUNT) -> NDArray[np.int64]:
    return folds_of(np.random.default_rng(9).integers(0, 256, (count, 16), dtype=np.uint8))


@pytest.fixture(scope="module")
def flipped() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Every tenth label is wrong."""
    labels = np.arange(COUNT) % CLASSES
    wrong = np.random.default_rng(4).random(COUNT) < 0.1
    return np.where(wrong, (labels + 1) % CLASSES, labels), wrong


def test_wrong_labels_are_found_with_the_right_ones(flipped: tuple[NDArray[np.int64], NDArray[np.bool_]]) -> None:
    labels, wrong = flipped
    found = find_suspects(pictures()[0], labels, folds(), CLASSES)
    assert roc_auc_score(wrong, found.score) > 0.999
    assert (found.score[wrong] > 0.6).all()
    assert (found.score[~wrong] < 0.5).all()
    assert np.array_equal(found.suggested[wrong], pictures()[1][wrong])


def test_scores_do_not_depend_on_order_and_threads(flipped: tuple[NDArray[np.int64], NDArray[np.bool_]]) -> None:
    drawn, labels, drawn_folds = pictures()[0], flipped[0], folds()
    with threadpool_limits(1):
        one = find_suspects(drawn, labels, drawn_folds, CLASSES)
    order = np.random.default_rng(5).permutation(COUNT)
    with threadpool_limits(2):
        two = find_suspects(drawn[order], labels[order], drawn_folds[order], CLASSES)
    assert np.array_equal(one.score[order], two.score)
    assert np.array_equal(one.suggested[order], two.suggested)


def test_a_label_with_few_pictures_is_not_judged() -> None:
    drawn, labels = pictures()
    few = labels.copy()
    few[:MIN_PICTURES] = CLASSES
    found = find_suspects(drawn, few, folds(), CLASSES + 1)
    assert (found.score[:MIN_PICTURES] == 0).all()
    assert (found.score[MIN_PICTURES:] < 0.5).all()


def test_one_class_or_equal_pictures_have_no_suspects() -> None:
    drawn, labels = pictures()
    assert not find_suspects(drawn, np.zeros_like(labels), folds(), 1).score.any()
    assert not find_suspects(np.full_like(drawn, 7), labels, folds(), CLASSES).score.any()
    empty = np.empty(0, np.int64)
    assert len(find_suspects(drawn[:0], empty, empty, CLASSES).score) == 0


def test_progress_is_of_every_pass() -> None:
    done: list[int] = []
    find_suspects(pictures()[0], pictures()[1], folds(), CLASSES, done.append)
    assert sum(done) == PASSES * COUNT


def test_equal_pictures_are_in_one_fold() -> None:
    hashes = np.random.default_rng(0).integers(0, 256, (1000, 16), dtype=np.uint8)
    drawn = folds_of(hashes)
    assert np.array_equal(drawn, folds_of(hashes.copy()))
    assert np.bincount(drawn, minlength=FOLDS).min() > 150


def test_nearest_equals_brute_force() -> None:
    drawn, _ = pictures()
    queries, others = np.array([3, 0, 399]), np.arange(5, 400, 3)
    rows, squared = nearest(drawn, queries, others, 4)
    for at, query in enumerate(queries):
        distances = ((drawn[others].astype(int) - drawn[query]) ** 2).sum(axis=1)
        keys = sorted((distance, row) for distance, row in zip(distances, others, strict=True) if row != query)[:4]
        assert list(zip(squared[at], rows[at], strict=True)) == keys
    rows, squared = nearest(drawn, np.array([5]), np.array([5, 8]), 2)
    assert (rows.tolist(), squared[0, 1]) == ([[8, -1]], -1)


def test_agreement_is_the_share_of_the_nearest_with_the_label() -> None:
    rows = np.array([[4, 2, -1], [0, 1, 2]])
    share, first = agreement(rows, np.arange(5), np.array([0, 0, 1, 1, 1]), np.array([0, 0]))
    assert share.tolist() == pytest.approx([0, 2 / 3])
    assert first.tolist() == [-1, 0]


def test_a_picture_with_two_labels_has_both() -> None:
    numbers, labels = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 2, 1])
    rows = np.array([[2, 4], [0, 4], [0, 2]])
    share, first = agreement(rows, numbers, labels, np.array([2, 1, 2]))
    assert share.tolist() == [0.5, 1, 0.5]
    assert first.tolist() == [3, 1, 3]


def test_outliers_are_far_from_their_class() -> None:
    drawn, labels = pictures()
    drawn[7] = features(np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), dtype=np.uint8))[0]
    score, first = find_outliers(drawn, labels)
    assert score.argmax() == 7
    assert score[7] > 2 * np.sort(score)[-2]
    assert np.array_equal(labels[first], labels)
    few = find_outliers(drawn[: NEAREST * CLASSES], labels[: NEAREST * CLASSES])
    assert not few[0].any()
    assert set(few[1].tolist()) == {-1}


def test_outliers_of_many_classes_are_those_of_each_class() -> None:
    drawn, _ = pictures()
    labels = np.random.default_rng(1).integers(0, 40, COUNT) * 3
    score, first = find_outliers(drawn, labels)
    members = np.flatnonzero(labels == 21)
    alone, first_alone = find_outliers(drawn[members], labels[members])
    assert len(members) > NEAREST
    assert np.array_equal(score[members], alone)
    assert np.array_equal(first[members], members[first_alone])
    assert len(find_outliers(drawn[:0], labels[:0])[0]) == 0


@pytest.mark.parametrize(("shape", "length"), [((28, 28, 1), 784), ((5, 100, 1), 784), ((90, 7, 3), 768)])
def test_features_are_means_of_areas(shape: tuple[int, int, int], length: int) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    found = features(drawn)
    assert found.shape == (3, length)
    assert found.max() <= LARGEST
    side = 28 if shape[2] == 1 else 16
    rows, columns = (np.append(np.arange(side) * length // side, length) for length in shape[:2])
    area = drawn[0, rows[3] : max(rows[4], rows[3] + 1), columns[2] : max(columns[3], columns[2] + 1)].astype(float)
    assert abs(found[0].reshape(side, side, -1)[3, 2] - area.mean(axis=(0, 1)) / 2).max() <= 1

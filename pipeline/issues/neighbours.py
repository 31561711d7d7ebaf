"""Find the nearest pictures by their features, for the agreement of suspect labels and the distances of outliers.

Squared distances are whole numbers, so that results depend neither on the order of the pictures nor on the number of
threads. Of equally near pictures, those with the smaller row number come first.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Nearest pictures whose labels are compared with a suggested label.
NEIGHBOURS = 10
# An outlier is judged by the distance of this many nearest pictures of its class, to the last of them.
NEAREST = 5
# A class is compared with at most this many of its pictures: those with the smallest content hashes.
_MOST_OF_CLASS = 5_000
# Pictures that are compared at a time: at most 32 MB of distances.
_QUERIES, _OTHERS = 512, 8_192
# A squared distance is below 2**25. Times this, plus the row number, it is a whole number that float64 holds exactly.
_KEY = 2**28


def nearest(
    pictures: NDArray[np.uint8],
    queries: NDArray[np.int64],
    others: NDArray[np.int64],
    count: int,
    on_block: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the nearest of some pictures.

    Args:
        pictures: (n, m) uint8, 0 to 127, made by `features`; may be a memory map.
        queries: (q,) rows.
        others: (k,) rows to search, ascending. A query is not compared with itself.
        count: number of nearest rows to find.
        on_block: called with the number of queries that are done.

    Returns:
        Rows and squared distances, (q, count) int64, the nearest first; -1 where there are too few.
    """
    rows, distances = (np.full((len(queries), count), -1, np.int64) for _ in range(2))
    for start in range(0, len(queries), _QUERIES):
        part = queries[start : start + _QUERIES]
        block = pictures[part].astype(np.float32)
        lengths = np.square(block).sum(axis=1).astype(np.float64) * _KEY
        best = np.full((len(part), count), np.inf)
        for at in range(0, len(others), _OTHERS):
            searched = others[at : at + _OTHERS]
            values = pictures[searched].astype(np.float32)
            # In place: of all steps but the product, most of the time is memory traffic.
            keys = (block @ values.T).astype(np.float64)
            keys *= -2 * _KEY
            keys += np.square(values).sum(axis=1).astype(np.float64) * _KEY + searched
            keys += lengths[:, None]
            keys[searched == part[:, None]] = np.inf
            if len(searched) > count:
                keys = np.partition(keys, count - 1, axis=1)[:, :count]
            best = np.sort(np.hstack([best, keys]), axis=1)[:, :count]
        known = np.isfinite(best)
        whole = np.where(known, best, 0).astype(np.int64)
        rows[start : start + _QUERIES] = np.where(known, whole % _KEY, -1)
        distances[start : start + _QUERIES] = np.where(known, whole // _KEY, -1)
        on_block(len(part))
    return rows, distances


def agreement(
    rows: NDArray[np.int64], numbers: NDArray[np.int64], labels: NDArray[np.int64], suggested: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Count how many of the nearest pictures have the suggested label. A picture with two labels has both.

    Args:
        rows: (q, k) nearest rows, made by `nearest`: one row of each picture.
        numbers: (n,) the picture of every row, ascending from 0.
        labels: (n,) class number of every row, ascending in rows of one picture.
        suggested: (q,) class numbers.

    Returns:
        The share of the nearest that have the suggested label, (q,) float32; and the row of the nearest that has it, in
        which it has this label, (q,) int64, -1 if none has.
    """
    classes = max(labels.max(initial=0), suggested.max(initial=0)) + 1
    keys = numbers * classes + labels
    wanted = numbers[rows] * classes + suggested[:, None]
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    agree = (keys[at] == wanted) & (rows >= 0)
    count = np.maximum((rows >= 0).sum(axis=1), 1)
    first = at[np.arange(len(rows)), agree.argmax(axis=1)]
    return (agree.sum(axis=1) / count).astype(np.float32), np.where(agree.any(axis=1), first, -1)


def find_outliers(
    pictures: NDArray[np.uint8],
    labels: NDArray[np.int64],
    on_block: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Score how far each picture is from the nearest of its class, compared with what is usual in the class.

    Args:
        pictures: (n, m) uint8, made by `features`, each once in a class, in the order of their content hashes.
        labels: (n,) class numbers.
        on_block: called with the number of pictures that are done.

    Returns:
        1 - 1 / r, (n,) float64, where the distance is r times the median of the class, 0 if r is 1 or less, or if the
        class has `NEAREST` pictures or fewer; and the nearest row of the class, (n,) int64, -1 if there is none.
    """
    score, first = np.zeros(len(labels)), np.full(len(labels), -1, np.int64)
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) <= NEAREST:
            continue
        rows, squared = nearest(pictures, members, members[:_MOST_OF_CLASS], NEAREST, on_block)
        distance = np.sqrt(squared[:, -1])
        # A class of nearly equal pictures: a difference of one level in one feature is nothing.
        usual = max(float(np.median(distance)), 1.0)
        score[members] = np.maximum(0, 1 - usual / np.maximum(distance, usual))
        first[members] = rows[:, 0]
    return score, first

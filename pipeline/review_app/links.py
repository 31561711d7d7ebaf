"""The cluster and the pairs of one image by every rule, read batch by batch: nothing of other images is held."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.arrow_columns import from_numbers
from pipeline.lake_handle import Lake
from pipeline.recipe.rules import rule_meaning
from pipeline.review_app.images import Images, matrix_of, read_batches

# Pairs and other images that are listed.
_LISTED = 12
_COLUMNS = {"clusters": ["cluster_id", "image_id"], "pairs": ["left_id", "right_id", "score"]}
Ids = NDArray[np.uint8]
_NO_IDS = np.empty((0, 16), np.uint8)


class Links(NamedTuple):
    """What a rule links an image with.

    Attributes:
        rule: the rule.
        meaning: when two images are duplicates under the rule.
        size: number of images of its cluster, with the image itself.
        pairs: number of its pairs.
        listed: numbers of its closest pairs and, after these, of other images of its cluster; each with the score of
            the pair, None without one.
    """

    rule: str
    meaning: str
    size: int
    pairs: int
    listed: list[tuple[int, float | None]]


def links_of(lake: Lake, images: Images, number: int, rules: Sequence[str]) -> Iterator[Links]:
    """Find the cluster and the pairs of an image by every rule; rules that link it with no image are left out.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """
    image_id = images.ids[number]
    for rule in rules:
        cluster = images.find_rows(_cluster(lake, rule, image_id))
        ids, scores = _pairs(lake, rule, image_id)
        others = images.find_rows(ids)
        if not len(cluster) and not len(others):
            continue
        order = np.argsort(-scores, kind="stable")[:_LISTED]
        rest = cluster[~np.isin(cluster, others)][: _LISTED - len(order)]
        listed = [
            *zip(others[order].tolist(), scores[order].tolist(), strict=True),
            *((other, None) for other in rest.tolist()),
        ]
        yield Links(rule, rule_meaning(rule), len(cluster) + 1, len(others), listed)


def _cluster(lake: Lake, rule: str, image_id: Ids) -> Ids:
    """Read the ids of the other images of the cluster of an image: (n, 16) uint8."""
    head, found = None, [_NO_IDS]
    for rows in _batches(lake, "clusters", rule):
        mine = _equal(matrix_of(rows["image_id"], 16), image_id)
        head = matrix_of(rows["cluster_id"], 16)[mine.argmax()].copy() if mine.any() else head
    for rows in _batches(lake, "clusters", rule) if head is not None else ():
        members = matrix_of(rows["image_id"], 16)
        found.append(members[_equal(matrix_of(rows["cluster_id"], 16), head) & ~_equal(members, image_id)])
    return np.concatenate(found)


def _pairs(lake: Lake, rule: str, image_id: Ids) -> tuple[Ids, NDArray[np.float32]]:
    """Read the other images of the pairs of an image, (n, 16) uint8, and the scores."""
    ids, scores = [_NO_IDS], [np.empty(0, np.float32)]
    for rows in _batches(lake, "pairs", rule):
        sides = [matrix_of(rows[name], 16) for name in ("left_id", "right_id")]
        for side, other in (sides, sides[::-1]):
            mine = _equal(side, image_id)
            ids.append(other[mine])
            scores.append(from_numbers(rows["score"])[mine])
    return np.concatenate(ids), np.concatenate(scores)


def _batches(lake: Lake, table: str, rule: str) -> Iterator[pa.RecordBatch]:
    files = lake.snapshot.file_places(table, lambda partition: partition["rule"] == rule)
    return read_batches(files, _COLUMNS[table])


def _equal(ids: Ids, one: Ids | None) -> NDArray[np.bool_]:
    if one is None:
        return np.zeros(len(ids), np.bool_)
    return np.asarray((np.ascontiguousarray(ids).view(np.uint64) == one.view(np.uint64)).all(axis=1))

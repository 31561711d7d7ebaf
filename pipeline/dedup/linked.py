"""pairs -> clusters: images that verified pairs link, by connected components or by stars that do not chain."""

from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Numbers = NDArray[np.int32]


def link(pairs: pl.DataFrame, method: Literal["components", "stars"]) -> pl.DataFrame:
    """Group images that pairs link.

    The result is the same for any order of the rows; a pair that is there twice counts once.

    - `components`: any two images that a chain of pairs joins share a cluster, which its smallest image_id names.
      Every image of a pair is in a cluster, and no pair reaches from one cluster into another.
    - `stars`: every member is paired with its cluster's representative, whose image_id names the cluster, so no
      chain makes one cluster of unlike pictures. The price: a pair may reach from one star into another, or to an
      image that is in none. For a representative whose every neighbour joined a higher one is alone, and an image
      alone has no row. Whoever needs every pair inside one cluster (a split without leaks) takes components.

    Args:
        pairs: columns left_id and right_id, binary of 16 bytes, left_id < right_id; other columns are left alone.
        method: the one or the other.

    Returns:
        Columns cluster_id and image_id, binary of 16 bytes, ordered by both; every cluster has two images or more.

    Raises:
        ValueError: an id is missing or not 16 bytes long, or a left_id is not below its right_id.

    References:
        Javed A. Aslam, Ekaterina Pelekhov, Daniela Rus: The star clustering algorithm for static and dynamic
        information organization. Journal of Graph Algorithms and Applications 8 (2004).
    """
    left, right = numbered(pairs["left_id"], pairs["right_id"])
    if (left >= right).any():
        raise ValueError("a pair's left_id is not below its right_id: write the smaller image_id first")
    # The last image of all is on the right of a pair.
    heads = {"components": _components, "stars": _stars}[method](graph_of(left, right, images=_count(right)))
    images = np.flatnonzero(np.bincount(heads)[heads] > 1)
    images = images[np.argsort(heads[images], kind="stable")]
    found = np.empty(len(heads), dtype=np.int64)
    found[left], found[right] = np.arange(len(left)), len(left) + np.arange(len(right))
    ids = pl.concat([pairs["left_id"], pairs["right_id"]])
    return pl.DataFrame({"cluster_id": ids.gather(found[heads[images]]), "image_id": ids.gather(found[images])})


def numbered(*columns: pl.Series) -> tuple[Numbers, ...]:
    """Number the image_ids of several columns together, in their order.

    Args:
        columns: binary of 16 bytes.

    Returns:
        For each column an int32 array as long: how many different ids of all columns are smaller, so 0 to n - 1.

    Raises:
        ValueError: an id is missing or not 16 bytes long.
    """
    # Ranked as 128-bit numbers in a sixth of the time that they take as bytes; look-ups by join are slower than both.
    keys = pl.concat([column.bin.reinterpret(dtype=pl.Int128, endianness="big") for column in columns])
    if keys.null_count():
        raise ValueError(f"{keys.null_count()} image_ids are missing or not 16 bytes long")
    numbers = keys.rank("dense").to_numpy().astype(np.int32)
    # The numbers are signed (Polars before 1.34 has no others): ids from 0x80 on come first, but belong last.
    last = (keys < 0).to_numpy()
    negative = numbers[last].max(initial=0)
    numbers += np.where(last, _count(numbers) - 1 - negative, -negative).astype(np.int32) - np.int32(1)
    return tuple(np.split(numbers, np.cumsum([len(column) for column in columns])[:-1]))


def graph_of(left: Numbers, right: Numbers, images: int) -> csr_array:
    """Make a graph of pairs.

    Args:
        left: (p,) int32, 0 to images - 1.
        right: (p,) int32, the other image of each pair.
        images: how many images there are.

    Returns:
        (images, images) bool, true at (left, right): one entry a pair, however often it is given; columns ascend.
    """
    # Made of coordinates, so scipy merges those that are there twice, and true plus true is true.
    return csr_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(images, images))


def _count(numbers: Numbers) -> int:
    return int(numbers.max(initial=-1)) + 1


def _components(graph: csr_array) -> Numbers:
    """Give every image the smallest image of its component."""
    _, labels = connected_components(graph, directed=False)
    smallest: Numbers = np.unique(labels, return_index=True)[1].astype(np.int32)
    heads: Numbers = smallest[labels]
    return heads


def _stars(graph: csr_array) -> Numbers:
    """Give every image its representative: itself, or its first neighbour that is one, by pairs, then image_id."""
    images = graph.shape[0]
    pairs = np.diff(graph.indptr) + np.bincount(graph.indices, minlength=images)
    order = np.argsort(-pairs, kind="stable").astype(np.int32)
    place = np.empty_like(order)
    place[order] = np.arange(images, dtype=np.int32)
    left, right = place[np.repeat(np.arange(images), np.diff(graph.indptr))], place[graph.indices]
    before, after = np.minimum(left, right), np.maximum(left, right)
    chosen = _representatives(graph_of(before, after, images))
    heads = np.where(chosen, np.arange(images, dtype=np.int32), np.int32(images))
    np.minimum.at(heads, after[chosen[before]], before[chosen[before]])
    result = np.empty_like(order)
    result[order] = order[heads]
    return result


def _representatives(graph: csr_array) -> NDArray[np.bool_]:
    """Choose the first maximal independent set: image i is in it if and only if no earlier neighbour is.

    Exactly as one by one. An image is chosen once all its earlier neighbours are refused, and refused once one of them
    is chosen: so if they are decided as one by one, so is the image, and the first that is undecided has none that is.

    Every pair is looked at twice at most, however many rounds it takes. Their number is the longest chain of
    decisions that wait for one another: about ten for ids that are hashes, half the images for a sorted path.

    Args:
        graph: (n, n), an entry at (i, j) only where i < j.

    Returns:
        (n,) bool, true where chosen.
    """
    images = graph.shape[0]
    waiting = np.bincount(graph.indices, minlength=images)
    chosen, refused = np.zeros(images, dtype=np.bool_), np.zeros(images, dtype=np.bool_)
    ready = np.flatnonzero(waiting == 0)
    while len(ready):
        chosen[ready] = True
        later = _neighbours(graph, ready)
        losers = np.unique(later[~refused[later]])
        refused[losers] = True
        later = _neighbours(graph, losers)
        np.subtract.at(waiting, later, 1)
        ready = np.unique(later[waiting[later] == 0])
    return chosen


def _neighbours(graph: csr_array, images: NDArray[np.integer[Any]]) -> Numbers:
    """List the columns of some rows; what scipy's own indexing does, in a quarter of its time for a few."""
    starts = graph.indptr[images].astype(np.int64)
    counts = graph.indptr[images + 1] - starts
    skipped = starts - np.cumsum(counts) + counts
    entries: Numbers = graph.indices[np.repeat(skipped, counts) + np.arange(counts.sum())]
    return entries

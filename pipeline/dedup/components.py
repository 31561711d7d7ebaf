"""Cluster images by verified pairs, as connected components or as stars, and measure the diameter of clusters."""

from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

Numbers = NDArray[np.int32]
Counts = NDArray[np.int64]

# Edges that are linked at a time; more if more images are in clusters.
_EDGES = 2**20
# Larger clusters get a lower bound: an exact diameter can take (images x pairs x diameter / 32) steps.
_MAX_EXACT_IMAGES = 2_000
# Graph entries searched together: 16 MB of bits, about the size of a processor's cache.
_ENTRIES_PER_SEARCH = 2_000_000
# Images from which one search starts, each with a bit of its own.
_SOURCES = 64
_DISCONNECTED = -1


def link(pairs: pl.DataFrame, method: Literal["components", "stars"]) -> pl.DataFrame:
    """Cluster images that are linked by pairs.

    The result does not depend on the order of the rows. Repeated pairs count once.

    - `components`: two images are in one cluster if a chain of pairs connects them. The smallest image_id names the
      cluster. Every image of a pair is in a cluster, and no pair connects two clusters.
    - `stars`: every member is paired with the representative of its cluster, whose image_id names the cluster. So
      chains of pairs do not join dissimilar images. In return, a pair may connect two stars, or an image of a star with
      an image that is in no cluster: if all neighbours of a representative joined other stars, it is alone, and a
      single image has no row. Use components if every pair must lie inside one cluster, as for splits without leaks.

    Args:
        pairs: columns left_id and right_id, binary of 16 bytes, left_id < right_id; other columns are ignored.
        method: how to cluster.

    Returns:
        Columns cluster_id and image_id, binary of 16 bytes, ordered by both. Every cluster has two images or more.

    Raises:
        ValueError: an id is missing or not 16 bytes long, or a left_id is not below its right_id.

    References:
        Javed A. Aslam, Ekaterina Pelekhov, Daniela Rus: The star clustering algorithm for static and dynamic
        information organization. Journal of Graph Algorithms and Applications 8 (2004).
    """
    left, right = number_ids(pairs["left_id"], pairs["right_id"])
    if (left >= right).any():
        raise ValueError("a pair's left_id is not below its right_id; write the smaller image_id first")
    # The largest number is on the right side of a pair.
    graph = _pair_graph(left, right, images=_count(right))
    representatives = {"components": _components, "stars": _stars}[method](graph)
    images = np.flatnonzero(np.bincount(representatives)[representatives] > 1)
    images = images[np.argsort(representatives[images], kind="stable")]
    row_of = np.empty(len(representatives), dtype=np.int64)
    row_of[left], row_of[right] = np.arange(len(left)), len(left) + np.arange(len(right))
    ids = pl.concat([pairs["left_id"], pairs["right_id"]])
    cluster_ids, image_ids = ids.gather(row_of[representatives[images]]), ids.gather(row_of[images])
    return pl.DataFrame({"cluster_id": cluster_ids, "image_id": image_ids})


def link_batches(edges: pl.LazyFrame) -> pl.DataFrame:
    """Cluster images as connected components of any number of pairs; memory grows with the number of images.

    A component is connected by edges from its first image to each other one as it is by all its pairs. So these edges
    stand for the pairs of the batches before.

    Args:
        edges: columns left_id and right_id, as in `link`.

    Returns:
        As `link`.
    """
    count = edges.select(pl.len()).collect().item()
    clusters, start = link(edges.head(0).collect(), "components"), 0
    while start < count:
        size = max(_EDGES, len(clusters))
        before = clusters.filter(pl.col("cluster_id") != pl.col("image_id"))
        edges_before = before.select(left_id="cluster_id", right_id="image_id")
        clusters = link(pl.concat([edges_before, edges.slice(start, size).collect()]), "components")
        start += size
    return clusters


def cluster_shapes(clusters: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Measure every cluster: its number of images and pairs, its diameter and its lowest score.

    The diameter is the longest of the shortest paths between two images, counted in pairs: 1 if all images are paired
    with each other, 2 if one image is paired with all others. A large diameter shows that a cluster chains dissimilar
    images. It is exact for these two cases and for clusters of up to 2,000 images. For other clusters it is a lower
    bound, usually a tight one: the path from an image that is farthest from another (Magnien and others, 2009).

    The result does not depend on the order of the rows. Repeated pairs count once.

    Args:
        clusters: columns cluster_id and image_id, binary of 16 bytes; an image is in one cluster at most.
        pairs: columns left_id and right_id, binary of 16 bytes, and score, float32. Pairs that are not inside a
            cluster are ignored.

    Returns:
        Columns cluster_id, images (int64), pairs (int64, those inside), diameter (int64, null if the pairs do not
        connect the cluster), exact (false if the diameter is a lower bound), lowest (float32, the lowest score of
        the pairs inside; null if there are none). Ordered by images, largest first, then cluster_id.

    Raises:
        ValueError: an id is missing or not 16 bytes long.

    References:
        Clémence Magnien, Matthieu Latapy, Michel Habib: Fast computation of empirically tight bounds for the diameter
        of massive graphs. ACM Journal of Experimental Algorithmics 13 (2009).
    """
    ends = (pairs["left_id"], pairs["right_id"])
    cluster_numbers, members, *numbers = number_ids(clusters["cluster_id"], clusters["image_id"], *ends)
    order, starts = _order_by_size(cluster_numbers, members)
    sizes = np.diff(starts, append=len(order))
    cluster = np.repeat(np.arange(len(starts)), sizes)
    left, right, inside = _pairs_inside(members[order], numbers[0], numbers[1], cluster)
    graph = _pair_graph(np.concatenate([left, right]), np.concatenate([right, left]), len(order))
    lowest = np.full(len(starts), np.inf, dtype=np.float32)
    np.minimum.at(lowest, cluster[left], pairs["score"].to_numpy()[inside])
    pair_counts = np.bincount(cluster, np.diff(graph.indptr), len(starts)).astype(np.int64) // 2
    diameters, exact = _diameters(graph, starts, sizes, pair_counts)
    return pl.DataFrame(
        {
            "cluster_id": clusters["cluster_id"].gather(order[starts]),
            "images": sizes.astype(np.int64),
            "pairs": pair_counts,
            "diameter": pl.Series(diameters).replace(_DISCONNECTED, None),
            "exact": exact,
            "lowest": pl.Series(lowest).set(pl.Series(pair_counts == 0), None),
        }
    )


def number_ids(*columns: pl.Series) -> tuple[Numbers, ...]:
    """Number the image_ids of several columns together, in ascending order of the ids.

    Args:
        columns: binary of 16 bytes.

    Returns:
        For each column an int32 array of the same length: how many distinct ids of all columns are smaller, 0 to n - 1.

    Raises:
        ValueError: an id is missing or not 16 bytes long.
    """
    # Ranked as 128-bit integers, in a sixth of the time that bytes take; joins are slower than both.
    keys = pl.concat([column.bin.reinterpret(dtype=pl.Int128, endianness="big") for column in columns])
    if keys.null_count():
        raise ValueError(f"{keys.null_count():,} image_ids are missing or not 16 bytes long")
    numbers = keys.rank("dense").to_numpy().astype(np.int32)
    # Polars before 1.34 has signed integers only: ids from 0x80 up are negative and come first, but belong last.
    is_negative = (keys < 0).to_numpy()
    negative = numbers[is_negative].max(initial=0)
    numbers += np.where(is_negative, _count(numbers) - 1 - negative, -negative).astype(np.int32) - np.int32(1)
    return tuple(np.split(numbers, np.cumsum([len(column) for column in columns])[:-1]))


def _count(numbers: Numbers) -> int:
    return int(numbers.max(initial=-1)) + 1


def _pair_graph(left: Numbers, right: Numbers, images: int) -> csr_array:
    """Build a graph of pairs: (images, images) bool, true at (left, right), columns ascending, each pair once."""
    # scipy merges repeated coordinates by addition, and true plus true is true.
    return csr_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(images, images))


def _components(graph: csr_array) -> Numbers:
    """Find the smallest image of every image's connected component."""
    _, labels = connected_components(graph, directed=False)
    smallest: Numbers = np.unique(labels, return_index=True)[1].astype(np.int32)
    representatives: Numbers = smallest[labels]
    return representatives


def _stars(graph: csr_array) -> Numbers:
    """Find the representative of every image: itself, or its first neighbour that is a representative.

    Images are ordered by number of pairs, largest first, then by image_id.
    """
    images = graph.shape[0]
    pairs = np.diff(graph.indptr) + np.bincount(graph.indices, minlength=images)
    order = np.argsort(-pairs, kind="stable").astype(np.int32)
    position = np.empty_like(order)
    position[order] = np.arange(images, dtype=np.int32)
    left, right = position[np.repeat(np.arange(images), np.diff(graph.indptr))], position[graph.indices]
    first, second = np.minimum(left, right), np.maximum(left, right)
    chosen = _maximal_independent_set(_pair_graph(first, second, images))
    representatives = np.where(chosen, np.arange(images, dtype=np.int32), np.int32(images))
    np.minimum.at(representatives, second[chosen[first]], first[chosen[first]])
    result = np.empty_like(order)
    result[order] = order[representatives]
    return result


def _maximal_independent_set(graph: csr_array) -> NDArray[np.bool_]:
    """Find the first maximal independent set: image i is in it if and only if no earlier neighbour is.

    The result equals that of a loop over the images. An image is chosen when all its earlier neighbours are refused,
    and refused when one of them is chosen. In every round, the first undecided image has no undecided earlier
    neighbour, so the rounds end.

    Every pair is visited at most twice. The number of rounds is the longest chain of decisions that depend on one
    another: about ten for ids that are hashes, half the images for a sorted path.

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
        newly_refused = np.unique(later[~refused[later]])
        refused[newly_refused] = True
        later = _neighbours(graph, newly_refused)
        np.subtract.at(waiting, later, 1)
        ready = np.unique(later[waiting[later] == 0])
    return chosen


def _neighbours(graph: csr_array, images: NDArray[np.integer[Any]]) -> Numbers:
    """List the columns of some rows. For few rows this takes a quarter of the time of scipy's own indexing."""
    starts = graph.indptr[images].astype(np.int64)
    counts = graph.indptr[images + 1] - starts
    skipped = starts - np.cumsum(counts) + counts
    entries: Numbers = graph.indices[np.repeat(skipped, counts) + np.arange(counts.sum())]
    return entries


def _order_by_size(clusters: Numbers, members: Numbers) -> tuple[Counts, Counts]:
    """Order rows by size of the cluster (largest first), cluster and image; also find where each cluster starts."""
    order = np.lexsort((members, clusters, -np.bincount(clusters)[clusters]))
    return order, np.flatnonzero(np.diff(clusters[order], prepend=-1))


def _pairs_inside(
    members: Numbers, left: Numbers, right: Numbers, cluster: Counts
) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """Keep the pairs inside a cluster, as positions in `members`, and mark which pairs these are.

    `cluster` holds the cluster of each member.
    """
    position = np.full(1 + max(int(part.max(initial=-1)) for part in (members, left, right)), -1, dtype=np.int32)
    position[members] = np.arange(len(members), dtype=np.int32)
    left, right = position[left], position[right]
    inside = (left >= 0) & (right >= 0)
    inside[inside] = cluster[left[inside]] == cluster[right[inside]]
    return left[inside], right[inside], inside


def _diameters(graph: csr_array, starts: Counts, sizes: Counts, pairs: Counts) -> tuple[Counts, NDArray[np.bool_]]:
    """Find the diameter of every cluster, and whether it is exact. Most clusters need no search."""
    if not len(starts):
        return sizes, np.empty(0, dtype=np.bool_)
    _, parts = connected_components(graph, directed=False)
    disconnected = np.minimum.reduceat(parts, starts) != np.maximum.reduceat(parts, starts)
    has_hub = np.maximum.reduceat(np.diff(graph.indptr), starts) == sizes - 1
    complete = pairs == sizes * (sizes - 1) // 2
    known = [disconnected, complete, has_hub]
    values = [np.full_like(sizes, _DISCONNECTED), np.minimum(sizes - 1, 1), np.full_like(sizes, 2)]
    diameters = np.select(known, values, 0)
    large = (diameters == 0) & (sizes > _MAX_EXACT_IMAGES)
    for i in np.flatnonzero(large):
        part = slice(starts[i], starts[i] + sizes[i])
        diameters[i] = _double_sweep(graph[part, part])
    rest = (diameters == 0) & (sizes > 1)
    images = np.repeat(rest, sizes)
    diameters[rest] = _exact_diameters(graph[images][:, images], sizes[rest])
    return diameters, ~large


def _double_sweep(graph: csr_array) -> int:
    """Measure the path to the farthest image, from the image that is farthest from the first."""
    far = breadth_first_order(graph, 0, return_predecessors=False)[-1]
    order, previous = breadth_first_order(graph, far)
    image, steps = order[-1], 0
    while image != far:
        image, steps = previous[image], steps + 1
    return steps


def _exact_diameters(graph: csr_array, sizes: Counts) -> Counts:
    """Find the diameters of clusters, a few million graph entries at a time.

    Args:
        graph: (n, n) bool, symmetric. Every cluster is connected, and its images are adjacent rows.
        sizes: (k,) number of images of each cluster, two or more, largest first, n in all.
    """
    ends = np.cumsum(sizes)
    diameters = np.zeros_like(sizes)
    chunk = graph.indptr[ends] // _ENTRIES_PER_SEARCH
    for part in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(chunk)) + 1):
        if len(part):
            rows = slice(ends[part[0]] - sizes[part[0]], ends[part[-1]])
            diameters[part] = _chunk_diameters(graph[rows, rows], sizes[part])
    return diameters


def _chunk_diameters(graph: csr_array, sizes: Counts) -> Counts:
    """Search from 64 images of every cluster at once, those farthest from its centre first.

    Two images at most d from the centre are at most 2d from each other. So the search of a cluster ends when the
    diameter found is at least twice the distance of the next image: P. Crescenzi and others, On computing the diameter
    of real-world undirected graphs, Theoretical Computer Science 514 (2013), there from one image at a time.
    """
    starts, cluster = np.cumsum(sizes) - sizes, np.repeat(np.arange(len(sizes)), sizes)
    if sizes[0] > _SOURCES:
        distance = _distance_from_centre(graph, starts, cluster)
    else:
        distance = np.zeros(len(cluster), dtype=np.int64)
    order = np.lexsort((-distance, cluster))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - starts[cluster]
    diameters = np.full_like(sizes, -1)
    for first in range(0, int(sizes[0]), _SOURCES):
        # Smaller clusters are finished, so the image that this finds for them has no effect.
        next_distance = distance[order[np.minimum(starts + first, len(order) - 1)]]
        search = ((sizes > first) & (diameters < 2 * next_distance))[cluster]
        bit = rank[search] - first
        is_source = (bit >= 0) & (bit < _SOURCES)
        sources = np.where(is_source, np.uint64(1) << (bit % _SOURCES).astype(np.uint64), np.uint64(0))
        steps = _distance_to_farthest(graph[search][:, search], cluster[search], sources)
        np.maximum.at(diameters, cluster[search], steps)
    return diameters


def _distance_from_centre(graph: csr_array, starts: Counts, cluster: Counts) -> Counts:
    """Measure every image's distance from an image about halfway between two far ends of its cluster."""

    def distance_from_first(*keys: Counts) -> Counts:
        sources = np.zeros(len(cluster), dtype=np.uint64)
        sources[np.lexsort((*keys, cluster))[starts]] = 1
        return _distance_to_farthest(graph, cluster, sources)

    one_end = distance_from_first(-distance_from_first())
    other_end = distance_from_first(-one_end)
    return distance_from_first(-np.diff(graph.indptr), np.maximum(one_end, other_end))


def _distance_to_farthest(graph: csr_array, cluster: Counts, sources: NDArray[np.uint64]) -> Counts:
    """Measure every image's distance to the farthest of up to 64 source images of its cluster.

    In each round an image takes over the bits of its neighbours: after n rounds it has the bits of all sources at most
    n steps away. A cluster is finished when a round changes nothing in it.

    Args:
        graph: (n, n) bool, symmetric, every image in a pair.
        cluster: (n,) ascending.
        sources: (n,) a separate bit for each source image of a cluster, zero for other images.
    """
    images, steps = np.arange(len(cluster)), np.zeros(len(cluster), dtype=np.int64)
    rounds, reached = 0, sources
    while len(images):
        more = reached | np.bitwise_or.reduceat(reached[graph.indices], graph.indptr[:-1])
        rounds, changed, reached = rounds + 1, np.flatnonzero(more != reached), more
        steps[images[changed]] = rounds
        active = np.isin(cluster, cluster[changed])
        # Finished clusters are removed when they are half of all, so that the removal costs no more than the rounds.
        if 2 * np.count_nonzero(active) <= len(active):
            graph, images = graph[active][:, active], images[active]
            cluster, reached = cluster[active], reached[active]
    return steps

"""pairs -> clusters: images that verified pairs link, by connected components or by stars that do not chain.

clusters x pairs -> the shape of every cluster: how far apart two of its images can be, counted in pairs.
"""

from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

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


Counts = NDArray[np.int64]

# Larger clusters get a lower bound: an exact diameter may take (images x pairs x diameter / 32) steps.
_EXACT = 2_000
# Entries of the graph that are walked at once: 16 MB of bits, about what a processor's cache holds.
_ENTRIES = 2_000_000
_BITS = 64
_APART = -1


def cluster_shapes(clusters: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Measure every cluster: images, pairs, diameter, lowest score.

    The diameter is the longest of the shortest ways between two images, counted in pairs: 1 where every two images are
    paired, 2 where one of them is paired with all. A large one says that a cluster chains unlike pictures. It is exact
    for clusters that are as those two or have up to 2,000 images; for others it is a lower bound, and seldom a loose
    one: the farthest image from an image that is itself the farthest from another (Magnien and others, 2009).

    The result is the same for any order of the rows; a pair that is there twice counts once.

    Args:
        clusters: columns cluster_id and image_id, binary of 16 bytes; an image is in one cluster at most.
        pairs: columns left_id and right_id, binary of 16 bytes, and score, float32. Pairs that are not inside a
            cluster are left out.

    Returns:
        Columns cluster_id, images (int64), pairs (int64, those inside), diameter (int64, null where pairs do not
        connect the cluster), exact (false where the diameter is a lower bound), lowest (float32, the lowest score of
        the pairs inside; null where there is none). Ordered by images, most first, then cluster_id.

    Raises:
        ValueError: an id is missing or not 16 bytes long.

    References:
        Clémence Magnien, Matthieu Latapy, Michel Habib: Fast computation of empirically tight bounds for the diameter
        of massive graphs. ACM Journal of Experimental Algorithmics 13 (2009).
    """
    ends = (pairs["left_id"], pairs["right_id"])
    names, members, *numbers = numbered(clusters["cluster_id"], clusters["image_id"], *ends)
    order, starts = _by_size(names, members)
    sizes = np.diff(starts, append=len(order))
    cluster = np.repeat(np.arange(len(starts)), sizes)
    left, right, inside = _inside(members[order], numbers[0], numbers[1], cluster)
    graph = graph_of(np.concatenate([left, right]), np.concatenate([right, left]), len(order))
    lowest = np.full(len(starts), np.inf, dtype=np.float32)
    np.minimum.at(lowest, cluster[left], pairs["score"].to_numpy()[inside])
    within = np.bincount(cluster, np.diff(graph.indptr), len(starts)).astype(np.int64) // 2
    diameters, exact = _diameters(graph, starts, sizes, within)
    return pl.DataFrame(
        {
            "cluster_id": clusters["cluster_id"].gather(order[starts]),
            "images": sizes.astype(np.int64),
            "pairs": within,
            "diameter": pl.Series(diameters).replace(_APART, None),
            "exact": exact,
            "lowest": pl.Series(lowest).set(pl.Series(within == 0), None),
        }
    )


def _by_size(names: Numbers, members: Numbers) -> tuple[Counts, Counts]:
    """Order the rows by images of the cluster, most first, cluster and image; say where each cluster starts."""
    order = np.lexsort((members, names, -np.bincount(names)[names]))
    return order, np.flatnonzero(np.diff(names[order], prepend=-1))


def _inside(
    members: Numbers, left: Numbers, right: Numbers, cluster: Counts
) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """Keep the pairs inside a cluster, as places in `members`, whose clusters `cluster` says; and say which."""
    place = np.full(1 + max(int(part.max(initial=-1)) for part in (members, left, right)), -1, dtype=np.int32)
    place[members] = np.arange(len(members), dtype=np.int32)
    left, right = place[left], place[right]
    inside = (left >= 0) & (right >= 0)
    inside[inside] = cluster[left[inside]] == cluster[right[inside]]
    return left[inside], right[inside], inside


def _diameters(graph: csr_array, starts: Counts, sizes: Counts, pairs: Counts) -> tuple[Counts, NDArray[np.bool_]]:
    """Find the diameter of every cluster, and whether it is more than a lower bound: most need no search."""
    if not len(starts):
        return sizes, np.empty(0, dtype=np.bool_)
    _, parts = connected_components(graph, directed=False)
    apart = np.minimum.reduceat(parts, starts) != np.maximum.reduceat(parts, starts)
    hub = np.maximum.reduceat(np.diff(graph.indptr), starts) == sizes - 1
    complete = pairs == sizes * (sizes - 1) // 2
    known = [apart, complete, hub]
    diameters = np.select(known, [np.full_like(sizes, _APART), np.minimum(sizes - 1, 1), np.full_like(sizes, 2)], 0)
    large = (diameters == 0) & (sizes > _EXACT)
    for i in np.flatnonzero(large):
        here = slice(starts[i], starts[i] + sizes[i])
        diameters[i] = _double_sweep(graph[here, here])
    rest = (diameters == 0) & (sizes > 1)
    images = np.repeat(rest, sizes)
    diameters[rest] = _exact_diameters(graph[images][:, images], sizes[rest])
    return diameters, ~large


def _double_sweep(graph: csr_array) -> int:
    """Count the steps to the farthest image from the image that is farthest from the first."""
    far = breadth_first_order(graph, 0, return_predecessors=False)[-1]
    order, previous = breadth_first_order(graph, far)
    here, steps = order[-1], 0
    # One step each: as many as the diameter, where a search looks at every image.
    while here != far:
        here, steps = previous[here], steps + 1
    return steps


def _exact_diameters(graph: csr_array, sizes: Counts) -> Counts:
    """Search clusters from every image that can matter, a few million entries at a time.

    Args:
        graph: (n, n) bool, symmetric, every cluster connected, its images side by side.
        sizes: (k,) images of each cluster, two or more, largest first, n in all.
    """
    ends = np.cumsum(sizes)
    diameters = np.zeros_like(sizes)
    chunk = graph.indptr[ends] // _ENTRIES
    for part in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(chunk)) + 1):
        if len(part):
            here = slice(ends[part[0]] - sizes[part[0]], ends[part[-1]])
            diameters[part] = _together(graph[here, here], sizes[part])
    return diameters


def _together(graph: csr_array, sizes: Counts) -> Counts:
    """Search from 64 images of every cluster at once, those far from its centre first, until no others can matter.

    Two images at most d from the centre are at most 2d from each other, so what is found ends the search once it is
    as much: P. Crescenzi and others, On computing the diameter of real-world undirected graphs, Theoretical Computer
    Science 514 (2013), there from one image at a time.
    """
    starts, cluster = np.cumsum(sizes) - sizes, np.repeat(np.arange(len(sizes)), sizes)
    distance = _from_centre(graph, starts, cluster) if sizes[0] > _BITS else np.zeros(len(cluster), dtype=np.int64)
    order = np.lexsort((-distance, cluster))
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - starts[cluster]
    diameters = np.full_like(sizes, -1)
    for first in range(0, int(sizes[0]), _BITS):
        # Smaller clusters are searched already: whichever image stands in for their next one changes nothing.
        next_distance = distance[order[np.minimum(starts + first, len(order) - 1)]]
        search = ((sizes > first) & (diameters < 2 * next_distance))[cluster]
        bits = place[search] - first
        reached = np.where((bits >= 0) & (bits < _BITS), np.uint64(1) << (bits % _BITS).astype(np.uint64), np.uint64(0))
        steps = _farthest(graph[search][:, search], cluster[search], reached)
        np.maximum.at(diameters, cluster[search], steps)
    return diameters


def _from_centre(graph: csr_array, starts: Counts, cluster: Counts) -> Counts:
    """Count every image's steps from one that is about halfway between two far ends of its cluster."""

    def steps_from(*keys: Counts) -> Counts:
        reached = np.zeros(len(cluster), dtype=np.uint64)
        reached[np.lexsort((*keys, cluster))[starts]] = 1
        return _farthest(graph, cluster, reached)

    one_end = steps_from(-steps_from())
    other_end = steps_from(-one_end)
    return steps_from(-np.diff(graph.indptr), np.maximum(one_end, other_end))


def _farthest(graph: csr_array, cluster: Counts, reached: NDArray[np.uint64]) -> Counts:
    """Count every image's steps to the farthest of up to 64 images of its cluster.

    In each round an image takes over the bits of its neighbours: after n rounds it has those of images at most n steps
    away. A cluster in which a round changes nothing has ended.

    Args:
        graph: (n, n) bool, symmetric, every image in a pair.
        cluster: (n,) ascending.
        reached: (n,) a bit of its own for each of the images, zero for all others.
    """
    images, steps = np.arange(len(cluster)), np.zeros(len(cluster), dtype=np.int64)
    rounds = 0
    while len(images):
        more = reached | np.bitwise_or.reduceat(reached[graph.indices], graph.indptr[:-1])
        rounds, moved, reached = rounds + 1, np.flatnonzero(more != reached), more
        steps[images[moved]] = rounds
        going = np.isin(cluster, cluster[moved])
        # Clusters that have ended are left out when they are half of all, so that this costs as much as the rounds.
        if 2 * np.count_nonzero(going) <= len(going):
            graph, images, cluster, reached = graph[going][:, going], images[going], cluster[going], reached[going]
    return steps

"""images, clusters -> groups: images that any rule links, by connected components."""

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.int32]


def link(images: pl.DataFrame, clusters: Iterable[pl.DataFrame]) -> Numbers:
    """Put images into groups: the connected components of all clusters of all rules together.

    Images that are not given link nothing: two clusters that share only such an image stay apart.

    Args:
        images: column image_id, ascending, each once.
        clusters: rows of the clusters table (cluster_id and image_id are read), a frame a rule.

    Returns:
        (n,) int32, 0 to groups - 1: the group of every image. Groups are numbered by their smallest image.
    """
    from scipy.sparse import coo_array  # noqa: PLC0415 - a sixth of a second, only for splits with groups
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    numbered = images.select("image_id").with_row_index("number")
    edges = [
        rows.select("image_id", "cluster_id")
        .join(numbered, on="image_id")
        .select("number", head=pl.col("number").min().over("cluster_id"))
        for rows in clusters
    ]
    left = np.concatenate([np.empty(0, dtype=np.uint32), *(edge["number"].to_numpy() for edge in edges)])
    right = np.concatenate([np.empty(0, dtype=np.uint32), *(edge["head"].to_numpy() for edge in edges)])
    graph = coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(len(images), len(images)))
    count, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component, return_index=True)
    number = np.empty(count, dtype=np.int32)
    number[np.argsort(smallest)] = np.arange(count, dtype=np.int32)
    groups: Numbers = number[component]
    return groups

"""Review the duplicates that a rule finds: its closest pairs, and its largest clusters.

`query.py` is the query, `pairs.py` and `clusters.py` answer it. `write_review` and `write_clusters` write pairs and
clusters with their pictures as HTML. `images.py` reads single images and writes them as PNG. `found.py`
writes the images that pictures duplicate.
"""

from pipeline.review.clusters import ClusterReview, review_clusters, write_clusters
from pipeline.review.images import read_found, write_pngs
from pipeline.review.pairs import PairReview, review_pairs, write_review
from pipeline.review.query import ReviewQuery

__all__ = [
    "ClusterReview",
    "PairReview",
    "ReviewQuery",
    "read_found",
    "review_clusters",
    "review_pairs",
    "write_clusters",
    "write_pngs",
    "write_review",
]

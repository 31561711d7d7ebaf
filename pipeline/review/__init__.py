"""Review the duplicates that a rule finds: its closest pairs, and its largest clusters.

`query.py` is the query, `pairs.py` and `clusters.py` answer it. `images.py` reads single images and writes them as PNG
files. Functions `write_*` write HTML pages with pictures: of pairs, of clusters, of the matches of `find` (`found.py`)
and of the changes between two releases (`diff.py`). `page.py` writes the file of each page.
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

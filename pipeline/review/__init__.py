"""Review the duplicates that a rule finds: its closest pairs, and its largest clusters.

`query.py` is the query, `pairs.py` and `clusters.py` answer it. `write_review` writes pairs and their pictures as HTML.
"""

from pipeline.review.clusters import ClusterReview, review_clusters
from pipeline.review.pairs import PairReview, review_pairs, write_review
from pipeline.review.query import ReviewQuery

__all__ = ["ClusterReview", "PairReview", "ReviewQuery", "review_clusters", "review_pairs", "write_review"]

"""pairs, clusters -> what a person should look at: the closest pairs of a rule, and its largest clusters.

`asked.py` is the question, `pairs.py` and `clusters.py` answer it, `page.py` draws the pairs with their pictures.
"""

from pipeline.review.clusters import Shapes, review_clusters
from pipeline.review.pairs import Review, review_pairs, write_review
from pipeline.review.query import Question

__all__ = ["Question", "Review", "Shapes", "review_clusters", "review_pairs", "write_review"]

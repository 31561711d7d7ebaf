"""pairs, clusters -> what a person should look at: the closest pairs of a rule, and its largest clusters.

`asked.py` is the question, `pairs.py` and `clusters.py` answer it, `page.py` draws the pairs with their pictures.
"""

from pipeline.flow.review.asked import Question
from pipeline.flow.review.clusters import Shapes, review_clusters
from pipeline.flow.review.page import write_review
from pipeline.flow.review.pairs import Review, review_pairs

__all__ = ["Question", "Review", "Shapes", "review_clusters", "review_pairs", "write_review"]

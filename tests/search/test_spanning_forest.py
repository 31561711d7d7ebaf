"""`overlap` and `why` say it if only a spanning forest of the pairs is stored."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner
from making import as_folder, encoded, recipe

from pipeline.builder.build import build
from pipeline.cli.overlap import overlap_command
from pipeline.cli.why import why_command
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.review.clusters import review_clusters
from pipeline.review.pairs import review_pairs
from pipeline.review.query import ReviewQuery


def lake_of_copies(base: Path, most: int) -> Lake:
    """Build a lake of six copies of a picture, with 15 pairs, of which all or five are stored."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 200, (12, 12))
    copies = picture + rng.integers(0, 9, (6, 12, 12))
    as_folder(base / "set", {f"A/{number}.png": encoded(copies[number].astype(np.uint8)) for number in range(6)})
    dedup = {"rules": ["cosine:0.9"], "max_pairs": most}
    root = f"lake{most}"
    asked = recipe(base, {"uri": "set", "split": "train"}, lake={"root": root}, dedup=dedup)
    return Lake(build(asked, engine=LocalEngine(1)).root)


def test_reviews_and_why_say_that_pairs_are_left_out(tmp_path: Path) -> None:
    whole, forest = lake_of_copies(tmp_path, 15), lake_of_copies(tmp_path, 14)
    query = ReviewQuery("cosine:0.9")
    assert (review_pairs(whole, query).pairs, review_pairs(forest, query).pairs) == (15, 5)
    said = "Of the 15 pairs of cosine:0.9, more than dedup.max_pairs, only those that link its clusters are stored"
    assert said in review_pairs(forest, query).headline
    assert said not in review_pairs(whole, query).headline
    shapes, shapes_of_whole = review_clusters(forest, query), review_clusters(whole, query)
    assert shapes.note.startswith(said)
    assert (shapes.largest, shapes.diameter, shapes.exact) == (6, None, False)
    assert (shapes_of_whole.note, shapes_of_whole.diameter) == ("", 1)
    for lake, word, absent in (
        (whole, "5 pairs, the closest", "at least"),
        (forest, "at least", "5 pairs, the closest"),
    ):
        result = CliRunner().invoke(why_command, [lake.root, "A/0.png"])
        assert word in result.output
        assert absent not in result.output
        listed = CliRunner().invoke(overlap_command, [lake.root, "--rule", "cosine:0.9", "--clusters"]).output
        assert (said in listed) == (lake is forest)
    # The closest pair of every image is stored.
    best = [
        max(pair["score"] for pair in lake.why("A/0.png").images[0]["clusters"][0]["closest"])
        for lake in (whole, forest)
    ]
    assert best[0] == best[1]

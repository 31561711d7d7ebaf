"""Render the matches of `find` as one HTML page: each picture beside its match."""

from typing import Any

from pipeline.recipe.rules import rule_meaning
from pipeline.report.html import render_page
from pipeline.report.review import changes_of, describe_pairs


def render_found(found: dict[str, Any], rows: dict[bytes, dict[str, Any]]) -> str:
    """Render the page; see `html.render_page`.

    Args:
        found: lake, release, headline, unmatched (names), more_unmatched, rejects (dicts of path, reason and detail),
            and shown: dicts of rule and of what `describe_pairs` takes; the picture is on
            the left.
        rows: by id, height, width, channels and pixels of every picture and image in them.
    """
    matches = []
    for pair in found["shown"]:
        sides = {pair[side]: rows[pair[side]] for side in ("left_id", "right_id")}
        (described,) = describe_pairs([pair], sides, changes_of(pair["rule"]))
        matches.append({**described, "rule": pair["rule"], "meaning": rule_meaning(pair["rule"])})
    return render_page("found.html.j2", {**found, "matches": matches})

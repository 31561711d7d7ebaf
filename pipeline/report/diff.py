"""Render what changed between two releases as one HTML page: the first changes of every kind, with their images."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pipeline.report.html import template_environment
from pipeline.report.pictures import picture, read_scaled

# Changes of a kind that are shown, and images of a cluster.
SHOWN, _IMAGES = 48, 8
_TITLES = {
    "added": "Added",
    "gone": "Gone",
    "relabelled": "Relabelled",
    "moved": "Moved",
    "changed_role": "Changed role",
    "newly_dropped": "Newly dropped",
    "newly_kept": "Newly kept",
    "clusters_merged": "Clusters merged",
    "clusters_split": "Clusters split",
}
# Kinds whose images are those of the release before.
_OF_BEFORE = ("gone", "clusters_split")


def render_diff(
    summary: Mapping[str, Any],
    kinds: Mapping[str, pl.DataFrame],
    members: pl.DataFrame,
    before: pl.LazyFrame,
    after: pl.LazyFrame,
) -> str:
    """Render the page.

    The result is deterministic. Text from sources (labels, paths) is escaped. The page loads nothing from outside, and
    its Content-Security-Policy makes browsers refuse scripts and requests.

    Args:
        summary: lake, before, after (numbers of releases) and matched_by.
        kinds: rows of every kind of change, as in `Lake.diff`.
        members: columns kind, rule, cluster_id, image_id: the images of the first `SHOWN` clusters of both kinds.
        before: the images table of the release before.
        after: the images table of the release after.

    Returns:
        A complete HTML page.
    """
    few = members.sort("image_id").group_by("kind", "rule", "cluster_id", maintain_order=True).head(_IMAGES)
    clusters = few.group_by("kind", "rule", "cluster_id").agg("image_id").rows()
    ids = {(kind, rule, cluster_id): listed for kind, rule, cluster_id, listed in clusters}
    cards = {
        kind: [_card(kind, row, ids) for row in rows.head(SHOWN).iter_rows(named=True)]
        for kind, rows in kinds.items()
        if kind in _TITLES
    }
    drawn = {
        side: _draw(
            images, [one for kind, of in cards.items() if (kind in _OF_BEFORE) == side for _, _, i in of for one in i]
        )
        for side, images in ((True, before), (False, after))
    }
    sections = [
        {
            "kind": kind,
            "title": title,
            "count": len(kinds[kind]),
            "cards": [
                {
                    "sides": [{"side": text, "images": images, "pictures": _of(drawn[kind in _OF_BEFORE], listed)}],
                    "instead": None,
                    "more_sides": 0,
                }
                for text, images, listed in cards[kind]
            ],
        }
        for kind, title in _TITLES.items()
    ]
    page = template_environment().get_template("diff.html.j2")
    return page.render(
        summary, sections=sections, scores=kinds["scores"].head(SHOWN).to_dicts(), scored=len(kinds["scores"])
    )


def _card(kind: str, row: Mapping[str, Any], clusters: Mapping[Any, list[bytes]]) -> tuple[str, int, list[bytes]]:
    """Return what a card says of a change, its number of images, and the images to show."""
    if kind == "clusters_merged":
        return (
            f"{row['rule']}: {len(row['clusters_before'])} clusters",
            row["images"],
            clusters[kind, row["rule"], row["cluster_id"]],
        )
    if kind == "clusters_split":
        return (
            f"{row['rule']}: into {len(row['clusters'])}",
            row["images_before"],
            clusters[kind, row["rule"], row["cluster_id_before"]],
        )
    text = {
        "relabelled": "{label_before} to {label}",
        "changed_role": "{split_name}: {role_before} to {role}",
        "newly_dropped": "{split_name}/{role}, by {dropped_by}",
        "newly_kept": "{split_name}/{role}",
    }.get(kind, "{dataset}/{split}")
    names = {"label_before": "no label", "label": "no label", "role_before": "no role", "role": "no role"}
    said = {name: names.get(name, "-") if value is None else value for name, value in row.items()}
    return text.format(**said), 1, [row["image_id"]]


def _draw(images: pl.LazyFrame, ids: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
    wanted = pl.Series("image_id", ids, pl.Binary)
    rows = read_scaled(images, wanted) if len(wanted) else ()
    return {
        row["image_id"]: {
            "image_id": row["image_id"].hex(),
            "path": row["path"],
            "label": row["label"],
            "kept": None,
            **picture(row),
        }
        for row in rows
    }


def _of(drawn: Mapping[bytes, dict[str, Any]], ids: Sequence[bytes]) -> list[dict[str, Any]]:
    return [drawn[one] for one in ids if one in drawn]

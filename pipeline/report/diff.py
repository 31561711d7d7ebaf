"""Render what changed between two releases as one HTML page: the first changes of every kind, with their images."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.report.html import render_page
from pipeline.report.pictures import picture, read_scaled

# At most this many changes of a kind are shown, and images of a cluster.
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
# Kinds whose rows have ids of the release before.
_OF_BEFORE = ("gone", "clusters_split")


def render_diff(
    summary: Mapping[str, Any],
    kinds: Mapping[str, pl.DataFrame],
    members: pl.DataFrame,
    before: pl.LazyFrame,
    after: pl.LazyFrame,
) -> str:
    """Render the page; see `html.render_page`.

    Args:
        summary: lake, before, after (numbers of releases), matched_by, and described: lines about the whole releases.
        kinds: rows of every kind of change, as in `Lake.diff`.
        members: columns kind, rule, cluster_id, image_id: the images of the first `SHOWN` clusters of both kinds.
        before: the images table of the release before.
        after: the images table of the release after.
    """
    few = members.sort("image_id").group_by("kind", "rule", "cluster_id", maintain_order=True).head(_IMAGES)
    clusters = few.group_by("kind", "rule", "cluster_id").agg("image_id").rows()
    ids = {(kind, rule, cluster_id): listed for kind, rule, cluster_id, listed in clusters}
    cards = {kind: [_card(kind, row, ids) for row in kinds[kind].head(SHOWN).iter_rows(named=True)] for kind in _TITLES}
    shown_before = [card for kind in _OF_BEFORE for card in cards[kind]]
    shown_after = [card for kind in cards if kind not in _OF_BEFORE for card in cards[kind]]
    drawn_before, drawn_after = _draw(before, shown_before), _draw(after, shown_after)
    sections = [
        {
            "kind": kind,
            "title": title,
            "count": len(kinds[kind]),
            "cards": [_for_template(card, drawn_before if kind in _OF_BEFORE else drawn_after) for card in cards[kind]],
        }
        for kind, title in _TITLES.items()
    ]
    values = {
        **summary,
        "release": summary["after"],
        "sections": sections,
        "scores": kinds["scores"].head(SHOWN).to_dicts(),
        "scored": len(kinds["scores"]),
    }
    return render_page("diff.html.j2", values)


class _Card(NamedTuple):
    """One change on the page.

    Attributes:
        text: what changed.
        images: number of images that changed.
        shown: ids of the images to show.
    """

    text: str
    images: int
    shown: list[bytes]


def _card(kind: str, row: Mapping[str, Any], clusters: Mapping[Any, list[bytes]]) -> _Card:
    """Describe a row of a kind of change; `clusters` has the ids to show by kind, rule and cluster_id."""
    if kind == "clusters_merged":
        return _Card(
            f"{row['rule']}: {len(row['clusters_before'])} clusters",
            row["images"],
            clusters[kind, row["rule"], row["cluster_id"]],
        )
    if kind == "clusters_split":
        return _Card(
            f"{row['rule']}: into {len(row['clusters'])}",
            row["images_before"],
            clusters[kind, row["rule"], row["cluster_id_before"]],
        )
    text = {
        "relabelled": "{label_before} to {label}, before at {dataset_before}/{split_before} {path_before}",
        "moved": "before at {dataset_before}/{split_before} {path_before}",
        "changed_role": "{split_name}: {role_before} to {role}",
        "newly_dropped": "{split_name}/{role}, by {dropped_by}",
        "newly_kept": "{split_name}/{role}, before dropped by {dropped_by_before} ({reason_before})",
    }.get(kind, "{dataset}/{split}")
    names = {"label_before": "no label", "label": "no label", "role_before": "no role", "role": "no role"}
    said = {name: names.get(name, "-") if value is None else value for name, value in row.items()}
    return _Card(text.format(**said), 1, [row["image_id"]])


def _for_template(card: _Card, drawn: Mapping[bytes, dict[str, Any]]) -> dict[str, Any]:
    """Return a card as the macro `cards` of the templates takes it."""
    pictures = [drawn[image_id] for image_id in card.shown if image_id in drawn]
    side = {"side": card.text, "images": card.images, "pictures": pictures}
    return {"sides": [side], "instead": None, "more_sides": 0}


def _draw(images: pl.LazyFrame, cards: Sequence[_Card]) -> dict[bytes, dict[str, Any]]:
    """Draw the images of cards: by image_id, image_id, path, label, kept (None) and the result of `picture`."""
    wanted = pl.Series("image_id", [image_id for card in cards for image_id in card.shown], pl.Binary)
    rows = read_scaled(images, wanted, check=True) if len(wanted) else ()
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

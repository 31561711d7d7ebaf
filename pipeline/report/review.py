"""Render pairs of images as one HTML page to review: side by side, with a picture of their differences."""

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.recipe.rules import rule_meaning
from pipeline.report.html import render_page
from pipeline.report.pictures import encode, scale_down, to_pillow

if TYPE_CHECKING:
    from PIL.Image import Image

# How the second image is changed before it is subtracted, in words: mirrored or not, and quarter turns.
_CHANGES = {(False, 0): "", (True, 0): "mirrored"} | {
    (False, turns): f"turned by {90 * turns} degrees" for turns in (1, 2, 3)
}
_UPRIGHT_CHANGES = 2
# Pictures have at most this side, in pixels; smaller ones are enlarged up to it by an integer.
_SIDE = 160
# Colour of differences: the same as in the report.
_TINT = (213, 94, 0)
_SCORE_MEANINGS = {
    "cosine": "The score is that correlation.",
    "hamming": "The score is the share of the 64 bits in which the two agree.",
}
_OTHER_SCORE = "The more similar two images are, the higher is the score."


def render_pairs(review: dict[str, Any], pictures: pl.DataFrame) -> str:
    """Render the page; see `html.render_page`.

    Args:
        review: lake, release, rule, headline, from_clusters, and shown: dicts of score, left_id, right_id, left_path,
            right_path, left_label, right_label, left_role, right_role, conflict, cluster_id.
        pictures: image_id, height, width, channels and pixels of every image in them.
    """
    rows = {row["image_id"]: row for row in pictures.iter_rows(named=True)}
    family = review["rule"].partition(":")[0]
    values = {
        **review,
        "meaning": rule_meaning(review["rule"]),
        "score_meaning": _SCORE_MEANINGS.get(family, _OTHER_SCORE),
        "pairs": describe_pairs(review["shown"], rows, changes_of(review["rule"])),
    }
    return render_page("review.html.j2", values)


def changes_of(rule: str) -> int:
    """Return in how many ways the second image of a pair is changed; see `draw_difference`."""
    family, _, parameter = rule.partition(":")
    # Only rule photo pairs mirrored and turned images.
    return 1 if family != "photo" else _UPRIGHT_CHANGES if parameter.endswith(":upright") else len(_CHANGES)


def describe_pairs(
    shown: list[dict[str, Any]], rows: dict[bytes, dict[str, Any]], changes: int = 1
) -> list[dict[str, Any]]:
    """Describe pairs for the page.

    Args:
        shown: as in `render_pairs`.
        rows: by image_id, height, width, channels and pixels.
        changes: see `draw_difference`.

    Returns:
        One dict per pair: score, conflict, crossing (two different roles), cluster (hexadecimal, or None), hue (0 to
        359, the same for the same cluster), sides (path, label, role, image_id, src, scale, show_width, show_height,
        size) and difference (see `draw_difference`; None if the shapes differ).
    """
    drawn = {image_id: _draw(to_pillow(row), row) for image_id, row in rows.items()}
    pairs = []
    for pair in shown:
        sides = [
            {
                **{name: pair[f"{side}_{name}"] for name in ("path", "label", "role")},
                "image_id": pair[f"{side}_id"].hex(),
                **drawn[pair[f"{side}_id"]],
            }
            for side in ("left", "right")
        ]
        roles = {side["role"] for side in sides} - {None}
        cluster = pair["cluster_id"]
        pairs.append(
            {
                "score": pair["score"],
                "conflict": pair["conflict"],
                "crossing": len(roles) > 1,
                "cluster": cluster.hex() if cluster else None,
                "hue": int.from_bytes(cluster[:2], "big") % 360 if cluster else 0,
                "sides": sides,
                "difference": draw_difference(rows[pair["left_id"]], rows[pair["right_id"]], changes),
            }
        )
    return pairs


def draw_difference(
    left: dict[str, Any], right: dict[str, Any], changes: int = 1, side: int = _SIDE
) -> dict[str, Any] | None:
    """Draw where two images of one shape differ: a larger difference gets a denser tint.

    Args:
        left: height, width, channels and pixels of one image.
        right: the same of the other.
        changes: how many ways of mirroring and turning the other are tried: 1 for none, 2 for mirroring, 5 for turns
            too. The way that correlates best is taken.
        side: the longest side of the drawing, in pixels.

    Returns:
        pixels (number of pixels that differ), of (number of all pixels), most (largest difference, 0 to 255), changed
        (how the other was changed, in words; empty if it was not), and src, scale, show_width, show_height, size; None
        if the shapes differ in every way.
    """
    from PIL import Image  # noqa: PLC0415 - importing the package must not load Pillow

    one, other = _pixels(left), _pixels(right)
    ways = [(_change(other, *change), changed) for change, changed in list(_CHANGES.items())[:changes]]
    fitting = [(_correlation(one, pixels), changed, pixels) for pixels, changed in ways if pixels.shape == one.shape]
    if not fitting:
        return None
    _, changed, other = max(fitting, key=lambda way: way[0])
    difference = np.abs(one.astype(np.int16) - other).max(axis=2)
    # The square root makes small differences visible.
    alpha = np.sqrt(difference * 255.0).round().astype(np.uint8)
    tinted = np.dstack([np.broadcast_to(np.array(_TINT, np.uint8), (*difference.shape, 3)), alpha])
    return {
        "pixels": int(np.count_nonzero(difference)),
        "of": difference.size,
        "most": int(difference.max(initial=0)),
        "changed": changed,
        **_draw(Image.fromarray(tinted), left, side),
    }


def _change(pixels: NDArray[np.uint8], mirrored: bool, turns: int) -> NDArray[np.uint8]:  # noqa: FBT001 - of a table
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """Compute the product of two images of one shape, exactly; the largest is that of the largest correlation."""
    return int(np.einsum("hwc,hwc->", one, other, dtype=np.int64))


def _pixels(row: dict[str, Any]) -> NDArray[np.uint8]:
    shape = (row["height"], row["width"], row["channels"])
    return np.frombuffer(row["pixels"], dtype=np.uint8).reshape(shape)


def _draw(image: "Image", row: dict[str, Any], side: int = _SIDE) -> dict[str, Any]:
    small = scale_down(image, side)
    return {**encode(small, side // max(small.size)), "size": f"{row['height']} x {row['width']}"}

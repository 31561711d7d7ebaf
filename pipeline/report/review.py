"""Pairs and their pictures -> one HTML page to go down and judge: side by side, and where they differ."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.report.rules import meaning
from pipeline.report.wording import finish, number, percent, shorten

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 160
_TEMPLATES = Path(__file__).parent / "templates"
# The tint of the report's own page.
_INK = (213, 94, 0)
_SCORES = {
    "cosine": "The score is that cosine.",
    "hamming": "The score is the share of the 64 bits in which the two agree.",
}


def render_pairs(review: dict[str, Any], pictures: pl.DataFrame) -> str:
    """Draw the page.

    Deterministic. Everything that came out of a source (labels, paths) is escaped; nothing is loaded from outside, and
    the page's own policy tells the browser to refuse scripts and requests.

    Args:
        review: lake, release, rule, headline, from_clusters, and shown: dicts of score, left_id, right_id, left_path,
            right_path, left_label, right_label, left_role, right_role, conflict, cluster_id.
        pictures: image_id, height, width, channels and pixels of every image in them.

    Returns:
        A complete HTML page.
    """
    import jinja2  # noqa: PLC0415 - importing the package must not load jinja2

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=finish,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"number": number, "percent": percent, "shorten": shorten, "score": write_score}
    rows = {row["image_id"]: row for row in pictures.iter_rows(named=True)}
    family = review["rule"].partition(":")[0]
    return env.get_template("review.html.j2").render(
        review,
        meaning=meaning(review["rule"]),
        score_is=_SCORES.get(family, "The score is higher the closer the two are."),
        pairs=describe_pairs(review["shown"], rows),
    )


def describe_pairs(shown: list[dict[str, Any]], rows: dict[bytes, dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe pairs for the page.

    Args:
        shown: as `render_pairs` takes them.
        rows: by image_id, height, width, channels and pixels.

    Returns:
        One dict per pair: score, conflict, crossing (two different roles), cluster (hexadecimal, or None), hue (0 to
        359, the same for the same cluster), sides (path, label, role, image_id, and what `_drawn` says) and difference
        (see `differ`; None where the shapes are not equal).
    """
    drawn = {image_id: _drawn(_image_of(row), row) for image_id, row in rows.items()}
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
                **{name: pair[name] for name in ("score", "conflict")},
                "crossing": len(roles) > 1,
                "cluster": cluster.hex() if cluster else None,
                "hue": int.from_bytes(cluster[:2], "big") % 360 if cluster else 0,
                "sides": sides,
                "difference": differ(rows[pair["left_id"]], rows[pair["right_id"]]),
            }
        )
    return pairs


def differ(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any] | None:
    """Show where two pictures of one shape differ: the more, the denser the tint, on a transparent ground.

    Args:
        left: height, width, channels and pixels of one image.
        right: of the other.

    Returns:
        pixels (that differ), of (all), most (largest difference, 0 to 255), and what `_drawn` says; None where the
        shapes are not equal.
    """
    from PIL import Image  # noqa: PLC0415 - importing the package must not load Pillow

    one, other = _pixels(left), _pixels(right)
    if one.shape != other.shape:
        return None
    apart = np.abs(one.astype(np.int16) - other).max(axis=2)
    # The root, so that small differences are seen at all.
    alpha = np.sqrt(apart * 255.0).round().astype(np.uint8)
    tinted = np.dstack([np.broadcast_to(np.array(_INK, np.uint8), (*apart.shape, 3)), alpha])
    counted = {"pixels": int(np.count_nonzero(apart)), "of": apart.size, "most": int(apart.max(initial=0))}
    return {**counted, **_drawn(Image.fromarray(tinted), left)}


def write_score(score: float) -> str:
    """Write a score with four digits, never as the 1 that it almost is."""
    if score == 1:
        return "1"
    return ">0.9999" if (text := f"{score:.4f}") == "1.0000" and score < 1 else text


def _pixels(row: dict[str, Any]) -> NDArray[np.uint8]:
    shape = (row["height"], row["width"], row["channels"])
    return np.frombuffer(row["pixels"], dtype=np.uint8).reshape(shape)


def _image_of(row: dict[str, Any]) -> "Image":
    from PIL import Image  # noqa: PLC0415 - importing the package must not load Pillow

    pixels = _pixels(row)
    return Image.fromarray(pixels[..., 0] if row["channels"] == 1 else pixels)


def _drawn(image: "Image", row: dict[str, Any]) -> dict[str, Any]:
    """Encode a picture of at most 160 pixels a side: src, scale, show_width, show_height (in CSS pixels), size."""
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE))
    scale = SIDE // max(image.size)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return {
        "src": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii"),
        "scale": scale,
        "show_width": image.size[0] * scale,
        "show_height": image.size[1] * scale,
        "size": f"{row['height']} x {row['width']}",
    }

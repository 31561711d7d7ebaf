"""Explain one image: where it comes from, its duplicates, its roles and why it was dropped, what models make of it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.dedup.stored_rules import StoredRule, cluster_edges, filter_pairs, find_stored_rule
from pipeline.errors import LakeError
from pipeline.lake.reads import check_tables, check_values, explain_failures
from pipeline.recipe.rules import rule_meaning
from pipeline.search.images import locate_images, raise_not_found, stored_name
from pipeline.search.rules import lake_rules, pairs_found, stored_units
from pipeline.search.tables import Tables
from pipeline.verdicts.journal import read_verdicts
from pipeline.verdicts.standing import Resolved, standing

# At most this many images of an item are explained; of each image, this many pairs and images of a cluster are listed.
_EXPLAINED, _LISTED = 100, 10
_SHARD = ("dataset", "split", "shard")
_DIGESTS = ("image_id", "content_hash", "file_digest")
# Lengths of ids and digests in hexadecimal digits.
_DIGITS = (32, 64)
_FACTS = (*_SHARD, "path", "label", "height", "width", "channels", "file_size", *_DIGESTS)
_ORIGINAL = ("format", "height", "width", "taken_at", "camera", "location")
# Tables that are read, apart from images, originals, and the index and pairs of some rules.
_TABLES = ("rejects", "shards", "attributes", "clusters", "issues", "splits", "misses", "predictions")
_EDGES = pl.Schema({"left_id": pl.Binary, "right_id": pl.Binary, "score": pl.Float32})


class Why(NamedTuple):
    """The explanation of the images that have a path, an id or a digest.

    Attributes:
        release: the release.
        images: one dict for each image; see `Lake.why`.
        rejects: one dict for each reject of that path: dataset, split, path, label, reason, detail, file_size.
        more: number of images that are not explained, because more than 100 have the path or digest.
    """

    release: int
    images: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    more: int


@explain_failures
def explain(lake: Tables, item: str, *, brief: bool = False) -> Why:
    """Explain the images that have a path, an id or a digest, and the rejects of the path.

    Reads no pixels. The first 100 images are explained.

    Args:
        lake: the lake.
        item: a path, such as "A/1.png"; an id or content hash of 32 hexadecimal digits; the SHA-256 of a file, of 64.
        brief: leave clusters, verdicts and chains of pairs empty: they need all pairs of a rule in memory.

    Raises:
        LakeError: no image and no reject has it. The message gives the nearest paths.
        DamagedLakeError: a file of the lake is missing or damaged.
    """
    check_tables(lake.snapshot, *_TABLES)
    check_values(lake.snapshot, "originals", ["image_id", *_ORIGINAL])
    rows, missing = locate_images(lake, [item], facts=_FACTS)
    rejects = lake.scan("rejects").filter(path=stored_name(item)).drop("shard").sort("dataset", "split").collect()
    if missing and rejects.is_empty():
        _raise_if_earlier(lake, stored_name(item))
        raise_not_found(lake, missing, None, None)
    shown = rows.head(_EXPLAINED)
    ids = shown["image_id"].to_list()
    roles = _by_image(lake, "splits", ids, ("split_name",))
    parts = {
        "attributes": _by_image(lake, "attributes", ids, ("name", "value"), ("name", "value")),
        "original": _by_image(lake, "originals", ids, (), _ORIGINAL),
        "issues": _by_image(lake, "issues", ids, ("kind",)),
        "misses": _by_image(lake, "misses", ids, ("model", "split_name")),
        "predictions": _by_image(lake, "predictions", ids, ("model", "split_name", "role")),
        "clusters": {} if brief else _clusters(lake, ids),
        "verdicts": {} if brief else _verdicts(lake, ids),
    }
    shown = shown.join(lake.scan("shards").select(*_SHARD, source="uri").collect(), on=_SHARD, how="left")
    since = _since(lake, shown)
    images = [
        {
            **row,
            **since[row["image_id"]],
            **{name: of.get(row["image_id"], []) for name, of in parts.items()},
            "roles": [_role(lake, row["image_id"], role, brief=brief) for role in roles.get(row["image_id"], [])],
        }
        for row in shown.drop("item").iter_rows(named=True)
    ]
    others = _facts(lake, set(_referenced(images)))
    return Why(lake.release, [_with_names(one, others) for one in images], rejects.to_dicts(), len(rows) - len(shown))


def _raise_if_earlier(lake: Tables, item: str) -> None:
    """Raise the error that an earlier release has the item, the newest of those, if one has it."""
    named = pl.col("path") == item
    if len(item) in _DIGITS:
        named |= pl.any_horizontal(pl.col(column).bin.encode("hex") == item.lower() for column in _DIGESTS)
    earlier = lake.scan("releases").filter(pl.col("release") < lake.release).sort("release", descending=True)
    seen = {lake.snapshot.version("images")}
    for release, versions in earlier.select("release", "versions").collect().rows():
        version = {of["table"]: of["version"] for of in versions}.get("images")
        if version is None or version in seen:
            continue
        seen.add(version)
        then = lake.snapshot.with_version("images", version)
        check_values(then, "images", ["path", *_DIGESTS])
        if len(then.scan_changed("images", lake.snapshot).filter(named).head(1).collect()):
            raise LakeError(
                f"{lake.root}: release {lake.release} has no image '{item}', but release {release} has it: add "
                f"--release {release}, or open Lake(root, {release})."
            )


def _by_image(
    lake: Tables, table: str, ids: list[bytes], order: tuple[str, ...], names: tuple[str, ...] = ()
) -> dict[bytes, list[dict[str, Any]]]:
    """Read the rows of images from a table: by id, dicts of all columns or some, in order."""
    rows = lake.scan(table).filter(pl.col("image_id").is_in(ids)).sort("image_id", *order)
    found = rows.select("image_id", *names).collect() if names else rows.collect()
    parts = found.partition_by("image_id", as_dict=True, include_key=False, maintain_order=True)
    return {key: part.to_dicts() for (key,), part in parts.items()}


def _clusters(lake: Tables, ids: list[bytes]) -> dict[bytes, list[dict[str, Any]]]:
    """Describe the clusters of images by rule, the strictest family first; images that are in none are left out."""
    units = stored_units(lake)
    described: dict[bytes, list[dict[str, Any]]] = {}
    for rule in lake_rules(lake):
        rows = lake.scan("clusters").filter(pl.col("rule") == rule).select("cluster_id", "image_id")
        mine = rows.filter(pl.col("image_id").is_in(ids)).collect()
        if mine.is_empty():
            continue
        members = rows.join(mine.lazy().select("cluster_id").unique(), on="cluster_id", how="semi").collect()
        stored = find_stored_rule(rule, units)
        edges = _edges(lake, stored, members["image_id"]) if stored.method != "keys" else _EDGES.to_frame()
        keys = _keys(lake, rule, members) if stored.method == "keys" else {}
        for cluster_id, image_id in mine.sort("image_id").rows():
            others = members.filter((pl.col("cluster_id") == cluster_id) & (pl.col("image_id") != image_id))
            described.setdefault(image_id, []).append(
                {
                    "rule": rule,
                    "meaning": rule_meaning(rule),
                    "cluster_id": cluster_id.hex(),
                    "images": len(others) + 1,
                    "by": "pairs" if stored.method != "keys" else "equal keys" if keys[cluster_id] == 1 else "verdicts",
                    "representative": cluster_id,
                    "chain": _chain(edges, image_id, cluster_id),
                    **_closest(edges, image_id),
                    "all_pairs": pairs_found(lake, stored) is None,
                    "others": others["image_id"].sort().head(_LISTED).to_list(),
                }
            )
    return described


def _keys(lake: Tables, rule: str, members: pl.DataFrame) -> dict[bytes, int]:
    """Count the different keys in each cluster of a rule with keys: more than one where verdicts link images."""
    index = lake.scan("index").filter(pl.col("rule") == rule).select("image_id", "key", "signature")
    joined = members.lazy().join(index, on="image_id", how="left")
    return dict(joined.group_by("cluster_id").agg(pl.struct("key", "signature").n_unique()).collect().rows())


def _edges(lake: Tables, stored: StoredRule, members: pl.Series | None) -> pl.DataFrame:
    """List the edges that connect images into clusters, with the score of pairs; null for equal constant images.

    Args:
        lake: the lake.
        stored: a rule that compares pairs.
        members: ids of the images between which edges are listed; None for all.
    """
    check_tables(lake.snapshot, "pairs", keep=lambda partition: partition["rule"] == stored.rule)
    of_rule = lake.snapshot.files("index", lambda partition: partition["rule"] == stored.rule)
    check_values(lake.snapshot, "index", ["image_id", "key", "signature"], of_rule)

    def scan(table: str) -> pl.LazyFrame:
        rows = lake.scan(table).filter(pl.col("rule") == stored.rule)
        if members is None:
            return rows
        inside = pl.LazyFrame([members.alias("image_id")])
        keys = ["image_id"] if table == "index" else ["left_id", "right_id"]
        for key in keys:
            rows = rows.join(inside, left_on=key, right_on="image_id", how="semi")
        return rows

    pairs = filter_pairs(stored.min_score, scan("pairs")).select(_EDGES.names()).collect()
    equal = cluster_edges(stored.rule, scan, scan("pairs").head(0))
    return pl.concat([pairs, equal], how="diagonal").select(_EDGES.names())


def _verdicts(lake: Tables, ids: list[bytes]) -> dict[bytes, list[dict[str, Any]]]:
    """List every verdict about images, also since the release, in order: by id, dicts."""
    made = read_verdicts(lake.root)
    counts = set(standing(made)["verdict_id"])
    pictures = Resolved(lake.snapshot, made).images.filter(pl.col("image_id").is_in(ids))
    subject, other = ["file_digest", "content_hash"], ["other_file_digest", "other_content_hash"]
    both = [
        made.join(pictures, left_on=side, right_on=subject, nulls_equal=True).with_columns(shown=pl.col(shown))
        for side, shown in ((subject, "other_file_digest"), (other, "file_digest"))
    ]
    columns = ["image_id", *made.columns, "shown"]
    rows = pl.concat([part.select(columns) for part in both])
    found: dict[bytes, list[dict[str, Any]]] = {}
    for row in rows.unique(["image_id", "verdict_id"]).sort("created_at", "verdict_id").iter_rows(named=True):
        found.setdefault(row["image_id"], []).append(
            {
                **{name: row[name] for name in ("verdict", "label", "who", "note", "rule", "score")},
                "other_file_digest": row["shown"] and row["shown"].hex(),
                "created_at": row["created_at"].isoformat(),
                "counts": row["verdict_id"] in counts,
            }
        )
    return found


def _chain(edges: pl.DataFrame, start: bytes, goal: bytes) -> list[dict[str, Any]]:
    """Find the shortest path between two images: by step, the next image and the score of the pair.

    Returns:
        The steps; none if the images are the same, or not connected.
    """
    from scipy.sparse import csr_array  # noqa: PLC0415 - slow to import
    from scipy.sparse.csgraph import breadth_first_order  # noqa: PLC0415 - the same

    from pipeline.dedup.components import number_ids  # noqa: PLC0415 - scipy too

    if edges.is_empty() or start == goal:
        return []
    ends = pl.Series([start, goal], dtype=pl.Binary)
    left, right, (first, last) = number_ids(edges["left_id"], edges["right_id"], ends)
    size = int(max(left.max(), right.max(), first, last)) + 1
    graph = csr_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    _, before = breadth_first_order(graph, first, directed=False, return_predecessors=True)
    steps: list[dict[str, Any]] = []
    at = int(last)
    while at != first:
        if before[at] < 0:
            return []
        low, high = sorted((at, before[at]))
        row = int(np.flatnonzero((left == low) & (right == high))[0])
        side = "right_id" if at == high else "left_id"
        steps.append({"image": edges[side][row], "score": edges["score"][row]})
        at = int(before[at])
    return steps[::-1]


def _closest(edges: pl.DataFrame, image_id: bytes) -> dict[str, Any]:
    """Return the number of pairs of an image, and the closest of them."""
    own = edges.filter((pl.col("left_id") == image_id) | (pl.col("right_id") == image_id)).drop_nulls()
    other = pl.when(pl.col("left_id") == image_id).then("right_id").otherwise("left_id")
    closest = own.select("score", image=other).sort("score", "image", descending=[True, False]).head(_LISTED)
    return {"pairs": len(own), "closest": closest.select("image", "score").to_dicts()}


def _role(lake: Tables, image_id: bytes, row: Mapping[str, Any], *, brief: bool) -> dict[str, Any]:
    """Describe the role of an image in a split; if it was dropped, with the chain to the image it was dropped for."""
    chain: list[dict[str, Any]] = []
    rule, keeper = row["dropped_by"], row["dropped_for"]
    # Without another image, it was dropped by a verdict or an issue.
    stored = find_stored_rule(rule, stored_units(lake)) if keeper is not None and rule is not None else None
    if stored is not None and stored.method != "keys" and not brief:
        rows = lake.scan("clusters").filter(pl.col("rule") == stored.rule)
        own = rows.filter(pl.col("image_id") == image_id).select("cluster_id")
        members = rows.join(own, on="cluster_id", how="semi").select("image_id").collect().to_series()
        chain = _chain(_edges(lake, stored, members), image_id, keeper)
        # A group of a split may be larger than a star.
        chain = chain or _chain(_edges(lake, stored, None), image_id, keeper)
    return {**{name: value for name, value in row.items() if name != "image_id"}, "chain": chain}


def _since(lake: Tables, rows: pl.DataFrame) -> dict[bytes, dict[str, Any]]:
    """Find the first release from which on an image is in every release: with this path and content.

    Returns:
        By id, since (number of the release), and or_earlier: whether that is the oldest release that was not deleted.
    """
    releases = lake.scan("releases").select("release", "versions").sort("release", descending=True).collect()
    since = dict.fromkeys(rows["image_id"].to_list(), lake.release)
    here = rows
    before: int | None = lake.snapshot.version("images")
    oldest = lake.release
    for release, versions in releases.rows():
        oldest = release
        version = {item["table"]: item["version"] for item in versions}.get("images")
        if here.is_empty():
            continue
        if version != before:
            here, before = _present(lake, version, here), version
        since |= dict.fromkeys(here["image_id"].to_list(), release)
    return {key: {"since": first, "or_earlier": first == oldest > 1} for key, first in since.items()}


def _present(lake: Tables, version: int | None, rows: pl.DataFrame) -> pl.DataFrame:
    """Keep the images that a version of the images table has, with the same content."""
    if version is None:
        return rows.clear()
    then = lake.snapshot.with_version("images", version)
    paths = {part.path for part in then.files("images")}
    # Files never change: an image whose files were there then was there too.
    gone = {
        tuple(part.partition[key] for key in _SHARD) for part in lake.snapshot.files("images") if part.path not in paths
    }
    is_moved = pl.Series([shard in gone for shard in rows.select(_SHARD).iter_rows()], dtype=pl.Boolean)
    moved = rows.filter(is_moved)
    sources = set(moved.select("dataset", "split").rows())
    files = then.files("images", lambda of: (of["dataset"], of["split"]) in sources)
    keys = ["image_id", "content_hash"]
    check_values(then, "images", keys, files)
    wanted = pl.col("image_id").is_in(moved["image_id"].implode())
    found = then.scan_files("images", [part.path for part in files]).filter(wanted).select(keys).collect()
    still = moved.join(found, on=keys, how="semi")["image_id"]
    return rows.filter(~is_moved | pl.col("image_id").is_in(still.implode()))


def _facts(lake: Tables, ids: Collection[bytes]) -> dict[bytes, dict[str, Any]]:
    """Read the names of images: by id, image_id, path, label, dataset and split."""
    wanted = pl.Series("image_id", sorted(ids), dtype=pl.Binary)
    names = ["image_id", "path", "label", "dataset", "split"]
    rows = lake.scan("images").filter(pl.col("image_id").is_in(wanted.implode())).select(names).collect()
    return {row["image_id"]: {**row, "image_id": row["image_id"].hex()} for row in rows.iter_rows(named=True)}


def _referenced(value: Any) -> Iterator[bytes]:  # noqa: ANN401 - any part of an explanation
    """List the other images that an explanation names: all ids but those of the image itself."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from () if key in _DIGESTS else _referenced(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _referenced(inner)


def _with_names(value: Any, names: Mapping[bytes, dict[str, Any]], key: str = "") -> Any:  # noqa: ANN401 - as above
    """Write own ids as hexadecimal digits, and other images as dicts of their names."""
    if isinstance(value, bytes):
        return value.hex() if key in _DIGESTS else names.get(value, {"image_id": value.hex()})
    if isinstance(value, dict):
        return {name: _with_names(inner, names, name) for name, inner in value.items()}
    return [_with_names(inner, names) for inner in value] if isinstance(value, list) else value

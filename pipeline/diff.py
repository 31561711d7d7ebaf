"""Compare two releases of a lake: images, roles, clusters and scores. No pixels are read.

A picture is matched by its digest, so that it stays the same picture under another path or label.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.progress import plural
from pipeline.recipe.issues import KINDS

# How images with equal digests are matched, one to one: first at the same place, then with the same label, then any.
_MATCHES = (("digest", "image_id"), ("digest", "label"), ("digest",))
_PLACE = ("dataset", "split", "path")
_FACTS = [*_PLACE, "label", "image_id"]
# Columns of the table images that are read.
IMAGE_COLUMNS = [*_FACTS, "file_digest", "content_hash"]
# What identifies a run in several releases, where the split may be drawn again, and a value of it.
_RUN = ["model", "split_name", "settings"]
_VALUE = ["role", "eval_on", "rule", "metric"]


class Side(NamedTuple):
    """One of the releases to compare.

    Attributes:
        release: its number.
        scan: scans a table.
        recipe: the values of the recipe that it was built from; empty if they are not recorded.
        scan_changed: scans the files of a table that the other release does not have. Files never change, so all other
            rows are in both releases.
    """

    release: int
    recipe: Mapping[str, Any]
    scan: Callable[[str], pl.LazyFrame]
    scan_changed: Callable[[str], pl.LazyFrame]


class Diff(NamedTuple):
    """What changed from one release to another.

    Images of both releases are matched one to one by their digest. Of copies, those at the same place match first, then
    those with the same label, each in the order of their ids. An edited file is another picture: the old one is gone,
    and the new one is added at the same path. All ids are those of the release after, except in `gone` and where a
    column ends in `_before`. Rows of images are sorted by split_name, if they have it, then by dataset, split, path
    and image_id; rows of clusters by rule and id; scores by all columns but the two values.

    Attributes:
        before: number of the release that was compared with.
        after: number of the release whose changes these are.
        matched_by: the digest: file_digest; or content_hash if a release has images without file_digest, as imagelake
            0.5 made them. Then pictures are the same if their stored pixels are.
        totals: numbers before and after of images, rejects, classes and verdicts.
        issues: by kind of issue, numbers of images before and after; kinds that neither release lists are left out.
        settings: keys of the recipe whose values differ, such as "decode.size", sorted.
        other_pixels: images that have the same file in both releases, but other stored pixels.
        added: columns dataset, split, path, label, image_id: images of which the release before has no picture.
        gone: the same, of images of the release before that have no match.
        relabelled: columns dataset, split, path, label_before, label, dataset_before, split_before, path_before,
            image_id, image_id_before: the same picture with another label, whether or not its path changed.
        moved: the same columns without label_before: the same picture and label at another path, or in another dataset
            or source split.
        changed_role: columns split_name, role_before, role, dataset, split, path, label, image_id: images of both
            releases with another role. A role is null outside the split. Only splits that both releases have.
        newly_dropped: columns split_name, role, dropped_by, reason, dropped_for, dataset, split, path, label, image_id:
            images in the split in both releases, kept before and dropped now.
        newly_kept: columns split_name, role, dropped_by_before, reason_before, dataset, split, path, label, image_id:
            images in the split in both releases, dropped before and kept now.
        clusters_merged: columns rule, cluster_id, images, clusters_before: clusters with images of several clusters of
            the release before.
        clusters_split: columns rule, cluster_id_before, images_before, clusters: clusters of the release before whose
            images are now in several clusters.
        scores: columns model, split_name, settings, train_size_before, train_size, seed, role, eval_on, rule, metric,
            before, after: values about all classes that differ; null where a release does not have the value.
    """

    before: int
    after: int
    matched_by: str
    totals: dict[str, tuple[int, int]]
    issues: dict[str, tuple[int, int]]
    settings: list[str]
    other_pixels: int
    added: pl.DataFrame
    gone: pl.DataFrame
    relabelled: pl.DataFrame
    moved: pl.DataFrame
    changed_role: pl.DataFrame
    newly_dropped: pl.DataFrame
    newly_kept: pl.DataFrame
    clusters_merged: pl.DataFrame
    clusters_split: pl.DataFrame
    scores: pl.DataFrame

    @property
    def kinds(self) -> dict[str, pl.DataFrame]:
        """The rows of every kind of change, by its name."""
        return {name: rows for name, rows in self._asdict().items() if isinstance(rows, pl.DataFrame)}


class _Images(NamedTuple):
    """Images that are not the same in both releases.

    Attributes:
        pairs: matched images: columns of both, those of the release before with the ending `_before`.
        gone: image_id of images of the release before without a match, and facts.
        added: the same of the release after.
    """

    pairs: pl.DataFrame
    gone: pl.DataFrame
    added: pl.DataFrame

    def of_before(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Replace ids of the release before by those that the same images have after; leave out rows of gone images."""
        renamed = self.pairs.lazy().select(image_id="image_id_before", now="image_id")
        return (
            rows.join(self.gone.lazy(), on="image_id", how="anti")
            .join(renamed, on="image_id", how="left")
            .with_columns(image_id=pl.coalesce("now", "image_id"))
            .drop("now")
        )

    def of_after(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Leave out rows of added images."""
        return rows.join(self.added.lazy(), on="image_id", how="anti")


def compare_releases(before: Side, after: Side) -> Diff:
    """Compare two releases of a lake.

    Only files that one of the releases does not have are read of the images. Memory grows with the number of images
    that differ, and with the rows of splits and clusters.
    """
    digest = "file_digest" if _has_digests(before) and _has_digests(after) else "content_hash"
    images = _match_images(before, after, digest)
    place, new_label = [*_PLACE, "image_id"], pl.col("label").ne_missing(pl.col("label_before"))
    old_place = [f"{name}_before" for name in _PLACE]
    new_place = pl.col("image_id") != pl.col("image_id_before")
    pairs = images.pairs.sort(place)
    roles = _changed_roles(before, after, images)
    dropped = pl.col("kept_before") & ~pl.col("kept")
    merged, split = _changed_clusters(before, after, images)
    totals = _totals(before), _totals(after)
    return Diff(
        before.release,
        after.release,
        digest,
        {name: (totals[0][name], totals[1][name]) for name in totals[0]},
        _count_issues(before, after),
        changed_keys(before.recipe, after.recipe),
        _count_other_pixels(before, after),
        images.added.select(_FACTS).sort(place),
        images.gone.select(_FACTS).sort(place),
        pairs.filter(new_label).select(*_PLACE, "label_before", "label", *old_place, "image_id", "image_id_before"),
        pairs.filter(~new_label & new_place).select(*_PLACE, "label", *old_place, "image_id", "image_id_before"),
        roles.filter(pl.col("role").ne_missing(pl.col("role_before"))).select(
            "split_name", "role_before", "role", *_FACTS
        ),
        roles.filter(dropped).select("split_name", "role", "dropped_by", "reason", "dropped_for", *_FACTS),
        roles.filter(~pl.col("kept_before") & pl.col("kept")).select(
            "split_name", "role", "dropped_by_before", "reason_before", *_FACTS
        ),
        merged,
        split,
        _changed_scores(before, after),
    )


def changed_keys(before: Any, after: Any, key: str = "") -> list[str]:  # noqa: ANN401 - values of TOML
    """List the keys of a recipe whose values differ; parts of a list are named by their name, or counted from 0."""
    if isinstance(before, list) and isinstance(after, list):
        before, after = _by_name(before), _by_name(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        both = sorted({*before, *after})
        return [
            found
            for name in both
            for found in changed_keys(before.get(name), after.get(name), f"{key}.{name}" if key else str(name))
        ]
    return [] if before == after else [key]


def _by_name(parts: list[Any]) -> Any:  # noqa: ANN401 - values of TOML
    """Key the parts of a recipe by their name; other lists stay as they are."""
    if not all(isinstance(part, Mapping) for part in parts):
        return parts
    names = [part.get("name") or part.get("dataset") or str(number) for number, part in enumerate(parts)]
    return dict(zip(names, parts, strict=True)) if len(set(names)) == len(names) else dict(enumerate(parts))


def _totals(side: Side) -> dict[str, int]:
    images, rejects = side.scan("images"), side.scan("rejects")
    counted = images.select(images=pl.len(), classes=pl.col("label").drop_nulls().n_unique()).collect(
        engine="streaming"
    )
    count, classes = counted.row(0)
    rejected, verdicts = (rows.select(pl.len()).collect().item() for rows in (rejects, side.scan("verdicts")))
    return {"images": count, "rejects": rejected, "classes": classes, "verdicts": verdicts}


def _count_issues(before: Side, after: Side) -> dict[str, tuple[int, int]]:
    was, now = (dict(side.scan("issues").group_by("kind").len().collect().rows()) for side in (before, after))
    return {kind: (was.get(kind, 0), now.get(kind, 0)) for kind in KINDS if kind in was or kind in now}


def _count_other_pixels(before: Side, after: Side) -> int:
    """Count the images that have the same place and file in both releases, but other stored pixels."""
    columns = ["image_id", "file_digest", "content_hash"]
    old, new = (side.scan_changed("images").select(columns).drop_nulls() for side in (before, after))
    both = old.join(new, on=["image_id", "file_digest"])
    differs = both.filter(pl.col("content_hash") != pl.col("content_hash_right"))
    count: int = differs.select(pl.len()).collect(engine="streaming").item()
    return count


def describe_release(found: Diff) -> Iterator[str]:
    """Describe what differs between the releases as a whole, in lines."""
    yield "; ".join(
        f"{name} {before:,} -> {after:,}" if before != after else f"{after:,} {name}"
        for name, (before, after) in found.totals.items()
        if name != "verdicts" or before or after
    )
    changed = [f"{kind} {was:,} -> {now:,}" for kind, (was, now) in found.issues.items() if was != now]
    if changed:
        yield f"images with issues: {'; '.join(changed)}"
    if found.settings:
        yield f"changed in the recipe: {', '.join(found.settings)}"
    if found.other_pixels:
        yield f"{plural(found.other_pixels, 'unchanged file')} with other stored pixels"


def _has_digests(side: Side) -> bool:
    missing = side.scan_changed("images").select(pl.col("file_digest").is_null().any())
    return not missing.collect(engine="streaming").item()


def _match_images(before: Side, after: Side, digest: str) -> _Images:
    same = ["digest", "image_id", "label"]
    old, new = (side.scan_changed("images").select(*_FACTS, digest=digest) for side in (before, after))
    # Most images are equal in both releases, so they are removed before anything is collected.
    left = old.join(new.select(same), on=same, how="anti", nulls_equal=True).collect(engine="streaming")
    right = new.join(old.select(same), on=same, how="anti", nulls_equal=True).collect(engine="streaming")
    left = left.sort("image_id").rename({name: f"{name}_before" for name in _FACTS})
    right = right.sort("image_id")
    found = []
    for keys in _MATCHES:
        both = _numbered(left, keys, "_before").join(_numbered(right, keys), on=[*keys, "copy"], nulls_equal=True)
        pairs = both.select(image_id_before="old", image_id="new")
        found.append(left.join(pairs, on="image_id_before").join(right.drop("digest"), on="image_id"))
        left = left.join(pairs, on="image_id_before", how="anti", maintain_order="left")
        right = right.join(pairs, on="image_id", how="anti", maintain_order="left")
    gone = left.rename({f"{name}_before": name for name in _FACTS})
    return _Images(pl.concat(found), gone, right)


def _numbered(images: pl.DataFrame, keys: Sequence[str], ending: str = "") -> pl.DataFrame:
    """Number the images with equal keys in the order of their ids."""
    columns = {key: pl.col(key if key == "digest" else f"{key}{ending}") for key in keys}
    name = "old" if ending else "new"
    numbered = images.select(**columns, **{name: pl.col(f"image_id{ending}")})
    return numbered.with_columns(copy=pl.int_range(pl.len()).over(keys))


def _changed_roles(before: Side, after: Side, images: _Images) -> pl.DataFrame:
    """List the images of both releases whose role or `kept` differs, with what both releases say of them."""
    columns = ["split_name", "image_id", "role", "kept", "dropped_by", "reason", "dropped_for"]
    old, new = (side.scan("splits").select(columns) for side in (before, after))
    key = ["split_name", "image_id"]
    was = images.of_before(old.join(new.select("split_name").unique(), on="split_name", how="semi"))
    now = images.of_after(new.join(old.select("split_name").unique(), on="split_name", how="semi"))
    renamed = was.rename({name: f"{name}_before" for name in columns if name not in key})
    both = renamed.join(now, on=key, how="full", coalesce=True)
    differs = pl.col("role").ne_missing(pl.col("role_before")) | pl.col("kept").ne_missing(pl.col("kept_before"))
    found = both.filter(differs).collect(engine="streaming")
    facts = after.scan("images").select(_FACTS).join(found.lazy().select("image_id").unique(), on="image_id")
    rows = found.join(facts.collect(engine="streaming"), on="image_id", how="left")
    return rows.sort("split_name", *_PLACE, "image_id")


def _changed_clusters(before: Side, after: Side, images: _Images) -> tuple[pl.DataFrame, pl.DataFrame]:
    """List the clusters that were merged, and those that were split."""
    columns = ["rule", "cluster_id", "image_id"]
    old, new = (side.scan("clusters").select(columns) for side in (before, after))
    was = images.of_before(old).rename({"cluster_id": "old"})
    links = was.join(images.of_after(new), on=["rule", "image_id"]).select("rule", "old", new="cluster_id").unique()
    linked = links.collect(engine="streaming")
    merged = _linked_to_several(linked, "new", "old", new)
    split = _linked_to_several(linked, "old", "new", old)
    return (
        merged.rename({"new": "cluster_id", "old": "clusters_before"}),
        split.rename({"old": "cluster_id_before", "new": "clusters", "images": "images_before"}),
    )


def _linked_to_several(links: pl.DataFrame, one: str, others: str, clusters: pl.LazyFrame) -> pl.DataFrame:
    """List the clusters of one release that are linked to several of the other, with their number of images."""
    listed = links.group_by("rule", one).agg(pl.col(others).sort()).filter(pl.col(others).list.len() > 1)
    sizes = clusters.group_by("rule", pl.col("cluster_id").alias(one)).agg(images=pl.len().cast(pl.Int64))
    rows = listed.lazy().join(sizes, on=["rule", one]).collect(engine="streaming")
    return rows.select("rule", one, "images", others).sort("rule", one)


def _changed_scores(before: Side, after: Side) -> pl.DataFrame:
    """List the values about all classes that differ.

    The train sizes of a run are compared in their order, because "all" is another number where images were added.
    """
    key = [*_RUN, "size", "seed", *_VALUE]
    whole = pl.all_horizontal(pl.col("label", "predicted", "point").is_null())
    old, new = (
        side.scan("scores")
        .filter(whole)
        # In rows of an older imagelake, no role means test.
        .with_columns(pl.col("role").fill_null("test"), size=pl.col("train_size").rank("dense").over(_RUN))
        .unique(key, keep="last", maintain_order=True)
        .select(*key, "train_size", "value")
        for side in (before, after)
    )
    both = old.join(new, on=key, how="full", coalesce=True, nulls_equal=True)
    columns = {"train_size_before": "train_size", "train_size": "train_size_right", "seed": "seed"}
    values = {"before": "value", "after": "value_right"}
    return (
        both.filter(pl.col("value").ne_missing(pl.col("value_right")))
        .sort(key)
        .select(*_RUN, **columns, **{name: pl.col(name) for name in _VALUE}, **values)
        .collect()
    )

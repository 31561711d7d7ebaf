"""images, clusters -> splits: draw and sanitize every split that is out of date.

A split with groups keeps the roles of its pictures as far as possible. It continues from its rows in the newest release
or, if those are damaged, in an older one. For every split, the images that moved since then are counted.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

import schemas
from pipeline import storage
from pipeline.arrow_columns import from_binary
from pipeline.builder.attribute_values import attribute_digests, read_values, value_groups
from pipeline.builder.clusters import active_rules
from pipeline.builder.corrections import with_corrections, with_labels
from pipeline.builder.state import DAMAGED, Todo, find_outdated, input_versions, inputs_digest, unit_digest
from pipeline.dedup.decided import Decided, without_different
from pipeline.dedup.stored_rules import StoredRule, filter_pairs, find_stored_rule, read_clusters
from pipeline.errors import DamagedLakeError, NoReleaseError, SplitError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.releases import list_releases, release_versions
from pipeline.lake.snapshot import MISSING, Snapshot
from pipeline.lake.transaction import Commit
from pipeline.progress import SILENT, Progress, plural
from pipeline.recipe import Recipe, SplitPart
from pipeline.recipe.rules import attribute_of, rule_with_pairs_of
from pipeline.sources.attribute_types import EXIF
from pipeline.splits.draw import DrawnBy, draw_column, draw_roles, in_pool
from pipeline.splits.groups import Drawn, draw_groups
from pipeline.splits.numbered import NumberedImages
from pipeline.splits.previous import IDENTITY, PreviousSplit, count_moves
from pipeline.splits.sanitize import sanitize, straddling
from pipeline.verdicts.standing import EMPTY, Resolved

# What Polars raises for a file that is missing or damaged. The last is not an Exception.
_UNREADABLE = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException, DamagedLakeError)
# Labels of a role whose deviation is kept in the metadata, largest deviations first, so that commits stay small.
_MAX_LABELS = 20


class PreviousDraw(NamedTuple):
    """The split that a new draw continues from.

    Attributes:
        before: its settings, rows and images; None if there is no earlier draw.
        unit: its metadata in the newest release; empty if the release does not have it.
        metadata: `restored`, if the newest rows are damaged; see `describe_unit`.
    """

    before: PreviousSplit | None
    unit: Mapping[str, Any]
    metadata: dict[str, Any]


class DrawnSplit(NamedTuple):
    """A split that was drawn and sanitized.

    Attributes:
        rows: rows of the splits table.
        numbers: (n,) the number of each image; see `NumberedImages`.
        metadata: the outcome of the draw; see `describe_unit`.
    """

    rows: pl.DataFrame
    numbers: pl.Series
    metadata: dict[str, Any]


def split_units(
    snapshot: Snapshot, recipe: Recipe, verdicts: Resolved, *, prune: bool, issues: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return, by split, its settings and its fingerprint.

    The previous rows of a split with groups are no part of its fingerprint. If they were, every build would make the
    next one draw the split again.

    Args:
        snapshot: the lake.
        recipe: what to build.
        verdicts: what people decided.
        prune: leave out splits of the lake that are not in the recipe.
        issues: the issues that the lake will have, by kind; made by `issue_units`.
    """
    stored = {} if prune else {name: unit["spec"] for name, unit in snapshot.metadata("splits").units.items()}
    specs = {**stored, **{part.name: part.model_dump(mode="json", by_alias=True) for part in recipe.split}}
    shards = snapshot.scan("shards").collect()
    # Of a rule's metadata only the fingerprint: other values do not change its clusters.
    clusters = {
        rule: {"fingerprint": unit["fingerprint"]} for rule, unit in snapshot.metadata("clusters").units.items()
    }
    rules = active_rules(snapshot, recipe, prune=prune)
    return {
        name: {
            "spec": spec,
            "fingerprint": unit_digest(
                "splits",
                spec,
                [
                    _pool_digest(spec, shards),
                    [clusters.get(rule) for rule in _rules_of(spec, rules)],
                    # Nothing for a split without attributes, so that splits of older lakes stay up to date.
                    *(attribute_digests(snapshot, attribute) for attribute in _attributes_of(spec)),
                    # As above, for splits without verdicts and issues.
                    *([decided] if (decided := verdicts.pictures_digest) else []),
                    *(issues.get(kind, {}).get("fingerprint") for kind in spec.get("drop_issues", ())),
                ],
            ),
        }
        for name, spec in specs.items()
    }


def splits_with_attributes(metadata: Metadata) -> set[str]:
    """List the splits of a table that read attributes, without those whose rows are damaged."""
    return {name for name, unit in metadata.units.items() if _attributes_of(unit["spec"]) and DAMAGED not in unit}


def plan_splits(snapshot: Snapshot, units: Mapping[str, Mapping[str, Any]], *, images_change: bool) -> list[Todo]:
    """List the splits that the next build would draw, and why.

    Args:
        snapshot: the lake.
        units: made by `split_units`.
        images_change: whether the next build would read or drop images.
    """
    changed = dict.fromkeys(units, "the images change") if images_change else None
    return find_outdated("splits", units, snapshot.metadata("splits"), changed=changed)


def make_splits(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    recipe: Recipe,
    units: Mapping[str, Mapping[str, Any]],
    verdicts: Resolved = EMPTY,
    progress: Progress = SILENT,
) -> tuple[list[Todo], list[Commit]]:
    """Draw and sanitize every split that is out of date.

    Returns:
        What was done, why, and the outcome; see `describe_unit`. Then the commit to make. Both are empty if nothing is
        out of date.

    Raises:
        SplitError: a split needs more images than there are.
    """
    stored = snapshot.metadata("splits")
    todo = find_outdated("splits", units, stored)
    if not todo:
        return [], []
    in_recipe = {part.name for part in recipe.split}
    few_values = pl.col("label", "dataset", "split").cast(pl.Categorical)
    labelled = with_labels(snapshot.scan("images").select("image_id", "label", "dataset", "split"), verdicts)
    images = NumberedImages(labelled.select("image_id", few_values).collect())
    replaced = {item.unit for item in todo}
    drawn: dict[str, DrawnSplit] = {}
    for name in (name for name in units if name in replaced):
        progress.step(f"draw split {name}")
        try:
            drawn[name] = _draw_split(snapshot, units[name]["spec"], images, verdicts)
        except SplitError as error:
            if name in in_recipe:
                raise
            raise SplitError(f"{error} This split is of an earlier recipe. To drop it, build with --prune.") from error
    schema = schemas.TABLES["splits"].file_schema
    written = [
        part
        for name, split in drawn.items()
        for part in writer.write(
            "splits", split.rows.select(schema.names).to_arrow().cast(schema), {"split_name": name}
        )
    ]
    pixels = _read_binary(snapshot, "content_hash")[images.order]
    new_units = {
        name: {**unit, **_unit_metadata(drawn[name], pixels, stored.units.get(name, {}))}
        if name in drawn
        else {**stored.units[name], **unit}
        for name, unit in units.items()
    }
    updated = Metadata("splits", new_units, input_versions(snapshot, "images", "clusters"))
    commit = Commit("splits", written, updated, lambda partition: partition["split_name"] in replaced)
    done = [
        item._replace(reason="; ".join([item.reason, *describe_unit(new_units.get(item.unit, {}))])) for item in todo
    ]
    return done, [commit]


def describe_unit(unit: Mapping[str, Any]) -> list[str]:
    """Describe the outcome of a draw, from the metadata of a split.

    Args:
        unit: a unit of the splits table's metadata. These keys are read, where they exist:

            - `deviation`, for a split with groups: by role, the images requested (`asked`) and `got`, and the
              `labels` with the largest deviations as (label, requested, got).
            - `moves`: the images `moved`, `forced`, `left` and `joined`; see `Moves`. None if there is no previous
              split. Versions up to 0.5 have them only for splits with groups, and without `joined`.
            - `empty`: roles whose share is of no image.
            - `unset`, for `order` and `stratify`: the `images` without a value of the `attribute`, and for `order` the
              `role` that they are in.
            - `early`, for `order`: by role, images that are earlier than the latest image of the roles before it.
            - `text_order`, for `order` by an attribute of text: its name.
            - `labels`, for `stratify`: the largest deviations, as lists of role, label, images requested and got.
            - `without`, for a split with attributes in groups: by attribute, the images without a value.
            - `verdicts`: images that people `dropped`, `labels` that they corrected, and images that they `kept`.
            - `straddling`, for a split with protected datasets: a list of rule, datasets, clusters and rows.
            - `restored`, if its files were damaged: the release that had them, and the release that the draw continued
              from, or None. Then `same`: whether the new rows are equal to the damaged ones.

    Returns:
        Phrases; empty if the split has exactly the requested images.
    """
    phrases = [
        f"{role} got {images['got']:,} of {images['asked']:,} images"
        for role, images in unit.get("deviation", {}).items()
        if images["got"] != images["asked"]
    ]
    moves = unit.get("moves") or {}
    if moves.get("moved"):
        forced = moves["forced"]
        why = f", {forced:,} of them because of new links, protected datasets or other sources" if forced else ""
        phrases.append(f"{plural(moves['moved'], 'image')} moved to another role{why}")
    phrases += [f"{plural(moves[kind], 'image')} {kind} the split" for kind in ("left", "joined") if moves.get(kind)]
    phrases += [f"{role} got no image, as its share is too small" for role in unit.get("empty", ())]
    if unset := unit.get("unset"):
        where = f": in {unset['role']}" if unset["role"] else ""
        phrases.append(f"{plural(unset['images'], 'image')} without {unset['attribute']}{where}")
    phrases += [
        f"{plural(count, 'image')} of {role} earlier than the latest of the roles before it, as groups stay whole"
        for role, count in unit.get("early", {}).items()
    ]
    if (name := unit.get("text_order")) not in {None, *EXIF}:
        phrases.append(f"ordered by {name} as text, where 10 is before 9; for numbers or dates, set its type in types")
    phrases += [
        f"{role} got {got:,} of {requested:,} images with {label}: the largest deviation of a label"
        for role, label, requested, got in unit.get("labels", [])[:1]
    ]
    phrases += [
        f"{plural(count, 'image')} without {name}: each is a group of its own, unless a rule or another attribute "
        "links it"
        for name, count in unit.get("without", {}).items()
    ]
    said = {"dropped": "dropped", "labels": "with a corrected label", "kept": "kept in any case but overlaps"}
    counts = unit.get("verdicts", {})
    listed = [f"{plural(counts[kind], 'image')} {text}" for kind, text in said.items() if counts.get(kind)]
    phrases += [f"verdicts: {', '.join(listed)}"] if listed else []
    if "restored" in unit:
        lost, found = unit["restored"]
        phrases.append(f"continued from release {found}" if found else "drawn again, as no release has undamaged rows")
        phrases.append(f"its rows {'are' if unit['same'] else 'are not'} equal to those of release {lost}")
    return phrases + [
        f"{item['clusters']:,} clusters of {item['rule']} remain in two roles because {', '.join(item['datasets'])} is "
        "protected"
        for item in unit.get("straddling", [])
    ]


def find_previous_split(snapshot: Snapshot, name: str) -> PreviousDraw:
    """Find the rows that a split continues from: those of the newest release, not those of an unfinished build.

    If the files of the newest release are damaged, the rows of the newest release with other files are used.
    """
    try:
        newest, versions = release_versions(snapshot)
    except NoReleaseError:
        return PreviousDraw(None, {}, {})
    released = snapshot.with_version("splits", versions.get("splits", MISSING)).metadata("splits").units.get(name, {})
    damaged = snapshot.metadata("splits").units.get(name, {}).get(DAMAGED)
    if not damaged:
        return PreviousDraw(_read_split(snapshot, name, versions), released, {})
    for number in reversed(list_releases(snapshot)["release"].to_list()):
        older = release_versions(snapshot, number)[1]
        files = snapshot.with_version("splits", older.get("splits", 0)).files(
            "splits", lambda p: p["split_name"] == name
        )
        if files and not {part.path for part in files} & set(damaged):
            return PreviousDraw(_read_split(snapshot, name, older), released, {"restored": [newest, number]})
    return PreviousDraw(None, released, {"restored": [newest, None]})


def _read_split(snapshot: Snapshot, name: str, versions: Mapping[str, int]) -> PreviousSplit | None:
    at_version = snapshot.with_version("splits", versions.get("splits", MISSING))
    unit = at_version.metadata("splits").units.get(name)
    if unit is None:
        return None
    spec = SplitPart.model_validate(unit["spec"])
    rows = at_version.scan("splits", lambda partition: partition["split_name"] == name)
    columns = ("image_id", "role", "dropped_by", "reason")
    images = _read_identities(snapshot, spec, versions.get("images", MISSING))
    return PreviousSplit(spec, rows.select(columns).collect(), images)


def _read_identities(snapshot: Snapshot, spec: SplitPart, version: int) -> pl.DataFrame:
    """Read what identifies the images that a split could draw: image_id, file_digest, content_hash.

    Files that the lake no longer has may be damaged, as a repair replaces them. Those that cannot be read are left out,
    as are all files of a table that was lost and made again. Their images are known by their ids only.
    """
    try:
        paths = [part.path for part in snapshot.with_version("images", version).files("images")]
    except DamagedLakeError:
        paths = []
    current = {part.path for part in snapshot.files("images")}
    gone = [path for path in paths if path not in current]
    found = [_identities(snapshot, spec, [path for path in paths if path in current])]
    try:
        found.append(_identities(snapshot, spec, gone))
    except _UNREADABLE:
        found += [rows for path in gone if (rows := _readable_identities(snapshot, spec, path)) is not None]
    return pl.concat(found)


def _readable_identities(snapshot: Snapshot, spec: SplitPart, path: str) -> pl.DataFrame | None:
    try:
        return _identities(snapshot, spec, [path])
    except _UNREADABLE:
        # Raises StorageError if it is the bucket that does not answer.
        storage.exists(f"{snapshot.place}/images/{path}")
        return None


def _identities(snapshot: Snapshot, spec: SplitPart, paths: list[str]) -> pl.DataFrame:
    rows = snapshot.scan_files("images", paths).filter(in_pool(spec))
    return rows.select("image_id", *IDENTITY).collect()


def _rules_of(spec: Mapping[str, Any], stored: Collection[str]) -> list[str]:
    """List the stored rules whose clusters or pairs a split reads; splits of imagelake 0.1 have no groups."""
    return [rule_with_pairs_of(rule, stored) or rule for rule in (*spec["sanitize"], *_rules(spec))]


def _rules(spec: Mapping[str, Any]) -> list[str]:
    return [rule for rule in spec.get("groups", ()) if attribute_of(rule) is None]


def _attributes_of(spec: Mapping[str, Any]) -> list[str]:
    """List the attributes that a split reads."""
    read = (*spec.get("groups", ()), spec.get("order") or "", spec.get("stratify") or "")
    return [name for rule in read if (name := attribute_of(rule)) is not None]


def _pool_digest(spec: Mapping[str, Any], shards: pl.DataFrame) -> str:
    """Return the digest of the shards that a split may draw from, so that other shards do not change it."""
    return inputs_digest(shards.filter(in_pool(SplitPart.model_validate(spec))))


def _draw_split(snapshot: Snapshot, spec: Mapping[str, Any], images: NumberedImages, verdicts: Resolved) -> DrawnSplit:
    part = SplitPart.model_validate(spec)
    units = snapshot.metadata("clusters").units
    stored = {rule: find_stored_rule(rule, units) for rule in (*part.sanitize, *part.rule_groups)}
    previous = find_previous_split(snapshot, part.name)
    by = _drawn_by(part, snapshot, previous.unit)
    if part.groups or part.assigned_by:
        return _draw_whole_groups(snapshot, part, stored, previous, by, images, verdicts)
    pictures = snapshot.scan("images").select(pl.col(by).bin.slice(0, 16)).collect()
    rows = draw_roles(part, images.rows.with_columns(pictures[by].gather(images.order)), by)
    del pictures
    metadata = _plain_metadata(snapshot, part, images.with_ids(rows.select("image_id", "role"), ["image_id"]), previous)
    clusters = {
        rule: images.with_numbers(found, ["image_id"])
        for rule, found in _read_clusters(snapshot, part.dropping_rules, stored, verdicts.decided).items()
    }
    pairs = {
        rule: images.with_numbers(found, ["left_id", "right_id"])
        for rule, found in _read_star_pairs(snapshot, part, stored, verdicts.decided).items()
    }
    decided, issues = (
        None if found is None else images.with_numbers(found, ["image_id"])
        for found in (verdicts.pictures, _read_issues(snapshot, part))
    )
    sanitized = sanitize(part, rows, clusters, pairs, decided, issues)
    if part.protected:
        metadata["straddling"] = straddling(part, rows, sanitized, clusters).to_dicts()
    del rows
    numbers = sanitized["image_id"]
    named, counts = with_corrections(images.with_ids(sanitized, ["image_id", "dropped_for"]), verdicts)
    return DrawnSplit(named, numbers, {"drawn_by": by, **metadata, **counts})


def _draw_whole_groups(  # noqa: PLR0913, PLR0917 - what a split is made of
    snapshot: Snapshot,
    part: SplitPart,
    stored: Mapping[str, StoredRule],
    previous: PreviousDraw,
    by: DrawnBy,
    numbered: NumberedImages,
    verdicts: Resolved,
) -> DrawnSplit:
    columns = ("image_id", "label", "dataset", "split", *IDENTITY)
    images = with_labels(snapshot.scan("images").select(columns), verdicts).collect()
    clusters = _read_clusters(snapshot, part.dropping_rules, stored, verdicts.decided)
    # Groups are components: pairs may connect two stars, but every star lies within one component.
    groups = _read_clusters(snapshot, part.rule_groups, stored, verdicts.decided, "components")
    values = {name: read_values(snapshot, name, needed_by=f"split '{part.name}'") for name in part.attributes}
    groups |= {f"attr:{name}": value_groups(values[name]) for name in part.attribute_groups}
    attribute = values[part.assigned_by] if part.assigned_by else None
    drawn = draw_groups(part, images, groups, previous.before, by, attribute)
    metadata: dict[str, Any] = {"drawn_by": by, **_group_metadata(drawn), **previous.metadata}
    metadata |= {**_without_values(part, images, values), **_assigned_metadata(part, drawn)}
    if part.order and attribute is not None and attribute["value"].dtype == pl.String:
        metadata["text_order"] = part.assigned_by
    pairs = _read_star_pairs(snapshot, part, stored, verdicts.decided)
    sanitized = sanitize(part, drawn.rows, clusters, pairs, verdicts.pictures, _read_issues(snapshot, part))
    if part.protected:
        metadata["straddling"] = straddling(part, drawn.rows, sanitized, {**clusters, **groups}).to_dicts()
    numbers = numbered.with_numbers(sanitized.select("image_id"), ["image_id"])["image_id"]
    corrected, counts = with_corrections(sanitized, verdicts)
    return DrawnSplit(corrected, numbers, {**metadata, **counts})


def _without_values(
    spec: SplitPart, images: pl.DataFrame, values: Mapping[str, pl.DataFrame]
) -> dict[str, dict[str, int]]:
    """Count the images of a split without a value of an attribute that it groups by; see `describe_unit`."""
    pool = images.filter(in_pool(spec)).select("image_id")
    counts = {name: len(pool.join(values[name], on="image_id", how="anti")) for name in spec.attribute_groups}
    return {"without": {name: count for name, count in counts.items() if count}}


def _drawn_by(spec: SplitPart, snapshot: Snapshot, previous: Mapping[str, Any]) -> DrawnBy:
    """Choose what a split is drawn by. A split stays with its choice until its seed changes, so that roles stay too."""
    if "drawn_by" in previous and previous["spec"]["seed"] == spec.seed:
        stored: DrawnBy = previous["drawn_by"]
        return stored
    return draw_column(spec, snapshot.scan("images"))


def _plain_metadata(snapshot: Snapshot, spec: SplitPart, rows: pl.DataFrame, previous: PreviousDraw) -> dict[str, Any]:
    """Return the `moves` and the `empty` roles of a split without groups; see `describe_unit`.

    Args:
        snapshot: the lake.
        spec: the recipe's `[[split]]`.
        rows: columns image_id and role.
        previous: what the split continues from.
    """
    # Rows of an older release, or of none, say nothing about the damaged ones, which were drawn like these.
    before = None if previous.metadata else previous.before
    moves = None
    if before is not None:
        pool = snapshot.scan("images").filter(in_pool(spec)).select("image_id", *IDENTITY).collect()
        moves = count_moves(pool, rows, before)._asdict()
    drawn = set(rows["role"].unique())
    empty = [role for role, part in spec.roles.items() if part.share is not None and role not in drawn]
    return {"moves": moves, **({"empty": empty} if empty else {})}


def _read_binary(snapshot: Snapshot, column: str) -> NDArray[np.uint8]:
    """Read a column of 16 bytes of the images table: (n, 16) uint8."""
    return from_binary(snapshot.scan("images").select(column).collect()[column].to_arrow(), 16)


def _read_clusters(
    snapshot: Snapshot,
    rules: Iterable[str],
    stored: Mapping[str, StoredRule],
    decided: Decided,
    method: Literal["components"] | None = None,
) -> dict[str, pl.DataFrame]:
    """Read the clusters of some rules; see `read_clusters`. Columns cluster_id and image_id, by rule."""
    scan = partial(_scan_rule, snapshot)
    return {
        rule: read_clusters(stored[rule], scan, decided, method).select("cluster_id", "image_id").collect()
        for rule in rules
    }


def _read_star_pairs(
    snapshot: Snapshot, spec: SplitPart, stored: Mapping[str, StoredRule], decided: Decided
) -> dict[str, pl.DataFrame]:
    """Read the pairs that may link two clusters: columns left_id and right_id, by rule whose clusters are stars."""
    stars = [rule for rule in spec.dropping_rules if stored[rule].method == "stars"]
    return {rule: without_different(_read_pairs(snapshot, stored[rule]), decided) for rule in stars}


def _read_issues(snapshot: Snapshot, spec: SplitPart) -> pl.DataFrame | None:
    """Read the images that a split drops by issue: columns image_id and kind; None if it drops none."""
    if not spec.drop_issues:
        return None
    return snapshot.scan("issues", lambda part: part["kind"] in spec.drop_issues).select("image_id", "kind").collect()


def _read_pairs(snapshot: Snapshot, stored: StoredRule) -> pl.DataFrame:
    pairs = filter_pairs(stored.min_score, _scan_rule(snapshot, "pairs", stored.rule))
    return pairs.select("left_id", "right_id").collect()


def _scan_rule(snapshot: Snapshot, table: str, rule: str) -> pl.LazyFrame:
    return snapshot.scan(table, lambda partition: partition["rule"] == rule)


def _group_metadata(drawn: Drawn) -> dict[str, Any]:
    """Return the `deviation` and the `moves` of a draw; see `describe_unit`."""
    deviation = drawn.deviation.with_columns(off=(pl.col("got") - pl.col("requested")).abs())
    labels = deviation.filter(pl.col("off") > 0).sort("off", descending=True, maintain_order=True)
    totals = deviation.group_by("role", maintain_order=True).agg(pl.sum("requested", "got"))
    return {
        "deviation": {
            role: {
                "asked": requested,
                "got": got,
                "labels": labels.filter(role=role).select("label", "requested", "got").head(_MAX_LABELS).rows(),
            }
            for role, requested, got in totals.rows()
        },
        "moves": drawn.moves and drawn.moves._asdict(),
    }


def _assigned_metadata(spec: SplitPart, drawn: Drawn) -> dict[str, Any]:
    """Return `unset`, `early` and `labels` of a split with `order` or `stratify`; see `describe_unit`."""
    if not spec.assigned_by:
        return {}
    role = next(iter(spec.roles)) if spec.order else None
    unset = {"unset": {"attribute": spec.assigned_by, "images": drawn.unset, "role": role}} if drawn.unset else {}
    early = {name: count for name, count in drawn.early.items() if count}
    if drawn.labels is None:
        return {**unset, "early": early}
    off = drawn.labels.with_columns(off=(pl.col("got") - pl.col("requested")).abs()).filter(pl.col("off") > 0)
    largest = off.sort("off", "role", "label", descending=[True, False, False]).head(_MAX_LABELS)
    return {**unset, "labels": [list(row) for row in largest.select("role", "label", "requested", "got").rows()]}


def _unit_metadata(split: DrawnSplit, pixels: NDArray[np.uint8], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the metadata keep of a split that was drawn; `pixels` are content hashes by number of the image."""
    digest = _rows_digest(split.rows, pixels[split.numbers.to_numpy()])
    same = {"same": digest == stored.get("rows")} if "restored" in split.metadata else {}
    return {**split.metadata, "rows": digest, **same}


def _rows_digest(rows: pl.DataFrame, pixels: NDArray[np.uint8]) -> str:
    """Return the digest of what training depends on: ids, pixels, ranks, labels and roles, and which rows are kept."""
    digest = xxhash.xxh3_128()
    digest.update(from_binary(rows["image_id"].to_arrow(), 16).data)
    digest.update(pixels.data)
    for name in ("rank", "label_index", "kept"):
        digest.update(rows[name].cast(pl.Int64).fill_null(-1).to_numpy().tobytes())
    digest.update(repr(rows.group_by("role", maintain_order=True).len().rows()).encode())
    return digest.hexdigest()

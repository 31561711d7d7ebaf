"""images, clusters -> splits: draw and sanitize every split whose settings or input changed.

What a split with groups goes on from: its rows in the newest release, or where they are damaged, in an older one.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import polars as pl
import xxhash

import schemas
from pipeline.builder.clusters import ScanTable, Stored, clusters_of, find_stored, pairs_from, wanted_rules
from pipeline.builder.state import DAMAGED, Todo, shards_digest, stale, unit_digest
from pipeline.errors import NoReleaseError, SplitError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.releases import list_releases, release_versions
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit
from pipeline.progress import SILENT, Progress
from pipeline.recipe import Recipe, SplitPart
from pipeline.recipe.rules import rule_with_pairs_of
from pipeline.splits.draw import draw_roles, from_source
from pipeline.splits.groups.draw import Drawn, draw_groups
from pipeline.splits.groups.pool import Before
from pipeline.splits.sanitize import sanitize, straddling


class Found(NamedTuple):
    """What a split was before.

    Attributes:
        before: its rows; None where there are none to go on from.
        told: where the newest ones are damaged, what is gone on from instead, as `describe_unit` reads it.
    """

    before: Before | None
    told: dict[str, Any]


def read_before(snapshot: Snapshot, name: str) -> Found:
    """Read a split as of the newest release: what a build that never finished has drawn is not gone on from.

    Where its files are known to be damaged, of the newest release whose files are others.

    Args:
        snapshot: of the lake.
        name: of the split.
    """
    try:
        newest, held = release_versions(snapshot)
    except NoReleaseError:
        return Found(None, {})
    damaged = snapshot.metadata("splits").units.get(name, {}).get(DAMAGED)
    if not damaged:
        return Found(_read(snapshot, name, held["splits"]), {})
    for number in reversed(list_releases(snapshot)["release"].to_list()):
        version = release_versions(snapshot, number)[1].get("splits", 0)
        paths = {
            part.path
            for part in snapshot.with_version("splits", version).files("splits")
            if part.partition["split_name"] == name
        }
        if paths and not paths & set(damaged):
            return Found(_read(snapshot, name, version), {"restored": [newest, number]})
    return Found(None, {"restored": [newest, None]})


def _read(snapshot: Snapshot, name: str, version: int) -> Before | None:
    unit = snapshot.with_version("splits", version).metadata("splits").units.get(name)
    if unit is None:
        return None
    rows = snapshot.with_version("splits", version).scan("splits", lambda partition: partition["split_name"] == name)
    columns = ("image_id", "role", "dropped_by", "reason")
    return Before(SplitPart.model_validate(unit["spec"]), rows.select(columns).collect())


# Labels of a role whose deviation a commit names, the largest deviations first: commits stay small.
_LABELS = 20


class _Made(NamedTuple):
    """A split as drawn and sanitized, and what there is to tell about it, as the commit keeps it."""

    rows: pl.DataFrame
    told: dict[str, Any]


def split_units(snapshot: Snapshot, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """By split, its fingerprint and how it is drawn: the recipe's splits, and unless pruned those the lake has.

    What a split was before is no part of it, though a split with groups goes on from there: else a build would make the
    next one draw again.
    """
    held = {} if prune else {name: unit["spec"] for name, unit in snapshot.metadata("splits").units.items()}
    specs = {**held, **{part.name: part.model_dump(mode="json", by_alias=True) for part in recipe.split}}
    shards = snapshot.scan("shards").collect()
    # Only what a rule's clusters are, and not what their commit tells besides.
    clusters = {rule: {"fingerprint": u["fingerprint"]} for rule, u in snapshot.metadata("clusters").units.items()}
    rules = wanted_rules(snapshot, recipe, prune=prune)
    return {
        name: {
            "spec": spec,
            "fingerprint": unit_digest(
                "splits", spec, [_pools(spec, shards), [clusters.get(rule) for rule in _rules(spec, rules)]]
            ),
        }
        for name, spec in specs.items()
    }


def _rules(spec: Mapping[str, Any], stored: Collection[str]) -> list[str]:
    """List the stored rules that a split reads clusters or pairs of; lakes of imagelake 0.1 have no groups."""
    return [rule_with_pairs_of(rule, stored) or rule for rule in (*spec["sanitize"], *spec.get("groups", ()))]


def _pools(spec: Mapping[str, Any], shards: pl.DataFrame) -> str:
    """Digest the shards that a split may draw from: others do not concern it."""
    pools = [from_source(part.source_split) for part in SplitPart.model_validate(spec).roles.values()]
    return shards_digest(shards.filter(pl.any_horizontal(pools)))


def plan_splits(snapshot: Snapshot, units: Mapping[str, Mapping[str, Any]], *, images_change: bool) -> list[Todo]:
    """Tell which splits the next build would draw, and why."""
    changed = dict.fromkeys(units, "images change") if images_change else None
    return stale("splits", units, snapshot.metadata("splits"), changed=changed)


def make_splits(
    snapshot: Snapshot,
    writer: Writer,
    recipe: Recipe,
    units: Mapping[str, Mapping[str, Any]],
    progress: Progress = SILENT,
) -> tuple[list[Todo], list[Commit]]:
    """Draw and sanitize every split that is out of date.

    Args:
        snapshot: of the lake.
        writer: writes the files.
        recipe: the recipe, to separate its own splits from those of earlier ones.
        units: made by `split_units`.
        progress: where to show it.

    Returns:
        What was done, why, and its outcome: how far splits with groups are from their sizes, which images moved, what
        protected datasets leak; and the commit to make. Both are empty where nothing is out of date.

    Raises:
        SplitError: a split asks for more than there is.
    """
    known = snapshot.metadata("splits")
    todo = stale("splits", units, known)
    if not todo:
        return [], []
    asked = {part.name for part in recipe.split}
    images = snapshot.scan("images").select("image_id", "label", "dataset", "split", "content_hash").collect()
    touched = {item.unit for item in todo}
    drawn: dict[str, _Made] = {}
    for name in (name for name in units if name in touched):
        progress.step(f"draw split {name}")
        drawn[name] = _draw(snapshot, name, units[name]["spec"], images, asked)
    schema = schemas.TABLES["splits"].file_schema
    parts = [
        part
        for name, (rows, _) in drawn.items()
        for part in writer.write("splits", rows.to_arrow().cast(schema), {"split_name": name})
    ]
    made = {
        name: {**unit, **_unit_metadata(drawn[name], images, known.units.get(name, {}))}
        if name in drawn
        else {**known.units[name], **unit}
        for name, unit in units.items()
    }
    held = snapshot.versions
    metadata = Metadata("splits", made, {name: held[name] for name in ("images", "clusters") if name in held})
    done = [item._replace(reason="; ".join([item.reason, *describe_unit(made.get(item.unit, {}))])) for item in todo]
    return done, [Commit("splits", parts, metadata, lambda p: p["split_name"] in touched)]


def _unit_metadata(made: _Made, images: pl.DataFrame, held: Mapping[str, Any]) -> dict[str, Any]:
    """What a commit keeps of a split that was drawn."""
    rows = _digest(made.rows, images)
    return {**made.told, "rows": rows, **({"same": rows == held.get("rows")} if "restored" in made.told else {})}


def describe_unit(unit: Mapping[str, Any]) -> list[str]:
    """Say in words what a commit's metadata tell about a split; nothing where all is as it was asked for.

    Args:
        unit: of the splits table's commit. Keys that may be there, with groups: `deviation`, by role the images
            `asked` and `got` and `labels` (label, asked, got; the largest deviations), and `moves` (moved, forced,
            left; None where the split was drawn anew). With protected datasets: `straddling`, a list of rule,
            datasets, clusters and rows. Where its files were damaged: `restored`, the release that had them and the one
            gone on from, and `same`, whether its rows came out as they were.
    """
    words = [
        f"{role} got {role_['got']:,} of {role_['asked']:,} images"
        for role, role_ in unit.get("deviation", {}).items()
        if role_["got"] != role_["asked"]
    ]
    moved = unit.get("moves") or {}
    if moved.get("moved"):
        words.append(f"{moved['moved']:,} images moved to another role, {moved['forced']:,} of them by new links")
    if moved.get("left"):
        words.append(f"{moved['left']:,} images left the split")
    if "restored" in unit:
        lost, found = unit["restored"]
        words.append(f"gone on from release {found}" if found else "drawn anew, as no release has its rows")
        words.append(f"its rows {'are' if unit['same'] else 'are not'} those of release {lost}")
    return words + [
        f"{torn['clusters']:,} clusters of {torn['rule']} stay in two roles: {', '.join(torn['datasets'])} is protected"
        for torn in unit.get("straddling", [])
    ]


def _draw(
    snapshot: Snapshot, name: str, spec: Mapping[str, Any], images: pl.DataFrame, asked: Collection[str]
) -> _Made:
    try:
        return _make(snapshot, spec, images.drop("content_hash"))
    except SplitError as error:
        if name in asked:
            raise
        raise SplitError(f"{error} This split is of an earlier recipe: build with --prune to drop it.") from error


def _make(snapshot: Snapshot, spec: Mapping[str, Any], images: pl.DataFrame) -> _Made:
    part = SplitPart.model_validate(spec)
    units = snapshot.metadata("clusters").units
    scan = partial(_scan_rule, snapshot)
    stored = {rule: find_stored(rule, units) for rule in (*part.sanitize, *part.groups)}
    clusters = {rule: _ids(clusters_of(stored[rule], scan)) for rule in part.sanitize}
    # Stars leave pairs between them. Every star lies within one component: what cannot leak by these cannot by those.
    whole = {rule: _ids(clusters_of(stored[rule], scan, "components")) for rule in part.groups}
    told: dict[str, Any] = {}
    if part.groups:
        known = read_before(snapshot, part.name)
        drawn = draw_groups(part, images, whole, known.before)
        rows, told = drawn.rows, {**_account(drawn), **known.told}
    else:
        rows = draw_roles(part, images)
    pairs = {rule: _pairs_of(stored[rule], scan) for rule in part.sanitize if stored[rule].method == "stars"}
    made = sanitize(part, rows, clusters, pairs)
    if part.protected:
        told["straddling"] = straddling(part, rows, made, {**clusters, **whole}).to_dicts()
    return _Made(made, told)


def _ids(clusters: pl.LazyFrame) -> pl.DataFrame:
    return clusters.select("cluster_id", "image_id").collect()


def _pairs_of(stored: Stored, scan: ScanTable) -> pl.DataFrame:
    return pairs_from(stored.least, scan("pairs", stored.rule)).select("left_id", "right_id").collect()


def _scan_rule(snapshot: Snapshot, table: str, rule: str) -> pl.LazyFrame:
    return snapshot.scan(table, lambda partition: partition["rule"] == rule)


def _account(drawn: Drawn) -> dict[str, Any]:
    """Say in few words what came of a draw, as `describe_unit` reads it."""
    off = drawn.deviation.with_columns(off=(pl.col("got") - pl.col("asked")).abs())
    worst = off.filter(pl.col("off") > 0).sort("off", descending=True, maintain_order=True)
    return {
        "deviation": {
            role: {
                "asked": asked,
                "got": got,
                "labels": worst.filter(role=role).select("label", "asked", "got").head(_LABELS).rows(),
            }
            for role, asked, got in off.group_by("role", maintain_order=True).agg(pl.sum("asked", "got")).rows()
        },
        "moves": drawn.moves and drawn.moves._asdict(),
    }


def _digest(rows: pl.DataFrame, images: pl.DataFrame) -> str:
    """Digest what a trainer sees of a split: who is where, kept or not, under which class, and what it shows."""
    shown = rows.join(images.select("image_id", "content_hash"), on="image_id", how="left", maintain_order="left")
    digest = xxhash.xxh3_128()
    for name in ("image_id", "content_hash"):
        digest.update(b"".join(shown[name].to_list()))
    for name in ("rank", "label_index", "kept"):
        digest.update(shown[name].cast(pl.Int64).fill_null(-1).to_numpy().tobytes())
    digest.update(repr(rows.group_by("role", maintain_order=True).len().rows()).encode())
    return digest.hexdigest()

"""Check the laws of the tables from ids and labels alone; no pixel is read."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from pipeline.builder.issues import quality_rows
from pipeline.dedup.clusters import cluster_by_keys
from pipeline.dedup.stored_rules import decide_clusters, find_stored_rule, link_images, read_clusters
from pipeline.lake.rewrite import recorded_versions
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.recipe import ROLES
from pipeline.recipe.issues import QUALITY
from pipeline.recipe.rules import attribute_of
from pipeline.sources.attribute_types import EXIF, TYPES, common_type, from_text
from pipeline.verdicts.journal import committed_verdicts, fault_of
from pipeline.verdicts.standing import resolve
from pipeline.verify.faults import Check, Fault
from pipeline.verify.parquet_file import TableFile, read_row_groups
from schemas.splits import VERDICT
from schemas.verdicts import WITHDRAWN

RELEASES_CHECK = "releases match what their commits record"
# By the method of a rule, the table that its clusters are made from; "pairs" for all others.
_MADE_FROM = {"keys": "index"}


class LawResult(NamedTuple):
    """How many rows were checked against a law, and the faults found."""

    checked: int
    faults: Sequence[Fault]


def every_file_is_counted(lake: Lake) -> LawResult:
    """Law 1: the counts in the shards table are the numbers of rows in images and rejects."""
    key = ["dataset", "split", "shard"]
    shards = lake.scan("shards").collect()
    images = lake.scan("images").group_by(key).agg(images=pl.len()).collect()
    rejects = lake.scan("rejects").group_by(key).agg(files=pl.len()).collect()
    both = shards.join(images, on=key, how="full", coalesce=True).join(rejects, on=key, how="full", coalesce=True)
    wrong = both.with_columns(pl.col("rows", "rejects", "images", "files").fill_null(0)).filter(
        (pl.col("rows") != pl.col("images")) | (pl.col("rejects") != pl.col("files"))
    )
    faults = [
        _law(
            "counts of images and rejects differ from the row of the shard",
            "images",
            dict(zip(key, values, strict=True)),
            n,
        )
        for *values, n in wrong.select(*key, "images").rows()
    ]
    return LawResult(int(shards.select(pl.sum("rows") + pl.sum("rejects")).item() or 0), faults)


def ids_are_unique(lake: Lake) -> LawResult:
    """Law 1: every image has an id of its own."""
    ids = lake.scan("images").select("image_id").collect().to_series()
    repeated = len(ids) - ids.n_unique()
    faults = [_law("ids occur more than once", "images", {}, repeated)] if repeated else []
    return LawResult(len(ids), faults)


def clusters_follow_from_index(lake: Lake) -> LawResult:
    """Make all clusters again from index and pairs, and compare them with the stored ones."""
    clusters = lake.scan("clusters").collect()
    decided = resolve(lake.snapshot).decided
    faults = []
    for rule, unit in sorted(lake.snapshot.metadata("clusters").units.items()):
        method = unit.get("spec", ["", "", "keys"])[2]
        found = clusters.filter(rule=rule).select("cluster_id", "image_id")
        scan = partial(_scan_rule, lake, rule)
        made = cluster_by_keys(scan("index")).collect() if method == "keys" else link_images(rule, scan, method)
        same = decide_clusters(rule, made, decided, scan)[0].equals(found)
        text = f"clusters of rule {rule} differ from those of its {_MADE_FROM.get(method, 'pairs')}"
        faults += [] if same else [Fault("law", text, "clusters", "", {"rule": rule})]
    return LawResult(len(clusters), faults)


def pairs_are_of_images(lake: Lake) -> LawResult:
    """Check that every pair names two different images of the lake, the smaller id first, and occurs once."""
    pairs = lake.scan("pairs").select("rule", "left_id", "right_id").collect()
    ids = lake.scan("images").select("image_id").collect()
    lost = {
        f"pairs name an image in {side} that is not in the lake": pairs.join(
            ids, left_on=side, right_on="image_id", how="anti"
        )
        for side in ("left_id", "right_id")
    }
    wrong = {
        "pairs do not have the smaller id first": pairs.filter(pl.col("left_id") >= pl.col("right_id")),
        "pairs occur more than once": pairs.filter(pairs.is_duplicated()),
    }
    faults = [
        _law(text, "pairs", {"rule": rule}, count)
        for text, rows in {**lost, **wrong}.items()
        for rule, count in rows.group_by("rule").len().sort("rule").rows()
    ]
    return LawResult(len(pairs), faults)


def attributes_are_of_images(lake: Lake) -> LawResult:
    """Check that every attribute is of an image of its dataset, has its type, and has each value of an image once."""
    rows = lake.scan("attributes").collect()
    lost = rows.lazy().join(lake.scan("images").select("image_id", "dataset"), on=["image_id", "dataset"], how="anti")
    odd = [
        rows.filter(pl.col("type") == kind).filter(from_text(pl.col("value"), kind).is_null())
        for kind in sorted(set(rows["type"]) & set(TYPES))
    ]
    wrong = {
        "attributes are of images that are not in the lake": lost.collect(),
        "attributes do not have their type": pl.concat([rows.filter(~pl.col("type").is_in(list(TYPES))), *odd]),
        "attributes occur more than once": rows.filter(rows.is_duplicated()),
    }
    faults = [
        _law(text, "attributes", {"dataset": name}, count)
        for text, found in wrong.items()
        for name, count in found.group_by("dataset").len().sort("dataset").rows()
    ]
    return LawResult(len(rows), faults)


def measurements_are_of_pictures(lake: Lake) -> LawResult:
    """Check that a lake with measurements has those of every picture once, and no others."""
    if not lake.snapshot.metadata("measurements").units:
        return LawResult(0, [])
    measured = lake.scan("measurements").select("content_hash").collect()
    pictures = lake.scan("images").select("content_hash").unique().collect()
    wrong = {
        "measurements are of pictures that are not in the lake": measured.join(pictures, on="content_hash", how="anti"),
        "pictures are not measured": pictures.join(measured, on="content_hash", how="anti"),
        "pictures are measured more than once": measured.filter(measured.is_duplicated()),
    }
    faults = [_law(text, "measurements", {}, len(rows)) for text, rows in wrong.items() if len(rows)]
    return LawResult(len(measured), faults)


def issues_follow_from_measurements(lake: Lake) -> LawResult:
    """Score all images again by their measurements, and compare; other issues are of images, each once."""
    issues = lake.scan("issues").collect()
    units = lake.snapshot.metadata("issues").units
    thresholds = {kind: unit["spec"]["threshold"] for kind, unit in units.items() if kind in QUALITY}
    again = quality_rows(lake.snapshot, thresholds) if thresholds else issues.clear()
    ids = lake.scan("images").select("image_id").collect()
    lost = issues.join(ids, on="image_id", how="anti")
    wrong = {
        "issues are of images that are not in the lake": set(lost["kind"]),
        "issues occur more than once": set(issues.filter(issues.select("kind", "image_id").is_duplicated())["kind"]),
        "issues differ from the scores of their measurements": {
            kind for kind in thresholds if not again.filter(kind=kind).equals(issues.filter(kind=kind))
        },
        "issues are of a kind that the lake does not list": set(issues["kind"]) - set(units),
    }
    faults = [
        Fault("law", text, "issues", "", {"kind": kind}) for text, kinds in wrong.items() for kind in sorted(kinds)
    ]
    return LawResult(len(issues), faults)


def splits_name_images(lake: Lake) -> LawResult:
    """Check that every row of a split is an image of the lake, and that ranks count from 0 without a gap."""
    rows = lake.scan("splits").select("split_name", "role", "rank", "image_id").collect()
    lost = rows.lazy().join(lake.scan("images").select("image_id"), on="image_id", how="anti").collect()
    faults = [
        _law("its images are not in the lake", "splits", {"split_name": name}, count)
        for name, count in lost.group_by("split_name").len().sort("split_name").rows()
    ]
    ranks = rows.group_by("split_name", "role").agg(whole=(pl.col("rank").sort() == pl.int_range(pl.len())).all())
    faults += [
        Fault("law", f"split '{name}': the ranks of {role} have gaps", "splits", "", {"split_name": name})
        for name, role in ranks.filter(~pl.col("whole")).select("split_name", "role").sort(pl.all()).rows()
    ]
    return LawResult(len(rows), faults)


def no_cluster_straddles(lake: Lake) -> LawResult:
    """Law 4: in a sanitized split, no cluster of its rules has kept rows in two roles, except of protected datasets.

    The same holds for every value of the attributes in its groups.

    If the clusters of a rule are not stored, they are linked from the stored pairs of a rule with a lower threshold.
    """
    units = lake.snapshot.metadata("clusters").units
    specs = {name: unit["spec"] for name, unit in lake.snapshot.metadata("splits").units.items()}
    faults = []
    datasets = lake.scan("images").select("image_id", "dataset", "path")
    kept = lake.scan("splits").filter("kept").select("split_name", "image_id", "role")
    for name, spec in sorted(specs.items()):
        safe = pl.col("dataset").is_in(spec.get("protected", []))
        for rule in dict.fromkeys([*spec["sanitize"], *spec.get("groups", [])]):
            linked = (
                linked_by(lake, rule, units)
                .join(datasets, on="image_id")
                .join(kept.filter(split_name=name), on="image_id")
            )
            over = (
                linked.group_by("cluster_id")
                .agg(roles=pl.col("role").n_unique(), protected=safe.all())
                .filter((pl.col("roles") > 1) & ~pl.col("protected"))
                .select("cluster_id")
                .collect()
            )
            if len(over):
                of_first = linked.join(over.sort("cluster_id").head(1).lazy(), on="cluster_id")
                one_a_role = of_first.sort("role", "path", "image_id").unique("role", keep="first", maintain_order=True)
                rows = one_a_role.select("cluster_id", "path", "role").collect().rows()
                images = " and ".join(f"{path} ({role})" for _, path, role in rows)
                is_value = attribute_of(rule) is not None
                what, which = ("values of", f"{rows[0][0]}: ") if is_value else ("clusters of rule", "")
                text = (
                    f"split '{name}': {len(over):,} {what} {rule} have kept rows in two roles, such as {which}{images}"
                )
                faults.append(Fault("law", text, "splits", "", {"split_name": name}))
    return LawResult(len(specs), faults)


def roles_are_in_order(lake: Lake) -> LawResult:
    """Check that the roles of a split with `order` are in the order of its attribute.

    No image of a role is earlier than the latest of the roles before it, except as many as the build counted, because
    their groups stay whole.
    """
    units = lake.snapshot.metadata("splits").units
    checked, faults = 0, []
    for name, unit in sorted(units.items()):
        attribute = attribute_of(unit["spec"].get("order") or "")
        if attribute is None:
            continue
        values = linked_by(lake, f"attr:{attribute}", {}).group_by("image_id").agg(value=pl.max("cluster_id"))
        valued = lake.scan("splits").filter(split_name=name).join(values, on="image_id").drop_nulls("value")
        rows = valued.select("image_id", "role", "value").collect()
        checked += len(rows)
        for number, role in enumerate(ROLES):
            latest: Any = rows.filter(pl.col("role").is_in(ROLES[:number]))["value"].max()
            early = (
                rows.filter(pl.col("role") == role, pl.col("value") < latest) if latest is not None else rows.clear()
            )
            counted = unit.get("early", {}).get(role, 0)
            if len(early) != counted:
                first = early.sort("value", "image_id").head(1).lazy().join(lake.scan("images"), on="image_id")
                such = [f", such as {path} ({value})" for path, value in first.select("path", "value").collect().rows()]
                text = (
                    f"split '{name}': {len(early):,} images of {role} have a smaller {attribute} than the largest of "
                    f"the roles before it ({latest}){''.join(such)}; the build counted {counted:,}"
                )
                faults.append(Fault("law", text, "splits", "", {"split_name": name}))
    return LawResult(checked, faults)


def linked_by(lake: Lake, rule: str, units: Mapping[str, Mapping[str, Any]]) -> pl.LazyFrame:
    """Return what an entry of `sanitize` or `groups` links: columns cluster_id, which may be a value, and image_id."""
    if (attribute := attribute_of(rule)) is not None:
        rows = lake.scan("attributes").filter(pl.col("name") == attribute)
        if attribute in EXIF and rows.select(pl.len()).collect().item() == 0:
            return lake.scan("originals").select("image_id", cluster_id=attribute).drop_nulls()
        # As float, 1 is 1.0: an attribute may have another type in another dataset.
        kinds = sorted(set(rows.select("type").collect()["type"])) or ["text"]
        return rows.select("image_id", cluster_id=from_text(pl.col("value"), common_type(kinds))).drop_nulls()
    stored = find_stored_rule(rule, units)
    scan = partial(_scan_rule, lake)
    clusters = read_clusters(stored, lambda table, of: scan(of, table), resolve(lake.snapshot).decided)
    return clusters.select("cluster_id", "image_id")


def _scan_rule(lake: Lake, rule: str, table: str) -> pl.LazyFrame:
    return lake.scan(table).filter(rule=rule)


def verdicts_are_honoured(lake: Lake) -> LawResult:
    """Check that every verdict is possible, and that splits drop and label what people decided."""
    rows = committed_verdicts(lake.snapshot)
    wrong = sum(bool(fault_of(row)) for row in rows.filter(pl.col("verdict") != WITHDRAWN).iter_rows(named=True))
    faults = [_law("rows are no possible verdicts", "verdicts", {}, wrong)] if wrong else []
    pictures = resolve(lake.snapshot).pictures
    if len(pictures):
        splits = lake.scan("splits").join(pictures.lazy(), on="image_id")
        labelled = pl.col("verdict").is_in(["label", "wrong_label"])
        kept = (pl.col("verdict") == "drop") & pl.col("kept")
        other_label = labelled & (
            pl.col("label").ne_missing(pl.col("corrected_label")) | pl.col("label_reason").is_null()
        )
        disobeyed = splits.filter(kept | other_label).group_by("split_name").len().sort("split_name").collect()
        text = "rows are kept or labelled against a verdict"
        faults += [_law(text, "splits", {"split_name": name}, count) for name, count in disobeyed.rows()]
    return LawResult(len(rows), faults)


def predictions_follow_splits(lake: Lake) -> LawResult:
    """Check that every prediction is of an image of its split and role, by a model that the lake keeps."""
    key = ["split_name", "role", "image_id"]
    predictions = lake.scan("predictions").select("run_id", "predicted", *key).collect()
    lost = predictions.lazy().join(lake.scan("splits").select(key), on=key, how="anti").collect()
    models = lake.scan("models").select("run_id", predicted="classes").explode("predicted").unique().collect()
    unknown = predictions.join(models, on=["run_id", "predicted"], how="anti")
    faults = [
        _law(text, "predictions", {"split_name": name}, count)
        for text, rows in (
            ("predictions are of images that are not in their split", lost),
            ("predictions are of a class that no model of their run has", unknown),
        )
        for name, count in rows.group_by("split_name").len().sort("split_name").rows()
    ]
    return LawResult(len(predictions), faults)


def drops_have_reasons(lake: Lake) -> LawResult:
    """Law 8: every dropped row names the rule or issue, why, and the image it was dropped for, if there is one."""
    dropped = lake.scan("splits").filter(~pl.col("kept"))
    # A verdict or an issue is of the image alone.
    no_image = pl.col("dropped_for").is_null() & ~pl.col("reason").is_in([VERDICT, "issue"])
    incomplete = dropped.filter(pl.any_horizontal(pl.col("dropped_by", "reason").is_null(), no_image))
    faults = [
        _law("dropped rows do not name their rule, their image or their reason", "splits", {"split_name": name}, count)
        for name, count in incomplete.group_by("split_name").len().sort("split_name").collect().rows()
    ]
    return LawResult(dropped.select(pl.len()).collect().item(), faults)


def check_releases(snapshot: Snapshot) -> Check:
    """Compare the versions in every row of releases with those that its commit records.

    Args:
        snapshot: of the lake; the log of its releases is whole.

    Raises:
        StorageError: a bucket does not answer.
    """
    recorded = recorded_versions(snapshot)
    parts = snapshot.files("releases")
    faults = [
        fault for part in parts for fault in _release_faults(TableFile(snapshot.place, "releases", part), recorded)
    ]
    return Check(RELEASES_CHECK, sum(part.rows for part in parts), faults)


def _release_faults(file: TableFile, recorded: Mapping[int, Mapping[str, int]]) -> Iterator[Fault]:
    unreadable: list[Fault] = []
    wrong: list[int] = []
    for rows in read_row_groups(file, unreadable):
        for row in rows.select(["release", "versions"]).to_pylist():
            versions = {item["table"]: item["version"] for item in row["versions"] or ()}
            if recorded.get(row["release"]) != versions:
                wrong.append(row["release"])
    # Files that cannot be read are listed by the check of all files.
    if wrong and not unreadable:
        listed = ", ".join(map(str, wrong))
        yield file.fault(
            "changed", f"release {listed}: its versions differ from those that its commit records", len(wrong)
        )


def _law(text: str, table: str, partition: Mapping[str, str], rows: int) -> Fault:
    return Fault("law", text, table, "", partition, rows)

"""The laws that tables must keep, checked from ids and labels alone: no pixel is read."""

from collections.abc import Iterator, Mapping

import polars as pl

from pipeline.builder.clusters import clusters_of, find_stored, links_of
from pipeline.dedup.clusters import cluster_by_keys
from pipeline.dedup.components import link
from pipeline.lake.rewrite import recorded_versions
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.verify.faults import Check, Fault, Held
from pipeline.verify.parquet_file import Named, read_through

_FROM = {"keys": "index"}


def every_file_is_counted(lake: Lake) -> Held:
    """Law 1: what the shards table counts is what images and rejects hold."""
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
            dict(zip(key, of, strict=True)),
            n,
        )
        for *of, n in wrong.select(*key, "images").rows()
    ]
    return Held(
        int(shards.select(pl.sum("rows") + pl.sum("rejects")).item() or 0),
        faults,
    )


def ids_are_unique(lake: Lake) -> Held:
    """Law 1: no two images have one id."""
    ids = lake.scan("images").select("image_id").collect().to_series()
    twice = len(ids) - ids.n_unique()
    faults = [_law("ids occur more than once", "images", {}, twice)] if twice else []
    return Held(len(ids), faults)


def clusters_follow_from_index(lake: Lake) -> Held:
    """Group the index again, link the pairs again, and compare with the clusters."""
    clusters = lake.scan("clusters").collect()
    faults = []
    for rule, unit in sorted(lake.snapshot.metadata("clusters").units.items()):
        method = unit.get("spec", ["", "", "keys"])[2]
        found = clusters.filter(rule=rule)
        if method == "keys":
            same = cluster_by_keys(lake.scan("index").filter(rule=rule)).collect().equals(found)
        else:
            links = links_of(rule, lambda table: lake.scan(table).filter(rule=rule))  # noqa: B023 - called at once
            same = link(links, method).equals(found.select("cluster_id", "image_id"))
        text = f"clusters of rule {rule} differ from those of its {_FROM.get(method, 'pairs')}"
        faults += [] if same else [Fault("law", text, "clusters", "", {"rule": rule})]
    return Held(len(clusters), faults)


def pairs_are_of_images(lake: Lake) -> Held:
    """Every pair is of two different images of the lake, the smaller id first, and is there once."""
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
        "pairs are there twice": pairs.filter(pairs.is_duplicated()),
    }
    faults = [
        _law(text, "pairs", {"rule": rule}, count)
        for text, rows in {**lost, **wrong}.items()
        for rule, count in rows.group_by("rule").len().sort("rule").rows()
    ]
    return Held(len(pairs), faults)


def splits_name_images(lake: Lake) -> Held:
    """Every row of a split is an image of the lake, and ranks count from 0 without a gap."""
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
    return Held(len(rows), faults)


def no_cluster_straddles(lake: Lake) -> Held:
    """Law 4: in a sanitized split no cluster of the chosen rules has kept rows in two roles, but for protected ones.

    Clusters of a threshold that is not stored are linked from the pairs of the lower one that is.
    """
    units = lake.snapshot.metadata("clusters").units
    specs = {name: unit["spec"] for name, unit in lake.snapshot.metadata("splits").units.items()}
    faults = []
    datasets = lake.scan("images").select("image_id", "dataset")
    kept = lake.scan("splits").filter("kept").select("split_name", "image_id", "role")
    for name, spec in sorted(specs.items()):
        safe = pl.col("dataset").is_in(spec.get("protected", []))
        for rule in dict.fromkeys([*spec["sanitize"], *spec.get("groups", [])]):
            over = (
                clusters_of(find_stored(rule, units), lambda table, of: lake.scan(table).filter(pl.col("rule") == of))
                .select("cluster_id", "image_id")
                .join(datasets, on="image_id")
                .join(kept.filter(split_name=name), on="image_id")
                .group_by("cluster_id")
                .agg(roles=pl.col("role").n_unique(), protected=safe.all())
                .filter((pl.col("roles") > 1) & ~pl.col("protected"))
                .collect()
            )
            if len(over):
                text = f"split '{name}': {len(over)} clusters of rule {rule} have kept rows in two roles"
                faults.append(Fault("law", text, "splits", "", {"split_name": name}))
    return Held(len(specs), faults)


def drops_have_reasons(lake: Lake) -> Held:
    """Law 8: every dropped row names the rule, the image it was dropped for, and why."""
    dropped = lake.scan("splits").filter(~pl.col("kept"))
    bare = dropped.filter(pl.any_horizontal(pl.col("dropped_by", "dropped_for", "reason").is_null()))
    faults = [
        _law("dropped rows do not name their rule, their image or their reason", "splits", {"split_name": name}, count)
        for name, count in bare.group_by("split_name").len().sort("split_name").collect().rows()
    ]
    return Held(
        dropped.select(pl.len()).collect().item(),
        faults,
    )


def _law(text: str, table: str, partition: Mapping[str, str], rows: int) -> Fault:
    return Fault("law", text, table, "", partition, rows)


RELEASES_CHECK = "releases are what their commits tell"


def releases_match_commits(snapshot: Snapshot) -> Check:
    """Compare the versions in every row of releases with those that its commit records.

    Args:
        snapshot: of the lake; the log of its releases is whole.
    """
    recorded = recorded_versions(snapshot)
    parts = snapshot.files("releases")
    faults = [fault for part in parts for fault in _faults_of(Named(snapshot.place, "releases", part), recorded)]
    return Check(RELEASES_CHECK, sum(part.rows for part in parts), faults)


def _faults_of(file: Named, recorded: Mapping[int, Mapping[str, int]]) -> Iterator[Fault]:
    unread: list[Fault] = []
    wrong: list[int] = []
    for rows in read_through(file, unread):
        for row in rows.select(["release", "versions"]).to_pylist():
            held = {item["table"]: item["version"] for item in row["versions"] or ()}
            if recorded.get(row["release"]) != held:
                wrong.append(row["release"])
    # Rows that cannot be read are listed by the check of all files; here, rows that can be read and are wrong.
    if wrong and not unread:
        listed = ", ".join(map(str, wrong))
        yield file.fault("changed", f"release {listed}: other versions than its commit tells", len(wrong))

"""Laws that can be checked at rest from ids and labels alone: no pixel is read."""

import polars as pl

from pipeline.dedup.clusters import cluster_by_keys
from pipeline.dedup.linked import link
from pipeline.flow.links import links_of
from pipeline.flow.verify.check import MOST, Check
from pipeline.handle import Lake
from pipeline.lake.commits import read_meta

_FROM = {"keys": "index"}


def every_file_is_counted(lake: Lake) -> Check:
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
        f"{d}/{s} shard {shard}: counts of images and rejects differ from its row"
        for d, s, shard in wrong.select(key).head(MOST).rows()
    ]
    return Check(
        "every file is one image or one reject",
        int(shards.select(pl.sum("rows") + pl.sum("rejects")).item() or 0),
        faults,
    )


def ids_are_unique(lake: Lake) -> Check:
    """Law 1: no two images have one id."""
    ids = lake.scan("images").select("image_id").collect().to_series()
    twice = len(ids) - ids.n_unique()
    return Check("image ids are unique", len(ids), [f"{twice} ids occur more than once"] if twice else [])


def clusters_follow_from_index(lake: Lake) -> Check:
    """Group the index again, link the pairs again, and compare with the clusters."""
    clusters = lake.scan("clusters").collect()
    faults = []
    for rule, unit in sorted(read_meta(lake.root, "clusters", lake.versions["clusters"]).units.items()):
        method = unit.get("spec", ["", "", "keys"])[2]
        found = clusters.filter(rule=rule)
        if method == "keys":
            same = cluster_by_keys(lake.scan("index").filter(rule=rule)).collect().equals(found)
        else:
            links = links_of(rule, lambda table: lake.scan(table).filter(rule=rule))  # noqa: B023 - called at once
            same = link(links, method).equals(found.select("cluster_id", "image_id"))
        faults += [] if same else [f"clusters of rule {rule} differ from those of its {_FROM.get(method, 'pairs')}"]
    return Check("clusters follow from index and pairs", len(clusters), faults)


def pairs_are_of_images(lake: Lake) -> Check:
    """Every pair is of two different images of the lake, the smaller id first, and is there once."""
    pairs = lake.scan("pairs").select("rule", "left_id", "right_id").collect()
    ids = lake.scan("images").select("image_id").collect()
    faults = []
    for side in ("left_id", "right_id"):
        lost = len(pairs.join(ids, left_on=side, right_on="image_id", how="anti"))
        faults += [f"{lost} pairs name an image in {side} that is not in the lake"] if lost else []
    wrong = pairs.select((pl.col("left_id") >= pl.col("right_id")).sum()).item()
    twice = len(pairs) - pairs.n_unique()
    faults += [f"{wrong} pairs do not have the smaller id first"] if wrong else []
    faults += [f"{twice} pairs are there twice"] if twice else []
    return Check("pairs are of two images of the lake, each once", len(pairs), faults)


def splits_name_images(lake: Lake) -> Check:
    """Every row of a split is an image of the lake, and ranks count from 0 without a gap."""
    rows = lake.scan("splits").select("split_name", "role", "rank", "image_id").collect()
    lost = rows.lazy().join(lake.scan("images").select("image_id"), on="image_id", how="anti").collect()
    faults = [
        f"split '{name}': {count} of its images are not in the lake"
        for name, count in lost.group_by("split_name").len().sort("split_name").rows()
    ]
    ranks = rows.group_by("split_name", "role").agg(whole=(pl.col("rank").sort() == pl.int_range(pl.len())).all())
    faults += [
        f"split '{name}': the ranks of {role} have gaps"
        for name, role in ranks.filter(~pl.col("whole")).select("split_name", "role").sort(pl.all()).rows()
    ]
    return Check("splits name images of the lake", len(rows), faults)


def no_cluster_straddles(lake: Lake) -> Check:
    """Law 4: in a sanitized split no cluster of the chosen rules has kept rows in two roles, but for protected ones."""
    specs = {name: unit["spec"] for name, unit in read_meta(lake.root, "splits", lake.versions["splits"]).units.items()}
    faults = []
    kept = lake.scan("splits").filter("kept").select("split_name", "image_id", "role")
    for name, spec in sorted(specs.items()):
        safe = pl.col("dataset").is_in(spec.get("protected", []))
        for rule in dict.fromkeys([*spec["sanitize"], *spec.get("groups", [])]):
            over = (
                lake.scan("clusters")
                .filter(pl.col("rule") == rule)
                .join(kept.filter(split_name=name), on="image_id")
                .group_by("cluster_id")
                .agg(roles=pl.col("role").n_unique(), protected=safe.all())
                .filter((pl.col("roles") > 1) & ~pl.col("protected"))
                .collect()
            )
            if len(over):
                faults.append(f"split '{name}': {len(over)} clusters of rule {rule} have kept rows in two roles")
    return Check("no cluster straddles two roles of a sanitized split", len(specs), faults)


def drops_have_reasons(lake: Lake) -> Check:
    """Law 8: every dropped row names the rule, the image it was dropped for, and why."""
    dropped = lake.scan("splits").filter(~pl.col("kept"))
    bare = dropped.filter(pl.any_horizontal(pl.col("dropped_by", "dropped_for", "reason").is_null()))
    count = bare.select(pl.len()).collect().item()
    return Check(
        "every dropped row names its rule, its image and its reason",
        dropped.select(pl.len()).collect().item(),
        [f"{count} rows do not"] if count else [],
    )

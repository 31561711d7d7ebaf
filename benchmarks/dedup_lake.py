"""Lakes for `dedup.py`: overlap from stored tables, and the cost of adding a source."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from dedup_brute import Pixels, dense_sign, md5_set, md5_where
from figures import Figure, ratio, seconds
from lake_builds import Build, build, write_recipe

from pipeline.dedup.clusters import cluster_by_keys, overlap_matrix
from pipeline.lake_handle import Lake

RULES = ("exact", "sign")
COMPARED = ("exact", "cosine:0.95", "hamming:6")
_MOST = 0.2

SPLIT = """
[[split]]
name = "main"
seed = 1
train = {{ from = "train", size = {train} }}
test = {{ from = "test", size = {test} }}
"""


def overlap_at_rest(root: Path, runs: int) -> tuple[list[Figure], list[str]]:
    """Find the overlap of test with train from tables on disk, and by other ways from arrays in memory."""
    lake = Lake(root)
    figures: list[Figure] = []
    differences: list[str] = []
    train, test = (lake.arrays("main", role, sanitized=False)[0] for role in ("train", "test"))
    part = f"overlap of {len(train):,} against {len(test):,}"
    counts = {}
    for rule in RULES:
        rested, whole = [], []
        for _ in range(max(runs, 3)):
            started = time.perf_counter()
            counts[rule] = _from_clusters(lake, rule)
            rested.append(time.perf_counter() - started)
            started = time.perf_counter()
            again = _from_index(lake, rule)
            whole.append(time.perf_counter() - started)
            if again != counts[rule]:
                differences.append(f"{rule}: the index gives {again}, the clusters {counts[rule]}")
        figures.append(seconds(part, f"{rule}, from clusters at rest: {counts[rule]:,} in train", rested, most=_MOST))
        figures.append(seconds(part, f"{rule}, from the index at rest, whole lake clustered anew", whole))
    for name, rule, way in (
        ("dense ratio of inner products", "sign", dense_sign),
        ("MD5 and np.where", "exact", md5_where),
        ("MD5 and a set", "exact", md5_set),
    ):
        started = time.perf_counter()
        found = way(_flat(train), _flat(test))
        other = seconds(part, f"{name}, from arrays in memory", [time.perf_counter() - started])
        sys.stderr.write(f"bench: {name}: {other.value:.2f} s\n")
        figures += [other, ratio(other, figures[2 * RULES.index(rule)], f"  / {rule} from clusters")]
        if found != counts[rule]:
            differences.append(f"{name} finds {found}, {rule} {counts[rule]}")
    return figures, differences


def _from_clusters(lake: Lake, rule: str) -> int:
    members = lake.scan("splits").filter(split_name="main").select("image_id", "role")
    return _count(overlap_matrix(lake.scan("clusters").filter(rule=rule), members))


def _from_index(lake: Lake, rule: str) -> int:
    members = lake.scan("splits").filter(split_name="main").select("image_id", "role")
    return _count(overlap_matrix(cluster_by_keys(lake.scan("index").filter(rule=rule)), members))


def _count(matrix: pl.DataFrame) -> int:
    return int(matrix.filter(role="test", other="train")["images"].sum())


def _flat(pixels: np.ndarray) -> Pixels:
    return np.ascontiguousarray(pixels.reshape(len(pixels), -1))


def add(drawn: Path, archive: Path, runs: int) -> tuple[list[Figure], list[str]]:
    """Add an archive to copies of a big lake, into an empty lake, and build both together from nothing, in turn."""
    added, alone, together, pairs = [], [], [], []
    with TemporaryDirectory(prefix="imagelake-bench-") as folder:
        big = write_recipe(Path(folder, "big"), [drawn], COMPARED)
        first = build(big)
        for number in range(runs):
            copy = Path(folder, f"copy-{number}")
            shutil.copytree(big.parent, copy)
            added.append(build(write_recipe(copy, [drawn, archive], COMPARED)))
            alone.append(build(write_recipe(Path(folder, f"alone-{number}"), [archive], COMPARED)))
            together.append(build(write_recipe(Path(folder, f"both-{number}"), [drawn, archive], COMPARED)))
            pairs.append([_pairs(Path(folder, f"{name}-{number}")) for name in ("copy", "both")])
            for name in ("copy", "alone", "both"):
                shutil.rmtree(Path(folder, f"{name}-{number}"))
    new = alone[0].files
    part = f"adding {new:,} files to {first.files:,}, rules {', '.join(COMPARED)}"
    both = seconds(part, "added to the lake", _times(added))
    empty = seconds(part, "into an empty lake", _times(alone))
    nothing = seconds(part, "both together from nothing", _times(together))
    share = new / (new + first.files)
    figures = [
        seconds(part, "the big lake alone, once", [first.seconds]),
        both,
        empty,
        nothing,
        ratio(both, empty, "added / into an empty lake"),
        ratio(both, nothing, f"added / from nothing (the share of new files is {share:.3f})"),
    ]
    return figures, [] if all(one == two for one, two in pairs) else ["added and from nothing give other pairs"]


def _times(builds: Sequence[Build]) -> list[float]:
    sys.stderr.write(f"bench: {median(one.seconds for one in builds):.2f} s\n")
    return [one.seconds for one in builds]


def _pairs(folder: Path) -> int:
    rows = Lake(folder / "lake").scan("pairs").select("rule", "left_id", "right_id", "score").collect()
    return int(rows.hash_rows(seed=1).sort().hash().sum()) + len(rows)

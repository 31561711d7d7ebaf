"""What is made of images, and hurt: taken out of its tables, so that the build makes it again."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pipeline.dedup.rules import parse_rule
from pipeline.flow.repair.hurt import Hurt
from pipeline.flow.state import DAMAGED, SHARD_KEY, Todo
from pipeline.flow.verify.check import Fault
from pipeline.flow.verify.whole import Named, read_through
from pipeline.lake.commits import files, metas, read_meta
from pipeline.lake.mending import drop_files, replace_rows, whole_rows
from pipeline.lake.parts import Part

_MADE = ("pairs", "clusters", "splits")


def drop_index(hurt: Hurt, lost: set[tuple[str, ...]]) -> list[Todo]:
    """Take hurt files out of the index whose images are whole: the build indexes these again.

    Args:
        hurt: what is hurt.
        lost: shards whose images are hurt for good: their index stays as it is.
    """
    there = hurt.still("index")
    gone = [
        part
        for part in files(hurt.root, "index")
        if part.path in there and tuple(part.partition[name] for name in SHARD_KEY) not in lost
    ]
    if gone:
        drop_files(hurt.root, "index", [part.path for part in gone])
    return [
        Todo(
            "repair", f"index by {p['rule']} of {p['dataset']}/{p['split']} shard {p['shard']}", "made from its images"
        )
        for p in [part.partition for part in gone] + [fault.partition for fault in hurt.faults if _lacks(fault)]
    ]


def _lacks(fault: Fault) -> bool:
    """Tell whether images have no index at all: the build makes one."""
    return fault.table == "index" and not fault.file and bool(fault.partition)


def drop_made(hurt: Hurt, *, every: bool, images_stay: bool) -> tuple[list[Todo], list[str]]:
    """Take hurt files out of pairs, clusters, splits and bases, and note that they are to be made again.

    Args:
        hurt: what is hurt.
        every: make all of pairs, clusters and splits again, as the images are not known to be what they were.
        images_stay: whether some images stay hurt. Then only clusters by keys can be made again.

    Returns:
        What is made again and the build does not tell of; what stays hurt, and why.
    """
    done: list[Todo] = []
    stays: list[str] = []
    blocked = {part.partition["rule"] for part in files(hurt.root, "index") if part.path in hurt.still("index")}
    for table in _MADE:
        units = read_meta(hurt.root, table).units
        wanted = set(units) if every else hurt.units.get(table, set()) & set(units)
        can = {unit for unit in wanted if not images_stay or (table == "clusters" and _by_keys(unit, blocked))}
        stays += [
            f"{table} of {unit}: cannot be made again before the images are back" for unit in sorted(wanted - can)
        ]
        if can:
            _note(hurt, table, units, can)
        if table == "pairs":
            done += [Todo("repair", f"pairs of {rule}", "found again") for rule in sorted(can)]
    if hurt.still("bases") and not images_stay:
        replace_rows(hurt.root, "bases", whole_rows(hurt.root, "bases", hurt.of("bases")), {})
        done.append(Todo("repair", "bases", "fitted again to the images that there are"))
    return done, stays


def _by_keys(rule: str, blocked: set[str]) -> bool:
    return parse_rule(rule).comparison is None and rule not in blocked


def _note(hurt: Hurt, table: str, units: Mapping[str, Any], wanted: set[str]) -> None:
    paths, still = sorted(hurt.of(table)), hurt.still(table)
    noted = {unit: _forgotten(table, held, paths) if unit in wanted else held for unit, held in units.items()}
    there = [part for part in files(hurt.root, table) if part.path in still]
    drop_files(hurt.root, table, [part.path for part in there if set(part.partition.values()) <= wanted], noted)


def _forgotten(table: str, held: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Note of a unit that its files are damaged; of pairs and clusters nothing is gone on from, so how is forgotten."""
    kept = {key: value for key, value in held.items() if key != "spec" or table == "splits"}
    return {**kept, DAMAGED: paths}


def restore_scores(hurt: Hurt, asked: set[str]) -> tuple[list[Todo], list[str]]:
    """Read hurt scores and misses back from older versions of their tables; runs that have none are forgotten.

    Args:
        hurt: what is hurt.
        asked: runs that the recipe names: these can be made again.

    Returns:
        What was done; and what is lost, and why.
    """
    tables = [name for name in ("misses", "scores") if hurt.still(name)]
    if not tables:
        return [], []
    units = read_meta(hurt.root, "scores").units
    ids = {name: unit["fingerprint"] for name, unit in units.items()}
    found = {table: _older_rows(hurt, table, set(ids.values())) for table in tables}
    back = {name for name, run in ids.items() if all(run in rows for rows in found.values())}
    # A run that nobody asks for any more is not trained again: of it, what is whole stays.
    stay = back | (set() if "scores" in tables else set(ids) - asked)
    for table in tables:
        rows = [of for run, of in found[table].items() if run in {ids[name] for name in back}]
        replace_rows(
            hurt.root, table, pl.concat([whole_rows(hurt.root, table, hurt.of(table)), *rows]), _of(units, stay)
        )
    if "scores" not in tables and stay != set(units):
        drop_files(hurt.root, "scores", [], _of(units, stay))
    lost = " and ".join(tables)
    why = "no older version has them, and the recipe does not name the run, so that it is not trained again"
    done = [Todo("repair", f"{lost} of {name}", "read back from an older version") for name in sorted(back)]
    return done, [f"{lost} of {name} are lost: {why}" for name in sorted(set(units) - back - asked)]


def _of(units: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: unit for name, unit in units.items() if name in names}


def _older_rows(hurt: Hurt, table: str, runs: set[str]) -> dict[str, pl.DataFrame]:
    """By run, its rows, from the newest version whose files are whole and that tells of it."""
    found: dict[str, pl.DataFrame] = {}
    for version, meta in metas(hurt.root, table):
        there = {unit["fingerprint"] for unit in meta.units.values()} & runs - set(found)
        parts = files(hurt.root, table, version) if there else []
        if there and not any(part.path in hurt.of(table) or not _is_whole(hurt.root, table, part) for part in parts):
            rows = whole_rows(hurt.root, table, (), version)
            found |= {run: rows.filter(run_id=run) for run in there}
    return found


def _is_whole(root: str, table: str, part: Part) -> bool:
    faults: list[Fault] = []
    for _ in read_through(Named(root, table, part), faults):
        pass
    return not faults

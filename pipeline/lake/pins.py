"""Pins: who names a release, so that vacuum does not give it up: exports, and scores."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

import schemas
from pipeline.lake.commits import Meta, commit
from pipeline.lake.parts import write_part
from pipeline.lake.reading import scan_table
from pipeline.lake.releases import list_releases


def register_export(root: str, row: Mapping[str, Any]) -> None:
    """Add a row to `exports`: from then on its release is pinned.

    Args:
        root: the lake's folder, locked.
        row: the columns of the table, but for `created_at`.
    """
    made = {**row, "created_at": datetime.now(UTC)}
    part = write_part(root, "exports", {}, pa.Table.from_pylist([made], schema=schemas.TABLES["exports"].schema))
    commit(root, "exports", [part] if part else [], lambda _: False, Meta("export"))


def find_pins(root: str, stay: Collection[int]) -> dict[int, list[str]]:
    """Tell which releases are named by what stays, and by what.

    Every export counts, and the scores of every release that stays; a release that these name stays too, and so its own
    scores count. Only so can each value that any remaining release shows be looked into.

    Args:
        root: the lake's folder.
        stay: releases that stay anyway.

    Returns:
        By release, of those there are, who names it: `scores of 4`, `export of main as npz to /data/x`. A release does
        not pin itself.
    """
    held = {
        number: {item["table"]: item["version"] for item in listed}
        for number, listed in list_releases(root).select("release", "versions").rows()
    }
    pins: dict[int, list[str]] = {}
    for number, split, form, target in _exports(root):
        if number in held:
            pins.setdefault(number, []).append(f"export of {split} as {form} to {target}")
    waiting = sorted({number for number in stay if number in held} | set(pins))
    seen = set(waiting)
    for number in waiting:
        for named in _scored(root, held[number].get("scores")) & set(held) - {number}:
            pins.setdefault(named, []).append(f"scores of {number}")
            if named not in seen:
                seen.add(named)
                # The list grows while it is gone through: what is pinned pins in turn.
                waiting.append(named)
    return {number: pins[number] for number in sorted(pins)}


def _exports(root: str) -> list[tuple[int, str, str, str]]:
    columns = ("release", "split_name", "form", "target")
    return scan_table(root, "exports", None).select(columns).unique().sort(columns).collect().rows()


def _scored(root: str, version: int | None) -> set[int]:
    if version is None:
        return set()
    return set(scan_table(root, "scores", version).select(pl.col("release").unique()).collect().to_series().to_list())

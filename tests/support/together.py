"""Run builds at the same time on one lake in a given order, and check the lake after them."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event
from typing import Any
from urllib.parse import unquote

import polars as pl
import pytest
import xxhash
from lakes import rows_by_content

import schemas
from pipeline import storage
from pipeline.builder.build import Built, build
from pipeline.engines.local import LocalEngine
from pipeline.errors import ImagelakeError
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.transaction import Transaction, transaction
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe

# Tables whose rows do not depend on the time or the number of the release.
SAME = ("images", "rejects", "shards", "index", "pairs", "clusters", "splits")
_LOG = re.compile(r"_delta_log/(\d{20}\.(json|crc|checkpoint\.parquet)|_last_checkpoint)")
_number: ContextVar[int] = ContextVar("number")


def in_turn(
    monkeypatch: pytest.MonkeyPatch,
    *calls: Callable[[], Any],
    between: Callable[[], object] = lambda: None,
    last_first: bool = False,
) -> list[Any]:
    """Run builds at the same time: they decode one after the other, then commit in the same order.

    Args:
        monkeypatch: pytest's.
        calls: the builds.
        between: called after each build has decoded, before the next one begins.
        last_first: commit in the opposite order.

    Returns:
        The result of each, or the error of imagelake that it raised.
    """
    came, ended = ([Event() for _ in calls] for _ in range(2))

    def before_the_lock() -> None:
        mine = _number.get()
        came[mine].set()
        _wait_for(*came, *(ended[mine + 1 :] if last_first else ended[:mine]))

    def run(number: int, call: Callable[[], Any]) -> Any:
        _number.set(number)
        if number:
            _wait_for(came[number - 1])
            between()
        try:
            return call()
        except ImagelakeError as error:
            return error
        finally:
            came[number].set()
            ended[number].set()

    with monkeypatch.context() as patch, ThreadPoolExecutor(len(calls)) as pool:
        patch.setattr("pipeline.builder.build.transaction", _writing_after(before_the_lock))
        return list(pool.map(run, range(len(calls)), calls))


def _wait_for(*events: Event) -> None:
    for event in events:
        assert event.wait(300), "a build does not go on"


def _writing_after(wait: Callable[[], None]) -> Callable[..., Any]:
    """Make a replacement of the lock that first waits."""

    @contextmanager
    def awaited(writer: Writer, on_wait: Callable[[], None] | None = None) -> Iterator[Transaction]:
        wait()
        with transaction(writer, on_wait) as lake:
            yield lake

    return awaited


def building(recipe: Recipe, *, prune: bool = False) -> Callable[[], Built]:
    """Make a function that builds with one worker process."""
    return lambda: build(recipe, engine=LocalEngine(1), prune=prune)


def rows_of(root: str, release: int | None = None, tables: Sequence[str] = SAME) -> dict[str, pl.DataFrame]:
    """Read tables of a release."""
    lake = Lake(root, release)
    return {name: lake.scan(name).collect() for name in tables}


def digest(lake: Lake) -> str:
    """Compute a digest of the rows of a release, in their order."""
    words = xxhash.xxh3_128()
    for name in SAME:
        words.update(lake.scan(name).collect().hash_rows(seed=1).to_numpy().tobytes())
    return words.hexdigest()


def differing(left: str, right: str) -> list[str]:
    """List the tables that differ between the newest releases of two lakes, whatever shards their images are in."""
    return [name for name in SAME if not rows_by_content(left, name).equals(rows_by_content(right, name))]


def left_over(root: str) -> list[str]:
    """List the files of a lake that no version of any table has, according to the logs of the tables."""
    named = {"report.html", ".lock"}
    there = set(storage.list_files(root))
    for name in schemas.TABLES:
        logs = {path for path in there if path.startswith(f"{name}/") and _LOG.fullmatch(path.removeprefix(f"{name}/"))}
        named |= logs
        for path in sorted(path for path in logs if path.endswith(".json") and path[-25:-5].isdigit()):
            lines = [json.loads(line) for line in storage.read(f"{root}/{path}").splitlines()]
            named |= {f"{name}/{unquote(line['add']['path'])}" for line in lines if "add" in line}
    return sorted(there - named)


def laws(lake: Lake) -> list[str]:
    """List the laws that a release breaks, as far as its tables show them. Reads every file of the release.

    Returns:
        A description of each fault; empty if there is none.
    """
    rows = {name: lake.scan(name).collect() for name in SAME}
    ids = rows["images"]["image_id"]
    shards = rows["shards"]
    wrong = []
    for table, column in (("images", "rows"), ("rejects", "rejects")):
        counted = shards.filter(pl.col(column) > 0).select("dataset", "split", "shard", pl.col(column).alias("n"))
        found = rows[table].group_by("dataset", "split", "shard").agg(n=pl.len().cast(pl.Int64))
        if not counted.sort(pl.all()).equals(found.select(counted.columns).sort(pl.all())):
            wrong.append(f"{table} are not those of the shards")
    if ids.is_duplicated().any():
        wrong.append("an id occurs twice")
    for table, column in (("index", "image_id"), ("clusters", "image_id"), ("splits", "image_id")):
        if not rows[table][column].is_in(ids.implode()).all():
            wrong.append(f"{table} names images that are not there")
    indexed = rows["index"].group_by("rule").agg(n=pl.col("image_id").n_unique())["n"]
    if len(indexed) and (indexed != len(ids)).any():
        wrong.append("a rule does not index every image")
    return wrong + _straddling(rows["splits"], rows["clusters"])


def _straddling(splits: pl.DataFrame, clusters: pl.DataFrame) -> list[str]:
    """Law 4, of splits that are sanitized by `exact`."""
    kept = splits.filter("kept").select("split_name", "role", "image_id")
    roles = kept.join(clusters.filter(rule="exact"), on="image_id").group_by("split_name", "cluster_id")
    torn = roles.agg(n=pl.col("role").n_unique()).filter(pl.col("n") > 1)
    return ["a cluster has kept rows in two roles"] if len(torn) else []

"""Make tables again whose folder or log is lost: they start empty, and the build fills them.

The versions of a table that is made again continue after all versions that any release or the lost log names. So an
older release never reads rows that came later: its version of the table is gone, and it is deleted.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import polars as pl

import schemas
from pipeline import storage
from pipeline.builder.state import COMMITTED_BEFORE_SHARDS, Todo, is_behind_shards, shards_digest
from pipeline.errors import LakeError, NewerLakeError, SourceError, StorageError
from pipeline.lake.delta_log import DeltaLog, Metadata
from pipeline.lake.delta_tables import create_table, open_table, set_log_aside
from pipeline.lake.releases import delete_releases, list_releases, stored_decode
from pipeline.lake.rewrite import required_tables
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, Transaction, all_files
from pipeline.recipe import Recipe
from pipeline.repair.reread import resolve_existing
from pipeline.repair.verdicts import write_readable_verdicts
from pipeline.verdicts.journal import TABLE

# Tables whose rows come from sources. All are read again if one of them is lost, except the index alone.
_INGESTED = (*COMMITTED_BEFORE_SHARDS, "shards")
_MISSING = "the table is missing"


def find_lost_tables(place: str, broken: Collection[str] = ()) -> dict[str, str]:
    """Find tables that a lake must have and that cannot be opened, or whose newest commit is missing.

    Args:
        place: the lake's place.
        broken: tables whose logs are known to be damaged.

    Returns:
        By table, why it is lost. Empty for a place without tables.

    Raises:
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    lost: dict[str, str] = {}
    existing = 0
    for table in schemas.TABLES:
        try:
            if open_table(place, table) is None:
                lost[table] = _MISSING
            else:
                existing += 1
        except (NewerLakeError, StorageError):
            raise
        except LakeError:
            lost[table] = "its log cannot be read"
    # The first commit of a lake creates the table of releases. Without a release, other tables may not exist yet.
    known = required_tables(Snapshot(place)) if "releases" not in lost else set(schemas.TABLES if existing else ())
    lost = {table: why for table, why in lost.items() if table in known or why != _MISSING}
    return lost | dict.fromkeys(_find_shortened(place, {*lost, *broken}), "its newest commit is missing")


def make_lost_tables(lake: Transaction, recipe: Recipe, lost: Mapping[str, str]) -> tuple[list[Todo], list[str]]:
    """Make lost tables again, empty, so that the build fills them.

    Args:
        lake: commits to the lake.
        recipe: the lake's recipe.
        lost: made by `find_lost_tables`.

    Returns:
        What was made again; what is lost for good.

    Raises:
        SourceError: images, rejects or shards are lost and a source cannot be found; nothing was changed. Originals
            alone then stay empty.
    """
    reread = [table for table in _INGESTED if table in lost and _comes_from_sources(lake, recipe, table)]
    lines: list[str] = []
    if reread:
        _, missing_sources = resolve_existing(recipe)
        if missing_sources and reread == ["originals"]:
            # The images are whole. Reading the other sources again would take these images out of the lake.
            uri, why = next(iter(missing_sources.items()))
            lines.append(f"originals: the table is lost, and stays empty because {uri} cannot be found ({why})")
            reread, missing_sources = [], {}
        for uri, why in missing_sources.items():
            raise SourceError(
                f"{lake.place}: the table {reread[0]} is lost, and all sources must be read again, but {uri} cannot be "
                f"found ({why}). Put the source back, or the table from a copy of the lake. Nothing was changed."
            )
    named = _newest_named_versions(lake.place, lost)
    for table in lost:
        log = DeltaLog(lake.place, table)
        first = max([*log.versions(), named.get(table, -1)]) + 1
        set_log_aside(log, f"{datetime.now(UTC):%Y%m%dT%H%M%S}")
        create_table(lake.place, table, first)
    lake.reopen()
    if reread:
        _forget_sources(lake)
    elif "index" in lost:
        digest = {"shards": {"fingerprint": shards_digest(lake.snapshot.scan("shards").collect())}}
        lake.commit(Commit("index", (), Metadata("repair", digest), all_files))
    if TABLE in lost and not write_readable_verdicts(lake):
        lines.append("verdicts: the table is lost. Import them from a copy: imagelake verdicts import")
    # Pairs by photo depend on the basis; misses and models are made with the scores of their run.
    for table, others in (
        ("bases", ("pairs", "clusters")),
        ("misses", ("scores",)),
        ("models", ("scores",)),
    ):
        for other in others if table in lost else ():
            lake.commit(Commit(other, (), Metadata("repair"), all_files))
    done = [Todo("repair", f"table {table}", f"made again, as {why}") for table, why in lost.items()]
    texts = {
        "releases": "releases: the list of releases is lost; their numbers start again from 1",
        "exports": "exports: the list of exports is lost; vacuum no longer keeps their releases",
    }
    return done, [*lines, *(text for table, text in texts.items() if table in lost)]


def _comes_from_sources(lake: Transaction, recipe: Recipe, table: str) -> bool:
    """Whether a table of `_INGESTED` can only be filled from the sources. A lake may have no originals at all."""
    if table == "originals":
        return (recipe.decode.originals or stored_decode(lake.snapshot).get("originals", "none")) != "none"
    return table != "index"


def delete_unreadable_releases(lake: Transaction, lost: Collection[str]) -> list[str]:
    """Delete the older releases that name a version of a lost table.

    Args:
        lake: commits to the lake, after the build has published a release.
        lost: the tables that were made again, or whose log starts later.

    Returns:
        A line that names them; empty if there are none.
    """
    first = {table: DeltaLog(lake.place, table).versions()[0] for table in lost if schemas.TABLES[table].released}
    unreadable = [
        number
        for number, versions in list_releases(lake.snapshot).select("release", "versions").rows()
        if any(item["version"] < first.get(item["table"], 0) for item in versions)
    ]
    if not unreadable:
        return []
    delete_releases(lake, unreadable)
    return [f"releases {', '.join(map(str, unreadable))} are lost: they need tables that were lost"]


def _find_shortened(place: str, lost: Collection[str]) -> list[str]:
    """Find tables whose newest commits are missing: a release names them, or the shards table was committed after."""
    named = _newest_named_versions(place, lost)
    snapshot = Snapshot(place)
    newest = {table: version for table, version in snapshot.versions.items() if table not in lost}
    shortened = [table for table, version in newest.items() if version < named.get(table, -1)]
    if "shards" in (*lost, *shortened):
        return shortened
    behind = [table for table in COMMITTED_BEFORE_SHARDS if table in newest and is_behind_shards(snapshot, table)]
    return [*shortened, *(table for table in behind if table not in shortened)]


def _forget_sources(lake: Transaction) -> None:
    """Empty the tables that come from sources, so that the build reads all sources again."""
    empty = pl.Schema(schemas.TABLES["shards"].schema).to_frame()
    digest = {"shards": {"fingerprint": shards_digest(empty)}}
    for table in _INGESTED:
        lake.commit(Commit(table, (), Metadata("repair", digest), all_files))


def _newest_named_versions(place: str, lost: Collection[str]) -> dict[str, int]:
    """Return, by table, the newest version that a release names; empty if the releases are lost."""
    if "releases" in lost:
        return {}
    named: dict[str, int] = {}
    listed: Sequence[list[dict[str, int]]] = []
    with suppress(LakeError), storage.damage_errors(f"{place}/releases"):
        listed = list_releases(Snapshot(place))["versions"].to_list()
    for versions in listed:
        for item in versions:
            named[str(item["table"])] = max(named.get(str(item["table"]), -1), item["version"])
    return named

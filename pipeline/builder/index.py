"""images -> index: index images under rules that are new, by their pixels or by vectors that the user brought.

The user's vectors -> index: rules named embedding:NAME:t are indexed from a file, not from pixels.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.builder.state import SHARD_KEY
from pipeline.builder.worker import ShardFile, index_shard
from pipeline.dedup.index import KEYS_VERSION, sort_index, table_of
from pipeline.dedup.rules import embedding, parse_rule
from pipeline.engines import Engine
from pipeline.errors import RecipeError, SourceError
from pipeline.hashing import digest_of
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit
from pipeline.progress import SILENT, Progress
from pipeline.recipe import EmbeddingPart, Recipe
from pipeline.sources.embeddings import read_embedding

Vectors = NDArray[np.float32]


class Embeddings(NamedTuple):
    """The files behind one name.

    Attributes:
        parts: the recipe's `[[embedding]]` of that name, with absolute paths.
        fingerprint: digest of what they say and of their files' sizes and times.
    """

    parts: tuple[EmbeddingPart, ...]
    fingerprint: str

    def covers(self, partition: Mapping[str, str]) -> bool:
        """Tell whether images of a shard have vectors here."""
        return any(
            part.dataset == partition["dataset"] and part.split in (None, partition["split"]) for part in self.parts
        )


def name_of(rule: str) -> str | None:
    """Name the embedding that a rule compares by; None for rules that read pixels."""
    comparison = parse_rule(rule).comparison
    return comparison.name if isinstance(comparison, embedding.Embedding) else None


def find_embeddings(snapshot: Snapshot, recipe: Recipe, rules: Iterable[str]) -> dict[str, Embeddings]:
    """By rule that compares by one, the embedding as the recipe, or else the lake, knows it.

    Raises:
        RecipeError: a rule names an embedding that neither knows.
    """
    named: dict[str, list[EmbeddingPart]] = {}
    for part in recipe.embedding:
        named.setdefault(part.name, []).append(_absolute(part, recipe.base))
    held = snapshot.metadata("index").units.get("embeddings", {}).get("parts", {})
    found = {}
    for rule, name in ((rule, name) for rule in rules if (name := name_of(rule))):
        parts = named.get(name) or [EmbeddingPart.model_validate(part) for part in held.get(name, ())]
        if not parts:
            raise RecipeError(f"rule '{rule}' compares by embedding '{name}', which no [[embedding]] defines.")
        found[rule] = Embeddings(tuple(parts), digest_of([_state(part) for part in parts]))
    return found


def compared_rules(rules: Iterable[str], found: Mapping[str, Embeddings]) -> dict[str, str]:
    """By rule that compares, the fingerprint of the vectors it compares by, where the user brought them."""
    return {rule: found[rule].fingerprint if rule in found else "" for rule in rules if parse_rule(rule).comparison}


def remembered(found: Mapping[str, Embeddings]) -> dict[str, Any]:
    """What the index keeps of embeddings: how to read them again, and by rule what was read."""
    parts = {found[rule].parts[0].name: [part.model_dump() for part in found[rule].parts] for rule in found}
    return {"parts": parts, "fingerprint": {rule: item.fingerprint for rule, item in found.items()}}


def index_embedding(  # noqa: PLR0913 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rule: str,
    found: Embeddings,
    lacking: Iterable[Mapping[str, str]],
    *,
    beside: bool,
) -> list[Part]:
    """Index shards by the user's vectors.

    Args:
        snapshot: of the lake.
        writer: writes the files.
        rule: the rule.
        found: the files of its embedding.
        lacking: shards to index.
        beside: whether what the index holds of the rule already stays.

    Raises:
        SourceError: a file cannot be read, an image of these shards has no vector, or vectors are of unlike length.
    """
    wanted = pl.DataFrame([dict(part) for part in lacking], schema=dict.fromkeys(SHARD_KEY, pl.String))
    made: list[Part] = []
    width = _width(snapshot, rule) if beside else None
    for part in found.parts:
        mine = wanted.filter(**({"dataset": part.dataset} | ({"split": part.split} if part.split else {})))
        if len(mine):
            read = read_embedding(part, Path())
            new = read[2].shape[1]
            if width not in (None, new):
                raise SourceError(
                    f"embedding '{part.name}': {part.uri} has vectors of {new} numbers, others of that name have "
                    f"{width}. Bring vectors of one model."
                )
            width = new
            made += _index_part(snapshot, writer, rule, part, mine, read)
    return made


def _width(snapshot: Snapshot, rule: str) -> int | None:
    held = snapshot.scan("index", lambda partition: partition["rule"] == rule)
    width: int | None = held.select(pl.min("key")).collect().item()
    return width


def _index_part(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rule: str,
    part: EmbeddingPart,
    shards: pl.DataFrame,
    read: tuple[str, pl.Series, Vectors],
) -> list[Part]:
    column, names, vectors = read
    rows = (
        snapshot.scan("images")
        .select("image_id", "path", "label", *SHARD_KEY)
        .join(shards.lazy(), on=SHARD_KEY, how="semi")
        .join(pl.LazyFrame({column: names}).with_row_index("row"), on=column, how="left")
        .sort(*SHARD_KEY, "image_id")
        .collect()
    )
    _check_splits(part, rows)
    without = rows.filter(pl.col("row").is_null())
    if len(without):
        raise SourceError(
            f"embedding '{part.name}': {part.uri} has no vector for {len(without)} of {len(rows)} images, the first is "
            f"{without.select(pl.format('{} of {}/{}', 'path', 'dataset', 'split')).item(0, 0)}. Bring vectors for all."
        )
    made: list[Part] = []
    for (dataset, split, shard), group in rows.partition_by(SHARD_KEY, as_dict=True, maintain_order=True).items():
        ids, labels = (group[name].to_arrow() for name in ("image_id", "label"))
        entries = embedding.entries(vectors[group["row"].to_numpy()])
        table = table_of(entries, ids.cast("binary"), labels.cast("string"))
        partition = {"rule": rule, "dataset": dataset, "split": split, "shard": shard}
        made += writer.write("index", sort_index([table]), partition)
    return made


def _check_splits(part: EmbeddingPart, rows: pl.DataFrame) -> None:
    """Refuse a vector that would be of several images: their paths are equal, in different splits."""
    twice = rows.filter(pl.col("row").is_not_null() & pl.col("row").is_duplicated())
    if len(twice):
        path, splits = twice["path"][0], sorted(twice.filter(path=twice["path"][0])["split"].unique())
        raise SourceError(
            f"embedding '{part.name}': {part.uri} has one vector for path '{path}', which splits "
            f"{', '.join(splits)} all have. Give it a split, and each split a file."
        )


def _absolute(part: EmbeddingPart, base: Path) -> EmbeddingPart:
    paths = None if part.paths is None else str((base / part.paths).resolve())
    return part.model_copy(update={"uri": str((base / part.uri).resolve()), "paths": paths})


def _state(part: EmbeddingPart) -> list[Any]:
    files = [Path(name) for name in (part.uri, part.paths) if name]
    return [part.model_dump(), [[f.stat().st_size, f.stat().st_mtime_ns] if f.exists() else None for f in files]]


def index_images(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rules: tuple[str, ...],
    engine: Engine,
    progress: Progress = SILENT,
    embeddings: Mapping[str, Embeddings] = MappingProxyType({}),
) -> list[Commit]:
    """Index every image under every rule, and drop the index of rules no longer wanted.

    Reads the pixels of images that lack a rule, and nothing where none does. Rules that compare by embeddings read
    those, of the shards that the embedding covers.

    Args:
        snapshot: of the lake.
        writer: writes the files.
        rules: the rules that are wanted.
        engine: where to run.
        progress: where to show it.
        embeddings: by rule that compares by one, the embedding.

    Returns:
        The commit to make; empty where nothing is out of date.

    Raises:
        SourceError: an embedding cannot be read, or lacks an image.
    """
    state = _IndexState.read(snapshot)
    stale = {rule for rule in embeddings if state.embedded.get(rule) != embeddings[rule].fingerprint}
    dropped = (state.rules - set(rules)) | (stale & state.rules)
    images = snapshot.files("images")
    held = {key for key in state.held if key[0] not in dropped}
    lacking = [
        (part, without)
        for part in images
        if (without := tuple(r for r in rules if r not in embeddings and (r, *part.partition.values()) not in held))
    ]
    uncovered = {
        rule: [p for p in (part.partition for part in images) if found.covers(p) and (rule, *p.values()) not in held]
        for rule, found in embeddings.items()
    }
    if state.current and not (lacking or dropped or stale or any(uncovered.values())):
        return []
    made = [
        part
        for rule, found in embeddings.items()
        for part in index_embedding(snapshot, writer, rule, found, uncovered[rule], beside=rule not in dropped)
    ]
    missing = [ShardFile(f"{snapshot.place}/images/{part.path}", part.partition, without) for part, without in lacking]
    progress.stage("index", sum(part.rows for part, _ in lacking))
    for parts in engine.map(partial(index_shard, writer), missing):
        made += parts
        progress.advance(parts[0].rows)
    units = {**state.units, "keys": {"fingerprint": KEYS_VERSION}, "embeddings": remembered(embeddings)}
    metadata = Metadata("index", units, {"images": snapshot.version("images")})
    return [Commit("index", made, metadata, lambda partition: not state.current or partition["rule"] in dropped)]


class _IndexState(NamedTuple):
    """What the index holds: units of its newest commit, keys of its files, rules; all empty where its keys are old."""

    units: Mapping[str, Mapping[str, Any]]
    current: bool
    held: set[tuple[str, ...]]
    rules: set[str]
    embedded: Mapping[str, str]

    @classmethod
    def read(cls, snapshot: Snapshot) -> Self:
        units = snapshot.metadata("index").units
        current = units.get("keys", {"fingerprint": KEYS_VERSION})["fingerprint"] == KEYS_VERSION
        found = [part.partition for part in snapshot.files("index")] if current else []
        held: set[tuple[str, ...]] = {(p["rule"], p["dataset"], p["split"], p["shard"]) for p in found}
        embedded = units.get("embeddings", {}).get("fingerprint", {}) if current else {}
        return cls(units, current, held, {rule for rule, *_ in held}, embedded)

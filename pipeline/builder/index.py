"""images -> index: index images under new rules, by their pixels or by the user's vectors.

A rule `embedding:NAME:t` is indexed from the files of the recipe's `[[embedding]]` parts with that name. All other
rules read pixels.
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
from pipeline.builder.worker import ImagesFile, index_shard
from pipeline.dedup.rules import (
    KEYS_VERSION,
    embedding,
    has_current_keys,
    keys_unit,
    parse_rule,
    sort_index,
    table_of,
)
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


class EmbeddingFiles(NamedTuple):
    """The files with the vectors of one embedding.

    Attributes:
        parts: the recipe's `[[embedding]]` parts of that name, with absolute paths.
        fingerprint: digest of the parts, and of the sizes and times of their files.
    """

    parts: tuple[EmbeddingPart, ...]
    fingerprint: str

    def covers(self, partition: Mapping[str, str]) -> bool:
        """Return whether the images of a shard have vectors in these files."""
        return any(
            part.dataset == partition["dataset"] and part.split in (None, partition["split"]) for part in self.parts
        )


def embedding_of(rule: str) -> str | None:
    """Return the name of the embedding that a rule compares by; None for a rule that reads pixels."""
    comparison = parse_rule(rule).comparison
    return comparison.name if isinstance(comparison, embedding.Embedding) else None


def find_embeddings(snapshot: Snapshot, recipe: Recipe, rules: Iterable[str]) -> dict[str, EmbeddingFiles]:
    """Find the files of every rule that compares by an embedding: those of the recipe, or else those of the lake.

    Returns:
        By rule, the files. Rules that read pixels are left out.

    Raises:
        RecipeError: neither the recipe nor the lake defines the embedding of a rule.
    """
    in_recipe: dict[str, list[EmbeddingPart]] = {}
    for part in recipe.embedding:
        in_recipe.setdefault(part.name, []).append(_with_absolute_paths(part, recipe.base))
    in_lake = snapshot.metadata("index").units.get("embeddings", {}).get("parts", {})
    found = {}
    for rule in rules:
        name = embedding_of(rule)
        if name is None:
            continue
        parts = in_recipe.get(name) or [EmbeddingPart.model_validate(part) for part in in_lake.get(name, ())]
        if not parts:
            raise RecipeError(
                f"rule '{rule}' compares by embedding '{name}', but no [[embedding]] of the recipe has that name. "
                "Add one."
            )
        found[rule] = EmbeddingFiles(tuple(parts), digest_of([_file_state(part) for part in parts]))
    return found


def pairwise_rules(rules: Iterable[str], embeddings: Mapping[str, EmbeddingFiles]) -> dict[str, str]:
    """Return the rules that compare pairs of images, each with the fingerprint of its vectors.

    Args:
        rules: rules of any kind. Rules that group images by equal keys are left out.
        embeddings: made by `find_embeddings`.

    Returns:
        By rule, the fingerprint of the user's vectors; empty for a rule that reads pixels.
    """
    return {
        rule: embeddings[rule].fingerprint if rule in embeddings else ""
        for rule in rules
        if parse_rule(rule).comparison
    }


def index_images(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rules: tuple[str, ...],
    engine: Engine,
    progress: Progress = SILENT,
    embeddings: Mapping[str, EmbeddingFiles] = MappingProxyType({}),
) -> list[Commit]:
    """Index every image under every rule, and drop the index of rules that are not wanted any more.

    Only pixels of images that the index lacks under some rule are read. Rules that compare by an embedding read its
    vectors, for the shards that it covers.

    Args:
        snapshot: the lake.
        writer: writes the files.
        rules: all rules to index by.
        engine: where to run.
        progress: shows the progress.
        embeddings: made by `find_embeddings`.

    Returns:
        The commit to make; empty if nothing is out of date.

    Raises:
        SourceError: a file of an embedding cannot be read, or lacks an image.
    """
    state = _IndexState.read(snapshot)
    outdated = {rule for rule, files in embeddings.items() if state.embeddings.get(rule) != files.fingerprint}
    outdated |= {rule for rule in state.rules if not has_current_keys(rule, state.units.get("keys"))}
    dropped = (state.rules - set(rules)) | (outdated & state.rules)
    indexed = {key for key in state.keys if key[0] not in dropped}
    images = snapshot.files("images")
    # Files of the images table that some rules lack, with these rules.
    lacking = [
        (part, missing)
        for part in images
        if (missing := tuple(r for r in rules if r not in embeddings and (r, *part.partition.values()) not in indexed))
    ]
    # By rule with an embedding, the shards that it lacks.
    uncovered = {
        rule: [
            part.partition
            for part in images
            if files.covers(part.partition) and (rule, *part.partition.values()) not in indexed
        ]
        for rule, files in embeddings.items()
    }
    if state.is_current and not (lacking or dropped or outdated or any(uncovered.values())):
        return []
    written = [
        part
        for rule, files in embeddings.items()
        for part in _index_embedding(snapshot, writer, rule, files, uncovered[rule], extend=rule not in dropped)
    ]
    tasks = [ImagesFile(f"{snapshot.place}/images/{part.path}", part.partition, missing) for part, missing in lacking]
    progress.stage("index", sum(part.rows for part, _ in lacking))
    for parts in engine.map(partial(index_shard, writer), tasks):
        written += parts
        progress.advance(parts[0].rows)
    units = {**state.units, "keys": keys_unit(), "embeddings": _embedding_unit(embeddings)}
    metadata = Metadata("index", units, {"images": snapshot.version("images")})
    return [Commit("index", written, metadata, lambda p: not state.is_current or p["rule"] in dropped)]


class _IndexState(NamedTuple):
    """What the index holds. The keys of an index of another version are out of date and count as none.

    Attributes:
        units: of the newest commit.
        is_current: whether its keys are of the current version.
        keys: rule, dataset, split and shard of every file.
        rules: the rules of these files.
        embeddings: by rule, the fingerprint of the vectors it was made from.
    """

    units: Mapping[str, Mapping[str, Any]]
    is_current: bool
    keys: set[tuple[str, ...]]
    rules: set[str]
    embeddings: Mapping[str, str]

    @classmethod
    def read(cls, snapshot: Snapshot) -> Self:
        units = snapshot.metadata("index").units
        is_current = units.get("keys", {"fingerprint": KEYS_VERSION})["fingerprint"] == KEYS_VERSION
        partitions = [part.partition for part in snapshot.files("index")] if is_current else []
        keys: set[tuple[str, ...]] = {(p["rule"], p["dataset"], p["split"], p["shard"]) for p in partitions}
        embeddings = units.get("embeddings", {}).get("fingerprint", {}) if is_current else {}
        return cls(units, is_current, keys, {rule for rule, *_ in keys}, embeddings)


def _index_embedding(  # noqa: PLR0913 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rule: str,
    files: EmbeddingFiles,
    shards: Iterable[Mapping[str, str]],
    *,
    extend: bool,
) -> list[Part]:
    """Index shards by the user's vectors.

    Args:
        snapshot: the lake.
        writer: writes the files.
        rule: the rule.
        files: the files of its embedding.
        shards: partition values of the shards to index.
        extend: whether the index keeps its other files of the rule. Then all vectors must have the same length.

    Raises:
        SourceError: a file cannot be read, an image of these shards has no vector, or vectors differ in length.
    """
    lacking = pl.DataFrame([dict(shard) for shard in shards], schema=dict.fromkeys(SHARD_KEY, pl.String))
    written: list[Part] = []
    length = _stored_vector_length(snapshot, rule) if extend else None
    for part in files.parts:
        covered = lacking.filter(**({"dataset": part.dataset} | ({"split": part.split} if part.split else {})))
        if covered.is_empty():
            continue
        vectors = read_embedding(part, Path())
        found = vectors[2].shape[1]
        if length not in (None, found):
            raise SourceError(
                f"embedding '{part.name}': {part.uri} has vectors of {found} numbers, but its other vectors have "
                f"{length}. Use vectors of one model."
            )
        length = found
        written += _index_part(snapshot, writer, rule, part, covered, vectors)
    return written


def _stored_vector_length(snapshot: Snapshot, rule: str) -> int | None:
    """Return how many numbers a vector of the rule has in the index, which is its key there; None without vectors."""
    rows = snapshot.scan("index", lambda partition: partition["rule"] == rule)
    length: int | None = rows.select(pl.min("key")).collect().item()
    return length


def _index_part(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rule: str,
    part: EmbeddingPart,
    shards: pl.DataFrame,
    read: tuple[str, pl.Series, NDArray[np.float32]],
) -> list[Part]:
    """Index shards by the vectors of one file; `read` is what `read_embedding` returned."""
    column, names, vectors = read
    rows = (
        snapshot.scan("images")
        .select("image_id", "path", "label", *SHARD_KEY)
        .join(shards.lazy(), on=SHARD_KEY, how="semi")
        .join(pl.LazyFrame({column: names}).with_row_index("row"), on=column, how="left")
        .sort(*SHARD_KEY, "image_id")
        .collect()
    )
    _check_one_image_per_vector(part, rows)
    without = rows.filter(pl.col("row").is_null())
    if len(without):
        raise SourceError(
            f"embedding '{part.name}': {part.uri} has no vector for {len(without)} of {len(rows)} images, the first is "
            f"{without.select(pl.format('{} of {}/{}', 'path', 'dataset', 'split')).item(0, 0)}. Add the missing "
            "vectors to the file."
        )
    written: list[Part] = []
    for (dataset, split, shard), group in rows.partition_by(SHARD_KEY, as_dict=True, maintain_order=True).items():
        ids, labels = (group[name].to_arrow() for name in ("image_id", "label"))
        entries = embedding.entries(vectors[group["row"].to_numpy()])
        table = table_of(entries, ids.cast("binary"), labels.cast("string"))
        partition = {"rule": rule, "dataset": dataset, "split": split, "shard": shard}
        written += writer.write("index", sort_index([table]), partition)
    return written


def _check_one_image_per_vector(part: EmbeddingPart, rows: pl.DataFrame) -> None:
    """Check that no vector matches several images. It does if images of several splits have the same path."""
    repeated = rows.filter(pl.col("row").is_not_null() & pl.col("row").is_duplicated())
    if len(repeated):
        path = repeated["path"][0]
        splits = sorted(repeated.filter(path=path)["split"].unique())
        raise SourceError(
            f"embedding '{part.name}': {part.uri} has one vector for path '{path}', but splits {', '.join(splits)} "
            "all have an image of that path. Write an [[embedding]] with `split` and a file for each split."
        )


def _with_absolute_paths(part: EmbeddingPart, base: Path) -> EmbeddingPart:
    paths = None if part.paths is None else str((base / part.paths).resolve())
    return part.model_copy(update={"uri": str((base / part.uri).resolve()), "paths": paths})


def _file_state(part: EmbeddingPart) -> list[Any]:
    files = [Path(name) for name in (part.uri, part.paths) if name]
    return [part.model_dump(), [[f.stat().st_size, f.stat().st_mtime_ns] if f.exists() else None for f in files]]


def _embedding_unit(embeddings: Mapping[str, EmbeddingFiles]) -> dict[str, Any]:
    """Return what the index's metadata keep of embeddings: by name how to read them, by rule the fingerprint."""
    parts = {files.parts[0].name: [part.model_dump() for part in files.parts] for files in embeddings.values()}
    return {"parts": parts, "fingerprint": {rule: files.fingerprint for rule, files in embeddings.items()}}

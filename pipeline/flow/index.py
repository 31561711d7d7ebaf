"""images -> index: index images under rules that are new, by their pixels or by vectors that the user brought."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from pipeline.dedup.index import KEYS_VERSION
from pipeline.engines import Engine
from pipeline.flow.embed import Embeddings, index_embedding, remembered
from pipeline.flow.work import ShardFile, as_writer, index_shard
from pipeline.lake.commits import Meta, commit, files, read_meta, versions
from pipeline.lake.parts import writer
from pipeline.progress import SILENT, Progress


def run_index(
    root: str,
    rules: tuple[str, ...],
    engine: Engine,
    progress: Progress = SILENT,
    embeddings: Mapping[str, Embeddings] = MappingProxyType({}),
) -> bool:
    """Index every image under every rule, and drop the index of rules no longer wanted.

    Reads the pixels of images that lack a rule, and nothing where none does. Rules that compare by embeddings read
    those, of the shards that the embedding covers.

    Args:
        root: the lake's folder.
        rules: the rules that are wanted.
        engine: where to run.
        progress: where to show it.
        embeddings: by rule that compares by one, the embedding.

    Returns:
        Whether anything was committed.

    Raises:
        SourceError: an embedding cannot be read, or lacks an image.
    """
    state = _IndexState.read(root)
    stale = {rule for rule in embeddings if state.embedded.get(rule) != embeddings[rule].fingerprint}
    dropped = (state.rules - set(rules)) | (stale & state.rules)
    images = files(root, "images")
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
        return False
    made = [
        part
        for rule, found in embeddings.items()
        for part in index_embedding(root, rule, found, uncovered[rule], beside=rule not in dropped)
    ]
    missing = [ShardFile(f"{root}/images/{part.path}", part.partition, without) for part, without in lacking]
    progress.stage("index", sum(part.rows for part, _ in lacking))
    for parts in engine.map(partial(as_writer, writer(), partial(index_shard, root)), missing):
        made += parts
        progress.advance(parts[0].rows)
    units = {**state.units, "keys": {"fingerprint": KEYS_VERSION}, "embeddings": remembered(embeddings)}
    done = Meta("index", units, {"images": versions(root)["images"]})
    commit(root, "index", made, lambda partition: not state.current or partition["rule"] in dropped, done)
    return True


class _IndexState(NamedTuple):
    """What the index holds: units of its newest commit, keys of its files, rules; all empty where its keys are old."""

    units: Mapping[str, Mapping[str, Any]]
    current: bool
    held: set[tuple[str, ...]]
    rules: set[str]
    embedded: Mapping[str, str]

    @classmethod
    def read(cls, root: str) -> Self:
        units = read_meta(root, "index").units
        current = units.get("keys", {"fingerprint": KEYS_VERSION})["fingerprint"] == KEYS_VERSION
        found = [part.partition for part in files(root, "index")] if current else []
        held: set[tuple[str, ...]] = {(p["rule"], p["dataset"], p["split"], p["shard"]) for p in found}
        embedded = units.get("embeddings", {}).get("fingerprint", {}) if current else {}
        return cls(units, current, held, {rule for rule, *_ in held}, embedded)

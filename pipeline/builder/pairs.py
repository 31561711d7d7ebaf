"""index -> pairs: compare new images with each other and with all others, under every rule that compares pairs.

The metadata of the pairs table record the versions of the index and of the images that it was made from. Files never
change. So the files that were added since hold the new images, and pairs with images of removed files are dropped. An
image that only moved from a removed file to an added one, with the same content, is not new. Images are compared block
by block, in this process or in workers. The pairs do not depend on how images are cut into blocks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

import schemas
from pipeline.arrow_columns import from_binary, to_binary, to_table
from pipeline.builder.state import SHARD_KEY, find_outdated, input_versions, shards_state, unit_digest
from pipeline.dedup.joins.streaming import single_thread
from pipeline.dedup.matching import Block, Ids, ReadPixels, match, order_pairs
from pipeline.dedup.rules import Comparison, Entries, entries_of, keys_version, parse_rule, photo
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.errors import DamagedLakeError, LakeError
from pipeline.hashing import digest_of, order_keys
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, all_files
from pipeline.pixels import gather, locate
from pipeline.progress import SILENT, Progress
from pipeline.recipe import DedupPart

# Images in a block at most, and bytes of their vectors. Two blocks are in memory at a time.
_BLOCK_IMAGES = 2**18
_BLOCK_BYTES = 2**26
# Pairs of blocks for each worker: enough that no worker idles for long, few because each pair reads two blocks.
_BLOCK_PAIRS_PER_WORKER = 2
# Pairs in a row group.
_GROUP_PAIRS = 2**18
# A rule with this many files of pairs gets all its pairs written as one file again.
_MAX_FILES = 64
# Images that a basis is fitted to, at most.
_BASIS_IMAGES = 20_000

# Files of the index table that are read together.
Files = Sequence[Part]


class IndexChange(NamedTuple):
    """How the index of a rule changed since its pairs were found, in files of the index table.

    Attributes:
        added: files with images that are not compared yet; `rows` counts these.
        kept: files with images that are compared with each other; `rows` counts these.
        removed: whether pairs may have lost images: another file is gone, or all pairs are out of date.
        new: ids of the images that are not compared yet; None if they are all images of the added files.
    """

    added: Files
    kept: Files
    removed: bool
    new: pl.Series | None = None


class CompareJob(NamedTuple):
    """The settings that all pairs of blocks of a rule share.

    Attributes:
        snapshot: the lake.
        rule: the rule, as written in the recipe.
        comparison: the rule, ready to run.
        images: places of the files of the images table, for the pixels of candidates.
        max_pairs: pairs that may be found.
        block_images: images in a block at most.
        across_splits: compare only images of different splits.
        new: as in `IndexChange`.
    """

    snapshot: Snapshot
    rule: str
    comparison: Comparison
    images: Sequence[str]
    max_pairs: int
    block_images: int
    across_splits: bool
    new: pl.Series | None = None


class BlockPair(NamedTuple):
    """Two blocks to compare.

    Attributes:
        left: a block of new images.
        right: another block; None to compare the left one with itself.
        completed: number of images that are compared with all others once this pair is done.
        right_is_new: whether the right block is of new images too.
    """

    left: Files
    right: Files | None
    completed: int
    right_is_new: bool = True


def compare_images(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rules: Mapping[str, str],
    settings: DedupPart,
    progress: Progress = SILENT,
    engine: Engine = HERE,
) -> list[Commit]:
    """Bring the pairs of every rule up to date.

    The cost grows with new images times all images, not with the square of all images. Of old images, only the pixels
    of candidates are read.

    Args:
        snapshot: the lake.
        writer: writes the files.
        rules: rules that compare pairs; see `pipeline.builder.index.pairwise_rules`.
        settings: the recipe's `[dedup]`: which images are compared, and how many pairs a rule may find.
        progress: shows the progress.
        engine: where to run.

    Returns:
        The commits to make: bases that were fitted, then pairs. Empty if nothing is out of date.

    Raises:
        LakeError: a rule finds more than `max_pairs` pairs; nothing was committed.
    """
    units = pair_units(snapshot, rules, settings.between)
    metadata = snapshot.metadata("pairs")
    todo = find_outdated("dedup", units, metadata)
    if not todo:
        return []
    written: list[Part] = []
    bases: list[Commit] = []
    # Rules whose files are all removed: those that are dropped, and those written as one file.
    rewritten = {item.unit for item in todo if item.unit not in units}
    for rule in (item.unit for item in todo if item.unit in units):
        change = _index_change(snapshot, rule, metadata, settings.between)
        old = [part for part in snapshot.files("pairs") if part.partition["rule"] == rule]
        rewrite = change.removed or len(old) >= _MAX_FILES
        kept = _read_kept_pairs(snapshot, rule, change) if rewrite else iter(())
        rewritten |= {rule} if rewrite else set()
        progress.stage(f"compare by {rule}", sum(part.rows for part in change.added))
        max_pairs = settings.max_pairs - (0 if rewrite else sum(part.rows for part in old))
        found: Iterator[pa.Table] = iter(())
        if change.added:
            comparison, fitted = with_basis(snapshot, writer, rule, change.added)
            bases += fitted
            job = CompareJob(
                snapshot,
                rule,
                comparison=comparison,
                images=snapshot.file_places("images"),
                max_pairs=max_pairs,
                block_images=_images_per_block(snapshot, change, comparison),
                across_splits=settings.between == "splits",
                new=change.new,
            )
            found = find_pairs(job, change, engine, progress)
        written += _write_pairs(writer, rule, chain(kept, found), max_pairs)
    updated = Metadata("dedup", units, input_versions(snapshot, "index", "images"))
    return [*bases, Commit("pairs", written, updated, lambda partition: partition["rule"] in rewritten)]


def pair_units(snapshot: Snapshot, rules: Mapping[str, str], between: str) -> dict[str, dict[str, Any]]:
    """Return, by rule, the fingerprint of its pairs.

    Args:
        snapshot: the lake.
        rules: by rule, the fingerprint of the user's vectors, if it compares by them.
        between: "all" to compare all images, "splits" to compare only images of different splits.
    """
    state = shards_state(snapshot)
    return {
        rule: {
            "spec": between,
            "fingerprint": unit_digest("dedup", [rule, keys_version(rule), between, vectors], state),
        }
        for rule, vectors in rules.items()
    }


def find_pairs(job: CompareJob, change: IndexChange, engine: Engine, progress: Progress) -> Iterator[pa.Table]:
    """Compare new images with each other and with the old ones.

    Args:
        job: the settings of the rule.
        change: which images are new.
        engine: where to run.
        progress: shows the progress.

    Yields:
        Rows of the pairs table, highest score first across all tables.

    Raises:
        LakeError: there are more than `max_pairs` pairs.
    """
    images = job.block_images
    if engine.pieces > 1:
        images = min(images, _images_for_workers(change, engine.pieces * _BLOCK_PAIRS_PER_WORKER))
    pairs = list(_pair_blocks(change, images, progress, across_splits=job.across_splits))
    if engine.pieces == 1 or len(pairs) == 1:
        found = _compare_here(job, pairs, progress)
    else:
        found = _compare_in_workers(job, pairs, engine, progress)
    table = _merge(job, found)
    yield from (table.slice(start, _GROUP_PAIRS) for start in range(0, len(table), _GROUP_PAIRS))


def compare_blocks(job: CompareJob, pair: BlockPair) -> pa.Table:
    """Compare two blocks on one core. Runs in a worker.

    Returns:
        Rows of the pairs table, highest score first.

    Raises:
        LakeError: there are more than `max_pairs` pairs.
    """
    with single_thread():
        left = _read_block(job, pair.left, new=True)
        right = None if pair.right is None else _read_block(job, pair.right, new=pair.right_is_new)
        return _merge(job, _match_blocks(job, left, right, _pixel_reader(job.images)))


def with_basis(snapshot: Snapshot, writer: Writer, rule: str, added: Files) -> tuple[Comparison, list[Commit]]:
    """Make a rule ready to run. Rule photo needs a basis, which is fitted once per lake and kept for later images.

    Args:
        snapshot: the lake.
        writer: writes the files.
        rule: a rule that compares pairs.
        added: files of the index table. The basis is fitted to their images if the lake has none.

    Returns:
        The comparison, and the commit of a basis that was fitted.
    """
    comparison = parse_rule(rule).comparison
    if comparison is None:
        raise AssertionError(f"rule {rule} compares no pairs")
    if not isinstance(comparison, photo.Photo):
        return comparison, []
    stored = snapshot.scan("bases").filter(family=photo.FAMILY, version=photo.BASIS_VERSION).select("basis").collect()
    if len(stored):
        return comparison.using(stored.item()), []
    basis, commit = _fit_basis(snapshot, writer, comparison, added)
    return comparison.using(basis), [commit]


def _index_change(snapshot: Snapshot, rule: str, metadata: Metadata, between: str) -> IndexChange:
    """Compare the files of the index with those that the pairs were made from."""
    now = [part for part in snapshot.files("index") if part.partition["rule"] == rule]
    compared: dict[str, Part] = {}
    changed_settings = rule in metadata.units and metadata.units[rule].get("spec") != between
    if rule in metadata.units and not changed_settings:
        then = snapshot.with_version("index", metadata.inputs["index"]).files("index")
        compared = {part.path: part for part in then if part.partition["rule"] == rule}
    added = [part for part in now if part.path not in compared]
    kept = [part for part in now if part.path in compared]
    removed = sorted(compared.keys() - {part.path for part in now})
    if not added or not removed:
        return IndexChange(added, kept, changed_settings or bool(removed))
    rows = _new_rows(snapshot, [part.path for part in added], removed, metadata.inputs.get("images"))
    if rows is None:
        return IndexChange(added, kept, removed=True)
    counts = dict(rows.group_by(SHARD_KEY).len().select(pl.concat_list(SHARD_KEY).list.join("/"), "len").rows())
    new = [(part, counts.get("/".join(part.partition[key] for key in SHARD_KEY), 0)) for part in added]
    return IndexChange(
        [replace(part, rows=count) for part, count in new if count],
        [*kept, *(replace(part, rows=part.rows - count) for part, count in new if count < part.rows)],
        removed=True,
        new=rows["image_id"],
    )


def _new_rows(
    snapshot: Snapshot, added: Sequence[str], removed: Sequence[str], images_version: int | None
) -> pl.DataFrame | None:
    """List the images of added files of the index that no removed file has with the same content.

    Args:
        snapshot: the lake.
        added: paths of the added files.
        removed: paths of the removed files, whose images are compared with each other and with all others.
        images_version: of the images that the removed files were made from; None if it is not known.

    Returns:
        Columns image_id, dataset, split and shard; None if this cannot be found out, as files are gone.
    """
    if images_version is None:
        return None
    before = {part.path for part in snapshot.with_version("images", images_version).files("images")}
    now = {part.path for part in snapshot.files("images")}
    # The content hash covers the pixels, which some rules compare; the index may also be of vectors that the user gave.
    content, features = ["image_id", "content_hash"], ["image_id", "key", "signature", "features"]
    try:
        same_content = snapshot.scan_files("images", sorted(now - before)).select(content)
        same_content = same_content.join(
            snapshot.scan_files("images", sorted(before - now)).select(content), on=content, how="semi"
        )
        rows, old = (
            snapshot.scan_files("index", paths).with_columns(features=pl.col("vector").hash())
            for paths in (added, removed)
        )
        same = rows.select(features).join(old.select(features), on=features, how="semi")
        same = same.join(same_content, on="image_id", how="semi")
        return rows.join(same, on="image_id", how="anti").select("image_id", *SHARD_KEY).collect()
    except (DamagedLakeError, OSError):
        return None


def _read_kept_pairs(snapshot: Snapshot, rule: str, change: IndexChange) -> Iterator[pa.Table]:
    """Read the pairs whose two images have not changed."""
    paths = [part.path for part in change.kept]
    if not paths:
        return
    ids = snapshot.scan_files("index", paths).select("image_id")
    if change.new is not None:
        ids = ids.filter(~pl.col("image_id").is_in(change.new.implode()))
    pairs = snapshot.scan("pairs", lambda partition: partition["rule"] == rule).drop("rule")
    both = pairs.join(ids, left_on="left_id", right_on="image_id", how="semi").join(
        ids, left_on="right_id", right_on="image_id", how="semi"
    )
    rows = both.collect().sort("score", "left_id", "right_id", descending=[True, False, False]).to_arrow()
    yield rows.cast(schemas.TABLES["pairs"].file_schema)


def _write_pairs(writer: Writer, rule: str, tables: Iterable[pa.Table], max_pairs: int) -> list[Part]:
    with writer.open("pairs", {"rule": rule}) as file:
        count = 0
        for table in tables:
            count += len(table)
            if count > max_pairs:
                raise _too_many_pairs(rule)
            if len(table):
                file.write(table)
        part = file.close()
    return [] if part is None else [part]


def _too_many_pairs(rule: str) -> LakeError:
    return LakeError(
        f"rule '{rule}' finds more pairs than dedup.max_pairs allows. It is too loose for these images, or one "
        "image occurs very often (rule exact finds such images). Use a stricter rule, or raise dedup.max_pairs in the "
        "recipe."
    )


def _images_per_block(snapshot: Snapshot, change: IndexChange, comparison: Comparison) -> int:
    """Return how many images a block may have; fewer if their vectors are long, or if more is made of them."""
    first = snapshot.scan_files("index", [change.added[0].path])
    size = first.select(pl.col("vector").bin.size()).head(1).collect().item() or 0
    size += photo.BYTES_IN_MEMORY if isinstance(comparison, photo.Photo) else 0
    return min(_BLOCK_IMAGES, _BLOCK_BYTES // max(1, size))


def _images_for_workers(change: IndexChange, pairs: int) -> int:
    """Return how many images a block may have, so that there are at least `pairs` pairs of blocks. No file is cut."""
    new, old = (sum(part.rows for part in parts) for parts in (change.added, change.kept))
    images = new
    for blocks in range(1, len(change.added) + 1):
        images = -(-new // blocks)
        if blocks * (blocks + 1) // 2 + blocks * -(-old // images) >= pairs:
            break
    return images


def _pair_blocks(
    change: IndexChange, block_images: int, progress: Progress, *, across_splits: bool
) -> Iterator[BlockPair]:
    """Pair every block of new images with itself, with the new ones after it, and with the old ones.

    With `across_splits`, only blocks of different splits are paired. A block without any pair is done at once.
    """
    new, old = (_cut_blocks(parts, block_images, across_splits=across_splits) for parts in (change.added, change.kept))
    for number, block in enumerate(new):
        images = sum(part.rows for part in block)
        others = [
            (other, is_new)
            for blocks, is_new in ((new[number:], True), (old, False))
            for other in blocks
            if not across_splits or _split_of(other[0]) != _split_of(block[0])
        ]
        for position, (other, is_new) in enumerate(others, start=1):
            completed = images if position == len(others) else 0
            yield BlockPair(block, None if other is block else other, completed, is_new)
        if not others:
            progress.advance(images)


def _cut_blocks(parts: Files, block_images: int, *, across_splits: bool) -> list[list[Part]]:
    """Group files into blocks of at most `block_images` images; with `across_splits`, a block is of one split."""
    blocks: list[list[Part]] = []
    images = 0
    for part in parts:
        other_split = across_splits and blocks and _split_of(blocks[-1][0]) != _split_of(part)
        if not blocks or images + part.rows > block_images or other_split:
            blocks.append([])
            images = 0
        blocks[-1].append(part)
        images += part.rows
    return blocks


def _split_of(part: Part) -> tuple[str, str]:
    return part.partition["dataset"], part.partition["split"]


def _compare_here(job: CompareJob, pairs: Iterable[BlockPair], progress: Progress) -> Iterator[pa.Table]:
    """Compare blocks in this process, which uses every core. A left block is read once for all its pairs."""
    read_pixels, files, block = _pixel_reader(job.images), None, None
    for pair in pairs:
        if files is not pair.left or block is None:
            files, block = pair.left, _read_block(job, pair.left, new=True)
        other = None if pair.right is None else _read_block(job, pair.right, new=pair.right_is_new)
        yield from _match_blocks(job, block, other, read_pixels)
        progress.advance(pair.completed)


def _compare_in_workers(
    job: CompareJob, pairs: Sequence[BlockPair], engine: Engine, progress: Progress
) -> Iterator[pa.Table]:
    with closing(engine.map(partial(compare_blocks, job), pairs)) as results:
        for pair, table in zip(pairs, results, strict=True):
            yield table
            progress.advance(pair.completed)


def _match_blocks(job: CompareJob, one: Block, other: Block | None, read_pixels: ReadPixels) -> Iterator[pa.Table]:
    """Match two blocks, the smaller one on the left."""
    if other is not None and len(other) < len(one):
        one, other = other, one
    return match(job.comparison, one, other, read_pixels)


def _merge(job: CompareJob, tables: Iterable[pa.Table]) -> pa.Table:
    """Merge tables of pairs, each sorted, into one sorted table."""
    found: list[pa.Table] = []
    count = 0
    for table in tables:
        count += len(table)
        if count > job.max_pairs:
            raise _too_many_pairs(job.rule)
        found += [table] if len(table) else []
    if len(found) <= 1:
        return found[0] if found else pa.table({})
    return order_pairs(pa.concat_tables(found))


def _read_block(job: CompareJob, parts: Files, *, new: bool) -> Block:
    scanned = job.snapshot.scan_files("index", sorted(part.path for part in parts))
    if job.new is not None:
        is_new = pl.col("image_id").is_in(job.new.implode())
        scanned = scanned.filter(is_new if new else ~is_new)
    rows = scanned.select("image_id", "key", "signature", "vector").collect().to_arrow()
    ids = pa.concat_arrays([chunk.cast(pa.large_binary()) for chunk in rows["image_id"].chunks])
    return Block(from_binary(ids, 16), entries_of(rows))


def _pixel_reader(files: Sequence[str]) -> Callable[[Ids], np.ndarray]:
    def read_pixels(image_ids: Ids) -> np.ndarray:
        wanted = pl.Series("image_id", to_binary(np.ascontiguousarray(image_ids)))
        pixels = gather(locate(list(files), wanted))
        return pixels if pixels.ndim == 4 else pixels[..., None]  # noqa: PLR2004 - gray has no channel axis there

    return read_pixels


def _fit_basis(snapshot: Snapshot, writer: Writer, comparison: photo.Photo, added: Files) -> tuple[bytes, Commit]:
    sample = _sample_images(snapshot.scan_files("index", [part.path for part in added]))
    basis = comparison.fit(sample)
    row = {"family": photo.FAMILY, "version": photo.BASIS_VERSION, "images": len(sample.key), "basis": basis}
    written = writer.write("bases", to_table([row], schemas.TABLES["bases"].schema))
    units = {photo.FAMILY: {"fingerprint": digest_of(basis.hex())}}
    metadata = Metadata("dedup", units, {"index": snapshot.version("index")})
    return basis, Commit("bases", written, metadata, all_files)


def _sample_images(rows: pl.LazyFrame) -> Entries:
    """Sample rows of the index by their ids alone, so that the order of rows has no effect."""
    ids = rows.select("image_id").collect().to_series().sort()
    keys = order_keys(from_binary(ids.to_arrow().cast(pa.large_binary()), 16), 0, "basis of rule photo")
    sampled = ids.gather(np.argsort(keys, kind="stable")[:_BASIS_IMAGES])
    chosen = rows.filter(pl.col("image_id").is_in(sampled.implode())).collect(engine="streaming").sort("image_id")
    return entries_of(chosen.select("key", "signature", "vector").to_arrow())

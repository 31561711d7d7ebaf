"""index -> pairs: compare new images with each other and with all others, under every rule that compares pairs.

The metadata of the pairs table record the versions of the index and of the images that it was made from. Files never
change. So the files that were added since hold the new images, and pairs with images of removed files are dropped. An
image that only moved from a removed file to an added one, with the same content, is not new. Images are compared block
by block, in this process or in workers. The pairs do not depend on how images are cut into blocks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_columns import from_binary, to_binary, to_numbers, to_table
from pipeline.builder.state import SHARD_KEY, find_outdated, input_versions, shards_state, unit_digest
from pipeline.dedup.held_pairs import HeldPairs, NumberedPairs, Numbers, TooManyPairsError
from pipeline.dedup.joins.streaming import single_thread
from pipeline.dedup.matching import Block, Ids, ReadPixels, scored_pairs
from pipeline.dedup.rules import Comparison, Entries, entries_of, keys_version, parse_rule, photo
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.errors import DamagedLakeError, LakeError
from pipeline.hashing import digest_of, order_keys
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, all_files
from pipeline.pixels import find, gather, id_matrix, locate, order_of_ids
from pipeline.progress import SILENT, Progress
from pipeline.recipe import DedupPart

# Images in a block at most, and bytes of their vectors. Two blocks are in memory at a time.
_BLOCK_IMAGES = 2**18
_BLOCK_BYTES = 2**26
# Pairs of blocks for each worker: enough that no worker idles for long, few because each pair reads two blocks.
_BLOCK_PAIRS_PER_WORKER = 2
# Pairs in a row group, and stored pairs that are read at a time.
_GROUP_PAIRS, _READ_PAIRS = 2**18, 2**20
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
        max_pairs: pairs up to which all are stored.
        forest: whether a spanning forest is stored if there are more; otherwise that is an error.
        new: as in `IndexChange`.
    """

    snapshot: Snapshot
    rule: str
    comparison: Comparison
    images: Sequence[str]
    max_pairs: int
    forest: bool
    new: pl.Series | None = None


class NumberedBlock(NamedTuple):
    """Images to compare with others.

    Attributes:
        files: files of the index table.
        new: whether these are the new images of the files, or the others.
        numbers: (n,) uint32, the numbers of the images in the order in which they are read.
    """

    files: Files
    new: bool
    numbers: Numbers


class BlockPair(NamedTuple):
    """Two blocks to compare.

    Attributes:
        left: a block of new images.
        right: another block; None to compare the left one with itself.
        completed: number of images that are compared with all others once this pair is done.
    """

    left: NumberedBlock
    right: NumberedBlock | None
    completed: int


class FoundPairs(NamedTuple):
    """The pairs of two blocks: all, or if these are more than `max_pairs`, their spanning forest.

    Attributes:
        pairs: the pairs.
        found: number of pairs that were found.
    """

    pairs: NumberedPairs
    found: int


class _Updated(NamedTuple):
    """The pairs of a rule, brought up to date.

    Attributes:
        written: new files of the pairs table.
        replaces: whether they replace all other files of the rule.
        found: number of pairs, if only their spanning forest is stored.
        bases: the commit of a basis that was fitted.
    """

    written: list[Part]
    replaces: bool
    found: int | None
    bases: list[Commit]


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
        settings: the recipe's `[dedup]`: which images are compared, and up to how many pairs all are stored.
        progress: shows the progress.
        engine: where to run.

    Returns:
        The commits to make: bases that were fitted, then pairs. Empty if nothing is out of date.

    Raises:
        LakeError: a rule finds more than `max_pairs` pairs, and clusters are stars, which need all of them. Nothing was
            committed.
    """
    units = pair_units(snapshot, rules, settings.between)
    metadata = snapshot.metadata("pairs")
    changed = {
        rule: "dedup.max_pairs allows all its pairs, or does not"
        for rule in units.keys() & metadata.units.keys()
        if _limit_changed(settings, metadata.units[rule], _count_pairs(snapshot, rule, metadata))
    }
    todo = find_outdated("dedup", units, metadata, changed=changed)
    if not todo:
        return []
    written: list[Part] = []
    bases: list[Commit] = []
    # Rules whose files are all removed: those that are dropped, and those written as one file.
    replaced = {item.unit for item in todo if item.unit not in units}
    found = {rule: unit.get("found") for rule, unit in metadata.units.items()}
    for rule in (item.unit for item in todo if item.unit in units):
        updated = _update_rule(snapshot, writer, rule, metadata, settings, progress, engine)
        written += updated.written
        bases += updated.bases
        replaced |= {rule} if updated.replaces else set()
        found[rule] = updated.found
    recorded = {rule: unit | ({"found": found[rule]} if found.get(rule) else {}) for rule, unit in units.items()}
    commit = Metadata("dedup", recorded, input_versions(snapshot, "index", "images"))
    return [*bases, Commit("pairs", written, commit, lambda partition: partition["rule"] in replaced)]


def pair_notes(snapshot: Snapshot) -> list[str]:
    """List the notes about rules of which only a spanning forest is stored, one line for each."""
    return [
        f"{rule}: {unit['found']:,} pairs are more than dedup.max_pairs. Its clusters are complete, at every stricter "
        f"threshold too, but only the {_stored_rows(snapshot, rule):,} pairs that link them are stored. To store all, "
        "raise dedup.max_pairs, or use a stricter rule."
        for rule, unit in sorted(snapshot.metadata("pairs").units.items())
        if "found" in unit
    ]


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


def compare_blocks(job: CompareJob, pair: BlockPair) -> FoundPairs:
    """Compare two blocks on one core. Runs in a worker.

    Raises:
        LakeError: there are more than `max_pairs` pairs, and all are needed.
    """
    with single_thread():
        left = _read_block(job, pair.left)
        right = None if pair.right is None else _read_block(job, pair.right)
        held = HeldPairs(job.max_pairs, forest=job.forest)
        with _errors_of_rule(job.rule):
            for pairs in _match_blocks(job, pair, left, right, _pixel_reader(job.images)):
                held.add(pairs)
        return FoundPairs(_concatenate(held.in_order()), held.count)


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


def _limit_changed(settings: DedupPart, unit: Mapping[str, Any], count: int) -> bool:
    """Return whether all pairs of a rule are stored that should be a forest, or the other way round."""
    forest = settings.clusters == "components" and count > settings.max_pairs
    return forest != ("found" in unit)


def _stored_rows(snapshot: Snapshot, rule: str) -> int:
    return sum(part.rows for part in snapshot.files("pairs", lambda partition: partition["rule"] == rule))


def _count_pairs(snapshot: Snapshot, rule: str, metadata: Metadata) -> int:
    """Return how many pairs a rule has found, whether or not all are stored."""
    return metadata.units.get(rule, {}).get("found") or _stored_rows(snapshot, rule)


def _update_rule(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rule: str,
    metadata: Metadata,
    settings: DedupPart,
    progress: Progress,
    engine: Engine,
) -> _Updated:
    """Find the pairs of new images, drop those of images that are gone, and write what is to be stored."""
    unit, count = metadata.units.get(rule, {}), _count_pairs(snapshot, rule, metadata)
    change = _index_change(snapshot, rule, metadata, settings.between)
    if "found" in unit and (change.removed or _limit_changed(settings, unit, count)):
        # Without some of its images, or with more pairs, a forest is another one: all images are compared again.
        files = {part.path for part in (*change.added, *change.kept)}
        now = [part for part in snapshot.files("index") if part.path in files]
        change = IndexChange(now, [], removed=True)
    old = [part for part in snapshot.files("pairs") if part.partition["rule"] == rule]
    images = _number_images(snapshot, change)
    forest = settings.clusters == "components"
    held = HeldPairs(settings.max_pairs, forest=forest, count=0 if change.removed else count)
    replaces = change.removed or len(old) >= _MAX_FILES or held.is_forest
    bases: list[Commit] = []
    progress.stage(f"compare by {rule}", sum(part.rows for part in change.added))
    with _errors_of_rule(rule):
        if replaces and change.kept:
            _add_stored(held, snapshot, old, images, counted=change.removed)
        if change.added:
            comparison, bases = with_basis(snapshot, writer, rule, change.added)
            places = snapshot.file_places("images")
            job = CompareJob(snapshot, rule, comparison, places, settings.max_pairs, forest, change.new)
            _find_pairs(held, job, change, images, engine, progress, across_splits=settings.between == "splits")
        if held.is_forest and not replaces:
            replaces = True
            _add_stored(held, snapshot, old, images, counted=False)
    return _Updated(
        _write_pairs(writer, rule, held, images.ids), replaces, held.count if held.is_forest else None, bases
    )


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


class _Images(NamedTuple):
    """The images of the index of a rule, numbered in the order of their ids: 21 bytes each.

    Attributes:
        ids: (n, 16) uint8, by number.
        is_new: (n,) bool, by number: whether the image is not compared yet.
        of_file: by path of a file of the index, the numbers of its images in their order.
    """

    ids: Ids
    is_new: NDArray[np.bool_]
    of_file: Mapping[str, Numbers]


def _number_images(snapshot: Snapshot, change: IndexChange) -> _Images:
    """Number all images of the index of a rule."""
    paths = sorted({part.path for part in (*change.added, *change.kept)})
    columns = [snapshot.scan_files("index", [path]).select("image_id").collect() for path in paths]
    ids = np.concatenate([np.empty((0, 16), np.uint8), *(id_matrix(column["image_id"]) for column in columns)])
    order = order_of_ids(ids)
    numbers = np.empty(len(ids), np.uint32)
    numbers[order] = np.arange(len(ids), dtype=np.uint32)
    ends = np.cumsum([len(column) for column in columns])
    of_file = dict(zip(paths, np.split(numbers, ends[:-1]), strict=True)) if paths else {}
    ids = ids[order]
    is_new = np.zeros(len(ids), np.bool_)
    if change.new is not None:
        is_new[find(ids, id_matrix(change.new))] = True
    for part in change.added if change.new is None else ():
        is_new[of_file[part.path]] = True
    return _Images(ids, is_new, of_file)


def _add_stored(held: HeldPairs, snapshot: Snapshot, files: Files, images: _Images, *, counted: bool) -> None:
    """Add the stored pairs whose two images have not changed, some at a time."""
    for part in files:
        rows = snapshot.scan_files("pairs", [part.path]).select("left_id", "right_id", "score")
        for start in range(0, part.rows, _READ_PAIRS):
            pairs = rows.slice(start, _READ_PAIRS).collect()
            left, right = (find(images.ids, id_matrix(pairs[name])) for name in ("left_id", "right_id"))
            kept = (left >= 0) & (right >= 0)
            kept[kept] = ~(images.is_new[left[kept]] | images.is_new[right[kept]])
            score = pairs["score"].to_numpy()[kept]
            found = NumberedPairs(left[kept].astype(np.uint32), right[kept].astype(np.uint32), score)
            held.add(found, None if counted else 0)


def _write_pairs(writer: Writer, rule: str, held: HeldPairs, ids: Ids) -> list[Part]:
    """Write the pairs that are held, with ids in place of numbers, some at a time."""
    with writer.open("pairs", {"rule": rule}) as file:
        for pairs in held.in_order():
            for start in range(0, len(pairs), _GROUP_PAIRS):
                left, right, score = (column[start : start + _GROUP_PAIRS] for column in pairs)
                columns = [to_binary(ids[left]), to_binary(ids[right]), to_numbers(score)]
                file.write(pa.Table.from_arrays(columns, schema=schemas.TABLES["pairs"].file_schema))
        part = file.close()
    return [] if part is None else [part]


@contextmanager
def _errors_of_rule(rule: str) -> Iterator[None]:
    """Name the rule that finds too many pairs."""
    try:
        yield
    except TooManyPairsError:
        raise LakeError(
            f"rule '{rule}' finds more pairs than dedup.max_pairs allows. It is too loose for these images, or one "
            "image occurs very often (rule exact finds such images). Use a stricter rule, raise dedup.max_pairs in the "
            'recipe, or write clusters = "components", for which not all pairs are needed.'
        ) from None


def _find_pairs(  # noqa: PLR0913, PLR0917 - arguments of one step
    held: HeldPairs,
    job: CompareJob,
    change: IndexChange,
    images: _Images,
    engine: Engine,
    progress: Progress,
    *,
    across_splits: bool,
) -> None:
    """Compare new images with each other and with the old ones, and add their pairs."""
    most = _images_per_block(job.snapshot, change, job.comparison)
    if engine.pieces > 1:
        most = min(most, _images_for_workers(change, engine.pieces * _BLOCK_PAIRS_PER_WORKER))
    pairs = list(_pair_blocks(change, images, most, progress, across_splits=across_splits))
    if engine.pieces == 1 or len(pairs) == 1:
        found = _compare_here(job, pairs, progress)
    else:
        found = _compare_in_workers(job, pairs, engine, progress)
    for part in found:
        held.add(part.pairs, part.found)


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
    change: IndexChange, images: _Images, block_images: int, progress: Progress, *, across_splits: bool
) -> Iterator[BlockPair]:
    """Pair every block of new images with itself, with the new ones after it, and with the old ones.

    With `across_splits`, only blocks of different splits are paired. A block without any pair is done at once.
    """
    new, old = (
        [
            _numbered(images, files, new=is_new)
            for files in _cut_blocks(parts, block_images, across_splits=across_splits)
        ]
        for parts, is_new in ((change.added, True), (change.kept, False))
    )
    for number, block in enumerate(new):
        others = [
            other
            for other in (*new[number:], *old)
            if not across_splits or _split_of(other.files[0]) != _split_of(block.files[0])
        ]
        for position, other in enumerate(others, start=1):
            completed = len(block.numbers) if position == len(others) else 0
            yield BlockPair(block, None if other is block else other, completed)
        if not others:
            progress.advance(len(block.numbers))


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


def _numbered(images: _Images, files: Files, *, new: bool) -> NumberedBlock:
    numbers = np.concatenate([images.of_file[path] for path in _paths(files)])
    return NumberedBlock(files, new, numbers[images.is_new[numbers] == new])


def _paths(files: Files) -> list[str]:
    """Return the order in which the files of a block are read."""
    return sorted(part.path for part in files)


def _split_of(part: Part) -> tuple[str, str]:
    return part.partition["dataset"], part.partition["split"]


def _compare_here(job: CompareJob, pairs: Iterable[BlockPair], progress: Progress) -> Iterator[FoundPairs]:
    """Compare blocks in this process, which uses every core. A left block is read once for all its pairs."""
    read_pixels, left, block = _pixel_reader(job.images), None, None
    for pair in pairs:
        if left is not pair.left or block is None:
            left, block = pair.left, _read_block(job, pair.left)
        other = None if pair.right is None else _read_block(job, pair.right)
        for found in _match_blocks(job, pair, block, other, read_pixels):
            yield FoundPairs(found, len(found))
        progress.advance(pair.completed)


def _compare_in_workers(
    job: CompareJob, pairs: Sequence[BlockPair], engine: Engine, progress: Progress
) -> Iterator[FoundPairs]:
    with closing(engine.map(partial(compare_blocks, job), pairs)) as results:
        for pair, found in zip(pairs, results, strict=True):
            yield found
            progress.advance(pair.completed)


def _match_blocks(
    job: CompareJob, pair: BlockPair, left: Block, right: Block | None, read_pixels: ReadPixels
) -> Iterator[NumberedPairs]:
    """Match two blocks, the smaller one on the left."""
    numbers = [pair.left.numbers, (pair.right or pair.left).numbers]
    if right is not None and len(right) < len(left):
        left, right, numbers = right, left, numbers[::-1]
    for i, j, scores in scored_pairs(job.comparison, left, right, read_pixels):
        yield NumberedPairs(numbers[0][i], numbers[1][j], scores)


def _concatenate(parts: Iterable[NumberedPairs]) -> NumberedPairs:
    empty = NumberedPairs(np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0, np.float32))
    return NumberedPairs(*map(np.concatenate, zip(empty, *parts, strict=True)))


def _read_block(job: CompareJob, block: NumberedBlock) -> Block:
    scanned = job.snapshot.scan_files("index", _paths(block.files))
    if job.new is not None:
        is_new = pl.col("image_id").is_in(job.new.implode())
        scanned = scanned.filter(is_new if block.new else ~is_new)
    rows = scanned.select("image_id", "key", "signature", "vector").collect().to_arrow()
    if len(rows) != len(block.numbers):
        raise AssertionError(f"{len(rows)} images of a block were read, but {len(block.numbers)} are numbered")
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

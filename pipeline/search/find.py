"""Find the duplicates of pictures in a lake, by the rules of the lake. Nothing is written.

A picture is decoded, indexed and compared by the functions of a build. So its matches are those that a build would find
if the picture were a file of another source: the images that it would pair with the picture, or put into one cluster
with it because of equal keys.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.arrow_columns import to_binary
from pipeline.dedup.matching import Block, Ids, match
from pipeline.dedup.rules import (
    IMAGE_COLUMNS,
    Comparison,
    Entries,
    entries_of,
    has_current_keys,
    index_images,
    parse_rule,
    photo,
)
from pipeline.errors import LakeError
from pipeline.lake.reads import check_tables, check_values, explain_failures
from pipeline.pixels import find, id_matrix
from pipeline.search.index import IndexBlock, KeptIndexes, image_files
from pipeline.search.queries import DecodedQueries, Query, decode_queries
from pipeline.search.rules import lake_rules, stored_rule
from pipeline.search.tables import Tables
from pipeline.shard import Reject

if TYPE_CHECKING:
    from pipeline.lake.parquet_writer import Part

# Bytes of pixels of pictures that are compared together.
_QUERY_BYTES = 2**25
# The first half of the ids of pictures, so that they follow those of images, which are hashes.
_QUERY_ID = 2**64 - 1
_MATCH = pl.Schema({"number": pl.Int64, "score": pl.Float32, "image_id": pl.Binary, "file": pl.Int64})
_FACTS = pl.Schema({"image_id": pl.Binary, **dict.fromkeys(("path", "label", "dataset", "split"), pl.String)})


class Found(NamedTuple):
    """The duplicates of pictures.

    Attributes:
        release: the release that was searched.
        rules: the rules that were compared by, the strictest family first.
        queries: names of the pictures that were compared, in their order.
        matches: columns query (name of the picture), number (its position, counted from 0, rejects included), rule,
            score (float32; 1 under rules that compare keys), image_id, path, label, dataset and split. In the order of
            pictures and rules; highest score first, then by image_id.
        unmatched: names of the pictures without a match, in their order.
        matching: number of all matches; `matches` has fewer if `top` left some out.
        rejects: files that a build of the lake would reject, or that cannot be read, with the reason.
        skipped: rules of the lake that pictures cannot be compared by, each with the reason.
    """

    release: int
    rules: list[str]
    queries: list[str]
    matches: pl.DataFrame
    unmatched: list[str]
    matching: int
    rejects: list[Reject]
    skipped: dict[str, str]


class _Rule(NamedTuple):
    """A rule to compare by.

    Attributes:
        name: the rule.
        stored: the rule that the lake stores: the same, or one with a lower threshold.
        min_score: minimum score, if it is above that of the stored rule.
        from_images: whether the images table is read, because the lake has no index of the rule.
    """

    name: str
    stored: str
    min_score: float | None = None
    from_images: bool = False


class _Batch(NamedTuple):
    """Pictures that are compared together: groups of one shape, each with ids."""

    groups: list[DecodedQueries]
    ids: list[Ids]

    def block(self, rule: str) -> Block:
        """Index the pictures under a rule."""
        ready = parse_rule(rule)
        rows = pa.concat_tables([index_images(ready, group.images, group.pixels) for group in self.groups])
        return Block(np.concatenate(self.ids), entries_of(rows))

    def read_pixels(self, image_ids: Ids) -> NDArray[np.uint8]:
        """Read pixels of pictures of one shape, in the order of the ids: (n, height, width, channels) uint8."""
        at = find(np.concatenate(self.ids), image_ids)
        ends = np.cumsum([len(ids) for ids in self.ids])
        groups = np.searchsorted(ends, at, side="right")
        out = np.empty((len(at), *self.groups[groups[0]].pixels.shape[1:]), np.uint8)
        for number in np.unique(groups).tolist():
            rows = groups == number
            out[rows] = self.groups[number].pixels[at[rows] - ends[number]]
        return out


@explain_failures
def find_duplicates(
    lake: Tables, queries: Sequence[Query], *, rule: str | None = None, top: int | None = None, kept: KeptIndexes
) -> Found:
    """Find the duplicates of pictures in the lake.

    Pictures are not compared with one another. Memory holds 32 MB of their pixels, a block of the index, and the cache.

    Args:
        lake: the lake.
        queries: image files, what `build` reads, or pixels of shape (height, width) or (height, width, 3).
        rule: a rule of the lake, or a stricter threshold of one; exact and file in any lake. None for all of the lake.
        top: for each picture and rule, only this many matches, the closest.
        kept: the cache of indexes.

    Raises:
        LakeError: the lake has no such rule (the message gives the nearest one), or pictures cannot be compared by it.
        DamagedLakeError: a file of the lake is missing or damaged.
    """
    rules, skipped = _rules(lake, rule)
    names: dict[int, str] = {}
    rejects: list[Reject] = []
    matching = 0
    frames = [
        pl.DataFrame(schema={"order": pl.Int32, "number": pl.Int64, "rule": pl.String, "score": pl.Float32, **_FACTS})
    ]
    for batch in _batches(lake, queries, rejects):
        for group in batch.groups:
            names |= zip(group.numbers.tolist(), group.names, strict=True)
        for order, one in enumerate(rules):
            found, count = _match(lake, one, batch, top, kept)
            matching += count
            frames.append(found.with_columns(rule=pl.lit(one.name), order=pl.lit(order, pl.Int32)))
    columns = ["number", "order", "score", "image_id"]
    matches = pl.concat(frames, how="diagonal").sort(columns, descending=[False, False, True, False])
    listed = pl.DataFrame(
        {"number": list(names), "query": list(names.values())}, {"number": pl.Int64, "query": pl.String}
    )
    matches = matches.join(listed, on="number", maintain_order="left")
    listed = listed.sort("number")
    return Found(
        lake.release,
        [one.name for one in rules],
        listed["query"].to_list(),
        matches.select("query", "number", "rule", "score", *_FACTS),
        listed.join(matches, on="number", how="anti", maintain_order="left")["query"].to_list(),
        matching,
        rejects,
        skipped,
    )


def _rules(lake: Tables, wanted: str | None) -> tuple[list[_Rule], dict[str, str]]:
    """List the rules to compare by; and those that pictures cannot be compared by, each with the reason."""
    stored = lake_rules(lake)
    found, skipped = [], {}
    for name in [wanted] if wanted is not None else stored or ["exact"]:
        if name in IMAGE_COLUMNS and name not in stored:
            found.append(_Rule(name, name, from_images=True))
            continue
        one = stored_rule(lake, name)
        if reason := _why_not_searchable(lake, one.rule):
            skipped[name] = reason
        else:
            found.append(_Rule(name, one.rule, one.min_score))
    if not found:
        name, reason = next(iter(skipped.items()))
        raise LakeError(f"rule '{name}' cannot be searched: {reason}")
    return found, skipped


def _why_not_searchable(lake: Tables, rule: str) -> str:
    """Say why pictures cannot be compared by a stored rule; empty if they can."""
    ready = parse_rule(rule)
    if ready.describe is None and ready.describe_files is None:
        return "it compares vectors that you provide, and a picture has none. Search by another rule."
    if not has_current_keys(rule, lake.snapshot.metadata("index").units.get("keys")):
        return f"an older imagelake made its index. Make it again with: imagelake build {lake.root}"
    return ""


def _batches(lake: Tables, queries: Sequence[Query], rejects: list[Reject]) -> Iterator[_Batch]:
    """Decode pictures, and collect groups of them until there are enough to compare; add rejects to `rejects`."""
    batch = _Batch([], [])
    for item in decode_queries(lake, queries):
        if isinstance(item, Reject):
            rejects.append(item)
            continue
        ids = np.full((len(item.numbers), 2), _QUERY_ID, dtype=">u8")
        ids[:, 1] = item.numbers
        batch.groups.append(item)
        batch.ids.append(ids.view(np.uint8))
        if sum(group.pixels.nbytes for group in batch.groups) >= _QUERY_BYTES:
            yield batch
            batch = _Batch([], [])
    if batch.groups:
        yield batch


def _match(lake: Tables, rule: _Rule, batch: _Batch, top: int | None, kept: KeptIndexes) -> tuple[pl.DataFrame, int]:
    """Match pictures under a rule.

    Returns:
        Columns number, score and those of `_FACTS`, only the closest `top` of each picture; and the number of all.
    """
    comparison = _comparison(lake, rule.stored)
    pictures = batch.block(rule.stored)
    frames = [pl.DataFrame(schema=_MATCH)]
    parts: list[Part] = []
    for block in kept.blocks(lake.snapshot, rule.stored, from_images=rule.from_images):
        found = (
            [] if comparison is None else match(comparison, pictures, block.block, _pixel_reader(lake, batch, block))
        )
        pairs = [pl.DataFrame(table) for table in found]
        if comparison is None or comparison.equal_signatures:
            pairs += _equal_keys(pictures, block.block, signed=comparison is not None)
        frames += [_to_matches(some, block, len(parts)) for some in pairs if len(some)]
        parts += block.parts
    matches = pl.concat(frames)
    if rule.min_score is not None:
        matches = matches.filter(pl.col("score") >= pl.lit(rule.min_score, pl.Float32))
    count = len(matches)
    if top is not None:
        best = matches.sort("score", "image_id", descending=[True, False])
        matches = best.filter(pl.int_range(pl.len()).over("number") < top)
    files = [parts[number] for number in matches["file"].unique().sort().to_list()]
    images = image_files(lake.snapshot, files)
    check_values(lake.snapshot, "images", _FACTS.names(), images)
    facts = (
        lake.snapshot.scan_files("images", [part.path for part in images])
        .filter(pl.col("image_id").is_in(matches["image_id"].unique().implode()))
        .select(_FACTS.names())
        .collect()
    )
    return matches.drop("file").join(facts, on="image_id"), count


def _comparison(lake: Tables, rule: str) -> Comparison | None:
    """Make the comparison of a rule, of photo with the basis of the lake; None if the rule compares keys only."""
    comparison = parse_rule(rule).comparison
    if not isinstance(comparison, photo.Photo):
        return comparison
    check_tables(lake.snapshot, "bases")
    bases = lake.scan("bases").filter(family=photo.FAMILY, version=photo.BASIS_VERSION).select("basis").collect()
    # A lake without a basis has no images.
    return comparison.using(bases.item()) if len(bases) else comparison


def _pixel_reader(lake: Tables, batch: _Batch, block: IndexBlock) -> Callable[[Ids], NDArray[np.uint8]]:
    def read_pixels(image_ids: Ids) -> NDArray[np.uint8]:
        is_query = _halves(image_ids)[:, 0] == _QUERY_ID
        read = [
            (rows, reader(image_ids[rows]))
            for rows, reader in (
                (is_query, batch.read_pixels),
                (~is_query, lambda ids: block.read_pixels(ids, lake.snapshot)),
            )
            if rows.any()
        ]
        out = np.empty((len(image_ids), *read[0][1].shape[1:]), np.uint8)
        for rows, pixels in read:
            out[rows] = pixels
        return out

    return read_pixels


def _equal_keys(pictures: Block, block: Block, *, signed: bool) -> list[pl.DataFrame]:
    """Pair pictures with the images that have an equal key and an equal signature.

    Args:
        pictures: pictures under a rule.
        block: images under the same rule.
        signed: only signatures other than 0.

    Returns:
        Columns left_id (the image), right_id (the picture) and score, as `match` yields them; no frame without a pair.
    """
    of_pictures, of_images = pictures.entries, block.entries
    signatures = of_pictures.signature
    at = np.flatnonzero(np.isin(of_images.signature, signatures[signatures != 0] if signed else signatures))
    if not len(at):
        return []
    left = _keys(of_images.take(at)).with_columns(left=pl.Series(at, dtype=pl.Int64))
    right = _keys(of_pictures).with_row_index("right")
    both = left.join(right, on=["key", "signature"])
    left_id, right_id = (
        to_binary(side.image_ids[both[name].to_numpy()]) for side, name in ((block, "left"), (pictures, "right"))
    )
    return [pl.DataFrame({"left_id": left_id, "right_id": right_id, "score": np.ones(len(both), np.float32)})]


def _keys(entries: Entries) -> pl.DataFrame:
    return pl.DataFrame({"key": entries.key, "signature": entries.signature})


def _to_matches(pairs: pl.DataFrame, block: IndexBlock, first: int) -> pl.DataFrame:
    """Replace the id of the picture by its number, and add the file that has the image.

    Args:
        pairs: columns left_id (the image), right_id (the picture) and score.
        block: the block of the images.
        first: number of the first file of the block among those of all blocks.

    Returns:
        The columns of `_MATCH`.
    """
    images = pairs["left_id"].unique()
    files = pl.DataFrame({"left_id": images, "file": block.files_of(block.find(id_matrix(images))) + first})
    numbers = _halves(id_matrix(pairs["right_id"]))[:, 1].astype(np.int64)
    matches = pairs.with_columns(number=pl.Series(numbers)).join(files, on="left_id")
    return matches.select("number", "score", pl.col("left_id").alias("image_id"), "file").cast(_MATCH)


def _halves(ids: Ids) -> NDArray[np.uint64]:
    """Read ids as pairs of numbers: (n, 16) to (n, 2)."""
    return np.ascontiguousarray(ids).view(">u8").astype(np.uint64)

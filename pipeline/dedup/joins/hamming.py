"""Find all pairs of 64-bit words that differ in few bits, each exactly once.

The 64 bits are cut into bands. Two words that differ in d bits differ in at most d bands, so of d + r bands they agree
in r or more. One hash table is made for every choice of r bands. Words that agree in these bands share a bucket, and
all pairs in a bucket are compared. A pair that shares buckets of several tables counts in the first of them only.

References:
    G. S. Manku, A. Jain, A. Das Sarma, "Detecting Near-Duplicates for Web Crawling", 2007: tables by choices of bands.
    M. Norouzi, A. Punjani, D. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", 2012: cost against bands.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.streaming import combine_small, map_ahead
from pipeline.pixels import available_cores

Words = NDArray[np.uint64]
WordIds = NDArray[np.uint32]
Positions = NDArray[np.int64]
Distances = NDArray[np.uint8]
# Positions in the left and in the right words, and the distance in bits.
Pairs = tuple[Positions, Positions, Distances]
# The same for distinct words: their ids on the left and on the right.
DistinctPairs = tuple[WordIds, WordIds, Distances]

MAX_DISTANCE = 32
_BITS = 64
# A table is sorted by its shared bands, which must fit in half a word.
_MAX_KEY_BITS = 32
_KEY_SHIFT = np.uint64(32)

# Pairs compared by one numpy call: their words, differences and distances fit in a core's cache.
_CALL_PAIRS = 2**15
# Pairs compared by one job (at least one row of them): bounds the memory of its results.
_JOB_PAIRS = 2**20
# With fewer buckets side by side, one bucket at a time is faster because numpy's inner loops would be short.
_MIN_BUCKETS_TOGETHER = 16
# Buckets are compared side by side if their sizes lie between the same two neighbours of these.
_SIZE_CLASSES = np.unique(np.floor(1.25 ** np.arange(100))).astype(np.int64)

# Maximum number of pairs in a returned block.
_BLOCK_PAIRS = 2**20
# Minimum number of pairs of distinct words that are expanded together.
_EXPAND_PAIRS = 2**16

# Numpy lets other threads run while it computes. With more than these, the main thread, which expands pairs, is full.
_MAX_THREADS = 4
_MAX_SHARED = 3

# Seconds, measured on an AMD EPYC: per table, per word in a table, per pair compared, per near pair.
_TABLE_COST, _WORD_COST, _PAIR_COST, _NEAR_PAIR_COST = 4e-3, 2e-8, 8e-10, 1.5e-8
# Number of words and tables that the cost of a join is estimated from.
_SAMPLE_WORDS, _SAMPLE_TABLES = 2**12, 6
# A prime: its multiples modulo n visit all positions in an order unrelated to that of the words.
_SAMPLE_STRIDE = 2654435761


@dataclass(frozen=True)
class _DistinctWords:
    """Distinct words, ascending, and where each occurs.

    The positions of word k are order[starts[k] : starts[k] + counts[k]], ascending.
    """

    words: Words
    order: Positions
    starts: Positions
    counts: Positions


@dataclass(frozen=True)
class _Buckets:
    """Words sorted by bucket. `words` and `ids` are parallel, and so are `keys`, `starts` and `sizes` of buckets."""

    words: Words
    ids: WordIds
    keys: Words
    starts: Positions
    sizes: Positions


@dataclass(frozen=True)
class _BandTable:
    """Words in the buckets of one choice of bands.

    Attributes:
        left: the left words.
        right: the right words; the same object as `left` if the words are joined with themselves.
        buckets: (4, k) int64, buckets that contain pairs, ordered by size: left start and size, right start and size.
        skipped_tops: the top bit of each band that was not chosen although a later one was.
        low_bits: all bits except the top bit of each band.
    """

    left: _Buckets
    right: _Buckets
    buckets: Positions
    skipped_tops: np.uint64
    low_bits: np.uint64

    @property
    def is_self_join(self) -> bool:
        """Whether the words are joined with themselves."""
        return self.left is self.right


@dataclass(frozen=True)
class _Job:
    """A part of a table's pairs: some of its buckets, and a range of their left rows."""

    table: _BandTable
    buckets: slice
    rows: range
    distance: int


def hamming_join(left: Words, right: Words | None, distance: int, *, shared: int | None = None) -> Iterator[Pairs]:
    """Find every pair of words within a distance, each exactly once.

    The join is complete: the bands are chosen so that no near pair can be missed, and candidates are compared in full.
    Equal words are joined once and expanded afterwards. Results are streamed in an order that depends on the words
    only, not on the number of threads. Memory: about 250 bytes a word, and at most about 150 MB for each of up to four
    threads.

    Args:
        left: (n,) uint64, fewer than 2^32 distinct words, in any order.
        right: (m,) uint64 likewise; None to join the left words with themselves.
        distance: maximum number of differing bits, 0 to 32.
        shared: number of bands by which a table is made, 0 to 3; None to choose the cheapest by an estimate. Changes
            the speed and the order of the results, never the set of pairs.

    Returns:
        Blocks of at most 2^20 pairs: positions in `left` and in `right` (int64; in a self-join both in `left`, the
        smaller one first), and their distance in bits (uint8).

    Raises:
        ValueError: `distance` or `shared` is out of range.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"the distance must be 0 to {MAX_DISTANCE} bits, not {distance}")
    if shared is not None and not 0 <= shared <= _MAX_SHARED:
        raise ValueError(f"the number of shared bands must be 0 to {_MAX_SHARED}, not {shared}")
    return _join(left, right, distance, shared)


def _join(left: Words, right: Words | None, distance: int, shared: int | None) -> Iterator[Pairs]:
    left_words = _distinct(left)
    right_words = left_words if right is None else _distinct(right)
    if right is None:
        yield from _equal_pairs(left_words)
    if len(left_words.words) and len(right_words.words):
        others = None if right is None else _spread_bits(right_words.words)
        # To expand small results one by one takes longer than to find them.
        distinct_pairs = _distinct_pairs(_spread_bits(left_words.words), others, distance, shared)
        for pairs in combine_small(distinct_pairs, _EXPAND_PAIRS):
            yield from _expand(left_words, right_words, pairs)


def _distinct(words: Words) -> _DistinctWords:
    order = np.argsort(words, kind="stable")
    ordered = words[order]
    starts = np.flatnonzero(np.concatenate((np.ones(min(1, len(words)), np.bool_), ordered[1:] != ordered[:-1])))
    return _DistinctWords(ordered[starts], order, starts, np.diff(starts, append=len(words)))


def _equal_pairs(words: _DistinctWords) -> Iterator[Pairs]:
    """Pair the positions of equal words: each position with the later ones of the same word."""
    positions = np.arange(len(words.order))
    ends = np.repeat(words.starts + words.counts, words.counts)
    for one, other in _expand_ranges(positions + 1, ends - positions - 1):
        yield words.order[one], words.order[other], np.zeros(len(one), np.uint8)


def _spread_bits(words: Words) -> Words:
    """Move bit k to bit 19 k mod 64, so that the bits of a band come from all over the word; distances do not change.

    Neighbouring bits of a perceptual hash are correlated. On images of glyphs, bands of neighbouring bits give four
    times as many candidates. 19 is the inverse of 27, the best odd stride on glyphs, and better than random orders.
    """
    out = np.zeros(len(words), np.uint64)
    octets = words.astype("<u8").view(np.uint8).reshape(-1, 8)
    values = np.arange(256, dtype=np.uint64)
    for octet in range(8):
        moved = np.zeros(256, np.uint64)
        for bit in range(8):
            target = np.uint64((8 * octet + bit) * 19 % _BITS)
            moved |= (values >> np.uint64(bit) & np.uint64(1)) << target
        out |= moved[octets[:, octet]]
    return out


def _distinct_pairs(left: Words, right: Words | None, distance: int, shared: int | None) -> Iterator[DistinctPairs]:
    """Join distinct words: tables are made and jobs run in threads, a few ahead; results come in order."""
    if shared is None:
        shared = _cheapest_shared(left, right, distance)
    bands = _band_count(distance, shared)
    threads = _thread_count()
    pool = ThreadPoolExecutor(threads)
    try:
        choices = combinations(range(bands), shared)
        tables = map_ahead(pool, lambda chosen: _make_table(left, right, bands, chosen), choices, 2)
        jobs = (job for table in tables for job in _jobs(table, distance))
        yield from map_ahead(pool, _run_job, jobs, 2 * threads)
    finally:
        pool.shutdown(cancel_futures=True)


def _thread_count() -> int:
    return min(_MAX_THREADS, available_cores())


def _band_count(distance: int, shared: int) -> int:
    """Count the bands: near words must agree in `shared` of them, and any `shared` bands have at most 32 bits."""
    return max(distance + shared, -(-_BITS // (_MAX_KEY_BITS // shared))) if shared else 0


def _cheapest_shared(left: Words, right: Words | None, distance: int) -> int:
    """Choose the number of shared bands: more of them give more tables with fewer candidates each."""
    left_sample, right_sample = _sample(left), None if right is None else _sample(right)
    words = len(left) + (0 if right is None else len(right))
    left_scale = len(left) / len(left_sample)
    right_scale = left_scale if right is None or right_sample is None else len(right) / len(right_sample)
    scale = left_scale * right_scale

    def seconds(shared: int) -> float:
        bands = _band_count(distance, shared)
        tables = math.comb(bands, shared)
        choices = islice(combinations(range(bands), shared), 0, None, -(-tables // _SAMPLE_TABLES))
        counts = [_count_work(_make_table(left_sample, right_sample, bands, chosen), distance) for chosen in choices]
        pairs = sum(_PAIR_COST * compared + _NEAR_PAIR_COST * near for compared, near in counts) / len(counts)
        return tables * (_TABLE_COST + _WORD_COST * words + scale * pairs)

    return min(range(_MAX_SHARED + 1), key=seconds)


def _sample(words: Words) -> Words:
    return words[np.arange(min(_SAMPLE_WORDS, len(words))) * _SAMPLE_STRIDE % len(words)]


def _count_work(table: _BandTable, distance: int) -> tuple[int, int]:
    """Count the pairs that share a bucket, and the near ones of them, whether or not they count in this table."""
    _, left, _, right = table.buckets
    candidates = (left * (left - 1) // 2).sum() if table.is_self_join else (left * right).sum()
    every = replace(table, skipped_tops=np.uint64(0))
    near = sum(len(_run_job(job)[0]) for job in _jobs(every, distance))
    return int(candidates), near


def _make_table(left: Words, right: Words | None, bands: int, chosen: tuple[int, ...]) -> _BandTable:
    """Sort words into the buckets of a choice of bands.

    Args:
        left: (n,) uint64, fewer than 2^32 words, distinct.
        right: (m,) uint64 likewise; None to join the left words with themselves.
        bands: number of bands.
        chosen: the bands that must agree, ascending, together at most 32 bits; empty for one bucket of all words.
    """
    edges = [_BITS * band // bands for band in range(bands + 1)] if bands else [0]
    spans = [(low, high - low) for low, high in pairwise(edges)]
    key_spans = [spans[band] for band in chosen]
    a = _sort_into_buckets(left, key_spans)
    if right is None:
        b, several = a, np.flatnonzero(a.sizes > 1)
        buckets = np.stack([a.starts[several], a.sizes[several]] * 2)
    else:
        b = _sort_into_buckets(right, key_spans)
        match = np.minimum(np.searchsorted(b.keys, a.keys), len(b.keys) - 1)
        common = np.flatnonzero(b.keys[match] == a.keys)
        buckets = np.stack([a.starts[common], a.sizes[common], b.starts[match[common]], b.sizes[match[common]]])
    classes = _size_classes(buckets)
    by_size = np.argsort((classes[0] * len(_SIZE_CLASSES) + classes[1]).astype(np.uint16), kind="stable")
    tops = [1 << (edge - 1) for edge in edges[1:]]
    skipped = sum(tops[band] for band in range(max(chosen, default=0)) if band not in chosen)
    return _BandTable(a, b, buckets[:, by_size], np.uint64(skipped), ~np.uint64(sum(tops)))


def _sort_into_buckets(words: Words, spans: list[tuple[int, int]]) -> _Buckets:
    """Sort words by the bits of some spans (lowest bit, width), and words of one bucket by id."""
    packed = np.zeros(len(words), np.uint64)
    for low, width in spans:
        packed <<= np.uint64(width)
        packed |= words >> np.uint64(low) & np.uint64(2**width - 1)
    packed <<= _KEY_SHIFT
    packed |= np.arange(len(words), dtype=np.uint64)
    packed.sort()
    ids = packed.astype(np.uint32)
    packed >>= _KEY_SHIFT
    starts = np.flatnonzero(np.concatenate((np.ones(1, np.bool_), packed[1:] != packed[:-1])))
    return _Buckets(words[ids], ids, packed[starts], starts, np.diff(starts, append=len(words)))


def _size_classes(buckets: Positions) -> Positions:
    """Compute the size classes of buckets: (2, k), left and right."""
    return np.searchsorted(_SIZE_CLASSES, buckets[1::2])


def _jobs(table: _BandTable, distance: int) -> Iterator[_Job]:
    """Cut a table into jobs: many small buckets of similar size side by side, one large bucket, or rows of one."""
    classes = _size_classes(table.buckets)
    changes = np.flatnonzero((classes[:, 1:] != classes[:, :-1]).any(axis=0)) + 1
    runs = [0, *changes.tolist(), classes.shape[1]] if classes.shape[1] else []
    for begin, end in pairwise(runs):
        width = int(table.buckets[3, begin:end].max())
        columns = min(_CALL_PAIRS // width, end - begin)
        if columns < _MIN_BUCKETS_TOGETHER <= width or columns < 1:
            columns = 1
        for column in range(begin, end, columns):
            buckets = slice(column, min(column + columns, end))
            height = int(table.buckets[1, buckets].max())
            rows = max(1, _JOB_PAIRS // (width * columns))
            for row in range(0, height, rows):
                yield _Job(table, buckets, range(row, min(row + rows, height)), distance)


def _run_job(job: _Job) -> DistinctPairs:
    """Find the near pairs of a job that count in its table, each once, in a fixed order."""
    table = job.table
    left_start, left_size, right_start, right_size = table.buckets[:, job.buckets]
    count, width = len(left_size), int(right_size.max())
    cell, differing = _near_cells(job, width)
    if table.skipped_tops:
        # Adding its low bits to a band carries into its top bit if the band is not zero, and never any further.
        nonzero = (((differing & table.low_bits) + table.low_bits) | differing) & table.skipped_tops
        first = np.flatnonzero(nonzero == table.skipped_tops)
        cell, differing = cell[first], differing[first]
    row_pair, bucket = np.divmod(cell, count)
    left_row, right_row = np.divmod(row_pair, width)
    # Short buckets were padded with their last word.
    real = (left_row < left_size[bucket]) & (right_row < right_size[bucket])
    if table.is_self_join:
        real &= left_row < right_row
    bucket, left_row, right_row = bucket[real], left_row[real], right_row[real]
    left, right = table.left.ids[left_start[bucket] + left_row], table.right.ids[right_start[bucket] + right_row]
    return left, right, np.bitwise_count(differing[real])


def _near_cells(job: _Job, width: int) -> tuple[Positions, Words]:
    """Find the near cells of the array (left rows, right rows, buckets): flat position, and the bits that differ."""
    left_start, left_size, right_start, right_size = job.table.buckets[:, job.buckets]
    left = _side_by_side(job.table.left.words, left_start, left_size, job.rows)
    right = _side_by_side(job.table.right.words, right_start, right_size, range(width))
    count, first = len(left_size), job.rows.start
    space, bits = np.empty(max(_CALL_PAIRS, count), np.uint64), np.empty(max(_CALL_PAIRS, count), np.uint8)
    positions, differing = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    row = first
    while row < job.rows.stop:
        low = row + 1 if job.table.is_self_join else 0
        rows = min(job.rows.stop - row, max(1, _CALL_PAIRS // (max(1, width - low) * count)))
        step = max(1, _CALL_PAIRS // (rows * count))
        for start in range(low, width, step):
            part = right[start : start + step]
            shape = (rows, len(part), count)
            cells = rows * part.size
            np.bitwise_xor(left[row - first :][:rows, None], part[None], out=space[:cells].reshape(shape))
            np.bitwise_count(space[:cells], out=bits[:cells])
            near = np.flatnonzero(bits[:cells] <= job.distance)
            if len(near):
                differing.append(space.take(near))
                # Convert to positions in the whole array, whose rows are longer than those of the part.
                skipped = near // part.size * (right.size - part.size) if rows > 1 else 0
                positions.append(near + skipped + (row * width + start) * count)
        row += rows
    return np.concatenate(positions), np.concatenate(differing)


def _side_by_side(words: Words, starts: Positions, sizes: Positions, rows: range) -> Words:
    """Copy buckets into the columns of a matrix, (rows, buckets) uint64; short ones are padded with their last word."""
    if len(starts) == 1:
        return words[starts[0] + rows.start : starts[0] + rows.stop, None]
    return words[starts + np.minimum(np.arange(rows.start, rows.stop)[:, None], sizes - 1)]


def _expand(left_words: _DistinctWords, right_words: _DistinctWords, pairs: DistinctPairs) -> Iterator[Pairs]:
    """Turn pairs of distinct words into pairs of positions: every position of one with every position of the other."""
    left, right, bits = pairs
    self_join = left_words is right_words
    single = (left_words.counts[left] == 1) & (right_words.counts[right] == 1)
    for start in range(0, len(left), _BLOCK_PAIRS):
        now = np.flatnonzero(single[start : start + _BLOCK_PAIRS]) + start
        one = left_words.order[left_words.starts[left[now]]]
        other = right_words.order[right_words.starts[right[now]]]
        yield _smaller_first(one, other, bits[now], self_join=self_join)
    repeated = np.flatnonzero(~single)
    left, right, bits = left[repeated], right[repeated], bits[repeated]
    for pair, one in _expand_ranges(left_words.starts[left], left_words.counts[left]):
        partners = right[pair]
        for member, other in _expand_ranges(right_words.starts[partners], right_words.counts[partners]):
            positions = left_words.order[one[member]], right_words.order[other]
            yield _smaller_first(*positions, bits[pair[member]], self_join=self_join)


def _smaller_first(one: Positions, other: Positions, bits: Distances, *, self_join: bool) -> Pairs:
    """Put the smaller position first in a self-join."""
    return (np.minimum(one, other), np.maximum(one, other), bits) if self_join else (one, other, bits)


def _expand_ranges(starts: Positions, counts: Positions) -> Iterator[tuple[Positions, Positions]]:
    """List the members of ranges as (number of the range, member), in blocks of at most `_BLOCK_PAIRS`."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _BLOCK_PAIRS):
        stop = min(start + _BLOCK_PAIRS, total)
        owners = np.arange(np.searchsorted(ends, start, "right"), np.searchsorted(ends, stop - 1, "right") + 1)
        first = ends[owners] - counts[owners]
        lengths = np.minimum(ends[owners], stop) - np.maximum(first, start)
        yield np.repeat(owners, lengths), np.arange(start, stop) + np.repeat(starts[owners] - first, lengths)

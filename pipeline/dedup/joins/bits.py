"""Tables of 64-bit words by some of their bits: where two words meet, they are compared.

The bits are cut into bands. Words that differ in d bits differ in at most d bands, so of d + r bands they agree in r or
more. There is a table for every choice of r bands; words that agree in these share a bucket, and all pairs in a bucket
are compared. A pair counts in one table only: that of the first r bands in which it agrees.

References:
    G. S. Manku, A. Jain, A. Das Sarma, "Detecting Near-Duplicates for Web Crawling", 2007: tables by choices of bands.
    M. Norouzi, A. Punjani, D. Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", 2012: cost against bands.

All pairs of 64-bit words that differ in few bits: complete, each once.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations, islice, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Ids = NDArray[np.uint32]
Places = NDArray[np.int64]
# Ids of the left and of the right words, and in how many bits they differ.
Found = tuple[Ids, Ids, NDArray[np.uint8]]

_BITS = 64
# Pairs compared by one call of numpy: their words, what differs and how much fit a core's cache.
_CELLS = 2**15
# Pairs compared by one job, at least one row of them: bounds the memory that its finds can take.
_CANDIDATES = 2**20
# Buckets side by side, below which one at a time is faster: numpy's inner loops would be short.
_COLUMNS = 16
# Sizes of buckets that are worked on together lie between two neighbours of these.
_LADDER = np.unique(np.floor(1.25 ** np.arange(100))).astype(np.int64)
_HALF = np.uint64(32)


@dataclass(frozen=True)
class _Side:
    """Words ordered by bucket: `words` and `ids` are parallel, and so are `keys`, `starts` and `sizes` of buckets."""

    words: Words
    ids: Ids
    keys: Words
    starts: Places
    sizes: Places


@dataclass(frozen=True)
class Table:
    """Words in the buckets of one choice of bands.

    Attributes:
        left: the left words.
        right: the right words; `left` itself where words are joined with themselves.
        buckets: (4, k) int64, buckets with pairs, ordered by size: start and size left, start and size right.
        tops: the top bit of every band before the last chosen one that was not chosen.
        rests: all bits but the top one of every band.
    """

    left: _Side
    right: _Side
    buckets: Places
    tops: np.uint64
    rests: np.uint64

    @property
    def itself(self) -> bool:
        """Tell whether words are joined with themselves."""
        return self.left is self.right


@dataclass(frozen=True)
class Job:
    """A part of a table's pairs: some of its buckets, and of these the left words of some rows."""

    table: Table
    buckets: slice
    rows: range
    distance: int


def spread_bits(words: Words) -> Words:
    """Move bit k to place 19 k mod 64, so that a band's bits come from all over the word.

    Neighbours in a perceptual hash say much the same. On glyphs, bands of neighbours have four times as many candidates
    as these; 19 is the inverse of 27, the best odd stride on them, and better than random orders.

    Args:
        words: (n,) uint64.

    Returns:
        (n,) uint64; distances are what they were.
    """
    out = np.zeros(len(words), np.uint64)
    octets = words.astype("<u8").view(np.uint8).reshape(-1, 8)
    values = np.arange(256, dtype=np.uint64)
    for octet in range(8):
        moved = np.zeros(256, np.uint64)
        for bit in range(8):
            place = np.uint64((8 * octet + bit) * 19 % _BITS)
            moved |= (values >> np.uint64(bit) & np.uint64(1)) << place
        out |= moved[octets[:, octet]]
    return out


def make_table(left: Words, right: Words | None, bands: int, chosen: tuple[int, ...]) -> Table:
    """Sort words into the buckets of a choice of bands.

    Args:
        left: (n,) uint64, less than 2^32 words, distinct.
        right: (m,) uint64 likewise; None to join the left words with themselves.
        bands: how many bands the 64 bits are cut into.
        chosen: the bands that must agree, ascending, of 32 bits or less together; none for one bucket of all words.
    """
    edges = [_BITS * band // bands for band in range(bands + 1)] if bands else [0]
    spans = [(low, high - low) for low, high in pairwise(edges)]
    keys = [spans[band] for band in chosen]
    a = _side(left, keys)
    if right is None:
        b, many = a, np.flatnonzero(a.sizes > 1)
        buckets = np.stack([a.starts[many], a.sizes[many]] * 2)
    else:
        b = _side(right, keys)
        at = np.minimum(np.searchsorted(b.keys, a.keys), len(b.keys) - 1)
        met = np.flatnonzero(b.keys[at] == a.keys)
        buckets = np.stack([a.starts[met], a.sizes[met], b.starts[at[met]], b.sizes[at[met]]])
    steps = _steps(buckets)
    by_size = np.argsort((steps[0] * len(_LADDER) + steps[1]).astype(np.uint16), kind="stable")
    tops = [1 << (edge - 1) for edge in edges[1:]]
    skipped = sum(tops[band] for band in range(max(chosen, default=0)) if band not in chosen)
    return Table(a, b, buckets[:, by_size], np.uint64(skipped), ~np.uint64(sum(tops)))


def jobs_of(table: Table, distance: int) -> Iterator[Job]:
    """Cut a table into jobs: many small buckets of like size side by side, or one large bucket, or rows of it."""
    steps = _steps(table.buckets)
    changes = np.flatnonzero((steps[:, 1:] != steps[:, :-1]).any(axis=0)) + 1
    runs = [0, *changes.tolist(), steps.shape[1]] if steps.shape[1] else []
    for begin, end in pairwise(runs):
        wide = int(table.buckets[3, begin:end].max())
        columns = min(_CELLS // wide, end - begin)
        if columns < _COLUMNS <= wide or columns < 1:
            columns = 1
        for column in range(begin, end, columns):
            buckets = slice(column, min(column + columns, end))
            tall = int(table.buckets[1, buckets].max())
            rows = max(1, _CANDIDATES // (wide * columns))
            for row in range(0, tall, rows):
                yield Job(table, buckets, range(row, min(row + rows, tall)), distance)


def run(job: Job) -> Found:
    """Compare the pairs of a job.

    Returns:
        The near pairs that count in this table, each once, in a fixed order: a pair of words of the same side is found
        from one of its two ends.
    """
    table = job.table
    left_start, left_size, right_start, right_size = table.buckets[:, job.buckets]
    count, wide = len(left_size), int(right_size.max())
    at, differing = _near_cells(job, wide)
    if table.tops:
        # Adding its rest to a band carries into its top bit where the band is not zero, and never further.
        reached = (((differing & table.rests) + table.rests) | differing) & table.tops
        new = np.flatnonzero(reached == table.tops)
        at, differing = at[new], differing[new]
    cell, column = np.divmod(at, count)
    row, across = np.divmod(cell, wide)
    # Short buckets were filled up with their last word.
    real = (row < left_size[column]) & (across < right_size[column])
    if table.itself:
        real &= row < across
    column, row, across = column[real], row[real], across[real]
    left, right = table.left.ids[left_start[column] + row], table.right.ids[right_start[column] + across]
    return left, right, np.bitwise_count(differing[real])


def weigh(table: Table, distance: int) -> tuple[int, int]:
    """Count what a table costs: pairs that share a bucket, and those that are near, whether they count in it or not."""
    _, left, _, right = table.buckets
    candidates = (left * (left - 1) // 2).sum() if table.itself else (left * right).sum()
    every = replace(table, tops=np.uint64(0))
    near = sum(len(run(job)[0]) for job in jobs_of(every, distance))
    return int(candidates), near


def _near_cells(job: Job, wide: int) -> tuple[Places, Words]:
    """Find near cells of the cube of left rows x right rows x buckets, flat: (place, which bits differ)."""
    left_start, left_size, right_start, right_size = job.table.buckets[:, job.buckets]
    left = _columns(job.table.left.words, left_start, left_size, job.rows)
    right = _columns(job.table.right.words, right_start, right_size, range(wide))
    count, first = len(left_size), job.rows.start
    space, bits = np.empty(max(_CELLS, count), np.uint64), np.empty(max(_CELLS, count), np.uint8)
    places, differing = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    row = first
    while row < job.rows.stop:
        low = row + 1 if job.table.itself else 0
        rows = min(job.rows.stop - row, max(1, _CELLS // (max(1, wide - low) * count)))
        step = max(1, _CELLS // (rows * count))
        for start in range(low, wide, step):
            part = right[start : start + step]
            shape = (rows, len(part), count)
            cells = rows * part.size
            np.bitwise_xor(left[row - first :][:rows, None], part[None], out=space[:cells].reshape(shape))
            np.bitwise_count(space[:cells], out=bits[:cells])
            near = np.flatnonzero(bits[:cells] <= job.distance)
            if len(near):
                differing.append(space.take(near))
                # Counted from the cube's corner: rows of the part are shorter than those of the cube.
                skipped = near // part.size * (right.size - part.size) if rows > 1 else 0
                places.append(near + skipped + (row * wide + start) * count)
        row += rows
    return np.concatenate(places), np.concatenate(differing)


def _columns(words: Words, starts: Places, sizes: Places, rows: range) -> Words:
    """Lay buckets side by side: (rows, buckets) uint64, short ones filled up with their last word."""
    if len(starts) == 1:
        return words[starts[0] + rows.start : starts[0] + rows.stop, None]
    return words[starts + np.minimum(np.arange(rows.start, rows.stop)[:, None], sizes - 1)]


def _side(words: Words, spans: list[tuple[int, int]]) -> _Side:
    """Order words by the bits of some spans (lowest bit, width), and equal ones by id, so that no tie is left open."""
    packed = np.zeros(len(words), np.uint64)
    for low, width in spans:
        packed <<= np.uint64(width)
        packed |= words >> np.uint64(low) & np.uint64(2**width - 1)
    packed <<= _HALF
    packed |= np.arange(len(words), dtype=np.uint64)
    packed.sort()
    ids = packed.astype(np.uint32)
    packed >>= _HALF
    starts = np.flatnonzero(np.concatenate((np.ones(1, np.bool_), packed[1:] != packed[:-1])))
    return _Side(words[ids], ids, packed[starts], starts, np.diff(starts, append=len(words)))


def _steps(buckets: Places) -> Places:
    """Tell between which sizes of the ladder buckets lie: (2, k), left and right."""
    return np.searchsorted(_LADDER, buckets[1::2])


# Places in left and right, and the distance.
Block = tuple[Places, Places, NDArray[np.uint8]]

MOST_BITS = 32
# Pairs in a block, at most.
_BLOCK = 2**20
# Pairs of distinct words that are expanded at once, at least.
_GATHERED = 2**16

# Numpy lets other threads run while it computes; beyond these the main thread, which expands what they find, is full.
_MOST_THREADS = 4
_MOST_SHARED = 3

# Seconds, measured on an AMD EPYC: a table, a word in it, a pair compared in it, a pair found near in it.
_PER_TABLE, _PER_WORD, _PER_PAIR, _PER_NEAR = 4e-3, 2e-8, 8e-10, 1.5e-8
# How many pairs will be compared and found is estimated from this many words and tables.
_SAMPLE, _SAMPLE_TABLES = 2**12, 6
# A prime: its multiples modulo n run through all places, in an order that has to do with nothing.
_SCATTER = 2654435761

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Groups:
    """Distinct words, ascending; places of word k are order[starts[k] : starts[k] + counts[k]], ascending."""

    words: Words
    order: Places
    starts: Places
    counts: Places


def near_words(left: Words, right: Words | None, distance: int, *, shared: int | None = None) -> Iterator[Block]:
    """Find every pair of words within a distance, each exactly once.

    Complete: bands of bits are chosen so that no near pair can miss (`bit_tables`), and candidates are compared in
    full. Equal words are joined once and expanded afterwards. Streamed, in an order that depends on the words alone,
    not on the number of threads. Memory: about 250 bytes a word, and at most some 150 MB a thread (of four) for pairs.

    Args:
        left: (n,) uint64, fewer than 2^32 distinct words, in any order.
        right: (m,) uint64 likewise; None to join the left words with themselves.
        distance: bits in which two words may differ, 0 to 32.
        shared: how many bands a table's words share, 0 to 3; None for the cheapest by estimate. Never changes what is
            found, only how fast and in what order.

    Returns:
        Blocks of at most 2^20 pairs: places in `left` and in `right` (int64; in `left` twice, the smaller first, for a
        join with itself), and their distance in bits (uint8).

    Raises:
        ValueError: distance or shared are out of range.
    """
    if not 0 <= distance <= MOST_BITS:
        raise ValueError(f"the distance is 0 to {MOST_BITS} bits, not {distance}")
    if shared is not None and not 0 <= shared <= _MOST_SHARED:
        raise ValueError(f"tables share 0 to {_MOST_SHARED} bands, not {shared}")
    return _near_words(left, right, distance, shared)


def _near_words(left: Words, right: Words | None, distance: int, shared: int | None) -> Iterator[Block]:
    ours = _grouped(left)
    theirs = ours if right is None else _grouped(right)
    if right is None:
        yield from _repeats(ours)
    if len(ours.words) and len(theirs.words):
        others = None if right is None else spread_bits(theirs.words)
        for found in _gathered(_distinct_pairs(spread_bits(ours.words), others, distance, shared)):
            yield from _expanded(ours, theirs, found)


def _gathered(found: Iterator[Found]) -> Iterator[Found]:
    """Put small finds together, in their order: expanding each by itself takes longer than finding it."""
    waiting: list[Found] = []
    count = 0
    for part in found:
        waiting.append(part)
        count += len(part[0])
        if count >= _GATHERED:
            yield _together(waiting)
            waiting, count = [], 0
    if waiting:
        yield _together(waiting)


def _together(parts: list[Found]) -> Found:
    left, right, bits = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return left, right, bits


def _distinct_pairs(left: Words, right: Words | None, distance: int, shared: int | None) -> Iterator[Found]:
    """Join distinct words: tables are made and jobs run in threads, a few ahead, and come back in order."""
    if shared is None:
        shared = _cheapest(left, right, distance)
    bands = _bands(distance, shared)
    threads = _threads()
    pool = ThreadPoolExecutor(threads)
    try:
        choices = combinations(range(bands), shared)
        tables = _ahead(pool, lambda chosen: make_table(left, right, bands, chosen), choices, 2)
        jobs = (job for table in tables for job in jobs_of(table, distance))
        yield from _ahead(pool, run, jobs, 2 * threads)
    finally:
        pool.shutdown(cancel_futures=True)


def _threads() -> int:
    return min(_MOST_THREADS, len(os.sched_getaffinity(0)))


def _bands(distance: int, shared: int) -> int:
    """Count bands: enough that near words agree in `shared` of them, and that any so many have 32 bits or less."""
    return max(distance + shared, -(-64 // (32 // shared))) if shared else 0


def _cheapest(left: Words, right: Words | None, distance: int) -> int:
    """Choose how many bands tables share: more bands mean more tables, and fewer candidates in them."""
    few, fewer = _sample(left), None if right is None else _sample(right)
    words = len(left) + (0 if right is None else len(right))
    scale = len(left) / len(few) * (len(left) / len(few) if right is None or fewer is None else len(right) / len(fewer))

    def seconds(shared: int) -> float:
        bands = _bands(distance, shared)
        tables = math.comb(bands, shared)
        some = islice(combinations(range(bands), shared), 0, None, -(-tables // _SAMPLE_TABLES))
        weights = [weigh(make_table(few, fewer, bands, chosen), distance) for chosen in some]
        pairs = sum(_PER_PAIR * compared + _PER_NEAR * near for compared, near in weights) / len(weights)
        return tables * (_PER_TABLE + _PER_WORD * words + scale * pairs)

    return min(range(_MOST_SHARED + 1), key=seconds)


def _sample(words: Words) -> Words:
    return words[np.arange(min(_SAMPLE, len(words))) * _SCATTER % len(words)]


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Map in threads, results in order, never more than `ahead` + 1 of them waiting."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _grouped(words: Words) -> _Groups:
    order = np.argsort(words, kind="stable")
    ordered = words[order]
    starts = np.flatnonzero(np.concatenate((np.ones(min(1, len(words)), np.bool_), ordered[1:] != ordered[:-1])))
    return _Groups(ordered[starts], order, starts, np.diff(starts, append=len(words)))


def _repeats(groups: _Groups) -> Iterator[Block]:
    """Pair equal words: each place with those behind it in its group."""
    places = np.arange(len(groups.order))
    ends = np.repeat(groups.starts + groups.counts, groups.counts)
    for one, other in _ragged(places + 1, ends - places - 1):
        yield groups.order[one], groups.order[other], np.zeros(len(one), np.uint8)


def _expanded(ours: _Groups, theirs: _Groups, found: Found) -> Iterator[Block]:
    """Turn pairs of distinct words into pairs of places: every place of the one with every place of the other."""
    left, right, bits = found
    itself = ours is theirs
    single = (ours.counts[left] == 1) & (theirs.counts[right] == 1)
    for start in range(0, len(left), _BLOCK):
        alone = np.flatnonzero(single[start : start + _BLOCK]) + start
        places = ours.order[ours.starts[left[alone]]], theirs.order[theirs.starts[right[alone]]]
        yield _directed(*places, bits[alone], itself=itself)
    many = np.flatnonzero(~single)
    left, right, bits = left[many], right[many], bits[many]
    for pair, one in _ragged(ours.starts[left], ours.counts[left]):
        partners = right[pair]
        for member, other in _ragged(theirs.starts[partners], theirs.counts[partners]):
            yield _directed(ours.order[one[member]], theirs.order[other], bits[pair[member]], itself=itself)


def _directed(one: Places, other: Places, bits: NDArray[np.uint8], *, itself: bool) -> Block:
    """Put the smaller place first where both are of the same words."""
    return (np.minimum(one, other), np.maximum(one, other), bits) if itself else (one, other, bits)


def _ragged(starts: Places, counts: Places) -> Iterator[tuple[Places, Places]]:
    """Write out ranges of places: (which range, place) for all, in pieces of at most `_BLOCK`."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        owners = np.arange(np.searchsorted(ends, start, "right"), np.searchsorted(ends, stop - 1, "right") + 1)
        first = ends[owners] - counts[owners]
        here = np.minimum(ends[owners], stop) - np.maximum(first, start)
        yield np.repeat(owners, here), np.arange(start, stop) + np.repeat(starts[owners] - first, here)

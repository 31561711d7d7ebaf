"""All pairs of 64-bit words that differ in few bits: complete, each once."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.bit_tables import Found, Places, Words, jobs_of, make_table, run, spread_bits, weigh

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

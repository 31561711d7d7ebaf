"""Plan a glyph set: label, kind, original and name of every file, before any glyph is drawn.

Files are numbered through both parts: 0 to rows - 1 are train, the test files follow. The plan and the seed determine
every byte of every file. Names are unique and do not reveal what was planted; `truth` lists it as a table.

Random numbers are a function of (seed, channel, index), without a sequence, so that blocks of files can be made in any
order, in any number of processes.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.hashing import Words, mix64
from schemas.table import column

Index = NDArray[np.int64]

_STEP = np.uint64(0xD1342543DE82EF95)  # odd, so that all words of one item start from different states


def draws(seed: int, channel: str, index: Index) -> Words:
    """Return a random number for every item.

    Args:
        seed: any integer.
        channel: name of the random quantity; numbers of different channels are independent.
        index: (n,) int64, 0 or more.

    Returns:
        (n,) uint64, uniform over the whole range; a bijection of the index within one channel.
    """
    salt = np.uint64(xxhash.xxh3_64_intdigest(f"{seed}\0glyphs\0{channel}".encode()))
    return mix64(index.astype(np.uint64) ^ salt)


def draw_bytes(seed: int, channel: str, index: Index, count: int) -> NDArray[np.uint8]:
    """Return a row of random bytes for every item.

    Args:
        seed: any integer.
        channel: as for `draws`.
        index: (n,) int64, 0 or more.
        count: bytes per item, a multiple of 8.

    Returns:
        (n, count) uint8, uniform over 0 to 255.
    """
    steps = np.arange(count // 8, dtype=np.uint64) * _STEP
    words = mix64(draws(seed, channel, index)[:, None] + steps)
    return words.astype("<u8", copy=False).view(np.uint8)


def below(words: Words, bound: int | Index) -> Index:
    """Convert random words to random integers.

    Args:
        words: (n,) uint64.
        bound: number of values, 1 to 2**31; one for all items or one per item.

    Returns:
        (n,) int64, 0 to bound - 1.
    """
    return ((words >> np.uint64(32)) * np.asarray(bound).astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def between(words: Words, low: int, high: int) -> Index:
    """Convert random words to random integers from `low` to `high`, both included: (n,) int64."""
    return below(words, high - low + 1) + low


LABELS = tuple("ABCDEFGHIJ")
SPLITS = ("train", "test")
FULL_ROWS = 529_114  # notMNIST_large
FULL_TEST_ROWS = 18_726  # notMNIST_small
MIN_ROWS = 100
_MIN_TEST_ROWS = 20  # one planted file of each of ten kinds, and an original of every label


class Kind(IntEnum):
    """The kinds of files."""

    ORIGINAL = 0
    EXACT_COPY = 1  # bytes of an original of the same split and label
    CROSS_COPY = 2  # test file with the bytes of a train original, same label
    CONFLICT = 3  # bytes of an original of the same split, under another label
    SHIFTED = 4  # near copies of a train original, same label
    BRIGHTNESS = 5
    RETHRESHOLDED = 6
    NOISY = 7
    EMPTY = 8  # no bytes
    TRUNCATED = 9  # a PNG cut inside its image data
    NOT_AN_IMAGE = 10  # text

    @property
    def truth_name(self) -> str:
        """The name of the kind in the truth: lower case."""
        return self.name.lower()


# Files per 10,000 of a part, as (train, test).
_PER_10_000 = {
    Kind.EXACT_COPY: (200, 100),
    Kind.CROSS_COPY: (0, 500),
    Kind.CONFLICT: (30, 50),
    Kind.SHIFTED: (40, 100),
    Kind.BRIGHTNESS: (40, 100),
    Kind.RETHRESHOLDED: (40, 100),
    Kind.NOISY: (40, 100),
    Kind.EMPTY: (2, 2),
    Kind.TRUNCATED: (2, 2),
    Kind.NOT_AN_IMAGE: (2, 2),
}
_COPIES_IN_SPLIT = (Kind.EXACT_COPY, Kind.CONFLICT)
_COPIES_OF_TRAIN = (Kind.CROSS_COPY, Kind.SHIFTED, Kind.BRIGHTNESS, Kind.RETHRESHOLDED, Kind.NOISY)


@dataclass(frozen=True, eq=False)
class GlyphPlan:
    """Every file of a glyph set, train files first.

    Attributes:
        rows: files in the train part.
        seed: the user's seed.
        labels: (n,) uint8, position in `LABELS`. Each part holds its labels in order, in equal shares.
        kinds: (n,) uint8, values of `Kind`.
        of: (n,) int64, index of the original that a copy or near copy was made from; -1 for the rest.
    """

    rows: int
    seed: int
    labels: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    of: Index

    def span(self, split: str) -> range:
        """Return the indices of a part's files."""
        return range(self.rows) if split == "train" else range(self.rows, len(self.labels))


def plan_glyphs(rows: int, seed: int) -> GlyphPlan:
    """Plan a glyph set. Deterministic; about 10 bytes per file.

    Args:
        rows: files in the train part, planted ones included; the test part follows in notMNIST's proportion.
        seed: any integer.

    Returns:
        The plan, its arrays read-only.

    Raises:
        SourceError: `rows` is too small to plant every kind.
    """
    if rows < MIN_ROWS:
        raise SourceError(
            f"a glyph set of {rows} train files is too small for every kind of planted file. "
            f"Set rows to {MIN_ROWS} or more"
        )
    tests = max(_MIN_TEST_ROWS, round(rows * FULL_TEST_ROWS / FULL_ROWS))
    labels = np.concatenate([np.arange(n) * len(LABELS) // n for n in (rows, tests)]).astype(np.uint8)
    parts = (np.arange(rows), np.arange(rows, rows + tests))
    kinds = np.full(rows + tests, Kind.ORIGINAL, dtype=np.uint8)
    for which, part in enumerate(parts):
        counts = _counts(len(part), which)
        kinds[_shuffled(part, labels, seed)[: sum(counts.values())]] = np.repeat(list(counts), list(counts.values()))
    plan = GlyphPlan(rows, seed, labels, kinds, _originals(parts, labels, kinds, seed))
    for array in (plan.labels, plan.kinds, plan.of):
        array.setflags(write=False)
    return plan


def planted_counts(plan: GlyphPlan) -> dict[str, int]:
    """Count the files of every kind over both parts, originals included.

    The counts are fixed fractions of each part, at least one, for any seed.

    Args:
        plan: the plan of a glyph set.

    Returns:
        Files by kind, in the order of `Kind`; they add up to the files of both parts.
    """
    test_rows = len(plan.labels) - plan.rows
    parts = (_counts(plan.rows, 0), _counts(test_rows, 1))
    planted = {kind.truth_name: sum(part.get(kind, 0) for part in parts) for kind in _PER_10_000}
    return {Kind.ORIGINAL.truth_name: len(plan.labels) - sum(planted.values()), **planted}


def _counts(rows: int, which: int) -> dict[Kind, int]:
    shares = {kind: both[which] for kind, both in _PER_10_000.items() if both[which]}
    return {kind: max(1, rows * share // 10_000) for kind, share in shares.items()}


def _shuffled(part: Index, labels: NDArray[np.uint8], seed: int) -> Index:
    """Shuffle a part, with one file of every label at the end: these stay originals that can be copied."""
    order = part[np.argsort(draws(seed, "kind", part), kind="stable")]
    _, kept = np.unique(labels[order], return_index=True)
    return np.concatenate([np.delete(order, kept), order[kept]])


def _originals(parts: tuple[Index, Index], labels: NDArray[np.uint8], kinds: NDArray[np.uint8], seed: int) -> Index:
    of = np.full(len(labels), -1, dtype=np.int64)
    pools = [part[kinds[part] == Kind.ORIGINAL] for part in parts]
    for part, pool in zip(parts, pools, strict=True):
        for copied, source in ((_COPIES_IN_SPLIT, pool), (_COPIES_OF_TRAIN, pools[0])):
            copies = part[np.isin(kinds[part], copied)]
            turn = np.where(kinds[copies] == Kind.CONFLICT, 1 + below(draws(seed, "turn", copies), 9), 0)
            wanted = (labels[copies].astype(np.int64) + turn) % len(LABELS)
            of[copies] = _pick(source, labels[source], wanted, draws(seed, "of", copies))
    return of


def _pick(pool: Index, pool_labels: NDArray[np.uint8], wanted: Index, words: Words) -> Index:
    """Pick a random member of the pool with the wanted label; the pool is in the order of its labels."""
    starts = np.searchsorted(pool_labels, wanted, side="left")
    stops = np.searchsorted(pool_labels, wanted, side="right")
    picked: Index = pool[starts + below(words, stops - starts)]
    return picked


def paths(plan: GlyphPlan, index: Index) -> list[str]:
    """Return the paths of files: a scrambled index in the folder of the label.

    Args:
        plan: the plan of the set.
        index: (n,) int64 indices of files.

    Returns:
        `label/name.png` for every index, in their order; unique, because the name is a bijection of the index.
    """
    digits = draws(plan.seed, "name", index).astype(">u8").tobytes().hex()
    folders = plan.labels[index].tolist()
    return [f"{LABELS[folder]}/{digits[16 * i : 16 * i + 16]}.png" for i, folder in enumerate(folders)]


def labels(plan: GlyphPlan, index: Index) -> list[str]:
    """Return the labels of files: the names of their folders."""
    return [LABELS[folder] for folder in plan.labels[np.asarray(index)].tolist()]


TRUTH = pa.schema(
    [
        column("split", pa.string(), "part the file is in: train or test"),
        column("path", pa.string(), "path inside the part, '/'-separated; unique in the whole set"),
        column("label", pa.string(), "class name, as the file's folder says"),
        column("kind", pa.string(), f"what was planted: {', '.join(kind.truth_name for kind in Kind)}"),
        column("of_split", pa.string(), "part of the original that a copy or near copy was made from", null=True),
        column("of_path", pa.string(), "path of that original; null for originals and bad files", null=True),
    ]
)


def truth(plan: GlyphPlan) -> pa.Table:
    """List what every file is.

    Files with the same pixels are an original and its copies: the rows of kind exact_copy, cross_copy and conflict with
    the original in (of_split, of_path). No other files are equal, except for the empty ones.

    Returns:
        One row per file with the columns of `TRUTH`, train first, in the order of the files.
    """
    index = np.arange(len(plan.labels))
    all_paths = np.array(paths(plan, index), dtype=object)
    names = np.array([kind.truth_name for kind in Kind], dtype=object)
    splits = np.array(SPLITS, dtype=object)
    copied = plan.of >= 0
    columns = [
        pa.array(splits[(index >= plan.rows).astype(int)], pa.string()),
        pa.array(all_paths, pa.string()),
        pa.array(labels(plan, index), pa.string()),
        pa.array(names[plan.kinds], pa.string()),
        pa.array(splits[(plan.of >= plan.rows).astype(int)], pa.string(), mask=~copied),
        pa.array(all_paths[plan.of], pa.string(), mask=~copied),
    ]
    return pa.Table.from_arrays(columns, schema=TRUTH)

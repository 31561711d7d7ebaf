"""The set cut into blocks of files that any process can make, in any order.

A block is five small values. Whoever renders it makes the plan again, once per process: nothing large
travels.
"""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.errors import SourceError
from pipeline.sources.glyphs.alter import NEAR, spoil
from pipeline.sources.glyphs.chance import Index
from pipeline.sources.glyphs.draw import SIDE, Pictures, draw_letters, stamp
from pipeline.sources.glyphs.names import labels, paths
from pipeline.sources.glyphs.plan import SPLITS, GlyphPlan, Kind, plan_glyphs

_BAD = (Kind.EMPTY, Kind.TRUNCATED, Kind.NOT_AN_IMAGE)
_NOT_STAMPED_ANEW = (Kind.EXACT_COPY, Kind.CROSS_COPY, Kind.CONFLICT)

_plan = lru_cache(maxsize=2)(plan_glyphs)


@dataclass(frozen=True)
class GlyphBlock:
    """A run of files of one part.

    Attributes:
        rows: files in the train part of the whole set.
        seed: the set's seed.
        split: train or test.
        start: index of the first file, counted through both parts.
        stop: index after the last file.
    """

    rows: int
    seed: int
    split: str
    start: int
    stop: int


@dataclass(frozen=True)
class RenderedBlock:
    """A block's files, in the order of their indices.

    Attributes:
        paths: path inside the part, `label/name.png`.
        labels: class name of each file.
        data: bytes of each file.
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    data: tuple[bytes, ...]


def blocks(plan: GlyphPlan, split: str, size: int = 8192) -> list[GlyphBlock]:
    """Cut a part into blocks. Their size changes memory and speed, never a byte of a file.

    Args:
        plan: the plan of the set.
        split: train or test.
        size: files per block, 1 or more.

    Returns:
        Blocks that cover the part once, in the order of the files.

    Raises:
        SourceError: there is no such part.
    """
    if split not in SPLITS:
        raise SourceError(f"a glyph set has no part {split!r}; ask for one of: {', '.join(SPLITS)}")
    part = plan.span(split)
    starts = range(part.start, part.stop, size)
    return [GlyphBlock(plan.rows, plan.seed, split, start, min(start + size, part.stop)) for start in starts]


def render(block: GlyphBlock) -> RenderedBlock:
    """Make a block's files. Deterministic: the same block gives the same bytes in any process.

    Args:
        block: which files.

    Returns:
        Their paths, labels and bytes.
    """
    plan = _plan(block.rows, block.seed)
    index = np.arange(block.start, block.stop)
    data = [_encode(picture) for picture in draw_files(plan, index)]
    for at in np.flatnonzero(np.isin(plan.kinds[index], _BAD)).tolist():
        file = int(index[at])
        data[at] = spoil(data[at], Kind(plan.kinds[file]), file, plan.seed)
    return RenderedBlock(tuple(paths(plan, index)), tuple(labels(plan, index)), tuple(data))


def draw_files(plan: GlyphPlan, index: Index) -> Pictures:
    """Draw what files show; a bad file as if nothing had happened to it.

    A copy is drawn from its original's index, so the original need not be at hand.

    Args:
        plan: the plan of the set.
        index: (n,) int64 indices of files.

    Returns:
        (n, 28, 28) uint8, stamped: two rows are equal where one copies the other, or both a third.
    """
    kinds, of = plan.kinds[index], plan.of[index]
    drawn_from = np.where(of < 0, index, of)
    pictures = draw_letters(plan.labels[drawn_from], drawn_from, plan.seed)
    for kind, alter in NEAR.items():
        at = np.flatnonzero(kinds == kind)
        pictures[at] = alter(pictures[at], index[at], plan.seed)
    return stamp(pictures, np.where(np.isin(kinds, _NOT_STAMPED_ANEW), drawn_from, index), plan.seed)


def _encode(picture: Pictures) -> bytes:
    from PIL import Image  # noqa: PLC0415 - only drawing needs Pillow

    file = io.BytesIO()
    Image.frombytes("L", (SIDE, SIDE), picture.tobytes()).save(file, "PNG")
    return file.getvalue()

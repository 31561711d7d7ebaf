"""What the files are called: names that are unique and tell nothing about what was planted."""

import numpy as np

from pipeline.sources.glyphs.chance import Index, draws
from pipeline.sources.glyphs.plan import LABELS, GlyphPlan


def paths(plan: GlyphPlan, index: Index) -> list[str]:
    """Name files by their scrambled index, below the folder of their label.

    Args:
        plan: the plan of the set.
        index: (n,) int64 indices of files.

    Returns:
        `label/name.png` for every index, in their order. Unique: the name is a bijection of the index.
    """
    digits = draws(plan.seed, "name", index).astype(">u8").tobytes().hex()
    folders = plan.labels[index].tolist()
    return [f"{LABELS[folder]}/{digits[16 * i : 16 * i + 16]}.png" for i, folder in enumerate(folders)]


def labels(plan: GlyphPlan, index: Index) -> list[str]:
    """Spell the labels of files: the name of the folder each is in."""
    return [LABELS[folder] for folder in plan.labels[np.asarray(index)].tolist()]

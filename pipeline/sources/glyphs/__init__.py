"""Generate glyphs: letters A to J with planted copies, near copies, label conflicts and bad files.

A glyph set is determined by (rows, seed). `plan_glyphs` plans every file, `blocks` divides a part into blocks, `render`
draws a block in any process, `write_folders` and `write_tar` write the files, `truth` lists what was planted:

    plan_glyphs -> blocks -> render (in parallel) -> write_folders | write_tar
                -> truth

Modules, from low to high: `plan` (random numbers, kinds, names and the truth), `draw` (pixels, near copies
and bad files), `blocks` (rendering and writing). Pillow and matplotlib are only imported for drawing.
"""

from pipeline.sources.glyphs.blocks import GlyphBlock, RenderedBlock, blocks, render, write_folders, write_tar
from pipeline.sources.glyphs.plan import (
    FULL_ROWS,
    LABELS,
    SPLITS,
    TRUTH,
    GlyphPlan,
    Kind,
    plan_glyphs,
    planted_counts,
    truth,
)

__all__ = [
    "FULL_ROWS",
    "LABELS",
    "SPLITS",
    "TRUTH",
    "GlyphBlock",
    "GlyphPlan",
    "Kind",
    "RenderedBlock",
    "blocks",
    "plan_glyphs",
    "planted_counts",
    "render",
    "truth",
    "write_folders",
    "write_tar",
]

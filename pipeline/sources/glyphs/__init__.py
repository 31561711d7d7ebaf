"""Generated glyphs: letters A to J with planted copies, near copies, label conflicts and bad files.

A set is named by (rows, seed): `plan_glyphs` says what every file is, `blocks` cuts a part into work,
`render` makes a block's files in any process, `write_folders` and `write_tar` put them on disk, `truth` tells
what was planted:

    plan_glyphs -> blocks -> render (in parallel) -> write_folders | write_tar
                -> truth

Inside, from below: `chance` (random numbers), `plan`, `names`, `faces` (fonts), `draw` (pixels), `alter`
(near copies and bad files), `blocks`, `truth`, `write`. Pillow and matplotlib are imported only when
something is drawn.
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

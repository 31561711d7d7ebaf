"""imagelake synth: draw a glyph set to disk, with its truth."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.flow.build import local_engine
from pipeline.lake.parts import full_disk_named
from pipeline.progress import Progress
from pipeline.sources.glyphs import (
    SPLITS,
    blocks,
    plan_glyphs,
    planted_counts,
    render,
    truth,
    write_folders,
    write_tar,
)
from pipeline.sources.glyphs.blocks import RenderedBlock


def synth(directory: Path, *, rows: int, seed: int, form: str, workers: int | None = None) -> dict[str, Any]:
    """Draw a glyph set: `train` and `test` as tar.gz archives or class folders, and `truth.parquet`.

    Deterministic: the same rows, seed and form give the same bytes. Memory does not grow with rows.

    Args:
        directory: where to; made if it is missing.
        rows: files in the train part.
        seed: any integer.
        form: "tar" or "folder".
        workers: worker processes; None for one a core.

    Returns:
        planted: files by kind; files: how many in all; parts and truth: where they are.

    Raises:
        SourceError: too few rows, or a folder to write to is not empty.
        DiskFullError: no space is left.
    """
    plan = plan_glyphs(rows, seed)
    directory.mkdir(parents=True, exist_ok=True)
    engine = local_engine(workers)
    parts, files = [], 0
    with full_disk_named(str(directory)), Progress("draw", len(plan.labels)) as progress:
        for split in SPLITS:
            rendered = _counted(engine.map(render, blocks(plan, split)), progress)
            target = directory / (f"{split}.tar.gz" if form == "tar" else split)
            files += write_tar(target, rendered, split) if form == "tar" else write_folders(target, rendered)
            parts.append(target)
        pq.write_table(truth(plan), directory / "truth.parquet", compression="zstd")
    return {
        "planted": planted_counts(plan),
        "files": files,
        "parts": parts,
        "truth": directory / "truth.parquet",
    }


def _counted(rendered: Iterator[RenderedBlock], progress: Progress) -> Iterator[RenderedBlock]:
    for block in rendered:
        yield block
        progress.advance(len(block.paths))

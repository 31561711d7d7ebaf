"""Generated archives for `ingest.py`, kept between runs."""

import sys
from pathlib import Path
from typing import NamedTuple

from watched import run

IMAGELAKE = Path(sys.executable).with_name("imagelake")
SEED = 7
_MEGABYTE = 1 << 20


class Glyphs(NamedTuple):
    """Generated glyphs: how many files the train part has, and both parts as tar.gz."""

    rows: int
    train: Path
    test: Path


def glyphs(folder: Path, rows: int) -> Glyphs:
    """Find or draw archives of `rows` train files and notMNIST's share of test files, and read them once.

    They are complete if their folder has its final name. After one read they are in the page cache for every way.
    """
    kept = folder / f"glyphs-{rows}-seed-{SEED}"
    if not kept.exists():
        sys.stderr.write(f"bench: drawing {rows:,} glyphs into {kept}\n")
        draft = kept.with_name(f".{kept.name}.partial")
        draft.mkdir(parents=True, exist_ok=True)
        run([str(IMAGELAKE), "synth", str(draft), "--rows", str(rows), "--seed", str(SEED)], memory=False)
        draft.rename(kept)
    drawn = Glyphs(rows, kept / "train.tar.gz", kept / "test.tar.gz")
    for file in (drawn.train, drawn.test):
        with file.open("rb") as stream:
            while stream.read(_MEGABYTE):
                pass
    return drawn

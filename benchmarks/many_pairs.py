"""A rule that finds very many pairs: time and memory, by stage, of builds of near copies under hamming:6.

    python benchmarks/many_pairs.py [--images 300000] [--copies 600] [--limits 20000000] [--data DIR]

Every picture has `copies` near copies, of which nearly all are pairs: 300,000 images have 90 million. With a limit
(`dedup.max_pairs`) below that, a spanning forest is stored, above it all pairs.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from scale import Scaled, report, stages_of

from pipeline.lake_handle import Lake

_SIDE = 12
_RECIPE = """
[lake]
root = "lake"
[dedup]
rules = ["hamming:6"]
max_pairs = {limit}
[[source]]
uri = "copies"
dataset = "copies"
"""
_FILES = 4


def draw(folder: Path, images: int, copies: int) -> None:
    """Draw pictures of random cells, each with noise of one gray value, in a few files."""
    rng = np.random.default_rng(1)
    kinds = rng.integers(20, 230, (-(-images // copies), _SIDE, _SIDE), dtype=np.uint8)
    made = np.repeat(kinds, copies, axis=0)[:images]
    made = made[rng.permutation(images)] + rng.integers(0, 2, (images, _SIDE, _SIDE), dtype=np.uint8)
    folder.mkdir()
    for number, part in enumerate(np.array_split(made, _FILES)):
        np.savez(folder / f"{number}.npz", images=part)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--copies", type=int, default=600)
    parser.add_argument("--limits", type=int, nargs="+", default=[20_000_000])
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.data) as folder:
        base = Path(folder)
        draw(base / "copies", asked.images, asked.copies)
        for limit in asked.limits:
            recipe = base / "recipe.toml"
            recipe.write_text(_RECIPE.format(limit=limit), encoding="utf-8")
            stages, noted = stages_of(recipe)
            lake = Lake(base / "lake")
            unit = lake.snapshot.metadata("pairs").units["hamming:6"]
            rows, clusters = len(lake.scan("pairs").collect()), lake.scan("clusters").collect()["cluster_id"].n_unique()
            sys.stdout.write(
                f"max_pairs {limit:,}: {unit.get('found', rows):,} pairs found, {rows:,} stored, "
                f"{clusters:,} clusters\n"
            )
            size = sum(file.stat().st_size for file in (base / "copies").iterdir())
            sys.stdout.write("\n".join(report(Scaled(asked.images, stages, noted["tables"], size))) + "\n")
            sys.stdout.flush()
            shutil.rmtree(base / "lake")


if __name__ == "__main__":
    main()

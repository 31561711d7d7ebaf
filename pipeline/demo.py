"""imagelake demo: the whole flow on generated glyphs, and the planted truth held against the tables.

imagelake synth: draw a glyph set to disk, with its truth.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow.parquet as pq

import pipeline
from pipeline import storage
from pipeline.builder.build import Built, build, local_engine
from pipeline.dedup.overlap import label_conflicts
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.recipe import Recipe, parse_recipe
from pipeline.sources import resolve
from pipeline.sources.generated import plan_of
from pipeline.sources.glyphs import SPLITS, blocks, plan_glyphs, planted_counts, render, truth, write_folders, write_tar
from pipeline.sources.glyphs.blocks import RenderedBlock

_BAD = {"empty": "empty", "truncated": "truncated", "not_an_image": "not_an_image"}
_COPIES = ("exact_copy", "cross_copy", "conflict")


class Demo(NamedTuple):
    """What the demo made.

    Attributes:
        built: the build.
        truth: columns planted, files, found, wrong: what was planted, how many, how many of them the lake names, and
            how many it names that were not planted.
        scores: columns train_size, original, sanitized, overlap: accuracies.
    """

    built: Built
    truth: pl.DataFrame
    scores: pl.DataFrame


def demo_recipe(directory: Path) -> Recipe:
    """Read the recipe that ships with imagelake, with its lake in `directory`."""
    file = Path(pipeline.__file__).with_name("demo.toml")
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    return parse_recipe({**values, "lake": {"root": str(directory.resolve())}}, base=directory.resolve().parent)


def demo(directory: Path, *, workers: int | None = None) -> Demo:
    """Build a lake of generated glyphs and tell how much of what was planted it found.

    Args:
        directory: the lake's folder. A lake that is there already is brought up to date.
        workers: worker processes; None for one a core.
    """
    recipe = demo_recipe(directory)
    built = build(recipe, engine=local_engine(workers))
    lake = Lake(built.root)
    planted = pl.DataFrame(truth(plan_of(resolve(recipe)[0])))
    scores = (
        lake.scan("scores")
        .filter(pl.col("rule").is_null(), metric="accuracy_mean", role="test")
        .collect()
        .pivot("eval_on", index="train_size", values="value", sort_columns=True)
        .select("train_size", pl.col("original", "sanitized", "overlap").round(4))
    )
    return Demo(built, compare(lake, planted), scores)


def compare(lake: Lake, planted: pl.DataFrame) -> pl.DataFrame:
    """Hold the planted truth against the tables.

    A copy is found when it shares a cluster of rule exact with its original; a conflict when that cluster is among the
    label conflicts; a bad file when it is a reject for its own reason. Wrong are rows that nobody planted.

    Args:
        lake: a lake of one glyph set.
        planted: the set's truth.

    Returns:
        Columns planted, files, found, wrong.
    """
    images = lake.scan("images").select("image_id", "split", "path").collect()
    exact = lake.scan("clusters").filter(pl.col("rule") == "exact")
    clusters = exact.select("image_id", "cluster_id").collect().join(images, on="image_id").drop("image_id")
    conflicting = label_conflicts(exact).select("cluster_id").unique().collect()
    of = clusters.rename({"split": "of_split", "path": "of_path", "cluster_id": "of_cluster"})
    copies = (
        planted.filter(pl.col("kind").is_in(_COPIES))
        .join(clusters, on=["split", "path"], how="left")
        .join(of, on=["of_split", "of_path"], how="left")
        .with_columns(found=(pl.col("cluster_id") == pl.col("of_cluster")).fill_null(value=False))
    )
    conflicts = copies.filter(kind="conflict").join(conflicting, on="cluster_id", how="semi").filter("found")
    rejects = lake.scan("rejects").select("split", "path", "reason").collect()
    known = pl.concat([copies.select("split", "path"), copies.select(split="of_split", path="of_path")]).unique()
    unplanted = len(clusters.join(known, on=["split", "path"], how="anti"))
    extra_conflicts = len(conflicting) - copies.filter(kind="conflict")["of_cluster"].n_unique()
    rows = [_row("exact copies", copies, copies.filter("found"), unplanted)]
    rows += [_row("the same picture under two labels", copies.filter(kind="conflict"), conflicts, extra_conflicts)]
    rows += [_bad(planted.filter(kind=kind), rejects.filter(reason=reason), kind) for kind, reason in _BAD.items()]
    return pl.DataFrame(rows)


def _bad(planted: pl.DataFrame, rejects: pl.DataFrame, kind: str) -> dict[str, str | int]:
    found = planted.join(rejects, on=["split", "path"], how="semi")
    return _row(f"bad files: {kind}", planted, found, len(rejects) - len(found))


def _row(name: str, planted: pl.DataFrame, found: pl.DataFrame, wrong: int) -> dict[str, str | int]:
    return {"planted": name, "files": len(planted), "found": len(found), "wrong": wrong}


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
    with storage.full_disk_named(str(directory)), Progress("draw", len(plan.labels)) as progress:
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

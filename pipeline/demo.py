"""The commands `imagelake demo` and `imagelake synth`.

The demo builds a lake of generated glyphs with planted duplicates, label conflicts and bad files, and checks that the
lake finds all of them. `synth` writes such a set of glyphs to disk, with a table of what was planted.
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
from pipeline.dedup.clusters import label_conflicts
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.recipe import Recipe, parse_recipe
from pipeline.sources import resolve
from pipeline.sources.generated import plan_of
from pipeline.sources.glyphs import SPLITS, blocks, plan_glyphs, planted_counts, render, truth, write_folders, write_tar
from pipeline.sources.glyphs.blocks import RenderedBlock

# Kinds of planted files that must become rejects; each is also the reason of the reject.
_BAD_FILES = ("empty", "truncated", "not_an_image")
# Kinds of planted files that copy another file.
_COPIES = ("exact_copy", "cross_copy", "conflict")


class Demo(NamedTuple):
    """The result of the demo.

    Attributes:
        built: the build.
        truth: made by `compare_with_truth`.
        scores: accuracies; columns train_size, original, sanitized and overlap.
    """

    built: Built
    truth: pl.DataFrame
    scores: pl.DataFrame


def demo_recipe(directory: Path) -> Recipe:
    """Read the recipe of the demo, `demo.toml`, with its lake in `directory`."""
    file = Path(pipeline.__file__).with_name("demo.toml")
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    return parse_recipe({**values, "lake": {"root": str(directory.resolve())}}, base=directory.resolve().parent)


def demo(directory: Path, *, workers: int | None = None) -> Demo:
    """Build a lake of generated glyphs, and count how many of the planted files it finds.

    Args:
        directory: the lake's folder. An existing lake is brought up to date.
        workers: number of worker processes; None for one per core.
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
    return Demo(built, compare_with_truth(lake, planted), scores)


def compare_with_truth(lake: Lake, planted: pl.DataFrame) -> pl.DataFrame:
    """Count how many of the planted files a lake finds.

    A copy is found if it is in the same cluster of rule exact as its original. A conflict is found if that cluster is
    also a label conflict. A bad file is found if it is a reject with the right reason.

    Args:
        lake: a lake of one glyph set.
        planted: what was planted in the set; made by `pipeline.sources.glyphs.truth`.

    Returns:
        One row for each kind: columns planted (the kind), files (how many were planted), found (how many of these the
        lake finds) and wrong (how many it finds that were not planted).
    """
    images = lake.scan("images").select("image_id", "split", "path").collect()
    exact = lake.scan("clusters").filter(pl.col("rule") == "exact")
    clusters = exact.select("image_id", "cluster_id").collect().join(images, on="image_id").drop("image_id")
    conflicting = label_conflicts(exact).select("cluster_id").unique().collect()
    originals = clusters.rename({"split": "of_split", "path": "of_path", "cluster_id": "of_cluster"})
    copies = (
        planted.filter(pl.col("kind").is_in(_COPIES))
        .join(clusters, on=["split", "path"], how="left")
        .join(originals, on=["of_split", "of_path"], how="left")
        .with_columns(found=(pl.col("cluster_id") == pl.col("of_cluster")).fill_null(value=False))
    )
    conflicts = copies.filter(kind="conflict").join(conflicting, on="cluster_id", how="semi").filter("found")
    rejects = lake.scan("rejects").select("split", "path", "reason").collect()
    in_truth = pl.concat([copies.select("split", "path"), copies.select(split="of_split", path="of_path")]).unique()
    extra_copies = len(clusters.join(in_truth, on=["split", "path"], how="anti"))
    extra_conflicts = len(conflicting) - copies.filter(kind="conflict")["of_cluster"].n_unique()
    rows = [_row("exact copies", copies, copies.filter("found"), extra_copies)]
    rows += [_row("the same picture under two labels", copies.filter(kind="conflict"), conflicts, extra_conflicts)]
    rows += [_bad_files(planted.filter(kind=kind), rejects.filter(reason=kind), kind) for kind in _BAD_FILES]
    return pl.DataFrame(rows)


def synth(directory: Path, *, rows: int, seed: int, form: str, workers: int | None = None) -> dict[str, Any]:
    """Write a set of glyphs: `train` and `test` as tar.gz archives or class folders, and `truth.parquet`.

    Deterministic: the same rows, seed and form give the same bytes. Memory does not grow with the number of rows.

    Args:
        directory: folder to write to; created if it is missing.
        rows: number of files in the train part.
        seed: any integer.
        form: "tar" or "folder".
        workers: number of worker processes; None for one per core.

    Returns:
        planted: number of planted files by kind; files: number of all files; parts and truth: the places of the files
        that were written.

    Raises:
        SourceError: there are too few rows, or a folder to write to is not empty.
        DiskFullError: no space is left.
    """
    plan = plan_glyphs(rows, seed)
    directory.mkdir(parents=True, exist_ok=True)
    engine = local_engine(workers)
    parts, files = [], 0
    with storage.disk_full_errors(str(directory)), Progress("draw", len(plan.labels)) as progress:
        for split in SPLITS:
            rendered = _with_progress(engine.map(render, blocks(plan, split)), progress)
            target = directory / (f"{split}.tar.gz" if form == "tar" else split)
            files += write_tar(target, rendered, split) if form == "tar" else write_folders(target, rendered)
            parts.append(target)
        pq.write_table(truth(plan), directory / "truth.parquet", compression="zstd")
    return {"planted": planted_counts(plan), "files": files, "parts": parts, "truth": directory / "truth.parquet"}


def _with_progress(rendered: Iterator[RenderedBlock], progress: Progress) -> Iterator[RenderedBlock]:
    for block in rendered:
        yield block
        progress.advance(len(block.paths))


def _bad_files(planted: pl.DataFrame, rejects: pl.DataFrame, kind: str) -> dict[str, str | int]:
    found = planted.join(rejects, on=["split", "path"], how="semi")
    return _row(f"bad files: {kind}", planted, found, len(rejects) - len(found))


def _row(name: str, planted: pl.DataFrame, found: pl.DataFrame, wrong: int) -> dict[str, str | int]:
    return {"planted": name, "files": len(planted), "found": len(found), "wrong": wrong}

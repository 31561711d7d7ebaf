"""Generated rows of scores and misses, and the summary of a lake that has them."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.report import summarize
from schemas import TABLES

Rows = list[dict[str, Any]]
RUN = {"run_id": "0123456789", "model": "logistic", "split_name": "main", "release": 4, "train_size": 100, "seed": 5}


def table(name: str, rows: Rows) -> pl.DataFrame:
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=TABLES[name].schema))


def ident(number: int) -> bytes:
    return number.to_bytes(16, "big")


def row(metric: str, value: float, **more: Any) -> dict[str, Any]:
    told = {"role": "test", "eval_on": "original", "metric": metric, "value": value, "seconds": 2.0, "memory": 2**20}
    return {**RUN, **told, **more}


def accuracy(value: float = 0.75, **more: Any) -> Rows:
    """Make the rows that `pipeline.baselines.measure` makes of one seed on a whole role."""
    ends = ("accuracy_mean", "accuracy_low", "accuracy_high", "wilson_low", "wilson_high")
    counts = [row("seeds", 1, **more), row("images", 8, **more)]
    return counts + [row(metric, value, **more) for metric in ("accuracy", *ends)]


def confusion(counts: dict[tuple[str, str], int], **more: Any) -> Rows:
    """Make the rows that `pipeline.baselines.metrics` makes, with the rates of each class."""
    names = sorted({name for pair in counts for name in pair})
    rows = [row("confusion", n, label=true, predicted=said, **more) for (true, said), n in counts.items()]
    for place, name in enumerate([*names, None]):
        rows += [row(metric, (place % 10) / 10, label=name, **more) for metric in ("precision", "recall", "f1")]
    there = {name: sum(n for (true, _), n in counts.items() if true == name) for name in names}
    return rows + [row("support", n, label=name, **more) for name, n in there.items()]


def curve(average: float, *, wanted: float | None = 0.9, **where: Any) -> Rows:
    """Make the rows that `pipeline.baselines.metrics` makes: precision and recall by threshold for class 5."""
    more = {"label": "5", **where}
    rows = [row("average_precision", average, **more)]
    for at, precision, recall in ((-2.0, 0.1, 1.0), (3.0, 0.9, 0.4), (1.0, 0.5, 0.6)):
        rows += [row("curve_precision", precision, point=at, **more), row("curve_recall", recall, point=at, **more)]
    if wanted is not None:
        told = {"threshold": 3.0, "precision_at": average, "recall_at": 0.4}
        rows += [row(metric, value, point=wanted, **more) for metric, value in told.items()]
    return rows


def miss(number: int, **more: Any) -> dict[str, Any]:
    said = {"label": "a", "predicted": "b", "probability": 0.5, "margin": 0.25, "kept": True}
    near = {"nearest_id": ident(0), "nearest_label": "a", "distance": 30.0}
    return {**RUN, "image_id": ident(number), **said, **near, **more}


def image(number: int, label: str, split: str) -> dict[str, Any]:
    pixels = np.random.default_rng(number).integers(0, 256, 64, dtype=np.uint8).tobytes()
    size = {"height": 8, "width": 8, "channels": 1, "pixels": pixels, "file_size": 99}
    sums = {"pixel_sum": sum(pixels), "pixel_squares": sum(value * value for value in pixels)}
    named = {"image_id": ident(number), "content_hash": ident(number), "path": f"{label}/{number}.png", "label": label}
    return {**named, **size, **sums, "dataset": "toy", "split": split, "shard": "0"}


def frames_of(misses: Rows, scores: Rows) -> dict[str, pl.DataFrame]:
    """Make a lake of one training image, 0, and 99 test images, of which sanitizing drops 1."""
    images = [image(0, "a", "train"), *(image(n, "a", "test") for n in range(1, 100))]
    drawn = {"label_index": 0, "split_name": "main"}
    splits = [
        {**drawn, "role": role, "rank": n, "image_id": ident(n), "kept": rule is None, "dropped_by": rule}
        | {"dropped_for": ident(0) if rule else None}
        for n, role, rule in ((0, "train", None), (1, "test", "sign"), (2, "test", None))
    ]
    given = {"images": images, "splits": splits, "scores": scores, "misses": misses}
    return {name: table(name, rows) for name, rows in given.items()}


def summary_of(frames: dict[str, pl.DataFrame]) -> dict[str, Any]:
    counts = pl.DataFrame(schema={"rule": pl.String, "role": pl.String, "other": pl.String, "images": pl.Int64})
    return summarize(
        lambda name: frames.get(name, table(name, [])).lazy(),
        lake="toy",
        release=4,
        created_at=None,
        overlap=lambda *_: counts,
    )

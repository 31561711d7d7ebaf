"""Use the models of a lake: predict files that are not in it, and write predictions of a split as CSV."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.arrays.exports import ExportContext, Role, Selection
from pipeline.arrays.exports.selection import CHUNK_BYTES, read_chunks
from pipeline.baselines.stored import LoadedModel, predict_classes
from pipeline.decode import Originals, decode_shard
from pipeline.decode.picture import convert
from pipeline.errors import LakeError
from pipeline.hashing import flat
from pipeline.lake.releases import stored_decode
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.recipe import DecodePart
from pipeline.search.queries import read_queries
from pipeline.shard import Reject

_ORIGIN = ("dataset", "split", "path")
_COLUMNS = ("path", "predicted", "probability")


class Predicted(NamedTuple):
    """Predictions of files.

    Attributes:
        run: MODEL@SPLIT of the model.
        images: columns path, predicted, probability; in the order of the paths, and of the files of each.
        rejects: the files that are no image, with the reason.
    """

    run: str
    images: pl.DataFrame
    rejects: list[Reject]


def predict_files(
    lake: Lake, paths: Sequence[str], *, run: str | None = None, train_size: int | None = None
) -> Predicted:
    """Predict images that are not in the lake; nothing is written.

    Colour and size are converted to what the model takes, as a build with `on_mismatch = "convert"` does. A file of the
    lake gets its stored pixels. In a lake without `size`, any other shape is reduced as the lake does, then stretched.

    Args:
        lake: the lake.
        paths: image files, or what `build` reads: folders, archives, tables, patterns, addresses.
        run: as in `Lake.model`.
        train_size: as in `Lake.model`.

    Raises:
        BaselineError: the lake has no such model.
        SourceError: a path does not exist.
    """
    loaded = lake.model(run, train_size)
    height, width, channels = loaded.shape
    stored = stored_decode(Snapshot(lake.root))
    common = {
        **stored,
        # Not unset: JPEGs are decoded at reduced scale only where this is recorded.
        "originals": "none" if stored.get("originals") else None,
        "mode": "L" if channels == 1 else "RGB",
        "on_mismatch": "convert",
    }
    resized = DecodePart.model_validate({**common, "size": (height, width), "longest": None})
    # A working picture is reduced as the lake reduces it, and only then resized, if it has another shape.
    spec = DecodePart.model_validate(common) if stored.get("longest") else resized
    frames = [pl.DataFrame(schema={"path": pl.String, "predicted": pl.String, "probability": pl.Float64})]
    rejects: list[Reject] = []
    for prefix, shard in read_queries(paths, spec):
        of_shard = frames[:1]
        for item in decode_shard(shard, "query", "query", spec):
            if isinstance(item, Reject):
                rejects.append(item._replace(path=f"{prefix}{item.path}"))
                continue
            if isinstance(item, Originals):
                continue
            found = predict_classes(loaded, flat(_of_shape(item.pixels, resized)))
            named = pl.Series("path", item.images["path"].to_pylist(), dtype=pl.String)
            of_shard.append(found.select(named, "predicted", "probability"))
        # Images of several shapes are decoded shape by shape.
        in_order = pl.DataFrame({"path": shard.paths}, schema={"path": pl.String}).join(
            pl.concat(of_shard), on="path", maintain_order="left"
        )
        frames.append(in_order.with_columns((pl.lit(prefix) + pl.col("path")).alias("path")))
    return Predicted(loaded.title, pl.concat(frames), rejects)


def _of_shape(pixels: NDArray[np.uint8], spec: DecodePart) -> NDArray[np.uint8]:
    """Resize images of one shape, (n, height, width, channels), to the size of the settings if they have another."""
    if pixels.shape[1:3] == spec.size:
        return pixels
    return np.stack([convert(picture, spec)[0] for picture in pixels])


class PredictionsForm(NamedTuple):
    """predictions: one CSV of the images of a split, for an export.

    Attributes:
        loaded: the model.
        kaggle: write ImageId, counted from 1, and Label only.
    """

    loaded: LoadedModel
    kaggle: bool = False

    def write(self, folder: Path, selection: Selection, context: ExportContext) -> None:
        """Write predictions.csv: path, predicted, probability, run, one row per image, in the order of the source.

        The order is that of dataset, split and path. Paths that are row numbers are ordered, and written, as numbers.

        Raises:
            LakeError: the images do not have the shape that the model takes; or, for Kaggle, they are of several
                sources.
        """
        rows = pl.concat(
            [
                pl.concat([role.rows.select(_ORIGIN), self._predict(role, context)], how="horizontal")
                for role in selection.roles
            ]
        )
        number = pl.col("path").str.to_integer(strict=False)
        rows = rows.sort("dataset", "split", number, "path", nulls_last=True)
        if rows["path"].str.contains(r"^(0|[1-9]\d*)$").all():
            rows = rows.with_columns(path=number)
        named = rows.select(*_COLUMNS, run=pl.lit(self.loaded.title))
        out = _kaggle(rows, selection.split) if self.kaggle else named
        out.write_csv(folder / "predictions.csv")

    def _predict(self, role: Role, context: ExportContext) -> pl.DataFrame:
        """Predict the images of a role, in the order of ranks, some MiB at a time."""
        height, width, channels = self.loaded.shape
        if role.one_shape != ((height, width) if channels == 1 else self.loaded.shape):
            found = "x".join(map(str, role.one_shape))
            raise LakeError(
                f"the images of {role.name} are {found}, but {self.loaded.title} takes {height}x{width}x{channels}. "
                "Name a model that was trained on images of this shape."
            )
        blocks = []
        for chunk in read_chunks(role, CHUNK_BYTES):
            blocks.append(predict_classes(self.loaded, chunk.images.values.reshape(len(chunk), -1)))
            context.advance(len(chunk))
        return pl.concat(blocks).drop("class_scores")


def _kaggle(rows: pl.DataFrame, split: str) -> pl.DataFrame:
    """Return the columns of a submission: ImageId, the number of the row counted from 1, and Label."""
    files = rows.select("dataset", "split").unique().sort("dataset", "split").rows()
    if len(files) > 1:
        listed = ", ".join(map("/".join, files))
        raise LakeError(
            f"a submission numbers the rows of one file, but these images of split '{split}' are of {listed}. Name one "
            "role with --role whose images are of one file."
        )
    number = pl.col("path") + 1 if rows.schema["path"].is_integer() else pl.int_range(1, pl.len() + 1)
    return rows.select(ImageId=number, Label="predicted")

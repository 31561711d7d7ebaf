"""images -> measurements -> issues: list the images that a person should look at, by the recipe's `[issues]`.

A picture is measured once, however many images have it, and whatever thresholds follow. A unit is a kind of issue.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline import storage
from pipeline.arrays.spill import disk_folder
from pipeline.arrow_columns import from_binary, to_binary
from pipeline.builder.state import Todo, find_outdated, input_versions, shards_state, unit_digest
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.issues.features import features
from pipeline.issues.labels import PASSES, find_suspects, folds_of
from pipeline.issues.measure import Measurements, measure
from pipeline.issues.neighbours import NEIGHBOURS, agreement, find_outliers, nearest
from pipeline.issues.quality import FACTS, NOT_OF_BLANK, find_quality_issues
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, all_files
from pipeline.pixels import SHAPE, id_matrix, runs_of_one_shape
from pipeline.progress import SILENT, Progress, plural
from pipeline.recipe import Recipe
from pipeline.recipe.issues import KINDS, QUALITY

# The unit of the table measurements.
_PICTURES = "pictures"
# Measuring fewer pictures takes less time than starting workers.
_FEW = 2_000
# Bytes of features above which they are in a temporary file.
_IN_MEMORY = 2**28
# Label suspects that are compared with their nearest pictures: those with the highest scores.
_MOST_AGREEMENTS = 10_000

Hashes = NDArray[np.uint8]
Matrix = NDArray[Any]


def issue_units(snapshot: Snapshot, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """Return, by kind of issue, its threshold, that of blank if it decides on the kind, and its fingerprint.

    The `[issues]` of the recipe replaces that of the lake. If the recipe has none, the lake keeps its own, unless
    pruned.

    Args:
        snapshot: the lake.
        recipe: what to build.
        prune: leave out issues that are not in the recipe.
    """
    stored = {} if prune else snapshot.metadata("issues").units
    thresholds: dict[str, float] = {kind: unit["spec"]["threshold"] for kind, unit in stored.items()}
    if recipe.issues is not None:
        thresholds = dict(recipe.issues.thresholds)
    if not thresholds:
        return {}
    images = shards_state(snapshot)
    units = {}
    for kind in (kind for kind in KINDS if kind in thresholds):
        spec: dict[str, float | None] = {"threshold": thresholds[kind]}
        if kind in NOT_OF_BLANK:
            spec["blank"] = thresholds.get("blank")
        units[kind] = {"spec": spec, "fingerprint": unit_digest("issues", spec, images)}
    return units


def plan_issues(snapshot: Snapshot, units: Mapping[str, Mapping[str, Any]], *, images_change: bool) -> list[Todo]:
    """List the kinds of issues that the next build would find, and why.

    Args:
        snapshot: the lake.
        units: made by `issue_units`.
        images_change: whether the next build would read or drop images.
    """
    changed = dict.fromkeys(units, "the images change") if images_change else None
    return find_outdated("issues", units, snapshot.metadata("issues"), changed=changed)


def measure_pictures(
    snapshot: Snapshot,
    writer: Writer,
    units: Mapping[str, Mapping[str, Any]],
    progress: Progress = SILENT,
    engine: Engine = HERE,
) -> list[Commit]:
    """Measure the pictures that the lake has no measurements of, and drop measurements of pictures that are gone.

    Args:
        snapshot: the lake.
        writer: writes the file.
        units: made by `issue_units`. Without a kind of `QUALITY`, the measurements are dropped.
        progress: shows the progress.
        engine: where to run.

    Returns:
        The commit to make; empty if nothing is out of date.

    Raises:
        DamagedLakeError: a file of the images is missing or damaged.
    """
    stored = snapshot.metadata("measurements").units
    if not any(kind in QUALITY for kind in units):
        return [Commit("measurements", (), Metadata("issues"), all_files)] if stored else []
    wanted = {_PICTURES: {"spec": Measurements._fields, "fingerprint": unit_digest("issues", "measurements", None)}}
    state = shards_state(snapshot)
    wanted[_PICTURES]["images"] = state
    before = stored.get(_PICTURES, {})
    is_current = before.get("fingerprint") == wanted[_PICTURES]["fingerprint"]
    if is_current and before.get("images") == state:
        return []
    known = snapshot.scan("measurements").collect() if is_current else _empty("measurements")
    images = _ImageRows.read(snapshot)
    kept = known.filter(pl.col("content_hash").is_in(images.pictures.implode()))
    measured = [
        pl.DataFrame(values, schema=list(Measurements._fields), orient="row").select(
            pl.Series("content_hash", to_binary(hashes), dtype=pl.Binary), pl.all()
        )
        for hashes, values in _read_pictures(images.tasks(kept["content_hash"]), measure, "measure", engine, progress)
    ]
    rows = pl.concat([kept, *measured]).sort("content_hash")
    metadata = Metadata("issues", wanted, input_versions(snapshot, "images"))
    return [Commit("measurements", writer.write("measurements", _arrow("measurements", rows)), metadata, all_files)]


def find_issues(
    snapshot: Snapshot,
    writer: Writer,
    units: Mapping[str, Mapping[str, Any]],
    progress: Progress = SILENT,
    engine: Engine = HERE,
) -> tuple[list[Todo], list[Commit]]:
    """List the images of every kind of issue that is out of date.

    Args:
        snapshot: the lake, with its measurements.
        writer: writes the files.
        units: made by `issue_units`.
        progress: shows the progress.
        engine: where to read pixels, for kinds that compare pictures.

    Returns:
        What was done, why, and how many images were found; and the commit to make. Both are empty if nothing is out of
        date.
    """
    stored = snapshot.metadata("issues")
    todo = find_outdated("issues", units, stored)
    if not todo:
        return [], []
    progress.step("find issues")
    again = {item.unit for item in todo}
    thresholds = {kind: unit["spec"]["threshold"] for kind, unit in units.items() if kind in again}
    compared = {kind: value for kind, value in thresholds.items() if kind not in QUALITY}
    # The threshold of blank decides on other kinds, also when blank itself is up to date.
    quality = {
        kind: unit["spec"]["threshold"]
        for kind, unit in units.items()
        if kind in QUALITY and (kind in again or kind == "blank")
    }
    rows = pl.concat([quality_rows(snapshot, quality), _compared_rows(snapshot, compared, engine, progress)])
    counts = dict(rows.group_by("kind").len().rows())
    written: list[Part] = []
    for kind in thresholds:
        written += writer.write("issues", _arrow("issues", rows.filter(kind=kind), in_file=True), {"kind": kind})
    new_units = {
        kind: {**unit, "images": counts.get(kind, 0)} if kind in again else dict(stored.units[kind])
        for kind, unit in units.items()
    }
    metadata = Metadata("issues", new_units, input_versions(snapshot, "images", "measurements"))
    done = [
        item._replace(reason=f"{item.reason}; {plural(counts.get(item.unit, 0), 'image')}")
        if item.unit in units
        else item
        for item in todo
    ]
    return done, [Commit("issues", written, metadata, lambda partition: partition["kind"] in again)]


def quality_rows(snapshot: Snapshot, thresholds: Mapping[str, float]) -> pl.DataFrame:
    """Score the images of a lake by their measurements: rows of the table issues, ordered by kind, score and id."""
    images = snapshot.scan("images").select(*FACTS, "content_hash")
    sizes = snapshot.scan("originals").select("image_id", area=pl.col("height").cast(pl.Int64) * pl.col("width"))
    own = pl.col("height").cast(pl.Int64) * pl.col("width")
    measured = (
        images.join(snapshot.scan("measurements"), on="content_hash")
        .join(sizes, on="image_id", how="left")
        .with_columns(area=pl.coalesce("area", own))
    )
    return with_all_columns(find_quality_issues(measured, thresholds))


def with_all_columns(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the columns of the table issues that rows lack, as nulls."""
    columns = pl.Schema(_schema("issues"))
    lacking = {name: pl.lit(None, kind) for name, kind in columns.items() if name not in rows.columns}
    return rows.with_columns(**lacking).select(columns.names())


class PicturesOfFile(NamedTuple):
    """Rows of a file of the images table to measure.

    Attributes:
        file: place of the file.
        rows: (n,) int64, ascending: positions in the file.
    """

    file: str
    rows: NDArray[np.int64]


class _ImageRows(NamedTuple):
    """The rows of the images table, in the order of its files.

    Attributes:
        files: place of each file.
        ends: (files,) int64: rows in the files up to each.
        pictures: content_hash of every row.
    """

    files: Sequence[str]
    ends: NDArray[np.int64]
    pictures: pl.Series

    @classmethod
    def read(cls, snapshot: Snapshot) -> "_ImageRows":
        places = {f"{snapshot.place}/images/{part.path}": part.rows for part in snapshot.files("images")}
        counts = {file: rows for file, rows in places.items() if file not in snapshot.left_out}
        pictures = snapshot.scan("images").select("content_hash").collect().to_series()
        return cls(list(counts), np.cumsum(list(counts.values()), dtype=np.int64), pictures)

    def tasks(self, known: pl.Series) -> Iterator[PicturesOfFile]:
        """List the rows to measure: the first row of each picture that is not known."""
        rows = pl.DataFrame({"content_hash": self.pictures}).with_row_index("row")
        firsts = rows.unique("content_hash", keep="first").join(
            known.to_frame("content_hash"), on="content_hash", how="anti"
        )
        at = firsts["row"].sort().to_numpy().astype(np.int64)
        edges = np.searchsorted(at, self.ends)
        starts = np.concatenate([[0], self.ends])
        for number, (first, last) in enumerate(zip(np.concatenate([[0], edges]), edges, strict=False)):
            if first < last:
                yield PicturesOfFile(self.files[number], at[first:last] - starts[number])


def read_file(function: Callable[[NDArray[np.uint8]], Matrix], task: PicturesOfFile) -> tuple[Hashes, Matrix]:
    """Make rows of numbers of pictures of a file, one row group at a time.

    Args:
        function: makes (n, m) numbers of pictures of one shape, (n, height, width, channels) uint8.
        task: the pictures.

    Returns:
        Content hashes, (n, 16) uint8, and numbers, (n, m), in any order of the pictures.

    Raises:
        DamagedLakeError: the file is missing or damaged.
    """
    parts: list[tuple[Hashes, Matrix]] = []
    storage.check_files([task.file])
    with storage.damage_errors(task.file), storage.open_parquet(task.file) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            first, last = np.searchsorted(task.rows, [start, stop]).tolist()
            if first < last:
                table = file.read_row_group(group, columns=["content_hash", *SHAPE, "pixels"])
                parts += _read_rows(function, table, task.rows[first:last] - start)
            start = stop
    hashes, numbers = zip(*parts, strict=True)
    return np.concatenate(hashes), np.concatenate(numbers)


def _read_rows(
    function: Callable[[NDArray[np.uint8]], Matrix], table: pa.Table, rows: NDArray[np.int64]
) -> Iterator[tuple[Hashes, Matrix]]:
    """Make numbers of rows of a row group, images of one shape together."""
    shapes = np.stack([table[name].to_numpy() for name in SHAPE], axis=1)[rows]
    ordered = rows[np.lexsort(shapes.T)]
    is_whole = np.array_equal(ordered, np.arange(len(table)))
    chosen = table if is_whole else table.take(pa.array(ordered))
    for run, pixels in runs_of_one_shape(chosen.combine_chunks()):
        yield from_binary(run["content_hash"].chunk(0), 16), function(pixels)


def _read_pictures(
    tasks: Iterable[PicturesOfFile],
    function: Callable[[NDArray[np.uint8]], Matrix],
    stage: str,
    engine: Engine,
    progress: Progress,
) -> Iterator[tuple[Hashes, Matrix]]:
    """Make numbers of pictures in the workers of an engine; see `read_file`."""
    listed = list(tasks)
    count = sum(len(task.rows) for task in listed)
    progress.stage(stage, count)
    used = HERE if count < _FEW and engine.shares_disk else engine
    for hashes, numbers in used.map(partial(read_file, function), listed):
        yield hashes, numbers
        progress.advance(len(hashes))


class _Pictures(NamedTuple):
    """The distinct pictures of a lake with their labels; a picture with two labels is there twice.

    Attributes:
        rows: columns content_hash, label and image_id, the smallest that has both; ordered by content_hash and label,
            those without a label last.
        classes: the labels, sorted.
        labels: (n,) int64: position of the label in `classes`, or their number without a label.
        features: (n, m) uint8, made by `features`.
    """

    rows: pl.DataFrame
    classes: list[str]
    labels: NDArray[np.int64]
    features: NDArray[np.uint8]

    @property
    def labelled(self) -> int:
        """Number of rows with a label; they come first."""
        return int((self.labels < len(self.classes)).sum())


@contextmanager
def _open_pictures(snapshot: Snapshot, engine: Engine, progress: Progress) -> Iterator[_Pictures]:
    """Read the features of all pictures, into a temporary file if they are large."""
    images = snapshot.scan("images").select("content_hash", "label", "image_id")
    rows = images.group_by("content_hash", "label").agg(pl.min("image_id")).collect()
    rows = rows.sort(pl.col("label").is_null(), "content_hash", "label")
    classes = rows["label"].drop_nulls().unique().sort().to_list()
    numbers = rows["label"].replace_strict(classes, range(len(classes)), default=len(classes), return_dtype=pl.Int64)
    places = rows.select("content_hash").with_row_index("row")
    with ExitStack() as stack:
        features_of_all = np.empty((0, 0), np.uint8)
        for hashes, values in _read_pictures(
            _ImageRows.read(snapshot).tasks(rows["content_hash"].clear()), features, "compare", engine, progress
        ):
            if not len(features_of_all):
                shape = (len(rows), values.shape[1])
                if shape[0] * shape[1] > _IN_MEMORY:
                    file = stack.enter_context(tempfile.TemporaryFile(dir=disk_folder(), prefix="imagelake-issues-"))
                    features_of_all = np.memmap(file, np.uint8, "w+", shape=shape)
                else:
                    features_of_all = np.empty(shape, np.uint8)
            read = pl.DataFrame({"content_hash": pl.Series(to_binary(hashes), dtype=pl.Binary)}).with_row_index("at")
            both = read.join(places, on="content_hash").select("at", "row").to_numpy()
            features_of_all[both[:, 1]] = values[both[:, 0]]
        yield _Pictures(rows, classes, numbers.to_numpy(), features_of_all)


def _label_rows(pictures: _Pictures, threshold: float, progress: Progress) -> pl.DataFrame:
    """List the pictures whose label is suspect: content_hash, label, score, suggested_label, agreement, other_id."""
    count = pictures.labelled
    labels, found_features = pictures.labels[:count], pictures.features[:count]
    folds = folds_of(id_matrix(pictures.rows["content_hash"][:count]))
    progress.stage("judge labels", count * PASSES)
    found = find_suspects(found_features, labels, folds, len(pictures.classes), progress.advance)
    score = found.score.astype(np.float32)
    listed = np.flatnonzero(score >= np.float32(threshold))
    chosen = listed[np.argsort(-score[listed], kind="stable")][:_MOST_AGREEMENTS]
    # A picture is neither its own neighbour nor twice one of another, however many labels it has.
    numbers = pictures.rows["content_hash"][:count].rle_id().to_numpy().astype(np.int64)
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
    near, _ = nearest(found_features, firsts[numbers[chosen]], firsts, NEIGHBOURS)
    share, first = agreement(near, numbers, labels, found.suggested[chosen])
    agreements = pl.DataFrame({"row": chosen, "agreement": share, "first": pl.Series(first).replace(-1, None)})
    others = pictures.rows.select(other_id="image_id").with_row_index("first").cast({"first": pl.Int64})
    names = pl.Series("suggested_label", pictures.classes, dtype=pl.String)
    return (
        pictures.rows[listed]
        .select("content_hash", "label", suggested_label=names[found.suggested[listed]])
        .with_columns(pl.Series("score", score[listed]), row=pl.Series(listed))
        .join(agreements, on="row", how="left")
        .join(others, on="first", how="left")
    )


def _outlier_rows(pictures: _Pictures, threshold: float, progress: Progress) -> pl.DataFrame:
    """List the pictures that are far from all others of their class: content_hash, label, score, other_id."""
    progress.stage("find outliers", len(pictures.rows))
    found, first = find_outliers(pictures.features, pictures.labels, progress.advance)
    score = found.astype(np.float32)
    listed = np.flatnonzero(score >= np.float32(threshold))
    return pictures.rows[listed].select(
        "content_hash",
        "label",
        pl.Series("score", score[listed]),
        other_id=pictures.rows["image_id"][first[listed]],
    )


# By kind, the function that lists its pictures.
_COMPARED = {"label": _label_rows, "outlier": _outlier_rows}


def _compared_rows(
    snapshot: Snapshot, thresholds: Mapping[str, float], engine: Engine, progress: Progress
) -> pl.DataFrame:
    """Compare the pictures of a lake with one another: rows of the table issues, ordered by kind, score and id."""
    found = [_empty("issues")]
    if thresholds:
        with _open_pictures(snapshot, engine, progress) as pictures:
            listed = {
                kind: of(pictures, thresholds[kind], progress) for kind, of in _COMPARED.items() if kind in thresholds
            }
        images = snapshot.scan("images").select("content_hash", "label", "image_id")
        for kind, rows in listed.items():
            of_images = images.join(rows.lazy(), on=["content_hash", "label"], nulls_equal=True).collect()
            ordered = of_images.sort("score", "image_id", descending=[True, False])
            found.append(with_all_columns(ordered.with_columns(kind=pl.lit(kind))))
    return pl.concat(found)


def _schema(table: str) -> pa.Schema:
    schema: pa.Schema = schemas.TABLES[table].schema
    return schema


def _empty(table: str) -> pl.DataFrame:
    return pl.Schema(_schema(table)).to_frame()


def _arrow(table: str, rows: pl.DataFrame, *, in_file: bool = False) -> pa.Table:
    schema = schemas.TABLES[table].file_schema if in_file else _schema(table)
    return rows.select(schema.names).to_arrow().cast(schema)

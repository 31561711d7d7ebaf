"""splits, clusters, images -> scores, misses, models: train and score the baselines that are out of date.

All baselines of a split share one read of its pixels. The test images that a baseline misclassifies go to the table
misses, each with the nearest training image.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

import schemas
from pipeline.baselines.eval_data import EvalData, Mask, Sample, draw_samples, find_overlaps, name_parts
from pipeline.baselines.model import Examples
from pipeline.baselines.predict import find_nearest
from pipeline.baselines.score import Misclassified, score
from pipeline.builder.state import Todo, find_outdated, input_versions, unit_digest
from pipeline.errors import BaselineError
from pipeline.hashing import digest_of, flat
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.releases import newest_release
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, all_files
from pipeline.lake_handle import Lake
from pipeline.pixels import gather, id_matrix, locate
from pipeline.progress import SILENT, Progress
from pipeline.recipe import BaselinePart, Recipe, parse_baseline

# What the metadata keep of a run: its settings and its fingerprint.
Unit = Mapping[str, Any]

_EVAL_ROLES = ("valid", "test")
# Types of the columns of scores that may be null in every row of a run.
_NULLABLE = {"rule": pl.String, "label": pl.String, "predicted": pl.String, "point": pl.Float64, "memory": pl.Int64}


class SplitRoles(NamedTuple):
    """The labelled images of a split, by role: columns image_id, label_index and kept, ordered by rank."""

    name: str
    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame

    def train_pool(self, spec: BaselinePart) -> NDArray[np.int64]:
        """Return the positions in `train` of the images that a baseline may train on, ascending."""
        if spec.train_on == "original":
            return np.arange(len(self.train))
        return np.flatnonzero(self.train["kept"].to_numpy())


class LoadedSplit(NamedTuple):
    """A split with the pixels of its roles.

    Attributes:
        split: the split.
        positions: (k,) positions in its train role of the images that were read, ascending.
        train: these images.
        roles: test and, if the split has it, valid.
        names: names of the classes.
        shape: (height, width, channels) of all images.
    """

    split: SplitRoles
    positions: NDArray[np.int64]
    train: Examples
    roles: Mapping[str, Examples]
    names: list[str]
    shape: tuple[int, int, int]

    def eval_data(self, spec: BaselinePart, overlaps: Mapping[str, Mask]) -> EvalData:
        """Return what a baseline trains on and is scored on.

        Args:
            spec: the recipe's `[[baseline]]`.
            overlaps: by rule, which test images overlap with its training images.
        """
        by_role = {"valid": dict[str, Mask](), "test": dict(overlaps)}
        parts = {
            role: name_parts(getattr(self.split, role)["kept"].to_numpy(), by_role[role])
            for role in _EVAL_ROLES
            if role in self.roles
        }
        dropped = int((~self.split.train["kept"].to_numpy()[self.split.train_pool(spec)]).sum())
        return EvalData(self.train, self.roles, parts, self.names, self.shape, dropped)

    def describe_misses(self, misses: Misclassified | None) -> pl.DataFrame:
        """Return the misclassified test images, each with the nearest training image, in the order of the test role.

        Returns:
            The columns of the misses table, except those that are equal for all rows of a run.
        """
        if misses is None or not len(misses.rows):
            return pl.DataFrame()
        nearest = find_nearest(self.roles["test"].pixels[misses.rows], self.train.pixels[misses.seen])
        train_rows = misses.seen[nearest.place]
        # For a baseline of one class against all others, these names are not those of the split.
        names = np.array(misses.names)
        return pl.DataFrame(
            {
                "train_size": np.full(len(train_rows), misses.size),
                "seed": np.full(len(train_rows), misses.seed),
                "image_id": self.split.test["image_id"][misses.rows],
                "kept": self.split.test["kept"][misses.rows],
                "label": names[misses.labels],
                "predicted": names[misses.predicted],
                "probability": misses.probability,
                "margin": misses.margin,
                "nearest_id": self.split.train["image_id"][self.positions[train_rows]],
                "nearest_label": np.array(self.names)[self.train.labels[train_rows]],
                "distance": nearest.distance,
            }
        )


class RunRows(NamedTuple):
    """The rows of a run in the tables scores, misses and models; any may be empty."""

    scores: pl.DataFrame
    misses: pl.DataFrame
    models: pl.DataFrame


def baselines_by_run(recipe: Recipe) -> dict[str, BaselinePart]:
    """Return every baseline of a recipe by the name of its run."""
    return {f"{part.model} on {part.split} ({digest_of(part.run_settings)[:6]})": part for part in recipe.baseline}


def run_units(snapshot: Snapshot, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """Return, by run, its settings and its fingerprint, which is also its run_id.

    The recipe replaces all runs of a model on a split that it names. Runs of other models and splits stay as they were
    scored, with the release they were scored in, unless pruned.

    A run depends on the rows of its split and, of the clusters, only on which test images overlap with its training
    images. Other changes of clusters do not make it out of date.

    Args:
        snapshot: the lake.
        recipe: what to build.
        prune: leave out runs of the lake that are not in the recipe.
    """
    in_recipe = baselines_by_run(recipe)
    replaced = {(part.model, part.split) for part in in_recipe.values()}
    stored = snapshot.metadata("scores").units
    retained = {
        name: dict(unit)
        for name, unit in ({} if prune else stored).items()
        if name not in in_recipe and (unit["spec"]["model"], unit["spec"]["split"]) not in replaced
    }
    rows = {name: unit["rows"] for name, unit in snapshot.metadata("splits").units.items()}
    clusters = snapshot.metadata("clusters").units
    units: dict[str, dict[str, Any]] = {}
    for name, part in in_recipe.items():
        spec = part.run_settings
        # The overlap is computed again only if the digest of its inputs changed.
        source = digest_of([rows.get(part.split), clusters])
        overlap = dict(stored.get(name, {}).get("overlap", {}))
        if overlap.get("source") != source:
            overlap = _overlap_unit(snapshot, part, source)
        fingerprint = unit_digest("baselines", spec, [rows.get(part.split), overlap["rules"]])
        units[name] = {"spec": spec, "overlap": overlap, "fingerprint": fingerprint}
    return {**retained, **units}


def plan_runs(snapshot: Snapshot, recipe: Recipe, *, prune: bool, redrawn: Collection[str]) -> list[Todo]:
    """List the baselines that the next build would train, and why. It trains none whose input turns out unchanged.

    Args:
        snapshot: the lake.
        recipe: what to build.
        prune: drop runs that are not in the recipe.
        redrawn: names of the splits that the next build would draw.
    """
    stored = set(snapshot.metadata("clusters").units)
    rules = set(recipe.dedup.rules) if prune else stored | set(recipe.dedup.rules)
    in_recipe = baselines_by_run(recipe)
    changed = {} if rules == stored else dict.fromkeys(in_recipe, "the rules of the lake change")
    changed |= {name: "only if its split changes" for name, part in in_recipe.items() if part.split in redrawn}
    units = run_units(snapshot, recipe, prune=prune)
    return find_outdated("baselines", units, snapshot.metadata("scores"), changed=changed)


def score_baselines(
    snapshot: Snapshot, writer: Writer, units: Mapping[str, Unit], progress: Progress = SILENT
) -> tuple[list[Todo], list[Commit]]:
    """Train and score every baseline that is out of date.

    Returns:
        What was done, and why. Then the commits to make: misses, models, and last scores, whose metadata record what
        is up to date. Both lists are empty if nothing is out of date.

    Raises:
        BaselineError: a baseline cannot be trained on its split.
    """
    todo = find_outdated("baselines", units, snapshot.metadata("scores"))
    if not todo:
        return [], []
    outdated = {item.unit: units[item.unit] for item in todo if item.unit in units}
    runs: dict[str, RunRows] = {}
    for split in dict.fromkeys(unit["spec"]["split"] for unit in outdated.values()):
        of_split = {name: unit for name, unit in outdated.items() if unit["spec"]["split"] == split}
        runs |= _score_split(snapshot, split, of_split, progress)
    commits = [
        _replace_rows(snapshot, writer, table, units, {name: getattr(run, table) for name, run in runs.items()})
        for table in ("misses", "models", "scores")
    ]
    return todo, commits


def read_split(snapshot: Snapshot, name: str) -> SplitRoles:
    """Read the labelled images of a split; empty if it is not drawn yet."""
    scan = snapshot.scan("splits", lambda partition: partition["split_name"] == name)
    labelled = scan.filter(pl.col("label_index").is_not_null())
    roles = (
        labelled.filter(role=role).sort("rank").select("image_id", "label_index", "kept").collect()
        for role in ("train", "valid", "test")
    )
    return SplitRoles(name, *roles)


def load_split(snapshot: Snapshot, split: SplitRoles, positions: NDArray[np.int64]) -> LoadedSplit:
    """Read the pixels of a split.

    Args:
        snapshot: the lake.
        split: the split.
        positions: positions of the images to read in the train role, ascending. All images of the other roles are read.

    Raises:
        BaselineError: the images are not all of one size.
    """
    rows = {"train": split.train[positions], "valid": split.valid, "test": split.test}
    files = snapshot.file_places("images")
    located = {role: locate(files, images["image_id"]) for role, images in rows.items() if len(images)}
    shapes = {role: images.shape for role, images in located.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{role} {'x'.join(map(str, shape))}" for role, shape in shapes.items())
        raise BaselineError(
            f"split '{split.name}': the images of its roles have different shapes ({listed}). Set decode.size in the "
            "recipe, so that all images get one size, or remove the baselines of this split."
        )
    examples = {
        role: Examples(flat(gather(images)), rows[role]["label_index"].cast(pl.Int64).to_numpy())
        for role, images in located.items()
    }
    train = examples.pop("train")
    names = Lake.working(snapshot).class_names(split.name)
    return LoadedSplit(split, positions, train, examples, names, shapes["train"])


def _score_split(snapshot: Snapshot, name: str, units: Mapping[str, Unit], progress: Progress) -> dict[str, RunRows]:
    """Score all baselines of one split with one read of its pixels."""
    split = read_split(snapshot, name)
    specs = {run: parse_baseline(unit["spec"]) for run, unit in units.items()}
    samples = {run: _draw_samples(split, spec) for run, spec in specs.items()}
    positions = np.unique(np.concatenate([sample.rows for drawn in samples.values() for sample in drawn]))
    loaded = load_split(snapshot, split, positions)
    runs, release = {}, newest_release(snapshot) + 1
    for run, spec in specs.items():
        progress.step(f"train {run}")
        drawn = [sample._replace(rows=np.searchsorted(positions, sample.rows)) for sample in samples[run]]
        scored = score(spec, drawn, loaded.eval_data(spec, _find_overlaps(snapshot, split, spec)))
        of_run = {
            "model": spec.model,
            "split_name": name,
            "settings": json.dumps(units[run]["spec"], sort_keys=True),
            "release": release,
            "run_id": units[run]["fingerprint"],
        }
        columns = [pl.lit(value).alias(key) for key, value in of_run.items()]
        runs[run] = RunRows(
            pl.DataFrame(scored.rows, schema_overrides=_NULLABLE).with_columns(columns),
            loaded.describe_misses(scored.misses).with_columns(columns),
            pl.DataFrame(scored.models).with_columns(columns),
        )
    return runs


def _draw_samples(split: SplitRoles, spec: BaselinePart) -> list[Sample]:
    """Draw the samples that a baseline trains on. Their rows are positions in the whole train role."""
    pool = split.train_pool(spec)
    ids = id_matrix(split.train["image_id"][pool])
    return [sample._replace(rows=pool[sample.rows]) for sample in draw_samples(spec, ids)]


def _find_overlaps(snapshot: Snapshot, split: SplitRoles, spec: BaselinePart) -> dict[str, Mask]:
    rules = sorted(snapshot.metadata("clusters").units)
    pool = split.train["image_id"][split.train_pool(spec)]
    return find_overlaps(snapshot.scan("clusters"), pool, split.test["image_id"], rules)


def _overlap_unit(snapshot: Snapshot, spec: BaselinePart, source: str) -> dict[str, Any]:
    """Return the digest of the overlap by every rule, and the digest of its inputs."""
    overlaps = _find_overlaps(snapshot, read_split(snapshot, spec.split), spec)
    rules = {rule: xxhash.xxh3_128_hexdigest(np.packbits(mask).tobytes()) for rule, mask in overlaps.items()}
    return {"source": source, "rules": rules}


def _replace_rows(
    snapshot: Snapshot, writer: Writer, table: str, units: Mapping[str, Unit], new: Mapping[str, pl.DataFrame]
) -> Commit:
    """Replace a table by the rows of all units: new rows and, for units that were not scored again, the stored rows."""
    columns = pl.Schema(schemas.TABLES[table].schema)
    stored = snapshot.scan(table).collect()
    frames = [new[name] if name in new else stored.filter(run_id=unit["fingerprint"]) for name, unit in units.items()]
    rows = pl.concat(
        [columns.to_frame(), *(frame.select(columns.names()).cast(columns) for frame in frames if len(frame))]
    )
    written = writer.write(table, rows.to_arrow().cast(schemas.TABLES[table].schema))
    metadata = Metadata("baselines", units, input_versions(snapshot, "images", "clusters", "splits"))
    return Commit(table, written, metadata, all_files)

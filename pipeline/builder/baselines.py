"""splits, clusters, arrays -> scores, misses: train and score what is out of date, in its settings or its input.

The examples of a split, read once for all of its baselines; and, of what a baseline missed, who that was.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

import schemas
from pipeline.baselines.eval_data import Exam, Mask, Sample, draw_samples, find_overlaps, name_parts
from pipeline.baselines.model import Examples
from pipeline.baselines.nearest import find_nearest
from pipeline.baselines.score import Misses, score
from pipeline.builder.state import Todo, stale, unit_digest
from pipeline.errors import BaselineError
from pipeline.hashing import digest_of, flat
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.releases import newest_release
from pipeline.lake.snapshot import Snapshot, polars_schema
from pipeline.lake.transaction import Commit, all_files
from pipeline.lake_handle import Lake
from pipeline.pixels import gather, locate
from pipeline.progress import SILENT, Progress
from pipeline.recipe import BaselinePart, Recipe

_ROLES = ("valid", "test")


class Split(NamedTuple):
    """The labelled images of a split's roles: columns image_id, label_index, kept, ordered by rank."""

    name: str
    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame

    def pool(self, spec: BaselinePart) -> NDArray[np.int64]:
        """Give the positions in `train` of all images that a baseline may be trained on, in the order of the split."""
        if spec.train_on == "original":
            return np.arange(len(self.train))
        return np.flatnonzero(self.train["kept"].to_numpy())


class LoadedSplit(NamedTuple):
    """A split with the pixels of its roles.

    Attributes:
        split: the split.
        needed: (k,) positions in its train role of the images that were read, ascending.
        train: these images.
        roles: valid, where there is one, and test.
        names: of the classes.
        shape: (height, width, channels) of all of them.
    """

    split: Split
    needed: NDArray[np.int64]
    train: Examples
    roles: Mapping[str, Examples]
    names: list[str]
    shape: tuple[int, int, int]

    def exam(self, spec: BaselinePart, overlaps: Mapping[str, Mask]) -> Exam:
        """Put together what a baseline is trained and examined on; `overlaps` by rule, of its test images."""
        known = {"valid": dict[str, Mask](), "test": dict(overlaps)}
        parts = {
            role: name_parts(getattr(self.split, role)["kept"].to_numpy(), known[role])
            for role in _ROLES
            if role in self.roles
        }
        dropped = int((~self.split.train["kept"].to_numpy()[self.split.pool(spec)]).sum())
        return Exam(self.train, self.roles, parts, self.names, self.shape, dropped)

    def name_misses(self, missed: Misses | None) -> pl.DataFrame:
        """Name the test images that were missed, each with the nearest of the images that were trained on.

        Returns:
            What the misses table says of each image, in the order of the test role; no columns of the run itself.
        """
        if missed is None or not len(missed.rows):
            return pl.DataFrame()
        near = find_nearest(self.roles["test"].pixels[missed.rows], self.train.pixels[missed.seen])
        places = missed.seen[near.place]
        asked = np.array(missed.names)
        return pl.DataFrame(
            {
                "train_size": np.full(len(places), missed.size),
                "seed": np.full(len(places), missed.seed),
                "image_id": self.split.test["image_id"][missed.rows],
                "kept": self.split.test["kept"][missed.rows],
                "label": asked[missed.labels],
                "predicted": asked[missed.predicted],
                "probability": missed.probability,
                "margin": missed.margin,
                "nearest_id": self.split.train["image_id"][self.needed[places]],
                "nearest_label": np.array(self.names)[self.train.labels[places]],
                "distance": near.distance,
            }
        )


def read_split(snapshot: Snapshot, name: str) -> Split:
    """Read who is in which role; empty where the split has not been drawn yet."""
    columns = ("role", "rank", "image_id", "label_index", "kept")
    rows = snapshot.scan("splits").filter(pl.col("split_name") == name).select(columns).collect()
    rows = rows.filter(pl.col("label_index").is_not_null()).sort("role", "rank")
    return Split(name, *(rows.filter(role=role) for role in ("train", "valid", "test")))


def load_split(snapshot: Snapshot, split: Split, needed: NDArray[np.int64]) -> LoadedSplit:
    """Read the pixels of a split: of its train role what is needed, of the others all.

    Raises:
        BaselineError: the images are not all of one size.
    """
    read = {"train": split.train[needed], "valid": split.valid, "test": split.test}
    files = snapshot.file_places("images")
    where = {role: locate(files, rows["image_id"]) for role, rows in read.items() if len(rows)}
    shapes = {role: place.shape for role, place in where.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{role} {'x'.join(map(str, shape))}" for role, shape in shapes.items())
        raise BaselineError(
            f"split '{split.name}': its roles have pictures of different shapes ({listed}). Set decode.size, so that "
            "all are of one size, or take its baselines out."
        )
    examples = {
        role: Examples(flat(gather(place)), read[role]["label_index"].cast(pl.Int64).to_numpy())
        for role, place in where.items()
    }
    train = examples.pop("train")
    return LoadedSplit(split, needed, train, examples, Lake.working(snapshot).class_names(split.name), shapes["train"])


Unit = Mapping[str, Any]

# What may be null in every row of a run.
_FOUND = {"rule": pl.String, "label": pl.String, "predicted": pl.String, "point": pl.Float64, "memory": pl.Int64}


class Made(NamedTuple):
    """What a run adds to the tables scores and misses; without columns where it is nothing."""

    scores: pl.DataFrame
    misses: pl.DataFrame


def run_units(snapshot: Snapshot, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """By run, its fingerprint, which is its run_id too, and how it is made.

    A recipe speaks for every model and split that it names together: their other runs go. Scores of what it does not
    name stay as they were measured, for the release they name, until pruned.

    A run reads the rows of its split and, of the clusters, which test images overlap with its train role by which rule:
    clusters that change elsewhere do not concern it.
    """
    asked = named_runs(recipe)
    spoken = {(part.model, part.split) for part in asked.values()}
    known = snapshot.metadata("scores").units
    stay = {
        name: dict(unit)
        for name, unit in ({} if prune else known).items()
        if name not in asked and (unit["spec"]["model"], unit["spec"]["split"]) not in spoken
    }
    rows = {name: unit["rows"] for name, unit in snapshot.metadata("splits").units.items()}
    clusters = snapshot.metadata("clusters").units
    made: dict[str, dict[str, Any]] = {}
    for name, part in asked.items():
        spec = part.model_dump(mode="json", exclude_none=True)
        # Beside the digest of the overlap stands what it was made from: equal, it is not made again.
        source = digest_of([rows.get(part.split), clusters])
        held = known.get(name, {}).get("overlap", {})
        overlap = dict(held) if held.get("source") == source else _overlap_unit(snapshot, part, source)
        fingerprint = unit_digest("baselines", spec, [rows.get(part.split), overlap["rules"]])
        made[name] = {"spec": spec, "overlap": overlap, "fingerprint": fingerprint}
    return {**stay, **made}


def named_runs(recipe: Recipe) -> dict[str, BaselinePart]:
    """By the name of its run, every baseline of a recipe."""
    return {
        f"{part.model} on {part.split} ({digest_of(part.model_dump(mode='json', exclude_none=True))[:6]})": part
        for part in recipe.baseline
    }


def _overlap_unit(snapshot: Snapshot, spec: BaselinePart, source: str) -> dict[str, Any]:
    found = _overlaps(snapshot, read_split(snapshot, spec.split), spec)
    rules = {rule: xxhash.xxh3_128_hexdigest(np.packbits(rows).tobytes()) for rule, rows in found.items()}
    return {"source": source, "rules": rules}


def plan_runs(snapshot: Snapshot, recipe: Recipe, *, prune: bool, redrawn: Collection[str]) -> list[Todo]:
    """Tell which baselines the next build would train, and why; it trains none whose input comes out as it was."""
    held = set(snapshot.metadata("clusters").units)
    rules = set(recipe.dedup.rules) if prune else held | set(recipe.dedup.rules)
    asked = named_runs(recipe)
    changed = {} if rules == held else dict.fromkeys(asked, "the lake's rules change")
    changed |= {name: "if its split changes" for name, part in asked.items() if part.split in redrawn}
    return stale("baselines", run_units(snapshot, recipe, prune=prune), snapshot.metadata("scores"), changed=changed)


def score_baselines(
    snapshot: Snapshot, writer: Writer, units: Mapping[str, Unit], progress: Progress = SILENT
) -> tuple[list[Todo], list[Commit]]:
    """Train and score every baseline that is out of date.

    Args:
        snapshot: of the lake.
        writer: writes the files.
        units: made by `run_units`.
        progress: where to show it.

    Returns:
        What was done, and why; and the commits to make: misses, then scores, whose metadata records what is up to
        date. Both are empty where nothing is out of date.

    Raises:
        BaselineError: a baseline cannot be trained on its split.
    """
    todo = stale("baselines", units, snapshot.metadata("scores"))
    if not todo:
        return [], []
    again = {item.unit: units[item.unit] for item in todo if item.unit in units}
    made: dict[str, Made] = {}
    for split in dict.fromkeys(unit["spec"]["split"] for unit in again.values()):
        ours = {name: unit for name, unit in again.items() if unit["spec"]["split"] == split}
        made |= _score_split(snapshot, split, ours, progress)
    misses = _replace_rows(snapshot, writer, "misses", units, {name: run.misses for name, run in made.items()})
    scores = _replace_rows(snapshot, writer, "scores", units, {name: run.scores for name, run in made.items()})
    return todo, [misses, scores]


def _replace_rows(
    snapshot: Snapshot, writer: Writer, table: str, units: Mapping[str, Unit], made: Mapping[str, pl.DataFrame]
) -> Commit:
    """Replace a table by the rows of all units: the new rows, and of units that stay those that it holds."""
    columns = polars_schema(schemas.TABLES[table].schema)
    old = snapshot.scan(table).collect()
    held = [made[name] if name in made else old.filter(run_id=unit["fingerprint"]) for name, unit in units.items()]
    rows = pl.concat(
        [columns.to_frame(), *(frame.select(columns.names()).cast(columns) for frame in held if len(frame))]
    )
    added = writer.write(table, rows.to_arrow().cast(schemas.TABLES[table].schema))
    read = snapshot.versions
    metadata = Metadata(
        "baselines", units, {name: read[name] for name in ("images", "clusters", "splits") if name in read}
    )
    return Commit(table, added, metadata, all_files)


def _score_split(snapshot: Snapshot, name: str, units: Mapping[str, Unit], progress: Progress) -> dict[str, Made]:
    """Score all baselines of one split on one reading of its pixels; by run, what was made."""
    split = read_split(snapshot, name)
    specs = {run: BaselinePart.model_validate(unit["spec"]) for run, unit in units.items()}
    samples = {run: _draw(split, spec) for run, spec in specs.items()}
    if split.test.is_empty():
        return {run: Made(pl.DataFrame(), pl.DataFrame()) for run in specs}
    needed = np.unique(np.concatenate([sample.rows for drawn in samples.values() for sample in drawn]))
    loaded_split = load_split(snapshot, split, needed)
    made, release = {}, newest_release(snapshot) + 1
    for run, spec in specs.items():
        progress.step(f"train {run}")
        loaded = [sample._replace(rows=np.searchsorted(needed, sample.rows)) for sample in samples[run]]
        rows, missed = score(spec, loaded, loaded_split.exam(spec, _overlaps(snapshot, split, spec)))
        settings = json.dumps(units[run]["spec"], sort_keys=True)
        known = {"model": spec.model, "split_name": name, "settings": settings, "release": release}
        known["run_id"] = units[run]["fingerprint"]
        found = (pl.DataFrame(rows, schema_overrides=_FOUND), loaded_split.name_misses(missed))
        made[run] = Made(
            *(frame.with_columns(pl.lit(value).alias(key) for key, value in known.items()) for frame in found)
        )
    return made


def _draw(split: Split, spec: BaselinePart) -> list[Sample]:
    """Draw the samples of a baseline; their rows are positions in the whole train role."""
    pool = split.pool(spec)
    ids = np.frombuffer(b"".join(split.train["image_id"][pool].to_list()), dtype=np.uint8).reshape(-1, 16)
    return [sample._replace(rows=pool[sample.rows]) for sample in draw_samples(spec, ids)]


def _overlaps(snapshot: Snapshot, split: Split, spec: BaselinePart) -> dict[str, Mask]:
    rules = sorted(snapshot.metadata("clusters").units)
    pool = split.train["image_id"][split.pool(spec)]
    return find_overlaps(snapshot.scan("clusters"), pool, split.test["image_id"], rules)

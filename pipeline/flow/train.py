"""splits, clusters, arrays -> scores: train and score every baseline whose settings, split or overlap changed."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

import schemas
from pipeline.arrays.gather import gather, normalise
from pipeline.arrays.locate import locate
from pipeline.baselines.parts import Mask, find_overlaps, name_parts
from pipeline.baselines.samples import Sample, draw_samples
from pipeline.baselines.score import Examples, score
from pipeline.errors import BaselineError
from pipeline.flow.state import Todo, stale, unit_digest
from pipeline.hashing import digest_of, flat
from pipeline.lake.commits import Meta, commit, read_meta, versions
from pipeline.lake.parts import write_part
from pipeline.lake.reading import file_names, scan_table
from pipeline.lake.releases import newest
from pipeline.progress import SILENT, Progress
from pipeline.recipe import BaselinePart, Recipe

Unit = Mapping[str, Any]


class Split(NamedTuple):
    """The labelled images of a split's roles train and test: columns image_id, label_index, kept, ordered by rank."""

    name: str
    train: pl.DataFrame
    test: pl.DataFrame

    def pool(self, spec: BaselinePart) -> NDArray[np.int64]:
        """Give the positions in `train` of all images that a baseline may be trained on, in the order of the split."""
        if spec.train_on == "original":
            return np.arange(len(self.train))
        return np.flatnonzero(self.train["kept"].to_numpy())


def run_units(root: str, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """By run, its fingerprint, which is its run_id too, and how it is made.

    A recipe speaks for every model and split that it names together: their other runs go. Scores of what it does not
    name stay as they were measured, for the release they name, until pruned.

    A run reads the rows of its split and, of the clusters, which test images overlap with its train role by which rule:
    clusters that change elsewhere do not concern it.
    """
    asked = _named(recipe)
    spoken = {(part.model, part.split) for part in asked.values()}
    known = read_meta(root, "scores").units
    stay = {
        name: dict(unit)
        for name, unit in ({} if prune else known).items()
        if name not in asked and (unit["spec"]["model"], unit["spec"]["split"]) not in spoken
    }
    rows = {name: unit["rows"] for name, unit in read_meta(root, "splits").units.items()}
    clusters = read_meta(root, "clusters").units
    made: dict[str, dict[str, Any]] = {}
    for name, part in asked.items():
        spec = part.model_dump(mode="json")
        # Beside the digest of the overlap stands what it was made from: equal, it is not made again.
        source = digest_of([rows.get(part.split), clusters])
        held = known.get(name, {}).get("overlap", {})
        overlap = dict(held) if held.get("source") == source else _overlap_unit(root, part, source)
        fingerprint = unit_digest("baselines", spec, [rows.get(part.split), overlap["rules"]])
        made[name] = {"spec": spec, "overlap": overlap, "fingerprint": fingerprint}
    return {**stay, **made}


def _named(recipe: Recipe) -> dict[str, BaselinePart]:
    return {
        f"{part.model} on {part.split} ({digest_of(part.model_dump(mode='json'))[:6]})": part
        for part in recipe.baseline
    }


def _overlap_unit(root: str, spec: BaselinePart, source: str) -> dict[str, Any]:
    found = _overlaps(root, _read_split(root, spec.split), spec)
    rules = {rule: xxhash.xxh3_128_hexdigest(np.packbits(rows).tobytes()) for rule, rows in found.items()}
    return {"source": source, "rules": rules}


def plan_runs(root: str, recipe: Recipe, *, prune: bool, redrawn: Collection[str]) -> list[Todo]:
    """Tell which baselines the next build would train, and why; it trains none whose input comes out as it was."""
    held = set(read_meta(root, "clusters").units)
    rules = set(recipe.dedup.rules) if prune else held | set(recipe.dedup.rules)
    asked = _named(recipe)
    changed = {} if rules == held else dict.fromkeys(asked, "the lake's rules change")
    changed |= {name: "if its split changes" for name, part in asked.items() if part.split in redrawn}
    return stale("baselines", run_units(root, recipe, prune=prune), read_meta(root, "scores"), changed=changed)


def run_baselines(root: str, units: Mapping[str, Unit], progress: Progress = SILENT) -> list[Todo]:
    """Train and score every baseline that is out of date, in one commit.

    Args:
        root: the lake's folder.
        units: made by `run_units`.
        progress: where to show it.

    Returns:
        What was done, and why; empty where nothing was out of date, and then nothing was committed.

    Raises:
        BaselineError: a baseline cannot be trained on its split.
    """
    todo = stale("baselines", units, read_meta(root, "scores"))
    if not todo:
        return []
    again = {item.unit: units[item.unit] for item in todo if item.unit in units}
    measured: dict[str, list[dict[str, Any]]] = {}
    for split in dict.fromkeys(unit["spec"]["split"] for unit in again.values()):
        ours = {name: unit for name, unit in again.items() if unit["spec"]["split"] == split}
        measured |= _score_split(root, split, ours, progress)
    old = scan_table(root, "scores", None).collect().to_dicts()
    rows: list[dict[str, Any]] = []
    for name, unit in units.items():
        rows += measured[name] if name in again else [row for row in old if row["run_id"] == unit["fingerprint"]]
    part = write_part(root, "scores", {}, pa.Table.from_pylist(rows, schema=schemas.TABLES["scores"].schema))
    held = versions(root)
    meta = Meta("baselines", units, {name: held[name] for name in ("images", "clusters", "splits") if name in held})
    commit(root, "scores", [part] if part else [], lambda _: True, meta)
    return todo


def _score_split(
    root: str, name: str, units: Mapping[str, Unit], progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Score all baselines of one split on one reading of its pixels; by run, its rows."""
    split = _read_split(root, name)
    specs = {run: BaselinePart.model_validate(unit["spec"]) for run, unit in units.items()}
    samples = {run: _draw(split, spec) for run, spec in specs.items()}
    if split.test.is_empty():
        return {run: [] for run in specs}
    needed = np.unique(np.concatenate([sample.rows for drawn in samples.values() for sample in drawn]))
    train, test = _pixels(root, split.train[needed]), _pixels(root, split.test)
    scored = {}
    for run, spec in specs.items():
        progress.step(f"train {run}")
        _same_shape(spec, train, test)
        parts = name_parts(split.test["kept"].to_numpy(), _overlaps(root, split, spec))
        dropped = int((~split.train["kept"].to_numpy()[split.pool(spec)]).sum())
        loaded = [sample._replace(rows=np.searchsorted(needed, sample.rows)) for sample in samples[run]]
        read, asked = _examples(train, split.train[needed]), _examples(test, split.test)
        found = score(spec, loaded, read, asked, parts, train_dropped=dropped)
        known = {"run_id": units[run]["fingerprint"], "release": newest(root) + 1}
        scored[run] = [{**row, **known} for row in found]
    return scored


def _draw(split: Split, spec: BaselinePart) -> list[Sample]:
    """Draw the samples of a baseline; their rows are positions in the whole train role."""
    pool = split.pool(spec)
    ids = np.frombuffer(b"".join(split.train["image_id"][pool].to_list()), dtype=np.uint8).reshape(-1, 16)
    return [sample._replace(rows=pool[sample.rows]) for sample in draw_samples(spec, ids)]


def _overlaps(root: str, split: Split, spec: BaselinePart) -> dict[str, Mask]:
    rules = sorted(read_meta(root, "clusters").units)
    pool = split.train["image_id"][split.pool(spec)]
    return find_overlaps(scan_table(root, "clusters", None), pool, split.test["image_id"], rules)


def _read_split(root: str, name: str) -> Split:
    """Read who is in train and test; empty where the split has not been drawn yet."""
    columns = ("role", "rank", "image_id", "label_index", "kept")
    rows = scan_table(root, "splits", None).filter(pl.col("split_name") == name).select(columns).collect()
    rows = rows.filter(pl.col("label_index").is_not_null()).sort("role", "rank")
    return Split(name, rows.filter(role="train"), rows.filter(role="test"))


def _pixels(root: str, rows: pl.DataFrame) -> NDArray[np.uint8]:
    return flat(gather(locate(file_names(root, "images", None), rows["image_id"])))


def _examples(pixels: NDArray[np.uint8], rows: pl.DataFrame) -> Examples:
    return Examples(lambda asked: normalise(pixels[asked]), rows["label_index"].cast(pl.Int64).to_numpy())


def _same_shape(spec: BaselinePart, train: NDArray[np.uint8], test: NDArray[np.uint8]) -> None:
    sizes = train.shape[1], test.shape[1]
    if sizes[0] != sizes[1]:
        raise BaselineError(
            f"{spec.model} on split '{spec.split}': its train images have {sizes[0]} values each, its test images "
            f"{sizes[1]}. Set decode.size, so that all are of one size, or take the baseline out."
        )

"""images -> attributes: join facts about images, from the files and patterns of the recipe's `[[attributes]]`.

A unit is a dataset. It is made again when its images, its `[[attributes]]` or their files change; a file is known by
its size and modification time. Rows that name no image, and images without a row, are counted in the metadata.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import xxhash

import schemas
from pipeline.builder.attribute_notes import EXAMPLES, Faults, find_faults
from pipeline.builder.attribute_values import ATTRIBUTES
from pipeline.builder.state import Todo, find_outdated, input_versions, inputs_digest, unit_digest
from pipeline.errors import SourceError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit
from pipeline.progress import SILENT, Progress, plural
from pipeline.recipe import AttributesPart, Recipe
from pipeline.sources.attribute_types import as_text, cast, common_type, type_of
from pipeline.sources.attributes import Attributes, match_patterns, read_attributes, table_files


def attribute_units(snapshot: Snapshot, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """Return, by dataset, its `[[attributes]]` and their fingerprint.

    Those of the recipe replace all that the lake has of the same dataset. Others stay, unless pruned.

    Args:
        snapshot: the lake.
        recipe: what to build.
        prune: leave out attributes that are not in the recipe.
    """
    shards = snapshot.scan("shards").collect()
    in_recipe = {part.dataset for part in recipe.source}
    sources = {part.uri for part in recipe.source}
    stored = {} if prune else snapshot.metadata(ATTRIBUTES).units
    units: dict[str, dict[str, Any]] = {}
    for dataset in sorted({*shards["dataset"], *in_recipe}):
        parts = [
            part
            for part in recipe.attributes
            if part.dataset == dataset or (part.dataset is None and dataset in in_recipe)
        ]
        if parts:
            spec = [part.model_dump(mode="json") for part in parts]
            files = [part.uri and str((recipe.base / part.uri).resolve()) for part in parts]
        elif dataset in stored:
            spec, files = stored[dataset]["spec"], stored[dataset]["files"]
        else:
            continue
        from_source = [part.uri in sources for part in parts] if parts else stored[dataset]["from_source"]
        inputs = [list(map(_file_state, files)), inputs_digest(shards.filter(dataset=dataset))]
        fingerprint = unit_digest(ATTRIBUTES, [spec, from_source], inputs)
        units[dataset] = {"spec": spec, "files": files, "from_source": from_source, "fingerprint": fingerprint}
    return units


def missing_files(units: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return, by dataset, the first file of its `[[attributes]]` that does not exist; others are left out.

    Args:
        units: made by `attribute_units`.
    """
    gone = {name: [file for file in unit["files"] if file and not _file_state(file)] for name, unit in units.items()}
    return {name: files[0] for name, files in gone.items() if files}


def check_attribute_files(units: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the files of `[[attributes]]` exist, before images are decoded.

    Raises:
        SourceError: one does not.
    """
    for file in missing_files(units).values():
        fault = "is a folder without Parquet files" if Path(file).is_dir() else "does not exist"
        raise SourceError(f"attributes: {file} {fault}. Correct the uri of its [[attributes]].")


def check_datasets(snapshot: Snapshot, recipe: Recipe) -> None:
    """Check that the lake has the datasets that `[[attributes]]` name.

    Raises:
        SourceError: it lacks one.
    """
    known = set(snapshot.scan("shards").select("dataset").unique().collect()["dataset"])
    for part in recipe.attributes:
        if part.dataset is not None and part.dataset not in known:
            raise SourceError(
                f"attributes {part.title}: the lake has no dataset '{part.dataset}'. Datasets: "
                f"{', '.join(sorted(known))}."
            )


def plan_attributes(snapshot: Snapshot, units: Mapping[str, Mapping[str, Any]], *, images_change: bool) -> list[Todo]:
    """List the datasets whose attributes the next build would join, and why.

    Args:
        snapshot: the lake.
        units: made by `attribute_units`.
        images_change: whether the next build would read or drop images.
    """
    changed = dict.fromkeys(units, "the images change") if images_change else None
    return find_outdated(ATTRIBUTES, units, snapshot.metadata(ATTRIBUTES), changed=changed)


def join_attributes(
    snapshot: Snapshot, writer: Writer, units: Mapping[str, Mapping[str, Any]], progress: Progress = SILENT
) -> tuple[list[Todo], list[Commit]]:
    """Join the attributes of every dataset that is out of date.

    Returns:
        What was done, why, and what was found; and the commit to make. Both are empty if nothing is out of date.

    Raises:
        SourceError: a file is missing or cannot be read, or one of its paths is of images of several splits.
    """
    stored = snapshot.metadata(ATTRIBUTES)
    todo = find_outdated(ATTRIBUTES, units, stored)
    if not todo:
        return [], []
    written: list[Part] = []
    again = {item.unit for item in todo}
    new_units: dict[str, dict[str, Any]] = {}
    for dataset, unit in units.items():
        if dataset not in again:
            new_units[dataset] = {**stored.units[dataset], **unit}
            continue
        progress.step(f"join attributes of {dataset}")
        parts, described = _join_dataset(snapshot, writer, dataset, unit)
        written += parts
        new_units[dataset] = {**unit, **described}
    metadata = Metadata(ATTRIBUTES, new_units, input_versions(snapshot, "images"))
    done = [item._replace(reason="; ".join([item.reason, *_outcome(new_units.get(item.unit, {}))])) for item in todo]
    return done, [Commit(ATTRIBUTES, written, metadata, lambda partition: partition["dataset"] in again)]


def _join_dataset(
    snapshot: Snapshot, writer: Writer, dataset: str, unit: Mapping[str, Any]
) -> tuple[list[Part], dict[str, Any]]:
    """Join every `[[attributes]]` of a dataset and write its rows, ordered by attribute and image."""
    parts = [AttributesPart.model_validate(spec) for spec in unit["spec"]]
    images = snapshot.scan("images").select("image_id", "path", "file_digest", "dataset", "split").collect()
    joined: list[pl.DataFrame] = []
    faults: list[Faults] = []
    for part, file, is_source in zip(parts, unit["files"], unit["from_source"], strict=True):
        of_part = images.filter(pl.col("split") == part.split) if part.split else images
        own = of_part.filter(pl.col("dataset") == dataset)
        every = own if part.dataset or part.uri is None else of_part
        found = (
            read_attributes(part, Path(file), every, is_source=is_source)
            if file
            else match_patterns(part, own.select("path"))
        )
        _check_one_image_per_path(part, found, own)
        faults.append(find_faults(part, found, dataset, own, every))
        keys = own.select("image_id", pl.col(found.key).alias("key"))
        joined.append(keys.join(found.rows, on="key", how="inner", nulls_equal=False).drop("key"))
    names = sorted({name for rows in joined for name in rows.columns if name != "image_id"})
    described: dict[str, Any] = {}
    # One file, so that the order of rows does not depend on names of files. Each attribute is a row group.
    with writer.open(ATTRIBUTES, {"dataset": dataset}) as file_of_rows:
        for name in names:
            values, is_list = _values_of(name, joined)
            if len(values):
                file_of_rows.write(_as_rows(name, values))
                described[name] = _describe(values, is_list=is_list)
        written = file_of_rows.close()
    count = images.filter(pl.col("dataset") == dataset).height
    return [written] if written else [], {
        "images": count,
        "names": described,
        "faults": [fault._asdict() for fault in faults],
    }


def _values_of(name: str, joined: Iterable[pl.DataFrame]) -> tuple[pl.DataFrame, bool]:
    """Collect the values of an attribute from all parts: image_id and value, and whether it is an attribute of lists.

    If parts give an attribute several types, it gets their common type. Each value of an image is there once; rows are
    ordered by image_id and the text of the value.
    """
    frames, is_list = [], False
    for rows in joined:
        if name in rows.columns:
            values = rows.select("image_id", value=name)
            if isinstance(values["value"].dtype, pl.List):
                is_list = True
                values = values.explode("value")
            frames.append(values.drop_nulls("value"))
    kind = common_type([type_of(frame["value"]) for frame in frames])
    texts = [frame.with_columns(as_text(cast(frame["value"], kind)), type=pl.lit(kind)) for frame in frames]
    return pl.concat(texts).unique().sort("image_id", "value"), is_list


def _as_rows(name: str, values: pl.DataFrame) -> pa.Table:
    schema = schemas.TABLES[ATTRIBUTES].file_schema
    return values.with_columns(name=pl.lit(name)).select(schema.names).to_arrow().cast(schema)


def _describe(values: pl.DataFrame, *, is_list: bool) -> dict[str, Any]:
    """Return what the metadata keep of an attribute; see `describe_attributes`."""
    digest = xxhash.xxh3_128(values["type"][0].encode())
    digest.update(b"".join(values["image_id"].to_list()))
    digest.update("\0".join(values["value"].to_list()).encode())
    images = values["image_id"].n_unique()
    several = len(values.filter(pl.col("image_id").is_duplicated()).unique("image_id"))
    return {
        "type": values["type"][0],
        "list": is_list,
        "images": images,
        "values": values["value"].n_unique(),
        "several": several,
        "digest": digest.hexdigest(),
    }


def _check_one_image_per_path(part: AttributesPart, found: Attributes, images: pl.DataFrame) -> None:
    """Check that no row of a file is of several images, as splits of a dataset may have equal paths.

    Raises:
        SourceError: one is.
    """
    if part.uri is None or found.key != "path":
        return
    named = images.filter(pl.col("path").is_duplicated()).join(
        found.rows.select(path="key").unique(), on="path", how="semi"
    )
    if len(named):
        path: str = named["path"].sort()[0]
        splits = ", ".join(sorted(named.filter(path=path)["split"].unique()))
        raise SourceError(
            f"attributes: {part.uri} has path '{path}', but splits {splits} of dataset '{images['dataset'][0]}' all "
            "have an image of that path. Write an [[attributes]] with `split` and a file for each split."
        )


def _outcome(unit: Mapping[str, Any]) -> list[str]:
    names = unit.get("names", {})
    return [f"{plural(len(names), 'attribute')}: {', '.join(list(names)[:EXAMPLES])}"] if names else []


def _file_state(file: str | None) -> list[Any] | None:
    """Return what changes when a file does; of a folder or pattern, that of each of its files."""
    found = table_files(Path(file)) if file else []
    try:
        states = [[found.st_size, found.st_mtime_ns] for found in map(Path.stat, found)]
    except OSError:
        return None
    if file and found == [Path(file)]:
        return states[0]
    return [[path.name, *state] for path, state in zip(found, states, strict=True)] or None

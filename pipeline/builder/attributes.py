"""images -> attributes: join facts about images, from the files and patterns of the recipe's `[[attributes]]`.

A unit is a dataset. It is made again when its images, its `[[attributes]]` or their files change; a file is known by
its size and modification time. Rows that name no image, and images without a row, are counted in the metadata.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import xxhash

import schemas
from pipeline.builder.state import Todo, find_outdated, input_versions, shards_digest, unit_digest
from pipeline.errors import SourceError, SplitError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit
from pipeline.progress import SILENT, Progress, plural
from pipeline.recipe import AttributesPart, Recipe
from pipeline.recipe.rules import attribute_of, rule_order
from pipeline.sources.attributes import (
    EXIF,
    Attributes,
    as_text,
    cast,
    common_type,
    from_text,
    match_patterns,
    read_attributes,
    table_files,
    type_of,
)

# Text that pandas and R write for no value.
_MARKERS = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None")
# Paths that a note or the report lists of each fault.
_EXAMPLES = 5
_TABLE = "attributes"


class Faults(NamedTuple):
    """What does not fit between one `[[attributes]]` and the images of a dataset.

    Attributes:
        title: the `[[attributes]]`: its uri or its patterns.
        is_file: whether it is a file.
        key: the column that identifies the images: path, image_id or file_digest.
        rows: rows of the file, or images for patterns.
        unknown: rows that name no image of the datasets that the part is for, the first of them.
        repeated: images that several rows name, the first of them.
        missing: images that no row names, or whose path no pattern matches; the first of them.
        images: images of the dataset that the part is for.
        invalid: by attribute, values that do not have the type that the recipe requires.
        left_out: columns that cannot be attributes.
        uncertain: by label column, values that are -1 where others are 0.
        empty: attributes without a value.
        markers: by attribute of text, values such as NA, which other tools read as no value.
        shared: paths of the file that images of several datasets have, the first of them.
        other_form: paths in another Unicode form than in the lake.
    """

    title: str
    is_file: bool
    key: str
    rows: int
    unknown: tuple[int, list[str]]
    repeated: tuple[int, list[str]]
    missing: tuple[int, list[str]]
    images: int
    invalid: Mapping[str, int]
    left_out: Sequence[str]
    uncertain: Mapping[str, int] = MappingProxyType({})
    empty: Sequence[str] = ()
    markers: Mapping[str, int] = MappingProxyType({})
    shared: tuple[int, list[str]] = (0, [])
    other_form: int = 0


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
    stored = {} if prune else snapshot.metadata(_TABLE).units
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
        inputs = [list(map(_file_state, files)), shards_digest(shards.filter(dataset=dataset))]
        fingerprint = unit_digest(_TABLE, [spec, from_source], inputs)
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
    return find_outdated(_TABLE, units, snapshot.metadata(_TABLE), changed=changed)


def join_attributes(
    snapshot: Snapshot, writer: Writer, units: Mapping[str, Mapping[str, Any]], progress: Progress = SILENT
) -> tuple[list[Todo], list[Commit]]:
    """Join the attributes of every dataset that is out of date.

    Returns:
        What was done, why, and what was found; and the commit to make. Both are empty if nothing is out of date.

    Raises:
        SourceError: a file is missing or cannot be read, or one of its paths is of images of several splits.
    """
    stored = snapshot.metadata(_TABLE)
    todo = find_outdated(_TABLE, units, stored)
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
    metadata = Metadata(_TABLE, new_units, input_versions(snapshot, "images"))
    done = [item._replace(reason="; ".join([item.reason, *_outcome(new_units.get(item.unit, {}))])) for item in todo]
    return done, [Commit(_TABLE, written, metadata, lambda partition: partition["dataset"] in again)]


def attribute_types(snapshot: Snapshot) -> dict[str, str]:
    """Return the type of every attribute of the lake, by name; see `pipeline.sources.attributes.TYPES`."""
    kinds: dict[str, list[str]] = {}
    for unit in snapshot.metadata(_TABLE).units.values():
        for name, described in unit["names"].items():
            kinds.setdefault(name, []).append(described["type"])
    return {name: common_type(found) for name, found in sorted(kinds.items())}


def attribute_digests(snapshot: Snapshot, name: str) -> dict[str, str]:
    """Return, by dataset, the digest of all values of an attribute; splits that use it depend on them."""
    units = snapshot.metadata(_TABLE).units
    return {dataset: unit["names"][name]["digest"] for dataset, unit in units.items() if name in unit["names"]}


def read_values(snapshot: Snapshot, name: str, *, needed_by: str) -> pl.DataFrame:
    """Read the values of an attribute. `taken_at` and `camera` are read from originals if no file gives them.

    Args:
        snapshot: the lake.
        name: name of the attribute.
        needed_by: what needs it, for the message.

    Returns:
        Columns image_id and value, of the attribute's type; an image has a row for each of its values.

    Raises:
        SplitError: the lake has no such attribute.
    """
    types = attribute_types(snapshot)
    if name not in types and name in EXIF:
        of_originals = snapshot.scan("originals").select("image_id", value=name).drop_nulls().collect()
        if len(of_originals):
            return of_originals
    if name not in types:
        listed = ", ".join(types) or "none; add an [[attributes]] to the recipe"
        raise SplitError(f"{needed_by} needs the attribute '{name}', which no image has. Attributes: {listed}.")
    rows = snapshot.scan(_TABLE).filter(pl.col("name") == name)
    return rows.select("image_id", from_text(pl.col("value"), types[name])).collect()


def value_groups(values: pl.DataFrame) -> pl.DataFrame:
    """Make a group of the images that have one value, like rows of the clusters table.

    Args:
        values: columns image_id and value; an image with several values is in several groups.

    Returns:
        Columns cluster_id, the smallest image id of the group, and image_id. Values of a single image are left out.
    """
    return (
        values.with_columns(cluster_id=pl.col("image_id").min().over("value"))
        .filter(pl.len().over("value") > 1)
        .select("cluster_id", "image_id")
    )


def attribute_notes(snapshot: Snapshot) -> list[str]:
    """List what does not fit between attributes and images, and duplicates across groups, one line each."""
    lines = [line for unit in snapshot.metadata(_TABLE).units.values() for line in _notes(unit)]
    return [*dict.fromkeys(lines), *(row["note"] for row in duplicates_across(snapshot))]


def duplicates_across(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Count the clusters whose images have several values of an attribute that a split groups by.

    They are duplicates between patients, for example: the split keeps all images of these patients together.

    Returns:
        One dict for each attribute and rule with such clusters: attribute, rule, clusters, images (of these clusters)
        and note, all of it in one line.
    """
    units = snapshot.metadata("splits").units.values()
    grouped = {name for unit in units for rule in unit["spec"].get("groups", ()) if (name := attribute_of(rule))}
    found = []
    for name in sorted(grouped & set(attribute_types(snapshot))):
        values = snapshot.scan(_TABLE).filter(pl.col("name") == name).select("image_id", "value")
        several = (
            snapshot.scan("clusters")
            .select("rule", "cluster_id", "image_id")
            .join(values, on="image_id")
            .group_by("rule", "cluster_id")
            .agg(values=pl.n_unique("value"), images=pl.n_unique("image_id"))
            .filter(pl.col("values") > 1)
            .group_by("rule")
            .agg(clusters=pl.len(), images=pl.sum("images"))
            .collect()
        )
        for rule, clusters, images in sorted(several.rows(), key=lambda row: rule_order(row[0])):
            of_rule = f"{plural(clusters, 'cluster')} of {rule} ({plural(images, 'image')})"
            note = f"attribute {name}: {of_rule} with several values"
            found.append({"attribute": name, "rule": rule, "clusters": clusters, "images": images, "note": note})
    return found


def describe_attributes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Describe the attributes of every dataset, for the report.

    Returns:
        One dict for each dataset: dataset; images; attributes (name, type, images, values and several: images with
        more than one value), sorted by name; notes (what does not fit, one line each).
    """
    units = snapshot.metadata(_TABLE).units
    return [
        {
            "dataset": dataset,
            "images": unit["images"],
            "attributes": [
                {"name": name, **{key: of[key] for key in ("type", "images", "values", "several")}}
                for name, of in sorted(unit["names"].items())
            ],
            "notes": _notes(unit),
        }
        for dataset, unit in sorted(units.items())
    ]


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
        faults.append(_find_faults(part, found, dataset, own, every))
        keys = own.select("image_id", pl.col(found.key).alias("key"))
        joined.append(keys.join(found.rows, on="key", how="inner", nulls_equal=False).drop("key"))
    names = sorted({name for rows in joined for name in rows.columns if name != "image_id"})
    described: dict[str, Any] = {}
    # One file, so that the order of rows does not depend on names of files. Each attribute is a row group.
    with writer.open(_TABLE, {"dataset": dataset}) as file_of_rows:
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
    schema = schemas.TABLES[_TABLE].file_schema
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


def _find_faults(
    part: AttributesPart, found: Attributes, dataset: str, own: pl.DataFrame, every: pl.DataFrame
) -> Faults:
    """Compare the keys of a file with the images.

    Args:
        part: the `[[attributes]]`.
        found: what it gives.
        dataset: the dataset.
        own: the images of the dataset that the part is for.
        every: the images of all datasets that the part is for.
    """
    keys = found.rows.select("key")
    without = own.join(keys, left_on=found.key, right_on="key", how="anti")["path"]
    if part.uri is None:
        unknown, repeated = without.clear(), without.clear()
    else:
        unknown = keys.join(every.select(key=found.key), on="key", how="anti")["key"]
        listed = keys.filter(pl.col("key").is_duplicated()).drop_nulls().unique()
        repeated = listed.join(own.select(key=found.key), on="key", how="semi")["key"]
    values = found.rows.drop("key")
    in_both = own.join(every.filter(pl.col("dataset") != dataset), on="path", how="semi")["path"]
    shared = in_both.filter(in_both.is_in(keys["key"].implode())) if found.key == "path" else in_both.clear()
    markers = values.select(pl.col(pl.String).is_in(_MARKERS).sum())
    counts = markers.row(0, named=True) if markers.width else {}
    return Faults(
        part.title,
        part.uri is not None,
        found.key,
        len(found.rows),
        _examples(unknown),
        _examples(repeated),
        _examples(without),
        len(own),
        dict(found.invalid),
        list(found.left_out),
        dict(found.uncertain),
        [column.name for column in values if column.is_null().all() and len(keys.drop_nulls())],
        {name: count for name, count in counts.items() if count},
        _examples(shared),
        found.other_form,
    )


def _examples(keys: pl.Series) -> tuple[int, list[str]]:
    shown = keys.drop_nulls()
    texts = shown.bin.encode("hex") if shown.dtype == pl.Binary else shown
    return len(keys), texts.unique().sort().head(_EXAMPLES).to_list()


def _outcome(unit: Mapping[str, Any]) -> list[str]:
    names = unit.get("names", {})
    return [f"{plural(len(names), 'attribute')}: {', '.join(list(names)[:_EXAMPLES])}"] if names else []


def _notes(unit: Mapping[str, Any]) -> list[str]:
    lines = []
    for stored in unit["faults"]:
        fault = Faults(**stored)
        title = f"attributes {fault.title}"
        key = "id" if fault.key == "image_id" else "digest" if fault.key == "file_digest" else "path"
        if fault.unknown[0]:
            lines.append(
                f"{title}: {fault.unknown[0]:,} of {plural(fault.rows, 'row')} name no image by their {key}"
                f"{_first(fault.unknown)}"
            )
        if fault.repeated[0]:
            lines.append(f"{title}: several rows name {plural(fault.repeated[0], key)}{_first(fault.repeated)}")
        if fault.shared[0]:
            lines.append(
                f"{title}: images of several datasets have {plural(fault.shared[0], 'path')} of the file and get the "
                f'values; dataset = "..." chooses one dataset{_first(fault.shared)}'
            )
        if fault.other_form:
            lines.append(
                f"{title}: {plural(fault.other_form, 'path')} in another Unicode form than in the lake, joined anyway"
            )
        if fault.missing[0]:
            why = "are in no row" if fault.is_file else "have a path that no pattern matches"
            lines.append(
                f"{title}: {fault.missing[0]:,} of {plural(fault.images, 'image')} {why}{_first(fault.missing)}"
            )
        lines += [
            f"{title}: {plural(count, 'value')} of {name} ignored, because not of the type that the recipe requires"
            for name, count in fault.invalid.items()
        ]
        lines += [
            f"{title}: {plural(count, 'value')} of the label {name} counted as 0, because -1 is neither 0 nor 1"
            for name, count in fault.uncertain.items()
        ]
        lines += [f"{title}: {name} has no value" for name in fault.empty if name not in fault.invalid]
        lines += [
            f"{title}: {plural(count, 'value')} of {name} such as NA, kept as text: leave it empty if it means no value"
            for name, count in fault.markers.items()
        ]
        if fault.left_out:
            listed = ", ".join(fault.left_out[:_EXAMPLES])
            lines.append(f"{title}: columns ignored, because they cannot be attributes: {listed}")
    lines += [
        f"attribute {name}: {plural(of['several'], 'image')} with several values, so null in attributes_wide"
        for name, of in unit["names"].items()
        if of["several"] and not of["list"]
    ]
    return lines


def _first(listed: Sequence[Any]) -> str:
    count, examples = listed
    more = f" and {count - len(examples):,} more" if count > len(examples) else ""
    return f": {', '.join(examples)}{more}" if examples else ""


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

"""What does not fit between attributes and images: found when they are joined, and listed by builds and the report."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl

from pipeline.builder.attribute_values import ATTRIBUTES, attribute_types
from pipeline.lake.snapshot import Snapshot
from pipeline.progress import plural
from pipeline.recipe import AttributesPart
from pipeline.recipe.rules import attribute_of, rule_order
from pipeline.sources.attributes import Attributes

# Text that pandas and R write for no value.
_MARKERS = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None")

# Paths that a note or the report lists of each fault.
EXAMPLES = 5


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


def attribute_notes(snapshot: Snapshot) -> list[str]:
    """List what does not fit between attributes and images, and duplicates across groups, one line each."""
    lines = [line for unit in snapshot.metadata(ATTRIBUTES).units.values() for line in _notes(unit)]
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
        values = snapshot.scan(ATTRIBUTES).filter(pl.col("name") == name).select("image_id", "value")
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
    units = snapshot.metadata(ATTRIBUTES).units
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


def find_faults(
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
    return len(keys), texts.unique().sort().head(EXAMPLES).to_list()


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
            lines.append(f"{title}: not read, as no attribute can hold them: {', '.join(fault.left_out[:EXAMPLES])}")
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

"""The summary of a build: counts of images, labels, classes and rejects by source, and notes about the sources.

A note about something that a recipe can change names the key that changes it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.builder.commit_ingest import Decoded
from pipeline.builder.state import SHARD_KEY, stored_shards
from pipeline.builder.worker import Ingested
from pipeline.errors import SourceError
from pipeline.lake.snapshot import Snapshot
from pipeline.progress import plural
from pipeline.recipe import DecodePart
from pipeline.shard import Encoded
from pipeline.sources import Source
from pipeline.sources.roles import OTHER, levels_of_paths, merged_note, splits_of

# Examples that a message lists at most.
_EXAMPLES = 5
# A note reports the rejects if they are more than this share of the files.
_REPORTED_SHARE = 0.01
# The reason of rejects that are files of operating systems. They do not count as data.
_SYSTEM_FILE = "system_file"
_TABLE_FILES = r"(?i)\.(csv|tsv|json|jsonl|txt|xml|mat|xlsx?)$"
_DATA_FILES = r"(?i)\.(csv|tsv|json|jsonl|txt|xml|mat|xlsx?|parquet|npy|npz|zip|tar|tgz|tar\.(gz|bz2|xz))$"
# Rules that find no copy of a photograph that was changed.
_EXACT_RULES = frozenset({"exact", "file"})
_ARCHIVES = ("tar", "zip")


class SourceCounts(NamedTuple):
    """What the lake holds of one source.

    Attributes:
        dataset: dataset name.
        split: split name.
        uri: the source, as written in the recipe. The files of one pattern or folder count together.
        images: number of images.
        labelled: number of images with a label.
        unlabelled: number of images without a label.
        classes: number of different labels.
        rejects: number of files that could not become an image.
    """

    dataset: str
    split: str
    uri: str
    images: int
    labelled: int
    unlabelled: int
    classes: int
    rejects: int

    def line(self) -> str:
        """Return the counts as one line of text."""
        rejects = f", {plural(self.rejects, 'reject')}" if self.rejects else ""
        return (
            f"{self.dataset}/{self.split} ({self.uri}): {plural(self.images, 'image')}, {self.labelled:,} labelled, "
            f"{self.unlabelled:,} unlabelled, {plural(self.classes, 'class', 'classes')}{rejects}"
        )


class ReadingNotes:
    """Collects notes about labels and folders while sources are read."""

    def __init__(self) -> None:
        self._normalised: dict[str, dict[str, str | None]] = {}
        self._folders: dict[str, tuple[Source, set[str]]] = {}

    def add(self, source: Source, shard: Encoded) -> None:
        """Add a shard that was read from its source."""
        if shard.respelled:
            self._normalised.setdefault(source.title, {}).update(shard.respelled)
        if source.format in _ARCHIVES and source.part.split is not None:
            self._folders.setdefault(source.title, (source, set()))[1].update(
                path.rpartition("/")[0] for path in shard.paths
            )

    def lines(self) -> list[str]:
        """Return the notes, one line each."""
        merged = (
            (source.title, merged_note(splits_of(levels_of_paths(folders)), source.split))
            for source, folders in self._folders.values()
        )
        return [
            *(_normalised_labels(title, labels) for title, labels in self._normalised.items()),
            *(f"{title}: {note}" for title, note in merged if note),
        ]


def count_sources(snapshot: Snapshot, found: Sequence[Source]) -> list[SourceCounts]:
    """Count what the lake holds of every source. Scans the labels of all images.

    Args:
        snapshot: the lake.
        found: the sources of the recipe. The files of one pattern or folder count as one source.

    Returns:
        One entry for each source: those of the recipe in its order, then others by dataset, split and uri.
    """
    groups = _uris_of_groups(found)
    shards = stored_shards(snapshot).select(*SHARD_KEY, "uri", "rejects")
    uris = [groups.get(key, key[2]) for key in shards.select("dataset", "split", "uri").rows()]
    shards = shards.with_columns(pl.Series("uri", uris, pl.String))
    labels = snapshot.scan("images").group_by(*SHARD_KEY, "label").agg(images=pl.len()).collect()
    by = ["dataset", "split", "uri"]
    counted = (
        labels.join(shards.select(*SHARD_KEY, "uri"), on=SHARD_KEY)
        .group_by(by)
        .agg(
            images=pl.sum("images"),
            labelled=pl.col("images").filter(pl.col("label").is_not_null()).sum(),
            classes=pl.col("label").drop_nulls().n_unique(),
        )
    )
    rows = (
        shards.group_by(by)
        .agg(rejects=pl.sum("rejects"))
        .join(counted, on=by, how="left")
        .with_columns(pl.col("images", "labelled", "classes").fill_null(0))
        .with_columns(unlabelled=pl.col("images") - pl.col("labelled"))
        .sort(by)
    )
    in_recipe = dict.fromkeys((dataset, split, uri) for (dataset, split, _), uri in groups.items())
    order = {key: position for position, key in enumerate(in_recipe)}
    counts = [SourceCounts(**row) for row in rows.select(SourceCounts._fields).rows(named=True)]
    return sorted(counts, key=lambda item: order.get((item.dataset, item.split, item.uri), len(order)))


def stored_counts(snapshot: Snapshot) -> list[SourceCounts] | None:
    """Read the counts that the newest release stores; None if it was built by version 0.5 or earlier."""
    stored = snapshot.metadata("releases").units.get("sources")
    return None if stored is None else [SourceCounts(**row) for row in stored["counts"]]


def counts_as_json(counts: Iterable[SourceCounts]) -> list[dict[str, Any]]:
    """Return counts as JSON values; `stored_counts` reads them."""
    return [item._asdict() for item in counts]


def check_any_image(snapshot: Snapshot, decoded: Sequence[Ingested], retained: pl.DataFrame) -> None:
    """Check that the lake will have at least one image.

    Args:
        snapshot: the lake.
        decoded: the shards to commit.
        retained: rows of the shards table that stay.

    Raises:
        SourceError: there would be no image. The message has the number of rejects by reason, with up to 5 examples.
    """
    if retained["rows"].sum() or any(len(item.image_ids) for item in decoded):
        return
    old = snapshot.scan("rejects").join(retained.select(SHARD_KEY).lazy(), on=SHARD_KEY, how="semi").collect()
    new = [pl.DataFrame(item.rejects).select(old.columns) for item in decoded]
    rejects = pl.concat([old, *new]).filter(pl.col("reason") != _SYSTEM_FILE)
    if rejects.is_empty():
        raise SourceError(
            "no image could be read: the sources contain no files. Check their paths. Nothing was committed."
        )
    reasons = rejects.group_by("reason").len().sort(pl.col("len"), "reason", descending=[True, False])
    parts = [f"{count:,} {reason}: {_examples(rejects.filter(reason=reason))}" for reason, count in reasons.rows()]
    raise SourceError(
        f"no image could be read. {plural(len(rejects), 'file')} became rejects. {'; '.join(parts)}. "
        "Nothing was committed."
    )


def build_notes(
    snapshot: Snapshot,
    found: Sequence[Source],
    counts: Sequence[SourceCounts],
    decode: DecodePart,
    decoded: Decoded | None,
) -> list[str]:
    """List the notes about the sources of a build.

    Args:
        snapshot: the lake.
        found: the sources of the recipe.
        counts: made by `count_sources`.
        decode: the recipe's `[decode]`, with its mode decided.
        decoded: what was decoded; None if nothing was.

    Returns:
        One line for each note.
    """
    notes = [f"{source.title}: {source.note}" for source in found if source.note]
    notes += decoded.notes if decoded else []
    inside = [source.title for source in found if source.format not in {"folder", "list"}]
    if decoded and decode.originals == "reference" and inside:
        notes.append(
            f"{_first(inside)}: files inside of other files are referenced, but exports and feeds cannot read them "
            'again. To export original files, set originals = "keep" in [decode].'
        )
    if decoded and decode.stores_originals and _EXACT_RULES.issuperset(snapshot.metadata("clusters").units):
        notes.append(
            "only equal pictures are found so far. For resized, cropped or turned copies of photographs, add "
            '"photo:0.4" to rules in [dedup].'
        )
    groups = _uris_of_groups(found)
    converted: Counter[str] = Counter()
    for item in decoded.shards if decoded else ():
        uri = groups.get((item.dataset, item.split, item.uri), item.uri)
        converted[f"{item.dataset}/{item.split} ({uri})"] += item.converted
    for title, count in (+converted).items():
        if decode.mode == "L":
            notes.append(
                f"{title}: {plural(count, 'colour image')} converted to gray. "
                'To keep colour, set mode = "RGB" in [decode].'
            )
        else:
            notes.append(f"{title}: {plural(count, 'gray image')} stored as RGB, because decode.mode is RGB.")
    rejects = snapshot.scan("rejects")
    reasons: dict[str, int] = dict(rejects.group_by("reason").len().sort("reason").collect().rows())
    system = reasons.pop(_SYSTEM_FILE, 0)
    total, images = sum(reasons.values()), sum(item.images for item in counts)
    if total > _REPORTED_SHARE * (total + images):
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        listed += f", besides {plural(system, 'system file')}" if system else ""
        notes.append(
            f"{total:,} of {total + images:,} files ({total / (total + images):.1%}) are rejects: {listed}. To list "
            f'them: imagelake sql {snapshot.place} "from rejects"'
        )
    for key in ("mode", "size") if not decode.converts else ():
        if f"wrong_{key}" in reasons:
            advice = 'To convert them, set on_mismatch = "convert" in [decode].'
            notes.append(f"{plural(reasons[f'wrong_{key}'], 'file')} of another {key} rejected. {advice}")
    return notes + _unread_files(rejects.filter(pl.col("reason") != _SYSTEM_FILE), counts)


def _uris_of_groups(found: Sequence[Source]) -> dict[tuple[str, str, str], str]:
    """Return, by dataset, split and uri of a source, the uri in the recipe. Files of one pattern or folder share it."""
    return {(source.dataset, source.split, source.uri): source.group or source.uri for source in found}


def _unread_files(rejects: pl.LazyFrame, counts: Sequence[SourceCounts]) -> list[str]:
    """List files next to images that were not read, but may contain labels or images."""
    rows = (
        rejects.filter(pl.col("reason") == "not_an_image", pl.col("path").str.contains(_DATA_FILES))
        .select("dataset", "split", "path")
        .sort("dataset", "split", "path")
        .collect()
    )
    # If all images are of one class, it is often just the name of their folder, such as "images".
    unlabelled = {(item.dataset, item.split) for item in counts if item.unlabelled or item.classes == 1}
    datasets = {dataset for dataset, _ in unlabelled}
    is_table = pl.col("path").str.contains(_TABLE_FILES)
    tables = [
        path
        for dataset, split, path in rows.filter(is_table).rows()
        if (dataset, split) in unlabelled or (dataset in datasets and split == OTHER)
    ]
    others = rows.filter(~is_table)["path"].to_list()
    notes = []
    if tables:
        notes.append(
            f"images without labels, or all of one class, are next to {_first(tables)}, which may contain labels. To "
            "use a list of files and labels, run: imagelake build LIST.csv. The keys `images` and `labels` name its "
            "columns."
        )
    if others:
        notes.append(f"not read: {_first(others)}. To read one of these files, run: imagelake build FILE --into LAKE")
    return notes


def _normalised_labels(title: str, labels: Mapping[str, str | None]) -> str:
    phrases = [
        f"{label!r} is read as {normal!r}" if normal else f"{label!r} is read as no label"
        for label, normal in sorted(labels.items(), key=lambda item: item[0])
    ]
    return f"{title}: label {_first(phrases)} (Unicode NFC, no white space at the ends, 7.0 becomes 7)"


def _examples(rejects: pl.DataFrame) -> str:
    rows = rejects.sort("dataset", "split", "path").head(_EXAMPLES)
    if rows["detail"].n_unique() == 1:
        return f"{', '.join(rows['path'])} ({rows['detail'][0]})"
    return ", ".join(f"{path} ({detail})" for path, detail in rows.select("path", "detail").rows())


def _first(items: Sequence[str]) -> str:
    """List the first items, and the number of others."""
    more = f" and {len(items) - _EXAMPLES:,} more" if len(items) > _EXAMPLES else ""
    return f"{', '.join(items[:_EXAMPLES])}{more}"

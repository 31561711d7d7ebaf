"""What a build says about its sources: images, labels, classes, conversions and rejects, and which key changes them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.builder.commit_ingest import Decoded
from pipeline.builder.state import SHARD_KEY
from pipeline.builder.worker import Ingested
from pipeline.errors import SourceError
from pipeline.lake.snapshot import Snapshot
from pipeline.recipe import DecodePart
from pipeline.shard import Encoded
from pipeline.sources import Source
from pipeline.sources.roles import OTHER, levels_of_paths, merged_note, splits_of

# Examples that a message lists.
_EXAMPLES = 5
# More rejects than this share of the files are reported.
_MANY = 0.01
# Files that operating systems leave behind are no data.
_NO_DATA = "system_file"
_TABLE_ENDINGS = r"(?i)\.(csv|tsv|json|jsonl|txt|xml|mat|xlsx?)$"
_FILE_ENDINGS = r"(?i)\.(csv|tsv|json|jsonl|txt|xml|mat|xlsx?|parquet|npy|npz|zip|tar|tgz|tar\.(gz|bz2|xz))$"
_ARCHIVES = ("tar", "zip")


class SourceCounts(NamedTuple):
    """What the lake holds of one source.

    Attributes:
        dataset: dataset name.
        split: split name.
        uri: the source as the recipe spells it; files of one pattern or folder count together.
        images: images.
        labelled: images with a label.
        unlabelled: images without one.
        classes: different labels.
        rejects: files that became no image.
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
        """Say it in one line."""
        rejects = f", {_count(self.rejects, 'reject')}" if self.rejects else ""
        return (
            f"{self.dataset}/{self.split} ({self.uri}): {_count(self.images, 'image')}, {self.labelled:,} labelled, "
            f"{self.unlabelled:,} unlabelled, {_count(self.classes, 'class', 'classes')}{rejects}"
        )


class ReadingNotes:
    """What there is to say about labels and folders while sources are read."""

    def __init__(self) -> None:
        self._respelled: dict[str, dict[str, str | None]] = {}
        self._folders: dict[str, tuple[Source, set[str]]] = {}

    def add(self, source: Source, shard: Encoded) -> None:
        """Look at a shard as its source hands it out."""
        if shard.respelled:
            self._respelled.setdefault(source.title, {}).update(shard.respelled)
        if source.format in _ARCHIVES and source.part.split is not None:
            self._folders.setdefault(source.title, (source, set()))[1].update(
                path.rpartition("/")[0] for path in shard.paths
            )

    def lines(self) -> list[str]:
        """List the notes, one line each."""
        merged = (
            (source.title, merged_note(splits_of(levels_of_paths(folders)), source.split))
            for source, folders in self._folders.values()
        )
        return [
            *(_respelled(title, labels) for title, labels in self._respelled.items()),
            *(f"{title}: {note}" for title, note in merged if note),
        ]


def count_sources(snapshot: Snapshot, found: Sequence[Source]) -> list[SourceCounts]:
    """Count what the lake holds of every source, by scanning the labels of its images.

    Args:
        snapshot: of the lake.
        found: the sources of the recipe. Files that one pattern or folder names are one source.

    Returns:
        One entry a source: those of the recipe in its order, then others by dataset, split and uri.
    """
    groups = {(s.dataset, s.split, s.uri): s.group or s.uri for s in found}
    shards = snapshot.scan("shards").select(*SHARD_KEY, "uri", "rejects").collect()
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
    order = {
        key: position
        for position, key in enumerate(dict.fromkeys((s.dataset, s.split, s.group or s.uri) for s in found))
    }
    counts = [SourceCounts(**row) for row in rows.select(SourceCounts._fields).rows(named=True)]
    return sorted(counts, key=lambda item: order.get((item.dataset, item.split, item.uri), len(order)))


def stored_counts(snapshot: Snapshot) -> list[SourceCounts] | None:
    """Read the counts that the newest release keeps; None where it was built by version 0.5 or earlier."""
    kept = snapshot.metadata("releases").units.get("sources")
    return None if kept is None else [SourceCounts(**row) for row in kept["counts"]]


def check_any_image(snapshot: Snapshot, made: Sequence[Ingested], retained: pl.DataFrame) -> None:
    """Refuse a build that would leave the lake without any image.

    Args:
        snapshot: of the lake.
        made: shards that are about to be committed.
        retained: rows of the shards table that stay.

    Raises:
        SourceError: with the number of files and up to five examples by reason.
    """
    if retained["rows"].sum() or any(len(item.image_ids) for item in made):
        return
    stay = retained.select(SHARD_KEY).lazy()
    old = snapshot.scan("rejects").join(stay, on=SHARD_KEY, how="semi").collect()
    new = [pl.DataFrame(item.rejects).select(old.columns) for item in made]
    rejects = pl.concat([old, *new]).filter(pl.col("reason") != _NO_DATA)
    if rejects.is_empty():
        raise SourceError(
            "no image could be read: the sources hold no files. Check their paths. Nothing was committed."
        )
    reasons = rejects.group_by("reason").len().sort(pl.col("len"), "reason", descending=[True, False])
    parts = [f"{count:,} {reason}: {_examples(rejects.filter(reason=reason))}" for reason, count in reasons.rows()]
    raise SourceError(
        f"no image could be read. {_count(len(rejects), 'file')} became rejects. {'; '.join(parts)}. "
        "Nothing was committed."
    )


def notes_of_build(
    snapshot: Snapshot,
    found: Sequence[Source],
    counts: Sequence[SourceCounts],
    decode: DecodePart,
    decoded: Decoded | None,
) -> list[str]:
    """List what to know about the sources of a build, one line each, with the key that changes it.

    Args:
        snapshot: of the lake.
        found: the sources of the recipe.
        counts: made by `count_sources`.
        decode: the recipe's `[decode]`, its mode decided.
        decoded: what was decoded; None for nothing.
    """
    notes = [f"{source.title}: {source.note}" for source in found if source.note]
    notes += decoded.notes if decoded else []
    groups = {(s.dataset, s.split, s.uri): s.group or s.uri for s in found}
    converted: Counter[str] = Counter()
    for item in decoded.shards if decoded else ():
        uri = groups.get((item.dataset, item.split, item.uri), item.uri)
        converted[f"{item.dataset}/{item.split} ({uri})"] += item.converted
    for title, count in (+converted).items():
        if decode.mode == "L":
            notes.append(
                f'{title}: {_count(count, "colour image")} converted to gray. mode = "RGB" in [decode] keeps colour.'
            )
        else:
            notes.append(f'{title}: {_count(count, "gray image")} stored as RGB, as mode = "RGB" in [decode].')
    rejects = snapshot.scan("rejects").filter(pl.col("reason") != _NO_DATA)
    reasons: dict[str, int] = dict(rejects.group_by("reason").len().sort("reason").collect().rows())
    total, images = sum(reasons.values()), sum(item.images for item in counts)
    if total > _MANY * (total + images):
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        notes.append(
            f"{total:,} of {total + images:,} files ({total / (total + images):.1%}) are rejects: {listed}. List them: "
            f'imagelake sql {snapshot.place} "from rejects"'
        )
    if "wrong_mode" in reasons and not decode.converts:
        notes.append(
            f'{_count(reasons["wrong_mode"], "file")} of another mode: on_mismatch = "convert" in [decode] takes them.'
        )
    if "wrong_size" in reasons:
        notes.append(
            f'{_count(reasons["wrong_size"], "file")} of another size: on_mismatch = "convert" in [decode] takes them.'
        )
    return notes + _files_beside(rejects, counts)


def _files_beside(rejects: pl.LazyFrame, counts: Sequence[SourceCounts]) -> list[str]:
    """Name files beside images that may hold their labels, or images."""
    rows = (
        rejects.filter(pl.col("reason") == "not_an_image", pl.col("path").str.contains(_FILE_ENDINGS))
        .select("dataset", "split", "path")
        .sort("dataset", "split", "path")
        .collect()
    )
    # Images in one class may well have no other class than the folder "images".
    bare = {(item.dataset, item.split) for item in counts if item.unlabelled or item.classes == 1}
    datasets = {dataset for dataset, _ in bare}
    tables = rows.filter(pl.col("path").str.contains(_TABLE_ENDINGS))
    named = [
        path
        for dataset, split, path in tables.rows()
        if (dataset, split) in bare or (dataset in datasets and split == OTHER)
    ]
    packed = rows.filter(~pl.col("path").str.contains(_TABLE_ENDINGS))["path"].to_list()
    notes = []
    if named:
        advice = "imagelake build LIST.csv reads a list of files and labels; `images` and `labels` name its columns."
        notes.append(
            f"images without labels, or of one class, lie beside {_some(named)}, which may hold labels. {advice}"
        )
    if packed:
        notes.append(f"not read among other files: {_some(packed)}. imagelake build FILE --into LAKE reads one.")
    return notes


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return f"{', '.join(names[:_EXAMPLES])}{more}"


def _respelled(title: str, labels: Mapping[str, str | None]) -> str:
    shown = sorted(labels.items(), key=lambda item: item[0])
    listed = ", ".join(
        f"{old!r} is read as {new!r}" if new else f"{old!r} is no label" for old, new in shown[:_EXAMPLES]
    )
    more = f" and {len(shown) - _EXAMPLES:,} more" if len(shown) > _EXAMPLES else ""
    return f"{title}: label {listed}{more} (Unicode form C, no white space at the ends, 7.0 is 7)"


def _examples(rejects: pl.DataFrame) -> str:
    rows = rejects.sort("dataset", "split", "path").head(_EXAMPLES)
    details: Counter[str] = Counter(rows["detail"].to_list())
    if len(details) == 1:
        return f"{', '.join(rows['path'])} ({rows['detail'][0]})"
    return ", ".join(f"{path} ({detail})" for path, detail in rows.select("path", "detail").rows())


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def as_values(counts: Iterable[SourceCounts]) -> list[dict[str, Any]]:
    """Spell counts as JSON has them."""
    return [item._asdict() for item in counts]

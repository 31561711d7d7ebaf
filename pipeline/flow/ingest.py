"""sources -> images, rejects, index, shards: decode what is new or changed, check it, commit it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

import schemas
from pipeline import sources
from pipeline.decode import decoder_name
from pipeline.encoded import Survey
from pipeline.engines import Engine
from pipeline.errors import ImagelakeError, SourceError
from pipeline.flow.state import SHARD_KEY, Todo, key_frame, shards_digest
from pipeline.flow.work import Ingested, Job, Load, ingest_shard
from pipeline.lake.commits import Meta, commit
from pipeline.lake.parts import Part, delete_parts, write_part
from pipeline.lake.reading import polars_schema, scan_table
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.rows import to_binary
from pipeline.sources import Source


class SourcePlan(NamedTuple):
    """What a build would do with one source.

    Attributes:
        source: the source.
        reason: why it is read; empty where it is up to date.
        wanted: keys of the shards to read; None for all.
        gone: shards in the lake that the source no longer has.
    """

    source: Source
    reason: str
    wanted: frozenset[str] | None
    gone: frozenset[str]


class IngestPlan(NamedTuple):
    """What a build would do with all sources.

    Attributes:
        sources: one plan a source.
        shards: rows of the shards table.
        dropped: rows of the shards table whose source is pruned.
    """

    sources: Sequence[SourcePlan]
    shards: pl.DataFrame
    dropped: pl.DataFrame

    @property
    def todo(self) -> list[Todo]:
        """What the next build would read or drop, and why."""
        read = [Todo("ingest", plan.source.title, plan.reason) for plan in self.sources if plan.reason]
        titles = self.dropped.select(pl.format("{}/{} ({})", "dataset", "split", "uri")).unique().to_series().sort()
        return read + [Todo("ingest", title, "no longer in the recipe") for title in titles]


def plan_ingest(root: str, recipe: Recipe, found: Sequence[Source], *, prune: bool) -> IngestPlan:
    """Compare the sources with what the lake was made from; opens no image and commits nothing."""
    shards = scan_table(root, "shards", None).collect()
    decoder = decoder_name(recipe.decode)
    plans = [_plan_source(source, _of(shards, source), decoder) for source in found]
    known = pl.DataFrame(
        [(s.dataset, s.split, s.uri) for s in found],
        schema=dict.fromkeys(("dataset", "split", "uri"), pl.String),
        orient="row",
    )
    others = shards.join(known, on=["dataset", "split", "uri"], how="anti")
    return IngestPlan(plans, shards, others if prune else others.clear())


def run_ingest(root: str, job: Job, plan: IngestPlan, engine: Engine, progress: Progress) -> None:
    """Decode what the plan names and commit images, index, rejects and shards, in this order.

    Raises:
        CheckError: a source fails a check of the recipe; nothing was committed.
        SourceError: a source is damaged, or two of its images have one path; nothing was committed.
    """
    for item in plan.sources:
        if item.reason:
            sources.check_file(item.source)
    made: list[Ingested] = []
    try:
        for ingested in engine.map(partial(ingest_shard, job), _loads(plan)):
            made.append(ingested)
            progress.advance(len(ingested.image_ids), len(ingested.rejects))
        replaced = _replaced(plan, made)
        retained = plan.shards.join(replaced, on=SHARD_KEY, how="anti")
        check_sources(root, plan, made, retained)
        _check_unique(root, made, retained)
    except ImagelakeError:
        # Nobody will commit these files.
        delete_parts(root, [("images", item.images) for item in made])
        delete_parts(root, [("index", part) for item in made for part in item.index])
        raise
    _commit(root, decoder_name(job.decode), made, replaced, retained)


def check_sources(root: str, plan: IngestPlan, made: Sequence[Ingested], retained: pl.DataFrame) -> None:
    """Check the classes that the recipe asks of every source, over new and retained shards alike.

    Raises:
        CheckError: naming the source and the classes that fall short.
    """
    for source in (item.source for item in plan.sources):
        if source.part.classes is None and source.part.min_per_class is None:
            continue
        counts: Counter[str | None] = Counter()
        for ingested in made:
            if (ingested.dataset, ingested.split, ingested.uri) == (source.dataset, source.split, source.uri):
                counts.update(ingested.labels)
                # A class whose every file is a reject has no image, and falls short like any other.
                counts.update(dict.fromkeys(ingested.rejects["label"].to_pylist(), 0))
        rows = (
            scan_table(root, "images", None)
            .select(*SHARD_KEY, "label")
            .join(_of(retained, source).lazy(), on=SHARD_KEY, how="semi")
        )
        counts.update(dict(rows.group_by("label").len().collect().rows()))
        sources.check_classes(source, counts)


def _plan_source(source: Source, recorded: pl.DataFrame, decoder: str) -> SourcePlan:
    survey = sources.survey(source)
    keys = frozenset(recorded["shard"])
    if recorded.is_empty():
        return SourcePlan(source, "new", None, keys)
    if (recorded["decoder"] != decoder).any():
        return SourcePlan(source, "the decode settings changed", None, keys)
    return _compare(source, survey, dict(recorded.select("shard", "fingerprint").rows()))


def _compare(source: Source, survey: Survey, held: Mapping[str, str]) -> SourcePlan:
    if survey.shards is None:
        same = set(held.values()) == {survey.fingerprint}
        return SourcePlan(source, "" if same else "its file changed", None, frozenset() if same else frozenset(held))
    wanted = frozenset(key for key, digest in survey.shards.items() if held.get(key) != digest)
    gone = frozenset(held) - frozenset(survey.shards)
    reason = f"{len(wanted)} of {len(survey.shards)} shards changed, {len(gone)} gone" if wanted or gone else ""
    return SourcePlan(source, reason, wanted, gone)


def _of(shards: pl.DataFrame, source: Source) -> pl.DataFrame:
    return shards.filter(dataset=source.dataset, split=source.split, uri=source.uri)


def _loads(plan: IngestPlan) -> Iterator[Load]:
    for item in plan.sources:
        if item.reason:
            for shard in sources.read(item.source, item.wanted):
                yield Load(item.source.dataset, item.source.split, item.source.uri, shard)


def _replaced(plan: IngestPlan, made: Sequence[Ingested]) -> pl.DataFrame:
    """List the shards whose files go: made anew, gone from their source, or of a pruned source."""
    keys = [(item.dataset, item.split, item.shard) for item in made]
    keys += [(item.source.dataset, item.source.split, shard) for item in plan.sources for shard in item.gone]
    return key_frame([*keys, *plan.dropped.select(SHARD_KEY).rows()])


def _check_unique(root: str, made: Sequence[Ingested], retained: pl.DataFrame) -> None:
    """Hold law 1: no two files of one dataset and split have one path, which would be one image_id."""
    ids = pl.concat([pl.Series(dtype=pl.Binary), *(pl.Series(to_binary(item.image_ids)) for item in made)])
    touched = retained.filter(
        pl.struct("dataset", "split").is_in([{"dataset": i.dataset, "split": i.split} for i in made])
    )
    old = scan_table(root, "images", None).join(touched.lazy(), on=SHARD_KEY, how="semi").select("image_id").collect()
    every = pl.concat([ids, old.to_series()])
    twice = every.filter(every.is_duplicated()).unique()
    if len(twice):
        files = [f"{root}/images/{item.images.path}" for item in made if item.images]
        rows = pl.scan_parquet(files, hive_partitioning=True, glob=False).filter(
            pl.col("image_id").is_in(twice.implode())
        )
        dataset, split, path = rows.select("dataset", "split", "path").sort(pl.all()).first().collect().row(0)
        raise SourceError(
            f"{dataset}/{split}: {len(twice)} paths occur more than once, first '{path}'. A path names one image: "
            "take out the copies, give the second source another split, or, where a source was renamed, build with "
            "--prune to drop it under its old name. Nothing was committed."
        )


def _commit(root: str, decoder: str, made: Sequence[Ingested], replaced: pl.DataFrame, retained: pl.DataFrame) -> None:
    shards = pl.concat([retained, _shard_rows(made, decoder)]).sort(SHARD_KEY)
    keys = set(replaced.rows())
    meta = Meta("ingest", {"shards": {"fingerprint": shards_digest(shards)}})

    def gone(partition: Mapping[str, str]) -> bool:
        return (partition["dataset"], partition["split"], partition["shard"]) in keys

    commit(root, "images", [item.images for item in made if item.images], gone, meta)
    commit(root, "index", list(chain.from_iterable(item.index for item in made)), gone, meta)
    _commit_rejects(root, made, replaced, meta)
    part = write_part(root, "shards", {}, shards.to_arrow().cast(schemas.TABLES["shards"].schema))
    commit(root, "shards", _present(part), lambda _: True, meta)


def _commit_rejects(root: str, made: Sequence[Ingested], replaced: pl.DataFrame, meta: Meta) -> None:
    """Write every dataset and split that changed anew, from the shards that stay and the new ones: rejects are few."""
    old = scan_table(root, "rejects", None).join(replaced.lazy(), on=SHARD_KEY, how="anti").collect()
    schema = schemas.TABLES["rejects"].schema
    rows = pa.concat_tables([old.to_arrow().cast(schema), *(item.rejects for item in made)])
    touched = set(replaced.select("dataset", "split").rows())
    parts: list[Part] = []
    for dataset, split in sorted(touched):
        mask = pc.and_(pc.equal(rows["dataset"], dataset), pc.equal(rows["split"], split))
        ordered = rows.filter(mask).sort_by([("shard", "ascending"), ("path", "ascending")])
        parts += _present(write_part(root, "rejects", {"dataset": dataset, "split": split}, ordered))
    commit(root, "rejects", parts, lambda p: (p["dataset"], p["split"]) in touched, meta)


def _shard_rows(made: Sequence[Ingested], decoder: str) -> pl.DataFrame:
    rows = [
        {
            **item.partition,
            "uri": item.uri,
            "fingerprint": item.fingerprint,
            "rows": len(item.image_ids),
            "rejects": len(item.rejects),
            "decoder": decoder,
        }
        for item in made
    ]
    return pl.DataFrame(rows, schema=polars_schema(schemas.TABLES["shards"].schema))


def _present(part: Part | None) -> list[Part]:
    return [] if part is None else [part]

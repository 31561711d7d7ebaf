"""The work of a worker process: decode a shard, index it, write its Parquet files, return what the driver commits."""

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage
from pipeline.arrow_columns import from_binary
from pipeline.builder.stored_images import STATES_KEY, StoredImages, StoredShard, states_of
from pipeline.decode import Originals, decode_shard, rejects_table
from pipeline.dedup.rules import index_images, parse_rule, sort_index
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.pixels import runs_of_one_shape
from pipeline.recipe import DecodePart
from pipeline.shard import Encoded, Reject

# Columns of images that the index is made of.
_INDEXED = ("image_id", "label", "height", "width", "channels", "pixels", "file_digest")


@dataclass(frozen=True)
class Job:
    """The settings that all shards of a build share.

    Attributes:
        writer: writes the files of the tables.
        decode: the recipe's `[decode]`.
        rules: rules to index by that read pixels.
    """

    writer: Writer
    decode: DecodePart
    rules: tuple[str, ...]


class ShardInput(NamedTuple):
    """A shard to ingest.

    Attributes:
        dataset: dataset name.
        split: split name.
        uri: the source, as written in the recipe.
        shard: the shard, not decoded.
        place: where the source is, for the locations of originals; see `decode_shard`.
        stored: shards of the lake, made with the same settings, that may have images of it.
    """

    dataset: str
    split: str
    uri: str
    shard: Encoded
    place: str = ""
    stored: tuple[StoredShard, ...] = ()


@dataclass(frozen=True)
class Ingested:
    """A shard whose files are written but not committed.

    Attributes:
        dataset: dataset name.
        split: split name.
        uri: the source, as written in the recipe.
        shard: key of the shard.
        fingerprint: fingerprint of the shard.
        images: file of the images table; None if every file was rejected.
        index: files of the index table, one for each rule.
        rejects: rows of the rejects table.
        labels: number of images by label.
        image_ids: (n, 16) uint8.
        converted: number of images converted to the lake's mode: colour images if it is L, gray images if it is RGB.
        originals: file of the originals table; None if it has no rows of the shard.
        copied: number of images that were not decoded, because the lake has them.
    """

    dataset: str
    split: str
    uri: str
    shard: str
    fingerprint: str
    images: Part | None
    index: tuple[Part, ...]
    rejects: pa.Table
    labels: Mapping[str | None, int]
    image_ids: NDArray[np.uint8]
    converted: int = 0
    originals: Part | None = None
    copied: int = 0

    @property
    def files(self) -> list[str]:
        """Paths of the shard's files, relative to the lake's place."""
        images = [f"images/{self.images.path}"] if self.images else []
        originals = [f"originals/{self.originals.path}"] if self.originals else []
        return [*images, *originals, *(f"index/{part.path}" for part in self.index)]

    @property
    def partition(self) -> dict[str, str]:
        """Partition values of the shard's files."""
        return {"dataset": self.dataset, "split": self.split, "shard": self.shard}


class ImagesFile(NamedTuple):
    """A file of the images table to index.

    Attributes:
        file: place of the file.
        partition: its partition values.
        rules: rules under which the index lacks the file.
    """

    file: str
    partition: Mapping[str, str]
    rules: tuple[str, ...]


def ingest_shard(job: Job, source: ShardInput) -> Ingested:
    """Decode a shard, write its images and originals, and index the images while their pixels are in memory.

    Raises:
        DiskFullError: no space is left.
    """
    shard = source.shard
    partition = {"dataset": source.dataset, "split": source.split, "shard": shard.shard}
    rejected: list[Reject] = []
    keys: dict[str, list[pa.Table]] = {rule: [] for rule in job.rules}
    ids: list[NDArray[np.uint8]] = [np.empty((0, 16), np.uint8)]
    labels: Counter[str | None] = Counter()
    converted = 0
    group: list[pa.Table] = []
    states: list[bytes] = []
    stored = StoredImages(
        shard, source.dataset, source.split, source.stored, with_originals=job.decode.stores_originals
    )
    with job.writer.open("images", partition) as file, job.writer.open("originals", partition) as encoded:
        for item in decode_shard(shard, source.dataset, source.split, job.decode, source.place, stored):
            if isinstance(item, Reject):
                rejected.append(item)
                continue
            if isinstance(item, Originals):
                encoded.write(item.rows)
                continue
            group.append(item.images)
            if item.ends_group:
                file.write(pa.concat_tables(group))
                group.clear()
            states.append(states_of(shard, item.positions))
            _add_index_rows(keys, item.images, item.pixels)
            ids.append(from_binary(item.images["image_id"].chunk(0), 16))
            labels.update(item.images["label"].to_pylist())
            converted += item.converted
        known = b"".join(states)
        images = file.close({STATES_KEY: base64.b64encode(known)} if known else {})
        originals = encoded.close()
    rows = (images.rows if images else 0) + len(rejected)
    if rows != len(shard):
        raise AssertionError(f"shard {partition}: {len(shard)} files became {rows} rows")
    return Ingested(
        **partition,
        uri=source.uri,
        fingerprint=shard.fingerprint,
        images=images,
        index=_write_index(job.writer, keys, partition),
        rejects=rejects_table(rejected, shard.shard, source.dataset, source.split),
        labels=labels,
        image_ids=np.concatenate(ids),
        converted=converted,
        originals=originals,
        copied=stored.taken,
    )


def index_shard(writer: Writer, images: ImagesFile) -> tuple[Part, ...]:
    """Index the images of a file that is already in the lake, one row group at a time.

    Args:
        writer: writes the files of the index.
        images: the file, and the rules to index by.

    Returns:
        Files of the index table, one for each rule.

    Raises:
        DamagedLakeError: the file is missing or damaged.
    """
    keys: dict[str, list[pa.Table]] = {rule: [] for rule in images.rules}
    storage.check_files([images.file])
    with storage.damage_errors(images.file), storage.open_parquet(images.file) as file:
        for group in range(file.num_row_groups):
            # Files of imagelake 0.5 have no digests.
            columns = [name for name in _INDEXED if name in file.schema_arrow.names]
            rows = file.read_row_group(group, columns=columns)
            for run, pixels in runs_of_one_shape(rows.combine_chunks()):
                _add_index_rows(keys, run, pixels)
    return _write_index(writer, keys, images.partition)


def _add_index_rows(keys: dict[str, list[pa.Table]], images: pa.Table, pixels: NDArray[np.uint8]) -> None:
    for rule, tables in keys.items():
        tables.append(index_images(parse_rule(rule), images, pixels))


def _write_index(writer: Writer, keys: dict[str, list[pa.Table]], partition: Mapping[str, str]) -> tuple[Part, ...]:
    return tuple(
        part
        for rule, tables in keys.items()
        if tables
        for part in writer.write("index", sort_index(tables), {"rule": rule, **partition})
    )

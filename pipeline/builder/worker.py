"""The work of a worker process: decode a shard, write its Parquet files, and return what the driver commits."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage
from pipeline.arrow_binary import from_binary
from pipeline.decode import decode_shard, rejects_table
from pipeline.dedup.index import index_table, sort_index
from pipeline.dedup.rules import parse_rule
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.recipe import DecodePart
from pipeline.shard import Encoded, Refused


@dataclass(frozen=True)
class Job:
    """The settings that all shards of a build share.

    Attributes:
        writer: writes the files of the shard.
        decode: the recipe's `[decode]`.
        rules: rules to index by.
    """

    writer: Writer
    decode: DecodePart
    rules: tuple[str, ...]


class Load(NamedTuple):
    """A shard to ingest, and where it belongs."""

    dataset: str
    split: str
    uri: str
    shard: Encoded


@dataclass(frozen=True)
class Ingested:
    """A shard that is on disk, not committed yet.

    Attributes:
        dataset: dataset name.
        split: split name.
        uri: the source, as the recipe spells it.
        shard: key of the shard.
        fingerprint: its fingerprint.
        images: file of the images table; None where every file was rejected.
        index: files of the index table, one a rule.
        rejects: rows of the rejects table.
        labels: images by label.
        image_ids: (n, 16) uint8.
        converted: images of the other kind: colour where the lake's mode is L, gray where it is RGB.
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

    @property
    def files(self) -> list[str]:
        """Its files, relative to the lake's place."""
        images = [f"images/{self.images.path}"] if self.images else []
        return [*images, *(f"index/{part.path}" for part in self.index)]

    @property
    def partition(self) -> dict[str, str]:
        """Partition values of the shard's files."""
        return {"dataset": self.dataset, "split": self.split, "shard": self.shard}


class ShardFile(NamedTuple):
    """An images file whose keys are to be computed, for rules that the index does not have yet."""

    file: str
    partition: Mapping[str, str]
    rules: tuple[str, ...]


def ingest_shard(job: Job, load: Load) -> Ingested:
    """Decode a shard, write its images, and index them while their pixels are at hand.

    Raises:
        DiskFullError: no space is left.
    """
    shard = load.shard
    partition = {"dataset": load.dataset, "split": load.split, "shard": shard.shard}
    refused: list[Refused] = []
    keys: dict[str, list[pa.Table]] = {rule: [] for rule in job.rules}
    ids: list[NDArray[np.uint8]] = [np.empty((0, 16), np.uint8)]
    labels: Counter[str | None] = Counter()
    converted = 0
    with job.writer.open("images", partition) as file:
        for item in decode_shard(shard, load.dataset, load.split, job.decode):
            if isinstance(item, Refused):
                refused.append(item)
                continue
            file.write(item.images)
            _index(keys, item.images, item.pixels)
            ids.append(from_binary(item.images["image_id"].chunk(0), 16))
            labels.update(item.images["label"].to_pylist())
            converted += item.converted
        images = file.close()
    made = (images.rows if images else 0) + len(refused)
    if made != len(shard):
        raise AssertionError(f"shard {partition}: {len(shard)} files became {made} rows")
    return Ingested(
        **{**partition, "shard": shard.shard},
        uri=load.uri,
        fingerprint=shard.fingerprint,
        images=images,
        index=_write_index(job.writer, keys, partition),
        rejects=rejects_table(refused, shard.shard, load.dataset, load.split),
        labels=labels,
        image_ids=np.concatenate(ids),
        converted=converted,
    )


def index_shard(writer: Writer, item: ShardFile) -> tuple[Part, ...]:
    """Index the images of a file that is already in the lake, one row group at a time."""
    keys: dict[str, list[pa.Table]] = {rule: [] for rule in item.rules}
    with storage.open_parquet(item.file) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["image_id", "label", "height", "width", "channels", "pixels"])
            shape = tuple(rows[name][0].as_py() for name in ("height", "width", "channels"))
            pixels = from_binary(rows["pixels"].chunk(0), prod(shape))
            _index(keys, rows, pixels.reshape(len(rows), *shape))
    return _write_index(writer, keys, item.partition)


def _index(keys: dict[str, list[pa.Table]], images: pa.Table, pixels: NDArray[np.uint8]) -> None:
    ids, labels = images["image_id"].chunk(0), images["label"].chunk(0)
    for rule, tables in keys.items():
        tables.append(index_table(parse_rule(rule), ids, labels, pixels))


def _write_index(writer: Writer, keys: dict[str, list[pa.Table]], partition: Mapping[str, str]) -> tuple[Part, ...]:
    return tuple(
        part
        for rule, tables in keys.items()
        if tables
        for part in writer.write("index", sort_index(tables), {"rule": rule, **partition})
    )

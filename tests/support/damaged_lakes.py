"""A small lake with rows in every table, and functions that damage its files."""

import io
import json
import random
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from lakes import files
from making import as_folder, as_tar, files_of, recipe
from PIL import Image

import schemas
from pipeline.builder.build import Built, build
from pipeline.engines.local import LocalEngine
from pipeline.export import export
from pipeline.hashing import content_hashes
from pipeline.lake.delta_log import (
    DIGEST_KEY,
    FILES_KEY,
    METADATA_KEY,
    PREVIOUS_KEY,
    DeltaLog,
    commit_digest,
    digest_of_file,
    files_digest,
)
from pipeline.lake.releases import LOGS
from pipeline.lake.snapshot import entry_and_part
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe
from pipeline.repair import repair
from pipeline.storage.digests import file_digest
from pipeline.verdicts.journal import Picture, Verdict, record, withdraw
from pipeline.verify import Fault, verify

PARTS: dict[str, Any] = {
    "decode": {"size": [28, 28], "originals": "keep"},
    "attributes": [{"patterns": {"number": "(\\d+)"}}, {"uri": "facts.csv", "split": "train"}],
    "dedup": {"rules": ["exact", "sign", "cosine:0.95", "photo:0.9"]},
    "issues": {"blurry": 0.01, "odd_size": False, "label": 0.3, "outlier": 0.001},
    "split": [
        {"name": "main", "seed": 3, "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}},
        {
            "name": "grouped",
            "groups": ["exact"],
            "train": {"from": "train", "share": 0.7},
            "test": {"from": "train", "share": 0.3},
        },
    ],
    "baseline": [{"model": "logistic", "split": "main", "train_sizes": [20], "max_iter": 20, "predict": ["main"]}],
}
# Columns that differ between equal builds: times, durations, memory and releases.
_VOLATILE = {
    "scores": ["seconds", "memory", "release"],
    "misses": ["release"],
    "models": ["release"],
    "predictions": ["release"],
    "exports": ["created_at"],
}


class Case(NamedTuple):
    """A lake with its sources, for one test, and its tables before any damage."""

    base: Path
    fresh: dict[str, pl.DataFrame]

    @property
    def recipe(self) -> Recipe:
        return recipe(self.base, *SOURCES, **PARTS)

    @property
    def root(self) -> str:
        return self.recipe.root

    def file(self, table: str, *words: str) -> Path:
        """Return the first file of a table whose name has all the words."""
        found = [part.path for part in files(self.root, table) if all(word in part.path for word in words)]
        return Path(self.root, table, found[0])

    def faults(self) -> list[Fault]:
        """Return the faults that verify finds, without checks that the damage makes impossible."""
        return [fault for check in verify(self.root) for fault in check.faults if fault.kind != "unchecked"]

    def build(self) -> Built:
        return build(self.recipe, engine=LocalEngine(1))

    def repair(self) -> Built:
        return repair(self.recipe, engine=LocalEngine(1))

    def differing(self) -> list[str]:
        """Return the names of the tables that differ from before the damage."""
        now = tables_of(self.root)
        return [name for name, rows in self.fresh.items() if not rows.equals(now[name])]


SOURCES = ({"uri": "train.tar.gz"}, {"uri": "test", "split": "test"}, {"uri": "more", "split": "test"})


def make_lake(base: Path) -> Case:
    """Build a lake of three sources that has rows in every table and rejects in every source."""
    base.mkdir()
    train = files_of(40)
    copies = {f"A/copy{i}.png": train[f"A/{2 * i:05d}.png"] for i in range(6)}
    as_tar(base / "train.tar.gz", {**train, "B/empty.png": b"", "A/note.txt": b"no image"})
    as_folder(base / "test", {**files_of(14, seed=1), **copies, "B/bad.png": b"no image"})
    as_folder(base / "more", {f"more/{name}": data for name, data in files_of(6, seed=2).items()} | {"B/cut.png": b"?"})
    facts = [f"{name},{'ab'[number % 2]},2026-01-{number % 28 + 1:02d}" for number, name in enumerate(sorted(train))]
    (base / "facts.csv").write_text("\n".join(["path,camera,taken", *facts]))
    made = recipe(base, *SOURCES, **PARTS)
    _decide(made.root, train)
    build(made, engine=LocalEngine(1))
    export(made.root, "main", base / "exported", "npz")
    return Case(base, tables_of(made.root))


def _decide(root: str, train: Mapping[str, bytes]) -> None:
    """Record a verdict of every kind before the first build, one of them taken back."""
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in train.values()])[..., None]
    pictures = [
        Picture(content.tobytes(), sha256(data).digest())
        for content, data in zip(content_hashes(pixels), train.values(), strict=True)
    ]
    pairs = [Verdict("different", pictures[0], pictures[1], note="planted"), Verdict("same", pictures[1], pictures[3])]
    singles = [Verdict(name, pictures[number]) for number, name in enumerate(("keep", "drop", "wrong_label"), 20)]
    record(root, [*pairs, *singles, Verdict("label", pictures[31], label="A")], "ann")
    withdraw(root, record(root, [Verdict("drop", pictures[33])]))


def copy_of(case: Case, base: Path) -> Case:
    """Copy a lake and its sources, with their modification times."""
    shutil.copytree(case.base, base)
    return Case(base, case.fresh)


def tables_of(root: str) -> dict[str, pl.DataFrame]:
    lake = Lake(root)
    return {
        name: lake.scan(name).drop(_VOLATILE.get(name, [])).collect() for name in schemas.TABLES if name != "releases"
    }


def cut(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])


def flip(file: Path, at: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def renamed(file: Path) -> Path:
    """Give a changed file the name of its new digest, also in the log of its table, as if it had been written so."""
    new = file.with_name(f"{file.stem[:32]}{file_digest(str(file))}.parquet")
    file.rename(new)
    (table,) = (folder for folder in file.parents if (folder / "_delta_log").exists())
    for log in sorted((table / "_delta_log").glob("*.json")):
        log.write_text(log.read_text().replace(file.stem, new.stem))
        sign(log)
    _record_in_release(table)
    return new


def _record_in_release(table: Path) -> None:
    """Let the newest release name the digest of a table's newest commit, if it names one."""
    newest = max((table.parent / "releases" / "_delta_log").glob("*.json"))
    first, *others = newest.read_text().splitlines()
    info = json.loads(first)["commitInfo"]
    metadata = json.loads(info[METADATA_KEY])
    if table.name in metadata["units"].get(LOGS, {}):
        log = DeltaLog(str(table.parent), table.name)
        metadata["units"][LOGS][table.name] = digest_of_file(log.file(metadata["inputs"][table.name]))
        info[METADATA_KEY] = json.dumps(metadata, sort_keys=True)
        newest.write_text("\n".join([json.dumps({"commitInfo": info}), *others]))
        sign(newest)


def sign(file: Path) -> None:
    """Give a changed commit the digests that it would have if it had been written so."""
    version, log = int(file.stem), DeltaLog(str(file.parents[2]), file.parents[1].name)
    first, *others = file.read_text().splitlines()
    info = json.loads(first)["commitInfo"]
    if METADATA_KEY not in info:
        return
    held = DeltaTable(file.parents[1], version=version)
    rows = pa.table(held.get_add_actions(flatten=True)).to_pylist()
    entries = [entry_and_part(row, schemas.TABLES[log.table].partition_by)[0] for row in rows]
    info[FILES_KEY] = files_digest(entries)
    info[PREVIOUS_KEY] = digest_of_file(log.file(version - 1))
    info[DIGEST_KEY] = commit_digest(info)
    file.write_text("\n".join([json.dumps({"commitInfo": info}, separators=(",", ":")), *others]))


def end_of(file: Path, column: str) -> int:
    """Find the last byte of the values of a column in the first row group."""
    group = pq.ParquetFile(file).metadata.row_group(0)
    chunks = map(group.column, range(group.num_columns))
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema == column)
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    return int(start + chunk.total_compressed_size - 1)


def values_of(file: Path) -> pa.Table | None:
    """Read a file without checksums; None if that fails."""
    try:
        with pq.ParquetFile(file) as opened:
            rows = opened.read()
            rows.validate(full=True)
            return rows
    except (OSError, ValueError, pa.ArrowException, MemoryError, RuntimeError):
        return None


def _missing(_: random.Random, file: Path) -> None:
    file.unlink()


def _cut_somewhere(chance: random.Random, file: Path) -> None:
    cut(file, chance.randrange(file.stat().st_size))


def _flip_somewhere(chance: random.Random, file: Path) -> None:
    flip(file, chance.randrange(file.stat().st_size), chance.randrange(8))


DAMAGES: dict[str, Callable[[random.Random, Path], None]] = {
    "missing": _missing,
    "cut": _cut_somewhere,
    "flipped": _flip_somewhere,
}

"""Nodes of a cluster that do not see all that the driver sees; here, what they should see is taken away."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from making import as_folder, as_tar, files_of, source_of

from pipeline.builder.ingest import ingest_remotely, with_cached_content
from pipeline.builder.worker import Job, ShardInput
from pipeline.errors import LakeError, SourceError
from pipeline.lake.parquet_writer import Writer
from pipeline.recipe import DecodePart
from pipeline.shard import Blobs, Deferred, Files
from pipeline.sources import Source, read


def load_of(source: Source) -> ShardInput:
    (shard,) = read(source)
    return ShardInput("d", "train", source.uri, shard)


def job_at(root: Path) -> Job:
    return Job(Writer(str(root), "0" * 12), DecodePart(mode="L", on_mismatch="reject"), ("exact",))


def test_what_only_the_cache_holds_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGELAKE_CACHE", str(tmp_path / "cache"))
    files = files_of(20)
    (tmp_path / "cache").mkdir()
    local, shared = (source_of(as_tar(place / "in.tar", files, "w")) for place in (tmp_path / "cache", tmp_path))
    cached = replace(local, part=local.part.model_copy(update={"uri": "https://localhost/in.tar"}))
    (shard,) = read(cached)
    assert isinstance(shard.contents, Deferred)
    assert with_cached_content(cached, shard).contents == Blobs(tuple(files.values()))
    assert with_cached_content(cached, shard).paths == shard.paths
    (shard,) = read(shared)
    assert with_cached_content(shared, shard) is shard


def test_a_node_without_the_lake_is_an_error(tmp_path: Path) -> None:
    load = load_of(source_of(as_folder(tmp_path / "in", files_of(5))))
    with pytest.raises(LakeError, match="cannot find the lake.*every node has"):
        ingest_remotely(job_at(tmp_path / "lake"), load)
    assert not (tmp_path / "lake").exists()
    (tmp_path / "lake").mkdir()
    assert len(ingest_remotely(job_at(tmp_path / "lake"), load).image_ids) == 5


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_node_without_the_source_is_an_error_and_rejects_nothing(tmp_path: Path, form: str) -> None:
    files = files_of(5)
    path = as_folder(tmp_path / "in", files) if form == "folder" else as_tar(tmp_path / "in.tar", files, "w")
    load = load_of(source_of(path))
    assert isinstance(load.shard.contents, Files if form == "folder" else Deferred)
    (tmp_path / "lake").mkdir()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SourceError, match=r"d/train \(in.*cannot find .*in.*every node has"):
        ingest_remotely(job_at(tmp_path / "lake"), load)

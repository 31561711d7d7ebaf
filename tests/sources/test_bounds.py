"""What a compressed file expands to is bounded, and pipes and devices are refused at once."""

import gzip
import os
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import as_folder, handed_out, recipe, source_of

from pipeline.errors import ImagelakeError, RecipeError, SourceError
from pipeline.recipe import EmbeddingPart, read_recipe
from pipeline.sources import detect, resolve
from pipeline.sources.embeddings import read_embedding
from pipeline.sources.tables import parquet

MIB = 2**20


def zipped(file: Path, head: bytes, body: bytes, size: int) -> Path:
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(head)
        for _ in range(size // MIB):
            stream.write(body * (MIB // len(body)))
    return file


def pax(folder: Path) -> Path:
    header = tarfile.TarInfo("long")
    header.type, header.size = b"x", 300 * MIB
    return zipped(folder / "x.tar.gz", header.tobuf(tarfile.USTAR_FORMAT), b"\0", 300 * MIB)


def one_value(folder: Path) -> Path:
    table = pa.table({"image": pa.array([bytes(65 * MIB)], pa.large_binary()), "label": ["a"]})
    pq.write_table(table, folder / "x.parquet", compression="zstd", use_dictionary=False)
    return folder / "x.parquet"


def dictionary(folder: Path) -> Path:
    image = np.random.default_rng(0).bytes(4 * MIB)
    pictures = pa.DictionaryArray.from_arrays(pa.array([0] * 1024, pa.int32()), pa.array([image]))
    pq.write_table(pa.table({"image": pictures, "label": ["a"] * 1024}), folder / "x.parquet", store_schema=False)
    return folder / "x.parquet"


def labels(folder: Path) -> Path:
    zipped(folder / "x-labels-idx1-ubyte.gz", struct.pack(">HBBI", 0, 8, 1, 2**32 - 1), b"\0", 4 * MIB)
    return zipped(folder / "x-images-idx3-ubyte.gz", struct.pack(">HBBIII", 0, 8, 3, 4, 4, 4) + bytes(64), b"\0", 0)


BOMBS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "a line of a CSV": ("csv", lambda at: zipped(at / "x", b"label,pixel0\n", b"1", 300 * MIB), "more than 8 MiB or"),
    "values of a CSV": ("csv", lambda at: zipped(at / "x", b"", b"1,", 300 * MIB), "or 262,144 values"),
    "a line of a list": (
        "list",
        lambda at: zipped(at / "x", b"path,label\n", b"a", 8 * MIB),
        "a line of more than 64 KiB",
    ),
    "a list": (
        "list",
        lambda at: zipped(at / "x", b"path,label\n", b"a.png,x\n", 300 * MIB),
        "more than 256 MiB of text",
    ),
    "a header of a tar": ("tar", pax, "a header of 314572800 bytes"),
    "a value of a Parquet file": ("parquet", one_value, "bytes that decompress to 68"),
    "a dictionary of a Parquet file": ("parquet", dictionary, "decompress to more than 32 MiB at once"),
    "labels of IDX images": ("idx", labels, "declares 4294967295 bytes"),
}


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("what", BOMBS)
def test_a_file_that_expands_without_end_is_an_error(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MAX_SHARD_BYTES", 32 * MIB)
    form, make, message = BOMBS[what]
    file = make(tmp_path)
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    try:
        with pytest.raises(SourceError, match=message) as caught:
            handed_out(source_of(file, format=form))
        # Memory of Python and NumPy; a list may be as large as its limit, twice while it is read.
        assert tracemalloc.get_traced_memory()[1] < (700 if "list" in what else 150) * MIB
    finally:
        tracemalloc.stop()
    assert pa.total_allocated_bytes() - arrow < 400 * MIB
    assert "\n" not in str(caught.value)


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "x.zip"
    os.mkfifo(pipe)
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    as_folder(tmp_path / "in", {"a/1.png": b""})
    (tmp_path / "in" / "b.zip").symlink_to(pipe)
    (tmp_path / "v.npy").symlink_to(pipe)
    for place in (pipe, Path("/dev/zero"), Path("/dev/null"), tmp_path / "x.*"):
        with pytest.raises(SourceError, match="a pipe, socket or device"):
            resolve(recipe(tmp_path, {"uri": str(place)}))
    with pytest.raises(SourceError, match="a pipe, socket or device"):
        detect(pipe)
    for file in (pipe, tmp_path / "zero.toml"):
        with pytest.raises(RecipeError, match="a pipe, socket or device"):
            read_recipe(file)
    for suffix in ("npy", "parquet"):
        os.replace(tmp_path / "v.npy" if suffix == "npy" else tmp_path / "v", tmp_path / f"v.{suffix}")  # noqa: PTH105
        with pytest.raises(ImagelakeError, match="a pipe, socket or device"):
            read_embedding(EmbeddingPart(name="v", uri=f"v.{suffix}", dataset="d"), tmp_path)
        os.replace(tmp_path / f"v.{suffix}", tmp_path / "v")  # noqa: PTH105
    found = resolve(recipe(tmp_path, {"uri": str(tmp_path / "in")}))
    assert [source.format for source in found] == ["folder"]


def test_a_recipe_of_many_mebibytes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "in.toml").open("wb") as stream:
        stream.truncate(32 * MIB)
    with pytest.raises(RecipeError, match="larger than 16 MiB"):
        read_recipe(tmp_path / "in.toml")

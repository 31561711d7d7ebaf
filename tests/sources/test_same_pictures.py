"""MNIST from IDX, from a CSV made of it and from PNG files of it: the same picture has the same content_hash."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from making import DATA, as_folder, as_tar, as_zip, encoded, needs_data, pictures, source_of

from pipeline.decode import Decoded, decode_shard
from pipeline.hashing import pixel_digests
from pipeline.recipe import DecodePart
from pipeline.sources import Source, read

FILE = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"
SOME = 1_000


def rows(source: Source) -> Iterator[tuple[str, str | None, bytes, bytes]]:
    """Decode a source: path, label, content_hash and pixels of every image, in its order."""
    for shard in read(source):
        for item in decode_shard(shard, "mnist", "test", DecodePart(mode="L", on_mismatch="reject", size=(28, 28))):
            assert isinstance(item, Decoded)
            columns = (item.images[name].to_pylist() for name in ("path", "label", "content_hash", "pixels"))
            yield from zip(*columns, strict=True)


def digests(source: Source) -> list[bytes]:
    groups = [item for shard in read(source) for item in decode_shard(shard, "d", "s", DecodePart(mode="L"))]
    return [digest for group in groups for digest in group.images["file_digest"].to_pylist()]  # type: ignore[union-attr] # no reject


@pytest.fixture(scope="module")
def published() -> list[tuple[str, str | None, bytes, bytes]]:
    return list(rows(source_of(FILE)))


@needs_data
def test_from_csv(published: list[tuple[str, str, bytes, bytes]], tmp_path: Path) -> None:
    some = published[:SOME]
    values = np.array([[int(label), *pixels] for _, label, _, pixels in some])
    header = ",".join(["label", *(f"pixel{n}" for n in range(784))])
    np.savetxt(tmp_path / "train.csv", values, "%d", ",", header=header, comments="")
    assert list(rows(source_of(tmp_path / "train.csv"))) == some
    # The test file of the competition has no label.
    np.savetxt(tmp_path / "test.csv", values[:100, 1:], "%d", ",", header=header.removeprefix("label,"), comments="")
    assert list(rows(source_of(tmp_path / "test.csv"))) == [(p, None, *rest) for p, _, *rest in some[:100]]


@needs_data
def test_from_png_files(published: list[tuple[str, str, bytes, bytes]], tmp_path: Path) -> None:
    some = published[:SOME]
    arrays = (np.frombuffer(pixels, np.uint8).reshape(28, 28) for *_, pixels in some)
    files = {f"{row[1]}/{row[0]}.png": encoded(array) for row, array in zip(some, arrays, strict=True)}
    expected = sorted((f"{label}/{path}.png", label, *rest) for path, label, *rest in some)
    assert list(rows(source_of(as_folder(tmp_path / "set", files)))) == expected
    assert sorted(rows(source_of(as_tar(tmp_path / "a.tar.gz", files)))) == expected
    assert sorted(rows(source_of(as_zip(tmp_path / "a.zip", files)))) == expected


def test_arrays_of_any_type_give_the_same_file_digests(tmp_path: Path) -> None:
    made = pictures(5, size=(4, 6))
    scaled = (made - 127.5) / 255
    np.savez(tmp_path / "bytes.npz", images=made)
    np.savez(tmp_path / "doubles.npz", images=made.astype(np.float64))
    np.savez(tmp_path / "scaled.npz", images=scaled.astype(np.float32))
    np.savez(tmp_path / "channels.npz", images=np.repeat(made[:, None], 3, axis=1))
    as_idx = struct.pack(">BBBBIII", 0, 0, 8, 3, *made.shape) + made.tobytes()
    (tmp_path / "t-images-idx3-ubyte").write_bytes(as_idx)
    found = {
        name: digests(source_of(tmp_path / name))
        for name in ("bytes.npz", "doubles.npz", "scaled.npz", "t-images-idx3-ubyte", "channels.npz")
    }
    colour = found.pop("channels.npz")
    assert list(found.values()) == [pixel_digests(made[..., None])] * 4
    assert colour == pixel_digests(np.repeat(made[..., None], 3, axis=3))


@needs_data
def test_the_hash_of_the_first_picture_is_a_promise(published: list[tuple[str, str, bytes, bytes]]) -> None:
    path, label, digest, _ = published[0]
    assert (path, label, digest.hex()) == ("0", "7", "0bc147738b9021f9bfc7d9117be4b835")

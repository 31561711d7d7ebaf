"""Generated inputs for tests: seeded pictures, archives, folders, recipes; and the paths of real data."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode import Decoded, decode_shard
from pipeline.recipe import DecodePart, Recipe, parse_recipe
from pipeline.shard import Blobs, Deferred, Encoded, Pixels, Reject
from pipeline.sources import Source, read, resolve

DATA = Path(__file__).parents[3] / "shared" / "data"

needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real data (../shared/data) is not here")


def pictures(count: int, seed: int = 0, size: tuple[int, int] = (28, 28)) -> NDArray[np.uint8]:
    """Make random gray pictures: (count, height, width) uint8, all different."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)


def encoded(pixels: NDArray[np.uint8], form: str = "PNG", **options: Any) -> bytes:
    """Encode one picture, (height, width) gray or (height, width, 3) RGB."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def files_of(count: int, classes: str = "AB", seed: int = 0) -> dict[str, bytes]:
    """Make `count` files of class folders, by path, distributed over the classes in turn."""
    made = pictures(count, seed)
    return {f"{classes[i % len(classes)]}/{i:05d}.png": encoded(made[i]) for i in range(count)}


def with_identity(images: pl.DataFrame, pictures: Iterable[Any] | None = None) -> pl.DataFrame:
    """Add file_digest and content_hash, made of `pictures`, of which equal ones are copies; all differ if None."""
    made = [repr(picture).encode() for picture in (images["image_id"] if pictures is None else pictures)]
    return images.with_columns(
        file_digest=pl.Series([sha256(data).digest() for data in made], dtype=pl.Binary),
        content_hash=pl.Series([sha256(data).digest()[16:] for data in made], dtype=pl.Binary),
    )


def as_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def as_tar(file: Path, files: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    """Write files to a tar archive."""
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload] # a mode that is not a literal
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def as_zip(file: Path, files: Mapping[str, bytes]) -> Path:
    """Write files to a zip archive."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file


def recipe(base: Path, *sources: Mapping[str, Any], **parts: Any) -> Recipe:
    """Make a recipe with its lake at `base/lake`; sources default to dataset "d" and split "train"."""
    listed = [{"dataset": "d", "split": "train", **source} for source in sources]
    return parse_recipe({"lake": {"root": "lake"}, "source": listed, **parts}, base=base)


def source_of(path: Path, *, decode: Mapping[str, Any] | None = None, **part: Any) -> Source:
    """Resolve one file or folder as the only source of a recipe."""
    (only,) = resolve(recipe(path.parent, {"uri": path.name, **part}, decode=decode or {}))
    return only


def handed_out(source: Source) -> list[tuple[str, str | None, Any]]:
    """Read a whole source: (path, label, bytes or pixels or name on disk) of every image, in order."""
    rows: list[tuple[str, str | None, Any]] = []
    for shard in read(source):
        contents = shard.contents.make() if isinstance(shard.contents, Deferred) else shard.contents
        data = contents.array if isinstance(contents, Pixels) else next(iter(vars(contents).values()))
        rows += zip(shard.paths, shard.labels, data, strict=True)
    return rows


def turned_away(source: Source) -> list[Reject]:
    """Read a whole source: its rejects."""
    return [refused for shard in read(source) for refused in shard.rejects]


def shard_of(*files: bytes) -> Encoded:
    """Make a shard of encoded files; the path of each is its position."""
    return Encoded("s", "f", tuple(map(str, range(len(files)))), (None,) * len(files), Blobs(files))


def decoded(shard: Encoded, **decode: Any) -> list[NDArray[np.uint8] | Reject]:
    """Decode a shard: the picture or the reject of each of its files, in the order of their paths."""
    rows: dict[str, NDArray[np.uint8] | Reject] = {}
    for item in decode_shard(
        shard, "d", "train", DecodePart.model_validate({"mode": "L", "on_mismatch": "reject", **decode})
    ):
        if isinstance(item, Reject):
            rows[item.path] = item
        elif isinstance(item, Decoded):
            rows.update(zip(item.images["path"].to_pylist(), item.pixels, strict=True))
    return [rows[path] for path in shard.paths]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Make a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(  # noqa: PLR0913 - the fields of the header
    size: tuple[int, int], bits: int, color: int, rows: bytes, *, before: bytes = b"", interlace: int = 0
) -> bytes:
    """Make a PNG file by hand: (height, width), bits and colour type of the standard, filtered rows, chunks before."""
    header = struct.pack(">IIBBBBB", size[1], size[0], bits, color, 0, 0, interlace)
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + pixels + png_chunk(b"IEND", b"")

"""Read single images that were found by path, id or digest, and write them as PNG files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import storage
from pipeline.arrays.exports.imagefolder import UNLABELLED, folder_names
from pipeline.arrays.exports.selection import Chunk, encode_chunk, locate_role, read_chunks
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.search.images import FoundImages
from pipeline.storage.atomic import atomic_file

# Pixels that are read at a time.
_CHUNK_BYTES = 2**26


def read_found(lake: Lake, found: FoundImages) -> Iterator[tuple[Chunk, int]]:
    """Read the pixels of found images, in their order; files that are damaged are an error.

    Yields:
        Consecutive images, at most 64 MiB of pixels or one image, and the position of the first of them.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """
    role = locate_role("found", found.rows, lake.snapshot.file_places("images"))
    return ((chunk, chunk.start) for chunk in read_chunks(role, _CHUNK_BYTES))


def first_pictures(lake: Lake, found: FoundImages, count: int) -> list[NDArray[np.uint8]]:
    """Read the first of the found images: (height, width) for gray, (height, width, 3) for RGB."""
    few = found._replace(rows=found.rows.head(count))
    return [picture for chunk, _ in read_found(lake, few) for picture in chunk.images.pictures()]


def write_pngs(lake: Lake, found: FoundImages, folder: str) -> list[str]:
    """Write found images as PNG files LABEL-IMAGE_ID.png; in LABEL, unusual characters are %XX.

    Args:
        lake: the lake of the release.
        found: what to write.
        folder: it is created if it does not exist; files of the same names are replaced.

    Returns:
        The files, in the order of `found`.

    Raises:
        LakeError: the folder cannot be written to.
        DamagedLakeError: a file of the lake is missing or damaged.
        DiskFullError: no space is left.
    """
    if storage.is_bucket(folder):
        raise LakeError(f"{folder}: pictures cannot be written to a bucket. Name a folder on this machine.")
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LakeError(f"{folder}: cannot be written to ({error.strerror}). Name another folder.") from error
    names = folder_names(found.rows["label"].drop_nulls().unique().sort())
    files = [
        target / f"{UNLABELLED if label is None else names[label]}-{image_id.hex()}.png"
        for label, image_id in found.rows.select("label", "image_id").iter_rows()
    ]
    for chunk, start in read_found(lake, found):
        for file, data in zip(files[start : chunk.stop], encode_chunk(chunk), strict=True):
            with atomic_file(file, "the picture") as draft:
                draft.write_bytes(data)
    return [str(file) for file in files]

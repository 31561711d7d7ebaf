"""Parquet files of generated pictures, as Hugging Face's `datasets` and other libraries write them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from making import encoded, pictures

CLASSES = ["cat", "dog", "emu"]
PNGS = [encoded(pixels) for pixels in pictures(12)]
NUMBERS = [n % 3 for n in range(12)]
EXPECTED = [(str(n), CLASSES[n % 3], PNGS[n]) for n in range(12)]


def notes(**features: dict[str, Any]) -> dict[bytes, bytes]:
    """Make the schema metadata that Hugging Face's `datasets` writes."""
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def structs(images: Sequence[bytes | None], paths: Sequence[str | None] | None = None) -> pa.Array:
    """Make a column in the form of the Image feature of `datasets`."""
    rows = zip(images, paths or [f"{n}.png" for n in range(len(images))], strict=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": image, "path": path} for image, path in rows], kind)


def published(file: Path, **options: Any) -> Path:
    """Write a file as `datasets` does: structs of images, numbers as labels, and class names in the metadata."""
    schema = pa.schema(
        [("image", structs(PNGS).type), ("label", pa.int64())],
        metadata=notes(image={"_type": "Image"}, label={"names": CLASSES, "_type": "ClassLabel"}),
    )
    pq.write_table(pa.table([structs(PNGS), pa.array(NUMBERS)], schema=schema), file, **options)
    return file


def written(file: Path, columns: dict[str, Any], **options: Any) -> Path:
    """Write columns unchanged."""
    pq.write_table(pa.table(columns), file, **options)
    return file

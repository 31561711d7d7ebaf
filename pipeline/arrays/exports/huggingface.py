"""huggingface: Parquet files that `datasets.load_dataset` reads as Image and ClassLabel features."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrays.exports.file_names import name_files, write_manifest
from pipeline.arrays.exports.parquet import file_ends
from pipeline.arrays.exports.selection import CHUNK_BYTES, ExportContext, Role, Selection, encode_role

# The names that Hugging Face gives to splits.
_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def write(folder: Path, selection: Selection, context: ExportContext) -> None:
    """Write data/train-00000-of-00001.parquet and so on, with features that `datasets` reads from the schema.

    Columns are `image` (the original file with its name if the lake has it, else a PNG), `label` (a ClassLabel; -1 for
    an image without a label, as is usual there; no such column if the split has no labels) and `image_id`. manifest.csv
    lists all images. Images may have any shapes.
    """
    schema = _schema(selection)
    (folder / "data").mkdir()
    names = [name_files(role.rows) for role in selection.roles]
    write_manifest(folder, selection, names)
    for role, named in zip(selection.roles, names, strict=True):
        ends = file_ends(role.file_sizes, CHUNK_BYTES)
        tables = _tables(role, named, schema, context)
        for number, end in enumerate(ends):
            name = f"{_SPLITS[role.name]}-{number:05d}-of-{len(ends):05d}.parquet"
            # Pictures are compressed already.
            with pq.ParquetWriter(folder / "data" / name, schema, compression="none") as file:
                for stop, table in tables:
                    file.write_table(table, row_group_size=len(table))
                    if stop >= end:
                        break


def _schema(selection: Selection) -> pa.Schema:
    features: dict[str, object] = {"image": {"_type": "Image"}}
    fields = [pa.field("image", _IMAGE)]
    if selection.classes:
        features["label"] = {"names": list(selection.classes), "_type": "ClassLabel"}
        fields.append(pa.field("label", pa.int64()))
    features["image_id"] = {"dtype": "string", "_type": "Value"}
    fields.append(pa.field("image_id", pa.string()))
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _tables(role: Role, names: pl.Series, schema: pa.Schema, context: ExportContext) -> Iterator[tuple[int, pa.Table]]:
    start = 0
    for files in encode_role(role, context):
        rows = role.rows[start : start + len(files)]
        named = names[start : start + len(files)].to_arrow().cast(pa.string())
        image = pa.StructArray.from_arrays([pa.array(files, pa.binary()), named], fields=list(_IMAGE))
        ids = rows["image_id"].bin.encode("hex").to_arrow()
        columns = {"image": image, "label": rows["label_index"].to_arrow(), "image_id": ids}
        start += len(files)
        arrays = [columns[name].cast(schema.field(name).type) for name in schema.names]
        yield start, pa.Table.from_arrays(arrays, schema=schema)

"""Read embeddings of the user, one vector for each image: from a column of a Parquet file, or from a .npy file."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import SourceError, one_line
from pipeline.recipe import EmbeddingPart
from pipeline.storage import check_expansion, check_regular


def read_embedding(part: EmbeddingPart, base: Path) -> tuple[str, pl.Series, NDArray[np.float32]]:
    """Read the vectors of one `[[embedding]]`.

    Args:
        part: the recipe's `[[embedding]]`.
        base: the folder that relative paths start from.

    Returns:
        The column of the images table that identifies the images ("path" or "image_id"), its values, and the vectors,
        (n, d) float32, in the order of these values.

    Raises:
        SourceError: the file is missing or has another form, or its vectors are not finite or differ in length.
    """
    file = base / part.uri
    try:
        column, names, vectors = _read_npy(part, file, base) if file.suffix == ".npy" else _read_parquet(part, file)
    except FileNotFoundError as error:
        raise SourceError(
            f"embedding '{part.name}': {error.filename or file} does not exist. Correct its path."
        ) from None
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"embedding '{part.name}': {file} cannot be read ({one_line(error)}).") from error
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise SourceError(
            f"embedding '{part.name}': {file} row {row} has a value that is not a finite number. Correct it."
        )
    if names.n_unique() != len(names):
        repeated = names.filter(names.is_duplicated())[0]
        raise SourceError(f"embedding '{part.name}': {file} has several vectors for {column} {repeated!r}. Keep one.")
    return column, names, vectors


def _read_npy(part: EmbeddingPart, file: Path, base: Path) -> tuple[str, pl.Series, NDArray[np.float32]]:
    check_regular(file)
    # Without pickle: an array of objects is an error.
    vectors = np.load(file, allow_pickle=False, mmap_mode="r")
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):  # noqa: PLR2004 - rows and columns
        raise ValueError(f"an array of {vectors.dtype} with shape {vectors.shape}; (n, d) floats are needed")
    if part.paths is None:
        names = [str(number) for number in range(len(vectors))]
    else:
        check_regular(base / part.paths)
        names = (base / part.paths).read_text(encoding="utf-8").splitlines()
    if len(names) != len(vectors):
        raise ValueError(f"{len(vectors)} rows, but {part.paths} has {len(names)} lines")
    # Values too large for float32 become infinite, which the caller reports.
    with np.errstate(over="ignore"):
        return "path", pl.Series("path", names, dtype=pl.String), np.asarray(vectors, dtype=np.float32)


def _read_parquet(part: EmbeddingPart, file: Path) -> tuple[str, pl.Series, NDArray[np.float32]]:
    check_regular(file)
    metadata = pq.read_metadata(file)
    check_expansion(metadata)
    schema = metadata.schema.to_arrow_schema()
    column = "image_id" if "image_id" in schema.names else "path"
    missing = [name for name in (column, part.column) if name not in schema.names]
    if missing:
        raise ValueError(f"no column {' and '.join(missing)}; it has {', '.join(schema.names)}")
    rows = pq.read_table(file, columns=[column, part.column])
    vectors = rows[part.column].combine_chunks()
    lengths = np.unique(pa.compute.list_value_length(vectors).to_numpy(zero_copy_only=False))
    if vectors.null_count or len(lengths) > 1:
        raise ValueError(f"vectors of column {part.column} are missing or differ in length")
    width = int(lengths[0]) if len(lengths) else 0
    values = vectors.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    kind = pl.Binary if column == "image_id" else pl.String
    return column, pl.Series(column, rows[column]).cast(kind), values.reshape(len(rows), width)

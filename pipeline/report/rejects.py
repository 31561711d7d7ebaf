"""Rejects by reason, with a few examples of each."""

from typing import Any

import polars as pl

EXAMPLES = 5


def count_rejects(rejects: pl.LazyFrame, examples: int = EXAMPLES) -> dict[str, Any]:
    """Count rejects by reason.

    Args:
        rejects: the rejects table.
        examples: examples per reason, at most: the first by source and path.

    Returns:
        total, and reasons: the most frequent first, each with reason, files and examples (path, label,
        detail, file_size, source).
    """
    source = pl.concat_str("dataset", "split", separator="/").alias("source")
    example = pl.struct("source", "path", "label", "detail", "file_size")
    reasons = (
        rejects.with_columns(source)
        .group_by("reason")
        .agg(files=pl.len(), examples=example.bottom_k_by(["source", "path"], examples))
        .collect()
        .sort("files", "reason", descending=[True, False])
    )
    for_show = [
        {**row, "examples": sorted(row["examples"], key=lambda one: (one["source"], one["path"]))}
        for row in reasons.iter_rows(named=True)
    ]
    return {"total": sum(row["files"] for row in for_show), "reasons": for_show}

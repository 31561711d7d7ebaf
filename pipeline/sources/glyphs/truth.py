"""The truth about a glyph set: what every file is and what it was made from, as a table."""

import numpy as np
import pyarrow as pa

from pipeline.sources.glyphs.names import labels, paths
from pipeline.sources.glyphs.plan import SPLITS, GlyphPlan, Kind
from schemas.table import column

TRUTH = pa.schema(
    [
        column("split", pa.string(), "part the file is in: train or test"),
        column("path", pa.string(), "path inside the part, '/'-separated; unique in the whole set"),
        column("label", pa.string(), "class name, as the file's folder says"),
        column("kind", pa.string(), f"what was planted: {', '.join(kind.spelled for kind in Kind)}"),
        column("of_split", pa.string(), "part of the original that a copy or near copy was made from", null=True),
        column("of_path", pa.string(), "path of that original; null for originals and bad files", null=True),
    ]
)


def truth(plan: GlyphPlan) -> pa.Table:
    """Tell what every file is.

    The files that show exactly the same pixels are an original and the rows of kind exact_copy, cross_copy
    and conflict that name it in (of_split, of_path). No other two files are equal, except that all empty ones
    are.

    Args:
        plan: the plan of the set.

    Returns:
        One row per file with the columns of `TRUTH`, train first, in the order of the files.
    """
    index = np.arange(len(plan.labels))
    all_paths = np.array(paths(plan, index), dtype=object)
    spelled = np.array([kind.spelled for kind in Kind], dtype=object)
    splits = np.array(SPLITS, dtype=object)
    copied = plan.of >= 0
    columns = [
        pa.array(splits[(index >= plan.rows).astype(int)], pa.string()),
        pa.array(all_paths, pa.string()),
        pa.array(labels(plan, index), pa.string()),
        pa.array(spelled[plan.kinds], pa.string()),
        pa.array(splits[(plan.of >= plan.rows).astype(int)], pa.string(), mask=~copied),
        pa.array(all_paths[plan.of], pa.string(), mask=~copied),
    ]
    return pa.Table.from_arrays(columns, schema=TRUTH)

"""Export the roles of a split to files for other tools: one module per form, and the registry `FORMS`.

Every form writes the rows in the order of their ranks, keeps a limited part of the pixels in memory, and writes the
same bytes for the same release with any number of workers, as long as the library versions are the same.
"""

from collections.abc import Callable
from pathlib import Path

from pipeline.arrays.exports import huggingface, imagefolder, notebook, numpy_files, parquet, webdataset
from pipeline.arrays.exports.selection import ExportContext, Role, Selection, digest_rows, locate_role

Form = Callable[[Path, Selection, ExportContext], None]

# By name; `imagelake export --to` takes these names.
FORMS: dict[str, Form] = {
    "npz": numpy_files.write_npz,
    "npy": numpy_files.write_npy,
    "parquet": parquet.write,
    "imagefolder": imagefolder.write,
    "webdataset": webdataset.write,
    "huggingface": huggingface.write,
    "notebook": notebook.write,
}

# Forms of encoded images, which have the original files where the lake has them.
WITH_ORIGINALS = ("imagefolder", "webdataset", "huggingface")

__all__ = ["FORMS", "WITH_ORIGINALS", "ExportContext", "Form", "Role", "Selection", "digest_rows", "locate_role"]

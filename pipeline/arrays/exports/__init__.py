"""Roles of a split -> files that other tools read: a file a form, the choice a dict.

Every form has the rows in the order of their ranks, holds a bounded part of the pixels at a time, and writes the same
bytes for the same release, whatever the number of workers, as long as the versions of the libraries are the same.
"""

from collections.abc import Callable
from pathlib import Path

from pipeline.arrays.exports import huggingface, imagefolder, notebook, numpy_files, parquet, webdataset
from pipeline.arrays.exports.selection import Role, Selection, Work, digest_rows, place

Form = Callable[[Path, Selection, Work], None]

# By the names that `--to` takes.
FORMS: dict[str, Form] = {
    "npz": numpy_files.write_npz,
    "npy": numpy_files.write_npy,
    "parquet": parquet.write,
    "imagefolder": imagefolder.write,
    "webdataset": webdataset.write,
    "huggingface": huggingface.write,
    "notebook": notebook.write,
}

__all__ = ["FORMS", "Form", "Role", "Selection", "Work", "digest_rows", "place"]

"""The forms of sources, such as tar or Parquet: one module for each, in the order in which a file is tried for them."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from pipeline.shard import Encoded, Survey
from pipeline.sources.source import Source


class Form(NamedTuple):
    """A form of source.

    Attributes:
        module: the module of this package that reads it.
        keys: keys of `[[source]]` that only some forms have, and this one has.
        version: raised when the same files are read with other paths, labels or rejects than before: all sources of
            the form are then read again, once.
        may_be_folder: whether a folder may be of this form.
    """

    module: str
    keys: tuple[str, ...] = ()
    version: int = 1
    may_be_folder: bool = False


class FormModule(Protocol):
    """The functions of a form's module."""

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether a file or folder is of this form.

        Args:
            path: an existing file or folder.
            head: a file's first 512 bytes, decompressed; empty for a folder.
        """
        ...

    def survey(self, source: Source) -> Survey:
        """Fingerprint the source without opening an image."""
        ...

    def read(self, source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
        """Read the shards in order: all of them, or only those whose key is in `wanted`."""
        ...


# The first form that recognises a file counts: a form whose files also look like another one stands before it.
# The names are those of `pipeline.recipe.Format`.
FORMS: Mapping[str, Form] = {
    # Recognised by file names; the files may begin with anything.
    "cifar": Form("arrays.cifar", version=2, may_be_folder=True),
    "idx": Form("arrays.idx", ("labels", "transposed"), version=2, may_be_folder=True),
    "npz": Form("arrays.npz", ("images", "labels"), version=2),
    "mat": Form("arrays.mat", ("images", "labels"), version=2),
    "parquet": Form("tables.parquet", ("images", "labels"), version=2),
    # Fingerprints of folders and lists contain path, size, time and label of every file: no version is needed.
    "folder": Form("folder", ("splits",), may_be_folder=True),
    # A WebDataset is also a tar.
    "webdataset": Form("archives.webdataset", ("images", "labels", "splits", "truncated"), version=2),
    "tar": Form("archives.tar", ("splits", "truncated"), version=2),
    # A list of paths and labels is also a CSV file.
    "list": Form("tables.file_list", ("images", "labels", "outside")),
    "csv": Form("tables.csv", ("images", "labels"), version=2),
    # A tar may contain the end of a zip.
    "zip": Form("archives.zip", ("splits",), version=2),
    "digits": Form("digits"),
    "glyphs": Form("generated", ("rows", "seed")),
}
# Every key that only some forms have.
OWN_KEYS = tuple(sorted({key for form in FORMS.values() for key in form.keys}))


def module_of(form: str) -> FormModule:
    """Import the module of a form; its libraries are imported only if there are such sources."""
    return cast("FormModule", import_module(f"pipeline.sources.{FORMS[form].module}"))


def note_of(source: Source) -> str:
    """Return notes for the summary of a build about the parts of a source that are not read; empty for most formats."""
    note = getattr(module_of(source.format), "note", None)
    return note(source) if note else ""


def splits_within(source: Source) -> Mapping[str, Sequence[str]] | Sequence[str]:
    """Return the splits that the content of one file is divided into.

    Args:
        source: the file; its split does not count.

    Returns:
        For an archive, its folders by split; for arrays, the splits. Empty for other forms, and where no name of a
        folder or array contains a split.
    """
    find = getattr(module_of(source.format), "splits_within", None)
    return find(source) if find else []


def companions_of(source: Source) -> list[Path]:
    """List the files beside a source that are read with it, such as the labels of IDX images."""
    find = getattr(module_of(source.format), "companions", None)
    return find(source) if find else []

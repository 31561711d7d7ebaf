"""The forms that a source can have: one module each, in the order in which a file is tried for them."""

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
        module: module of this package that reads it.
        keys: keys of `[[source]]` that only some forms have, and this one has.
        version: raised when the same files come out with other paths or labels, or other files as rejects: sources of
            the form are then read again, once.
    """

    module: str
    keys: tuple[str, ...] = ()
    version: int = 1


class FormModule(Protocol):
    """What the module of a form has."""

    def survey(self, source: Source) -> Survey:
        """Tell what the source looks like without opening an image."""
        ...

    def read(self, source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
        """Hand out shards in order, or only those whose key is wanted."""
        ...

    def splits_within(self, source: Source) -> Mapping[str, Sequence[str]] | Sequence[str]:
        """Tell the splits of a file's content; only modules of `SPLIT_FORMS` have it.

        Args:
            source: the file; its split does not count.

        Returns:
            By split, folders of the archive; or the splits of arrays. Empty where nothing tells a split.
        """
        ...

    def note(self, source: Source) -> str:
        """Say what of a file is not read, for the summary of a build; only modules of `NOTE_FORMS` have it."""
        ...

    def recognises(self, path: Path, head: bytes) -> bool:
        """Tell whether a file or folder is of this form.

        Args:
            path: an existing file or folder.
            head: a file's first 512 bytes, decompressed; empty for a folder.
        """
        ...


# In the order in which they are tried: what begins like something else comes before it.
FORMS: Mapping[str, Form] = {
    # By the names of its files, which may begin like anything.
    "cifar": Form("arrays.cifar", version=2),
    "idx": Form("arrays.idx", ("labels", "transposed"), version=2),
    "npz": Form("arrays.npz", ("images", "labels"), version=2),
    "mat": Form("arrays.mat", ("images", "labels"), version=2),
    "parquet": Form("tables.parquet", ("images", "labels"), version=2),
    # Fingerprints of folders and lists contain path, size, time and label of every file: no version is needed.
    "folder": Form("folder", ("splits",)),
    # A tar of samples is a tar.
    "webdataset": Form("archives.webdataset", ("images", "labels", "splits", "truncated"), version=2),
    "tar": Form("archives.tar", ("splits", "truncated"), version=2),
    # Paths and labels are a CSV.
    "list": Form("tables.file_list", ("images", "labels")),
    "csv": Form("tables.csv", ("images", "labels"), version=2),
    # Behind tar, which may well hold what looks like a zip's end.
    "zip": Form("archives.zip", ("splits",), version=2),
    "digits": Form("digits"),
    "glyphs": Form("generated", ("rows", "seed")),
}
# Forms whose modules have `splits_within(source)`: what is in one file may be of several splits.
SPLIT_FORMS = ("tar", "webdataset", "zip", "npz", "mat")
# Forms whose modules have `note(source)`.
NOTE_FORMS = ("npz", "mat", "list")
# Every key that only some forms have.
OWN_KEYS = tuple(sorted({key for form in FORMS.values() for key in form.keys}))


def module_of(name: str) -> FormModule:
    """Import the module of a form; what it needs is imported only for those who have such sources."""
    return cast("FormModule", import_module(f"pipeline.sources.{FORMS[name].module}"))

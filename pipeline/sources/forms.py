"""The forms that a source can have: one module each, in the order in which a file is tried for them."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from pipeline.encoded import Encoded, Survey
from pipeline.sources.source import Source


class Form(NamedTuple):
    """A form of source.

    Attributes:
        module: module of this package that reads it.
        keys: keys of `[[source]]` that only some forms have, and this one has.
    """

    module: str
    keys: tuple[str, ...] = ()


class FormModule(Protocol):
    """What the module of a form has."""

    def survey(self, source: Source) -> Survey:
        """Tell what the source looks like without opening an image."""
        ...

    def read(self, source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
        """Hand out shards in order, or only those whose key is wanted."""
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
    "cifar": Form("cifar"),
    "idx": Form("idx", ("labels", "transposed")),
    "npz": Form("npz", ("images", "labels")),
    "mat": Form("mat", ("images", "labels")),
    "parquet": Form("parquet", ("images", "labels")),
    "folder": Form("folder"),
    # A tar of samples is a tar.
    "webdataset": Form("webdataset", ("images", "labels", "truncated")),
    "tar": Form("archive", ("truncated",)),
    # Paths and labels are a CSV.
    "list": Form("filelist", ("images", "labels")),
    "csv": Form("csv"),
    # Behind tar, which may well hold what looks like a zip's end.
    "zip": Form("zipped"),
    "digits": Form("digits"),
    "glyphs": Form("generated", ("rows", "seed")),
}
# Every key that only some forms have.
OWN_KEYS = tuple(sorted({key for form in FORMS.values() for key in form.keys}))


def module_of(name: str) -> FormModule:
    """Import the module of a form; what it needs is imported only for those who have such sources."""
    return cast("FormModule", import_module(f"pipeline.sources.{FORMS[name].module}"))

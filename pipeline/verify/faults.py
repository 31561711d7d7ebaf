"""What the checks of `verify` return: how much was checked, and what is wrong."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pipeline.errors import LimitError, StorageError, one_line
from pipeline.limits import raise_limit
from pipeline.os_errors import advice_for
from pipeline.progress import plural
from pipeline.storage.digests import LIBRARY_ERRORS

# A fault names at most this many images.
MAX_IMAGES = 5
# Kinds of faults after which no law of the table can be checked: rows cannot be read, or their values may be others.
UNREADABLE_KINDS = frozenset({"missing", "unreadable", "columns", "log", "checksum"})


class DamagedError(Exception):
    """Something cannot be read; the message gives the reason in one line. Never leaves `verify` or a repair."""


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: `missing`, `size` (not the size that the commit records), `unreadable`, `checksum` (of the file, or of a
            page), `columns`, `rows` (not the number that the commit records), `changed` (values do not match their
            hash, or what they were made from), `law`, `log` (of a table's commits), `source` (referenced files are
            gone with their folder), `unchecked`.
        text: what is wrong, without the name of the file.
        table: the table; empty for a fault of several tables.
        file: place of the file; empty for a fault of rows in several files.
        partition: partition values of the file: dataset, split and shard, or rule, or split_name.
        rows: number of damaged rows, if known; of `images`, that is images.
        images: paths of the first `MAX_IMAGES` damaged images, if known.
        source: the source of the images, as the recipe spells it.
    """

    kind: str
    text: str
    table: str = ""
    file: str = ""
    partition: Mapping[str, str] = {}
    rows: int | None = None
    images: Sequence[str] = ()
    source: str = ""

    def __str__(self) -> str:
        """Return the fault in one line."""
        line = f"{self.file}: {self.text}" if self.file else self.text
        if self.rows is None:
            return line
        unit = "image" if self.table in ("images", "originals", "index") else "row"
        line += f"; {plural(self.rows, unit)}{_of_partition(self.partition)}"
        line += f", from {self.source}" if self.source else ""
        if self.images:
            more = self.rows - len(self.images)
            line += f": {', '.join(self.images)}{f' and {more:,} more' if more > 0 else ''}"
        return line

    def as_values(self) -> dict[str, Any]:
        """Return the fields for JSON, and `message`, the fault in one line."""
        return {"message": str(self), **self._asdict(), "partition": dict(self.partition)}


class Check(NamedTuple):
    """The result of one check: its name, how many rows or files were checked, and the faults found."""

    name: str
    checked: int
    faults: Sequence[Fault]


@contextmanager
def damage_errors() -> Iterator[None]:
    """Turn the errors that libraries raise for damaged bytes into DamagedError.

    Raises:
        DamagedError: something cannot be read.
        StorageError: a bucket does not answer, which is no sign of damage.
        LimitError: a limit of the system was reached, which is none either.
    """
    try:
        yield
    except (StorageError, LimitError):
        raise
    except FileNotFoundError as error:
        raise DamagedError("is missing") from error
    except LIBRARY_ERRORS as error:
        raise_limit(error)
        why = getattr(error, "filename", None) and getattr(error, "strerror", None)
        advice = advice_for(error)
        raise DamagedError(
            f"cannot be read ({why or one_line(error, 200)})" + (f". {advice}" if advice else "")
        ) from error


def _of_partition(partition: Mapping[str, str]) -> str:
    if "shard" in partition:
        rule = f", rule {partition['rule']}" if "rule" in partition else ""
        return f" of {partition['dataset']}/{partition['split']} shard {partition['shard']}{rule}"
    if "dataset" in partition:
        return f" of {partition['dataset']}/{partition['split']}"
    named = [f"{'split' if key == 'split_name' else key} {value}" for key, value in partition.items()]
    return f" of {', '.join(named)}" if named else ""

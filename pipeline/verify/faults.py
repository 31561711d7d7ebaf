"""What a check of `verify` returns: how much was checked, and what is wrong with what."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from pipeline.errors import StorageError

# Images named for each fault: enough to see what is wrong, not a million lines.
MOST = 5
# Kinds of faults by which rows of a table cannot be read.
UNREAD = frozenset({"missing", "unreadable", "columns", "log"})
# What pyarrow and Polars raise where bytes are not what they should be.
_RAISED = (
    pa.ArrowException,
    pl.exceptions.PolarsError,
    OSError,
    ValueError,
    MemoryError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    # No Exception: what Polars does where it trips over what cannot be.
    pl.exceptions.PanicException,
)


class DamagedError(Exception):
    """Something cannot be read; the message says in one line why. Never leaves `verify` or a repair."""


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: `missing`, `size` (not as many bytes as its commit says), `unreadable`, `checksum` (of a page), `columns`,
            `rows` (not as many), `statistics` (of a column, which queries skip rows by), `changed` (values do not match
            their hash or what they were made from), `law`, `log` (of a table's commits), `unchecked`.
        text: what is wrong, behind the name of the file.
        table: the table; empty where it is about several.
        file: place of the file; empty where it is about rows of several.
        partition: partition values of the file: dataset, split and shard, or rule, or split_name.
        rows: how many rows of the table are hurt, as far as that can be told: of `images`, that is images.
        images: paths of the first of the images that are hurt, where they can be told.
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
        """Say it in one line."""
        words = f"{self.file}: {self.text}" if self.file else self.text
        if self.rows is None:
            return words
        unit = "image" if self.table in ("images", "index") else "row"
        words += f"; {self.rows:,} {unit}{'' if self.rows == 1 else 's'}{_place(self.partition)}"
        words += f", from {self.source}" if self.source else ""
        if self.images:
            more = self.rows - len(self.images)
            words += f": {', '.join(self.images)}{f' and {more:,} more' if more > 0 else ''}"
        return words

    def as_values(self) -> dict[str, Any]:
        """Spell it for JSON, with the line that people read as `message`."""
        return {"message": str(self), **self._asdict(), "partition": dict(self.partition)}


class Check(NamedTuple):
    """One thing that was checked: how many rows or files, and what is wrong with them."""

    name: str
    checked: int
    faults: Sequence[Fault]


class Held(NamedTuple):
    """How many rows a law was held against, and which do not keep it."""

    checked: int
    faults: Sequence[Fault]


@contextmanager
def damage_named() -> Iterator[None]:
    """Turn whatever a library raises over damaged bytes into one error.

    Raises:
        DamagedError: something cannot be read.
        StorageError: a bucket does not answer: that says nothing about what is in it.
    """
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise DamagedError("is missing") from error
    except _RAISED as error:
        raise DamagedError(f"cannot be read ({one_line(error)})") from error


def one_line(error: object) -> str:
    """Say in one line what an error says."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _place(partition: Mapping[str, str]) -> str:
    if "shard" in partition:
        rule = f", rule {partition['rule']}" if "rule" in partition else ""
        return f" of {partition['dataset']}/{partition['split']} shard {partition['shard']}{rule}"
    if "dataset" in partition:
        return f" of {partition['dataset']}/{partition['split']}"
    named = [f"{'split' if key == 'split_name' else key} {value}" for key, value in partition.items()]
    return f" of {', '.join(named)}" if named else ""

"""The errors that imagelake raises on purpose.

    ImagelakeError
    ├── RecipeError (ValueError)         the recipe cannot be read, or names something that does not exist
    ├── SourceError (ValueError)         a source is missing, unreadable, or not what the recipe describes
    │   └── CheckError                   a source is readable but fails a check of the recipe
    ├── LakeError (ValueError)           the lake cannot be read or written
    │   ├── NoReleaseError (LookupError) there is no finished release to read: no lake, or no such release
    │   ├── NewerLakeError               the lake was made by a newer imagelake
    │   ├── DamagedLakeError             a file or table of the lake is missing or damaged
    │   └── BusyLakeError                another build is writing to the lake
    ├── DiskFullError (OSError)          no space is left on the disk of the lake
    ├── LimitError (OSError)             a limit of the system was reached: open files, threads, memory, size of a file
    ├── StorageError (OSError)           a bucket did not answer, or refused a request; a later try may succeed
    ├── SplitError (ValueError)          a split needs more images than there are, or names something unknown
    ├── BaselineError (ValueError)       a baseline cannot be trained on its data
    ├── MissingExtraError (ImportError)  an optional library is not installed
    ├── QueryError (ValueError)          DuckDB refused the SQL, or the SQL would write
    ├── FeedError (ValueError)           batches cannot be made from the given arrays or state
    └── EngineError (RuntimeError)       workers died, or cannot be started

Each takes exactly one argument, the message, so that it survives pickling out of a worker process. The message says
what happened, where, and what to do next. The command line prints it in one line and exits with code 1. Any other
exception is a bug and keeps its traceback. The secrets of addresses are hidden in every message.
"""

import re

from pipeline.addresses import redacted_text

# Libraries colour their messages for terminals.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Polars ends messages with advice on its own arguments, which users of imagelake cannot set.
_ADVICE = re.compile(
    r"\s*(You might want to try:|Try increasing `|This error occurred with the following).*", re.DOTALL
)


def one_line(error: object, limit: int | None = None) -> str:
    """Return the text of an error in one line; the name of its type if it has no text.

    Args:
        error: an error that imagelake did not raise itself.
        limit: most characters of the text; None for all.
    """
    text = _ADVICE.sub("", _COLOURS.sub("", redacted_text(str(error))))
    return " ".join(text.split())[:limit] or type(error).__name__


class ImagelakeError(Exception):
    """Base class of all errors that imagelake raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(redacted_text(message))


class RecipeError(ImagelakeError, ValueError):
    """The recipe cannot be read, or names something that does not exist."""


class SourceError(ImagelakeError, ValueError):
    """A source is missing, unreadable, or not what the recipe describes."""


class CheckError(SourceError):
    """A source is readable but fails a check of the recipe."""


class LakeError(ImagelakeError, ValueError):
    """The lake cannot be read or written."""


class NoReleaseError(LakeError, LookupError):
    """There is no finished release to read."""


class NewerLakeError(LakeError):
    """The lake was made by a newer imagelake."""


class DamagedLakeError(LakeError):
    """A file or table of the lake is missing or damaged."""


class BusyLakeError(LakeError):
    """Another build is writing to the lake."""


class DiskFullError(ImagelakeError, OSError):
    """No space is left on the disk of the lake."""


class LimitError(ImagelakeError, OSError):
    """A limit of the system was reached: open files, processes and threads, memory, or the size of a file."""


class StorageError(ImagelakeError, OSError):
    """A bucket did not answer after several tries, or refused a request; a later try may succeed."""


class SplitError(ImagelakeError, ValueError):
    """A split needs more images than there are, or names something that does not exist."""


class BaselineError(ImagelakeError, ValueError):
    """A baseline cannot be trained on its data."""


class MissingExtraError(ImagelakeError, ImportError):
    """An optional library is not installed."""


class QueryError(ImagelakeError, ValueError):
    """DuckDB refused the SQL, or the SQL would write."""


class FeedError(ImagelakeError, ValueError):
    """Batches cannot be made from the given arrays or state."""


class EngineError(ImagelakeError, RuntimeError):
    """Workers died, or cannot be started."""

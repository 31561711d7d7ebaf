"""Every error that imagelake raises on purpose.

    ImagelakeError
    ├── RecipeError (ValueError)         the recipe cannot be read or asks for something that does not exist
    ├── SourceError (ValueError)         a source is missing, unreadable or not what it was said to be
    │   └── CheckError                   a source is readable but fails a check that the recipe asks for
    ├── LakeError (ValueError)           the lake cannot be read or written
    │   ├── NoReleaseError (LookupError) nothing finished to read: no lake, no such release
    │   ├── NewerLakeError               the lake was made by a newer imagelake
    │   └── BusyLakeError                another build is writing to the lake
    ├── DiskFullError (OSError)          no space is left where the lake lives
    ├── StorageError (OSError)           a bucket did not answer, or refused; asking again may help
    ├── SplitError (ValueError)          a split asks for more images than there are, or names what is not there
    ├── BaselineError (ValueError)       a baseline cannot be trained on what it was given
    ├── MissingExtraError (ImportError)  a library that only some need is not installed
    ├── QueryError (ValueError)          SQL that DuckDB refuses, or that would write
    ├── FeedError (ValueError)           batches cannot be made or gone on with from what was given
    └── EngineError (RuntimeError)       workers died, or none can be had

Each takes exactly one argument, the message, so that it survives pickling out of a worker process. The message says
what happened, where, and what to do next. The command line turns them into one line and exit code 1; whatever else
is raised is a bug and keeps its traceback.
"""


class ImagelakeError(Exception):
    """Anything imagelake raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class RecipeError(ImagelakeError, ValueError):
    """The recipe cannot be read or asks for something that does not exist."""


class SourceError(ImagelakeError, ValueError):
    """A source is missing, unreadable or not what it was said to be."""


class CheckError(SourceError):
    """A source is readable but fails a check that the recipe asks for."""


class LakeError(ImagelakeError, ValueError):
    """The lake cannot be read or written."""


class NoReleaseError(LakeError, LookupError):
    """Nothing finished is there to read."""


class NewerLakeError(LakeError):
    """The lake was made by a newer imagelake."""


class BusyLakeError(LakeError):
    """Another build is writing to the lake."""


class DiskFullError(ImagelakeError, OSError):
    """No space is left where the lake lives."""


class StorageError(ImagelakeError, OSError):
    """A bucket did not answer after several tries, or refused; a later try may succeed."""


class SplitError(ImagelakeError, ValueError):
    """A split asks for more images than there are, or names what is not there."""


class BaselineError(ImagelakeError, ValueError):
    """A baseline cannot be trained on what it was given."""


class MissingExtraError(ImagelakeError, ImportError):
    """A library that only some need is not installed."""


class QueryError(ImagelakeError, ValueError):
    """SQL that DuckDB refuses, or that would write."""


class FeedError(ImagelakeError, ValueError):
    """Batches cannot be made or gone on with from what was given."""


class EngineError(ImagelakeError, RuntimeError):
    """Workers died, or none can be had."""


def one_line(error: object) -> str:
    """Return the message of an error in one line of at most 300 characters; the name of its type where it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__

"""MATLAB 5 files (.mat), as notMNIST and SVHN are published: an array of images and one of labels.

The last axis counts pictures: images are (height, width, n) or (height, width, channels, n), labels (n, 1) or (1, n).
See `named` for which arrays they are, and `stored` for what they hold. Labels stay the numbers that they are: SVHN's
"10" is the digit 0.

Values stream out of the file; MATLAB 7.3 writes another format, HDF5, which is not read.
"""

import math
import struct
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from pipeline.encoded import Encoded, Survey
from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.sources.mat5 import NEWER, Variable, list_variables, read_order, read_values, read_version
from pipeline.sources.named import choose_images, choose_labels, splits_of_arrays, unread_arrays
from pipeline.sources.source import DAMAGED, Source, files_fingerprint, one_line, opened
from pipeline.sources.stored import Stored, Values, shards, title_of

_HEADER = 128


def recognises(path: Path, head: bytes) -> bool:
    """Tell a file of MATLAB 5 or later by its header; see `pipeline.sources`."""
    return not path.is_dir() and read_order(head) != ""


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time, and which arrays are meant; see `pipeline.sources`."""
    return Survey(digest_of([files_fingerprint(source, source.path), source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the arrays into runs of pictures while they stream past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    arrays = _arrays(source)
    images = choose_images(source, arrays)
    yield from shards(source, fingerprint, images, choose_labels(source, arrays, images), wanted)


def splits_within(source: Source) -> list[str]:
    """Tell the splits of the file's arrays; see `pipeline.sources.forms`."""
    return [] if source.part.images is not None else splits_of_arrays(_arrays(source))


def note(source: Source) -> str:
    """Say what of the file is not read; see `pipeline.sources.forms`."""
    return "" if source.part.images is not None else unread_arrays(_arrays(source))


def _arrays(source: Source) -> list[Stored]:
    with _open(source) as stream:
        return [_stored(source, variable) for variable in list_variables(stream)]


def _stored(source: Source, variable: Variable) -> Stored:
    """See a variable with its last axis in front; of a vector, that is its only one."""
    sides = variable.shape
    # Everything in MATLAB has two dimensions.
    shape = (math.prod(sides),) if len(sides) == 2 and 1 in sides else (*sides[-1:], *sides[:-1])  # noqa: PLR2004
    title = title_of(variable.name, sides, variable.kind)
    return Stored(source.path, variable.name, shape, variable.dtype, title, partial(_runs, source, variable, shape))


def _runs(source: Source, variable: Variable, shape: tuple[int, ...], rows: int) -> Iterator[Values]:
    axes = range(len(shape) - 1, 0, -1)
    with _open(source) as stream:
        for flat in read_values(stream, variable, rows * math.prod(shape[1:])):
            yield flat.reshape(-1, *reversed(shape[1:])).transpose(0, *axes)


@contextmanager
def _open(source: Source) -> Iterator[IO[bytes]]:
    """Open the file, and say of it what is found wrong on the way."""
    try:
        with opened(source, source.path) as stream:
            _check_version(source, stream.read(_HEADER))
            stream.seek(0)
            yield stream
    except SourceError:  # which is a ValueError too
        raise
    except (ValueError, struct.error, *DAMAGED) as error:
        raise SourceError(
            f"{source.title}: {source.path} is damaged, cut short or no MATLAB 5 file ({one_line(error)}). "
            "Fetch it again."
        ) from error


def _check_version(source: Source, head: bytes) -> None:
    if read_order(head) and read_version(head) == NEWER:
        raise SourceError(
            f"{source.title}: {source.path} is of MATLAB 7.3 (HDF5), which is not read. Save it with "
            "save(..., '-v7') in MATLAB or scipy.io.savemat in Python."
        )

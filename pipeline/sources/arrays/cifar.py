"""CIFAR-10 and CIFAR-100 in their binary version: records of one or two label bytes and 3072 of a 32x32 picture.

A record of CIFAR-10 is (label, pixels), one of CIFAR-100 (coarse label, fine label, pixels); the fine one is taken.
Pixels lie as (3, 32, 32). Labels are the names in `batches.meta.txt` or `fine_label_names.txt` beside the records, or
the number where there is no such file.

A source is one file, whose paths are row numbers, or the folder of them: then its split, train or test, says which are
read, and paths are `data_batch_1.bin/0`. The Python version is a pickle, which is never opened.

References:
    https://www.cs.toronto.edu/~kriz/cifar.html
"""

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.shard import Encoded, Pixels, Survey
from pipeline.sources.source import (
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    decompressed,
    files_fingerprint,
    one_line,
    opened,
    shard_key,
)

_SHAPE = (3, 32, 32)
_PIXELS = 3072
_HEAD = 512


class _Kind(NamedTuple):
    """CIFAR-10 or CIFAR-100: its files by split, the label bytes of a record, the file with label names."""

    files: Mapping[str, re.Pattern[str]]
    label_bytes: int
    names: str


_TEN = _Kind(
    {"train": re.compile(r"data_batch_\d+\.bin"), "test": re.compile(r"test_batch\.bin")}, 1, "batches.meta.txt"
)
_HUNDRED = _Kind({"train": re.compile(r"train\.bin"), "test": re.compile(r"test\.bin")}, 2, "fine_label_names.txt")

# The two archives of each, and the files of the Python version.
_TAR = re.compile(rb"cifar-(10-batches-(bin|py)|100-(binary|python))/")
_PYTHON = re.compile(r"data_batch_\d+|test_batch|train|test")
_PICKLE = b"\x80"
_LONGEST_NAMES = 2**16


def recognises(path: Path, head: bytes) -> bool:
    """Tell CIFAR by the names of its files; its pickles and archives too, to say what to do instead."""
    if path.is_dir():
        return bool(_kinds(path)) or _is_python(path)
    if _TAR.match(head) or (_PYTHON.fullmatch(path.name) and head.startswith(_PICKLE)):
        return True
    return any(_is_named(path, kind) and _is_whole(path, kind) for kind in (_TEN, _HUNDRED))


def splits_of_folder(folder: Path) -> list[str]:
    """List the splits whose records a folder has: train, test or both."""
    names = {file.name for file in folder.iterdir()}
    return [
        split
        for split in ("train", "test")
        if any(kind.files[split].fullmatch(name) for kind in _kinds(folder) for name in names)
    ]


def survey(source: Source) -> Survey:
    """Fingerprint records and label names by size and time; see `pipeline.sources`."""
    kind, files = _records(source)
    names = files[0].with_name(kind.names)
    return Survey(files_fingerprint(source, *files, *([names] if names.is_file() else [])))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the files into runs of records while they stream past; see `pipeline.sources`."""
    kind, files = _records(source)
    fingerprint = survey(source).fingerprint
    names = _names(source, files[0].with_name(kind.names))
    runs = ((file, start, run) for file in files for start, run in _runs(source, file, kind.label_bytes + _PIXELS))
    for number, (file, start, run) in enumerate(runs):
        key = shard_key(source, number)
        if wanted is not None and key not in wanted:
            continue
        folder = f"{file.name}/" if source.path.is_dir() else ""
        yield Encoded(
            shard=key,
            fingerprint=fingerprint,
            paths=tuple(f"{folder}{row}" for row in range(start, start + len(run))),
            labels=_labels(source, file, run[:, kind.label_bytes - 1], names),
            contents=Pixels(
                np.ascontiguousarray(run[:, kind.label_bytes :].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1))
            ),
        )


def _records(source: Source) -> tuple[_Kind, list[Path]]:
    """Find the files of records that a source means.

    Raises:
        SourceError: there are none, or it is not clear which.
    """
    try:
        return _found(source, source.path)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {source.path} ({one_line(error)}). Check the path.") from error


def _found(source: Source, path: Path) -> tuple[_Kind, list[Path]]:
    if _is_python(path):
        raise SourceError(
            f"{source.title}: {path} is the Python version of CIFAR, a pickle, which is never opened. Fetch the binary "
            "version."
        )
    if path.is_dir():
        return _in_folder(source)
    if _TAR.match(_head(path)):
        raise SourceError(f"{source.title}: {path} is an archive. Unpack CIFAR's binary version and name its folder.")
    named = [kind for kind in (_TEN, _HUNDRED) if _is_named(path, kind)]
    fitting = [kind for kind in named or (_TEN, _HUNDRED) if _is_whole(path, kind)]
    if len(fitting) != 1:
        raise SourceError(
            f"{source.title}: {path} cannot be cut into CIFAR records: 3073 bytes each in CIFAR-10, 3074 in CIFAR-100. "
            "Fetch it again, and keep the name that it is published by."
        )
    return fitting[0], [path]


def _in_folder(source: Source) -> tuple[_Kind, list[Path]]:
    kinds = _kinds(source.path)
    if len(kinds) != 1:
        found = "both CIFAR-10 and CIFAR-100" if kinds else "no CIFAR records"
        raise SourceError(f"{source.title}: {source.path} holds {found}. Name a file of records itself.")
    (kind,) = kinds
    pattern = kind.files.get(source.split)
    files = [file for file in source.path.iterdir() if pattern and pattern.fullmatch(file.name)]
    if not files:
        raise SourceError(
            f"{source.title}: {source.path} has no records for split '{source.split}'. A folder of CIFAR has train and "
            "test; name a file of records itself for another split."
        )
    for file in files:
        if not _is_whole(file, kind):
            raise SourceError(
                f"{source.title}: {file} is cut short: {file.stat().st_size} bytes are no whole number of records. "
                "Fetch it again."
            )
    # data_batch_10 comes behind data_batch_9.
    return kind, sorted(files, key=lambda file: (len(file.name), file.name))


def _kinds(folder: Path) -> list[_Kind]:
    """Tell which CIFAR a folder holds; `train.bin` may be anything, so the label names must lie beside it."""
    there = [file.name for file in folder.iterdir() if file.name.endswith((".bin", ".txt"))]
    kinds = [kind for kind in (_TEN, _HUNDRED) if any(p.fullmatch(n) for p in kind.files.values() for n in there)]
    return [kind for kind in kinds if kind is _TEN or kind.names in there]


def _is_named(file: Path, kind: _Kind) -> bool:
    named = any(pattern.fullmatch(file.name) for pattern in kind.files.values())
    return named and (kind is _TEN or file.with_name(kind.names).is_file())


def _is_whole(file: Path, kind: _Kind) -> bool:
    size = file.stat().st_size
    return size > 0 and size % (kind.label_bytes + _PIXELS) == 0


def _is_python(path: Path) -> bool:
    if path.is_dir():
        return any(_is_python(path / name) for name in ("test_batch", "test") if (path / name).is_file())
    return _PYTHON.fullmatch(path.name) is not None and _head(path).startswith(_PICKLE)


def _head(file: Path) -> bytes:
    try:
        with decompressed(file) as stream:
            return stream.read(_HEAD)
    except DAMAGED:
        return b""


def _names(source: Source, file: Path) -> list[str]:
    """Read the names of labels, one a line; none where there is no such file."""
    if not file.is_file():
        return []
    with opened(source, file) as stream:
        data = stream.read(_LONGEST_NAMES)
    try:
        names = [line.strip() for line in data.decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise SourceError(f"{source.title}: {file} is no UTF-8 text. Fetch it again.") from error
    if "" in names:
        raise SourceError(
            f"{source.title}: line {names.index('') + 1} of {file} names no class: its images would have no label. "
            "Fetch it again."
        )
    return names


def _labels(source: Source, file: Path, numbers: NDArray[np.uint8], names: list[str]) -> tuple[str, ...]:
    if names and numbers.max() >= len(names):
        raise SourceError(
            f"{source.title}: {file} has a label {numbers.max()}, but there are {len(names)} names of labels beside "
            "it. One of them is damaged: fetch both again."
        )
    return tuple(map(names.__getitem__ if names else str, numbers.tolist()))


def _runs(source: Source, file: Path, record: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Stream a file: the row that a run starts at, and (rows, record) bytes."""
    try:
        with file.open("rb") as stream:
            start = 0
            while data := stream.read(IMAGES_PER_SHARD * record):
                yield start, np.frombuffer(data, np.uint8).reshape(-1, record)
                start += IMAGES_PER_SHARD
    except (OSError, ValueError) as error:  # ValueError: the file shrank to a part of a record
        raise SourceError(f"{source.title}: {file} cannot be read ({one_line(error)}). Fetch it again.") from error

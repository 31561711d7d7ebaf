"""Read CIFAR-10 and CIFAR-100 in their binary version: records of one or two label bytes and 3072 of a 32x32 image.

A record of CIFAR-10 is (label, pixels); one of CIFAR-100 is (coarse label, fine label, pixels), and the fine label is
taken. Pixels are stored as (3, 32, 32). Labels are the names in `batches.meta.txt` or `fine_label_names.txt` in the
same folder, or numbers if there is no such file.

A source is one file, whose paths are row numbers, or a folder. Of a folder, the source's split (train or test) selects
the files, and paths are `data_batch_1.bin/0`. The Python version is a pickle, which is never opened.

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

from pipeline.errors import SourceError, one_line
from pipeline.shard import Encoded, Pixels, Survey
from pipeline.sources.source import (
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    decompressed,
    files_fingerprint,
    opened,
    shard_key,
)

_IMAGE_SHAPE = (3, 32, 32)
_IMAGE_BYTES = 3072
_HEAD_BYTES = 512
_MAX_NAMES_BYTES = 2**16


class _Dataset(NamedTuple):
    """CIFAR-10 or CIFAR-100.

    Attributes:
        files: pattern of the names of its files, by split.
        label_bytes: labels of a record, one byte each; the last one is taken.
        names_file: name of the file with the names of the labels.
    """

    files: Mapping[str, re.Pattern[str]]
    label_bytes: int
    names_file: str

    @property
    def record_bytes(self) -> int:
        """Size of a record in bytes."""
        return self.label_bytes + _IMAGE_BYTES


_CIFAR10 = _Dataset(
    {"train": re.compile(r"data_batch_\d+\.bin"), "test": re.compile(r"test_batch\.bin")}, 1, "batches.meta.txt"
)
_CIFAR100 = _Dataset({"train": re.compile(r"train\.bin"), "test": re.compile(r"test\.bin")}, 2, "fine_label_names.txt")
_DATASETS = (_CIFAR10, _CIFAR100)

# The first member of the published archives, and the names of the pickles in the Python version.
_ARCHIVE_HEAD = re.compile(rb"cifar-(10-batches-(bin|py)|100-(binary|python))/")
_PICKLE_NAME = re.compile(r"data_batch_\d+|test_batch|train|test")
_PICKLE_MAGIC = b"\x80"


def recognises(path: Path, head: bytes) -> bool:
    """Recognise CIFAR by its file names, and its pickles and archives so that an error can help; see `FormModule`."""
    if path.is_dir():
        return bool(_datasets_in(path)) or _is_python_version(path)
    if _ARCHIVE_HEAD.match(head) or (_PICKLE_NAME.fullmatch(path.name) and head.startswith(_PICKLE_MAGIC)):
        return True
    return any(_has_name_of(path, dataset) and _has_whole_records(path, dataset) for dataset in _DATASETS)


def splits_of_folder(folder: Path) -> list[str]:
    """List the splits whose records a folder has: "train", "test" or both, in this order.

    Raises:
        OSError: the folder cannot be listed.
    """
    names = {file.name for file in folder.iterdir()}
    return [
        split
        for split in ("train", "test")
        if any(dataset.files[split].fullmatch(name) for dataset in _datasets_in(folder) for name in names)
    ]


def survey(source: Source) -> Survey:
    """Fingerprint the files of records and label names by size and time; see `FormModule`."""
    dataset, files = _find_records(source)
    names = files[0].with_name(dataset.names_file)
    return Survey(files_fingerprint(source, *files, *([names] if names.is_file() else [])))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield shards of consecutive records while the files stream; see `FormModule`."""
    dataset, files = _find_records(source)
    fingerprint = survey(source).fingerprint
    names = _read_names(source, files[0].with_name(dataset.names_file))
    batches = (
        (file, start, batch) for file in files for start, batch in _read_batches(source, file, dataset.record_bytes)
    )
    for number, (file, start, batch) in enumerate(batches):
        key = shard_key(source, number)
        if wanted is not None and key not in wanted:
            continue
        folder = f"{file.name}/" if source.path.is_dir() else ""
        pixels = batch[:, dataset.label_bytes :].reshape(-1, *_IMAGE_SHAPE).transpose(0, 2, 3, 1)
        yield Encoded(
            shard=key,
            fingerprint=fingerprint,
            paths=tuple(f"{folder}{row}" for row in range(start, start + len(batch))),
            labels=_label_texts(source, file, batch[:, dataset.label_bytes - 1], names),
            contents=Pixels(np.ascontiguousarray(pixels)),
        )


def _find_records(source: Source) -> tuple[_Dataset, list[Path]]:
    """Find the dataset and the files of records of a source."""
    try:
        return _records_in_folder(source) if source.path.is_dir() else _records_in_file(source)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {source.path} ({one_line(error)}). Check the path.") from error


def _records_in_file(source: Source) -> tuple[_Dataset, list[Path]]:
    path = source.path
    _refuse_python_version(source)
    if _ARCHIVE_HEAD.match(_read_head(path)):
        raise SourceError(
            f"{source.title}: {path} is an archive. Unpack the binary version of CIFAR and name its folder."
        )
    named = [dataset for dataset in _DATASETS if _has_name_of(path, dataset)]
    fitting = [dataset for dataset in named or _DATASETS if _has_whole_records(path, dataset)]
    if len(fitting) != 1:
        raise SourceError(
            f"{source.title}: {path} cannot be cut into CIFAR records of 3073 bytes (CIFAR-10) or 3074 bytes "
            "(CIFAR-100). Fetch it again, and keep its published name."
        )
    return fitting[0], [path]


def _records_in_folder(source: Source) -> tuple[_Dataset, list[Path]]:
    _refuse_python_version(source)
    datasets = _datasets_in(source.path)
    if len(datasets) != 1:
        found = "both CIFAR-10 and CIFAR-100" if datasets else "no CIFAR records"
        raise SourceError(f"{source.title}: {source.path} holds {found}. Name a file of records instead.")
    (dataset,) = datasets
    pattern = dataset.files.get(source.split)
    files = [file for file in source.path.iterdir() if pattern and pattern.fullmatch(file.name)]
    if not files:
        raise SourceError(
            f"{source.title}: {source.path} has no records for split '{source.split}'. A folder of CIFAR has train and "
            "test; name a file of records instead for another split."
        )
    for file in files:
        if not _has_whole_records(file, dataset):
            raise SourceError(
                f"{source.title}: {file} is cut short: {file.stat().st_size} bytes are not a whole number of records "
                f"of {dataset.record_bytes} bytes. Fetch it again."
            )
    # data_batch_10 comes after data_batch_9.
    return dataset, sorted(files, key=lambda file: (len(file.name), file.name))


def _refuse_python_version(source: Source) -> None:
    if _is_python_version(source.path):
        raise SourceError(
            f"{source.title}: {source.path} is the Python version of CIFAR, a pickle, which is never opened. Fetch the "
            "binary version."
        )


def _datasets_in(folder: Path) -> list[_Dataset]:
    """List the datasets in a folder; `train.bin` may be anything, so CIFAR-100 needs its label names beside it."""
    names = [file.name for file in folder.iterdir() if file.name.endswith((".bin", ".txt"))]
    return [
        dataset
        for dataset in _DATASETS
        if any(pattern.fullmatch(name) for pattern in dataset.files.values() for name in names)
        and (dataset is _CIFAR10 or dataset.names_file in names)
    ]


def _has_name_of(file: Path, dataset: _Dataset) -> bool:
    named = any(pattern.fullmatch(file.name) for pattern in dataset.files.values())
    return named and (dataset is _CIFAR10 or file.with_name(dataset.names_file).is_file())


def _has_whole_records(file: Path, dataset: _Dataset) -> bool:
    size = file.stat().st_size
    return size > 0 and size % dataset.record_bytes == 0


def _is_python_version(path: Path) -> bool:
    if path.is_dir():
        return any(_is_python_version(path / name) for name in ("test_batch", "test") if (path / name).is_file())
    return _PICKLE_NAME.fullmatch(path.name) is not None and _read_head(path).startswith(_PICKLE_MAGIC)


def _read_head(file: Path) -> bytes:
    try:
        with decompressed(file) as stream:
            return stream.read(_HEAD_BYTES)
    except DAMAGED:
        return b""


def _read_names(source: Source, file: Path) -> list[str]:
    """Read the names of labels, one on each line; empty if there is no such file."""
    if not file.is_file():
        return []
    with opened(source, file) as stream:
        data = stream.read(_MAX_NAMES_BYTES)
    try:
        names = [line.strip() for line in data.decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise SourceError(f"{source.title}: {file} is not UTF-8 text. Fetch it again.") from error
    if "" in names:
        raise SourceError(
            f"{source.title}: line {names.index('') + 1} of {file} is blank, so its class has no name. Fetch it again."
        )
    return names


def _label_texts(source: Source, file: Path, numbers: NDArray[np.uint8], names: list[str]) -> tuple[str, ...]:
    if names and numbers.max() >= len(names):
        raise SourceError(
            f"{source.title}: {file} has label {numbers.max()}, but its folder has only {len(names)} names of labels. "
            "One of the two files is damaged: fetch both again."
        )
    return tuple(map(names.__getitem__ if names else str, numbers.tolist()))


def _read_batches(source: Source, file: Path, record_bytes: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Stream a file as (number of the first row, (rows, record_bytes) uint8)."""
    try:
        with file.open("rb") as stream:
            start = 0
            while data := stream.read(IMAGES_PER_SHARD * record_bytes):
                yield start, np.frombuffer(data, np.uint8).reshape(-1, record_bytes)
                start += IMAGES_PER_SHARD
    except (OSError, ValueError) as error:  # ValueError: the file shrank and ends inside a record
        raise SourceError(f"{source.title}: {file} cannot be read ({one_line(error)}). Fetch it again.") from error

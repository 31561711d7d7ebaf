"""Cut an array of images and an array of labels into shards, one batch of rows at a time. `npz` and `mat` use it.

Pixels are uint8. Other types are accepted in two cases: every value is a whole number from 0 to 255 and some value is
above 1; or every value is (k - 127.5) / 255 for a whole k from 0 to 255, as in the notebooks of notMNIST. No other
scale is accepted, because the value of white would be a guess.

Labels are whole numbers of any type ("3", also for 3.0), text, or one-hot rows (the position of the one). NaN means
no label.

Class names replace numbers only if they fit: no name occurs twice, and every label except -1 has a name. -1 then means
no label. With classes from 1 to 10 and ten names, as in SVHN, 10 has no name, so the numbers stay.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.shard import Encoded, Pixels
from pipeline.sources.source import BYTES_PER_SHARD, IMAGES_PER_SHARD, Source, readable_name, shard_key

Array = NDArray[Any]

_CHANNELS = (1, 3)
_WHITE = 255
# (k - 127.5) / 255 for every k, and the largest accepted difference: float32 rounds by 3e-8.
_NORMALIZED = (np.arange(_WHITE + 1) - _WHITE / 2) / _WHITE
_TOLERANCE = 1e-6
# Above this, not every whole number is a float64.
_MAX_EXACT_FLOAT = 2**53
_MAX_LISTED_ARRAYS = 20


@dataclass(frozen=True)
class StoredArray:
    """An array in a file whose rows are not read yet.

    Attributes:
        file: the file.
        name: the array's name in the file.
        shape: (n, ...): the first axis counts images.
        dtype: type of the values; object if they are neither numbers nor text.
        description: name, shape and type as the file has them, for messages.
        read_batches: streams the array in batches of so many rows (the last one may be shorter) and checks that nothing
            follows. A batch may have a smaller type than `dtype`. Raises SourceError.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    description: str
    read_batches: Callable[[int], Iterator[Array]]

    @property
    def row_bytes(self) -> int:
        """Size of one row in bytes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def array_shards(  # noqa: PLR0913 - what arrays can hold
    source: Source,
    fingerprint: str,
    images: StoredArray,
    labels: StoredArray | None,
    wanted: AbstractSet[str] | None,
    *,
    class_names: StoredArray | None = None,
    channels_last: bool = False,
) -> Iterator[Encoded]:
    """Cut arrays into shards in the order of their rows. One batch of rows is in memory at a time.

    Args:
        source: the source of the arrays.
        fingerprint: the fingerprint of every shard.
        images: (n, height, width), (n, height, width, channels) or (n, channels, height, width), channels 1 or 3.
        labels: (n,), (n, 1, ...), or one-hot (n, classes); None if there are no labels.
        wanted: keys of the shards to yield; None for all.
        class_names: (c,) text that may name the classes 0 to c - 1 of `labels`; None if there is none.
        channels_last: images of four dimensions are (n, height, width, channels), even if the height could be a number
            of channels.

    Yields:
        Shards whose paths are row numbers.

    Raises:
        SourceError: an array is damaged, or does not hold images or labels.
    """
    axes = _axes_to_channels_last(source, images, channels_last=channels_last)
    if labels is not None:
        _check_labels(source, images, labels)
    step = _rows_per_shard(source, images, labels)
    names = None if labels is None or class_names is None else _names_by_label(source, labels, class_names, step)
    brightest, normalized = 0.0, False
    label_batches: Iterator[Array | None] = repeat(None) if labels is None else labels.read_batches(step)
    # With strict=True both streams are read to their end, where their checksums are.
    batches = zip(images.read_batches(step), label_batches, strict=labels is not None)
    for number, (batch, label_batch) in enumerate(batches):
        normalized = normalized if number else _is_normalized(batch[:1])
        pixels = _denormalize(source, images, batch) if normalized else _to_uint8(source, images, batch)
        brightest = max(brightest, pixels.max())
        key = shard_key(source, number)
        if wanted is None or key in wanted:
            texts = (
                (None,) * len(batch)
                if labels is None or label_batch is None
                else _checked_label_texts(source, labels, label_batch)
            )
            yield Encoded(
                shard=key,
                fingerprint=fingerprint,
                paths=tuple(map(str, range(number * step, number * step + len(batch)))),
                labels=texts if names is None else tuple(map(names.get, texts)),
                contents=Pixels(np.ascontiguousarray(pixels[..., None] if axes is None else pixels.transpose(axes))),
            )
    # Only the whole array shows whether all values are 0 or 1.
    if not normalized and brightest == 1 and images.dtype != np.uint8:
        raise SourceError(
            f"{source.title}: no value of {images.description} in {images.file} is above 1, so 1 may mean white. Save "
            "it as uint8, 0 to 255."
        )


def describe_array(name: str, shape: tuple[int, ...], kind: str) -> str:
    """Return name, shape and type of an array in one line."""
    return f"{' '.join(readable_name(name).split())} {shape} {kind}"


def describe_arrays(arrays: Sequence[StoredArray]) -> str:
    """List arrays for a message: name, shape and type of the first 20, and the number of the others."""
    shown = ", ".join(array.description for array in arrays[:_MAX_LISTED_ARRAYS]) or "none"
    more = len(arrays) - _MAX_LISTED_ARRAYS
    return f"{shown} and {more} more" if more > 0 else shown


def label_texts(values: Array) -> tuple[str | None, ...] | None:
    """Convert labels to text. Empty text and NaN become None.

    Args:
        values: (n,), or (n, 1, ...), of whole numbers or text; or one-hot rows, (n, classes).

    Returns:
        n labels, in order. None if the values are none of these.
    """
    flat = values.reshape(len(values)) if math.prod(values.shape[1:]) == 1 else values
    return _texts_of_vector(flat) if flat.ndim == 1 else _texts_of_one_hot(flat)


def _check_labels(source: Source, images: StoredArray, labels: StoredArray) -> None:
    if labels.shape[:1] != images.shape[:1]:
        raise SourceError(
            f"{source.title}: {source.path} has {images.shape[0]} images but {math.prod(labels.shape[:1])} labels: "
            f"{images.description}, {labels.description}. Check that they belong together, or set "
            'labels = "" for no labels.'
        )
    if labels.dtype.kind not in "buifSU" or not labels.row_bytes:
        raise _invalid_labels(source, labels)


def _invalid_labels(source: Source, labels: StoredArray) -> SourceError:
    return SourceError(
        f"{source.title}: {labels.description} in {labels.file} does not hold labels: (n,) or (n, 1) whole numbers or "
        "UTF-8 text, or one-hot (n, classes). Python objects are never unpickled. Name another array with "
        'labels = "..." in the recipe, or set labels = "" for no labels.'
    )


def _rows_per_shard(source: Source, images: StoredArray, labels: StoredArray | None) -> int:
    """Choose the rows of a shard so that neither its stored images nor its stored labels exceed BYTES_PER_SHARD."""
    widest = max(images.row_bytes, labels.row_bytes if labels else 0)
    if not images.shape[0]:
        raise SourceError(
            f"{source.title}: {images.description} in {images.file} holds no images. Check that it is the right file."
        )
    if not 0 < images.row_bytes <= widest <= BYTES_PER_SHARD:
        raise SourceError(
            f"{source.title}: {images.description} in {images.file} is damaged, or does not hold images. Check that it "
            "is the right file."
        )
    return min(IMAGES_PER_SHARD, BYTES_PER_SHARD // widest)


def _axes_to_channels_last(source: Source, images: StoredArray, *, channels_last: bool) -> tuple[int, ...] | None:
    """Return the transposition to (n, height, width, channels); None for (n, height, width)."""
    shape = images.shape
    if images.dtype.kind not in "uif":
        raise SourceError(
            f"{source.title}: {images.description} in {images.file} does not hold numbers that can be pixels. Python "
            "objects are never unpickled. Save it as uint8, 0 to 255."
        )
    if len(shape) == 3:  # noqa: PLR2004 - n, height, width
        return None
    last, first = (len(shape) == 4 and shape[axis] in _CHANNELS for axis in (3, 1))  # noqa: PLR2004 - with channels
    if last == first and not (last and channels_last):
        what = "may have its channels first or last" if last else "is not an array of images"
        raise SourceError(
            f"{source.title}: {images.description} in {images.file} {what}. Save it as (n, height, width) or (n, "
            'height, width, 3), or name another array with images = "..." in the recipe.'
        )
    return (0, 1, 2, 3) if last else (0, 2, 3, 1)


def _to_uint8(source: Source, images: StoredArray, batch: Array) -> NDArray[np.uint8]:
    if batch.dtype == np.uint8:
        return batch
    with np.errstate(invalid="ignore"):
        valid = (batch >= 0) & (batch <= _WHITE)
        if batch.dtype.kind == "f":
            valid &= batch == np.trunc(batch)
    if not valid.all():
        raise _unknown_scale(source, images, batch[~valid][0])
    return batch.astype(np.uint8)


def _is_normalized(batch: Array) -> bool:
    """Return whether every value is (k - 127.5) / 255 for a whole k from 0 to 255."""
    if batch.dtype.kind != "f" or not batch.size or not (np.abs(batch) < 1).all():
        return False
    levels = np.rint(batch * _WHITE + _WHITE / 2).astype(np.int64)
    return bool(((levels >= 0) & (levels <= _WHITE) & _is_close(batch, levels)).all())


def _denormalize(source: Source, images: StoredArray, batch: Array) -> NDArray[np.uint8]:
    """Convert (k - 127.5) / 255 to k."""
    with np.errstate(invalid="ignore"):
        levels = np.rint(batch.clip(-1, 1) * _WHITE + _WHITE / 2).clip(0, _WHITE).astype(np.uint8)
        valid = _is_close(batch, levels)
    if not valid.all():
        raise _unknown_scale(source, images, batch[~valid][0])
    return levels


def _is_close(batch: Array, levels: Array) -> NDArray[np.bool_]:
    close: NDArray[np.bool_] = np.abs(batch - _NORMALIZED.astype(batch.dtype)[levels.clip(0, _WHITE)]) <= _TOLERANCE
    return close


def _unknown_scale(source: Source, images: StoredArray, value: Any) -> SourceError:  # noqa: ANN401 - any type
    return SourceError(
        f"{source.title}: {images.description} in {images.file} holds {value}, which is not a whole number from 0 to "
        "255, so the values of black and white are unknown. Save it as uint8, 0 to 255. The only other floats that are "
        "accepted are (k - 127.5) / 255 for whole k from 0 to 255."
    )


def _names_by_label(
    source: Source, labels: StoredArray, class_names: StoredArray, step: int
) -> dict[str | None, str | None] | None:
    """Map every label to its class name; None if the names do not fit the labels.

    Args:
        source: the source, for errors.
        labels: numbers.
        class_names: text: row i is the name of label i.
        step: rows of labels to read at a time.
    """
    texts: list[str | None] = []
    for batch in class_names.read_batches(max(1, *class_names.shape)):
        batch_texts = _texts_of_vector(batch.reshape(-1))
        if batch_texts is None:
            return None
        texts += batch_texts
    if len(set(texts)) < len(texts):
        return None
    names: dict[str | None, str | None] = {
        None: None,
        "-1": None,
        **{str(number): text for number, text in enumerate(texts) if text},
    }
    batches = labels.read_batches(step)
    complete = all(names.keys() >= set(_checked_label_texts(source, labels, batch)) for batch in batches)
    return names if complete else None


def _checked_label_texts(source: Source, labels: StoredArray, batch: Array) -> tuple[str | None, ...]:
    texts = label_texts(batch)
    if texts is None:
        raise _invalid_labels(source, labels)
    return texts


def _texts_of_vector(values: Array) -> tuple[str | None, ...] | None:
    kind = values.dtype.kind
    if kind == "f":
        return _texts_of_floats(values)
    if kind in "SU":
        try:
            texts = (np.char.decode(values, "utf-8") if kind == "S" else values).tolist()
            "".join(texts).encode()
        except ValueError:  # not UTF-8, or surrogates
            return None
        return tuple(text or None for text in texts)
    if kind not in "bui":
        return None
    return tuple(map(str, (values.astype(np.uint8) if kind == "b" else values).tolist()))


def _texts_of_floats(values: Array) -> tuple[str | None, ...] | None:
    present = ~np.isnan(values)
    # In double precision: _MAX_EXACT_FLOAT exceeds the range of half precision.
    numbers = values[present].astype(np.float64)
    if not ((np.abs(numbers) <= _MAX_EXACT_FLOAT) & (numbers == np.trunc(numbers))).all():
        return None
    texts = np.full(len(values), None, dtype=object)
    texts[present] = list(map(str, numbers.astype(np.int64).tolist()))
    return tuple(texts.tolist())


def _texts_of_one_hot(values: Array) -> tuple[str | None, ...] | None:
    if values.ndim != 2 or values.dtype.kind not in "buif":  # noqa: PLR2004 - (n, classes)
        return None
    ones = values == 1
    if not ((ones.sum(axis=1) == 1) & (ones == (values != 0)).all(axis=1)).all():
        return None
    return tuple(map(str, ones.argmax(axis=1).tolist()))


_CHUNK_BYTES = 2**20
# Most bytes that are read at once: one image, a batch of images, or all labels.
_MAX_BYTES = 2**30


class ByteStream(Protocol):
    """A stream of bytes that can only be read forward."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; empty bytes mean the end of the stream."""
        ...


def read_exactly(stream: ByteStream, size: int) -> bytearray:
    """Read an exact number of bytes.

    Memory grows with the bytes that are there, not with `size`: a damaged header may promise more than the file has.

    Args:
        stream: the stream, at the first byte to read.
        size: the number of bytes.

    Returns:
        `size` bytes.

    Raises:
        ValueError: the stream ends before, or `size` is above 1 GiB. Errors of the stream itself pass through.
    """
    if size > _MAX_BYTES:
        raise ValueError(f"it declares {size} bytes to be read at once; the most are {_MAX_BYTES}")
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(size - len(data), _CHUNK_BYTES))):
        data += chunk
    if len(data) != size:
        raise ValueError(f"{size} bytes expected, {len(data)} found")
    return data

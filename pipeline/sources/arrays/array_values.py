"""Pictures and labels that a file holds as arrays, in runs of rows: what `npz` and `mat` share.

Pixels are uint8. Another type is taken only where every value is a whole number from 0 to 255, and some value is above
1; and floats where every value is (k - 127.5) / 255 for a whole k from 0 to 255, as in the notebooks of notMNIST. No
other scale says which value is white.

Labels are whole numbers of any type ("3", also for 3.0), text, or one-hot rows (the position of the one). NaN is no
label.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.shard import Encoded, Pixels
from pipeline.sources.source import BYTES_PER_SHARD, IMAGES_PER_SHARD, Source, readable_name, shard_key

Values = NDArray[Any]

_CHANNELS = (1, 3)
_GRAY, _COLOUR = 3, 4  # dimensions of an array of pictures
_WHITE = 255
# (k - 127.5) / 255 for every k, and how far a value may be from one of these: float32 rounds by 3e-8.
_NORMALISED = (np.arange(_WHITE + 1) - _WHITE / 2) / _WHITE
_NEAR = 1e-6
# Beyond, not every whole number is a float.
_EXACT = 2**53


@dataclass(frozen=True)
class Stored:
    """An array in a file, its rows not read yet.

    Attributes:
        file: the file.
        name: what the file calls the array.
        shape: (n, ...): its first axis counts pictures.
        dtype: type that its values were saved as; object where they are neither numbers nor text.
        title: name, shape and type as the file has them, for messages.
        runs: streams the array in runs of so many rows, the last one shorter, and checks that nothing follows. A run
            may come in a smaller type than `dtype`. Raises SourceError.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    title: str
    runs: Callable[[int], Iterator[Values]]

    @property
    def row_bytes(self) -> int:
        """Size of one row, in bytes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def shards(  # noqa: PLR0913 - what arrays can say
    source: Source,
    fingerprint: str,
    images: Stored,
    labels: Stored | None,
    wanted: AbstractSet[str] | None,
    *,
    names: Stored | None = None,
    channels_last: bool = False,
) -> Iterator[Encoded]:
    """Cut arrays into shards while they stream past: one run of rows is held at a time.

    Args:
        source: whose arrays these are.
        fingerprint: of every shard.
        images: (n, height, width), (n, height, width, channels) or (n, channels, height, width), channels 1 or 3.
        labels: (n,), (n, 1, ...), or one-hot (n, classes); None where pictures have none.
        wanted: keys of the shards to hand out; None for all.
        names: (c,) text that may name the classes 0 to c - 1 of `labels`; None where there is none.
        channels_last: images of four dimensions are (n, height, width, channels), also where the height could be a
            number of channels.

    Yields:
        Shards whose paths are row numbers.

    Raises:
        SourceError: an array is damaged, or no pictures or labels.
    """
    axes = _axes(source, images, channels_last=channels_last)
    if labels is not None:
        _check_labels(source, images, labels)
    step = _step(source, images, labels)
    known = None if labels is None or names is None else _known(source, labels, names, step)
    brightest, normalised = 0.0, False
    named: Iterator[Values | None] = repeat(None) if labels is None else labels.runs(step)
    # Strict, both streams are read to their end, where their checksums are.
    for number, (run, numbers) in enumerate(zip(images.runs(step), named, strict=labels is not None)):
        normalised = normalised if number else _is_normalised(run[:1])
        pixels = _from_normalised(source, images, run) if normalised else _pixels(source, images, run)
        brightest = max(brightest, pixels.max())
        key = shard_key(source, number)
        if wanted is None or key in wanted:
            texts = (None,) * len(run) if labels is None or numbers is None else _texts(source, labels, numbers)
            yield Encoded(
                shard=key,
                fingerprint=fingerprint,
                paths=tuple(map(str, range(number * step, number * step + len(run)))),
                labels=texts if known is None else tuple(map(known.get, texts)),
                contents=Pixels(_pictures(pixels, axes)),
            )
    if not normalised:
        _check_scale(source, images, brightest)


def title_of(name: str, shape: tuple[int, ...], kind: str) -> str:
    """Say in one line what an array is, as its file has it."""
    return f"{' '.join(readable_name(name).split())} {shape} {kind}"


def listed(arrays: Sequence[Stored]) -> str:
    """List arrays for a message: name, shape and type of each, of many only the first."""
    most = 20
    more = f" and {len(arrays) - most} more" if len(arrays) > most else ""
    return (", ".join(array.title for array in arrays[:most]) or "none") + more


def _check_scale(source: Source, images: Stored, brightest: float) -> None:
    """Refuse numbers that are all 0 or 1: only the whole array tells."""
    if brightest == 1 and images.dtype != np.uint8:
        raise SourceError(
            f"{source.title}: no value of {images.title} in {images.file} is above 1, so 1 may stand for white. Save "
            "it as uint8, 0 to 255."
        )


def _check_labels(source: Source, images: Stored, labels: Stored) -> None:
    if labels.shape[:1] != images.shape[:1]:
        raise SourceError(
            f"{source.title}: {source.path} has {images.shape[0]} images but {math.prod(labels.shape[:1])} labels: "
            f'{images.title}, {labels.title}. Check that they belong together, or say labels = "" for no labels.'
        )
    if labels.dtype.kind not in "buifSU" or not labels.row_bytes:
        raise _no_labels(source, labels)


def _no_labels(source: Source, labels: Stored) -> SourceError:
    return SourceError(
        f"{source.title}: {labels.title} in {labels.file} holds no labels that are read: (n,) or (n, 1) of whole "
        "numbers or UTF-8 text, or one-hot (n, classes); Python objects are never unpickled. Name another array with "
        'labels = "..." in the recipe, or none with labels = "".'
    )


def _step(source: Source, images: Stored, labels: Stored | None) -> int:
    """Rows a shard, so that neither the pictures of one nor their labels outgrow it as they are stored."""
    widest = max(images.row_bytes, labels.row_bytes if labels else 0)
    if not images.shape[0]:
        raise SourceError(f"{source.title}: {images.title} in {images.file} holds no images.")
    if not 0 < images.row_bytes <= widest <= BYTES_PER_SHARD:
        raise SourceError(f"{source.title}: {images.title} in {images.file} is damaged, or no images.")
    return min(IMAGES_PER_SHARD, BYTES_PER_SHARD // widest)


def _axes(source: Source, images: Stored, *, channels_last: bool) -> tuple[int, ...] | None:
    """Tell what brings the axes into the order (n, height, width, channels); None where a last axis is to be added."""
    shape = images.shape
    if images.dtype.kind not in "uif":
        raise SourceError(
            f"{source.title}: {images.title} in {images.file} holds no numbers to take as pixels; Python objects are "
            "never unpickled. Save it as uint8, 0 to 255."
        )
    if len(shape) == _GRAY:
        return None
    last, first = (len(shape) == _COLOUR and shape[axis] in _CHANNELS for axis in (3, 1))
    if last == first and not (last and channels_last):
        what = "may have its channels first or last" if last else "is no array of images"
        raise SourceError(
            f"{source.title}: {images.title} in {images.file} {what}. Save it as (n, height, width) or (n, height, "
            'width, 3), or name another array with images = "..." in the recipe.'
        )
    return (0, 1, 2, 3) if last else (0, 2, 3, 1)


def _pictures(pixels: NDArray[np.uint8], axes: tuple[int, ...] | None) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[..., None] if axes is None else pixels.transpose(axes))


def _pixels(source: Source, images: Stored, run: Values) -> NDArray[np.uint8]:
    if run.dtype == np.uint8:
        return run
    with np.errstate(invalid="ignore"):
        good = (run >= 0) & (run <= _WHITE)
        if run.dtype.kind == "f":
            good &= run == np.trunc(run)
    if not good.all():
        raise _unscaled(source, images, run[~good][0])
    return run.astype(np.uint8)


def _is_normalised(run: Values) -> bool:
    if run.dtype.kind != "f" or not run.size or not (np.abs(run) < 1).all():
        return False
    levels = np.rint(run * _WHITE + _WHITE / 2).astype(np.int64)
    return bool(((levels >= 0) & (levels <= _WHITE) & _is_near(run, levels)).all())


def _from_normalised(source: Source, images: Stored, run: Values) -> NDArray[np.uint8]:
    """Turn (k - 127.5) / 255 into k."""
    with np.errstate(invalid="ignore"):
        levels = np.rint(run.clip(-1, 1) * _WHITE + _WHITE / 2).clip(0, _WHITE).astype(np.uint8)
        good = _is_near(run, levels)
    if not good.all():
        raise _unscaled(source, images, run[~good][0])
    return levels


def _is_near(run: Values, levels: NDArray[Any]) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = np.abs(run - _NORMALISED.astype(run.dtype)[levels.clip(0, _WHITE)]) <= _NEAR
    return near


def _unscaled(source: Source, images: Stored, value: Any) -> SourceError:  # noqa: ANN401 - a number of any type
    return SourceError(
        f"{source.title}: {images.title} in {images.file} holds {value}, no whole number from 0 to 255: "
        "which value is black and which white is not known. Save it as uint8, 0 to 255. Of other floats only "
        "(k - 127.5) / 255 is read, for whole k from 0 to 255."
    )


def _known(source: Source, labels: Stored, names: Stored, step: int) -> dict[str | None, str | None] | None:
    """Tell the name of every label that occurs; None where the names are not those of these labels.

    Args:
        source: whose labels these are.
        labels: numbers.
        names: text: row i is the name of label i.
        step: rows of labels that are read at a time.
    """
    spelled = [_spelled(run.reshape(-1)) for run in names.runs(max(1, *names.shape))]
    texts = [text for run in spelled for text in run or ()]
    if None in spelled or len(set(texts)) < len(texts):
        return None
    known: dict[str | None, str | None] = {
        None: None,
        "-1": None,
        **{str(number): text for number, text in enumerate(texts) if text},
    }
    fits = all(known.keys() >= set(_texts(source, labels, run)) for run in labels.runs(step))
    return known if fits else None


def _texts(source: Source, labels: Stored, run: Values) -> tuple[str | None, ...]:
    texts = label_texts(run)
    if texts is None:
        raise _no_labels(source, labels)
    return texts


def label_texts(values: Values) -> tuple[str | None, ...] | None:
    """Spell labels: text without a letter and NaN are no label.

    Args:
        values: (n,), or (n, 1, ...), of whole numbers or text; or one-hot rows, (n, classes).

    Returns:
        n labels; None where the values are none of these.
    """
    flat = values.reshape(len(values)) if math.prod(values.shape[1:]) == 1 else values
    return _spelled(flat) if flat.ndim == 1 else _spelled_one_hot(flat)


def _spelled(values: Values) -> tuple[str | None, ...] | None:
    kind = values.dtype.kind
    if kind == "f":
        return _spelled_floats(values)
    if kind in "SU":
        try:
            texts = (np.char.decode(values, "utf-8") if kind == "S" else values).tolist()
            "".join(texts).encode()
        except ValueError:  # no UTF-8, or no characters at all
            return None
        return tuple(text or None for text in texts)
    if kind not in "bui":
        return None
    if kind == "b":
        values = values.astype(np.uint8)
    return tuple(map(str, values.tolist()))


def _spelled_floats(values: Values) -> tuple[str | None, ...] | None:
    known = ~np.isnan(values)
    # In double precision: the largest whole number is beyond what half precision holds.
    numbers = values[known].astype(np.float64)
    if not ((np.abs(numbers) <= _EXACT) & (numbers == np.trunc(numbers))).all():
        return None
    texts = np.full(len(values), None, dtype=object)
    texts[known] = list(map(str, numbers.astype(np.int64).tolist()))
    return tuple(texts.tolist())


def _spelled_one_hot(values: Values) -> tuple[str | None, ...] | None:
    if values.ndim != 2 or values.dtype.kind not in "buif":  # noqa: PLR2004 - (n, classes)
        return None
    ones = values == 1
    if not ((ones.sum(axis=1) == 1) & (ones == (values != 0)).all(axis=1)).all():
        return None
    return tuple(map(str, ones.argmax(axis=1).tolist()))

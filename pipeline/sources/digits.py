"""The digits that scikit-learn contains: 1,797 images of 8x8 pixels. The uri of the source is not read.

Values are amounts of ink, 0 to 16. A pixel is the value scaled to 0 to 255, rounded half up: `(255 * ink + 8) // 16`.
No ink is 0, full ink is 255, half of it is 128, and different values stay different.

References:
    The test set of "Optical Recognition of Handwritten Digits", https://archive.ics.uci.edu/dataset/80.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Pixels, Survey
from pipeline.sources.source import Source, shard_key

_MAX_INK = 16
# Change when other pixels or labels are returned. The set itself has never changed.
_VERSION = "digits-1"


def recognises(path: Path, head: bytes) -> bool:
    """Return False: digits are only chosen by `format`; see `pipeline.sources`."""
    del path, head
    return False


def survey(source: Source) -> Survey:
    """Return the fingerprint of the only shard; see `pipeline.sources`."""
    fingerprint = digest_of(_VERSION)
    return Survey(fingerprint, {shard_key(source, 0): fingerprint})


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield all images as one shard; see `pipeline.sources`."""
    key = shard_key(source, 0)
    if wanted is not None and key not in wanted:
        return
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to import: only for this source

    ink, labels = load_digits(return_X_y=True)
    pixels = (ink.astype(np.uint16) * 255 + _MAX_INK // 2) // _MAX_INK
    yield Encoded(
        shard=key,
        fingerprint=digest_of(_VERSION),
        paths=tuple(map(str, range(len(pixels)))),
        labels=tuple(map(str, labels.tolist())),
        contents=Pixels(pixels.astype(np.uint8).reshape(-1, 8, 8, 1)),
    )

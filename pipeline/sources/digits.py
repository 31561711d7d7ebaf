"""scikit-learn's bundled digits: 1,797 pictures of 8x8. Nothing is read from the source's uri, nothing downloaded.

Values are counts of ink, 0 to 16. A pixel is the count scaled to 0 to 255, rounded half up: `(255 * count + 8) // 16`.
So no ink is 0, full ink 255, no two counts become one, and 128 is reached where half of the ink is.

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

_FULL = 16
# Raise when other pixels or labels come out: the set itself has never changed.
_VERSION = "digits-1"


def recognises(path: Path, head: bytes) -> bool:
    """Digits are named by `format` alone; see `pipeline.sources`."""
    del path, head
    return False


def survey(source: Source) -> Survey:
    """Know the only shard without loading it; see `pipeline.sources`."""
    fingerprint = digest_of(_VERSION)
    return Survey(fingerprint, {shard_key(source, 0): fingerprint})


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Hand out all pictures as one shard; see `pipeline.sources`."""
    key = shard_key(source, 0)
    if wanted is not None and key not in wanted:
        return
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to import: only for those who ask for it

    counts, labels = load_digits(return_X_y=True)
    pixels = (counts.astype(np.uint16) * 255 + _FULL // 2) // _FULL
    yield Encoded(
        shard=key,
        fingerprint=digest_of(_VERSION),
        paths=tuple(map(str, range(len(pixels)))),
        labels=tuple(map(str, labels.tolist())),
        contents=Pixels(pixels.astype(np.uint8).reshape(-1, 8, 8, 1)),
    )

"""file: equal bytes of the encoded files, by their SHA-256, whatever the pixels are reduced to."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.arrow_columns import from_binary

# Bytes of a key.
_KEY_BYTES = 16


def rule(_: str | None) -> Callable[[pa.Array, pa.Array | None], NDArray[np.uint8]]:
    """Make the rule; its key is the first half of the digest.

    Returns:
        A function from the columns image_id and file_digest to keys, (n, 16) uint8. An image without a digest, of
        imagelake 0.5, has its own id as key, which no other image has.
    """
    return _keys


def _keys(image_ids: pa.Array, digests: pa.Array | None) -> NDArray[np.uint8]:
    import pyarrow.compute as pc  # noqa: PLC0415 - as in `pipeline.pixels`

    halves = image_ids if digests is None else pc.coalesce(pc.binary_slice(digests, 0, _KEY_BYTES), image_ids)
    return from_binary(halves, _KEY_BYTES)

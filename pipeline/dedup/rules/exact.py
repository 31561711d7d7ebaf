"""exact: equal pixels and equal shape."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import content_hashes


def rule(parameter: str | None) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Make the rule; its key is the content hash.

    Returns:
        A function from (n, height, width, channels) uint8 to keys, (n, 16) uint8.

    Raises:
        ValueError: there is a parameter.
    """
    if parameter is not None:
        raise ValueError("it takes no parameter; write exact")
    return content_hashes

"""exact: equal pixels and shape."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import content_hashes


def rule(parameter: str | None) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Make the rule; its key is the content_hash.

    Raises:
        ValueError: a parameter is given; it takes none.
    """
    if parameter is not None:
        raise ValueError("it takes no parameter; write exact")
    return content_hashes

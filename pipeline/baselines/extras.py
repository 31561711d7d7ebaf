"""Libraries that only some models need."""

import sys
from importlib.util import find_spec

from pipeline.errors import MissingExtraError
from pipeline.recipe import BaselinePart

# By model, what it imports when it is fitted.
_NEEDS = {"dense": "torch", "lenet": "torch"}


def need_extra(spec: BaselinePart) -> None:
    """Make sure that what a model needs is installed, without importing it.

    Raises:
        MissingExtraError: it is not.
    """
    needed = _NEEDS.get(spec.model)
    if needed is None or (sys.modules[needed] if needed in sys.modules else find_spec(needed)) is not None:
        return
    raise MissingExtraError(
        f"baseline '{spec.model}' on split '{spec.split}' needs {needed}, which is not installed. Install it with "
        f"pip install {needed}, or take the baseline out."
    )

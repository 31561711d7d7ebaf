"""Libraries that only some models need."""

from importlib import import_module

from pipeline.errors import MissingExtraError
from pipeline.recipe import BaselinePart


def need_torch(spec: BaselinePart) -> None:
    """Make sure that torch is there.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import_module("torch")
    except ModuleNotFoundError as missing:
        if missing.name != "torch":  # torch is there but broken: its own words tell what is wrong
            raise
        raise MissingExtraError(
            f"baseline '{spec.model}' on split '{spec.split}' needs torch, which is not installed. Install it with "
            'pip install "imagelake[torch]", or take the baseline out.'
        ) from missing

"""imagelake: labelled image archives in; a queryable, deduplicated, leak-free lake out.

The public API is what `__all__` lists, also as `imagelake`; everything else is private. Names are loaded when they are
first used, so that importing the package is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.arrays.npy_folder import open_npy
    from pipeline.builder.build import build, plan
    from pipeline.checks import run_checks
    from pipeline.errors import (
        BaselineError,
        BusyLakeError,
        CheckError,
        DiskFullError,
        EngineError,
        FeedError,
        ImagelakeError,
        LakeError,
        LimitError,
        MissingExtraError,
        NewerLakeError,
        NoReleaseError,
        QueryError,
        RecipeError,
        SourceError,
        SplitError,
        StorageError,
    )
    from pipeline.lake_handle import Lake
    from pipeline.recipe import Recipe, read_recipe

__all__ = [
    "BaselineError",
    "BusyLakeError",
    "CheckError",
    "DiskFullError",
    "EngineError",
    "FeedError",
    "ImagelakeError",
    "Lake",
    "LakeError",
    "LimitError",
    "MissingExtraError",
    "NewerLakeError",
    "NoReleaseError",
    "QueryError",
    "Recipe",
    "RecipeError",
    "SourceError",
    "SplitError",
    "StorageError",
    "build",
    "open_npy",
    "plan",
    "read_recipe",
    "run_checks",
]

_MODULES = {
    "Lake": "lake_handle",
    "Recipe": "recipe",
    "read_recipe": "recipe",
    "build": "builder.build",
    "plan": "builder.build",
    "open_npy": "arrays.npy_folder",
    "run_checks": "checks",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in __all__:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(import_module(f"pipeline.{_MODULES.get(name, 'errors')}"), name)

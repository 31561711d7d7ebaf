"""The public Python API of imagelake: `from imagelake import Lake`.

The code is in the packages `pipeline` and `schemas`, which are installed beside this one. Those are common names: a
file `pipeline.py` in the current folder would be imported in their place. Importing `imagelake` loads the installed
packages, whatever the current folder holds; see docs/decisions/0026-import-imagelake.md.
"""

import sys

if sys.argv[:1] == ["-m"] and {"imagelake", "imagelake.__main__", "-mimagelake"} & set(sys.orig_argv):
    # `python -m imagelake` put the current folder first: no module is imported from it.
    del sys.path[0]

from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline import *  # noqa: F403 - type checkers read the names of `pipeline.__all__` here

_HERE = Path(__file__).resolve().parent
# Holds a stand-in for each package. Worker processes inherit `sys.path`, but not the modules that are loaded.
_NAMES = _HERE / "_names"
_PACKAGES = ("pipeline", "schemas")


def _load(name: str) -> ModuleType:
    """Import the package that is installed beside this one, whatever else `sys.path` holds under its name.

    Raises:
        ImportError: another module of that name is loaded already, or the package is not installed.
    """
    file = _HERE.parent / name / "__init__.py"
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None)
    if loaded is not None and _is(origin, file):
        return loaded
    if loaded is not None and not _is(origin, _NAMES / f"{name}.py"):
        raise ImportError(
            f"imagelake cannot be imported: its package '{name}' has the same name as {origin or loaded}, which this "
            "process has already imported. Rename that module."
        )
    spec = spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
    if spec is None or spec.loader is None or not file.exists():
        raise ImportError(f"imagelake is not installed completely: {file} is missing. Install it again.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is(found: str | None, file: Path) -> bool:
    return found is not None and Path(found).resolve() == file


def _is_shadowed(name: str) -> bool:
    """Find out whether `import NAME` would import something other than the package beside this one."""
    spec = PathFinder.find_spec(name)
    return spec is None or not _is(spec.origin, _HERE.parent / name / "__init__.py")


if str(_NAMES) not in sys.path and any(map(_is_shadowed, _PACKAGES)):
    sys.path.insert(0, str(_NAMES))

_pipeline = _load("pipeline")
__all__ = list(_pipeline.__all__)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: `pipeline` imports polars and pyarrow when first used
    if name in __all__:
        return getattr(_pipeline, name)
    raise AttributeError(f"module 'imagelake' has no attribute '{name}'. It has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

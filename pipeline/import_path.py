"""Keep the current folder out of the module search path of commands and workers.

A file there may have the name of any module, such as `secrets.py`. It is data of a stranger, and must not run.
"""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The folder that holds imagelake. It stays on the path where it is the current folder, as in a checkout.
HOME = str(Path(__file__).resolve().parents[1])


def without_current_folder(entries: Sequence[str], current: str | None = None) -> list[str]:
    """Return the entries of a module search path that do not name the current folder.

    Args:
        entries: entries of `sys.path` or PYTHONPATH; an empty one names the current folder.
        current: the current folder; None for that of this process.

    Returns:
        The other entries, in order, and the folder that holds imagelake.
    """
    return [entry for entry in entries if not _is_current(entry, current)]


def _is_current(entry: str, current: str | None) -> bool:
    """Whether an entry names the current folder. If that folder is deleted, only an empty entry does."""
    try:
        folder = Path(current) if current else Path.cwd()
        return folder.samefile(entry or folder) and not folder.samefile(HOME)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return not entry


def drop_current_folder() -> None:
    """Remove the current folder from the module search path of this process. For commands only."""
    sys.path[:] = without_current_folder(sys.path)


@contextmanager
def workers_start_safely() -> Iterator[None]:
    """Let processes that `multiprocessing` starts in this block import nothing from the current folder.

    They get neither its entry of `sys.path` nor `__main__`: a worker only runs functions of imagelake. `sys.path` and
    `sys.modules` of this process do not change.
    """
    from multiprocessing import spawn  # noqa: PLC0415 - slow to import, and not needed by most commands

    describe, thread = spawn.get_preparation_data, threading.get_ident()

    def describe_safely(name: str) -> dict[str, Any]:
        with current_folder_named() as exists:
            data: dict[str, Any] = describe(name)
        if not (exists and os.access(data["dir"], os.X_OK)):
            # The worker could not change to the folder. It starts in it without that, as every process does.
            del data["dir"]
        if threading.get_ident() == thread:
            data["sys_path"] = without_current_folder(sys.path)
            for key in ("init_main_from_name", "init_main_from_path", "main_path"):
                data.pop(key, None)
        return data

    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    if before["PYTHONPATH"] is not None:
        os.environ["PYTHONPATH"] = os.pathsep.join(without_current_folder(before["PYTHONPATH"].split(os.pathsep)))
    # Python then does not put the current folder on the path of a process that it starts with -c.
    os.environ["PYTHONSAFEPATH"] = "1"
    spawn.get_preparation_data = describe_safely
    try:
        yield
    finally:
        spawn.get_preparation_data = describe
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def current_folder_named() -> Iterator[bool]:
    """Let `os.getcwd`, which fails in a deleted folder, return `/` in this block.

    Yields:
        Whether the current folder exists.
    """
    named = os.getcwd
    try:
        named()
    except OSError:
        os.getcwd = lambda: os.sep
        try:
            yield False
        finally:
            os.getcwd = named
    else:
        yield True

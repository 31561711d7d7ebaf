"""One writer at a time: a lock on the lake's folder, which the system lets go when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DiskFullError, LakeError
from pipeline.lake.parts import full_disk_named


@contextmanager
def writing(root: str) -> Iterator[None]:
    """Hold a lake for writing; readers are never held up.

    Args:
        root: the lake's folder; made if it is missing.

    Raises:
        LakeError: another build or vacuum holds it, or the folder cannot be written to.
    """
    try:
        with full_disk_named(root):
            Path(root).mkdir(parents=True, exist_ok=True)
            handle = os.open(Path(root) / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except DiskFullError:
        raise
    except OSError as error:
        raise LakeError(f"{root}: cannot be written to ({error.strerror}). Give lake.root another folder.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise LakeError(f"{root}: another build is writing to this lake. Wait for it to end, then run again.") from None
    try:
        yield
    finally:
        os.close(handle)

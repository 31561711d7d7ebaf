"""Locks on open files, on every operating system. The system releases a lock when its process ends, however it ends."""

import portalocker

from pipeline.errors import LakeError


def try_lock(handle: int, name: object) -> bool:
    """Lock an open file, if no other process or handle has locked it. Closing the handle releases the lock.

    Args:
        handle: of a file that is open for writing.
        name: of the file, for errors.

    Returns:
        Whether it is locked now.

    Raises:
        LakeError: the file system has no locks.
    """
    try:
        portalocker.lock(handle, portalocker.LOCK_EX | portalocker.LOCK_NB)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise LakeError(
            f"{name}: the file system has no locks ({error}), so that two builds could write at once. Use a folder of "
            "another file system, or a bucket."
        ) from error
    return True

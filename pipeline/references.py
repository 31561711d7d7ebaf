"""Original files that the lake references instead of keeping their bytes."""

import os
import re
from pathlib import Path

from pipeline.errors import LakeError
from pipeline.hashing import file_digest

_AGAIN = "To read it again, run: imagelake build RECIPE.toml --repair"
_KEEP = 'Set originals = "keep" in [decode] and build again: then the lake has the files.'


def read_reference(location: str, digest: bytes) -> bytes:
    """Read an original file that the lake references.

    Args:
        location: as in the originals table.
        digest: SHA-256 that the file must have.

    Raises:
        LakeError: the file is not there, cannot be read alone, or has changed.
    """
    try:
        data = reference_path(location).read_bytes()
    except OSError as error:
        where = "is inside of another file" if "#" in location else f"cannot be read ({error.strerror})"
        raise LakeError(f"the original file {location} {where}. {_KEEP}") from error
    if file_digest(data) != digest:
        raise LakeError(f"the original file {location} has changed since the build. {_AGAIN}. {_KEEP}")
    return data


def reference_path(location: str) -> Path:
    """Return the path of a location of the originals table, which may name no file that exists."""
    path = Path(location)
    if path.exists():
        return path
    # Bytes of a name that are not UTF-8 are stored as \\xff. The digest shows whether it is the same file.
    name = re.sub(rb"\\x([89a-f][0-9a-f])", lambda byte: bytes.fromhex(byte[1].decode()), os.fsencode(location))
    return Path(os.fsdecode(name))

"""Register an export in the lake, under the writer's lock: from then on vacuum keeps its release."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from pipeline import storage
from pipeline.errors import ImagelakeError
from pipeline.hashing import digest_of
from pipeline.lake.lock import writing
from pipeline.lake.pins import register_export
from pipeline.lake.releases import release_versions
from pipeline.lake.writers import registered


def nothing() -> None:
    """Do nothing: for those who do not want to know that they wait."""


def pin(root: str, told: Mapping[str, Any], on_wait: Callable[[], None] = nothing) -> str:
    """Add a row to `exports`, waiting for as long as a build or a vacuum holds the lake.

    The files are whole before this begins and stay whatever comes of it; ctrl-C ends the waiting.

    Args:
        root: the lake's folder.
        told: what export.json holds, and `target`.
        on_wait: called once if it has to wait.

    Returns:
        Why the release is not pinned; empty where it is.
    """
    names = ("release", "split", "form", "digest", "target")
    row = {
        "export_id": digest_of([told[name] for name in names]),
        "split_name": told["split"],
        "roles": ", ".join(told["roles"]),
        **{name: told[name] for name in ("release", "form", "sanitized", "target", "images", "digest")},
    }
    if not storage.is_bucket(root) and not os.access(root, os.W_OK):
        return f"{root} cannot be written to"
    try:
        with registered(root), writing(root, on_wait):
            # Whoever held the lake before may have been a vacuum.
            release_versions(root, row["release"])
            register_export(root, row)
    except KeyboardInterrupt:
        return "waiting for the lake's writer was ended"
    except (ImagelakeError, OSError) as error:
        return " ".join(str(error).split())
    return ""

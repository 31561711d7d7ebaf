"""Only the reading of `notebook.py`, for `ingest.py`: extract with tarfile, then Pillow file by file, a pickle a class.

Run by `ingest.py` in its own process: `notebook_read.py ARCHIVE.tar.gz FOLDER` prints the number of images, the
files that were skipped and the seconds of both steps, as JSON. Imports are not timed, because the notebook needs
most of them later.
"""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

from notebook import extract, pickle_letters
from stopwatch import Stopwatch


def run(archive: Path, folder: Path) -> dict[str, Any]:
    """Extract and pickle; then count the pictures in the pickles, which is not timed."""
    watch = Stopwatch()
    with watch("extract"):
        root = extract(archive, folder)
    with watch("read"):
        files, skipped = pickle_letters(root)
    return {"images": sum(map(_length, files)), "rejects": skipped, "seconds": watch.seconds}


def _length(file: Path) -> int:
    with file.open("rb") as stream:
        return len(pickle.load(stream))  # noqa: S301 - written a moment ago by this script


if __name__ == "__main__":
    json.dump(run(*map(Path, sys.argv[1:3])), sys.stdout)

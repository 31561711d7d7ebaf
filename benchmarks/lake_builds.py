"""imagelake's side of `ingest.py`: builds from the command line, and the content of their lakes."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from glyph_data import IMAGELAKE
from watched import run

from pipeline.lake_handle import Lake

_HEAD = """
[lake]
root = "lake"
[decode]
size = [28, 28]
[dedup]
rules = {rules}
"""
RULES = ("exact", "sign", "maxpool:4")
_SOURCE = """
[[source]]
uri = {uri}
dataset = "glyphs"
split = {split}
"""


class Build(NamedTuple):
    """A finished build.

    Attributes:
        seconds: of the whole command.
        committed: seconds from its start until the last commit to images and index was on disk.
        megabytes: peak memory of its processes; NaN if it was not measured.
        output: what the command printed with `--json`.
    """

    seconds: float
    committed: float
    megabytes: float
    output: dict[str, Any]

    @property
    def files(self) -> int:
        """Images and rejects in the lake."""
        return int(self.output["images"] + self.output["rejects"])


def write_recipe(folder: Path, sources: Sequence[Path], rules: Sequence[str] = RULES, more: str = "") -> Path:
    """Write the recipe of a lake in `folder`; the split of an archive is its file name."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        _SOURCE.format(uri=json.dumps(str(file)), split=json.dumps(file.name.partition(".")[0])) for file in sources
    ]
    recipe = folder / "recipe.toml"
    recipe.write_text(_HEAD.format(rules=json.dumps(rules)) + "".join(parts) + more, encoding="utf-8")
    return recipe


def command(recipe: Path) -> list[str]:
    """Return the command that builds a recipe."""
    return [str(IMAGELAKE), "build", str(recipe), "--json"]


def build(recipe: Path, *, memory: bool = False) -> Build:
    """Flush earlier writes to disk, then run a build."""
    os.sync()
    started = time.time()
    ran = run(command(recipe), memory=memory)
    return Build(ran.seconds, _committed(recipe.parent / "lake") - started, ran.megabytes, json.loads(ran.output))


def _committed(lake: Path) -> float:
    """Return the time of the last commit to images and index, by the clock of the file system."""
    logs = [file for name in ("images", "index") for file in (lake / name / "_delta_log").glob("*.json")]
    return max(file.stat().st_mtime for file in logs)


def contents(recipe: Path) -> tuple[pl.DataFrame, list[str]]:
    """Read (path, content_hash) of every image in the lake, and the paths of its rejects."""
    lake = Lake(recipe.parent / "lake")
    return (
        lake.scan("images").select("path", "content_hash").collect(),
        lake.scan("rejects").select("path").collect().to_series().to_list(),
    )

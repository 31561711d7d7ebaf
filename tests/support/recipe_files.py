"""Read the recipes of data/, point them at the real data that is here, and build them."""

import gzip
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from making import DATA
from numpy.typing import NDArray

from pipeline.builder.build import build
from pipeline.engines import Engine
from pipeline.lake_handle import Lake
from pipeline.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "data"
ARCHIVES = ("notMNIST_large_sample.tar.gz", "notMNIST_small.tar.gz")


def load(name: str) -> dict[str, Any]:
    return tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))


def load_for_letters(name: str, **sizes: int) -> dict[str, Any]:
    """Read a recipe of notMNIST for the archives that are here, with other sizes of its roles."""
    values = load(name)
    for source, archive in zip(values["source"], ARCHIVES, strict=True):
        source["uri"] = str(DATA / archive)
        source["bytes"] = (DATA / archive).stat().st_size  # the small archive was packed again
    values["source"][0]["min_per_class"] = 300
    for role, size in sizes.items():
        values["split"][0][role]["size"] = size
    return values


def built(values: dict[str, Any], folder: Path, engine: Engine | None = None) -> Lake:
    """Write a recipe as TOML, build it, and open its lake."""
    file = folder / "recipe.toml"
    file.write_text("".join(f"{key} = {toml(value)}\n" for key, value in values.items()), encoding="utf-8")
    return Lake(build(read_recipe(file), engine=engine).root)


def toml(value: Any) -> str:
    """Spell a value of a recipe: strings, numbers and lists are as in JSON, tables are not."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in value.items())} }}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


def digits(count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the first digits of MNIST's train files: (n, 28, 28) and (n,)."""
    images = gzip.decompress((DATA / "mnist" / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((DATA / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, count * 784, offset=16).reshape(count, 28, 28)
    return pixels, np.frombuffer(labels, np.uint8, count, offset=8)


def first_digits(folder: Path, counts: dict[str, int]) -> None:
    """Write the first digits of MNIST's files, by part, as IDX files."""
    folder.mkdir()
    for part, count in counts.items():
        for name, head, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            data = gzip.decompress((DATA / "mnist" / f"{part}-{name}-ubyte.gz").read_bytes())
            values = data[:4] + count.to_bytes(4, "big") + data[8 : head + count * size]
            (folder / f"{part}-{name}-ubyte").write_bytes(values)


def write_csv(file: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8] | None = None) -> None:
    """Write pictures as the competition does: a header, then a row each, the label in front."""
    file.parent.mkdir(exist_ok=True)
    names = [f"pixel{number}" for number in range(images[0].size)]
    frame = pl.DataFrame(images.reshape(len(images), -1), schema=names)
    labelled = frame if labels is None else frame.insert_column(0, pl.Series("label", labels))
    labelled.write_csv(file)

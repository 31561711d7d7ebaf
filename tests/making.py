"""Made-up inputs that several tests share: seeded pictures, archives, folders, recipes; and where real data lies."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.recipe import Recipe, parse_recipe

DATA = Path(__file__).parents[2] / "shared" / "data"

needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real data (../shared/data) is not here")


def pictures(count: int, seed: int = 0, size: tuple[int, int] = (28, 28)) -> NDArray[np.uint8]:
    """Make random gray pictures: (count, height, width) uint8, all different."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)


def encoded(pixels: NDArray[np.uint8], form: str = "PNG", **options: Any) -> bytes:
    """Encode one picture, (height, width) gray or (height, width, 3) RGB."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def files_of(count: int, classes: str = "AB", seed: int = 0) -> dict[str, bytes]:
    """Make class-folder files by path, `count` in all, dealt out to the classes in turn."""
    made = pictures(count, seed)
    return {f"{classes[i % len(classes)]}/{i:05d}.png": encoded(made[i]) for i in range(count)}


def as_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def as_tar(file: Path, files: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    """Write files to a tar archive."""
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload] # a mode that is not a literal
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def as_zip(file: Path, files: Mapping[str, bytes]) -> Path:
    """Write files to a zip archive."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file


def recipe(base: Path, *sources: Mapping[str, Any], **parts: Any) -> Recipe:
    """Make a recipe with its lake at `base/lake`; sources default to dataset "d" and split "train"."""
    listed = [{"dataset": "d", "split": "train", **source} for source in sources]
    return parse_recipe({"lake": {"root": "lake"}, "source": listed, **parts}, base=base)

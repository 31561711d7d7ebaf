"""The same pictures as arrays, as CIFAR's records and as IDX files: builds of them make lakes that show the same."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import DATA, handed_out, needs_data, pictures, recipe, source_of
from numpy.typing import NDArray
from scipy.io import savemat

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake

Pictures = NDArray[np.uint8]

GRAY = pictures(40, size=(28, 28))
COLOUR = pictures(12 * 3, size=(32, 32)).reshape(12, 32, 32, 3)


def labels_of(pixels: Pictures) -> NDArray[np.uint8]:
    return (np.arange(len(pixels)) % 7).astype(np.uint8)


def lake_of(base: Path, *, rgb: bool = False, **part: Any) -> list[tuple[Any, ...]]:
    """Build a lake from one source and tell what it shows: row number, label and content_hash of every image."""
    base.mkdir(exist_ok=True)
    decode = {"mode": "RGB" if rgb else "L"}
    built = build(recipe(base, part, decode=decode), engine=LocalEngine(1))
    assert build(recipe(base, part, decode=decode), engine=LocalEngine(1)).done == ()
    assert built.rejects == 0
    images = Lake(base / "lake").scan("images").select("path", "label", "content_hash").collect()
    return sorted((int(path.rpartition("/")[2]), label, digest) for path, label, digest in images.rows())


def as_idx(folder: Path, pixels: Pictures, labels: NDArray[np.uint8]) -> Path:
    folder.mkdir(exist_ok=True)
    for array, name in ((pixels, f"images-idx{pixels.ndim}"), (labels, "labels-idx1")):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"train-{name}-ubyte").write_bytes(head + array.tobytes())
    return folder / f"train-images-idx{pixels.ndim}-ubyte"


def as_npz(folder: Path, pixels: Pictures, labels: NDArray[np.uint8]) -> Path:
    np.savez_compressed(folder / "a.npz", x_train=pixels, y_train=labels, x_test=pixels[::-1], y_test=labels[::-1])
    return folder / "a.npz"


def as_mat(folder: Path, pixels: Pictures, labels: NDArray[np.uint8]) -> Path:
    savemat(folder / "a.mat", {"images": np.moveaxis(pixels, 0, -1).astype(float), "labels": labels.astype(float)})
    return folder / "a.mat"


def as_cifar(folder: Path, pixels: Pictures, labels: NDArray[np.uint8]) -> Path:
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    (folder / "cifar").mkdir()
    (folder / "cifar" / "data_batch_1.bin").write_bytes(np.concatenate([labels[:, None], planes], axis=1).tobytes())
    return folder / "cifar"


def as_emnist(folder: Path, pixels: Pictures, labels: NDArray[np.uint8]) -> Path:
    file = as_idx(folder / "turned", np.ascontiguousarray(pixels.swapaxes(1, 2)), labels)
    for name in (file.name, file.name.replace("images", "labels").replace(f"idx{pixels.ndim}", "idx1")):
        (folder / "turned" / name).rename(folder / "turned" / f"emnist-{name}")
    return folder / "turned"


@pytest.fixture(scope="module")
def of_idx(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[tuple[Any, ...]]]:
    """What the lakes of IDX files show, by the number of their dimensions."""
    found = {}
    for pixels in (GRAY, COLOUR):
        base, labels = tmp_path_factory.mktemp("idx"), labels_of(pixels)
        rows = lake_of(base / "one", rgb=pixels.ndim > 3, uri=str(as_idx(base / "idx", pixels, labels)))
        assert [row[:2] for row in rows] == [(n, str(label)) for n, label in enumerate(labels.tolist())]
        found[pixels.ndim] = rows
    return found


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    ("write", "pixels"),
    [
        (as_npz, GRAY),
        (as_npz, COLOUR),
        (as_mat, GRAY),
        (as_mat, COLOUR),
        (as_cifar, COLOUR),
        (as_emnist, GRAY),
        (as_emnist, COLOUR),
    ],
)
def test_every_form_makes_the_lake_that_idx_makes(
    of_idx: dict[int, list[tuple[Any, ...]]],
    tmp_path: Path,
    write: Callable[[Path, Pictures, NDArray[np.uint8]], Path],
    pixels: Pictures,
) -> None:
    uri = str(write(tmp_path, pixels, labels_of(pixels)))
    assert lake_of(tmp_path / "lake", rgb=pixels.ndim > 3, uri=uri) == of_idx[pixels.ndim]


@pytest.mark.slow
def test_digits_make_the_lake_that_idx_makes(tmp_path: Path) -> None:
    found = lake_of(tmp_path / "one", uri="digits", format="digits")
    images = Lake(tmp_path / "one" / "lake").scan("images").select("path", "label", "pixels").collect().rows()
    rows = sorted((int(path), int(label), pixels) for path, label, pixels in images)
    pixels = np.frombuffer(b"".join(data for *_, data in rows), np.uint8).reshape(-1, 8, 8)
    file = as_idx(tmp_path / "idx", pixels, np.array([label for _, label, _ in rows], np.uint8))
    assert len(found) == 1797
    assert lake_of(tmp_path / "two", uri=str(file)) == found


@pytest.mark.slow
@needs_data
def test_mnist_makes_the_lake_that_its_arrays_make(tmp_path: Path) -> None:
    file = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"
    published = handed_out(source_of(file))
    pixels = np.stack([array[..., 0] for *_, array in published])
    expected = lake_of(tmp_path / "idx", uri=str(file))
    labels = np.array([int(label or "") for _, label, _ in published], np.uint8)
    assert lake_of(tmp_path / "npz", uri=str(as_npz(tmp_path, pixels, labels))) == expected

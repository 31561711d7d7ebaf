"""No pickle is ever read: what would run on unpickling does not, whatever it is named and wherever it lies."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import as_folder, as_tar, as_zip, encoded, files_of, pictures, recipe

from pipeline.arrays.npy_folder import open_npy
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import ImagelakeError
from pipeline.lake_handle import Lake


class Boom:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (os.fspath(self.file), "w")


def bomb(file: Path, protocol: int = 4) -> bytes:
    return pickle.dumps(Boom(file), protocol)


def objects(file: Path) -> "np.ndarray[Any, Any]":
    return np.array([Boom(file)] * 4, dtype=object)


def saved(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def archive(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def extension(file: Path) -> bytes:
    """A Parquet file whose column says that its type is pickled beside it, as pyarrow once believed."""
    said = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb(file)}
    field = pa.field("image", pa.binary(), metadata=said)
    shown = [encoded(one) for one in pictures(4)]
    table = pa.Table.from_arrays(
        [pa.array(shown)], schema=pa.schema([field], {b"pandas": bomb(file), b"x": bomb(file)})
    )
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


PICTURES = pictures(4)
NUMBERS = np.arange(4)
SOURCES: dict[str, Callable[[Path], bytes]] = {
    "a.npy": lambda file: saved(objects(file)),
    "bare.npy": bomb,
    "images.npz": lambda file: archive(x=objects(file), y=NUMBERS),
    "labels.npz": lambda file: archive(x=PICTURES, y=objects(file)),
    "bare.npz": bomb,
    "a.mat": bomb,
    "a.parquet": bomb,
    "a.pickle": bomb,
    "a.pkl": lambda file: bomb(file, 0),
    "notMNIST.pickle": lambda file: pickle.dumps({"train_dataset": objects(file)}, 2),
    "data_batch_1": lambda file: bomb(file, 2),
    "a.pt": bomb,
    "a.joblib": bomb,
    "a.csv": lambda file: bomb(file, 0),
    "a.tar": bomb,
    "a.zip": bomb,
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_pickle_as_a_source_is_refused_and_not_opened(name: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "owned"
    (tmp_path / name).write_bytes(SOURCES[name](sentinel))
    with pytest.raises(ImagelakeError) as caught:
        build(recipe(tmp_path, {"uri": name}), engine=LocalEngine(1))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert not sentinel.exists()


@pytest.mark.parametrize("form", ["folder", "tar", "zip", "samples"])
def test_a_pickle_among_pictures_is_a_reject(form: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "owned"
    ends = ("png", "pickle", "pkl", "npy", "npz", "pt", "pyd")
    bad = {f"A/x.{end}": saved(objects(sentinel)) if end == "npy" else bomb(sentinel) for end in ends}
    files = {**files_of(6), **bad}
    if form == "samples":  # webdataset itself unpickles what ends in .pyd, .pickle or .pkl
        samples = [{"png": encoded(PICTURES[n % 4]), "cls": b"1", "pyd": bomb(sentinel)} for n in range(6)]
        samples.append(dict.fromkeys(ends, bomb(sentinel)))
        files = {f"{n}.{end}": data for n, sample in enumerate(samples) for end, data in sample.items()}
    {"folder": as_folder, "zip": as_zip}.get(form, as_tar)(tmp_path / "in", files)
    made = build(recipe(tmp_path, {"uri": "in"}), engine=LocalEngine(1))
    assert (made.images, made.rejects) == (6, 1 if form == "samples" else len(ends))
    assert not sentinel.exists()


def test_a_type_of_parquet_that_is_pickled_is_not(tmp_path: Path) -> None:
    sentinel = tmp_path / "owned"
    (tmp_path / "a.parquet").write_bytes(extension(sentinel))
    build(recipe(tmp_path, {"uri": "a.parquet"}), engine=LocalEngine(1))
    assert Lake(tmp_path / "lake").scan("images").collect().height == 4
    assert not sentinel.exists()


def test_an_export_with_a_pickle_in_it_is_refused(tmp_path: Path) -> None:
    sentinel = tmp_path / "owned"
    for name in ("train_images.npy", "train_labels.npy", "train_ids.npy", "index.json"):
        (tmp_path / name).write_bytes(saved(objects(sentinel)))
    with pytest.raises(Exception, match=r"\w"):
        open_npy(tmp_path).feed("train", batch_size=2)
    assert not sentinel.exists()

"""Arrays that are no pictures or labels, and damaged .npz and .npy files: an error that says what to do, no crash."""

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import as_zip, handed_out, pictures, recipe, source_of

from pipeline.errors import RecipeError, SourceError
from pipeline.sources import resolve

IMAGES = pictures(6, size=(5, 4))
LABELS = np.arange(6)
OBJECTS = np.array([{}, []] * 3, dtype=object)


def spoilt(value: float) -> Any:
    """Make pictures on the scale of notMNIST's notebooks, but for one value."""
    images = (IMAGES - 127.5) / 255
    images[4, 2, 1] = value
    return images


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def fault(file: Path, **part: Any) -> str:
    with pytest.raises(SourceError) as caught:
        handed_out(source_of(file, **part))
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "part", "said"),
    [
        ({"x": IMAGES, "images": IMAGES}, {}, "several arrays of .* may be the images of split 'train'"),
        ({"a": IMAGES, "b": IMAGES}, {}, r"It has: a \(6, 5, 4\) uint8, b \(6, 5, 4\) uint8. Name one with images ="),
        (
            {"x_test": IMAGES, "y_test": LABELS},
            {},
            r"no array of .* split 'train', .* It has: x_test \(6, 5, 4\) uint8",
        ),
        ({"data": IMAGES.reshape(6, 20), "y": LABELS}, {}, r"no array .* It has: data \(6, 20\) uint8, y \(6,\) int64"),
        ({}, {"format": "npz"}, "no array .* It has: none. Name"),
        ({f"a{n}": IMAGES for n in range(22)}, {}, r"a19 \(6, 5, 4\) uint8 and 2 more"),
        ({"x": IMAGES, "y": LABELS}, {"images": "z"}, r"no array 'z' in .* It has: x .* Correct images in the recipe"),
        ({"x": IMAGES, "y": LABELS}, {"labels": "z"}, "no array 'z' in .* Correct labels in the recipe"),
        (
            {"x": IMAGES, "fine": LABELS, "coarse": LABELS},
            {},
            "several arrays .* labels of x .* Name one with labels =",
        ),
        ({"x": IMAGES, "y": LABELS[:5]}, {}, r"6 images but 5 labels: x \(6, 5, 4\) uint8, y \(5,\) int64. Check that"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, {}, "holds no images"),
        ({"x": IMAGES[:, :0], "y": LABELS}, {}, "damaged, or does not hold images"),
        ({"x": np.zeros((6, 5, 4, 4), np.uint8)}, {}, "is not an array of images. Save it as"),
        ({"x": np.zeros((6, 3, 4, 3), np.uint8)}, {}, "may have its channels first or last. Save it as"),
        (
            {"x": IMAGES.reshape(6, 20)},
            {},
            "is not an array of images. Save it as .* or name another array with images =",
        ),
        ({"x": IMAGES / 255}, {}, "holds 0.* which is not a whole number from 0 to 255, .* Save it as uint8"),
        ({"x": np.full((6, 5, 4), 256)}, {}, "holds 256, which is not a whole number"),
        ({"x": np.full((6, 5, 4), -1)}, {}, "holds -1, which is not a whole number"),
        ({"x": IMAGES / 255 - 0.4}, {}, r"holds -?0.* only other floats that are accepted are \(k - 127.5\) / 255"),
        ({"x": spoilt(0.301)}, {}, "holds 0.301, which is not a whole number"),
        ({"x": spoilt(np.nan)}, {}, "holds nan, which is not a whole number"),
        ({"x": spoilt(200.0)}, {}, "holds 200.0, which is not a whole number"),
        ({"x": np.full((6, 5, 4), np.nan)}, {}, "holds nan, which is not a whole number"),
        ({"x": np.full((6, 5, 4), np.inf)}, {}, "holds inf, which is not a whole number"),
        ({"x": np.ones((6, 5, 4))}, {}, r"no value of x \(6, 5, 4\) float64 .* above 1, so 1 may mean white"),
        ({"x": np.ones((6, 5, 4), int)}, {}, "above 1, so 1 may mean white"),
        ({"x": np.ones((6, 5, 4), bool)}, {}, "does not hold numbers that can be pixels"),
        ({"x": np.ones((6, 5, 4), complex)}, {}, "does not hold numbers that can be pixels"),
        ({"x": OBJECTS}, {}, r"x \(6,\) Python objects or records .* never unpickled"),
        ({"x": IMAGES, "y": OBJECTS}, {}, r"y \(6,\) Python objects or records .* never unpickled"),
        ({"x": IMAGES, "y": LABELS / 4}, {}, 'does not hold labels: .* or set labels = ""'),
        ({"x": IMAGES, "y": LABELS + np.inf}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": np.array([np.nan, 1, 2, 3, 4, 0.5])}, {}, "does not hold labels"),
        (
            {"x": IMAGES, "onehot": np.eye(6)},
            {},
            r"no array .* is called labels, but onehot \(6, 6\) float64 may be the labels",
        ),
        ({"images": IMAGES, "y_train": LABELS}, {}, r"called labels, but y_train \(6,\) int64 may be .*labels = \"\""),
        ({"x": IMAGES, "y": LABELS * 1e300}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": np.ones((6, 2))}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": np.eye(6) / 2}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": np.zeros((6, 0))}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": np.zeros((6, 2, 2))}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": np.array([["a", "b"]] * 6)}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": np.array([b"\xff"] * 6)}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": np.array(["\ud800"] * 6)}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": LABELS.astype("M8[s]")}, {}, "does not hold labels"),
        ({"x": IMAGES, "y": LABELS * 1j}, {}, "does not hold labels"),
    ],
)
def test_what_is_no_pictures_or_labels_is_an_error(tmp_path: Path, arrays: Any, part: Any, said: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SourceError, match=said):
        handed_out(source_of(tmp_path / "a.npz", **part))
    fault(tmp_path / "a.npz", **part)


def test_labels_beside_must_be_one_array_of_one_file(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, IMAGES)
    np.savez(tmp_path / "y.npz", LABELS, LABELS)
    with pytest.raises(SourceError, match=r"y.npz holds the labels, so it must hold one array. It has: arr_0 \(6,\)"):
        handed_out(source_of(tmp_path / "a.npy", labels="y.npz"))
    np.save(tmp_path / "y.npy", LABELS)
    several = resolve(recipe(tmp_path, {"uri": "[ab].npy", "labels": "y.npy"}))
    with pytest.raises(SourceError, match=r"labels names one file, y.npy, for every file of a pattern"):
        handed_out(several[0])


def test_other_forms_keys_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(RecipeError, match="transposed does not apply to a source of format npz"):
        source_of(tmp_path / "a.npy", transposed=True)


def test_a_large_array_in_fortran_order_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(IMAGES))
    monkeypatch.setattr("pipeline.sources.arrays.npz.FORTRAN_BYTES", 119)
    assert "in Fortran order and larger than 1 GiB. Arrays in Fortran order are read whole. Save np.ascont" in fault(
        tmp_path / "a.npy"
    )


HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2), }"


def headed(text: bytes, data: bytes = bytes(4)) -> bytes:
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (npy(IMAGES)[:-1], r"cut short \(120 bytes expected, 119 found"),
        (npy(IMAGES)[:9], r"cut short \(2 bytes expected, 1 found"),
        (npy(IMAGES) + b"\0", "more bytes follow its 6 rows"),
        (b"\x93NUMPY\x09\0", "unknown version 9.0 of the format"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff", "a header of 4294967295 bytes"),
        (headed(b"{"), "an invalid header"),
        (headed(b"{}"), "an invalid header"),
        (headed(b"[" * 9_000), "an invalid header"),
        (headed(HEADER.replace(b"(1,", b"(-1,")), "an invalid header"),
        (headed(HEADER.replace(b"|u1", b"|u7")), "an invalid header"),
        (headed(HEADER.replace(b"(1, 2, 2)", b"(10000000000, 2, 2)")), "bytes expected, 4 found"),
        (headed(HEADER.replace(b"(1, 2, 2)", b"(1" + b"0" * 40 + b", 2, 2)")), "bytes expected, 4 found"),
        (headed(HEADER.replace(b"(1, 2, 2)", b"(1, 2, 2" + b"0" * 40 + b")")), "damaged, or does not hold images"),
        (headed(HEADER.replace(b"'|u1'", b"[('a', '|u1')]")), "Python objects or records"),
        (headed(HEADER.replace(b"(1, 2, 2)", b"()")), "not an array of images"),
        (b"PK\3\4" + bytes(22) + b"\5\0\0\0a.npy", "damaged or cut short .*not a zip file"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(SourceError, match=said):
        handed_out(source_of(tmp_path / "a"))
    fault(tmp_path / "a")


def test_a_damaged_archive_is_an_error_that_names_the_array(tmp_path: Path) -> None:
    file = as_zip(tmp_path / "a.npz", {"x.npy": npy(IMAGES), "y.npy": npy(LABELS)})
    whole = file.read_bytes()
    file.write_bytes(whole.replace(IMAGES.tobytes(), IMAGES[::-1].tobytes()))
    assert "a.npz, x.npy, is damaged or cut short (Bad CRC-32" in fault(file)
    file.write_bytes(whole.replace(LABELS.tobytes(), LABELS[::-1].tobytes()))
    assert "a.npz, y.npy, is damaged or cut short (Bad CRC-32" in fault(file)
    file.write_bytes(whole[:-30])
    assert "not a zip file" in fault(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", npy(IMAGES))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", npy(IMAGES))
    assert "two arrays have one name" in fault(file)
    as_zip(file, {"x.npy": b"no array"})
    assert "a.npz, x.npy, is damaged or cut short (the magic string is not correct" in fault(file)


def test_a_password_is_an_error(tmp_path: Path) -> None:
    file = as_zip(tmp_path / "a.npz", {"x.npy": npy(IMAGES)})
    data = bytearray(file.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(data)
    assert "cannot be unpacked" in fault(file)
    assert "Save it again with np.savez" in fault(file)


@given(seed=st.integers(0, 2**32), packed=st.booleans(), plain=st.booleans())
def test_any_bytes_are_pictures_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, *, seed: int, packed: bool, plain: bool
) -> None:
    rng = random.Random(seed)
    file = tmp_path_factory.getbasetemp() / "any.npz"
    (np.savez_compressed if packed else np.savez)(file, images=IMAGES, labels=np.eye(6))
    data = bytearray(npy(IMAGES) if plain else file.read_bytes())
    for _ in range(rng.randrange(4)):
        data[rng.randrange(min(len(data), rng.choice([100, 10**6])))] = rng.randrange(256)
    file.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    try:
        found = handed_out(source_of(file, format="npz"))
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - not every damage shows
    else:
        assert all(array.dtype == np.uint8 for *_, array in found)

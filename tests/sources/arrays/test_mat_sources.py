"""MATLAB 5 files: whatever SciPy saves is read, pixel for pixel; what is damaged or of another kind is an error."""

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from making import DATA, handed_out, needs_data, pictures, source_of
from scipy.io import loadmat, savemat

from pipeline.errors import SourceError
from pipeline.sources import detect, read, survey

IMAGES = pictures(6, size=(5, 4))
LABELS = np.arange(6)


def mat(file: Path, **arrays: Any) -> Path:
    """Save arrays; pictures are given first axis first, and turned around as MATLAB has them."""
    turned = {name: np.moveaxis(array, 0, -1) if np.ndim(array) > 2 else array for name, array in arrays.items()}
    savemat(file, turned, do_compression=False)
    return file


def rows(file: Path, **part: Any) -> tuple[Any, list[str | None]]:
    found = handed_out(source_of(file, **part))
    assert [path for path, *_ in found] == [str(n) for n in range(len(found))]
    return np.array([array for *_, array in found]), [label for _, label, _ in found]


def fault(file: Path, **part: Any) -> str:
    with pytest.raises(SourceError) as caught:
        handed_out(source_of(file, **part))
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    return str(caught.value)


@given(
    pixels=st.tuples(st.integers(2, 5), st.integers(4, 6), st.integers(4, 6), st.sampled_from([1, 3])).flatmap(
        lambda shape: hnp.arrays(np.uint8, shape)
    ),
    dtype=st.sampled_from(["u1", "u2", "i2", "i4", "u4", "i8", "u8", "f4", "f8"]),
    saved=st.tuples(st.sampled_from(["row", "column"]), st.booleans()),
    per_shard=st.integers(1, 6),
)
def test_what_scipy_saves_is_read_as_scipy_reads_it(
    tmp_path_factory: pytest.TempPathFactory, pixels: Any, dtype: str, saved: Any, per_shard: int
) -> None:
    pixels[0, 0, 0, 0] = 200  # or numbers of 0 and 1 would rightly be refused
    file = tmp_path_factory.getbasetemp() / "any.mat"
    array = pixels[..., 0] if pixels.shape[3] == 1 else pixels
    arrays = {"images": np.moveaxis(array, 0, -1).astype(dtype), "labels": np.arange(len(pixels)).astype(dtype)}
    savemat(file, {"first": "text", **arrays, "last": {"a": 1}}, do_compression=saved[1], oned_as=saved[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.sources.arrays.array_shards.IMAGES_PER_SHARD", per_shard)
        found, labels = rows(file)
    assert np.array_equal(found, pixels)
    expected = loadmat(file)
    assert np.array_equal(found.reshape(array.shape), np.moveaxis(expected["images"], -1, 0))
    assert labels == [str(int(label)) for label in expected["labels"].ravel()]


def test_notmnist_as_published_and_svhn(tmp_path: Path) -> None:
    file = mat(tmp_path / "notMNIST_small.mat", images=IMAGES.astype(float), labels=LABELS.astype(float))
    assert detect(file) == "mat"
    pixels, labels = rows(file)
    assert np.array_equal(pixels, IMAGES[..., None])
    assert labels == list("012345")
    colour = pictures(6 * 3, size=(5, 4)).reshape(6, 5, 4, 3)
    file = mat(tmp_path / "train_32x32.mat", X=colour, y=LABELS[:, None].astype(np.uint8) + 5)
    pixels, labels = rows(file)
    assert np.array_equal(pixels, colour)
    assert labels == ["5", "6", "7", "8", "9", "10"]


@needs_data
def test_real_pictures(tmp_path: Path) -> None:
    published = handed_out(source_of(DATA / "mnist" / "t10k-images-idx3-ubyte.gz"))
    pixels = np.stack([array for *_, array in published])
    numbers = np.array([float(label or "") for _, label, _ in published])
    file = mat(tmp_path / "a.mat", images=pixels[..., 0].astype(float), labels=numbers)
    found, labels = rows(file)
    assert np.array_equal(found, pixels)
    assert labels == [label for _, label, _ in published]
    savemat(tmp_path / "a.mat", {"images": pixels[..., 0].transpose(1, 2, 0), "labels": numbers}, do_compression=True)
    assert np.array_equal(rows(tmp_path / "a.mat")[0], pixels)


def test_whole_doubles_that_matlab_stores_in_bytes_are_read(tmp_path: Path) -> None:
    file = written(tmp_path / "a.mat", element(6, (4, 4, 6), "images", 2, bytes(range(96))))
    pixels, _ = rows(file)
    assert np.array_equal(pixels[..., 0], np.arange(96, dtype=np.uint8).reshape(6, 4, 4).swapaxes(1, 2))
    file = written(tmp_path / "a.mat", element(6, (4, 4, 6), "images", 2, bytes(95) + b"\1"))
    assert "above 1, so 1 may mean white" in fault(file)


def test_files_of_either_byte_order_are_read(tmp_path: Path) -> None:
    values = np.arange(96, dtype=">f8")
    file = written(tmp_path / "a.mat", element(6, (4, 4, 6), "images", 9, values.tobytes(), order=">"), order=">")
    assert np.array_equal(rows(file)[0][..., 0], values.reshape(6, 4, 4).swapaxes(1, 2))


def test_which_arrays_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    file = mat(tmp_path / "a.mat", a=IMAGES, b=IMAGES[::-1], y=LABELS)
    assert np.array_equal(rows(file, images="b")[0], IMAGES[::-1, ..., None])
    assert rows(file, images="b", labels="")[1] == [None] * 6
    sources = [source_of(file, images=images, labels=labels) for images in "ab" for labels in ("y", "")]
    assert len({survey(source).fingerprint for source in sources}) == 4
    shards = list(read(sources[0]))
    assert list(read(sources[0], set())) == []
    assert [shard.shard for shard in read(sources[0], {shards[0].shard})] == [shards[0].shard]


@pytest.mark.parametrize(
    ("arrays", "part", "said"),
    [
        (
            {"a": IMAGES, "b": IMAGES},
            {},
            r"several arrays .* It has: a \(5, 4, 6\) uint8, b \(5, 4, 6\) uint8. Name one",
        ),
        ({"dataset": {"train": {"images": LABELS}}}, {}, r"no array .* It has: dataset \(1, 1\) struct. Name one"),
        ({"a": IMAGES}, {"images": "b"}, r"no array 'b' .* Correct images in the recipe"),
        ({"a": IMAGES, "y": LABELS[1:]}, {}, r"6 images but 5 labels: a \(5, 4, 6\) uint8, y \(1, 5\) int64"),
        ({"a": IMAGES, "y": "text"}, {}, r"6 images but 4 labels: .* y \(1, 4\) char"),
        ({"a": IMAGES / 255}, {}, "not a whole number from 0 to 255"),
        ({"a": IMAGES > 9}, {}, "does not hold numbers that can be pixels"),
        ({"a": IMAGES * 1j}, {}, r"a \(5, 4, 6\) complex .* does not hold numbers that can be pixels"),
        ({"a": np.zeros((6, 5, 4, 2))}, {}, "is not an array of images"),
        ({"a": IMAGES[:, :0]}, {}, "damaged, or does not hold images"),
    ],
)
def test_what_is_no_pictures_is_an_error(tmp_path: Path, arrays: Any, part: Any, said: str) -> None:
    file = mat(tmp_path / "a.mat", **arrays)
    with pytest.raises(SourceError, match=said):
        handed_out(source_of(file, **part))
    fault(file, **part)


def element(  # noqa: PLR0913 - the fields of a variable
    kind: int, shape: tuple[int, ...], name: str, stored: int, data: bytes, *, order: str = "<"
) -> bytes:
    """Make a variable by hand: class, dimensions, name, type that it is stored in, values."""
    dims = struct.pack(f"{order}II{len(shape)}i", 5, 4 * len(shape), *shape)
    parts = [struct.pack(f"{order}IIII", 6, 8, kind, 0), dims, struct.pack(f"{order}II", 1, len(name)) + name.encode()]
    parts.append(struct.pack(f"{order}II", stored, len(data)) + data)
    body = b"".join(part + bytes(-len(part) % 8) for part in parts)
    return struct.pack(f"{order}II", 14, len(body)) + body


def written(file: Path, *elements: bytes, order: str = "<", version: int = 0x0100) -> Path:
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", version) + (b"IM" if order == "<" else b"MI")
    file.write_bytes(head + b"".join(elements))
    return file


WHOLE = element(9, (4, 4, 2), "images", 2, bytes(range(32)))
PACKED = zlib.compress(WHOLE)


def packed(data: bytes) -> bytes:
    return struct.pack("<II", 15, len(data)) + data


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([WHOLE[:-1]], "cut short inside variable 'images'"),
        ([WHOLE[:20]], "8 bytes expected, 4 found"),
        ([WHOLE, WHOLE[:3]], "no variable at byte 232"),
        ([WHOLE, bytes(8)], "no variable at byte 232"),
        ([element(9, (4, 4, 3), "images", 2, bytes(32))], "variable 'images' has 32 bytes of type 2 for 48 values"),
        ([element(9, (4, 4, 2), "images", 99, bytes(32))], "variable 'images' has 32 bytes of type 99 for 32 values"),
        ([element(9, (4, -4, 2), "images", 2, bytes(32))], r"variable 'images' has dimensions \[4, -4, 2\]"),
        ([element(9, (4, 4, 2), "i" * 300, 2, bytes(32))], "flags, dimensions or a name of 300 bytes"),
        ([struct.pack("<II", 14, 48) + WHOLE[8:]], "no variable at byte 184|continue past the end"),
        ([packed(PACKED[:-1])], "does not end with its values"),
        ([packed(PACKED[:30])], "bytes expected"),
        ([packed(PACKED[:-4] + bytes(4))], "incorrect data check"),
        ([packed(zlib.compress(WHOLE + bytes(8)))], "does not end with its values"),
        ([packed(zlib.compress(bytes(64)))], "a compressed element that is not a variable"),
        ([packed(b"no zlib stream")], "incorrect header check"),
        ([struct.pack("<IIII", 14, 56, 6, 0) + struct.pack("<HHI", 5, 9, 0) + bytes(40)], "9 bytes in a tag that has"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, parts: list[bytes], said: str) -> None:
    file = written(tmp_path / "a.mat", *parts)
    with pytest.raises(SourceError, match=f"damaged, cut short or not a MATLAB 5 file .*({said}).*Fetch it again"):
        handed_out(source_of(file, format="mat"))
    fault(file)


def test_the_values_of_a_variable_do_not_reach_into_the_next(tmp_path: Path) -> None:
    # The second variable lies where the first one's values would go on.
    second = element(9, (1, 1), "y", 2, b"\1")
    lying = element(9, (4, 4, 2), "images", 2, bytes(range(32)))
    lying = struct.pack("<II", 14, len(lying) - 8 - 16) + lying[8 : len(lying) - 16] + second
    assert "the values of 'images' continue past the end" in fault(written(tmp_path / "a.mat", lying), labels="")


def test_other_versions_say_what_to_do(tmp_path: Path) -> None:
    file = written(tmp_path / "a.mat", version=0x0200)
    assert detect(file) == "mat"
    assert "is a MATLAB 7.3 file (HDF5), which cannot be read. Save it with save(..., '-v7') in MATLAB" in fault(file)
    assert "its header has another version" in fault(written(tmp_path / "b.mat", version=0x0300))
    savemat(tmp_path / "c.mat", {"images": LABELS}, format="4")
    assert "not a MATLAB 5 file" in fault(tmp_path / "c.mat", format="mat")


@given(seed=st.integers(0, 2**32), compressed=st.booleans())
def test_any_bytes_are_pictures_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, *, seed: int, compressed: bool
) -> None:
    rng = random.Random(seed)
    file = tmp_path_factory.getbasetemp() / "any.mat"
    savemat(file, {"images": IMAGES.transpose(1, 2, 0), "y": LABELS, "s": "x"}, do_compression=compressed)
    data = bytearray(file.read_bytes())
    for _ in range(rng.randrange(4)):
        data[rng.randrange(min(len(data), rng.choice([250, 10**6])))] = rng.randrange(256)
    file.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    try:
        found = handed_out(source_of(file, format="mat"))
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - not every damage shows
    else:
        assert all(array.dtype == np.uint8 for *_, array in found)

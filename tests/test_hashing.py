"""Golden values of ids and hashes: existing lakes depend on their byte layout."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.hashing import content_hashes, digest_of, file_digest, hash_rows, image_ids, pixel_digests, pixel_sums


def test_image_id_is_xxh3_128_of_dataset_split_path() -> None:
    ids = image_ids("notmnist", "train", ["A/ä.png", "A/b.png"])
    assert ids.tobytes().hex() == "b0706869f7bec43fcaf0509d585e805ec18dfa4b5899aa5c1be059238330a6ac"


def test_content_hash_is_xxh3_128_of_shape_and_pixels() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    assert content_hashes(pixels).tobytes().hex() == "68bfdeda723c1c69a7ce41a862454d5d"


def test_digests_of_files_are_their_sha_256_and_those_of_pixels_include_the_shape() -> None:
    assert file_digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    shape = b"\x03\0\0\0\x04\0\0\0\x01\0\0\0"
    assert pixel_digests(pixels) == [file_digest(shape + bytes(range(12))), file_digest(shape + bytes(range(12, 24)))]
    assert pixel_digests(pixels[:1].transpose(0, 2, 1, 3)) != pixel_digests(pixels[:1].reshape(1, 4, 3, 1))
    assert pixel_digests(pixels[:0]) == []


def test_same_bytes_in_another_shape_have_another_hash() -> None:
    flat = np.arange(200, dtype=np.uint8)
    shapes = [(1, 20, 10, 1), (1, 10, 20, 1), (1, 200, 1, 1)]
    assert len({content_hashes(flat.reshape(shape)).tobytes() for shape in shapes}) == len(shapes)


def test_no_rows_and_empty_rows_can_be_hashed() -> None:
    assert hash_rows(np.empty((0, 5), np.uint8)).shape == (0, 16)
    assert len(set(map(bytes, hash_rows(np.empty((3, 0), np.uint8))))) == 1


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 9))))
def test_the_hash_of_a_row_does_not_depend_on_other_rows(rows: np.ndarray) -> None:
    together = hash_rows(rows)
    assert all(np.array_equal(hash_rows(rows[i : i + 1])[0], together[i]) for i in range(len(rows)))


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3])))
)
def test_sums_are_exact(pixels: np.ndarray) -> None:
    rows = [[int(value) for value in picture.ravel()] for picture in pixels]
    sums, squares = pixel_sums(pixels)
    assert sums.tolist() == [sum(row) for row in rows]
    assert squares.tolist() == [sum(value**2 for value in row) for row in rows]


def test_sums_of_a_white_image_do_not_overflow() -> None:
    sums, squares = pixel_sums(np.full((1, 300, 300, 3), 255, np.uint8))
    assert (sums[0], squares[0]) == (270_000 * 255, 270_000 * 65_025)


def test_digest_ignores_the_order_of_keys() -> None:
    assert (
        digest_of({"a": 1, "b": [None, "ü"]})
        == digest_of({"b": [None, "ü"], "a": 1})
        == "dbce27bcb6deaa554c5b1cd9cbab4854"
    )
    assert digest_of([1, 2]) != digest_of([2, 1])

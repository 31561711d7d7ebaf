"""PNG made by hand: every depth, colour type, filter and interlacing becomes exactly these pixels."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import decoded, encoded, pictures, png, png_chunk, shard_of
from numpy.typing import NDArray

from pipeline.shard import Reject

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6


def one(data: bytes, **decode: Any) -> NDArray[np.uint8] | Reject:
    (result,) = decoded(shard_of(data), **decode)
    return result


def pixels(data: bytes, **decode: Any) -> list[Any]:
    """Decode one file that is a picture; a gray one without its axis of channels."""
    result = one(data, **decode)
    assert not isinstance(result, Reject), result
    return (result[..., 0] if result.shape[2] == 1 else result).tolist()  # type: ignore[no-any-return]


def resized(data: bytes, **decode: Any) -> list[Any]:
    return pixels(data, on_mismatch="resize", **decode)


def reason(data: bytes, **decode: Any) -> str:
    result = one(data, **decode)
    assert isinstance(result, Reject)
    return result.reason


def luma(red: int, green: int, blue: int) -> int:
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [
        (1, b"\xb1", [255, 0, 255, 255, 0, 0, 0, 255]),
        (2, b"\x1b", [0, 85, 170, 255]),
        (4, b"\x01\x23\xef", [0, 17, 34, 51, 238, 255]),
        (8, b"\x00\x01\x80\xff", [0, 1, 128, 255]),
    ],
)
def test_gray_of_up_to_8_bits_is_scaled_and_taken_as_it_is(bits: int, row: bytes, expected: list[int]) -> None:
    data = png((1, len(expected)), bits, GRAY, b"\0" + row)
    assert pixels(data) == [expected]
    assert resized(data, mode="RGB") == [[[value] * 3 for value in expected]]
    assert reason(data, mode="RGB") == "wrong_mode"


def test_gray_of_16_bits_becomes_its_high_byte() -> None:
    data = png((1, 4), 16, GRAY, b"\0" + struct.pack(">4H", 0x0000, 0x00FF, 0x1234, 0xFFFF))
    assert resized(data) == [[0, 0, 0x12, 0xFF]]
    assert resized(data, mode="RGB") == [[[0] * 3, [0] * 3, [0x12] * 3, [0xFF] * 3]]
    assert reason(data) == "wrong_mode"


def test_colour_of_16_bits_becomes_its_high_bytes() -> None:
    data = png((1, 2), 16, RGB, b"\0" + struct.pack(">6H", 0x0102, 0x7FFF, 0xFF00, 0x00FF, 0x8000, 0x1234))
    assert resized(data, mode="RGB") == [[[0x01, 0x7F, 0xFF], [0x00, 0x80, 0x12]]]
    assert resized(data) == [[luma(0x01, 0x7F, 0xFF), luma(0x00, 0x80, 0x12)]]
    assert reason(data, mode="RGB") == reason(data) == "wrong_mode"


def test_colour_becomes_gray_by_luma() -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    colour = pixels(data, mode="RGB")
    assert resized(data) == [[luma(*rgb) for rgb in row] for row in colour]
    assert reason(data) == "wrong_mode"


def test_a_palette_becomes_its_colours() -> None:
    colours = png_chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 0, 255, 255, 255]))
    data = png((1, 4), 2, PALETTE, b"\0\x18", before=colours)
    expected = [[10, 20, 30], [200, 100, 0], [255, 255, 255], [10, 20, 30]]
    assert resized(data, mode="RGB") == [expected]
    assert resized(data) == [[luma(*rgb) for rgb in expected]]
    assert reason(data, mode="RGB") == reason(data) == "wrong_mode"


def over(value: int, alpha: int, background: int) -> float:
    return (value * alpha + background * (255 - alpha)) / 255


@pytest.mark.parametrize("background", [0, 100, 255])
def test_transparency_is_laid_over_the_background(background: int) -> None:
    colours = png_chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 0])) + png_chunk(b"tRNS", bytes([0, 128]))
    kinds = [
        (png((1, 2), 8, PALETTE, b"\0\0\1", before=colours), [(10, 20, 30, 0), (200, 100, 0, 128)]),
        (png((1, 2), 8, GRAY_ALPHA, b"\0" + bytes([7, 255, 90, 51])), [(7, 7, 7, 255), (90, 90, 90, 51)]),
        (png((1, 1), 8, RGBA, b"\0" + bytes([1, 2, 250, 204])), [(1, 2, 250, 204)]),
        (png((1, 1), 16, GRAY_ALPHA, b"\0" + bytes([90, 0, 51, 0])), [(90, 90, 90, 51)]),
        (png((1, 1), 16, RGBA, b"\0" + bytes([1, 0, 2, 0, 250, 0, 204, 0])), [(1, 2, 250, 204)]),
    ]
    for data, expected in kinds:
        wanted = [[over(value, alpha, background) for value in rgb] for *rgb, alpha in expected]
        # Pillow rounds the composition to within one; all or nothing is exact.
        found = resized(data, mode="RGB", background=background)[0]
        assert np.abs(np.array(found) - wanted).max() <= 1
        assert all(f == w for f, w, (*_, alpha) in zip(found, wanted, expected, strict=True) if alpha in (0, 255))
        assert resized(data, background=background)[0] == [luma(*rgb) for rgb in found]
        assert reason(data, mode="RGB") == reason(data) == "wrong_mode"


@pytest.mark.parametrize(
    ("bits", "color", "key", "row", "expected"),
    [
        (1, GRAY, struct.pack(">H", 1), b"\xa0", [9, 0, 9]),
        (2, GRAY, struct.pack(">H", 2), b"\x18", [0, 85, 9]),
        (4, GRAY, struct.pack(">H", 5), b"\x05\xa0", [0, 9, 170]),
        (8, GRAY, struct.pack(">H", 5), b"\x00\x05\x0a", [0, 9, 10]),
        (16, GRAY, struct.pack(">H", 0x0500), b"\0\0\5\0\x0a\0", [0, 9, 10]),
        (8, RGB, struct.pack(">3H", 1, 2, 3), bytes([1, 2, 3, 3, 2, 1, 1, 2, 4]), [9, luma(3, 2, 1), luma(1, 2, 4)]),
        (16, RGB, struct.pack(">3H", 256, 512, 768), bytes([1, 0, 2, 0, 3, 0] + [7, 0] * 6), [9, 7, 7]),
    ],
)
def test_a_transparent_colour_is_the_background(
    bits: int, color: int, key: bytes, row: bytes, expected: list[int]
) -> None:
    data = png((1, 3), bits, color, b"\0" + row, before=png_chunk(b"tRNS", key))
    assert resized(data, background=9) == [expected]
    assert reason(data) == reason(data, mode="RGB") == "wrong_mode"


def filtered(picture: NDArray[np.uint8], kind: int) -> bytes:
    """Filter the rows of a picture, (height, width * 3), by one kind of the standard."""
    raw = picture.astype(np.int64)
    left = np.pad(raw, ((0, 0), (3, 0)))[:, :-3]
    above = np.pad(raw, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(left, ((1, 0), (0, 0)))[:-1]
    guess = left + above - corner
    near = np.abs(np.stack([left, above, corner]) - guess).argmin(0)  # the first of equals, as the standard asks
    paeth = np.take_along_axis(np.stack([left, above, corner]), near[None], 0)[0]
    predicted = [np.zeros_like(raw), left, above, (left + above) // 2, paeth][kind]
    rows = ((raw - predicted) % 256).astype(np.uint8)
    return b"".join(bytes([kind]) + row.tobytes() for row in rows)


@pytest.mark.parametrize("kind", range(5))
def test_every_filter(kind: int) -> None:
    picture = pictures(1, size=(6, 15))[0]
    data = png((6, 5), 8, RGB, filtered(picture, kind))
    assert pixels(data, mode="RGB") == picture.reshape(6, 5, 3).tolist()


def interlaced(picture: NDArray[np.uint8]) -> bytes:
    """Order the rows of a picture as Adam7 does."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [picture[top::down, left::right] for top, left, down, right in passes]
    return b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (17, 20)])
@pytest.mark.parametrize("bits", [8, 16])
def test_interlaced_pixels_are_those_of_the_plain_file(size: tuple[int, int], bits: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, bits // 8), dtype=np.uint8)
    plain = png(size, bits, GRAY, b"".join(b"\0" + row.tobytes() for row in picture))
    data = png(size, bits, GRAY, interlaced(picture), interlace=1)
    assert resized(data) == resized(plain) == picture[..., 0].tolist()
    # 16 bits are another mode whatever their order.
    assert (reason(data) == "wrong_mode") if bits == 16 else (pixels(data) == picture[..., 0].tolist())


@given(st.binary(min_size=1, max_size=40), st.sampled_from([GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA]), st.integers(0, 1))
def test_any_rows_and_chunks_are_a_picture_or_a_reject(noise: bytes, color: int, interlace: int) -> None:
    before = png_chunk(b"PLTE", noise) + png_chunk(b"tRNS", noise)
    for bits in (1, 8, 16):
        one(png((2, 2), bits, color, noise, before=before, interlace=interlace), on_mismatch="resize")


def test_a_flipped_bit_is_never_another_picture() -> None:
    whole = encoded(pictures(1, size=(9, 9))[0])
    expected = pixels(whole)
    flipped = [bytes([*whole[:at], whole[at] ^ 1 << at % 8, *whole[at + 1 :]]) for at in range(len(whole))]
    results = decoded(shard_of(*flipped))
    assert all(isinstance(result, Reject) or result[..., 0].tolist() == expected for result in results)
    # Pillow by itself would take these for pictures.
    start = whole.find(b"IDAT")
    assert all(isinstance(result, Reject) for result in results[start : whole.find(b"IEND") - 4])

"""Files that are not whole, or no images at all: a row of rejects, never a crash, never other pixels."""

import io
import struct
import warnings
from typing import Any

import numpy as np
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import decoded, encoded, pictures, png, shard_of
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pipeline.shard import REASONS, Encoded, Pixels, Reject

SMOOTH = np.add.outer(np.arange(24) * 5, np.arange(20) * 6).astype(np.uint8)
COLOUR = np.stack([SMOOTH, SMOOTH[::-1], pictures(1, size=(24, 20))[0]], -1)


def one(data: bytes, **decode: Any) -> NDArray[np.uint8] | Reject:
    (result,) = decoded(shard_of(data), **decode)
    return result


def reason(data: bytes, **decode: Any) -> str:
    result = one(data, **decode)
    assert isinstance(result, Reject)
    assert result.detail
    assert "\n" not in result.detail
    assert result.file_size == len(data)
    return result.reason


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("PPM", {}),
        ("AVIF", {}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_cut_anywhere_is_a_reject_or_the_whole_picture(form: str, options: Any, channels: int) -> None:
    data = encoded(COLOUR if channels == 3 else SMOOTH, form, **options)
    cuts = range(0, len(data), 1 if len(data) < 800 else 7)
    *results, whole = decoded(shard_of(*(data[:cut] for cut in cuts), data), mode="RGB", on_mismatch="resize")
    assert not isinstance(whole, Reject)
    for cut, result in zip(cuts, results, strict=True):
        assert result.reason in REASONS if isinstance(result, Reject) else np.array_equal(result, whole), cut
    assert sum(isinstance(result, Reject) for result in results) > len(results) * 0.7


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_cut_file_that_is_no_picture_is_empty_or_truncated(form: str) -> None:
    data = encoded(pictures(1)[0], form)
    results = decoded(shard_of(*(data[:cut] for cut in range(len(data)))))
    reasons = [result.reason for result in results if isinstance(result, Reject)]
    assert reasons == ["empty"] + ["truncated"] * (len(reasons) - 1)
    # JPEG needs its end mark; a PNG whose pixels are all there is a picture without it.
    assert len(results) - len(reasons) == (
        0 if form == "JPEG" else sum(cut > data.find(b"IEND") - 13 for cut in range(len(data)))
    )


def test_a_png_that_lacks_only_its_end_is_a_picture() -> None:
    data = encoded(SMOOTH)
    result = one(data[: data.find(b"IEND") - 4])
    assert not isinstance(result, Reject)
    assert np.array_equal(result[..., 0], SMOOTH)


def test_damage_that_is_no_cut_is_corrupt() -> None:
    data = encoded(SMOOTH)
    assert reason(data.replace(b"IDAT", b"IDAT"[::-1])) == "corrupt"
    assert reason(png((1, 1), 8, 0, b"\x09\1")) == "corrupt"
    assert reason(data[:8] + bytes(len(data) - 20) + data[-12:]) == "corrupt"


@pytest.mark.parametrize(
    "data", [b"x", b"hello, world", bytes(1_000), b"<svg/>", b"%PDF-1.7", b"GIF7", b"\0\0\0\x0cjP  \r\n\x87\n"]
)
def test_what_is_no_image_says_so(data: bytes) -> None:
    assert reason(data) == "not_an_image"


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"RIFF", b"II*\0", b"P5 "]),
)
@few(150, thorough=300)
def test_any_bytes_end_as_a_picture_or_a_reject(data: bytes, start: bytes) -> None:
    for result in decoded(shard_of(start + data, data + start), mode="RGB", on_mismatch="resize", max_pixels=10**6):
        assert result.reason in REASONS if isinstance(result, Reject) else result.ndim == 3


@given(st.data())
@few(50)
def test_a_jpeg_with_wild_bytes_ends_as_a_picture_or_a_reject(data: st.DataObject) -> None:
    broken = bytearray(encoded(SMOOTH, "JPEG"))
    for at in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=9)):
        broken[at] = data.draw(st.integers(0, 255))
    result = one(bytes(broken), max_pixels=10**6, on_mismatch="resize")
    assert result.reason in REASONS if isinstance(result, Reject) else result.shape[2] == 1


def test_a_bomb_is_turned_away_by_its_header() -> None:
    bomb = png((50_000, 50_000), 1, 0, b"")
    result = one(bomb)
    assert isinstance(result, Reject)
    assert result.detail == "50000x50000 pixels, more than decode.max_pixels = 64000000"
    assert reason(bomb) == "too_large"
    assert reason(b"P5 99999 99999 255\n") == "too_large"
    assert reason(b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 20_000, 20_000, 1, 24, 0) + bytes(20)) == "too_large"


def test_the_limits_are_those_of_the_recipe() -> None:
    data = encoded(SMOOTH)
    assert reason(data, max_pixels=479) == reason(data, max_bytes=len(data) - 1) == "too_large"
    assert not isinstance(one(data, max_pixels=480, max_bytes=len(data)), Reject)
    shard = Encoded("s", "f", ("0",), (None,), Pixels(SMOOTH[None, ..., None]))
    (result,) = decoded(shard, max_pixels=479)
    assert isinstance(result, Reject)
    assert result.reason == "too_large"


def test_pillow_is_strict_here_and_its_owner_finds_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encoded(COLOUR, "JPEG")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert reason(data[: len(data) // 2], mode="RGB") == "truncated"
        assert not isinstance(one(data, mode="RGB"), Reject)
        assert not caught
        Image.open(io.BytesIO(encoded(SMOOTH[:11, :11])))
        assert len(caught) == 1
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, 100)

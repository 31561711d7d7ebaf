"""Formats other than PNG, EXIF, sizes: one defined result for each kind of input."""

import io
from typing import Any

import numpy as np
import pytest
from making import decoded, encoded, pictures, shard_of
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.decode import Decoded, decode_shard
from pipeline.recipe import DecodePart
from pipeline.shard import Encoded, Pixels, Reject

COLOUR = np.stack(np.broadcast_arrays(np.arange(12)[:, None] * 20, np.arange(8) * 30, 77), -1).astype(np.uint8)


def one(data: bytes, **decode: Any) -> NDArray[np.uint8] | Reject:
    (result,) = decoded(shard_of(data), **decode)
    return result


def picture(data: bytes, **decode: Any) -> NDArray[np.uint8]:
    result = one(data, **decode)
    assert not isinstance(result, Reject), result
    return result


RESIZES = ': on_mismatch = "convert" in [decode] resizes it, no size keeps it as it is'


def reason(data: bytes, **decode: Any) -> tuple[str, str]:
    result = one(data, **decode)
    assert isinstance(result, Reject)
    return result.reason, result.detail


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("form", "options"),
    [("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})],
)
def test_lossless_formats_give_the_pixels_that_went_in(form: str, options: dict[str, Any]) -> None:
    assert np.array_equal(picture(encoded(COLOUR, form, **options), mode="RGB"), COLOUR)
    if form != "WEBP":  # has no gray
        gray = np.ascontiguousarray(COLOUR[..., 0])
        assert np.array_equal(picture(encoded(gray, form, **options))[..., 0], gray)


@pytest.mark.parametrize("options", [{"quality": 95}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_gives_what_its_decoder_gives(options: dict[str, Any]) -> None:
    data = encoded(COLOUR, "JPEG", **options)
    assert np.array_equal(picture(data, mode="RGB"), np.asarray(Image.open(io.BytesIO(data))))
    assert np.abs(picture(data, mode="RGB").astype(int) - COLOUR).max() < 60
    gray = encoded(COLOUR[..., 0].copy(), "JPEG", **options)
    assert np.array_equal(picture(gray)[..., 0], np.asarray(Image.open(io.BytesIO(gray))))
    assert reason(data) == (
        "wrong_mode",
        'RGB, the recipe asks for L: on_mismatch = "convert" in [decode] converts it, mode = "RGB" takes it as it is',
    )


def test_cmyk_jpeg_is_converted_without_a_profile() -> None:
    ink = Image.fromarray(COLOUR).convert("CMYK")
    data = saved(ink, "JPEG", quality=100)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(picture(data, mode="RGB", on_mismatch="convert"), expected)
    assert np.abs(expected.astype(int) - COLOUR).max() < 40
    assert reason(data, mode="RGB") == (
        "wrong_mode",
        'CMYK, the recipe asks for RGB: on_mismatch = "convert" in [decode] converts it',
    )


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("L", (3, 2), gray) for gray in (10, 200, 90)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert picture(data, on_mismatch="convert")[..., 0].tolist() == [[10] * 3] * 2
    colours = [Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    webp = saved(colours[0], "WEBP", save_all=True, append_images=colours[1:], lossless=True)
    assert picture(webp, mode="RGB").tolist() == [[[255, 0, 0]] * 3] * 2


def test_a_transparent_gif_lies_over_the_background() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 10, 10, 99, 99, 99])
    image.putpixel((1, 0), 1)
    data = saved(image, "GIF", transparency=1)
    assert picture(data, on_mismatch="convert", background=7)[..., 0].tolist() == [[10, 7]]


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_a_mode_without_black_and_white_is_a_reject_even_where_others_are_converted(mode: str) -> None:
    data = saved(Image.new(mode, (3, 2)), "TIFF")
    assert reason(data, on_mismatch="convert") == ("wrong_mode", f"{mode} has no defined conversion to L")


def test_sixteen_bits_of_pgm_and_tiff_become_their_high_byte() -> None:
    pgm = b"P5 2 1 65535\n" + bytes([0x12, 0x34, 0xFF, 0x00])
    tiff = saved(Image.fromarray(np.array([[0x1234, 0xFF00]], np.uint16)), "TIFF")
    for data in (pgm, tiff):
        assert picture(data, on_mismatch="convert")[..., 0].tolist() == [[0x12, 0xFF]]
        assert reason(data)[0] == "wrong_mode"


@pytest.mark.parametrize("data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", bytes(18) + b"x" * 900])
def test_formats_that_start_programs_or_begin_like_anything_are_no_images(data: bytes) -> None:
    assert reason(data)[0] == "not_an_image"


def turned(orientation: int, form: str) -> tuple[bytes, NDArray[np.uint8]]:
    """Make a file that says how to turn it, and the pixels a viewer shows."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(COLOUR, form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))
    return data, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_turns_the_picture_before_its_size_is_judged(orientation: int, form: str) -> None:
    data, expected = turned(orientation, form)
    assert expected.shape == ((12, 8, 3) if orientation < 5 else (8, 12, 3))
    assert np.array_equal(picture(data, mode="RGB", size=expected.shape[:2]), expected)
    assert reason(data, mode="RGB", size=expected.shape[1::-1]) == (
        "wrong_size",
        "{0}x{1}, the recipe asks for {1}x{0}".format(*expected.shape) + RESIZES,
    )


def test_the_eight_turns_are_eight_pictures() -> None:
    shown = [np.asarray(picture(turned(n, "PNG")[0], mode="RGB")) for n in range(1, 9)]
    assert np.array_equal(shown[5], np.rot90(COLOUR, -1))
    assert len({(array.shape, array.tobytes()) for array in shown}) == 8


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    assert np.array_equal(picture(turned(orientation, "PNG")[0], mode="RGB"), COLOUR)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_does_not_cost_the_picture(exif: bytes) -> None:
    plain, data = encoded(COLOUR, "JPEG"), encoded(COLOUR, "JPEG", exif=exif)
    assert np.array_equal(picture(data, mode="RGB"), np.asarray(Image.open(io.BytesIO(plain))))
    assert np.array_equal(picture(encoded(COLOUR, "PNG", exif=exif), mode="RGB"), COLOUR)


def test_another_size_is_rejected_or_resized() -> None:
    gray = pictures(1, size=(10, 6))[0]
    data = encoded(gray)
    assert reason(data, size=(6, 10)) == ("wrong_size", f"10x6, the recipe asks for 6x10{RESIZES}")
    expected = np.asarray(Image.fromarray(gray).resize((3, 5), Image.Resampling.BILINEAR))
    assert np.array_equal(picture(data, size=(5, 3), on_mismatch="convert")[..., 0], expected)
    assert np.array_equal(picture(data)[..., 0], gray)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("source", ["L", "RGB"])
@pytest.mark.parametrize("size", [(12, 8), (5, 5)])
def test_pixels_become_what_the_same_picture_as_a_file_becomes(source: str, mode: str, size: tuple[int, int]) -> None:
    array = COLOUR if source == "RGB" else np.ascontiguousarray(COLOUR[..., :1])
    shard = Encoded("s", "f", ("0",), (None,), Pixels(array[None]))
    file = shard_of(encoded(array if source == "RGB" else array[..., 0]))
    for on_mismatch in ("reject", "resize"):
        spec = {"mode": mode, "size": size, "on_mismatch": on_mismatch}
        (mine,), (theirs,) = decoded(shard, **spec), decoded(file, **spec)
        if isinstance(mine, Reject) or isinstance(theirs, Reject):
            assert tuple(mine)[:4] == tuple(theirs)[:4]
        else:
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (3, 200), (200, 1), (10, 10)])
def test_crop_and_pad_keep_the_proportions_of_a_picture(shape: tuple[int, int], channels: int) -> None:
    mode = "L" if channels == 1 else "RGB"
    flat = np.full((*shape, channels), 90, np.uint8)
    data = encoded(flat[..., 0] if channels == 1 else flat)
    cropped = picture(data, mode=mode, size=(10, 10), on_mismatch="convert", fit="crop")
    assert np.array_equal(cropped, np.full((10, 10, channels), 90))
    padded = picture(data, mode=mode, size=(10, 10), on_mismatch="convert", fit="pad", background=7)
    inside = (padded == 90).all(axis=2)
    scale = min(10 / shape[0], 10 / shape[1])
    assert (inside.any(axis=1).sum(), inside.any(axis=0).sum()) == tuple(max(1, round(side * scale)) for side in shape)
    assert set(np.unique(padded)) <= {7, 90}
    # As much at either end, give or take a row.
    where = np.argwhere(inside)
    before, after = where.min(axis=0), 9 - where.max(axis=0)
    assert np.abs(before - after).max() <= 1


def test_a_crop_is_the_middle_of_the_picture() -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    assert (picture(encoded(wide), size=(10, 10), on_mismatch="convert", fit="crop") == 200).all()


def test_a_colour_picture_in_gray_and_a_gray_one_in_colour_are_counted() -> None:
    gray = COLOUR[..., 0].copy()
    alike = np.stack([gray] * 3, -1)
    palette = saved(Image.fromarray(COLOUR).quantize(16), "PNG")
    shard = shard_of(encoded(COLOUR), encoded(alike), encoded(gray), palette, encoded(COLOUR, "JPEG"))
    # A picture with equal red, green and blue is gray, whatever its file says.
    for mode, expected in (("L", 3), ("RGB", 1)):
        spec = DecodePart.model_validate({"mode": mode})
        assert sum(i.converted for i in decode_shard(shard, "d", "train", spec) if isinstance(i, Decoded)) == expected

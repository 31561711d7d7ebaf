"""Law: what the C decoders take, Pillow takes too, and both see the same pixels; what they refuse, Pillow judges."""

import io
import random
import zlib
from typing import Any

import numpy as np
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import encoded, pictures, png_chunk
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline.decode import needs_no_conversion
from pipeline.decode.fast_decoders import fast_decoder
from pipeline.decode.picture import Rejected, convert, decode, strict_pillow
from pipeline.recipe import DecodePart

Pixels = NDArray[np.uint8]
GRAY, COLOUR = DecodePart(mode="L"), DecodePart(mode="RGB")
SPECS = (
    GRAY,
    COLOUR,
    DecodePart(mode="L", on_mismatch="reject"),
    DecodePart(mode="RGB", on_mismatch="reject"),
    *(DecodePart(size=(9, 7), mode="RGB", fit=fit) for fit in ("stretch", "crop", "pad")),
    DecodePart(mode="RGB", originals="keep", longest=5),
)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noise(seed: int, height: int, width: int, channels: int) -> Pixels:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def judged(data: bytes, spec: DecodePart) -> Pixels | str:
    """What Pillow alone says."""
    with strict_pillow():
        try:
            return decode(data, spec)[0]
        except Rejected as unfit:
            return unfit.reason


def agrees(data: bytes, spec: DecodePart) -> bool:
    """Hold the quick decoder against Pillow; tell whether it took the file."""
    fast = fast_decoder(spec)(data)
    if fast is None:
        return False
    pixels, native = fast
    assert pixels.dtype == np.uint8
    wanted = judged(data, spec)
    try:
        found: Pixels | str = pixels if needs_no_conversion(pixels.shape, spec) else convert(pixels, spec, native)[0]
    except Rejected as unfit:
        found = unfit.reason
    assert np.array_equal(found, wanted), f"{getattr(found, 'shape', found)} is not {getattr(wanted, 'shape', wanted)}"
    return True


def hand_made(draw: st.DrawFn) -> bytes:
    """A PNG of any colour type, depth, interlace and filters, its pixels cut anywhere, with other chunks."""
    kind, depth = draw(
        st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8), (6, 8)])
    )
    width, height, interlace = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from([0, 0, 1]))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    passes = _ADAM7 if interlace else [(0, 0, 1, 1)]
    rows = b""
    for x, y, dx, dy in passes:
        wide, high = -(-(width - x) // dx), -(-(height - y) // dy)
        if wide > 0:
            for _ in range(max(0, high)):
                rows += bytes([draw(st.integers(0, 4))])
                rows += draw(st.binary(min_size=(n := (wide * channels * depth + 7) // 8), max_size=n))
    packed = zlib.compress(rows, draw(st.integers(0, 9)))
    cut = draw(st.integers(0, len(packed)))
    header = png_chunk(
        b"IHDR", b"".join(v.to_bytes(4) for v in (width, height)) + bytes([depth, kind, 0, 0, interlace])
    )
    palette = png_chunk(b"PLTE", bytes(range(256)) * 3) if kind == 3 else b""
    extra = draw(st.lists(st.sampled_from(_EXTRAS), max_size=2).map(b"".join))
    data = [packed[:cut], packed[cut:]] if draw(st.booleans()) else [packed]
    body = b"".join(png_chunk(b"IDAT", part) for part in data)
    return _SIGNATURE + header + extra + palette + body + png_chunk(b"IEND", b"")


_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
_EXTRAS = [
    png_chunk(b"gAMA", (45455).to_bytes(4)),
    png_chunk(b"gAMA", b"\0"),
    png_chunk(b"sRGB", b"\0"),
    png_chunk(b"pHYs", bytes(9)),
    png_chunk(b"pHYs", bytes(2)),
    png_chunk(b"tIME", bytes(7)),
    png_chunk(b"tEXt", b"a\0b"),
    png_chunk(b"tRNS", b"\0\1"),
    png_chunk(b"tRNS", b"\0\1\0\1\0\1"),
    png_chunk(b"bKGD", b"\0\1"),
    png_chunk(b"sBIT", b"\5"),
    png_chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b")),
    png_chunk(b"acTL", bytes(8)),
    png_chunk(b"quUx", b"anything"),
    png_chunk(b"gAMA", (45455).to_bytes(4))[:-1] + b"\0",
]


@given(st.data(), st.sampled_from(SPECS))
@few(100, thorough=600)
def test_any_png_decodes_as_pillow_decodes_it(data: st.DataObject, spec: DecodePart) -> None:
    agrees(data.draw(st.composite(hand_made)()), spec)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB"]), st.integers(0, 2**31), st.data())
@few(75, thorough=300)
def test_any_jpeg_decodes_as_pillow_decodes_it(
    width: int, height: int, mode: str, seed: int, data: st.DataObject
) -> None:
    options: dict[str, Any] = {
        "quality": data.draw(st.integers(1, 100)),
        "subsampling": data.draw(st.sampled_from([0, 1, 2])),
        "progressive": data.draw(st.booleans()),
        "optimize": data.draw(st.booleans()),
        "restart_marker_blocks": data.draw(st.sampled_from([0, 2])),
    }
    file = encoded(noise(seed, height, width, 3 if mode == "RGB" else 1), "JPEG", **options)
    for spec in SPECS:
        assert agrees(file, spec)


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28, 3), (1, 300, 1), (257, 3, 3)])
def test_what_is_common_is_taken(shape: tuple[int, int, int]) -> None:
    pixels = noise(0, *shape)
    for spec in (GRAY, COLOUR):
        assert agrees(encoded(pixels), spec)
        assert agrees(encoded(pixels, "JPEG"), spec)
    found = fast_decoder(GRAY)(encoded(pixels))
    assert found is not None
    assert np.array_equal(found[0].reshape(pixels.shape), pixels)


def icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


_COLOUR = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 6, 3), dtype=np.uint8))
_KEYED = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(8, 6))
LEFT_TO_PILLOW = {
    "turned JPEG": saved(_COLOUR, "JPEG", exif=turned()),
    "turned PNG": saved(_COLOUR, "PNG", exif=turned()),
    "JPEG turned by XMP": saved(_COLOUR, "JPEG", xmp=b'<x:xmpmeta tiff:Orientation="6"></x:xmpmeta>'),
    "CMYK JPEG": saved(_COLOUR.convert("CMYK"), "JPEG"),
    "PNG with a profile": saved(_COLOUR, "PNG", icc_profile=icc()),
    "PNG with a transparent gray": saved(_KEYED, "PNG", transparency=3),
    "palette": saved(_COLOUR.convert("P"), "PNG"),
    "alpha": saved(_COLOUR.convert("RGBA"), "PNG"),
    "16 bits": saved(Image.fromarray(np.arange(48, dtype=np.uint16).reshape(8, 6)), "PNG"),
    "bilevel": saved(_KEYED.convert("1"), "PNG"),
    "interlaced": _SIGNATURE
    + png_chunk(b"IHDR", bytes.fromhex("00000001 00000001 08 00 00 00 01"))
    + png_chunk(b"IDAT", zlib.compress(b"\0\7"))
    + png_chunk(b"IEND", b""),
    "GIF": saved(_KEYED, "GIF"),
    "nothing": b"",
}


@pytest.mark.parametrize("name", LEFT_TO_PILLOW)
def test_what_asks_for_a_decision_is_left_to_pillow(name: str) -> None:
    assert fast_decoder(COLOUR)(LEFT_TO_PILLOW[name]) is None


def test_a_jpeg_with_a_colour_profile_or_a_comment_is_taken() -> None:
    # Pillow reads the profile and does not apply it.
    assert agrees(saved(_COLOUR, "JPEG", icc_profile=icc(), comment=b"hello"), COLOUR)


def test_limits_of_the_recipe_hold() -> None:
    file = encoded(pictures(1)[0])
    assert fast_decoder(DecodePart(mode="L", max_pixels=28 * 28))(file) is not None
    assert fast_decoder(DecodePart(max_pixels=28 * 28 - 1))(file) is None
    assert fast_decoder(DecodePart(max_bytes=len(file) - 1))(file) is None
    jpeg = encoded(pictures(1)[0], "JPEG")
    assert fast_decoder(DecodePart(max_pixels=28 * 28 - 1))(jpeg) is None


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_damaged_files_are_never_taken_for_others(form: str, channels: int, capfd: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(channels)
    spec = DecodePart(mode="L" if channels == 1 else "RGB", on_mismatch="convert", max_pixels=10_000)
    taken = 0
    for seed in range(400):
        whole = encoded(noise(seed, 9, 11, channels), form)
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        cut = bytes(data[: chance.randrange(len(data))])
        taken += agrees(bytes(data), spec) + agrees(cut, spec) + agrees(repaired(bytes(data)), spec)
    assert taken or form == "PNG"
    assert capfd.readouterr() == ("", "")


def repaired(data: bytes) -> bytes:
    """Make the checksums of a PNG right again, so that damage goes deeper."""
    if not data.startswith(_SIGNATURE):
        return data
    out, at = bytearray(data), 8
    while (end := at + 12 + int.from_bytes(out[at : at + 4])) <= len(out):
        out[end - 4 : end] = zlib.crc32(out[at + 4 : end - 4]).to_bytes(4)
        at = end
    return bytes(out)

"""A JPEG that is reduced is decoded at reduced scale: equal pixels by both decoders, never below twice the size."""

import io
import math
from typing import Any

import numpy as np
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from pipeline.decode import decode_images, needs_no_conversion
from pipeline.decode.fast_decoders import fast_decoder
from pipeline.decode.picture import Rejected, convert, decode, strict_pillow
from pipeline.decode.reduced import decodes_in_strips, jpeg_scale, wanted_size
from pipeline.recipe import DecodePart
from pipeline.shard import Blobs, Encoded, Reject

Pixels = NDArray[np.uint8]


def smooth(seed: int, height: int, width: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return jpeg(image, exif=exif.tobytes())


def by_pillow(data: bytes, spec: DecodePart) -> Pixels:
    with strict_pillow():
        return decode(data, spec)[0]


def decoded(data: bytes, spec: DecodePart) -> Pixels | str:
    with strict_pillow():
        (item,) = decode_images(Encoded("s", "f", ("a.jpg",), (None,), Blobs((data,))), spec)
    return item.reason if isinstance(item, Reject) else item.pixels[0]


SPECS = st.one_of(
    st.builds(lambda side: DecodePart(mode="RGB", originals="keep", longest=side), st.integers(1, 90)),
    st.builds(
        lambda size, mode, fit: DecodePart(mode=mode, originals="none", size=size, fit=fit),
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.sampled_from(["L", "RGB"]),
        st.sampled_from(["stretch", "crop", "pad"]),
    ),
)


OPTIONS = st.fixed_dictionaries({"subsampling": st.integers(0, 2), "progressive": st.booleans()})


@given(st.integers(1, 260), st.integers(1, 260), SPECS, OPTIONS, st.sampled_from(["L", "RGB"]))
@few(60, thorough=400)
def test_both_decoders_see_the_same_pixels(
    height: int, width: int, spec: DecodePart, options: dict[str, Any], mode: str
) -> None:
    data = jpeg(smooth(height, height, width).convert(mode), **options)
    with strict_pillow():
        fast = fast_decoder(spec)(data)
        assert fast is not None
        pixels, native = fast
        assert (native is None) == (jpeg_scale(height, width, spec) == 1)
        found = pixels if needs_no_conversion(pixels.shape, spec) else convert(pixels, spec, native)[0]
    assert np.array_equal(found, by_pillow(data, spec))


@given(st.integers(1, 5_000), st.integers(1, 5_000), SPECS)
@few(200, thorough=1_000)
def test_a_scale_leaves_twice_the_wanted_size(height: int, width: int, spec: DecodePart) -> None:
    rows, columns = wanted_size(height, width, spec)
    fits = [n for n in (1, 2, 4, 8) if math.ceil(height / n) >= 2 * rows and math.ceil(width / n) >= 2 * columns]
    assert jpeg_scale(height, width, spec) == max([1, *fits])
    if spec.longest:
        assert max(rows, columns) == min(spec.longest, max(height, width))
        assert abs(rows * width - columns * height) <= max(height, width)


def test_lakes_without_the_setting_decode_at_full_scale() -> None:
    data = jpeg(smooth(0, 240, 320))
    fast = fast_decoder(DecodePart(mode="RGB", size=(24, 24)))(data)
    assert fast is not None
    assert (fast[0].shape, fast[1]) == ((240, 320, 3), None)
    assert not np.array_equal(
        by_pillow(data, DecodePart(mode="RGB", size=(24, 24))),
        by_pillow(data, DecodePart(mode="RGB", size=(24, 24), originals="none")),
    )


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_jpeg_is_reduced_as_it_is_shown(orientation: int) -> None:
    image = smooth(orientation, 96, 160)
    shown = by_pillow(turned(image, orientation), DecodePart(mode="RGB"))
    found = decoded(turned(image, orientation), DecodePart(mode="RGB", originals="keep", longest=40))
    assert isinstance(found, np.ndarray)
    assert found.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))
    exact = np.asarray(Image.fromarray(shown).resize(found.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(found.astype(int) - exact).mean() < 6


def test_cmyk_is_reduced_too() -> None:
    data = jpeg(smooth(1, 256, 256).convert("CMYK"))
    found = decoded(data, DecodePart(mode="RGB", originals="keep", longest=32))
    exact = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BOX))
    assert isinstance(found, np.ndarray)
    assert np.abs(found.astype(int) - exact).mean() < 6


HUGE = DecodePart(mode="RGB", originals="keep", longest=16, max_pixels=40_000)


@pytest.mark.parametrize(
    ("options", "spec", "wanted"),
    [
        # 300 x 400 pixels are 50 x 38 at an eighth.
        ({}, HUGE, (12, 16, 3)),
        ({}, HUGE.model_copy(update={"originals": None}), "too_large"),
        # At a quarter these are too many pixels.
        ({}, HUGE.model_copy(update={"longest": 40, "max_pixels": 7_000}), "too_large"),
        # All of it would be in memory at once, however small it is made.
        ({"progressive": True}, HUGE, "too_large"),
        ({"progressive": True}, HUGE.model_copy(update={"max_pixels": 120_000}), (12, 16, 3)),
    ],
)
@pytest.mark.parametrize("orientation", [None, 3])
def test_a_huge_jpeg_is_decoded_where_its_scale_has_few_pixels(
    options: dict[str, Any], spec: DecodePart, wanted: Any, orientation: int | None
) -> None:
    exif = Image.Exif()
    if orientation:  # decoded by Pillow
        exif[ExifTags.Base.Orientation] = orientation
    found = decoded(jpeg(smooth(2, 300, 400), **options, exif=exif.tobytes()), spec)
    assert (found if isinstance(found, str) else found.shape) == wanted


def test_what_cannot_be_decoded_in_strips_is_recognised() -> None:
    image = smooth(3, 40, 40)
    plain = jpeg(image)
    assert decodes_in_strips(plain)
    assert decodes_in_strips(jpeg(image.convert("L")))
    assert not decodes_in_strips(jpeg(image, progressive=True))
    start = plain.index(b"\xff\xda")
    # A first scan of one colour of three.
    assert not decodes_in_strips(plain[: start + 4] + b"\1" + plain[start + 5 :])
    assert not any(decodes_in_strips(plain[:length]) for length in range(start))


def test_a_truncated_jpeg_is_a_reject_at_every_scale() -> None:
    data = jpeg(smooth(4, 300, 300))
    for longest in (300, 120, 60, 30, 1):
        spec = DecodePart(mode="RGB", originals="keep", longest=longest)
        assert decoded(data[: len(data) // 2], spec) == "truncated"


def test_other_formats_are_reduced_by_areas() -> None:
    image = smooth(5, 90, 120)
    out = io.BytesIO()
    image.save(out, "PNG")
    found = decoded(out.getvalue(), DecodePart(mode="RGB", originals="keep", longest=40))
    means = np.asarray(image).reshape(30, 3, 40, 3, 3).mean((1, 3))
    assert np.abs(np.asarray(found) - means).max() < 1


def test_a_wrong_size_stays_a_reject_without_conversion() -> None:
    spec = DecodePart(mode="RGB", originals="keep", size=(20, 20), on_mismatch="reject")
    assert decoded(jpeg(smooth(6, 200, 200)), spec) == "wrong_size"
    with strict_pillow(), pytest.raises(Rejected, match="200x200, the recipe asks for 20x20"):
        decode(turned(smooth(6, 200, 200), 3), spec)

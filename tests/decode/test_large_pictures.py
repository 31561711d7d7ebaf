"""Very large pictures: reduced in strips with the pixels of the whole, and decoded one at a time."""

import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import encoded
from PIL import Image

from pipeline.decode import large_pictures, picture, reduced
from pipeline.decode.fast_decoders import fast_decoder
from pipeline.decode.large_pictures import in_turn
from pipeline.decode.picture import Rejected, convert, decode, strict_pillow
from pipeline.recipe import DecodePart

SPECS = st.one_of(
    st.builds(lambda side: DecodePart(mode="RGB", originals="keep", longest=side), st.integers(1, 90)),
    st.builds(
        lambda size, mode, fit: DecodePart(mode=mode, size=size, fit=fit, originals="none"),
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.sampled_from(["L", "RGB"]),
        st.sampled_from(["stretch", "crop", "pad"]),
    ),
)


@given(SPECS, st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 3]), st.integers(1, 5_000))
@few(100)
def test_strips_give_the_pixels_of_the_whole(
    spec: DecodePart, height: int, width: int, channels: int, strip: int
) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, channels), dtype=np.uint8)
    if strip % 2:  # gray
        pixels[:] = pixels[..., :1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduced, "LARGE", 0)
        patch.setattr(picture, "_STRIP_BYTES", strip)
        found, was_converted = convert(pixels, spec)
        # Pillow decodes this one, and has the whole picture.
        whole, converted = by_pillow(encoded(pixels.squeeze(-1) if channels == 1 else pixels), spec)
    assert np.array_equal(found, whole)
    assert was_converted == converted


def test_a_lake_that_records_no_originals_reduces_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (130, 90, 3), dtype=np.uint8)
    spec = DecodePart(mode="RGB", size=(11, 13))
    before = convert(pixels, spec)[0]
    monkeypatch.setattr(reduced, "LARGE", 0)
    assert np.array_equal(convert(pixels, spec)[0], before)


def webp(seed: int, height: int, width: int, **options: Any) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out, "WEBP", **options)
    return out.getvalue()


def by_pillow(data: bytes, spec: DecodePart) -> Any:
    with strict_pillow():
        try:
            return decode(data, spec)
        except Rejected as rejected:
            return rejected.reason, False


@given(
    st.integers(0, 99), st.integers(1, 70), st.integers(1, 70), st.integers(0, 100), st.randoms(use_true_random=False)
)
@few(100)
def test_webp_is_decoded_as_by_pillow(seed: int, height: int, width: int, quality: int, chance: Any) -> None:
    spec, data = DecodePart(mode="RGB"), webp(seed, height, width, quality=quality)
    for damaged in (data, data[: chance.randrange(len(data))], _flipped(data, chance.randrange(8 * len(data)))):
        fast = fast_decoder(spec)(damaged)
        assert fast is None or np.array_equal(fast[0], by_pillow(damaged, spec)[0])
    assert fast_decoder(spec)(data) is not None


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_webp_with_more_than_a_lossy_picture_goes_to_pillow() -> None:
    picture_ = Image.new("RGBA", (9, 7), (1, 2, 3, 100))
    out = io.BytesIO()
    picture_.save(out, "WEBP")
    assert all(
        fast_decoder(DecodePart(mode="RGB"))(data) is None for data in (out.getvalue(), webp(1, 9, 7, lossless=True))
    )


def test_large_pictures_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(large_pictures, "LARGE", 99)
    monkeypatch.setattr(large_pictures, "_SMALL_FILE", 0)
    at_once, most = [0], [0]

    def work(data: bytes) -> None:
        with in_turn(data, DecodePart(mode="RGB")):
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            time.sleep(0.02)
            at_once[0] -= 1

    for data in (encoded(np.zeros((10, 10), np.uint8)), webp(1, 10, 10)):
        threads = [threading.Thread(target=work, args=(data,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff" * 9, b"RIFF0000WEBP", b"x" * 99])
def test_damaged_headers_are_left_to_the_decoder(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_pictures, "_SMALL_FILE", 0)
    with in_turn(data, DecodePart(mode="RGB")):
        pass


def test_without_a_lock_file_pictures_are_decoded_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "missing"))
    monkeypatch.setattr(large_pictures, "LARGE", 0)
    with in_turn(encoded(np.zeros((10, 10), np.uint8)), DecodePart(mode="RGB")):
        pass

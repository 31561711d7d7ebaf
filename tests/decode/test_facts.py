"""What files tell of themselves is stored as they tell it; what cannot be true counts as absent."""

import io
from typing import Any

import numpy as np
import pytest
from making import encoded
from PIL import ExifTags, Image

from pipeline.decode.facts import Facts, facts_of
from pipeline.decode.picture import decode, strict_pillow
from pipeline.recipe import DecodePart

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def facts(form: str = "JPEG", *, time: Any = None, offset: Any = None, **tags: Any) -> Facts:
    exif = Image.Exif()
    for name, value in tags.items():
        exif[ExifTags.Base[name]] = value
    shot = exif.get_ifd(ExifTags.IFD.Exif)
    shot |= {ExifTags.Base.DateTimeOriginal: time} if time is not None else {}
    shot |= {ExifTags.Base.OffsetTimeOriginal: offset} if offset is not None else {}
    out = io.BytesIO()
    Image.fromarray(PICTURE).save(out, form, exif=exif.tobytes())
    with strict_pillow():
        return facts_of(out.getvalue())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_time_and_camera_are_read(form: str) -> None:
    found = facts(form, time="2024:07:01 09:30:05", offset="+02:00", Make="Acme", Model="One")
    assert found == Facts(form, 20, 30, "2024-07-01T09:30:05+02:00", "Acme One")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_a_file_without_exif_data_has_no_facts_but_its_size(form: str) -> None:
    with strict_pillow():
        assert facts_of(encoded(PICTURE, form)) == Facts(form, 20, 30)


@pytest.mark.parametrize(
    ("time", "offset", "wanted"),
    [
        ("2024:07:01 09:30:05", None, "2024-07-01T09:30:05"),
        ("2024:07:01 09:30:05", "-09:30", "2024-07-01T09:30:05-09:30"),
        ("2024:07:01 09:30:05\0garbage", "Z", "2024-07-01T09:30:05"),
        ("2024:07:01 09:30:05", "+99:99", "2024-07-01T09:30:05"),
        ("0000:00:00 00:00:00", "+02:00", None),
        ("    :  :     :  :  ", None, None),
        ("2024:02:30 09:30:05", None, None),
        ("yesterday", None, None),
        ("", None, None),
    ],
)
def test_a_time_that_is_none_counts_as_absent(time: str, offset: str | None, wanted: str | None) -> None:
    assert facts(time=time, offset=offset).taken_at == wanted


@pytest.mark.parametrize(
    ("make", "model", "wanted"),
    [
        ("NIKON", "NIKON D700", "NIKON D700"),
        ("Acme\0\0", "  Model\n\x1b[31m 5 ", "Acme Model [31m 5"),
        ("", "Model", "Model"),
        ("Acme", "", "Acme"),
        ("", "", None),
        ("A" * 500, "B", "A" * 100),
    ],
)
def test_the_name_of_a_camera_is_one_short_line(make: str, model: str, wanted: str | None) -> None:
    assert facts(Make=make, Model=model).camera == wanted


def test_the_size_is_that_before_the_orientation() -> None:
    found = facts(Orientation=6)
    assert (found.height, found.width) == (20, 30)


def test_damaged_exif_data_never_fail() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Acme"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:07:01 09:30:05"
    whole = encoded(PICTURE, "JPEG", exif=exif.tobytes())
    start, chance = whole.index(b"Exif"), np.random.default_rng(1)
    for _ in range(200):
        data = bytearray(whole)
        for at in chance.integers(start + 6, start + len(exif.tobytes()), 3):
            data[at] = chance.integers(256)
        with strict_pillow():
            assert decode(bytes(data), DecodePart(mode="RGB"))[0].size
            found = facts_of(bytes(data))
        assert (found.format, found.height, found.width) == ("JPEG", 20, 30)

"""A HEIC is decoded where its library is installed; else it is a reject that names the extra, and is read later."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import as_folder, encoded, recipe

from pipeline.builder.build import build, plan
from pipeline.decode.facts import facts_of
from pipeline.decode.picture import Rejected, decode, has_heic_decoder, strict_pillow
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.recipe import DecodePart

# The beginning of a HEIC, which no decoder needs to be refused.
HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
PICTURE = np.add.outer(np.arange(0, 160, 4), np.array([[0, 10, 20]] * 60)).astype(np.uint8)


@pytest.fixture
def without_decoder(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    has_heic_decoder.cache_clear()
    yield
    has_heic_decoder.cache_clear()


@pytest.mark.usefixtures("without_decoder")
def test_without_its_library_a_heic_names_the_extra() -> None:
    with strict_pillow(), pytest.raises(Rejected) as caught:
        decode(HEAD, DecodePart(mode="RGB"))
    assert caught.value.reason == "no_decoder"
    assert "pip install 'imagelake[heic]', then build again" in caught.value.detail


@pytest.mark.usefixtures("without_decoder")
def test_it_is_read_again_once_the_library_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(tmp_path / "set", {"A/a.jpg": encoded(PICTURE, "JPEG"), "A/b.heic": HEAD})
    made = recipe(tmp_path, {"uri": "set"})
    assert build(made, engine=LocalEngine(1)).rejects == 1
    assert Lake(made.root).scan("rejects").collect()["reason"].to_list() == ["no_decoder"]
    # A build without the library has nothing to do.
    assert plan(made) == []
    assert build(made, engine=LocalEngine(1)).done == ()
    monkeypatch.setattr("pipeline.builder.commit_ingest.has_heic_decoder", lambda: True)
    assert "ingest" in {item.stage for item in plan(made)}
    (tmp_path / "set" / "A/b.heic").unlink()
    monkeypatch.setattr("pipeline.builder.commit_ingest.has_heic_decoder", lambda: False)
    assert build(made, engine=LocalEngine(1)).rejects == 0


def test_with_its_library_a_heic_is_an_image() -> None:
    heif = pytest.importorskip("pillow_heif")
    has_heic_decoder.cache_clear()
    out = io.BytesIO()
    heif.from_bytes("RGB", (60, 40), PICTURE.tobytes()).save(out, quality=-1)
    with strict_pillow():
        pixels, _ = decode(out.getvalue(), DecodePart(mode="RGB"))
        facts = facts_of(out.getvalue())
        with pytest.raises(Rejected) as caught:
            decode(out.getvalue()[:-200], DecodePart(mode="RGB"))
    assert pixels.shape == (40, 60, 3)
    assert np.abs(pixels.astype(int) - PICTURE).mean() < 8
    assert (facts.format, facts.height, facts.width) == ("HEIF", 40, 60)
    assert caught.value.reason in ("truncated", "corrupt")

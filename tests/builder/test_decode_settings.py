"""The mode of a lake follows its content once, and stays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import as_folder, as_tar, as_zip, encoded, pictures, recipe

from pipeline.builder import decode_settings
from pipeline.builder.build import Built, build
from pipeline.builder.decode_settings import decide_mode, decide_originals, with_decided_settings
from pipeline.decode import decoder_name
from pipeline.engines.local import LocalEngine
from pipeline.lake.releases import stored_decode
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.recipe import DecodePart, Recipe
from pipeline.sources import Source, resolve


def gray(count: int, seed: int = 0, form: str = "PNG") -> list[bytes]:
    return [encoded(array, form) for array in pictures(count, seed, (8, 8))]


def colour(count: int, seed: int = 0, form: str = "PNG") -> list[bytes]:
    made = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return [encoded(array, form) for array in made]


def alike(count: int, form: str = "PNG") -> list[bytes]:
    """Files in colour whose red, green and blue are equal."""
    return [encoded(np.stack([array] * 3, -1), form) for array in pictures(count, 7, (8, 8))]


def files(*groups: list[bytes]) -> dict[str, bytes]:
    listed = [data for group in groups for data in group]
    return {f"{'AB'[i % 2]}/{i:05d}.png": data for i, data in enumerate(listed)}


def made(made_recipe: Recipe) -> Built:
    return build(made_recipe, engine=LocalEngine(1))


@pytest.mark.parametrize(
    ("groups", "mode"),
    [
        ([gray(5)], "L"),
        ([colour(5)], "RGB"),
        ([alike(5)], "L"),
        ([alike(5, "JPEG")], "L"),
        ([colour(5, form="JPEG")], "RGB"),
        ([gray(100), colour(1)], "L"),
        ([gray(99), colour(1)], "L"),
        ([gray(98), colour(1)], "RGB"),
        ([gray(5), [b"", b"no image", b"\x89PNG\r\n\x1a\n"]], "L"),
        ([[b"no image"]], "RGB"),
        # Only the first thousand count, in the order of paths.
        ([gray(1_000), colour(30)], "L"),
        ([gray(985), colour(30)], "RGB"),
    ],
)
def test_the_mode_follows_the_first_pictures(tmp_path: Path, groups: list[list[bytes]], mode: str) -> None:
    listed = [data for group in groups for data in group]
    as_folder(tmp_path / "set", {f"A/{i:05d}.png": data for i, data in enumerate(listed)})
    assert decide_mode(resolve(recipe(tmp_path, {"uri": "set"}))) == mode


@pytest.mark.parametrize("make", [as_tar, as_zip, as_folder])
def test_one_source_in_colour_makes_a_lake_of_colour(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "one", files(gray(30)))
    make(tmp_path / "two", files(colour(3)))
    both = recipe(tmp_path, {"uri": "one"}, {"uri": "two", "split": "test"})
    assert decide_mode(resolve(both)) == "RGB"
    assert decide_mode(resolve(both)[:1]) == "L"


def test_pixels_without_files_decide_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "rgb.npz", images=np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))
    np.savez(tmp_path / "gray.npz", images=pictures(4, size=(8, 8)))
    assert decide_mode(resolve(recipe(tmp_path, {"uri": "rgb.npz"}))) == "RGB"
    assert decide_mode(resolve(recipe(tmp_path, {"uri": "gray.npz"}))) == "L"


def test_the_first_build_keeps_its_decision(tmp_path: Path) -> None:
    as_folder(tmp_path / "one", files(gray(10)))
    as_folder(tmp_path / "two", files(colour(4), alike(2)))
    first = made(recipe(tmp_path, {"uri": "one"}))
    assert (first.mode, first.mode_decided) == ("L", True)
    assert stored_decode(Snapshot(first.root))["mode"] == "L"
    second = made(recipe(tmp_path, {"uri": "one"}, {"uri": "two", "split": "test"}))
    assert (second.mode, second.mode_decided, second.images, second.rejects) == ("L", False, 16, 0)
    assert [note for note in second.notes if "colour" in note] == [
        'd/test (two): 4 colour images converted to gray. To keep colour, set mode = "RGB" in [decode].'
    ]
    assert set(Lake(second.root).scan("images").collect()["channels"]) == {1}


def test_a_recipe_that_says_its_mode_has_it_and_counts_what_it_converts(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", files(gray(3), colour(2)))
    built = made(recipe(tmp_path, {"uri": "set"}, decode={"mode": "RGB"}))
    assert (built.mode, built.mode_decided, built.images) == ("RGB", False, 5)
    assert any("3 gray images stored as RGB" in note for note in built.notes)
    strict = recipe(tmp_path, {"uri": "set"}, lake={"root": "strict"}, decode={"mode": "L", "on_mismatch": "reject"})
    built = made(strict)
    assert (built.images, built.rejects) == (3, 2)
    assert any('To convert them, set on_mismatch = "convert" in [decode]' in note for note in built.notes)
    (detail,) = set(Lake(built.root).scan("rejects").collect()["detail"])
    assert 'on_mismatch = "convert"' in detail
    assert 'mode = "RGB"' in detail


def test_the_decision_is_an_input_of_the_recipe(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", files(gray(4)))
    first = made(recipe(tmp_path, {"uri": "set"}))
    again = made(recipe(tmp_path, {"uri": "set"}))
    said = made(recipe(tmp_path, {"uri": "set"}, decode={"mode": "L", "on_mismatch": "convert"}))
    assert (first.release, again.release, said.release) == (1, 1, 1)
    other = made(recipe(tmp_path, {"uri": "set"}, decode={"mode": "RGB"}))
    assert (other.release, set(Lake(other.root).scan("images").collect()["channels"])) == (2, {3})


def webp(count: int) -> list[bytes]:
    return colour(count, form="WEBP")


@pytest.mark.parametrize(
    ("groups", "originals"),
    [
        ([gray(5)], "none"),
        ([colour(5, form="BMP")], "none"),
        ([gray(5), gray(1, form="JPEG")], "keep"),
        ([colour(2), webp(1)], "keep"),
        ([colour(2), colour(1, form="AVIF")], "keep"),
        # Also where this machine cannot decode it.
        ([colour(2), [b"\0\0\0\x18ftypheic" + bytes(40)]], "keep"),
        # Only the first thousand count.
        ([gray(1_000), webp(1)], "none"),
        ([[b"", b"no image"]], "none"),
    ],
)
@pytest.mark.parametrize("make", [as_tar, as_folder])
def test_originals_follow_the_first_formats(
    tmp_path: Path, groups: list[list[bytes]], originals: str, make: Any
) -> None:
    listed = [data for group in groups for data in group]
    make(tmp_path / "set", {f"A/{i:05d}.png": data for i, data in enumerate(listed)})
    assert decide_originals(resolve(recipe(tmp_path, {"uri": "set"}))) == originals


def test_pixels_are_no_photographs(tmp_path: Path) -> None:
    np.savez(tmp_path / "gray.npz", images=pictures(4, size=(8, 8)))
    assert decide_originals(resolve(recipe(tmp_path, {"uri": "gray.npz"}))) == "none"


@pytest.mark.parametrize(
    ("form", "decode", "wanted"),
    [
        ("JPEG", {}, ("keep", 256)),
        ("JPEG", {"size": [8, 8]}, ("keep", None)),
        ("JPEG", {"longest": 5}, ("keep", 5)),
        ("JPEG", {"originals": "none"}, ("none", None)),
        ("JPEG", {"originals": "reference"}, ("reference", 256)),
        ("PNG", {}, ("none", None)),
        ("PNG", {"originals": "keep"}, ("keep", 256)),
    ],
)
def test_settings_are_decided_once(
    tmp_path: Path, form: str, decode: dict[str, Any], wanted: tuple[str, int | None]
) -> None:
    as_folder(tmp_path / "set", files(gray(3, form=form)))
    new = recipe(tmp_path, {"uri": "set"}, decode=decode)
    place = Snapshot(new.root)
    part = with_decided_settings(place, new, resolve(new)).decode
    assert (part.originals, part.longest) == wanted
    # The lake's own values are used from then on, and no source is read.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_settings, "stored_decode", lambda _: part.model_dump(mode="json", exclude_none=True))
        again = with_decided_settings(place, recipe(tmp_path, {"uri": "set"}), unread()).decode
        assert again.originals == part.originals
        assert again.longest == part.longest or part.size
        # A lake that does not record it has no originals, and stays so.
        patch.setattr(decode_settings, "stored_decode", lambda _: {"mode": "L", "on_mismatch": "resize"})
        old = with_decided_settings(place, recipe(tmp_path, {"uri": "set"}), unread()).decode
        assert (old.originals, old.longest) == (None, None)
        asked = with_decided_settings(place, recipe(tmp_path, {"uri": "set"}, decode={"originals": "keep"}), unread())
        assert (asked.decode.originals, asked.decode.longest) == ("keep", 256)


def unread() -> Iterator[Source]:
    yield pytest.fail("a source was read")


def test_unset_keys_change_no_digest(tmp_path: Path) -> None:
    plain = recipe(tmp_path, {"uri": "set"})
    values = plain.model_dump(mode="json", by_alias=True)
    assert values["decode"].pop("originals", 0) is None
    assert values["decode"].pop("longest", 0) is None
    assert plain.digest != recipe(tmp_path, {"uri": "set"}, decode={"originals": "none"}).digest
    assert decoder_name(DecodePart(mode="L")) == "pillow-2:5dd553371db51c56"
    assert decoder_name(DecodePart(mode="L", originals="none")) != decoder_name(DecodePart(mode="L"))

"""Images of several shapes, and original files, as arrays and batches."""

import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import recipe
from PIL import Image

from pipeline.builder.build import build
from pipeline.decode.picture import decode, strict_pillow
from pipeline.engines.local import LocalEngine
from pipeline.errors import FeedError, LakeError
from pipeline.lake_handle import Lake
from pipeline.recipe import DecodePart

SPLIT = [{"name": "main", "train": {"from": "train"}}]


def photograph(number: int) -> bytes:
    """A JPEG of 300 to 420 pixels a side, upright or not."""
    chance = np.random.default_rng(number)
    height, width = 300 + 20 * (number % 4), 340 + 40 * (number % 3)
    coarse = Image.fromarray(chance.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=92)
    return stream.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    base = tmp_path_factory.mktemp("photos")
    made = {f"{'AB'[n % 2]}/p{n}.jpg": photograph(n) for n in range(20)}
    for path, data in made.items():
        (base / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (base / "in" / path).write_bytes(data)
    return {"base": str(base).encode(), **made}


@pytest.fixture(scope="module")
def lake(photos: dict[str, bytes]) -> Lake:
    base = Path(photos["base"].decode())
    build(recipe(base, {"uri": "in"}, split=SPLIT), engine=LocalEngine(1))
    return Lake(base / "lake")


def paths(lake: Lake) -> list[str]:
    rows = lake.members("main", "train").join(lake.scan("images").collect(), on="image_id", how="left")
    return rows["path"].to_list()


def test_originals_are_decoded_as_a_build_of_that_size_decodes_them(lake: Lake, photos: dict[str, bytes]) -> None:
    pixels, labels = lake.arrays("main", "train", size=(64, 48), fit="crop", decode="original")
    spec = DecodePart(size=(64, 48), fit="crop", mode="RGB", originals="keep")
    with strict_pillow():
        expected = [decode(photos[path], spec)[0] for path in paths(lake)]
    np.testing.assert_array_equal(pixels, expected)
    assert labels.tolist() == [int(path.startswith("B")) for path in paths(lake)]


def test_stored_pixels_are_resized_as_a_build_resizes_them(lake: Lake) -> None:
    pixels, _ = lake.arrays("main", "train", size=(40, 30))
    whole, _ = lake.arrays("main", "train", ragged="list")
    bilinear = Image.Resampling.BILINEAR
    np.testing.assert_array_equal(
        pixels, [np.asarray(Image.fromarray(picture).resize((30, 40), bilinear)) for picture in whole]
    )


def test_images_of_several_shapes_are_a_list_or_padded(lake: Lake) -> None:
    listed, labels = lake.arrays("main", "train", ragged="list")
    padded, same = lake.arrays("main", "train", ragged="pad")
    assert (labels == same).all()
    assert len({picture.shape for picture in listed}) > 4
    assert padded.shape == (20, *np.max([picture.shape for picture in listed], axis=0))
    for picture, row in zip(listed, padded, strict=True):
        height, width, _ = picture.shape
        np.testing.assert_array_equal(row[:height, :width], picture)
        assert not row[height:].any()
        assert not row[:, width:].any()


@pytest.mark.parametrize("decode_from", ["stored", "original"])
@pytest.mark.parametrize("buffer_bytes", [2**28, 3 * 32 * 32 * 8])
def test_batches_of_a_size_are_the_arrays_and_continue_from_a_state(
    lake: Lake, decode_from: Any, buffer_bytes: int
) -> None:
    pixels, labels = lake.arrays("main", "train", size=(32, 32), decode=decode_from)
    feed = lake.feed(
        "main", "train", batch_size=6, size=(32, 32), decode=decode_from, buffer_bytes=buffer_bytes, seed=3
    )
    batches = list(feed.epoch(1))
    found = np.concatenate([part for part, _ in batches])
    assert sorted(map(bytes, found)) == sorted(map(bytes, pixels))
    by_pixels = {bytes(picture): label for picture, label in zip(pixels, labels.tolist(), strict=True)}
    assert [by_pixels[bytes(picture)] for picture in found] == np.concatenate([part for _, part in batches]).tolist()
    begun = feed.epoch(1)
    next(begun)
    again = pickle.loads(pickle.dumps(feed)).epoch(1, state=begun.state())  # noqa: S301 - made here
    np.testing.assert_array_equal(np.concatenate([part for part, _ in again]), found[6:])


@pytest.mark.parametrize("ragged", ["list", "pad"])
@pytest.mark.parametrize("buffer_bytes", [2**28, 500_000])
def test_batches_of_several_shapes_are_the_arrays(lake: Lake, ragged: Any, buffer_bytes: int) -> None:
    listed, labels = lake.arrays("main", "train", ragged="list")
    expected = {bytes(picture): label for picture, label in zip(listed, labels.tolist(), strict=True)}
    shapes = {bytes(picture): picture.shape for picture in listed}
    feed = lake.feed("main", "train", batch_size=6, ragged=ragged, buffer_bytes=buffer_bytes)
    assert feed.held_whole == (buffer_bytes > 500_000)
    found: dict[bytes, int] = {}
    for pictures, batch_labels in feed.epoch(2):
        for picture, label in zip(pictures, batch_labels.tolist(), strict=True):
            # The smallest of the images that it begins with: padding is zeros.
            own = next(
                data
                for data, (height, width, _) in shapes.items()
                if height <= picture.shape[0] and width <= picture.shape[1] and bytes(picture[:height, :width]) == data
            )
            assert ragged == "pad" or picture.shape == shapes[own]
            found[own] = label
    assert found == expected
    begun = feed.epoch(2)
    next(begun)
    rest = list(feed.epoch(2, state=begun.state()))
    for (pictures, _), (others, _) in zip(begun, rest, strict=True):
        assert all(map(np.array_equal, pictures, others))


def test_a_state_of_another_size_is_refused(lake: Lake) -> None:
    state = lake.feed("main", "train", batch_size=6, size=(32, 32)).epoch(0).state()
    with pytest.raises(FeedError, match="size is '16x16', in the state '32x32'"):
        lake.feed("main", "train", batch_size=6, size=(16, 16)).epoch(0, state=state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"have several shapes .*: give a size .*, or ragged = "),
        ({"fit": "pad"}, r"fit = 'pad' needs size = \(height, width\)"),
        ({"decode": "original"}, r"decode = 'original' needs size"),
        ({"size": (0, 8)}, r"size is \(0, 8\); both sides must be 1 or more"),
        ({"size": (8, 8), "fit": "squeeze"}, "fit is 'squeeze'; it must be one of 'stretch', 'crop', 'pad'"),
        ({"size": (8, 8), "ragged": "list"}, "size and ragged exclude one another"),
        ({"ragged": "list", "normalised": True}, "needs images of one shape"),
    ],
)
def test_what_cannot_be_read_says_why(lake: Lake, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LakeError, match=message):
        lake.arrays("main", "train", **options)


def test_a_lake_without_originals_says_so(small_lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"does not have the original files of 120 of 120 images.* originals = .keep."):
        small_lake.arrays("main", "train", size=(8, 8), decode="original")
    assert small_lake.arrays("main", "train", size=(14, 14))[0].shape == (120, 14, 14)


def test_referenced_originals_are_read_where_they_are(photos: dict[str, bytes], tmp_path: Path, lake: Lake) -> None:
    base = Path(photos["base"].decode())
    source = tmp_path / "in"
    shutil.copytree(base / "in", source)
    build(recipe(tmp_path, {"uri": "in"}, decode={"originals": "reference"}, split=SPLIT), engine=LocalEngine(1))
    referenced = Lake(tmp_path / "lake")
    options: dict[str, Any] = {"size": (32, 32), "decode": "original"}
    np.testing.assert_array_equal(
        referenced.arrays("main", "train", **options)[0], lake.arrays("main", "train", **options)[0]
    )
    (source / "A" / "p4.jpg").write_bytes(photograph(5))
    with pytest.raises(LakeError, match=r"p4.jpg has changed since the build. To read it again, run: imagelake build"):
        referenced.arrays("main", "train", **options)
    (source / "A" / "p4.jpg").unlink()
    with pytest.raises(LakeError, match=r"p4.jpg cannot be read \(No such file"):
        referenced.arrays("main", "train", **options)


def test_more_pixels_than_fit_into_memory_are_refused_before_they_are_read(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LakeError, match=r"20 images of 100000 x 100000 x 3 need 600\.0 GB of memory, and .* available"):
        lake.arrays("main", "train", size=(100_000, 100_000))
    monkeypatch.setattr("pipeline.pixels.available_memory", lambda: None)
    with pytest.raises(LakeError, match=r"need 6,000,000\.0 GB of memory\. Read fewer"):
        lake.arrays("main", "train", size=(10_000_000, 10_000_000))
    monkeypatch.setattr("pipeline.pixels.available_memory", lambda: 1_000)
    with pytest.raises(LakeError, match=r"20 images need 0\.0 GB of memory, and 0\.0 GB are available"):
        lake.arrays("main", "train", ragged="pad")

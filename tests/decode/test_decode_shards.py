"""A shard decoded: every file once, in order, with the right columns, and no copy where none is needed."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import as_folder, as_tar, decoded, encoded, pictures, png, shard_of, source_of, turned_away

import schemas
from pipeline.arrow_columns import from_binary
from pipeline.decode import Decoded, decode_shard, decoder_name, rejects_table
from pipeline.hashing import content_hashes, image_ids, pixel_digests
from pipeline.recipe import DecodePart
from pipeline.shard import REASONS, Blobs, Deferred, Encoded, Pixels, Reject
from pipeline.sources import read

GRAY = pictures(6, size=(4, 5))
# Every way a file can end here, with the reason for those that become no image.
FILES = {
    "small": (encoded(GRAY[0]), None),
    "tall": (encoded(GRAY[1].T.copy()), None),
    "large": (encoded(pictures(1, size=(30, 30))[0]), None),
    "empty": (b"", "empty"),
    "text": (b"no image", "not_an_image"),
    "cut": (encoded(GRAY[2])[:60], "truncated"),
    "broken": (encoded(GRAY[2]).replace(b"IDAT", b"TADI"), "corrupt"),
    "colour": (encoded(np.stack([GRAY[3]] * 3, -1)), "wrong_mode"),
    "bomb": (png((99_999, 99_999), 1, 0, b""), "too_large"),
}


def strict(**settings: Any) -> DecodePart:
    return DecodePart.model_validate({"mode": "L", "on_mismatch": "reject", **settings})


def split_up(shard: Encoded, spec: DecodePart) -> tuple[list[Decoded], list[Reject]]:
    items = list(decode_shard(shard, "d", "train", spec))
    return [i for i in items if isinstance(i, Decoded)], [i for i in items if isinstance(i, Reject)]


def check_columns(groups: Sequence[Decoded], shard: Encoded) -> None:
    """Check every column of decoded images against the shard they come from and their own pixels."""
    label_of = dict(zip(shard.paths, shard.labels, strict=True))
    for images, pixels, *_ in groups:
        assert images.schema == schemas.TABLES["images"].file_schema
        rows = images.to_pydict()
        assert [rows[name][0] for name in ("height", "width", "channels")] == list(pixels.shape[1:])
        assert [len(set(rows[name])) for name in ("height", "width", "channels")] == [1, 1, 1]
        assert rows["pixels"] == [picture.tobytes() for picture in pixels]
        assert rows["content_hash"] == [digest.tobytes() for digest in content_hashes(pixels)]
        assert rows["image_id"] == [name.tobytes() for name in image_ids("d", "train", rows["path"])]
        assert rows["label"] == [label_of[path] for path in rows["path"]]
        contents = shard.contents.make() if isinstance(shard.contents, Deferred) else shard.contents
        if isinstance(contents, Blobs):
            data_of = dict(zip(shard.paths, contents.data, strict=True))
            assert rows["file_digest"] == [sha256(data_of[path]).digest() for path in rows["path"]]


@given(st.lists(st.sampled_from(sorted(FILES)), max_size=25), st.booleans(), st.sampled_from([1, 30, 2**24]))
@settings(max_examples=60)
def test_every_file_is_one_row_of_images_or_of_rejects(names: list[str], made: bool, group: int) -> None:  # noqa: FBT001
    data = tuple(FILES[name][0] for name in names)
    before = Reject("sourced", None, "not_a_file", "by the source", 3)
    contents = Deferred(lambda: Blobs(data)) if made else Blobs(data)
    paths = tuple(f"{position:03d}" for position in range(len(names)))
    shard = Encoded("s", "f", paths, tuple(name if name != "tall" else None for name in names), contents, (before,))
    with pytest.MonkeyPatch.context() as held:
        held.setattr("pipeline.decode._GROUP_BYTES", group)
        images, rejects = split_up(shard, strict())
    check_columns(images, shard)
    taken = [path for images, *_ in images for path in images["path"].to_pylist()]
    assert sorted([*taken, *(reject.path for reject in rejects[1:])]) == list(paths)
    assert len(taken) + len(rejects) == len(shard)
    assert rejects[0] == before
    expected = [(path, FILES[name][1]) for path, name in zip(paths, names, strict=True) if FILES[name][1]]
    assert [(reject.path, reject.reason) for reject in rejects[1:]] == expected
    assert all(reject.reason in REASONS for reject in rejects)
    sizes = {path: len(file) for path, file in zip(paths, data, strict=True)}
    assert all(reject.file_size == sizes[reject.path] for reject in rejects[1:])
    assert all(
        images["file_size"].to_pylist() == [sizes[p] for p in images["path"].to_pylist()] for images, *_ in images
    )
    # In one group a shape, and in each the order of the source.
    assert all(group["path"].to_pylist() == sorted(group["path"].to_pylist()) for group, *_ in images)
    assert group < 2**24 or len(images) == len({pixels.shape[1:] for _, pixels, *_ in images})


@pytest.mark.parametrize("group", [1, 50, 100, 10_000])
def test_one_size_keeps_the_order_of_the_source_across_groups(monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    monkeypatch.setattr("pipeline.decode._GROUP_BYTES", group)
    made = pictures(50, size=(5, 5))
    images, rejects = split_up(shard_of(*map(encoded, made)), strict(size=(5, 5)))
    assert not rejects
    assert [path for images, *_ in images for path in images["path"].to_pylist()] == [str(n) for n in range(50)]
    assert np.array_equal(np.concatenate([pixels for _, pixels, *_ in images])[..., 0], made)
    assert max(pixels.nbytes for _, pixels, *_ in images) < group + 25


@pytest.mark.parametrize("group", [100, 10_000])
@pytest.mark.parametrize("size", [None, (5, 5)])
def test_pixels_that_fit_are_not_copied(
    monkeypatch: pytest.MonkeyPatch, group: int, size: tuple[int, int] | None
) -> None:
    monkeypatch.setattr("pipeline.decode._GROUP_BYTES", group)
    array = pictures(50, size=(5, 5))[..., None]
    shard = Encoded("s", "f", tuple(map(str, range(50))), tuple("ab" * 25), Pixels(array))
    images, rejects = split_up(shard, strict(size=size))
    assert not rejects
    check_columns(images, shard)
    assert np.array_equal(np.concatenate([pixels for _, pixels, *_ in images]), array)
    for rows, pixels, *_ in images:
        assert np.shares_memory(pixels, array)
        assert np.shares_memory(from_binary(rows["pixels"].chunk(0), 25), array)
        assert set(rows["file_size"].to_pylist()) == {25}


def test_pixels_that_do_not_fit_are_rejected_or_brought_to_size() -> None:
    array = pictures(3, size=(5, 5))[..., None]
    shard = Encoded("s", "f", ("0", "1", "2"), (None,) * 3, Pixels(array))
    images, rejects = split_up(shard, strict(size=(4, 4)))
    assert not images
    assert [(reject.path, reject.reason, reject.file_size) for reject in rejects] == [
        (path, "wrong_size", 25) for path in "012"
    ]
    images, rejects = split_up(shard, strict(size=(4, 4), on_mismatch="convert"))
    assert not rejects
    check_columns(images, shard)
    # The digest is of the values in the source: another size or mode does not change it.
    assert images[0].images["file_digest"].to_pylist() == pixel_digests(array)


def test_an_empty_shard_is_nothing() -> None:
    assert split_up(shard_of(), strict()) == ([], [])
    nothing = Encoded("s", "f", (), (), Pixels(np.empty((0, 4, 4, 1), np.uint8)))
    assert split_up(nothing, strict()) == ([], [])


def test_files_on_disk_give_the_same_rows_as_in_memory(tmp_path: Path) -> None:
    files = {f"{name}.png": data for name, (data, _) in FILES.items()}
    (shard,) = read(source_of(as_folder(tmp_path / "set", files)))
    in_memory = Encoded("s", "f", shard.paths, shard.labels, Blobs(tuple(files[path] for path in shard.paths)))
    (images, rejects), (others, refused) = split_up(shard, strict()), split_up(in_memory, strict())
    assert rejects == refused
    assert [rows.to_pylist() for rows, *_ in images] == [rows.to_pylist() for rows, *_ in others]


def test_a_file_that_grew_since_it_was_listed_is_a_reject(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a.png": b"x"})
    (shard,) = read(source_of(folder, decode={"max_bytes": 10}))
    (folder / "a.png").write_bytes(bytes(99))
    ((_, _, reason, detail, _),) = split_up(shard, strict(max_bytes=10))[1]
    assert (reason, detail) == ("too_large", "more than decode.max_bytes = 10 bytes")


def test_rejects_become_rows() -> None:
    refused = [Reject("b", "B", "empty", "x", 0), Reject("a", None, "bad_row", "y", 7)]
    table = rejects_table(refused, "s", "d", "train")
    assert table.schema == schemas.TABLES["rejects"].schema
    assert [
        (row["path"], row["label"], row["reason"], row["detail"], row["file_size"]) for row in table.to_pylist()
    ] == refused
    assert rejects_table([], "s", "d", "train").num_rows == 0


def test_the_decoder_is_named_for_what_changes_pixels() -> None:
    resized = strict(size=(4, 4), on_mismatch="convert")
    specs = [strict(), strict(size=(4, 4)), resized, resized.model_copy(update={"background": 0})]
    names = [decoder_name(spec) for spec in specs]
    assert len(set(names)) == 4
    # Nothing is laid over a background where every other mode is rejected.
    assert names[0] == decoder_name(strict()) == decoder_name(strict(background=0))
    # How a picture is brought to size is another decoder, where it is.
    cropped = resized.model_copy(update={"fit": "crop"})
    assert decoder_name(cropped) not in names
    assert decoder_name(cropped.model_copy(update={"on_mismatch": "reject"})) == names[1]
    # "resize" is the old name of "convert", and what lakes of version 0.5 have.
    assert decoder_name(strict(on_mismatch="resize")) == decoder_name(strict(on_mismatch="convert"))
    assert decoder_name(strict(on_mismatch="resize")) == "pillow-2:5dd553371db51c56"
    # A promise to old lakes: another name decodes every shard again.
    assert names[0] == "pillow-2:dc7048f8f8747f56"


def test_colour_has_a_decoder_name_of_its_own() -> None:
    modes = ("L", "RGB")
    for keys in ({}, {"size": (4, 4)}, {"on_mismatch": "convert"}, {"size": (4, 4), "on_mismatch": "convert"}):
        assert len({decoder_name(strict(mode=mode, **keys)) for mode in modes}) == 2
    # As in version 0.5, whose lakes are not decoded again.
    assert decoder_name(strict(mode="RGB")) == "pillow-2:de96030b036ac360"
    assert decoder_name(strict(mode="RGB", on_mismatch="convert")) == "pillow-2:19f2c9b23a602bec"


def test_every_reason_has_a_meaning_in_one_line() -> None:
    assert all(code.replace("_", "").isalpha() and "\n" not in meaning for code, meaning in REASONS.items())
    assert {reason for _, reason in FILES.values() if reason} < set(REASONS)
    assert all(isinstance(result, Reject) for result in decoded(shard_of(b"", b"x")))


def test_every_reason_is_given_by_some_input(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {f"{name}.png": data for name, (data, _) in FILES.items()})
    (folder / "link.png").symlink_to("nowhere")
    (tmp_path / "a.csv").write_text("label,pixel0,pixel1,pixel2,pixel3\n1,2,3,4,5\n1,2,3,4,x\n")
    (shard,) = read(source_of(folder))
    rows = split_up(shard, strict(size=(4, 5)))[1]
    (folder / "small.png").unlink()
    rows += split_up(shard, strict())[1]
    rows += [refused for shard in read(source_of(tmp_path / "a.csv")) for refused in shard.rejects]
    rows += turned_away(source_of(as_tar(tmp_path / "a.tar", {"A/._x.png": b"1"})))
    split = {"split": None, "splits": {"train": "A"}}
    rows += turned_away(source_of(as_tar(tmp_path / "b.tar", {"A/x.png": b"1", "B/x.png": b"1"}), **split))
    # HEIC without its decoder is tried in test_heic.py.
    assert {refused.reason for refused in rows} == set(REASONS) - {"no_decoder"}

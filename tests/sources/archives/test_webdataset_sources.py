"""WebDataset: samples of a tar, their pictures and their labels; and every file that is neither."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from making import as_folder, as_tar, encoded, files_of, handed_out, pictures, recipe, source_of, turned_away

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import RecipeError, SourceError
from pipeline.lake_handle import Lake
from pipeline.shard import REASONS
from pipeline.sources import detect, read, survey

PNGS = [encoded(pixels) for pixels in pictures(6)]


def labelled(labels: list[Any], ending: str = "cls") -> dict[str, bytes]:
    """Name samples as WebDataset's own writer does: 000000.png, 000000.cls, ..."""
    files: dict[str, bytes] = {}
    for n, label in enumerate(labels):
        files[f"{n:06}.png"] = PNGS[n]
        files[f"{n:06}.{ending}"] = json.dumps({"label": label}).encode() if ending == "json" else str(label).encode()
    return files


def labels(file: Path, **options: Any) -> list[tuple[str, str | None]]:
    return [(path, label) for path, label, _ in handed_out(source_of(file, **options))]


def refused(file: Path, **options: Any) -> list[tuple[str, str | None, str]]:
    return [(item.path, item.label, item.reason) for item in turned_away(source_of(file, **options))]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("ending", ["cls", "json"])
def test_a_shard_is_told_from_a_plain_tar_and_read(tmp_path: Path, mode: str, ending: str) -> None:
    source = source_of(as_tar(tmp_path / "train-000000.tar", labelled([3, 0, "emu"], ending), mode))
    assert source.format == "webdataset"
    assert handed_out(source) == [(f"{n:06}.png", label, PNGS[n]) for n, label in enumerate(["3", "0", "emu"])]
    assert turned_away(source) == []


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("webdataset", ["0001.cls", "0001.jpg"]),
        ("webdataset", ["./a/0001.__key__", "./a/0001.jpg", "./a/0001.cls"]),
        ("webdataset", ["info.json", "0001.jpg", "0001.cls"]),
        ("webdataset", ["0001.JPG", "0001.CLS"]),
        ("webdataset", ["0001.left.png", "0001.right.png", "0001.cls"]),
        ("webdataset", ["._0001.jpg", "0001.jpg", "._0001.cls", "0001.cls"]),
        ("tar", ["0001.jpg", "0002.cls"]),
        ("webdataset", ["0001.jpg", "0001.txt"]),
        ("tar", ["A/0001.jpg", "A/0001.txt"]),
        ("tar", ["a/0001.jpg", "b/0001.cls"]),
        ("tar", ["0001.npy", "0001.cls"]),
        ("tar", ["A/0001.png", "A/0001.json"]),
        ("tar", [".jpg", ".cls"]),
        ("tar", [*(f"A/{n}.png" for n in range(16)), "0001.jpg", "0001.cls"]),
    ],
)
def test_only_a_picture_and_its_label_make_a_tar_a_webdataset(tmp_path: Path, form: str, names: list[str]) -> None:
    assert detect(as_tar(tmp_path / "a.tar", dict.fromkeys(names, b"{}"), "w")) == form


@pytest.mark.parametrize("data", [b"no json", b"[1]", b'{"caption": "x"}', b"[" * 9_000, b"\xff"])
def test_json_beside_pictures_does_not_make_a_plain_tar_a_webdataset(tmp_path: Path, data: bytes) -> None:
    assert detect(as_tar(tmp_path / "a.tar", {"A/1.png": PNGS[0], "A/1.json": data}, "w")) == "tar"


def test_other_files_of_a_sample_are_part_of_its_row(tmp_path: Path) -> None:
    files = {"1.json": b"{}", "1.png": PNGS[0], "1.cls": b"7\n", "1.npy": b"numbers", "1.txt": b"a caption", "1.x": b""}
    assert labels(as_tar(tmp_path / "a.tar", files)) == [("1.png", "7")]
    assert refused(tmp_path / "a.tar") == []


@pytest.mark.parametrize(
    ("files", "label"),
    [
        ({"cls": b"7"}, "7"),
        ({"cls": b" a dog \r\n"}, "a dog"),
        ({"cls": b"\xef\xbb\xbf7"}, "7"),
        ({"cls": "ü".encode()}, "ü"),
        ({"cls": b""}, None),
        ({"cls": b"7", "json": b'{"label": 8}'}, "7"),
        ({"cls": b"7", "json": b"no json"}, "7"),
        ({"json": b'{"label": "x", "cls": 1, "class": 2}'}, "x"),
        ({"json": b'{"cls": 1, "class": 2}'}, "1"),
        ({"json": b'{"class": 2.0}'}, "2"),
        ({"json": b'{"label": true}'}, "true"),
        ({"json": b'{"label": null}'}, None),
        ({"json": b'{"label": " "}'}, None),
        ({"json": b'{"Label": 3}'}, "3"),
        ({"json": b'{"label": NaN}'}, None),
        ({"json": b"3"}, "3"),
        ({"json": b'"cat"'}, "cat"),
        ({"json": b'{"caption": "a dog"}'}, None),
        ({"txt": b"a dog that runs over the grass"}, None),
        ({}, None),
    ],
)
def test_the_label_is_what_the_class_or_the_json_says(
    tmp_path: Path, files: dict[str, bytes], label: str | None
) -> None:
    members = {"1.png": PNGS[0], **{f"1.{ending}": data for ending, data in files.items()}}
    assert labels(as_tar(tmp_path / "a.tar", members), format="webdataset") == [("1.png", label)]


@pytest.mark.parametrize(
    ("asked", "label"), [(None, "7"), ("cls", "7"), ("txt", "a caption"), ("meta.txt", "m"), ("kind", "k"), ("", None)]
)
def test_the_recipe_names_the_label(tmp_path: Path, asked: str | None, label: str | None) -> None:
    files = {"1.png": PNGS[0], "1.cls": b"7", "1.txt": b"a caption", "1.meta.txt": b"m", "1.json": b'{"kind": "k"}'}
    options = {} if asked is None else {"labels": asked}
    assert labels(as_tar(tmp_path / "a.tar", files), **options) == [("1.png", label)]


def test_every_picture_of_a_sample_is_a_row_unless_the_recipe_names_one(tmp_path: Path) -> None:
    file = as_tar(tmp_path / "a.tar", {"1.cls": b"7", "1.jpg": PNGS[0], "1.seg.png": PNGS[1], "1.PNG": PNGS[2]})
    assert labels(file) == [("1.jpg", "7"), ("1.seg.png", "7"), ("1.PNG", "7")]
    for asked, path in (
        ("jpg", "1.jpg"),
        (".jpg", "1.jpg"),
        ("seg.png", "1.seg.png"),
        ("png", "1.PNG"),
        ("cls", "1.cls"),
    ):
        assert labels(file, images=asked) == [(path, "7")]
        assert refused(file, images=asked) == []


@pytest.mark.parametrize(
    ("files", "detail"),
    [
        ({"cls": b"\xff"}, "1.cls is no UTF-8 text"),
        ({"json": b"{"}, "1.json is no JSON (Expecting"),
        ({"json": b"[" * 100_000}, "1.json is no JSON ("),
        ({"json": b'{"label": [1]}'}, "'label' is neither words nor a whole number"),
        ({"json": b'{"label": 0.5}'}, "'label' is neither words nor a whole number"),
        ({"json": b'{"label": "\\ud800"}'}, "'label' is no text"),
        ({"json": b"[3]"}, '1.json holds a list, which is not read. Say labels = ""'),
        ({"json": b'{"label": %s}' % (b"9" * 5_000)}, "1.json is no JSON ("),
        ({"cls": bytes(20_000)}, "1.cls: 20000 bytes, more than decode.max_bytes = 10000"),
    ],
)
def test_a_picture_whose_label_cannot_be_read_is_a_reject(tmp_path: Path, files: dict[str, bytes], detail: str) -> None:
    members = {"1.png": PNGS[0], **{f"1.{ending}": data for ending, data in files.items()}, "2.png": PNGS[1]}
    limit = {"max_bytes": 10_000} if "max_bytes" in detail else {}
    source = source_of(as_tar(tmp_path / "a.tar", members), format="webdataset", decode=limit)
    assert [path for path, *_ in handed_out(source)] == ["2.png"]
    (item,) = turned_away(source)
    assert (item.path, item.label, item.reason, item.file_size) == ("1.png", None, "bad_row", len(PNGS[0]))
    assert item.detail.startswith(detail)


def test_a_label_that_the_recipe_names_must_be_there(tmp_path: Path) -> None:
    source = source_of(as_tar(tmp_path / "a.tar", labelled([1, 2])), labels="kind")
    assert handed_out(source) == []
    assert {(item.reason, item.detail) for item in turned_away(source)} == {
        ("bad_row", "the sample has no file .kind, and no .json with 'kind'")
    }


def test_files_without_a_picture_are_rejects(tmp_path: Path) -> None:
    files = {
        "README": b"text",
        "1.cls": b"7",
        "2.png": PNGS[0],
        "2.cls": b"8",
        "sub/2.json": b"{}",
        ".hidden.png": PNGS[1],
        "no.": b"",
        "2.txt": b"parted from its sample",
    }
    assert labels(as_tar(tmp_path / "a.tar", files)) == [("2.png", "8")]
    lost = ["README", "1.cls", "sub/2.json", ".hidden.png", "no.", "2.txt"]
    assert refused(tmp_path / "a.tar") == [(path, None, "not_an_image") for path in lost]


def test_what_is_turned_away_keeps_its_own_reason(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as archive:
        for name, data in {"1.cls": b"7", "1.png": bytes(3_000), "1.npy": bytes(3_000), "3.npy": bytes(3_000)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name in ("2.jpg", "2.cls"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "1.png"
            archive.addfile(info)
    items = turned_away(source_of(file, format="webdataset", decode={"max_bytes": 2_000}))
    assert [(item.path, item.label, item.reason) for item in items] == [
        ("1.png", "7", "too_large"),
        ("3.npy", None, "too_large"),
        ("2.jpg", None, "not_a_file"),
    ]


def test_what_a_mac_leaves_in_between_parts_no_sample(tmp_path: Path) -> None:
    files = {"1.png": PNGS[0], "._1.cls": b"mac", "1.cls": b"7", "._2.png": b"mac", "2.png": PNGS[1], "2.cls": b"8"}
    assert labels(as_tar(tmp_path / "a.tar", files)) == [("1.png", "7"), ("2.png", "8")]
    assert refused(tmp_path / "a.tar") == [("._1.cls", None, "system_file"), ("._2.png", None, "system_file")]


def test_names_are_shared_up_to_the_first_dot_of_the_name(tmp_path: Path) -> None:
    files = {"v1.0/1.png": PNGS[0], "v1.0/1.cls": b"a", "v1.0/2.x.png": PNGS[1], "v1.0/2.cls": b"b"}
    assert labels(as_tar(tmp_path / "a.tar", files)) == [("v1.0/1.png", "a"), ("v1.0/2.x.png", "b")]


def test_shards_are_cut_by_count_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(as_tar(tmp_path / "a.tar", labelled([1, 2, 3, 4, 5])))
    monkeypatch.setattr("pipeline.sources.archives.webdataset.IMAGES_PER_SHARD", 2)
    shards = list(read(source))
    assert [len(shard) for shard in shards] == [2, 2, 1]
    assert {shard.fingerprint for shard in shards} == {survey(source).fingerprint}
    assert [shard.paths for shard in read(source, {shards[1].shard})] == [("000002.png", "000003.png")]
    assert shards[-1].done == 1.0
    monkeypatch.setattr("pipeline.sources.archives.webdataset.BYTES_PER_SHARD", 800)
    assert [len(shard) for shard in read(source)] == [1] * 5


def test_options_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    file = as_tar(tmp_path / "a.tar", labelled([1]))
    options: list[dict[str, Any]] = [{}, {"images": "png"}, {"labels": "cls"}, {"labels": ""}]
    assert len({survey(source_of(file, **option)).fingerprint for option in options}) == 4


def test_a_tar_whose_files_all_share_a_name_is_no_webdataset(tmp_path: Path) -> None:
    files = {f"scan.{n}.png": b"" for n in range(1_001)}
    with pytest.raises(SourceError, match='more than 1000 files of .*a.tar share the name scan .* set format = "tar"'):
        handed_out(source_of(as_tar(tmp_path / "a.tar", files), format="webdataset"))


def test_an_empty_archive_and_a_damaged_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no files"):
        handed_out(source_of(as_tar(tmp_path / "a.tar", {}), format="webdataset"))
    whole = as_tar(tmp_path / "b.tar.gz", labelled([1, 2, 3])).read_bytes()
    for cut in (len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.tar.gz").write_bytes(whole[:cut])
        with pytest.raises(SourceError, match="damaged or cut short"):
            handed_out(source_of(tmp_path / "cut.tar.gz", format="webdataset"))


@pytest.mark.parametrize(
    ("cut_in", "kept", "lost"),
    [
        ("1.cls", [("0.png", "a")], [("1.png", None, "truncated"), ("cut.tar", None, "truncated")]),
        ("1.png", [("0.png", "a")], [("cut.tar", None, "truncated")]),
        ("2.cls", [("0.png", "a"), ("1.png", "b")], [("2.png", None, "truncated"), ("cut.tar", None, "truncated")]),
    ],
)
def test_of_a_cut_archive_no_picture_is_kept_without_its_label(
    tmp_path: Path, cut_in: str, kept: list[tuple[str, str]], lost: list[tuple[str, str | None, str]]
) -> None:
    files = {f"{n}.{end}": data for n in range(3) for end, data in (("png", PNGS[n]), ("cls", b"abc"[n : n + 1]))}
    whole = as_tar(tmp_path / "a.tar", files, "w").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: whole.index(cut_in.encode()) + 512])
    options: dict[str, Any] = {"format": "webdataset", "truncated": "keep"}
    assert labels(tmp_path / "cut.tar", **options) == kept
    assert refused(tmp_path / "cut.tar", **options) == lost


def test_keys_of_other_forms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="rows does not apply to a source of format webdataset"):
        source_of(as_tar(tmp_path / "a.tar", labelled([1])), rows=3)


def test_a_build_makes_the_same_images_as_of_a_folder(tmp_path: Path) -> None:
    files = files_of(40, "ABC")
    members: dict[str, bytes] = {}
    for path, data in files.items():
        label, name = path.split("/")
        members |= {f"x/{name}": data, f"x/{name[:-4]}.cls": label.encode()}
    as_tar(tmp_path / "w.tar", {**members, "y.cls": b"alone", "z.png": b"no image", "z.cls": b"A"})
    as_folder(tmp_path / "folder", files)
    asked = recipe(tmp_path, {"uri": "w.tar"}, {"uri": "folder", "split": "test"}, decode={"size": [28, 28]})
    made = build(asked, engine=LocalEngine(2))
    rows = Lake(made.root).scan("images").select("split", "label", "content_hash").collect()
    of = {split: sorted(rows.filter(split=split).drop("split").rows()) for split in ("train", "test")}
    assert of["train"] == of["test"]
    rejects = Lake(made.root).scan("rejects").select("path", "label", "reason").collect().rows()
    assert sorted(rejects) == [("y.cls", None, "not_an_image"), ("z.png", "A", "not_an_image")]
    assert {reason for *_, reason in rejects} <= set(REASONS)
    assert build(asked, engine=LocalEngine(1)).done == ()

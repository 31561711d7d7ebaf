"""Labels of WebDatasets whose names have several dots, or that are called otherwise: read, or named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import as_tar, encoded, handed_out, pictures, source_of, turned_away

from pipeline.errors import SourceError
from pipeline.sources import detect, read

PNG = encoded(pictures(1)[0])
Row = tuple[str, str | None]


def written(folder: Path, files: dict[str, Any]) -> Path:
    """Write a tar: text as it is, a mapping as JSON, and nothing as a picture."""
    data = {
        name: json.dumps(content).encode() if isinstance(content, dict) else content for name, content in files.items()
    }
    return as_tar(folder / "a.tar", {n: c.encode() if isinstance(c, str) else c or PNG for n, c in data.items()}, "w")


def labels(file: Path, **part: Any) -> list[Row]:
    return [(path, label) for path, label, _ in handed_out(source_of(file, **part))]


def refused(file: Path, **part: Any) -> dict[str, tuple[str, str]]:
    return {item.path: (item.reason, item.detail) for item in turned_away(source_of(file, **part))}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"v1.1.png": "", "v1.1.cls": "1", "v1.2.png": "", "v1.2.cls": "0"}, {"v1.1.png": "1", "v1.2.png": "0"}),
        (
            {"img.v2.left.jpg": "", "img.v2.right.jpg": "", "img.v2.cls": "7"},
            {"img.v2.left.jpg": "7", "img.v2.right.jpg": "7"},
        ),
        ({"photo.1.5x.jpg": "", "photo.1.5x.cls": "a"}, {"photo.1.5x.jpg": "a"}),
        ({"photo.1.5x.jpg": "", "photo.cls": "a"}, {"photo.1.5x.jpg": "a"}),
        ({"a.b.cls": "3", "a.b.c.d.png": "", "a.x.png": "", "a.cls": "4"}, {"a.b.c.d.png": "3", "a.x.png": "4"}),
        (
            {
                "2024.01.02.jpg": "",
                "2024.01.02.json": {"label": "x"},
                "2024.01.03.jpg": "",
                "2024.01.03.json": {"label": "y"},
            },
            {"2024.01.02.jpg": "x", "2024.01.03.jpg": "y"},
        ),
        ({"V1.1.PNG": "", "V1.1.CLS": "1", "v1.2.png": "", "v1.2.Cls": "0"}, {"V1.1.PNG": "1", "v1.2.png": "0"}),
        (
            {"f/n0.1.png": "", "f/n0.1.cls.txt": "1", "f/n0.2.png": "", "f/n0.2.label.txt": "2"},
            {"f/n0.1.png": "1", "f/n0.2.png": "2"},
        ),
        ({"1.image.png": "", "1.label.cls": "5", "1.seg.png": ""}, {"1.image.png": "5", "1.seg.png": "5"}),
        (
            {"pt.x.png": "", "pt.x.cls": "1", "pt.y.png": "", "pt.y.cls": "2", "pt.z.png": ""},
            {"pt.x.png": "1", "pt.y.png": "2", "pt.z.png": None},
        ),
        (
            {"a.label.png": "", "a.label.txt": "cat", "a.other.png": "", "a.other.txt": "dog"},
            {"a.label.png": "cat", "a.other.png": "dog"},
        ),
        ({"1.jpg": "", "1.jpg.json": {"label": "a"}, "2.png": "", "2.png.cls": "b"}, {"1.jpg": "a", "2.png": "b"}),
        ({"v.1.jpg": "", "v.1.jpg.txt": "a", "v.1.png": "", "v.1.png.txt": "b"}, {"v.1.jpg": "a", "v.1.png": "b"}),
    ],
)
def test_a_picture_takes_the_label_with_the_longest_beginning_of_its_name(
    tmp_path: Path, names: dict[str, Any], expected: dict[str, str | None]
) -> None:
    file = written(tmp_path, names)
    assert detect(file) == "webdataset"
    assert dict(labels(file)) == expected
    assert refused(file) == {}


@pytest.mark.parametrize(
    ("ending", "content", "label"),
    [
        ("cls", "3.0", "3"),
        ("cls", b"\xef\xbb\xbf7\r\n", "7"),
        ("cls", "7\n".encode("utf-16"), "7"),
        ("cls", b"\xfe\xff" + "кот\r\n".encode("utf-16-be"), "кот"),
        ("label", "cat", "cat"),
        ("class", "cat", "cat"),
        ("target", "4", "4"),
        ("labels", "4", "4"),
        ("class_id", "4", "4"),
        ("class_name", "cat", "cat"),
        ("cls.txt", "4", "4"),
        ("label.json", b"4", "4"),
        ("label.json", {"label": 4}, "4"),
        ("index", "9", "9"),
        ("json", {"class_id": 3}, "3"),
        ("json", {"ClassName": "cat", "class-id": 3}, "cat"),
        ("json", {"target": 2.0}, "2"),
        ("json", {"category": "cat", "y": 1}, "cat"),
        ("json", {"y": 1}, "1"),
        ("json", {"caption": "x", "LABEL": "cat"}, "cat"),
        ("json", {"x": 1, "y": 2}, None),
        ("json", {"url": "x", "width": 3}, None),
        ("json", {"label": None, "class": None}, None),
        ("txt", "cat\n", "cat"),
        ("txt", "3", "3"),
        ("txt", "a cat and a dog sleep", None),
        ("txt", "", None),
    ],
)
def test_other_usual_names_of_labels_are_read(tmp_path: Path, ending: str, content: Any, label: str | None) -> None:
    file = written(tmp_path, {"0.png": "", "0.cls": "first", "1.png": "", f"1.{ending}": content})
    if ending == "txt" and label is None and content:
        content = content + " in the sun"
        file = written(tmp_path, {"0.png": "", "0.cls": "first", "1.png": "", f"1.{ending}": content})
    assert labels(file) == [("0.png", "first"), ("1.png", label)]
    assert refused(file) == {}


@pytest.mark.parametrize("ending", ["label", "class", "class_id", "cls.txt"])
def test_the_form_is_told_by_other_names_of_labels_too(tmp_path: Path, ending: str) -> None:
    assert labels(written(tmp_path, {"a/1.png": "", f"a/1.{ending}": "7"})) == [("a/1.png", "7")]


@pytest.mark.parametrize(
    ("files", "form"),
    [
        ({"1.png": "", "1.json": {"class_id": 3}}, "webdataset"),
        ({"1.png": "", "1.json": {"target": 3}}, "webdataset"),
        ({"A/1.png": "", "A/1.json": {"target": 3}}, "tar"),
        ({"A/1.png": "", "A/1.json": {"label": 3}}, "webdataset"),
        ({"1.png": "", "1.json": {"width": 3}}, "tar"),
        ({"A/1.png": "", "A/1.txt": "0 0.5 0.5 0.1 0.1"}, "tar"),
        ({"1.png": "", "1.txt": "cat"}, "webdataset"),
    ],
)
def test_in_class_folders_only_sure_labels_make_a_webdataset(tmp_path: Path, files: dict[str, Any], form: str) -> None:
    assert detect(written(tmp_path, files)) == form


def test_a_label_behind_large_pictures_still_tells_the_form(tmp_path: Path) -> None:
    large = bytes(5 * 2**20)
    assert detect(as_tar(tmp_path / "a.tar", {"1.png": large, "1.cls": b"7"}, "w")) == "webdataset"
    assert detect(as_tar(tmp_path / "b.tar.gz", {"1.png": large, "1.jpg": large, "1.cls": b"7"})) == "webdataset"


@pytest.mark.parametrize("text", ["cat", "7", "golden_retriever"])
def test_texts_of_one_word_are_labels_and_so_are_a_few_words_then(tmp_path: Path, text: str) -> None:
    files = {"1.png": "", "1.txt": text, **{f"x{n}.npy": "0" for n in range(16)}, "2.png": "", "2.txt": "polar bear\n"}
    file = written(tmp_path, files)
    assert labels(file) == [("1.png", text), ("2.png", "polar bear")]


@pytest.mark.parametrize(
    "text", ["polar bear", "0 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1", "a red car"]
)
def test_texts_that_may_be_labels_are_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, {"1.png": "", "1.txt": text})
    with pytest.raises(
        SourceError, match='have a .txt, which may be a label or a caption.*labels = "txt".* labels = ""'
    ):
        labels(file)
    assert labels(file, labels="txt") == [("1.png", text)]
    assert labels(file, labels="") == [("1.png", None)]


@pytest.mark.parametrize("other", [{"0.cls": "7"}, {"0.json": {"label": 7}}])
def test_a_text_in_the_place_of_a_label_is_a_reject_where_others_have_labels(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    file = written(tmp_path, {"0.png": "", **other, "1.png": "", "1.txt": "polar bear"})
    assert labels(file) == [("0.png", "7")]
    ((path, (reason, detail)),) = refused(file).items()
    assert (path, reason) == ("1.png", "bad_row")
    hint = 'If it holds the label say labels = "txt", or labels = "" for no labels'
    assert detail == f"its label may be in 1.txt, or a caption. {hint}"


def test_captions_are_passed_over_where_the_first_files_show_that_they_are(tmp_path: Path) -> None:
    caption = "two dogs play with a ball on the beach"
    file = written(tmp_path, {"1.jpg": "", "1.txt": caption, "1.json": {"url": "x"}, "2.jpg": "", "2.txt": "sunset"})
    assert detect(file) == "webdataset"
    assert labels(file) == [("1.jpg", None), ("2.jpg", None)]
    assert refused(file) == {}


STRANGER = "a label, but no picture has its name. "


@pytest.mark.parametrize(
    ("files", "kept", "lost"),
    [
        ({"v.1.png": "", "v.1.cls": "1", "v.2.cls": "0"}, [("v.1.png", "1")], {"v.2.cls"}),
        ({"v.1.png": "", "v.1.json": {"label": 1}, "v.2.json": {"label": 2}}, [("v.1.png", "1")], {"v.2.json"}),
        ({"v.1.png": "", "v.1.txt": "a", "v.2.txt": "b", "v.2.npy": "x"}, [("v.1.png", "a")], {"v.2.txt"}),
        ({"1.png": "", "1.cls": "3", "1.fine.cls": "17"}, [("1.png", "3")], {"1.fine.cls"}),
        ({"1.png": "", "1.fine.cls": "3", "1.coarse.cls": "17"}, [], {"1.png", "1.fine.cls", "1.coarse.cls"}),
        ({"v.1.png": "", "v.2.cls": "3"}, [], {"v.1.png", "v.2.cls"}),
        ({"v.1.png": "", "v.2.json": {"label": 3}}, [], {"v.1.png", "v.2.json"}),
        ({"1.png": "", "1.cls": "3", "1.seg.json": {"label": 3}}, [("1.png", "3")], set()),
        ({"1.png": "", "1.cls": "3", "1.x.txt": "x", "1.x.npy": "x"}, [("1.png", "3")], set()),
        ({"1.png": "", "2.cls": "3"}, [("1.png", None)], {"2.cls"}),
    ],
)
def test_a_label_that_is_that_of_no_picture_is_a_reject(
    tmp_path: Path, files: dict[str, Any], kept: list[Row], lost: set[str]
) -> None:
    file = written(tmp_path, files)
    found = refused(file, format="webdataset")
    assert (labels(file, format="webdataset"), set(found)) == (kept, lost)
    named = [detail for path, (_, detail) in found.items() if path.endswith("png")]
    assert all(any(other in detail for other in lost if not other.endswith("png")) for detail in named)


@pytest.mark.parametrize(
    ("files", "label", "lost"),
    [
        ({"1.cls": "3", "1.label": "cat"}, "3", {"1.label": "its label 'cat' is not that of its picture, '3'"}),
        ({"1.cls": "3", "1.CLS": "4"}, "3", {"1.CLS": "its label '4' is not that of its picture, '3'"}),
        ({"1.class": "3", "1.target": "4"}, "3", {"1.target": "its label '4' is not that of its picture, '3'"}),
        ({"1.cls": "3", "1.label": b"\xff"}, "3", {"1.label": "1.label is no UTF-8 text"}),
        ({"1.cls": "3", "1.label": "3\n"}, "3", {}),
        ({"1.cls": "3", "1.label": ""}, "3", {}),
        ({"1.cls": "", "1.label": "4"}, "4", {}),
        ({"1.cls": "3", "1.index": "99"}, "3", {}),
        ({"1.cls": "3", "1.label.npy": "x"}, "3", {}),
    ],
)
def test_a_second_label_of_a_picture_is_equal_or_a_reject(
    tmp_path: Path, files: dict[str, Any], label: str, lost: dict[str, str]
) -> None:
    file = written(tmp_path, {"1.png": "", **files})
    assert labels(file) == [("1.png", label)]
    assert {path: (reason, detail.split(". ")[0]) for path, (reason, detail) in refused(file).items()} == {
        path: ("bad_row", detail) for path, detail in lost.items()
    }
    assert all('say labels = "' in detail for _, detail in refused(file).values())
    if "1.label" in lost:
        assert refused(file, labels="cls") == {}


@pytest.mark.parametrize("ending", ["label.npy", "cls.pkl", "target.pt", "class_id.pth"])
def test_a_label_in_an_array_is_named(tmp_path: Path, ending: str) -> None:
    file = written(tmp_path, {"1.png": "", f"1.{ending}": "x"})
    assert labels(file) == []
    (item,) = refused(file).values()
    assert item == (
        "bad_row",
        f'its label may be in 1.{ending}, which is not read. Write it as text, or say labels = "" for no labels',
    )
    assert labels(file, labels="") == [("1.png", None)]


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"1.json": {"fine_label": 3, "coarse_label": 1}}, "'fine_label' of 1.json. Name the key"),
        ({"1.json": {"superClass": "x", "width": 3}}, "'superClass' of 1.json. Name the key"),
        ({"1.fine_label": "3"}, '1.fine_label, which is not read. If it holds the label say labels = "fine_label"'),
        (
            {"1.classes": "3", "1.json": {"width": 3}},
            "1.classes, which is not read. If it holds the label say labels =",
        ),
        ({"1.label2": "3"}, '1.label2, which is not read. If it holds the label say labels = "label2"'),
    ],
)
def test_what_is_called_almost_like_a_label_is_named(tmp_path: Path, files: dict[str, Any], what: str) -> None:
    file = written(tmp_path, {"1.png": "", **files})
    assert labels(file) == []
    ((reason, detail),) = refused(file).values()
    assert (reason, detail[: len("its label may be ")]) == ("bad_row", "its label may be ")
    assert what in detail
    assert labels(written(tmp_path, {"1.png": "", "1.cls": "7", **files})) == [("1.png", "7")]
    assert refused(file) == {}


@pytest.mark.parametrize("value", [[1, 2], {"id": 3}, 0.5])
@pytest.mark.parametrize("key", ["class_id", "target", "kind"])
def test_a_key_of_another_kind_is_named_or_no_label(tmp_path: Path, key: str, value: Any) -> None:
    file = written(tmp_path, {"1.png": "", "1.json": {key: value}})
    if key == "kind":
        assert labels(file, format="webdataset") == [("1.png", None)]
        return
    assert labels(file) == []
    assert refused(file)["1.png"] == (
        "bad_row",
        f'\'{key}\' is neither words nor a whole number. Name another key with labels = "...", or say labels = ""',
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("png", ["v.1.png", "v.2.png"]),
        ("left.png", ["v.1.left.png", "v.2.left.png"]),
        ("JPG", ["v.1.jpg"]),
    ],
)
def test_the_recipe_names_pictures_behind_several_dots(tmp_path: Path, asked: str, expected: list[str]) -> None:
    names = ["v.1.png", "v.1.left.png", "v.1.cls", "v.1.jpg", "v.2.left.png", "v.2.png", "v.2.cls"]
    file = written(tmp_path, {name: "1" if name.endswith("cls") else "" for name in names})
    assert labels(file, images=asked) == [(name, "1") for name in expected]
    assert refused(file, images=asked) == (
        {"v.2.cls": ("bad_row", STRANGER + 'If it holds the label say labels = "cls", or labels = "" for no labels')}
        if asked == "JPG"
        else {}
    )


def test_pictures_without_labels_are_found_behind_several_dots(tmp_path: Path) -> None:
    file = written(tmp_path, {"v.1.png": "", "v.2.png": "", "v.2.npy": "x"})
    options = {"images": "png", "labels": "", "format": "webdataset"}
    assert labels(file, **options) == [("v.1.png", None), ("v.2.png", None)]


@pytest.mark.parametrize("asked", [None, "cls", "class_id"])
def test_any_number_of_samples_may_share_a_name_up_to_its_first_dot(tmp_path: Path, asked: str | None) -> None:
    ending = "class_id" if asked == "class_id" else "cls"
    files: dict[str, Any] = {}
    for n in range(1300):
        files |= {f"img.{n:05}.png": "", f"img.{n:05}.{ending}": str(n % 7)}
    file = written(tmp_path, files)
    options: dict[str, Any] = {"labels": asked} if asked else {}
    assert labels(file, **options) == [(f"img.{n:05}.png", str(n % 7)) for n in range(1300)]
    assert refused(file, **options) == {}
    assert [len(shard) for shard in read(source_of(file, **options))] == [1300]


def test_many_files_of_one_name_without_labels_of_their_own_are_an_error(tmp_path: Path) -> None:
    frames = {f"clip.{n:04}.png": "" for n in range(1200)}
    for more in ({"clip.cls": "7"}, {"clip.0001.cls": "7"}):
        file = written(tmp_path, {**more, **frames})
        with pytest.raises(
            SourceError, match="share the name clip up to its first dot, and not every image has its own label"
        ):
            labels(file, format="webdataset")
    assert len(labels(file, format="webdataset", labels="")) == 1200


_WORDS = st.sampled_from(["a", "b", "1", "left", "png"])
_STEMS = st.lists(_WORDS, min_size=1, max_size=3).map(".".join)


@given(st.lists(st.tuples(_STEMS, st.sampled_from(["png", "cls", "json", "txt"])), min_size=1, max_size=9, unique=True))
@settings(max_examples=60)
def test_no_label_vanishes(tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, str]]) -> None:
    """Each label is that of a picture whose name begins with its own, or a reject."""
    files: dict[str, Any] = {"0.png": "", "0.cls": "first"}
    for n, (stem, ending) in enumerate(sorted(names)):
        files[f"k.{stem}.{ending}"] = "" if ending == "png" else {"label": f"l{n}"} if ending == "json" else f"l{n}"
    file = written(tmp_path_factory.mktemp("tar"), files)
    shown = dict(labels(file))
    lost = refused(file)
    stems = {name: name.removeprefix("k.").rpartition(".")[0] for name in files if name.startswith("k.")}
    for name, label in shown.items():
        if name == "0.png":
            continue
        givers = [
            other for other, content in files.items() if content in (label, {"label": label}) and other != "0.cls"
        ]
        assert label is None or all(f"{name.removeprefix('k.')}.".startswith(f"{stems[giver]}.") for giver in givers)
    for name, content in files.items():
        if name.endswith("cls"):
            assert name in lost or content in shown.values()
    assert {*shown, *lost} >= {name for name in files if name.endswith("png")}

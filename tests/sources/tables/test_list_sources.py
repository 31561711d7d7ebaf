"""Lists of files: which columns are meant, which files are, and that one changed file costs one shard."""

import gzip
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from making import as_folder, encoded, files_of, handed_out, pictures, recipe, source_of, turned_away

from pipeline.builder.build import build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import SourceError
from pipeline.lake_handle import Lake
from pipeline.recipe import SourcePart
from pipeline.sources import detect, read, survey
from pipeline.sources.source import Source

PNGS = [encoded(pixels) for pixels in pictures(4)]
PAIR = [("a/1.png", "cat"), ("b/2.png", "dog")]


def listed(folder: Path, *lines: str, end: str = "\n", name: str = "list.csv") -> Path:
    as_folder(folder, {"a/1.png": PNGS[0], "b/2.png": PNGS[1]})
    (folder / name).write_bytes("".join(line + end for line in lines).encode())
    return folder / name


def rows(file: Path, **options: Any) -> list[tuple[str, str | None]]:
    return [(path, label) for path, label, _ in handed_out(source_of(file, **options))]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "lines",
    [
        ("path,label", "a/1.png,cat", "b/2.png,dog"),
        ("a/1.png,cat", "b/2.png,dog"),
        ("\ufeffa/1.png,cat", "b/2.png,dog"),
        ("\ufeffFile_Name,Class", "b/2.png,dog", "a/1.png,cat"),
        ("path\tlabel", "a/1.png\tcat", "b/2.png\tdog"),
        ("a/1.png\tcat", "b/2.png\tdog"),
        ("label,image", "cat,a/1.png", "dog,b/2.png"),
        ("id,filename,target,width", "0,a/1.png,cat,28", "1,b/2.png,dog,28"),
        ('"path","label"', '"a/1.png","cat"', '"b/2.png","dog"'),
        ("a/1.png, cat ", " b/2.png,dog"),
        ("path;label", "a/1.png;cat", "b/2.png;dog"),
        ("a/1.png;cat", "b/2.png;dog"),
        ("a/1.png|cat", "b/2.png|dog"),
        ("a/1.png cat", "b/2.png dog"),
        ("cat,a/1.png", "dog,b/2.png"),
        ("0,a/1.png,cat", "1,b/2.png,dog", "2,b/2.png,dog"),
        ("a/1.png,cat,", "b/2.png,dog,"),
        ("image_id,label", "a/1.png,cat", "b/2.png,dog"),
        ("Unnamed: 0;photo;Class Name", "0;a/1.png;cat", "1;b/2.png;dog"),
        ("", "path,y", "a/1.png,cat", "b/2.png,dog"),
        ("cls\tpath", "cat\ta/1.png", "dog\tb/2.png"),
        ("path,digit,x", "a/1.png,cat,3", "b/2.png,dog,4"),
        ("./a/1.png,cat", "b//././2.png,dog"),
        ("a/1.png,cat", "", "b/2.png,dog", ",", "  "),
        ("a/1.png,cat", "b/2.png,dog", "a/1.png,cat", "./a/1.png,cat"),
    ],
)
def test_one_pair_of_files_in_many_spellings(tmp_path: Path, lines: tuple[str, ...], end: str) -> None:
    file = listed(tmp_path, *lines, end=end)
    assert detect(file) == "list"
    assert rows(file) == PAIR
    assert turned_away(source_of(file)) == []


def test_the_last_line_needs_no_end_and_a_packed_list_is_read(tmp_path: Path) -> None:
    text = listed(tmp_path, "path,label", "a/1.png,cat", "b/2.png,dog").read_bytes()
    (tmp_path / "a.csv").write_bytes(text.rstrip())
    (tmp_path / "b.csv").write_bytes(gzip.compress(text, mtime=0))
    assert rows(tmp_path / "a.csv") == rows(tmp_path / "b.csv") == PAIR


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("list", "x.JPEG,1"),
        ("list", "img,x"),
        ("list", '"a,b.png",cat'),
        ("csv", "label,pixel0,pixel1,pixel2,pixel3"),
        ("csv", "1,2,3,4"),
        (None, "path"),
        (None, "a.txt,b"),
        (None, "x.png"),
        (None, "hello, world"),
    ],
)
def test_a_list_is_told_by_its_first_line(tmp_path: Path, form: str | None, line: str) -> None:
    (tmp_path / "x").write_text(line + "\n")
    if form:
        assert detect(tmp_path / "x") == form
    else:
        with pytest.raises(SourceError, match="format is not recognised"):
            detect(tmp_path / "x")


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        (("photo,breed", "a/1.png,cat", "b/2.png,dog"), {"images": "photo", "labels": "breed"}),
        (("photo,breed", "a/1.png,cat", "b/2.png,dog"), {"labels": "breed"}),
        (("path,image,kind,label", "a/1.png,x,cat,1", "b/2.png,x,dog,2"), {"images": "path", "labels": "kind"}),
        (("photo;breed", "a/1.png;cat", "b/2.png;dog"), {"labels": "breed"}),
        (("a/1.png,cat,train", "b/2.png,dog,test"), {"labels": "1"}),
        (("train,a/1.png,cat", "test,b/2.png,dog"), {"labels": "last"}),
        (("cat,a/1.png,x.png", "dog,b/2.png,x.png"), {"images": "1", "labels": "first"}),
        (("path,width,kind", "a/1.png,28,cat", "b/2.png,28,dog"), {"labels": "last"}),
    ],
)
def test_the_recipe_names_the_columns(tmp_path: Path, lines: tuple[str, ...], options: dict[str, Any]) -> None:
    assert rows(listed(tmp_path, *lines), format="list", **options) == PAIR


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        (("path", "a/1.png", "b/2.png"), {}),
        (("a/1.png", "", "b/2.png"), {}),
        (("a/1.png,cat", "b/2.png,dog"), {"labels": ""}),
        (("path,width", "a/1.png,28", "b/2.png,28"), {"labels": ""}),
        (("path,label", "a/1.png,", "b/2.png"), {}),
        (("path,label", 'a/1.png," "', "b/2.png,"), {}),
        (("path,label", "a/1.png,nan", "b/2.png,NaN"), {}),
        (("a/1.png,<NA>", "b/2.png,nan"), {}),
    ],
)
def test_an_empty_label_is_none(tmp_path: Path, lines: tuple[str, ...], options: dict[str, Any]) -> None:
    assert rows(listed(tmp_path, *lines), format="list", **options) == [(path, None) for path, _ in PAIR]


@pytest.mark.parametrize(
    ("lines", "options", "match"),
    [
        (
            ("path,file,label", "a,b,c"),
            {},
            "several columns may be the paths .*'path, file, label'.*images =",
        ),
        (("path,label,class", "a,b,c"), {}, "several columns are called like labels .*labels = .* for none"),
        (("path,width", "a/1.png,28"), {}, 'no column is called like labels .* or labels = "" for none'),
        (("a,b,c", "x.png,1,2"), {}, "no column is called like labels .*'a, b, c'.*Name the column with labels"),
        (("a,b,c", "x,1,2"), {}, "no column is called like paths or holds image names .*Name the column with images"),
        (("photo,breed", "a/1.png,cat", "b/2.png,dog"), {}, "no column is called like labels .*'photo, breed'"),
        (
            ("a/1.png,cat,train", "b/2.png,dog,test"),
            {},
            '2 columns besides the paths .* labels = "first", "last" or its pos',
        ),
        (
            ("a/1.png,cat,3,4", "b/2.png,dog,3,4"),
            {},
            '3 columns besides the paths .* labels = "first", "last" or its pos',
        ),
        (("a/1.png,a/2.png", "b/2.png,a/2.png"), {}, "several columns may be the paths"),
        (("path,label,label", "a/1.png,cat,1"), {}, "several columns are called like labels"),
        (("path,label,label", "a/1.png,cat,1"), {"labels": "label"}, "2 columns are called 'label'"),
        (("path,kind,kind", "a/1.png,cat,1"), {"labels": "kind"}, "2 columns are called 'kind'"),
        (("path,x,y", "a/1.png,3,4"), {}, "no column is called like labels"),
        (("a/1.png,cat",), {"labels": "2"}, "no column '2'"),
        (tuple(f"{n},{n}.png" for n in range(25)), {}, "the only column besides the paths counts the rows"),
        (("path,label", "a/1.png,cat"), {"images": "photo"}, "no column 'photo' .*'path, label'"),
        (("a/1.png,cat",), {"labels": "kind"}, "no column 'kind'"),
        (("path,label",), {}, "lists no files"),
        (("path,label", "", ","), {}, "lists no files"),
        (("path,label", "a/1.png,cat,extra"), {}, "cannot be read as a table .*number of columns in every row"),
        (("path,label", '"a/1.png,cat', "b/2.png,dog"), {}, "cannot be read as a table .*Check its quotes"),
        (("path,label", ",cat", "b/2.png,dog"), {}, "row 1 of .* names no file"),
        (("path,label", "./,cat"), {}, "row 1 of .* names no file"),
        (("path,label", "a/1.png,cat", "./a/1.png,dog"), {}, "lists 'a/1.png' with two labels, 'cat' and 'dog'"),
        (("path,label", "a/1.png,cat", "a/1.png,"), {}, "lists 'a/1.png' with two labels, None and 'cat'"),
        (("path,label", "a/1.png,cat", "a\\1.png,dog"), {}, "lists 'a/1.png' with two labels, 'cat' and 'dog'"),
    ],
)
def test_what_is_not_clear_is_an_error(
    tmp_path: Path, lines: tuple[str, ...], options: dict[str, Any], match: str
) -> None:
    source = source_of(listed(tmp_path, *lines), format="list", **options)
    for look in (survey, handed_out):
        with pytest.raises(SourceError, match=match) as caught:
            look(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"path,label\n\xff.png,x\n", gzip.compress(b"path,label\n" * 99, mtime=0)[:40]]
)
def test_what_is_no_table_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(SourceError, match="d/train .x.: ") as caught:
        survey(source_of(tmp_path / "x", format="list"))
    assert "\n" not in str(caught.value)


def test_paths_lead_out_of_the_folder_only_if_the_recipe_says_so(tmp_path: Path) -> None:
    as_folder(tmp_path, {"above/x.png": PNGS[2], "far/y.png": PNGS[3]})
    far = tmp_path / "far" / "y.png"
    file = listed(tmp_path / "lists", "path,label", "../above/x.png,up", f"{far},far", "a/1.png,cat")
    assert rows(file, outside=True) == [("../above/x.png", "up"), (str(far), "far"), ("a/1.png", "cat")]
    assert Path(handed_out(source_of(file, outside=True))[1][2]) == far
    (tmp_path / "lists" / "link.png").symlink_to(far)
    (tmp_path / "lists" / "linked").symlink_to(far.parent)
    (tmp_path / "lists" / "inside.png").symlink_to(tmp_path / "lists" / "a" / "1.png")
    for path in ("../above/x.png", str(far), "link.png", "linked/y.png", "a/../../far/y.png", "..\\above\\x.png"):
        with pytest.raises(SourceError, match="outside of the folder of the list. If you trust the list, add outside"):
            rows(listed(tmp_path / "lists", "path,label", f"{path},x"))
    own = tmp_path / "lists" / "a" / "1.png"
    inside = listed(tmp_path / "lists", "path,label", "inside.png,x", f"{own},y")
    assert rows(inside) == [(str(own), "y"), ("inside.png", "x")]


def test_paths_with_backslashes_are_found_under_the_name_that_the_file_has(tmp_path: Path) -> None:
    lines = ("a\\1.png,cat", ".\\b\\2.png,dog", "a\\.\\1.png,cat", "b/2.png,dog")
    assert rows(listed(tmp_path, "path,label", *lines)) == PAIR
    as_folder(tmp_path, {"above\\x.png": PNGS[2], "above/x.png": PNGS[3], "lists/y": b""})
    assert rows(listed(tmp_path / "lists", "path,label", "..\\above\\x.png,up"), outside=True) == [
        ("../above/x.png", "up")
    ]
    # A name that really has a backslash in it comes first.
    file = listed(tmp_path, "path,label", "above\\x.png,up", "above/x.png,down")
    assert rows(file) == [("above/x.png", "down"), ("above\\x.png", "up")]


NAMES = ["caf\u00e9/\u00fc 1.png", "\u30ac\u30d1.png", "\u1ec7/\uac01.png"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_list", ["NFC", "NFD"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_paths_in_another_unicode_form_are_found(tmp_path: Path, on_disk: Any, in_list: Any, slash: str) -> None:
    stored = [unicodedata.normalize(on_disk, name) for name in NAMES]
    as_folder(tmp_path, dict.fromkeys(stored, PNGS[0]))
    lines = [unicodedata.normalize(in_list, name).replace("/", slash) + ",x" for name in NAMES]
    file = listed(tmp_path, "path,label", *lines)
    assert rows(file) == sorted((name, "x") for name in stored)


def test_of_two_unicode_forms_the_exact_one_is_meant(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "\u00fc.png") for form in ("NFC", "NFD"))
    as_folder(tmp_path, {one: PNGS[0], other: PNGS[1]})
    assert rows(listed(tmp_path, "path,label", f"{one},a", f"{other},b")) == sorted([(one, "a"), (other, "b")])
    # Of two files that both have another form, neither is taken.
    mixed = ["u\u0323\u0308.png", "\u1ee5\u0308.png", "\u00fc\u0323.png"]
    as_folder(tmp_path, dict.fromkeys(mixed[:2], PNGS[0]))
    file = listed(tmp_path, "path,label", f"{mixed[2]},x")
    (refused,) = turned_away(source_of(file))
    assert refused.detail == (
        f"no such file: looked for {mixed[2]} from the folder of the list, and of the names in its folder not exactly "
        "one has the same Unicode form."
    )


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/a.png",
        "http://example.com//x/./a.png?size=3&b=c",
        "s3://bucket/a.png",
        "gs://bucket/folder/a",
        "HTTPS://EXAMPLE.COM/A.PNG",
        "file:///pictures/a.png",
    ],
)
@pytest.mark.parametrize(
    "lines", [("path,label", "{},z", "a/1.png,cat"), ("{},z", "a/1.png,cat"), ("z;{}", "cat;a/1.png")]
)
def test_an_address_is_a_reject_that_names_it_as_it_is_written(
    tmp_path: Path, address: str, lines: tuple[str, ...]
) -> None:
    file = listed(tmp_path, *(line.format(address) for line in lines))
    assert rows(file) == PAIR[:1]
    (refused,) = turned_away(source_of(file))
    assert (refused.path, refused.label, refused.reason) == (address, "z", "not_a_file")
    assert refused.detail.startswith(f"{address} is an address, and addresses in a list are not fetched. Download it")
    assert "no such file" not in refused.detail


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    names = ["x\\y.png", "C:\\data\\z.png", "\u00e9.png"]
    file = listed(tmp_path, "path,label", *(f"{name},z" for name in names))
    here = "from the folder of the list"
    assert {item.path: item.detail for item in turned_away(source_of(file))} == {
        names[0]: f"no such file: looked for x\\y.png, also with / in place of every backslash, {here}.",
        names[1]: f"no such file: looked for C:\\data\\z.png, also with / in place of every backslash, {here}. C: is a "
        "drive of another computer.",
        names[2]: f"no such file: looked for \u00e9.png {here}, and of the names in its folder not exactly one has the "
        "same Unicode form.",
    }


def test_labels_that_differ_only_in_spelling_are_one_label(tmp_path: Path) -> None:
    file = listed(tmp_path, "path,label", "a/1.png,7.0", "a\\1.png,7", "b/2.png,caf\u00e9", "b\\2.png,cafe\u0301")
    assert len(rows(file)) == 2


def test_a_list_from_elsewhere_names_no_files_of_this_machine(tmp_path: Path) -> None:
    file = listed(tmp_path, "path,label", "/etc/passwd,x")
    part = SourcePart(uri="https://host/list.csv", dataset="d", split="train")
    with pytest.raises(SourceError, match="a downloaded list cannot name files of this machine"):
        survey(Source(part, file, "train", "list", None, 1_000))


def test_what_is_not_there_or_no_file_is_a_reject(tmp_path: Path) -> None:
    names = ["gone.png", "a", "pipe", "loop", "link", "a/1.png/x", "n" * 300, "Thumbs.db", "b/2.png", "nowhere"]
    file = listed(tmp_path, "path,label", *(f"{name},z" for name in names), "nul\0.png,z")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("else")
    (tmp_path / "link").symlink_to("a/1.png")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assert [path for path, _ in rows(file)] == ["b/2.png", "link"]
    assert {(item.path, item.label): (item.reason, item.detail) for item in turned_away(source_of(file))} == {
        ("gone.png", "z"): ("not_a_file", "no such file: looked for gone.png from the folder of the list."),
        ("a", "z"): ("not_a_file", "a folder"),
        ("pipe", "z"): ("not_a_file", "a pipe, socket or device"),
        ("loop", "z"): ("not_a_file", "a link that leads to itself"),
        ("nowhere", "z"): ("not_a_file", "a link that leads nowhere"),
        ("a/1.png/x", "z"): ("not_a_file", "no such file: looked for a/1.png/x from the folder of the list."),
        ("n" * 300, "z"): ("not_a_file", "the path is too long for this file system"),
        ("nul\0.png", "z"): ("not_a_file", "the path has a NUL character in it"),
        ("Thumbs.db", "z"): ("system_file", "left beside files by an operating system"),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_file_in_a_closed_folder_is_for_the_worker_to_judge(tmp_path: Path) -> None:
    file = listed(tmp_path, "path,label", "a/1.png,cat")
    (tmp_path / "a").chmod(0)
    try:
        assert rows(file) == [("a/1.png", "cat")]
    finally:
        (tmp_path / "a").chmod(0o700)


def test_a_file_above_max_bytes_is_a_reject(tmp_path: Path) -> None:
    source = source_of(listed(tmp_path, "a/1.png,cat"), decode={"max_bytes": 10})
    assert [(item.path, item.label, item.reason) for item in turned_away(source)] == [("a/1.png", "cat", "too_large")]


def test_no_listed_file_is_opened_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = listed(tmp_path, "path,label", "a/1.png,cat", "b/2.png,dog")
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).chmod(0)
    source = source_of(file)
    content = file.read_bytes()
    with monkeypatch.context() as held:
        held.setattr("pipeline.sources.tables.file_list._read_content", lambda _: content)
        for name in ("builtins.open", "io.open", "os.open"):
            held.setattr(name, None)
        found, shards = survey(source), list(read(source))
    assert found.shards == {shard.shard: shard.fingerprint for shard in shards}
    assert found.images == 2


def large(folder: Path, count: int = 200) -> Path:
    as_folder(folder, {f"{n}.png": b"x" for n in range(count)})
    (folder / "list.csv").write_text("".join(f"{n}.png,{'ABC'[n % 3]}\n" for n in range(count)))
    return folder / "list.csv"


def changed(before: Any, after: Any) -> set[str]:
    return {key for key, _ in after.shards.items() - before.shards.items()}


def test_one_changed_file_or_label_costs_one_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.folder._LARGEST", 20)
    file = large(tmp_path)
    before = survey(source_of(file))
    assert len(before.shards or ()) > 9
    (tmp_path / "150.png").write_bytes(b"changed")
    after = survey(source_of(file))
    (key,) = changed(before, after)
    (shard,) = read(source_of(file), {key})
    assert "150.png" in shard.paths
    file.write_text(file.read_text().replace("17.png,C\n", "17.png,new\n", 1))
    relabelled = survey(source_of(file))
    (key,) = changed(after, relabelled)
    (shard,) = read(source_of(file), {key})
    assert ("17.png", "new") in zip(shard.paths, shard.labels, strict=True)
    (tmp_path / "99.png").unlink()
    assert len(changed(relabelled, survey(source_of(file)))) == 1


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.folder._LARGEST", 20)
    file = large(tmp_path)
    expected = survey(source_of(file)), list(read(source_of(file)))
    file.write_text("label,path\n" + "".join(f"{'ABC'[n % 3]},./{n}.png\n" for n in reversed(range(200))))
    assert (survey(source_of(file)), list(read(source_of(file)))) == expected


@pytest.mark.slow
def test_a_build_makes_the_same_images_as_of_a_folder_and_then_nothing(tmp_path: Path) -> None:
    files = {**files_of(40, "ABC"), "A/zz.png": b"no image"}
    as_folder(tmp_path / "set", files)
    lines = [f"set/{path},{path[0]}" for path in files]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines, "set/gone.png,B"]))
    asked = recipe(tmp_path, {"uri": "list.csv"}, {"uri": "set", "split": "test"}, decode={"size": [28, 28]})
    made = build(asked, engine=LocalEngine(2))
    rows = Lake(made.root).scan("images").select("split", "label", "content_hash").collect()
    of = {split: sorted(rows.filter(split=split).drop("split").rows()) for split in ("train", "test")}
    assert of["train"] == of["test"]
    rejects = Lake(made.root).scan("rejects").filter(split="train").select("path", "label", "reason").collect().rows()
    assert sorted(rejects) == [("set/A/zz.png", "A", "not_an_image"), ("set/gone.png", "B", "not_a_file")]
    # A file that is missing is looked for again, and costs nothing while it is missing.
    assert build(asked, engine=LocalEngine(1)).done == ()
    as_folder(tmp_path / "set", {"gone.png": PNGS[0]})
    assert [todo.unit for todo in plan(asked) if todo.stage == "ingest"] == ["d/train (list.csv)", "d/test (set)"]
    assert build(asked, engine=LocalEngine(1)).images == made.images + 2

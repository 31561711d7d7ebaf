"""Class folders: what is listed, what is turned away, and that nothing is opened."""

import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from making import as_folder, files_of, handed_out, source_of, turned_away

from pipeline.decode import Decoded, decode_shard
from pipeline.errors import SourceError
from pipeline.recipe import DecodePart
from pipeline.shard import Reject
from pipeline.sources import read, survey


def paths(folder: Path) -> list[tuple[str, str | None]]:
    return [(path, label) for path, label, _ in handed_out(source_of(folder))]


def test_files_come_sorted_with_the_folder_that_holds_them_as_label(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"b/2.png": b"", "b/1.png": b"", "a/x/3.png": b"", "top.png": b""})
    assert paths(folder) == [("a/x/3.png", "x"), ("b/1.png", "b"), ("b/2.png", "b"), ("top.png", None)]
    assert [name for *_, name in handed_out(source_of(folder))][-1] == str(folder / "top.png")


def test_empty_folders_are_nothing_and_a_folder_of_nothing_is_an_error(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b""})
    (folder / "empty" / "deeper").mkdir(parents=True)
    assert paths(folder) == [("a/1.png", "a")]
    with pytest.raises(SourceError, match="holds no files"):
        paths(folder / "empty")


def test_a_name_that_is_no_utf8_is_spelled_out_and_still_opens(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    with open(os.fsencode(tmp_path / "set" / "a") + b"/\xff.png", "wb") as stream:  # noqa: PTH123 - a name in bytes
        stream.write(b"no image")
    (shard,) = read(source_of(tmp_path / "set"))
    assert shard.paths == ("a/\\xff.png",)
    (refused,) = decode_shard(shard, "d", "train", DecodePart(mode="L", on_mismatch="reject"))
    assert isinstance(refused, Reject)
    assert (refused.reason, refused.file_size) == ("not_an_image", 8)


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b"12345"})
    (folder / "a" / "2.png").symlink_to("1.png")
    assert paths(folder) == [("a/1.png", "a"), ("a/2.png", "a")]
    before = survey(source_of(folder))
    (folder / "a" / "1.png").write_bytes(b"123456")
    assert survey(source_of(folder)) != before


def test_what_is_no_file_is_a_reject_that_no_worker_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b""})
    (folder / "a" / "broken").symlink_to("nowhere")
    (folder / "a" / "itself").symlink_to("itself")
    (folder / "a" / "up").symlink_to("..")
    os.mkfifo(folder / "a" / "pipe")
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    assert paths(folder) == [("a/1.png", "a")]
    assert {(r.path, r.label): (r.reason, r.detail) for r in turned_away(source_of(folder))} == {
        ("a/broken", "a"): ("not_a_file", "a link that leads nowhere"),
        ("a/itself", "a"): ("not_a_file", "a link that leads nowhere"),
        ("a/up", "a"): ("not_a_file", "a link to a folder that contains it: not followed, it would never end"),
        ("a/pipe", "a"): ("not_a_file", "a pipe, socket or device"),
        ("socket", None): ("not_a_file", "a pipe, socket or device"),
    }


def test_every_file_of_a_lake_inside_a_source_is_a_reject(tmp_path: Path) -> None:
    good = ["cat/1.png", "old/2.png", "old/lake2/3.png"]
    lake = ["images/_delta_log/0.json", "images/dataset=d/a.parquet", "exports/dog/1.png", "report.html", "4.png"]
    inside = [f"old/lake/{name}" for name in lake]
    folder = as_folder(tmp_path / "set", dict.fromkeys([*good, *inside], b"1"))
    assert paths(folder) == [("cat/1.png", "cat"), ("old/2.png", "old"), ("old/lake2/3.png", "lake2")]
    detail = "in a lake of imagelake, which is no source"
    assert {tuple(item) for item in turned_away(source_of(folder))} == {
        (path, None, "system_file", detail, 1) for path in inside
    }


def test_a_file_above_max_bytes_is_a_reject(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1": bytes(10), "a/2": bytes(11)})
    source = source_of(folder, decode={"max_bytes": 10})
    assert [path for path, _, _ in handed_out(source)] == ["a/1"]
    assert [(r.path, r.reason, r.file_size) for r in turned_away(source)] == [("a/2", "too_large", 11)]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b""})
    (folder / "a").chmod(0)
    try:
        with pytest.raises(SourceError, match="cannot list .*/a"):
            paths(folder)
    finally:
        (folder / "a").chmod(0o700)


def test_a_file_that_goes_while_it_is_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = as_folder(tmp_path / "set", files_of(3))
    source = source_of(folder)

    class Gone:
        """A listing whose last file is deleted before it is looked at."""

        def __init__(self, place: str) -> None:
            self.listed = list(scandir(place))

        def __enter__(self) -> list[os.DirEntry[str]]:
            for item in self.listed[-1:]:
                if item.is_file():
                    Path(item.path).unlink()
            return self.listed

        def __exit__(self, *_: object) -> None:
            pass

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", Gone)
    with pytest.raises(SourceError, match="cannot list .*png"):
        survey(source)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(as_folder(tmp_path / "set", files_of(60, "ABC")))
    expected = survey(source), list(read(source))
    scandir = os.scandir

    class Shuffled:
        def __init__(self, place: str) -> None:
            self.listed = random.Random(7).sample(found := list(scandir(place)), len(found))

        def __enter__(self) -> Any:
            return iter(self.listed)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert (survey(source), list(read(source))) == expected


def test_survey_and_read_open_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(as_folder(tmp_path / "set", files_of(10)))
    with monkeypatch.context() as held:
        for name in ("builtins.open", "io.open", "os.open"):
            held.setattr(name, None)
        found, shards = survey(source), list(read(source))
    assert found.shards == {shard.shard: shard.fingerprint for shard in shards}


def test_only_wanted_shards_are_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.folder._LARGEST", 10)
    source = source_of(as_folder(tmp_path / "set", files_of(60)))
    keys = list(survey(source).shards or ())
    assert len(keys) > 5
    assert [shard.shard for shard in read(source, {keys[3], keys[1]})] == [keys[1], keys[3]]
    assert list(read(source, set())) == []


def test_a_file_that_is_gone_when_it_is_decoded_is_a_reject(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", files_of(2))
    (shard,) = read(source_of(folder))
    (folder / shard.paths[0]).unlink()
    refused, images = decode_shard(shard, "d", "train", DecodePart(mode="L", on_mismatch="reject"))
    assert isinstance(refused, Reject)
    assert (refused.path, refused.label, refused.reason) == (shard.paths[0], "A", "unreadable")
    assert isinstance(images, Decoded)
    assert images.images["path"].to_pylist() == [shard.paths[1]]

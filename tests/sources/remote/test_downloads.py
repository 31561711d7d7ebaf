"""Downloads: once, whole, checked; against a server of our own."""

import gc
import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from downloads import DATA, Server
from making import as_tar, files_of, handed_out, recipe

from pipeline.builder.build import plan
from pipeline.errors import CheckError, SourceError
from pipeline.recipe import SourcePart
from pipeline.sources import resolve
from pipeline.sources.remote import cache_folder, fetch


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Keep objects of before out of the collections in `server`, which take a third of a second otherwise."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("IMAGELAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pipeline.sources.remote._RETRY_DELAYS", (0, 0))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
    gc.collect()  # a connection that is left open warns here, and not in some later test


def part(server: Server, path: str = "/a.bin", **more: Any) -> SourcePart:
    return SourcePart(uri=server.at(path), dataset="d", split="train", **more)


def cached() -> list[Path]:
    return [file for file in cache_folder().rglob("*") if file.is_file()]


def digest(data: bytes, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, data).hexdigest()}"


@pytest.mark.parametrize("kind", [None, "md5", "sha256"])
def test_a_file_is_fetched_once(server: Server, kind: str | None) -> None:
    asked = part(server, digest=digest(DATA, kind) if kind else None)
    file = fetch(asked)
    assert file.read_bytes() == DATA
    assert fetch(asked) == file
    assert server.asked == ["/a.bin"]
    assert cached() == [file]
    assert file.name == "a.bin"


def test_a_plan_downloads_nothing_and_says_so(server: Server, tmp_path: Path) -> None:
    server.files["/a.tar.gz"] = as_tar(tmp_path / "a.tar.gz", files_of(6)).read_bytes()
    asked = recipe(tmp_path, {"uri": server.at("/a.tar.gz")})
    assert plan(asked)[0] == ("ingest", server.at("/a.tar.gz"), "not downloaded yet")
    assert server.asked == []
    fetch(asked.source[0])
    assert plan(asked)[0].reason == "new"


def test_two_addresses_are_two_files(server: Server) -> None:
    server.files["/b/a.bin"] = b"other"
    assert fetch(part(server)).read_bytes() == DATA
    assert fetch(part(server, "/b/a.bin")).read_bytes() == b"other"
    assert len(server.asked) == len(cached()) == 2


def test_a_query_is_not_stored_so_a_file_of_another_size_is_fetched_again(server: Server) -> None:
    file = fetch(part(server, "/a.bin?id=1"))
    assert fetch(part(server, "/a.bin?id=1")) == file == fetch(part(server))
    server.files["/a.bin"] = b"other"
    assert fetch(part(server)).read_bytes() == DATA
    server.trouble = [403]
    assert fetch(part(server, "/a.bin?id=2")).read_bytes() == DATA
    assert fetch(part(server, "/a.bin?id=2")).read_bytes() == b"other"
    assert cached() == [file]


@pytest.mark.parametrize("path", ["/", "/..", "/%2e%2e", "/x/.hidden", "/%2Fetc%2Fx"])
def test_an_odd_name_stays_in_the_cache(server: Server, path: str) -> None:
    server.files |= {"/": DATA, "/..": DATA, "/%2e%2e": DATA, "/x/.hidden": DATA, "/%2Fetc%2Fx": DATA}
    file = fetch(part(server, path))
    assert cache_folder() in file.resolve().parents
    assert file.read_bytes() == DATA


def test_a_wrong_digest_is_an_error_that_names_both_and_keeps_nothing(server: Server) -> None:
    wrong = digest(b"else")
    with pytest.raises(CheckError, match=f"{wrong.split(':')[1]}.*{digest(DATA).split(':')[1]}") as caught:
        fetch(part(server, digest=wrong))
    assert "\n" not in str(caught.value)
    assert server.asked == ["/a.bin"]
    assert cached() == []


def test_a_cached_file_that_differs_from_the_digest_is_fetched_again(server: Server) -> None:
    asked = part(server, digest=digest(DATA))
    fetch(asked).write_bytes(b"spoiled")
    assert fetch(asked).read_bytes() == DATA
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_the_server_refuses_is_asked_for_once(server: Server, status: int) -> None:
    server.trouble = [status]
    with pytest.raises(SourceError, match=f"{server.at('/a.bin')}: cannot be fetched .{status}") as caught:
        fetch(part(server))
    assert not isinstance(caught.value, CheckError)
    assert server.asked == ["/a.bin"]
    assert cached() == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(server: Server, status: int) -> None:
    server.trouble = [status]
    assert fetch(part(server)).read_bytes() == DATA
    assert len(server.asked) == 2


def test_a_lasting_failure_is_an_error(server: Server) -> None:
    server.trouble = [500] * 9
    with pytest.raises(SourceError, match="cannot be fetched .500"):
        fetch(part(server))
    assert len(server.asked) == 3


def test_a_download_that_breaks_off_is_an_error_and_keeps_nothing(server: Server) -> None:
    server.lies = 10
    with pytest.raises(SourceError, match="cannot be fetched"):
        fetch(part(server))
    assert cached() == []


@pytest.mark.parametrize("kind", [None, "sha256"])
def test_pieces_that_break_off_are_an_error_and_not_kept(server: Server, kind: str | None) -> None:
    server.pieces = True
    with pytest.raises(SourceError, match="cannot be fetched"):
        fetch(part(server, digest=digest(DATA, kind) if kind else None))
    assert cached() == []


def test_a_download_that_breaks_off_is_not_taken_for_one_with_another_digest(server: Server) -> None:
    server.lies = 10
    with pytest.raises(SourceError, match="cannot be fetched") as caught:
        fetch(part(server, digest=digest(DATA)))
    assert not isinstance(caught.value, CheckError)
    assert cached() == []


@pytest.mark.parametrize("digested", [False, True])
def test_what_is_in_the_cache_stays_where_what_comes_is_wrong(server: Server, *, digested: bool) -> None:
    """The file of before is whole; but it is not used for a digest that it does not have."""
    file = fetch(part(server))
    server.files["/a.bin"] = b"changed on the way"
    if digested:
        with pytest.raises(CheckError):
            fetch(part(server, digest=digest(b"wanted")))
    assert file.read_bytes() == DATA
    assert cached() == [file]


@pytest.mark.parametrize("to", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "//", "http://"])
def test_a_server_cannot_lead_to_a_file_of_this_machine(server: Server, to: str) -> None:
    server.moved["/a.bin"] = to
    with pytest.raises(SourceError, match="cannot be fetched"):
        fetch(part(server))
    assert cached() == []
    assert set(server.asked) == {"/a.bin"}


def test_a_moved_file_is_checked_as_any(server: Server) -> None:
    server.moved["/a.bin"] = "/b.bin"
    server.files["/b.bin"] = DATA
    assert fetch(part(server, digest=digest(DATA))).name == "a.bin"
    with pytest.raises(CheckError):
        fetch(part(server, digest=digest(b"else")))


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Log in", b"\xef\xbb\xbf\r\n <HTML>", b"<html lang=en>"])
@pytest.mark.parametrize("kind", [None, "md5"])
def test_a_web_page_instead_of_a_file_is_said_to_be_one_and_not_kept(
    server: Server, page: bytes, kind: str | None
) -> None:
    server.files["/a.bin"] = page
    with pytest.raises(CheckError, match=r"a.bin: the server sent a web page.*may need a login") as caught:
        fetch(part(server, digest=digest(DATA, kind) if kind else None))
    assert "\n" not in str(caught.value)
    assert server.asked == ["/a.bin"]
    assert cached() == []


@pytest.mark.parametrize("data", [b"", b"<", b"<PLAIN TEXT", b"P5 1 1 255 x"])
def test_what_is_no_page_is_kept_however_short(server: Server, data: bytes) -> None:
    server.files["/a.bin"] = data
    assert fetch(part(server)).read_bytes() == data


def test_a_server_that_is_not_there_is_an_error(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/x.tar"
    with pytest.raises(SourceError, match="cannot be fetched .*Check the URL and the network") as caught:
        fetch(part(server).model_copy(update={"uri": address}))
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_an_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("IMAGELAKE_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceError, match="cannot be kept in .*Set IMAGELAKE_CACHE"):
        fetch(part(server))


def test_a_source_is_fetched_and_read_like_any_file(server: Server, tmp_path: Path) -> None:
    files = files_of(6)
    data = as_tar(tmp_path / "a.tar.gz", files).read_bytes()
    server.files["/sets/a.tar.gz"] = data
    (source,) = resolve(recipe(tmp_path, {"uri": server.at("/sets/a.tar.gz"), "digest": digest(data, "md5")}))
    assert source.format == "tar"
    assert [path for path, _, _ in handed_out(source)] == list(files)

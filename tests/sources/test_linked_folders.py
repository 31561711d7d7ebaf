"""Links to folders in a local folder are classes; those that would never end are rejects."""

import os
from pathlib import Path

import pytest
from making import as_folder, handed_out, source_of, turned_away

from pipeline.errors import SourceError
from pipeline.sources import read, survey


def rows(folder: Path) -> list[tuple[str, str | None]]:
    return [(path, label) for path, label, _ in handed_out(source_of(folder))]


def refused(folder: Path) -> dict[str, tuple[str, str]]:
    return {item.path: (item.reason, item.detail) for item in turned_away(source_of(folder))}


ENDLESS = ("not_a_file", "a link to a folder that contains it: not followed, it would never end")


def test_a_linked_folder_is_a_class_inside_and_outside_of_the_source(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"cat/1.png": b"1", "cat/kitten/2.png": b"2"})
    as_folder(tmp_path / "elsewhere", {"dog/3.png": b"3", "bird/deep/4.png": b"4"})
    (folder / "both").symlink_to("cat")
    (folder / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    (folder / "more").symlink_to("../elsewhere", target_is_directory=True)
    assert rows(folder) == [
        ("both/1.png", "both"),
        ("both/kitten/2.png", "kitten"),
        ("cat/1.png", "cat"),
        ("cat/kitten/2.png", "kitten"),
        ("dog/3.png", "dog"),
        ("more/bird/deep/4.png", "deep"),
        ("more/dog/3.png", "dog"),
    ]
    assert refused(folder) == {}
    # A worker opens what the link leads to.
    assert [Path(name).read_bytes() for *_, name in handed_out(source_of(folder))][4] == b"3"


def test_a_chain_of_links_to_a_folder_is_followed(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"top.png": b"0"})
    as_folder(tmp_path / "real", {"1.png": b"1"})
    (tmp_path / "second").symlink_to("real")
    (folder / "cat").symlink_to("../second")
    assert rows(folder) == [("cat/1.png", "cat"), ("top.png", None)]


def test_the_source_itself_may_be_a_link(tmp_path: Path) -> None:
    as_folder(tmp_path / "real", {"cat/1.png": b"1"})
    (tmp_path / "set").symlink_to("real")
    (tmp_path / "real" / "again").symlink_to(tmp_path / "set")
    assert rows(tmp_path / "set") == [("cat/1.png", "cat")]
    assert refused(tmp_path / "set") == {"again": ENDLESS}


def test_links_that_would_never_end_are_rejects(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "above" / "set", {"a/1.png": b"1", "b/2.png": b"2", "a/deep/3.png": b"3"})
    (folder / "a" / "here").symlink_to(".")
    (folder / "a" / "deep" / "up").symlink_to("../..")
    (folder / "a" / "deep" / "above").symlink_to(tmp_path / "above")
    (folder / "b" / "root").symlink_to("/")
    assert rows(folder) == [("a/1.png", "a"), ("a/deep/3.png", "deep"), ("b/2.png", "b")]
    assert refused(folder) == dict.fromkeys(("a/here", "a/deep/up", "a/deep/above", "b/root"), ENDLESS)


def test_two_folders_that_link_to_each_other_are_each_read_once_in_the_other(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b"1", "b/2.png": b"2"})
    (folder / "a" / "to_b").symlink_to("../b")
    (folder / "b" / "to_a").symlink_to("../a")
    assert rows(folder) == [("a/1.png", "a"), ("a/to_b/2.png", "to_b"), ("b/2.png", "b"), ("b/to_a/1.png", "to_a")]
    assert refused(folder) == {"a/to_b/to_a": ENDLESS, "b/to_a/to_b": ENDLESS}


def test_a_link_out_and_back_ends(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b"1"})
    as_folder(tmp_path / "outside", {"dog/2.png": b"2"})
    (folder / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(folder)
    (tmp_path / "outside" / "again").symlink_to(folder / "a")
    assert rows(folder) == [("a/1.png", "a"), ("out/again/1.png", "again"), ("out/dog/2.png", "dog")]
    assert refused(folder) == {"out/back": ENDLESS}


def test_links_that_double_at_every_step_are_an_error_that_comes_soon(tmp_path: Path) -> None:
    for step in range(40):
        as_folder(tmp_path / "steps" / str(step), {"1.png": b"1"})
        for name in ("left", "right"):
            (tmp_path / "steps" / str(step) / name).symlink_to(f"../{step + 1}")
    folder = as_folder(tmp_path / "set", {"a/1.png": b"1"})
    (folder / "start").symlink_to("../steps/0")
    with pytest.raises(
        SourceError, match="links lead to the folder .* by more than 1000 paths. Remove some of the links"
    ):
        rows(folder)


def test_a_linked_system_folder_is_one_reject(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b"1"})
    as_folder(tmp_path / "real", {"2.png": b"2"})
    for name in (".git", "@eaDir"):
        (folder / "a" / name).symlink_to(tmp_path / "real")
    detail = ("not_a_file", "a link with the name of a system folder: not followed")
    assert refused(folder) == {"a/.git": detail, "a/@eaDir": detail}
    assert rows(folder) == [("a/1.png", "a")]


def test_what_changes_behind_a_link_changes_the_survey(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b"1"})
    as_folder(tmp_path / "real", {"2.png": b"2"})
    (folder / "cat").symlink_to("../real")
    before = survey(source_of(folder))
    assert list(before.shards or ()) == [shard.shard for shard in read(source_of(folder))]
    (tmp_path / "real" / "2.png").write_bytes(b"22")
    assert survey(source_of(folder)) != before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_link_into_a_folder_that_cannot_be_searched_is_a_reject(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "set", {"a/1.png": b"1"})
    as_folder(tmp_path / "closed", {"cat/2.png": b"2"})
    (folder / "cat").symlink_to(tmp_path / "closed" / "cat")
    (tmp_path / "closed").chmod(0)
    try:
        assert refused(folder) == {"cat": ("not_a_file", "a link that leads nowhere")}
    finally:
        (tmp_path / "closed").chmod(0o700)

"""Patterns in a bucket find objects as they find files, and a build follows what lies there."""

import shutil
from pathlib import Path

import pytest
from making import as_tar, files_of, handed_out, recipe
from s3 import DATA, Bucket, cached, needs_rclone, part, sha

from pipeline.builder.build import build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import RecipeError
from pipeline.sources import is_fetched, read, resolve
from pipeline.sources.remote import cache_folder

pytestmark = pytest.mark.usefixtures("s3_variables")


@needs_rclone
def test_a_pattern_finds_objects_as_it_finds_files(bucket: Bucket, tmp_path: Path) -> None:
    tars = {key: as_tar(tmp_path / "x.tar", files_of(2, seed=n)).read_bytes() for n, key in enumerate("abc")}
    keys = ["t/b.tar", "t/a.tar", "t/.h.tar", "t/deep/c.tar", "t/a.txt"]
    for key in keys:
        bucket.put(key, tars.get(key.rpartition("/")[2][0], tars["a"]))
    start = f"s3://{bucket.name}/t/"
    for pattern, names in {
        "*.tar": ["a.tar", "b.tar"],
        "**/*.tar": ["a.tar", "b.tar", "deep/c.tar"],
        "*/*.tar": ["deep/c.tar"],
        "[b-z].tar": ["b.tar"],
    }.items():
        asked = recipe(tmp_path, {"uri": start + pattern})
        found = resolve(asked)
        assert [(source.uri, source.prefix) for source in found] == [(start + name, f"{name}/") for name in names]
        assert {source.group for source in found} == {start + pattern}
    paths = [path for shard in read(found[0]) for path in shard.paths]
    assert paths == ["b.tar/A/00000.png", "b.tar/B/00001.png"]
    with pytest.raises(RecipeError, match="digest is only valid for one file"):
        resolve(recipe(tmp_path, {"uri": start + "*.tar", "digest": sha(DATA)}))


@needs_rclone
def test_a_pattern_is_at_hand_when_every_object_is(bucket: Bucket, tmp_path: Path) -> None:
    data = as_tar(tmp_path / "x.tar", files_of(2)).read_bytes()
    uri = bucket.put("a.tar", data).replace("a.tar", "*.tar")
    assert not is_fetched(part(uri))
    resolve(recipe(tmp_path, {"uri": uri}))
    assert is_fetched(part(uri))
    bucket.put("b.tar", data)
    assert not is_fetched(part(uri))


@needs_rclone
def test_an_object_that_is_really_called_so_comes_first(bucket: Bucket, tmp_path: Path) -> None:
    data = as_tar(tmp_path / "x.tar", files_of(2)).read_bytes()
    for key in ("a[1].tar", "a1.tar", "what?#.tar"):
        bucket.put(key, data)
    (source,) = resolve(recipe(tmp_path, {"uri": f"s3://{bucket.name}/a[1].tar"}))
    assert (source.uri, source.prefix) == (f"s3://{bucket.name}/a[1].tar", "")
    (odd,) = resolve(recipe(tmp_path, {"uri": f"s3://{bucket.name}/what?#.tar"}))
    assert (odd.path.name, odd.prefix) == ("what?#.tar", "")


def test_a_bucket_is_named_without_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.exists", lambda _: False)
    with pytest.raises(RecipeError, match="the bucket must be named without"):
        resolve(recipe(tmp_path, {"uri": "s3://buck*/a.tar"}))


@needs_rclone
def test_a_build_follows_the_bucket(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put("a.tar", as_tar(tmp_path / "x.tar", files_of(6)).read_bytes())
    asked = recipe(tmp_path, {"uri": uri}, decode={"size": [28, 28]})
    assert plan(asked)[0] == ("ingest", uri, "not downloaded yet")
    assert cached() == []
    assert build(asked, engine=LocalEngine(1)).images == 6
    assert plan(asked) == []
    assert build(asked, engine=LocalEngine(1)).done == ()
    # A cache that is emptied is filled again, and nothing else happens.
    shutil.rmtree(cache_folder())
    assert build(asked, engine=LocalEngine(1)).done == ()
    bucket.put("a.tar", as_tar(tmp_path / "x.tar", files_of(9)).read_bytes())
    assert plan(asked)[0] == ("ingest", uri, "not downloaded yet")
    assert build(asked, engine=LocalEngine(1)).images == 9
    assert len(handed_out(resolve(asked)[0])) == 9

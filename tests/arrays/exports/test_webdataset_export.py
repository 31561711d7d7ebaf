import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import export_main, labels_of, pictures_of, rows_of
from PIL import Image

from pipeline.arrays.exports import webdataset
from pipeline.lake_handle import Lake

# The library leaves its tar files to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def samples(folder: Path, role: str) -> list[tuple[str, Any, int]]:
    wds = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted(folder.glob(f"{role}-*.tar"))]
    read = wds.WebDataset(shards, shardshuffle=False).to_tuple("__key__", "png", "cls")
    return [(key, np.asarray(Image.open(io.BytesIO(png))), int(label)) for key, png, label in read]


def check(lake: Lake, folder: Path, role: str) -> None:
    rows, found = rows_of(lake, role), samples(folder, role)
    assert [key for key, _, _ in found] == [key.hex() for key in rows["image_id"]]
    assert [label for _, _, label in found] == labels_of(rows)
    for (_, picture, _), expected in zip(found, pictures_of(rows), strict=True):
        np.testing.assert_array_equal(picture, expected)


def test_the_library_reads_the_rows_in_order(
    small_lake: Lake, rgb_lake: Lake, mixed_lake: Lake, tmp_path: Path
) -> None:
    for lake, role in ((small_lake, "test"), (rgb_lake, "train"), (mixed_lake, "train")):
        export_main(lake, tmp_path / str(id(lake)), "webdataset")
        check(lake, tmp_path / str(id(lake)), role)


@pytest.mark.parametrize("limit", [{"SHARD_IMAGES": 10}, {"SHARD_BYTES": 20_000}, {"SHARD_BYTES": 1}])
def test_shards_are_cut_between_images(
    small_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int]
) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(webdataset, name, value)
    export_main(small_lake, tmp_path / "out", "webdataset")
    shards = sorted((tmp_path / "out").glob("test-*.tar"))
    assert shards[0].name == "test-000000.tar"
    assert len(shards) > 2
    check(small_lake, tmp_path / "out", "test")


@pytest.mark.parametrize("size", [0, 1, 511, 8**7, 8**11 - 1])
def test_headers_are_those_of_tarfile(size: int) -> None:
    info = tarfile.TarInfo(f"{size:032x}.png")
    info.size = size
    assert webdataset.header(info.name, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_headers_tell_nothing_of_who_and_when(small_lake: Lake, tmp_path: Path) -> None:
    export_main(small_lake, tmp_path / "out", "webdataset")
    file = tmp_path / "out" / "test-000000.tar"
    assert file.stat().st_size % tarfile.RECORDSIZE == 0
    with tarfile.open(file) as archive:
        members = archive.getmembers()
        assert len(members) == 61
        named = archive.extractfile(members[0])
        assert named is not None
        assert (members[0].name, json.loads(named.read())) == ("__classes__", ["A", "B"])
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.isreg()) for m in members} == {
            (0, 0, 0, "", "", 0o644, True)
        }

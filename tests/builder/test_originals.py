"""Law: an original is the file as it came, its digest is that of its image, and it is repaired from its source."""

import hashlib
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from damaged_lakes import cut, flip
from examples import slow_but
from making import as_folder, as_tar, as_zip, encoded, recipe

from pipeline.builder.build import Built, build, plan
from pipeline.builder.state import versions_of_shards
from pipeline.decode import Decoded, Originals, decode_shard
from pipeline.engines.local import LocalEngine
from pipeline.errors import DamagedLakeError, RecipeError
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Transaction
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum, vacuum_releases
from pipeline.pixels import gather, locate
from pipeline.recipe import DecodePart, Recipe
from pipeline.references import read_reference
from pipeline.repair import repair
from pipeline.shard import Blobs, Encoded
from pipeline.verify import verify


def picture(seed: int, height: int = 40, width: int = 60) -> Any:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)


def photographs(count: int = 6, seed: int = 0) -> dict[str, bytes]:
    forms = ("JPEG", "PNG", "WEBP")
    return {
        f"{'AB'[i % 2]}/{i:03}.{forms[i % 3].lower()}": encoded(picture(seed + i), forms[i % 3]) for i in range(count)
    }


def lake_of(base: Path, *sources: dict[str, Any], **decode: Any) -> Recipe:
    return recipe(base, *sources, decode={"longest": 20, **decode})


def built(made: Recipe, **options: Any) -> Built:
    return build(made, engine=LocalEngine(1), **options)


def originals(root: str) -> pl.DataFrame:
    lake = Lake(root)
    paths = lake.scan("images").select("image_id", "path", images_digest="file_digest")
    return lake.scan("originals").join(paths, on="image_id").sort("path", "image_id").collect()


def faults(root: str) -> list[str]:
    return [str(fault).partition(": ")[2] for check in verify(root) for fault in check.faults]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("make", [as_folder, as_tar, as_zip])
def test_files_are_kept_byte_by_byte(tmp_path: Path, make: Any) -> None:
    files = photographs()
    make(tmp_path / "set", {**files, "A/bad.jpg": files["A/000.jpeg"][:50]})
    made = built(lake_of(tmp_path, {"uri": "set"}))
    rows = originals(made.root)
    assert dict(rows.select("path", "bytes").rows()) == files
    assert rows["file_digest"].to_list() == [hashlib.sha256(data).digest() for data in rows["bytes"]]
    assert rows["file_digest"].equals(rows["images_digest"], check_names=False)
    assert rows["format"].to_list() == [path.rpartition(".")[2].upper() for path in rows["path"]]
    assert rows.select("height", "width").unique().rows() == [(40, 60)]
    assert rows["location"].null_count() == len(files)
    assert Lake(made.root).scan("images").select("height", "width").unique().collect().rows() == [(13, 20)]
    assert faults(made.root) == []
    assert plan(lake_of(tmp_path, {"uri": "set"})) == []


@pytest.mark.parametrize("make", [as_folder, as_tar])
def test_references_say_where_the_files_are(tmp_path: Path, make: Any) -> None:
    files = photographs()
    make(tmp_path / "set", files)
    made = built(lake_of(tmp_path, {"uri": "set"}, originals="reference"))
    rows = originals(made.root)
    assert rows["bytes"].null_count() == len(files)
    between = "/" if make is as_folder else "#"
    assert rows["location"].to_list() == [f"{tmp_path}/set{between}{path}" for path in sorted(files)]
    assert rows["file_digest"].to_list() == [hashlib.sha256(files[path]).digest() for path in rows["path"]]
    assert faults(made.root) == []
    assert any("inside of other files" in note for note in made.notes) == (make is as_tar)


def test_a_referenced_file_whose_name_is_not_utf_8_is_read(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", photographs())
    name = os.fsencode(tmp_path / "set" / "A") + b"/\xff\\x41.jpg"
    data = (tmp_path / "set" / "A" / "000.jpeg").read_bytes()
    Path(os.fsdecode(name)).write_bytes(data)
    made = built(lake_of(tmp_path, {"uri": "set"}, originals="reference"))
    row = originals(made.root).filter(pl.col("path").str.contains("xff")).row(0, named=True)
    assert read_reference(row["location"], row["file_digest"]) == data


def test_a_lake_without_originals_never_commits_any(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", photographs())
    made = built(lake_of(tmp_path, {"uri": "set"}, originals="none"))
    snapshot = Snapshot(made.root)
    assert (snapshot.version("originals"), snapshot.files("originals")) == (0, [])
    assert "originals" not in versions_of_shards(snapshot)


def test_pixels_are_kept_only_where_the_lake_changes_them(tmp_path: Path) -> None:
    large = np.stack([picture(seed) for seed in range(3)])
    np.savez(tmp_path / "large.npz", images=large)
    np.savez(tmp_path / "small.npz", images=large[:, :16, :16])
    made = built(lake_of(tmp_path, {"uri": "large.npz"}, {"uri": "small.npz", "split": "test"}, originals="keep"))
    rows = originals(made.root)
    assert rows["format"].to_list() == ["PIXELS"] * 3
    assert rows["bytes"].to_list() == [struct.pack("<3I", 40, 60, 3) + pixels.tobytes() for pixels in large]
    assert rows["file_digest"].equals(rows["images_digest"], check_names=False)
    assert faults(made.root) == []


def test_another_setting_reads_everything_again(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", photographs())
    built(lake_of(tmp_path, {"uri": "set"}, originals="none"))
    kept = built(lake_of(tmp_path, {"uri": "set"}, originals="keep"))
    assert kept.done[0].reason == "the decode settings changed"
    assert len(originals(kept.root)) == 6
    without = lake_of(tmp_path, {"uri": "set"}, originals="none")
    for refused in (built, plan, repair):
        with pytest.raises(
            RecipeError, match=r"only the working pictures of 20 pixels stay\. To remove them, build with --p"
        ):
            refused(without)
    assert len(originals(kept.root)) == 6
    gone = built(without, prune=True)
    assert len(originals(gone.root)) == 0
    assert built(lake_of(tmp_path, {"uri": "set"}, originals="none")).done == ()


def test_originals_go_with_their_source(tmp_path: Path) -> None:
    as_folder(tmp_path / "one", photographs())
    as_tar(tmp_path / "two.tar", photographs(4, seed=9), "w")
    both = lake_of(tmp_path, {"uri": "one"}, {"uri": "two.tar", "split": "test"})
    assert len(originals(built(both).root)) == 10
    (tmp_path / "one" / "A/000.jpeg").unlink()
    assert len(originals(built(both).root)) == 9
    assert len(originals(built(lake_of(tmp_path, {"uri": "one"}), prune=True).root)) == 5
    assert vacuum_releases(both.root, keep_last=1, older_than_hours=0, dry_run=False, force=False).deleted
    assert faults(both.root) == []


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("table", ["images", "originals", "index", "rejects", "shards"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_build_that_is_killed_at_a_commit_is_made_again(
    tmp_path: Path, table: str, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the first originals are committed, and after a vacuum of the remaining files."""
    as_folder(tmp_path / "set", {"A/a.png": encoded(picture(50), "PNG")})
    first = lake_of(tmp_path, {"uri": "set"}, originals="keep" if before else "none")
    built(first)
    then = lake_of(tmp_path, {"uri": "set"}, originals="keep")
    as_folder(tmp_path / "set", photographs())
    commit = Transaction.commit

    def dies(self: Transaction, change: Any) -> None:
        commit(self, change)
        if change.table == table and change.metadata.stage == "ingest":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "commit", dies)
        with pytest.raises(Killed):
            built(then)
    vacuum(then.root, older_than_hours=0, dry_run=False)
    assert len(originals(then.root)) == bool(before)
    assert len(originals(built(then).root)) == 7
    assert built(then).done == ()
    assert faults(then.root) == []


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("originals") / "world"
    base.mkdir()
    as_folder(base / "one", photographs())
    as_tar(base / "two.tar", photographs(4, seed=9), "w")
    built(lake_of(base, {"uri": "one"}, {"uri": "two.tar", "split": "test"}))
    return base


@pytest.fixture
def world(two_sources: Path, tmp_path: Path) -> Recipe:
    """The lake of two sources is moved, so the recipe's folder is too."""
    shutil.copytree(two_sources, tmp_path / "world")
    return lake_of(tmp_path / "world", {"uri": "one"}, {"uri": "two.tar", "split": "test"})


def original_file(made: Recipe, split: str = "train") -> Path:
    (found,) = (part for part in Snapshot(made.root).files("originals") if part.partition["split"] == split)
    return Path(made.root, "originals", found.path)


def break_it(file: Path, how: str) -> None:
    if how == "missing":
        file.unlink()
    elif how == "cut":
        cut(file, 100)
    else:
        flip(file, file.stat().st_size // 3)


@pytest.mark.parametrize("how", slow_but(["flipped"], ["missing", "cut", "flipped"]))
def test_a_damaged_original_is_found_and_read_again(world: Recipe, how: str) -> None:
    wanted, images = originals(world.root), Lake(world.root).scan("images").collect()
    break_it(original_file(world), how)
    (found, *_) = (fault for check in verify(world.root) for fault in check.faults)
    assert (found.table, found.rows) == ("originals", 6)
    assert "; 6 images of d/train shard one-" in str(found)
    # Images are read as before.
    assert Lake(world.root).scan("images").collect().equals(images)
    done = repair(world, engine=LocalEngine(1))
    assert "6 originals were damaged" in done.done[0].reason
    assert done.still_damaged == ()
    assert originals(world.root).equals(wanted)
    assert Lake(world.root).scan("images").collect().sort("image_id").equals(images.sort("image_id"))
    assert faults(world.root) == []


def test_without_the_source_the_images_stay(world: Recipe) -> None:
    images = Lake(world.root).scan("images").collect()
    break_it(original_file(world), "flipped")
    shutil.rmtree(world.base / "one")
    done = repair(world, engine=LocalEngine(1))
    (line,) = done.still_damaged
    assert "6 originals stay damaged, because its source" in line
    assert "is gone" in line
    assert Lake(world.root).scan("images").collect().equals(images)
    with pytest.raises(DamagedLakeError):
        Lake(world.root).check("originals")
    Lake(world.root).check("images")


@pytest.mark.parametrize("gone", [True, False])
def test_a_lost_table_is_made_again(world: Recipe, gone: bool) -> None:  # noqa: FBT001 - two cases
    wanted = originals(world.root)
    shutil.rmtree(Path(world.root, "originals"))
    if gone:
        shutil.rmtree(world.base / "one")
    done = repair(world, engine=LocalEngine(1))
    if gone:
        assert any("originals: the table is lost, and stays empty because" in line for line in done.still_damaged)
    assert len(Lake(world.root).scan("images").collect()) == 10
    assert originals(world.root).equals(wanted) is not gone


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"bytes": pl.lit(b"other")}, "the bytes do not match their file_digest; 6 images"),
        ({"file_digest": pl.lit(bytes(32))}, "the file_digest is not that of the image; 6 images"),
        ({"image_id": pl.lit(bytes(16))}, "images have no original; 6 images"),
    ],
)
def test_wrong_values_are_found(world: Recipe, change: dict[str, pl.Expr], wanted: str) -> None:
    from damaged_lakes import renamed  # noqa: PLC0415 - only here

    file = original_file(world)
    rows = pq.read_table(file, partitioning=None)
    pq.write_table(pl.DataFrame(rows).with_columns(**change).to_arrow().cast(rows.schema), file)
    renamed(file)
    assert any(fault.startswith(wanted) for fault in faults(world.root))


@pytest.mark.slow
def test_row_groups_have_8_to_32_mb() -> None:
    """Of files that do not compress, and of pictures of many shapes."""
    noise = np.random.default_rng(0)
    sizes = noise.integers(900, 1_300, (26, 2))
    files = [encoded(noise.integers(0, 256, (h, w, 3), dtype=np.uint8), "PNG", compress_level=0) for h, w in sizes]
    shard = Encoded("s", "f", tuple(f"A/{i}" for i in range(26)), (None,) * 26, Blobs(tuple(files)))
    spec = DecodePart(mode="RGB", originals="keep", longest=2_000)
    items = list(decode_shard(shard, "d", "train", spec))
    encoded_groups = [sum(map(len, item.rows["bytes"].to_pylist())) for item in items if isinstance(item, Originals)]
    assert sum(encoded_groups) == sum(map(len, files))
    assert len(encoded_groups) > 1
    assert all(8e6 <= size <= 32e6 for size in encoded_groups)
    assert sum(len(item.images) for item in items if isinstance(item, Decoded)) == 26


@pytest.mark.slow
def test_pictures_of_many_shapes_share_row_groups(tmp_path: Path) -> None:
    """They are read, indexed and verified as if each shape had its own."""
    files = {f"A/{i:03}.jpeg": encoded(picture(i, 40 + 4 * (i % 9), 60), "JPEG") for i in range(27)}
    as_folder(tmp_path / "set", files)
    made = lake_of(tmp_path, {"uri": "set"}, longest=32)
    root = built(made).root
    (file,) = Snapshot(root).file_places("images")
    assert pq.ParquetFile(file).num_row_groups == 1
    lake = Lake(root)
    rows = lake.scan("images").sort("path").collect()
    assert len(rows.select("height", "width").unique()) > 5
    ids = rows.filter(pl.col("height") == rows["height"][3])["image_id"]
    stored = rows.filter(pl.col("image_id").is_in(ids.implode()))["pixels"]
    assert gather(locate([file], ids)).tobytes() == b"".join(stored)
    both = recipe(tmp_path, {"uri": "set"}, decode={"longest": 32}, dedup={"rules": ["exact", "sign"]})
    built(both)
    assert faults(root) == []
    fresh = recipe(
        tmp_path, {"uri": "set"}, decode={"longest": 32}, dedup=both.dedup.model_dump(), lake={"root": "new"}
    )
    index = [Lake(built(one).root).scan("index").collect() for one in (both, fresh)]
    assert index[0].equals(index[1])


def test_the_footer_has_few_bytes_for_each_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    pixels = [noise.integers(0, 256, (90, 100 + i % 7, 3), dtype=np.uint8) for i in range(160)]
    as_folder(tmp_path / "set", {f"A/{i:03}.jpeg": encoded(pixels[i], "JPEG") for i in range(160)})
    root = built(recipe(tmp_path, {"uri": "set"})).root
    for table in ("images", "originals"):
        (file,) = Snapshot(root).file_places(table)
        footer = int.from_bytes(Path(file).read_bytes()[-8:-4], "little")
        assert footer < 50 * 160, table

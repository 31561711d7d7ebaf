"""A lake in a bucket is the lake that it would be in a folder, row for row, by every way of reading it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import Run
from lakes import rows_by_content
from making import as_folder, as_tar, files_of, recipe
from s3 import Bucket

import schemas
from pipeline import storage
from pipeline.builder.build import build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError, NoReleaseError, StorageError
from pipeline.lake_handle import Lake
from pipeline.maintenance import history, status, vacuum
from pipeline.recipe import Recipe, parse_recipe
from pipeline.verify import verify

# Tables whose rows do not tell when or by which release they were made.
SAME = [
    name for name in schemas.TABLES if name not in ("releases", "scores", "misses", "models", "predictions", "exports")
]
MODEL = {"model": "logistic", "split": "main", "train_sizes": [20], "max_iter": 5}
SPLIT = {"name": "main", "seed": 3, "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    as_tar(tmp_path / "train.tar", files_of(60), "w")
    as_folder(
        tmp_path / "test", {**files_of(20, seed=1), "A/ä b%20c+d.png": files_of(1)["A/00000.png"], "B/bad.png": b""}
    )
    return tmp_path


def asked(base: Path, root: str) -> Recipe:
    return recipe(
        base,
        {"uri": "train.tar"},
        {"uri": "test", "split": "test"},
        lake={"root": root},
        attributes=[{"patterns": {"number": r"(\d+)"}}],
        dedup={"rules": ["exact", "maxpool:4", "cosine:0.9"]},
        issues={"blurry": 0.01, "label": 0.01},
        split=[SPLIT],
        baseline=[MODEL],
    )


def rows_of(lake: Lake) -> dict[str, pl.DataFrame]:
    return {name: lake.scan(name).collect() for name in SAME}


def test_a_lake_in_a_bucket_equals_one_in_a_folder(base: Path, lake_bucket: Bucket) -> None:
    place = f"s3://{lake_bucket.name}/some/prefix"
    made = [build(asked(base, root), engine=LocalEngine(2)) for root in ("lake", place)]
    assert made[1].report == f"{place}/report.html"
    here, there = (Lake(item.root) for item in made)
    assert [rows.equals(rows_of(there)[name]) for name, rows in rows_of(here).items()] == [True] * len(SAME)
    for role in ("train", "test"):
        (x, y), (others, names) = here.arrays("main", role), there.arrays("main", role)
        assert np.array_equal(x, others)
        feeds = [lake.feed("main", role, batch_size=7, buffer_bytes=2**12) for lake in (here, there)]
        for epoch in range(2):
            for (pixels, _), (same, _) in zip(*(feed.epoch(epoch) for feed in feeds), strict=True):
                assert np.array_equal(pixels, same)
        assert np.array_equal(y, names)
    text = "select label, count(*) from images join splits using (image_id) group by all order by all"
    assert here.sql(text).fetchall() == there.sql(text).fetchall()
    assert there.sql("show tables").fetchall() == [(name,) for name in sorted([*schemas.TABLES, "attributes_wide"])]
    text = "select path, number, typeof(number) from images join attributes_wide using (image_id) order by split, path"
    assert here.sql(text).fetchall() == there.sql(text).fetchall()
    assert here.sql(text, ids="hex").fetchall() == there.sql(text, ids="hex").fetchall()
    first = here.sql("select image_id from images order by all limit 1", ids="hex").fetchall()[0][0]
    found = f"select path from images join splits using (image_id) where image_id = '{first}'"
    assert here.sql(found, ids="hex").fetchall() == there.sql(found, ids="hex").fetchall() != []
    assert [check for check in verify(place) if check.faults] == []
    assert build(asked(base, place), engine=LocalEngine(1)).done == ()
    assert plan(asked(base, place)) == []


def test_what_changes_is_built_and_old_releases_stay(base: Path, lake_bucket: Bucket) -> None:
    place = f"s3://{lake_bucket.name}/lake"
    build(asked(base, place), engine=LocalEngine(1))
    before = rows_of(Lake(place))
    (base / "test" / "B" / "bad.png").unlink()
    as_folder(base / "test", {"B/new.png": files_of(1, seed=7)["A/00000.png"]})
    held = Lake(place)
    assert build(asked(base, place), engine=LocalEngine(1)).release == 2
    assert all(rows.equals(rows_of(Lake(place, 1))[name]) for name, rows in before.items())
    assert all(rows.equals(rows_of(held)[name]) for name, rows in before.items())
    build(asked(base, "lake"), engine=LocalEngine(1))
    local = str(base / "lake")
    assert all(rows_by_content(f"{place}/", name).equals(rows_by_content(local, name)) for name in SAME)
    assert len(history(place)) == 2
    assert status(place).todo == []
    assert vacuum(place, older_than_hours=0, dry_run=False) == []


def test_every_command_takes_a_bucket(base: Path, lake_bucket: Bucket, run: Run) -> None:
    place = f"s3://{lake_bucket.name}/lake"
    file = base / "r.toml"
    values = {
        "lake": {"root": place},
        "source": [{"uri": "test", "dataset": "d", "split": "test"}],
        "split": [{"name": "main", "test": {"from": "test"}}],
    }
    lines = [f'[lake]\nroot = "{place}"', '[[source]]\nuri = "test"\ndataset = "d"\nsplit = "test"']
    lines += ['[[split]]\nname = "main"\ntest = { from = "test" }']
    file.write_text("\n".join(lines))
    assert parse_recipe(values, base=base).root == place
    assert run("build", file, "--workers", 1).exit_code == 0
    for command in (
        ("status", place),
        ("sql", f"{place}/", "select count(*) from images"),
        ("overlap", place),
        ("verify", place),
        ("history", place),
        ("report", place),
        ("vacuum", place, "--keep-last", 1),
        ("export", place, "main", base / "out", "--to", "npz", "--workers", 1),
    ):
        done = run(*command)
        assert done.exit_code == 0, (command, done.stderr)
    assert json.loads(run("history", place, "--json").stdout)[0]["pinned"] == [
        f"export of main as npz to {(base / 'out').resolve()}"
    ]


def test_no_object_is_left_that_no_commit_names(base: Path, lake_bucket: Bucket) -> None:
    place = f"s3://{lake_bucket.name}/lake"
    build(asked(base, place), engine=LocalEngine(1))
    (base / "train.tar").write_bytes((base / "train.tar").read_bytes()[:9000])
    with pytest.raises(ValueError, match="damaged or cut short"):
        build(asked(base, place), engine=LocalEngine(1))
    named = {name.removeprefix(f"{place}/") for name in _files_of(Lake(place))}
    found = {path for path in storage.list_files(place) if path.endswith(".parquet")}
    assert found == named
    assert not [path for path in storage.list_files(place) if path.startswith(".writers")]


def _files_of(lake: Lake) -> list[str]:
    from lakes import file_names  # noqa: PLC0415 - loaded when needed

    return [file for name in schemas.TABLES for file in file_names(lake.root, name, None)]


def test_faults_are_one_clear_error(base: Path, lake_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoReleaseError, match="holds no finished build"):
        Lake(f"s3://{lake_bucket.name}/none")
    with pytest.raises(StorageError, match="There is no such bucket. Check the name, or create"):
        build(asked(base, "s3://no-such-bucket-here/lake"), engine=LocalEngine(1))
    with pytest.raises(ValueError, match="a lake is a folder or s3://bucket/prefix, not gs://b/lake"):
        asked(base, "gs://b/lake")
    monkeypatch.setattr("pipeline.storage.client._RETRY_DELAYS", (0.01,))
    monkeypatch.setattr("pipeline.storage.client.RETRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for attempt in (lambda: Lake("s3://b/lake"), lambda: build(asked(base, "s3://b/lake"), engine=LocalEngine(1))):
        with pytest.raises((StorageError, LakeError), match=r"Check AWS_ENDPOINT_URL \(now http://127.0.0.1:9\)"):
            attempt()

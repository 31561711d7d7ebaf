"""`find` gives what a build with the picture would give, for every rule; and says what it cannot read."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from commands import Run
from drawn import draw_files
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import as_folder, encoded, files_of, pictures, recipe
from s3 import Bucket

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.search import find, index

KEYS = ("file", "exact", "sign", "maxpool:2")
SCORES = ("hamming:8", "cosine:0.85", "photo:0.3")
STRICTER = {"cosine:0.95": "cosine:0.85", "hamming:3": "hamming:8", "photo:0.6": "photo:0.3"}


def matches(found: pl.DataFrame) -> set[tuple[Any, ...]]:
    return set(found.select("query", "image_id", "score").rows())


def of_build(built: Lake, rule: str, least: float | None = None) -> set[tuple[Any, ...]]:
    """List what a build pairs the queries with, among the other images: path, image_id, score."""
    images = built.scan("images").select("image_id", "path", "split").collect()
    queries, others = images.filter(split="query"), images.filter(pl.col("split") != "query")["image_id"]
    rows = [built.scan(table).filter(rule=rule).collect() for table in ("pairs", "clusters", "index")]
    pairs = rows[0].filter(pl.col("score") >= pl.lit(least or -1, pl.Float32))
    ends = ("left_id", "right_id")
    both = [pairs.select("score", query=one, image_id=other) for one, other in (ends, ends[::-1])]
    equal = rows[1].select("cluster_id", "image_id") if rule in KEYS else None
    if rule.startswith("cosine"):
        # Constant images are in one cluster without a pair.
        signed = rows[2].filter(pl.col("signature") != 0)
        equal = signed.select(cluster_id=pl.struct("key", "signature"), image_id="image_id")
    if equal is not None:
        joined = equal.join(equal, on="cluster_id")
        both.append(joined.select(pl.lit(1, pl.Float32).alias("score"), query="image_id", image_id="image_id_right"))
    wanted = pl.concat(both).filter(pl.col("image_id").is_in(others.implode()))
    named = wanted.join(queries.select(query="image_id", name="path"), on="query")
    return set(named.select("name", "image_id", "score").rows())


@few(2, thorough=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.sampled_from(["all", "splits"]))
def test_find_gives_what_a_build_with_the_pictures_would_give(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, between: str
) -> None:
    rng = np.random.default_rng(seed)
    base = tmp_path_factory.mktemp("find")
    drawn = draw_files(rng, count + 6)
    names = list(drawn)
    as_folder(base / "train", {name: drawn[name] for name in names[:count]})
    queries = {**{name: drawn[name] for name in names[count:]}, "A/bad.png": b"bad", "B/again.png": drawn[names[0]]}
    as_folder(base / "query", queries)
    settings = {"rules": [*KEYS, *SCORES], "between": between}
    parts: dict[str, Any] = {"dedup": settings, "decode": {"mode": "L"}}
    build(recipe(base, {"uri": "train"}, **parts), engine=LocalEngine(1))
    lake = Lake(base / "lake")
    before = lake.snapshot.versions
    found = lake.find(base / "query")
    stricter = {rule: lake.find(base / "query", rule=rule).matches for rule in STRICTER}
    assert Lake(base / "lake").snapshot.versions == before, "find writes nothing"
    build(recipe(base, {"uri": "train"}, {"uri": "query", "split": "query"}, **parts), engine=LocalEngine(1))
    built = Lake(base / "lake")
    named = found.matches.with_columns(pl.col("query").str.strip_prefix(f"{base}/query/"))
    assert found.rules == [*KEYS, *SCORES]
    for rule in found.rules:
        assert matches(named.filter(rule=rule)) == of_build(built, rule), rule
    least = {"cosine:0.95": 0.95, "hamming:3": 1 - 3 / 64, "photo:0.6": 0.6}
    for rule, stored in STRICTER.items():
        rows = stricter[rule].with_columns(pl.col("query").str.strip_prefix(f"{base}/query/"))
        assert matches(rows) == of_build(built, stored, least[rule]), rule
    assert [Path(item.path).name for item in found.rejects] == ["bad.png"]
    assert found.queries == [f"{base}/query/{name}" for name in sorted(queries) if "bad" not in name]
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of 40 images, three of them equal, and pictures to search for."""
    folder = tmp_path_factory.mktemp("find")
    files = files_of(40)
    same = files["A/00000.png"]
    as_folder(folder / "train", {**files, "B/same.png": same, "B/<i>\x1b[31m.png": same})
    picture = encoded(pictures(1)[0], compress_level=0)
    new = encoded(pictures(1, seed=99)[0])
    as_folder(folder / "new", {"1.png": picture, "2.png": files["B/00001.png"], "3.png": new, "bad.png": b"bad"})
    rules = ["exact", "cosine:0.9", "photo:0.5"]
    build(recipe(folder, {"uri": "train"}, dedup={"rules": rules}), engine=LocalEngine(1))
    return folder


def test_the_command_prints_what_python_returns(base: Path, run: Run) -> None:
    found = Lake(base / "lake").find([str(base / "new"), str(base / "train/A/00002.png")])
    done = run("find", base / "lake", base / "new", base / "train/A/00002.png", "--json")
    printed = json.loads(done.stdout)
    assert done.exit_code == 0
    assert printed["matching"] == found.matching == len(found.matches) == 3 * 5
    ids = [row["image_id"].hex() for row in found.matches.iter_rows(named=True)]
    assert [row["image_id"] for row in printed["matches"]] == ids
    assert printed["queries"] == found.queries
    assert [row["path"] for row in printed["rejects"]] == [str(base / "new/bad.png")]
    text = run("find", base / "lake", base / "new").output
    assert "12 matches; 2 of 3 pictures matched" in text
    assert f"{base}/new/bad.png: not_an_image: " in text
    assert "\x1b" not in text


def test_top_limits_the_matches_of_each_picture_and_rule(base: Path) -> None:
    found = Lake(base / "lake").find(base / "new", top=1)
    assert found.matching == 3 * 4
    assert found.matches.group_by("query", "rule").len()["len"].to_list() == [1] * 6
    most = Lake(base / "lake").find(base / "new", top=50).matches
    assert most.equals(Lake(base / "lake").find(base / "new").matches)


def test_nothing_found_is_said_with_exit_code_0(base: Path, run: Run) -> None:
    done = run("find", base / "lake", base / "new/3.png")
    assert done.exit_code == 0
    assert done.stdout.startswith("nothing found: 1 picture without a match in the lake\n")
    assert ".png" not in done.stdout


def test_what_cannot_be_read_is_one_line_and_the_rest_is_answered(base: Path, run: Run) -> None:
    done = run("find", base / "lake", base / "none.png", base / "new/bad.png", base / "new/1.png", "--rule", "exact")
    assert done.exit_code == 0
    assert f"imagelake: {base}/none.png: unreadable: no file or folder " in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert "3 matches; 1 of 1 picture matched\n" in done.stdout
    done = run("find", base / "lake", base / "none.png", base / "new/bad.png")
    assert done.exit_code == 1
    assert done.stdout == "no picture could be read\n"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("cosine:0.8", "did you mean 'cosine:0.9'? Only pairs with a score of 0.9 or more are stored"),
        ("cosine:95", "has no rule 'cosine:95'; did you mean 'cosine:0.9'?"),
        ("phto:0.5", "has no rule 'phto:0.5'; did you mean 'photo:0.5'?"),
        ("sign", "To compare by sign, put it into dedup.rules of the recipe, and build."),
    ],
)
def test_a_rule_that_the_lake_does_not_have_is_an_error_that_names_the_nearest(
    base: Path, rule: str, message: str
) -> None:
    with pytest.raises(LakeError) as caught:
        Lake(base / "lake").find(base / "new", rule=rule)
    assert message in str(caught.value)


def test_exact_and_file_work_without_an_index(base: Path, small_lake: Lake) -> None:
    lake = Lake(base / "lake")
    by_file = lake.find(base / "new", rule="file").matches
    assert set(by_file["path"]) == {"B/00001.png"}
    without: Any = ([find._Rule("exact", "exact", from_images=True)], {})  # noqa: SLF001 - as in a lake without the rule
    expected = lake.find(base / "new", rule="exact").matches
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find, "_rules", lambda *_: without)
        assert Lake(base / "lake").find(base / "new", rule="exact").matches.equals(expected)
    assert small_lake.find(pictures(1)[0], rule="file").rules == ["file"]


def test_pixels_are_searched_as_files_are(base: Path) -> None:
    lake = Lake(base / "lake")
    found = lake.find(pictures(1)[0])
    columns = ["rule", "score", "image_id"]
    assert found.matches.select(columns).equals(lake.find(base / "new/1.png").matches.select(columns))
    colour = np.repeat(pictures(1)[0][..., None], 3, axis=2)
    assert lake.find([colour]).matches.select(columns).equals(found.matches.select(columns))
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8), 7):
        with pytest.raises(TypeError, match="images (must be|is 7)"):
            lake.find([wrong])  # type: ignore[list-item] # what it refuses
    with pytest.raises(LakeError, match="the name of a picture is empty"):
        lake.find("")
    with pytest.raises(LakeError, match="top is 0; it must be 1 or more"):
        lake.find(base / "new", top=0)


def test_blocks_batches_and_kept_indexes_change_no_answer(base: Path) -> None:
    expected = Lake(base / "lake").find(base / "new").matches
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_BLOCK_IMAGES", 1)
        patch.setattr(find, "_QUERY_BYTES", 1)
        for kept in (0, 2**28):
            patch.setattr(index, "_KEPT_BYTES", kept)
            lake = Lake(base / "lake")
            for _ in range(2):
                assert lake.find(base / "new").matches.equals(expected)
            assert lake._kept is not None  # noqa: SLF001 - what stays in memory
            assert len(lake._kept._blocks) == (3 if kept else 0)  # noqa: SLF001


def test_a_rule_with_vectors_is_left_out(base: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(base / "train", tmp_path / "train")
    names = sorted(path.relative_to(tmp_path / "train").as_posix() for path in (tmp_path / "train").rglob("*.png"))
    pl.DataFrame({"path": names, "vector": np.eye(len(names), 8).tolist()}).write_parquet(tmp_path / "vectors.parquet")
    vectors = {"name": "mine", "uri": "vectors.parquet", "column": "vector", "dataset": "d"}
    rules = {"rules": ["exact", "embedding:mine:0.9"]}
    build(recipe(tmp_path, {"uri": "train"}, dedup=rules, embedding=[vectors]), engine=LocalEngine(1))
    done = run("find", tmp_path / "lake", base / "new")
    assert "rule 'embedding:mine:0.9' is left out: it compares vectors that you provide" in done.stderr
    with pytest.raises(LakeError, match="rule 'embedding:mine:0.9' cannot be searched: it compares vectors"):
        Lake(tmp_path / "lake").find(base / "new", rule="embedding:mine:0.9")


def test_an_index_of_an_older_version_is_not_searched(base: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find, "has_current_keys", lambda rule, _: rule != "photo:0.5")
        found = Lake(base / "lake").find(base / "new")
        assert found.rules == ["exact", "cosine:0.9"]
        assert list(found.skipped) == ["photo:0.5"]
        with pytest.raises(LakeError, match=r"an older imagelake made its index\. Make it again with: imagelake build"):
            Lake(base / "lake").find(base / "new", rule="photo:0.6")


def test_secrets_of_an_address_are_not_shown(base: Path, run: Run) -> None:
    done = run("find", base / "lake", "https://ann:s3cret@localhost:1/a.zip", base / "new/1.png", "--json")
    assert "s3cret" not in done.output
    (reject,) = json.loads(done.stdout)["rejects"]
    assert "localhost:1/a.zip" in reject["path"]


def test_the_page_shows_the_pictures_and_escapes_names(base: Path, tmp_path: Path, run: Run) -> None:
    done = run("find", base / "lake", base / "new", "--html", tmp_path / "page.html")
    assert done.stdout.endswith(f"{tmp_path}/page.html\n")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<article") == 12
    assert page.count("data:image/png;base64") == 2 * 12
    assert "&lt;i&gt;" in page
    assert "<i>\x1b" not in page
    assert "\x1b" not in page
    run("find", base / "lake", base / "new/3.png", "--html", tmp_path / "none.html")
    assert "No image of the lake matches." in (tmp_path / "none.html").read_text(encoding="utf-8")


def test_a_pattern_of_image_files_is_what_it_matches(base: Path) -> None:
    lake = Lake(base / "lake")
    files = sorted(map(str, (base / "new").glob("*.png")))
    found, one_by_one = lake.find(f"{base}/new/*.png", rule="exact"), lake.find(files, rule="exact")
    assert found.queries == one_by_one.queries != []
    assert [item.path for item in found.rejects] == [f"{base}/new/bad.png"]
    assert found.matches.equals(one_by_one.matches)


def test_pictures_without_a_match_are_named(base: Path, tmp_path: Path, run: Run) -> None:
    done = json.loads(run("find", base / "lake", base / "new", "--rule", "exact", "--json").stdout)
    matched = {match["query"] for match in done["matches"]}
    assert matched
    assert done["unmatched"] == [name for name in done["queries"] if name not in matched] != []
    text = run("find", base / "lake", base / "new", "--rule", "exact", "--html", tmp_path / "page.html").stdout
    assert f"without a match: {base}/new/3.png\n" in text
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Pictures without a match" in page
    assert f"{base}/new/3.png" in page


def test_an_older_release_is_searched_with_its_own_settings(tmp_path: Path) -> None:
    files = files_of(6)
    as_folder(tmp_path / "train", files)
    for size in ([28, 28], [14, 14]):
        build(recipe(tmp_path, {"uri": "train"}, decode={"size": size}), engine=LocalEngine(1))
    for release in (1, 2):
        found = Lake(tmp_path / "lake", release).find(tmp_path / "train", rule="exact")
        assert found.matches["query"].to_list() == [f"{tmp_path}/train/{path}" for path in found.matches["path"]]
        assert found.matching == 6


def test_a_photograph_is_decoded_as_the_lake_decodes_it(tmp_path: Path) -> None:
    """Reduced at 1/2 and to the longest side of the working pictures, with originals that are kept."""
    coarse = np.random.default_rng(3).integers(0, 256, (5, 30, 40, 3), dtype=np.uint8)
    photographs = {f"A/{n}.jpg": encoded(one.repeat(20, 0).repeat(20, 1), "JPEG") for n, one in enumerate(coarse)}
    as_folder(tmp_path / "train", photographs)
    build(recipe(tmp_path, {"uri": "train"}, dedup={"rules": ["exact", "photo:0.5"]}), engine=LocalEngine(1))
    lake = Lake(tmp_path / "lake")
    assert lake.scan("images").select(pl.max("width")).collect().item() == 256
    assert lake.scan("originals").collect().height == 5
    for rule in ("file", "exact", "photo:0.9"):
        found = lake.find(tmp_path / "train", rule=rule).matches
        assert found["query"].to_list() == [f"{tmp_path}/train/{path}" for path in found["path"]], rule
        assert len(found) == 5


def test_find_in_a_bucket_is_find_in_a_folder(base: Path, lake_bucket: Bucket, run: Run) -> None:
    place = f"s3://{lake_bucket.name}/lake"
    rules = ["exact", "cosine:0.9", "photo:0.5"]
    build(recipe(base, {"uri": "train"}, lake={"root": place}, dedup={"rules": rules}), engine=LocalEngine(1))
    expected = Lake(base / "lake").find(base / "new").matches
    assert Lake(place).find(base / "new").matches.equals(expected)
    assert json.loads(run("find", place, base / "new", "--json").stdout)["matching"] == len(expected)

"""Looking at pairs and clusters from the command line, as a person does."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner
from commands import Run
from lakes import commit, publish, read_meta, write_part
from making import as_folder, files_of, recipe

from pipeline import cli
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake.delta_log import Metadata
from pipeline.lake_handle import Lake
from schemas import TABLES

RULE = "cosine:0.95"
EVIL = "A/\x1b[2J\u202egnp.png"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six images, three pairs in a chain: A0 - B1 - A2 - evil, by falling score."""
    base = tmp_path_factory.mktemp("look")
    files = files_of(5)
    as_folder(base / "train", {**files, EVIL: files["A/00000.png"]})
    split = [{"name": "main", "seed": 2, "train": {"from": "train"}, "test": {"from": "train", "size": 2}}]
    build(recipe(base, {"uri": "train"}, dedup={"rules": ["exact"]}, split=split), engine=LocalEngine(1))
    lake = Lake(base / "lake")
    ids = dict(lake.scan("images").select("path", "image_id").collect().rows())
    evil = next(one for path, one in ids.items() if "gnp" in path)
    chain = [ids["A/00000.png"], ids["B/00001.png"], ids["A/00002.png"], evil]
    pairs = [
        {"left_id": min(ends), "right_id": max(ends), "score": 0.99 - number / 100, "rule": RULE}
        for number, ends in enumerate(pairwise(chain))
    ]
    rows = {row["image_id"]: row for row in lake.scan("images").collect().rows(named=True)}
    members = [
        {
            "cluster_id": min(chain),
            "image_id": one,
            "rule": RULE,
            **{k: rows[one][k] for k in ("label", "dataset", "split")},
        }
        for one in sorted(chain)
    ]
    for table, values in (("pairs", pairs), ("clusters", members)):
        part = write_part(lake.root, table, {"rule": RULE}, pa.Table.from_pylist(values, schema=TABLES[table].schema))
        meta = read_meta(lake.root, table)
        commit(lake.root, table, [part] if part else [], lambda _: False, Metadata("dedup", {**meta.units, RULE: {}}))
    publish(lake.root, "", "pairs", read_meta(lake.root, "releases").units["recipe"])
    return lake.root


def test_pairs_are_listed_closest_first(root: str, run: Run) -> None:
    lines = run("overlap", root, "--rule", RULE, "--top", 2).stdout.splitlines()
    assert lines[0] == "2 of 3 pairs by cosine:0.95, closest first."
    assert "score" in lines[2]
    assert lines[4].startswith("│ 0.99  ┆ d/train ┆ ")
    assert lines[5].startswith("│ 0.98  ┆ d/train ┆ ")
    assert " or " in lines[4]
    assert {"A/00000.png", "B/00001.png"} <= set(lines[4].split())


def test_names_of_strangers_do_not_reach_the_terminal_raw(root: str, run: Run) -> None:
    for more in ((), ("--clusters",)):
        text = run("overlap", root, "--rule", RULE, *more).stdout
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "A/\\x1b[2J\\u202egnp.png" in run("overlap", root, "--rule", RULE).stdout


def test_json_has_the_same_as_data(root: str, run: Run) -> None:
    data = json.loads(run("overlap", root, "--rule", RULE, "--conflicts", "--json").stdout)
    assert (data["pairs"], data["matching"], data["from_clusters"], data["release"]) == (3, 2, False, 2)
    assert [round(row["score"], 4) for row in data["shown"]] == [0.99, 0.98]
    assert all(row["conflict"] and row["left_id"] < row["right_id"] for row in data["shown"])
    stored = Lake(root).scan("pairs").select(pl.col("left_id").bin.encode("hex")).collect().to_series()
    assert {row["left_id"] for row in data["shown"]} <= set(stored)


def test_roles_are_those_of_the_split(root: str, run: Run) -> None:
    data = json.loads(run("overlap", root, "--rule", RULE, "--split", "main", "--json").stdout)
    roles = [{row["left_role"], row["right_role"]} for row in data["shown"]]
    leaks = json.loads(run("overlap", root, "--rule", RULE, "--split", "main", "--between", "--json").stdout)
    assert leaks["matching"] == sum(len(both) == 2 for both in roles)
    best = json.loads(run("overlap", root, "--rule", RULE, "--split", "main", "--best", "test", "--json").stdout)
    assert all((row["left_role"], row["right_role"]) == ("test", "train") for row in best["shown"])
    assert len({row["left_id"] for row in best["shown"]}) == len(best["shown"]) > 0


def test_a_page_is_written_and_named(root: str, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "look.html"
    assert run("overlap", root, "--rule", RULE, "--html", file).stdout.splitlines()[-1] == str(file)
    html = file.read_text(encoding="utf-8")
    assert html.count("<article") == 3
    assert "\x1b" not in html
    data = json.loads(run("overlap", root, "--rule", RULE, "--html", file, "--json").stdout)
    assert data["page"] == str(file)
    with pytest.raises(LakeError, match="cannot be written there"):
        run("overlap", root, "--rule", RULE, "--html", tmp_path / "no" / "look.html")


def test_clusters_are_listed_with_their_chains(root: str, run: Run) -> None:
    lines = run("overlap", root, "--rule", RULE, "--clusters").stdout.splitlines()
    assert (
        lines[0] == "cosine:0.95: 1 cluster, the largest of 4 images, the longest diameter 3 (pairs from end to end)."
    )
    assert lines[1] == "Clusters by images: 4 images in 1."
    assert lines[5].startswith("│ 4      ┆ 3     ┆ 3        ┆ 0.97   ┆ A 3, B 1 ┆ d/train 4 ┆ ")
    data = json.loads(run("overlap", root, "--rule", RULE, "--clusters", "--json").stdout)
    assert data["sizes"] == [{"images": 4, "clusters": 1}]
    assert len(data["shown"][0]["cluster_id"]) == 32
    assert "1 cluster, " in run("overlap", root, "--rule", "exact", "--clusters").stdout
    none = run("overlap", root, "--rule", RULE, "--clusters", "--between").stdout
    assert none == "cosine:0.95: none of 1 cluster matches.\n"


def test_a_page_of_clusters_is_written_and_named(root: str, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "clusters.html"
    words = ("overlap", root, "--rule", RULE, "--clusters", "--html", file)
    assert run(*words).stdout.splitlines()[-1] == str(file)
    html = file.read_text(encoding="utf-8")
    assert html.count("<section") == 1
    assert "All 1 clusters by cosine:0.95, the largest first." in html
    assert "4 images" in html
    assert "\x1b" not in html
    assert ">kept</span>" not in html
    run(*words, "--split", "main", "--between")
    html = file.read_text(encoding="utf-8")
    assert html.count(">kept</span>") == 4
    data = json.loads(run(*words, "--json").stdout)
    assert (data["page"], data["clusters"]) == (str(file), 1)
    # Of a stricter threshold than the stored one, the clusters are those that it links.
    stricter = ("overlap", root, "--rule", "cosine:0.98", "--clusters", "--html", file)
    assert run(*stricter).stdout.splitlines()[-1] == str(file)
    assert "3 images" in file.read_text(encoding="utf-8")
    none = run("overlap", root, "--rule", RULE, "--clusters", "--between", "--html", file).stdout
    assert none.splitlines()[-1] == str(file)
    assert "No clusters by cosine:0.95 that have images in different sources." in file.read_text(encoding="utf-8")


def test_rules_that_compare_keys_are_noted(root: str, run: Run) -> None:
    text = run("overlap", root, "--rule", "exact").stdout
    assert "exact compares keys only: its pairs are made from its clusters, and every score is 1." in text
    assert "gnp.png" in text


def test_an_unknown_rule_names_the_nearest(root: str) -> None:
    with pytest.raises(LakeError, match="no rule 'cosine:0.9'; did you mean 'cosine:0.95'"):
        CliRunner().invoke(
            cli._imagelake,  # noqa: SLF001 - the group itself
            ["overlap", root, "--rule", "cosine:0.9"],
            catch_exceptions=False,
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--between",), "--between needs --rule RULE."),
        (("--top", "3"), "--top needs --rule RULE."),
        (("--html", "x.html"), "--html needs --rule RULE."),
        (("--min-score", "0"), "--min-score needs --rule RULE."),
        (("--rule", RULE, "--min-score", "1.1"), "1.1 is not in the range"),
        (("--rule", RULE, "--clusters", "--best", "test"), "--best is for pairs: leave out --clusters."),
        (("--rule", RULE, "--top", "0"), "0 is not in the range"),
    ],
)
def test_options_that_do_not_go_together_are_refused(root: str, run: Run, words: tuple[str, ...], message: str) -> None:
    result = run("overlap", root, *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_lake_that_was_never_built_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="holds no finished build"):
        run("overlap", tmp_path, "--rule", "exact")


def test_the_lake_is_only_read(root: str, run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "lake")
    before = sorted(str(file) for file in copy.rglob("*"))
    run("overlap", copy, "--rule", RULE, "--split", "main", "--best", "test")
    run("overlap", copy, "--rule", RULE, "--clusters")
    assert sorted(str(file) for file in copy.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "stored"),
    [
        (("--rule", "cosine:0.98"), True),
        (("--rule", RULE, "--min-score", "0.98"), False),
        (("--rule", "cosine:0.96", "--min-score", "0.98"), True),
        (("--rule", "cosine:0.980"), True),
    ],
)
def test_a_stricter_threshold_is_read_from_the_stored_pairs(
    root: str,
    run: Run,
    words: tuple[str, ...],
    stored: bool,  # noqa: FBT001 - a parameter
) -> None:
    text = run("overlap", root, *words).stdout
    assert text.startswith("All 2 pairs by ")
    assert ("Read from the stored pairs of cosine:0.95 with a score of 0.98 or more." in text) == stored
    assert ("with a score of 0.98 or more, closest first" in text) == ("--min-score" in words)
    data = json.loads(run("overlap", root, *words, "--json").stdout)
    assert (data["pairs"], data["stored"], data["least"]) == (2, RULE, 0.98)
    assert [round(row["score"], 4) for row in data["shown"]] == [0.99, 0.98]
    shapes = json.loads(run("overlap", root, *words, "--clusters", "--json").stdout)
    assert shapes["sizes"] == [{"images": 3, "clusters": 1}]
    assert (shapes["stored"], shapes["least"]) == (RULE, 0.98)


def test_scores_of_rules_decided_by_keys_are_all_1(root: str, run: Run) -> None:
    every = run("overlap", root, "--rule", "exact").stdout
    assert run("overlap", root, "--rule", "exact", "--min-score", 1).stdout.splitlines()[1:] == every.splitlines()[1:]
    assert "1 cluster, " in run("overlap", root, "--rule", "exact", "--min-score", 0.2, "--clusters").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--rule", RULE, "--min-score", 0.9),
            "a score of 0.9 is below the threshold of cosine:0.95: its pairs have a",
        ),
        (
            ("--rule", "cosine:0.98", "--min-score", 0.96),
            "Use a minimum score of 0.98 or more, or the rule cosine:0.95.",
        ),
        (("--rule", "cosine:0.94"), "did you mean 'cosine:0.95'? Only pairs with a score of 0.95 or more are stored"),
        (("--rule", "phash"), "did you mean 'hamming:6'? To compare by hamming:6, put it into dedup.rules"),
        (("--rule", "md5"), "no rule 'md5'; did you mean 'exact'? Rules: cosine:0.95, exact."),
        (("--rule", "photo:0.5"), "no rule 'photo:0.5'. To compare by photo:0.5, put it into dedup.rules"),
        (("--rule", "zzz"), "no rule 'zzz'. Rules: cosine:0.95, exact."),
        (("--rule", RULE, "--release", 1), "did you mean"),
    ],
)
def test_what_the_stored_pairs_do_not_tell_is_an_error(
    root: str, run: Run, words: tuple[object, ...], message: str
) -> None:
    for more in ((), ("--clusters",)):
        with pytest.raises(LakeError) as caught:
            run("overlap", root, *words, *more)
        if message == "did you mean":
            assert f"no rule '{RULE}'" in str(caught.value)
        else:
            assert message in str(caught.value)


def test_an_older_release_is_counted_and_listed(root: str, run: Run) -> None:
    old, new = (json.loads(run("overlap", root, "--release", number, "--json").stdout) for number in (1, 2))
    assert {row["rule"] for row in old["matrix"]} == {"exact"}
    assert {row["rule"] for row in new["matrix"]} == {"exact", RULE}
    assert json.loads(run("overlap", root, "--rule", "exact", "--release", 1, "--json").stdout)["release"] == 1

"""Every kind of `[[check]]` finds its violation, and none is found in a lake without violations."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from commands import Run
from making import as_folder, encoded, recipe

from pipeline.builder.build import build
from pipeline.checks import CheckResult, Result, run_checks
from pipeline.checks.files import sentence, write_junit, write_markdown
from pipeline.engines.local import LocalEngine
from pipeline.errors import RecipeError
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe

# Every kind of check in every form, and what it finds in the planted lake.
CHECKS: list[tuple[dict[str, Any], float]] = [
    ({"split": "main", "rule": "exact"}, 2),
    ({"split": "main", "rule": "cosine:0.99", "overlap": 1}, 2),
    ({"split": "main", "rule": "attr:patient", "overlap": 0}, 3),
    ({"rule": "exact", "conflicts": 0}, 1),
    ({"rule": "exact", "conflicts": 0, "split": "main"}, 1),
    ({"rejects": 1}, 2),
    ({"rejects": 0, "reason": "empty"}, 1),
    ({"min_per_class": 30}, 29),
    ({"min_per_class": 10, "split": "main"}, 3),
    ({"min_per_class": 10, "split": "main", "role": "test"}, 3),
    ({"drift": 0.1, "split": "main"}, 31 / 51 - 3 / 12),
    ({"drift": 0.05, "against": "previous"}, 34 / 63 - 24 / 53),
    ({"drift": 0.05, "split": "main", "against": "previous"}, 31 / 51 - 21 / 41),
    ({"accuracy": 0.9, "split": "main", "model": "logistic"}, 1 / 12),
]


class Case(NamedTuple):
    lake: Lake
    recipe: Recipe


def pictures_of(label: str, count: int, seed: int) -> list[bytes]:
    """Make pictures that a model tells apart: those of A are dark, those of B bright."""
    low, high = (0, 90) if label == "A" else (160, 250)
    made = np.random.default_rng([seed, ord(label)]).integers(low, high, (count, 12, 12), dtype=np.uint8)
    return [encoded(picture) for picture in made]


def files(label: str, pictures: list[bytes], patients: str) -> dict[str, bytes]:
    return {f"{label}/{patients}{i}_{i}.png": data for i, data in enumerate(pictures)}


def build_lake(base: Path, **more: Any) -> Case:
    made = recipe(
        base,
        {"uri": "train"},
        {"uri": "test", "split": "test"},
        dedup={"rules": ["exact", "cosine:0.95"]},
        attributes=[{"patterns": {"patient": r"/(\w\d+)_"}}],
        split=[{"name": "main", "train": {"from": "train"}, "test": {"from": "test"}}],
        baseline=[{"model": "logistic", "split": "main"}],
        **more,
    )
    return Case(Lake(build(made, engine=LocalEngine(1)).root), made)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two releases without a violation. The second has the checks."""
    base = tmp_path_factory.mktemp("clean")
    as_folder(base / "train", {**files("A", pictures_of("A", 20, 0), "p"), **files("B", pictures_of("B", 20, 0), "p")})
    as_folder(base / "test", {**files("A", pictures_of("A", 10, 1), "q"), **files("B", pictures_of("B", 10, 1), "q")})
    build_lake(base)
    return build_lake(base, check=[check for check, _ in CHECKS])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two releases that violate every check."""
    base = tmp_path_factory.mktemp("planted")
    train = {**files("A", pictures_of("A", 20, 0), "p"), **files("B", pictures_of("B", 20, 0), "p")}
    faults = {"A/conflict.png": train["B/p5_5.png"], "A/empty.png": b"", "B/note.png": b"no picture"}
    as_folder(base / "train", {**train, **faults})
    # The labels of test are wrong, except that of a picture that is also in train.
    leak = {"A/p3_3.png": train["A/p3_3.png"]}
    test = {**files("A", pictures_of("B", 2, 1), "q"), **files("B", pictures_of("A", 9, 1), "q"), **leak}
    as_folder(base / "test", test)
    build_lake(base)
    as_folder(base / "train", files("A", pictures_of("A", 10, 2), "r"))
    return build_lake(base, check=[check for check, _ in CHECKS])


def test_every_planted_violation_is_found(planted: Case) -> None:
    checked = run_checks(planted.lake)
    assert [one.result for one in checked.results] == ["failed"] * len(CHECKS)
    assert [one.found for one in checked.results] == pytest.approx([found for _, found in CHECKS])
    assert not checked.passed
    details = [one.detail for one in checked.results]
    assert details[0] == "2 images in 1 cluster; such as A/p3_3.png (test) and A/p3_3.png (train)"
    assert details[2].startswith("3 images in 1 value; such as ")
    assert details[3] == "1 cluster; such as A/conflict.png (A) and B/p5_5.png (B)"
    assert details[5] == "1 empty, 1 not_an_image; such as d/train A/empty.png"
    assert details[8] == "class A has 3 images in test, and 1 other class has too few"
    assert details[10] == "class A: 25.0% in test, 60.8% in train"
    assert details[12] == "class A: 51.2% of train before, 60.8% now"
    assert details[13] == "0.0833 after training on 51 images"


def test_nothing_is_found_in_a_clean_lake(clean: Case) -> None:
    checked = run_checks(clean.lake)
    assert [(one.kind, one.result, one.detail) for one in checked.results if one.result != "passed"] == []
    assert checked.passed


def test_checks_change_no_result_and_a_build_publishes_whatever_they_say(tmp_path: Path) -> None:
    made = {**files("A", pictures_of("A", 4, 0), "p"), **files("B", pictures_of("B", 4, 0), "p")}
    as_folder(tmp_path / "train", {**made, "A/empty.png": b""})
    as_folder(tmp_path / "test", made)
    build_lake(tmp_path)
    before = Snapshot(str(tmp_path / "lake")).versions
    case = build_lake(tmp_path, check=[{"rejects": 0}])
    again = build(case.recipe, engine=LocalEngine(1))
    assert (case.lake.release, again.release, again.done) == (2, 2, ())
    after = Snapshot(case.lake.root).versions
    assert {name for name in after if after[name] != before[name]} == {"releases"}
    assert [one.result for one in run_checks(case.lake).results] == ["failed"]
    # The checks are those of the release, so the first has none.
    with pytest.raises(RecipeError, match=r"the recipe of release 1 has no \[\[check\]\]"):
        run_checks(case.lake.at(1))
    assert [one.result for one in run_checks(case.lake.at(1), case.recipe).results] == ["failed"]
    # A later release without checks does not take them from an earlier one.
    last = build_lake(tmp_path).lake
    assert [one.result for one in run_checks(last.at(2)).results] == ["failed"]
    with pytest.raises(RecipeError, match=r"the recipe of release 3 has no \[\[check\]\]"):
        run_checks(last)


def test_overlap_before_sanitizing_is_counted_if_wanted(small_lake: Lake, tmp_path: Path) -> None:
    overlap = {"split": "main", "rule": "exact"}
    made = recipe(tmp_path, {"uri": "train"}, check=[overlap, {**overlap, "sanitized": False}])
    # Ten test images are copies of train images, and sanitizing drops them.
    assert [(one.result, one.found) for one in run_checks(small_lake, made).results] == [("passed", 0), ("failed", 20)]


def test_a_first_release_has_nothing_to_drift_from(planted: Case) -> None:
    first = run_checks(planted.lake.at(1), planted.recipe).results
    assert [(one.check, one.detail) for one in first if one.result == "skipped"] == [
        ("class drift since the release before", "there is no release before"),
        ("class drift in main since the release before", "there is no release before"),
    ]


def test_numbers_have_no_exponent_and_tell_a_failure_from_its_limit() -> None:
    def said(value: float, limit: float, result: Result) -> str:
        return sentence(CheckResult("drift", "drift", result, value, limit, "at most", "here", 0.0))

    assert said(0.2 / 3, 1e-5, "failed") == "found 0.06667, at most 0.00001 allowed: here"
    assert said(0.0500001, 0.05, "failed") == "found 0.0500001, at most 0.05 allowed: here"
    assert said(0.1 + 0.2, 0.3, "passed") == "found 0.3, at most 0.3 allowed: here"
    assert said(12_345, 10**20, "passed") == "found 12,345, at most 100,000,000,000,000,000,000 allowed: here"


WRONG: dict[str, dict[str, Any]] = {
    "has no split 'man'; did you mean 'main'? There are: main.": {"split": "man", "rule": "exact"},
    "has no rule 'exat'; did you mean 'exact'? Rules: ": {"split": "main", "rule": "exat"},
    "has no rule 'cosine:0.9'; did you mean 'cosine:0.95'?": {"rule": "cosine:0.9", "conflicts": 0},
    "has no rule 'cosine:99'; did you mean 'cosine:0.95'?": {"split": "main", "rule": "cosine:99"},
    "has no attribute 'patent'; did you mean 'patient'?": {"split": "main", "rule": "attr:patent"},
    "has no reason 'truncatd'; did you mean 'truncated'?": {"rejects": 0, "reason": "truncatd"},
    "has no role 'valid'; did you mean 'train'? There are: test, train.": {
        "min_per_class": 1,
        "split": "main",
        "role": "valid",
    },
    "has no model 'logistics'; did you mean 'logistic'?": {"accuracy": 0, "split": "main", "model": "logistics"},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_name_that_the_lake_does_not_have_is_an_error_with_the_nearest(
    said: str, clean: Case, tmp_path: Path
) -> None:
    made = recipe(tmp_path, {"uri": "train"}, check=[WRONG[said], {"rejects": 0}])
    wrong, other = run_checks(clean.lake, made).results
    assert (wrong.result, wrong.found, other.result) == ("error", None, "passed")
    assert said in wrong.detail


TOML = """
[[source]]
uri = "train"

[[check]]
"""


def test_exit_codes(planted: Case, clean: Case, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "checks.toml"

    def code(lake: Lake, *more: object, text: str = "") -> tuple[int, str]:
        file.write_text(TOML + text)
        done = run("check", lake.root, *((), ("--recipe", file))[bool(text)], *more)
        return done.exit_code, done.output

    assert code(clean.lake) == (0, code(clean.lake)[1])
    assert "14 checks: 14 passed." in code(clean.lake)[1]
    assert code(planted.lake)[0] == 1
    assert "14 checks: 14 failed." in code(planted.lake)[1]
    assert code(planted.lake, text="rejects = 2")[0] == 0
    for text, more, said in (
        ('rule = "exact"\nsplit = "man"', (), "images in several roles of man by exact: "),
        ("rejects = 0\nconflicts = 0", (), "check[0]: conflicts and rejects are two checks"),
        ("", ("--release", 9), "has no release 9; there are 1 to 2"),
        ("", ("--release", 1), "the recipe of release 1 has no [[check]]"),
        ("", ("--junit", tmp_path / "no" / "file.xml"), "the JUnit file"),
    ):
        found = code(planted.lake, *more, text=text)
        assert found[0] == 2
        assert said in found[1]
        assert len([line for line in found[1].splitlines() if line.startswith("imagelake: ")]) == 1
    assert run("check", tmp_path / "nothing").exit_code == 2


def test_json_has_every_result(planted: Case, run: Run) -> None:
    done = run("check", planted.lake.root, "--json")
    data = json.loads(done.stdout)
    assert (done.exit_code, data["release"], data["passed"], len(data["checks"])) == (1, 2, False, len(CHECKS))
    assert data["checks"][0]["kind"] == "overlap"
    assert (data["checks"][0]["found"], data["checks"][0]["limit"], data["checks"][0]["bound"]) == (2, 0, "at most")


# By element of a JUnit file, its required attributes, all attributes, and the elements that it may have, as in the
# schemas of JUnit (windyroad) and of the xUnit plugin of Jenkins.
JUNIT: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "tests", "failures", "errors", "time", "disabled"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "timestamp", "hostname", "id", "package"},
        {"name", "tests", "failures", "errors", "time", "timestamp", "hostname", "id", "package", "skipped"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, {"name", "value"}, set()),
    "testcase": (
        {"name", "classname", "time"},
        {"name", "classname", "time", "status", "assertions"},
        {"skipped", "error", "failure"},
    ),
    "skipped": (set(), {"message", "type"}, set()),
    "error": ({"type"}, {"message", "type"}, set()),
    "failure": ({"type"}, {"message", "type"}, set()),
}


def read_junit(file: Path) -> list[tuple[str, str, str]]:
    """Read a JUnit file by the rules of its schema: name, result and message of every test case."""
    root = ET.parse(file).getroot()  # noqa: S314 - the test has written it
    assert root.tag == "testsuites"
    for element in root.iter():
        required, known, children = JUNIT[element.tag]
        assert required <= set(element.attrib) <= known, element.tag
        assert {child.tag for child in element} <= children, element.tag
    (suite,) = root
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    assert [float(element.attrib["time"]) >= 0 for element in root.iter() if "time" in element.attrib]
    cases = suite.findall("testcase")
    tags = [case[0].tag if len(case) else "passed" for case in cases]
    counts = [int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == [len(cases), tags.count("failure"), tags.count("error"), tags.count("skipped")]
    assert [root.attrib[name] for name in ("tests", "failures", "errors")] == [str(count) for count in counts[:3]]
    messages = [case[0].attrib["message"] if len(case) else "" for case in cases]
    return list(zip([case.attrib["name"] for case in cases], tags, messages, strict=True))


def test_a_parser_of_junit_reads_the_results(planted: Case, clean: Case, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "checks.xml"
    assert run("check", planted.lake.root, "--junit", file).exit_code == 1
    cases = read_junit(file)
    assert [tag for _, tag, _ in cases] == ["failure"] * len(CHECKS)
    assert cases[3][0] == "clusters of exact with several labels, at most 0"
    assert cases[3][2] == "found 1, at most 0 allowed: 1 cluster; such as A/conflict.png (A) and B/p5_5.png (B)"
    assert cases[8][2] == "found 3, at least 10 required: class A has 3 images in test, and 1 other class has too few"
    made = recipe(tmp_path, {"uri": "train"}, check=[{"rejects": 0}, {"split": "x", "rule": "exact"}, CHECKS[11][0]])
    write_junit(run_checks(clean.lake.at(1), made), file)
    assert [tag for _, tag, _ in read_junit(file)] == ["passed", "error", "skipped"]


def test_names_from_sources_break_no_file(tmp_path: Path, run: Run) -> None:
    data = pictures_of("A", 1, 0)[0]
    hostile = ["<b>&\x1b[2J]]>", "a|b`c*_\u202e\ufffe", "\"quoted'"]
    as_folder(tmp_path / "train", {f"{name}/1.png": data for name in hostile})
    made = recipe(tmp_path, {"uri": "train"}, check=[{"rule": "exact", "conflicts": 0}, {"min_per_class": 2}])
    lake = Lake(build(made, engine=LocalEngine(1)).root)
    checked = run_checks(lake)
    assert [one.result for one in checked.results] == ["failed", "failed"]
    write_junit(checked, tmp_path / "checks.xml")
    cases = read_junit(tmp_path / "checks.xml")
    assert "\x1b" not in cases[0][2]
    write_markdown(checked, tmp_path / "checks.md")
    rows = (tmp_path / "checks.md").read_text(encoding="utf-8").splitlines()
    table = [row for row in rows if row.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in table] == [5] * 4
    assert "<" not in "".join(table)
    assert "\x1b" not in run("check", lake.root).stdout


def test_a_file_of_checks_only_is_enough(planted: Case, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "checks.toml"
    file.write_text("[[check]]\nrejects = 0\n")
    done = run("check", planted.lake.root, "--recipe", file)
    assert done.exit_code == 1
    assert "2 not_an_image" in done.output or "1 not_an_image" in done.output
    file.write_text("[[checks]]\nrejects = 0\n")
    wrong = run("check", planted.lake.root, "--recipe", file)
    assert wrong.exit_code == 2
    assert "unknown key checks; did you mean 'check'?" in wrong.output

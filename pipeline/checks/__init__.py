"""Check a release against the `[[check]]` of a recipe: a gate for CI. Nothing in the lake changes.

`measure.py` measures the value that each check limits. `files.py` writes the results as JUnit XML and Markdown.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.checks.measure import IMAGE_COLUMNS, MEASURES, Measured
from pipeline.errors import LakeError, RecipeError
from pipeline.lake.reads import check_values, explain_failures
from pipeline.lake.releases import recorded_recipe
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.recipe import CheckPart, Checks, Recipe, parse_recipe

# Tables that checks read, apart from images, whose files are mostly pixels.
_TABLES = ("splits", "clusters", "pairs", "attributes", "issues", "rejects", "scores")
# Kinds whose limit is the least value; that of all others is the largest.
_AT_LEAST = ("min_per_class", "accuracy")
# Shares are quotients, so a share that is equal to the limit may differ from it in the last digits.
_ROUNDING = 1e-9

Result = Literal["passed", "failed", "skipped", "error"]


class CheckResult(NamedTuple):
    """The result of one `[[check]]`.

    Attributes:
        kind: the key that chooses the check: overlap, conflicts, rejects, min_per_class, drift, accuracy or issues.
        check: what was checked, in words.
        result: passed; failed; skipped, because there is nothing to compare with, such as an earlier release; or error,
            because the check could not run.
        found: what was measured; None if nothing was.
        limit: value of the key.
        bound: whether `found` must be "at most" or "at least" the limit.
        detail: what fails, with an example; or why the check was skipped or could not run. Empty if it passed.
        seconds: how long it took.
    """

    kind: str
    check: str
    result: Result
    found: float | None
    limit: float
    bound: Literal["at most", "at least"]
    detail: str
    seconds: float


class Checked(NamedTuple):
    """The results of all checks of a release.

    Attributes:
        lake: place of the lake.
        release: number of the release.
        results: one for each `[[check]]`, in their order.
    """

    lake: str
    release: int
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed, and every check could run."""
        return not self.count("failed") and not self.count("error")

    def count(self, result: str) -> int:
        """Count the checks with a result."""
        return sum(one.result == result for one in self.results)


def run_checks(lake: Lake, recipe: Recipe | Checks | None = None) -> Checked:
    """Check a release against every `[[check]]` of a recipe. Reads ids and labels, no pixels.

    Args:
        lake: the lake of a release.
        recipe: the recipe with the checks; None for the recipe that the release was built from.

    Returns:
        One result for each check. A check that names a split, rule, attribute, reason or model that the release does
        not have is an error among the results, and its detail has the nearest name.

    Raises:
        RecipeError: the recipe has no `[[check]]`.
        DamagedLakeError: a file is missing or damaged.
        NoReleaseError: vacuum has deleted the release.
    """
    if not isinstance(lake, Lake):
        raise TypeError(f"lake is of type {type(lake).__name__}; it must be a Lake: use Lake({lake!r:.60})")
    if recipe is not None and not isinstance(recipe, Recipe | Checks):
        raise TypeError(f"recipe is of type {type(recipe).__name__}; it must be a Recipe: use read_recipe(PATH)")
    checks = (recipe or _recipe_of(lake)).check
    if not checks:
        where = f"{recipe.file or 'the recipe'}" if recipe else f"{lake.root}: the recipe of release {lake.release}"
        raise RecipeError(
            f'{where} has no [[check]]. Add one, such as split = "main", rule = "exact", overlap = 0, and build; or '
            "give a recipe that has one: --recipe FILE."
        )
    return _check(lake, checks)


@explain_failures
def _check(lake: Lake, checks: Sequence[CheckPart]) -> Checked:
    for table in _TABLES:
        lake.check(table)
    check_values(lake.snapshot, "images", IMAGE_COLUMNS)
    return Checked(lake.root, lake.release, tuple(_run(lake, check) for check in checks))


def _recipe_of(lake: Lake) -> Recipe:
    recorded = recorded_recipe(Snapshot(lake.root), lake.release)
    return parse_recipe({**recorded["values"], "lake": {"root": lake.root}}, base=Path(recorded["base"]))


def _run(lake: Lake, check: CheckPart) -> CheckResult:
    started = time.monotonic()
    at_least = check.kind in _AT_LEAST
    try:
        measured = MEASURES[check.kind](lake, check)
    except LakeError as error:
        if type(error) is not LakeError:  # damage, or a release that is gone, is no fault of the check
            raise
        measured = Measured(None, str(error))
        result: Result = "error"
    else:
        result = _judge(measured.found, check.limit, at_least=at_least)
    return CheckResult(
        check.kind,
        check.title,
        result,
        measured.found,
        check.limit,
        "at least" if at_least else "at most",
        "" if result == "passed" else measured.detail,
        time.monotonic() - started,
    )


def _judge(found: float | None, limit: float, *, at_least: bool) -> Result:
    if found is None:
        return "skipped"
    over = limit - found if at_least else found - limit
    return "failed" if over > _ROUNDING else "passed"

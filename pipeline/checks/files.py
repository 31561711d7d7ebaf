"""Write the results of checks as JUnit XML, which CI servers read, and as a table in Markdown."""

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape as escape_markup
from xml.sax.saxutils import quoteattr

import numpy as np

from pipeline.addresses import redacted_text
from pipeline.progress import escape, plain, plural
from pipeline.storage.atomic import atomic_file

if TYPE_CHECKING:
    from pipeline.checks import Checked, CheckResult

# By result, the element of JUnit XML in a test case that did not pass.
_ELEMENTS = {"failed": "failure", "error": "error", "skipped": "skipped"}
# By result, its words in the summary.
_WORDS = {"passed": "passed", "failed": "failed", "skipped": "skipped", "error": "could not run"}
# Characters that `plain` leaves as they are, but that XML must not contain.
_NOT_IN_XML = re.compile("[\ufffe\uffff]")
# What Markdown reads as markup.
_MARKUP = re.compile(r"([\\`*_\[\]|~#$])")


def write_junit(checked: "Checked", file: str | Path) -> None:
    r"""Write results as JUnit XML: one test suite, with one test case for each check.

    CI servers such as Jenkins and GitLab read the file. Characters that XML must not contain are escaped, as in \x1b.

    Raises:
        LakeError: the file cannot be written there.
        DiskFullError: no space is left.
    """
    counts = {"tests": len(checked.results), "failures": checked.count("failed"), "errors": checked.count("error")}
    time = {"time": f"{sum(one.seconds for one in checked.results):.3f}"}
    suite = {
        "name": f"imagelake check {checked.lake}",
        **counts,
        "skipped": checked.count("skipped"),
        **time,
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "hostname": "localhost",
        "id": 0,
        "package": "imagelake",
    }
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        _tag("testsuites", {"name": "imagelake check", **counts, **time}),
        _tag("testsuite", suite),
        "<properties>",
        _tag("property", {"name": "release", "value": checked.release}, end="/>"),
        "</properties>",
        *(line for one in checked.results for line in _test_case(one)),
        "</testsuite>",
        "</testsuites>",
        "",
    ]
    _write(file, "the JUnit file", "\n".join(lines))


def _test_case(one: "CheckResult") -> list[str]:
    facts = {"classname": f"imagelake.check.{one.kind}", "name": describe(one), "time": f"{one.seconds:.3f}"}
    if one.result == "passed":
        return [_tag("testcase", facts, end="/>")]
    message = {"message": sentence(one)} | ({} if one.result == "skipped" else {"type": one.kind})
    element = _ELEMENTS[one.result]
    inner = (
        _tag(element, message, end="/>")
        if one.result == "skipped"
        else f"{_tag(element, message)}{escape_markup(_safe(one.detail))}</{element}>"
    )
    return [_tag("testcase", facts), inner, "</testcase>"]


def _tag(name: str, attributes: Mapping[str, object], end: str = ">") -> str:
    return f"<{name} {' '.join(f'{key}={quoteattr(_safe(str(value)))}' for key, value in attributes.items())}{end}"


def write_markdown(checked: "Checked", file: str | Path) -> None:
    """Write results as a heading, a sentence and a table in Markdown. Markup in names is escaped.

    Raises:
        LakeError: the file cannot be written there.
        DiskFullError: no space is left.
    """
    rows = [(one.result, describe(one), found(one), one.detail) for one in checked.results]
    lines = [
        f"## Checks of {_markdown(checked.lake)}, release {checked.release}",
        "",
        summary(checked),
        "",
        "| result | check | found | detail |",
        "|---|---|---|---|",
        *(f"| {' | '.join(map(_markdown, row))} |" for row in rows),
        "",
    ]
    _write(file, "the Markdown file", "\n".join(lines))


def describe(one: "CheckResult") -> str:
    """Return what was checked, with its limit: "clusters of exact with several labels, at most 0"."""
    return f"{one.check}, {one.bound} {_limit(one)}"


def sentence(one: "CheckResult") -> str:
    """Return what was found and why that fails, in one line."""
    wanted = f"{one.bound} {_limit(one)} {'allowed' if one.bound == 'at most' else 'required'}"
    return one.detail if one.found is None else f"found {found(one)}, {wanted}: {one.detail}"


def summary(checked: "Checked") -> str:
    """Count the results: "4 checks: 3 passed, 1 failed."."""
    counts = [(checked.count(result), words) for result, words in _WORDS.items()]
    listed = ", ".join(f"{count:,} {words}" for count, words in counts if count)
    return f"{plural(len(checked.results), 'check')}: {listed}."


def found(one: "CheckResult") -> str:
    """Format what was measured, a share with four digits; with more if a check failed by less. Empty if nothing was."""
    if one.found is None:
        return ""
    short = _number(one.found, 4)
    return _number(one.found) if one.result == "failed" and short == _limit(one) else short


def _limit(one: "CheckResult") -> str:
    return _number(one.limit)


def _number(value: float, digits: int | None = None) -> str:
    """Format a count or a share, never with an exponent; None for all digits."""
    if isinstance(value, int):
        return f"{value:,}"
    return np.format_float_positional(abs(value), precision=digits, fractional=False, trim="-")


def _safe(text: str) -> str:
    return _NOT_IN_XML.sub(lambda found: escape(found[0]), plain(redacted_text(text)))


def _markdown(text: str) -> str:
    return _MARKUP.sub(r"\\\1", html.escape(_safe(text), quote=False))


def _write(file: str | Path, what: str, text: str) -> None:
    with atomic_file(file, what) as draft:
        draft.write_text(text, encoding="utf-8")

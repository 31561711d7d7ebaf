"""Hold the rows of releases against what their commits tell."""

from collections.abc import Iterator, Mapping

from pipeline.flow.verify.check import Check, Fault
from pipeline.flow.verify.whole import Named, read_through
from pipeline.lake.commits import files
from pipeline.lake.mending import told_versions


def releases_are_told(root: str) -> Check:
    """Read every row of releases, and compare the versions in it with those that its commit tells.

    Args:
        root: the lake's place; the log of its releases is whole.
    """
    told = told_versions(root)
    parts = files(root, "releases")
    faults = [fault for part in parts for fault in _faults_of(Named(root, "releases", part), told)]
    return Check("releases are what their commits tell", sum(part.rows for part in parts), faults)


def _faults_of(file: Named, told: Mapping[int, Mapping[str, int]]) -> Iterator[Fault]:
    unread: list[Fault] = []
    wrong: list[int] = []
    for rows in read_through(file, unread):
        for row in rows.select(["release", "versions"]).to_pylist():
            held = {item["table"]: item["version"] for item in row["versions"] or ()}
            if told.get(row["release"]) != held:
                wrong.append(row["release"])
    # What cannot be read is told where all files are read; here, what can be and is wrong.
    if wrong and not unread:
        listed = ", ".join(map(str, wrong))
        yield file.fault("changed", f"release {listed}: other versions than its commit tells", len(wrong))

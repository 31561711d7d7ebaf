"""What `make audit` makes of what pip-audit says; the real one needs a network, so its part is played here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"
STAND_IN = """#!{python}
import json, pathlib, sys
said = json.loads(pathlib.Path({said!r}).read_text())
lock = pathlib.Path(sys.argv[sys.argv.index("-r") + 1]).read_text()
with open({asked!r}, "a") as log:
    log.write(sys.argv[-1] + " " + str(lock.count("==")) + chr(10))
answer = said[sys.argv[-1]]
if isinstance(answer, str):
    sys.exit(answer)
names = [line.split("==")[0] for line in lock.splitlines() if "==" in line]
rows = [{{"name": name, "version": "1", "vulns": [], **answer.get(name, {{}})}} for name in names]
print(json.dumps({{"dependencies": rows}}))
"""
LOCK = "a==1 \\\n    --hash=sha256:00\nb==1 \\\n    --hash=sha256:00\n    # via a\n"
BAD = {"b": {"vulns": [{"id": "GHSA-1", "aliases": ["CVE-1"], "fix_versions": ["2"]}]}}
UNKNOWN = {"a": {"skip_reason": "not found"}, "b": {"skip_reason": "not found"}}
GONE = "Traceback\nrequests.exceptions.ConnectionError: nobody there"


def audit(folder: Path, accepted: str = "", **said: Any) -> tuple[int, str, list[str]]:
    """Run the script where services say this: exit code, what it printed, and who was asked about how many packages."""
    (folder / "said.json").write_text(json.dumps({"osv": GONE, "pypi": GONE, **said}))
    (folder / "a.lock").write_text(LOCK)
    (folder / "audit.toml").write_text(accepted)
    tool, asked = folder / "pip-audit", folder / "asked"
    tool.write_text(STAND_IN.format(python=sys.executable, said=str(folder / "said.json"), asked=str(asked)))
    tool.chmod(0o755)
    words: list[str | Path] = [tool, "--lock", folder / "a.lock", "--exceptions", folder / "audit.toml"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout, asked.read_text().splitlines() if asked.exists() else []


def accept(**values: str) -> str:
    told = {"id": '"CVE-1"', "package": '"b"', "reason": '"it is never called"', "until": "2999-01-01", **values}
    return "[[accepted]]\n" + "".join(f"{key} = {value}\n" for key, value in told.items() if value)


def test_a_known_vulnerability_fails_and_is_named(tmp_path: Path) -> None:
    code, said, _ = audit(tmp_path, osv=BAD)
    assert code == 1
    assert "VULNERABLE  b 1: CVE-1, GHSA-1; fixed in 2" in said


def test_none_passes_and_the_second_service_is_not_asked(tmp_path: Path) -> None:
    code, said, asked = audit(tmp_path, osv={})
    assert (code, said) == (0, "audited 2 packages by osv: 0 known and not accepted\n")
    assert asked == ["osv 1", "osv 2"]


def test_where_one_service_does_not_answer_the_other_is_asked(tmp_path: Path) -> None:
    code, said, asked = audit(tmp_path, pypi=BAD)
    assert code == 1
    assert "audited 2 packages by pypi: 1" in said
    assert asked == ["osv 1", "pypi 1", "pypi 2"]


@pytest.mark.parametrize("pypi", [GONE, UNKNOWN, "x\nServiceError"])
def test_where_nobody_answers_that_is_said_and_no_failure(tmp_path: Path, pypi: Any) -> None:
    code, said, asked = audit(tmp_path, pypi=pypi)
    assert code == 0
    assert said.startswith("NOT AUDITED: no advisory service answers")
    assert "audited 2" not in said
    assert asked == ["osv 1", "pypi 1"]


def test_a_package_that_the_service_does_not_know_is_named(tmp_path: Path) -> None:
    code, said, _ = audit(tmp_path, osv={"b": {"skip_reason": "not found"}})
    assert code == 0
    assert said == "NOT AUDITED b: osv does not know it\naudited 1 packages by osv: 0 known and not accepted\n"


def test_a_lock_that_cannot_be_audited_fails(tmp_path: Path) -> None:
    code, said, _ = audit(tmp_path, osv="ERROR: requirement b does not contain a hash")
    assert code == 1
    assert "does not contain a hash" in said


@pytest.mark.parametrize("name", ["CVE-1", "GHSA-1"])
def test_an_exception_lets_it_pass_until_its_day(tmp_path: Path, name: str) -> None:
    code, said, _ = audit(tmp_path, accept(id=f'"{name}"'), osv=BAD)
    assert code == 0
    assert "accepted    b 1: CVE-1, GHSA-1; fixed in 2; until 2999-01-01: it is never called" in said
    code, said, _ = audit(tmp_path, accept(id=f'"{name}"', until="2020-01-01"), osv=BAD)
    assert code == 1
    assert "accepted until 2020-01-01 only" in said


def test_an_exception_is_for_one_package_and_told_when_it_is_not_needed(tmp_path: Path) -> None:
    code, said, _ = audit(tmp_path, accept(package='"a"'), osv=BAD)
    assert code == 1
    assert "not needed  CVE-1 of a in audit.toml: take it out" in said


@pytest.mark.parametrize(
    "values", [{"reason": ""}, {"reason": '" "'}, {"until": '"soon"'}, {"until": ""}, {"why": "1"}]
)
def test_an_exception_needs_a_reason_and_a_day(tmp_path: Path, values: dict[str, str]) -> None:
    code, said, asked = audit(tmp_path, accept(**values), osv={})
    assert code == 1
    assert "needs id, package, reason and until" in said
    assert asked == []


def test_what_is_installed_is_pinned_by_hash() -> None:
    root = SCRIPT.parents[1]
    for lock in (root / "requirements.lock", root / ".ci" / "audit.lock", root / ".ci" / "docs.lock"):
        blocks = [block for block in lock.read_text().split("\n") if block and not block.startswith((" ", "#"))]
        assert blocks
        assert [block for block in blocks if "==" not in block or not block.endswith("\\")] == []

"""Ask pip-audit whether any pinned package has a known vulnerability. Run by `make audit`, which installs pip-audit.

A vulnerability that is known fails, unless `.ci/audit.toml` accepts it, with a reason and until a day. Where no
advisory service answers, nothing is known: that is said in plain words, NOT AUDITED, and does not fail, as it is no
fault of the packages. pip-audit itself takes a package that a service does not know for one without a vulnerability;
here that counts as not audited too.
"""  # noqa: INP001 - a script

import argparse
import datetime as dt
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_HERE = Path(__file__).parent
_LOCKS = (_HERE.parent / "requirements.lock", _HERE / "audit.lock", _HERE / "docs.lock")
# In the order in which they are asked: the second only where the first does not answer.
_SERVICES = ("osv", "pypi")
# What pip-audit says when a service cannot be reached, or answers with nothing of use. All else is a fault of ours.
_UNREACHED = re.compile(r"ConnectionError|ServiceError|Timeout|NameResolutionError|SSLError|ProxyError|JSONDecodeError")
# Longer than a lock of a hundred packages takes, one request each.
_SECONDS = 900


class Answer(NamedTuple):
    """What one service says.

    Attributes:
        packages: as pip-audit lists them; empty where the service was not reached.
        trouble: why it was not.
    """

    packages: list[dict[str, Any]]
    trouble: str = ""

    @property
    def known(self) -> list[dict[str, Any]]:
        """Packages that the service could say something of."""
        return [package for package in self.packages if "skip_reason" not in package]


class Accepted(NamedTuple):
    """A vulnerability that somebody decided to live with."""

    id: str
    package: str
    reason: str
    until: dt.date


def read_accepted(file: Path) -> list[Accepted]:
    """Read the exceptions.

    Raises:
        ValueError: one lacks its reason or its day.
    """
    listed = tomllib.loads(file.read_text(encoding="utf-8")).get("accepted", []) if file.exists() else []
    for entry in listed:
        if set(entry) != set(Accepted._fields) or not entry["reason"].strip() or type(entry["until"]) is not dt.date:
            raise ValueError(f"{file}: every [[accepted]] needs id, package, reason and until = a date: {entry}")
    return [Accepted(**entry) for entry in listed]


def ask(command: Sequence[str], service: str, lock: Path) -> Answer:
    """Ask one service about every package of a lock.

    Raises:
        RuntimeError: pip-audit fails for another reason than the service.
    """
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--timeout", "20", "-f", "json"]
    try:
        done = subprocess.run(  # noqa: S603 - a command of our own
            [*command, "-r", str(lock), *options, "-s", service],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer([], f"no answer in {_SECONDS} seconds")
    if done.stdout.lstrip().startswith("{"):
        return Answer(json.loads(done.stdout)["dependencies"])
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
    if _UNREACHED.search(done.stderr):
        return Answer([], said[-1].strip()[:300])
    raise RuntimeError("\n".join(["pip-audit failed:", *said[-15:]]))


def judge(packages: Sequence[dict[str, Any]], accepted: Sequence[Accepted], today: dt.date) -> tuple[int, list[str]]:
    """Count the vulnerabilities that nobody accepts, and say what there is to say of all."""
    faults, lines, used = 0, [], set()
    for package in packages:
        for vulnerability in package.get("vulns", []):
            names = {vulnerability["id"], *vulnerability.get("aliases", [])}
            found = next((one for one in accepted if one.id in names and one.package == package["name"]), None)
            fixed = ", ".join(vulnerability.get("fix_versions", [])) or "no version yet"
            told = f"{package['name']} {package['version']}: {', '.join(sorted(names))}; fixed in {fixed}"
            if found is not None:
                used.add(found)
            if found is None or found.until < today:
                faults += 1
                lines.append(f"VULNERABLE  {told}{f'; accepted until {found.until} only' if found else ''}")
            else:
                lines.append(f"accepted    {told}; until {found.until}: {found.reason}")
    lines += [
        f"not needed  {one.id} of {one.package} in audit.toml: take it out" for one in accepted if one not in used
    ]
    return faults, lines


def ask_all(command: Sequence[str], service: str, locks: Sequence[Path]) -> Answer:
    """Ask one service about all locks; about one package first, so that none is asked a hundred times for nothing."""
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first.lock"
        first.write_text(re.split(r"\n(?=\S)", locks[0].read_text(encoding="utf-8"))[0] + "\n", encoding="utf-8")
        answers = [ask(command, service, first)]
    if answers[0].known:
        answers += [ask(command, service, lock) for lock in locks]
    packages = {(one["name"], one.get("version")): one for answer in answers for one in answer.packages}
    return Answer(list(packages.values()), next((answer.trouble for answer in answers if answer.trouble), ""))


def audit(command: Sequence[str], locks: Sequence[Path], exceptions: Path) -> int:
    """Audit, and say how it went; the exit code."""
    accepted = read_accepted(exceptions)
    troubles = []
    for service in _SERVICES:
        answer = ask_all(command, service, locks)
        faults, lines = judge(answer.known, accepted, dt.datetime.now(dt.UTC).date())
        if answer.known and (faults or not answer.trouble):
            skipped = [package["name"] for package in answer.packages if package not in answer.known]
            lines += [f"NOT AUDITED {name}: {service} does not know it" for name in skipped]
            _say(*lines, f"audited {len(answer.known)} packages by {service}: {faults} known and not accepted")
            return int(bool(faults))
        unknown = ", ".join(package["name"] for package in answer.packages)
        troubles.append(f"{service}: {answer.trouble or f'does not know {unknown}, so nobody asked for the rest'}")
    _say("NOT AUDITED: no advisory service answers, so nothing is known of any package.", *troubles)
    return 0


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", help="pip-audit")
    parser.add_argument("--osv-url", help="another OSV than the public one")
    parser.add_argument(
        "--lock", type=Path, action="append", help="what is audited; the locks of the project by default"
    )
    parser.add_argument("--exceptions", type=Path, default=_HERE / "audit.toml")
    asked = parser.parse_args()
    command = [asked.command, *(["--osv-url", asked.osv_url] if asked.osv_url else [])]
    try:
        return audit(command, asked.lock or _LOCKS, asked.exceptions)
    except (RuntimeError, ValueError) as error:
        _say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""Run every command of the tutorial in an empty folder, and compare what it prints with the text: `make tutorial`."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(\w+)?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Run the tutorial; the exit code."""
    sys.path.insert(0, str(PROJECT))
    text = (PROJECT / "docs" / "tutorial" / "start.md").read_text(encoding="utf-8")
    folder = Path(tempfile.mkdtemp())
    try:
        printed = [line for kind, block in _BLOCK.findall(text) for line in _do(kind, block, folder)]
    finally:
        shutil.rmtree(folder)
    missing = [line for line in _shown(_BLOCK.sub("", text)) if line not in printed]
    if missing:
        raise SystemExit("docs/tutorial/start.md shows lines that its commands did not print:\n" + "\n".join(missing))
    sys.stdout.write(
        f"the commands of docs/tutorial/start.md ran and printed its {len(_shown(_BLOCK.sub('', text)))} lines\n"
    )
    return 0


def _do(kind: str, block: str, folder: Path) -> list[str]:
    """Run the commands of a block, or write the file that its first line names; the lines that were printed."""
    if kind != "sh":
        (folder / block.partition("\n")[0].removeprefix("# ")).write_text(block, encoding="utf-8")
        return []
    printed = []
    for line in block.splitlines():
        program, *words = shlex.split(line)
        code, out = {"imagelake": _imagelake, "python": _python}[program](words, folder)
        if code:
            raise SystemExit(f"docs/tutorial/start.md: {line}\nexited with {code}:\n{out}")
        printed += _plain(out, folder)
    return printed


def _imagelake(words: list[str], folder: Path) -> tuple[int, str]:
    """Run the command in this process, as imports take most of the time of a short one; its exit code and output."""
    from pipeline import cli  # noqa: PLC0415 - found by the line of `main` that changes the path

    sys.argv = ["imagelake", *words]
    out, code = io.StringIO(), 0
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return code, out.getvalue()


def _python(words: list[str], folder: Path) -> tuple[int, str]:
    """Run a script of the reader; its exit code and output."""
    done = subprocess.run(  # noqa: S603 - the script of our own tutorial
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, f"{done.stdout}{done.stderr}"


def _shown(text: str) -> list[str]:
    """List the lines of output that the text shows."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ") and not line.startswith("    pip ")]


def _plain(out: str, folder: Path) -> list[str]:
    """Spell the folder and the seconds as the text does."""
    plain = re.sub(r"\d+\.\d s in all", "0.7 s in all", out.replace(str(folder.resolve()), "/data"))
    return [line.strip() for line in plain.splitlines()]


if __name__ == "__main__":
    sys.exit(main())

"""Run every command of the tutorial in an empty folder, and compare what it prints with the text: `make tutorial`."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(\w+)?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Run the tutorial; the exit code."""
    text = (PROJECT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    folder = Path(tempfile.mkdtemp())
    try:
        printed = [line for kind, block in _BLOCK.findall(text) for line in _do(kind, block, folder)]
    finally:
        shutil.rmtree(folder)
    missing = [line for line in _shown(_BLOCK.sub("", text)) if line not in printed]
    if missing:
        raise SystemExit("docs/tutorial.md shows lines that its commands did not print:\n" + "\n".join(missing))
    sys.stdout.write(
        f"the commands of docs/tutorial.md ran and printed its {len(_shown(_BLOCK.sub('', text)))} lines\n"
    )
    return 0


def _do(kind: str, block: str, folder: Path) -> list[str]:
    """Run the commands of a block, or write the file that its first line names; the lines that were printed."""
    if kind != "sh":
        (folder / block.partition("\n")[0].removeprefix("# ")).write_text(block, encoding="utf-8")
        return []
    printed = []
    for line in block.splitlines():
        program, _, rest = line.partition(" ")
        command = {"imagelake": f'"{sys.executable}" -m imagelake', "python": f'"{sys.executable}"'}[program]
        done = subprocess.run(  # noqa: S602 - the lines of our own tutorial, as a reader types them
            f"{command} {rest}",
            shell=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"docs/tutorial.md: {line}\nexited with {done.returncode}:\n{done.stdout}{done.stderr}")
        printed += _plain(done.stdout, folder)
    return printed


def _shown(text: str) -> list[str]:
    """List the lines of output that the text shows."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ") and not line.startswith("    pip ")]


def _plain(out: str, folder: Path) -> list[str]:
    """Spell the folder and the seconds as the text does."""
    plain = re.sub(r"\d+\.\d s in all", "0.7 s in all", out.replace(str(folder.resolve()), "/data"))
    return [line.strip() for line in plain.splitlines()]


if __name__ == "__main__":
    sys.exit(main())

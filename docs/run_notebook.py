"""Run the notebook of the tutorial in an empty folder, and compare its output with what is stored: `make tutorial`.

A cell that fails is an error. So is text that differs: counts must be equal, other numbers may differ by 0.02, and
times are not compared. Of pictures, only the number is compared. With --write, the new outputs are stored instead.
"""

import argparse
import contextlib
import copy
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOK = PROJECT / "docs" / "tutorial" / "notmnist.ipynb"
_TIME = re.compile(r"\d[\d,.]* (s|images/s)\b")
_NUMBER = re.compile(r"\d+\.\d+")
_TOLERANCE = 0.02
_MOST_BYTES = 600_000


def main() -> int:
    """Run the notebook; the exit code."""
    import nbformat  # noqa: PLC0415 - only in the environment of the documentation

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="Store the new outputs in the notebook.")
    stored = nbformat.read(NOTEBOOK, as_version=4)
    write = parser.parse_args().write
    run = _run(stored)
    if write:
        nbformat.write(run, NOTEBOOK)
        stored = run
    faults = faults_of(differences(stored, run), NOTEBOOK.stat().st_size)
    if faults:
        raise SystemExit("\n".join([f"{NOTEBOOK.relative_to(PROJECT)}:", *faults]))
    sys.stdout.write(f"the {len(run.cells)} cells of {NOTEBOOK.relative_to(PROJECT)} ran and gave what is stored\n")
    return 0


def _run(notebook: Any) -> Any:  # noqa: ANN401 - nbformat has no types
    """Run a copy of the notebook in a new folder, which is then deleted. The outputs name the folder /data."""
    from nbclient import NotebookClient  # noqa: PLC0415 - as above
    from traitlets.config import Config  # noqa: PLC0415 - as above

    folder = Path(tempfile.mkdtemp()).resolve()
    try:
        work = folder / "work"
        work.mkdir()
        # The kernel and Jupyter write only below the folder, and imagelake is that of the project.
        homes = {name: str(folder / name) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
        path = f"{PROJECT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        os.environ.update(homes, PATH=path, PYTHONPATH=str(PROJECT), PYTHONSAFEPATH="1", OMP_NUM_THREADS="1")
        os.environ.pop("NOTMNIST", None)
        # Sockets are files in the current folder, which is that of the kernel: no port is opened.
        config = Config(KernelManager={"transport": "ipc"}, NotebookClient={"timeout": 300, "startup_timeout": 300})
        with contextlib.chdir(work):
            run = NotebookClient(copy.deepcopy(notebook), config=config).execute()
        return _plain(run, str(work))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plain(notebook: Any, folder: str) -> Any:  # noqa: ANN401 - as above
    """Join the pieces of each stream, name the folder /data, and remove metadata that changes from run to run."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        outputs: list[Any] = []
        for output in cell.outputs:
            if output.output_type == "stream" and outputs and outputs[-1].get("name") == output.name:
                outputs[-1].text += output.text
            else:
                outputs.append(output)
        # Only now: the pieces may divide the name.
        for output in outputs:
            if output.output_type == "stream":
                output.text = output.text.replace(folder, "/data")
        cell.outputs = outputs
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def faults_of(changed: list[str], size: int) -> list[str]:
    """List what is wrong, each with what to do: outputs that differ, and a file that is too large."""
    faults = [*changed, "Store new outputs with --write."] if changed else []
    if size > _MOST_BYTES:
        faults.append(f"it has {size:,} bytes; {_MOST_BYTES:,} are allowed. Draw smaller pictures.")
    return faults


def differences(stored: Any, run: Any) -> list[str]:  # noqa: ANN401 - as above
    """List the cells whose outputs are not those that are stored."""
    return [
        f"cell {number} gives\n{now}\ninstead of\n{before}"
        for number, (old, new) in enumerate(zip(stored.cells, run.cells, strict=True), 1)
        if not _alike(before := _text(old), now := _text(new))
    ]


def _text(cell: Any) -> str:  # noqa: ANN401 - as above
    """Write the outputs of a cell as text; a picture is one line."""
    parts = []
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        parts.append("(picture)\n" if "image/png" in data else output.get("text") or data.get("text/plain", ""))
    return "\n".join(parts)


def _alike(before: str, now: str) -> bool:
    # Tables are wider or narrower with the digits of a number.
    old, new = (re.sub(r" +", " ", _TIME.sub("(time)", text)) for text in (before, now))
    if _NUMBER.sub("(number)", old) != _NUMBER.sub("(number)", new):
        return False
    numbers = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
    return all(abs(float(one) - float(other)) <= _TOLERANCE for one, other in numbers)


if __name__ == "__main__":
    sys.exit(main())

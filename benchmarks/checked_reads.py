"""What it costs to check files for damage when they are read: arrays, a feed and an export, checked and unchecked.

    .venv/bin/python benchmarks/checked_reads.py LAKE SPLIT [--runs N]

Both ways run in turn, each in a process of its own, because a process checks a file once. Figures are medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_LAP = """
import sys, time, tempfile
from pathlib import Path
from imagelake import Lake
from pipeline.engines.local import LocalEngine
from pipeline.export import export

root, split, way, check = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4] == "checked"
lake = Lake(root)
Lake(root).arrays(split, "test", check=False)
started = time.perf_counter()
if way == "arrays":
    lake.arrays(split, "train", check=check)
elif way == "feed":
    for _ in lake.batches(split, "train", batch_size=256, check=check):
        pass
else:
    with tempfile.TemporaryDirectory() as folder:
        export(root, split, Path(folder) / "out", "npz", engine=LocalEngine(1), pinned=False, check=check)
print(time.perf_counter() - started)
"""


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake")
    parser.add_argument("split")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    figures = {}
    for way in ("arrays", "feed", "export"):
        laps: dict[str, list[float]] = {"checked": [], "unchecked": []}
        for _ in range(options.runs):
            for kind, seconds in laps.items():
                seconds.append(_lap(options.lake, options.split, way, kind))
        checked, unchecked = (statistics.median(seconds) for seconds in laps.values())
        figures[way] = {"checked": checked, "unchecked": unchecked, "ratio": checked / unchecked}
    json.dump(figures, sys.stdout, indent=1)
    sys.stdout.write("\n")


def _lap(lake: str, split: str, way: str, kind: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "lap.py"
        script.write_text(_LAP)
        done = subprocess.run(
            [sys.executable, script, lake, split, way, kind], check=True, capture_output=True, text=True
        )
    return float(done.stdout)


if __name__ == "__main__":
    main()

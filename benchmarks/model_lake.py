"""The models in imagelake: from opening a finished lake to the scored model.

Run by `models.py` in its own process: `model_lake.py MODEL FOLDER` prints seconds and accuracy as JSON. The
imports of the model are not timed.
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from model_choice import IMPORTS, POSITIVE, STRENGTH

from pipeline.baselines.eval_data import EvalData, one_against_rest
from pipeline.baselines.fit import fit_once
from pipeline.baselines.model import Examples, Task
from pipeline.lake_handle import Lake
from pipeline.recipe import parse_baseline
from pipeline.recipe.baselines import PARTS


def run(model: str, folder: Path) -> dict[str, float]:
    """Open, read, fit, score."""
    started = time.perf_counter()
    lake = Lake(folder / "lake")
    pixels, labels = lake.arrays("main", "train")
    asked, answers = lake.arrays("main", "test")
    names = lake.class_names("main")
    loaded = time.perf_counter() - started
    more: dict[str, Any] = {"c": STRENGTH} if model == "svm-linear" else {}
    if PARTS[model].binary:
        more["positive"] = names[POSITIVE]
    spec = parse_baseline({"model": model, "split": "main", **more})
    train = Examples(pixels.reshape(len(pixels), -1), labels)
    roles = {"test": Examples(asked.reshape(len(asked), -1), answers)}
    height, width = pixels.shape[1:3]
    data = one_against_rest(spec, EvalData(train, roles, {}, names, (height, width, 1)))
    task = Task(data.train, None, len(data.names), data.shape)
    fitted = fit_once(spec, 0, task, data.roles)
    return {
        "load": loaded,
        "seconds": time.perf_counter() - started,
        "accuracy": float(np.mean(fitted.predictions["test"].correct)),
    }


if __name__ == "__main__":
    import_module(IMPORTS[sys.argv[1]])
    if sys.argv[1] in {"dense", "lenet"}:
        import_module("pipeline.baselines.torch_fit")
    json.dump(run(sys.argv[1], Path(sys.argv[2])), sys.stdout)

"""`import imagelake` works in a folder with a pipeline.py and a schemas.py of the user, also in worker processes."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import imagelake
import pipeline
from pipeline.hashing import digest_of

PROJECT = Path(__file__).parents[1]
METHODS = [name for name in multiprocessing.get_all_start_methods() if name != "fork"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with modules of the user, which must not be imported."""
    for name in ("pipeline", "schemas"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the module of the user')\n")
    return tmp_path


def run(folder: Path, *words: str) -> str:
    """Run Python in the folder, with this project on its path behind the folder; its output."""
    variables = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_exactly_the_public_names_of_the_pipeline_package() -> None:
    assert sorted(imagelake.__all__) == sorted(pipeline.__all__)
    assert {name: getattr(imagelake, name) for name in pipeline.__all__} == {
        name: getattr(pipeline, name) for name in pipeline.__all__
    }
    assert set(imagelake.__all__) <= set(dir(imagelake))
    with pytest.raises(AttributeError, match="has no attribute 'Lak'. It has: .*Lake"):
        _ = imagelake.Lak


def test_importing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import imagelake, sys; print(sorted({'polars', 'pyarrow', 'deltalake', 'numpy'} & set(sys.modules)))"
    assert run(tmp_path, "-c", code).strip() == "[]"


def test_without_a_module_of_the_user_the_path_stays_as_it_is(tmp_path: Path) -> None:
    code = "import sys; before = list(sys.path); import imagelake; print(before == sys.path)"
    assert run(tmp_path, "-c", code).strip() == "True"


@pytest.mark.parametrize("start", ["-c", "script"])
@pytest.mark.parametrize("method", METHODS)
def test_a_module_of_the_user_is_not_imported_here_or_in_workers(folder: Path, start: str, method: str) -> None:
    code = f"""
import imagelake
import multiprocessing
if __name__ == "__main__":
    import pipeline
    import schemas
    from pipeline.hashing import digest_of
    from schemas.table import Table
    print(pipeline.__file__)
    print(schemas.__file__)
    with multiprocessing.get_context("{method}").Pool(1) as pool:
        print(*pool.map(digest_of, [{{"a": 1}}]), *pool.starmap(Table, [("images", "", None)]))
"""
    (folder / "train.py").write_text(code)
    found = run(folder, *(["-c", code] if start == "-c" else ["train.py"])).splitlines()
    assert [Path(name) for name in found[:2]] == [PROJECT / name / "__init__.py" for name in ("pipeline", "schemas")]
    assert found[2].startswith(digest_of({"a": 1}) + " Table(name='images'")


@pytest.mark.slow
def test_a_build_of_several_workers_runs_in_such_a_folder(folder: Path) -> None:
    random = np.random.default_rng(0)
    # Each split makes a shard: a build with one shard starts no worker.
    for number in range(40):
        file = folder / "pictures" / ("train", "test")[number % 4 == 0] / "ab"[number % 2] / f"{number}.ppm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"P5 4 4 255 " + random.bytes(16))
    out = run(folder, "-m", "imagelake", "build", "pictures", "--workers", "2")
    assert "built release 1: 40 images, 0 rejects" in out


def test_a_module_of_the_user_that_is_loaded_already_is_named(folder: Path) -> None:
    (folder / "pipeline.py").write_text("")
    code = "import pipeline\ntry: import imagelake\nexcept ImportError as error: print(error)"
    out = run(folder, "-c", code)
    assert f"has the same name as {folder / 'pipeline.py'}" in out
    assert "Rename that module." in out

"""What the code may not do at all: unpickle, run text, or write an archive's files to disk."""

import ast
from pathlib import Path

import pytest

import pipeline
import schemas

# Modules that unpickle or run what they read, and what of them does not.
RISKY = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "torch",
    "yaml",
    "pandas",
}
READS = {"load", "loads", "load_all", "unsafe_load", "full_load", "open", "read_pickle", "Unpickler", "hub", "jit"}
# The round trip of an error that was just raised: it tells whether Ray can hand it over. And a task, which the driver
# of the same build has pickled.
OWN = {"pickle.loads(pickle.dumps(error))", "pickle.loads(pickled_task)"}
ONLY_WITHOUT_PICKLE = {"np.load", "numpy.load", "np.lib.format.read_array", "format.read_array", "read_array"}
RUNS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
UNPACKS = {"extract", "extractall", "unpack_archive", "_extract_member", "_extract_one"}


def faults(tree: ast.AST) -> list[str]:
    """Find what may not be, as it is written."""
    return [ast.unparse(node) for node in ast.walk(tree) if _is_fault(node)]


def _is_fault(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module in RISKY and any(alias.name in READS for alias in node.names)
    if isinstance(node, ast.Import):
        return any(alias.name in RISKY - {"pickle", "torch"} for alias in node.names)
    if isinstance(node, ast.keyword):
        return (node.arg, ast.unparse(node.value)) in {("allow_pickle", "True"), ("shell", "True")}
    if not isinstance(node, ast.Call) or ast.unparse(node) in OWN:
        return False
    name = ast.unparse(node.func)
    module, _, last = name.rpartition(".")
    if name in ONLY_WITHOUT_PICKLE:
        return "allow_pickle=False" not in map(ast.unparse, node.keywords)
    # Polars' extract returns a part of a text.
    unpacks = last in UNPACKS and not name.endswith(".str.extract")
    return name in RUNS or unpacks or (module in RISKY and last in READS)


def files() -> list[Path]:
    found = [file for module in (pipeline, schemas) for file in Path(module.__file__ or "").parent.rglob("*.py")]
    assert len(found) > 100
    return found


def test_no_code_unpickles_runs_text_or_extracts() -> None:
    assert {file.name: found for file in files() if (found := faults(ast.parse(file.read_bytes())))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "pickle.load(f)",
        "pickle.loads(data)",
        "pickle.Unpickler(f)",
        "from pickle import loads",
        "import joblib",
        "import shelve, os",
        "torch.load(f)",
        "marshal.loads(x)",
        "yaml.load(f)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "read(f, allow_pickle=True)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(f)",
        "eval('1')",
        "exec(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_these_would_be_found(text: str) -> None:
    assert faults(ast.parse(text))


@pytest.mark.parametrize(
    "text",
    ["np.load(f, allow_pickle=False)", "json.load(f)", "import pickle", "archive.extractfile(m)"],
)
def test_and_these_would_not(text: str) -> None:
    assert faults(ast.parse(text)) == []

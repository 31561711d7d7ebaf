"""The modules of a folder import each other in one direction only, also inside functions and for type checkers."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pipeline

ROOT = Path(pipeline.__file__).parent


def imported(file: Path) -> set[str]:
    """List the modules that a file imports anywhere, with the names that it takes from them."""
    nodes = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.ImportFrom)]
    return {name for node in nodes for name in (node.module or "", *(f"{node.module}.{n.name}" for n in node.names))}


@pytest.mark.parametrize("folder", ["arrays", "baselines", "recipe", "engines", "cli"])
def test_no_modules_import_each_other(folder: str) -> None:
    files = {
        ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): file
        for file in (ROOT / folder).rglob("*.py")
    }
    graph = {name: imported(file) & set(files) - {name} for name, file in files.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(files)

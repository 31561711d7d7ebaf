"""Hostile names, and a lake in which every label, path and name that a user can choose is hostile."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from making import as_folder, as_tar, encoded, pictures

from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.recipe import read_recipe

# Must not occur in output: control characters, characters that change the direction of text, invisible characters.
HARM = re.compile(r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9\U000e0041]")
LETTERS = "äöü ñ ß 漢字 かな ελ עב\N{WOMAN}\u200d\N{PERSONAL COMPUTER}"
RECIPE = """
[[source]]
uri = "train/list.csv"
dataset = "d"
split = "train"
[[source]]
uri = "test/list.csv"
dataset = "d"
split = "test"
[[source]]
uri = {tar}
dataset = "d"
split = "more"
[dedup]
rules = ["exact", "cosine:0.95"]
[[split]]
name = "main"
train = {{ from = "train" }}
test = {{ from = "test" }}
[[baseline]]
model = "logistic"
split = "main"
train_sizes = [60, "all"]
max_iter = 3
[[baseline]]
model = "sgd-binary"
split = "main"
train_sizes = ["all"]
positive = {positive}
precision = 0.9
folds = 2
max_iter = 3
"""
# For the lake's own folder: Delta accepts no control characters in it.
MARKUP = "\u202e\"'><img src=x onerror=alert(1)>-->{{7*7}}$x^{"
NAMES = sorted(
    (
        "\x1b[2J\x1b]0;owned\x07",
        "\x9b31m\x85c1",
        "one\ntwo\r\nthree\rfour",
        "over\b\b\b\bwritten\x7f",
        "\u202egnp.exe\u2066\u2069\u200f",
        "\u200b\ufeff\u2060unseen\xad",
        "\u2028line\u2029paragraph",
        "\U000e0041tag\ufff9",
        "tab\tbed\x0b\x0c",
        LETTERS,
        "<script>alert(1)</script>",
        "\"'><img src=x onerror=alert(1)>-->]]>",
        "</style></title></svg><b onclick=alert(1)>",
        "<svg onload=alert(1)><style>*{x:url(//x)}</style>",
        "&lt;script&gt;&#60;b&#62;",
        "{{7*7}}{% raw %}{#",
        "javascript:alert(1)",
        "data:text/html,<script>",
        "$\\frac{$ $x^2$ \\$",
        "_\\_% {0} %s #1",
        "../../x",
        "C:\\x|y>z",
        "=cmd|' /C calc'!A0",
        "'; drop view images; --",
        "l" * 1_000,
    )
)


def harmless_names(names: Sequence[str]) -> list[str]:
    """Make as many harmless names that sort in the same order, so that classes have the same numbers."""
    return [f"name{number:02d}" for number in range(len(names))]


def spelled(text: str) -> str:
    """Write a string as a TOML value."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def file_name(text: str) -> str:
    """Turn a name into a valid file name."""
    return text.replace("/", "|").replace("\0", "")[:60]


def write_sources(base: Path, names: Sequence[str]) -> str:
    """Write lists of files for train and test in which every name is a label, and a tar in which every name is a path.

    Each test picture is a train picture of the name before it, so every name overlaps and every cluster has two labels.

    Returns:
        The recipe.
    """
    made = [encoded(one) for one in pictures(3 * len(names))]
    for split, copies in (("train", 3), ("test", 1)):
        rows = [(f"{at}.png", names[at % len(names)]) for at in range(copies * len(names))]
        shift = split == "test"
        as_folder(base / split, {path: made[at - shift] for at, (path, _) in enumerate(rows)})
        text = io.StringIO()
        csv.writer(text).writerows([("path", "label"), *rows])
        (base / split / "list.csv").write_bytes(text.getvalue().encode())
    odd = list(map(file_name, names))
    tar = f"{odd[0]}{odd[-1]}.tar"
    other = [encoded(one) for one in pictures(len(names), 1)]
    paths = {f"{name}/{name}.png": data for name, data in zip(odd, other, strict=True)}
    as_tar(base / tar, {**paths, f"{odd[0]}/{odd[1]}.txt": b"no picture"}, "w")
    return RECIPE.format(tar=spelled(tar), positive=spelled(names[0]))


def build_named(base: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """Build a lake whose labels, paths, folders and positive class are the given names.

    Returns:
        The recipe and the lake.
    """
    folder, lake = base / file_name(names[0] + names[-1]), base / f"lake {MARKUP if names is NAMES else 'here'}"
    folder.mkdir()
    text = f"[lake]\nroot = {spelled(f'../{lake.name}')}\n{write_sources(folder, names)}"
    (folder / "r.toml").write_text(text, encoding="utf-8")
    build(read_recipe(folder / "r.toml"), engine=LocalEngine(1))
    return folder / "r.toml", lake

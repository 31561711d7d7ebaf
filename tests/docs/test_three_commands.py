"""The three commands of docs/tutorial/index.md: from two archives to arrays that share no image; then an accuracy."""

import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Run
from making import as_tar, encoded, pictures
from numpy.typing import NDArray

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "index.md"


def three_commands() -> list[list[str]]:
    """Read the commands of the page, without the word imagelake."""
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    words = [shlex.split(line) for line in block.splitlines()]
    assert [line[0] for line in words] == ["imagelake"] * 3
    return [line[1:] for line in words]


def test_two_archives_become_arrays_without_overlap(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = [encoded(array) for array in pictures(600)]
    letters = "ABCDEFGHIJ"
    large = {f"notMNIST_large/{letters[i % 10]}/{i}.png": data for i, data in enumerate(images[:500])}
    # Every hundredth image is in the large archive twice, and the small one has 40 images of the large one.
    large |= {f"notMNIST_large/{letters[i % 10]}/again{i}.png": images[i] for i in range(0, 500, 100)}
    small = {f"notMNIST_small/{letters[i % 10]}/{i}.png": data for i, data in enumerate(images[460:], 460)}
    as_tar(tmp_path / "notMNIST_large.tar.gz", {**large, "notMNIST_large/A/bad.png": b"no image"})
    as_tar(tmp_path / "notMNIST_small.tar.gz", small)
    for words in three_commands():
        result = run(*words)
        assert result.exit_code == 0, result.output
    with np.load(tmp_path / "arrays" / "notMNIST.npz") as stored:
        arrays = dict(stored)
    roles = ("train", "valid", "test")
    assert set(arrays) == {f"{role}_{kind}" for role in roles for kind in ("dataset", "labels")} | {"classes"}
    sets = {role: {image.tobytes() for image in arrays[f"{role}_dataset"]} for role in roles}
    assert all(sets.values())
    assert not sets["train"] & sets["valid"]
    assert not sets["train"] & sets["test"]
    assert not sets["valid"] & sets["test"]
    # Nothing else is lost: 460 pictures are in the large archive only.
    assert len(sets["train"] | sets["valid"]) == 460
    assert len(sets["test"]) == len(arrays["test_labels"]) == 140
    for role in roles:
        assert arrays[f"{role}_dataset"].shape == (len(arrays[f"{role}_labels"]), 28, 28)
    with (tmp_path / "arrays" / "notMNIST.pickle").open("rb") as file:
        pickled = pickle.load(file)  # noqa: S301 - written by the export
    assert {name: array.tolist() for name, array in pickled.items() if name.endswith("labels")} == {
        name: array.tolist() for name, array in arrays.items() if name.endswith("labels")
    }
    # Labels belong to their pictures.
    label = {encoded_bytes(array): i % 10 for i, array in enumerate(pictures(600))}
    for role in roles:
        found = [label[encoded_bytes(array)] for array in np.rint(arrays[f"{role}_dataset"] * 255 + 127.5)]
        assert found == arrays[f"{role}_labels"].tolist()


def test_a_baseline_in_the_recipe_gives_an_accuracy_and_predicts(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for archive, images in (("large", pictures(150)), ("small", pictures(60, seed=1))):
        files = {f"{'AB'[i % 2]}/{i}.png": encoded(array) for i, array in enumerate(images)}
        as_tar(tmp_path / f"notMNIST_{archive}.tar.gz", files)
    (tmp_path / "letter.png").write_bytes(encoded(pictures(1)[0]))
    assert run(*three_commands()[0]).exit_code == 0
    page = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert ", 1000, 5000" in block
    with (tmp_path / "letters" / "recipe.toml").open("a", encoding="utf-8") as recipe:
        recipe.write("\n" + block.replace(", 1000, 5000", ""))
    lines = [shlex.split(line)[1:] for line in re.findall(r"(?m)^    (imagelake .*)$", page)]
    assert [line[0] for line in lines] == ["build", "sql", "predict"]
    for words in lines:
        result = run(*(word.replace("PATH", "letter.png") for word in words))
        assert result.exit_code == 0, result.output
        if words[0] == "sql":
            assert re.search(r"│ 100 +┆ test ", result.output)
    assert re.search(r"letter.png ┆ [AB] ", result.output)


def encoded_bytes(picture: NDArray[Any]) -> bytes:
    return picture.astype(np.uint8).tobytes()

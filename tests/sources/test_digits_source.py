"""scikit-learn's digits: always the same pictures, whatever the uri."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import handed_out, recipe
from sklearn.datasets import load_digits

from pipeline.errors import RecipeError
from pipeline.sources import Source, read, resolve, survey


def digits(base: Path, **part: Any) -> Source:
    (source,) = resolve(recipe(base, {"uri": "digits", "format": "digits", **part}))
    return source


def test_counts_of_ink_become_pixels_and_can_be_told_again(tmp_path: Path) -> None:
    found = handed_out(digits(tmp_path))
    pixels = np.array([array for *_, array in found])
    counts, labels = load_digits(return_X_y=True)
    assert pixels.shape == (1797, 8, 8, 1)
    assert np.array_equal(np.rint(pixels.reshape(1797, 64) / 255 * 16), counts)
    assert dict(zip(counts.ravel().tolist(), pixels.ravel().tolist(), strict=True)) == {
        0: 0, 1: 16, 2: 32, 3: 48, 4: 64, 5: 80, 6: 96, 7: 112, 8: 128,
        9: 143, 10: 159, 11: 175, 12: 191, 13: 207, 14: 223, 15: 239, 16: 255,
    }  # fmt: skip
    assert [row[:2] for row in found] == [(str(n), str(label)) for n, label in enumerate(labels.tolist())]


def test_pixels_and_labels_are_a_promise(tmp_path: Path) -> None:
    (shard,) = read(digits(tmp_path))
    array: Any = vars(shard.contents)["array"]
    assert hashlib.md5(array.tobytes()).hexdigest() == "3882073453642be58b6586ccbbbf7eb2"  # noqa: S324 - no secret
    assert hashlib.md5("".join(filter(None, shard.labels)).encode()).hexdigest() == "dc6ff32080eebfa7212773fd06dba27a"  # noqa: S324


def test_the_shard_is_known_beforehand(tmp_path: Path) -> None:
    source = digits(tmp_path)
    (shard,) = read(source)
    assert survey(source).shards == {shard.shard: shard.fingerprint}
    assert list(read(source, set())) == []
    assert len(list(read(source, {shard.shard}))) == 1
    other = digits(tmp_path, uri="anything", split="test")
    assert [row[:2] for row in handed_out(other)] == [row[:2] for row in handed_out(source)]


def test_keys_of_other_forms_are_errors_and_no_split_is_train(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="rows, seed does not apply to a source of format digits"):
        digits(tmp_path, rows=5, seed=1)
    assert digits(tmp_path, split=None).split == "train"

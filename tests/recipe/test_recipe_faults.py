from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RecipeError
from pipeline.recipe import parse_recipe, read_recipe

GOOD: dict[str, Any] = {
    "lake": {"root": "lake"},
    "source": [{"uri": "a", "dataset": "d", "split": "train"}],
    "dedup": {"rules": ["exact", "sign"]},
    "split": [{"name": "main", "sanitize": "sign", "train": {"from": "train"}, "test": {"from": "train", "size": 5}}],
    "baseline": [{"model": "logistic", "split": "main"}],
}

FAULTS: dict[str, dict[str, Any]] = {
    "unknown key source[0].clases; did you mean 'classes'": {"source": [{"uri": "a", "dataset": "d", "clases": 1}]},
    "unknown key sauce; did you mean 'source'": {"sauce": []},
    "unknown key split[0].train.form; did you mean 'from'": {
        "split": [{"name": "main", "train": {"from": "train", "form": "x"}}]
    },
    "unknown key lake.qqq; known keys: root": {"lake": {"root": "x", "qqq": 1}},
    "source: field required": {"source": None},
    "source[0].dataset": {"source": [{"uri": "a", "dataset": "../up"}]},
    "source[0].digest": {"source": [{"uri": "a", "dataset": "d", "digest": "crc:12"}]},
    "sanitizes by 'maxpool:4', which is not among dedup.rules": {
        "split": [{"name": "main", "sanitize": "maxpool:4", "train": {"from": "train"}}]
    },
    "sanitizes by 'cosine:95', whose threshold no score can reach": {
        "dedup": {"rules": ["cosine:0.95"]},
        "split": [{"name": "main", "sanitize": "cosine:95", "train": {"from": "train"}}],
        "baseline": [],
    },
    "groups by 'attribute:patient', which is no rule. Write 'attr:patient' for the attribute 'patient'": {
        "split": [{"name": "main", "groups": "attribute:patient", "train": {"from": "train", "share": 1.0}}]
    },
    "split 'other', which no [[split]] defines": {"baseline": [{"model": "logistic", "split": "other"}]},
    "two splits are called 'main'": {"split": [GOOD["split"][0]] * 2},
    "needs split 'main' to have the role train": {"split": [{"name": "main", "test": {"from": "train"}}]},
    "baseline[0].seed": {"baseline": [{"model": "logistic", "split": "main", "seed": -1}]},
    "'logistic' has no setting 'epochs'; its settings: c, max_iter": {
        "baseline": [{"model": "logistic", "split": "main", "epochs": 3}]
    },
    "c is given, so it is not searched: take candidates out, or c": {
        "baseline": [{"model": "svm-linear", "split": "main", "c": 1.0, "candidates": 3}]
    },
    "baseline[0].c": {"baseline": [{"model": "logistic", "split": "main", "c": True}]},
    "baseline[0].learning_rate": {
        "baseline": [{"model": "softmax-sgd", "split": "main", "learning_rate": float("inf")}]
    },
    "separates one class from all others: name it": {"baseline": [{"model": "never", "split": "main"}]},
    "precision is for one class: name it": {"baseline": [{"model": "logistic", "split": "main", "precision": 0.9}]},
    "unknown key baseline[0].epoch; did you mean 'epochs'": {
        "baseline": [{"model": "lenet", "split": "main", "epoch": 3}]
    },
    "unknown key baseline[0].qqqqqq; known keys: break_ties, c, c_range, c_values, candidates, folds, model, positive, "
    "precision, predict, predict_scores, replacement, search_size, seed, seeds, split, train_on, train_sizes": {
        "baseline": [{"model": "svm-linear", "split": "main", "qqqqqq": 3}]
    },
    "'never' has no setting 'c', 'epochs'; its settings: none": {
        "baseline": [{"model": "never", "split": "main", "positive": "5", "epochs": 3, "c": 1.0}]
    },
    "baseline[0].model: no model 'svm-lin'; did you mean 'svm-linear'": {
        "baseline": [{"model": "svm-lin", "split": "main"}]
    },
    "baseline[0].model: no model 'gpt'; known models: logistic, softmax-sgd, ": {
        "baseline": [{"model": "gpt", "split": "main"}]
    },
    "baseline[0].model: field required": {"baseline": [{"split": "main"}]},
    "baseline: write [[baseline]], with two brackets": {"baseline": {"model": "logistic", "split": "main"}},
    "stops early by the role valid, which split 'main' does not have": {
        "baseline": [{"model": "softmax-sgd", "split": "main", "patience": 2}]
    },
    "two baselines are the same": {"baseline": [GOOD["baseline"][0], {**GOOD["baseline"][0], "c": 1, "max_iter": 100}]},
    "has no role": {"split": [{"name": "main"}]},
    "keep must name every role once; it misses ['test']": {
        "split": [{"name": "main", "keep": ["train"], "test": {"from": "train"}}]
    },
    "decode.size": {"decode": {"size": [28]}},
    "check[0]: nothing to check: give overlap, conflicts, rejects, min_per_class, drift, accuracy, disagreements": {
        "check": [{"split": "main"}]
    },
    "check[0]: overlap and conflicts are two checks: write a [[check]] for each": {
        "check": [{"split": "main", "rule": "exact", "overlap": 0, "conflicts": 0}]
    },
    "check[0]: a check of overlap has no key reason; its keys: split, rule, overlap, sanitized": {
        "check": [{"split": "main", "rule": "exact", "reason": "empty"}]
    },
    "unknown key check[0].overlaps; did you mean 'overlap'": {
        "check": [{"split": "main", "rule": "exact", "overlaps": 0}]
    },
    "check[0].min_per_class: field required; unknown key check[0].min_per_clas; did you mean 'min_per_class'": {
        "check": [{"min_per_clas": 5}]
    },
    "check[0].rejects: input should be greater than or equal to 0": {"check": [{"rejects": -1}]},
    "check[0].against: input should be 'roles' or 'previous'": {
        "check": [{"drift": 0.1, "split": "main", "against": "last"}]
    },
    "check[0]: drift needs the split whose roles are compared": {"check": [{"drift": 0.1}]},
    'check[0]: role = "test" needs the split that has the role': {"check": [{"min_per_class": 1, "role": "test"}]},
    "check: write [[check]], with two brackets": {"check": {"rejects": 0}},
    "decode.mode": {"decode": {"mode": "CMYK"}},
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_fault_is_named_with_its_place(said: str, tmp_path: Path) -> None:
    values = {key: value for key, value in {**GOOD, **FAULTS[said]}.items() if value is not None}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values, base=tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"rot.*clases") as caught:
        parse_recipe({"lake": {"rot": 1}, "source": [{"uri": "a", "dataset": "d", "clases": 1}]}, base=tmp_path)
    assert str(caught.value).count("unknown key") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no such recipe"), ("[lake\n", "not valid TOML"), (b"\xff\xfe", "cannot be read")],
)
def test_a_recipe_that_cannot_be_read(text: str | bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError, match=said) as caught:
        read_recipe(file)
    assert str(file) in str(caught.value)


def test_paths_start_from_the_recipe_and_spelling_does_not_change_the_digest(tmp_path: Path) -> None:
    text = '[lake]\nroot = "lake"\n[[source]]\nuri = "a"\ndataset = "d"\n'
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text("# a comment\n" + text.replace('uri = "a"\ndataset = "d"', "dataset='d'\nuri='a'"))
    first, second = read_recipe(tmp_path / "a.toml"), read_recipe(tmp_path / "b.toml")
    assert first.root == str(tmp_path / "lake")
    assert first.digest == second.digest
    assert first.digest != parse_recipe({**GOOD}, base=tmp_path).digest

"""The recipe: what a build reads and makes, as TOML, checked before anything runs.

Unknown keys are errors that name the nearest known key, and one error lists every fault of the recipe.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from pipeline import storage
from pipeline.errors import RecipeError
from pipeline.hashing import digest_of
from pipeline.recipe.naming import dataset_name
from pipeline.recipe.parts import (
    ROLES,
    BaselinePart,
    DecodePart,
    DedupPart,
    EmbeddingPart,
    Format,
    LakePart,
    Part,
    SourcePart,
)
from pipeline.recipe.rules import rule_with_pairs_of, stricter_rule
from pipeline.recipe.splits import RolePart, SplitPart
from pipeline.recipe.validation_messages import say_faults

# The recipe of a lake that was built without one, beside its tables.
RECIPE_FILE = "recipe.toml"

__all__ = [
    "RECIPE_FILE",
    "ROLES",
    "BaselinePart",
    "DecodePart",
    "DedupPart",
    "EmbeddingPart",
    "Format",
    "LakePart",
    "Recipe",
    "RolePart",
    "SourcePart",
    "SplitPart",
    "parse_recipe",
    "read_recipe",
]


class Recipe(Part):
    """A whole recipe. `base` is the folder that its relative paths start from, `file` where it was read, if it was."""

    lake: LakePart = LakePart()
    source: tuple[SourcePart, ...] = Field(min_length=1)
    decode: DecodePart = DecodePart()
    embedding: tuple[EmbeddingPart, ...] = ()
    dedup: DedupPart = DedupPart()
    split: tuple[SplitPart, ...] = ()
    baseline: tuple[BaselinePart, ...] = ()
    base: Path = Field(default=Path(), exclude=True)
    file: Path | None = Field(default=None, exclude=True)

    @property
    def digest(self) -> str:
        """Digest of the recipe's meaning: spelling, order of keys and comments do not matter."""
        return digest_of(self.model_dump(mode="json", by_alias=True))

    @property
    def root(self) -> str:
        """Where the lake is: an absolute folder, or a URI as written."""
        root = self.lake.root or f"{self.file.stem if self.file else 'images'}-lake"
        return storage.normal(root) if storage.is_bucket(root) else str((self.base / root).resolve())

    @property
    def rules(self) -> tuple[str, ...]:
        """Every rule that the recipe names, each once: those of `dedup.rules` and those that splits are drawn by."""
        of_splits = (rule for part in self.split for rule in (*part.sanitize, *part.groups))
        return tuple(dict.fromkeys([*self.dedup.rules, *of_splits]))

    @model_validator(mode="after")
    def _names_meet(self) -> Self:
        faults = [
            *_repeated("split", [part.name for part in self.split]),
            *_repeated("rule", list(self.dedup.rules)),
            *_competing(self.embedding),
        ]
        roles = {part.name: part.roles for part in self.split}
        faults += [
            f"baseline '{part.model}' needs split '{part.split}' to have the roles train and test"
            for part in self.baseline
            if part.split in roles and not {"train", "test"} <= set(roles[part.split])
        ]
        faults += [
            f"baseline '{part.model}' {wants} the role valid, which split '{part.split}' does not have"
            for part in self.baseline
            for wants, wanted in (
                ("stops early by", part.patience is not None),
                ("finds its threshold (without folds) on", part.precision is not None and part.folds is None),
            )
            if wanted and part.split in roles and "valid" not in roles[part.split]
        ]
        if len(set(self.baseline)) != len(self.baseline):
            faults.append("two baselines are the same")
        faults += [
            f"split '{part.name}' {does} '{rule}', {_why_not(rule, self.dedup.rules)}"
            for part in self.split
            for does, rules in (("sanitizes by", part.sanitize), ("groups by", part.groups))
            for rule in rules
            if rule_with_pairs_of(rule, self.dedup.rules) is None
        ]
        faults += [
            f"baseline '{part.model}' trains on split '{part.split}', which no [[split]] defines"
            for part in self.baseline
            if part.split not in {split.name for split in self.split}
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a TOML file.

    Returns:
        The recipe; its relative paths start from the file's folder.

    Raises:
        RecipeError: the file is missing, is no TOML, or has faults; all faults are listed.
    """
    file = Path(path)
    try:
        # Editors on Windows write a byte-order mark.
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe. Give the path of a TOML file, such as data/demo.toml.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: the recipe cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        # tomllib spells the character that it stumbles on, which mostly is the end of a line.
        said = re.sub(r"(Illegal|Found invalid) character '\\n'", "the line ends too early", str(error))
        raise RecipeError(f"{file}: not valid TOML: {said}. Mend the line and run again.") from error
    return parse_recipe(values, base=file.resolve().parent, file=file)


def parse_recipe(values: Mapping[str, Any], *, base: Path, file: Path | None = None) -> Recipe:
    """Check a recipe that is already a dict.

    A source without a `dataset` gets the name that its uri says.

    Args:
        values: what the TOML says.
        base: the folder that relative paths start from.
        file: where the values were read, if anywhere; errors name it.

    Raises:
        RecipeError: naming every fault at once.
    """
    values = _with_datasets(values, base)
    try:
        return Recipe.model_validate({**values, "base": base, "file": file and file.resolve()})
    except ValidationError as error:
        faults = say_faults(error, Recipe)
        raise RecipeError(f"{file or 'recipe'}: {faults}{'' if faults.endswith('?') else '.'}") from None


def _with_datasets(values: Mapping[str, Any], base: Path) -> Mapping[str, Any]:
    """Name the dataset of every source that has none; what is no list of tables is left for the checks."""
    listed = values.get("source")
    if not isinstance(listed, list | tuple):
        return values

    def named(part: Any) -> Any:  # noqa: ANN401 - whatever was written
        if not isinstance(part, Mapping) or not isinstance(part.get("uri"), str) or part.get("dataset") is not None:
            return part
        uri = part["uri"]
        # A relative uri such as "." or "train" is named by the recipe's folder.
        return {**part, "dataset": dataset_name(uri if "://" in uri or uri.startswith("/") else f"{base}/{uri}")}

    return {**values, "source": [named(part) for part in listed]}


def _competing(embeddings: tuple[EmbeddingPart, ...]) -> list[str]:
    """Find vectors that would be of the same images: a name may have several files, for different splits."""
    return [
        f"two embeddings are called '{one.name}' for the same images of dataset '{one.dataset}': give each its split"
        for at, one in enumerate(embeddings)
        for other in embeddings[:at]
        if (one.name, one.dataset) == (other.name, other.dataset)
        and (one.split == other.split or None in (one.split, other.split))
    ]


def _why_not(rule: str, held: tuple[str, ...]) -> str:
    """Say why the stored pairs do not tell what a rule finds."""
    stricter = stricter_rule(rule, held)
    if stricter is None:
        return f"which is not among dedup.rules {list(held)}"
    return (
        f"which is looser than '{stricter}' of dedup.rules: pairs below its threshold are not stored. Use '{stricter}' "
        f"or a stricter threshold there, or put '{rule}' into dedup.rules"
    )


def _repeated(what: str, names: list[str]) -> list[str]:
    return [f"two {what}s are called '{name}'" for name in sorted({n for n in names if names.count(n) > 1})]

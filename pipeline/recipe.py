"""The recipe: what a build reads and makes, as TOML, checked before anything runs.

Unknown keys are errors that name the nearest known key, and one error lists every fault of the recipe.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from pipeline.errors import RecipeError
from pipeline.faults import say_faults
from pipeline.hashing import digest_of

Format = Literal[
    "folder", "tar", "zip", "webdataset", "list", "idx", "csv", "parquet", "npz", "mat", "cifar", "digits", "glyphs"
]
RoleName = Literal["train", "valid", "test"]
ROLES: tuple[RoleName, ...] = ("train", "valid", "test")

# Names become folder names of the lake and words of SQL, so they stay plain.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Count = Annotated[int, Field(ge=1, strict=True)]


def _size_or_all(value: Any) -> Any:  # noqa: ANN401 - pydantic hands in whatever was written
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f'{value!r} is neither a whole number of 1 or more nor "all"')


Size = Annotated[int | Literal["all"], BeforeValidator(_size_or_all)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class LakePart(_Part):
    """`[lake]`: where the tables are."""

    root: Annotated[str, StringConstraints(min_length=1)]


class SourcePart(_Part):
    """`[[source]]`: one place images come from, and what must be true of it."""

    uri: str
    dataset: Name
    split: Name | None = None
    format: Format | None = None
    images: str | None = None
    labels: str | None = None
    transposed: bool | None = None
    truncated: Literal["refuse", "keep"] | None = None
    classes: Count | None = None
    min_per_class: Count | None = None
    bytes: Count | None = None
    digest: Annotated[str, StringConstraints(pattern=r"^(md5|sha1|sha256|sha512):[0-9a-f]{32,128}$")] | None = None
    rows: Count | None = None
    seed: int | None = None


class DecodePart(_Part):
    """`[decode]`: the canonical picture.

    `size` is (height, width); without it every size is taken as it is. `mode` is L (gray) or RGB. A picture of another
    size or mode is rejected, or resized and converted. Transparent pixels are laid over `background` when converted.
    """

    size: tuple[Count, Count] | None = None
    mode: Literal["L", "RGB"] = "L"
    on_mismatch: Literal["reject", "resize"] = "reject"
    background: Annotated[int, Field(ge=0, le=255)] = 255
    max_pixels: Annotated[int, Field(ge=1, le=500_000_000)] = 64_000_000
    max_bytes: Count = 256 * 2**20

    @property
    def channels(self) -> int:
        """1 for L, 3 for RGB."""
        return 1 if self.mode == "L" else 3


class DedupPart(_Part):
    """`[dedup]`: the rules to index and cluster by, as DESIGN spells them."""

    rules: tuple[str, ...] = ("exact",)


class RolePart(_Part):
    """One role of a split: which images it may take and how many, shared out evenly over the classes."""

    source_split: Annotated[str, Field(alias="from")]
    size: Size = "all"


class SplitPart(_Part):
    """`[[split]]`: train, valid and test, and how overlap between them is removed."""

    name: Name
    seed: int = 0
    keep: tuple[RoleName, ...] = ROLES
    sanitize: tuple[str, ...] = ()
    within: Literal["keep", "first"] = "keep"
    train: RolePart | None = None
    valid: RolePart | None = None
    test: RolePart | None = None

    @property
    def roles(self) -> dict[str, RolePart]:
        """The roles that the recipe asks for, in the order train, valid, test."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {role: part for role, part in named.items() if part is not None}

    @model_validator(mode="before")
    @classmethod
    def _one_rule_may_be_bare(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands in whatever was written
        if isinstance(value, dict) and isinstance(value.get("sanitize"), str):
            return {**value, "sanitize": (value["sanitize"],)}
        return value

    @model_validator(mode="after")
    def _keeps_every_role(self) -> Self:
        if not self.roles:
            raise ValueError("has no role: give it train, valid or test")
        missing = [role for role in self.roles if role not in self.keep]
        if missing or len(set(self.keep)) != len(self.keep):
            raise ValueError(f"keep must name every role once; it {f'misses {missing}' if missing else 'repeats one'}")
        return self


class BaselinePart(_Part):
    """`[[baseline]]`: a model to train and score on a split."""

    model: Literal["logistic"]
    split: Name
    train_sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = ("all",)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    c: Annotated[float, Field(gt=0)] = 1.0
    max_iter: Count = 100


class Recipe(_Part):
    """A whole recipe. `base` is the folder that its relative paths start from, `file` where it was read, if it was."""

    lake: LakePart
    source: tuple[SourcePart, ...] = Field(min_length=1)
    decode: DecodePart = DecodePart()
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
        return self.lake.root if "://" in self.lake.root else str((self.base / self.lake.root).resolve())

    @model_validator(mode="after")
    def _names_meet(self) -> Self:
        faults = [*_repeated("split", [part.name for part in self.split]), *_repeated("rule", list(self.dedup.rules))]
        roles = {part.name: part.roles for part in self.split}
        faults += [
            f"baseline '{part.model}' needs split '{part.split}' to have the roles train and test"
            for part in self.baseline
            if part.split in roles and not {"train", "test"} <= set(roles[part.split])
        ]
        if len(set(self.baseline)) != len(self.baseline):
            faults.append("two baselines are the same")
        faults += [
            f"split '{part.name}' sanitizes by '{rule}', which is not among dedup.rules {list(self.dedup.rules)}"
            for part in self.split
            for rule in part.sanitize
            if rule not in self.dedup.rules
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
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe. Give the path of a TOML file, such as data/demo.toml.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: the recipe cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: not valid TOML: {error}. Mend the line and run again.") from error
    return parse_recipe(values, base=file.resolve().parent, file=file)


def parse_recipe(values: Mapping[str, Any], *, base: Path, file: Path | None = None) -> Recipe:
    """Check a recipe that is already a dict.

    Args:
        values: what the TOML says.
        base: the folder that relative paths start from.
        file: where the values were read, if anywhere; errors name it.

    Raises:
        RecipeError: naming every fault at once.
    """
    try:
        return Recipe.model_validate({**values, "base": base, "file": file and file.resolve()})
    except ValidationError as error:
        faults = say_faults(error, Recipe)
        raise RecipeError(f"{file or 'recipe'}: {faults}{'' if faults.endswith('?') else '.'}") from None


def _repeated(what: str, names: list[str]) -> list[str]:
    return [f"two {what}s are called '{name}'" for name in sorted({n for n in names if names.count(n) > 1})]

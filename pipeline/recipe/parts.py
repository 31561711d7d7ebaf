"""The base class and value types of all recipe tables, and all tables except `[[baseline]]`."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from pipeline.addresses import complete, missing_secrets, redacted
from pipeline.recipe.rules import attribute_of

RoleName = Literal["train", "valid", "test"]
ROLES: tuple[RoleName, ...] = ("train", "valid", "test")

# Names become folder names in the lake and identifiers in SQL, so they have plain characters only.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Count = Annotated[int, Field(ge=1, strict=True)]


def _size_or_all(value: Any) -> Any:  # noqa: ANN401 - pydantic passes any value
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f'{value!r} is neither a whole number of 1 or more nor "all"')


def _as_tuple(value: Any) -> Any:  # noqa: ANN401 - pydantic passes any value
    return (value,) if isinstance(value, str) else value


# A list of words, or one word without brackets.
Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]

Size = Annotated[int | Literal["all"], BeforeValidator(_size_or_all)]


class Part(BaseModel):
    """A table of the recipe. Unknown keys are errors, and a part is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]

Format = Literal[
    "folder", "tar", "zip", "webdataset", "list", "idx", "csv", "parquet", "npz", "mat", "cifar", "digits", "glyphs"
]


class LakePart(Part):
    """`[lake]`: location of the tables.

    Attributes:
        root: a folder or s3://bucket/prefix. The default is the folder NAME-lake next to the recipe NAME.toml.
    """

    root: Annotated[str, StringConstraints(min_length=1)] | None = None

    @field_validator("root")
    @classmethod
    def _check_root(cls, root: str | None) -> str | None:
        if root and "://" in root and not root.startswith("s3://"):
            raise ValueError(f"a lake is a folder or s3://bucket/prefix, not {redacted(root)}")
        return root


class SourcePart(Part):
    """`[[source]]`: a place that images are read from, and checks of its content.

    Attributes:
        uri: a file, a folder, a pattern of files, or a URL. In a URL, `${NAME}` is the environment variable NAME. User
            names, passwords and queries are never stored.
        dataset: name of the dataset. The default is made from the uri.
        split: split of all images of the source. Without `split` and `splits` it follows from folder names such as
            train/ and test/, from file names, or from array names; the default is "train".
        splits: folders or files of the source, listed by split.
        format: form of the source. By default it is detected from the content.
        images: column, array or file extension of the images, if it cannot be detected from names.
        labels: the same for the labels; "" for a source without labels.
        transposed: true if IDX images are stored column by column. By default the file name decides.
        truncated: what to do with an incomplete tar: "refuse" it, or "keep" the complete members.
        classes: required number of classes.
        min_per_class: required number of images of each class.
        bytes: required size of the file.
        digest: required digest of the file: "md5:HEX", "sha1:HEX", "sha256:HEX" or "sha512:HEX".
        rows: number of images to generate.
        seed: seed of the generated images.
        outside: true to let a list name files outside of its folder.
    """

    uri: str
    dataset: Name
    split: Name | None = None
    splits: Annotated[dict[Name, Words], Field(min_length=1)] | None = None
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
    outside: bool | None = None
    # The uri as written, if it has secrets; `uri` hides them. It is not part of any dump, and not printed.
    _with_secrets: str = PrivateAttr("")

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401 - pydantic's signature
        """Hide the secrets of the uri, so that everything that stores or prints it is safe."""
        hidden = redacted(self.uri)
        if hidden != self.uri:
            self._with_secrets = self.uri
            self.__dict__["uri"] = hidden
        super().model_post_init(context)

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out the secrets of a part that is sent to a worker: only the driver downloads."""
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {"_with_secrets": ""}}

    @property
    def address(self) -> str:
        """The uri with its secrets and the variables of the environment; only for downloads."""
        return complete(self._with_secrets or self.uri)

    @property
    def missing_secrets(self) -> list[str]:
        """What the address lacks to be fetched; see `pipeline.addresses`."""
        return missing_secrets(self._with_secrets or self.uri)

    @property
    def written(self) -> str:
        """The uri as written in the recipe, with its secrets; only to find what version 0.5 kept in its cache."""
        return self._with_secrets or self.uri

    @model_validator(mode="after")
    def _check_splits(self) -> Self:
        if self.splits is None:
            return self
        if self.split is not None:
            raise ValueError("split and splits exclude one another: take one out")
        folders = sorted(f"{folder.strip('/')}/" for named in self.splits.values() for folder in named)
        if "/" in folders:
            raise ValueError('splits has an empty folder name; "*" is everything that no other split has')
        nested = next((pair for pair in pairwise(folders) if pair[1].startswith(pair[0])), None)
        if nested:
            raise ValueError(
                f"splits has {nested[0]} and {nested[1]}: a folder may occur only once, and not inside another one"
            )
        return self


Mode = Literal["L", "RGB"]
OnMismatch = Literal["convert", "reject"]
Originals = Literal["keep", "reference", "none"]


class DecodePart(Part):
    """`[decode]`: size and mode of the decoded images.

    Attributes:
        size: (height, width). By default every image keeps its own size.
        mode: L (gray) or RGB. By default the first build of a lake detects it, and later builds keep it.
        on_mismatch: what to do with an image of another mode or size: "convert" (the default) converts and resizes it,
            "reject" makes it a reject. Lakes of version 0.5 and earlier keep "reject" unless the recipe sets this key.
        fit: how to bring an image to `size`: "stretch" it, "crop" its middle, or "pad" it with `background`.
        background: gray value, 0 to 255, behind transparent pixels and around padded images.
        originals: what to store of the encoded files: "keep" their bytes, "reference" where they are, or "none". By
            default the first build of a lake decides by the formats of its images, and later builds keep it. Lakes of
            version 0.5 and earlier have no originals unless the recipe sets this key.
        longest: longer side of the working pictures in a lake without `size`, in pixels. Larger images are reduced. The
            default is 256 in a lake with originals, else every image keeps its size.
        max_pixels: an image with more pixels is a reject. A JPEG that is decoded at reduced scale counts with the
            pixels that are decoded.
        max_bytes: a file with more bytes is a reject.
    """

    size: tuple[Count, Count] | None = None
    mode: Mode | None = None
    on_mismatch: OnMismatch | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    background: Annotated[int, Field(ge=0, le=255)] = 255
    originals: Originals | None = None
    longest: Count | None = None
    max_pixels: Annotated[int, Field(ge=1, le=500_000_000)] = 64_000_000
    max_bytes: Count = 256 * 2**20

    @field_validator("on_mismatch", mode="before")
    @classmethod
    def _read_old_name(cls, value: object) -> object:
        """Accept "resize", the name of "convert" until version 0.5."""
        return "convert" if value == "resize" else value

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        if self.fit != "stretch" and self.size is None:
            raise ValueError(f'fit = "{self.fit}" needs size = [height, width]')
        if self.longest is not None and self.size is not None:
            raise ValueError("longest and size exclude one another: take one out")
        return self

    @property
    def converts(self) -> bool:
        """Whether an image of another mode or size is converted."""
        return self.on_mismatch != "reject"

    @property
    def stores_originals(self) -> bool:
        """Whether the lake has rows of originals."""
        return self.originals in ("keep", "reference")

    @property
    def reduces_jpegs(self) -> bool:
        """Whether a JPEG that is reduced is decoded at reduced scale: in every lake that records `originals`."""
        return self.originals is not None

    @property
    def channels(self) -> int:
        """1 for L, 3 for RGB.

        Raises:
            ValueError: the mode is not known yet; see `pipeline.builder.decode_settings`.
        """
        if self.mode is None:
            raise ValueError("decode.mode is not known yet")
        return 1 if self.mode == "L" else 3


class EmbeddingPart(Part):
    """`[[embedding]]`: a file with one vector per image, for rules such as "embedding:NAME:0.9".

    A Parquet file has the image's path in column `path` (or its id in `image_id`) and the vector in column `column`. A
    .npy file has one row per image. Row i is the image whose path is on line i of the text file `paths`. Without
    `paths` it is the image whose path is the number i, as in sources that are arrays or tables.

    Attributes:
        name: name of the embedding, as in the rule "embedding:NAME:0.9".
        uri: path or URL of the file.
        dataset: dataset of the images.
        split: split of the images. By default all splits of the dataset.
        column: column of the vectors in a Parquet file.
        paths: a text file of image paths, one per line, for a .npy file.
    """

    name: Name
    uri: str
    dataset: Name
    split: Name | None = None
    column: str = "embedding"
    paths: str | None = None


AttributeType = Literal["text", "int", "float", "bool", "date", "datetime"]
# Characters of the name of an attribute, and of a pattern.
_MAX_NAME, _MAX_PATTERN = 200, 1_000


class AttributesPart(Part):
    r"""`[[attributes]]`: facts about images, such as the patient or the camera, from a file or from the paths.

    A file is a CSV, Parquet, JSON lines or COCO annotations file. It names each image in a column `image_id`,
    `file_digest` (both hexadecimal) or `path`; without `path`, a column such as `file`, `file_name`, `image` or
    `image_path` counts as the path. Every other column is an attribute.

    Attributes:
        uri: path of the file, or of a folder or pattern of Parquet files.
        patterns: regular expressions, by attribute, instead of a file. The value is what the first group matches in the
            path of the image, such as `{ patient = '(p\d+)_' }`; without a group, all that the expression matches.
        dataset: dataset of the images. By default all datasets of the recipe.
        split: split of the images. By default all splits.
        columns: columns to read. By default all.
        labels: columns that are 1 for images that have the label of the column's name, and 0 or nothing for others.
            They become the attribute `labels`. -1 counts as 0; in a file that has 0 too, the build lists how many
            there are, because there it usually means uncertain.
        types: type of an attribute, by name: text, int, float, bool, date or datetime. By default it follows from the
            values.
    """

    uri: Annotated[str, StringConstraints(min_length=1)] | None = None
    patterns: Annotated[dict[str, str], Field(min_length=1)] | None = None
    dataset: Name | None = None
    split: Name | None = None
    columns: Words | None = None
    labels: Words | None = None
    types: dict[str, AttributeType] = {}

    @property
    def title(self) -> str:
        """The name of the part in messages."""
        return self.uri or f"patterns of {', '.join(self.patterns or ())}"

    @model_validator(mode="after")
    def _check_origin(self) -> Self:
        if (self.uri is None) == (self.patterns is None):
            raise ValueError("needs either a uri or patterns")
        if self.patterns is not None and (self.columns is not None or self.labels is not None):
            raise ValueError("columns and labels are of a file: take them out, or give a uri instead of patterns")
        if self.uri and "://" in self.uri:
            raise ValueError(f"{redacted(self.uri)} is an address: download the file and give its path")
        if self.patterns is not None and (unknown := sorted(set(self.types) - set(self.patterns))):
            raise ValueError(f"types names '{unknown[0]}', which is not in patterns: {', '.join(self.patterns)}")
        if long := [name for name in (self.patterns or ()) if not 0 < len(name) <= _MAX_NAME]:
            raise ValueError(f"{long[0][:20]!r} is no name: it must have 1 to {_MAX_NAME} characters")
        if self.labels and not all(self.labels):
            raise ValueError("a name in labels is empty")
        return self

    @field_validator("patterns")
    @classmethod
    def _check_patterns(cls, patterns: dict[str, str] | None) -> dict[str, str] | None:
        import polars as pl  # noqa: PLC0415 - only for recipes with patterns

        for name, pattern in (patterns or {}).items():
            if len(pattern) > _MAX_PATTERN:
                raise ValueError(f"{name}: a pattern of more than {_MAX_PATTERN:,} characters")
            try:
                pl.Series([""]).str.extract(pattern, 0)
            except pl.exceptions.PolarsError as error:
                why = " ".join(str(error).partition("This error")[0].split("error:")[-1].split())
                raise ValueError(f"{name}: {pattern!r} is no regular expression ({why})") from None
        return patterns


class DedupPart(Part):
    """`[dedup]`: the rules that find duplicates, and how pairs become clusters.

    Attributes:
        rules: rules that define duplicates, such as "exact", "sign", "cosine:0.95" or "hamming:6".
        clusters: how pairs become clusters. "components" joins all images that a chain of pairs connects; "stars" joins
            only images that are paired with one representative.
        between: which images are compared. "all" compares every image with every other; "splits" compares only images
            of different source splits: faster, and enough to find leaks.
        max_pairs: most pairs of a rule that are stored. If it finds more, only those that link its clusters are stored;
            with `clusters = "stars"`, which needs all pairs, the build stops with an error.
    """

    rules: Words = ("exact",)
    clusters: Literal["components", "stars"] = "components"
    between: Literal["all", "splits"] = "all"
    max_pairs: Count = 20_000_000


class RolePart(Part):
    """One role of a split: which images it draws from, and how many.

    Attributes:
        source_split: split of the sources to draw from. The key in a recipe is `from`.
        size: number of images, evenly over the classes as far as possible, or "all" that no other role takes.
        share: fraction of the images, above 0 and at most 1, instead of `size`. With `groups`, it is met in every
            class, as closely as whole groups allow. Without, a hash of the seed and the file decides for each image
            alone: the share is met on average, and adding images changes no role.
    """

    source_split: Annotated[str, Field(alias="from")]
    size: Size = "all"
    share: Annotated[float, Field(gt=0, le=1)] | None = None


class SplitPart(Part):
    """`[[split]]`: the roles train, valid and test, and how overlap between them is removed or prevented.

    Attributes:
        name: name of the split.
        seed: seed of every draw.
        groups: rules whose clusters stay together: each cluster is drawn into one role, so the split cannot leak. An
            entry "attr:NAME" keeps together the images with one value of an attribute, such as "attr:patient".
        sanitize: rules that remove rows: rows of a cluster that is in several roles are dropped. Each rule here and in
            `groups` is one of dedup.rules, or has a stricter threshold than one of them.
        keep: order of the roles. If a cluster is in several roles, the first of them keeps its rows. A group with
            images of several sources goes to the first role that needs it.
        protected: datasets that never lose a row.
        within: which rows of a cluster its role keeps: "all", the "first", or "none" if there are several.
        conflicts: which rows of a cluster with several labels to keep: all ("keep"), none ("drop"), those with the
            label of the majority, or those with the label of the most trusted source. This and `within` apply to the
            rules of `sanitize`, or to those of `groups` if there are none.
        trusted: datasets or dataset/split, the most trusted first.
        order: an attribute, such as "attr:taken_at": train has the smallest values, then come valid and test. Groups
            stay whole: a group is as late as its latest image. Images without a value are in the first role.
        stratify: an attribute with several values per image, such as "attr:labels": every role gets its part of every
            value, as closely as whole groups allow, instead of its part of every class.
        drop_issues: kinds of [issues] that remove rows, such as ["blank", "blurry"]: images with such an issue are
            dropped, before the rules of `sanitize`. Images of `protected` datasets stay.
        train: the train role.
        valid: the validation role.
        test: the test role.
    """

    name: Name
    seed: int = 0
    groups: Words = ()
    sanitize: Words = ()
    keep: tuple[RoleName, ...] = ROLES
    protected: Words = ()
    within: Literal["all", "first", "none"] = "all"
    conflicts: Literal["keep", "drop", "majority", "trusted"] = "keep"
    trusted: Words = ()
    order: str | None = None
    stratify: str | None = None
    drop_issues: Words = ()
    train: RolePart | None = None
    valid: RolePart | None = None
    test: RolePart | None = None

    @property
    def roles(self) -> dict[str, RolePart]:
        """The roles of the recipe, in the order train, valid, test."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {role: part for role, part in named.items() if part is not None}

    @property
    def dropping_rules(self) -> Words:
        """The rules whose clusters may drop rows after the draw."""
        drops_in_groups = self.within != "all" or self.conflicts != "keep"
        return self.sanitize or (self.rule_groups if drops_in_groups else ())

    @property
    def rule_groups(self) -> Words:
        """The entries of `groups` that are rules."""
        return tuple(rule for rule in self.groups if attribute_of(rule) is None)

    @property
    def attribute_groups(self) -> Words:
        """The attributes whose values stay together."""
        return tuple(name for rule in self.groups if (name := attribute_of(rule)) is not None)

    @model_validator(mode="before")
    @classmethod
    def _read_old_name(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic passes any value
        """Accept "keep", the name of `within = "all"` until version 0.2."""
        if isinstance(value, dict) and value.get("within") == "keep":
            return {**value, "within": "all"}
        return value

    @model_validator(mode="after")
    def _check_keep(self) -> Self:
        if not self.roles:
            raise ValueError("has no role: give it train, valid or test")
        missing = [role for role in self.roles if role not in self.keep]
        if missing or len(set(self.keep)) != len(self.keep):
            raise ValueError(f"keep must name every role once; it {f'misses {missing}' if missing else 'repeats one'}")
        return self

    @property
    def assigned_by(self) -> str | None:
        """The attribute of `order` or `stratify`, without `attr:`."""
        return attribute_of(self.order or self.stratify or "")

    @property
    def attributes(self) -> Words:
        """Every attribute that the split reads, each once."""
        return tuple(dict.fromkeys([*self.attribute_groups, *filter(None, [self.assigned_by])]))

    @model_serializer(mode="wrap")
    def _leave_out_new_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out keys that came after version 0.5 and are not set, so that older lakes need no new draw."""
        values: dict[str, Any] = dump(self)
        new = ("order", "stratify", "drop_issues")
        return {key: value for key, value in values.items() if key not in new or value not in (None, (), [])}

    @model_validator(mode="after")
    def _check_attributes(self) -> Self:
        for key, value in (("order", self.order), ("stratify", self.stratify)):
            if value is not None and not attribute_of(value):
                raise ValueError(f'{key} = "{value}" names no attribute: write {key} = "attr:NAME"')
        if self.order is not None and self.stratify is not None:
            raise ValueError("order and stratify exclude one another: take one out")
        if self.assigned_by and len({part.source_split for part in self.roles.values()}) > 1:
            raise ValueError("order and stratify need the same `from` in every role")
        unlimited = [role for role, part in self.roles.items() if part.share is None and part.size == "all"]
        if self.assigned_by and len(unlimited) > 1:
            raise ValueError(f"{' and '.join(unlimited)} both take all: give one of them a size or a share")
        for rule in (rule for rule in self.sanitize if attribute_of(rule) is not None):
            raise ValueError(
                f"sanitize drops duplicates by rules, and {rule} is no rule. To keep the images of one value in one "
                f'role, write groups = ["{rule}"]'
            )
        if "" in self.attribute_groups:
            raise ValueError('"attr:" names no attribute: write groups = ["attr:patient"]')
        return self

    @model_validator(mode="after")
    def _check_shares_and_conflicts(self) -> Self:
        for role, part in self.roles.items():
            if part.share is not None and part.size != "all":
                raise ValueError(f"{role} has both a size and a share; give one")
        if (self.conflicts == "trusted") != bool(self.trusted):
            raise ValueError('conflicts = "trusted" and the list `trusted` need one another')
        return self

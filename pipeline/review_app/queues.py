"""The items of a queue: pairs, clusters or images of a release that match filters, as arrays of numbers."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

import schemas
from pipeline.arrow_columns import from_numbers
from pipeline.dedup.stored_rules import find_stored_rule
from pipeline.errors import LakeError
from pipeline.lake.reads import check_tables, explain_failures
from pipeline.lake.snapshot import MISSING
from pipeline.lake_handle import Lake
from pipeline.review_app.decisions import CODES, Decisions, pair_subjects
from pipeline.review_app.images import Codes, Images, Numbers, codes_of, is_one_of, joined, read_batches
from pipeline.search.rules import raise_unknown, stored_units

# The table of issues: what is measured of images. Lakes of older versions do not have it.
ISSUES = "issues"
# The kind of issue that is about the label, not about pixels.
SUSPECT = "label"
PAIRS, CONFLICTS, CLUSTERS, NOT_SURE = "pairs", "conflicts", "clusters", "not-sure"
SUSPECTS, QUALITY, MISSES, NEWEST = "suspects", "quality", "misses", "newest"
PAIR_QUEUES = (PAIRS, CONFLICTS, NOT_SURE)
IMAGE_QUEUES = (SUSPECTS, QUALITY, MISSES, NEWEST)
ORDERS = ("highest", "lowest", "mixed")
# Verdicts about a picture that settle a conflict of its label; with one of them, its pairs need no decision.
_SETTLES = ("drop", "label", "wrong_label")


class Filters(NamedTuple):
    """Which items a queue has. Of a pair or a cluster, one of the images must match; None matches all.

    Attributes:
        rule: the rule of pairs and clusters.
        split: a named split, whose roles count; None: the sources dataset/split are the roles.
        between: of pairs and clusters, only those with images in different roles.
        role: role of the image.
        label: its label.
        dataset: its dataset.
        reason: why the split dropped it: a reason of the table splits.
        attribute: an attribute that it has, as NAME=VALUE.
        least: lowest score.
        most: highest score.
        kind: kind of issue, or the model of a misclassified image.
        order: highest or lowest score first, or mixed: an order without regard to scores, always the same.
    """

    rule: str | None = None
    split: str | None = None
    between: bool = False
    role: str | None = None
    label: str | None = None
    dataset: str | None = None
    reason: str | None = None
    attribute: str | None = None
    least: float | None = None
    most: float | None = None
    kind: str | None = None
    order: str = "highest"


class Roles(NamedTuple):
    """The roles of all images in a split.

    Attributes:
        role: role of every image.
        reason: why sanitizing dropped it.
        dropped_by: the rule that dropped it.
        dropped_for: (n,) int32: number of the image it was dropped for, -1 if none.
    """

    role: Codes
    reason: Codes
    dropped_by: Codes
    dropped_for: Numbers


class Pairs(NamedTuple):
    """The pairs of a rule, highest score first; 21 bytes each.

    Attributes:
        left: number of one image of every pair.
        right: number of the other.
        score: (n,) float32.
        subject: (n,) uint64: subject of the pair; if both images have the same file, that of their picture.
        same_file: (n,) bool: whether both images have the same file.
        has_scores: False for a rule that compares keys: its pairs are made from its clusters.
    """

    left: Numbers
    right: Numbers
    score: NDArray[np.float32]
    subject: NDArray[np.uint64]
    same_file: NDArray[np.bool_]
    has_scores: bool


class Clusters(NamedTuple):
    """The clusters of a rule.

    Attributes:
        of_image: (n,) int32: position of the cluster of every image, -1 if it is in none.
        representative: number of the representative of every cluster.
        members: numbers of all images in clusters, cluster by cluster.
        starts: where each cluster starts in `members`, and where the last one ends.
    """

    of_image: Numbers
    representative: Numbers
    members: Numbers
    starts: NDArray[np.int64]

    def of(self, cluster: int) -> Numbers:
        """Return the images of a cluster."""
        return self.members[self.starts[cluster] : self.starts[cluster + 1]]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of images of every cluster."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Queue:
    """Items in the order in which they are shown.

    Attributes:
        name: name of the queue.
        filters: the filters.
        left: number of the image; of a pair, of its first image; of a cluster, its position among clusters.
        right: of pairs, number of the other image; else None.
        score: (n,) float32; None without scores.
        subject: (n,) subjects of pairs and images; None for clusters.
        decided: (n,) bool, which is kept up to date.
        extra: what else is known of an item, row by row; None if nothing is.
    """

    name: str
    filters: Filters
    left: Numbers
    right: Numbers | None
    score: NDArray[np.float32] | None
    subject: NDArray[np.uint64] | None
    decided: NDArray[np.bool_]
    extra: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.left)

    def next_open(self, start: int) -> int | None:
        """Return the position of the first item from `start` on that is not decided; after the end, from the start."""
        for low, part in ((start, self.decided[start:]), (0, self.decided[:start])):
            if len(part) and not part.all():
                return low + int(part.argmin())
        return None


class Queues:
    """The queues of a lake. What they are made of is read when it is first needed, and kept.

    Args:
        lake: the lake of a release.
        images: its images.
        decisions: what is decided.
    """

    _KEPT = 4

    def __init__(self, lake: Lake, images: Images, decisions: Decisions) -> None:
        self.lake, self.images, self.decisions = lake, images, decisions
        self._parts: dict[tuple[str, ...], Any] = {}
        self._lock = threading.RLock()
        self._queues: dict[tuple[str, Filters], Queue] = {}
        # By image, the code of the verdict about its picture.
        self._of_image = np.zeros(len(images), np.uint8)
        self._mark_images()

    def queue(self, name: str, filters: Filters) -> Queue:
        """Make a queue, or return it as it was made before, with what was decided meanwhile.

        Raises:
            LakeError: the lake has no such rule, split, role, dataset or attribute.
            DamagedLakeError: a file is missing or damaged.
        """
        key = (name, filters)
        queue = self._queues.pop(key, None)
        self._queues[key] = queue = _make_queue(self.lake, self, name, filters) if queue is None else queue
        if len(self._queues) > self._KEPT:
            del self._queues[next(iter(self._queues))]
        return queue

    def update(self, subjects: NDArray[np.uint64]) -> None:
        """Take note of verdicts about some subjects. Queues of pairs that are not sure are made again when needed."""
        few = np.unique(subjects)
        changed = self._mark_images(few)
        some_changed = changed.any()
        # Which pairs those are changes with every verdict.
        self._queues = {key: queue for key, queue in self._queues.items() if queue.name != NOT_SURE}
        for (name, filters), queue in self._queues.items():
            if queue.subject is None:
                queue.decided[:] = self._clusters_decided(filters)[queue.left]
                continue
            mask = is_one_of(queue.subject, few)
            if some_changed:
                mask |= changed[queue.left]
                mask |= False if queue.right is None else changed[queue.right]
            at = np.flatnonzero(mask)
            right = None if queue.right is None else queue.right[at]
            queue.decided[at] = self._decided(name, queue.subject[at], queue.left[at], right)

    def _mark_images(self, subjects: NDArray[np.uint64] | None = None) -> NDArray[np.bool_]:
        """Note the verdicts about pictures, all or some, by image; return for every image whether it is one of them."""
        changed = np.ones(len(self.images), np.bool_) if subjects is None else is_one_of(self.images.keys, subjects)
        self._of_image[changed] = self.decisions.codes(self.images.keys[changed])
        return changed

    def _decided(
        self, name: str, subject: NDArray[np.uint64], left: Numbers, right: Numbers | None
    ) -> NDArray[np.bool_]:
        """Return for every item whether it needs no decision any more."""
        codes = self.decisions.codes(subject)
        # That pictures are the same leaves open which of their labels is right.
        decided = codes == CODES["different"] if name == CONFLICTS else codes > 0
        if name == NOT_SURE:
            decided &= codes != CODES["not_sure"]
        if right is not None:
            settled = _SETTLES if name == CONFLICTS else ("drop",)
            decided |= self._has_verdict(left, *settled) | self._has_verdict(right, *settled)
        return decided

    def _has_verdict(self, numbers: Numbers, *names: str) -> NDArray[np.bool_]:
        return np.isin(self._of_image[numbers], [CODES[name] for name in names])

    def _part(self, key: tuple[str, ...], make: Any) -> Any:  # noqa: ANN401 - parts of several kinds
        with self._lock:
            if key not in self._parts:
                self._parts[key] = make()
            return self._parts[key]

    def splits(self) -> list[str]:
        """List the named splits."""
        return sorted({part.partition["split_name"] for part in self.lake.snapshot.files("splits")})

    def roles(self, split: str | None) -> Roles:
        """Return the roles of all images in a split; without one, their sources.

        Raises:
            LakeError: the lake has no such split.
        """
        if split is None:
            nothing = Codes([], np.zeros(len(self.images), np.uint8))
            return Roles(self.images.sources, nothing, nothing, np.full(len(self.images), -1, np.int32))
        found: Roles = self._part(("roles", split), lambda: _read_roles(self.lake, self.images, split, self.splits()))
        return found

    def pairs(self, rule: str) -> Pairs:
        """Return the pairs of a rule. A rule that compares keys stores none: they are made from its clusters.

        Raises:
            LakeError: the lake has no such rule.
        """
        found: Pairs = self._part(("pairs", rule), lambda: _read_pairs(self.lake, self.images, rule, self))
        return found

    def clusters(self, rule: str) -> Clusters:
        """Return the clusters of a rule.

        Raises:
            LakeError: the lake has no such rule.
        """
        found: Clusters = self._part(("clusters", rule), lambda: _read_clusters(self.lake, self.images, rule))
        return found

    def reasons(self, split: str | None) -> list[str]:
        """List the reasons for which a split dropped images."""
        return self.roles(split).reason.names

    def kinds(self) -> dict[str, int]:
        """Count the issues of the lake by kind; empty where it has no such table."""
        if ISSUES not in schemas.TABLES or self.lake.snapshot.version(ISSUES) == MISSING:
            return {}
        counts: Counter[str] = Counter()
        for part in self.lake.snapshot.files(ISSUES):
            counts[part.partition["kind"]] += part.rows
        return dict(sorted(counts.items()))

    def make(self, name: str, filters: Filters) -> Queue:
        """Make a queue; see `queue`."""
        if name in PAIR_QUEUES:
            return self._pair_queue(name, filters)
        if name == CLUSTERS:
            return self._cluster_queue(filters)
        return self._image_queue(name, filters)

    def _matches(self, filters: Filters) -> NDArray[np.bool_] | None:
        """Return for every image whether it matches the filters; None if there are none."""
        images, masks = self.images, []
        roles = self.roles(filters.split)
        for what, codes, wanted in (
            ("role", roles.role, filters.role),
            ("reason", roles.reason, filters.reason),
            ("dataset", images.datasets, filters.dataset),
            ("label", images.labels, filters.label),
        ):
            if wanted is not None:
                if wanted not in codes.names:
                    raise_unknown(self.lake, what, wanted, codes.names[:100])
                masks.append(codes.has(wanted))
        if filters.attribute is not None:
            masks.append(_has_attribute(self.lake, images, filters.attribute))
        return np.logical_and.reduce(masks) if masks else None

    def _rule(self, filters: Filters) -> str:
        if filters.rule is None:
            raise LakeError(f"{self.lake.root} has no rule: put one into dedup.rules of the recipe, and build.")
        return filters.rule

    def _pair_queue(self, name: str, filters: Filters) -> Queue:
        pairs = self.pairs(self._rule(filters))
        left, right = pairs.left, pairs.right
        keep = np.ones(len(left), np.bool_)
        if (mask := self._matches(filters)) is not None:
            keep &= mask[left] | mask[right]
        keep &= _in_range(pairs.score, filters)
        if filters.between:
            role = self.roles(filters.split).role.codes
            keep &= (role[left] != role[right]) & (role[left] > 0) & (role[right] > 0)
        if name == CONFLICTS:
            label = self.images.labels.codes
            keep &= (label[left] != label[right]) & (label[left] > 0) & (label[right] > 0)
        else:
            keep &= ~pairs.same_file
        if name == NOT_SURE:
            keep &= self.decisions.codes(pairs.subject) == CODES["not_sure"]
        at = np.flatnonzero(keep)
        # Of pairs of the same two pictures, the first is enough.
        _, first = np.unique(pairs.subject[at], return_index=True)
        at = at[np.sort(first)]
        at = _in_order(at, pairs.score[at], pairs.subject[at], filters.order)
        left, right, subject = left[at], right[at], pairs.subject[at]
        decided = self._decided(name, subject, left, right)
        return Queue(name, filters, left, right, pairs.score[at], subject, decided)

    def _cluster_queue(self, filters: Filters) -> Queue:
        clusters, pairs = self.clusters(self._rule(filters)), self.pairs(self._rule(filters))
        # Those whose images all have the same file need no decision.
        keep = np.zeros(len(clusters.representative), np.bool_)
        of_pairs = clusters.of_image[pairs.left[~pairs.same_file]]
        keep[of_pairs[of_pairs >= 0]] = True
        if (mask := self._matches(filters)) is not None:
            keep &= np.logical_or.reduceat(mask[clusters.members], clusters.starts[:-1]) if len(keep) else keep
        if filters.between and len(keep):
            role = self.roles(filters.split).role.codes[clusters.members].astype(np.int32)
            inside = np.where(role > 0, role, np.iinfo(np.int32).max)
            keep &= np.maximum.reduceat(role, clusters.starts[:-1]) > np.minimum.reduceat(inside, clusters.starts[:-1])
        at = np.flatnonzero(keep)
        order = np.argsort(-clusters.sizes[at], kind="stable")
        chosen = at[order if filters.order != "lowest" else order[::-1]].astype(np.int32)
        decided = self._clusters_decided(filters)[chosen]
        return Queue(CLUSTERS, filters, chosen, None, None, None, decided)

    def _clusters_decided(self, filters: Filters) -> NDArray[np.bool_]:
        """Return for every cluster whether all its pairs are decided."""
        pairs, clusters = self.pairs(self._rule(filters)), self.clusters(self._rule(filters))
        open_pairs = (self.decisions.codes(pairs.subject) == 0) & ~pairs.same_file
        open_pairs &= ~(self._has_verdict(pairs.left, "drop") | self._has_verdict(pairs.right, "drop"))
        of_pairs = clusters.of_image[pairs.left[open_pairs]]
        decided = np.ones(len(clusters.representative), np.bool_)
        decided[of_pairs[of_pairs >= 0]] = False
        return decided

    def _image_queue(self, name: str, filters: Filters) -> Queue:
        if name == NEWEST:
            extra = None
            numbers = _newest(self.lake, self.images)
            score = None
        else:
            rows = _read_misses(self.lake, filters) if name == MISSES else self._read_issues(name, filters)
            numbers = self.images.find(rows["image_id"])
            rows = rows.filter(numbers >= 0)
            numbers = numbers[numbers >= 0]
            score = rows["score"].cast(pl.Float32).to_numpy()
            order = _in_order(np.arange(len(numbers)), score, self.images.keys[numbers], filters.order)
            numbers, score, extra = numbers[order], score[order], rows[order]
        keep = np.ones(len(numbers), np.bool_) if score is None else _in_range(score, filters)
        if (mask := self._matches(filters)) is not None:
            keep &= mask[numbers]
        at = np.flatnonzero(keep)
        # Of images with the same file that match the filters, the first is enough.
        _, first = np.unique(self.images.keys[numbers[at]], return_index=True)
        at = at[np.sort(first)]
        numbers = numbers[at]
        subject = self.images.keys[numbers]
        return Queue(
            name,
            filters,
            numbers,
            None,
            None if score is None else score[at],
            subject,
            self._decided(name, subject, numbers, None),
            None if extra is None else extra[at],
        )

    def _read_issues(self, name: str, filters: Filters) -> pl.DataFrame:
        kinds = self.kinds()
        if not kinds:
            raise LakeError(f"{self.lake.root} has no issues: add [issues] to the recipe, and build.")
        if filters.kind is not None and filters.kind not in kinds:
            raise_unknown(self.lake, "kind", filters.kind, list(kinds))
        check_tables(self.lake.snapshot, ISSUES)
        is_suspect = pl.col("kind") == SUSPECT
        rows = self.lake.scan(ISSUES).filter(is_suspect if name == SUSPECTS else ~is_suspect)
        if filters.kind is not None:
            rows = rows.filter(kind=filters.kind)
        return rows.select("image_id", "score", "kind", "agreement", suggested="suggested_label").collect()


@explain_failures
def _make_queue(lake: Lake, queues: Queues, name: str, filters: Filters) -> Queue:  # noqa: ARG001 - for errors
    return queues.make(name, filters)


def _read_roles(lake: Lake, images: Images, split: str, known: Sequence[str]) -> Roles:
    if split not in known:
        raise_unknown(lake, "split", split, known)
    files = lake.snapshot.file_places("splits", lambda partition: partition["split_name"] == split)
    columns = ["role", "reason", "dropped_by"]
    dropped_for = np.full(len(images), -1, np.int32)
    numbers, parts = [], []
    for rows in read_batches(files, ["image_id", "dropped_for", *columns]):
        (found,) = images.find_columns(rows, "image_id")
        keepers = rows["dropped_for"]
        dropped_for[found[pl.Series(keepers).is_not_null().to_numpy()]] = images.find(pl.Series(keepers.drop_null()))
        numbers.append(found)
        parts.append([codes_of(rows[name]) for name in columns])
    at = np.concatenate([np.empty(0, np.int32), *numbers])
    spread = (_spread(joined(column), at, len(images)) for column in zip(*parts, strict=True))
    role, reason, dropped_by = spread if parts else [Codes([], np.zeros(len(images), np.uint8))] * 3
    return Roles(role, reason, dropped_by, dropped_for)


def _spread(found: Codes, numbers: Numbers, count: int) -> Codes:
    """Spread the values of some images, given by their numbers, over all; the others have none."""
    codes = np.zeros(count, found.codes.dtype)
    codes[numbers] = found.codes
    return Codes(found.names, codes)


def _read_pairs(lake: Lake, images: Images, rule: str, queues: Queues) -> Pairs:
    units = stored_units(lake)
    if rule not in units:
        raise_unknown(lake, "rule", rule, units)
    if find_stored_rule(rule, units).method == "keys":
        clusters = queues.clusters(rule)
        first = np.repeat(clusters.representative, clusters.sizes)
        others = first != clusters.members
        left, right = first[others], clusters.members[others]
        return _sorted_pairs(images, left, right, np.ones(len(left), np.float32), has_scores=False)
    parts = lake.snapshot.files("pairs", lambda partition: partition["rule"] == rule)
    left, right = (np.empty(sum(part.rows for part in parts), np.int32) for _ in range(2))
    score = np.empty(len(left), np.float32)
    stop = 0
    for rows in read_batches([f"{lake.root}/pairs/{part.path}" for part in parts], ["left_id", "right_id", "score"]):
        start, stop = stop, stop + len(rows)
        left[start:stop], right[start:stop] = images.find_columns(rows, "left_id", "right_id")
        score[start:stop] = from_numbers(rows["score"])
    there = (left >= 0) & (right >= 0)
    return _sorted_pairs(images, left[there], right[there], score[there], has_scores=True)


def _sorted_pairs(
    images: Images, left: Numbers, right: Numbers, score: NDArray[np.float32], *, has_scores: bool
) -> Pairs:
    order = np.argsort(-score, kind="stable")
    left, right = left[order], right[order]
    left_key, right_key = images.keys[left], images.keys[right]
    return Pairs(left, right, score[order], pair_subjects(left_key, right_key), left_key == right_key, has_scores)


def _read_clusters(lake: Lake, images: Images, rule: str) -> Clusters:
    files = lake.snapshot.file_places("clusters", lambda partition: partition["rule"] == rule)
    found = [
        images.find_columns(rows, "cluster_id", "image_id") for rows in read_batches(files, ["cluster_id", "image_id"])
    ]
    heads, members = np.concatenate([np.empty((2, 0), np.int32), *found], axis=1)
    # The representative first, then in the order of the table.
    order = np.lexsort((members, members != heads, heads))
    members, heads = members[order], heads[order]
    starts = np.flatnonzero(np.diff(heads, prepend=-1))
    of_image = np.full(len(images), -1, np.int32)
    ends = np.append(starts, len(heads))
    of_image[members] = np.repeat(np.arange(len(starts), dtype=np.int32), np.diff(ends))
    return Clusters(of_image, heads[starts], members, ends)


def _has_attribute(lake: Lake, images: Images, wanted: str) -> NDArray[np.bool_]:
    name, _, value = wanted.partition("=")
    check_tables(lake.snapshot, "attributes")
    rows = lake.scan("attributes").filter(pl.col("name") == name)
    ids = rows.filter(pl.col("value") == value).select("image_id").unique().collect()["image_id"]
    if ids.is_empty():
        names = lake.scan("attributes").select(pl.col("name").unique()).collect().to_series().sort()
        if name not in names:
            raise_unknown(lake, "attribute", name, names.to_list())
    mask = np.zeros(len(images), np.bool_)
    numbers = images.find(ids)
    mask[numbers[numbers >= 0]] = True
    return mask


def _read_misses(lake: Lake, filters: Filters) -> pl.DataFrame:
    check_tables(lake.snapshot, "misses")
    rows = lake.scan("misses")
    if filters.split is not None:
        rows = rows.filter(split_name=filters.split)
    if filters.kind is not None:
        rows = rows.filter(model=filters.kind)
    return (
        rows.select("image_id", "model", "predicted", "probability", "nearest_id", "nearest_label", score="margin")
        .sort("score", "image_id", "model", descending=[True, False, False])
        .collect()
    )


def _newest(lake: Lake, images: Images) -> Numbers:
    """Return the images that the release before had not; all, if there is none before."""
    rows = lake.scan("releases").filter(pl.col("release") < lake.release).sort("release", descending=True)
    now = lake.snapshot.version("images")
    for versions in rows.select("versions").collect()["versions"].to_list():
        version = {of["table"]: of["version"] for of in versions}.get("images")
        if version in {None, now}:
            continue
        before = lake.snapshot.with_version("images", version)
        new = lake.snapshot.scan_changed("images", before).select("image_id").collect()["image_id"]
        old = before.scan_changed("images", lake.snapshot).select("image_id").collect()["image_id"]
        return np.sort(images.find(new.filter(~new.is_in(old.implode()))))
    return np.arange(len(images), dtype=np.int32)


def _in_range(score: NDArray[np.float32], filters: Filters) -> NDArray[np.bool_]:
    least = -np.inf if filters.least is None else np.float32(filters.least)
    most = np.inf if filters.most is None else np.float32(filters.most)
    return (score >= least) & (score <= most)


def _in_order(
    at: NDArray[np.int64], score: NDArray[np.float32], subject: NDArray[np.uint64], order: str
) -> NDArray[np.int64]:
    if order == "mixed":
        return at[np.argsort(subject * np.uint64(0x9E3779B97F4A7C15), kind="stable")]
    return at[np.argsort(score if order == "lowest" else -score, kind="stable")]


def parse_filters(query: Mapping[str, str]) -> Filters:
    """Read filters from the query of an address; an empty value is no filter.

    Raises:
        LakeError: a value is not possible. The message says which and why.
    """
    values: dict[str, Any] = {name: query[name] for name in Filters._fields if query.get(name)}
    for name in ("least", "most"):
        if name in values:
            try:
                values[name] = float(values[name])
            except ValueError:
                raise LakeError(f"{name} is {values[name]!r}; it must be a number, such as 0.9.") from None
    values["between"] = values.get("between") == "1"
    if values.get("order", "highest") not in ORDERS:
        raise LakeError(f"order is {values['order']!r}; it must be one of {', '.join(ORDERS)}.")
    if "attribute" in values and "=" not in values["attribute"]:
        raise LakeError(f"attribute is {values['attribute']!r}; write it as NAME=VALUE, such as patient=12.")
    return Filters(**values)


def query_of(filters: Filters) -> dict[str, str]:
    """Write filters as the query of an address."""
    defaults = Filters._field_defaults
    # 0.0 equals False, and a label may be named like an order: each is compared with the default of its own field.
    found = {
        name: value
        for name, value in filters._asdict().items()
        if (type(value), value) != (type(defaults[name]), defaults[name])
    }
    return {name: "1" if value is True else str(value) for name, value in found.items()}

"""A review: a lake of one release, what is decided in it, and what its pages show."""

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline import storage
from pipeline.errors import ImagelakeError, LakeError, QueryError
from pipeline.lake.reads import check_tables, explain_failures
from pipeline.lake.releases import release_versions, releases_stamp
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.report.formatting import certainty
from pipeline.report.formatting import score as format_score
from pipeline.review_app import precision, queues
from pipeline.review_app.decisions import CODES, WHOLE_CLUSTER, Decisions, Recorded
from pipeline.review_app.images import Numbers, is_one_of, load_images
from pipeline.review_app.links import links_of
from pipeline.review_app.pictures import difference
from pipeline.review_app.plot import draw_precision
from pipeline.review_app.queues import Filters, Queue, Queues, parse_filters, query_of
from pipeline.search.rules import forest_note, lake_rules, stored_rule
from pipeline.search.why import explain
from pipeline.sql import first_rows
from pipeline.verdicts.journal import Picture, Verdict
from schemas.verdicts import NOT_SURE

# Images of a cluster that are shown, pictures and rejects on a page, labels that a form suggests.
_SHOWN, _GRID, _REJECTS, _LABELS = 60, 60, 100, 500
# Pages of a query that can be shown: the rows of all pages before are read too.
_MOST_PAGES = 1000
# A decision about a whole cluster is about this many pairs at most.
_MOST_PAIRS = 5000
_TARGET = 0.95
TITLES = {
    queues.PAIRS: ("Pairs across roles", "Pairs of a rule, the most similar first. Are both pictures the same?"),
    queues.CONFLICTS: ("Label conflicts", "Duplicates with different labels. Which label is right?"),
    queues.CLUSTERS: ("Largest clusters", "All images that a rule links. Decide about all pairs at once."),
    queues.SUSPECTS: ("Label suspects", "Images whose label is probably wrong, the surest first."),
    queues.QUALITY: ("Quality issues", "Blank, dark, blurry and other doubtful images."),
    queues.MISSES: ("Misclassified images", "Test images that a model predicts wrongly, the surest first."),
    queues.NEWEST: ("Newest images", "Images that the release before did not have."),
    queues.NOT_SURE: ("Not sure", "Pairs about which you, or others, were not sure."),
}
EXAMPLES = {
    "All images": "SELECT image_id, label, path FROM images ORDER BY image_id",
    "Dropped images": (
        "SELECT image_id, role, dropped_by, reason FROM splits WHERE NOT kept ORDER BY split_name, rank"
    ),
    "The darkest": (
        "SELECT image_id, round(pixel_sum / (height * width * channels), 1) AS mean, path FROM images ORDER BY mean"
    ),
    "Unlike its cluster": (
        "SELECT image_id, label, rule FROM clusters QUALIFY count(DISTINCT label) OVER (PARTITION BY rule, cluster_id) "
        "> 1 ORDER BY rule, cluster_id"
    ),
}


class Decision(NamedTuple):
    """A decision as a form sends it.

    Attributes:
        verdict: a verdict of the verdicts table.
        about: pair, left, right or cluster.
        left: id of the image or of the first of the pair, as hexadecimal digits; of a cluster, of its representative.
        right: id of the other image of the pair; else empty.
        label: the right label, of the verdict label.
        note: a remark.
        score: the score of the pair; empty without one.
    """

    verdict: str
    about: str
    left: str
    right: str = ""
    label: str | None = None
    note: str | None = None
    score: str = ""


class Review:
    """The state of the app.

    Args:
        lake: the lake of a release.
        who: who decides; None for the name of the user.

    Raises:
        DamagedLakeError: a file of the lake is missing or damaged.
    """

    titles = TITLES

    def __init__(self, lake: Lake, who: str | None = None) -> None:
        self._open(lake, who)

    def _open(self, lake: Lake, who: str | None) -> None:
        # All is made before anything is assigned: after a failure, the release that was open stays open as a whole.
        images = load_images(lake)
        decisions = Decisions(lake, images, who)
        made = Queues(lake, images, decisions)
        rules = lake_rules(lake)
        counts = {
            table: {part.partition["rule"]: part.rows for part in lake.snapshot.files(table)}
            for table in ("pairs", "clusters")
        }
        stamp = releases_stamp(lake.snapshot)
        self.lake, self.images, self.decisions, self.queues = lake, images, decisions, made
        self.rules, self._counts, self._stamp, self._newest = rules, counts, stamp, lake.release

    def reload(self) -> None:
        """Open the newest release."""
        self._open(Lake(self.lake.root), self.decisions.who)

    def read_ahead(self) -> None:
        """Read what the first queue needs, while a person reads the first page. Errors are left to the queue."""
        with suppress(ImagelakeError):
            if (split := next(iter(self.queues.splits()), None)) is not None:
                self.queues.roles(split)
            if (rule := self._default_rule()) is not None:
                self.queues.pairs(rule)

    def frame(self) -> dict[str, Any]:
        """Return what every page shows."""
        if (stamp := releases_stamp(self.lake.snapshot, self._stamp)) != self._stamp:
            self._newest, self._stamp = release_versions(Snapshot(self.lake.root))[0], stamp
        root = self.lake.root
        return {
            "lake": storage.last_name(root),
            "place": root,
            "release": self.lake.release,
            "newest": self._newest,
            "who": self.decisions.who,
            "mine": self.decisions.mine,
            "read_only": not storage.is_bucket(root) and not os.access(root, os.W_OK),
            "titles": TITLES,
        }

    def overview(self) -> dict[str, Any]:
        """Describe the queues for the first page, without making them."""
        split = next(iter(self.queues.splits()), None)
        rule = self._default_rule()
        kinds = self.queues.kinds()
        counts = {
            queues.PAIRS: self._counts["pairs"].get(rule or ""),
            queues.CONFLICTS: None,
            queues.CLUSTERS: None,
            queues.NEWEST: None,
            queues.NOT_SURE: None,
            queues.SUSPECTS: kinds.get(queues.SUSPECT, 0),
            queues.QUALITY: sum(count for kind, count in kinds.items() if kind != queues.SUSPECT),
            queues.MISSES: sum(part.rows for part in self.lake.snapshot.files("misses")),
        }
        needs_rule = (*queues.PAIR_QUEUES, queues.CLUSTERS)
        cards = []
        for name, (title, text) in TITLES.items():
            there = rule is not None if name in needs_rule else counts[name] != 0
            filters = Filters(split=split, rule=rule if name in needs_rule else None, between=name == queues.PAIRS)
            cards.append(
                {
                    "name": name,
                    "title": title,
                    "text": text,
                    "query": query_of(filters),
                    "there": there,
                    "rules": self.rules if name in needs_rule else [],
                    "kinds": [kind for kind in kinds if kind != queues.SUSPECT] if name == queues.QUALITY else [],
                }
            )
        rejects = sum(part.rows for part in self.lake.snapshot.files("rejects"))
        return {
            "cards": cards,
            "images": len(self.images),
            "rejects": rejects,
            "pairs": self._counts["pairs"],
            "rules": self.rules,
        }

    def _default_rule(self) -> str | None:
        """Return the strictest rule with pairs; without any, the strictest."""
        return next((rule for rule in self.rules if self._counts["pairs"].get(rule)), next(iter(self.rules), None))

    def _filters(self, name: str, values: Mapping[str, str]) -> Filters:
        filters = parse_filters(values)
        needs_rule = name in queues.PAIR_QUEUES or name == queues.CLUSTERS
        return filters._replace(rule=self._default_rule()) if needs_rule and filters.rule is None else filters

    def item(self, name: str, values: Mapping[str, str]) -> dict[str, Any] | None:
        """Describe an item of a queue; None if there is no such queue.

        Args:
            name: name of the queue.
            values: the filters, and `at`: position of the item; or `of` and `and`: ids of images of the cluster.
                Without them, the first item that is not decided is described.

        Raises:
            LakeError: a filter is not possible, or the images of `of` and `and` are in no cluster together.
        """
        if name not in TITLES:
            return None
        filters = self._filters(name, values)
        queue = self.queues.queue(name, filters)
        text = values.get("at", "")
        at = min(int(text), len(queue) - 1) if text.isdecimal() and len(queue) else queue.next_open(0)
        if name == queues.CLUSTERS and values.get("of"):
            at = self._cluster_of(queue, [self._number(values[end]) for end in ("of", "and") if values.get(end)])
        page: dict[str, Any] = {
            "name": name,
            "title": TITLES[name][0],
            "filters": filters,
            "query": query_of(filters),
            "options": self._options(name, filters),
            "total": len(queue),
            "done": int(np.count_nonzero(queue.decided)),
            "at": at,
            "labels": self.images.labels.names[:_LABELS],
            "rule": filters.rule,
            "prefetch": [],
        }
        if at is None:
            return {**page, "kind": "end"}
        page["decided"] = bool(queue.decided[at])
        page["prefetch"] = self._prefetch(queue, at)
        page["score"] = None if queue.score is None else float(queue.score[at])
        if name == queues.CLUSTERS:
            return {**page, "kind": "cluster", **self._cluster(filters, int(queue.left[at]))}
        numbers = [int(queue.left[at]), *([] if queue.right is None else [int(queue.right[at])])]
        rows = self.images.rows(numbers)
        extra = {} if queue.extra is None else queue.extra.row(at, named=True)
        page["sides"] = [self._side(row, filters.split) for row in rows]
        if queue.right is not None:
            subject = int(queue.subject[at]) if queue.subject is not None else 0
            same_file = int(self.images.keys[numbers[0]]) == int(self.images.keys[numbers[1]])
            return {
                **page,
                "kind": "pair",
                "same_file": same_file,
                "verdict": None if same_file else self.decisions.verdict(subject),
                "difference": difference(rows[0], rows[1], filters.rule),
                "has_scores": self.queues.pairs(filters.rule or "").has_scores,
                "cluster": query_of(Filters(filters.rule, filters.split))
                | dict(zip(("of", "and"), (side["image_id"] for side in page["sides"]), strict=True)),
            }
        return {**page, "kind": "image", "about": self._about(extra), "suggested": _suggested(extra)}

    def _cluster_of(self, queue: Queue, numbers: list[int]) -> int:
        """Find the cluster of a pair in a queue of clusters: its position."""
        first, *others = self.queues.clusters(queue.filters.rule or "").of_image[numbers].tolist()
        if first < 0 or any(other != first for other in others):
            raise LakeError(
                f"this pair is in no cluster of {queue.filters.rule}, such as after the verdict that its pictures are "
                "different. Decide about it in the queue of pairs."
            )
        found = np.flatnonzero(queue.left == first)
        if not len(found):
            raise LakeError(
                "the cluster of this pair is not in the queue: all its images have the same file, or the filters leave "
                "it out."
            )
        return int(found[0])

    def _prefetch(self, queue: Queue, at: int) -> list[str]:
        """List the pictures of the item that comes next if this one is decided."""
        following = queue.next_open(at + 1)
        if following is None or queue.name == queues.CLUSTERS:
            return []
        numbers = [queue.left[following], *([] if queue.right is None else [queue.right[following]])]
        return [f"/picture/{self.images.id_of(int(number))}.png?release={self.lake.release}" for number in numbers]

    def _side(self, row: Mapping[str, Any], split: str | None) -> dict[str, Any]:
        """Describe an image: its facts, role and verdict."""
        number = row["number"]
        roles = self.queues.roles(split)
        keeper = int(roles.dropped_for[number])
        digest = row["file_digest"] or row["content_hash"]
        return {
            **{name: row[name] for name in ("path", "label", "height", "width", "channels", "file_size", "source")},
            "image_id": row["image_id"].hex(),
            "src": f"/picture/{row['image_id'].hex()}.png?release={self.lake.release}",
            "digest": digest.hex(),
            "role": roles.role.name(number) if split is not None else None,
            "split": split,
            "dropped_by": roles.dropped_by.name(number),
            "reason": roles.reason.name(number),
            "dropped_for": self.images.id_of(keeper) if keeper >= 0 else None,
            "verdict": self.decisions.verdict(int(self.images.keys[number])),
            "small": max(row["height"], row["width"]) <= 160,  # noqa: PLR2004 - enlarged without smoothing
        }

    def _about(self, extra: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Describe what a queue knows of an image beside its score."""
        if "predicted" in extra:
            chance = extra["probability"]
            said = extra["predicted"] if chance is None else f"{extra['predicted']} ({certainty(chance)})"
            return [("predicted", said), ("model", extra["model"])]
        if "kind" in extra:
            if extra["suggested"] is None:
                return [("issue", extra["kind"])]
            agreed = extra["agreement"]
            voices = [] if agreed is None else [("nearest pictures with this label", certainty(agreed))]
            return [("suggested label", extra["suggested"]), *voices]
        return []

    def _cluster(self, filters: Filters, cluster: int) -> dict[str, Any]:
        clusters = self.queues.clusters(filters.rule or "")
        members = clusters.of(cluster)
        shown = members[:_SHOWN]
        labels, roles = self.images.labels, self.queues.roles(filters.split).role
        return {
            "cluster_id": self.images.id_of(int(clusters.representative[cluster])),
            "size": len(members),
            "pairs": len(self._cluster_pairs(filters, cluster, "different")[0]),
            "too_many": {
                verdict: len(self._cluster_pairs(filters, cluster, verdict)[0]) > _MOST_PAIRS
                for verdict in ("same", "different")
            },
            "tiles": [self._tile(int(number), roles.name(int(number))) for number in shown],
            "label_counts": _counts(labels, members),
            "role_counts": _counts(roles, members),
        }

    def _tile(self, number: int, caption: str | None) -> dict[str, Any]:
        image_id = self.images.id_of(number)
        return {
            "image_id": image_id,
            "src": f"/picture/{image_id}.png?side=small&release={self.lake.release}",
            "label": self.images.labels.name(number),
            "caption": [caption] if caption is not None else [],
        }

    def _cluster_pairs(self, filters: Filters, cluster: int, verdict: str) -> tuple[Numbers, Numbers]:
        """List the pairs that a decision about a cluster is about: numbers of their images."""
        rule = filters.rule or ""
        clusters, pairs = self.queues.clusters(rule), self.queues.pairs(rule)
        if pairs.has_scores or verdict != "different":
            at = np.flatnonzero((clusters.of_image[pairs.left] == cluster) & ~pairs.same_file)
            left, right, subject = pairs.left[at], pairs.right[at], pairs.subject[at]
        else:
            members = clusters.of(cluster)
            _, first = np.unique(self.images.keys[members], return_index=True)
            different = members[np.sort(first)]
            if len(different) > _MOST_PAIRS:
                # Refused in any case: so many images have many more pairs.
                return different, different
            one, other = np.triu_indices(len(different), 1)
            return different[one], different[other]
        _, once = np.unique(subject, return_index=True)
        return left[np.sort(once)], right[np.sort(once)]

    def _options(self, name: str, filters: Filters) -> dict[str, list[str]]:
        """List the values that filters can have."""
        kinds = {
            queues.QUALITY: [kind for kind in self.queues.kinds() if kind != queues.SUSPECT],
            queues.MISSES: self._models,
        }
        return {
            "rule": self.rules if name in (*queues.PAIR_QUEUES, queues.CLUSTERS) else [],
            "split": self.queues.splits(),
            "role": self.queues.roles(filters.split).role.names,
            "label": self.images.labels.names[:_LABELS],
            "dataset": self.images.datasets.names,
            "reason": self.queues.reasons(filters.split),
            "kind": kinds.get(name, []),
        }

    @property
    def _models(self) -> list[str]:
        names: list[str] = self.lake.scan("misses").select(pl.col("model").unique().sort()).collect()["model"].to_list()
        return names

    def decide(self, name: str, values: Mapping[str, str], decision: Decision, at: int) -> int | None:
        """Record a decision. When this returns, it is on the disk or in the bucket.

        Args:
            name: name of the queue in which it was made; empty for the page of an image.
            values: the filters of the queue.
            decision: the decision.
            at: position of the item.

        Returns:
            The position to show next; None for the first that is not decided.

        Raises:
            LakeError: the decision is not possible, or the lake cannot be written to. Nothing is recorded.
        """
        filters = self._filters(name, values) if name in TITLES else Filters()
        verdicts = self._verdicts(name, filters, decision)
        recorded = self.decisions.record(verdicts)
        self.queues.update(recorded.subjects)
        if name not in TITLES:
            return None
        queue = self.queues.queue(name, filters)
        if at < len(queue) and not queue.decided[at] and decision.verdict != NOT_SURE:
            return at
        return queue.next_open(min(at + 1, len(queue)))

    def _verdicts(self, name: str, filters: Filters, decision: Decision) -> list[Verdict]:
        left = self._number(decision.left)
        if decision.about == "cluster":
            return self._cluster_verdicts(
                filters, int(self.queues.clusters(filters.rule or "").of_image[left]), decision
            )
        if decision.about == "pair":
            right = self._number(decision.right)
            one, other = (_picture(row) for row in self.images.rows([left, right]))
            scored = self.queues.pairs(filters.rule).has_scores if name in TITLES and filters.rule else False
            score = float(decision.score) if scored and decision.score and isfinite(float(decision.score)) else None
            return [Verdict(decision.verdict, one, other, rule=filters.rule, score=score, note=decision.note)]
        if decision.about not in {"left", "right"}:
            raise LakeError(f"a decision is about a pair, left, right or a cluster, not about {decision.about!r}.")
        number = left if decision.about == "left" else self._number(decision.right)
        (row,) = self.images.rows([number])
        label = (decision.label or "").strip() if decision.verdict == "label" else None
        return [Verdict(decision.verdict, _picture(row), label=label, note=decision.note)]

    def _cluster_verdicts(self, filters: Filters, cluster: int, decision: Decision) -> list[Verdict]:
        if cluster < 0:
            raise LakeError(f"image {decision.left} is in no cluster of {filters.rule}.")
        left, right = self._cluster_pairs(filters, cluster, decision.verdict)
        if len(left) > _MOST_PAIRS:
            raise LakeError(
                f"this cluster has too many pairs to decide at once: {_MOST_PAIRS:,} at most. Decide about its pairs "
                "in the queue of pairs, or use a stricter rule."
            )
        both = np.concatenate([left, right])
        ids = pl.Series([self.images.ids[number].tobytes() for number in np.unique(both)], dtype=pl.Binary)
        rows = self.lake.scan("images").filter(pl.col("image_id").is_in(ids.implode()))
        found = rows.select("image_id", "content_hash", "file_digest").collect()
        numbers = self.images.find(found["image_id"]).tolist()
        pictures = {
            number: Picture(content_hash, file_digest)
            for number, content_hash, file_digest in zip(
                numbers, found["content_hash"], found["file_digest"], strict=True
            )
        }
        # Two decisions about one cluster are taken back one after the other.
        note = f"{WHOLE_CLUSTER} {decision.left} of {filters.rule}, decision {uuid.uuid4().hex}"
        return [
            Verdict(decision.verdict, pictures[one], pictures[other], rule=filters.rule, note=note)
            for one, other in zip(left.tolist(), right.tolist(), strict=True)
        ]

    def _number(self, image_id: str) -> int:
        number = self.images.number(image_id)
        if number < 0:
            raise LakeError(f"release {self.lake.release} has no image {image_id!r}. Open the overview again.")
        return number

    def undo(self, name: str, values: Mapping[str, str]) -> tuple[int, int | None]:
        """Take back the last decision of this person.

        Args:
            name: name of the queue that is shown; empty for another page.
            values: its filters.

        Returns:
            The number of verdicts that were taken back, and the position in the queue that is open again; None if it is
            in none.
        """
        filters = self._filters(name, values) if name in TITLES else Filters()
        queue = self.queues.queue(name, filters) if name in TITLES else None
        before = None if queue is None else queue.decided.copy()
        recorded: Recorded = self.decisions.undo()
        self.queues.update(recorded.subjects)
        if queue is None or before is None:
            return recorded.verdicts, None
        after = self.queues.queue(name, filters)
        if after is queue:
            opened = np.flatnonzero(before & ~queue.decided)
        elif queue.subject is not None and after.subject is not None:
            opened = np.flatnonzero(~after.decided & ~is_one_of(after.subject, queue.subject[~before]))
        else:
            opened = np.empty(0, np.int64)
        text = values.get("at", "")
        stay = int(text) if text.isdecimal() else None
        return recorded.verdicts, int(opened[0]) if len(opened) else stay

    def image(self, number: int) -> dict[str, Any]:
        """Describe an image: its facts, all that `why` knows, and the history of its verdicts."""
        (row,) = self.images.rows([number])
        split = next(iter(self.queues.splits()), None)
        image_id = row["image_id"].hex()
        found = explain(self.lake, image_id, brief=True)
        why = next(one for one in found.images if one["image_id"] == image_id)
        history = self.decisions.about_picture(_picture(row))
        return {
            "side": self._side(row, split),
            "why": why,
            "links": [
                {
                    **link._asdict(),
                    "tiles": [
                        self._tile(at, None if score is None else f"score {format_score(score)}")
                        for at, score in link.listed
                    ],
                }
                for link in links_of(self.lake, self.images, number, self.rules)
            ],
            "history": [self._past(row["file_digest"] or row["content_hash"], past) for past in history],
            "labels": self.images.labels.names[:_LABELS],
            "title": row["path"],
        }

    def _past(self, key: bytes, row: Mapping[str, Any]) -> dict[str, Any]:
        """Describe a verdict of the past about a picture."""
        digests = [row["file_digest"] or row["content_hash"], row["other_file_digest"] or row["other_content_hash"]]
        others = [digest for digest in digests if digest is not None and digest != key]
        same = self.images.keys == int.from_bytes(others[0][:8], "little") if others else None
        number = int(same.argmax()) if same is not None and same.any() else -1
        return {
            **{name: row[name] for name in ("verdict", "who", "label", "rule", "score", "note", "counts")},
            "created_at": f"{row['created_at']:%Y-%m-%d %H:%M}",
            "other": self.images.id_of(number) if number >= 0 else None,
            "is_pair": (row["other_file_digest"] or row["other_content_hash"]) is not None,
        }

    def grid(self, text: str, page: int) -> dict[str, Any]:
        """Run a query with a column image_id, and describe a page of its images, of the first 1,000 at most."""
        page = min(page, _MOST_PAGES - 1)
        empty: dict[str, Any] = {
            "sql": text,
            "examples": EXAMPLES,
            "tiles": [],
            "total": None,
            "page": page,
            "pages": 0,
            "error": None,
        }
        if not text.strip():
            return empty
        try:
            found = first_rows(self.lake, text, most=(page + 1) * _GRID)
        except QueryError as error:
            return {**empty, "error": str(error)}
        name = next((column for column in found.first.columns if column.lower() == "image_id"), None)
        if name is None:
            return {**empty, "error": "the query has no column image_id."}
        rows = found.first[page * _GRID :]
        ids = rows[name].cast(pl.String).str.decode("hex", strict=False)
        numbers = np.full(len(rows), -1)
        good = (ids.bin.size() == self.images.ids.shape[1]).fill_null(value=False).to_numpy()
        numbers[good] = self.images.find(ids.filter(pl.Series(good)))
        tiles = []
        for number, row in zip(numbers.tolist(), rows.iter_rows(named=True), strict=True):
            if number >= 0:
                others = [
                    f"{column} {value}"
                    for column, value in row.items()
                    if column not in {name, "label"} and value is not None
                ]
                tiles.append({**self._tile(number, None), "caption": others})
        return {**empty, "tiles": tiles, "total": found.total, "pages": min(-(-found.total // _GRID), _MOST_PAGES)}

    def rejects(self, reason: str | None, dataset: str | None, page: int) -> dict[str, Any]:
        """Describe a page of the files that did not become images."""
        rows, counts = _read_rejects(self.lake, reason, dataset, page)
        total = sum(count for name, count in counts if reason in {None, name})
        return {
            "rows": rows.to_dicts(),
            "reasons": counts,
            "reason": reason,
            "dataset": dataset,
            "total": total,
            "page": page,
            "pages": -(-total // _REJECTS),
        }

    def precision(self, rule: str | None, target_text: str) -> dict[str, Any]:
        """Describe how precise a rule is by score, and the threshold that follows."""
        rules = [name for name in self.rules if self._counts["pairs"].get(name)]
        target = _target(target_text)
        rule = rule or next(iter(rules), None)
        page: dict[str, Any] = {
            "rules": rules,
            "rule": rule,
            "target": target,
            "proposal": None,
            "decided": 0,
            "needed": precision.LEAST,
            "plot": None,
            "query": query_of(Filters(rule=rule, order="mixed")),
            "stored": 0,
            "note": "",
        }
        if rule is None:
            return page
        pairs = self.queues.pairs(rule)
        page["note"] = forest_note(self.lake, stored_rule(self.lake, rule)).strip()
        codes = self.decisions.codes(pairs.subject)
        same, different = (codes == CODES[name] for name in ("same", "different"))
        at = np.flatnonzero((same | different) & ~pairs.same_file)
        _, first = np.unique(pairs.subject[at], return_index=True)
        at = at[first]
        stored = pairs.score[~pairs.same_file]
        page |= {"decided": len(at), "stored": len(stored)}
        if len(at) < precision.LEAST or not pairs.has_scores:
            return page
        proposal = precision.propose(stored, pairs.score[at], same[at], target)
        return {**page, "proposal": proposal, "plot": draw_precision(proposal)}


def _target(text: str) -> float:
    try:
        target = float(text) if text else _TARGET
    except ValueError:
        target = 0.0
    if not 0.5 <= target < 1:  # noqa: PLR2004 - below, a threshold makes no sense
        raise LakeError(f"the wanted precision is {text!r}; it must be a number from 0.5 to below 1, such as 0.95.")
    return target


@explain_failures
def _read_rejects(
    lake: Lake, reason: str | None, dataset: str | None, page: int
) -> tuple[pl.DataFrame, list[tuple[str, int]]]:
    check_tables(lake.snapshot, "rejects")
    rows = lake.scan("rejects")
    if dataset is not None:
        rows = rows.filter(dataset=dataset)
    counts = rows.group_by("reason").agg(count=pl.len()).sort("reason").collect().rows()
    if reason is not None:
        rows = rows.filter(reason=reason)
    return rows.sort("dataset", "split", "path").slice(page * _REJECTS, _REJECTS).collect(), counts


def _picture(row: Mapping[str, Any]) -> Picture:
    return Picture(row["content_hash"], row["file_digest"])


def _suggested(extra: Mapping[str, Any]) -> str | None:
    """Return the label that a queue suggests for an image."""
    suggested: str | None = extra.get("suggested", extra.get("predicted"))
    return suggested


def _counts(codes: Any, members: Numbers) -> list[tuple[str, int]]:  # noqa: ANN401 - Codes
    counts = np.bincount(codes.codes[members], minlength=len(codes.names) + 1)
    found = [("none" if code == 0 else codes.names[code - 1], int(counts[code])) for code in np.flatnonzero(counts)]
    return sorted(found, key=lambda item: -item[1])[:8]

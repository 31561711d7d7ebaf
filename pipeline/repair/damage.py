"""What is hurt in a lake as it stands, sorted by what brings it back."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pipeline.builder.state import SHARD_KEY
from pipeline.dedup.rules import parse_rule, photo
from pipeline.engines import Engine
from pipeline.errors import LakeError
from pipeline.lake.commits import files, read_meta
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.verify import Fault, hold_laws
from pipeline.verify.laws import releases_are_told
from pipeline.verify.logs import logs_are_whole
from pipeline.verify.tables import check_tables, list_tables

ShardKey = tuple[str, ...]
# Tables that are partitioned by what is made as one, and the column that names it.
_UNITS = {"pairs": "rule", "clusters": "rule", "splits": "split_name"}


@dataclass(frozen=True)
class Hurt:
    """What is hurt.

    Attributes:
        root: the lake's place.
        faults: all that was found.
        shards: by shard whose images are hurt, how many.
        paths: by table, paths of the files that are hurt.
        units: by table, the rules, splits or "" for the table as a whole that are to be made again.
    """

    root: str
    faults: Sequence[Fault]
    shards: Counter[ShardKey] = field(default_factory=Counter)
    paths: dict[str, set[str]] = field(default_factory=dict)
    units: dict[str, set[str]] = field(default_factory=dict)

    def of(self, table: str) -> Collection[str]:
        """Give the paths of the files of a table that are hurt."""
        return self.paths.get(table, set())

    def places(self) -> set[str]:
        """Give the places of all files that are hurt."""
        return {f"{self.root}/{table}/{path}" for table, paths in self.paths.items() for path in paths}

    def still(self, table: str) -> set[str]:
        """Give the paths of the files that are hurt and still of the table."""
        return {part.path for part in files(self.root, table)} & set(self.of(table)) if self.of(table) else set()


def need_logs(root: str) -> None:
    """Make sure that the log of every table is whole.

    Raises:
        LakeError: one is not: nothing can be repaired.
    """
    logs = logs_are_whole(root).faults
    if logs:
        more = f" (and {len(logs) - 1} more: imagelake verify {root})" if len(logs) > 1 else ""
        raise LakeError(f"{logs[0]}{more}. Nothing was repaired: what the files of a table are, its log alone tells.")


def find_hurt(root: str, engine: Engine, progress: Progress) -> Hurt:
    """Check the tables of a lake as they stand, as `verify` checks a release; their logs are whole.

    Args:
        root: the lake's place.
        engine: where to run.
        progress: where to show it.

    Raises:
        StorageError: a bucket does not answer.
    """
    lake = Lake.working(root)
    found = check_tables(list_tables(lake), engine, progress)
    progress.step("verify laws")
    laws = [fault for check in hold_laws(lake, found.unread) for fault in check.faults if fault.kind == "law"]
    return _sorted(root, [*found.faults, *releases_are_told(root).faults, *laws])


def _sorted(root: str, faults: Sequence[Fault]) -> Hurt:
    hurt = Hurt(root, faults)
    for fault in faults:
        if fault.file:
            hurt.paths.setdefault(fault.table, set()).add(fault.file.removeprefix(f"{root}/{fault.table}/"))
        if fault.table == "images" and fault.partition:
            key = tuple(fault.partition[name] for name in SHARD_KEY)
            # Faults of one shard may be about the same images.
            hurt.shards[key] = max(hurt.shards[key], fault.rows or 0)
        elif fault.table not in ("", "images", "index", "rejects"):
            unit = fault.partition.get(_UNITS.get(fault.table, ""), "")
            hurt.units.setdefault(fault.table, set()).add(unit)
    if "bases" in hurt.units:
        _with_photos(root, hurt)
    return hurt


def _with_photos(root: str, hurt: Hurt) -> None:
    """Make again all that was made by a basis: fitted again, to other images, it is another."""
    rules = {rule for rule in read_meta(root, "pairs").units if _compares_photos(rule)}
    by_them = {
        name
        for name, unit in read_meta(root, "splits").units.items()
        if any(map(_compares_photos, (*unit["spec"]["sanitize"], *unit["spec"].get("groups", ()))))
    }
    for table, units in (("pairs", rules), ("clusters", rules), ("splits", by_them)):
        if units:
            hurt.units.setdefault(table, set()).update(units)


def _compares_photos(rule: str) -> bool:
    return isinstance(parse_rule(rule).comparison, photo.Photo)

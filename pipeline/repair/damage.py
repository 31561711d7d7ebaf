"""Find the damage of a lake at its newest versions, grouped by how it is repaired."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pipeline.builder.state import SHARD_KEY
from pipeline.dedup.rules import parse_rule, photo
from pipeline.engines import Engine
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.recipe.rules import attribute_of
from pipeline.verify import Fault, check_laws
from pipeline.verify.laws import check_releases
from pipeline.verify.tables import check_tables, list_tables

ShardKey = tuple[str, ...]
# Tables that are partitioned by unit, and the column that names the unit.
_UNITS = {"attributes": "dataset", "pairs": "rule", "clusters": "rule", "issues": "kind", "splits": "split_name"}


@dataclass(frozen=True)
class Damage:
    """The damage of a lake.

    Attributes:
        place: the lake's place.
        faults: all faults.
        shards: by shard, the number of its damaged images.
        originals: by shard, the number of its damaged originals.
        paths: by table, paths of the damaged files.
        units: by table, the rules or splits that must be made again; "" for the whole table.
    """

    place: str
    faults: Sequence[Fault]
    shards: Counter[ShardKey] = field(default_factory=Counter)
    originals: Counter[ShardKey] = field(default_factory=Counter)
    paths: dict[str, set[str]] = field(default_factory=dict)
    units: dict[str, set[str]] = field(default_factory=dict)

    def of(self, table: str) -> Collection[str]:
        """Return the paths of the damaged files of a table."""
        return self.paths.get(table, set())

    def places(self) -> set[str]:
        """Return the places of all damaged files."""
        return {f"{self.place}/{table}/{path}" for table, paths in self.paths.items() for path in paths}

    def remaining(self, snapshot: Snapshot, table: str) -> set[str]:
        """Return the paths of the damaged files that still belong to the table."""
        return {part.path for part in snapshot.files(table)} & set(self.of(table)) if self.of(table) else set()


def find_damage(snapshot: Snapshot, engine: Engine, progress: Progress) -> Damage:
    """Check the tables of a lake at the snapshot's versions, as `verify` checks a release.

    Args:
        snapshot: of the lake, whose logs are whole.
        engine: where to run.
        progress: shows the progress.

    Raises:
        StorageError: a bucket does not answer.
    """
    lake = Lake.working(snapshot)
    files = check_tables(list_tables(lake), engine, progress, read_references=True)
    progress.step("verify laws")
    laws = [fault for check in check_laws(lake, files.unreadable) for fault in check.faults if fault.kind == "law"]
    return _group(snapshot, [*files.faults, *check_releases(snapshot).faults, *laws])


def _group(snapshot: Snapshot, faults: Sequence[Fault]) -> Damage:
    damage = Damage(snapshot.place, faults)
    for fault in faults:
        if fault.file:
            damage.paths.setdefault(fault.table, set()).add(fault.file.removeprefix(f"{snapshot.place}/{fault.table}/"))
        if fault.table in ("images", "originals") and fault.partition:
            key = tuple(fault.partition[name] for name in SHARD_KEY)
            counts = damage.shards if fault.table == "images" else damage.originals
            # Several faults of a shard may name the same images.
            counts[key] = max(counts[key], fault.rows or 0)
        elif fault.table not in ("", "images", "originals", "index", "rejects"):
            unit = fault.partition.get(_UNITS.get(fault.table, ""), "")
            damage.units.setdefault(fault.table, set()).add(unit)
    if "bases" in damage.units:
        _add_photo_rules(snapshot, damage)
    return damage


def _add_photo_rules(snapshot: Snapshot, damage: Damage) -> None:
    """Add every unit made with a basis, as a basis that is fitted to other images differs."""
    rules = {rule for rule in snapshot.metadata("pairs").units if _uses_basis(rule)}
    splits = {
        name
        for name, unit in snapshot.metadata("splits").units.items()
        if any(map(_uses_basis, (*unit["spec"]["sanitize"], *unit["spec"].get("groups", ()))))
    }
    for table, units in (("pairs", rules), ("clusters", rules), ("splits", splits)):
        if units:
            damage.units.setdefault(table, set()).update(units)


def _uses_basis(rule: str) -> bool:
    return attribute_of(rule) is None and isinstance(parse_rule(rule).comparison, photo.Photo)

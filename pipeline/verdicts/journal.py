"""The journal: verdicts that no build has put into the table `verdicts` yet.

Every call of `record` writes one file of `.verdicts` in the lake, or one object of a bucket, with a line for each
verdict. Its name is an id and the digest of its bytes. It is on the disk before the call returns, and it appears whole
or not at all. No lock is needed, also while a build runs. A build that has committed entries deletes them; one that is
killed in between leaves them, and as every verdict has an id of its own, the next build commits none of them twice.

Beside the entries is a second copy of the table, `copy-DIGEST.jsonl`: nothing can make verdicts again.
"""

import getpass
import json
import math
import re
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl
import xxhash

import schemas
from pipeline import storage
from pipeline.errors import DamagedLakeError, LakeError, one_line
from pipeline.lake.snapshot import Snapshot
from pipeline.sources.labels import normal_label
from pipeline.storage.atomic import write_durably
from schemas.verdicts import NOT_SURE, PAIR_VERDICTS, PICTURE_VERDICTS, WITHDRAWN

TABLE = "verdicts"
FOLDER = ".verdicts"
_ENTRY = re.compile(r"[0-9a-f]{32}([0-9a-f]{32})\.jsonl")
_COPY = re.compile(r"copy-[0-9a-f]{32}\.jsonl")
SCHEMA = pl.Schema(schemas.TABLES[TABLE].schema)
# Verdicts are read in this order; of several about one picture or pair, the last counts.
ORDER = ("created_at", "who", "file_digest", "verdict_id")
BINARY = [name for name, dtype in SCHEMA.items() if dtype == pl.Binary]
# The columns as text, as in an entry.
TEXT = pl.Schema({name: pl.String if name != "score" else pl.Float32 for name in SCHEMA})

# Bytes of the digests that identify pictures.
_LENGTHS = {"file_digest": 32, "content_hash": 16, "other_file_digest": 32, "other_content_hash": 16}

_clock_lock = threading.Lock()
_last_time = 0


class Picture(NamedTuple):
    """What identifies a picture apart from its path.

    Attributes:
        content_hash: `images.content_hash`, 16 bytes.
        file_digest: `images.file_digest`, 32 bytes; None in lakes of imagelake 0.5 that were not read again.
    """

    content_hash: bytes
    file_digest: bytes | None = None

    @property
    def key(self) -> bytes:
        """The digest of the file or, where it is unknown, of the pixels."""
        return self.file_digest or self.content_hash


class Verdict(NamedTuple):
    """A decision about a picture or a pair of pictures.

    Attributes:
        verdict: same, different, keep, drop, label, wrong_label or not_sure.
        picture: the picture, or one of the pair.
        other: the other picture of a pair; None for a verdict about one picture.
        label: the right label, of the verdict label.
        rule: the rule under which the pair was shown.
        score: the score of the pair at that time.
        note: a remark.
    """

    verdict: str
    picture: Picture
    other: Picture | None = None
    label: str | None = None
    rule: str | None = None
    score: float | None = None
    note: str | None = None


def record(place: str, verdicts: Sequence[Verdict], who: str | None = None) -> list[bytes]:
    """Record verdicts together: when this returns, they are on the disk or in the bucket.

    Args:
        place: the lake's place.
        verdicts: the decisions, in the order in which they were made.
        who: who decided; None for the name of the user.

    Returns:
        The verdict_id of each.

    Raises:
        LakeError: a verdict is not possible; none is recorded. The message says which and why.
        DiskFullError: no space is left; none is recorded.
        StorageError: the bucket does not answer.
    """
    return append(place, verdict_rows(verdicts, who))


def withdraw(place: str, verdict_ids: Iterable[bytes], who: str | None = None) -> list[bytes]:
    """Take verdicts back. What was decided before about the same picture or pair counts again.

    Args:
        place: the lake's place.
        verdict_ids: the verdicts.
        who: who takes them back; None for the name of the user.

    Returns:
        The verdict_id of each of the new rows.

    Raises:
        LakeError: there is no such verdict, or it is itself a withdrawal; nothing is recorded.
    """
    wanted = list(verdict_ids)
    known = read_verdicts(place)
    can_be = set(known.filter(pl.col("verdict") != WITHDRAWN)["verdict_id"])
    for verdict_id in wanted:
        if verdict_id not in can_be:
            raise LakeError(
                f"{place}: there is no verdict {verdict_id.hex()} to take back. List them with: imagelake verdicts "
                f"list {place}"
            )
    about = {row["verdict_id"]: row for row in known.filter(pl.col("verdict_id").is_in(wanted)).iter_rows(named=True)}
    return append(place, withdrawals([about[verdict_id] for verdict_id in wanted], who))


def verdict_rows(verdicts: Sequence[Verdict], who: str | None = None) -> list[dict[str, Any]]:
    """Make the rows of verdicts for `append`, in the order in which they were made.

    Raises:
        LakeError: a verdict is not possible. The message says which and why.
    """
    name = who or user_name()
    return [_row(verdict, name) for verdict in verdicts]


def withdrawals(rows: Iterable[Mapping[str, Any]], who: str | None = None) -> list[dict[str, Any]]:
    """Make the rows for `append` that take verdicts back, given the rows of these."""
    name = who or user_name()
    subject = ("file_digest", "content_hash", "other_file_digest", "other_content_hash")
    return [
        {
            **dict.fromkeys(SCHEMA),
            **_new_row(name, WITHDRAWN),
            **{column: row[column] for column in subject},
            "withdraws": row["verdict_id"],
        }
        for row in rows
    ]


def append(place: str, rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Write rows of the verdicts table as one entry of the journal; see `record`."""
    if not rows:
        return []
    content = "".join(map(_line, rows)).encode()
    name = f"{uuid.uuid4().hex}{xxhash.xxh3_128_hexdigest(content)}.jsonl"
    write_durably(f"{place}/{FOLDER}/{name}", content, place)
    return [row["verdict_id"] for row in rows]


def read_verdicts(place: str, snapshot: Snapshot | None = None) -> pl.DataFrame:
    """Read every verdict, also those that no build has committed yet.

    Args:
        place: the lake's place.
        snapshot: where to read the table; None for its newest version.

    Returns:
        Rows of the verdicts table, ordered by created_at, who, file_digest and verdict_id; each verdict once.

    Raises:
        DamagedLakeError: an entry of the journal or a file of the table is damaged.
    """
    # First the journal: what a build moves meanwhile is found in the table.
    waiting = [rows for _, rows in read_journal(place)]
    rows = in_order(pl.concat([committed_verdicts(snapshot or Snapshot(place)), *waiting]))
    if len(rows):
        # The clocks of people differ. A decision is later than those that its maker could see.
        _now(after=int(rows["created_at"].dt.epoch("us").max()))  # type: ignore[arg-type] # a whole number
    return rows


def committed_verdicts(snapshot: Snapshot) -> pl.DataFrame:
    """Read the rows of the verdicts table, after a check of its files.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """
    storage.check_files(snapshot.file_places(TABLE))
    return snapshot.scan(TABLE).collect()


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort rows of the verdicts table as `read_verdicts` does, each verdict once."""
    return rows.unique("verdict_id", keep="first").sort(*ORDER)


def read_journal(place: str) -> list[tuple[str, pl.DataFrame]]:
    """Read the entries of the journal.

    Returns:
        For every entry, its file or object, and rows of the verdicts table. An entry that another process deletes
        meanwhile is left out: its rows are in the table.

    Raises:
        DamagedLakeError: an entry cannot be read.
    """
    found = []
    for name in storage.list_files(f"{place}/{FOLDER}", deep=False):
        if entry := _ENTRY.fullmatch(name):
            file = f"{place}/{FOLDER}/{name}"
            try:
                content = storage.read(file)
            except FileNotFoundError:
                continue
            if xxhash.xxh3_128_hexdigest(content) != entry[1]:
                raise DamagedLakeError(
                    f"{file}: this entry of the journal of verdicts is damaged. Put the file back from a copy, or move "
                    "it away: its verdicts are then lost."
                )
            try:
                found.append((file, from_text(pl.read_ndjson(content, schema=TEXT))))
            except (ValueError, pl.exceptions.PolarsError) as error:
                raise DamagedLakeError(
                    f"{file}: a line of this entry of the journal of verdicts cannot be read ({one_line(error, 200)}). "
                    "Move the file away: its verdicts are then lost."
                ) from error
    return found


def write_copy(place: str, rows: pl.DataFrame) -> None:
    """Write a second copy of the table, as an entry that only a repair reads, and delete older copies.

    Args:
        place: the lake's place.
        rows: all rows of the verdicts table.
    """
    content = "".join(map(_line, rows.iter_rows(named=True))).encode()
    name = f"copy-{xxhash.xxh3_128_hexdigest(content)}.jsonl"
    if not storage.exists(f"{place}/{FOLDER}/{name}"):
        write_durably(f"{place}/{FOLDER}/{name}", content, place)
    storage.delete(f"{place}/{FOLDER}/{older}" for older in _copies(place) if older != name)


def read_copies(place: str) -> list[pl.DataFrame]:
    """Read the second copies of the table that are not damaged; there is more than one only after a kill."""
    found = []
    for name in _copies(place):
        content = storage.read(f"{place}/{FOLDER}/{name}")
        if xxhash.xxh3_128_hexdigest(content) == name[len("copy-") :].removesuffix(".jsonl"):
            found.append(from_text(pl.read_ndjson(content, schema=TEXT)))
    return found


def _copies(place: str) -> list[str]:
    return [name for name in storage.list_files(f"{place}/{FOLDER}", deep=False) if _COPY.fullmatch(name)]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps({name: _as_text(row.get(name)) for name in SCHEMA}, ensure_ascii=False) + "\n"


def user_name() -> str:
    """Return the name of the user, as the operating system knows it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _row(verdict: Verdict, who: str) -> dict[str, Any]:
    picture, other = verdict.picture, verdict.other
    row = {
        **_new_row(who, verdict.verdict),
        "file_digest": picture.file_digest,
        "content_hash": picture.content_hash,
        "other_file_digest": other and other.file_digest,
        "other_content_hash": other and other.content_hash,
        "label": verdict.label,
        "rule": verdict.rule,
        "score": verdict.score,
        "note": verdict.note,
        "withdraws": None,
    }
    if fault := fault_of(row):
        raise LakeError(f"a verdict cannot be recorded: {fault}")
    return normal_row(row)


def normal_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Write the smaller digest of a pair first, and a label as sources have it."""
    found = dict(row)
    if (other := _key(row, "other_")) is not None and other < (_key(row) or b""):
        for name in ("file_digest", "content_hash"):
            found[name], found[f"other_{name}"] = row[f"other_{name}"], row[name]
    if row["label"] is not None:
        found["label"] = normal_label(row["label"])
    return found


def fault_of(row: Mapping[str, Any]) -> str:  # noqa: PLR0911 - a sentence for each fault
    """Say why a row cannot be a verdict; empty if it can."""
    verdict, is_pair = row["verdict"], _key(row, "other_") is not None
    if verdict == WITHDRAWN:
        return "" if row.get("withdraws") else "withdrawn needs the verdict_id that it takes back, in withdraws."
    wrong = [(name, of) for name, of in _LENGTHS.items() if row[name] is not None and len(row[name]) != of]
    if wrong:
        name, length = wrong[0]
        return f"{name} has {len(row[name])} bytes; it must have {length}."
    allowed = (*PAIR_VERDICTS, NOT_SURE) if is_pair else (*PICTURE_VERDICTS, NOT_SURE)
    if verdict not in allowed:
        what = "a pair" if is_pair else "one picture"
        return f"{verdict!r} is no verdict about {what}; those are {', '.join(allowed)}."
    if (verdict == "label") != (row["label"] is not None):
        return (
            "the verdict label needs the right label: --label NAME, or label= in Python."
            if row["label"] is None
            else f"{verdict!r} has no label; the verdict label does."
        )
    if verdict == "label" and not row["label"].strip():
        return "the right label is empty."
    if row["score"] is not None and not math.isfinite(row["score"]):
        return "the score is not a finite number."
    text = "".join(row.get(name) or "" for name in ("who", "label", "rule", "note"))
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return "a text has half of a surrogate pair, which is no character."
    if _key(row) is None:
        return "it names no picture: file_digest and content_hash are missing."
    if is_pair and _key(row) == _key(row, "other_"):
        return "both pictures have the same file digest, so they are the same picture."
    return ""


def _key(row: Mapping[str, Any], side: str = "") -> bytes | None:
    """Return the digest of a picture; None if there is none."""
    found: bytes | None = row[f"{side}file_digest"] or row[f"{side}content_hash"]
    return found


def _new_row(who: str, verdict: str) -> dict[str, Any]:
    return {"verdict_id": uuid.uuid4().bytes, "created_at": _now(), "who": who, "verdict": verdict}


def _now(after: int = 0) -> datetime:
    """Return the time, later than at the call before, so that verdicts stay in the order in which they were made.

    Args:
        after: microseconds since 1970, after which it must be.
    """
    global _last_time  # noqa: PLW0603 - one clock for the process
    with _clock_lock:
        _last_time = max(time.time_ns() // 1000, _last_time + 1, after + 1)
        return datetime.fromtimestamp(_last_time // 1_000_000, UTC).replace(microsecond=_last_time % 1_000_000)


def _as_text(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime) else value


def from_text(rows: pl.DataFrame) -> pl.DataFrame:
    """Turn rows with hexadecimal digests and times as text into rows of the verdicts table.

    Raises:
        PolarsError: a value cannot be read.
        ValueError: a value is missing.
    """
    time_of = pl.col("created_at").str.to_datetime(time_unit="us", time_zone="UTC")
    found = rows.select(
        time_of if name == "created_at" else pl.col(name).str.decode("hex") if name in BINARY else pl.col(name)
        for name in SCHEMA
    ).cast(SCHEMA)
    if found.select(pl.any_horizontal(pl.col("verdict_id", "created_at", "who", "verdict").is_null().any())).item():
        raise ValueError("a value is missing")
    return found

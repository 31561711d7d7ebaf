"""`imagelake verdicts`: what people decided about pictures, which builds honour."""

from typing import Any

import click
import polars as pl

from pipeline.cli.options import Choice, as_json, the_lake
from pipeline.cli.show import show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.progress import plural
from pipeline.verdicts.files import export_verdicts, import_verdicts
from pipeline.verdicts.journal import withdraw
from schemas.verdicts import NOT_SURE, PAIR_VERDICTS, PICTURE_VERDICTS

# Rows that are printed; --json gives all.
_PRINTED = 50
_who = click.option("--who", metavar="NAME", help="Who decides; your user name by default.")


@click.group("verdicts")
def verdicts_command() -> None:
    """Decide what rules only suspect: list, add, take back, export and import verdicts.

    A verdict is about a picture (keep, drop, label, wrong_label) or a pair (same, different). It names the digests of
    the files, so it holds when files are moved or copied. The next build honours it.

    \b
    imagelake verdicts add data/demo drop 931b0c5ab51e8b5ba7b8e3d7a7c5d1f0
    imagelake verdicts list data/demo
    imagelake verdicts export data/demo verdicts.csv
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are


@verdicts_command.command("list")
@the_lake
@as_json
def _list(lake: str, *, json_: bool) -> None:
    """List the verdicts of LAKE that count, and those in which people disagree."""
    found = Lake(lake).verdicts()
    if json_:
        show_json({**found._asdict(), "standing": _rows(found.standing), "conflicts": _rows(found.conflicts)})
        return
    withdrawn = found.made - len(found.standing)
    count = "counts" if len(found.standing) == 1 else "count"
    print_line(f"{plural(len(found.standing), 'verdict')} {count}, {withdrawn:,} earlier or taken back")
    _print(found.standing.reverse())
    if found.gone:
        print_line(f"{plural(found.gone, 'verdict')} about a picture that the lake does not have; kept for its return")
    if found.waiting:
        print_line(f"{plural(found.waiting, 'verdict')} since the last build: imagelake build {lake}")
    if len(found.conflicts):
        print_line("People disagree about:")
        _print(found.conflicts)


@verdicts_command.command("add")
@the_lake
@click.argument("verdict", type=Choice([*PAIR_VERDICTS, *PICTURE_VERDICTS, NOT_SURE]))
@click.argument("image", metavar="PATH-or-ID-or-DIGEST")
@click.argument("other", metavar="[OTHER]", required=False)
@click.option("--label", metavar="NAME", help="The right label, of the verdict label.")
@click.option("--note", metavar="TEXT", help="A remark.")
@_who
@as_json
def _add(  # noqa: PLR0913, PLR0917 - one per argument
    lake: str,
    verdict: str,
    image: str,
    other: str | None,
    label: str | None,
    note: str | None,
    who: str | None,
    *,
    json_: bool,
) -> None:
    """Record a verdict about an image of LAKE or, with OTHER, about a pair of images."""
    made = Lake(lake).decide(verdict, image, other, label=label, note=note, who=who)
    if json_:
        show_json({"verdict_id": made.hex()})
        return
    print_line(f"recorded {made.hex()}; the next build honours it: imagelake build {lake}")


@verdicts_command.command("withdraw")
@the_lake
@click.argument("verdict_id", metavar="VERDICT_ID", nargs=-1, required=True)
@_who
@as_json
def _withdraw(lake: str, verdict_id: tuple[str, ...], who: str | None, *, json_: bool) -> None:
    """Take verdicts of LAKE back. What was decided before counts again."""
    try:
        ids = [bytes.fromhex(one) for one in verdict_id]
    except ValueError as error:
        raise click.UsageError("VERDICT_ID must be 32 hexadecimal digits.") from error
    made = withdraw(Lake(lake).root, ids, who)
    if json_:
        show_json({"verdict_ids": [one.hex() for one in made]})
        return
    print_line(f"took back {plural(len(ids), 'verdict')}")


@verdicts_command.command("export")
@the_lake
@click.argument("file", type=click.Path())
@as_json
def _export(lake: str, file: str, *, json_: bool) -> None:
    """Write all verdicts of LAKE to FILE, .csv or .parquet, in an order that suits git."""
    count = export_verdicts(Lake(lake).root, file)
    if json_:
        show_json({"verdicts": count, "file": file})
        return
    print_line(f"wrote {plural(count, 'verdict')} to {file}")


@verdicts_command.command("import")
@the_lake
@click.argument("file", type=click.Path())
@_who
@as_json
def _import(lake: str, file: str, who: str | None, *, json_: bool) -> None:
    """Add the verdicts of FILE, .csv or .parquet, to LAKE. Those that it has are left out."""
    done = import_verdicts(Lake(lake).root, file, who)
    if json_:
        show_json(done._asdict())
        return
    print_line(f"imported {plural(done.new, 'verdict')}, {done.known:,} known before")


def _print(rows: pl.DataFrame) -> None:
    """Print one line for each verdict."""
    for row in rows.head(_PRINTED).iter_rows(named=True):
        said = row["verdict"] if row["label"] is None else f"label {row['label']}"
        about = row["path"] or "a picture that is not in the lake"
        if row["other_file_digest"] or row["other_content_hash"]:
            about += f" and {row['other_path'] or 'one that is not in the lake'}"
        note = f" ({row['note']})" if row["note"] else ""
        when = f"{row['created_at']:%Y-%m-%d %H:%M}"
        print_line(f"  {when}  {row['who']}: {said}, {about}{note}  {row['verdict_id'].hex()}")
    if len(rows) > _PRINTED:
        print_line(f"  and {len(rows) - _PRINTED:,} more: --json gives all")


def _rows(rows: pl.DataFrame) -> list[dict[str, Any]]:
    binary = [name for name, dtype in rows.schema.items() if dtype == pl.Binary]
    return rows.with_columns(pl.col(binary).bin.encode("hex")).to_dicts()

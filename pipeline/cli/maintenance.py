"""`imagelake status`, `history`, `report`, `verify` and `vacuum`: inspect and maintain a lake."""

import sys
from pathlib import Path

import click
import polars as pl

from pipeline.builder.publish import write_report
from pipeline.cli.options import as_json, of_release, the_lake, workers_option
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.maintenance import Vacuumed, history, status, vacuum, vacuum_releases
from pipeline.progress import plural


@click.command("status")
@the_lake
@click.option(
    "--recipe",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Recipe of the next build; that of the last build by default.",
)
@of_release("show")
@as_json
def status_command(lake: str, recipe: Path | None, release: int | None, *, json_: bool) -> None:
    """Show the tables of LAKE, its rejects by reason, and what the next build would do and why.

    With --release, only the tables and rejects of that release.
    """
    if recipe and release:
        raise click.UsageError("--recipe is for the next build, --release for a past one: give only one of them.")
    found = status(lake, recipe, release)
    if json_:
        show_json({**found._asdict(), "todo": [item._asdict() for item in found.todo or []]})
        return
    print_line(f"{lake}: release {found.release or 'none yet'}")
    show_frame(found.tables)
    print_line("Rejects by reason:" if len(found.rejects) else "No rejects.")
    if len(found.rejects):
        show_frame(found.rejects)
    if release:
        return
    print_line(
        f"The next build by {found.recipe}:" if found.todo else f"The next build by {found.recipe} has nothing to do."
    )
    for item in found.todo:
        print_line(f"  {item.stage:>10}  {item.unit}: {item.reason}")


@click.command("history")
@the_lake
@as_json
def history_command(lake: str, *, json_: bool) -> None:
    """List the releases of LAKE, oldest first, with their time, pins, recipe digest and note.

    Exports and scores pin the release that they were made from: vacuum does not delete a pinned release. --json lists
    all pins.
    """
    rows = history(lake)
    if json_:
        show_json(rows)
        return
    short = rows.with_columns(pinned=pl.Series([_summarize_pins(names) for names in rows["pinned"]], dtype=pl.String))
    show_frame(short.select("release", "created_at", "pinned", "recipe_digest", "note"))


def _summarize_pins(names: pl.Series) -> str:
    """List the scores and count the exports."""
    scores = [name for name in names if not name.startswith("export")]
    exports = len(names) - len(scores)
    counted = [plural(exports, "export")] if exports else []
    return ", ".join([*scores, *counted])


@click.command("report")
@the_lake
@click.option(
    "-o", "--out", metavar="FILE", type=click.Path(dir_okay=False), help="File to write; LAKE/report.html by default."
)
@of_release("report on")
@as_json
def report_command(lake: str, out: str | None, release: int | None, *, json_: bool) -> None:
    """Write the report of a release of LAKE: one HTML file that opens offline.

    LAKE/report.html is always of the newest release, so --release needs --out for an older one.
    """
    file = write_report(Lake(lake, release), out)
    show_json({"report": file}) if json_ else print_line(file)


@click.command("verify")
@the_lake
@workers_option
@click.option("--references", is_flag=True, help='With originals = "reference": read and hash the source files, too.')
@as_json
def verify_command(lake: str, workers: int | None, *, references: bool, json_: bool) -> None:
    """Check the files and tables of the newest release of LAKE, and hash the pixels of every image again.

    Of source files that the lake references, only the sizes are compared, unless --references is given. Every missing
    or damaged file is listed with its shard and the images affected. The exit code is 1 if anything is wrong.
    """
    from pipeline.engines.local import LocalEngine  # noqa: PLC0415 - slow to import
    from pipeline.progress import Progress  # noqa: PLC0415 - slow to import
    from pipeline.verify import PRELOAD, REPAIRABLE_KINDS, verify  # noqa: PLC0415 - slow to import

    with Progress() as progress:
        engine = LocalEngine(workers, preload=PRELOAD)
        checks = verify(lake, references=references, engine=engine, progress=progress)
    if json_:
        show_json([{**check._asdict(), "faults": [fault.as_values() for fault in check.faults]} for check in checks])
    else:
        for check in checks:
            print_line(f"{'ok  ' if not check.faults else 'FAIL'}  {check.name}: {check.checked:,} checked")
            for fault in check.faults:
                print_line(f"        {fault}")
        if any(fault.kind in REPAIRABLE_KINDS for check in checks for fault in check.faults):
            print_line("To restore damaged files from their sources, run: imagelake build RECIPE.toml --repair")
    sys.exit(any(check.faults for check in checks))


@click.command("vacuum")
@the_lake
@click.option(
    "--older-than",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    help="Delete only files of at least this age in hours.",
)
@click.option("--keep-last", type=click.IntRange(min=1), help="Keep only this number of releases, the newest.")
@click.option("--force", is_flag=True, help="With --keep-last: delete pinned releases too.")
@click.option("--dry-run", is_flag=True, help="Only list what would be deleted.")
@as_json
def vacuum_command(  # noqa: PLR0913 - one per option
    lake: str, older_than: int, keep_last: int | None, *, force: bool, dry_run: bool, json_: bool
) -> None:
    """Delete files of LAKE that no release needs, such as those of killed builds.

    Every release is kept, unless --keep-last is given. A release that exports or current scores pin is kept all the
    same, unless --force is given. A deleted release cannot be opened any more; its files are deleted when they have the
    age of --older-than.

    \b
    imagelake vacuum data/demo --keep-last 3 --dry-run
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    if keep_last is None:
        if force:
            raise click.UsageError("--force needs --keep-last N: without it every release is kept.")
        done = Vacuumed(vacuum(lake, older_than_hours=older_than, dry_run=dry_run), [], [], {}, {})
    else:
        done = vacuum_releases(lake, keep_last=keep_last, older_than_hours=older_than, dry_run=dry_run, force=force)
    if json_:
        of_releases = {
            "given_up": done.deleted_releases,
            "kept": done.kept,
            "pinned": done.pinned,
            "broken": done.broken,
        }
        show_json({"deleted": done.deleted, **({} if keep_last is None else of_releases), "dry_run": dry_run})
        return
    _print_vacuumed(done, older_than, would="would be " if dry_run else "", count_releases=keep_last is not None)


def _print_vacuumed(done: Vacuumed, older_than: int, *, would: str, count_releases: bool) -> None:
    for number, names in done.pinned.items():
        print_line(f"release {number} is kept, pinned by {'; '.join(names)}")
    for number in done.deleted_releases:
        by = "; ".join(done.broken.get(number, []))
        broken = f", although pinned by {by}: their data cannot be read again" if by else ""
        print_line(f"release {number} {would or 'is '}deleted{broken}")
    for path in done.deleted:
        print_line(path)
    print_line(f"{plural(len(done.deleted), 'file')} {would}deleted")
    if count_releases:
        kept, deleted = (plural(len(found), "release") for found in (done.kept, done.deleted_releases))
        young = (
            f"; files younger than {older_than} hours are kept until a later vacuum"
            if older_than and done.deleted_releases
            else ""
        )
        print_line(f"{deleted} {would}deleted, {kept} kept{young}")

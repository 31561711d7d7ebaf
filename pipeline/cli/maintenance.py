"""imagelake status.

imagelake history.

imagelake report.

imagelake verify.

imagelake vacuum.
"""

import sys
from pathlib import Path

import click
import polars as pl

from pipeline.builder.publish import write_report
from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import show_frame, show_json
from pipeline.lake_handle import Lake
from pipeline.maintenance import Vacuumed, history, status, vacuum, vacuum_releases


@click.command("status")
@the_lake
@click.option(
    "--recipe",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Recipe of the next build; the last one by default.",
)
@of_release("look at")
@as_json
def status_command(lake: str, recipe: Path | None, release: int | None, *, json_: bool) -> None:
    """Show the tables of LAKE, its rejects by reason, and what the next build would do and why.

    With --release, only what that release holds.
    """
    if recipe and release:
        raise click.UsageError("--recipe is of the next build, --release of a past one: choose one.")
    found = status(lake, recipe, release)
    if json_:
        show_json({**found._asdict(), "todo": [item._asdict() for item in found.todo or []]})
        return
    say(f"{lake}: release {found.release or 'none yet'}")
    show_frame(found.tables)
    say("Rejects by reason:" if len(found.rejects) else "No rejects.")
    if len(found.rejects):
        show_frame(found.rejects)
    if release:
        return
    say(f"The next build by {found.recipe}:" if found.todo else f"The next build by {found.recipe} has nothing to do.")
    for item in found.todo:
        say(f"  {item.stage:>10}  {item.unit}: {item.reason}")


@click.command("history")
@the_lake
@as_json
def history_command(lake: str, *, json_: bool) -> None:
    """List the releases of LAKE, oldest first: when, what pins each, from which recipe, and what its build did.

    A release is pinned that exports or scores name: vacuum does not give it up. --json names them all.
    """
    rows = history(lake)
    if json_:
        show_json(rows)
        return
    short = rows.with_columns(pinned=pl.Series([_short(names) for names in rows["pinned"]], dtype=pl.String))
    show_frame(short.select("release", "created_at", "pinned", "recipe_digest", "note"))


def _short(names: pl.Series) -> str:
    """Name the scores and count the exports."""
    scores = [name for name in names if not name.startswith("export")]
    exports = len(names) - len(scores)
    counted = [f"{exports} export{'s' if exports > 1 else ''}"] if exports else []
    return ", ".join([*scores, *counted])


@click.command("report")
@the_lake
@click.option(
    "-o", "--out", metavar="FILE", type=click.Path(dir_okay=False), help="Where to; LAKE/report.html by default."
)
@of_release("report on")
@as_json
def report_command(lake: str, out: str | None, release: int | None, *, json_: bool) -> None:
    """Write the report of a release of LAKE: one HTML file that opens offline.

    LAKE/report.html is always of the newest release, so --release needs --out for an older one.
    """
    file = write_report(Lake(lake, release), out)
    show_json({"report": file}) if json_ else say(file)


@click.command("verify")
@the_lake
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; one a core by default.")
@as_json
def verify_command(lake: str, workers: int | None, *, json_: bool) -> None:
    """Hash every pixel row of LAKE again and check every law that can be checked at rest.

    Of the newest release. Names every file that is missing or damaged, its shard, and the images hurt. Exits with code
    1 where anything is wrong.
    """
    from pipeline.engines.local import LocalEngine  # noqa: PLC0415 - slow to import together with the rest
    from pipeline.progress import Progress  # noqa: PLC0415 - likewise
    from pipeline.verify import PRELOAD, REPAIRED, verify  # noqa: PLC0415 - likewise

    with Progress() as progress:
        checks = verify(lake, engine=LocalEngine(workers, preload=PRELOAD), progress=progress)
    if json_:
        show_json([{**check._asdict(), "faults": [fault.as_values() for fault in check.faults]} for check in checks])
    else:
        for check in checks:
            say(f"{'ok  ' if not check.faults else 'FAIL'}  {check.name}: {check.checked:,} checked")
            for fault in check.faults:
                say(f"        {fault}")
        if any(fault.kind in REPAIRED for check in checks for fault in check.faults):
            say("To bring back what is hurt, as far as the sources are there: imagelake build RECIPE.toml --repair")
    sys.exit(any(check.faults for check in checks))


@click.command("vacuum")
@the_lake
@click.option(
    "--older-than",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    help="Age in hours a file must have.",
)
@click.option("--keep-last", type=click.IntRange(min=1), help="Give up releases older than the newest so many.")
@click.option("--force", is_flag=True, help="With --keep-last: give up pinned releases too.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@as_json
def vacuum_command(  # noqa: PLR0913 - its options
    lake: str, older_than: int, keep_last: int | None, *, force: bool, dry_run: bool, json_: bool
) -> None:
    """Delete files of LAKE that no release needs, such as those of builds that were killed.

    Every release is kept, unless --keep-last says how many. A release that an export names, or scores that are kept,
    stays all the same. A given-up release cannot be opened again, at once; its files go when they have the age.

    \b
    imagelake vacuum data/demo --keep-last 3 --dry-run
    """  # noqa: D301 - click wants the backspace itself, to leave the lines alone
    if keep_last is None:
        if force:
            raise click.UsageError("--force needs --keep-last N: without it every release is kept.")
        done = Vacuumed(vacuum(lake, older_than_hours=older_than, dry_run=dry_run), [], [], {}, {})
    else:
        done = vacuum_releases(lake, keep_last=keep_last, older_than_hours=older_than, dry_run=dry_run, force=force)
    if json_:
        releases = {} if keep_last is None else {k: v for k, v in done._asdict().items() if k != "deleted"}
        show_json({"deleted": done.deleted, **releases, "dry_run": dry_run})
        return
    _show(done, older_than, would="would be " if dry_run else "", told=keep_last is not None)


def _show(done: Vacuumed, older_than: int, *, would: str, told: bool) -> None:
    for number, names in done.pinned.items():
        say(f"release {number} stays, pinned by {'; '.join(names)}")
    for number in done.given_up:
        by = "; ".join(done.broken.get(number, []))
        broken = f", though named by {by}: what they show cannot be read again" if by else ""
        say(f"release {number} {would or 'is '}given up{broken}")
    for path in done.deleted:
        say(path)
    say(f"{len(done.deleted)} files {would}deleted")
    if told:
        kept, gone = (f"{len(found)} release{'s' if len(found) != 1 else ''}" for found in (done.kept, done.given_up))
        young = (
            f"; files younger than {older_than} hours stay until a later vacuum" if older_than and done.given_up else ""
        )
        say(f"{gone} {would}given up, {kept} kept{young}")

"""imagelake vacuum."""

import click

from pipeline.cli.options import as_json, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import show_json
from pipeline.flow.inspect import Vacuumed, vacuum, vacuum_releases


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
def command(  # noqa: PLR0913 - its options
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

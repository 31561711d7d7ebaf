"""imagelake vacuum."""

import click

from pipeline.cli.options import as_json
from pipeline.cli.show import show_json
from pipeline.flow.inspect import vacuum


@click.command("vacuum")
@click.argument("lake", type=click.Path())
@click.option(
    "--older-than",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    help="Age in hours a file must have.",
)
@click.option("--dry-run", is_flag=True, help="Only list the files.")
@as_json
def command(lake: str, older_than: int, *, dry_run: bool, json_: bool) -> None:
    """Delete files of LAKE that no release needs, such as those of builds that were killed."""
    deleted = vacuum(lake, older_than_hours=older_than, dry_run=dry_run)
    if json_:
        show_json({"deleted": deleted, "dry_run": dry_run})
        return
    for path in deleted:
        click.echo(path)
    click.echo(f"{len(deleted)} files {'would be ' if dry_run else ''}deleted")

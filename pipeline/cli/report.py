"""imagelake report."""

import click

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import show_json
from pipeline.flow.publish import write_report


@click.command("report")
@the_lake
@click.option(
    "-o", "--out", metavar="FILE", type=click.Path(dir_okay=False), help="Where to; LAKE/report.html by default."
)
@of_release("report on")
@as_json
def command(lake: str, out: str | None, release: int | None, *, json_: bool) -> None:
    """Write the report of a release of LAKE: one HTML file that opens offline.

    LAKE/report.html is always of the newest release, so --release needs --out for an older one.
    """
    file = write_report(lake, out, release)
    show_json({"report": file}) if json_ else say(file)

"""imagelake verify."""

import sys

import click

from pipeline.cli.options import as_json
from pipeline.cli.show import show_json
from pipeline.flow.verify import verify


@click.command("verify")
@click.argument("lake", type=click.Path())
@as_json
def command(lake: str, *, json_: bool) -> None:
    """Hash every pixel row of LAKE again and check every law that can be checked at rest.

    Exits with code 1 where anything is wrong.
    """
    checks = verify(lake)
    if json_:
        show_json([check._asdict() for check in checks])
    else:
        for check in checks:
            click.echo(f"{'ok  ' if not check.faults else 'FAIL'}  {check.name}: {check.checked:,} checked")
            for fault in check.faults:
                click.echo(f"        {fault}")
    sys.exit(any(check.faults for check in checks))

"""imagelake verify."""

import sys

import click

from pipeline.cli.options import as_json, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import show_json


@click.command("verify")
@the_lake
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; one a core by default.")
@as_json
def command(lake: str, workers: int | None, *, json_: bool) -> None:
    """Hash every pixel row of LAKE again and check every law that can be checked at rest.

    Of the newest release. Names every file that is missing or damaged, its shard, and the images hurt. Exits with code
    1 where anything is wrong.
    """
    from pipeline.engines.local import LocalEngine  # noqa: PLC0415 - slow to import together with the rest
    from pipeline.flow.verify import PRELOAD, REPAIRED, verify  # noqa: PLC0415 - likewise
    from pipeline.progress import Progress  # noqa: PLC0415 - likewise

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

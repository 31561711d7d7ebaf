"""`imagelake review`: decide about pictures in a local web app."""

import json

import click

from pipeline.cli.failures import Terminated
from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake

_MOST_PORT = 65535


@click.command("review")
@the_lake
@click.option("--port", type=click.IntRange(0, _MOST_PORT), default=0, help="Port on 127.0.0.1; a free one by default.")
@click.option("--who", metavar="NAME", help="Your name in the verdicts; the name of the user by default.")
@click.option("--open", "open_", is_flag=True, help="Open the address in the browser of this machine.")
@of_release("read")
@as_json
def review_command(  # noqa: PLR0913 - one per option
    lake: str, port: int, who: str | None, release: int | None, *, open_: bool, json_: bool
) -> None:
    """Decide about the pairs, clusters and images of LAKE in a local web app.

    It prints an address with a random token: open it in a browser on this machine. The app reads one release and writes
    verdicts only, which the next build honours. Each decision is on the disk before the next one is shown. Ctrl-C stops
    the app.

    It needs the extra `imagelake[review]`. --json prints one line with the address.

    \b
    imagelake review data/demo
    imagelake review data/demo --port 8765 --who anna
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    from pipeline.review_app.server import serve  # noqa: PLC0415 - slow to import

    def ready(address: str) -> None:
        # Not `print_line`, which hides secrets of addresses: the token is for the person who reads this.
        if json_:
            click.echo(json.dumps({"lake": opened.root, "release": opened.release, "address": address}))
        else:
            print_line(f"Reviewing release {opened.release} of {opened.root}. Open in a browser; Ctrl-C stops:")
            click.echo(address)
        if open_:
            click.launch(address)

    opened = Lake(lake, release)
    try:
        serve(opened, who=who, port=port, ready=ready)
    except KeyboardInterrupt as stop:
        # Ctrl-C is how the app ends; a signal of another process is reported as for every command.
        if isinstance(stop, Terminated):
            raise
        print_line("Stopped. What was decided counts from the next build on.", err=json_)

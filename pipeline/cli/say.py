r"""The one way that commands print for people: a line at a time, in which nothing moves the cursor or breaks the line.

Labels, paths and messages come out of archives of strangers. What would be an order to a terminal is spelled, as in
\x1b, wherever it goes: what is in a file today is on a terminal tomorrow.
"""

import sys

import click

from pipeline.progress import plain


def is_terminal() -> bool:
    """Tell whether stdout is a terminal, which obeys control characters."""
    return sys.stdout.isatty()


def say(line: object, *, err: bool = False) -> None:
    """Print one line.

    Args:
        line: what to print. Line breaks in it are escaped too, so what has several lines is said line by line.
        err: on stderr instead of stdout.
    """
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    # A terminal that knows no ä gets an escape: better than none of the line.
    click.echo(plain(str(line)).encode(encoding, "backslashreplace").decode(encoding), err=err)

r"""Print lines for people, with control characters escaped. Every command prints through this module or `show`.

Labels, paths and messages may come from untrusted archives. Control characters in them are escaped, as in \x1b, also
if stdout is a file: it may be shown on a terminal later. Secrets of addresses are hidden.
"""

import sys

import click

from pipeline.addresses import redacted_text
from pipeline.progress import plain


def is_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def print_line(line: object, *, err: bool = False) -> None:
    """Print one line.

    Args:
        line: the text. Line breaks in it are escaped too; call this function once per line.
        err: print on stderr instead of stdout.
    """
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    # Characters outside the encoding of the stream are escaped, instead of failing for the whole line.
    click.echo(plain(redacted_text(str(line))).encode(encoding, "backslashreplace").decode(encoding), err=err)

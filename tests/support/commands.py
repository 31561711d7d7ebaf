"""The command line as tests run it: in this process."""

from collections.abc import Callable

from click.testing import CliRunner, Result

from pipeline import cli

Run = Callable[..., Result]


def run_command(*words: object) -> Result:
    """Run `imagelake` with these words; what is no error of the user's is raised."""
    result = CliRunner().invoke(cli._imagelake, [str(word) for word in words])  # noqa: SLF001 - the group itself
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result

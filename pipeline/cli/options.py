"""Arguments and options that commands share: one name for one thing, whatever the command."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click


class Renamed(click.Option):
    """An option whose names in older versions still work, but are shown nowhere.

    Args:
        names: as click takes them: the name to show, and that of the parameter.
        before: the names of older versions, such as "--at".
        rest: as click takes it.
    """

    def __init__(self, names: list[str], *, before: tuple[str, ...] = (), **rest: Any) -> None:  # noqa: ANN401 - click's own
        self._before = before
        super().__init__([*names, *before], **rest)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe the option under the names that are shown."""
        with self._shown():
            return super().get_help_record(ctx)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the option in an error."""
        with self._shown():
            return super().get_error_hint(ctx)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        names = self.opts
        self.opts = [name for name in names if name not in self._before]
        try:
            yield
        finally:
            self.opts = names


class Words(click.Choice[str]):
    """One of a few words; click lists them line by line where the option is missing, which reads badly in one line."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002 - click's signature
        """Name the words."""
        return f"Choose from {', '.join(map(str, self.choices))}."


def _one_spelling(_: click.Context, __: click.Parameter, value: str) -> str:
    return value.rstrip("/") if value.startswith("s3://") else value


the_lake = click.argument("lake", type=click.Path(), callback=_one_spelling)
as_json = click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")


def of_release(does: str, **rest: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - click's own
    """Make the option --release.

    Args:
        does: what the command does with the release, such as "query".
        rest: as `Renamed` takes it.
    """
    return click.option(
        "--release",
        cls=Renamed,
        type=click.IntRange(min=1),
        metavar="NUMBER",
        help=f"Release to {does}; the newest by default.",
        **rest,
    )

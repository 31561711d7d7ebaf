"""One bar on a terminal, nothing elsewhere: progress goes to stderr, results to stdout."""

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress(AbstractContextManager["Progress"]):
    """Images per second and rejects so far. Quiet where stderr is no terminal.

    Args:
        title: what is going on.
        total: images to come, where it is known.
    """

    def __init__(self, title: str, total: int | None = None) -> None:
        self._bar = tqdm(
            desc=title,
            total=total,
            unit=" images",
            unit_scale=True,
            file=sys.stderr,
            disable=None,
            leave=False,
        )
        self.rejects = 0

    def advance(self, images: int, rejects: int = 0) -> None:
        """Count what was done."""
        self.rejects += rejects
        if self.rejects:
            self._bar.set_postfix_str(f"{self.rejects} rejects", refresh=False)
        self._bar.update(images + rejects)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

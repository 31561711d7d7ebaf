"""One bar on a terminal, nothing elsewhere: progress goes to stderr, results to stdout. And what may be shown there."""

import re
import sys
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from tqdm import tqdm

# What moves the cursor, breaks the line, turns the direction of writing, cannot be seen, or is no character at all. The
# two joiners (U+200C, U+200D) stay: words and emoji are spelled with them.
HARMFUL = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f"
)
_HARMFUL = re.compile(f"[{HARMFUL}]")


def plain(text: str) -> str:
    r"""Make text of strangers fit for one line of a terminal: what is more than a letter is spelled, as in \x1b.

    Letters of every script stay as they are.
    """
    return _HARMFUL.sub(lambda found: escape(found[0]), text)


def escape(character: str) -> str:
    r"""Spell a character as Python does; a byte of a file name that is no UTF-8 as that byte, \xNN."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class Progress(AbstractContextManager["Progress"]):
    """One bar for one stage after the other: images per second, rejects so far, time left. Gone when the work ends.

    Quiet where stderr is no terminal, and until there is something to show.

    Args:
        title: the first stage; empty where `stage` or `step` tells.
        total: images to come, where it is known.
        shown: whether to show anything at all.
    """

    def __init__(self, title: str = "", total: int | None = None, *, shown: bool = True) -> None:
        self._shown = shown and sys.stderr.isatty()
        self._quiet = not shown
        self._bar: tqdm[Any] | None = None
        self.rejects = 0
        if title:
            self.stage(title, total)

    def stage(self, title: str, total: int | None = None, *, rejects: bool = False) -> None:
        """Begin a stage that counts images.

        Args:
            title: what is going on.
            total: images to come, where it is known.
            rejects: whether to show from the start how many are rejects; else from the first one on.
        """
        self.rejects = 0
        shown = "0 rejects" if rejects else None
        self._begin(title, total=total, unit=" images", unit_scale=True, postfix=shown)

    def step(self, title: str) -> None:
        """Begin a stage that counts nothing: only its name is shown."""
        self._begin(title, bar_format="{desc}")

    def waiting(self) -> None:
        """Say, on a terminal or not, that another build is waited for: nobody should wonder why nothing happens."""
        self._end()
        if not self._quiet:
            sys.stderr.write("imagelake: waiting for another build that is writing to this lake\n")
            sys.stderr.flush()

    def expect(self, total: int | None) -> None:
        """Tell how many images the stage will have done in the end, as far as is known by now."""
        if self._bar is not None:
            self._bar.total = total
            if total is not None and not self._bar.n:
                self._bar.refresh()

    def advance(self, images: int, rejects: int = 0) -> None:
        """Count what was done."""
        self.rejects += rejects
        if self._bar is not None:
            if rejects:
                self._bar.set_postfix_str(f"{self.rejects:,} rejects", refresh=False)
            self._bar.update(images + rejects)

    def _begin(self, title: str, **options: Any) -> None:  # noqa: ANN401 - tqdm's own
        self._end()
        if self._shown:
            from tqdm import tqdm  # noqa: PLC0415 - only those who look at it pay for it

            # By shards, work comes in jumps: an average over all of it tells better what is left than the last jump.
            self._bar = tqdm(
                desc=plain(title), file=sys.stderr, leave=False, dynamic_ncols=True, miniters=1, smoothing=0, **options
            )

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()


# For those who do not look.
SILENT = Progress(shown=False)


class Expected(NamedTuple):
    """What is known of a source before it is read.

    Attributes:
        images: how many files will be read of it; None where only reading tells.
        size: bytes of the file that it is; None where it is a folder, or nothing at all.
    """

    images: int | None = None
    size: int | None = None


@dataclass
class _Seen:
    files: int = 0
    done: float | None = None


class Forecast:
    """How many images will be read in all: known, counted, or guessed from how far a source has been read.

    Args:
        sources: what is known of every source, in the order in which they are read.
    """

    def __init__(self, sources: Mapping[Hashable, Expected]) -> None:
        self._expected = dict(sources)
        self._seen: dict[Hashable, _Seen] = {}

    def count(self, source: Hashable, images: int, done: float | None = None) -> None:
        """Count images of a source; those that come before it are done with.

        Args:
            source: its key.
            images: files that were read.
            done: part of the source that was read for these and all before them, 0 to 1; None where it does not tell.
        """
        seen = self._seen.setdefault(source, _Seen())
        seen.files += images
        seen.done = done

    def total(self) -> int | None:
        """Tell how many images there will have been in the end; None where nothing tells."""
        files: dict[Hashable, int | None] = {key: seen.files for key, seen in self._seen.items()}
        if files:
            files.update(self._of_last(next(reversed(files))))
        # What is to come and unknown holds as many images a byte as what was read.
        read = [(number, size) for key, number in files.items() if (size := self._expected[key].size) and number]
        density = sum(number for number, _ in read) / sum(size for _, size in read) if read else None
        for key, (images, size) in self._expected.items():
            guess = round(density * size) if density is not None and size is not None else None
            files.setdefault(key, images if images is not None else guess)
        known = [number for number in files.values() if number is not None]
        return sum(known) if len(known) == len(files) else None

    def _of_last(self, key: Hashable) -> dict[Hashable, int | None]:
        """Tell how many files the source has that is being read."""
        seen, told = self._seen[key], self._expected[key].images
        if seen.done:
            told = round(seen.files / min(1.0, seen.done))
        return {key: None if told is None else max(seen.files, told)}

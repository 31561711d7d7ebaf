"""A progress bar on stderr, an estimate of the images to come, and text for people: `plain` and `plural`."""

import re
import sys
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from tqdm import tqdm

# Control characters, line breaks, invisible characters, changes of the writing direction, and surrogates. The two
# joiners (U+200C, U+200D) are allowed: some scripts and emoji need them.
HARMFUL = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f"
)
_HARMFUL = re.compile(f"[{HARMFUL}]")


def plain(text: str) -> str:
    r"""Make untrusted text safe for one line of a terminal: harmful characters are escaped, as in \x1b.

    Letters of every script are kept.
    """
    return _HARMFUL.sub(lambda found: escape(found[0]), text)


def escape(character: str) -> str:
    r"""Escape a character as Python does. A byte of a file name that is not UTF-8 becomes \xNN."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def plural(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: 1 image, 2 images. `many` is needed if it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


class Progress(AbstractContextManager["Progress"]):
    """A progress bar for one stage after the other: images per second, rejects, time left. Removed at the end.

    Nothing is shown if stderr is not a terminal, or before the first stage.

    Args:
        title: the first stage; empty to start with `stage` or `step`.
        total: number of images of the stage, if known.
        shown: whether to show anything at all.
    """

    def __init__(self, title: str = "", total: int | None = None, *, shown: bool = True) -> None:
        # A process without a console has no stderr.
        self._shown = shown and sys.stderr is not None and sys.stderr.isatty()
        self._quiet = not shown
        self._bar: tqdm[Any] | None = None
        self.rejects = 0
        if title:
            self.stage(title, total)

    def stage(self, title: str, total: int | None = None, *, rejects: bool = False) -> None:
        """Start a stage that counts images.

        Args:
            title: name of the stage.
            total: number of its images, if known.
            rejects: show the number of rejects from the start; else from the first reject on.
        """
        self.rejects = 0
        shown = "0 rejects" if rejects else None
        self._begin(title, total=total, unit=" images", unit_scale=True, postfix=shown)

    def step(self, title: str) -> None:
        """Start a stage that counts nothing: only its name is shown."""
        self._begin(title, bar_format="{desc}")

    def waiting(self) -> None:
        """Print that this build waits for another one, also if stderr is not a terminal."""
        self._end()
        if not self._quiet and sys.stderr is not None:
            # The message is not worth a build.
            with suppress(OSError, ValueError):
                sys.stderr.write("imagelake: waiting for another build that is writing to this lake\n")
                sys.stderr.flush()

    def expect(self, total: int | None) -> None:
        """Set the expected number of images of the stage; None if it is not known."""
        if self._bar is not None:
            self._bar.total = total
            if total is not None and not self._bar.n:
                self._bar.refresh()

    def advance(self, images: int, rejects: int = 0) -> None:
        """Add finished images and rejects."""
        self.rejects += rejects
        if self._bar is not None:
            if rejects:
                self._bar.set_postfix_str(f"{self.rejects:,} rejects", refresh=False)
            self._bar.update(images + rejects)

    def _begin(self, title: str, **options: Any) -> None:  # noqa: ANN401 - tqdm's options
        self._end()
        if self._shown:
            from tqdm import tqdm  # noqa: PLC0415 - imported only if a bar is shown

            # Shards finish in jumps: the average over the stage predicts the time left better than the last jump.
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


# Shows nothing.
SILENT = Progress(shown=False)


class Expected(NamedTuple):
    """The expected size of a source, before it is read.

    Attributes:
        images: number of files in it; None if it is not known before reading.
        size: bytes of its file; None if it is not one file.
    """

    images: int | None = None
    size: int | None = None


@dataclass
class _Count:
    files: int = 0
    fraction: float | None = None


class Forecast:
    """Estimate how many images will be read in all: known, counted, or extrapolated from the part read so far.

    Args:
        sources: the expected size of every source, in the order in which they are read.
    """

    def __init__(self, sources: Mapping[Hashable, Expected]) -> None:
        self._expected = dict(sources)
        self._counts: dict[Hashable, _Count] = {}

    def count(self, source: Hashable, images: int, done: float | None = None) -> None:
        """Add images of a source. The sources before it are finished.

        Args:
            source: its key.
            images: number of files that were read.
            done: fraction of the source that has been read, 0 to 1; None if it is not known.
        """
        count = self._counts.setdefault(source, _Count())
        count.files += images
        count.fraction = done

    def total(self) -> int | None:
        """Estimate the number of images in all; None if it cannot be estimated."""
        files: dict[Hashable, int | None] = {key: count.files for key, count in self._counts.items()}
        if files:
            files.update(self._of_last(next(reversed(files))))
        # Sources of unknown content are assumed to have as many images per byte as those that were read.
        read = [(number, size) for key, number in files.items() if (size := self._expected[key].size) and number]
        density = sum(number for number, _ in read) / sum(size for _, size in read) if read else None
        for key, (images, size) in self._expected.items():
            estimate = round(density * size) if density is not None and size is not None else None
            files.setdefault(key, images if images is not None else estimate)
        known = [number for number in files.values() if number is not None]
        return sum(known) if len(known) == len(files) else None

    def _of_last(self, key: Hashable) -> dict[Hashable, int | None]:
        """Estimate the number of files of the source that is being read."""
        count, estimate = self._counts[key], self._expected[key].images
        if count.fraction:
            estimate = round(count.files / min(1.0, count.fraction))
        return {key: None if estimate is None else max(count.files, estimate)}

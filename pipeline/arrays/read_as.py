"""How images are brought to one shape when they are read: the arguments of `Lake.arrays` and feeds, checked."""

from typing import Literal, NamedTuple, Self, cast, get_args

from pipeline import arguments
from pipeline.errors import LakeError

Fit = Literal["stretch", "crop", "pad"]
DecodeFrom = Literal["stored", "original"]
RaggedAs = Literal["list", "pad"]


class ReadAs(NamedTuple):
    """How images are brought to one shape when they are read; see `Lake.arrays`."""

    size: tuple[int, int] | None
    fit: Fit
    decode: DecodeFrom
    ragged: RaggedAs | None

    @classmethod
    def checked(cls, size: object, fit: str, decode: str, ragged: str | None = None) -> Self:
        """Check the arguments of a caller.

        Raises:
            LakeError: a value is not one of those allowed, or two exclude one another. The message names them.
            TypeError: an argument has another type.
        """
        for name, value, allowed in (
            ("fit", fit, get_args(Fit)),
            ("decode", decode, get_args(DecodeFrom)),
            ("ragged", ragged, (None, *get_args(RaggedAs))),
        ):
            if value not in allowed:
                raise LakeError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
        if size is None and (fit, decode) != ("stretch", "stored"):
            key = "fit" if fit != "stretch" else "decode"
            raise LakeError(f"{key} = {(fit, decode)[key == 'decode']!r} needs size = (height, width)")
        if size is not None and ragged is not None:
            raise LakeError("size and ragged exclude one another: with a size, all images have one shape")
        return cls(_size(size), cast("Fit", fit), cast("DecodeFrom", decode), cast("RaggedAs | None", ragged))

    @property
    def state(self) -> dict[str, str]:
        """What a saved state of a feed must have in common with the feed; empty if nothing is set."""
        if self.ragged is not None:
            return {"ragged": self.ragged}
        if self.size is None:
            return {}
        return {"size": "x".join(map(str, self.size)), "fit": self.fit, "decode": self.decode}


def _size(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    if not isinstance(size, tuple | list) or len(size) != 2:  # noqa: PLR2004 - height and width
        raise TypeError(f"size must be (height, width), not {size!r}")
    height, width = (arguments.whole_number("size", side) for side in size)
    if min(height, width) < 1:
        raise LakeError(f"size is {size!r}; both sides must be 1 or more")
    return height, width

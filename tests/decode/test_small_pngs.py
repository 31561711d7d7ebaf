"""Law: small PNGs that are decoded together have Pillow's pixels; all others are left to the decoders of one file."""

import random
import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from making import encoded, pictures, png_chunk
from numpy.typing import NDArray

from pipeline.decode import Decoded, Originals, decode_shard, small_pngs
from pipeline.decode.fast_decoders import PNG_END
from pipeline.decode.picture import Rejected, decode, strict_pillow
from pipeline.decode.small_pngs import FEWEST, decode_small_pngs, shape_of, small_png_header
from pipeline.recipe import DecodePart
from pipeline.shard import Blobs, Encoded, Reject

Pixels = NDArray[np.uint8]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(lines: bytes, shape: tuple[int, int, int], *, level: int = 6, window: int = 15) -> bytes:
    """A PNG of 8 bits, made of filtered lines, which may be of any number and kinds."""
    height, width, channels = shape
    packer = zlib.compressobj(level, wbits=window)
    packed = packer.compress(lines) + packer.flush()
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0 if channels == 1 else 2, 0, 0, 0])
    return _SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def with_right_checksum(data: bytes, packed: bytes) -> bytes:
    return data[:33] + png_chunk(b"IDAT", packed) + PNG_END


def by_pillow(data: bytes, channels: int) -> Pixels | str:
    with strict_pillow():
        try:
            return decode(data, DecodePart(mode="L" if channels == 1 else "RGB"))[0]
        except Rejected as unfit:
            return unfit.reason


@st.composite
def files_of_one_size(draw: st.DrawFn) -> tuple[tuple[int, int, int], list[bytes]]:
    """Files of one size with any filters: whole, damaged, damaged with right checksums, cut, or of other kinds."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])))
    line = 1 + shape[1] * shape[2]
    seed = random.Random(draw(st.integers(0, 2**31)))
    files = []
    for kind in draw(st.lists(st.sampled_from("wwwwbdefhlmtz"), min_size=1, max_size=12)):
        rows = [bytes([seed.randrange(5)]) + seed.randbytes(line - 1) for _ in range(shape[0])]
        if kind == "f":  # a filter that there is not
            rows[seed.randrange(shape[0])] = bytes([seed.randrange(5, 256)]) * line
        whole = png(b"".join(rows), shape, level=seed.randrange(10), window=seed.randrange(9, 16))
        packed = bytearray(whole[41:-16])
        packed[seed.randrange(len(packed))] ^= 1 << seed.randrange(8)
        flipped = bytearray(whole)
        flipped[seed.randrange(len(whole))] ^= 1 << seed.randrange(8)
        files.append(
            {
                "b": bytes(flipped),
                "d": with_right_checksum(whole, bytes(packed)),
                "e": whole[:33] + png_chunk(b"tEXt", b"a\0b") + whole[33:],
                "h": with_right_checksum(whole, b"\x88\x1c" + whole[43:-16]),  # a larger window than there is
                "l": png(b"".join(rows[1:]), shape),
                "m": png(b"".join([*rows, rows[0]]), shape),
                "t": whole[: seed.randrange(len(whole))],
                "z": with_right_checksum(whole, whole[41:-16] + b"behind the pixels"),
            }.get(kind, whole)
        )
    return shape, files


@given(files_of_one_size())
@few(150, thorough=1500)
def test_what_is_decoded_together_has_the_pixels_of_pillow(drawn: tuple[tuple[int, int, int], list[bytes]]) -> None:
    shape, files = drawn
    model = png(bytes(shape[0] * (1 + shape[1] * shape[2])), shape)
    header = small_png_header(model)
    assert shape_of(header) == shape
    with pytest.MonkeyPatch.context() as held:
        held.setattr(small_pngs, "FEWEST", 1)
        positions, pixels = decode_small_pngs([*files, model], header)
    assert positions[-1] == len(files)
    assert pixels.shape == (len(positions), *shape)
    for position, found in zip(positions[:-1], pixels, strict=False):
        assert np.array_equal(found, by_pillow(files[position], shape[2]))


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (1, 1, 1), (1, 300, 1), (200, 2, 3)])
def test_every_filter_is_undone(shape: tuple[int, int, int]) -> None:
    source = np.random.default_rng(3)
    lines = source.integers(0, 256, (100, shape[0], 1 + shape[1] * shape[2]), dtype=np.uint8)
    lines[:, :, 0] %= 5
    files = [png(each.tobytes(), shape) for each in lines]
    positions, pixels = decode_small_pngs(files, small_png_header(files[0]))
    assert positions == list(range(100))
    assert all(np.array_equal(found, by_pillow(data, shape[2])) for found, data in zip(pixels, files, strict=True))


def test_other_files_have_no_header_here() -> None:
    small, large = (encoded(pictures(1, size=size)[0]) for size in ((28, 28), (56, 56)))
    assert small_png_header(small)
    damaged = small[:20] + b"\1" + small[21:]
    for data in (large, small[:32], damaged, encoded(pictures(1)[0], "JPEG"), b""):
        assert not small_png_header(data)


def test_few_files_are_left_to_the_other_decoders() -> None:
    files = [encoded(picture) for picture in pictures(FEWEST)]
    assert len(decode_small_pngs(files, small_png_header(files[0]))[0]) == len(files)
    assert decode_small_pngs(files[1:], small_png_header(files[0]))[0] == []


def test_files_of_which_none_is_whole() -> None:
    whole = encoded(pictures(1)[0])
    header = small_png_header(whole)
    damaged = with_right_checksum(whole, b"x\x9c" + bytes(40))
    for bad in (damaged, whole[:-1], whole[:100], header):
        assert decode_small_pngs([bad] * FEWEST, header)[0] == []
        assert decode_small_pngs([bad] * FEWEST + [whole], header)[0] in ([], [FEWEST])


def tables(shard: Encoded, spec: DecodePart) -> tuple[list[pa.Table], list[pa.Table], list[Reject]]:
    made = list(decode_shard(shard, "d", "train", spec, "place"))
    return (
        [each.images for each in made if isinstance(each, Decoded)],
        [each.rows for each in made if isinstance(each, Originals)],
        [each for each in made if isinstance(each, Reject)],
    )


_PICTURES = pictures(8, size=(4, 5))
FILES = [
    *map(encoded, _PICTURES),
    encoded(_PICTURES[0].T.copy()),
    encoded(_PICTURES[1], "JPEG"),
    encoded(_PICTURES[2])[:60],
    b"",
    encoded(np.stack([_PICTURES[3]] * 3, -1)),
]
SPECS = [
    DecodePart(mode="L", originals="none"),
    DecodePart(mode="L", originals="keep", size=(4, 5)),
    DecodePart(mode="L", originals="reference", size=(5, 4), on_mismatch="reject"),
    DecodePart(mode="RGB", max_bytes=len(FILES[0])),
    DecodePart(mode="L", max_pixels=19),
]


@given(
    st.lists(st.sampled_from(FILES), max_size=30),
    st.sampled_from(SPECS),
    st.sampled_from([1, 45, 130, 2**24]),
    st.sampled_from([1, 3, 100]),
)
@few(100, thorough=600)
def test_rows_do_not_depend_on_what_is_decoded_together(
    files: Sequence[bytes], spec: DecodePart, group: int, block: int
) -> None:
    paths = tuple(f"{position:03d}" for position in range(len(files)))
    shard = Encoded("s", "f", paths, (None,) * len(files), Blobs(tuple(files)))
    with pytest.MonkeyPatch.context() as held:
        held.setattr("pipeline.decode._GROUP_BYTES", group)
        one_by_one = tables(shard, spec)
        held.setattr("pipeline.decode._BLOCK_FILES", block)
        held.setattr(small_pngs, "FEWEST", 1)
        assert tables(shard, spec) == one_by_one

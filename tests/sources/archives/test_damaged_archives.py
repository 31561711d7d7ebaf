"""An archive that is not whole never passes for one that is."""

import gzip
import os
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from making import as_tar, as_zip, files_of, handed_out, source_of

from pipeline.errors import SourceError
from pipeline.sources import detect, read
from pipeline.sources.archives.archive import unpacked_size_check

_FILES = files_of(9)
_BLOCK = 512


def fails(file: Path, data: bytes, match: str = ".") -> None:
    file.write_bytes(data)
    with pytest.raises(SourceError, match=match) as caught:
        handed_out(source_of(file, format="tar"))
    assert "\n" not in str(caught.value)
    assert file.name in str(caught.value)


def tar_bytes(folder: Path, mode: str = "w") -> bytes:
    return as_tar(folder / "whole", _FILES, mode).read_bytes()


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_fails_wherever_it_is_cut(tmp_path: Path, mode: str) -> None:
    whole = tar_bytes(tmp_path, mode)
    cuts = {*range(0, len(whole), len(whole) // 50), *range(20), *range(len(whole) - 20, len(whole))}
    for cut in sorted(cuts):
        fails(tmp_path / "cut.tar", whole[:cut])


def test_a_plain_tar_fails_wherever_it_is_cut_before_its_end_mark(tmp_path: Path) -> None:
    whole = tar_bytes(tmp_path)
    end = len(whole.rstrip(b"\0")) // _BLOCK * _BLOCK + _BLOCK
    boundaries = [at for at in range(_BLOCK, end, _BLOCK) if whole[at + 257 : at + 262] == b"ustar"]
    assert len(boundaries) == len(_FILES) - 1
    for cut in sorted({*range(0, end + _BLOCK, 100), *boundaries, *(at + 511 for at in boundaries), end}):
        fails(tmp_path / "cut.tar", whole[:cut])


def test_one_block_of_the_end_mark_is_enough(tmp_path: Path) -> None:
    whole = tar_bytes(tmp_path)
    end = len(whole.rstrip(b"\0")) // _BLOCK * _BLOCK + _BLOCK
    (tmp_path / "cut.tar").write_bytes(whole[: end + _BLOCK])
    assert [path for path, _, _ in handed_out(source_of(tmp_path / "cut.tar"))] == list(_FILES)


def test_a_broken_header_is_not_the_end_of_the_archive(tmp_path: Path) -> None:
    whole = bytearray(tar_bytes(tmp_path))
    second = whole.find(b"ustar", _BLOCK) - 257
    whole[second] ^= 1
    fails(tmp_path / "flipped.tar", bytes(whole), "bad checksum where the next file or the end mark should be")


def test_a_flipped_bit_of_a_gzipped_tar_is_found_wherever_it_is(tmp_path: Path) -> None:
    whole = tar_bytes(tmp_path, "w:gz")
    # The first ten bytes are gzip's header with its clock; the checksum covers all the others.
    for at in random.Random(0).sample(range(10, len(whole)), 60):
        data = bytearray(whole)
        data[at] ^= 4
        fails(tmp_path / "flipped.tar", bytes(data))


def test_a_wrong_checksum_behind_the_last_file_is_found(tmp_path: Path) -> None:
    whole = bytearray(tar_bytes(tmp_path, "w:gz"))
    whole[-8] ^= 1
    fails(tmp_path / "flipped.tar", bytes(whole), "CRC check failed")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_two_archives_in_one_file_are_not_read_as_the_first(tmp_path: Path, mode: str) -> None:
    fails(tmp_path / "two.tar", 2 * tar_bytes(tmp_path, mode), "continues after its end mark")


@pytest.mark.parametrize("size", [b"00000777777\0", b"\x80" + struct.pack(">11s", b"\x7f")[::-1], b"\xff" * 12])
def test_a_header_that_lies_about_the_size_is_an_error(tmp_path: Path, size: bytes) -> None:
    whole = bytearray(tar_bytes(tmp_path))
    at = whole.rfind(b"ustar") - 257
    whole[at + 124 : at + 136] = size
    whole[at + 148 : at + 156] = b" " * 8
    whole[at + 148 : at + 156] = b"%06o\0 " % sum(whole[at : at + _BLOCK])
    file = tmp_path / "lies.tar"
    file.write_bytes(whole)
    with pytest.raises(SourceError, match="damaged or cut short"):
        handed_out(source_of(file))


def test_a_thousand_nested_long_names_are_an_error_and_no_crash(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1
    bomb = (info.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(_BLOCK, b"\0")) * 3_000
    fails(tmp_path / "bomb.tar", bomb)


def zeros(file: Path, form: str) -> Path:
    """Write an archive of one file of 1 MiB, at least 500 times its own size."""
    if form == "tar":
        return as_tar(file, {"A/zeros": bytes(2**20)}, "w:gz")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A/zeros", bytes(2**20))
    return file


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_small_archive_may_expand_by_any_ratio(tmp_path: Path, form: str) -> None:
    file = zeros(tmp_path / "a", form)
    assert 500 * file.stat().st_size < 2**20
    assert handed_out(source_of(file)) == [("A/zeros", "A", bytes(2**20))]


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_decompression_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr("pipeline.sources.archives.archive._HARMLESS_BYTES", 2**19)
    with pytest.raises(SourceError, match=r"expands to more than 200 times its size.*unpack it and name the folder"):
        handed_out(source_of(zeros(tmp_path / "a", form)))


@pytest.mark.parametrize(("size", "limit"), [(10_240, 2**30), (6 * 2**20, 1_200 * 2**20)])
def test_an_archive_may_expand_to_1_gib_or_to_200_times_its_size(tmp_path: Path, size: int, limit: int) -> None:
    file = as_tar(tmp_path / "a.tar", {"A/x": b"x"}, "w")
    os.truncate(file, size)
    check = unpacked_size_check(source_of(file))
    check(limit)
    with pytest.raises(SourceError, match="like a decompression bomb"):
        check(limit + 1)


def test_random_damage_to_headers_is_an_error_or_harmless(tmp_path: Path) -> None:
    chance = random.Random(0)
    for archive in (as_tar(tmp_path / "a.tar", _FILES, "w"), as_zip(tmp_path / "a.zip", _FILES)):
        whole = archive.read_bytes()
        for _ in range(200):
            data = bytearray(whole)
            # Tar's headers stand at its front, zip's at its back.
            for at in (chance.randrange(400), len(data) - 1 - chance.randrange(400)):
                data[at] = chance.randrange(256)
            (tmp_path / "damaged").write_bytes(data)
            try:
                count = sum(map(len, read(source_of(tmp_path / "damaged"))))
            except SourceError as error:
                assert "\n" not in str(error)  # noqa: PT017 - both ends are right
            else:
                assert count == len(_FILES)


def test_a_gzip_that_is_cut_in_its_header_is_no_known_form(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"x")[:5])
    with pytest.raises(SourceError, match="its format is not recognised.*check that it is complete"):
        detect(tmp_path / "x.tar.gz")

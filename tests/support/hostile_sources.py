"""Sources with hostile names, labels and contents. The same number always gives the same source."""

import csv
import io
import os
import pickle
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hostile import NAMES
from making import encoded, pictures, png_chunk

FILES = 50
# Where a file would go if its name were believed. {n} makes every name another.
PLACES = (
    "../../outside/{n}.png",
    "../{n}.png",
    "A/../../../outside/{n}.png",
    "/imagelake-hostile-{n}.png",
    "//server/share/{n}.png",
    "\\\\server\\share\\{n}.png",
    "C:\\Windows\\{n}.png",
    "C:/Windows/{n}.png",
    "..\\..\\outside\\{n}.png",
    "%2e%2e%2foutside%2f{n}.png",
    "file:///imagelake-hostile-{n}.png",
    "s3://bucket/{n}.png",
    "~/{n}.png",
    "$HOME/{n}.png",
    "`touch owned`/{n}.png",
    "; touch owned #/{n}.png",
    "-rf/{n}.png",
    "CON/{n}.png",
    "A/NUL.{n}.png",
    "COM1{n}.png",
    "../lake/images/_delta_log/{n}.json",
    "lake/releases/{n}.parquet",
    "A/./././{n}.png",
    "A//B/{n}.png",
    "A/ /{n}.png",
    "A/.../{n}.png",
    ".../{n}.png",
    ".{n}.png",
    "A/{n}",
    "A/{n}.png.exe",
    "A/{n}.PNG",
    "d" * 240 + "/{n}.png",
    "/".join(["deep"] * 400) + "/{n}.png",
    "w" * 5_000 + "{n}.png",
    "A/{n}nul\0x.png",
    "raw\udcff\udc80/{n}.png",
    *(f"{name}/{{n}}.png" for name in NAMES if "{" not in name and "/" not in name),
)


class Made(NamedTuple):
    """A source that was written.

    Attributes:
        form: its format in a recipe.
        file: what the recipe names.
        files: how many rows of images and rejects it must become.
    """

    form: str
    file: str
    files: int


def contents(chance: random.Random) -> bytes:
    """Make the content of a file; about half are pictures."""
    good = encoded(pictures(1, chance.randrange(10**6), (4, 5))[0])
    huge = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", (2**31 - 1).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0")
    text = png_chunk(b"tEXt", b"Comment\0<script>\x1b[2J")
    bad = (
        b"",
        b"\x1b[2J<script>alert(1)</script>",
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        pickle.dumps(print),
        good[: chance.randrange(len(good))],
        huge,
        good[:33] + text + good[33:],
        good + b"PK\5\6" + bytes(18),
        zlib.compress(bytes(10**5)),
        b"../../outside/x",
    )
    return good if chance.random() < 0.5 else chance.choice(bad)


def as_tar(base: Path, chance: random.Random) -> Made:
    """Write a tar, plain or compressed, whose members include links, devices and folders."""
    mode, ending = chance.choice((("w", "tar"), ("w:gz", "tar.gz")))
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    form = chance.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    files = 0
    with tarfile.open(base / f"in.{ending}", mode, format=form, errors="surrogateescape") as archive:  # type: ignore[call-overload] # a mode that is not a literal
        for number in range(FILES):
            info = tarfile.TarInfo(chance.choice(PLACES).format(n=number))
            data = contents(chance)
            if chance.random() < 0.2:
                info.type, data = chance.choice(kinds), b""
                info.linkname = chance.choice(("/etc/passwd", "../outside/kept.txt", "../../outside", info.name))
            info.size = len(data)
            info.mode, info.uid = 0o6777, 0
            archive.addfile(info, io.BytesIO(data))
            files += info.type != tarfile.DIRTYPE
    return Made("tar", f"in.{ending}", files)


def as_zip(base: Path, chance: random.Random) -> Made:
    """Write a zip in which some files are marked as links."""
    files = 0
    with zipfile.ZipFile(base / "in.zip", "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for number in range(FILES):
            name = chance.choice(PLACES).format(n=number).encode("utf-8", "replace").decode()
            info = zipfile.ZipInfo(name.replace("\0", "0"))
            info.external_attr = (0o120777 if chance.random() < 0.1 else 0o106777) << 16
            archive.writestr(info, b"../outside/kept.txt" if info.external_attr >> 28 == 10 else contents(chance))
            files += 1
    return Made("zip", "in.zip", files)


def as_samples(base: Path, chance: random.Random) -> Made:
    """Write a WebDataset tar with hostile names as labels."""
    with tarfile.open(base / "in.tar", "w", errors="surrogateescape") as archive:
        for number in range(FILES):
            folder = chance.choice(PLACES).rpartition("/")[0].format(n="x")
            for end, data in (("png", contents(chance)), ("cls", chance.choice(NAMES).encode())):
                info = tarfile.TarInfo(f"{folder}/{number:04d}.{end}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return Made("webdataset", "in.tar", FILES)


def as_folder(base: Path, chance: random.Random) -> Made:
    """Write a folder that also has links to files and folders outside of it, loops and a pipe."""
    (base / "in").mkdir()
    for number in range(FILES):
        place = [part[:100].replace("\0", "0") for part in chance.choice(PLACES).format(n=number).split("/")[-9:]]
        parts = [part for part in place[:-1] if part not in {"", ".", ".."}]
        file = os.fsencode(base / "in" / Path(*parts, f"{number}{place[-1][-90:]}"))
        os.makedirs(os.path.dirname(file), exist_ok=True)  # noqa: PTH103, PTH120 - bytes
        kind = chance.random()
        if kind < 0.1:
            to = chance.choice(("/etc/passwd", base / "outside", base / "outside" / "kept.png", file, "nowhere"))
            os.symlink(os.fsencode(to), file)  # noqa: PTH211 - bytes
        elif kind < 0.15:
            os.mkfifo(file)
        else:
            with open(file, "wb") as stream:  # noqa: PTH123 - bytes
                stream.write(contents(chance))
    return Made("folder", "in", FILES)


def as_list(base: Path, chance: random.Random) -> Made:
    """Write a list of files, few of which exist, with hostile names as labels."""
    rows = []
    for number in range(FILES):
        path = chance.choice(PLACES).format(n=number).encode("utf-8", "replace").decode()
        if chance.random() < 0.5:
            path = f"p/{number}.png"
            (base / "p").mkdir(exist_ok=True)
            (base / path).write_bytes(contents(chance))
        rows.append((path, chance.choice(NAMES)))
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("path", "label"), *rows])
    (base / "in.csv").write_bytes(text.getvalue().encode())
    return Made("list", "in.csv", FILES)


FORMS: tuple[Callable[[Path, random.Random], Made], ...] = (as_tar, as_zip, as_samples, as_folder, as_list)


def write_source(base: Path, number: int) -> Made:
    """Write the source of a number into a folder that contains a folder `outside`."""
    return FORMS[number % len(FORMS)](base, random.Random(number))

"""Files and folders that operating systems, file servers and tools leave among data: no class and no picture of a set.

A folder whose name begins with one dot is such a folder (`.git`, `.ipynb_checkpoints`, `.Trash-1000`), and so are the
names below, in any case. A file whose name begins with a dot is not: it may be a picture.
"""

from functools import lru_cache

_FOLDERS = frozenset(
    [
        "__macosx",  # macOS, in zip archives
        "network trash folder",
        "temporary items",
        "$recycle.bin",  # Windows
        "system volume information",
        "lost+found",  # Linux
        "@eadir",  # Synology
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "@__thumb",
        "~snapshot",  # NetApp
        "__pycache__",
    ]
)
_FILES = frozenset(
    [
        ".ds_store",  # macOS
        ".localized",
        ".apdisk",
        ".volumeicon.icns",
        "icon\r",
        "thumbs.db",  # Windows
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        ".directory",  # KDE
        ".hidden",  # GNOME
        ".nomedia",  # Android
        "picasa.ini",
        ".picasa.ini",
        ".dropbox",
        ".dropbox.attr",
        ".gitignore",
        ".gitattributes",
        ".gitkeep",
        ".gitmodules",
        ".keep",
        ".dvcignore",
    ]
)
# Windows marks a downloaded file by a stream of its own, which other systems unpack as a file beside it.
_STREAM_ENDINGS = ("zone.identifier", ":encryptable")
# Each name above holds one of these, and so does every hidden folder, in the lines of a text of paths in lower case.
_RARE_CHARACTERS = "@#$~+:\r"
_MARKS = ("/.", "\n.", "thumbs", "desktop.ini", "picasa.ini", "macosx", "pycache", "zone.identifier")
_SPACED_MARKS = ("system volume", "network trash", "temporary items")


def may_hold_system_files(lines: str) -> bool:
    """Tell quickly whether `system_file` may say something of one of many paths; where it is false, it says nothing.

    Args:
        lines: the paths, each with a line feed before and behind it.
    """
    text = lines.lower()
    if any(character in text for character in _RARE_CHARACTERS) or any(mark in text for mark in _MARKS):
        return True
    return " " in text and any(mark in text for mark in _SPACED_MARKS)


def system_file(path: str) -> str:
    """Tell why a file is none of the data: what is wrong with its name or with a folder that it lies in; else empty."""
    folder, _, name = path.rpartition("/")
    found = folder and system_folder(folder)
    if found:
        return f"in {found}, a hidden folder or one of an operating system or tool"
    return "left beside files by an operating system" if _is_system_name(name.lower()) else ""


@lru_cache(2**16)
def system_folder(path: str) -> str:
    """Name the first part of a folder's path that is a system folder; empty where none is."""
    return next(filter(is_system_folder, path.split("/")), "")


def is_system_folder(name: str) -> bool:
    """Tell whether a folder of this name holds no data. A name that begins with two dots is ordinary."""
    return (name[:1] == "." and name[1:2] not in ("", ".")) or name.lower() in _FOLDERS


def _is_system_name(name: str) -> bool:
    return name.startswith("._") or name in _FILES or name.endswith(_STREAM_ENDINGS)

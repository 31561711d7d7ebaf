"""Recognise files and folders of operating systems, file servers and tools, which are no data.

System folders are those whose name begins with one dot (`.git`, `.ipynb_checkpoints`, `.Trash-1000`), and the names
below in upper or lower case. A file whose name begins with a dot may be an image.
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
# Windows marks a downloaded file with an alternate data stream, which other systems unpack as a file beside it.
_STREAM_ENDINGS = ("zone.identifier", ":encryptable")
# Each name above and every hidden folder contains one of these, in a text of paths in lower case, one on each line.
_RARE_CHARACTERS = "@#$~+:\r"
_MARKS = ("/.", "\n.", "thumbs", "desktop.ini", "picasa.ini", "macosx", "pycache", "zone.identifier")
_SPACED_MARKS = ("system volume", "network trash", "temporary items")


def may_hold_system_files(lines: str) -> bool:
    """Return whether one of many paths may be a system file: a quick test; False means that none is.

    Args:
        lines: the paths, each with a line feed before and after it.
    """
    text = lines.lower()
    if any(character in text for character in _RARE_CHARACTERS) or any(mark in text for mark in _MARKS):
        return True
    return " " in text and any(mark in text for mark in _SPACED_MARKS)


def system_file(path: str) -> str:
    """Return why a file is a system file, by its name or one of its folders; empty if it is not."""
    folder, _, name = path.rpartition("/")
    found = folder and system_folder(folder)
    if found:
        return f"in {found}, a hidden folder or one of an operating system or tool"
    return "left beside files by an operating system" if _is_system_name(name.lower()) else ""


@lru_cache(2**16)
def system_folder(path: str) -> str:
    """Return the first system folder in the path of a folder; empty if there is none."""
    return next(filter(is_system_folder, path.split("/")), "")


def is_system_folder(name: str) -> bool:
    """Return whether a folder name is that of a system folder. A name that begins with two dots is not."""
    return (name[:1] == "." and name[1:2] not in ("", ".")) or name.lower() in _FOLDERS


def _is_system_name(name: str) -> bool:
    return name.startswith("._") or name in _FILES or name.endswith(_STREAM_ENDINGS)

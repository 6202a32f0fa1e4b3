"""Names of hidden and temporary files and folders, which hold no documents."""

from __future__ import annotations

_TEMPORARY_PREFIXES = (".", "~$", "#recycle", "#snapshot")
_TEMPORARY_SUFFIXES = (
    "~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download",
)  # fmt: skip
_TEMPORARY_NAMES = frozenset(
    (
        "4913",  # Vim, to test whether it may write here
        "@eadir", "@tmp", "@recycle", "@recently-snapshot",  # Synology, QNAP
        "__macosx", "icon\r",  # macOS; its other names begin with a dot
        "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information",  # Windows
        "lost+found",
    )
)  # fmt: skip


def is_temporary(name: str) -> bool:
    """Return whether a file or folder of this name must be ignored.

    >>> [is_temporary(name) for name in ("a.pdf", ".~lock.a.odt#", "~$a.docx", "a.part", "4913")]
    [False, True, True, True, True]
    """
    lower = name if name.islower() else name.lower()
    return (
        lower.startswith(_TEMPORARY_PREFIXES)
        or lower.endswith(_TEMPORARY_SUFFIXES)
        or lower in _TEMPORARY_NAMES
    )


def is_temporary_path(relpath: str) -> bool:
    return any(is_temporary(name) for name in relpath.split("/"))

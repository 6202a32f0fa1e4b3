"""Names of files that are still being made, or that a system keeps for itself. Pure.

They are left alone: whoever makes one renames it when it is whole.
"""

from __future__ import annotations

_BEGINNINGS = (".", "~$", "#recycle", "#snapshot")
_ENDINGS = ("~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download")
_NAMES = frozenset(
    (
        "4913",  # Vim, when it tries whether it may write here
        "@eadir", "@tmp", "@recycle", "@recently-snapshot",  # Synology, QNAP
        "__macosx", "icon\r",  # macOS; its others begin with a dot
        "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information",  # Windows
        "lost+found",
    )
)  # fmt: skip


def is_temporary(name: str) -> bool:
    """Tell whether a file or folder of this name is none of ours.

    >>> [is_temporary(name) for name in ("a.pdf", ".~lock.a.odt#", "~$a.docx", "a.part", "4913")]
    [False, True, True, True, True]
    """
    lower = name if name.islower() else name.lower()
    return lower.startswith(_BEGINNINGS) or lower.endswith(_ENDINGS) or lower in _NAMES


def is_temporary_path(relpath: str) -> bool:
    """Tell whether any part of a path below the root is temporary."""
    return any(is_temporary(name) for name in relpath.split("/"))

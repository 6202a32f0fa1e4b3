"""Which errors of the system may pass. Imports little: every process that reads documents asks."""

from __future__ import annotations

import errno

_TRANSIENT_ERRNOS = frozenset((
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS, errno.EIO, errno.ESTALE,
    errno.ETXTBSY,
))  # fmt: skip


def is_transient(error: BaseException) -> bool:
    """Return whether an error is the machine's as it is now: files, processes, memory ran out."""
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS

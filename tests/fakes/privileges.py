"""Root's privilege to read and write everything, put aside for a while (Linux)."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_SET_SECUREBITS = 28
# A program of root has no privilege again; `access` looks at what is in force, not at what may be.
_NOROOT, _NO_SETUID_FIXUP = 1 << 0, 1 << 2
_Words = ctypes.c_uint32 * 6  # effective, permitted and inheritable, twice


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, name)


@contextmanager
def without_roots_privilege() -> Iterator[None]:
    """Have permissions count for this thread, for those that it starts and for its programs.

    Raises:
        OSError: this process may not do so.
    """
    header, own = (ctypes.c_uint32 * 2)(_VERSION_3, 0), _Words()
    _call("capget", header, own)
    fewer = _Words(*own)
    fewer[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    _call("prctl", _SET_SECUREBITS, _NOROOT | _NO_SETUID_FIXUP, 0, 0, 0)
    try:
        _call("capset", header, fewer)
        yield
    finally:
        _call("capset", header, own)
        _call("prctl", _SET_SECUREBITS, 0, 0, 0, 0)

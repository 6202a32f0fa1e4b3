"""What llama.cpp can fail at, as the rest of a worker sees it."""

from __future__ import annotations


class LoadFailed(Exception):
    """llama.cpp would not load the model or make its context; the reason is on stderr."""


class CacheFull(Exception):
    """No free cells for this batch; nothing was decoded, so it can be tried again."""


class DecodeFailed(Exception):
    """llama.cpp could not compute; the context is not to be trusted any more."""

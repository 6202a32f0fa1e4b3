"""How asking another server may fail so that asking again, or another one, helps."""

from __future__ import annotations


class Away(Exception):
    """Nobody answers there, or not to the end; `was_sent`: the request may have been begun."""

    def __init__(self, reason: str, *, was_sent: bool = False) -> None:
        self.reason = reason
        self.was_sent = was_sent
        super().__init__(reason)


class Later(Exception):
    """The server is full, or loads its model; it may have said after how many seconds."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        self.reason = reason
        self.after_s = after_s
        super().__init__(reason)

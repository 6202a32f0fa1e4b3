"""Messages between `paddock up` and the processes of its runs, through a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddock.runner.progress.report import Report


@dataclass(frozen=True, slots=True)
class RunTask:
    """One run to carry out."""

    flow_run: str
    parameters: Mapping[str, Any]
    """As verified. The flow run's own are not read again: others may have changed them."""
    text: str
    flags: Mapping[str, object] = field(default_factory=dict)
    """The command line's settings; the rest, permissions too, is read when the run begins."""
    api_url: str = ""
    """Prefect's API, as `paddock up` reaches it. The process that runs are forked from may have
    been started when it was elsewhere; empty: as in the environment."""
    auth_string: str = field(default="", repr=False)
    """Password of our own Prefect server."""
    agreed: frozenset[str] = frozenset()
    """What a person consented to for the file: code that changed since does not run."""


@dataclass(frozen=True, slots=True)
class RunBegan:
    """The run's name."""

    run: str


@dataclass(frozen=True, slots=True)
class RunWaits:
    """What the run waits for on other machines; empty: it no longer waits."""

    words: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over; without a `report`, `words` is the error that ended it."""

    report: Report | None
    words: str = ""
    is_unreachable: bool = False
    """Prefect could not be reached, and nothing was begun."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Stop, after the current item or at once."""

    words: str
    is_gentle: bool
    is_interrupted: bool = False
    """It was cancelled for good, rather than held for a while."""
    is_handed_over: bool = False
    """`paddock up` ends; other machines continue their part of the run."""

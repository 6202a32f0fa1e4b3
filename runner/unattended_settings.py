"""What a person wants of runs that nobody watches: how many, how often, how long kept. Plain."""

from __future__ import annotations

from dataclasses import dataclass, field

from .address import Address

UP_PORT = 11436
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class UnattendedSettings:
    """Settings of the local service, of `paddock up` and of the workers."""

    service_idle_s: float = 900.0
    """After so long without work the local service ends by itself."""
    address: Address = field(default_factory=lambda: Address(port=UP_PORT))
    """Where `paddock up` takes webhooks and tells how it is."""
    work_pool: str = ""
    """The Prefect work pool whose workers carry out runs; empty: `paddock up` does so itself."""
    max_runs: int = 2
    """Runs at a time that `paddock up` carries out on this machine."""
    max_attempts: int = 3
    """After so many failures for a passing reason an item is quarantined."""
    max_restarts: int = 3
    """How often a run that crashed is started again."""
    dead_after_s: float = 60.0
    """A machine of which the ledger in PostgreSQL hears nothing for so long is taken for dead."""
    smtp_url: str = field(default="", repr=False)
    """`smtp://[user:password@]host[:port]`, or `smtps://`; for notifications by mail."""
    mail_from: str = ""
    keep_runs_s: float = 90 * _DAY_S
    """How long what is known of a run, and its log, is kept."""
    keep_calls_s: float = 180 * _DAY_S
    """How long replies are kept that no item needs any more."""
    keep_tracking_s: float = 14 * _DAY_S
    """How long Prefect keeps runs and events."""
    max_ledger_bytes: int = 0
    """Above it the oldest replies that no item needs go first; 0: no limit."""

"""Whether a run uses this machine's service, and where it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RunMode:
    """Whether a run uses the service, and where it is shown."""

    service: Literal["none", "found", "started"]
    """Whether this machine's service is used: not at all, where it runs, or in any case."""
    prefect: Literal["none", "within", "api", "service"]
    """Where it is shown: nowhere, in the current flow run, by `PREFECT_API_URL`, or by the
    service."""


def run_mode(
    local: bool | None, environ: Mapping[str, str], *, has_pool: bool = False, within: bool = False
) -> RunMode:
    """Decide where a run is served and shown; `has_pool`: the caller brings a pool.

    >>> run_mode(None, {}), run_mode(True, {}), run_mode(None, {"CI": "1"})
    (RunMode(service='started', prefect='service'), RunMode(service='none', prefect='none'), \
RunMode(service='none', prefect='none'))
    """
    if local is True:
        return RunMode("none", "none")
    in_ci = is_ci(environ) and local is None
    if within:
        return RunMode("none" if has_pool else "found" if in_ci else "started", "within")
    if environ.get("PREFECT_API_URL", "").strip():
        return RunMode("none" if has_pool or in_ci else "started", "api")
    if in_ci or (has_pool and local is None):
        return RunMode("none", "none")
    return RunMode("started", "service")


def is_ci(environ: Mapping[str, str]) -> bool:
    """Return whether this is a CI machine, where nothing may be left running."""
    return environ.get("CI", "").strip().lower() not in ("", "0", "false", "no", "off")

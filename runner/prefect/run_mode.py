"""Whether a run uses this machine's service, and whether it is a flow run of Prefect's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from paddock.runner.settings import is_ci

ServiceUse = Literal["none", "found", "started"]
"""Whether this machine's service is used: not at all, where it runs, or in any case."""


def service_use(
    local: bool | None, environ: Mapping[str, str], *, has_pool: bool = False, within: bool = False
) -> ServiceUse:
    """Decide whether a run uses the service.

    `has_pool`: the caller brings a pool; `within`: the run is in a flow run.

    >>> service_use(None, {}), service_use(True, {}), service_use(None, {"CI": "1"})
    ('started', 'none', 'none')
    >>> service_use(False, {"CI": "1"}), service_use(None, {"CI": "1"}, within=True)
    ('started', 'found')
    """
    in_ci = is_ci(environ) and local is None
    if local is True or (has_pool and (within or local is None)) or (in_ci and not within):
        return "none"
    return "found" if in_ci else "started"


def is_flow(local: bool | None, environ: Mapping[str, str], *, is_prefect: bool) -> bool:
    """Decide whether a run is a flow run; `is_prefect`: the setting of that name.

    >>> is_flow(None, {}, is_prefect=False), is_flow(None, {}, is_prefect=True)
    (False, True)
    >>> api = {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    >>> is_flow(None, api, is_prefect=False), is_flow(True, api, is_prefect=True)
    (True, False)
    """
    return local is not True and (is_prefect or bool(environ.get("PREFECT_API_URL", "").strip()))

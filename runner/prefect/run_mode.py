"""Whether a run uses this machine's service, and whether it is a flow run of Prefect's."""

from __future__ import annotations

from collections.abc import Mapping

from paddock.runner.settings import is_ci


def uses_service(local: bool | None, environ: Mapping[str, str], *, has_pool: bool = False) -> bool:
    """Decide whether a run uses the service; `has_pool`: the caller brings a pool.

    >>> uses_service(None, {}), uses_service(True, {}), uses_service(None, {"CI": "1"})
    (True, False, False)
    >>> uses_service(False, {"CI": "1"}), uses_service(None, {}, has_pool=True)
    (True, False)
    """
    return local is False or (local is None and not has_pool and not is_ci(environ))


def is_flow(local: bool | None, environ: Mapping[str, str], *, is_prefect: bool) -> bool:
    """Decide whether a run is a flow run; `is_prefect`: the setting of that name.

    >>> is_flow(None, {}, is_prefect=False), is_flow(None, {}, is_prefect=True)
    (False, True)
    >>> api = {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    >>> is_flow(None, api, is_prefect=False), is_flow(True, api, is_prefect=True)
    (True, False)
    """
    return local is not True and (is_prefect or bool(environ.get("PREFECT_API_URL", "").strip()))

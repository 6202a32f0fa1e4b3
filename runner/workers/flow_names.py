"""What Prefect knows a pipeline by: entrypoint, deployment, and what its form gives besides inputs.

Knows no Prefect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from paddock.runner.progress.prefect_view import FLOW_MODULE, prefect_name

ORDER = "Paddock"
"""The parameter with what is asked of a run besides inputs, whose names begin with small letters.

Only `retry_failed` is, today."""


def inputs_of_flow_form(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the inputs in a flow run's parameters, and whether quarantined items are tried again.

    An empty field of a form is null.

    >>> inputs_of_flow_form({"n": 1, "Paddock": {"retry_failed": True}})
    ({'n': 1}, True)
    >>> inputs_of_flow_form({"n": None, "Paddock": None})
    ({}, False)
    """
    inputs = {name: value for name, value in parameters.items() if value is not None}
    options = inputs.pop(ORDER, None) or {}
    if not isinstance(options, Mapping):  # the pipeline has no such input
        return dict(parameters), False
    return inputs, options.get("retry_failed") is True


def quoted_path(file: str) -> str:
    return quote(file).replace(".", "%2E")


def entrypoint(file: str) -> str:
    return f"{FLOW_MODULE}.{quoted_path(file)}"


def file_of_entrypoint(written: str) -> str:
    """Return the pipeline's file of an entrypoint; empty: it is no pipeline's.

    >>> file_of_entrypoint(entrypoint("/srv/v1.2/a b.yaml"))
    '/srv/v1.2/a b.yaml'
    """
    _, is_ours, name = written.partition(f"{FLOW_MODULE}.")
    return unquote(name.partition("?")[0]) if is_ours else ""


def deployment_name(file: str) -> str:
    """Name a file's deployment: its last two names, and a hash of the whole path.

    >>> deployment_name("/home/ada/digest/pipeline.yaml")
    'digest pipeline.yaml b3d04b'
    >>> deployment_name("/home/ada/R&D/pipeline.yaml")[:-7]
    'R D pipeline.yaml'
    """
    digest = hashlib.sha256(file.encode()).hexdigest()[:6]
    return f"{prefect_name(' '.join(file.strip('/').split('/')[-2:]))} {digest}"

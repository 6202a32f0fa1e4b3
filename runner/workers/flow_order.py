"""Flow order: what `paddock up` asks of a flow run, besides the pipeline's inputs.

A flow run's parameters in Prefect are the inputs, as of every flow of a pipeline, and under a name
that no input can have the order with its signature. Knows no Prefect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.progress.prefect_view import FLOW_MODULE, prefect_name

ORDER = "Paddock"
"""The parameter with the order. Names of inputs begin with a small letter."""
GIVEN = "given"
"""In the order: the names of its inputs. A deployment may have more, which a person has set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOrder:
    """A verified order."""

    path: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    trigger: str = "Prefect"
    retry_failed: bool = False
    job: str = ""
    """Names the runs that do one work, one after the other; empty: the flow run."""
    root: str = ""
    """The flow run whose webhook calls this one is a part of."""
    calls: Sequence[Mapping[str, Any]] = ()
    """Webhook calls that waited together, each with its `id` and `inputs`: they are runs of one
    process, one after the other, but for those that the ledger has as done. `inputs` are then
    those of the first."""


def as_parameters(order: Mapping[str, Any]) -> dict[str, Any]:
    """Return an order as a flow run's parameters.

    >>> as_parameters({"path": "/p.yaml", "inputs": {"n": 1}, "trigger": "hand"})
    {'n': 1, 'Paddock': {'path': '/p.yaml', 'trigger': 'hand', 'given': ['n']}}
    """
    rest = {name: value for name, value in order.items() if name != "inputs"}
    inputs = order.get("inputs", {})
    return {**inputs, ORDER: {**rest, GIVEN: [*inputs]}}


def order_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the order in a flow run's parameters, which anyone may have written.

    >>> order_of({"n": 1, "Paddock": {"retry_failed": True}}), order_of({"n": 1})
    ({'retry_failed': True, 'inputs': {'n': 1}}, {'inputs': {'n': 1}})
    """
    inputs = dict(parameters)
    order = inputs.pop(ORDER, None) or {}
    if not isinstance(order, Mapping):  # the pipeline has no such input
        return {"inputs": dict(parameters)}
    return {**order, "inputs": inputs}


def without_defaults(order: Mapping[str, Any]) -> dict[str, Any]:
    """Return an order as it was signed, without the parameters that its deployment has added.

    >>> added = {"greeting": "Seen"} | as_parameters({"path": "/p.yaml", "inputs": {"n": 1}})
    >>> without_defaults(order_of(added))
    {'path': '/p.yaml', 'inputs': {'n': 1}}
    """
    found = dict(order)
    given = found.pop(GIVEN, None)
    if isinstance(given, list):
        found["inputs"] = {name: value for name, value in order["inputs"].items() if name in given}
    return found


def quoted_path(file: str) -> str:
    """Return a file's path as a name in `FLOW_MODULE`; Prefect splits it at dots and colons."""
    return quote(file).replace(".", "%2E")


def entrypoint(file: str) -> str:
    """Return where Prefect finds the flow of a pipeline's file."""
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

"""Which queued runs of a triggered pipeline are admitted.

On our own Prefect server, which asks for this user's password, an order counts that has the form of
ours. On a server that others use it counts if Paddock signed it: they could submit a run with other
parameters or change those of a waiting one, while consents were given for the pipeline as its file
stands here. The path is always that of our own registry. What is no order was started on Prefect's
page: on our own server its inputs are checked as a webhook's are, elsewhere it may have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError, with_config

from paddock.pipelines.errors import PipelineError
from paddock.runner.daemon.run_signatures import SIGNATURE, Signer
from paddock.runner.workers.flow_order import FlowOrder, without_defaults

from .triggered_pipeline import TriggeredPipeline

_ORDER = TypeAdapter(with_config(extra="forbid")(FlowOrder))


class NotAdmitted(Exception):
    """A run is not admitted; the message is the reason in one line."""


def admitted_order(
    order: Mapping[str, Any], run_key: str, triggered: TriggeredPipeline, signer: Signer | None
) -> dict[str, Any]:
    """Return the checked order of a run of this pipeline; `order` is as its parameters have it.

    `signer`: of a server that others use; None: it is our own.

    Raises:
        NotAdmitted: it asks for more than it may.
    """
    file = str(triggered.file)
    unsigned = unsigned_order(file)
    ours = without_defaults(order)
    plain = unsigned | {name: value for name, value in ours.items() if name != SIGNATURE}
    if plain["path"] != file:
        raise NotAdmitted("its path is not that of the deployed pipeline.")
    if signer is not None and signer.has_signed(ours, run_key):
        return {name: value for name, value in ours.items() if name != SIGNATURE}
    # Scheduled runs have these too: those planned under another key are not lost.
    triggers = (unsigned["trigger"], *(timed.key for timed in triggered.schedules))
    if unsigned | {"trigger": plain["trigger"]} == plain and plain["trigger"] in triggers:
        return plain
    if signer is not None:
        raise NotAdmitted(
            "Paddock did not put it into the queue, and on a Prefect server that others use it "
            "may have no parameters."
        )
    if plain["trigger"] != unsigned["trigger"]:
        try:
            checked = _ORDER.validate_python(plain)
        except ValidationError as error:
            raise NotAdmitted(f"it is no order of Paddock's: {error.errors()[0]['loc']}.") from None
        return {name: getattr(checked, name) for name in plain}
    try:
        inputs = triggered.inputs_from_elsewhere(order["inputs"])
    except PipelineError as error:
        raise NotAdmitted(" ".join(fault.message for fault in error.faults)) from None
    again = {"retry_failed": True} if order.get("retry_failed") is True else {}
    return {**unsigned, "inputs": inputs, **again}


def unsigned_order(file: str) -> dict[str, Any]:
    """Return the order of a run that Prefect itself starts, without parameters."""
    return {"path": file, "inputs": {}, "trigger": "Prefect"}

"""Which queued runs of a triggered pipeline are admitted: those that Paddock signed.

Who reaches Prefect's API can submit a run with other parameters or change those of a waiting one,
while consents were given for the pipeline as its file stands here. So the path is always that of
our own registry, and an order counts that Paddock signed. Unsigned runs of our own server were
started on its page by someone who has its password: their inputs are checked as a webhook's are.
Unsigned runs of another server may have no parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddock.pipelines.errors import PipelineError
from paddock.runner.daemon.run_signatures import SIGNATURE, Signer
from paddock.runner.workers.flow_order import GIVEN, without_defaults

from .triggered_pipeline import TriggeredPipeline


class NotAdmitted(Exception):
    """A run is not admitted; the message is the reason in one line."""


def admitted_order(
    order: Mapping[str, Any],
    run_key: str,
    triggered: TriggeredPipeline,
    signer: Signer,
    *,
    is_own_server: bool,
) -> dict[str, Any]:
    """Return the verified order of a run of this pipeline; `order` is as its parameters have it.

    Raises:
        NotAdmitted: Paddock did not sign it, and it asks for more than it may.
    """
    file = str(triggered.file)
    unsigned = unsigned_order(file)
    added = (SIGNATURE, GIVEN)
    plain = unsigned | {name: value for name, value in order.items() if name not in added}
    if plain["path"] != file:
        raise NotAdmitted("its path is not that of the deployed pipeline.")
    signed = without_defaults(order)
    if signer.has_signed(signed, run_key):
        return {name: value for name, value in signed.items() if name != SIGNATURE}
    # Scheduled runs have these too: those planned under another key are not lost.
    triggers = (unsigned["trigger"], *(timed.key for timed in triggered.schedules))
    if plain in [unsigned | {"trigger": trigger} for trigger in triggers]:
        return plain
    if not is_own_server:
        raise NotAdmitted(
            "Paddock did not put it into the queue, and on a Prefect server that others use it "
            "may have no parameters."
        )
    try:
        inputs = triggered.inputs_from_elsewhere(order["inputs"])
    except PipelineError as error:
        raise NotAdmitted(" ".join(fault.message for fault in error.faults)) from None
    again = {"retry_failed": True} if order.get("retry_failed") is True else {}
    return {**unsigned, "inputs": inputs, **again}


def unsigned_order(file: str) -> dict[str, Any]:
    """Return the order of a run that Prefect itself starts, without parameters."""
    return {"path": file, "inputs": {}, "trigger": "Prefect"}

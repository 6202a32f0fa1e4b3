"""Decide which runs of Prefect's queue are carried out, and with which parameters. Pure.

Whoever reaches Prefect's API can make a run with parameters of their own, or change those of one
that waits, while consents were given for the pipeline as its file stands here. So the path is
always that of our own registry, and parameters count that Paddock signed. Of other runs, those of
our own server were started on its page by someone who has its password: their inputs are checked as
those of a webhook are. Those of another's server may have the deployment's own parameters and no
others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddock.pipelines.errors import PipelineError
from paddock.runner.signing import SIGNATURE, Signer

from .standing import Standing


class Refused(Exception):
    """A run is not carried out: why, in one line."""


def admitted(
    parameters: Mapping[str, Any],
    run_key: str,
    standing: Standing,
    signer: Signer,
    *,
    is_own_server: bool,
) -> dict[str, Any]:
    """Return the parameters with which a run of this pipeline is carried out.

    Raises:
        Refused: it was not made by Paddock, and asks for more than it may.
    """
    file = str(standing.file)
    if parameters.get("path") != file:
        raise Refused("its path is not that of the deployed pipeline.")
    plain = {name: value for name, value in parameters.items() if name != SIGNATURE}
    if signer.has_signed(parameters, run_key):
        return plain
    deployed = deployed_parameters(file)
    # What a run of a schedule has, too: those that were planned under another key are not lost.
    triggers = (deployed["trigger"], *(timed.key for timed in standing.schedules))
    if plain in [deployed | {"trigger": trigger} for trigger in triggers]:
        return plain
    if not is_own_server:
        raise Refused(
            "Paddock did not put it into the queue, and on a Prefect server that others use it "
            "may have no parameters but those of the deployment."
        )
    inputs = parameters.get("inputs") or {}
    if not isinstance(inputs, Mapping):
        raise Refused("its inputs are not an object with names.")
    try:
        checked = standing.inputs_from_elsewhere(inputs)
    except PipelineError as error:
        raise Refused(" ".join(fault.message for fault in error.faults)) from None
    is_retry = parameters.get("retry_failed") is True
    return {**deployed, "inputs": checked, **({"retry_failed": True} if is_retry else {})}


def deployed_parameters(file: str) -> dict[str, Any]:
    """Return the parameters of a file's deployment; runs that Prefect itself starts have them."""
    return {"path": file, "inputs": {}, "trigger": "Prefect"}

"""What an item's steps asked and were told: their calls with requests and raw replies.

Where an older version recorded an item, the calls that it was the first to make are all there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from paddock.runner import made
from paddock.runner.ledger.entries import KeptCall
from paddock.runner.ledger.origins import Origins

from .find import Trace
from .origin import Call, Step, loaded


def steps_of(origins: Origins, trace: Trace) -> tuple[Step, ...]:
    """Give the steps of an item that called something, in the order in which they ran."""
    if trace.made is None:
        return _of_older(origins, trace)
    _, steps = made.read(trace.made.made)
    checks = _checks(origins, trace)
    return tuple(
        Step(
            step.id,
            step.uses,
            step.model,
            step.seconds,
            checks.get(step.id, ()),
            tuple(_call(origins, call, trace.made.run) for call in step.calls),
        )
        for step in steps
    )


def _of_older(origins: Origins, trace: Trace) -> tuple[Step, ...]:
    is_of_block = trace.entry is not None and trace.key != trace.place.step
    shown = "/".join((*trace.place.outer, trace.key)) if is_of_block else ""
    kept = [origins.call(hash_) for hash_ in origins.calls_of(trace.place.scope, shown)]
    calls = tuple(_told(one, one.run, None) for one in kept if one is not None)
    return (Step(trace.place.step, "", None, None, (), calls),) if calls else ()


def _call(origins: Origins, call: made.CallMade, run: str) -> Call:
    kept = origins.call(call.hash)
    if kept is not None:
        return _told(kept, run, call)
    usage = {"prompt_tokens": call.prompt, "completion_tokens": call.completion}
    return Call(
        call.hash, call.kind, "", "", "", call.is_known, call.began, call.seconds, run, {}, "",
        None, usage, is_gone=True,
    )  # fmt: skip


def _told(kept: KeptCall, run: str, call: made.CallMade | None) -> Call:
    reply = "" if kept.kind == "embed" else kept.reply.decode("utf-8", "replace")
    return Call(
        hash=kept.hash,
        kind=kept.kind,
        model=kept.model,
        digest=kept.digest,
        served_digest=kept.served_digest,
        is_known=call is not None and call.is_known,
        at=kept.at if call is None else call.began,
        seconds=None if call is None else call.seconds,
        run=run,
        request=loaded(kept.request),
        reply=reply,
        done_reason=kept.done_reason,
        usage=kept.usage,
    )


def spec_of(origins: Origins, trace: Trace) -> Mapping[str, Any]:
    """Give what the pipeline said when the item was done; empty where that is not known."""
    digest = None if trace.made is None else trace.made.spec
    text = None if digest is None else origins.spec(digest)
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def _checks(origins: Origins, trace: Trace) -> dict[str, tuple[str, ...]]:
    steps = spec_of(origins, trace).get("steps", {})
    return {name: tuple(_checks_of(step)) for name, step in steps.items()}


def _checks_of(step: Mapping[str, Any]) -> Iterable[str]:
    """Give a step's checks as its author wrote them."""
    reply = step.get("reply")
    given = reply.get("check") if isinstance(reply, dict) else None
    return [given] if isinstance(given, str) else [str(check) for check in given or ()]

"""Consent to what a pipeline file asks for: `paddock up` keeps a digest of each thing.

A file that is new or asks for something else asks again: commands, servers, hosts, code. Prompts
and documents do not count. Commands count as written, with the defaults of the inputs that they
read; functions and scripts by their content, with the modules that they import from the same
folder. Addresses of models count as a run has them: those that the file writes can be agreed to,
as an input's default or under `inputs` of a trigger, and none that only a caller gives.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Value
from paddock.steps.facts import ToolUse
from paddock.steps.tools.code_digests import file_content, python_modules_of

from ..bound import BoundPlan
from ..plan_walks import all_plans, steps_of
from .permissions import PermissionNeed, permission_needs
from .reached import (
    Reached,
    ReachedCode,
    ReachedCommand,
    ReachedNotification,
    ReachedServer,
    StartedProgram,
    reached_by,
)


class NotConsented(PipelineError):
    """A pipeline asks for more than a person agreed to for its file."""

    def __init__(
        self, needed: Collection[PermissionNeed], file: Path, *, names_server: bool = False
    ) -> None:
        within_quotes = str(file).replace("'", "'\"'\"'")  # as `shlex.quote` writes it
        remedy = f"If you trust it: `paddock allow '{within_quotes}'`."
        if names_server:
            remedy += (
                " The address of a server that an input has must stand in the file: as its "
                "default, or under `inputs` of a trigger."
            )
        words = "the pipeline wants to {}, and this file has no consent for that.".format
        super().__init__(Fault(words(need.what), remedy, need.mark) for need in needed)


def refuse_unconsented(
    bound: BoundPlan, service_url: str, agreed: Collection[str], file: Path
) -> None:
    """Refuse a pipeline that asks for more than was agreed to for its file.

    Raises:
        NotConsented: with all that it wants.
    """
    if not consent_digests(bound, service_url) <= frozenset(agreed):
        names_server = bool(bound.given) and not {*map(_digest, _pools(bound))} <= {*agreed}
        raise NotConsented(permission_needs(bound, service_url), file, names_server=names_server)


def digests_to_agree(starts: Iterable[BoundPlan], service_url: str) -> frozenset[str]:
    """Return the digests of all that a pipeline's starts ask for."""
    return frozenset[str]().union(*(consent_digests(bound, service_url) for bound in starts))


def consent_digests(bound: BoundPlan, service_url: str) -> frozenset[str]:
    """Return the digests of all that a pipeline asks for; none where it needs no consent."""
    if not permission_needs(bound, service_url):
        return frozenset()
    return frozenset(map(_digest, _consent_items(bound)))


def _digest(item: list[Any]) -> str:
    return hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode()).hexdigest()


def _pools(bound: BoundPlan) -> Iterator[list[Any]]:
    for plan in all_plans(bound):
        yield from (["pool", sorted(pool.urls)] for pool in plan.pools.values())


def _consent_items(bound: BoundPlan) -> Iterator[list[Any]]:
    """Yield each thing that is asked for, as plain data."""
    yield from _pools(bound)
    for plan in all_plans(bound):
        for name, keys in plan.pipeline.secrets.items():
            yield ["secret", name, keys.env, keys.file]
        for reached in reached_by(plan.pipeline):
            if plan is bound or not isinstance(reached, ReachedNotification):
                yield _reached_item(reached, plan)
        for step in steps_of(plan.nodes):
            if step.facts.pipeline:  # what the inner pipeline fills into its commands
                yield ["pipeline", step.written, _input_defaults(step.written, plan)]


def _reached_item(reached: Reached, plan: BoundPlan) -> list[Any]:
    """Return one thing that is reached; a tool counts with the options of its use."""

    def agreed(written: Any) -> list[Any]:
        return [written, _input_defaults(written, plan)]

    def scripts(program: StartedProgram | None) -> dict[str, str]:
        return _file_digests(() if program is None else program.scripts(base), base)

    base = plan.roots.base
    match reached:
        case ReachedCommand():
            return ["run", *agreed(reached.written), scripts(reached.program)]
        case ReachedNotification():
            way = reached.notify.model_dump(exclude={"when"})
            return ["notify", *agreed(way), scripts(reached.program)]
        case ReachedServer(use=ToolUse() as use):
            return ["tool", use.name, use.server, *agreed(dict(use.options)), None]
        case ReachedServer():
            return ["server", reached.name, *agreed(reached.texts), scripts(reached.program)]
        case ReachedCode(use=ToolUse() as use):
            code = reached.name if reached.kind == "installed" else None
            digests = _code_digests(reached, base)
            return ["tool", use.name, use.server, *agreed(dict(use.options)), digests or code]
        case ReachedCode():
            return ["function", reached.name, _code_digests(reached, base)]


def _input_defaults(written: Any, plan: BoundPlan) -> dict[str, Any]:
    """Return the defaults of the inputs that a text reads: they are part of what is asked."""
    value, _ = Value.scan(written)
    read = {path[1] for path in value.references if path[0] == "inputs" and path[1:]}
    inputs = plan.pipeline.inputs
    return {name: inputs[name].default for name in sorted(read) if name in inputs}


def _file_digests(files: Iterable[Path], base: Path) -> dict[str, str]:
    return {os.path.relpath(f, base): hashlib.sha256(file_content(f)).hexdigest() for f in files}


def _code_digests(reached: ReachedCode, base: Path) -> dict[str, str]:
    """Return digests of a function's file and of all that it imports from its folder.

    They are of the whole texts, comments too: consent is to what a person could read.
    """
    if not reached.file:
        return {}
    file = (base / reached.file).resolve()
    return _file_digests(python_modules_of(file), file.parent)

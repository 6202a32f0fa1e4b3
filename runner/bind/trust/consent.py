"""Consent to what a pipeline file asks for: `paddock up` keeps a digest of each thing.

A file that is new or asks for something else asks again: commands, servers, hosts, code. What only
models and documents read does not count. Commands count as written, with the defaults of the inputs
that they read; of what they and functions may load, each file of `pipeline_code`. Addresses of
models count as a run has them: those that the file writes can be agreed to, as an input's default
or under `inputs` of a trigger, and none that only a caller gives.

What an agreed run's steps write counts as what was there before, so that a command may log beside
itself: all files that changed while a step was at work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from paddock.engine.system.text import counted
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Value
from paddock.steps.facts import ToolUse
from paddock.steps.files.folder_walk import listed_names
from paddock.steps.param_types import PipelineFile

from ..bound import BoundPlan
from ..plan_walks import all_plans, steps_of
from .consents import Consents
from .permissions import PermissionNeed, permission_needs
from .pipeline_code import PipelineCode, code_of
from .reached import (
    Reached,
    ReachedAccount,
    ReachedCode,
    ReachedCommand,
    ReachedNotification,
    ReachedServer,
    reached_by,
)

_CLOCK_S = 0.05
"""By so much a file system's time may lag behind the clock."""


class NotConsented(PipelineError):
    def __init__(
        self,
        needed: Collection[PermissionNeed],
        file: Path,
        changed: Collection[str] = (),
        *,
        names_server: bool = False,
    ) -> None:
        within_quotes = str(file).replace("'", "'\"'\"'")  # as `shlex.quote` writes it
        remedy = f"If you trust it: `paddock allow '{within_quotes}'`."
        if changed:
            remedy += f" New or changed since: {listed_names(sorted(changed))}."
        if names_server:
            remedy += (
                " The address of a server that an input has must stand in the file: as its "
                "default, or under `inputs` of a trigger."
            )
        words = "the pipeline wants to {}, and this file has no consent for that.".format
        super().__init__(Fault(words(need.what), remedy, need.mark) for need in needed)


def refuse_unconsented(
    bound: BoundPlan, starts: Sequence[BoundPlan], service_url: str, consents: Consents, file: Path
) -> PipelineCode:
    """Refuse a pipeline that asks for more than was agreed to for its file; return its code.

    `starts`: the same as its file starts it; its code follows from them, whatever a caller gives.

    Raises:
        NotConsented: with all that it wants.
    """
    if not (needs := permission_needs(bound, service_url)):
        return PipelineCode()
    code, agreed = code_of(starts, consents.state_dir), consents.agreed(file)
    parts = _code_digests(code, consents, bound.roots.base)
    needed = {*map(_digest, _consent_items(bound))} | parts.keys()
    if not needed <= agreed:
        changed = {parts[digest] for digest in parts.keys() - agreed} - {""} if agreed else ()
        names_server = bool(bound.given) and not {*map(_digest, _pools(bound))} <= agreed
        raise NotConsented(needs, file, changed, names_server=names_server)
    return code


def digests_to_agree(
    starts: Sequence[BoundPlan], service_url: str, consents: Consents, *others: BoundPlan
) -> frozenset[str]:
    """Return the digests of all that a pipeline's starts ask for; none if nothing needs consent.

    Raises:
        PipelineError: its folder is too large.
    """
    asking = [bound for bound in (*starts, *others) if permission_needs(bound, service_url)]
    digests = {_digest(item) for bound in asking for item in _consent_items(bound)}
    code = code_of(starts, consents.state_dir) if asking else PipelineCode()
    return frozenset(digests | _code_digests(code, consents, starts[0].roots.base).keys())


def consent_words(
    needs: Iterable[PermissionNeed], starts: Sequence[BoundPlan], consents: Consents
) -> list[str]:
    """Return what a person consents to, as ends of the sentence 'the pipeline wants to …'."""
    words = [*dict.fromkeys(need.what for need in needs)]
    code = code_of(starts, consents.state_dir) if words else PipelineCode()
    if code.rules:
        base = starts[0].roots.base
        names = [os.path.relpath(path, base) for path in code.files]
        left_out = [os.path.relpath(path, base) for path in code.left_out]
        loads = f"load {counted(len(names), 'file')} beside it"
        loads += f": {listed_names(names)}" if names else ""
        loads += f"; of {listed_names(left_out)} only what it names" if left_out else ""
        words.append(loads)
    return words


def note_own_writes(
    before: PipelineCode,
    starts: Sequence[BoundPlan],
    times: Collection[tuple[float, float]],
    consents: Consents,
) -> None:
    """Record the files that changed while an agreed run's steps were at work: they count as before.

    `times`: when they did more than read and ask.
    """
    with suppress(PipelineError, OSError):  # too large by now, or no space: the next run asks
        after = code_of(starts, consents.state_dir)
        written: dict[Path, tuple[str, str]] = {}
        for path, file in after.files.items():
            old = before.files[path].sha256 if path in before.files else ""
            is_own = any(b - _CLOCK_S <= file.changed <= e + _CLOCK_S for b, e in times)
            if old != file.sha256 and is_own:
                written[path] = old, file.sha256
        consents.note_written(written)


def _digest(item: list[Any]) -> str:
    return hashlib.sha256(json.dumps(item, sort_keys=True, default=str).encode()).hexdigest()


def _code_digests(code: PipelineCode, consents: Consents, base: Path) -> dict[str, str]:
    """Return the digest of each file that counts, with its name, and one of what does not."""
    names: dict[str, str] = {}
    written = consents.written()
    for path, file in code.files.items():
        before, after = written.get(path, ("", ""))
        if sha256 := before if file.sha256 == after else file.sha256:
            name = os.path.relpath(path, base)
            names[_digest(["file", name, sha256])] = name
    if code.rules:
        rules = [(os.path.relpath(folder, base), globs) for folder, globs in code.rules]
        left_out = (os.path.relpath(path, base) for path in code.left_out)
        names[_digest(["folder", sorted(rules, key=str), sorted(left_out)])] = ""
    return names


def _pools(bound: BoundPlan) -> Iterator[list[Any]]:
    for plan in all_plans(bound):
        yield from (["pool", sorted(pool.urls)] for pool in plan.pools.values())


def _consent_items(bound: BoundPlan) -> Iterator[list[Any]]:
    yield from _pools(bound)
    for plan in all_plans(bound):
        for name, keys in plan.pipeline.secrets.items():
            yield ["secret", name, keys.env, keys.file, *filter(None, [keys.prefect])]
        for reached in reached_by(plan.pipeline):
            if plan is bound or not isinstance(reached, ReachedNotification):
                yield _reached_item(reached, plan)
        for step in steps_of(plan.nodes):
            if step.has(PipelineFile):  # what the inner pipeline fills into its commands
                yield ["pipeline", step.written, _input_defaults(step.written, plan)]


def _reached_item(reached: Reached, plan: BoundPlan) -> list[Any]:
    """Return one thing that is reached; a tool counts with the options of its use."""

    def agreed(written: Any) -> list[Any]:
        return [written, _input_defaults(written, plan)]

    match reached:
        case ReachedCommand():
            return ["run", *agreed(reached.written)]
        case ReachedNotification():
            return ["notify", *agreed(reached.notify.model_dump(exclude={"when"}))]
        case ReachedAccount():
            return [reached.kind, *agreed(reached.account)]
        case ReachedServer(use=ToolUse() as use):
            return ["tool", use.name, use.server, *agreed(dict(use.options)), None]
        case ReachedServer():
            return ["server", reached.name, *agreed(reached.texts)]
        case ReachedCode(use=ToolUse() as use):
            code = reached.name if reached.kind == "installed" else None
            return ["tool", use.name, use.server, *agreed(dict(use.options)), code]
        case ReachedCode():
            return ["function", reached.name]


def _input_defaults(written: Any, plan: BoundPlan) -> dict[str, Any]:
    """Return the defaults of the inputs that a text reads: they are part of what is asked."""
    value, _ = Value.scan(written)
    read = {path[1] for path in value.references if path[0] == "inputs" and path[1:]}
    inputs = plan.pipeline.inputs
    return {name: inputs[name].default for name in sorted(read) if name in inputs}

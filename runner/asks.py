"""What a pipeline asks consent for, exactly: a digest of each command, server, host and code file.

`paddock up` keeps these digests for each pipeline file (`unattended/consents.py`), so that a file
that is new, or asks for something else than it did, asks again. Prompts, documents and the inputs
of a run do not count. Commands count as they are written, with the defaults of the inputs that they
read; functions with the modules that they import from the same folder; scripts by their content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Value
from paddock.steps import own_function

from . import own_files
from .binding.bound import BoundPlan, BoundStep
from .binding.inner import USES
from .binding.tooling import has_tools
from .body import plans_of, steps_of
from .consent import Need, needs


class NotAgreed(PipelineError):
    """A pipeline asks for more than a person agreed to for its file."""

    def __init__(self, wanted: Collection[Need], file: Path) -> None:
        remedy = f"If you trust it: `paddock allow '{file}'`."
        words = "the pipeline wants to {}, and this file has no consent for that.".format
        super().__init__(Fault(words(one.what), remedy, one.mark) for one in wanted)


def refuse_unagreed(bound: BoundPlan, own: str, agreed: Collection[str], file: Path) -> None:
    """Refuse a pipeline that asks for more than was agreed to for its file.

    Raises:
        NotAgreed: with all that it wants.
    """
    if not asks_of(bound, own) <= frozenset(agreed):
        raise NotAgreed(needs(bound, own), file)


def asks_of(bound: BoundPlan, own: str) -> frozenset[str]:
    """Return the digests of all that a pipeline asks for; none where it needs no consent."""
    if not needs(bound, own):
        return frozenset()
    written = (json.dumps(one, sort_keys=True, default=str) for one in _asked(bound))
    return frozenset(hashlib.sha256(text.encode()).hexdigest() for text in written)


def _asked(bound: BoundPlan) -> Iterator[list[Any]]:
    """Yield each thing that is asked for, as plain data."""
    for plan in plans_of(bound):
        for pool in plan.pools.values():
            yield ["pool", sorted(pool.urls)]
        for name, keys in plan.pipeline.secrets.items():
            yield ["secret", name, keys.env, keys.file]
        for name, server in plan.pipeline.servers.items():
            texts = server.texts.data
            words = [texts.get("command"), *texts.get("args", ())]
            yield ["server", name, texts, _defaults(texts, plan), _scripts(words, plan)]
        for step in steps_of(plan.nodes):
            yield from _of_step(step, plan)
    on = bound.pipeline.on
    for notify in on.notify if on is not None else ():
        way = notify.model_dump(exclude={"when"})
        words = notify.command if isinstance(notify.command, list) else []
        yield ["notify", way, _defaults(way, bound), _scripts(words, bound)]


def _of_step(step: BoundStep, plan: BoundPlan) -> Iterator[list[Any]]:
    written = step.params.step.params.data
    written = written if isinstance(written, Mapping) else {}
    if step.uses == "run":
        command = written.get("command")
        words = command if isinstance(command, list) else []
        yield ["run", written, _defaults(written, plan), _scripts(words, plan)]
    elif step.uses == USES:  # what the inner pipeline fills into its commands
        yield ["pipeline", written, _defaults(written, plan)]
    elif own_function.is_function(step.uses):
        yield ["function", step.uses, _code(step.uses, plan.roots.base)]
    elif has_tools(step.params.step):
        yield from _of_tools(step.uses, written, plan)


def _of_tools(uses: str, written: Mapping[str, Any], plan: BoundPlan) -> Iterator[list[Any]]:
    from paddock.steps.toolbox import naming

    for one in naming.wanted(uses, written):
        named = naming.named(one.name, one.server, plan.pipeline.servers)
        code: Any = None
        if named is not None and named.kind == "function":
            code = _code(one.name, plan.roots.base)
        elif named is not None and named.kind == "installed":
            code = named.name
        options = dict(one.options)
        yield ["tool", one.name, one.server, options, _defaults(options, plan), code]


def _defaults(written: Any, plan: BoundPlan) -> dict[str, Any]:
    """Return the defaults of the inputs that a text reads: they are part of what is asked."""
    value, _ = Value.scan(written)
    read = {path[1] for path in value.references if path[0] == "inputs" and path[1:]}
    inputs = plan.pipeline.inputs
    return {name: inputs[name].default for name in sorted(read) if name in inputs}


def _scripts(words: Collection[Any], plan: BoundPlan) -> dict[str, str]:
    """Return digests of the programs and scripts in the pipeline's folder that a command names."""
    base = plan.roots.base
    return _digests(own_files.scripts(words, base), base)


def _digests(files: Iterable[Path], base: Path) -> dict[str, str]:
    return {
        os.path.relpath(one, base): hashlib.sha256(own_files.content(one)).hexdigest()
        for one in files
    }


def _code(name: str, base: Path) -> dict[str, str]:
    """Return digests of a function's file and of all that it imports from its folder."""
    found = own_function.NAMES.match(name)
    if found is None:
        return {}
    file = (base / found["file"]).resolve()
    return _digests(own_files.modules_of(file), file.parent)

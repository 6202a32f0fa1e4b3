"""Consent to what a pipeline file asks for: `paddock up` keeps a digest of each thing.

A file that is new or asks for something else asks again: commands, servers, hosts, code. Prompts,
documents and the inputs of a run do not count. Commands count as written, with the defaults of the
inputs that they read; functions with the modules that they import from the same folder; scripts by
their content.
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
from paddock.runner.bind import protected_files
from paddock.steps.registry import is_function_reference
from paddock.steps.tools.code_digests import file_content, python_modules_of
from paddock.steps.tools.tool_names import FUNCTION_REFERENCE, resolve_tool

from .bound import BoundPlan, BoundStep, all_plans, steps_of
from .permissions import PermissionNeed, needs


class NotConsented(PipelineError):
    """A pipeline asks for more than a person agreed to for its file."""

    def __init__(self, needed: Collection[PermissionNeed], file: Path) -> None:
        within_quotes = str(file).replace("'", "'\"'\"'")  # as `shlex.quote` writes it
        remedy = f"If you trust it: `paddock allow '{within_quotes}'`."
        words = "the pipeline wants to {}, and this file has no consent for that.".format
        super().__init__(Fault(words(need.what), remedy, need.mark) for need in needed)


def refuse_unconsented(bound: BoundPlan, own: str, agreed: Collection[str], file: Path) -> None:
    """Refuse a pipeline that asks for more than was agreed to for its file.

    Raises:
        NotConsented: with all that it wants.
    """
    if not consent_digests(bound, own) <= frozenset(agreed):
        raise NotConsented(needs(bound, own), file)


def consent_digests(bound: BoundPlan, own: str) -> frozenset[str]:
    """Return the digests of all that a pipeline asks for; none where it needs no consent."""
    if not needs(bound, own):
        return frozenset()
    written = (json.dumps(item, sort_keys=True, default=str) for item in _consent_items(bound))
    return frozenset(hashlib.sha256(text.encode()).hexdigest() for text in written)


def _consent_items(bound: BoundPlan) -> Iterator[list[Any]]:
    """Yield each thing that is asked for, as plain data."""
    for plan in all_plans(bound):
        for pool in plan.pools.values():
            yield ["pool", sorted(pool.urls)]
        for name, keys in plan.pipeline.secrets.items():
            yield ["secret", name, keys.env, keys.file]
        for name, server in plan.pipeline.servers.items():
            texts = server.texts.data
            words = [texts.get("command"), *texts.get("args", ())]
            yield [
                "server",
                name,
                texts,
                _input_defaults(texts, plan),
                _script_digests(words, plan),
            ]
        for step in steps_of(plan.nodes):
            yield from _step_consent_items(step, plan)
    on = bound.pipeline.on
    for notify in on.notify if on is not None else ():
        way = notify.model_dump(exclude={"when"})
        words = protected_files.notify_words(notify)
        yield ["notify", way, _input_defaults(way, bound), _script_digests(words, bound)]


def _step_consent_items(step: BoundStep, plan: BoundPlan) -> Iterator[list[Any]]:
    written = step.written
    if step.facts.command:
        command = written.get(step.facts.command)
        words = command if isinstance(command, list) else []
        yield ["run", written, _input_defaults(written, plan), _script_digests(words, plan)]
    elif step.facts.pipeline:  # what the inner pipeline fills into its commands
        yield ["pipeline", written, _input_defaults(written, plan)]
    elif is_function_reference(step.uses):
        yield ["function", step.uses, _code_digests(step.uses, plan.roots.base)]
    for use in step.facts.tools(written):
        named = resolve_tool(use.name, use.server, plan.pipeline.servers)
        code: Any = None
        if named is not None and named.kind == "function":
            code = _code_digests(use.name, plan.roots.base)
        elif named is not None and named.kind == "installed":
            code = named.name
        options = dict(use.options)
        yield ["tool", use.name, use.server, options, _input_defaults(options, plan), code]


def _input_defaults(written: Any, plan: BoundPlan) -> dict[str, Any]:
    """Return the defaults of the inputs that a text reads: they are part of what is asked."""
    value, _ = Value.scan(written)
    read = {path[1] for path in value.references if path[0] == "inputs" and path[1:]}
    inputs = plan.pipeline.inputs
    return {name: inputs[name].default for name in sorted(read) if name in inputs}


def _script_digests(words: Collection[Any], plan: BoundPlan) -> dict[str, str]:
    """Return digests of the programs and scripts in the pipeline's folder that a command names."""
    base = plan.roots.base
    return _file_digests(protected_files.scripts_named(words, base), base)


def _file_digests(files: Iterable[Path], base: Path) -> dict[str, str]:
    return {os.path.relpath(f, base): hashlib.sha256(file_content(f)).hexdigest() for f in files}


def _code_digests(name: str, base: Path) -> dict[str, str]:
    """Return digests of a function's file and of all that it imports from its folder."""
    found = FUNCTION_REFERENCE.match(name)
    if found is None:
        return {}
    file = (base / found["file"]).resolve()
    return _file_digests(python_modules_of(file), file.parent)

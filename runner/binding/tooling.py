"""The tools that steps name, checked before anything runs: none of their code is.

Names and options stand in the file as they are, so that what a pipeline reaches for is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, known
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.servers import Server
from paddock.pipelines.tree import Pipeline, Step

_CALLERS = ("tool", "agent", "chat")
"""Steps that name tools."""


def has_tools(step: Step) -> bool:
    """Tell whether a step names tools; most do not, and need no more of this."""
    return step.uses == "tool" or (step.uses in _CALLERS and bool(step.params.data.get("tools")))


def spec_of(step: Step, pipeline: Pipeline, base: Path) -> Any:
    """Write down what of MCP servers and of packages decides a step's result; None: nothing.

    A server's own files count as a function's do: those beside the pipeline that its command names.
    """
    from paddock.steps.toolbox import naming

    found: dict[str, Any] = {}
    for one in naming.wanted(step.uses, step.params.data):
        named = naming.named(one.name, one.server, pipeline.servers)
        if named is not None and named.server is not None:
            server = pipeline.servers[named.server]
            found[named.server] = server.texts.data
            if files := dict(_files_of(server, base)):
                found[f"files of {named.server}"] = files
        elif named is not None and named.kind == "installed":
            found[f"tool {named.name}"] = naming.version_of(named.name)
    return found or None


def _files_of(server: Server, base: Path) -> Iterator[tuple[str, str]]:
    """Yield the files in the pipeline's folder that start a server, each with its digest."""
    texts = server.texts.data
    if not server.is_command:
        return
    from paddock.runner.ledger.outputs import sha256_of  # brings the ledger, and asyncio

    words = [texts["command"], *texts.get("args", ())]
    inside = base.resolve()
    for word in words:
        if not isinstance(word, str) or "{{" in word or not word or word.startswith("-"):
            continue
        try:
            path = (base / texts.get("cwd", ".") / word).resolve()
            if path.is_relative_to(inside) and path.is_file():
                yield word, sha256_of(path)
        except (OSError, ValueError, TypeError):
            continue


def faults(step: Step, pipeline: Pipeline, base: Path) -> Iterator[Fault]:
    """Tell what is wrong with the tools of a step."""
    from paddock.steps.toolbox import naming

    for one in naming.wanted(step.uses, step.params.data):
        at: Place = (*step.at, "with", *one.path)
        if not one.is_written:
            what = "a tool is named as it is, so that what a pipeline reaches for is known before"
            yield Fault(f"{what}.", "Use two steps with `if`.", pipeline.mark(at))
            continue
        named = naming.named(one.name, one.server, pipeline.servers)
        if named is None:
            what, remedy = naming.unknown(one.name, one.server, pipeline.servers)
            place = (*at[:-1], "server") if step.uses == "tool" and one.server else at
            yield Fault(f"{what}.", remedy, pipeline.mark(place))
        elif named.kind == "function":
            yield from _of_function(named, base, pipeline, at)
        elif named.kind == "built-in":
            yield from _of_built_in(step, one, pipeline, at)
        else:
            yield from _options(one, frozenset(), pipeline, at)


def _of_function(named: Any, base: Path, pipeline: Pipeline, at: Place) -> Iterator[Fault]:
    from paddock.steps.toolbox import functions

    path = (base / named.file).resolve()
    if not path.is_relative_to(base.resolve()):
        what = f"the file '{named.file}' lies outside the pipeline's folder."
        yield Fault(what, "Move or copy it there.", pipeline.mark(at))
        return
    fault = functions.fault_of(path, named.file, named.name)
    if fault is not None:
        what, _, remedy = fault.partition(". ")
        yield Fault(f"{what.rstrip('.')}.", remedy, pipeline.mark(at))


def _of_built_in(step: Step, one: Any, pipeline: Pipeline, at: Place) -> Iterator[Fault]:
    from paddock.steps.toolbox import builtin, naming

    allowed = naming.OPTIONS.get(one.name, frozenset())
    yield from _options(one, allowed, pipeline, at)
    if one.name == "http.get" and not one.options.get("hosts"):
        what = "`http.get` asks no server that is not named."
        yield Fault(what, _NAME_HOSTS, pipeline.mark(at))
    elif one.name == "http.get" and (wrong_hosts := list(_of_hosts(step, one, pipeline))):
        yield from wrong_hosts
    elif not _has_later(one.options):
        wrong = builtin.faults(one.name, "options", _own(one.options))
        if wrong is not None and set(one.options) <= {*allowed, "timeout"}:
            yield Fault(f"`options`: {wrong}", "", pipeline.mark(at))
    args = step.params.data.get("args")
    if step.uses != "tool" or not isinstance(args, Mapping):
        return
    names = tuple(builtin.TOOLS[one.name].arguments.model_fields)
    for name in args:
        if name not in names:
            what = f"the tool '{one.name}' takes no '{name}'."
            mark = pipeline.document.key_mark((*step.at, "with", "args", name))
            yield Fault(what, known(str(name), names), mark)
    if not _has_later(args) and set(args) <= set(names):
        wrong = builtin.faults(one.name, "arguments", args)
        if wrong is not None:
            yield Fault(f"`args`: {wrong}", "", pipeline.mark((*step.at, "with", "args")))


_NAME_HOSTS = "Name them: `options: {hosts: [example.org]}`."


def _of_hosts(step: Step, one: Any, pipeline: Pipeline) -> Iterator[Fault]:
    """Find what is wrong with `hosts`: constants, so that what is reached is known before."""
    from paddock.engine.system.hosts import BadHost, has_expression, read_pattern

    hosts = one.options["hosts"]
    entry = one.path[:2] if one.path[0] == "tools" else ()
    at: Place = (*step.at, "with", *entry, "options", "hosts")
    if isinstance(hosts, str) and has_expression(hosts):
        what = "`hosts` is an expression, and what a pipeline reaches is known before it runs."
        yield Fault(what, _NAME_HOSTS, pipeline.mark(at))
        return
    for number, host in enumerate(hosts if isinstance(hosts, list) else ()):
        try:
            read_pattern(str(host))
        except BadHost as error:
            remedy = "Write a name, `*.name`, an address or a network, with a port or without."
            yield Fault(f"`hosts`: {error}.", remedy, pipeline.mark((*at, number)))


def _options(one: Any, allowed: frozenset[str], pipeline: Pipeline, at: Place) -> Iterator[Fault]:
    for name in one.options:
        if name not in allowed and name != "timeout":
            what = f"the tool '{one.name or one.server}' has no option '{name}'."
            remedy = known(str(name), sorted({*allowed, "timeout"}))
            yield Fault(what, remedy, pipeline.mark(at))


def _own(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "timeout"}


def _has_later(given: Mapping[str, Any]) -> bool:
    """Tell whether something in it is an expression."""
    return bool(re.search(r"\{[{%#]", json.dumps(dict(given), default=str, ensure_ascii=False)))

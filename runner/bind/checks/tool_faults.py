"""What is wrong with the tools that steps name: unknown ones, their options, hosts and arguments.

Tools are checked before anything runs, and none of their code is imported: names and options must
be literals in the file, so that what a pipeline may reach is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system.hosts import BadHost, has_expression, read_pattern
from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Pipeline, StepNode
from paddock.steps.facts import ToolUse
from paddock.steps.registry import facts_of
from paddock.steps.tools.python_files import FunctionNotFound, check_function
from paddock.steps.tools.tool_names import TOOL_OPTIONS, ToolReference, resolve_tool, unknown_tool

if TYPE_CHECKING:
    from paddock.steps.tools.builtin_tools import BuiltinTool


def tool_faults(step: StepNode, pipeline: Pipeline, base: Path) -> Iterator[Fault]:
    for use in facts_of(step.uses).tools(step.params.data):
        at: Place = (*step.at, "with", *use.path)
        if not use.is_written:
            what = "a tool is named as it is, so that what a pipeline reaches for is known before"
            yield Fault(f"{what}.", "Use two steps with `if`.", pipeline.mark(at))
            continue
        named = resolve_tool(use.name, use.server, pipeline.servers)
        if named is None:
            what, remedy = unknown_tool(use.name, use.server, pipeline.servers)
            place = (*at[:-1], "server") if use.server and use.path[0] != "tools" else at
            yield Fault(f"{what}.", remedy, pipeline.mark(place))
        elif named.kind == "function":
            yield from _function_faults(named, base, pipeline, at)
        elif named.kind == "built-in":
            yield from _built_in_faults(step, use, pipeline, at)
        else:
            yield from _option_faults(use, frozenset(), pipeline, at)


def _function_faults(
    named: ToolReference, base: Path, pipeline: Pipeline, at: Place
) -> Iterator[Fault]:
    assert named.file is not None
    path = (base / named.file).resolve()
    if not path.is_relative_to(base.resolve()):
        what = f"the file '{named.file}' lies outside the pipeline's folder."
        yield Fault(what, "Move or copy it there.", pipeline.mark(at))
        return
    try:
        check_function(path, named.file, named.name)
    except FunctionNotFound as error:
        yield Fault(f"{error.what}.", error.remedy, pipeline.mark(at))


def _built_in_faults(
    step: StepNode, use: ToolUse, pipeline: Pipeline, at: Place
) -> Iterator[Fault]:
    from paddock.steps.tools.builtin_tools import BUILT_IN_FUNCTIONS

    tool = BUILT_IN_FUNCTIONS[use.name]
    allowed = TOOL_OPTIONS.get(use.name, frozenset())
    yield from _option_faults(use, allowed, pipeline, at)
    if use.name == "http.get" and not use.options.get("hosts"):
        what = "`http.get` asks no server that is not named."
        yield Fault(what, _NAME_HOSTS, pipeline.mark(at))
    elif use.name == "http.get" and (wrong_hosts := list(_host_faults(step, use, pipeline))):
        yield from wrong_hosts
    elif not _has_run_time_values(use.options):
        options = {name: value for name, value in use.options.items() if name != "timeout"}
        wrong = tool.fault("options", options)
        if wrong is not None and set(use.options) <= {*allowed, "timeout"}:
            yield Fault(f"`options`: {wrong}", "", pipeline.mark(at))
    if use.path[0] != "tools":
        yield from _argument_faults(step, use.name, tool, pipeline)


def _argument_faults(
    step: StepNode, tool_name: str, tool: BuiltinTool, pipeline: Pipeline
) -> Iterator[Fault]:
    """Find what is wrong with the `args` of a step that calls a built-in tool."""
    args = step.params.data.get("args")
    if not isinstance(args, Mapping):
        return
    names = tuple(tool.arguments.model_fields)
    for name in args:
        if name not in names:
            what = f"the tool '{tool_name}' takes no '{name}'."
            mark = pipeline.document.key_mark((*step.at, "with", "args", name))
            yield Fault(what, did_you_mean(str(name), names), mark)
    if not _has_run_time_values(args) and set(args) <= set(names):
        wrong = tool.fault("arguments", args)
        if wrong is not None:
            yield Fault(f"`args`: {wrong}", "", pipeline.mark((*step.at, "with", "args")))


_NAME_HOSTS = "Name them: `options: {hosts: [example.org]}`."


def _host_faults(step: StepNode, use: ToolUse, pipeline: Pipeline) -> Iterator[Fault]:
    """Find what is wrong with `hosts`: constants, so that what is reached is known before."""
    hosts = use.options["hosts"]
    entry = use.path[:2] if use.path[0] == "tools" else ()
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


def _option_faults(
    use: ToolUse, allowed: frozenset[str], pipeline: Pipeline, at: Place
) -> Iterator[Fault]:
    for name in use.options:
        if name not in allowed and name != "timeout":
            what = f"the tool '{use.name or use.server}' has no option '{name}'."
            remedy = did_you_mean(str(name), sorted({*allowed, "timeout"}))
            yield Fault(what, remedy, pipeline.mark(at))


def _has_run_time_values(given: Mapping[str, Any]) -> bool:
    return bool(re.search(r"\{[{%#]", json.dumps(dict(given), default=str, ensure_ascii=False)))

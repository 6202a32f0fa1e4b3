"""Faults of the tools that steps name: unknown ones, their options, hosts and arguments.

Tools are checked before anything runs, and none of their code is imported: names and options must
be literals in the file, so that what a pipeline may reach is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.engine.system.hosts import BadHost, has_expression, read_pattern
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.expressions import Value
from paddock.pipelines.model import Pipeline, StepNode
from paddock.pipelines.validation import FaultCollector
from paddock.steps.facts import ToolUse
from paddock.steps.registry import facts_of
from paddock.steps.tools.python_files import FunctionNotFound, check_function
from paddock.steps.tools.tool_names import TOOL_OPTIONS, resolve_tool, unknown_tool


def check_tools(step: StepNode, pipeline: Pipeline, base: Path, checks: FaultCollector) -> None:
    for use in facts_of(step.uses).tools(step.params.data):
        at: Place = (*step.at, "with", *use.path)
        if not use.is_written:
            what = "a tool is named as it is, so that what a pipeline reaches for is known before"
            checks.add(at, what, "Use two steps with `if`.")
            continue
        named = resolve_tool(use.name, use.server, pipeline.servers)
        if named is None:
            place = (*step.at, "with", "server") if use.server and not use.entry else at
            checks.add(place, *unknown_tool(use.name, use.server, pipeline.servers))
        elif named.kind == "function":
            assert named.file is not None
            path = (base / named.file).resolve()
            if not path.is_relative_to(base.resolve()):
                what = f"the file '{named.file}' lies outside the pipeline's folder"
                checks.add(at, what, "Move or copy it there.")
                continue
            try:
                check_function(path, named.file, named.name)
            except FunctionNotFound as error:
                checks.add(at, error.what, error.remedy)
        elif named.kind == "built-in":
            _check_built_in(step, use, at, checks)
        else:
            _check_options(use, frozenset(), at, checks)


def _check_built_in(step: StepNode, use: ToolUse, at: Place, checks: FaultCollector) -> None:
    """Check the options of a built-in tool, and its `args` where the step itself calls it.

    Its `hosts` are constants, so that what is reached is known before.
    """
    from paddock.steps.tools.builtin_tools import BUILT_IN_FUNCTIONS

    tool = BUILT_IN_FUNCTIONS[use.name]
    allowed = TOOL_OPTIONS.get(use.name, frozenset())
    _check_options(use, allowed, at, checks)
    hosts = use.options.get("hosts") if use.name == "http.get" else None
    at_hosts: Place = (*step.at, "with", *use.entry, "options", "hosts")
    wrong_hosts = dict[int, BadHost]()
    for number, host in enumerate(hosts if isinstance(hosts, list) else ()):
        try:
            read_pattern(str(host))
        except BadHost as error:
            wrong_hosts[number] = error
    if use.name == "http.get" and not hosts:
        checks.add(at, "`http.get` asks no server that is not named", _NAME_HOSTS)
    elif isinstance(hosts, str) and has_expression(hosts):
        what = "`hosts` is an expression, and what a pipeline reaches is known before it runs"
        checks.add(at_hosts, what, _NAME_HOSTS)
    elif wrong_hosts:
        remedy = "Write a name, `*.name`, an address or a network, with a port or without."
        for number, wrong_host in wrong_hosts.items():
            checks.add((*at_hosts, number), f"`hosts`: {wrong_host}", remedy)
    elif not _has_run_time_values(use.options):
        options = {name: value for name, value in use.options.items() if name != "timeout"}
        wrong = tool.fault("options", options)
        if wrong is not None and set(use.options) <= {*allowed, "timeout"}:
            checks.add(at, f"`options`: {wrong}")
    if use.args is None or not isinstance(use.args[1], Mapping):
        return
    parameter, args = use.args
    at_args, names = (*step.at, "with", parameter), tuple(tool.arguments.model_fields)
    for name in args:
        if name not in names:
            what = f"the tool '{use.name}' takes no '{name}'"
            checks.add((*at_args, name), what, did_you_mean(str(name), names), is_key=True)
    if not _has_run_time_values(args) and set(args) <= set(names):
        wrong = tool.fault("arguments", args)
        if wrong is not None:
            checks.add(at_args, f"`{parameter}`: {wrong}")


_NAME_HOSTS = "Name them: `options: {hosts: [example.org]}`."


def _check_options(
    use: ToolUse, allowed: frozenset[str], at: Place, checks: FaultCollector
) -> None:
    for name in use.options:
        if name not in allowed and name != "timeout":
            what = f"the tool '{use.name or use.server}' has no option '{name}'"
            checks.add(at, what, did_you_mean(str(name), sorted({*allowed, "timeout"})))


def _has_run_time_values(given: Mapping[str, Any]) -> bool:
    value, errors = Value.scan(given)
    return bool(value.expressions or errors)

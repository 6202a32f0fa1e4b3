"""What the steps of a pipeline reach for besides files and models: commands, tools, servers.

Read off the bound plan, before anything runs. Knows no consent and no settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paddock.engine.elsewhere.address import is_here
from paddock.pipelines.marks import Mark

from .binding.bound import BoundPlan, BoundStep
from .binding.tooling import has_tools
from .body import steps_of

Reached = tuple[str, str, Mark]
"""The name by which it is allowed, the end of 'the pipeline wants to …', and where it says so."""


def reached(bound: BoundPlan) -> Iterator[Reached]:
    """Give all that the steps of one pipeline reach for, in the file's order."""
    for step in steps_of(bound.nodes):
        if step.uses == "run":
            yield "run", f"run {_command(step)}", _mark(step, bound, "command")
        elif has_tools(step.params.step):
            yield from _tools(step, bound)


def _command(step: BoundStep) -> str:
    from paddock.steps.processes import in_words

    written = _written(step).get("command")
    words = [str(word) for word in written] if isinstance(written, list) else [str(written)]
    return in_words(words)


def _tools(step: BoundStep, bound: BoundPlan) -> Iterator[Reached]:
    from paddock.steps.toolbox import naming

    for one in naming.wanted(step.uses, _written(step)):
        mark = _mark(step, bound, *one.path)
        named = naming.named(one.name, one.server, bound.pipeline.servers)
        if named is None:
            continue  # a fault that was told
        if named.kind == "server":
            yield server_need(str(named.server), bound)
        elif named.kind in ("function", "installed"):
            what = "the function" if named.kind == "function" else "the installed tool"
            yield "tool", f"call {what} `{one.name}`", mark
        elif named.name == "http.get":
            hosts = one.options.get("hosts") or []
            listed = hosts if isinstance(hosts, list) else [hosts]
            far = [str(host) for host in listed if not is_here(f"http://{host}/")]
            if far:
                yield "network", f"fetch from {', '.join(far)}", mark


def server_need(name: str, bound: BoundPlan) -> Reached:
    """Say what a server needs, where the file names it. One here may do anything here, too."""
    server = bound.pipeline.servers[name]
    mark = bound.pipeline.mark(server.at)
    texts = server.texts.data
    if server.is_command:
        from paddock.steps.processes import in_words

        words = [str(texts["command"]), *map(str, texts.get("args", ()))]
        return "mcp", f"start the MCP server '{name}': {in_words(words)}", mark
    url = str(texts["url"])
    is_far = "{{" in url.partition("://")[2].partition("/")[0] or not is_here(url)
    return "network" if is_far else "mcp", f"ask the MCP server '{name}' at {url}", mark


def _written(step: BoundStep) -> Mapping[str, Any]:
    data = step.params.step.params.data
    return data if isinstance(data, Mapping) else {}


def _mark(step: BoundStep, bound: BoundPlan, *at: str | int) -> Mark:
    return bound.pipeline.mark((*step.params.step.at, "with", *at))

"""What the steps of a pipeline reach for besides files and models: commands, tools, servers.

Read off the bound plan, before anything runs. Knows no consent and no settings.

Every address but that of Paddock's own service counts as far, the other ports of this machine
too: databases and other people's programs listen there. What an expression decides is far.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from paddock.engine.system.hosts import (
    BadHost,
    read_authority,
    read_pattern,
    written_authority,
)
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.marks import Mark

from .binding.bound import BoundPlan, BoundStep
from .binding.tooling import has_tools
from .body import steps_of

MOST_CHARS = 1000
"""Of a command that is shown: a script is meant to be read before it is allowed."""

Reached = tuple[str, str, Mark]
"""The name by which it is allowed, the end of 'the pipeline wants to …', and where it says so."""


def is_far(url: str, own: str) -> bool:
    """Return whether an address may lead anywhere but to Paddock's own service, at `own`.

    >>> [is_far(f"http://localhost:{port}", "http://127.0.0.1:11434") for port in (11434, 5432)]
    [False, True]
    """
    try:
        found, service = written_authority(url), read_authority(own)
    except BadHost:
        return True
    if found is None or found.has_user or not service.host.is_loopback:
        return True
    return not found.host.is_loopback or found.port != service.port


def far_words(url: str) -> str:
    """Return an address as a need names it; one of this machine is called so."""
    return f"{url} (another program on this machine)" if _is_here(url) else url


def reached(bound: BoundPlan, own: str) -> Iterator[Reached]:
    """Give all that the steps of one pipeline reach for, in the file's order.

    Args:
        bound: the plan.
        own: the address of Paddock's own service, which needs no consent.
    """
    for step in steps_of(bound.nodes):
        if step.uses == "run":
            written = _written(step)
            command = written.get("command")
            words = command if isinstance(command, list) and command else [command]
            shown = as_it_will_run(words, bound, cwd=written.get("cwd"), env=written.get("env"))
            yield "run", f"run {shown}", _mark(step, bound, "command")
        elif has_tools(step.params.step):
            yield from _tools(step, bound, own)


def as_it_will_run(
    words: Sequence[object], bound: BoundPlan, *, cwd: object = None, env: object = None
) -> str:
    """Return a command as it will run: arguments filled in, program, folder, names of variables.

    A text that needs more than the inputs, such as an item or a secret, stands as it is written.
    Values of variables are not shown: they may be secrets.
    """
    filled = [_filled(word, bound) for word in words]
    line = " ".join(shlex.quote(text) for text, _ in filled).replace("\n", " ")
    if len(line) > MOST_CHARS:
        line = f"{line[:MOST_CHARS]}… ({len(line) - MOST_CHARS:,} characters more)"
    folder, is_folder_known = (".", True) if cwd is None else _filled(cwd, bound)
    added = dict(env) if isinstance(env, Mapping) else {}
    shown = [f"`{line}`"]
    if is_folder_known and filled[0][1]:
        shown += _program(filled[0][0], folder, added, bound)
    if cwd is not None:
        shown.append(f"in '{folder}'")
    if added:
        shown.append(f"with {', '.join(map(str, added))} set")
    if not is_folder_known or not all(is_known for _, is_known in filled):
        shown.append("(what stands in braces is filled in when it runs)")
    return " ".join(shown)


def _program(name: str, folder: str, added: Mapping[str, Any], bound: BoundPlan) -> Iterator[str]:
    """Yield the path of the program that a name stands for, where it is another text."""
    from paddock.steps import processes

    path, is_known = _filled(added.get("PATH", ""), bound)
    if not is_known:
        return
    environ = processes.clean_environ({"PATH": path} if path else {}, os.environ)
    found = processes.found(name, bound.roots.base / folder, environ)
    if found is None:
        yield "(which is not there)"
    elif str(found) != name:
        yield f"({found})"


def _filled(written: object, bound: BoundPlan) -> tuple[str, bool]:
    """Return a text with the inputs filled in, and whether that is all of it."""
    text = str(written)
    try:
        value = Value.of(text)
        if all(_is_known(path, bound) for path in value.references):
            return str(value.render({"inputs": bound.inputs, "python": sys.executable})), True
    except ExpressionError:  # a fault that is told elsewhere
        pass
    return text, False


def _is_known(path: Sequence[str], bound: BoundPlan) -> bool:
    if path[0] == "inputs" and len(path) > 1:
        return path[1] in bound.inputs and path[1] not in bound.secret_inputs
    return path[0] == "python"


def _tools(step: BoundStep, bound: BoundPlan, own: str) -> Iterator[Reached]:
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
            far = [str(host) for host in listed if not _is_own_pattern(str(host), own)]
            if far:
                yield "network", f"fetch from {', '.join(far)}", mark


def _is_own_pattern(host: str, own: str) -> bool:
    """Return whether an entry of `hosts` stands for Paddock's own service and nothing else."""
    try:
        pattern, service = read_pattern(host), read_authority(own)
    except BadHost:  # a fault that is told with its place
        return False
    is_here = pattern.is_loopback and service.host.is_loopback
    return is_here and pattern.port == service.port


def server_need(name: str, bound: BoundPlan) -> Reached:
    """Say what a server needs, where the file names it. One here may do anything here, too."""
    server = bound.pipeline.servers[name]
    mark = bound.pipeline.mark(server.at)
    texts = server.texts.data
    if server.is_command:
        words = [texts["command"], *texts.get("args", ())]
        shown = as_it_will_run(words, bound, cwd=texts.get("cwd"), env=texts.get("env"))
        return "mcp", f"start the MCP server '{name}': {shown}", mark
    url = str(texts["url"])
    return "mcp" if _is_here(url) else "network", f"ask the MCP server '{name}' at {url}", mark


def _is_here(url: str) -> bool:
    try:
        found = written_authority(url)
    except BadHost:
        return False
    return found is not None and not found.has_user and found.host.is_loopback


def _written(step: BoundStep) -> Mapping[str, Any]:
    data = step.params.step.params.data
    return data if isinstance(data, Mapping) else {}


def _mark(step: BoundStep, bound: BoundPlan, *at: str | int) -> Mark:
    return bound.pipeline.mark((*step.params.step.at, "with", *at))

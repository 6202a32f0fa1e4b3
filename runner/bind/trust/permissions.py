"""Permissions: what a pipeline reaches besides files and models, and whether that is allowed.

Commands, tools, servers, network and secrets. A YAML may come from a stranger: everything that
reaches further needs `--allow` or the caller's own settings. Every address but that of Paddock's
own service counts as remote, other ports of this machine too, since databases and other programs
listen there; what an expression decides is remote.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paddock.engine.system import processes
from paddock.engine.system.hosts import BadHost, read_authority, read_pattern, written_authority
from paddock.pipelines.errors import Fault, Mark, PipelineError
from paddock.runner.config.config_file import FILE_NAME
from paddock.runner.config.pipeline_secrets import secret_place, trigger_secrets
from paddock.runner.config.setting_values import PERMISSIONS
from paddock.steps.facts import ToolUse

from ..bound import BoundPlan
from ..inputs import ONLY_LATER, KnownInputs
from ..plan_walks import all_plans
from .reached import (
    Reached,
    ReachedCode,
    ReachedCommand,
    ReachedNotification,
    ReachedServer,
    StartedProgram,
    declared_server,
    reached_by,
)

MAX_COMMAND_CHARS = 1000
"""Of a command that is shown: a script is meant to be read before it is allowed."""


@dataclass(frozen=True, slots=True)
class PermissionNeed:
    """One thing that a pipeline wants, and the name by which it is allowed."""

    name: str
    what: str
    """The end of the sentence 'the pipeline wants to …'."""
    mark: Mark | None = None
    is_of_run: bool = False
    """Whether only a run does it, so that a plan may be made without."""
    is_of_up: bool = False
    """Whether only unattended runs do it: a run that a person starts may go on without."""


def is_remote(url: str, service_url: str) -> bool:
    """Return whether an address may lead anywhere but to Paddock's own service.

    >>> [is_remote(f"http://localhost:{port}", "http://127.0.0.1:11434") for port in (11434, 5432)]
    [False, True]
    """
    try:
        found, service = written_authority(url), read_authority(service_url)
    except BadHost:
        return True
    if found is None or found.has_user or not service.host.is_loopback:
        return True
    return not found.host.is_loopback or found.port != service.port


def remote_address_text(url: str) -> str:
    """Return an address as a need names it; one of this machine is called so."""
    return f"{url} (another program on this machine)" if _is_this_machine(url) else url


def _need(reached: Reached, bound: BoundPlan, service_url: str) -> PermissionNeed | None:
    """Return what one thing that is reached needs."""
    mark = bound.pipeline.mark(reached.at)
    match reached:
        case ReachedCommand():
            name, what = "run", f"run {command_text(reached.program, bound)}"
        case ReachedServer():
            return server_need(reached.name, bound)
        case ReachedNotification():
            return _notify_need(reached, bound, service_url)
        case ReachedCode(use=None):
            name, what = "tool", f"call the Python function '{reached.name}'"
        case ReachedCode(kind="function"):
            name, what = "tool", f"call the function `{reached.name}`"
        case ReachedCode(kind="installed"):
            name, what = "tool", f"call the installed tool `{reached.name}`"
        case ReachedCode(use=ToolUse() as use):
            hosts = use.options.get("hosts")
            listed = hosts if isinstance(hosts, list) else [hosts] if hosts else []
            far = [str(host) for host in listed if not _is_own_pattern(str(host), service_url)]
            if reached.name != "http.get" or not far:
                return None
            name, what = "network", f"fetch from {', '.join(far)}"
    return PermissionNeed(name, what, mark, is_of_run=True)


def command_text(program: StartedProgram, bound: BoundPlan) -> str:
    """Return a command as it will run: arguments filled in, program, folder, names of variables.

    A text that needs more than the inputs, such as an item or a secret, stands as it is written.
    Values of variables are not shown: they may be secrets.
    """
    texts, are_known = zip(*(_filled_in(word, bound) for word in program.words), strict=True)
    line = shlex.join(texts).replace("\n", " ")
    if len(line) > MAX_COMMAND_CHARS:
        line = f"{line[:MAX_COMMAND_CHARS]}… ({len(line) - MAX_COMMAND_CHARS:,} characters more)"
    folder, is_folder_known = _filled_in("." if program.cwd is None else program.cwd, bound)
    added = dict(program.env) if isinstance(program.env, Mapping) else {}
    shown = [f"`{line}`"]
    if is_folder_known and are_known[0]:
        shown += _program(texts[0], folder, added, bound)
    if program.cwd is not None:
        shown.append(f"in '{folder}'")
    if added:
        shown.append(f"with {', '.join(map(str, added))} set")
    if not (is_folder_known and all(are_known)):
        shown.append("(what stands in braces is filled in when it runs)")
    return " ".join(shown)


def _program(name: str, folder: str, added: Mapping[str, Any], bound: BoundPlan) -> Iterator[str]:
    """Yield the path of the program that a name stands for, where it is another text."""
    path, is_known = _filled_in(added.get("PATH", ""), bound)
    if not is_known:
        return
    environ = processes.clean_environ({"PATH": path} if path else {}, os.environ)
    found = processes.find_program(name, bound.roots.base / folder, environ)
    if found is None:
        yield "(which is not there)"
    elif str(found) != name:
        yield f"({found})"


def _filled_in(written: object, bound: BoundPlan) -> tuple[str, bool]:
    """Return a text with the inputs filled in, and whether that is all of it."""
    secret = bound.secret_inputs
    known = KnownInputs({n: value for n, value in bound.inputs.items() if n not in secret})
    value = known.value_of(str(written))
    return (str(written), False) if value is ONLY_LATER else (str(value), True)


def _is_own_pattern(host: str, service_url: str) -> bool:
    """Return whether an entry of `hosts` stands for Paddock's own service and nothing else."""
    try:
        pattern, service = read_pattern(host), read_authority(service_url)
    except BadHost:  # reported with its place
        return False
    is_here = pattern.is_loopback and service.host.is_loopback
    return is_here and pattern.port == service.port


def server_need(name: str, bound: BoundPlan) -> PermissionNeed:
    """Return what a server needs, where the file names it. One here may do anything here, too."""
    server = declared_server(name, bound.pipeline)
    if server.program is not None:
        shown = command_text(server.program, bound)
        permission, what = "mcp", f"start the MCP server '{name}': {shown}"
    else:
        url = str(server.texts["url"])
        permission = "mcp" if _is_this_machine(url) else "network"
        what = f"ask the MCP server '{name}' at {url}"
    return PermissionNeed(permission, what, bound.pipeline.mark(server.at), is_of_run=True)


def _is_this_machine(url: str) -> bool:
    try:
        found = written_authority(url)
    except BadHost:
        return False
    return found is not None and not found.has_user and found.host.is_loopback


class NotPermitted(PipelineError):
    """A pipeline wants more than it may have; every need at once."""

    def __init__(self, needs: Collection[PermissionNeed], names: str = "") -> None:
        self.needs = tuple(needs)
        self.names = names or permission_names(needs)
        """What must be allowed for all that it wants, and not only for what it lacks."""
        remedy = (
            f'If you trust it: `--allow {self.names}`, or `allow = "{self.names}"` in '
            f"~/.config/paddock/{FILE_NAME}."
        )
        words = "the pipeline wants to {}, which needs '{}'.".format
        super().__init__(Fault(words(need.what, need.name), remedy, need.mark) for need in needs)


def refuse_unpermitted(
    bound: BoundPlan,
    allowed: Collection[str],
    service_url: str,
    *,
    is_plan: bool = False,
    is_notifying: bool = True,
) -> None:
    """Refuse a pipeline that wants more than is allowed; a plan does not do what steps want.

    A run that is not `is_notifying` was started by a person: it sends no notifications, and does
    not read the secrets of triggers.

    `allowed` are names of permissions; Paddock's own service, at `service_url`, needs no consent.

    Raises:
        NotPermitted: with all that it wants besides.
    """
    all_needs = permission_needs(bound, service_url)
    needed = [need for need in all_needs if is_notifying or not need.is_of_up]
    lacking = [need for need in needed if need.name not in allowed]
    if any(not (is_plan and need.is_of_run) for need in lacking):
        raise NotPermitted(lacking, permission_names(needed))


def permission_advice(bound: BoundPlan, allowed: Collection[str], service_url: str) -> str | None:
    """Return what a run of a planned pipeline will need; None: nothing more than it has."""
    needed = [need for need in permission_needs(bound, service_url) if not need.is_of_up]
    lacking = [need for need in needed if need.name not in allowed]
    if not lacking:
        return None
    wants = "; ".join(dict.fromkeys(need.what for need in lacking))
    return f"A run wants to {wants}. If you trust it: `--allow {permission_names(needed)}`."


def permission_names(needs: Collection[PermissionNeed]) -> str:
    """Return the names by which needs are allowed, as `--allow` takes them."""
    return ",".join(sorted({need.name for need in needs}, key=PERMISSIONS.index))


def permission_needs(bound: BoundPlan, service_url: str) -> list[PermissionNeed]:
    """Return all that a pipeline wants besides files and models, in the file's order."""
    found: list[PermissionNeed] = []
    for plan in all_plans(bound):
        needed: list[PermissionNeed] = []
        for pool in plan.pools.values():
            if far := [
                remote_address_text(url) for url in pool.urls if is_remote(url, service_url)
            ]:
                what = f"ask {' and '.join(far)} for a model"
                needed.append(PermissionNeed("network", what, pool.mark, is_of_run=True))
        of_triggers = trigger_secrets(plan.pipeline) if plan.pipeline.secrets else frozenset()
        for name, keys in plan.pipeline.secrets.items():
            mark, what = plan.pipeline.mark(("secrets", name)), f"read {secret_place(keys)}"
            needed.append(PermissionNeed("secrets", what, mark, is_of_up=name in of_triggers))
        for reached in reached_by(plan.pipeline):
            is_unused = isinstance(reached, ReachedServer) and reached.use is None
            # A pipeline that a step runs sends no messages
            is_inner = isinstance(reached, ReachedNotification) and plan is not bound
            need = None if is_unused or is_inner else _need(reached, plan, service_url)
            if need is not None:
                needed.append(need)
        found += sorted(needed, key=lambda need: need.mark.line if need.mark else 0)
    return list(dict.fromkeys(found))


def forbidden_pools(bound: BoundPlan, allowed: Collection[str], service_url: str) -> frozenset[str]:
    if "network" in allowed:
        return frozenset()
    pools = (pool for plan in all_plans(bound) for pool in plan.pools.items())
    return frozenset(
        name for name, pool in pools if any(is_remote(url, service_url) for url in pool.urls)
    )


def _notify_need(
    reached: ReachedNotification, bound: BoundPlan, service_url: str
) -> PermissionNeed | None:
    mark, notify = bound.pipeline.mark(reached.at), reached.notify
    name, after = "network", " when a run has ended"
    if notify.command is not None:
        program = reached.program
        shown = f"`{notify.command}`" if program is None else command_text(program, bound)
        name, what = "run", f"run {shown}{after}"
    elif notify.email is not None:
        what = f"send mail to {notify.email}"
    elif notify.service is not None:
        what = f"send a message by {notify.service}{after}"
    elif notify.webhook is not None and is_remote(notify.webhook, service_url):
        what = f"call {remote_address_text(notify.webhook)}{after}"
    else:
        return None
    return PermissionNeed(name, what, mark, is_of_run=True, is_of_up=True)

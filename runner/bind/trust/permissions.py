"""Permissions that a pipeline needs besides files and models, and those that are given.

Commands, tools, servers, network and secrets. A YAML may come from a stranger: everything that
reaches further needs `--allow` or the caller's own settings. Every address but that of Paddock's
own service counts as remote, other ports of this machine too, since databases and other programs
listen there; what an expression decides is remote.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping

from paddock.engine.system import processes
from paddock.engine.system.hosts import BadHost, read_authority, read_pattern, written_authority
from paddock.engine.system.records import Struct
from paddock.pipelines.errors import Fault, Mark, PipelineError
from paddock.runner.config.config_file import FILE_NAME
from paddock.runner.config.pipeline_secrets import secret_place, trigger_secrets
from paddock.runner.config.setting_values import PERMISSIONS
from paddock.steps.facts import ToolUse

from ..bound import BoundPlan
from ..inputs import LATER, KnownInputs
from ..plan_walks import all_plans
from .reached import (
    Reached,
    ReachedAccount,
    ReachedCode,
    ReachedCommand,
    ReachedNotification,
    ReachedServer,
    StartedProgram,
    reached_by,
)

MAX_COMMAND_CHARS = 1000
"""Of a command that is shown: a script is meant to be read before it is allowed."""


class PermissionNeed(Struct, frozen=True):
    name: str
    what: str
    """The end of the sentence 'the pipeline wants to …'."""
    mark: Mark | None = None
    is_of_run: bool = False
    is_of_up: bool = False
    """Whether only unattended runs do it: a run that a person starts may go on without."""


def permission_needs(bound: BoundPlan, service_url: str) -> list[PermissionNeed]:
    """Return all that a pipeline wants besides files and models, in the file's order.

    1. Servers elsewhere, for its models.
    2. Secrets. Those of triggers only unattended runs read.
    3. What its steps reach; a server where it is declared, and none that no step names.
    4. Notifications, which pipelines that steps run do not send.
    """
    all_needs: list[PermissionNeed] = []
    for plan in all_plans(bound):
        pipeline = plan.pipeline
        needs: list[PermissionNeed] = []
        for pool in plan.pools.values():  # 1
            if remote := [url for url in pool.urls if is_remote(url, service_url)]:
                what = f"ask {' and '.join(map(_address_text, remote))} for a model"
                needs.append(PermissionNeed("network", what, pool.mark, is_of_run=True))
        of_triggers = trigger_secrets(pipeline) if pipeline.secrets else frozenset()
        for name, keys in pipeline.secrets.items():  # 2
            mark = pipeline.mark(("secrets", name))
            what = f"read {secret_place(keys)}"
            needs.append(PermissionNeed("secrets", what, mark, is_of_up=name in of_triggers))
        for reached in reached_by(pipeline):
            at = reached.at
            is_of_up = isinstance(reached, ReachedNotification)
            if isinstance(reached, ReachedServer):  # 3
                if reached.use is None:
                    continue
                at = pipeline.servers[reached.name].at
            elif is_of_up and plan is not bound:  # 4
                continue
            words = _name_and_words(reached, plan, service_url)
            if words is not None:
                mark = pipeline.mark(at)
                needs.append(PermissionNeed(*words, mark, is_of_run=True, is_of_up=is_of_up))
        all_needs += sorted(needs, key=lambda need: need.mark.line if need.mark else 0)
    return list(dict.fromkeys(all_needs))


def permission_names(needs: Collection[PermissionNeed]) -> str:
    """Return the names by which needs are allowed, as `--allow` takes them."""
    return ",".join(sorted({need.name for need in needs}, key=PERMISSIONS.index))


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
) -> str | None:
    """Refuse a pipeline that wants more than is allowed; a plan does not do what steps want.

    Return, of a plan, what its run will need besides; None: nothing.

    A run that is not `is_notifying` was started by a person: it sends no notifications, and does
    not read the secrets of triggers.

    `allowed` are names of permissions; Paddock's own service, at `service_url`, needs no consent.

    Raises:
        NotPermitted: with all that it wants besides.
    """
    all_needs = permission_needs(bound, service_url)
    needs = [need for need in all_needs if is_notifying or not need.is_of_up]
    lacking = [need for need in needs if need.name not in allowed]
    if any(not (is_plan and need.is_of_run) for need in lacking):
        raise NotPermitted(lacking, permission_names(needs))
    of_run = [need for need in all_needs if not need.is_of_up]
    whats = dict.fromkeys(need.what for need in of_run if need.name not in allowed)
    if not whats:
        return None
    trust = f"If you trust it: `--allow {permission_names(of_run)}`."
    return f"A run wants to {'; '.join(whats)}. {trust}"


def forbidden_pools(bound: BoundPlan, allowed: Collection[str], service_url: str) -> frozenset[str]:
    if "network" in allowed:
        return frozenset()
    pools = (pool for plan in all_plans(bound) for pool in plan.pools.items())
    return frozenset(
        name for name, pool in pools if any(is_remote(url, service_url) for url in pool.urls)
    )


def _name_and_words(reached: Reached, plan: BoundPlan, service_url: str) -> tuple[str, str] | None:
    """Return name and words of what is needed for one thing that is reached; None: nothing."""
    after = " when a run has ended"
    match reached:
        case ReachedCommand():
            return "run", f"run {command_text(reached.program, plan)}"
        case ReachedServer(program=None):
            asked = f"ask the MCP server '{reached.name}' at {reached.url}"
            return server_permission(reached), asked
        case ReachedServer(program=StartedProgram() as program):
            started = f"start the MCP server '{reached.name}': {command_text(program, plan)}"
            return server_permission(reached), started
        case ReachedNotification(notify=notify, program=program):
            if notify.command is not None:
                shown = command_text(program, plan) if program else f"`{notify.command}`"
                return "run", f"run {shown}{after}"
            if notify.email is not None:
                return "network", f"send mail to {notify.email}{after}"
            if notify.service is not None:
                return "network", f"send a message by {notify.service}{after}"
            if notify.webhook is not None and is_remote(notify.webhook, service_url):
                return "network", f"call {_address_text(notify.webhook)}{after}"
        case ReachedAccount(does=does):
            return "network", does
        case ReachedCode(use=None):
            return "tool", f"call the Python function '{reached.name}'"
        case ReachedCode(kind="function"):
            return "tool", f"call the function `{reached.name}`"
        case ReachedCode(kind="installed"):
            return "tool", f"call the installed tool `{reached.name}`"
        case ReachedCode(name="http.get", use=ToolUse() as use):
            hosts = use.options.get("hosts")
            listed = map(str, hosts if isinstance(hosts, list) else [hosts] if hosts else [])
            if remote := [host for host in listed if not _is_own_pattern(host, service_url)]:
                return "network", f"fetch from {', '.join(remote)}"
    return None


# --- addresses


def is_remote(url: str, service_url: str) -> bool:
    """Return whether an address may lead anywhere but to Paddock's own service.

    >>> [is_remote(f"http://localhost:{port}", "http://127.0.0.1:11434") for port in (11434, 5432)]
    [False, True]
    """
    try:
        authority, service = written_authority(url), read_authority(service_url)
    except BadHost:
        return True
    if authority is None or authority.has_user or not service.host.is_loopback:
        return True
    return not authority.host.is_loopback or authority.port != service.port


def server_permission(server: ReachedServer) -> str:
    """Return the name of what a server needs. One on this machine may do anything here, too."""
    return "mcp" if server.program is not None or _is_this_machine(server.url) else "network"


def _address_text(url: str) -> str:
    return f"{url} (another program on this machine)" if _is_this_machine(url) else url


def _is_this_machine(url: str) -> bool:
    try:
        authority = written_authority(url)
    except BadHost:
        return False
    return authority is not None and not authority.has_user and authority.host.is_loopback


def _is_own_pattern(host: str, service_url: str) -> bool:
    """Return whether an entry of `hosts` stands for Paddock's own service and nothing else."""
    try:
        pattern, service = read_pattern(host), read_authority(service_url)
    except BadHost:  # reported with its place
        return False
    is_here = pattern.is_loopback and service.host.is_loopback
    return is_here and pattern.port == service.port


# --- commands


def command_text(program: StartedProgram, plan: BoundPlan) -> str:
    """Return a command as it will run: arguments filled in, program, folder, names of variables.

    A text that needs more than the inputs, such as an item or a secret, stands as it is written.
    Values of variables are not shown: they may be secrets.
    """
    known = KnownInputs(plan.inputs, later=plan.later_inputs | plan.secret_inputs)

    def filled_in(written: object) -> tuple[str, bool]:
        """Return a text with the inputs filled in, and whether that is all of it."""
        value = known.value_of(str(written))
        return (str(written), False) if value is LATER else (str(value), True)

    texts, are_known = zip(*map(filled_in, program.words), strict=True)
    line = shlex.join(texts).replace("\n", " ")
    if len(line) > MAX_COMMAND_CHARS:
        line = f"{line[:MAX_COMMAND_CHARS]}… ({len(line) - MAX_COMMAND_CHARS:,} characters more)"
    folder, is_folder_known = filled_in("." if program.cwd is None else program.cwd)
    variables = dict(program.env) if isinstance(program.env, Mapping) else {}
    path, is_path_known = filled_in(variables.get("PATH", ""))
    shown = [f"`{line}`"]
    if is_folder_known and are_known[0] and is_path_known:
        environ = processes.clean_environ({"PATH": path} if path else {}, os.environ)
        file = processes.find_program(texts[0], plan.roots.base / folder, environ)
        if str(file) != texts[0]:
            shown.append("(which is not there)" if file is None else f"({file})")
    if program.cwd is not None:
        shown.append(f"in '{folder}'")
    if variables:
        shown.append(f"with {', '.join(map(str, variables))} set")
    if not (is_folder_known and all(are_known)):
        shown.append("(what stands in braces is filled in when it runs)")
    return " ".join(shown)

"""Reach of a pipeline besides files and models: commands, functions, tools, MCP servers.

Needs (`permissions`), consent, what is missing here (`requirements`) and the files that no step may
write all follow from what this walk yields, so that none of them knows less of a command than what
runs it. Names of tools that lead nowhere are no part of it: `tool_faults` reports them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Pipeline, StepNode, step_nodes
from paddock.pipelines.triggers import NotifyKeys
from paddock.steps.effects import BucketTarget, DatabaseServer, SentRequest
from paddock.steps.facts import ToolUse
from paddock.steps.param_types import CommandParam, DocumentSource
from paddock.steps.registry import facts_of
from paddock.steps.tools.code_digests import files_named
from paddock.steps.tools.tool_names import FUNCTION_REFERENCE, resolve_tool

from ..inputs import KnownInputs
from ..known_paths import resolved

NO_INPUTS = KnownInputs({})


class StartedProgram(Struct, frozen=True):
    words: Sequence[Any]
    cwd: Any = None
    env: Any = None

    def files(self, base: Path, known: KnownInputs = NO_INPUTS) -> Iterator[Path]:
        """Yield the files below the pipeline's folder that it names, as `files_named` finds them.

        `base` is that folder, resolved; what the known inputs make of its words counts.
        """
        environ = self.env.values() if isinstance(self.env, Mapping) else ()
        words = [known.text_of(word) for word in (*self.words, *environ) if isinstance(word, str)]
        cwd = resolved(base / known.text_of(str(self.cwd or ".")))
        return files_named(words, cwd, (base,))


class ReachedCommand(Struct, frozen=True):
    at: Place
    written: Mapping[str, Any]
    """What is agreed to: the step's parameters."""
    program: StartedProgram


class ReachedCode(Struct, frozen=True):
    """A function that is a step, or a tool that a step names: a function, installed, built-in."""

    kind: Literal["function", "installed", "built-in"]
    at: Place
    name: str
    """As written."""
    file: str
    """Of a function: its Python file, relative to the pipeline's."""
    use: ToolUse | None = None
    """As a tool, with its options, which are agreed to; None: it is the step."""


class ReachedServer(Struct, frozen=True):
    """An MCP server that the file declares, or one whose tool a step names."""

    at: Place
    name: str
    texts: Mapping[str, Any]
    """What is agreed to where it is declared."""
    program: StartedProgram | None
    """How it is started; None: it has an address."""
    use: ToolUse | None = None
    """The use of a tool, with its options, which are agreed to; None: the declaration."""

    @property
    def url(self) -> str:
        """Its address; empty where it is started."""
        return str(self.texts.get("url", ""))


class ReachedNotification(Struct, frozen=True):
    at: Place
    notify: NotifyKeys
    program: StartedProgram | None
    """The command; None: it is another way, or a command that cannot be run."""


class ReachedAccount(Struct, frozen=True):
    at: Place
    kind: str
    does: str
    """The end of the sentence 'the pipeline wants to …'."""
    account: Any
    """As written; what is agreed to."""
    program: None = None
    """The command that prints a token is reached as one."""


Reached: TypeAlias = (
    ReachedCommand | ReachedCode | ReachedServer | ReachedNotification | ReachedAccount
)


def reached_by(pipeline: Pipeline) -> Iterator[Reached]:
    """Yield what the steps reach, then each server that is declared, then the notifications."""
    for step in step_nodes(pipeline):
        yield from reached_by_step(step, pipeline)
    for name in pipeline.servers:
        yield declared_server(name, pipeline)
    if pipeline.on is None or not pipeline.on.notify:
        return
    is_list = isinstance(pipeline.document.data["on"]["notify"], list)
    for number, notify in enumerate(pipeline.on.notify):
        try:
            words = notify.command_words() if notify.command is not None else []
        except ValueError:  # it cannot be run
            words = []
        at: Place = ("on", "notify", number) if is_list else ("on", "notify")
        yield ReachedNotification(at, notify, StartedProgram(words) if words else None)


def reached_by_step(step: StepNode, pipeline: Pipeline) -> Iterator[Reached]:
    """Yield what one step reaches; names of tools that stand for none are faults of their own."""
    facts, given, at = facts_of(step.uses), step.params.data, (*step.at, "with")
    if facts.param(CommandParam):
        command = given.get(facts.param(CommandParam))
        words = command if isinstance(command, list) and command else [command]
        program = StartedProgram(words, given.get("cwd"), given.get("env"))
        yield ReachedCommand((*at, facts.param(CommandParam)), step.written, program)
    elif function := FUNCTION_REFERENCE.match(step.uses):
        yield ReachedCode("function", (*step.at, "uses"), step.uses, function["file"])
    if (hosts := given.get(facts.param(SentRequest))) is not None:
        does = f"send to {', '.join(map(str, hosts)) if isinstance(hosts, list) else hosts}"
        yield ReachedAccount((*at, facts.param(SentRequest)), "send", does, hosts)
    if (account := given.get(facts.param(DatabaseServer))) is not None:
        table = account if isinstance(account, Mapping) else {"user": account, "host": account}
        does = f"write rows as {table.get('user')} at {table.get('host')}"
        yield ReachedAccount((*at, facts.param(DatabaseServer)), "postgres", does, dict(table))
    for name in (*facts.types.names(DocumentSource), *facts.types.names(BucketTarget)):
        if (account := given.get(name)) is None:
            continue
        # An expression may be any account, with any command
        table = account if isinstance(account, Mapping) else {"user": account, "token": account}
        of = table.get("url") or f"{table.get('user')} at {table.get('host')}"
        does = "fetch the documents of" if "url" in table else "fetch the mails of"
        does = "send outputs to" if name in facts.types.names(BucketTarget) else does
        yield ReachedAccount((*at, name), name, f"{does} {of}", dict(table))
        if token := table.get("token"):
            words = token if isinstance(token, list) else [token]
            program = StartedProgram(words)
            yield ReachedCommand((*at, name), {"token": words}, program)
    for use in facts.tools(given):
        named = resolve_tool(use.name, use.server, pipeline.servers)
        if named is None:
            continue
        at_use = (*at, *use.path)
        if named.server is not None:
            yield replace(declared_server(named.server, pipeline), at=at_use, use=use)
        elif named.kind != "server":
            yield ReachedCode(named.kind, at_use, use.name, named.file or "", use)


def declared_server(name: str, pipeline: Pipeline) -> ReachedServer:
    server, program = pipeline.servers[name], None
    texts = server.texts.data
    if server.is_command:
        words = [texts["command"], *texts.get("args", ())]
        program = StartedProgram(words, texts.get("cwd"), texts.get("env"))
    return ReachedServer(server.at, name, texts, program)

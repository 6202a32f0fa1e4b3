"""What a pipeline reaches besides files and models: commands, functions, tools, MCP servers.

The one walk over it. Needs (`permissions`), consent, what is missing here (`requirements`), the
faults of tools and the files that no step may write all follow from what it yields, so that none
of them knows less of a command than what runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from paddock.engine.system import files
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Pipeline, StepNode, step_nodes
from paddock.steps.facts import ToolUse
from paddock.steps.registry import facts_of
from paddock.steps.tools.code_digests import file_content
from paddock.steps.tools.tool_names import FUNCTION_REFERENCE, resolve_tool

if TYPE_CHECKING:
    from paddock.pipelines.triggers import NotifyKeys

_SCRIPTS = (".py", ".sh", ".bash", ".zsh", ".js", ".mjs", ".ts", ".rb", ".pl", ".php", ".lua", ".r",
            ".awk", ".jq", ".sql", ".ps1", ".bat", ".cmd", ".jar")  # fmt: skip
_ELF = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class ReachedCommand:
    """A program that a step starts."""

    at: Place
    """Where it is named."""
    written: Mapping[str, Any]
    """What is agreed to: the step's parameters."""
    words: Sequence[Any]
    """The program and its arguments."""
    cwd: Any
    env: Any


@dataclass(frozen=True, slots=True)
class ReachedCode:
    """A function that is a step, or a tool that a step names: a function, installed, built-in."""

    kind: Literal["function", "installed", "built-in"]
    at: Place
    name: str
    """As written."""
    file: str
    """Of a function: its Python file, relative to the pipeline's."""
    use: ToolUse | None = None
    """As a tool, with its options, which are agreed to; None: it is the step."""


@dataclass(frozen=True, slots=True)
class ReachedServer:
    """An MCP server that the file declares, or one whose tool a step names."""

    at: Place
    name: str
    texts: Mapping[str, Any]
    """What is agreed to where it is declared."""
    use: ToolUse | None = None
    """The use of a tool, with its options, which are agreed to; None: the declaration."""

    @property
    def words(self) -> Sequence[Any]:
        """The program and its arguments; empty: it has an address."""
        return [self.texts["command"], *self.texts.get("args", ())] if self.is_command else ()

    @property
    def is_command(self) -> bool:
        return self.texts.get("command") is not None

    @property
    def cwd(self) -> Any:
        return self.texts.get("cwd")

    @property
    def env(self) -> Any:
        return self.texts.get("env")


@dataclass(frozen=True, slots=True)
class ReachedNotification:
    """A way of which people hear that a run has ended."""

    at: Place
    notify: NotifyKeys
    words: Sequence[Any] = ()
    """The program and its arguments, where it is one that can be run."""
    cwd: Any = None
    env: Any = None

    @property
    def written(self) -> Mapping[str, Any]:
        """What is agreed to."""
        return self.notify.model_dump(exclude={"when"})


Started: TypeAlias = ReachedCommand | ReachedServer | ReachedNotification
"""What may start a program."""
Reached: TypeAlias = ReachedCode | Started


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
        yield ReachedNotification(at, notify, words)


def reached_by_step(step: StepNode, pipeline: Pipeline) -> Iterator[Reached]:
    """Yield what one step reaches; names of tools that stand for none are faults of their own."""
    facts, given, at = facts_of(step.uses), step.params.data, (*step.at, "with")
    if facts.command:
        command = given.get(facts.command)
        words = command if isinstance(command, list) and command else [command]
        at_command, written = (*at, facts.command), step.written
        yield ReachedCommand(at_command, written, words, given.get("cwd"), given.get("env"))
    elif function := FUNCTION_REFERENCE.match(step.uses):
        yield ReachedCode("function", (*step.at, "uses"), step.uses, function["file"])
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
    server = pipeline.servers[name]
    return ReachedServer(server.at, name, server.texts.data)


def scripts_named(words: Iterable[Any], base: Path) -> Iterator[Path]:
    """Yield the programs and scripts below a folder that the words of a command name."""
    for word in words:
        file = files.existing_file(base, word) if isinstance(word, str) else None
        if (
            file is not None
            and file.is_relative_to(base)
            and (file.suffix.lower() in _SCRIPTS or file_content(file, 4).startswith((b"#!", _ELF)))
        ):
            yield file

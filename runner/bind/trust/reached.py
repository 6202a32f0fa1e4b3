"""What a pipeline reaches besides files and models: commands, functions, tools, MCP servers.

The one walk over it. Needs (`permissions`), consent, what is missing here (`requirements`), the
faults of tools and the files that no step may write all follow from what it yields, so that none
of them knows less of a command than what runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
class Reached:
    """One thing that is reached, as the file has it."""

    kind: Literal["command", "function", "installed", "built-in", "server", "notification"]
    at: Place
    """Where it is named."""
    name: str = ""
    """The function's, tool's or server's, as written."""
    written: Any = None
    """What is agreed to: the step's parameters, the server's texts, the tool's options."""
    words: Sequence[Any] = ()
    """The command: of a step, of a server that is started, of a notification."""
    cwd: Any = None
    env: Any = None
    file: str = ""
    """Of a function: its Python file, relative to the pipeline's."""
    use: ToolUse | None = None
    """The tool's use, where a step names it as a tool; None: a server that is declared."""
    notify: NotifyKeys | None = None


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
        way = notify.model_dump(exclude={"when"})
        yield Reached("notification", at, written=way, words=words, notify=notify)


def reached_by_step(step: StepNode, pipeline: Pipeline) -> Iterator[Reached]:
    """Yield what one step reaches; names of tools that stand for none are faults of their own."""
    facts, given, at = facts_of(step.uses), step.params.data, (*step.at, "with")
    if facts.command:
        command = given.get(facts.command)
        words = command if isinstance(command, list) and command else [command]
        yield Reached(
            "command",
            (*at, facts.command),
            written=step.written,
            words=words,
            cwd=given.get("cwd"),
            env=given.get("env"),
        )
    elif function := FUNCTION_REFERENCE.match(step.uses):
        yield Reached("function", (*step.at, "uses"), step.uses, file=function["file"])
    for use in facts.tools(given):
        named = resolve_tool(use.name, use.server, pipeline.servers)
        if named is None:
            continue
        if named.server is not None:
            server = declared_server(named.server, pipeline)
            yield replace(server, at=(*at, *use.path), written=dict(use.options), use=use)
        elif named.kind != "server":
            place, file, options = (*at, *use.path), named.file or "", dict(use.options)
            yield Reached(named.kind, place, use.name, options, file=file, use=use)


def declared_server(name: str, pipeline: Pipeline) -> Reached:
    server = pipeline.servers[name]
    texts = server.texts.data
    words = [texts["command"], *texts.get("args", ())] if server.is_command else []
    cwd, env = texts.get("cwd"), texts.get("env")
    return Reached("server", server.at, name, texts, words=words, cwd=cwd, env=env)


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

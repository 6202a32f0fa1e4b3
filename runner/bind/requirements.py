"""What a pipeline needs and this machine lacks: packages, programs, servers, readers, model files.

It is found before a run where it is constant; what depends on an item (an `if` over a document, a
command made by a template) is found when that item is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from paddock.engine.system import processes
from paddock.pipelines.errors import Fault, Mark, PipelineError
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.steps.extras import missing_lancedb, missing_mcp_library
from paddock.steps.readers import reader
from paddock.steps.readers.document_kinds import NEEDS_FORMATS
from paddock.steps.tools.python_files import missing_imports
from paddock.steps.tools.tool_names import FUNCTION_REFERENCE, resolve_tool, tools_used

from . import pipeline_models
from .bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from .scope import Scope
from .tool_faults import has_tools


def refuse_missing(bound: BoundPlan) -> None:
    """Refuse a pipeline that needs what is not installed here.

    Raises:
        PipelineError: with everything that is missing.
    """
    if found := requirement_faults(bound):
        raise PipelineError(found)


def requirement_faults(bound: BoundPlan) -> list[Fault]:
    """Return a fault for each package, program or model file that is missing, where needed first.

    Inner pipelines are looked at as well.
    """
    found: dict[str, Fault] = {}
    for fault in _missing_of_plan(bound):
        found.setdefault(fault.message, fault)
    models = pipeline_models.model_file_faults(bound) if bound.pipeline.models else ()
    return [*found.values(), *models]


def _missing_of_plan(bound: BoundPlan) -> Iterator[Fault]:
    for step in _certain_steps(bound.nodes, bound):
        yield from _missing_of_step(step, bound)
        if step.inner is not None:
            yield from _missing_of_plan(step.inner)


def _certain_steps(nodes: Iterable[BoundNode], bound: BoundPlan) -> Iterator[BoundStep]:
    """Yield the steps that no `if` may leave out, as far as the inputs tell."""
    for node in nodes:
        if node.if_ is not None and not _holds(node.if_, bound):
            continue
        if isinstance(node, BoundBlock):
            yield from _certain_steps(node.body, bound)
        else:
            yield node


def _holds(condition: Expression, bound: BoundPlan) -> bool:
    if any(path[0] != "inputs" for path in condition.references):
        return False
    try:
        return bool(condition.evaluate(Scope.of(bound.inputs)))
    except ExpressionError:  # an input that is not given yet
        return False


def _missing_of_step(step: BoundStep, bound: BoundPlan) -> Iterator[Fault]:
    if step.uses == "run":
        command = step.written.get("command")
        first = command[0] if isinstance(command, list) and command else None
        if _is_missing(first, step.written.get("env"), bound.roots.base):
            what = f"step '{step.id}' runs '{first}', and there is no such program here."
            mark = step.mark_of("with", "command", 0)
            yield Fault(what, "Install it, or name its path.", mark)
    elif step.uses == "search" or (step.uses == "embed" and step.written.get("store") is not None):
        yield from _missing_package(missing_lancedb(), step.mark_of("with", "store"))
    elif step.uses == "files.read":
        # What reading a kind of document needs, where the step names the kind
        kind, mark = step.written.get("type"), step.mark_of("with", "type")
        if kind in ("docx", "pptx", "xlsx") and not reader.office_is_installed():
            yield _extra(f"documents of type '{kind}'", "documents", mark)
        elif kind in NEEDS_FORMATS and not reader.formats_is_installed():
            yield _extra(f"documents of type '{kind}'", "formats", mark)
        elif kind == "image" and not reader.ocr_is_installed():
            yield _extra("texts of pictures", "ocr", mark)
    elif named := FUNCTION_REFERENCE.match(step.uses):
        yield from _missing_function(named["file"], bound, step.mark_of("uses"))
    elif has_tools(step):
        yield from _missing_tools(step, bound)


def _is_missing(program: object, environ: object, folder: Path) -> bool:
    """Return whether a program that is looked for in PATH is not there.

    A path is left to the run: an earlier step may make what it names.
    """
    if not isinstance(program, str) or not program or "{" in program or os.sep in program:
        return False
    added = dict(environ) if isinstance(environ, Mapping) else {}
    if "{" in str(added.get("PATH", "")):
        return False
    whole = processes.clean_environ(added, os.environ)
    return processes.find_program(program, folder, whole) is None


def _missing_tools(step: BoundStep, bound: BoundPlan) -> Iterator[Fault]:
    for use in tools_used(step.uses, step.written):
        named = resolve_tool(use.name, use.server, bound.pipeline.servers)
        mark = step.mark_of("with", *use.path)
        if named is not None and named.kind == "function":
            yield from _missing_function(str(named.file), bound, mark)
        elif named is not None and named.server is not None:
            yield from _missing_package(missing_mcp_library(), mark)
            server = bound.pipeline.servers[named.server]
            program, environ = (server.texts.data.get(key) for key in ("command", "env"))
            if server.is_command and _is_missing(program, environ, bound.roots.base):
                by = f"is started by '{program}', which is not installed here."
                what, at = f"the MCP server '{named.server}' {by}", bound.pipeline.mark(server.at)
                yield Fault(what, "Install it, or correct `command`.", at)


def _missing_function(file: str, bound: BoundPlan, mark: Mark) -> Iterator[Fault]:
    for module in missing_imports(bound.roots.base / file):
        what = f"the file '{file}' imports '{module}', which is not installed."
        yield Fault(what, "Install it in the environment that runs Paddock.", mark)


def _extra(what: str, extra: str, mark: Mark) -> Fault:
    needs = f"{what} need the extra '{extra}', which is not installed."
    return Fault(needs, f"Install it: `pip install 'paddock-llm[{extra}]'`.", mark)


def _missing_package(missing: tuple[str, str] | None, mark: Mark) -> Iterator[Fault]:
    if missing is not None:
        yield Fault(*missing, mark)

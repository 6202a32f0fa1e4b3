"""What a pipeline needs and this machine lacks: packages, programs, servers, readers, model files.

It is found before a run where it is constant; what depends on an item (an `if` over a document, a
command made by a template) is found when that item is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from paddock.pipelines.errors import Fault, Mark, PipelineError
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.steps.extras import is_missing_program, missing_mcp_library
from paddock.steps.tools.python_files import missing_imports
from paddock.steps.tools.tool_names import FUNCTION_REFERENCE, resolve_tool

from . import pipeline_models
from .bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from .scope import Scope


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
    for path, what, remedy in step.facts.missing(step.id, step.written, bound.roots.base):
        yield Fault(what, remedy, step.mark_of("with", *path))
    if function := FUNCTION_REFERENCE.match(step.uses):
        yield from _missing_function(function["file"], bound, step.mark_of("uses"))
    for use in step.facts.tools(step.written):
        named = resolve_tool(use.name, use.server, bound.pipeline.servers)
        mark = step.mark_of("with", *use.path)
        if named is not None and named.kind == "function":
            yield from _missing_function(str(named.file), bound, mark)
        elif named is not None and named.server is not None:
            if (library := missing_mcp_library()) is not None:
                yield Fault(*library, mark)
            server = bound.pipeline.servers[named.server]
            program, environ = (server.texts.data.get(key) for key in ("command", "env"))
            if server.is_command and is_missing_program(program, environ, bound.roots.base):
                by = f"is started by '{program}', which is not installed here."
                what, at = f"the MCP server '{named.server}' {by}", bound.pipeline.mark(server.at)
                yield Fault(what, "Install it, or correct `command`.", at)


def _missing_function(file: str, bound: BoundPlan, mark: Mark) -> Iterator[Fault]:
    for module in missing_imports(bound.roots.base / file):
        what = f"the file '{file}' imports '{module}', which is not installed."
        yield Fault(what, "Install it in the environment that runs Paddock.", mark)

"""Packages, programs and model files that a pipeline needs and this machine lacks, found early.

What a step needs is read off the bound plan, where it stands as a constant. What shows only for
some items (an `if` over a document, a command made by a template) is found when they are done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.pipelines.marks import Mark

from .binding.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from .binding.tooling import has_tools
from .scope import Scope


def refuse(bound: BoundPlan) -> None:
    """Refuse a pipeline that needs what is not installed here.

    Raises:
        PipelineError: with everything that is missing.
    """
    found = faults(bound)
    if found:
        raise PipelineError(found)


def faults(bound: BoundPlan) -> list[Fault]:
    """Return a fault for each package, program or model file that is missing, where needed first.

    Inner pipelines are looked at as well.
    """
    found: dict[str, Fault] = {}
    for fault in _of_plan(bound):
        found.setdefault(fault.message, fault)
    return [*found.values(), *_of_models(bound)]


def _of_models(bound: BoundPlan) -> Iterator[Fault]:
    if bound.pipeline.models:
        from . import model_faults

        yield from model_faults.of_files(bound)


def _of_plan(bound: BoundPlan) -> Iterator[Fault]:
    for step in _certain(bound.nodes, bound):
        yield from _of_step(step, bound)
        if step.inner is not None:
            yield from _of_plan(step.inner)


def _certain(nodes: Iterable[BoundNode], bound: BoundPlan) -> Iterator[BoundStep]:
    """Yield the steps that no `if` may leave out, as far as the inputs tell."""
    for node in nodes:
        if node.if_ is not None and not _holds(node.if_, bound):
            continue
        if isinstance(node, BoundBlock):
            yield from _certain(node.body, bound)
        else:
            yield node


def _holds(condition: Expression, bound: BoundPlan) -> bool:
    """Return whether a condition is known to be true before the run."""
    if any(path[0] != "inputs" for path in condition.references):
        return False
    try:
        return bool(condition.evaluate(Scope.of(bound.inputs)))
    except ExpressionError:  # an input that is not given yet
        return False


def _of_step(step: BoundStep, bound: BoundPlan) -> Iterator[Fault]:
    from paddock.steps.own_function import NAMES, is_function

    written = step.params.step.params.data
    written = written if isinstance(written, Mapping) else {}
    if step.uses == "run":
        yield from _of_command(step, written, bound)
    elif step.uses == "search" or (step.uses == "embed" and written.get("store") is not None):
        from paddock.steps.stores import table

        yield from _of_package(table.missing_library(), _mark(step, bound, "with", "store"))
    elif step.uses == "files.read":
        yield from _of_kind(written.get("type"), _mark(step, bound, "with", "type"))
    elif is_function(step.uses) and (named := NAMES.match(step.uses)):
        yield from _of_function(named["file"], bound, _mark(step, bound, "uses"))
    elif has_tools(step.params.step):
        yield from _of_tools(step, written, bound)


def _of_command(step: BoundStep, written: Mapping[str, Any], bound: BoundPlan) -> Iterator[Fault]:
    command = written.get("command")
    first = command[0] if isinstance(command, list) and command else None
    if _is_missing(first, written.get("env"), bound.roots.base):
        what = f"step '{step.id}' runs '{first}', and there is no such program here."
        mark = _mark(step, bound, "with", "command", 0)
        yield Fault(what, "Install it, or name its path.", mark)


def _is_missing(program: object, environ: object, folder: Path) -> bool:
    """Return whether a program that is looked for in PATH is not there.

    A path is left to the run: an earlier step may make what it names.
    """
    from paddock.steps import processes

    if not isinstance(program, str) or not program or "{" in program or os.sep in program:
        return False
    added = dict(environ) if isinstance(environ, Mapping) else {}
    if "{" in str(added.get("PATH", "")):
        return False
    return not processes.is_there(program, folder, processes.clean_environ(added, os.environ))


def _of_tools(step: BoundStep, written: Mapping[str, Any], bound: BoundPlan) -> Iterator[Fault]:
    from paddock.steps.toolbox import naming

    for one in naming.wanted(step.uses, written):
        named = naming.named(one.name, one.server, bound.pipeline.servers)
        mark = _mark(step, bound, "with", *one.path)
        if named is not None and named.kind == "function":
            yield from _of_function(str(named.file), bound, mark)
        elif named is not None and named.server is not None:
            from paddock.steps.toolbox import sessions

            yield from _of_package(sessions.missing_library(), mark)
            yield from _of_server(named.server, bound)


def _of_server(name: str, bound: BoundPlan) -> Iterator[Fault]:
    server = bound.pipeline.servers[name]
    texts = server.texts.data
    if server.is_command and _is_missing(texts["command"], texts.get("env"), bound.roots.base):
        program = texts["command"]
        what = f"the MCP server '{name}' is started by '{program}', which is not installed here."
        yield Fault(what, "Install it, or correct `command`.", bound.pipeline.mark(server.at))


def _of_function(file: str, bound: BoundPlan, mark: Mark) -> Iterator[Fault]:
    from paddock.steps.toolbox import functions

    for module in functions.missing_imports(bound.roots.base / file):
        what = f"the file '{file}' imports '{module}', which is not installed."
        yield Fault(what, "Install it in the environment that runs Paddock.", mark)


def _of_kind(kind: object, mark: Mark) -> Iterator[Fault]:
    """Yield what reading a kind of document needs, where the step names the kind."""
    from paddock.steps.readers import archive, ocr

    if kind in ("docx", "pptx", "xlsx") and not archive.is_installed():
        yield _extra(f"documents of type '{kind}'", "documents", mark)
    elif kind == "image" and not ocr.is_installed():
        yield _extra("texts of pictures", "ocr", mark)


def _extra(what: str, extra: str, mark: Mark) -> Fault:
    needs = f"{what} need the extra '{extra}', which is not installed."
    return Fault(needs, f"Install it: `pip install 'paddock-llm[{extra}]'`.", mark)


def _of_package(missing: tuple[str, str] | None, mark: Mark) -> Iterator[Fault]:
    if missing is not None:
        yield Fault(*missing, mark)


def _mark(step: BoundStep, bound: BoundPlan, *at: str | int) -> Mark:
    return bound.pipeline.mark((*step.params.step.at, *at))

"""The spec of a step or block: all that decides its results, as written.

A ledger keeps the spec that an item was done with (`item_paths` reads it).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import canonical_json
from paddock.pipelines.expressions import steps_read
from paddock.pipelines.model import Block, Pipeline, ReplySpec, StepNode
from paddock.steps import registry
from paddock.steps.tools.code_digests import code_digests
from paddock.steps.tools.tool_names import tool_version

from .bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from .plan_walks import nodes_of, steps_of
from .trust.reached import ReachedCode, ReachedServer, reached_by_step

EVIDENCE_RULES = 6
"""Version of the rules by which evidence is found: what was stored by others is made again once."""
_NAMES = ("args", "env", "inputs", "params", "vars")
"""Parameters that are mappings of names, whose order shows nowhere."""


def step_spec(step: StepNode, tools_made_of: Any = None) -> dict[str, Any]:
    """Return the spec of a step: what decides its result, with template files' texts.

    Names within a value keep their order where it may show: in a table, a prompt, an answer.
    `tools_made_of`: as `tool_spec` has it.
    """
    written = {
        "uses": registry.own_name(step.uses),
        "with": _by_name(step.written),
        "if": step.if_.source if step.if_ else None,
        "returns": step.returns.data if step.returns else None,
    }
    if step.escalate is not None:
        written["escalate"] = step.escalate.when.source
        if step.escalate.also is not None:
            written["escalate_also"] = step.escalate.also
    if step.review is not None:
        written["review"] = step.review.when.source
        if step.review.also is not None:
            written["also"] = step.review.also
    if step.reply is not None:  # a spec without it stays as it was
        written["reply"] = _by_name(reply_spec(step.reply))
    if tools_made_of is not None:
        written["servers"] = json.loads(canonical_json(tools_made_of))
    return _by_name(written)


def reply_spec(reply: ReplySpec) -> Mapping[str, Any]:
    """Write down what decides an answer, the text of a schema's file in place of its name."""
    checks = [check.source for check in reply.checks.values()]
    spec: dict[str, Any] = {"schema": reply.schema, "check": checks, "repair": reply.repair}
    # A spec without these stays as it was.
    if reply.evidence is not None:
        sources = [source.source for source in reply.evidence.sources]
        spec["evidence"] = {"from": sources, "only": list(reply.evidence.only)}
        spec["evidence"]["rules"] = EVIDENCE_RULES
        if reply.evidence.language:
            spec["evidence"]["language"] = reply.evidence.language
    if reply.wants_confidence:
        spec["confidence"] = True
    if reply.readings:
        spec["readings"] = dict(reply.readings)
    return spec


def tool_spec(step: StepNode, pipeline: Pipeline, base: Path) -> Any:
    """Write down what of its tools decides a step's result, besides their names; None: nothing.

    Of a function its code with what that imports; of an MCP server the files beside the pipeline
    that its command names; of an installed tool the version of its package.
    """
    spec: dict[str, Any] = {}
    inside = base.resolve()
    for reached in reached_by_step(step, pipeline):
        match reached:
            case ReachedServer(name=name, program=program):
                spec[name] = reached.texts
                files = dict[str, str]()
                for path in () if program is None else program.files(inside):
                    with suppress(OSError):
                        files[os.path.relpath(path, inside)] = sha256_of(path)
                if files:
                    spec[f"files of {name}"] = files
            case ReachedCode(kind="installed", name=name):
                spec[f"tool {name}"] = tool_version(name)
            case ReachedCode(kind="function", name=name) if reached.use is not None:
                spec[f"files of {name}"] = code_digests((base / reached.file).resolve())
    return spec or None


def block_spec(block: Block) -> dict[str, Any]:
    written = {
        "for_each": f"{block.var} in {block.over.source}",
        "key": block.key.source if block.key else None,
        "if": block.if_.source if block.if_ else None,
        "returns": block.returns.data if block.returns else None,
    }
    if block.where is not None:  # a spec without it stays as it was
        written["where"] = block.where.source
    if block.keep is not None:
        written["keep"] = block.keep.source
    return _by_name(written)


def _by_name(written: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _by_name(value) if name in _NAMES and isinstance(value, dict) else value
        for name, value in sorted(written.items())
    }


def whole_spec(node: BoundNode) -> dict[str, dict[str, Any]]:
    """Return the spec of a step, or of a block with its steps: what decides results."""
    data: dict[str, dict[str, Any]] = {"blocks": {}, "steps": {}}
    for inner in sorted(nodes_of([node]), key=attrgetter("id")):
        kind = "blocks" if isinstance(inner, BoundBlock) else "steps"
        data[kind][inner.id] = inner.spec
    return data


def prompt_digest(step: BoundStep, plan: BoundPlan) -> str:
    """Return a digest of what a step asks its model, the texts of `prompt` steps included.

    The values that are filled in are not part of it, nor is the model.
    """
    steps = {node.id: node for node in steps_of(plan.nodes)}
    prompts: dict[str, Any] = {}
    waiting = [step]
    while waiting:
        current = waiting.pop()
        written = {name: value for name, value in current.written.items() if name != "model"}
        prompts[current.id] = [current.uses, written]
        read = steps_read(current.reads.all) - prompts.keys()
        found = (steps[name] for name in sorted(read) if name in steps)
        waiting += [other for other in found if other.facts.is_template]
    return hashlib.sha256(canonical_json(prompts).encode()).hexdigest()

"""References of a pipeline: where each stands, and which names, inputs and secrets it may read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise

from paddock.engine.system.records import Struct

from .errors import did_you_mean
from .expressions import Path, Reference, Value
from .model import Block, Node, Pipeline
from .times import TIME_NAMES

BASE_NAMES = frozenset(("inputs", "steps")) | TIME_NAMES
"""Names that every expression sees."""
STEP_NAMES = frozenset(("secrets",))
"""Names that only a step's parameters and its `if` see: their values are not stored."""

LOOP_NAMES = frozenset(("loop",))
"""Names in a block besides its item: the position in the list, as in Jinja."""

ANSWER_NAMES = frozenset(("output", "text", "evidence"))
"""Names in a `check` of an answer: its value by the schema, its text, and where it was found."""


REVIEW_NAMES = ANSWER_NAMES | {"confidence"}
"""Names in `escalate.when` and `review.when`: those of a check, and the probabilities of the
answer's fields."""
UNSURE = "unsure"
"""Of `review.when` alone: the fields of which no reading is sure."""


class ReferenceUse(Struct, frozen=True):
    at: Path
    reference: Reference
    names: frozenset[str]
    is_open: bool = False
    """The step may add names of its own; `runner.bind` checks those."""


def unknown_step(name: str, home: str | None, ids: Collection[str]) -> tuple[str, str]:
    """Return what is wrong with the name of a step that cannot be read at a place, and the remedy.

    `home` is the block in which there is such a step; `ids` are the steps that can be read.
    """
    if home is None:
        return f"there is no step '{name}'", did_you_mean(name, ids)
    what = f"step '{name}' runs for each item of '{home}' and is not known outside"
    if home.startswith("("):
        return what, "Give the block an `id` and read its `results`."
    return what, f"Read `steps.{home}.results`: a list of the `returns` of each item."


def unknown_name(use: ReferenceUse, pipeline: Pipeline) -> tuple[str, str] | None:
    """Return what is wrong with the first name of a reference, and the remedy; None: nothing."""
    root, is_known = use.reference[0], use.reference[0] in use.names
    name = use.reference[1] if use.reference[1:] else None
    if root == "secrets" and (is_known or not (pipeline.secrets or use.is_open)):
        if name is None:
            return "`secrets` alone names no secret", "Write `secrets.<name>`."
        if name not in pipeline.secrets:
            declare = f"Declare it: `secrets: {{{name}: {{env: {name.upper()}}}}}`."
            remedy = did_you_mean(name, pipeline.secrets, declare)
            return f"there is no secret '{name}'", remedy
        if _is_command_line(use.at):
            return (
                f"every user of this machine can read a command line, so secret '{name}' cannot "
                "stand in one",
                "Give it in a variable of `env`, or have the command read it from a file.",
            )
        return None
    if root == "secrets" and pipeline.secrets:
        remedy = "Secrets are read under `with` and `if`, in `pool.key`, and in `on`."
        return "a secret cannot be read here", remedy
    if root == "inputs" and is_known and name is not None and name not in pipeline.inputs:
        remedy = did_you_mean(name, pipeline.inputs, "Declare it under `inputs`.")
        return f"there is no input '{name}'", remedy
    if is_known or use.is_open:
        return None
    return f"'{root}' is not known here", did_you_mean(root, sorted(use.names))


def uses_of(node: Node, names: frozenset[str], own: frozenset[str]) -> Iterator[ReferenceUse]:
    """Yield what a node's own keys read, without its body; `own`: names under `with` and `if`."""
    if node.if_ is not None:
        yield from _reads(node.if_.reads, (*node.at, "if"), own)
    if isinstance(node, Block):
        yield from _reads(node.over.reads, (*node.at, "for_each"), names)
        for name, expression in (("where", node.where), ("key", node.key)):
            if expression is not None:
                yield from _reads(expression.reads, (*node.at, name), names | {node.var})
        return
    for path, made in node.params.expressions.items():
        at = (*node.at, "with", *path)
        yield from _reads(made.reads, at, own, is_open=len(path) == 1)
    for name, template in node.files.items():
        at = (*node.at, "with", name, "file")
        yield from _reads(template.reads, at, own, is_open=True)
    if node.returns is not None:
        for use in uses_in(node.returns, (*node.at, "returns"), names):
            if use.reference[:2] != ("steps", node.id):
                yield use
    if (reply := node.reply) is not None:
        at = (*node.at, "reply")
        for index, check in reply.checks.items():
            yield from _reads(check.references, (*at, "check", index), names | ANSWER_NAMES)
        if reply.evidence is not None:
            yield from _reads(reply.evidence.references, (*at, "evidence"), names)
        for choice in reply.choices:
            yield from _reads(choice.source.reads, (*at, "schema", *choice.at, "choose"), names)
    for key, spec in (("escalate", node.escalate), ("review", node.review)):
        if spec is not None:
            at = (*node.at, key, "when")
            yield from _reads(
                spec.when.references,
                at,
                names | REVIEW_NAMES | ({UNSURE} if key == "review" else set()),
            )


def _is_command_line(at: Path) -> bool:
    """Return whether a text becomes words of a command line.

    >>> [_is_command_line(at) for at in (("steps", 0, "with", "command", 2),
    ...  ("steps", 0, "with", "env", "KEY"), ("mcpServers", "files", "args", 0))]
    [True, False, True]
    """
    match at:
        case ("mcpServers", _, *rest):
            return "command" in rest or "args" in rest
        case ("on", "notify", *rest):
            return "command" in rest
    return ("with", "command") in pairwise(at)


def uses_in(value: Value, at: Path, names: frozenset[str]) -> Iterator[ReferenceUse]:
    for path, made in value.expressions.items():
        yield from _reads(made.reads, (*at, *path), names)


def _reads(
    references: frozenset[Reference], at: Path, names: frozenset[str], *, is_open: bool = False
) -> Iterator[ReferenceUse]:
    for reference in sorted(references):
        yield ReferenceUse(at, reference, names, is_open)

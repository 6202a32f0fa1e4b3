"""The parts of a step or block as they are now, of which the hash of its items is made.

For each step the prompt, the parameters, the model and the version, also of those within a
sub-pipeline, and each value that it reads from outside; what an item adds is its content.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.expressions import Reference
from paddock.pipelines.times import TIME_NAMES
from paddock.pipelines.typed_rows import TypedRows
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.node_reads import read_by
from paddock.runner.bind.plan_walks import blocks_of, steps_of
from paddock.runner.bind.scope import Scope

from .block_items import AsStored, is_file_value, item_content
from .parts import (
    KEYED,
    RULE_PARTS,
    ContextPart,
    EscalatePart,
    ModelPart,
    OuterValue,
    ParametersPart,
    StepRule,
    VersionPart,
    ordered_digest,
    part_digest,
    text_digest,
)
from .world import World

RETURNS = "(returns)"
"""A sub-pipeline's `returns`, among the parts of its step's hash; not a valid id."""


def hashable_value(value: Any, as_stored: AsStored | None = None) -> Any:
    """Return a value for hashing, with files replaced by their content's digest.

    With `as_stored`, their paths and times count as well: see `shown_of_file`.
    """
    if isinstance(value, str | int):  # most of what there is
        return value
    if isinstance(value, TypedRows):
        value = value.content
    if is_file_value(value):
        content = item_content(value, None)
        if as_stored is not None and isinstance(value.get("path"), str):
            content |= {"path": as_stored(value["path"]), "modified": value.get("modified")}
        return dict(sorted(content.items()))
    if isinstance(value, Mapping):
        return {name: hashable_value(inner, as_stored) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [hashable_value(inner, as_stored) for inner in value]
    return value


def outer_value(
    path: Sequence[str], variables: Mapping[str, Any], as_stored: AsStored | None = None
) -> Any:
    """Follow a reference such as ("steps", "text", "pages") into the variables, for hashing.

    What is missing is None; evaluating the expression reports it.
    """
    value: Any = variables
    for name in path:
        if is_file_value(value) and name == "path":
            digest = value["sha256"]
            return digest if as_stored is None else [digest, as_stored(str(value["path"]))]
        value = value.get(name) if isinstance(value, Mapping) else None
    return hashable_value(value, as_stored)


def read_by_all(block: BoundBlock) -> list[str]:
    """Return the paths that a block's steps read for each item alike."""
    constants = (step for step in steps_of(block.body) if step.params.constant is not None)
    return [path for step in constants for path in step.kind().reads(step.params.constant)]


class NodeParts(Struct, frozen=True):
    bound: BoundPlan
    world: World
    older: dict[str, frozenset[str]] = field(default_factory=dict)
    """As `parts.Older`: compatible earlier versions of steps."""

    async def of(self, node: BoundNode, scope: Scope) -> dict[str, str]:
        if isinstance(node, BoundStep):
            parts = await self._of_step(node)
        else:
            parts = {f"{node.id}.parameters": ordered_digest(node.spec.get("returns"))}
            for step in steps_of(node.body):
                parts.update(await self._of_step(step))
            for inner in blocks_of(node.body):
                parts[f"{inner.id}.parameters"] = ordered_digest(inner.spec)
        return parts | self.outer(node.reads.hashed, node.reads.shown, scope)

    async def _of_step(self, step: BoundStep) -> dict[str, str]:
        id_ = step.id
        servers = self._server_part(step) if self.bound.pipeline.servers else None
        rule = StepRule(step, self.world.models, servers)
        values = {what: await part.now(rule) for what, part in RULE_PARTS.items()}
        parts = {f"{id_}.{what}": value for what, value in values.items() if value is not None}
        older: Iterable[int] = getattr(step.kind, "compatible_versions", ())
        version = VersionPart.digest(step, step.kind.version)
        self.older[version] = frozenset(VersionPart.digest(step, number) for number in older)
        if step.inner is not None:
            parts.update(await self._inner_parts(id_, step.inner))
        if step.escalate is not None:
            place, to = f"{id_}.{EscalatePart.what}", step.escalate.to
            parts[f"{place}.{ModelPart.what}"] = await self.world.models.of(to)
            parts[f"{place}.{ParametersPart.what}"] = part_digest(rule.options(to))
            if (context := await ContextPart.value(rule, to)) is not None:
                parts[f"{place}.{ContextPart.what}"] = context
        return parts

    async def _inner_parts(self, place: str, inner: BoundPlan) -> dict[str, str]:
        parts: dict[str, str] = {}
        parts_of_inner = replace(self, bound=inner)
        for step in steps_of(inner.nodes):
            for name, value in (await parts_of_inner._of_step(step)).items():
                parts[f"{place}.{name}"] = value
        for block in blocks_of(inner.nodes):
            parts[f"{place}.{block.id}.parameters"] = ordered_digest(block.spec)
        inputs = sorted(inner.pipeline.inputs.items())
        defaults = {name: declared.default for name, declared in inputs}
        types = {name: declared.type for name, declared in inputs if declared.type != "str"}
        returns = inner.returns.data if inner.returns is not None else None
        written = [defaults, returns, *([types] if types else [])]
        parts[f"{place}.{RETURNS}.parameters"] = ordered_digest(written)
        times = Scope.of({}, moment=self.bound.moment)
        read = read_by(inner.returns).union(*(node.reads.all for node in inner.nodes))
        for name in TIME_NAMES.intersection(path[0] for path in read):
            parts[f"{place}.{name}"] = part_digest(times[name])
        scope = Scope.of({}, self.world.secrets.of(inner.file))
        secrets = {path for path in read if path[0] == "secrets"}
        for name, value in parts_of_inner.outer(secrets, (), scope).items():
            parts[f"secrets.{place}.{name.partition('.')[2]}"] = value
        return parts

    def _server_part(self, step: BoundStep) -> str | None:
        servers = self.bound.pipeline.servers
        named = step.spec.get("servers") or {}
        if not named:
            return None
        scope = Scope.of(self.bound.inputs, self.world.secrets.of(self.bound.file))
        read = {
            path
            for name in named.keys() & servers.keys()
            for place, expression in servers[name].texts.expressions.items()
            for path in expression.reads
            if place[0] != "headers"
        }
        values, keyed = self.outer(read, (), scope), self.world.secrets.digest
        if not values or keyed is None:
            return None
        return f"{KEYED}{keyed(canonical_json(values))}"

    def outer(
        self, references: Iterable[Reference], shown: Collection[Reference], scope: Scope
    ) -> dict[str, str]:
        parts = {}
        hidden, keyed = self.bound.secret_inputs, self.world.secrets.digest
        for path in sorted(references):
            if path[0] == "secrets" and not self.world.ledger.storage.compares_secrets:
                continue
            if path[0] not in scope:
                continue  # a name that the step adds for its template, such as `chunk`
            kind = self.bound.input_types.get(path[1]) if path[:1] == ("inputs",) else None
            if kind == "dir":
                continue  # its path is part of the scope, its files are listed by steps
            value = outer_value(path, scope, self.world.index.stored if path in shown else None)
            if kind == "path" and isinstance(value, str):
                value = self._content(value)
            text = ordered_json(value)  # maybe of all results of a block: once is enough
            digest = text_digest(text)
            is_secret = path[0] == "secrets" or self.world.secrets.redact(text) != text
            if is_secret or (path[0] == "inputs" and hidden.intersection(path[1:] or hidden)):
                if keyed is None:
                    continue
                digest = f"{KEYED}{keyed(digest)}"
            parts[OuterValue.of(path).name] = digest
        return parts

    def _content(self, path: str) -> str | None:
        try:
            return self.world.digest(path)
        except OSError:
            return None

    def rule_digest(self, block: BoundBlock, base: str) -> str:
        read = map(self.world.index.absolute, read_by_all(block))
        return part_digest([base, *map(self._content, read)])

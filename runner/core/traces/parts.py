"""The parts of an item's hash: a class for each kind, with its name in the ledger.

An entry has the value of each part by its name, most often a short digest. A part of the rule that
decides results is one class here: what it is now, whether a result by another value is equivalent,
and why it makes items stale.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.json import encode

from paddock.engine.system.records import Struct, StructABCMeta
from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.expressions import Reference
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.registry import is_function_reference

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec
    from paddock.runner.bind.bound import BoundStep
    from paddock.runner.ledger.entries import Entry

    from ..calls.run_models import RunModels

PART_CHARS = 16
KEYED = "hmac:"
"""Begins the value of a part that is made of secrets: a digest with a key, not to be guessed."""
# Parameters that are text for the model or for a file: reasons call them "prompt".
_TEXTS = frozenset(("prompt", "template", "map", "reduce", "system", "instructions", "messages"))

Spec = Mapping[str, Any]
"""Values of a step or block, as it was written."""
Values = Mapping[str, str]
"""Digests of parts by their names."""
Older = Mapping[str, Collection[str]] | None
"""Earlier values whose results are equivalent, by that of a part; None: no other value's is."""
Details = Mapping[str, Sequence[Reason]]
"""By the name of a part, what of it changed, as far as is known; the reasons lack their step."""


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:PART_CHARS]


def parts_hash(parts: str) -> str:
    return hashlib.sha256(parts.encode()).hexdigest()


def part_digest(value: Any) -> str:
    return text_digest(canonical_json(value))


def ordered_digest(value: Any) -> str:
    """Return the short digest of what may show in a result: the order of names counts."""
    if isinstance(value, dict) and {*map(type, value), *map(type, value.values())} == {str}:
        # As of files: the same JSON in a tenth of the time
        return hashlib.sha256(encode(value)).hexdigest()[:PART_CHARS]
    return text_digest(ordered_json(value))


def changed_names(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name in {**before, **now}
        if ordered_json(before.get(name)) != ordered_json(now.get(name))
    ]


class PreviousResult(Struct, frozen=True):
    entry: Entry
    has_fitted: bool
    """Whether no context was too small for it."""
    older: Older


class Part(Struct, frozen=True, metaclass=StructABCMeta):
    """One part of the hash of an item."""

    name: str

    def is_equivalent(self, was: str | None, now: str, result: PreviousResult) -> bool:
        """Return whether a result by another value is equivalent to one by that of now."""
        return False

    @abstractmethod
    def reasons(self, before: Values, now: Values, details: Details) -> Sequence[Reason]:
        """Return why an item with another value is stale; none: another part's reason says it."""


# --- of the item, and of what it reads


class ItemPart(Part, frozen=True):
    """What an item is."""

    why: Why
    comes_and_goes: bool = False
    """Whether a part that one of both has not tells them apart; else it was not read."""

    def reasons(self, before: Values, now: Values, details: Details) -> Sequence[Reason]:
        is_read = self.comes_and_goes or (self.name in before and self.name in now)
        return (self.why(),) if is_read else ()


CONTENT = ItemPart("content", Why.CONTENT)
PLACE_IN_LIST = ItemPart("loop", Why.PLACE_IN_LIST)
"""A part of items that read their place."""
PATH, TIME = ItemPart("path", Why.PATH), ItemPart("modified", Why.TIME)
"""Parts of items that read the path or the time of their file, not only its content."""
SUFFIX = ItemPart("suffix", Why.SUFFIX, comes_and_goes=True)
"""A part of files that are read, and whose key does not end as their name does."""
_ITEM_PARTS = {part.name: part for part in (CONTENT, PLACE_IN_LIST, PATH, TIME, SUFFIX)}


class OuterValue(Part, frozen=True):
    @classmethod
    def of(cls, path: Reference) -> OuterValue:
        return cls(".".join(path))

    @property
    def root(self) -> str:
        return self.name.partition(".")[0]

    def reasons(self, before: Values, now: Values, details: Details) -> Sequence[Reason]:
        return (Why.VALUE(self.name),)


# --- of the rule


class StepRule(Struct, frozen=True):
    """A bound step, whose parts say what they are now."""

    step: BoundStep
    models: RunModels
    given_to_servers: str | None
    """The value of `ServersPart`, which is made of secrets."""

    @property
    def spec(self) -> Spec:
        return self.step.spec

    @property
    def model_specs(self) -> Sequence[ModelSpec]:
        """The model that it asks, and those besides."""
        return () if self.step.model is None else (self.step.model, *self.step.extra_models)

    def tells_context_apart(self, model: ModelSpec) -> bool:
        """Return whether a model's context is a part of its own, and none of its options."""
        is_elsewhere = model.n_ctx_tokens is None and model.pool  # servers may differ
        return self.step.facts.only_measures and not is_elsewhere

    def options(self, model: ModelSpec) -> list[Any]:
        """Return the options of a model that decide its answers."""
        n_ctx_tokens = None if self.tells_context_apart(model) else model.n_ctx_tokens
        drops = [] if model.keeps_reasoning else ["drop"]
        return [model.role, n_ctx_tokens, dict(model.params), *drops]


def _parameters(spec: Spec) -> dict[str, Any]:
    """Return the parameters under `with`, without the model's name: its digest counts."""
    parameters = dict(spec.get("with") or {})
    if not is_function_reference(str(spec.get("uses"))):  # which may have such an argument
        parameters.pop("model", None)
    return parameters


class RulePart(Part, frozen=True):
    """A part of a step or block, to which its name leads: `sum.prompt`, `clean.sum.prompt`."""

    what: ClassVar[str]
    """The last word of its name."""
    why: ClassVar[Why]

    @property
    def place(self) -> str:
        return self.name.rpartition(".")[0]

    @classmethod
    @abstractmethod
    async def now(cls, rule: StepRule) -> str | None:
        """Return the value of a step; None: it has no such part."""

    @classmethod
    def details(cls, then: Spec, now: Spec) -> Sequence[Reason] | None:
        """Return the changes between two specs of a step or block; None: they are not known."""
        return None

    def reasons(self, before: Values, now: Values, details: Details) -> Sequence[Reason]:
        place = self.place
        if before.get(place) != now.get(place):  # of `escalate`, which came, went or is another
            return ()
        # A step that is new or gone has one reason; a block has no version.
        version, both = f"{place}.version", {f"{place}.version", f"{place}.parameters"}
        if version in now and not both & before.keys():
            return (Why.STEP_NEW(place),)
        if version in before and not both & now.keys():
            return (Why.STEP_REMOVED(place),)
        return [reason.of_step(place) for reason in details.get(self.name, (self.why(),))]


class _PromptPart(RulePart, frozen=True):
    what, why = "prompt", Why.PROMPT

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        parameters = _parameters(rule.spec)
        texts = {name: parameters[name] for name in sorted(_TEXTS & parameters.keys())}
        return ordered_digest(texts) if texts else None

    @classmethod
    def details(cls, then: Spec, now: Spec) -> Sequence[Reason] | None:
        names = changed_names(_parameters(then), _parameters(now))
        texts = (name for name in names if name in _TEXTS)
        reasons = (Why.TEMPLATE() if name == "template" else Why.PROMPT() for name in texts)
        return [*dict.fromkeys(reasons)] or None


class _SchemaPart(RulePart, frozen=True):
    what, why = "schema", Why.SCHEMA
    keys: ClassVar[tuple[str, ...]] = ("schema",)

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        reply = rule.spec.get("reply")
        return None if reply is None else ordered_digest(reply.get("schema"))

    @classmethod
    def details(cls, then: Spec, now: Spec) -> Sequence[Reason] | None:
        was, is_now = then.get("reply") or {}, now.get("reply") or {}
        if was and is_now:
            return None if {*cls.keys}.intersection(changed_names(was, is_now)) else ()
        first, *_ = cls.keys  # the other half of `reply` may come or go without this one
        return () if (was.get(first) or None) == (is_now.get(first) or None) else None


class _CheckPart(_SchemaPart, frozen=True):
    what, why, keys = "check", Why.CHECKS, ("check", "repair")

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        reply = rule.spec.get("reply")
        return None if reply is None else part_digest([reply.get(key) for key in cls.keys])


class _ConfidencePart(RulePart, frozen=True):
    what, why = "confidence", Why.CONFIDENCE

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        reply = rule.spec.get("reply") or {}
        return part_digest(reply[cls.what]) if cls.what in reply else None


class _EvidencePart(_ConfidencePart, frozen=True):
    what, why = "evidence", Why.EVIDENCE

    @classmethod
    def details(cls, then: Spec, now: Spec) -> Sequence[Reason] | None:
        was, is_now = ((spec.get("reply") or {}).get("evidence") or {} for spec in (then, now))
        is_of_rules = was and is_now and changed_names(was, is_now) == ["rules"]
        return (Why.EVIDENCE_RULES(),) if is_of_rules else None


class EscalatePart(RulePart, frozen=True):
    """When a larger model answers; that model has parts of its own below this one's name."""

    what, why = "escalate", Why.ESCALATE

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        value = rule.spec.get(cls.what)
        return None if value is None else part_digest(value)


class _EscalateAlsoPart(EscalatePart, frozen=True):
    what, why = "escalate_also", Why.ESCALATE_ALSO


class _ReviewPart(EscalatePart, frozen=True):
    what, why = "review", Why.REVIEW_WHEN


class _ReviewAlsoPart(EscalatePart, frozen=True):
    what, why = "also", Why.REVIEW_ALSO


class ModelPart(RulePart, frozen=True):
    """The model that a step asks, and those besides."""

    what, why = "model", Why.MODEL

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        digests = [await rule.models.of(model) for model in rule.model_specs]
        return part_digest(digests[0] if len(digests) == 1 else digests) if digests else None

    @classmethod
    def details(cls, then: Spec, now: Spec) -> Sequence[Reason] | None:
        # The embedding model comes or goes with examples.
        return () if ("examples" in _parameters(then)) != ("examples" in _parameters(now)) else None


class ParametersPart(RulePart, frozen=True):
    """All other values of a spec, and the options of the model."""

    what, why = "parameters", Why.PARAMETERS

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        others = {"with", "reply", *(part.what for part in _AFTER_ANSWER)}
        control = {name: value for name, value in rule.spec.items() if name not in others}
        parameters = _parameters(rule.spec)
        values = {name: value for name, value in parameters.items() if name not in _TEXTS}
        written = ordered_digest([control, values])
        return (
            part_digest([written, rule.options(rule.model_specs[0])])
            if rule.model_specs
            else written
        )

    @classmethod
    def details(cls, then: Spec, now: Spec) -> Sequence[Reason] | None:
        reasons: list[Reason] = []
        for name in changed_names(then, now):
            if name == "servers":  # the files of its tools that differ, else that its tools do
                was, is_now = then.get(name) or {}, now.get(name) or {}
                changed = changed_names(was, is_now)
                pairs = [
                    (was[n], is_now.get(n) or {})
                    for n in changed
                    if n in was and n.startswith("files of ")
                ]
                files = (Why.TOOL_FILE(file) for pair in pairs for file in changed_names(*pair))
                reasons += files if pairs and len(pairs) == len(changed) else [Why.TOOLS()]
            elif name not in ("with", "reply"):
                reasons.append(Why.PARAMETER(name))
        names = changed_names(_parameters(then), _parameters(now))
        reasons += [Why.PARAMETER(name) for name in names if name not in _TEXTS]
        return reasons or ([Why.MODEL_PARAMETERS()] if "with" in now else [])


class ContextPart(RulePart, frozen=True):
    """The context of a step's model as the author sets it, and the default; no digest."""

    what, why = "ctx", Why.CONTEXT

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        return await cls.value(rule, rule.model_specs[0]) if rule.model_specs else None

    @staticmethod
    async def value(rule: StepRule, model: ModelSpec) -> str | None:
        if not rule.tells_context_apart(model):
            return None
        own, default = model.n_ctx_tokens, await rule.models.default_context(model)
        return f"{own or ''} of {default or ''}".rstrip() if own or default else None

    def is_equivalent(self, was: str | None, now: str, result: PreviousResult) -> bool:
        return has_room(was, now, is_more_enough=result.has_fitted)


_CONTEXT_SIZES = re.compile(r"(\d*)(?: of ?(\d*))?")
"""The step's own size and the default, as `ContextPart.value` writes them."""


def has_room(was: str | None, now: str, *, is_more_enough: bool) -> bool:
    """Return whether a context is as large as it was, or larger where that is enough.

    >>> has_room("2048 of 4096", "3072 of 4096", is_more_enough=True)
    True
    >>> has_room("2048 of 4096", "2048 of 8192", is_more_enough=False)
    True
    >>> has_room(" of 4096", " of 8192", is_more_enough=False)
    False
    >>> has_room(None, "2048 of 4096", is_more_enough=True)  # None: it was the default
    False
    """
    then, today = (_CONTEXT_SIZES.fullmatch(text) for text in (was or "", now))
    if then is None or today is None:  # the digest of a value `x.ctx`
        return False
    was_tokens = int(then[1] or then[2] or today[2] or 0)
    now_tokens = int(today[1] or today[2] or then[2] or 0)
    is_enough = was_tokens == now_tokens or (is_more_enough and was_tokens < now_tokens)
    return was_tokens > 0 < now_tokens and is_enough


class ColumnsPart(RulePart, frozen=True):
    """The types of the columns of a step's tables, as schemas tell them."""

    what, why = "columns", Why.COLUMNS

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        types = [[*place, types] for place, types in rule.step.params.columns.items()]
        return ordered_digest(types) if types else None


class ServersPart(RulePart, frozen=True):
    """What its MCP servers are given, but for headers: keys may rotate."""

    what, why = "servers", Why.SERVERS

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        return rule.given_to_servers


class VersionPart(RulePart, frozen=True):
    what, why = "version", Why.VERSION

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        return cls.digest(rule.step, rule.step.kind.version)

    @staticmethod
    def digest(step: BoundStep, version: int) -> str:
        return part_digest([step.uses, version])

    def is_equivalent(self, was: str | None, now: str, result: PreviousResult) -> bool:
        return was in (result.older or {}).get(now, ())

    @classmethod
    def details(cls, then: Spec, now: Spec) -> Sequence[Reason] | None:
        uses = str(now.get("uses", ""))
        return (Why.CODE(uses.rpartition(":")[0]),) if is_function_reference(uses) else None


class ReadersPart(RulePart, frozen=True):
    """The installed readers of documents, one a line; no digest."""

    what, why = "readers", Why.READERS

    @classmethod
    async def now(cls, rule: StepRule) -> str | None:
        return "\n".join(sorted(rule.step.facts.readers(rule.step.written))) or None

    def is_equivalent(self, was: str | None, now: str, result: PreviousResult) -> bool:
        # Installing OCR asks for files that could not be read, not for all of them again; and where
        # a reader is missing, what it read elsewhere stays: read here it would be undone.
        then, here = ({*text.split("\n")} - {""} for text in (was or "", now))
        names = {line.split(" ")[0] for line in here}
        is_lacking = here < then or any(line.split(" ")[0] not in names for line in then)
        return result.entry.has_result and (was is None or then < here or is_lacking)


_AFTER_ANSWER = (EscalatePart, _EscalateAlsoPart, _ReviewPart, _ReviewAlsoPart)
"""Parts that decide what becomes of an answer."""
RULE_PARTS: Mapping[str, type[RulePart]] = {
    part.what: part
    for part in (
        _PromptPart, _SchemaPart, _CheckPart, _EvidencePart, _ConfidencePart, *_AFTER_ANSWER,
        ModelPart, ParametersPart, ColumnsPart, ContextPart, ServersPart, VersionPart, ReadersPart,
    )
}  # fmt: skip
"""Parts of rules by the last word of their names, in the order of their reasons."""
_ORDER: Mapping[type[Part], int] = {part: n for n, part in enumerate(RULE_PARTS.values())}


# --- all parts of an item


def part_of(name: str, names: Collection[str]) -> Part:
    place, _, what = name.rpartition(".")
    # Steps and blocks have this part, other than an outer value `row` with a field `model`.
    is_of_rule = f"{place}.{ParametersPart.what}" in names
    is_value = not is_of_rule or OuterValue(name).root in ("inputs", "steps", "secrets")
    part = OuterValue if is_value else RULE_PARTS.get(what, OuterValue)
    return _ITEM_PARTS.get(name) or part(name)


def parts_of(names: Collection[str]) -> list[Part]:
    return [part_of(name, names) for name in names]


def changed_parts(before: Values, now: Values) -> list[Part]:
    names = {**before, **now}
    return [part_of(name, names) for name in names if before.get(name) != now.get(name)]


def stale_parts(before: Values, now: Values, result: PreviousResult) -> list[Part]:
    """Return the parts that differ so that a result would not be equivalent."""
    return [
        part
        for part in changed_parts(before, now)
        if not _is_equivalent(part, before.get(part.name), now.get(part.name, ""), result)
    ]


def _is_equivalent(part: Part, was: str | None, now: str, result: PreviousResult) -> bool:
    if now.startswith(KEYED):  # none was recorded, or one by another key
        is_by_other_key = was and was.startswith(KEYED) and was[:-PART_CHARS] != now[:-PART_CHARS]
        return was is None or bool(is_by_other_key)
    return result.older is not None and part.is_equivalent(was, now, result)


def renewed_parts(before: Values, now: Values) -> dict[str, str]:
    """Return the values of parts that are made of secrets, and replace those of a result."""
    return {
        name: now[name]
        for name in now
        if now[name].startswith(KEYED) and now[name] != before.get(name)
    }


def change_reasons(
    parts: Iterable[Part], before: Values, now: Values, details: Details = MappingProxyType({})
) -> list[Reason]:
    """Return each difference once, in the order: prompt, model, parameters, version, values."""
    ordered = sorted(parts, key=lambda part: (_ORDER.get(type(part), len(_ORDER)), part.name))
    reasons = (reason for part in ordered for reason in part.reasons(before, now, details))
    return [*dict.fromkeys(reasons)]

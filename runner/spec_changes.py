"""What a block or a step said when an item was done, compared with what it says now.

A ledger's hash tells that parameters differ; the spec that is kept beside it tells which ones, and
what of the item was read then. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from paddock.pipelines.checking.check import Check
from paddock.pipelines.expressions import Expression, ExpressionError, Reference, Value
from paddock.steps.own_function import is_function

from .freshness import NOT_IN_RESULT, TEXTS

Spec = Mapping[str, Any]
"""As `body.written` has it: `{"blocks": {id: …}, "steps": {id: …}}`."""


@dataclass(frozen=True, slots=True)
class SpecChanges:
    """What differs between the spec by which an item was done and the one of today."""

    has_item: bool
    """Whether it was a block, whose items are read by a name."""
    attributes: frozenset[str] | None
    """What was read of the item then; None: all of it."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By the part of a hash: what of it changed, in words."""


def compared(then: Spec, now: Spec, block: str) -> SpecChanges:
    """Compare what was said with what is said; `block` is the outermost one, or the step."""
    words = {
        f"{name}.{part}": tuple(told)
        for kind in ("blocks", "steps")
        for name in {**_of(then, kind), **_of(now, kind)}
        for part, told in _words(_of(then, kind).get(name), _of(now, kind).get(name)).items()
    }
    written = _of(then, "blocks").get(block)
    if written is None:
        return SpecChanges(False, None, words)
    var = str(written.get("for_each", "")).partition(" in ")[0]
    return SpecChanges(True, _attributes(then, block, var), words)


def _of(spec: Spec, kind: str) -> Mapping[str, Any]:
    found = spec.get(kind)
    return found if isinstance(found, Mapping) else {}


# --- which parameters differ


def _words(then: Any, now: Any) -> dict[str, list[str]]:
    """Say by the part of a hash which keys of one step, or block, are not the same."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return {}
    texts: list[str] = []
    own = (name for name in _unequal(then, now) if name not in ("with", "reply"))
    others = ["its tools changed" if name == "servers" else f"`{name}` changed" for name in own]
    given_then, given_now = then.get("with") or {}, now.get("with") or {}
    for name in _unequal(given_then, given_now):
        if name in TEXTS:
            texts.append("template changed" if name == "template" else "prompt changed")
        elif name not in NOT_IN_RESULT:
            others.append(f"`{name}` changed")
    if not others and "with" in now:
        others = ["`ctx` or `params` of its model changed"]
    words = {"prompt": list(dict.fromkeys(texts)), "parameters": others}
    if is_function(str(now.get("uses", ""))):
        words["version"] = ["function changed"]
    return words


def _unequal(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in {**then, **now} if then.get(name) != now.get(name)]


# --- what was read of the item


def _attributes(spec: Spec, block: str, var: str) -> frozenset[str] | None:
    read = [path for path in _references(spec, block) if path[0] == var]
    return None if any(len(path) == 1 for path in read) else frozenset(path[1] for path in read)


def _references(spec: Spec, block: str) -> Iterator[Reference]:
    """Yield what was read within a block; what cannot be compiled any more is left out."""
    for name, one in _of(spec, "blocks").items():
        yield from _bare(one.get("key"))
        yield from _value(one.get("returns"), bare=True)
        if name != block:
            yield from _bare(str(one.get("for_each", "")).partition(" in ")[2])
            yield from _bare(one.get("where"))
            yield from _bare(one.get("if"))
    for one in _of(spec, "steps").values():
        yield from _value(one.get("with"))
        yield from _bare(one.get("if"))
        yield from _value(one.get("returns"), bare=True)
        for check in (one.get("reply") or {}).get("check") or ():
            try:
                yield from Check.of(check).references
            except ExpressionError:
                continue


def _bare(source: Any) -> frozenset[Reference]:
    try:
        return Expression.of(source).references if source else frozenset()
    except ExpressionError:
        return frozenset()


def _value(data: Any, *, bare: bool = False) -> frozenset[Reference]:
    return Value.scan(data, bare=bare)[0].references

"""Fingerprints of items: the named parts whose digests make an item's hash. Pure.

The parts are an item's content, for each step the prompt, the parameters, the model and the
version, and each outer value that it reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.expressions import Reference
from paddock.steps.python_step import is_function_reference

CONTENT = "content"
LOOP = "loop"
"""A part of items that read their place in the block's list."""
PATH, TIME = "path", "modified"
"""Parts of items that read a file's path or time, not only its content."""
CONTEXT = ".ctx"
"""A part that is no digest: the context of a step's model, and what it is by default."""
SUFFIX = "suffix"
"""A part of files that are read, and whose key does not end as their name does."""
PART_CHARS = 16
READERS = ".readers"
"""A part that is no digest: the installed readers of documents, one a line."""
# Parameters that are text for the model or for a file: reasons call them "prompt".
TEXTS = frozenset(("prompt", "template", "map", "reduce", "system", "instructions", "messages"))
_AFTER_ANSWER = ("escalate", "escalate_also", "review", "also")
"""Keys of a spec that decide what becomes of an answer."""
# A file's attributes that change without its content; its digest stands for them.
_VOLATILE = frozenset(("path", "modified", "size"))


Place = Callable[[str], str]
"""Path → the path as the ledger stores it."""


def part_digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:PART_CHARS]


def ordered_digest(value: Any) -> str:
    """Return the short digest of what may show in a result: the order of names counts."""
    return hashlib.sha256(ordered_json(value).encode()).hexdigest()[:PART_CHARS]


def item_hash(parts: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def is_file_value(value: Any) -> bool:
    """Return whether a value describes a file by its content, as `files.scan` does."""
    return isinstance(value, Mapping) and isinstance(value.get("sha256"), str)


def item_content(item: Any, attributes: frozenset[str] | None) -> Any:
    """Return the part of an item that decides the result.

    A file's path and size never do; its time does where the block reads it by name. `attributes`
    are those that the block reads; None: the whole item.
    """
    if not is_file_value(item):
        if attributes is None or not isinstance(item, Mapping):
            return item
        return {name: item.get(name) for name in sorted(attributes)}
    if attributes is None:
        return {name: item[name] for name in sorted(item) if name not in _VOLATILE}
    names = (attributes - _VOLATILE) | (attributes & {"modified"}) | {"sha256"}
    return {name: item.get(name) for name in sorted(names)}


def without_time(attributes: frozenset[str] | None) -> frozenset[str] | None:
    """Return the attributes of which an item's content is made: its time is a part of its own."""
    return None if attributes is None else attributes - {TIME}


def default_key(item: Any) -> str:
    """Return an item's key where the block has no `key`: its path, else its content."""
    return file_path_of(item) or part_digest(item)


def file_path_of(item: Any) -> str | None:
    """Return the path of an item that is a file, or describes one."""
    if isinstance(item, Mapping):
        for name in ("relpath", "path"):
            if isinstance(item.get(name), str) and item[name]:
                return str(item[name])
    return None


def item_path(item: Any) -> str | None:
    path = item.get("path") if isinstance(item, Mapping) else None
    return path if isinstance(path, str) else None


def item_place(item: Any, var: str, shown: Collection[Reference], place: Place) -> dict[str, Any]:
    """Return the path and the time of an item that is a file, where they show in the result.

    `shown` is what is read but for paths of files whose content alone is taken; `place` gives the
    path as the ledger stores it.
    """
    if not is_file_value(item):
        return {}
    read = {path[1:2] for path in shown if path[0] == var}
    names = (name for name in (PATH, TIME) if name in item and not read.isdisjoint(((), (name,))))
    return {name: place(item[name]) if name == PATH else item[name] for name in names}


def kind_suffix(item: Any, key: str, attributes: frozenset[str] | None) -> str | None:
    """Return the ending of a file's name, by which it is read; None: its key has it, if any."""
    if not is_file_value(item) or (attributes is not None and PATH not in attributes):
        return None
    suffix = str(item.get("suffix") or "")
    return None if suffix and key.endswith(suffix) else suffix


def hashable_value(value: Any, place: Place | None = None) -> Any:
    """Return a value for hashing, with files replaced by their content's digest.

    With `place`, their paths and times count as well: see `item_place`.
    """
    if is_file_value(value):
        content = item_content(value, None)
        if place is not None and isinstance(value.get(PATH), str):
            content |= {PATH: place(value[PATH]), TIME: value.get(TIME)}
        return dict(sorted(content.items()))
    if isinstance(value, Mapping):
        return {name: hashable_value(inner, place) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [hashable_value(inner, place) for inner in value]
    return value


def outer_value(
    path: Sequence[str], variables: Mapping[str, Any], place: Place | None = None
) -> Any:
    """Follow a reference such as ("steps", "text", "pages") into the variables, for hashing.

    What is missing is None; evaluating the expression reports it.
    """
    value: Any = variables
    for name in path:
        if is_file_value(value) and name == PATH:
            digest = value["sha256"]
            return digest if place is None else [digest, place(str(value[PATH]))]
        value = value.get(name) if isinstance(value, Mapping) else None
    return hashable_value(value, place)


def spec_parts(step: str, spec: str) -> dict[str, str]:
    """Split a step's spec into its prompt and its parameters."""
    written = json.loads(spec)
    if not isinstance(written, dict):
        return {f"{step}.parameters": part_digest(written)}
    values = given_parameters(written)
    texts = {name: values.pop(name) for name in sorted(TEXTS) if name in values}
    control = {name: value for name, value in written.items() if name != "with"}
    reply = control.pop("reply", None)
    later = {name: control.pop(name, None) for name in _AFTER_ANSWER}
    parts = {f"{step}.parameters": ordered_digest([control, values])}
    if texts:
        parts[f"{step}.prompt"] = ordered_digest(texts)
    if isinstance(reply, dict):
        parts[f"{step}.schema"] = ordered_digest(reply.get("schema"))
        parts[f"{step}.check"] = part_digest([reply.get("check"), reply.get("repair")])
        for name in ("evidence", "confidence"):
            if name in reply:  # a step without it keeps its parts
                parts[f"{step}.{name}"] = part_digest(reply[name])
    for name, value in later.items():
        if value is not None:
            parts[f"{step}.{name}"] = part_digest(value)
    return parts


def given_parameters(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands under `with`; a model's name does not count, its digest does."""
    given = dict(written.get("with") or {})
    if not is_function_reference(str(written.get("uses"))):  # which may have such an argument
        given.pop("model", None)
    return given


def changed_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of parts, or of keys, that differ; the order within a value counts."""
    return [
        name
        for name in {**before, **now}
        if ordered_json(before.get(name)) != ordered_json(now.get(name))
    ]


def context_part(n_ctx_tokens: int | None, default: int | None) -> str:
    """Return the part of a context that the author may set; `default`: what it is without."""
    return f"{n_ctx_tokens or ''} of {default or ''}".rstrip()

"""Find where a schema asks for itself without an end: a list of lists may end, a chain may not.

A schema may hold itself, as a tree does; but where every answer to it must hold another one, none
is ever whole. Knows no tokens and no grammar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import keywords
from .keywords import Path


def endless(schema: Any) -> Path | None:
    """Give the place of a `$ref` by which an answer would never end; None: there is none.

    >>> endless({"properties": {"next": {"$ref": "#"}}, "required": ["next"]})
    ('properties', 'next')
    >>> endless({"properties": {"next": {"$ref": "#"}}}) is None
    True
    """
    nodes = _nodes(schema, ())
    nodes.reverse()  # what is held or named mostly stands behind what holds it: one turn does
    ending: set[int] = set()
    is_growing = True
    left = nodes
    while is_growing:  # each turn finds what ends by what is known to end
        still_open = []
        for path, node in left:
            if _ends(node, schema, ending):
                ending.add(id(node))
            else:
                still_open.append((path, node))
        is_growing = len(still_open) < len(left)
        left = still_open
    if not isinstance(schema, dict) or id(schema) in ending:
        return None
    refs = (path for path, node in reversed(nodes) if "$ref" in node and id(node) not in ending)
    return next(refs, None)


def _nodes(schema: Any, path: Path) -> list[tuple[Path, dict[str, Any]]]:
    if not isinstance(schema, dict):
        return []
    found = [(path, schema)]
    for below, child in keywords.children(schema):
        found += _nodes(child, (*path, *below))
    return found


def _ends(node: Mapping[str, Any], root: Any, ending: set[int]) -> bool:
    """Tell whether an answer to a node can be whole, by those nodes of which that is known."""

    def is_known(child: Any) -> bool:
        return not isinstance(child, dict) or id(child) in ending

    if "enum" in node or "const" in node:
        return True
    if "$ref" in node:
        named = target(root, str(node["$ref"]))
        if named is not None and not is_known(named):
            return False
    if not all(map(is_known, _listed(node, "allOf"))):
        return False
    for name in ("anyOf", "oneOf"):
        options = _listed(node, name)
        if options and not any(map(is_known, options)):
            return False
    kinds = node.get("type")
    kinds = (
        kinds if isinstance(kinds, list) else [kinds] if isinstance(kinds, str) else _kinds(node)
    )
    return not kinds or any(_kind_ends(kind, node, is_known) for kind in kinds)


def _kind_ends(kind: str, node: Mapping[str, Any], is_known: Any) -> bool:
    if kind == "object":
        names = node.get("properties")
        held = names if isinstance(names, dict) else {}
        return all(is_known(held.get(name)) for name in _listed(node, "required"))
    if kind == "array":
        least = node.get("minItems", 0)
        least = least if isinstance(least, int) else 0
        first = _listed(node, "prefixItems")
        rest = [node.get("items")] if least > len(first) else []
        return all(map(is_known, [*first[:least], *rest]))
    return True


def _kinds(node: Mapping[str, Any]) -> list[str]:
    """Read the kind of a schema that names none, as the decoder does."""
    return ["object"] if "properties" in node else []


def _listed(node: Mapping[str, Any], name: str) -> list[Any]:
    held = node.get(name)
    return held if isinstance(held, list) else []


def target(root: Any, ref: str) -> Any:
    """Follow a `$ref` within a schema; None where it leads elsewhere, which is told before."""
    node = root
    for part in ref.lstrip("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return None
    return node

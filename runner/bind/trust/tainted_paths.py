"""Paths that are made of untrusted text, in a run: what such text may name.

It stays in the folder that the author wrote before it, and names nothing hidden: in any parameter,
list or argument, and in a path that the step itself makes of one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from paddock.engine.system.text import nested_values
from paddock.pipelines.expressions import template_pieces
from paddock.steps.base import Roots, StepError
from paddock.steps.paths import printable

from ..bound import BoundStep

# A component that begins with a dot, perhaps behind a character that shows nothing.
_HIDDEN = re.compile(r"(?:\A|/)[^\w/.]*\.")
_NOT_SHOWN = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
PathPiece = tuple[str, bool]
"""A piece of a path, and whether it is untrusted."""


def guarded_roots(
    roots: Roots, step: BoundStep, scope: Mapping[str, Any], own_path: str | None
) -> Roots:
    """Return the folders of a step, which refuse paths that untrusted text may not name.

    What the author or the caller wrote may. `own_path` is the item's own file.
    """
    check = partial(_check_tainted_path, roots, step, scope, own_path)
    # `replace` takes twice as long.
    return Roots(roots.base, roots.allowed, check, roots.plain, roots.outside)


def _check_tainted_path(
    roots: Roots, step: BoundStep, scope: Mapping[str, Any], own_path: str | None, text: str
) -> None:
    if text == own_path or not _HIDDEN.search(text):
        return
    name, pieces, made_of = _pieces_of(text, step, scope)
    why = path_refusal(_without_known_folder(pieces, roots, own_path))
    if why is not None:
        raise StepError(
            f"{name} '{printable(text)}', made of untrusted text ({', '.join(sorted(made_of))}), "
            f"which {why}.",
            remedy="Write that folder into the path yourself, or clean the text first.",
        )


def _pieces_of(
    text: str, step: BoundStep, scope: Mapping[str, Any]
) -> tuple[str, list[PathPiece], frozenset[str]]:
    """Return where a path is from, in words, its pieces, and the references that it is made of."""
    is_written = False
    values: dict[str, frozenset[str]] = {}
    templates = step.params.templates  # which name no files
    paths = {name: item for name, item in step.written.items() if name not in templates}
    for place, written in nested_values(paths):
        if not isinstance(written, str):
            continue
        pieces = list(_pieces(written, scope, step.untrusted))
        made_of = frozenset[str]().union(*(names for _, names in pieces))
        own_pieces = _pieces_in(text, pieces)
        if made_of and own_pieces is not None:
            return f"`{'.'.join(map(str, place))}` is", own_pieces, made_of
        is_written = is_written or own_pieces is not None
        values |= {leaf: names for value, names in pieces if names for leaf in _leaf_texts(value)}
    if is_written:
        return "", [(text, False)], frozenset()
    return "the path is", *_marked(text, values)


def _pieces_in(text: str, pieces: Sequence[tuple[Any, frozenset[str]]]) -> list[PathPiece] | None:
    """Return the pieces of a path that is all of a written text, or one of a list in it."""
    if text == "".join(str(value) for value, _ in pieces):
        return [(str(value), bool(names)) for value, names in pieces]
    leaves = (leaf for value, _ in pieces for leaf in _leaf_texts(value))
    return [(text, True)] if text in leaves else None


def _leaf_texts(value: Any) -> Iterator[str]:
    return (text for _, text in nested_values(value) if isinstance(text, str) and text)


def _marked(
    text: str, values: Mapping[str, frozenset[str]]
) -> tuple[list[PathPiece], frozenset[str]]:
    """Return a text in pieces, by where these untrusted values are in it, and what they are of."""
    longest_first = sorted((value for value in values if value in text), key=len, reverse=True)
    if not longest_first:
        return [(text, False)], frozenset()
    pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    made_of = frozenset[str]().union(*(values.get(piece, frozenset()) for piece in pieces))
    return [(piece, piece in values) for piece in pieces], made_of


def path_refusal(pieces: Sequence[PathPiece]) -> str | None:
    """Return why untrusted pieces may not be in a path; None: they may.

    >>> path_refusal([("out/", False), ("a/../b", True), (".md", False)])
    >>> path_refusal([(".notes/", False), ("a", True)])
    >>> path_refusal([("out/", False), ("../b", True)])
    "leads out of 'out/'"
    >>> path_refusal([("out/", False), (".git/hooks/x", True)])
    "names the hidden '.git'"
    """
    text = "".join(piece for piece, _ in pieces)
    untrusted = [flag for piece, flag in pieces for _ in piece]
    first = [*untrusted, True].index(True)
    constant = text[: text.rfind("/", 0, first) + 1]
    names = os.path.normpath(constant).split("/")
    n_constant = sum(name not in ("", ".", "..") for name in names)
    depth, at = 0, 0
    for name in text.split("/"):
        is_untrusted, begin = any(untrusted[at : at + len(name)]), at
        at += len(name) + 1
        if name in ("", "."):
            continue
        if name == "..":
            depth -= 1
            if is_untrusted and constant and depth < n_constant:
                return f"leads out of '{printable(constant)}'"
            continue
        depth += 1
        dot = len(name) - len(name.lstrip(_NOT_SHOWN))
        if name[dot : dot + 1] == "." and untrusted[begin + dot]:
            return f"names the hidden '{printable(name)}'"
    return None


def _pieces(
    written: str, scope: Mapping[str, Any], untrusted: Collection[str]
) -> Iterator[tuple[Any, frozenset[str]]]:
    """Yield the values of a text's pieces, each with the untrusted references that it reads."""
    for piece in template_pieces(written):
        if isinstance(piece, str):
            yield piece, frozenset()
        else:
            names = frozenset(".".join(path) for path in piece.references)
            yield piece.evaluate(scope), names.intersection(untrusted)


def _without_known_folder(
    pieces: Sequence[PathPiece], roots: Roots, own_path: str | None
) -> list[PathPiece]:
    """Return the pieces without an allowed folder, or that of the item's file, before them."""
    own = [os.path.dirname(own_path)] if own_path else []  # noqa: PTH120 - a text
    for folder in (*own, *map(str, roots.allowed)):
        if pieces[0][0] == "" and pieces[1:]:
            pieces = pieces[1:]
        head, is_untrusted = pieces[0]
        if is_untrusted and folder and head.startswith(f"{folder}/"):
            return [(head[len(folder) + 1 :], True), *pieces[1:]]
    return list(pieces)

"""Taint analysis: which step parameters contain untrusted text. Pure.

Untrusted are documents and their names, the output of commands, tools and searches, the body of a
webhook, and all that is made of them. Only the YAML is looked at. In a run, a path that is made of
such text stays in the folder that the author wrote, and names nothing hidden.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from paddock.pipelines.expressions import TEMPLATE_START, Reference, Value
from paddock.pipelines.model import Pipeline
from paddock.steps.base import Roots, StepError
from paddock.steps.paths import printable

from .bound import BoundBlock, BoundNode, BoundStep

PASS_THROUGH_STEPS = frozenset(
    ("agent", "chat", "embed", "files.write", "prompt", "reduce", "split", "summarise", "tool")
)
"""Steps whose outputs are made of their inputs alone, except as `_has_untrusted_output` says. All
others are untrusted, steps of other packages too."""
TRUSTED_TOOLS = frozenset(("calculator", "now"))
"""Tools whose results are trusted."""
_MODEL_STEPS = frozenset(("agent", "chat", "reduce", "summarise"))
"""Steps that tell their `usage`, in numbers."""
_TRUSTED_FILE_ATTRIBUTES = ("sha256", "size", "modified")
_FILES = re.compile(r"steps\.(\w+)\.files\Z")


def mark_tainted(nodes: Iterable[BoundNode], inputs: Iterable[str] = ()) -> tuple[BoundNode, ...]:
    """Return the nodes, each step with the untrusted references of its parameters.

    `inputs` are those that a webhook's caller may set, or that are filled with untrusted text.
    """
    return tuple(_TaintMarker({("inputs", name): True for name in inputs}).all(nodes))


def tainted_inputs(pipeline: Pipeline) -> frozenset[str]:
    """Return the inputs that a webhook's caller may set."""
    hooks = pipeline.on.webhook if pipeline.on is not None else ()
    return frozenset(name for hook in hooks for name in hook.inputs)


class _TaintMarker:
    """Walks over the nodes in their order: what is read stands before who reads it."""

    def __init__(self, tainted: dict[Reference, bool]) -> None:
        self._tainted = tainted
        """Whether a step, an input (both by two names) or a loop variable is tainted."""
        self._trusted: set[Reference] = set()
        """Outputs without text, trusted whatever their source: by place, since a document's own
        field may have any name."""
        self._scans: set[str] = set()

    def all(self, nodes: Iterable[BoundNode]) -> Iterator[BoundNode]:
        for node in nodes:
            yield self._block(node) if isinstance(node, BoundBlock) else self._step(node)

    def _step(self, step: BoundStep) -> BoundStep:
        untrusted = tuple(
            sorted(".".join(path) for path in self._untrusted(_parameter_references(step)))
        )
        is_tainted = (
            bool(untrusted)
            or step.uses not in PASS_THROUGH_STEPS
            or _has_untrusted_output(step)
            or bool(self._untrusted(_evidence_references(step)))
            or bool(self._untrusted(_labels_read(step)))
        )
        self._trusted.add(("steps", step.id, "skipped"))
        if step.returns is not None:
            is_tainted = is_tainted or bool(self._untrusted(step.returns.references))
        elif step.uses in _MODEL_STEPS:
            self._trusted.add(("steps", step.id, "usage"))
        elif step.uses == "files.scan":
            self._scans.add(step.id)
        self._tainted["steps", step.id] = is_tainted
        inner = step.inner
        if inner is not None:
            within = mark_tainted(inner.nodes, {*self._into(step), *tainted_inputs(inner.pipeline)})
            inner = replace(inner, nodes=within)
        return replace(step, untrusted=untrusted, inner=inner)

    def _into(self, step: BoundStep) -> Iterator[str]:
        """Yield the inputs of an inner pipeline that are filled with untrusted text."""
        for path, references in step.params.value.places().items():
            if path[0] == "inputs" and self._untrusted(references):
                if len(path) == 1:
                    yield from step.inner.pipeline.inputs if step.inner is not None else ()
                else:
                    yield str(path[1])

    def _block(self, block: BoundBlock) -> BoundBlock:
        outside = dict(self._tainted), set(self._trusted)
        is_tainted = bool(self._untrusted(block.over.references))
        self._tainted[block.var,] = is_tainted
        self._trusted -= {(block.var, name) for name in _TRUSTED_FILE_ATTRIBUTES}
        files = _FILES.match(block.over.source.strip())
        if files is not None and files[1] in self._scans:
            self._trusted |= {(block.var, name) for name in _TRUSTED_FILE_ATTRIBUTES}
        body = tuple(self.all(block.body))
        returned = block.returns.references if block.returns is not None else ()
        is_tainted = is_tainted or bool(self._untrusted(returned))
        is_tainted = is_tainted or any(self._tainted["steps", node.id] for node in body)
        self._tainted, self._trusted = outside  # its names are its own
        self._tainted["steps", block.id] = is_tainted
        self._trusted |= {("steps", block.id, name) for name in ("counts", "skipped")}
        return replace(block, body=body)

    def _untrusted(self, references: Iterable[Reference]) -> list[Reference]:
        return [path for path in references if self._is_tainted(path)]

    def _is_tainted(self, path: Reference) -> bool:
        if path[:2] in self._trusted or path[:3] in self._trusted:
            return False
        if path[0] == "steps":  # what stands after who reads it is not known yet
            return self._tainted.get(path[:2], True)
        return self._tainted.get(path[:2] if path[0] == "inputs" else path[:1], False)


def _parameter_references(step: BoundStep) -> frozenset[Reference]:
    texts = (template.references for template in step.params.templates.values())
    return step.params.value.references.union(*texts)


def _evidence_references(step: BoundStep) -> frozenset[Reference]:
    """Return the sources of a step's `evidence`, which it quotes."""
    evidence = None if step.reply is None else step.reply.evidence
    return frozenset() if evidence is None else evidence.references


def _labels_read(step: BoundStep) -> frozenset[Reference]:
    """Return where the labels come from of which a step's answer is made."""
    choices = () if step.reply is None else step.reply.choices
    return frozenset[Reference]().union(*(choice.source.references for choice in choices))


def _has_untrusted_output(step: BoundStep) -> bool:
    """Return whether a step reads more than it is given: a file, a picture, a tool's result."""
    written: Mapping[str, Any] = step.params.value.data
    match step.uses:
        case "summarise":
            return "file" in written
        case "chat":
            return bool(written.get("images"))
        case "tool":
            return bool(written.get("server")) or written.get("name") not in TRUSTED_TOOLS
        case "agent":
            tools = written.get("tools")
            if not isinstance(tools, list):
                return True
            return not all(isinstance(tool, str) and tool in TRUSTED_TOOLS for tool in tools)
    return False


def guarded_roots(
    roots: Roots, step: BoundStep, scope: Mapping[str, Any], own_path: str | None
) -> Roots:
    """Return the folders of a step, which refuse paths that untrusted text may not name.

    Such text may neither name a hidden file or folder, nor leave the folder that the author wrote
    before it: in any parameter, list or argument, and in a path that the step itself makes of one.
    What the author or the caller wrote may. `own_path` is the item's own file.
    """
    if not step.untrusted:
        return roots
    check = partial(_check_tainted_path, roots, step, scope, own_path)
    return Roots(roots.base, roots.allowed, check, roots.plain)  # `replace` takes twice as long


def _check_tainted_path(
    roots: Roots, step: BoundStep, scope: Mapping[str, Any], own_path: str | None, text: str
) -> None:
    """Check a path that a step is about to use."""
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
    is_written, values = False, dict[str, frozenset[str]]()
    for place, written in _texts_of(step.params.value.data):
        pieces = list(_pieces(written, scope, step.untrusted))
        made_of = frozenset[str]().union(*(names for _, names in pieces))
        found = _pieces_in(text, pieces)
        if made_of and found is not None:
            return f"`{'.'.join(map(str, place))}` is", found, made_of
        is_written = is_written or found is not None
        values |= {text: names for value, names in pieces if names for text in _leaf_texts(value)}
    if is_written:
        return "", [(text, False)], frozenset()
    return "the path is", *_marked(text, values)


def _pieces_in(text: str, pieces: Sequence[tuple[Any, frozenset[str]]]) -> list[PathPiece] | None:
    """Return the pieces of a path that is all of a written text, or one of a list in it."""
    if text == "".join(str(value) for value, _ in pieces):
        return [(str(value), bool(names)) for value, names in pieces]
    leaves = (leaf for value, _ in pieces for leaf in _leaf_texts(value))
    return [(text, True)] if text in leaves else None


def _texts_of(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield each text within written parameters, with its place."""
    if isinstance(data, str):
        yield place, data
    elif isinstance(data, Mapping):
        for name, inner in data.items():
            yield from _texts_of(inner, (*place, name))
    elif isinstance(data, (list, tuple)):
        for index, inner in enumerate(data):
            yield from _texts_of(inner, (*place, index))


def _leaf_texts(value: Any) -> Iterator[str]:
    return (text for _, text in _texts_of(value) if text)


def _marked(
    text: str, values: Mapping[str, frozenset[str]]
) -> tuple[list[PathPiece], frozenset[str]]:
    """Return a text in pieces, by where these untrusted values are in it, and what they are of."""
    longest_first = sorted((value for value in values if value in text), key=len, reverse=True)
    if not longest_first:
        return [(text, False)], frozenset()
    pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    found = frozenset[str]().union(*(values.get(piece, frozenset()) for piece in pieces))
    return [(piece, piece in values) for piece in pieces], found


_EXPRESSION = re.compile(r"(\{\{.*?\}\})", re.DOTALL)
# A component that begins with a dot, perhaps behind a character that shows nothing.
_HIDDEN = re.compile(r"(?:\A|/)[^\w/.]*\.")

PathPiece = tuple[str, bool]
"""A piece of a path, and whether it is untrusted."""


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
    n_constant = len(_visible_names(constant))
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


_NOT_SHOWN = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"


def _visible_names(folder: str) -> list[str]:
    found: list[str] = []
    for name in folder.split("/"):
        if name == "..":
            del found[-1:]
        elif name not in ("", "."):
            found.append(name)
    return found


def _pieces(
    written: str, scope: Mapping[str, Any], untrusted: Collection[str]
) -> Iterator[tuple[Any, frozenset[str]]]:
    """Yield the values of a text's pieces, each with the untrusted references that it reads.

    One with statements is a single piece.
    """
    parts = _EXPRESSION.split(written) if "{%" not in written else [written]
    for part in filter(None, parts):
        if not TEMPLATE_START.search(part):
            yield part, frozenset()
            continue
        value = Value.of(part)
        names = frozenset(".".join(path) for path in value.references)
        yield value.render(scope), names.intersection(untrusted)


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

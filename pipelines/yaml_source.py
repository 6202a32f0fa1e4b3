"""YAML text to plain values with positions, and back to text. The only importer of `yaml`.

YAML 1.2's core schema decides what a scalar is: `12:30`, `017`, `on`, `yes` and dates are text. No
tags, no merge keys, and limits on size, depth and number of nodes, so that a hostile file is
refused quickly. Uses the pure-Python parser: the C parser crashes on deep nesting.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from paddock.engine.system import no_links

from .errors import Fault, Mark, PipelineError
from .expressions import Path

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000  # counted through aliases

_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z"
)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")  # `017` is text: YAML 1.1 and 1.2 read it differently
_TAG = "tag:yaml.org,2002:"
_SURROGATE = re.compile("[\ud800-\udfff]")
_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # line ends of the parser
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class YamlSpan:
    """Where a value stands in a text, as offsets in characters."""

    start: int
    end: int
    """Of a text over several lines: behind its last line end."""
    is_flow: bool
    """It is a scalar, or in brackets."""
    is_mapping: bool
    column: int
    """Of a mapping's keys, from 0."""


@dataclass(frozen=True)
class YamlDocument:
    """A file's plain values, and the position of each key and value."""

    file: str
    data: Any = field(repr=False)
    _root: Node | None = field(repr=False, compare=False)
    _lines: tuple[str, ...] = field(repr=False, compare=False)

    def mark(self, path: Path = ()) -> Mark:
        """Return the position of the value at `path`, or of the nearest one above it."""
        return self.mark_of(self._trail(path)[-1][1])

    def key_mark(self, path: Path) -> Mark:
        """Return the position of the last key of `path`; in a list, of the item."""
        return self.mark_of(self._trail(path)[-1][0])

    def span(self, path: Path) -> YamlSpan | None:
        """Return where the value at `path` stands in the text; None: there is none."""
        _, *found = self._trail(path)
        node = found[-1][1] if found else self._root
        if node is None or len(found) < len(path):
            return None
        is_flow = isinstance(node, ScalarNode) or bool(getattr(node, "flow_style", False))
        keys = [key for key, _ in node.value] if isinstance(node, MappingNode) else []
        column = keys[0].start_mark.column if keys else 0
        end = _last_of(node).end_mark.index
        return YamlSpan(node.start_mark.index, end, is_flow, isinstance(node, MappingNode), column)

    def _trail(self, path: Path) -> list[tuple[Node | None, Node | None]]:
        """Return key and value of the root and of each part of a path that is there."""
        found: list[tuple[Node | None, Node | None]] = [(self._root, self._root)]
        for name in path:
            if (inner := _child(found[-1][1], name)) is None:
                break
            found.append(inner)
        return found

    def mark_of(self, node: Node | None) -> Mark:
        if node is None:
            return _mark(self.file, self._lines, 0, 0, 1)
        start, end = node.start_mark, node.end_mark
        length = end.column - start.column if end.line == start.line else 1 << 20
        if isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
            # A block begins at its first key: point at that, not at all its lines.
            first = node.value[0]
            return self.mark_of(first[0] if isinstance(first, tuple) else first)
        return _mark(self.file, self._lines, start.line, start.column, length)


def _last_of(node: Node) -> Node:
    """Return the node with which a block's text ends, without comments below it."""
    while isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node


def _child(node: Node | None, name: str | int) -> tuple[Node, Node] | None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == name:
                return key, value
    elif isinstance(node, SequenceNode) and isinstance(name, int) and name < len(node.value):
        return node.value[name], node.value[name]
    return None


def _mark(file: str, lines: tuple[str, ...], line: int, column: int, length: int) -> Mark:
    snippet = lines[line] if line < len(lines) else ""
    return Mark(file, line + 1, column + 1, max(1, min(length, len(snippet) - column)), snippet)


def read_yaml(path: FilePath) -> YamlDocument:
    """Read a pipeline file.

    Raises:
        PipelineError: it cannot be read, is too large, is not UTF-8, or is not valid YAML.
    """
    file = str(path)
    try:
        # What a shell hands over, as in `paddock validate <(…)`, is a pipe. All else in /dev is as
        # elsewhere: everybody may write to /dev/shm.
        is_handed_over = str(path).startswith(("/dev/fd/", "/dev/stdin"))
        with path.open("rb") if is_handed_over else no_links.open_named(path) as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refusal_of_file(file, "there is no such file", "Correct the path.") from None
    except no_links.NotRegularFile as error:
        remedy = "Name the YAML file in it." if error.is_folder else "Name a file."
        raise _refusal_of_file(file, f"this is {error.what}", remedy) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise _refusal_of_file(file, f"cannot be read: {why}", "Check its permissions.") from error
    if len(raw) > MAX_BYTES:
        raise _refusal_of_file(file, *_TOO_LARGE)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 text: byte {error.start + 1}, in line {line}"
        raise _refusal_of_file(file, what, "Save it as UTF-8.") from error
    return parse_yaml(text, file)


_TOO_LARGE = (
    "is larger than 1 MiB",
    "A pipeline is small; move long texts to files of their own and name them: {file: PATH}.",
)


def parse_yaml(text: str, file: str) -> YamlDocument:
    """Read YAML text; `file` is the name in the marks.

    Raises:
        PipelineError: a syntax error alone, else every fault of the YAML as such.
    """
    if len(text) > MAX_BYTES:
        raise _refusal_of_file(file, *_TOO_LARGE)
    lines = tuple(_BREAK.split(text))
    try:
        loader = _CoreLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        if "\\u" in text and root is not None:
            # Join surrogate pairs, as JSON writes characters beyond U+FFFF
            for node in _once(root, set()):
                if isinstance(node, ScalarNode) and _SURROGATE.search(node.value):
                    raw = node.value.encode("utf-16-le", "surrogatepass")
                    node.value = raw.decode("utf-16-le", "surrogatepass")
    except yaml.YAMLError as error:
        raise PipelineError([_syntax(error, file, lines)]) from error
    except (RecursionError, ValueError) as error:
        raise _refusal_of_file(file, "is not valid YAML", "Correct it.") from error
    document = YamlDocument(file, None, root, lines)
    faults = list(_check(document))
    if faults:
        raise PipelineError(faults)
    return YamlDocument(file, _plain(root, {}), root, lines)


def _refusal_of_file(file: str, what: str, remedy: str) -> PipelineError:
    return PipelineError([Fault(f"{file}: {what}.", remedy)])


class _YamlRefused(yaml.MarkedYAMLError):
    """A limit of the parser, or a feature that is not allowed."""


class _CoreLoader(yaml.SafeLoader):
    """The pure-Python parser and composer, with limits."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        self.nodes += 1
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self.depth > MAX_DEPTH:
            raise _refusal(f"it is nested deeper than {MAX_DEPTH} levels", event)
        if self.nodes > MAX_NODES:
            raise _refusal(f"it has more than {MAX_NODES:,} values", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal(f"tags such as '{event.tag}' are not allowed", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refusal(problem: str, event: Any) -> _YamlRefused:
    return _YamlRefused(problem=problem, problem_mark=event.start_mark)


_REMEDIES = (
    ("'\\t'", "Indent with spaces, not with tabs."),
    ("cannot start any token", "Put the text in quotes."),
    ("mapping values", "Put a text with ': ' in it in quotes, or correct the indentation."),
    ("tags such", "Remove the tag, or put the text in quotes."),
    ("single document", "Keep one pipeline in a file: remove what follows the '---'."),
    ("undefined alias", "Define the anchor before it is used, or put the text in quotes."),
    ("more than", "Move data to files of their own."),
    ("nested", "Make it flatter."),
    ("end of stream", "Close the quote."),
    ("stream end", "Close the bracket or the brace."),
    ("but got '?'", "Put the text in quotes: '?' has a special meaning here."),
    ("special characters", "Remove the control character."),
    ("but got", "Put the text in quotes, or close the bracket before it."),
    ("but found", "Correct the indentation, or put the text in quotes."),
)


def _syntax(error: yaml.YAMLError, file: str, lines: tuple[str, ...]) -> Fault:
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    if "single document" in str(getattr(error, "context", "")):
        problem = "expected a single document, but found another one"
    problem = problem.replace(repr("\n"), "a line end")
    place = getattr(error, "problem_mark", None)
    if place is not None:
        mark = _mark(file, lines, place.line, place.column, 1)
    else:
        position, mark = (
            int(getattr(error, "position", 0)),
            _mark(file, lines, len(lines) - 1, 0, 1),
        )
        for number, line in enumerate(lines):
            if position <= len(line):
                mark = _mark(file, lines, number, position, 1)
                break
            position -= len(line) + 1
    what = problem if isinstance(error, _YamlRefused) else f"this is not valid YAML: {problem}"
    remedy = next((text for part, text in _REMEDIES if part in problem), "Correct the line.")
    return Fault(f"{what}.", remedy, mark)


class _CoreDumper(yaml.SafeDumper):
    """Quotes texts that `parse_yaml` would read as numbers; writes long texts as blocks."""


# Line breaks in YAML but not in Python: only double quotes keep them.
_ODD_BREAKS = re.compile("[\x85\u2028\u2029]")


def _text_node(writer: _CoreDumper, text: str) -> ScalarNode:
    style = '"' if _ODD_BREAKS.search(text) else "|" if "\n" in text else None
    return writer.represent_scalar(f"{_TAG}str", text, style=style)


_CoreDumper.add_representer(str, _text_node)
_CoreDumper.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
_CoreDumper.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))


def to_yaml(value: Any) -> str:
    """Return JSON data as YAML, keys in order; `parse_yaml` reads it back."""
    plain = json.loads(json.dumps(value))  # no subclasses of `str`, nothing shared
    text = yaml.dump(plain, Dumper=_CoreDumper, allow_unicode=True, sort_keys=False, width=math.inf)
    return text if isinstance(plain, dict | list) else text.removesuffix("...\n")


class _YamlCycle(Exception):
    """An alias within the value that it names."""


def _check(document: YamlDocument) -> Iterator[Fault]:
    """Yield faults of valid YAML: cycles, too many aliases, keys that are not text."""
    root = document._root
    if root is None:
        return
    try:
        size, depth = _extent(root, {}, set())
    except _YamlCycle:
        remedy = "Remove the alias: it is within the value that it names."
        yield Fault("an alias makes this value contain itself.", remedy, document.mark())
        return
    if size > MAX_NODES or depth > MAX_DEPTH:
        what = f"more than {MAX_NODES:,} values" if size > MAX_NODES else "too many levels"
        remedy = "Use fewer aliases (`*name`)."
        yield Fault(f"its aliases make {what} of this file.", remedy, document.mark())
        return
    for node in _once(root, set()):
        if isinstance(node, MappingNode):
            yield from _check_keys(document, node)
        elif isinstance(node, ScalarNode):
            try:
                value = _scalar(node)
            except ValueError:
                value = math.inf
            if isinstance(value, float) and not math.isfinite(value):
                what = f"'{node.value[:40]}' is not a usable number."
                yield Fault(what, "Put it in quotes if it is text.", document.mark_of(node))
            if _SURROGATE.search(node.value):
                what = "this text has half a character: a single '\\u' escape from D800 to DFFF."
                yield Fault(what, "Write the whole character.", document.mark_of(node))


def _extent(node: Node, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return the number of values and levels of a node, following aliases."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise _YamlCycle
    above.add(id(node))
    extents = [_extent(child, known, above) for child in _children(node)]
    above.discard(id(node))
    known[id(node)] = (
        1 + sum(size for size, _ in extents),
        1 + max((depth for _, depth in extents), default=0),
    )
    return known[id(node)]


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value


def _once(node: Node, seen: set[int]) -> Iterator[Node]:
    if id(node) not in seen:
        seen.add(id(node))
        yield node
        for child in _children(node):
            yield from _once(child, seen)


def _check_keys(document: YamlDocument, node: MappingNode) -> Iterator[Fault]:
    seen: dict[str, Node] = {}
    for key, _ in node.value:
        mark = document.mark_of(key)
        if not isinstance(key, ScalarNode):
            what = "a key must be text; this is a list or a mapping."
            yield Fault(what, 'An expression needs quotes: "{{ … }}".', mark)
        elif key.value == "<<" and key.style is None:
            remedy = "Write the keys out, or use an alias for a whole value."
            yield Fault("merge keys ('<<') are not part of YAML 1.2.", remedy, mark)
        elif key.value in seen:
            line = seen[key.value].start_mark.line + 1
            what = f"the key '{key.value}' is here twice; the first is in line {line}."
            yield Fault(what, "Remove or rename one of them.", mark)
        else:
            seen[key.value] = key


def _plain(node: Node | None, made: dict[int, Any]) -> Any:
    """Return plain values; a shared node is built once."""
    if node is None:
        return None
    if id(node) in made:
        return made[id(node)]
    plain: Any
    if isinstance(node, MappingNode):
        plain = {key.value: _plain(value, made) for key, value in node.value}
    elif isinstance(node, SequenceNode):
        plain = [_plain(item, made) for item in node.value]
    else:
        plain = _scalar(node)
    made[id(node)] = plain
    return plain


def _scalar(node: Node) -> Any:
    """Read a scalar by YAML 1.2's core schema."""
    text: str = node.value
    if getattr(node, "style", None) is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        if base == 10 and _LEADING_ZERO.match(text):
            return text
        return int(text, base)
    return float(text.replace(".inf", "inf").lower()) if _FLOAT.match(text) else text

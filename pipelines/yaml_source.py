"""YAML text to plain values with positions, and back to text. The only importer of `yaml`.

YAML 1.2's core schema decides what a scalar is: `12:30`, `017`, `on`, `yes` and dates are text. No
tags, no merge keys, and limits on size, depth and number of nodes, so that a hostile file is
refused quickly. libyaml parses what it reads as the pure-Python parser does, nine times as fast;
the latter parses what is odd, and has the word on what is wrong. Both are composed here: libyaml's
own composer crashes on deep nesting.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import Resolver

from paddock.engine.system import no_links
from paddock.engine.system.records import SelectiveFields, Struct, field

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
# Where the parsers differ, or may: tabs, other line ends, characters that are not allowed, complex
# keys, directives, `|#`, and no line end at the end. tests/pipelines/test_yaml_parsers.py compares.
_ODD = re.compile(
    r"[^\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
    r"|(?:^|[\s\[{},:-])\?|\]\?[^\n]|^%|[|>][-+0-9]*#|[^\n]\Z",
    re.MULTILINE,
)
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class YamlSpan(Struct, frozen=True):
    """Where a value stands in a text, as offsets in characters."""

    start: int
    end: int
    """Of a text over several lines: behind its last line end."""
    is_flow: bool
    """It is a scalar, or in brackets."""
    is_mapping: bool
    column: int
    """Of a mapping's keys, from 0."""


class YamlDocument(SelectiveFields, Struct, frozen=True):
    hidden = ("data", "_root", "_lines")
    uncompared = ("_root", "_lines")

    file: str
    data: Any
    _root: Node | None
    _lines: tuple[str, ...]

    @property
    def digest(self) -> str:
        return text_digest("\n".join(self._lines).encode(errors="replace"))

    def mark(self, path: Path = ()) -> Mark:
        """Return the position of the value at `path`, or of the nearest one above it."""
        return self.mark_of(self._trail(path)[-1][1])

    def key_mark(self, path: Path) -> Mark:
        """Return the position of the last key of `path`; in a list, of the item."""
        return self.mark_of(self._trail(path)[-1][0])

    def fault(self, path: Path, message: str, remedy: str = "", *, is_key: bool = False) -> Fault:
        mark = self.key_mark(path) if is_key else self.mark(path)
        return Fault(message if message.endswith(".") else f"{message}.", remedy, mark)

    def mark_within(self, path: Path, start: int, length: int) -> Mark:
        """Return the position of a part of the text at `path`; of all of it where it is folded."""
        node, whole = self._trail(path)[-1][1], self.mark(path)
        if not (isinstance(node, ScalarNode) and length):
            return whole
        line, column = node.start_mark.line, node.start_mark.column + (node.style in ("'", '"'))
        before, part = node.value[:start].split("\n"), node.value[start : start + length]
        if node.style == "|":
            texts = filter(str.strip, self._lines[line + 1 :])
            column = next((len(text) - len(text.lstrip(" ")) for text in texts), 0)
            line += len(before)
        column += len(before[-1])
        shown = self._lines[line][column:] if line < len(self._lines) else ""
        if not shown.startswith(part.split("\n")[0]):  # it is folded, or has escapes
            return whole
        return _mark(self.file, self._lines, line, column, len(part.split("\n")[0]))

    def span(self, path: Path) -> YamlSpan | None:
        _, *found = self._trail(path)
        node = found[-1][1] if found else self._root
        if node is None or len(found) < len(path):
            return None
        is_flow = isinstance(node, ScalarNode) or bool(getattr(node, "flow_style", False))
        keys = [key for key, _ in node.value] if isinstance(node, MappingNode) else []
        column = keys[0].start_mark.column if keys else 0
        last = node  # with which a block's text ends, without comments below it
        while isinstance(last, MappingNode | SequenceNode) and not last.flow_style and last.value:
            inner = last.value[-1]
            last = inner[1] if isinstance(inner, tuple) else inner
        return YamlSpan(
            node.start_mark.index,
            last.end_mark.index,
            is_flow,
            isinstance(node, MappingNode),
            column,
        )

    def _trail(self, path: Path) -> list[tuple[Node | None, Node | None]]:
        found: list[tuple[Node | None, Node | None]] = [(self._root, self._root)]
        for name in path:
            node, inner = found[-1][1], None
            if isinstance(node, MappingNode):
                inner = next((pair for pair in node.value if pair[0].value == name), None)
            elif isinstance(node, SequenceNode) and name in range(len(node.value)):
                inner = node.value[name], node.value[name]
            if inner is None:
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


def _mark(file: str, lines: tuple[str, ...], line: int, column: int, length: int) -> Mark:
    snippet = lines[line] if line < len(lines) else ""
    return Mark(file, line + 1, column + 1, max(1, min(length, len(snippet) - column)), snippet)


def text_digest(content: bytes) -> str:
    """Return the digest of a text, the same with any line ends."""
    lines = _BREAK.split(content.decode("utf-8-sig", "replace"))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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
        root = _compose(text)
    except yaml.YAMLError as error:
        raise PipelineError([_syntax(error, file, lines)]) from error
    except (RecursionError, ValueError) as error:
        raise _refusal_of_file(file, "is not valid YAML", "Correct it.") from error
    reader = _NodeReader()
    document = YamlDocument(file, None, root, lines)
    try:
        read = _ReadNode(None, 0, 0) if root is None else reader.read(root)
    except _YamlCycle:
        what = "an alias makes this value contain itself."
        remedy = "Remove the alias: it is within the value that it names."
        raise PipelineError.of(what, remedy, document.mark()) from None
    if read.n_values > MAX_NODES or read.n_levels > MAX_DEPTH:
        what = f"more than {MAX_NODES:,} values" if read.n_values > MAX_NODES else "too many levels"
        what = f"its aliases make {what} of this file."
        raise PipelineError.of(what, "Use fewer aliases (`*name`).", document.mark())
    faults = list(_faults(document, reader.nodes))
    if faults:
        raise PipelineError(faults)
    return YamlDocument(file, read.plain, root, lines)


def _refusal_of_file(file: str, what: str, remedy: str) -> PipelineError:
    return PipelineError.of(f"{file}: {what}.", remedy)


class _YamlRefused(yaml.MarkedYAMLError):
    """A limit of the parser, or a feature that is not allowed."""


class _CoreComposer(Composer):
    """Composes a parser's events, with limits."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        self.nodes += 1
        event = self.peek_event()  # type: ignore[attr-defined]
        if self.depth > MAX_DEPTH:
            raise _refusal(f"it is nested deeper than {MAX_DEPTH} levels", event)
        if self.nodes > MAX_NODES:
            raise _refusal(f"it has more than {MAX_NODES:,} values", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal(f"tags such as '{event.tag}' are not allowed", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _CoreLoader(_CoreComposer, yaml.SafeLoader):
    """With the pure-Python parser."""


if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _FastLoader(_CoreComposer, CParser, Resolver):
        """With libyaml's parser; fails where the pure-Python one may read something else."""

        n_brackets = 0

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            Resolver.__init__(self)

        def compose_node(self, parent: Node | None, index: Any) -> Node | None:
            is_flow = bool(getattr(self.peek_event(), "flow_style", False))
            self.n_brackets += is_flow
            node = super().compose_node(parent, index)
            self.n_brackets -= is_flow
            # There a `?` ends a text of the pure-Python parser, and it places nothing elsewhere
            match node:
                case ScalarNode(value=text, style=style) if self.n_brackets and not style:
                    if not text or "?" in text:
                        raise yaml.YAMLError
            return node


def _compose(text: str) -> Node | None:
    if yaml.__with_libyaml__ and not _ODD.search(text):
        with suppress(yaml.YAMLError):
            return _FastLoader(text).get_single_node()
    return _CoreLoader(text).get_single_node()


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
        starts = [*accumulate((len(line) + 1 for line in lines), initial=0)]
        position = int(getattr(error, "position", 0))
        number = min(bisect_right(starts, position), len(lines)) - 1
        column = position - starts[number] if position < starts[-1] else 0
        mark = _mark(file, lines, number, column, 1)
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


class _ReadNode(NamedTuple):
    """What a node stands for: its plain value, and its size with what its aliases name."""

    plain: Any
    n_values: int
    n_levels: int


class _NodeReader(Struct, eq=False):
    """Reads each node once, however many aliases name it."""

    nodes: list[Node] = field(default_factory=list)
    """In the order of the file."""
    _known: dict[int, _ReadNode | None] = field(default_factory=dict)
    """None: within the node that is being read."""

    def read(self, node: Node) -> _ReadNode:
        """Return what a node stands for.

        Raises:
            _YamlCycle: an alias is within the value that it names.
        """
        if id(node) in self._known:
            known = self._known[id(node)]
            if known is None:
                raise _YamlCycle
            return known
        self._known[id(node)] = None
        self.nodes.append(node)
        plain: Any = None
        n_values, n_levels = 1, 0
        if isinstance(node, MappingNode):
            plain = {}
            for key, value in node.value:
                of_key, of_value = self.read(key), self.read(value)
                n_values += of_key.n_values + of_value.n_values
                n_levels = max(n_levels, of_key.n_levels, of_value.n_levels)
                if isinstance(key, ScalarNode):  # else a fault
                    plain[key.value] = of_value.plain
        elif isinstance(node, SequenceNode):
            plain = []
            for item in node.value:
                of_item = self.read(item)
                n_values += of_item.n_values
                n_levels = max(n_levels, of_item.n_levels)
                plain.append(of_item.plain)
        else:
            if _SURROGATE.search(node.value):
                # Join surrogate pairs, as JSON writes characters beyond U+FFFF
                raw = node.value.encode("utf-16-le", "surrogatepass")
                node.value = raw.decode("utf-16-le", "surrogatepass")
            plain = _scalar(node)
        read = self._known[id(node)] = _ReadNode(plain, n_values, n_levels + 1)
        return read


def _faults(document: YamlDocument, nodes: Iterable[Node]) -> Iterator[Fault]:
    """Yield faults of valid YAML: keys that are not text, or twice there, unusable scalars."""
    for node in nodes:
        seen: dict[str, Node] = {}
        for key, _ in node.value if isinstance(node, MappingNode) else ():
            if isinstance(key, ScalarNode) and key.value not in seen and key.value != "<<":
                seen[key.value] = key
                continue
            mark = document.mark_of(key)
            if not isinstance(key, ScalarNode):
                what = "a key must be text; this is a list or a mapping."
                yield Fault(what, 'An expression needs quotes: "{{ … }}".', mark)
            elif key.value == "<<" and not key.style:
                remedy = "Write the keys out, or use an alias for a whole value."
                yield Fault("merge keys ('<<') are not part of YAML 1.2.", remedy, mark)
            elif key.value in seen:
                line = seen[key.value].start_mark.line + 1
                what = f"the key '{key.value}' is here twice; the first is in line {line}."
                yield Fault(what, "Remove or rename one of them.", mark)
            else:
                seen[key.value] = key
        if isinstance(node, ScalarNode):
            value = _scalar(node)
            if isinstance(value, float) and not math.isfinite(value):
                what = f"'{node.value[:40]}' is not a usable number."
                yield Fault(what, "Put it in quotes if it is text.", document.mark_of(node))
            if _SURROGATE.search(node.value):
                what = "this text has half a character: a single '\\u' escape from D800 to DFFF."
                yield Fault(what, "Write the whole character.", document.mark_of(node))


def _scalar(node: Node) -> Any:
    """Read a scalar by YAML 1.2's core schema."""
    text: str = node.value
    if getattr(node, "style", None):
        return text
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _INT.match(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return text if base == 10 and _LEADING_ZERO.match(text) else int(text, base)
        return float(text.replace(".inf", "inf").lower()) if _FLOAT.match(text) else text
    except ValueError:  # `.nan`, or more digits than Python reads
        return math.inf

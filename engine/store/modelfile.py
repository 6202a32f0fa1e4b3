'''Modelfiles: text to commands, with the line of each fault, and back. Knows no files, no models.

The grammar is that of Ollama (github.com/ollama/ollama, parser/parser.go): a command and its value
up to the end of the line, or between `"` or `"""` over several; `#` begins a comment where a
command would begin.
'''

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from paddock.engine.errors import EngineError

from .parameters import OBSOLETE, read_parameter

INSTRUCTIONS = (
    "FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "RENDERER",
    "PARSER", "REQUIRES",
)  # fmt: skip
ROLES = ("system", "user", "assistant")

_WORD = re.compile(r"[^ \t]+")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Command:
    """One instruction."""

    name: str
    """In capitals: one of `INSTRUCTIONS`."""
    value: str
    key: str = ""
    """The name of a parameter, the role of a message."""
    line: int = 0
    """Where it begins, counted from 1."""


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What a file says, in its order."""

    commands: tuple[Command, ...]

    def all_of(self, name: str) -> tuple[Command, ...]:
        """Give every command of this name."""
        return tuple(one for one in self.commands if one.name == name)

    def last_of(self, name: str) -> Command | None:
        """Give the last command of this name: what is said later holds."""
        return next(iter(self.all_of(name)[::-1]), None)


class ModelfileError(EngineError):
    """A Modelfile that cannot be used: every fault with its line."""

    def __init__(self, path: str, faults: Iterable[tuple[int, str]]) -> None:
        self.path = path
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(f"{path}:{line}: {why}" for line, why in self.faults))


def parse_modelfile(text: str, path: str = "Modelfile") -> Modelfile:
    """Read a Modelfile whole; `path` is for its errors.

    Raises:
        ModelfileError: with every fault.
    """
    reader = _Reader(text)
    commands = tuple(reader.commands())
    if not any(one.name == "FROM" for one in commands) and not reader.faults:
        reader.faults.append(
            (1, "it has no FROM line: say which model or GGUF file it starts from")
        )
    if reader.faults:
        raise ModelfileError(path, reader.faults)
    return Modelfile(commands)


class _Reader:
    """Walks over the lines and notes what is wrong."""

    def __init__(self, text: str) -> None:
        plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        self._lines = _CONTROLS.sub("", plain).split("\n")
        self._at = 0
        self.faults: list[tuple[int, str]] = []

    def commands(self) -> Iterator[Command]:
        while self._at < len(self._lines):
            line = self._lines[self._at].lstrip(" \t")
            begins_at = self._at + 1
            if not line.strip() or line.startswith("#"):
                self._at += 1
                continue
            command = self._command(line, begins_at)
            if command is not None:
                yield command

    def _command(self, line: str, number: int) -> Command | None:
        """Read the command that begins with `line`, and move behind it."""
        word = line.split(None, 1)[0]
        name = word.upper()
        rest = line[len(word) :].lstrip(" \t")
        if name not in INSTRUCTIONS:
            self._at += 1
            self.faults.append((number, _unknown(word)))
            return None
        key = ""
        if name in ("PARAMETER", "MESSAGE"):
            match = _WORD.match(rest)
            key = match.group() if match else ""
            rest = rest[len(key) :].lstrip(" \t")
        value = self._value(rest)
        why = f"the text that {name} opens here is never closed"
        if value is not None:
            why = _fault(name, key, value)
        if value is None or why:
            self.faults.append((number, why))
            return None
        return Command(name, value, key, number)

    def _value(self, first: str) -> str | None:
        """Read a value that begins with `first`; None: its quotes are never closed."""
        pieces = [first]
        self._at += 1
        while (value := _unquoted("\n".join(pieces).strip())) is None:
            if self._at >= len(self._lines):
                return None
            pieces.append(self._lines[self._at])
            self._at += 1
        return value


def _unknown(word: str) -> str:
    shown = word if len(word) <= 40 else f"{word[:40]}…"
    near = get_close_matches(word.upper(), INSTRUCTIONS, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(INSTRUCTIONS)}."
    return f"there is no instruction '{shown}'. {hint}"


def _fault(name: str, key: str, value: str) -> str:
    """Say what is wrong with a command; empty: nothing."""
    if name == "MESSAGE" and key not in ROLES:
        return f"the role of a MESSAGE must be {', '.join(ROLES[:-1])} or {ROLES[-1]}, not '{key}'"
    if name == "PARAMETER":
        return _parameter_fault(key, value)
    if not value and name in ("FROM", "ADAPTER"):
        return f"{name} needs the name of a model or the path of a GGUF file"
    return ""


def _parameter_fault(key: str, value: str) -> str:
    if not key:
        return "PARAMETER needs a name and a value"
    if not _NAME.fullmatch(key):
        return f"'{key}' cannot be the name of a parameter"
    if key in OBSOLETE:
        return ""
    try:
        read_parameter(key, value)
    except ValueError as error:
        return str(error)
    return ""


def _unquoted(text: str) -> str | None:
    '''Take the quotes off a value; None: they are not closed yet.

    >>> _unquoted('"a b "'), _unquoted('"""a "b" c"""'), _unquoted('"a'), _unquoted('a "b"')
    ('a b ', 'a "b" c', None, 'a "b"')
    '''
    if text.startswith('"""'):
        return text[3:-3] if len(text) >= 6 and text.endswith('"""') else None
    if text.startswith('"'):
        return text[1:-1] if len(text) >= 2 and text.endswith('"') else None
    return text


def write_modelfile(commands: Iterable[Command]) -> str:
    '''Write commands so that reading them gives the same.

    One text cannot be told in this language: `"""` where a line ends.
    '''
    lines = []
    for command in commands:
        words = (command.name, command.key, _quoted(command.value))
        lines.append(" ".join(word for word in words if word))
    return "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    is_plain = text.strip() == text and text and "\n" not in text and not text.startswith('"')
    if is_plain:
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'

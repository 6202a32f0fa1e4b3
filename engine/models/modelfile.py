"""Modelfiles: parse and write them, and their parameters.

The grammar is Ollama's (github.com/ollama/ollama, parser/parser.go): a command and its value up to
the end of the line, or between double quotes (one or three) over several lines; `#` begins a
comment where a command could begin. Parameter names are those of Ollama's `api.Options`; obsolete
ones are accepted and ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.sampling_values import PARAMETERS, Parameter
from paddock.engine.system.records import Struct
from paddock.engine.system.text import shorten

_WHOLE_NUMBERS = ("num_ctx", "num_predict", "num_keep", "num_batch", "num_gpu", "main_gpu",
                  "num_thread", "draft_num_predict")  # fmt: skip
_OWN = ("min_tokens", "ignore_eos", "stop_token_ids", "logit_bias", "max_tokens")
PARAMETER_KINDS: Mapping[str, Parameter] = {
    **dict.fromkeys(_WHOLE_NUMBERS, Parameter("integer")),
    "use_mmap": Parameter("boolean"),
    **{name: Parameter(known.kind) for name, known in PARAMETERS.items() if name not in _OWN},
}
"""Of Modelfiles and of Ollama's requests. Their ranges do not count: values are clamped."""
POOL_SETTINGS: Mapping[str, str] = {
    "num_batch": "NUM_BATCH",
    "num_gpu": "NUM_GPU",
    "main_gpu": "MAIN_GPU",
    "num_thread": "NUM_THREAD",
}
"""Parameters that are settings of the pool, with the names of those."""
OBSOLETE_PARAMETERS = frozenset(
    {
        "mirostat", "mirostat_tau", "mirostat_eta", "tfs_z", "penalize_newline", "numa", "low_vram",
        "f16_kv", "logits_all", "vocab_only", "use_mlock", "num_gqa", "rope_frequency_base",
        "rope_frequency_scale",
    }
)  # fmt: skip

_WORDS = {**dict.fromkeys(("1", "t", "true"), True), **dict.fromkeys(("0", "f", "false"), False)}


def parse_parameter(name: str, text: str) -> Any:
    """Parse a parameter's value in a Modelfile.

    >>> parse_parameter("temperature", "0.7"), parse_parameter("stop", "</s>")
    (0.7, '</s>')

    Raises:
        ValueError: the parameter is unknown or its value invalid; with a sentence.
    """
    kind = PARAMETER_KINDS.get(name)
    if kind is None:
        near = get_close_matches(name, PARAMETER_KINDS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(PARAMETER_KINDS)}."
        raise ValueError(f"there is no parameter '{name}'. {hint}")
    if kind.kind == "texts":
        return text
    bare = text.strip()
    value: float | None = None
    if kind.kind == "boolean":
        value = _WORDS.get(bare.lower())
    else:
        with suppress(ValueError):
            value = int(bare) if kind.kind == "integer" else float(bare)
    try:
        return kind.typed(value)
    except ValueError as error:
        raise ValueError(f"parameter '{name}' must be {error}, not {text!r}") from None


def print_parameters(params: Mapping[str, Any]) -> str:
    """Return parameters as `show` prints them: a name, spaces, a value; texts in double quotes.

    >>> print(print_parameters({"stop": ["<a>", "b c"], "num_ctx": 4096}))
    stop                           "<a>"
    stop                           "b c"
    num_ctx                        4096
    """
    return "\n".join(f"{name:<30} {value_text(value)}" for name, value in each_value(params))


def each_value(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            yield name, item


def value_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


INSTRUCTIONS = (
    "FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "RENDERER",
    "PARSER", "REQUIRES",
)  # fmt: skip

_WORD = re.compile(r"[^ \t]+")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class ModelfileCommand(Struct, frozen=True):
    name: str
    """In capitals: one of `INSTRUCTIONS`."""
    value: str
    key: str = ""
    """The name of a parameter, the role of a message."""
    line: int = 0
    """Its first line, counted from 1."""


class Modelfile(Struct, frozen=True):
    commands: tuple[ModelfileCommand, ...]

    def all_of(self, name: str) -> tuple[ModelfileCommand, ...]:
        return tuple(command for command in self.commands if command.name == name)

    def last_value(self, name: str) -> str:
        return next((command.value for command in self.all_of(name)[::-1]), "")


class ModelfileError(EngineError):
    def __init__(self, path: str, faults: Iterable[tuple[int, str]]) -> None:
        self.path = path
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(f"{path}:{line}: {why}" for line, why in self.faults))


def parse_modelfile(text: str, path: str = "Modelfile") -> Modelfile:
    reader = _ModelfileParser(text)
    commands = tuple(reader.commands())
    if not any(command.name == "FROM" for command in commands) and not reader.faults:
        reader.faults.append(
            (1, "it has no FROM line: say which model or GGUF file it starts from")
        )
    if reader.faults:
        raise ModelfileError(path, reader.faults)
    return Modelfile(commands)


class _ModelfileParser:
    def __init__(self, text: str) -> None:
        plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        self._lines = _CONTROLS.sub("", plain).split("\n")
        self._at = 0
        self.faults: list[tuple[int, str]] = []

    def commands(self) -> Iterator[ModelfileCommand]:
        while self._at < len(self._lines):
            line = self._lines[self._at].lstrip(" \t")
            begins_at = self._at + 1
            if not line.strip() or line.startswith("#"):
                self._at += 1
                continue
            command = self._command(line, begins_at)
            if command is not None:
                yield command

    def _command(self, line: str, number: int) -> ModelfileCommand | None:
        word = line.split(None, 1)[0]
        name = word.upper()
        rest = line[len(word) :].lstrip(" \t")
        if name not in INSTRUCTIONS:
            self._at += 1
            near = get_close_matches(word.upper(), INSTRUCTIONS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(INSTRUCTIONS)}."
            unknown_instruction = f"there is no instruction '{shorten(word, 41)}'. {hint}"
            self.faults.append((number, unknown_instruction))
            return None
        key = ""
        if name in ("PARAMETER", "MESSAGE"):
            match = _WORD.match(rest)
            key = match.group() if match else ""
            rest = rest[len(key) :].lstrip(" \t")
        value = self._value(rest)
        why = f"the text that {name} opens here is never closed"
        if value is not None:
            why = _command_fault(name, key, value)
        if value is None or why:
            self.faults.append((number, why))
            return None
        return ModelfileCommand(name, value, key, number)

    def _value(self, first: str) -> str | None:
        pieces = [first]
        self._at += 1
        while (value := _without_quotes("\n".join(pieces).strip())) is None:
            if self._at >= len(self._lines):
                return None
            pieces.append(self._lines[self._at])
            self._at += 1
        return value


def _command_fault(name: str, key: str, value: str) -> str:
    """Return what is wrong with a command; empty: nothing."""
    if name == "MESSAGE" and key not in ("system", "user", "assistant"):
        return f"the role of a MESSAGE must be system, user or assistant, not '{key}'"
    if name == "PARAMETER":
        if not key:
            return "PARAMETER needs a name and a value"
        if not _NAME.fullmatch(key):
            return f"'{key}' cannot be the name of a parameter"
        if key in OBSOLETE_PARAMETERS:
            return ""
        try:
            parse_parameter(key, value)
        except ValueError as error:
            return str(error)
        return ""
    if not value and name in ("FROM", "ADAPTER"):
        return f"{name} needs the name of a model or the path of a GGUF file"
    return ""


def _without_quotes(text: str) -> str | None:
    '''Return a value without its quotes; None: they are not closed yet.

    >>> _without_quotes('"a b "'), _without_quotes('"""a "b" c"""'), _without_quotes('"a')
    ('a b ', 'a "b" c', None)
    '''
    if text.startswith('"""'):
        return text[3:-3] if len(text) >= 6 and text.endswith('"""') else None
    if text.startswith('"'):
        return text[1:-1] if len(text) >= 2 and text.endswith('"') else None
    return text


def write_modelfile(commands: Iterable[ModelfileCommand]) -> str:
    '''Return a Modelfile of these commands.

    One value cannot be written in this language: `"""` at the end of a line.
    '''
    lines = []
    for command in commands:
        words = (command.name, command.key, _with_quotes(command.value))
        lines.append(" ".join(word for word in words if word))
    return "".join(f"{line}\n" for line in lines)


def _with_quotes(text: str) -> str:
    is_plain = text.strip() == text and text and "\n" not in text and not text.startswith('"')
    if is_plain:
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'

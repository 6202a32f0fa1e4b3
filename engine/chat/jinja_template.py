"""One compiled chat template in Jinja: a metered sandbox for untrusted code.

A template comes with a model file or a request, so it is untrusted code. Jinja2's own sandbox
guards attributes; this one counts each loop turn, call, filter, operator and literal, and refuses
a huge value before it is made. Unlike the sandbox of pipelines, it lets templates change their
lists, as Kimi's does; they get copies.
"""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

from jinja2 import TemplateError, Undefined, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context

from paddock.engine.errors import BadRequest, TemplateTooLarge
from paddock.engine.system.template_limits import (
    MAX_VALUES,
    MeteredEnvironment,
    TemplateLimitExceeded,
    TemplateMeter,
    check_bits,
    check_chars,
    check_format,
    check_repeat,
    check_values,
    undeclared_variables,
)

from .known_templates import check_template_length
from .template_messages import TemplateExhausted, TemplateRefused, TemplateTurn, prompt_meter

MAX_WIDTH = 10_000  # of padding
MAX_WRAP_CHARS = 100_000  # `wordwrap(1)` of a word takes 0.1 s for so many, and 13 s for a million

_LONGEST_READ = dict.fromkeys(("split", "rsplit", "splitlines"), 4_000_000)  # a part has 50 bytes
_LONGEST_READ |= dict.fromkeys(("title", "urlencode"), 1_000_000)

_UNBOUNDED_FILTERS = ("pprint", "striptags", "urlize", "xmlattr")  # no chat template has them
_UNBOUNDED_METHODS = frozenset(("encode", "maketrans", "translate"))
MAX_DATE_CHARS = 1_000
_DATE_WIDTH = re.compile(r"%[^a-zA-Z%]*\d")
_SIZED_FILTERS = frozenset(
    ("batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "tojson", "truncate",
     "wordwrap", "zfill")
)  # fmt: skip
"""Filters and methods whose number arguments determine the size of the result."""
_TEXT_FILTERS = (_SIZED_FILTERS - {"batch", "slice"}) | {
    "capitalize", "count", "d", "default", "e", "escape", "float", "forceescape", "format", "int",
    "length", "lower", "replace", "safe", "string", "title", "trim", "upper", "urlencode",
    "wordcount",
}  # fmt: skip
"""Filters that take a text as a whole; others read it as a list of characters."""
_RECURSIVE_FILTERS = frozenset(("join", "replace", "string", "tojson", "urlencode"))
"""Filters that visit everything in a value."""


class JinjaSandbox(MeteredEnvironment):
    """One template's environment; one thread renders in it at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(optimized=False, finalize=self.made, **options)
        del self.globals["lipsum"]
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.filters = {
            name: self._bounded(name, function) for name, function in self.filters.items()
        }
        self.filters["_turns"] = self._turns
        self.begin()

    @property
    def meter(self) -> TemplateMeter:
        return self._meter

    def begin(self, meter: TemplateMeter | None = None) -> None:
        self._meter = meter or TemplateMeter()

    def add_filter(self, name: str, act: Callable[..., Any]) -> None:
        self.filters[name] = self._bounded(name, act)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        match left, operator, right:
            case _, "*", _:
                check_repeat(left, right)
            case int(), "**", int():
                check_bits(left.bit_length() * abs(right))
            case str(), "%", _:
                check_format(left, right if isinstance(right, tuple) else (right,), _written)
            case str(), "+", str():
                self._meter.add_text(len(left) + len(right))
        return self.made(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, int | float | bytes) or attr in _UNBOUNDED_METHODS:
            return False  # `to_bytes` makes as many as it is given
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **named: Any) -> Any:
        # The object of a bound method; Jinja2's sandbox wraps methods that format texts.
        method_owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        owner, name = method_owner, getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            if name == "join":
                args = tuple(map(_read_once, args))
                __self._before_text(name, owner, args)
            else:
                __self._before_text(name, owner, [*args, *named.values()])
        elif isinstance(owner, list | dict):
            for argument in (*args, *named.values()):
                _check_nested_values(argument)  # it becomes part of the list or mapping
        return __self.made(super().call(__context, __obj, *args, **named))

    def _bounded(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(act)
        def bounded(*args: Any, **named: Any) -> Any:
            args_of_act = list(args)
            first = 1 if hasattr(act, "jinja_pass_arg") else 0  # after context or environment
            if name == "join" and len(args) > first:
                args_of_act[first] = _read_once(args[first])
            # `old` before `new`, and `d` before `attribute`, also where they are named
            rest = [named[key] for key in sorted(named, reverse=True)]
            value, *others = [*args_of_act[first:], *rest] or [""]
            is_list = isinstance(value, str) and name not in _TEXT_FILTERS
            if is_list and len(value) > MAX_VALUES:
                raise TemplateLimitExceeded(f"'{name}' reads too long a text")
            if name in _RECURSIVE_FILTERS:
                for argument in (value, *others):
                    _check_nested_values(argument)
            match name:
                case "join":
                    self._before_text("join", str(others[0]) if others else "", [value])
                case "sum" if any(isinstance(start, list | tuple) for start in others):
                    raise TemplateLimitExceeded("it sums lists, not numbers")
                case "round":
                    _check_widths(others)
                case "tojson":
                    _check_widths(others)
                    widths = sum(
                        mark if isinstance(mark, int) else _n_chars(mark) for mark in others
                    )
                    n_values = check_values(value)
                    check_chars(n_values * widths * _depth(value))
                case "format":
                    check_format(str(value), others, _written)
                case "replace":
                    self._before_text(name, _written(value), others)
                case _ if isinstance(value, str):
                    self._before_text(name, value, others)
                case _ if name in _SIZED_FILTERS:
                    _check_widths(others)
            return self.made(act(*args_of_act, **named))

        return bounded

    def _before_text(self, name: str, text: str, others: Sequence[Any]) -> None:
        if name in _SIZED_FILTERS:
            _check_widths(others)
            sizes = sum(o if isinstance(o, int) else _n_chars(o) for o in others)
            if name == "wordwrap" and len(text) > MAX_WRAP_CHARS:
                raise TemplateLimitExceeded(
                    f"it wraps a text of more than {MAX_WRAP_CHARS:,} characters"
                )
            if name == "wordwrap":
                check_chars(len(text) * max(map(_n_chars, others), default=0))
            elif name in ("indent", "expandtabs"):
                check_chars(len(text) + (text.count("\n") + text.count("\t") + 1) * sizes)
        elif name in ("format", "format_map"):
            check_format(text, others, _written, "{")
        elif name == "join":
            check_chars(len(text) * sum(map(len, others)))
        elif len(text) > _LONGEST_READ.get(name, len(text)):
            raise TemplateLimitExceeded(f"'{name}' reads too long a text")
        elif name == "replace" and len(others) > 1:
            check_chars(len(text) + text.count(str(others[0])) * len(str(others[1])))


def _read_once(values: Any) -> Any:
    return values if isinstance(values, str) else list(values)  # such as a generator


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        groups = [item for item in level if isinstance(item, list | tuple | dict)]
        level = [item for g in groups for item in (g.values() if isinstance(g, dict) else g)]
    return depth


def _n_chars(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_n_chars, value))
    return len(value) if isinstance(value, str) else 0


def _check_widths(values: Iterable[Any]) -> None:
    if any(isinstance(value, int | float) and not abs(value) <= MAX_WIDTH for value in values):
        raise TemplateLimitExceeded(f"widths above {MAX_WIDTH:,} are not possible here")


def _written(value: Any) -> str:
    _check_nested_values(value)
    return str(value)


def _check_nested_values(value: Any) -> None:
    if isinstance(value, list | tuple | dict):
        check_values(value)


class JinjaTemplate:
    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        check_template_length(source)
        self.source = source
        environment = JinjaSandbox(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        environment.add_filter("tojson", _to_json)
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        try:
            self._template = environment.from_string(
                environment.with_metered_loops(environment.parse(self.source))
            )
        except (RecursionError, SyntaxError, MemoryError) as error:  # Python's, of Jinja2's code
            raise TemplateTooLarge("the model's chat template is nested too deeply") from error
        except Exception as error:  # untrusted code can raise anything
            raise BadRequest(f"the model's chat template cannot be read: {error}") from error
        self._environment = environment
        self._special = {"bos_token": bos, "eos_token": eos}

    def variables(self) -> set[str]:
        return undeclared_variables(self._environment.parse(self.source))

    def render(
        self,
        turns: Sequence[TemplateTurn],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        is_open: bool = True,
        n_ctx_tokens: int = 0,
        **variables: Any,
    ) -> str:
        """Render a conversation; `is_open`: end it where the assistant's answer begins.

        `n_ctx_tokens` limits the output (`prompt_meter`).

        Raises:
            TemplateRefused: in the template's own words.
        """

        def rendered(shown: Mapping[str, Any]) -> str:
            self._environment.begin(prompt_meter(n_ctx_tokens, turns, tools))
            try:
                return self._template.render(copy.deepcopy({**shown, "messages": list(turns)}))
            except TemplateLimitExceeded as error:
                raise TemplateExhausted(str(error)) from error
            except Exception as error:  # untrusted code can raise anything
                raise TemplateRefused(str(error)) from error

        variables = {"add_generation_prompt": is_open, **self._special, **variables}
        # Other names of the same values.
        variables["functions"] = json.dumps(list(tools), ensure_ascii=False, indent=4)
        variables.setdefault("datetime", _strftime_now("%b %d %Y %H:%M:%S"))
        if tools:
            shown = list(tools)
            return rendered({**variables, "tools": shown, "xml_tools": shown})
        try:
            return rendered({**variables, "tools": None})
        except TemplateExhausted:
            raise
        except TemplateRefused:
            # Some were written for requests with tools only, and iterate over `tools` regardless.
            return rendered({**variables, "tools": []})


class _GenerationTag(Extension):
    """`{% generation %}` marks text for training; here it has no effect."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    if len(layout) > MAX_DATE_CHARS or _DATE_WIDTH.search(layout):
        raise TemplateLimitExceeded("its layout of a date is too long, or has a width")
    return datetime.datetime.now().astimezone().strftime(layout)


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as Hugging Face's templates expect it: not escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=(separators[0], separators[1]) if separators else None,
        sort_keys=sort_keys,
        default=_without_undefined,
    )


def _without_undefined(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

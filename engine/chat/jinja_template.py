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
    MeteredEnvironment,
    TemplateLimitExceeded,
    TemplateMeter,
    check_bits,
    check_values,
    undeclared_variables,
)

from .known_templates import check_template_length
from .template_messages import TemplateExhausted, TemplateRefused, TemplateTurn, prompt_meter

MAX_WIDTH = 10_000  # of padding
MAX_WRAP_CHARS = 100_000  # `wordwrap(1)` of a word takes 0.1 s for so many, and 13 s for a million

_LARGE_WIDTH = re.compile(r"\d{4,}|\*|\{[^{}]*\{")
"""In a format: a large width, or one that comes from an argument."""
_SIZED_FILTERS = frozenset(
    ("batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "tojson", "truncate",
     "wordwrap", "zfill")
)  # fmt: skip
"""Filters and methods whose number arguments determine the size of the result."""
_RECURSIVE_FILTERS = frozenset(("join", "pprint", "string", "tojson", "urlencode", "xmlattr"))
"""Filters that visit everything in a value."""


class JinjaSandbox(MeteredEnvironment):
    """One template's environment; one thread renders in it at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(optimized=False, finalize=self.made, **options)
        del self.globals["lipsum"]
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
            case str() | list() | tuple(), "*", int():
                self._meter.add_text(len(left) * max(right, 0))
            case int(), "*", str() | list() | tuple():
                self._meter.add_text(len(right) * max(left, 0))
            case int(), "**", int():
                check_bits(left.bit_length() * abs(right))
            case str(), "%", _:
                _check_format(left)
            case str(), "+", str():
                self._meter.add_text(len(left) + len(right))
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **named: Any) -> Any:
        # The object of a bound method; Jinja2's sandbox wraps methods that format texts.
        method_owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        owner, name = method_owner, getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            __self._before_text(name, owner, [*args, *named.values()])
        elif isinstance(owner, list | dict):
            for argument in (*args, *named.values()):
                _check_nested_values(argument)  # it becomes part of the list or mapping
        return __self.made(super().call(__context, __obj, *args, **named))

    def _bounded(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(act)
        def bounded(*args: Any, **named: Any) -> Any:
            given = [*args, *named.values()]
            texts = [argument for argument in given if isinstance(argument, str)]
            if name in _RECURSIVE_FILTERS:
                for argument in given:
                    _check_nested_values(argument)
            if texts:
                rest = [argument for argument in given if argument is not texts[0]]
                self._before_text(name, texts[0], rest)
            elif name in _SIZED_FILTERS:
                _check_widths(given)
            return self.made(act(*args, **named))

        return bounded

    def _before_text(self, name: str, text: str, others: Sequence[Any]) -> None:
        if name in _SIZED_FILTERS:
            _check_widths(others)
            if name == "wordwrap" and len(text) > MAX_WRAP_CHARS:
                raise TemplateLimitExceeded(
                    f"it wraps a text of more than {MAX_WRAP_CHARS:,} characters"
                )
        elif name in ("format", "format_map"):
            _check_format(text)
        elif name == "join" and len(text) > MAX_WIDTH:
            raise TemplateLimitExceeded("it joins by too long a text")
        elif name == "replace":
            words = [other for other in others if isinstance(other, str)]
            if len(words) > 1:
                self._meter.add_text(len(text) + text.count(words[0]) * len(words[1]))


def _check_widths(values: Iterable[Any]) -> None:
    if any(isinstance(value, int | float) and not value <= MAX_WIDTH for value in values):
        raise TemplateLimitExceeded(f"widths above {MAX_WIDTH:,} are not possible here")


def _check_format(text: str) -> None:
    if _LARGE_WIDTH.search(text):
        raise TemplateLimitExceeded("large widths in a format are not possible here")


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

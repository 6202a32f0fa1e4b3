"""One compiled chat template in Jinja, in the sandbox of all templates.

A template comes with a model file or a request, so it is untrusted code. Unlike those of pipelines,
it may change its lists, as Kimi's does: it gets copies.
"""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, Undefined, nodes
from jinja2.ext import Extension
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.parser import Parser
from jinja2.utils import Cycler, Joiner

from paddock.engine.errors import TemplateTooLarge, TemplateUnreadable
from paddock.engine.system.template_filters import (
    BOUNDED_FILTERS,
    PLAIN_FILTERS,
    TEXT_FILTERS,
    bounded_round,
    center,
    json_text,
    percent_format,
)
from paddock.engine.system.template_limits import TemplateLimitExceeded, check_values
from paddock.engine.system.template_sandbox import METHODS, MeteredEnvironment, undeclared_variables

from .known_templates import check_template_length
from .template_messages import TemplateExhausted, TemplateRefused, TemplateTurn, prompt_meter

MAX_DATE_CHARS = 1_000
_DATE_WIDTH = re.compile(r"%[^a-zA-Z%]*\d")
_MARKUP = ("e", "escape", "forceescape", "safe")


class JinjaTemplate:
    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        check_template_length(source)
        self.source = source
        environment = _ChatSandbox(
            _FILTERS,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        environment.globals |= _GLOBALS
        try:
            self._template = environment.from_string(
                environment.with_metered_loops(environment.parse(self.source))
            )
        except (RecursionError, SyntaxError, MemoryError) as error:  # Python's, of Jinja2's code
            raise TemplateTooLarge("the model's chat template is nested too deeply") from error
        except Exception as error:  # untrusted code can raise anything
            raise TemplateUnreadable(
                f"the model's chat template cannot be read: {error}"
            ) from error
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
            values = copy.deepcopy({**shown, "messages": list(turns)})
            try:
                with self._environment.metering(prompt_meter(n_ctx_tokens, turns, tools)):
                    return self._template.render(values)
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
    """Return JSON as Hugging Face's templates expect it."""
    check_values(value)
    options = {"ensure_ascii": ensure_ascii, "sort_keys": sort_keys, "separators": separators}
    return json_text(value, indent, default=_without_undefined, **options)


def _without_undefined(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_FILTERS: Mapping[str, Callable[..., Any]] = {
    **{name: JINJA_FILTERS[name] for name in (*PLAIN_FILTERS, *_MARKUP)},
    **{name: JINJA_FILTERS[name] for name in ("attr", "float", "int", "random")},
    **BOUNDED_FILTERS,
    **{"center": center, "format": percent_format, "round": bounded_round, "tojson": _to_json},
}
_GLOBALS = {
    "cycler": Cycler,
    "joiner": Joiner,
    "raise_exception": _raise_exception,
    "strftime_now": _strftime_now,
}


class _ChatSandbox(MeteredEnvironment):
    text_filters = TEXT_FILTERS.union(_MARKUP, ("center", "format"))
    methods: Mapping[type, frozenset[str]] = {
        str: METHODS[str] | {"isascii"},
        dict: METHODS[dict] | {"clear", "copy", "pop", "setdefault", "update"},
        list: METHODS[list]
        | {"append", "clear", "copy", "extend", "insert", "pop", "remove", "reverse"},
    }

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Evaluate `obj.attribute` as Jinja2 does: a method has precedence over a key."""
        if isinstance(obj, dict) and attribute in self.methods[dict]:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

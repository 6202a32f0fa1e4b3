"""Run a chat template in Jinja2. Knows nothing of what templates mean.

The template comes with the model file, or with a request, so it is code from elsewhere: it runs in
a sandbox that bounds its steps, its time and what it makes. Some (Kimi's) append to their own
lists; what a template is given is a copy made for it, so it may change that.
"""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, Undefined, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from paddock.engine.errors import BadRequest

from .jinja_sandbox import Sandbox, TooMuch
from .template import Exhausted, Refused, Turn

# For models without a template: ChatML, which most instruction-tuned models have seen.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class JinjaTemplate:
    """One compiled template."""

    def __init__(self, source: str | None, *, bos: str, eos: str) -> None:
        self.source = source or CHATML
        environment = Sandbox(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        environment.add_filter("tojson", _to_json)
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        try:
            self._template = environment.from_string(environment.counted(self.source))
        except Exception as error:  # code from elsewhere: whatever ends it is its own fault
            raise BadRequest(f"the model's chat template cannot be read: {error}") from error
        self._environment = environment
        self._special = {"bos_token": bos, "eos_token": eos}

    def render(
        self,
        turns: Sequence[Turn],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        is_open: bool = True,
        **variables: Any,
    ) -> str:
        """Render a conversation; `is_open`: the assistant is to speak next.

        Raises:
            Refused: in the template's own words.
        """
        told = {"add_generation_prompt": is_open, **self._special, **variables}
        # Other names by which templates ask for the same.
        told["functions"] = json.dumps(list(tools), ensure_ascii=False, indent=4)
        told["datetime"] = _now("%b %d %Y %H:%M:%S")
        if tools:
            return self._rendered(turns, {**told, "tools": list(tools), "xml_tools": list(tools)})
        try:
            return self._rendered(turns, {**told, "tools": None})
        except Exhausted:
            raise
        except Refused:
            # Some were written for requests with tools only, and walk over what is not there.
            return self._rendered(turns, {**told, "tools": []})

    def _rendered(self, turns: Sequence[Turn], told: Mapping[str, Any]) -> str:
        self._environment.begin()
        try:
            return self._template.render(copy.deepcopy({**told, "messages": list(turns)}))
        except TooMuch as error:
            raise Exhausted(str(error)) from error
        except Exception as error:  # the same: a TypeError in it is none of ours
            raise Refused(str(error)) from error


class _Generation(Extension):
    """`{% generation %}` marks what a model is trained on; here it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Give what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as Hugging Face's templates expect it: not escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=(separators[0], separators[1]) if separators else None,
        sort_keys=sort_keys,
        default=_plain,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

"""Tell from a chat template what a model can be asked for. Pure; knows no model file.

A model tells more than its template does: whether it embeds, sees images or fills in the middle
by tokens of its own stands in its file.
"""

from __future__ import annotations

import re
from typing import Literal

from jinja2 import Environment, TemplateSyntaxError, meta

from paddock.engine.errors import BadRequest

from .ollama_template import OllamaTemplate
from .probes import study
from .template import Refused, Template
from .templates import read_template

TemplateCapability = Literal["tools", "insert", "thinking"]

# Words without which no template speaks of reasoning; studying one costs some milliseconds.
_MAY_REASON = re.compile(r"think|reason|thought|<\|channel\|>", re.IGNORECASE)


def capabilities_of_template(source: str | None) -> frozenset[TemplateCapability]:
    """Tell what a template, Jinja's or Go's, has words for.

    `tools`: it shows them; `insert`: it has a place for what follows an answer; `thinking`: it
    opens or closes reasoning. None, or what cannot be read: nothing.
    """
    if not source:
        return frozenset()
    try:
        template = read_template(source)
    except BadRequest:
        return frozenset()
    found: set[TemplateCapability] = set()
    if _shows_tools(template):
        found.add("tools")
    if isinstance(template, OllamaTemplate) and "Suffix" in template.names:
        found.add("insert")
    if _reasons(template):
        found.add("thinking")
    return frozenset(found)


def _shows_tools(template: Template) -> bool:
    if isinstance(template, OllamaTemplate):
        return "Tools" in template.names
    # Some (DeepSeek's) show calls alone; what can be called is then told in words.
    shown = {"tools", "xml_tools", "functions"}
    return "tool_calls" in template.source or bool(_variables(template.source) & shown)


def _variables(source: str) -> set[str]:
    """Give what a Jinja template is told from outside."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return meta.find_undeclared_variables(environment.parse(source))
    except TemplateSyntaxError:  # tags of Hugging Face's own, such as `generation`
        return set(re.findall(r"\b(?:xml_)?tools\b", source))


def _reasons(template: Template) -> bool:
    if not _MAY_REASON.search(template.source):
        return False
    if isinstance(template, OllamaTemplate) and not template.names & {"Thinking", "Think"}:
        return False
    try:
        manner = study(template)
    except Refused:
        return False
    return manner.may_reason or manner.is_harmony

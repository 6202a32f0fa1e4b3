"""Read a chat template in whichever of the two languages it is written."""

from __future__ import annotations

import re

from .jinja_template import JinjaTemplate
from .ollama_template import OllamaTemplate
from .template import Template

_ACTION = re.compile(r"\{\{(.*?)(?:\}\}|\Z)", re.DOTALL)
_TEXT = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`", re.DOTALL)
# What only Go's templates have: a field with nothing before its dot, a variable with `$`, and
# words that Jinja has between other brackets.
_GO = re.compile(
    r"(?<![\w)\]\"'.])\.[A-Z]|\$|^-?\s*(?:range|if|else|end|with|define|block|template)\b|^-?\s*/\*"
)
_JINJA = re.compile(r"\{%[-+]?\s*\w")


def is_go(source: str) -> bool:
    """Tell whether a template is written in Go's language, as Ollama's are, and not in Jinja's.

    >>> is_go("{{ .Prompt }}"), is_go("{{ prompt.Text }}"), is_go("{% if x %}{{ x }}{% endif %}")
    (True, False, False)
    """
    actions = (_TEXT.sub('""', found) for found in _ACTION.findall(source))
    return any(map(_GO.search, actions)) and _JINJA.search(source) is None


def read_template(source: str | None, *, bos: str = "", eos: str = "") -> Template:
    """Compile a template; None: ChatML.

    Raises:
        BadRequest: it cannot be read.
    """
    if source and is_go(source):
        return OllamaTemplate(source)
    return JinjaTemplate(source, bos=bos, eos=eos)

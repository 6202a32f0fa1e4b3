"""How a model writes tool calls: a form is a row of parts, literal texts and holes. Pure.

Where a template shows its form, `probes` finds it, and `forms` knows those that none shows.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from paddock.engine.request import ToolCall

Hole = Literal["name", "id", "index", "args", "params", "calls", "python", "gemma"]
"""`calls`: JSON that holds whole calls; `python`: a list of Python calls; `gemma`: Gemma's values;
`args`: JSON arguments; `params`: named values between tags; `index`: a number that is passed over.
"""


@dataclass(frozen=True, slots=True)
class Lit:
    """A text that stands there as it is."""

    text: str


Part = Lit | Hole


@dataclass(frozen=True, slots=True)
class ParamForm:
    """One named value: `opens` key `names` value `closes`."""

    opens: str
    names: str
    """Between a key and a string."""
    closes: str
    names_other: str = ""
    """Between a key and what is no string, where that differs."""

    @property
    def read_names(self) -> str:
        """What both have in common at their ends, after the key's attributes."""
        if not self.names_other:
            return self.names.strip()
        common = self.names
        while not self.names_other.endswith(common):
            common = common[1:]
        return common[max(common.find('"'), 0) :].strip()

    def between(self, *, is_text: bool) -> str:
        """Give what stands between a key and its value."""
        return self.names if is_text or not self.names_other else self.names_other


@dataclass(frozen=True, slots=True)
class CallForm:
    """One way to write calls."""

    reads: tuple[Part, ...]
    """What is looked for in an answer, up to where the arguments end."""
    writes: tuple[Part, ...]
    """How one call is written out, its end included: for grammars and for earlier turns."""
    section_opens: str = ""
    """Stands once before the first call."""
    section_closes: str = ""
    param: ParamForm | None = None

    @property
    def is_bare(self) -> bool:
        """Whether nothing but the call's own first character announces it."""
        return not self.section_opens.strip() and not isinstance(self.reads[0], Lit)

    @property
    def continues_bare(self) -> bool:
        """Whether a second call may follow unannounced."""
        return not isinstance(self.reads[0], Lit)

    @property
    def triggers(self) -> tuple[str, ...]:
        """The first word of what announces a call."""
        first = self.reads[0].text if isinstance(self.reads[0], Lit) else ""
        return tuple(_first_word(one) for one in (self.section_opens, first) if one.strip())

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Words that may follow a call and say nothing."""
        last = self.writes[-1]
        texts = [last.text if isinstance(last, Lit) else "", self.section_closes]
        return tuple(word for text in texts for word in _words(text))

    @property
    def literals(self) -> tuple[str, ...]:
        """Every literal text of the form."""
        parts = [part.text for part in (*self.reads, *self.writes) if isinstance(part, Lit)]
        tags = (self.param.opens, self.param.names, self.param.closes) if self.param else ()
        return (*parts, self.section_opens, self.section_closes, *tags)

    def write(self, call: ToolCall) -> str:
        """Give a call as the model itself would have written it."""
        parts = [part.text if isinstance(part, Lit) else self._fill(part, call)
                 for part in self.writes]  # fmt: skip
        return f"{self.section_opens}{''.join(parts)}{self.section_closes}"

    def _fill(self, hole: Hole, call: ToolCall) -> str:
        if hole == "name":
            return call.name
        if hole == "id":
            return call.id
        if hole == "index":
            return "0"
        if hole == "params" and self.param is not None:
            form = self.param
            return "".join(
                f"{form.opens}{key}{form.between(is_text=isinstance(value, str))}"
                f"{_shown(value)}{form.closes}"
                for key, value in call.arguments.items()
            )
        return json.dumps(dict(call.arguments), ensure_ascii=False)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_WORD = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]|[^\s<\[]+|\S")


def _words(text: str) -> list[str]:
    words = (word.lstrip("}])\"'") for word in _WORD.findall(text))
    return [word for word in words if word and word not in "{["]


def _first_word(text: str) -> str:
    """Give what a literal begins with: its first tag whole, else its first word."""
    stripped = text.strip()
    found = re.match(r"<\|[^<>]*\|>|<[^<>\s=]*[>=]?|\[[^\[\]\s]*\]|[^\s<\[]+|\S", stripped)
    return found.group() if found else stripped

"""The sandbox of expressions: what is missing is said, with the names that are like it.

The limits are generous for pipelines (a digest of 10,000 results takes some 50,000 steps) and far
below what harms a machine. `NativeEnvironment` is never used: it turns the text `2024` into a
number and lets Undefined through.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateRuntimeError
from jinja2.utils import missing

from paddock.engine.system.template_limits import TemplateMeter
from paddock.engine.system.template_sandbox import MeteredEnvironment

from .errors import did_you_mean
from .filters import FILTERS, OWN_TEXT_FILTERS, TESTS

MAX_STEPS = 2_000_000  # about a second of loop turns, calls and filters


class MissingValueError(TemplateRuntimeError):
    """An undefined value was used: the message names it, `remedy` lists similar names."""

    def __init__(self, message_and_remedy: tuple[str, str]) -> None:
        message, self.remedy = message_and_remedy
        super().__init__(message)


class MissingValue(StrictUndefined):
    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] | None = None,
    ) -> None:
        super().__init__(hint, obj, name, exc or MissingValueError)

    @property
    def _undefined_message(self) -> Any:
        name, owner = str(self._undefined_name), self._undefined_obj
        if self._undefined_hint:
            return self._undefined_hint, ""
        if owner is missing:
            return f"'{name}' is not known here", did_you_mean(name, environment().names)
        if isinstance(owner, dict):
            return f"there is no '{name}' here", did_you_mean(name, map(str, owner))
        kinds = {str: "a text", bool: "a boolean", int: "a whole number", float: "a number"}
        kinds |= {list: "a list", tuple: "a list", type(None): "null"}
        return f"{kinds.get(type(owner), 'this value')} has no '{name}'", ""


class TemplateSandbox(MeteredEnvironment):
    text_filters = OWN_TEXT_FILTERS

    def __init__(self) -> None:
        super().__init__(FILTERS, undefined=MissingValue, keep_trailing_newline=True)
        self.tests = dict(TESTS)

    @property
    def names(self) -> Iterable[str]:
        """Names that the present rendering knows."""
        return getattr(self._local, "names", ())

    @contextmanager
    def rendering(self, names: Iterable[str]) -> Iterator[None]:
        """Meter one rendering; lists may refer to the texts of ten thousand documents."""
        before = self.names
        self._local.names = names
        try:
            with self.metering(TemplateMeter(MAX_STEPS, max_nested_chars=math.inf)):
                yield
        finally:
            self._local.names = before


@lru_cache(maxsize=1)
def environment() -> TemplateSandbox:
    """Return the sandbox; its only state is that of each thread's rendering."""
    return TemplateSandbox()

"""Jinja2 sandbox for expressions: attributes within reach, limits on time and memory.

Jinja2's own sandbox guards attributes. Time and memory are metered here, from outside the
template: each loop turn, call, filter, operator and literal passes a `TemplateMeter`, which knows
the deadline and how much was made so far. The size of each single result is limited, so nothing
runs long between two checks of the clock. The limits are generous for pipelines (a digest of 10,000
results takes some 50,000 steps) and far below what harms a machine.
`NativeEnvironment` is never used: it turns the text `2024` into a number and lets Undefined
through.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateRuntimeError
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.utils import Namespace, missing

from paddock.engine.system.template_limits import (
    MAX_VALUES,
    MeteredEnvironment,
    TemplateLimitExceeded,
    TemplateMeter,
    check_bits,
    check_format,
    check_repeat,
    check_values,
)

from .errors import did_you_mean
from .filters import FILTERS, MAX_PARSED_CHARS, TESTS, TEXT_FILTERS, join, names, replace

MAX_STEPS = 2_000_000  # about a second of loop turns, calls and filters
MAX_RANGE = 100_000
JINJA_INTERNALS = (Namespace, LoopContext, Macro)
"""Jinja2's own objects: not data."""

METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        names(
            "capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit "
            "islower isnumeric isspace istitle isupper lower lstrip partition removeprefix "
            "removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith "
            "strip swapcase title upper"
        )
    ),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
}
_SPLITS = frozenset(("split", "rsplit", "splitlines"))


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
    """Sandbox: no loader, allow-lists of filters, tests and methods, metered operations."""

    def __init__(self) -> None:
        super().__init__(
            undefined=MissingValue,
            finalize=self.written,
            keep_trailing_newline=True,
            optimized=False,
        )
        self._local = threading.local()
        self.globals = {"range": bounded_range, "dict": dict, "namespace": Namespace}
        self.filters = {name: self._filter(name, made) for name, made in FILTERS.items()}
        self.filters["_turns"] = self._turns
        self.tests = dict(TESTS)

    @property
    def meter(self) -> TemplateMeter:
        rendering = getattr(self._local, "rendering", None)
        return rendering[0] if rendering else _new_meter()

    @property
    def names(self) -> Iterable[str]:
        rendering = getattr(self._local, "rendering", None)
        return rendering[1] if rendering else ()

    @contextmanager
    def metering(self, names: Iterable[str]) -> Iterator[None]:
        """Meter one rendering; a nested one has its own meter."""
        before = getattr(self._local, "rendering", None)
        self._local.rendering = (_new_meter(), names)
        try:
            yield
        finally:
            self._local.rendering = before

    def written(self, value: Any) -> str:
        """Account for output of `{{ }}`."""
        if isinstance(value, str):
            return self.made(value)  # type: ignore[no-any-return]  # the same text
        return self.made(self.text(self.made(value)))  # type: ignore[no-any-return]

    def text(self, value: Any) -> str:
        return _text_of(value)

    def _filter(self, name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
        reads_text = name in TEXT_FILTERS

        def run(*args: Any, **kwargs: Any) -> Any:
            for value in (*args, *kwargs.values()):
                if isinstance(value, JINJA_INTERNALS):
                    raise TemplateLimitExceeded(
                        "a namespace, macro or `loop` cannot be given to a filter"
                    )
                if not reads_text and isinstance(value, str) and len(value) > MAX_VALUES:
                    raise TemplateLimitExceeded(
                        f"'{name}' would read a text of more than {MAX_VALUES:,} letters"
                    )
            return self.made(filter_(*args, **kwargs))

        # Jinja2 reads from this attribute whether a filter takes context or environment first.
        if hasattr(filter_, "jinja_pass_arg"):
            run.jinja_pass_arg = filter_.jinja_pass_arg  # type: ignore[attr-defined]
        return run

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Check the size of the result, then compute it."""
        if operator == "%" and isinstance(left, str):
            check_values(right, JINJA_INTERNALS)
            check_format(left, right if isinstance(right, tuple) else (right,), _text_of)
        elif isinstance(left, bool | int) and isinstance(right, bool | int):
            bits, right_bits = int(left).bit_length(), int(right).bit_length()
            n_bits = bits * max(right, 0) if operator == "**" else bits + right_bits
            check_bits(n_bits)
        elif operator == "*":
            check_repeat(left, right, JINJA_INTERNALS)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            environment().meter.add_text(len(left) + len(right))
        elif operator == "**" and not isinstance(left, int | float):
            raise TemplateLimitExceeded("only numbers have powers")
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        return __self.made(super().call(__context, __obj, *args, **kwargs))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Evaluate `obj.attribute`: a key of a mapping, else one of a few methods."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return self._attribute(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Evaluate `obj[argument]`: an item, else `obj.argument`."""
        try:
            return obj[argument]
        except (AttributeError, TypeError, LookupError):
            if isinstance(argument, str) and not isinstance(obj, Undefined):
                return self._attribute(obj, argument)
        if isinstance(obj, Undefined):
            return obj[argument]
        return self.undefined(obj=obj, name=argument)

    def _attribute(self, obj: Any, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise TemplateLimitExceeded(closed_attribute_message(attribute))
        if isinstance(obj, Undefined):
            return getattr(obj, attribute)
        if isinstance(obj, str) and len(obj) > MAX_PARSED_CHARS and attribute in _SPLITS:
            raise TemplateLimitExceeded(
                f"it splits a text of more than {MAX_PARSED_CHARS:,} characters"
            )
        if self._is_readable(obj, attribute):
            return getattr(obj, attribute, self.undefined(obj=obj, name=attribute))
        if isinstance(obj, str) and attribute in ("replace", "join"):
            if attribute == "replace":
                return lambda *args: replace(obj, *args)
            return lambda parts: join(environment(), parts, obj)
        return self.undefined(obj=obj, name=attribute)

    @staticmethod
    def _is_readable(obj: Any, attribute: str) -> bool:
        if isinstance(obj, Namespace | LoopContext):
            return not attribute.startswith("_")
        if isinstance(obj, tuple) and attribute in getattr(type(obj), "_fields", ()):
            return True
        methods = METHODS.get(tuple if isinstance(obj, tuple) else type(obj), frozenset())
        return attribute in methods

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow what `getattr` allows (Jinja2 also calls this elsewhere)."""
        return self._is_readable(obj, attr)


def _new_meter() -> TemplateMeter:
    # Lists hold references to their texts, which may be those of ten thousand documents.
    return TemplateMeter(MAX_STEPS, forbidden=JINJA_INTERNALS, max_nested_chars=math.inf)


def closed_attribute_message(attribute: str) -> str:
    return f"it reads '{attribute}', and names that begin with two underscores are not allowed"


def bounded_range(*args: int) -> range:
    made = range(*args)
    if len(made) > MAX_RANGE:
        raise TemplateLimitExceeded(f"its `range` has more than {MAX_RANGE:,} numbers")
    return made


def _text_of(value: Any) -> str:
    if isinstance(value, JINJA_INTERNALS):
        raise TemplateLimitExceeded("a namespace, macro or `loop` cannot be written as text")
    if isinstance(value, list | tuple | dict):
        check_values(value, JINJA_INTERNALS)
    return value if isinstance(value, str) else str(value)


@lru_cache(maxsize=1)
def environment() -> TemplateSandbox:
    """Return the sandbox; its only state is each thread's meter."""
    return TemplateSandbox()

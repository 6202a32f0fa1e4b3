"""Jinja2 sandbox for expressions: what a template may reach, and limits on its time and memory.

Jinja2's own sandbox guards attributes. Time and memory are metered here, from outside the
template: each loop turn, call, filter, operator and literal passes a `RenderMeter`, which knows
the deadline and how much was made so far. The size of each single result is limited, so nothing
runs long between two checks of the clock. The limits are generous for pipelines (a digest of 10,000
results takes some 50,000 turns) and far below what harms a machine.
`NativeEnvironment` is never used: it turns the text `2024` into a number and lets Undefined
through.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateRuntimeError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from .errors import did_you_mean
from .template_filters import FILTERS, TESTS, TEXT_FILTERS, split_names

DEADLINE_S = 3.0
MAX_TURNS = 2_000_000  # about a second of loop turns, calls and filters
MAX_CHARS = 32 * 1024 * 1024  # of one text, the rendered output included
MAX_ALL_CHARS = 128 * 1024 * 1024  # of everything that one rendering makes
MAX_NODES = 1_000_000  # of one list or mapping, counted through what it shares
MAX_RANGE = 100_000
MAX_BITS = 4096  # of a whole number
CLOCK_CHECK_EVERY_TURNS = 16  # a check of the clock costs 50 ns

JINJA_INTERNALS = (Namespace, LoopContext, Macro)
"""Jinja2's own objects: not data."""


class RenderLimitExceeded(Exception):
    """The template exceeds a limit, or uses what is not allowed; the text is a sentence."""


class RenderMeter:
    """The cost of one rendering so far, and the names in its scope."""

    __slots__ = ("_chars", "_deadline", "_turns", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = names
        self._turns = 0
        self._chars = 0
        self._deadline = time.monotonic() + DEADLINE_S

    def turn(self) -> None:
        """Count one turn of anything.

        Raises:
            RenderLimitExceeded: too many turns, or too much time.
        """
        self._turns += 1
        if self._turns % CLOCK_CHECK_EVERY_TURNS == 0:
            self.look()

    def look(self) -> None:
        """Check the time and the number of turns."""
        if self._turns > MAX_TURNS:
            raise RenderLimitExceeded(f"it takes more than {MAX_TURNS:,} steps")
        if time.monotonic() > self._deadline:
            raise RenderLimitExceeded(f"it takes longer than {DEADLINE_S:g} s")

    def made(self, value: Any) -> Any:
        """Account for a value and return it."""
        self.turn()
        if isinstance(value, str):
            self.make_text(len(value))
        elif isinstance(value, list | tuple | dict):
            node_count(value)
            self.look()
        return value

    def make_text(self, n_chars: int) -> None:
        """Account for a text, if possible before it is made."""
        if n_chars > MAX_CHARS:
            raise RenderLimitExceeded(f"it makes a text of more than {MAX_CHARS:,} characters")
        self._chars += n_chars
        if self._chars > MAX_ALL_CHARS:
            raise RenderLimitExceeded(f"it makes more than {MAX_ALL_CHARS:,} characters in all")
        if n_chars > 4096:
            self.look()


def node_count(value: Any) -> int:
    """Return the number of values in a list or mapping; shared ones count each time.

    Raises:
        RenderLimitExceeded: there are too many, or one is not data.
    """
    count, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, JINJA_INTERNALS):
            raise RenderLimitExceeded("a namespace, macro or `loop` cannot be part of a value")
        count += 1
        if isinstance(item, dict):
            count += len(item)
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        if count + len(waiting) > MAX_NODES:
            raise RenderLimitExceeded(
                f"it makes a list or mapping of more than {MAX_NODES:,} values"
            )
    return count


MAX_SPLIT_CHARS = 4_000_000  # each piece of a text costs some 50 bytes

METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        split_names(
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
_WIDTH = re.compile(r"\d{4,}|\*")


class MissingValueError(TemplateRuntimeError):
    """An undefined value was used: the message names it, `remedy` lists similar names."""

    def __init__(self, told: tuple[str, str]) -> None:
        message, self.remedy = told
        super().__init__(message)


class MissingValue(StrictUndefined):
    """An undefined name: any use of it raises `MissingValueError`."""

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
        """Return the arguments of `MissingValueError`; Jinja2 raises it."""
        name, owner = str(self._undefined_name), self._undefined_obj
        if self._undefined_hint:
            return self._undefined_hint, ""
        if owner is missing:
            return f"'{name}' is not known here", did_you_mean(name, environment().meter.names)
        if isinstance(owner, dict):
            return f"there is no '{name}' here", did_you_mean(name, map(str, owner))
        return f"{value_kind(owner)} has no '{name}'", ""


def value_kind(value: Any) -> str:
    """Return a value's kind in words."""
    kinds = {str: "a text", bool: "a boolean", int: "a whole number", float: "a number"}
    kinds |= {list: "a list", tuple: "a list", dict: "a mapping", type(None): "null"}
    return kinds.get(type(value), "this value")


class MeteredCodeGenerator(CodeGenerator):
    """Jinja2's code generator, with metered values and no constant folding."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)

    def _metered(self, visit: Callable[[Any, Frame], None], node: Any, frame: Frame) -> None:
        self.write("environment.made(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: D102
        self._metered(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: D102
        self._metered(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: D102
        if node.ctx == "load":
            self._metered(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: D102
        self._metered(super().visit_Compare, node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: D102
        if isinstance(node.arg, nodes.Slice):
            self._metered(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: D102
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


def meter_loops(tree: nodes.Template) -> None:
    """Meter the items of every `for` loop."""
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, "_turns", [], [], None, None, lineno=loop.lineno)
    tree.set_environment(environment())


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Sandbox: no loader, allow-lists of filters, tests and methods, metered operations."""

    code_generator_class = MeteredCodeGenerator
    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def __init__(self) -> None:
        super().__init__(undefined=MissingValue, finalize=self.written, keep_trailing_newline=True)
        self.optimized = False
        self._local = threading.local()
        self.globals = {"range": bounded_range, "dict": dict, "namespace": Namespace}
        self.filters = {name: self._filter(name, made) for name, made in FILTERS.items()}
        self.filters["_turns"] = self._turns
        self.tests = dict(TESTS)

    @property
    def meter(self) -> RenderMeter:
        """The meter of this thread's current rendering."""
        meter: RenderMeter | None = getattr(self._local, "meter", None)
        return meter if meter is not None else RenderMeter()

    @contextmanager
    def metering(self, names: Iterable[str]) -> Iterator[None]:
        """Meter one rendering; a nested one has its own meter."""
        before = getattr(self._local, "meter", None)
        self._local.meter = RenderMeter(names)
        try:
            yield
        finally:
            self._local.meter = before

    def made(self, value: Any) -> Any:
        """Account for a new value."""
        return self.meter.made(value)

    def written(self, value: Any) -> Any:
        """Account for output of `{{ }}`."""
        return self.made(value if isinstance(value, str) else _text_of(self.made(value)))

    def joined(self, parts: Iterable[Any]) -> str:
        """Evaluate `a ~ b`."""
        return self.concat([_text_of(self.made(part)) for part in parts])

    def concat(self, parts: Iterable[str]) -> str:
        """Join the output of a template, macro or block, up to the limit."""
        meter, kept, n_chars = self.meter, [], 0
        for part in parts:
            meter.turn()
            n_chars += len(part)
            if n_chars > MAX_CHARS:
                break
            kept.append(part)
        meter.make_text(n_chars)
        return "".join(kept)

    def _turns(self, values: Any) -> Iterator[Any]:
        turn = self.meter.turn
        for value in values:
            turn()
            yield value

    def _filter(self, name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
        reads_text = name in TEXT_FILTERS

        def run(*args: Any, **kwargs: Any) -> Any:
            for value in (*args, *kwargs.values()):
                if isinstance(value, JINJA_INTERNALS):
                    raise RenderLimitExceeded(
                        "a namespace, macro or `loop` cannot be given to a filter"
                    )
                if not reads_text and isinstance(value, str) and len(value) > MAX_NODES:
                    raise RenderLimitExceeded(
                        f"'{name}' would read a text of more than {MAX_NODES:,} letters"
                    )
            return self.made(filter_(*args, **kwargs))

        # Jinja2 reads from this attribute whether a filter takes context or environment first.
        if hasattr(filter_, "jinja_pass_arg"):
            run.jinja_pass_arg = filter_.jinja_pass_arg  # type: ignore[attr-defined]
        return run

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Check the size of the result, then compute it."""
        _check_binop(operator, left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function if a template may."""
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
            raise RenderLimitExceeded(closed_attribute_message(attribute))
        if isinstance(obj, Undefined):
            return getattr(obj, attribute)
        if isinstance(obj, str) and len(obj) > MAX_SPLIT_CHARS and attribute in _SPLITS:
            raise RenderLimitExceeded(
                f"it splits a text of more than {MAX_SPLIT_CHARS:,} characters"
            )
        if self._is_readable(obj, attribute):
            return getattr(obj, attribute, self.undefined(obj=obj, name=attribute))
        if isinstance(obj, str) and attribute in ("replace", "join"):
            return _bounded_method(obj, attribute)
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


def closed_attribute_message(attribute: str) -> str:
    """Return the message for an attribute that is not allowed."""
    return f"it reads '{attribute}', and names that begin with two underscores are not allowed"


def bounded_range(*args: int) -> range:
    """Return `range`, up to a length."""
    made = range(*args)
    if len(made) > MAX_RANGE:
        raise RenderLimitExceeded(f"its `range` has more than {MAX_RANGE:,} numbers")
    return made


def _bounded_method(text: str, name: str) -> Callable[..., Any]:
    bounded: Callable[..., Any] = FILTERS["replace"] if name == "replace" else FILTERS["join"]
    if name == "replace":
        return lambda *args: bounded(text, *args)
    return lambda parts: bounded(environment(), parts, text)


def _text_of(value: Any) -> str:
    if isinstance(value, JINJA_INTERNALS):
        raise RenderLimitExceeded("a namespace, macro or `loop` cannot be written as text")
    return value if isinstance(value, str) else str(value)


def _check_binop(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(left, right)
    elif isinstance(left, bool | int) and isinstance(right, bool | int):
        bits, more = int(left).bit_length(), int(right).bit_length()
        n_bits = bits * max(right, 0) if operator == "**" else bits + more
        if n_bits > MAX_BITS:
            raise RenderLimitExceeded(f"it makes a number of more than {MAX_BITS:,} bits")
    elif operator == "*":
        _check_repeat(left, right)
    elif operator == "+" and isinstance(left, str) and isinstance(right, str):
        environment().meter.make_text(len(left) + len(right))
    elif operator == "**" and not isinstance(left, int | float):
        raise RenderLimitExceeded("only numbers have powers")


def _check_repeat(left: Any, right: Any) -> None:
    value, times = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(times, int):
        return
    if isinstance(value, str) and len(value) * times > MAX_CHARS:
        raise RenderLimitExceeded(f"it makes a text of more than {MAX_CHARS:,} characters")
    if isinstance(value, list | tuple) and node_count(value) * times > MAX_NODES:
        raise RenderLimitExceeded(f"it makes a list of more than {MAX_NODES:,} values")


def _check_format(text: str, right: Any) -> None:
    if _WIDTH.search(text):
        raise RenderLimitExceeded("a width in its format has more than three digits")
    node_count(right)
    values = right if isinstance(right, tuple) else (right,)
    longest = max((len(_text_of(value)) for value in values), default=0)
    if len(text) + text.count("%") * (1000 + longest) > MAX_CHARS:
        raise RenderLimitExceeded(f"it makes a text of more than {MAX_CHARS:,} characters")


@lru_cache(maxsize=1)
def environment() -> TemplateSandbox:
    """Return the sandbox; its only state is each thread's meter."""
    return TemplateSandbox()

"""The Jinja2 sandbox in which every expression runs: what may be reached, and how much it may cost.

Jinja2's own sandbox guards attributes. Time and memory are guarded here, from outside the template:
each turn of a loop, call, filter, operator and literal passes a `Meter`, which knows the deadline
and how much was made so far. No single operation may make more than one value's worth, so that
nothing runs long between two looks at the clock. `NativeEnvironment` is never used: it turns the
text `2024` into a number and lets Undefined through.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateRuntimeError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from .errors import known
from .filters import FILTERS, TESTS, TEXT_FILTERS, names
from .meter import MACHINERY, MAX_BITS, MAX_CHARS, MAX_NODES, MAX_RANGE, Meter, Refused, weight

MAX_SPLIT_CHARS = 4_000_000  # each piece of a text costs some 50 bytes

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
_WIDTH = re.compile(r"\d{4,}|\*")


class NotThere(TemplateRuntimeError):
    """An undefined value was used: its message names it, `remedy` the near names."""

    def __init__(self, told: tuple[str, str]) -> None:
        message, self.remedy = told
        super().__init__(message)


class Missing(StrictUndefined):
    """A name that is not there: any use of it says which, and what there is instead."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] | None = None,
    ) -> None:
        super().__init__(hint, obj, name, exc or NotThere)

    @property
    def _undefined_message(self) -> Any:
        """Make what `NotThere` takes; Jinja2 raises it."""
        name, owner = str(self._undefined_name), self._undefined_obj
        if self._undefined_hint:
            return self._undefined_hint, ""
        if owner is missing:
            return f"'{name}' is not known here", known(name, environment().meter.names)
        if isinstance(owner, dict):
            return f"there is no '{name}' here", known(name, map(str, owner))
        return f"{describe(owner)} has no '{name}'", ""


def describe(value: Any) -> str:
    """Name a value's kind for a sentence."""
    kinds = {str: "a text", bool: "a boolean", int: "a whole number", float: "a number"}
    kinds |= {list: "a list", tuple: "a list", dict: "a mapping", type(None): "null"}
    return kinds.get(type(value), "this value")


class Generator(CodeGenerator):
    """Jinja2's code generator, with the meter around what makes values; nothing is folded."""

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


def count_turns(tree: nodes.Template) -> None:
    """Put the meter around what every `for` goes through."""
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, "_turns", [], [], None, None, lineno=loop.lineno)
    tree.set_environment(environment())


class Sandbox(ImmutableSandboxedEnvironment):
    """No loader, allow-lists of filters, tests and methods, every operation metered."""

    code_generator_class = Generator
    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def __init__(self) -> None:
        super().__init__(undefined=Missing, finalize=self.written, keep_trailing_newline=True)
        self.optimized = False
        self._local = threading.local()
        self.globals = {"range": bounded_range, "dict": dict, "namespace": Namespace}
        self.filters = {name: self._filter(name, made) for name, made in FILTERS.items()}
        self.filters["_turns"] = self._turns
        self.tests = dict(TESTS)

    @property
    def meter(self) -> Meter:
        """Give the meter of the rendering that this thread is in."""
        meter: Meter | None = getattr(self._local, "meter", None)
        return meter if meter is not None else Meter()

    @contextmanager
    def metering(self, names: Iterable[str]) -> Iterator[None]:
        """Meter what happens inside; a rendering inside a rendering has its own."""
        before = getattr(self._local, "meter", None)
        self._local.meter = Meter(names)
        try:
            yield
        finally:
            self._local.meter = before

    def made(self, value: Any) -> Any:
        """Account for a value that a template made."""
        return self.meter.made(value)

    def written(self, value: Any) -> Any:
        """Account for what `{{ }}` writes."""
        return self.made(value if isinstance(value, str) else _text(self.made(value)))

    def joined(self, parts: Iterable[Any]) -> str:
        """Do `a ~ b`."""
        return self.concat([_text(self.made(part)) for part in parts])

    def concat(self, parts: Iterable[str]) -> str:
        """Join what was written, by a template, a macro or a block, up to the cap."""
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
                if isinstance(value, MACHINERY):
                    raise Refused("a namespace, macro or `loop` cannot be given to a filter")
                if not reads_text and isinstance(value, str) and len(value) > MAX_NODES:
                    raise Refused(f"'{name}' would read a text of more than {MAX_NODES:,} letters")
            return self.made(filter_(*args, **kwargs))

        # Jinja2 reads from this mark whether a filter wants context or environment first.
        if hasattr(filter_, "jinja_pass_arg"):
            run.jinja_pass_arg = filter_.jinja_pass_arg  # type: ignore[attr-defined]
        return run

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Check how large a result will be, then do it."""
        _check_binop(operator, left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template may call."""
        return __self.made(super().call(__context, __obj, *args, **kwargs))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Read `obj.attribute`: a mapping's key before any method, and few methods at all."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return self._attribute(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Read `obj[argument]`: an item, else what `obj.argument` gives."""
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
            raise Refused(reaches(attribute))
        if isinstance(obj, Undefined):
            return getattr(obj, attribute)
        if isinstance(obj, str) and len(obj) > MAX_SPLIT_CHARS and attribute in _SPLITS:
            raise Refused(f"it splits a text of more than {MAX_SPLIT_CHARS:,} characters")
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
        """Allow what `getattr` above allows (Jinja2 asks from elsewhere, too)."""
        return self._is_readable(obj, attr)


def reaches(attribute: str) -> str:
    """Say that a template reaches where it must not."""
    return f"it reaches for '{attribute}', and names that begin with two underscores are closed"


def bounded_range(*args: int) -> range:
    """Do `range`, up to a length."""
    made = range(*args)
    if len(made) > MAX_RANGE:
        raise Refused(f"its `range` has more than {MAX_RANGE:,} numbers")
    return made


def _bounded_method(text: str, name: str) -> Callable[..., Any]:
    bounded: Callable[..., Any] = FILTERS["replace"] if name == "replace" else FILTERS["join"]
    if name == "replace":
        return lambda *args: bounded(text, *args)
    return lambda parts: bounded(environment(), parts, text)


def _text(value: Any) -> str:
    if isinstance(value, MACHINERY):
        raise Refused("a namespace, macro or `loop` cannot be written as text")
    return value if isinstance(value, str) else str(value)


def _check_binop(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(left, right)
    elif isinstance(left, bool | int) and isinstance(right, bool | int):
        bits, more = int(left).bit_length(), int(right).bit_length()
        n_bits = bits * max(right, 0) if operator == "**" else bits + more
        if n_bits > MAX_BITS:
            raise Refused(f"it makes a number of more than {MAX_BITS:,} bits")
    elif operator == "*":
        _check_repeat(left, right)
    elif operator == "+" and isinstance(left, str) and isinstance(right, str):
        environment().meter.make_text(len(left) + len(right))
    elif operator == "**" and not isinstance(left, int | float):
        raise Refused("only numbers have powers")


def _check_repeat(left: Any, right: Any) -> None:
    value, times = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(times, int):
        return
    if isinstance(value, str) and len(value) * times > MAX_CHARS:
        raise Refused(f"it makes a text of more than {MAX_CHARS:,} characters")
    if isinstance(value, list | tuple) and weight(value) * times > MAX_NODES:
        raise Refused(f"it makes a list of more than {MAX_NODES:,} values")


def _check_format(text: str, right: Any) -> None:
    if _WIDTH.search(text):
        raise Refused("a width in its format has more than three digits")
    weight(right)
    values = right if isinstance(right, tuple) else (right,)
    longest = max((len(_text(value)) for value in values), default=0)
    if len(text) + text.count("%") * (1000 + longest) > MAX_CHARS:
        raise Refused(f"it makes a text of more than {MAX_CHARS:,} characters")


@lru_cache(maxsize=1)
def environment() -> Sandbox:
    """Give the one sandbox; it holds no state but each thread's meter."""
    return Sandbox()

"""Jinja2 sandbox for templates, which are untrusted code: of pipelines, model files and requests.

Jinja2's own sandbox guards attributes; here only those of allow-lists are within reach. Time and
memory are metered from outside the template: each loop turn, call, filter, operator and literal
passes a `TemplateMeter`, which knows the deadline and how much was made so far. The size of each
single result is limited, so nothing runs long between two checks of the clock. No constant is
computed before a template is rendered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.meta import TrackingCodeGenerator
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Cycler, Namespace

from .template_filters import BOUNDED_METHODS, MAX_PARSED_CHARS, TEXT_FILTERS, UNWRITTEN, names
from .template_limits import (
    JINJA_INTERNALS,
    MAX_VALUES,
    TemplateLimitExceeded,
    TemplateMeter,
    check_bits,
    check_format,
    check_repeat,
    check_values,
)

MAX_RANGE = 100_000

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
"""Methods that make no more than they are given; texts have those of `BOUNDED_METHODS` as well."""
_OF_JINJA = frozenset(("_loop_vars", "_block_vars"))
"""Arguments that Jinja2 adds to each call."""
_SPLITS = frozenset(("split", "rsplit", "splitlines"))


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

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._metered(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._metered(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._metered(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self._metered(super().visit_Compare, node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if isinstance(node.arg, nodes.Slice):
            self._metered(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_EvalContextModifier(self, node: nodes.EvalContextModifier, frame: Frame) -> None:
        if not all(isinstance(option.value, nodes.Const) for option in node.options):
            self.fail("`autoescape` takes true or false here", node.lineno)
        super().visit_EvalContextModifier(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _VariableTracker(MeteredCodeGenerator, TrackingCodeGenerator):
    pass


def undeclared_variables(tree: nodes.Template) -> set[str]:
    assert tree.environment is not None
    tracker = _VariableTracker(tree.environment)
    tracker.optimizer = None  # it computes constants, whatever the environment says
    tracker.visit(tree)
    return tracker.undeclared_identifiers


class MeteredEnvironment(SandboxedEnvironment):
    """No loader, allow-lists of filters and methods, metered operations. Safe from any thread."""

    code_generator_class = MeteredCodeGenerator
    intercepted_binops = frozenset(("+", "*", "**", "%"))
    methods = METHODS
    text_filters = TEXT_FILTERS

    def __init__(self, filters: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        super().__init__(optimized=False, finalize=self.written, **options)
        self._local = threading.local()
        self.globals = {"range": bounded_range, "dict": dict, "namespace": Namespace}
        self.filters = {name: self._filter(name, act) for name, act in filters.items()}
        self.filters["_turns"] = self._turns
        self._methods = {name: self._filter(name, act) for name, act in BOUNDED_METHODS.items()}

    @property
    def meter(self) -> TemplateMeter:
        return getattr(self._local, "meter", None) or TemplateMeter()

    @contextmanager
    def metering(self, meter: TemplateMeter) -> Iterator[None]:
        """Meter one rendering; a nested one has its own meter."""
        before = getattr(self._local, "meter", None)
        self._local.meter = meter
        try:
            yield
        finally:
            self._local.meter = before

    def with_metered_loops(self, tree: nodes.Template) -> nodes.Template:
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_turns", [], [], None, None, lineno=loop.lineno)
        return tree.set_environment(self)  # type: ignore[return-value]

    def made(self, value: Any) -> Any:
        return self.meter.made(value)

    def written(self, value: Any) -> str:
        """Account for output of `{{ }}`."""
        if isinstance(value, str):
            return self.made(value)  # type: ignore[no-any-return]  # the same text
        return self.made(self.text(self.made(value)))  # type: ignore[no-any-return]

    def text(self, value: Any) -> str:
        if isinstance(value, JINJA_INTERNALS):
            raise TemplateLimitExceeded("a namespace, macro or `loop` cannot be written as text")
        if isinstance(value, list | tuple | dict):
            check_values(value)
        return value if isinstance(value, str) else str(value)

    def _filter(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        reads_text = name in self.text_filters or name in BOUNDED_METHODS
        writes_text = reads_text and name not in UNWRITTEN

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
                if writes_text and isinstance(value, list | tuple | dict):
                    check_values(value)
            return self.made(act(*args, **kwargs))

        # Jinja2 reads from this attribute whether a filter takes context or environment first.
        if hasattr(act, "jinja_pass_arg"):
            run.jinja_pass_arg = act.jinja_pass_arg  # type: ignore[attr-defined]
        return run

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Check the size of the result, then compute it."""
        if operator == "%" and isinstance(left, str):
            check_values(right)
            check_format(left, right if isinstance(right, tuple) else (right,), self.text)
        elif isinstance(left, bool | int) and isinstance(right, bool | int):
            bits, right_bits = int(left).bit_length(), int(right).bit_length()
            n_bits = bits * max(right, 0) if operator == "**" else bits + right_bits
            check_bits(n_bits)
        elif operator == "*":
            check_repeat(left, right)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.meter.add_text(len(left) + len(right))
        elif operator == "**" and not isinstance(left, int | float):
            raise TemplateLimitExceeded("only numbers have powers")
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(getattr(__obj, "__self__", None), list | dict):
            named = (value for name, value in kwargs.items() if name not in _OF_JINJA)
            for argument in (*args, *named):  # it may become part of the list or mapping
                check_values(argument)
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
        if isinstance(obj, str):
            if len(obj) > MAX_PARSED_CHARS and attribute in _SPLITS:
                raise TemplateLimitExceeded(
                    f"it splits a text of more than {MAX_PARSED_CHARS:,} characters"
                )
            if method := self._methods.get(attribute):
                return partial(method, *([self] if hasattr(method, "jinja_pass_arg") else []), obj)
        if self._is_readable(obj, attribute):
            return getattr(obj, attribute, self.undefined(obj=obj, name=attribute))
        return self.undefined(obj=obj, name=attribute)

    def _is_readable(self, obj: Any, attribute: str) -> bool:
        if isinstance(obj, Namespace | LoopContext | Cycler):
            return not attribute.startswith("_")
        if isinstance(obj, tuple):
            return attribute in (*METHODS[list], *getattr(type(obj), "_fields", ()))
        kind = next((kind for kind in self.methods if isinstance(obj, kind)), None)
        return kind is not None and attribute in self.methods[kind]

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow what `getattr` allows (Jinja2 also calls this elsewhere)."""
        return self._is_readable(obj, attr)

    def joined(self, parts: Iterable[Any]) -> str:
        texts = [self.text(self.made(part)) for part in parts]
        self.meter.add_text(sum(map(len, texts)))
        return "".join(texts)

    def concat(self, parts: Iterable[str]) -> str:
        """Join the output of a template, macro or block, checking each part against the limit."""
        meter = self.meter
        kept = []
        n_chars = 0
        for part in parts:
            meter.step()
            n_chars += len(part)
            meter.check_output(n_chars)
            kept.append(part)
        meter.add_text(n_chars)
        return "".join(kept)

    def _turns(self, values: Any) -> Iterator[Any]:
        step = self.meter.step
        for value in values:
            step()
            yield value


def closed_attribute_message(attribute: str) -> str:
    return f"it reads '{attribute}', and names that begin with two underscores are not allowed"


def bounded_range(*args: int) -> range:
    made = range(*args)
    if len(made) > MAX_RANGE:
        raise TemplateLimitExceeded(f"its `range` has more than {MAX_RANGE:,} numbers")
    return made

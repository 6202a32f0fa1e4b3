"""Jinja2 environments that meter what a template does: loops, calls, literals and output.

Each turn of a loop and each new value passes the environment's `TemplateMeter`. A sandbox derives
from `MeteredEnvironment` and adds what it allows: filters, methods, operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import SandboxedEnvironment

from .template_limits import MAX_TEXT_CHARS, TemplateMeter


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

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class MeteredEnvironment(SandboxedEnvironment):
    """Jinja2's sandbox with a meter; `filters` must have `_turns`, for the loops."""

    code_generator_class = MeteredCodeGenerator
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    @property
    def meter(self) -> TemplateMeter:
        """The meter of the current rendering."""
        raise NotImplementedError

    def with_metered_loops(self, tree: nodes.Template) -> nodes.Template:
        """Meter the items of every `for` loop of a template, and return it."""
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_turns", [], [], None, None, lineno=loop.lineno)
        return tree.set_environment(self)  # type: ignore[return-value]

    def made(self, value: Any) -> Any:
        """Count a new value and return it."""
        return self.meter.made(value)

    def text(self, value: Any) -> str:
        """Return a value as the output shows it."""
        return str(value)

    def joined(self, parts: Iterable[Any]) -> str:
        """Evaluate `a ~ b`."""
        return self.concat([self.text(self.made(part)) for part in parts])

    def concat(self, parts: Iterable[str]) -> str:
        """Join the output of a template, macro or block, up to the limit."""
        meter, kept, n_chars = self.meter, [], 0
        for part in parts:
            meter.step()
            n_chars += len(part)
            if n_chars > MAX_TEXT_CHARS:
                break
            kept.append(part)
        meter.add_text(n_chars)
        return "".join(kept)

    def _turns(self, values: Any) -> Iterator[Any]:
        step = self.meter.step
        for value in values:
            step()
            yield value

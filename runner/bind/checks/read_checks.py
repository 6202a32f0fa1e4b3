"""Check reads of steps, blocks and loop variables against their known values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from paddock.engine.system.template_sandbox import METHODS
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import (
    LIST_ELEMENT,
    Expression,
    ExpressionError,
    Reference,
    Template,
)
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Block
from paddock.pipelines.references import ReferenceUse
from paddock.pipelines.validation import FaultCollector
from paddock.steps.facts import Facts
from paddock.steps.param_types import GroupedList, GroupField, RowsParam

from ..answer_names import OF_WHOLE
from ..node_reads import LOOP_ATTRIBUTES
from ..parameters import ParameterBinder
from .known_values import KIND_NAMES, KnownValues


class ReadChecker:
    def __init__(self, known: KnownValues, checks: FaultCollector) -> None:
        self._known = known
        self._checks = checks

    def check_loop_list(self, block: Block) -> None:
        at, tree = (*block.at, "for_each"), block.over.tree
        for name, columns in self._known.unknown_columns(tree):
            what = f"the rows that block '{block.id}' unnests have no column '{name}'"
            self._checks.add(at, what, did_you_mean(name, columns))
        if (over := self._known.kind_of_expression(tree)) in (str, float, bool):
            what = f"block '{block.id}' goes over {KIND_NAMES[over]}, which is no list"
            self._checks.add(at, what, "Name a list, such as `steps.docs.files`.")

    def check_parameters(
        self, parameters: ParameterBinder, facts: Facts, templates: Mapping[str, Template]
    ) -> None:
        """Check what the parameters of a step get, as far as it is known.

        1. An expression is of a kind that its parameter does not take.
        2. Rows of a table are results of a block, and these are no rows.
        3. What groups results is a text without an expression, or a field that they have not.
        4. A text reads a field of results that they have not.
        """
        step = parameters.step
        at = (*step.at, "with")
        places = (path for path in step.params.expressions if len(path) == 1)
        kinds = {str(path[0]): self._known.kind_of(step.params, path) for path in places}
        parameters.check_kinds(kinds)  # 1
        blocks: dict[str, Reference] = {}  # whose results a parameter has, or a name of its texts
        for (*above, name), made in step.params.expressions.items():
            match made.chain:
                case ("steps", block, "results") if above in ([], [facts.names]):
                    blocks[str(name)] = ("steps", block)
        rows, by_name = facts.param(RowsParam), facts.param(GroupField)
        item = self._known.element_of(blocks.get(rows, ())).kind
        if item not in (None, dict):  # 2
            what = f"each result of '{blocks[rows][1]}' is {KIND_NAMES[item]}, not a row"
            self._checks.add((*at, rows), what, "Give the block `returns: {name: …}`.")
        if (by := templates.get(by_name)) is not None:  # 3
            names = parameters.reads_names(by_name) or frozenset()
            source = blocks.get(facts.param(GroupedList), ())
            self._check_grouping((*at, by_name), by, names, source)
        for name, template in templates.items():  # 4
            for path in sorted(template.element_reads(blocks)):
                self._check_field((*at, name), blocks[path[0]], path[2])

    def _check_grouping(
        self, at: Place, by: Template, names: frozenset[str], source: Reference
    ) -> None:
        """Check the text by which the elements of `source` are grouped, each under `names`."""
        text = by.source.strip()
        if by.references:
            for name in sorted(
                {read[1] for read in by.references if read[0] in names and read[1:]}
            ):
                self._check_field(at, source, name)
            return
        if not re.fullmatch(r"[\w.]+", text):
            with suppress(ExpressionError):
                if any(read[0] in names for read in Expression.of(text).references):
                    what = f"`{at[-1]}`: '{text}' is only a text here"
                    self._checks.add(at, what, f"Did you mean `{{{{ {text} }}}}`?")
                    return
        self._check_field(at, source, text.partition(".")[0])

    def check_reference(
        self, use: ReferenceUse, parameters: Mapping[Place, ParameterBinder]
    ) -> None:
        """Check a reference, once all steps and blocks are known; `parameters` are by step.

        1. It names an output of a step or block.
        2. It names an attribute of a block's `loop`.
        3. It names a field of a loop variable, whose block goes over known results.
        4. It stands in a text that the step renders, perhaps with names of its own.
        """
        at, (root, *path) = use.at, use.reference
        if root == "steps":  # 1
            self._check_output(at, use.reference)
        elif root == "loop" and "loop" in use.names:  # 2
            if path and path[0] not in LOOP_ATTRIBUTES:
                remedy = did_you_mean(path[0], LOOP_ATTRIBUTES)
                self._checks.add(at, f"`loop` of a block has no '{path[0]}'", remedy)
        elif path and (over := self._known.source_of_loop(at, root)) is not None:  # 3
            self._check_field(at, over, path[0])
        elif use.is_open and root not in use.names and "with" in at:  # 4
            split = at.index("with")
            of_step = parameters.get(at[:split])
            added = of_step.reads_names(str(at[split + 1])) if of_step else None
            if added is not None and root not in added:
                remedy = did_you_mean(root, sorted(use.names | added))
                self._checks.add(at, f"'{root}' is not known here", remedy)

    def _check_output(self, at: Place, reference: Reference) -> None:
        if len(reference) < 2:
            return
        _, step, *path = reference
        known = self._known.outputs_of(step)
        is_source = at[-2:] == ("reply", "evidence") and not path
        if is_source and known.names is not None and not {"text", "hits"} & {*known.names}:
            remedy = "Name a step that reads a document, such as 'files.read', or one of its texts."
            self._checks.add(at, f"`evidence`: step '{step}' has no text", remedy)
        if not path or path[0] == "skipped":
            return
        name, *inside = path
        if path[:2] == ["results", LIST_ELEMENT]:
            self._check_field(at, ("steps", step), path[2])
        if known.names is not None and name not in known.names:
            remedy = did_you_mean(name, known.names)
            self._checks.add(at, f"step '{step}' has no output '{name}'", remedy)
        if name in known.absent:
            added = "schema" if name == "output" else name
            remedy = f"Add `{added}` under the `reply` of step '{step}'."
            remedy += " Without one, read `text`." if name == "output" else ""
            self._checks.add(at, f"`steps.{step}.{name}` is null", remedy)
        answer = known.answer if name in ("output", *OF_WHOLE) else None
        fields = (*(answer or ()), *(OF_WHOLE[name](None) if name in OF_WHOLE else ()))
        if answer is not None and inside and inside[0] not in fields:
            what = f"the answer of step '{step}' has no field '{inside[0]}'"
            self._checks.add(at, what, did_you_mean(inside[0], fields))

    def _check_field(self, at: Place, source: Reference, field: str) -> None:
        """Check that the elements of a block's results, or of an input, have a field."""
        fields = self._known.element_of(source).fields
        if fields is not None and field not in (*fields, *METHODS[dict]):
            name = source[1] if source[0] == "steps" else ".".join(source)
            what = f"the results of '{name}' have no field '{field}'"
            self._checks.add(at, what, did_you_mean(field, fields))

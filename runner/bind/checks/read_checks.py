"""What is read of steps, blocks and loop variables, checked against what is known of these.

So for the kinds of values (`value_kinds`): what a step would refuse only in a run, behind the model
calls before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import LIST_ELEMENT, Reference, Template
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Block, Pipeline, StepNode
from paddock.pipelines.references import ReferenceUse
from paddock.pipelines.template_sandbox import METHODS
from paddock.pipelines.validation import FaultCollector
from paddock.steps.base import Step
from paddock.steps.facts import Facts
from paddock.steps.registry import facts_of_kind, takes_reply

from ..answer_names import NAMES_OF_WHOLE, OF_WHOLE
from ..bound import BoundPlan
from ..parameters import ParameterBinder
from ..specs import reply_spec
from ..step_reads import LOOP_ATTRIBUTES
from .reply_faults import reply_fields
from .value_kinds import BLOCK_OUTPUTS, KIND_NAMES, ValueKinds

_RESULTS = re.compile(r"steps\.([a-z][a-z0-9_]*)\.results")


@dataclass(frozen=True, slots=True)
class KnownOutputs:
    """What is known of the outputs of a step or block before a run; None: only a run shows it."""

    names: tuple[str, ...] | None = None
    answer: tuple[str, ...] | None = None
    """The fields of a step's answer, where its schema tells them."""
    absent: frozenset[str] = frozenset()
    """What of `OF_WHOLE` its `reply` does not ask for."""
    results: tuple[str, ...] | None = None
    """The fields of a block's results, where they are written down."""


class ReadChecker:
    """Checks what is read of steps and blocks, which are added in the file's order.

    What is wrong is added to `checks`.
    """

    def __init__(
        self, pipeline: Pipeline, inputs: Mapping[str, Any], checks: FaultCollector
    ) -> None:
        self._checks = checks
        self._columns = {
            name: spec.columns or getattr(inputs.get(name), "types", {})
            for name, spec in pipeline.inputs.items()
            if spec.type == "rows"
        }
        self.kinds = ValueKinds(self._columns)
        self._outputs: dict[str, KnownOutputs] = {}
        """By step and block; by `inputs.NAME` the columns of one that is rows."""
        self._loops: list[tuple[Place, str, str]] = []
        """Blocks that go over known results: their places, variables, and whose results."""

    def add_step(self, step: StepNode, kind: type[Step[Any, Any]], inner: BoundPlan | None) -> None:
        self.kinds.add_step(step.id, kind, step.reply, step.returns, step.written)
        if step.returns is not None:
            data = step.returns.data
            self._outputs[step.id] = KnownOutputs(tuple(data) if isinstance(data, dict) else None)
            return
        is_open = kind.output.model_config.get("extra") == "allow"
        names = None if is_open else tuple(kind.output.model_fields)
        answer, absent = None, frozenset[str]()
        is_one_answer = facts_of_kind(kind).is_one_answer(step.params.data)
        if step.reply is not None and is_one_answer:
            answer = reply_fields(step.reply)
        if takes_reply(kind):
            spec = reply_spec(step.reply) if step.reply is not None else {}
            absent = frozenset(OF_WHOLE) - spec.keys()
            value = kind.output.model_fields.get("output")
            is_null = value is not None and value.default is None and spec.get("schema") is None
            if is_null and is_one_answer:
                absent |= {"output"}
        names = names if inner is None else inner.output_names
        self._outputs[step.id] = KnownOutputs(names, answer, absent)

    def enter_block(self, block: Block) -> None:
        """Check what a block goes over, before its steps are added."""
        at, tree = (*block.at, "for_each"), block.over.tree
        self.kinds.enter_block(block.var, tree)
        for name, columns in self.kinds.unknown_columns(tree):
            what = f"the rows that block '{block.id}' unnests have no column '{name}'"
            self._checks.add(at, what, did_you_mean(name, columns))
        if (over := self.kinds.of_expression(tree)) in (str, float, bool):
            what = f"block '{block.id}' goes over {KIND_NAMES[over]}, which is no list"
            self._checks.add(at, what, "Name a list, such as `steps.docs.files`.")

    def add_block(self, block: Block) -> None:
        self.kinds.add_block(block.id, block.returns)
        if block.returns is None:
            last = block.body[-1].id if block.body else ""
            results = self._outputs.get(last, KnownOutputs()).names
        else:
            written = block.returns.data
            results = tuple(written) if isinstance(written, dict) else None
        self._outputs[block.id] = KnownOutputs(tuple(BLOCK_OUTPUTS), results=results)
        if found := _RESULTS.fullmatch(block.over.source.strip()):
            self._loops.append((block.at, block.var, found[1]))
        match block.over.chain:
            case ("inputs", name) if self._columns.get(name):
                source = f"inputs.{name}"
                self._loops.append((block.at, block.var, source))
                self._outputs[source] = KnownOutputs(results=tuple(self._columns[name]))

    def table_columns(
        self, step: StepNode, facts: Facts
    ) -> Mapping[tuple[str | int, ...], Mapping[str, str]]:
        """Return the columns of the tables that a step takes, as far as they are known."""
        found = {}
        for path, made in step.params.expressions.items():
            columns = self.kinds.columns_of(made.tree) if path[0] == facts.table else None
            if columns is not None:
                found[path] = columns
        return found

    def check_values(
        self, parameters: ParameterBinder, facts: Facts, templates: Mapping[str, Template]
    ) -> None:
        """Check the kinds of a step's parameters, and what these read of blocks' results."""
        step = parameters.step
        at, written = (*step.at, "with"), step.params.data
        places = (path for path in step.params.expressions if len(path) == 1)
        kinds = {str(path[0]): self.kinds.of(step.params, path) for path in places}
        parameters.check_kinds(kinds)
        added = written.get(facts.names)
        names = {**written, **added} if isinstance(added, dict) else written
        blocks = {
            name: found[1]
            for name, text in names.items()
            if isinstance(text, str) and (found := _RESULTS.fullmatch(text.strip("{ }")))
        }
        table, group_by = facts.table, facts.group_by
        item = self.kinds.items.get(blocks.get(table, ""))
        if item not in (None, dict):
            what = f"each result of '{blocks[table]}' is {KIND_NAMES[item]}, not a row"
            self._checks.add((*at, table), what, "Give the block `returns: {name: …}`.")
        by = written.get(group_by)
        if isinstance(by, str) and re.fullmatch(r"[\w.]+", by):
            self._check_result((*at, group_by), blocks.get(facts.grouped, ""), by.partition(".")[0])
        for name, template in templates.items():
            for path in sorted(template.element_reads(blocks)):
                self._check_result((*at, name), blocks[path[0]], path[2])

    def check_use(self, use: ReferenceUse, parameters: Mapping[Place, ParameterBinder]) -> None:
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
        elif path and (over := self._results_of_loop(at, root)) is not None:  # 3
            self._check_result(at, over, path[0])
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
        known = self._outputs.get(step, KnownOutputs())
        is_source = at[-2:] == ("reply", "evidence") and not path
        if is_source and known.names is not None and not {"text", "hits"} & {*known.names}:
            remedy = "Name a step that reads a document, such as 'files.read', or one of its texts."
            self._checks.add(at, f"`evidence`: step '{step}' has no text", remedy)
        if not path or path[0] == "skipped":
            return
        name, *inside = path
        if path[:2] == ["results", LIST_ELEMENT]:
            self._check_result(at, step, path[2])
        if known.names is not None and name not in known.names:
            remedy = did_you_mean(name, known.names)
            self._checks.add(at, f"step '{step}' has no output '{name}'", remedy)
        if name in known.absent:
            added = "schema" if name == "output" else name
            remedy = f"Add `{added}` under the `reply` of step '{step}'."
            remedy += " Without one, read `text`." if name == "output" else ""
            self._checks.add(at, f"`steps.{step}.{name}` is null", remedy)
        answer = known.answer if name in ("output", *OF_WHOLE) else None
        fields = (*(answer or ()), *NAMES_OF_WHOLE.get(name, ()))
        if answer is not None and inside and inside[0] not in fields:
            what = f"the answer of step '{step}' has no field '{inside[0]}'"
            self._checks.add(at, what, did_you_mean(inside[0], fields))

    def _results_of_loop(self, at: Place, var: str) -> str | None:
        """Return whose results a loop variable stands for, at a place of the file."""
        over = ((place, source) for place, name, source in self._loops if name == var)
        return next((source for place, source in over if at[: len(place)] == place), None)

    def _check_result(self, at: Place, source: str, field: str) -> None:
        fields = self._outputs.get(source, KnownOutputs()).results
        if fields is not None and field not in (*fields, *METHODS[dict]):
            what = f"the results of '{source}' have no field '{field}'"
            self._checks.add(at, what, did_you_mean(field, fields))

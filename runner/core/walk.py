"""One walk over a plan and over the steps of an item: what becomes of a node is decided here.

`Execute` acts on these decisions, `runner.dry_run.estimate.PlanWalk` says what a run would do.
Both have one method for each thing that becomes of a node. While planning, what a node gives may
not be known before a run: then it is `NOT_YET`, and so is what reads it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

from paddock.engine.system.text import listed
from paddock.pipelines.expressions import ExpressionError, Reference, step_of, steps_read
from paddock.pipelines.typed_rows import without_types
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.progress.drain import StopGateClosed

from .block_state import OUTERMOST, BlockState, EnclosingItems
from .failures import Cause, ItemWaits, RunFailed, StepFailed
from .left_nodes import LackingItems, LeftBy, LeftNode, StepsLeft, lacking_of, no_documents_of
from .opened_blocks import opened_block
from .outputs.outdated_outputs import EndedNode, OutdatedOutput, find_outdated
from .outputs.same_output_file import refuse_written_by_others

if TYPE_CHECKING:
    from .run_context import RunContext
    from .run_stats import RunStats
    from .traces.scopes import ItemKey

NOT_YET: Any = object()
"""The outputs of a node that has to run first. Only while planning."""


class Walk(ABC):
    """A walk over the steps and blocks of one pipeline, also one that a step runs."""

    def __init__(self, context: RunContext, enclosing: EnclosingItems = OUTERMOST) -> None:
        """`enclosing`: the items around a pipeline that a step of an item runs."""
        self.context = context
        self.enclosing = enclosing
        self.is_of_item = enclosing.is_of_item
        self.bound = context.bound
        self.stats = context.stats
        secrets = context.stats.secrets.of(context.bound.file)
        self.scope = Scope.of(context.bound.inputs, secrets, context.bound.moment)
        self.left = StepsLeft(context.stats.note)
        self.has_unbegun = False
        """Whether something was not begun, or not finished, since the stop gate was closed."""
        self.n_unbegun = 0
        """How many items were not begun."""
        self.has_failures = False
        self.n_failures = 0
        """The most failures in a row of an item for transient reasons; 0: none is retried."""
        self.ended: dict[str, EndedNode] = {}
        """What applies of each top-level step and block that has ended, as far as it is known."""
        self.sources = _sources_of(self.bound)
        self._has_ended = {node.id: asyncio.Event() for node in context.bound.nodes}

    async def nodes(self) -> None:
        """Walk every node as soon as those before it have ended; handle what is outdated then."""
        refuse_written_by_others(self.context, self.scope)
        failed: RunFailed | None = None
        try:
            await self.each(self.bound.nodes)
        except RunFailed as error:
            failed = error
        # What no complete walk reaches is outdated: a walk over some items is none.
        if not (self.is_of_item or self.context.options.leaves_out_items):
            await self.outdated(*await find_outdated(self.context, self.ended))
        if failed is not None:
            raise failed

    async def node(self, node: BoundNode) -> None:
        """Decide what becomes of a node.

        1. It waits until those before it have ended; one with items until all lists are known that
           can be, since of another block an item may leave whose path one here gets.
        2. The stop gate is closed: it is not begun.
        3. What it reads is not whole: it is left as it is.
        4. What it reads has to run first: what it would do is not known. Only while planning.
        5. It reads what was skipped, its `if` is false, or only skipped ones use it: it is skipped.
        6. A block: its items are judged, and those with work to do are done.
        7. A step that calls a model, or only writes files: the same, as a block of one item.
        8. Any other step; one that runs a pipeline walks that (`record_sub_pipeline`).
        9. Its outputs are handed on. What has to wait for a person, or to run first, has none.
        """
        before = self.bound.edges.get(node.id, frozenset())
        has_items = isinstance(node, BoundBlock) or node.has_trace
        for earlier in before | node.known_by | (self.sources if has_items else frozenset()):  # 1
            await self._has_ended[earlier].wait()
        if self.context.stop_gate.is_closed:  # 2
            self.has_unbegun = True
        elif (left := self.left.why(node, before, self.scope)) is not None:  # 3
            self.left.reasons[node.id] = left
            await self.leave(node, left)
        else:
            self.left.note_missing(node, self.scope)
            outputs: Any = NOT_YET
            try:
                with self.show(node):
                    try:
                        if await self.has_to_wait(node):  # 4
                            pass
                        elif is_skipped(node, self.scope) or leave_unused(
                            node, self.scope, self.stats
                        ):  # 5
                            outputs = None
                            await self.skip(node)
                        elif isinstance(node, BoundBlock) or node.has_trace:  # 6, 7
                            state = await self.opened(node)
                            self._note_end(state, await self.items(state))
                            outputs = self.outputs_of(state)
                        else:  # 8
                            outputs = await self.step(node)
                    except ItemWaits as wait:
                        self.left.reasons[node.id] = LeftNode(LeftBy.AWAITED, wait=wait)
                    if outputs is not NOT_YET:  # 9
                        self.scope = self.scope.with_step(node.id, outputs)
            except StopGateClosed as closed:
                self.has_unbegun = True
                self.n_unbegun += closed.n_items
            except (StepFailed, ExpressionError) as error:
                self.fail(node, error)
        self._has_ended[node.id].set()

    def _note_end(self, state: BlockState, applies: EndedNode | None) -> None:
        if state.is_partial:
            self.left.reasons[state.block.id] = LeftNode(LeftBy.PARTIAL)
        if applies is not None:
            self.ended[state.block.id] = applies
        self.has_failures |= state.has_failures
        self.n_failures = max(self.n_failures, state.n_failures)

    def outputs_of(self, state: BlockState) -> Any:
        """Return the outputs of a block, or of a step that has a trace; note what they lack.

        Raises:
            ItemWaits: they have to wait.
        """
        block, left = state.block.id, self.left
        if state.step is not None:
            if state.wait is not None:
                raise state.wait
            return state.work.items[0].result if state.has_ended else NOT_YET
        if self.is_of_item:
            state.refuse_waiting()
        elif missing := no_documents_of(state.work):
            left.lacking[block] = missing
        if not state.has_ended:
            return NOT_YET
        if (lacking := state.lacking(self.context)) is not None:
            left.lacking.setdefault(block, lacking)
        return state.outputs()

    async def opened(self, node: BoundNode) -> BlockState:
        """Return a block, or a step that has a trace, with its items judged."""
        return await opened_block(
            self.context,
            node,
            self.scope,
            enclosing=self.enclosing,
            keeps_results=self.keeps_results(node),
            lacks=self.left.missing_inputs.get(node.id, ()),
        )

    def record_sub_pipeline(self, step: BoundStep, inner: Walk) -> None:
        """Note how a pipeline ended that a step ran.

        Raises:
            StopGateClosed, ItemWaits: something in it was not begun, or waits.
        """
        if inner.has_unbegun:
            raise StopGateClosed(inner.n_unbegun)
        if (awaited := inner.left.first_left(LeftBy.AWAITED)) and awaited.wait:
            raise awaited.wait
        if inner.left.first_left(LeftBy.PARTIAL):
            self.left.reasons[step.id] = LeftNode(LeftBy.PARTIAL)
        without_results = inner.left.first_left(LeftBy.WITHOUT_RESULTS)
        if without_results is not None and not inner.is_of_item:
            self.left.reasons.setdefault(step.id, without_results)

    # --- what `Execute` does, and `PlanWalk` says

    @abstractmethod
    async def each(self, nodes: Iterable[BoundNode]) -> None:
        """Walk these nodes, together or one after the other."""

    def show(self, node: BoundNode) -> AbstractContextManager[None]:
        return nullcontext()

    def keeps_results(self, node: BoundNode) -> bool:
        """Return whether what reads a block needs its results, which stay in memory then."""
        return True

    @abstractmethod
    async def leave(self, node: BoundNode, left: LeftNode) -> None: ...

    async def has_to_wait(self, node: BoundNode) -> bool:
        """Return whether what a node reads has to run first; note what may be known of it then."""
        return False

    @abstractmethod
    async def skip(self, node: BoundNode) -> None: ...

    @abstractmethod
    def items(self, state: BlockState) -> Awaitable[EndedNode | None]:
        """Do the items that have work to do; while planning, some may not end.

        Return what of a block of the pipeline itself applies, as far as that is known.
        """

    @abstractmethod
    async def step(self, step: BoundStep) -> Any:
        """Return the outputs of any other step, or `NOT_YET`."""

    @abstractmethod
    def fail(self, node: BoundNode, error: StepFailed | ExpressionError) -> NoReturn: ...

    @abstractmethod
    async def outdated(
        self, outdated: Sequence[OutdatedOutput], questions: Collection[ItemKey]
    ) -> None:
        """Remove or name outdated outputs, and drop the questions of these items."""


class ItemWalk:
    """The walk over the steps of one item, or of a pipeline that one of them runs."""

    def __init__(self, body: Iterable[BoundNode], scope: Scope) -> None:
        self.scope = scope
        """What the next step sees."""
        self.last: Any = None
        self._body = body
        self._lacking: dict[str, LackingItems] = {}

    def nodes(self, skip: Callable[[BoundNode, Scope], bool]) -> Iterator[BoundNode]:
        """Yield the nodes to do, in order; each is handed on before the next.

        `skip` notes that a node is skipped, and returns whether it is.

        1. It would read the results of a nested block, of which all items failed: the item fails.
        2. It reads what was skipped, its `if` is false, or only skipped ones use it: it is skipped.
        3. Any other is to do.
        """
        for node in self._body:
            for lack in lacking_of(node.reads.all, self._lacking):  # 1
                if not lack.n_with_result:
                    cause = Cause.IO if lack.is_transient else Cause.OTHER
                    raise StepFailed(node.id, f"{lack.left_reason()}: {lack.error}", cause=cause)
            if skip(node, self.scope):  # 2
                self.hand_on(node, None)
            else:  # 3
                yield node

    def hand_on(self, node: BoundNode, outputs: Any, lacking: LackingItems | None = None) -> None:
        """Note what the nodes behind one see of it; `lacking`: its items without results."""
        self.last, self.scope = outputs, self.scope.with_step(node.id, outputs)
        if lacking is not None:
            self._lacking[node.id] = lacking


def item_result(block: BoundBlock, scope: Scope, last: Any) -> Any:
    """Return an item's result, None where a filter left it out; `last`: its last step's outputs.

    Raises:
        StepFailed: its `returns` cannot be evaluated.
    """
    if block.keep is not None and not block.keep.evaluate(scope):
        return None
    if block.returns is None:
        return without_types(last)
    try:
        return block.returns.render(scope)
    except ExpressionError as error:
        raise StepFailed(block.id, f"`returns`: {error}") from error


def step_outputs(step: BoundStep, scope: Scope, outputs: Mapping[str, Any]) -> Any:
    if step.returns is None:
        return outputs
    return step.returns.render(scope.with_step(step.id, outputs))


def _sources_of(bound: BoundPlan) -> frozenset[str]:
    """Return the steps that only list and read files, before any items are done."""
    sources = frozenset[str]()
    for node in bound.nodes:
        before = bound.edges.get(node.id, frozenset()) | node.known_by
        is_pure = isinstance(node, BoundStep) and node.kind.is_pure and not node.has_trace
        sources |= {node.id} if is_pure and before <= sources else frozenset()
    return sources


def is_skipped(node: BoundNode, scope: Scope, upheld: Collection[str] = ()) -> bool:
    """Return whether `if` is false, or a node reads a skipped step and not whether it is skipped.

    `upheld`: the nodes whose `if` skips none (`standing_decisions`).

    Raises:
        StepFailed: its condition cannot be evaluated.
    """
    read = node.reads.before_answer
    for path in read:
        step = step_of(path)
        if step and scope.is_skipped(step) and (*path[:2], "skipped") not in read:
            return True
    if node.if_ is None or node.id in upheld:
        return False
    try:
        return not node.if_.evaluate(scope)
    except ExpressionError as error:
        raise StepFailed(node.id, str(error)) from error


def leave_unused(
    node: BoundNode, scope: Scope, stats: RunStats, item: str = "", upheld: Collection[str] = ()
) -> bool:
    """Count an answer that is not asked for, since all that would use it is skipped.

    Return whether it is one.
    """
    if not _are_surely_skipped(node.consumers, scope, {}, upheld):
        return False
    names = listed([repr(other.id) for other in node.consumers], 3)
    are = "uses it and is" if len(node.consumers) == 1 else "use it and are"
    what = f"not asked for, since only {names} {are} skipped"
    stats.tally(node.id, item, "answer", what, is_planned=True)
    return True


def returns_read(bound: BoundPlan) -> frozenset[Reference]:
    return frozenset() if bound.returns is None else bound.returns.references


def _are_surely_skipped(
    nodes: Collection[BoundNode], scope: Scope, known: dict[str, bool], upheld: Collection[str]
) -> bool:
    # Without closures: two that call each other would keep the texts of an item in memory.
    for node in nodes:
        if node.id not in known:
            read = () if node.if_ is None else node.if_.references
            try:
                known[node.id] = steps_read(read) <= scope["steps"].keys() and (
                    is_skipped(node, scope, upheld)
                    or _are_surely_skipped(node.consumers, scope, known, upheld)
                )
            except StepFailed:  # told where it is done
                known[node.id] = False
        if not known[node.id]:
            return False
    return bool(nodes)

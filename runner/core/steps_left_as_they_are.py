"""Steps and blocks that are left as they are, since what they read is not whole.

Only some items were done (`--only`, a sample), a person has to decide first, items failed and none
has a result, all documents are missing, or what they read was left itself. What they made before
stays, in place of something made of a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from paddock.pipelines.expressions import ExpressionError, Reference
from paddock.runner.bind.bound import BoundNode
from paddock.runner.bind.scope import Scope

from .block_state import BlockState
from .filed_items import reads_new_items
from .lacking_items import LackingItems, blocks_read, lacking_of
from .run_reviews import AwaitingReview


def left_text(node: str, why: str) -> str:
    return f"'{node}' is left as it is: {why}."


@dataclass(slots=True)
class StepsLeft:
    """Steps and blocks of one pipeline that are left as they are, and what makes others so."""

    partial: set[str] = field(default_factory=set)
    """Blocks that `--only` or a sample did in part, and what reads them."""
    awaited: dict[str, AwaitingReview] = field(default_factory=dict)
    """Nodes that wait for a person's decision, and those that read them."""
    lacking: dict[str, LackingItems] = field(default_factory=dict)
    """Blocks of which items failed or wait, or all documents are missing."""
    filed: dict[str, bool] = field(default_factory=dict)
    """Blocks, and steps that run pipelines, with filed items, and whether they have others."""
    pipelines: set[str] = field(default_factory=set)
    """Steps that ran pipelines."""
    without_news: dict[str, str] = field(default_factory=dict)
    """Nodes that read nothing new, and why: so does what reads them."""
    without_results: dict[str, str] = field(default_factory=dict)
    """Nodes that have nothing to read, and why: so has what reads them."""

    def is_read_by(self, references: frozenset[tuple[str, ...]]) -> bool:
        left = {*self.partial, *self.awaited, *self.without_results}
        return any(
            path[0] == "steps" and left.intersection(path[1:2] or left) for path in references
        )

    def why(
        self, node: BoundNode, before: frozenset[str], scope: Scope, note: Callable[[str], None]
    ) -> str | None:
        """Return why a node is left as those before it were; None: it runs.

        `note` is called with the items that it lacks then.
        """
        if partial := self.partial & before:
            self.partial.add(node.id)
            return f"only some items of '{min(partial)}' were done"
        if waits := self.awaited.keys() & before:
            wait = self.awaited[node.id] = self.awaited[min(waits)]
            verb = "waits for review" if wait.is_asked else "is left, as is its review"
            return f"'{min(waits)}' {verb}"
        why = self._without_results(node, before, scope, note)
        if why is not None:
            self.without_results[node.id] = why
        return why or self.why_idle(node, before)

    def why_idle(self, node: BoundNode, before: frozenset[str]) -> str | None:
        """Return why a node reads nothing new; None: it does."""
        why = None
        if left := self.without_news.keys() & before:
            why = f"'{min(left)}' is, since {self.without_news[min(left)]}"
        elif idle := [n for n in self._read(reads_new_items(node)) if self.filed.get(n) is False]:
            why = f"nothing is new in '{min(idle)}'"
        if why is not None:
            self.without_news[node.id] = why
        return why

    def note_filed(self, run: BlockState) -> None:
        """Note whether a block with filed items has others."""
        if (has_news := run.has_news) is not None:
            self.filed[run.block.id] = has_news

    def note_pipeline(self, step: str, inner: StepsLeft, returns: frozenset[Reference]) -> bool:
        """Note what a pipeline had that a step ran; return whether it was not only filed."""
        self.pipelines.add(step)
        read = inner._read(returns)
        is_idle = bool(read) and all(inner.filed.get(name) is False for name in read)
        if is_idle:
            self.filed[step] = False
        return not is_idle

    def _read(self, references: frozenset[Reference]) -> set[str]:
        """Return the blocks whose results are read, and the pipelines that are."""
        whole = {path[1] for path in references if path[:1] == ("steps",) and len(path) > 1}
        return blocks_read(references) | (whole & self.pipelines)

    def _without_results(
        self, node: BoundNode, before: frozenset[str], scope: Scope, note: Callable[[str], None]
    ) -> str | None:
        """Return why a node has nothing to read; name the items that it lacks."""
        if left := self.without_results.keys() & before:
            return f"'{min(left)}' is, since {self.without_results[min(left)]}"
        lacking = lacking_of(node.references, self.lacking)
        if lacking and self._is_skipped_anyway(node, scope):
            return None
        new = self._read(reads_new_items(node))
        for lack in lacking:
            if lack.leaves(node) and (lack.block in new or lack.block not in self.filed):
                return lack.why_left()
        for lack in lacking:
            note(lack.note(node.id))
        return None

    def _is_skipped_anyway(self, node: BoundNode, scope: Scope) -> bool:
        """Return whether `if` is false, and reads no results that lack items."""
        if node.if_ is None or lacking_of(node.if_.references, self.lacking):
            return False
        try:
            return not node.if_.evaluate(scope)
        except ExpressionError:
            return False

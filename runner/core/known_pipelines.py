"""Which pipeline of the ledger a file is: a renamed one goes on with what it had made.

As with documents, the same text under another name is the same pipeline, and a copy beside the
original is another one. As with blocks, one that was edited, too, is known by the folders that its
blocks are over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import canonical_json, free_name, listed
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import steps_read
from paddock.pipelines.model import Block, Node, StepNode
from paddock.pipelines.plan import read_plan
from paddock.pipelines.yaml_source import MAX_BYTES, text_digest
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.known_paths import YAML_SUFFIXES
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import PipelineRow, ScopeOwner, is_variant
from paddock.runner.progress.reasons import quoted
from paddock.steps.param_types import InputFolder, PipelineFile
from paddock.steps.registry import facts_of
from paddock.steps.tools.code_digests import file_content

if TYPE_CHECKING:
    from paddock.runner.ledger.database.ledger_tables import Execute
    from paddock.runner.ledger.ledger import Ledger

    from .run_context import RunContext
    from .run_options import RunOptions


class KnownPipeline(Struct, frozen=True):
    row: PipelineRow
    """As it is now."""
    file: str
    """Name under which the ledger has what it made, until `record_pipeline`."""
    renames: Mapping[str, str]
    """Names in the ledger → what these files are called from now on, in order."""


class _Folder(Struct, frozen=True, dict=True):
    """The pipelines of a folder that its ledger knows, and its files."""

    base: Path
    rows: tuple[PipelineRow, ...]

    @classmethod
    def of(cls, ledger: Ledger, base: Path) -> _Folder:
        return cls(base, tuple(PipelineRow(*row) for row in ledger.rows(queries.KNOWN_PIPELINES)))

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """The digests of files that may be pipelines, by name."""
        known = {row.file for row in self.rows}
        found = (
            path
            for path in self.base.iterdir()
            if path.name in known or (path.suffix in YAML_SUFFIXES and not is_variant(path.name))
        )
        return {path.name: text_digest(file_content(path, MAX_BYTES + 1)) for path in found}

    def blocks(self, name: str) -> frozenset[str]:
        return _blocks_of(self.base / name, self.texts[name])

    def has_left(self, row: PipelineRow) -> bool:
        """Return whether a pipeline's file is gone, or is another pipeline by now."""
        text = self.texts.get(row.file)
        if text is None or text == row.sha256:
            return text is None
        blocks = self.blocks(row.file)
        is_other = blocks and row.sources and blocks.isdisjoint(row.sources)
        return bool(is_other) or any(text == other.sha256 for other in self.rows)

    def heirs(self, row: PipelineRow, file: str, *, is_same: bool = False) -> set[str]:
        """Return the files without a pipeline of their own, but `file`, that a pipeline may be.

        `is_same`: they have its text; else that, or one of its blocks.
        """
        homes = {each.file for each in self.rows if each is not row and not self.has_left(each)}
        return {
            name
            for name in self.texts.keys() - homes - {file}
            if self.texts[name] == row.sha256
            or not (is_same or self.blocks(name).isdisjoint(row.sources))
        }


def known_pipeline(ledger: Ledger, bound: BoundPlan, options: RunOptions) -> KnownPipeline:
    """Return which pipeline of the ledger a file is. Blocks.

    1. It is the one that ran under its name, unless that has left it, and has its text elsewhere,
       or it is one of 2 by its text.
    2. It is the one that has its text, and has left its own file; else one whose blocks it has.
    3. Where that may be several, or another file, or it has only some of the blocks, a person
       decides. A run that prunes says that it is another one.

    Raises:
        PipelineError: a person has to decide.
    """
    folder, file = _Folder.of(ledger, bound.roots.base), bound.file.name
    by_file = {row.file: row for row in folder.rows}
    own, text = by_file.get(file), bound.pipeline.document.digest  # the file may be gone by now
    if is_variant(file) or (own is not None and own.sha256 == text):
        return KnownPipeline(own or PipelineRow(file, file), file, {})
    blocks = frozenset(_blocks_in(bound.pipeline.steps))
    now = PipelineRow(file, file, text, json.dumps(sorted(blocks)))
    left = [row for row in folder.rows if row is not own and folder.has_left(row)]
    found = [row for row in left if row.sha256 == text]
    renames = dict[str, str]()
    if own is not None:  # 1
        is_elsewhere = found or folder.heirs(own, file, is_same=True)
        if not (is_elsewhere and folder.has_left(own)):
            return KnownPipeline(replace(now, name=own.name), file, {})
        renames[file] = free_name(f"former {file}", by_file)
    is_same = bool(found)
    if not is_same:
        found = [row for row in left if not row.sources.isdisjoint(blocks)]
    others = {name for row in found for name in folder.heirs(row, file, is_same=is_same)}
    if len(found) == 1 and not others and (is_same or found[0].sources <= blocks):  # 2
        renames[found[0].file] = file
        return KnownPipeline(replace(now, name=found[0].name), found[0].file, renames)
    if found and not options.prune:  # 3
        raise _ambiguity(bound, [row.file for row in found], sorted(others))
    name = free_name(file, {row.name for row in folder.rows})
    return KnownPipeline(replace(now, name=name), renames.get(file, file), renames)


def record_pipeline(ledger: Ledger, known: KnownPipeline) -> None:
    """Write which pipeline has the file of a run; its scopes, runs and reviews follow. Blocks.

    Raises:
        LedgerError: it cannot be written.
    """

    def rename(execute: Execute) -> None:
        for names in known.renames.items():
            head_was, head = (f'{{"pipeline": {json.dumps(name)},' for name in names)
            values = {"was": names[0], "file": names[1], "head_was": head_was, "head": head}
            for statement in queries.RENAME_PIPELINE:
                execute(statement, {**values, "n": len(head_was)})

    if known.renames:
        ledger.in_transaction(rename)
    if not is_variant(known.row.file):
        ledger.put_row("pipelines", known.row)


def scopes_of_gone(context: RunContext) -> Iterator[ScopeOwner]:
    """Yield the scopes of the pipelines of a run's folder that no file is, or may be. Blocks.

    After a run that removes what they made no file goes on with one of them.
    """
    ledger, scopes, options = context.ledger, context.judge.scopes, context.options
    folder = _Folder.of(ledger, context.index.base)
    for row in folder.rows if not (scopes.prefix or options.variant_of) else ():
        is_gone = row.name != scopes.name and row.file not in folder.texts
        if is_gone and not folder.heirs(row, context.bound.file.name):
            if options.prune and options.is_confirmed:
                ledger.put_row("pipelines", replace(row, sha256="", blocks="[]"))
            for owner in ledger.rows(queries.SCOPES_OF_FILE, file=row.file):
                yield ScopeOwner.of(*owner)


@lru_cache(maxsize=256)
def _blocks_of(file: Path, sha256: str) -> frozenset[str]:
    """Return the blocks of a file with this content; none where it is no valid pipeline."""
    with suppress(PipelineError):
        plan = read_plan(file)
        if not (plan.faults or plan.pipeline.faults):
            return frozenset(_blocks_in(plan.pipeline.steps))
    return frozenset()


def _blocks_in(steps: tuple[Node, ...]) -> Iterator[str]:
    """Yield the blocks and the pipelines among steps, each by what its items are from.

    A block over a folder is known by that; any other one, and a step, has its id, too.
    """
    nodes = {node.id: node for node in steps}
    for node in steps:
        over, read = list[str](), [node]
        if isinstance(node, Block):
            names = sorted(steps_read(node.over.references) & nodes.keys())
            over, read = [node.over.source], [nodes[name] for name in names]
        elif not facts_of(node.uses).param(PipelineFile):
            continue
        sources, is_of_folder = list[object](), False
        for step in (each for each in read if isinstance(each, StepNode)):
            facts = facts_of(step.uses)
            is_of_folder |= facts.param(InputFolder) in step.written
            other = {
                key: step.written[key] for key in step.written if key != facts.param(PipelineFile)
            }
            sources.append(step.written.get(facts.param(InputFolder), other))
        if len(sources) == len(read):  # else it is over what another block has
            yield canonical_json(["" if is_of_folder else node.id, over, sources])


def _ambiguity(bound: BoundPlan, found: list[str], others: list[str]) -> PipelineError:
    is_gone = "whose file is gone" if len(found) == 1 else "whose files are gone"
    what = f"'{bound.file.name}' has blocks of {listed(quoted(found), 3)}, {is_gone}"
    what += ": it may be that one, renamed"
    what += f", and so may {listed(quoted(others), 3)}." if others else "."
    remedy = (
        f"Give the file that goes on with what '{found[0]}' made that name for one run; or run "
        "this one with `--prune` if it is another pipeline."
    )
    return PipelineError.of(what, remedy, bound.pipeline.document.mark(()))

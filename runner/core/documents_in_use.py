"""Documents of the items that are being done: who has which, and which of them a step moved away.

A step that moves a document may be of an item within, or of a pipeline that a step runs: the
document belongs to the item that it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct, field
from paddock.runner.ledger.filed_store import FiledRow, FiledStore, MoveRow
from paddock.runner.ledger.output_index import OutputIndex
from paddock.steps.base import FiledDocument, StepError
from paddock.steps.paths import printable

from .traces.block_items import is_file_value, item_path
from .traces.scopes import ItemKey

if TYPE_CHECKING:
    from .traces.block_work import BlockWork, ItemWork


class DocumentInUse(Struct, eq=False):
    scope_id: str
    row: FiledRow
    paths: frozenset[str]
    """Where it lies and, if it is filed, where it lay when it was listed, absolute."""
    is_away: bool = False
    """Whether a step moved it away, in this run or an earlier one."""
    leaves: Path | None = None
    """What is deleted once its item is recorded: before, a kill would lose it."""

    @property
    def is_filed(self) -> bool:
        return self.is_away and self.row.target is not None


class DocumentsInUse(Struct, eq=False):
    """The documents of a run's items.

    Several may have one path: other content may have come under the name of a filed document that
    is read again where it lies. Then an item's own document counts, or that of an item around it.
    """

    _index: OutputIndex
    _open: list[DocumentInUse] = field(default_factory=list)
    _unread: dict[str, ItemKey] = field(default_factory=dict)
    """Absolute paths where documents lie that were moved before their items were done."""

    def note_unread(self, work: BlockWork) -> None:
        """Note items of a block that have work to do, and whose documents were moved away."""
        for item in work.items:
            target = None if item.filed is None else item.filed.target
            if target and not item.verdict.is_up_to_date:
                self._unread[self._index.absolute(target)] = work.scope_id, item.key

    @contextmanager
    def open(self, scope_id: str, item: ItemWork, made_by: str) -> Iterator[DocumentInUse | None]:
        """Register an item's document while its steps run; None: the item is no document."""
        value, path = item.value, item_path(item.value)
        if not is_file_value(value) or path is None:
            yield None
            return
        row = item.filed or FiledRow(item.key, item.name, self._index.stored(path), value["sha256"])
        row = row._replace(sha256=value["sha256"], made_by=made_by, outdated_by="")
        paths = frozenset((path, self._index.absolute(row.path)))
        document = DocumentInUse(scope_id, row, paths, item.filed is not None)
        self._open.append(document)
        try:
            yield document
        finally:
            self._open.remove(document)

    def _lying(self, path: Path, items: Sequence[ItemKey]) -> list[DocumentInUse]:
        lying = [document for document in self._open if str(path) in document.paths]
        return [found for found in lying if (found.scope_id, found.row.key) in items] or lying[-1:]

    def _at(self, path: Path, items: Sequence[ItemKey]) -> DocumentInUse | None:
        return next(reversed(self._lying(path, items)), None)

    def filed_at(self, path: Path, items: Sequence[ItemKey]) -> FiledDocument | None:
        document = self._at(path, items)
        if document is None or not document.is_away or not document.row.target:
            return None
        target, listed = map(self._index.absolute, (document.row.target, document.row.path))
        return FiledDocument(Path(target), document.row.sha256, Path(listed))

    def will_move(self, path: Path, target: Path, sha256: str, items: Sequence[ItemKey]) -> None:
        """Write that a file is about to be moved; lasting after `durable`.

        Raises:
            StepError: it would replace a document whose item is still to be done.
        """
        if self._unread.get(str(target), items[-1]) not in items:
            raise StepError(
                f"'{printable(str(target))}' is a document that is not done yet, and stays.",
                remedy="The next run moves this one, once that is done.",
                kind="io",
            )
        stored = self._index.stored(path)
        to = self._index.stored(target)
        document = self._at(path, items)
        owner = () if document is None else (document.scope_id, document.row.key)
        FiledStore(self._index.ledger).record_move(MoveRow(stored, sha256, to, *owner))
        for other in self._lying(path, items):  # items around it may be of the same document
            if other.row.sha256 == sha256:
                other.row = other.row._replace(target=to)

    def leave_for_deletion(self, path: Path, items: Sequence[ItemKey]) -> bool:
        """Return whether a file is deleted with its item's record; False: it is no document."""
        document = self._at(path, items)
        if document is None:
            return False
        document.row, document.leaves = document.row._replace(target=""), path
        return True

    def moved(self, path: Path, items: Sequence[ItemKey]) -> str:
        """Note that a file was moved away; return its stored path, as it was listed."""
        document = self._at(path, items)
        if document is None:
            return self._index.stored(path)
        document.is_away = True
        return document.row.path

    def filed(self, document: DocumentInUse) -> FiledRow:
        """Write that a document was moved away, in one commit with the entry of its item.

        Return where it is, which is a part of that entry.
        """
        if document.row.target:
            self._unread.pop(self._index.absolute(document.row.target), None)
        row = document.row
        move = MoveRow(row.path, row.sha256, row.target or "")
        FiledStore(self._index.ledger).record_move(move)
        return row

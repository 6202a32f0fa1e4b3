"""Index of the files that pipelines of a folder wrote: one row for each path and scope.

Readings of it: `output_conditions` (edited, missing, written by another item), and `OutputOwners`:
a path belongs to the pipeline that wrote it, while both its file and that pipeline's are there. No
other one writes it, unless a run takes it over (`--take`): the former's row says so then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from unicodedata import normalize

from paddock.engine.system.files import ignores_letter_case
from paddock.engine.system.records import replace
from paddock.steps.base import StepError
from paddock.steps.effects import PlaceStamp, is_output_there, output_at

from .database import queries
from .entries import HANDED_OVER, OutputRow, whole_file

if TYPE_CHECKING:
    from .ledger import Ledger

CLOCKS_DIFFER_S = 60.0  # of machines that share a ledger
OTHER_PIPELINE_REMEDY = (
    "Write another file; or run with `--take`, and this pipeline is the one that writes it from "
    "then on."
)


def other_pipelines_output(
    stored: str, other: str, kind: Literal["io", "other"] = "other"
) -> StepError:
    what = f"'{stored}' is an output of another pipeline, '{other}'."
    return StepError(what, remedy=OTHER_PIPELINE_REMEDY, kind=kind)


class OutputIndex:
    """Every output row of the ledger, kept up to date while the run writes."""

    def __init__(
        self, ledger: Ledger, base: Path, own_scopes: set[str], file: str | None = None
    ) -> None:
        """`file`: name of this pipeline's file; None: it writes nothing."""
        self.ledger = ledger
        self.own_scopes = own_scopes
        """The scopes of this pipeline's file, in all folders it worked on."""
        self.owners = OutputOwners(self, file)
        self.claims = dict[str, tuple[str, str]]()
        """`normal_spelling` → scope and key of the item that has it in this run, and it alone."""
        self._ignores_case = ignores_letter_case(base)
        self.base = base
        self._prefix = f"{base}{os.sep}"
        self._by_path: dict[str, tuple[OutputRow, ...]] = {}
        """By `normal_spelling`, one row of each scope and path."""
        self.handed_over: set[tuple[str, str]] = set()
        """What a run of another pipeline took over: scope and path."""
        for row in ledger.outputs(with_moved=False):
            self._keep(row)

    def stored(self, path: Path | str) -> str:
        """Return a path in its stored form: relative to the pipeline's folder if it is inside."""
        text = str(path)
        return text.removeprefix(self._prefix).replace(os.sep, "/")

    def absolute(self, stored: str) -> str:
        return stored if os.path.isabs(stored) else self._prefix + stored  # noqa: PTH117 - hot

    def normal_spelling(self, stored: str) -> str:
        """Return the one spelling of a path, where the pipeline's folder ignores letter case."""
        return normalize("NFC", stored).lower() if self._ignores_case else stored

    def content(self, stored: str) -> str | None:
        """Return the sha256 of what is at a place now; None: nothing. It blocks.

        Raises:
            OSError, StepError: it cannot be read.
        """
        kind, place = output_at(self.absolute(stored))
        return kind.holds(place)

    def is_there(self, stored: str) -> bool:
        return is_output_there(self.absolute(stored))

    def owned(self, root: Path) -> frozenset[str]:
        """Return the paths that this pipeline's file wrote, was about to, or moved below a root."""
        written = {row.path for row in self.rows() if row.scope in self.own_scopes}
        at = "" if root == self.base else f"{self.stored(root)}/"
        rows = self.ledger.rows(queries.MOVED_BELOW, n=len(at), at=at)
        moved = (path for scope, path in rows if scope in self.own_scopes)
        return frozenset(map(self.absolute, (*written, *moved)))

    def rows(self) -> Sequence[OutputRow]:
        return [row for rows in self._by_path.values() for row in rows]

    def row(self, scope: str, stored: str) -> OutputRow | None:
        for row in self.rows_at(stored):
            if row.scope == scope and row.path == stored:
                return row
        return None

    def rows_at(self, stored: str) -> Sequence[OutputRow]:
        """Return what wrote a path, in whatever spelling of it."""
        return self._by_path.get(self.normal_spelling(stored), ())

    def last_writer(self, stored: str, scope: str) -> str:
        """Return the last writer of a path as items of a scope name it: an item, step, pipeline."""
        row = max(self.rows_at(stored), key=attrgetter("at"))
        if row.scope == scope:
            return f"item '{row.key}'"
        (own,), (other,) = (self.ledger.rows(queries.SCOPE, scope=s) for s in (scope, row.scope))
        files = whole_file(own[1]), whole_file(other[1])
        return f"'{other[2] if files[0] == files[1] else files[1]}'"

    def is_only_of(self, scope: str, key: str, stored: str) -> bool:
        row, spelled = self.row(scope, stored), self.normal_spelling(stored)
        is_own = row is not None and row.key == key
        is_own = is_own and self.claims.get(spelled, (scope, key)) == (scope, key)
        return is_own and len(self._by_path[spelled]) == 1

    def withdraw(self, scope: str, stored: str) -> None:
        """Forget that items of a scope write a path, as if they had not begun to."""
        self.forget_output(scope, stored)
        self.ledger.drop("outputs", {"scope": scope, "path": stored})

    def forget_output(self, scope: str, stored: str) -> None:
        rows = (row for row in self.rows_at(stored) if (row.scope, row.path) != (scope, stored))
        self._by_path[self.normal_spelling(stored)] = tuple(rows)

    def record_intended(
        self, scope: str, key: str, path: Path, sha256: str, size_bytes: int | None, run: str
    ) -> None:
        """Record the content that is about to be renamed to `path`.

        1. `size_bytes` None: it is a file of the user's, which is no output. An output that lay
           there is known by its content only.
        2. An output that is recorded stays so until the new one is written.
        3. Any other output has the size that it is about to have.
        """
        stored = self.stored(path)
        unwritten = OutputRow(scope, stored, key, None, (), None, None)
        row = self.row(scope, stored) or unwritten
        digests = [*row.intended, sha256]
        if size_bytes is None:  # 1
            digests = [*row.intended, *filter(None, (row.sha256,)), sha256]
            row = unwritten
        elif row.sha256 is not None:  # 2
            row = replace(row, key=key)
        else:  # 3
            row = replace(row, key=key, size=size_bytes)
        self.record_written(replace(row, intended=tuple(dict.fromkeys(digests))), run)

    def written_row(self, scope: str, key: str, path: Path, sha256: str) -> OutputRow | None:
        """Return the row of a file that has just been written; None: it is recorded already."""
        stored, (kind, place) = self.stored(path), output_at(str(path))
        stamp = kind.stamp(place) or PlaceStamp()
        times = stamp.mtime_ns, time.time()
        row = OutputRow(scope, stored, key, sha256, (), stamp.size, *times)
        known = self.row(scope, stored)
        return row if known != row or known.at < stamp.changed_at else None

    def record_written(self, row: OutputRow, run: str) -> None:
        """Record a file's content, with the entry of the item that wrote it and not before.

        Until then it counts as intended: an entry of an earlier text must not find it as it was.
        """
        self._keep(row)
        self.ledger.record_output(row, run)

    def _keep(self, row: OutputRow) -> None:
        place, at = (row.scope, row.path), self.normal_spelling(row.path)
        if row.size == HANDED_OVER:
            self.handed_over.add(place)
            return
        self.handed_over.discard(place)
        rows, known = self._by_path.get(at, ()), self.row(*place)
        now = (row if other is known else other for other in rows)
        self._by_path[at] = (*rows, row) if known is None else tuple(now)


class OutputOwners:
    """The owners of what an index has, as a run of one pipeline sees them."""

    def __init__(self, index: OutputIndex, file: str | None) -> None:
        """`file`: name of this pipeline's file; None: it writes nothing."""
        self._index = index
        self._file = file and whole_file(file)
        self._files: dict[str, str] = {}
        """Scope → its pipeline's file, of those that were looked up."""
        self._since = time.time() - CLOCKS_DIFFER_S
        self._alone_at = -1
        """Of our commits the last one after which no other pipeline's run was there."""

    def other_owner(self, stored: str) -> str | None:
        """Return the file of the other pipeline that an output belongs to; None: it is free."""
        rows = [r for r in self._index.rows_at(stored) if r.scope not in self._index.own_scopes]
        if self._file is None or not rows or not self._index.is_there(stored):
            return None
        # Without a size it is a user's file that was moved there.
        outputs = (row.scope for row in rows if row.size is not None)
        return next(filter(None, map(self._living_other, outputs)), None)

    def written_meanwhile(self, stored: str) -> str | None:
        """Return the file of another pipeline that began to write a path in a run beside this one.

        Call it when the own intent is durable: of two, one at least sees the other then.
        """
        n_commits = self._index.ledger.n_commits
        if self._file is None or self._alone_at == n_commits:  # one question for a commit's intents
            return None
        others = queries.HAS_RUN_OF_OTHER_FILE
        if not self._index.ledger.rows(others, file=self._file, since=self._since):
            self._alone_at = n_commits
            return None
        rows = self._index.ledger.rows(queries.OTHER_WRITERS, path=stored, file=self._file)
        found = (row[0] for row in rows)
        new = (scope for scope in found if self._index.row(scope, stored) is None)
        return next(filter(None, map(self._living_other, new)), None)

    def _other_file(self, scope: str) -> str | None:
        if scope not in self._index.own_scopes and scope not in self._files:
            rows = self._index.ledger.rows(queries.SCOPES)
            self._files.update({row[0]: whole_file(row[1]) for row in rows})
        file = self._files.get(scope, self._file)
        return None if file == self._file else file

    def _living_other(self, scope: str) -> str | None:
        file = self._other_file(scope)
        return file if file is not None and os.path.lexists(self._index.absolute(file)) else None

    def drop_others(self, stored: str, *, taken_in: str = "") -> None:
        """Forget the outputs of other pipelines at a path that this one writes.

        Their runs do not take it for theirs then. `taken_in`: the run that takes it over.
        """
        for row in self._index.rows_at(stored):
            if row.size is None or not self._other_file(row.scope):
                continue
            if taken_in:
                self._index.forget_output(row.scope, row.path)
                handed_over = OutputRow(row.scope, row.path, row.key, None, (), HANDED_OVER, None)
                self._index.ledger.record_output(handed_over, taken_in)
            else:
                self._index.withdraw(row.scope, row.path)

    def taken_by(self, stored: str, scope: str | None = None) -> str | None:
        """Return the file of the pipeline that took a path over: from a scope, or from this one."""
        if not self._index.handed_over:
            return None
        scopes = self._index.own_scopes if scope is None else (scope,)
        is_taken = any((scope, stored) in self._index.handed_over for scope in scopes)
        return self.other_owner(stored) if is_taken else None

    def known_sha256(self, path: Path, *, moved: bool = False) -> frozenset[str]:
        """Return the digests of what was written, or was about to be, to this path.

        `moved`: also of a user's file that was moved there. None are known of what belongs to
        another pipeline.
        """
        stored = self._index.stored(path)
        if self.other_owner(stored) is not None:
            return frozenset()
        rows = [r for r in self._index.rows_at(stored) if moved or r.size is not None]
        known = {digest for row in rows for digest in (*row.intended, row.sha256) if digest}
        texts = self._index.ledger.rows(queries.MOVED_CONTENTS, path=stored) if moved else ()
        return frozenset(known.union(*(json.loads(text) for (text,) in texts)))

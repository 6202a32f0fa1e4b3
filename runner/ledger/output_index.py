"""Index of the files that pipelines of a folder wrote: owner, digest, edited or missing.

A path belongs to the pipeline that wrote it while both its file and that pipeline's are there. No
other one writes it, unless a run takes it over (`--take`): the former's row says so then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Literal

from paddock.engine.system.files import sha256_of
from paddock.steps.base import StepError

from .database import queries
from .entries import HANDED_OVER, OutputRow, whole_file
from .ledger import Ledger

FileCondition = Literal["same", "edited", "missing", "interrupted"]
"""`interrupted`: it has what a run was about to record when it was killed."""
OURS: tuple[FileCondition, ...] = ("same", "interrupted")
"""Conditions of a file that no one else has changed."""
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
        self._file = file and whole_file(file)
        self._files: dict[str, str] = {}
        """Scope → its pipeline's file, of those that were looked up."""
        self._since = time.time() - CLOCKS_DIFFER_S
        self._alone_at = -1
        """Of our commits the last one after which no other pipeline's run was there."""
        self.base = base
        self._prefix = f"{base}{os.sep}"
        self._rows: dict[tuple[str, str], OutputRow] = {}
        self._by_path: dict[str, list[str]] = {}
        self._handed_over: set[tuple[str, str]] = set()
        """Scope and path of what a run of another pipeline took over."""
        self._claims: dict[str, tuple[str, str]] = {}
        for row in ledger.outputs(with_moved=False):
            self._keep(row)

    def stored(self, path: Path | str) -> str:
        """Return a path in its stored form: relative to the pipeline's folder if it is inside."""
        text = str(path)
        return text.removeprefix(self._prefix).replace(os.sep, "/")

    def absolute(self, stored: str) -> str:
        return stored if os.path.isabs(stored) else self._prefix + stored  # noqa: PTH117 - hot

    def owned(self, root: Path) -> frozenset[Path]:
        """Return the paths that this pipeline's file wrote, was about to, or moved below a root."""
        written = (
            path for path, scopes in self._by_path.items() if not self.own_scopes.isdisjoint(scopes)
        )
        at = "" if root == self.base else f"{self.stored(root)}/"
        rows = self.ledger.rows(queries.MOVED_BELOW, n=len(at), at=at)
        moved = (path for scope, path in rows if scope in self.own_scopes)
        return frozenset(Path(self.absolute(path)) for path in (*written, *moved))

    def other_owner(self, stored: str) -> str | None:
        """Return the file of the other pipeline that an output belongs to; None: it is free."""
        scopes = [scope for scope in self._by_path.get(stored, ()) if scope not in self.own_scopes]
        if self._file is None or not scopes or not os.path.lexists(self.absolute(stored)):
            return None
        # Without a size it is a user's file that was moved there.
        outputs = [scope for scope in scopes if self._rows[scope, stored].size is not None]
        return next(filter(None, map(self._living_other, outputs)), None)

    def written_meanwhile(self, stored: str) -> str | None:
        """Return the file of another pipeline that began to write a path in a run beside this one.

        Call it when the own intent is durable: of two, one at least sees the other then.
        """
        n_commits = self.ledger.n_commits
        if self._file is None or self._alone_at == n_commits:  # one question for a commit's intents
            return None
        others = queries.HAS_RUN_OF_OTHER_FILE
        if not self.ledger.rows(others, file=self._file, since=self._since):
            self._alone_at = n_commits
            return None
        rows = self.ledger.rows(queries.OTHER_WRITERS, path=stored, file=self._file)
        found = (row[0] for row in rows)
        new = (scope for scope in found if (scope, stored) not in self._rows)
        return next(filter(None, map(self._living_other, new)), None)

    def _other_file(self, scope: str) -> str | None:
        """Return the file of a scope's pipeline, if it is another one than this."""
        if scope not in self.own_scopes and scope not in self._files:
            rows = self.ledger.rows(queries.SCOPES)
            self._files.update({row[0]: whole_file(row[1]) for row in rows})
        file = self._files.get(scope, self._file)
        return None if file == self._file else file

    def _living_other(self, scope: str) -> str | None:
        file = self._other_file(scope)
        return file if file is not None and os.path.lexists(self._prefix + file) else None

    def release(self, stored: str, *, of: str | None = None, taken_in: str = "") -> None:
        """Forget the output of other pipelines at a path that this one writes; or that of a scope.

        Their runs do not take it for theirs then. `taken_in`: the run that takes it over.
        """
        for scope in tuple(self._by_path.get(stored, ())):
            row = self._rows[scope, stored]
            is_other = of is None and row.size is not None and self._other_file(scope) is not None
            if scope == of or is_other:
                del self._rows[scope, stored]
                self._by_path[stored].remove(scope)
                if taken_in:
                    handed_over = OutputRow(scope, stored, row.key, None, (), HANDED_OVER, None)
                    self.ledger.record_output(handed_over, taken_in)
                else:
                    self.ledger.drop("outputs", {"scope": scope, "path": stored})

    def taken_by(self, stored: str, scope: str | None = None) -> str | None:
        """Return whose file took a path over, and has it: from a scope, or any of this pipeline."""
        scopes = self.own_scopes if scope is None else (scope,)
        is_taken = any((scope, stored) in self._handed_over for scope in scopes)
        return self.other_owner(stored) if is_taken else None

    def known_sha256(self, path: Path, *, moved: bool = False) -> frozenset[str]:
        """Return the digests of what was written, or was about to be, to this path.

        `moved`: also of a user's file that was moved there. None are known of what belongs to
        another pipeline.
        """
        stored = self.stored(path)
        known: set[str] = set()
        if self.other_owner(stored) is not None:
            return frozenset()
        for scope in self._by_path.get(stored, ()):
            row = self._rows[scope, stored]
            if row.size is None and not moved:
                continue
            known.update(row.intended)
            if row.sha256 is not None:
                known.add(row.sha256)
        rows = self.ledger.rows(queries.MOVED_CONTENTS, path=stored) if moved else ()
        for (intended,) in rows:
            known.update(json.loads(intended))
        return frozenset(known)

    def condition(self, scope: str, stored: str) -> FileCondition:
        """Return whether an output is as recorded.

        Equal size and mtime are trusted where nothing happened to the file since.
        """
        row = self._rows.get((scope, stored))
        try:
            stat = os.stat(self.absolute(stored))  # noqa: PTH116 - 10,000 times in a run
        except OSError:
            return "missing"
        if row is None or row.size is None:  # a file of the user's that was moved there
            return "missing"
        is_untouched = stat.st_ctime <= row.at
        if is_untouched and (stat.st_size, stat.st_mtime_ns) == (row.size, row.mtime_ns):
            return "same"
        if stat.st_size != row.size and not row.intended:
            return "edited"
        there = sha256_of(Path(self.absolute(stored)))
        if there == row.sha256:
            return "same"
        if there in row.intended:
            return "interrupted"
        return "missing" if row.sha256 is None else "edited"

    def condition_of_item(
        self, scope: str, key: str, stored: str, sha256: str
    ) -> FileCondition | Literal["replaced"]:
        """Return whether an output is as an item wrote it; `replaced`: another one wrote it since.

        Without a `sha256` its content is known only where the item wrote the path last.
        """
        row, condition = self._rows.get((scope, stored)), self.condition(scope, stored)
        if row is not None and row.key == key:
            sha256 = sha256 or row.sha256 or ""
            if condition == "interrupted":
                return condition
        if row is not None and (condition, row.sha256) == ("same", sha256):
            return condition
        with suppress(OSError):
            there = sha256_of(Path(self.absolute(stored)))
            if row is not None and there == sha256:
                return "same"
            if any(there in (row.sha256, *row.intended) for row in self.rows_at(stored)):
                return "replaced"
        return condition

    def last_writer(self, stored: str, scope: str) -> str:
        """Return who wrote a path last, for items of a scope: an item of it, a step, a pipeline."""
        row = max(self.rows_at(stored), key=attrgetter("at"))
        if row.scope == scope:
            return f"item '{row.key}'"
        (own,), (other,) = (self.ledger.rows(queries.SCOPE, scope=s) for s in (scope, row.scope))
        files = whole_file(own[1]), whole_file(other[1])
        return f"'{other[2] if files[0] == files[1] else files[1]}'"

    def claim(self, scope: str, key: str, stored: str) -> None:
        """Claim a path for an item that writes it in this run, or has, and is fresh.

        Raises:
            StepError: another item has claimed it.
        """
        claimant = self._claims.setdefault(stored, (scope, key))
        if claimant != (scope, key):
            first, second = sorted((key, claimant[1]))
            who = f"'{first}' and '{second}'" if first != second else f"two blocks, for '{key}',"
            what = f"{who} would write the same file '{stored}'."
            raise StepError(what, remedy="Make the path differ, with `relpath` for example.")

    def is_recorded(self, scope: str, key: str, path: Path, sha256: str) -> bool:
        """Return whether this item wrote this content, and the file still has it."""
        stored = self.stored(path)
        row = self._rows.get((scope, stored))
        is_of_item = row is not None and (row.key, row.sha256) == (key, sha256)
        return is_of_item and self.condition(scope, stored) == "same"

    def rows(self) -> Sequence[OutputRow]:
        return tuple(self._rows.values())

    def rows_at(self, stored: str) -> Sequence[OutputRow]:
        """Return what is known of a path, one row for each scope that wrote it."""
        return [self._rows[scope, stored] for scope in self._by_path.get(stored, ())]

    def has_row(self, scope: str, path: Path) -> bool:
        return (scope, self.stored(path)) in self._rows

    def is_only_of(self, scope: str, key: str, stored: str) -> bool:
        """Return whether this item alone wrote a file, and no other has it, as far as is known."""
        row, claimant = self._rows.get((scope, stored)), self._claims.get(stored, (scope, key))
        is_own = row is not None and row.key == key and claimant == (scope, key)
        return is_own and self._by_path[stored] == [scope]

    def record_intended(
        self, scope: str, key: str, path: Path, sha256: str, size_bytes: int | None, run: str
    ) -> None:
        """Record the content that is about to be renamed to `path`.

        `size_bytes` None: it is a file of the user's, which is no output.
        """
        stored = self.stored(path)
        new = OutputRow(scope, stored, key, None, (), None, None)
        old = self._rows.get((scope, stored), new)
        known = [*old.intended, *((old.sha256,) if old.sha256 and size_bytes is None else ())]
        intended = tuple(dict.fromkeys([*known, sha256]))
        if size_bytes is None:
            old = new
        size = size_bytes if old.sha256 is None else old.size
        self.record_written(replace(old, key=key, intended=intended, size=size), run)

    def written_row(self, scope: str, key: str, path: Path, sha256: str) -> OutputRow | None:
        """Return what is to be recorded of a file that has just been written; None: it is."""
        stat = os.stat(path)  # noqa: PTH116 - as in `condition`
        times = stat.st_mtime_ns, time.time()
        row = OutputRow(scope, self.stored(path), key, sha256, (), stat.st_size, *times)
        known = self._rows.get((scope, row.path))
        return row if known != row or known.at < stat.st_ctime else None

    def record_written(self, row: OutputRow, run: str) -> None:
        """Record a file's content, with the entry of the item that wrote it and not before.

        Until then it counts as intended: an entry of an earlier text must not find it as it was.
        """
        self._keep(row)
        self.ledger.record_output(row, run)

    def _keep(self, row: OutputRow) -> None:
        place = row.scope, row.path
        if row.size == HANDED_OVER:
            self._handed_over.add(place)
            return
        self._handed_over.discard(place)
        if place not in self._rows:
            self._by_path.setdefault(row.path, []).append(row.scope)
        self._rows[place] = row

"""The pipeline that `paddock summarise --save` writes, and the transfer of results to it.

The text contains only what was asked for; folders are inputs, so that no path is read as an
expression. The other file then owns the outputs: they are neither computed again nor taken for
another pipeline's. Item hashes contain no file and no folder, so entries stay fresh where the
steps are the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.runner.core.dependencies import HELD, held_mark, is_file_mark
from paddock.runner.core.fingerprints import canonical_json
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.outputs import OutputIndex
from paddock.runner.settings import STATE_FOLDER, read_settings

INCLUDE = "**/*.{md,markdown,txt,rst,html,htm,pdf,csv,tsv,json,docx,pptx,xlsx,eml,epub}"
NAME = ".summarise.yaml"
"""Beside the summaries, until it is saved elsewhere: no scan sees it, `why` and `plan` do."""


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """What somebody wants summarised, and how."""

    folder: Path
    """Absolute, as `out` is."""
    out: Path
    words: int = 80
    model: str = ""
    include: str = INCLUDE

    def inputs(self) -> Mapping[str, str]:
        """Return the inputs of the run."""
        return {"folder": str(self.folder), "out": str(self.out)}


def pipeline_text(wish: SummaryRequest, base: Path) -> str:
    """Write the pipeline as a file in the folder `base` would stand.

    A folder that lies there is the input's default; another one must be given to each run.
    """
    model = f"models:\n  writer: {{ref: {_yaml_quoted(wish.model)}}}\n\n" if wish.model else ""
    return f"""\
# yaml-language-server: $schema=./.paddock/pipeline.schema.json
# Made by `paddock summarise`. Run it again: only what changed is done again.
name: {_yaml_quoted(_pipeline_name(wish.folder))}

inputs:
  folder: {_input_text(wish.folder, base, "The documents.")}
  out:    {_input_text(wish.out, base, "Where the summaries go.")}

{model}steps:
  - id: docs
    uses: files.scan
    with: {{root: "{{{{ inputs.folder }}}}", include: [{_yaml_quoted(wish.include)}]}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - id: sum
        uses: summarise
        with:
          file: "{{{{ doc.path }}}}"
          words: {wish.words}
          params: {{repeat_penalty: 1.1}}  # small models repeat themselves
      - uses: files.write
        with:
          path: "{{{{ inputs.out }}}}/{{{{ doc.relpath }}}}.md"
          text: "{{{{ steps.sum.text }}}}"

returns: {{counts: steps.each.counts}}
"""


def needs_inputs(wish: SummaryRequest, base: Path) -> bool:
    """Return whether a run of the saved file must be given its folders."""
    return not all(_is_default(path, base) for path in (wish.folder, wish.out))


def _pipeline_name(folder: Path) -> str:
    return f"summaries of {folder.name}" if folder.name and _is_text(folder) else "summaries"


def _is_default(path: Path, base: Path) -> bool:
    return path.is_relative_to(base) and _is_text(path)


def _is_text(path: Path) -> bool:
    """Return whether a name is text at all: on some disks it is bytes that no YAML takes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _input_text(path: Path, base: Path, about: str) -> str:
    if not _is_default(path, base):
        return f"{{type: dir, required: true, description: {about}}}"
    inside = path.relative_to(base).as_posix()
    default = "." if inside == "." else f"./{inside}"
    return f"{{type: dir, default: {_yaml_quoted(default)}, description: {about}}}"


def _yaml_quoted(text: str) -> str:
    """Write a text as YAML does and JSON, too; half characters of odd file names are escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


_MOVED_COLUMNS: Mapping[str, str] = {
    "items": "scope, key, hash, parts, state, error, returns, returns_object, reads, outputs, "
    "has_inner_failures, seconds, calls, tokens, run, at, gone, attempts, was",
    "outputs": "scope, path, key, sha256, intended, size, mtime_ns, run, at",
    "provenance": "scope, key, run, at, spec, source, made, made_object",
    "calls": "hash, kind, model, digest, served_digest, request, request_object, reply, "
    "reply_object, done_reason, usage, scope, step, key, run, at",
}


def hand_over(giver: Path, taker: Path) -> int:
    """Move the entries, outputs and calls of one pipeline file to another; return how many entries.

    Entries that the other one has already stay as they are. Runs stay in the giver's history.

    Raises:
        LedgerError: a ledger cannot be read or written; the giver still has everything then.
    """
    giver, taker = giver.resolve(), taker.resolve()
    with ExitStack() as stack:
        mine = stack.enter_context(_ledger(giver))
        is_same = giver.parent == taker.parent
        theirs = mine if is_same else stack.enter_context(_ledger(taker))
        return _Handover(giver, mine, taker, theirs).done()


def _ledger(file: Path) -> Ledger:
    return Ledger(file.parent / STATE_FOLDER, url=read_settings(file.parent).ledger_url)


class _Handover:
    def __init__(self, giver: Path, mine: Ledger, taker: Path, theirs: Ledger) -> None:
        self._file, self._taker = giver.name, taker.name
        self._mine, self._theirs = mine, theirs
        self._from = OutputIndex(mine, giver.parent, set())
        self._to = OutputIndex(theirs, taker.parent, set())

    def done(self) -> int:
        n_items = 0
        scopes = list(self._rows("scopes", "scope, step, inputs", "file", self._file))
        for scope, step, inputs in scopes:
            new = self._scope(step, inputs)
            known = self._theirs.entries(new)
            for row in self._of("items", scope):
                if row["key"] not in known:
                    self._put("items", row, new, **self._item(row))
                    n_items += 1
            for row in self._of("outputs", scope):
                if row["key"] not in known:
                    self._put("outputs", row, new, path=self._path(row["path"]))
            for row in self._of("provenance", scope):
                if row["key"] not in known:
                    self._put("provenance", row, new, **self._made(row))
            for row in self._of("calls", scope):
                self._put("calls", row, new)
        asyncio.run(self._theirs.durable())
        for scope, _, _ in scopes:
            self._drop(scope)
        return n_items

    # --- reading and writing rows

    def _rows(self, table: str, columns: str, name: str, value: str) -> Iterator[Any]:
        query = f"select {columns} from {table} where {name} = :value"
        yield from self._mine.rows(query, value=value)

    def _of(self, table: str, scope: str) -> Iterator[dict[str, Any]]:
        columns = _MOVED_COLUMNS[table]
        for row in self._rows(table, columns, "scope", scope):
            yield dict(zip(columns.split(", "), row, strict=True))

    def _put(self, table: str, row: dict[str, Any], scope: str, **changed: Any) -> None:
        """Write a row for the taker, with the objects that it names."""
        for name, value in row.items():
            if name.endswith("_object") and value is not None:
                kept = self._mine.objects.get(value)
                if kept is not None:
                    self._theirs.objects.put(kept)
        self._theirs.put(table, {**row, "scope": scope, **changed})

    def _drop(self, scope: str) -> None:
        """Leave nothing with the giver: a file belongs to one pipeline."""
        for table, name in (("items", "key"), ("provenance", "key"), ("outputs", "path")):
            for row in self._of(table, scope):
                self._mine.drop(table, {"scope": scope, name: row[name]})
        self._mine.drop("scopes", {"scope": scope})

    # --- what is relative to a folder

    def _scope(self, step: str, inputs: str) -> str:
        """Note the taker's scope in place of one of the giver's (see `Work.scope_id`)."""
        places = [
            {name: self._path(path) for name, path in place.items()}
            if isinstance(place, dict)
            else place
            for place in json.loads(inputs)
        ]
        text = canonical_json(places)
        scope = hashlib.sha256(f"{self._taker}\n{step}\n{text}".encode()).hexdigest()
        self._theirs.record_scope(scope, self._taker, step, text)
        return scope

    def _path(self, stored: str) -> str:
        return self._to.stored(self._from.absolute(stored))

    def _item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        outputs = None if row["outputs"] is None else json.loads(row["outputs"])
        reads = None if row["reads"] is None else self._reads(json.loads(row["reads"]))
        return {
            "has_inner_failures": bool(row["has_inner_failures"]),  # SQLite has numbers
            "outputs": outputs and json.dumps([self._path(path) for path in outputs]),
            "reads": reads and json.dumps(reads),
        }

    def _reads(self, reads: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for name, mark in reads.items():
            if mark[0] == HELD:
                found |= held_mark(self._path(mark[1]), mark[2])
            else:
                found[self._path(name) if is_file_mark(mark) else name] = mark
        return found

    def _made(self, row: Mapping[str, Any]) -> dict[str, Any]:
        made = self._mine.value(row["made"], row["made_object"])
        source = None if row["source"] is None else self._path(row["source"])
        if source is not None and made.get("source"):
            made = {**made, "source": {**made["source"], "path": source}}
        if row["spec"] is not None:
            for (text,) in self._rows("specs", "text", "spec", row["spec"]):
                self._theirs.put("specs", {"spec": row["spec"], "text": text})
        inline, object_ = self._theirs.keep(made)
        return {"source": source, "made": inline, "made_object": object_}

"""Files that an item wrote, and that it writes no more: its path is another one now.

An item's entry names what it wrote when it was done last; the ledger's rows name all that it ever
wrote. Knows what is left, and removes nothing. A path that names an input, an answer or a date is
another one with another value: what lies at the path before is then the report of another month,
and not a former output. So only paths count that differ by the item alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from paddock.pipelines.expressions import Value

from .binding.bound import BoundBlock, BoundStep
from .evidence import HELD, WRITTEN, of_items_within
from .ledger.entries import Entry
from .ledger.outputs import Index

_MOST_NAMES = 3
_OWN_STEPS = "paddock.steps."
_PLACES = ("dir", "path")
"""Types of inputs of which each value has outputs of its own."""


@dataclass(frozen=True, slots=True)
class Former:
    """A file at a path that its item writes no more."""

    scope: str
    key: str
    stored: str
    is_edited: bool


def of_block(
    index: Index,
    block: BoundBlock,
    types: Mapping[str, str],
    scope: str,
    entries: Iterable[Entry],
) -> list[Former]:
    """Return what items of a block, and those of blocks within it, left at former paths. Blocking.

    Only of items that are done: one that failed may not have come to write. `types` are those of
    the pipeline's inputs.
    """
    if not names_items_alone([block], types):
        return []
    done = [one for one in entries if one.state == "done" and not one.has_inner_failures]
    candidates = [one for entry in done for one in _of_item(index, block, scope, entry)]
    if not candidates:
        return []
    return left_of(index, candidates, (path for entry in done for path in paths_now(entry)))


def names_items_alone(
    nodes: Iterable[BoundStep | BoundBlock],
    types: Mapping[str, str],
    own: frozenset[str] = frozenset(),
) -> bool:
    """Return whether the paths that steps write name nothing but their items.

    Folders and paths among the inputs may be named: the ledger keeps each apart. `own` are the
    variables of the blocks around. Of steps that others wrote, and of pipelines, it is not known.
    """
    for node in nodes:
        if isinstance(node, BoundBlock):
            if not names_items_alone(node.body, types, own | {node.var, "loop"}):
                return False
        elif node.inner is not None or not node.kind.__module__.startswith(_OWN_STEPS):
            return False
        elif node.uses == "files.write":
            path = Value.of(node.params.value.data.get("path"))
            for read in path.references:
                is_place = read[0] == "inputs" and types.get(str(read[1:2] and read[1])) in _PLACES
                if read[0] not in own and not is_place:
                    return False
    return True


def left_of(
    index: Index, candidates: Iterable[tuple[str, str, str]], now: Iterable[str]
) -> list[Former]:
    """Return which files, as (scope, key, path), are still there and nothing else's. Blocking.

    `now` are the paths that are written today: where names of two cases mean one file, it stays.
    """
    todays = set(filter(None, (_identity(index.absolute(path)) for path in now)))
    found = []
    for scope, key, stored in candidates:
        condition = index.condition(scope, stored)
        is_alone = condition != "missing" and index.is_only_of(scope, key, stored)
        if is_alone and _identity(index.absolute(stored)) not in todays:
            found.append(Former(scope, key, stored, condition == "edited"))
    return found


def paths_now(entry: Entry) -> set[str]:
    """Return the stored paths that an item, and those within it, wrote or kept when it was done."""
    paths = set(json.loads(entry.outputs)) if entry.outputs else set()
    for path, mark in json.loads(entry.reads).items() if entry.reads else ():
        if mark[0] in (WRITTEN, HELD):
            paths.add(path if mark[0] == WRITTEN else mark[1])
    return paths


def in_words(former: Collection[Former]) -> str:
    """Say what is left at former paths, and what removes it.

    >>> in_words([Former("", "", "out/a", False), Former("", "", "out/b", True)])
    '2 outputs at former paths remain: out/a, out/b; `paddock run --prune` removes them, but for \
the 1 that was edited'
    """
    names = sorted(one.stored for one in former)
    more = len(names) - _MOST_NAMES
    shown = ", ".join(names[:_MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")
    n_edited = sum(one.is_edited for one in former)
    what = f"{len(names):,} outputs at former paths remain"
    if len(names) == 1:
        what = "1 output at a former path remains"
    if n_edited == len(names):
        return f"{what}, edited by hand: {shown}"
    kept = f", but for the {n_edited:,} that {'was' if n_edited == 1 else 'were'} edited"
    them = "it" if len(names) == 1 else "them"
    return f"{what}: {shown}; `paddock run --prune` removes {them}{kept if n_edited else ''}"


def _of_item(
    index: Index, block: BoundBlock, scope: str, entry: Entry
) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of an item, and of those within it, that its entry does not name."""
    rows = list(index.rows_of(scope, entry.key))
    if not rows and not any(isinstance(node, BoundBlock) for node in block.body):
        return
    now = paths_now(entry)
    yield from ((scope, entry.key, row.path) for row in rows if row.path not in now)
    within: Mapping[tuple[str, str], None] = dict.fromkeys(
        (one_scope, key) for one_scope, key, _ in of_items_within(entry)
    )
    for inner_scope, key in within:  # items within that are gone are told as such
        for row in index.rows_of(inner_scope, key):
            if row.path not in now:
                yield inner_scope, key, row.path


def _identity(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - for 10,000 items
    except OSError:
        return None
    return stat.st_dev, stat.st_ino

"""Which new items are deleted ones under another name: the same content, one for one.

A renamed document costs no calls, unless its name is part of what a model is asked; what was made
of it under its old name goes when the new one is done. Looks at no file: digests are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from .binding.bound import BoundBlock
from .body import steps_of
from .ledger.entries import Entry
from .ledger.ledger import Ledger
from .ledger.origins import Origins
from .made import RENAMED

_NAMES = frozenset(("relpath", "name", "stem", "modified"))
_SEE_NO_MODEL = frozenset(("files.write", "files.move", "embed"))
"""Steps whose outputs depend on a name, and are not what a model is asked."""
_TAKE_TEXTS = frozenset(("chat", "prompt", "agent", "reduce"))
"""Steps to which a path is a text like any other; the others read what lies there."""


def renamed(
    ledger: Ledger, scope: str, deleted: Iterable[Entry], new: Mapping[str, Any]
) -> dict[str, str]:
    """Give new key → old key of a block's items; `new` has their files as `files.scan` does."""
    keys = {entry.key for entry in deleted}
    made = Origins(ledger).made_of(scope)
    contents = {key: row.made["source"]["sha256"] for key, row in made.items() if row.source}
    gone = {key: contents[key] for key in keys & contents.keys()}
    # Those of a run that was killed before what went by the old name was removed.
    before = {key: str(row.made.get(RENAMED)) for key, row in made.items()}
    before = {key: old for key, old in before.items() if gone.get(old) == contents.get(key, "")}
    return before | renames(gone, {key: file["sha256"] for key, file in new.items()})


def renames(gone: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Give new key → old key, by the digests of their contents; each key is used once.

    Of several with the same content those with the same file name belong together.

    >>> renames({"a.md": "1", "x/b.md": "2"}, {"c.md": "1", "y/b.md": "2", "d.md": "3"})
    {'c.md': 'a.md', 'y/b.md': 'x/b.md'}
    """
    by_content: dict[str, list[str]] = {}
    for key, sha256 in sorted(gone.items()):
        by_content.setdefault(sha256, []).append(key)
    found: dict[str, str] = {}
    for same_name in (True, False):
        for key, sha256 in sorted(new.items()):
            olds = by_content.get(sha256, [])
            old = next((old for old in olds if not same_name or _name(old) == _name(key)), None)
            if key not in found and old is not None:
                found[key] = old
                olds.remove(old)
    return dict(sorted(found.items()))


def _name(key: str) -> str:
    return PurePosixPath(key).name


def is_free(block: BoundBlock) -> bool:
    """Tell whether an item's name is no part of what its models are asked."""
    return not any(
        _is_name(reference, block.var, takes_path=step.uses in _TAKE_TEXTS)
        for step in steps_of(block.body)
        if step.uses not in _SEE_NO_MODEL
        for reference in step.references
    )


def _is_name(reference: Iterable[str], var: str, *, takes_path: bool) -> bool:
    path = tuple(reference)
    if path[:1] != (var,):
        return False
    return len(path) == 1 or path[1] in _NAMES or (takes_path and path[1] == "path")

"""Renamed documents: a new item with the content of a deleted one, one for one.

A renamed document costs no calls, unless its name is part of a prompt; what was made under the old
name goes when the new one is done. Digests are compared, no file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_rows import LineageStore

from .run_records import RENAMED


def renamed_items(
    ledger: Ledger, scope: str, deleted: Iterable[Entry], new: Mapping[str, Any]
) -> dict[str, str]:
    """Return new key → old key of a block's items; `new` has their files as `files.scan` does."""
    keys = {entry.key for entry in deleted}
    made = LineageStore(ledger).made_of(scope)
    contents = {key: row.made["source"]["sha256"] for key, row in made.items() if row.source}
    gone = {key: contents[key] for key in keys & contents.keys()}
    # From a run that was killed before it removed the outputs of the old name.
    before = {key: str(row.made.get(RENAMED)) for key, row in made.items()}
    before = {key: old for key, old in before.items() if gone.get(old) == contents.get(key, "")}
    return before | match_renames(gone, {key: file["sha256"] for key, file in new.items()})


def match_renames(gone: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return new key → old key, by content digest; each key is used once.

    Among several with the same content, files with the same name are matched first.

    >>> match_renames({"a.md": "1", "x/b.md": "2"}, {"c.md": "1", "y/b.md": "2", "d.md": "3"})
    {'c.md': 'a.md', 'y/b.md': 'x/b.md'}
    """
    by_content: dict[str, list[str]] = {}
    for key, sha256 in sorted(gone.items()):
        by_content.setdefault(sha256, []).append(key)
    found: dict[str, str] = {}
    for same_name in (True, False):
        for key, sha256 in sorted(new.items()):
            olds = by_content.get(sha256, [])
            old = next(
                (old for old in olds if not same_name or _file_name_of(old) == _file_name_of(key)),
                None,
            )
            if key not in found and old is not None:
                found[key] = old
                olds.remove(old)
    return dict(sorted(found.items()))


def _file_name_of(key: str) -> str:
    return PurePosixPath(key).name

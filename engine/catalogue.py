"""What a name stands for, looked up anew only where something about it has changed on disk.

Knows the store's files by their times, not their contents; `models` reads those. A service runs
for weeks while models are pulled, made, deleted and tuned beside it, by other processes too.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

from paddock.engine.errors import InvalidName
from paddock.engine.models import ModelFinder
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.store.cards import capabilities
from paddock.engine.store.names import parse_name

_Mark = tuple[object, ...]
"""Equal marks: the files are what they were."""

# Anybody may ask for names that there are not, or are for once; the oldest are forgotten.
_N_KNOWN = 1024


@dataclass(frozen=True, slots=True)
class _Known:
    facts: ModelFacts
    mark: _Mark


class Catalogue:
    """Facts of models by their names. Used in one event loop."""

    def __init__(self, models: ModelFinder, settings: PoolSettings) -> None:
        self._models = models
        self._settings = settings
        self._store = models.store
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def facts(self, ref: str) -> ModelFacts:
        """Tell what is known of a model now.

        Raises:
            ModelNotFound: with the known names.
            ModelBroken: with path and reason.
        """
        known = await asyncio.to_thread(self._looked_up, ref, self._known.get(ref))
        self._known[ref] = known
        self._known.move_to_end(ref)
        if len(self._known) > _N_KNOWN:
            self._known.popitem(last=False)
        return known.facts

    def _looked_up(self, ref: str, known: _Known | None) -> _Known:
        if known is not None and known.mark == self._mark(ref, known.facts):
            return known
        facts = self._models.find(ref, self._settings.n_ctx_tokens)
        draft = self._settings.draft_models.get(facts.name)
        if draft is not None:
            facts = replace(facts, draft_path=str(self._models.locate(draft).path))
        if facts.role == "chat":
            facts = replace(facts, takes_tools="tools" in capabilities(self._models, facts))
        return _Known(facts, self._mark(ref, facts))

    def _mark(self, ref: str, facts: ModelFacts) -> _Mark:
        """Give what changes when a name comes to stand for something else: 50 µs."""
        try:
            manifest = self._store.manifest_path(parse_name(ref))
        except InvalidName:  # the path of a file
            manifest = None
        files = (manifest, Path(facts.path), self._models.tuned.folder)
        return tuple(_stamp(file) for file in files)


def _stamp(path: Path | None) -> object:
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        return None
    return (str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat is not None else None

"""Facts of models by name, read again only if the store, the file or the tuned copies changed.

A service runs for weeks while other processes pull, create, delete and tune models.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from paddock.engine.errors import InvalidName
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace

from .model_cards import model_capabilities
from .model_finder import FileStamp, ModelFinder, file_stamp
from .model_names import parse_name

_FileStamps = tuple[FileStamp | None, ...]
"""Equal stamps: the files are unchanged."""
_Known = tuple[ModelFacts, _FileStamps]

# Clients may send any number of names.
_MAX_CACHED_FACTS = 1024


class ModelFactsCache:
    def __init__(self, models: ModelFinder, settings: PoolSettings) -> None:
        self._models = models
        self._settings = settings
        self._store = models.store
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def facts(self, ref: str, *, asks_for_tools: bool = True) -> ModelFacts:
        """Return a model's current facts, or raise as the finder does.

        `asks_for_tools`: with `takes_tools`, for which its chat template is compiled.
        """
        known = self._known.get(ref)
        if known is None or not self._is_current(ref, known, asks_for_tools=asks_for_tools):
            known = await asyncio.to_thread(self._looked_up, ref, asks_for_tools=asks_for_tools)
            self._known[ref] = known
        self._known.move_to_end(ref)
        if len(self._known) > _MAX_CACHED_FACTS:
            self._known.popitem(last=False)
        return known[0]

    def _is_current(self, ref: str, known: _Known, *, asks_for_tools: bool) -> bool:
        """Compare stamps, not in a thread: a run asks three times a document."""
        is_told = known[0].takes_tools is not None or known[0].role != "chat"
        return (is_told or not asks_for_tools) and known[1] == self._stamps(ref, known[0])

    def _looked_up(self, ref: str, *, asks_for_tools: bool) -> _Known:
        facts = self._found(ref)
        while True:  # what is replaced while it is read gets no stamp that is newer than its facts
            stamps, before = self._stamps(ref, facts), facts
            facts = self._found(ref)
            if facts == before:
                break
        if facts.role == "chat" and asks_for_tools:
            facts = replace(facts, takes_tools="tools" in model_capabilities(self._models, facts))
        return facts, stamps

    def _found(self, ref: str) -> ModelFacts:
        facts = self._models.find(ref, self._settings.n_ctx_tokens)
        draft = self._settings.draft_models.get(facts.name)
        if draft is not None:
            facts = replace(facts, draft_path=str(self._models.locate(draft).path))
        return facts

    def _stamps(self, ref: str, facts: ModelFacts) -> _FileStamps:
        """Return the stamps of the files that a name depends on; takes 50 µs."""
        names_it: tuple[Path | None, ...]
        try:
            names_it = (self._store.manifest_path(parse_name(ref)),)
        except InvalidName:  # the path of a file, next to which a projector may come and go
            path = Path(ref).expanduser()
            names_it = (path, path.parent)
        others = (facts.projector, facts.draft_path, *facts.parts)
        files = (facts.path, *others, self._models.tuned.folder, *names_it)
        return tuple(_stamp_or_none(Path(file)) if file else None for file in files)


def _stamp_or_none(path: Path) -> FileStamp | None:
    with suppress(OSError):
        return file_stamp(path)
    return None

"""Facts of a model for a request: cached look-ups by name, and the model's own defaults.

A look-up is repeated only if the store, the file or the tuned copies changed on disk: a service
runs for weeks while other processes pull, create, delete and tune models. Defaults (sampling
values, system text, messages, template) come from a Modelfile; those of the request take
precedence.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from paddock.engine.errors import InvalidName
from paddock.engine.request import ChatRequest, Message, ModelFacts, Sampling, resolve_sampling
from paddock.engine.settings import PoolSettings

from .model_cards import model_capabilities
from .model_finder import FileStamp, ModelFinder, file_stamp
from .model_names import parse_name


def merged_sampling(request: ChatRequest, facts: ModelFacts) -> Sampling:
    """Merge sampling values: the request's, the spec's, the model's own, the caller's defaults."""
    return resolve_sampling(request.params, request.model.params, facts.params, request.defaults)


def with_model_defaults(request: ChatRequest, facts: ModelFacts) -> ChatRequest:
    """Return a request with its model's system text, messages and template.

    A raw prompt stays as it is.
    """
    if request.prompt is not None and request.suffix is None:
        return request
    return replace(
        request,
        # The tokens of an earlier answer already contain the model's messages.
        messages=with_model_messages(request.messages, facts, is_new=not request.prompt_tokens),
        template=request.template or facts.template,
    )


def with_model_messages(
    messages: Sequence[Message], facts: ModelFacts, *, is_new: bool = True
) -> tuple[Message, ...]:
    """Return a conversation that begins with its model's system text and messages.

    A request's own system turns replace the model's; they stay at the beginning, because many
    templates accept them only there.
    """
    turns = tuple(messages)
    if not turns:
        return turns
    n_system = next((n for n, one in enumerate(turns) if one.role != "system"), len(turns))
    system = (Message("system", facts.system),) if facts.system and not n_system else ()
    own = facts.messages if is_new else ()
    return (*system, *turns[:n_system], *own, *turns[n_system:])


_FileStamps = tuple[FileStamp | None, ...]
"""Equal stamps: the files are unchanged."""

# Clients may send any number of names.
_MAX_CACHED_FACTS = 1024


@dataclass(frozen=True, slots=True)
class _CachedFacts:
    facts: ModelFacts
    stamps: _FileStamps


class ModelFactsCache:
    """Facts of models by name; for one event loop."""

    def __init__(self, models: ModelFinder, settings: PoolSettings) -> None:
        self._models = models
        self._settings = settings
        self._store = models.store
        self._known: OrderedDict[str, _CachedFacts] = OrderedDict()

    async def facts(self, ref: str) -> ModelFacts:
        """Return a model's current facts, or raise as the finder does."""
        known = await asyncio.to_thread(self._looked_up, ref, self._known.get(ref))
        self._known[ref] = known
        self._known.move_to_end(ref)
        if len(self._known) > _MAX_CACHED_FACTS:
            self._known.popitem(last=False)
        return known.facts

    def _looked_up(self, ref: str, known: _CachedFacts | None) -> _CachedFacts:
        if known is not None and known.stamps == self._stamps(ref, known.facts):
            return known
        facts = self._models.find(ref, self._settings.n_ctx_tokens)
        draft = self._settings.draft_models.get(facts.name)
        if draft is not None:
            facts = replace(facts, draft_path=str(self._models.locate(draft).path))
        if facts.role == "chat":
            facts = replace(facts, takes_tools="tools" in model_capabilities(self._models, facts))
        return _CachedFacts(facts, self._stamps(ref, facts))

    def _stamps(self, ref: str, facts: ModelFacts) -> _FileStamps:
        """Return the stamps of the files that a name depends on; takes 50 µs."""
        try:
            manifest = self._store.manifest_path(parse_name(ref))
        except InvalidName:  # the path of a file
            manifest = None
        files = (manifest, Path(facts.path), self._models.tuned.folder)
        return tuple(_stamp_or_none(file) for file in files)


def _stamp_or_none(path: Path | None) -> FileStamp | None:
    with suppress(OSError):
        return file_stamp(path) if path is not None else None
    return None

"""Facts of a model for a request: cached look-ups by name, and the model's own defaults.

A look-up is repeated only where something changed on disk (store, file or tuned copies, by their
times): a service runs for weeks while other processes pull, make, delete and tune models. Defaults
(sampling values, system text, messages, template) come from a Modelfile; the request's own go
first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paddock.engine.errors import InvalidName
from paddock.engine.request import ChatRequest, Message, ModelFacts, Sampling, resolve_sampling
from paddock.engine.settings import PoolSettings

from .model_cards import model_capabilities
from .model_finder import ModelFinder
from .model_names import parse_name


def merged_sampling(request: ChatRequest, facts: ModelFacts) -> Sampling:
    """Merge sampling values: the request's, the spec's, the model's own, the caller's defaults.

    Raises:
        BadRequest: a name that is not known, or a value that cannot be used.
    """
    return resolve_sampling(request.params, request.model.params, facts.params, request.defaults)


def with_model_defaults(request: ChatRequest, facts: ModelFacts) -> ChatRequest:
    """Return a request with what its model says before each conversation; raw prompts stay bare."""
    if request.prompt is not None and request.suffix is None:
        return request
    return replace(
        request,
        # Tokens of an earlier answer have the model's own messages in them already.
        messages=with_model_messages(request.messages, facts, is_new=not request.prompt_tokens),
        template=request.template or facts.template,
    )


def with_model_messages(
    messages: Sequence[Message], facts: ModelFacts, *, is_new: bool = True
) -> tuple[Message, ...]:
    """Return a conversation with its model's beginning: system text first, then messages.

    A request's own system turns take the place of the model's, and stand before its messages, as
    many templates take one at the very beginning only.
    """
    told = tuple(messages)
    if not told:
        return told
    n_system = next((n for n, one in enumerate(told) if one.role != "system"), len(told))
    system = (Message("system", facts.system),) if facts.system and not n_system else ()
    own = facts.messages if is_new else ()
    return (*system, *told[:n_system], *own, *told[n_system:])


_FileStamps = tuple[object, ...]
"""Equal marks: the files are what they were."""

# Anybody may ask for names that there are not, or are for once; the oldest are forgotten.
_MAX_CACHED_FACTS = 1024


@dataclass(frozen=True, slots=True)
class _CachedFacts:
    facts: ModelFacts
    mark: _FileStamps


class ModelFactsCache:
    """Facts of models by their names. Used in one event loop."""

    def __init__(self, models: ModelFinder, settings: PoolSettings) -> None:
        self._models = models
        self._settings = settings
        self._store = models.store
        self._known: OrderedDict[str, _CachedFacts] = OrderedDict()

    async def facts(self, ref: str) -> ModelFacts:
        """Return what is known of a model now.

        Raises:
            ModelNotFound: with the known names.
            ModelBroken: with path and reason.
        """
        known = await asyncio.to_thread(self._looked_up, ref, self._known.get(ref))
        self._known[ref] = known
        self._known.move_to_end(ref)
        if len(self._known) > _MAX_CACHED_FACTS:
            self._known.popitem(last=False)
        return known.facts

    def _looked_up(self, ref: str, known: _CachedFacts | None) -> _CachedFacts:
        if known is not None and known.mark == self._mark(ref, known.facts):
            return known
        facts = self._models.find(ref, self._settings.n_ctx_tokens)
        draft = self._settings.draft_models.get(facts.name)
        if draft is not None:
            facts = replace(facts, draft_path=str(self._models.locate(draft).path))
        if facts.role == "chat":
            facts = replace(facts, takes_tools="tools" in model_capabilities(self._models, facts))
        return _CachedFacts(facts, self._mark(ref, facts))

    def _mark(self, ref: str, facts: ModelFacts) -> _FileStamps:
        """Return what changes when a name comes to stand for something else: 50 µs."""
        try:
            manifest = self._store.manifest_path(parse_name(ref))
        except InvalidName:  # the path of a file
            manifest = None
        files = (manifest, Path(facts.path), self._models.tuned.folder)
        return tuple(_stamp_of(file) for file in files)


def _stamp_of(path: Path | None) -> object:
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        return None
    return (str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat is not None else None

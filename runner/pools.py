"""Open the pools that a bound plan's models are asked from, and look every model up.

A model that names servers elsewhere is asked there, all others by one pool: the caller's, servers
that the settings name, this machine's service, or a pool inside this process. Knows no step and
no ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Stream,
    Tool,
)
from paddock.pipelines.errors import Fault, PipelineError

from . import model_faults
from .binding.bound import BoundPlan, BoundPool
from .body import plans_of, steps_within
from .calls import Digests
from .secrets import Secrets
from .settings import Settings

if TYPE_CHECKING:
    from paddock.engine.elsewhere.spread import SpreadPool
    from paddock.engine.elsewhere.tokenizer import Tokenizer

    from .residence.tenancy import Tenant

_READ_LIMITS = "servers.json"

Note = Callable[[str], None]
"""Shows a person one line."""


class Interrupted(Exception):
    """Somebody asked to end while the models were looked up."""


@asynccontextmanager
async def opened_pool(
    bound: BoundPlan,
    settings: Settings,
    *,
    given: Pool | None = None,
    home: Pool | None = None,
    here: Tenant | None = None,
    is_plan: bool = False,
    secrets: Secrets | None = None,
    stop: asyncio.Event | None = None,
    is_patient: bool = False,
    note: Note = print,
    besides: Iterable[ModelSpec] = (),
) -> AsyncIterator[tuple[Digests, Pool]]:
    """Give the models' digests and the pool; every named model is looked up before the start.

    `given` serves instead of any other, `home` all models that name no servers; `here` finds or
    starts this machine's service, in place of a pool inside this process. A plan only looks up
    and gets no pool of its own. Who is patient also waits for servers elsewhere that are all away
    at the start. `besides` are models that no step names.

    Raises:
        ModelFaults: models that the pipeline names are not here, each with its place.
        PipelineError: models cannot do what the pipeline asks of them.
        EngineError: another model cannot be used, or a server cannot be asked.
        Interrupted: `stop` was set before all were looked up.
    """
    specs = (*models_of(bound), *besides)
    if given is not None:
        yield await _looked_up(given, specs, stop, bound), given
        return
    spread = _Spread(settings.pool_wait_s, is_patient, note, settings.state_dir)
    async with AsyncExitStack() as stack:
        if home is None and any(not spec.pool for spec in specs):
            near = _home(settings, here, is_plan, spread)
            home = await stack.enter_async_context(near)
        elsewhere = {
            name: await stack.enter_async_context(
                await _elsewhere(plan, pool, settings, secrets, spread)
            )
            for plan in plans_of(bound)
            for name, pool in plan.pools.items()
            if any(spec.pool == name for spec in specs)
        }
        home = home or NoPool()
        pool = RoutedPool(home, elsewhere) if elsewhere else home
        yield await _looked_up(pool, specs, stop, bound), pool


@asynccontextmanager
async def home_pool(settings: Settings, note: Note = print) -> AsyncIterator[Pool]:
    """Open the pool of models that name no servers, for several runs."""
    spread = _Spread(settings.pool_wait_s, False, note, settings.state_dir)
    async with _home(settings, None, False, spread) as pool:
        yield pool


@asynccontextmanager
async def _home(
    settings: Settings,
    here: Tenant | None,
    is_plan: bool,
    spread: _Spread,
) -> AsyncIterator[Pool]:
    """Open the pool of the models that name none."""
    if settings.pool_urls:
        async with spread.over(settings.pool_urls, settings.pool_key) as servers:
            yield servers
        return
    if is_plan:
        looked_up = LookedUp(settings)
        try:
            yield looked_up
        finally:
            await looked_up.aclose()
        return
    if here is not None:
        from .on_demand import OnDemandPool

        async with OnDemandPool(settings, here, LookedUp(settings).facts) as served:
            yield served
        return
    from paddock.engine.pool import LocalPool

    async with LocalPool(settings.pool) as local:
        yield local


async def _elsewhere(
    bound: BoundPlan,
    pool: BoundPool,
    settings: Settings,
    secrets: Secrets | None,
    spread: _Spread,
) -> SpreadPool:
    """Make the pool of servers that a model names."""
    scope = {"inputs": bound.inputs, "secrets": secrets.of(bound.file) if secrets else {}}
    key = "" if pool.key is None else str(pool.key.render(scope))
    tokenizer = None
    if pool.tokenizer is not None:
        tokenizer = await asyncio.to_thread(_file_of, pool.tokenizer, settings)
    return spread.over(pool.urls, key, tokenizer)


def _file_of(tokenizer: str, settings: Settings) -> Path:
    """Find the file of a model by whose vocabulary is counted.

    Raises:
        ModelNotFound: with the known names.
    """
    from paddock.engine.models import ModelFinder

    return ModelFinder(settings.pool.models_dir, settings.pool.cache_dir).locate(tokenizer).path


@dataclass(frozen=True, slots=True)
class _Spread:
    """Makes pools of servers elsewhere."""

    wait_s: float
    is_patient: bool
    note: Note
    state_dir: Path

    def over(self, urls: Iterable[str], key: str, tokenizer: Path | None = None) -> SpreadPool:
        from paddock.engine.elsewhere.address import ServerAddress
        from paddock.engine.elsewhere.any_server import AnyServer
        from paddock.engine.elsewhere.spread import SpreadPool
        from paddock.engine.elsewhere.truncation import ReadLimits

        limits = ReadLimits(self.state_dir / _READ_LIMITS)
        addresses = [ServerAddress(url, key) for url in urls]
        servers = [
            AnyServer(one, self.note, tokenizer=tokenizer, limits=limits) for one in addresses
        ]
        return SpreadPool(servers, self.note, reach_s=self.wait_s, is_patient=self.is_patient)


def models_of(bound: BoundPlan) -> tuple[ModelSpec, ...]:
    """Return the models that a plan's steps ask, named or not, each once."""
    models = (spec for step in steps_within(bound.nodes) for spec in step.models)
    return tuple({(spec.pool, spec.ref): spec for spec in models}.values())


async def _looked_up(
    pool: Pool, specs: Iterable[ModelSpec], stop: asyncio.Event | None, bound: BoundPlan
) -> Digests:
    digests = Digests(pool.facts)

    async def look() -> None:
        faults: list[Fault] = []
        for spec in specs:
            try:
                await digests.of(spec)
            except model_faults.LOOKUP as error:
                found = list(model_faults.of_lookup(error, spec, bound))
                if not found:  # no place names it: a default
                    raise
                faults += found
        unfit = list(model_faults.of_facts(digests.known, bound))
        if faults:
            raise model_faults.ModelFaults([*faults, *unfit])
        if unfit:
            raise PipelineError(unfit)

    # A server elsewhere that loads its model is waited for; whoever asks to end is not let wait.
    looking = asyncio.create_task(look())
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait({looking, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not looking.done():
            raise Interrupted("Interrupted before it began.")
        looking.result()
    finally:
        for task in (looking, stopped):
            task.cancel()
        await asyncio.wait({looking, stopped})
    return digests


class RoutedPool:
    """Implements `paddock.engine.request.Pool`: each model is asked where it is served."""

    def __init__(self, home: Pool, elsewhere: Mapping[str, Pool]) -> None:
        self._home = home
        self._elsewhere = elsewhere

    def __getattr__(self, name: str) -> Any:
        """Give what only some pools have (`stats`) as the pool at home has it."""
        return getattr(self._home, name)

    async def ready(self, model: ModelSpec) -> None:
        """Open the pool that serves a model, where it is not open yet."""
        ready = getattr(self._of(model), "ready", None)
        if ready is not None:
            await ready(model)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model without loading it."""
        return await self._of(model).facts(model)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count the prompt's tokens, the model's chat template included."""
        return await self._of(model).count_chat(model, messages, tools)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens."""
        return await self._of(model).count_texts(model, texts)

    def chat(self, request: ChatRequest) -> Stream:
        """Queue a request; errors come out of the stream."""
        return self._of(request.model).chat(request)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts."""
        return await self._of(request.model).embed(request)

    def _of(self, model: ModelSpec) -> Pool:
        return self._elsewhere.get(model.pool, self._home)


class NoPool:
    """The pool of pipelines that name no model."""

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Refuse."""
        raise self._refusal(model)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Refuse."""
        raise self._refusal(model)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Refuse."""
        raise self._refusal(model)

    def chat(self, request: ChatRequest) -> Stream:
        """Refuse."""
        raise self._refusal(request.model)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Refuse."""
        raise self._refusal(request.model)

    @staticmethod
    def _refusal(model: ModelSpec) -> EngineError:
        return EngineError(f"model '{model.ref}' is asked for by a step that declares no model.")


class LookedUp(NoPool):
    """The pool of a plan: tells what the models on this machine are, and asks none of them.

    Counts tokens with the vocabularies of their files.
    """

    def __init__(self, settings: Settings) -> None:
        from paddock.engine.models import ModelFinder

        self._n_ctx_tokens = settings.pool.n_ctx_tokens
        self._finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
        self._tokenizers: dict[str, Tokenizer] = {}

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens, without what tells the model of its tools.

        Raises:
            ModelBroken: the file cannot be read.
            BadRequest: its template refuses such a conversation.
        """
        return await (await self._tokenizer(model)).count_chat(messages)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens.

        Raises:
            ModelBroken: the file cannot be read.
        """
        return await (await self._tokenizer(model)).count_texts(texts)

    async def _tokenizer(self, model: ModelSpec) -> Tokenizer:
        from paddock.engine.elsewhere.tokenizer import Tokenizer

        facts = await self.facts(model)
        if facts.path not in self._tokenizers:
            self._tokenizers[facts.path] = Tokenizer(Path(facts.path), facts.parts)
        return self._tokenizers[facts.path]

    async def aclose(self) -> None:
        """End the processes that count."""
        for tokenizer in self._tokenizers.values():
            await tokenizer.aclose()

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model."""
        from paddock.engine.models import with_context

        found = await asyncio.to_thread(self._finder.find, model.ref, self._n_ctx_tokens)
        return with_context(found, model.n_ctx_tokens)

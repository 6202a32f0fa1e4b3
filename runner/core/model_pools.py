"""Open the pools that serve a plan's models, and look up every model.

A model that names servers is served there. All others share one pool: the caller's, servers that
the settings name, this machine's service (started at the first model call: a run whose items are
all fresh starts nothing), or a pool inside this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    ForwardingPool,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Stream,
    Tool,
)
from paddock.engine.system.hosts import ServerAddress
from paddock.engine.system.tasks import StopRequested, unless
from paddock.pipelines.errors import Fault, PipelineError
from paddock.runner.bind import pipeline_models
from paddock.runner.bind.bound import BoundPlan, BoundPool
from paddock.runner.bind.subpipelines import all_plans, all_steps
from paddock.runner.config.pipeline_secrets import Secrets
from paddock.runner.settings import Settings

from .call_cache import ModelDigests

if TYPE_CHECKING:
    from paddock.engine.backends.balancer import BalancedPool
    from paddock.engine.backends.token_counting import LocalTokenizer
    from paddock.engine.memory.pool_stats import PoolStats
    from paddock.runner.daemon.run_session import DaemonSession

LookUpFacts = Callable[[ModelSpec], Awaitable[ModelFacts]]


class OnDemandPool(ForwardingPool):
    """A pool that opens at its first use; await `ready` before `chat`.

    Without a service, it opens a pool inside this process.
    """

    def __init__(self, settings: Settings, tenant: DaemonSession, facts: LookUpFacts) -> None:
        """`facts` looks models up while there is no pool."""
        self._settings = settings
        self._tenant = tenant
        self._facts = facts
        self._stack = AsyncExitStack()
        self._pool: Any = None
        self._opening: asyncio.Task[Pool] | None = None
        self.first_call = asyncio.Event()
        """Set at the first chat or embedding call."""

    async def __aenter__(self) -> OnDemandPool:
        """Use the service if it is running."""
        if self._tenant.is_there:
            await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what was opened."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        await self._stack.aclose()

    async def ready(self, model: ModelSpec) -> None:
        """Open the pool, unless it is."""
        await self._opened()

    def stats(self) -> PoolStats:
        """Return the pool's stats; empty while there is no pool."""
        from paddock.engine.memory.pool_stats import PoolStats

        stats: PoolStats = PoolStats((), {}) if self._pool is None else self._pool.stats()
        return stats

    async def facts(self, model: ModelSpec) -> ModelFacts:
        return await (self._facts if self._pool is None else self._pool.facts)(model)

    def chat(self, request: ChatRequest) -> Stream:
        self.first_call.set()
        stream: Stream = self._pool.chat(request)
        return stream

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        self.first_call.set()
        return await super().embed(request)

    async def pool_of(self, model: ModelSpec) -> Pool:
        return await self._opened()

    async def _opened(self) -> Pool:
        """Return the pool, opened once for all callers; a cancelled caller stops nothing."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Pool:
        pool: Any
        if await self._tenant.start():
            from paddock.engine.backends.rpc import RemotePool  # brings numpy, which a plan lacks

            pool = RemotePool(self._tenant.place)
        else:
            from paddock.engine.backends.local import LocalPool

            pool = LocalPool(self._settings.pool)
        self._pool = await self._stack.enter_async_context(pool)
        return self._pool  # type: ignore[no-any-return]


_READ_LIMITS = "servers.json"

Note = Callable[[str], None]
"""Shows one line."""


class LookupInterrupted(Exception):
    """The run was stopped while its models were looked up."""


@asynccontextmanager
async def open_pools(
    bound: BoundPlan,
    settings: Settings,
    *,
    given: Pool | None = None,
    home: Pool | None = None,
    here: DaemonSession | None = None,
    is_plan: bool = False,
    secrets: Secrets | None = None,
    stop: asyncio.Event | None = None,
    is_patient: bool = False,
    note: Note = print,
    besides: Iterable[ModelSpec] = (),
) -> AsyncIterator[tuple[ModelDigests, Pool]]:
    """Yield the models' digests and the pool; every named model is looked up before the start.

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
    specs = (*models_asked(bound), *besides)
    if given is not None:
        yield await _look_up_models(given, specs, stop, bound), given
        return
    spread = _ServerPools(settings.pool_wait_s, is_patient, note, settings.state_dir)
    async with AsyncExitStack() as stack:
        if home is None and any(not spec.pool for spec in specs):
            near = _home_pool(settings, here, is_plan, spread)
            home = await stack.enter_async_context(near)
        elsewhere = {
            name: await stack.enter_async_context(
                await _server_pools(plan, pool, settings, secrets, spread)
            )
            for plan in all_plans(bound)
            for name, pool in plan.pools.items()
            if any(spec.pool == name for spec in specs)
        }
        pool = home if home is not None and not elsewhere else RoutedPool(home, elsewhere)
        yield await _look_up_models(pool, specs, stop, bound), pool


@asynccontextmanager
async def open_home_pool(settings: Settings, note: Note = print) -> AsyncIterator[Pool]:
    """Open the pool of models that name no servers, to be shared by several runs."""
    spread = _ServerPools(settings.pool_wait_s, False, note, settings.state_dir)
    async with _home_pool(settings, None, False, spread) as pool:
        yield pool


@asynccontextmanager
async def _home_pool(
    settings: Settings,
    here: DaemonSession | None,
    is_plan: bool,
    spread: _ServerPools,
) -> AsyncIterator[Pool]:
    """Open the pool of models that name no servers."""
    if settings.pool_urls:
        async with spread.over(settings.pool_urls, settings.pool_key) as servers:
            yield servers
        return
    if is_plan:
        looked_up = LookupPool(settings)
        try:
            yield looked_up
        finally:
            await looked_up.aclose()
        return
    if here is not None:
        async with OnDemandPool(settings, here, LookupPool(settings).facts) as served:
            yield served
        return
    from paddock.engine.backends.local import LocalPool

    async with LocalPool(settings.pool) as local:
        yield local


async def _server_pools(
    bound: BoundPlan,
    pool: BoundPool,
    settings: Settings,
    secrets: Secrets | None,
    spread: _ServerPools,
) -> BalancedPool:
    """Return the pool of the servers that a model names."""
    scope = {"inputs": bound.inputs, "secrets": secrets.of(bound.file) if secrets else {}}
    key = "" if pool.key is None else str(pool.key.render(scope))
    tokenizer = None
    if pool.tokenizer is not None:
        tokenizer = await asyncio.to_thread(_file_of, pool.tokenizer, settings)
    return spread.over(pool.urls, key, tokenizer)


def _file_of(tokenizer: str, settings: Settings) -> Path:
    """Return the model file whose vocabulary counts tokens.

    Raises:
        ModelNotFound: with the known names.
    """
    from paddock.engine.models.model_finder import ModelFinder

    return ModelFinder(settings.pool.models_dir, settings.pool.cache_dir).locate(tokenizer).path


@dataclass(frozen=True, slots=True)
class _ServerPools:
    """Makes pools of remote servers."""

    wait_s: float
    is_patient: bool
    note: Note
    state_dir: Path

    def over(self, urls: Iterable[str], key: str, tokenizer: Path | None = None) -> BalancedPool:
        from paddock.engine.backends.balancer import BalancedPool, ServerMember
        from paddock.engine.backends.model_servers import detect_server
        from paddock.engine.backends.truncation_check import ReadLimits

        limits = ReadLimits(self.state_dir / _READ_LIMITS)
        addresses = [ServerAddress(url, key) for url in urls]
        find = partial(detect_server, note=self.note, tokenizer=tokenizer, limits=limits)
        servers = [ServerMember(one.url, partial(find, one)) for one in addresses]
        return BalancedPool(servers, self.note, reach_s=self.wait_s, is_patient=self.is_patient)


def models_asked(bound: BoundPlan) -> tuple[ModelSpec, ...]:
    """Return the models that a plan's steps ask, named or not, each once."""
    models = (spec for step in all_steps(bound.nodes) for spec in step.models)
    return tuple({(spec.pool, spec.ref): spec for spec in models}.values())


async def _look_up_models(
    pool: Pool, specs: Iterable[ModelSpec], stop: asyncio.Event | None, bound: BoundPlan
) -> ModelDigests:
    digests = ModelDigests(pool.facts)

    async def look() -> None:
        faults: list[Fault] = []
        for spec in specs:
            try:
                await digests.of(spec)
            except pipeline_models.LOOKUP_ERRORS as error:
                found = list(pipeline_models.lookup_faults(error, spec, bound))
                if not found:  # a default, which has no place in the file
                    raise
                faults += found
        unfit = list(pipeline_models.model_fact_faults(digests.known, bound))
        if faults:
            raise pipeline_models.ModelFaults([*faults, *unfit])
        if unfit:
            raise PipelineError(unfit)

    # A remote server that loads its model is waited for; a stop ends the wait.
    try:
        await unless(look(), stop or asyncio.Event())
    except StopRequested:
        raise LookupInterrupted("Interrupted before it began.") from None
    return digests


class RoutedPool(ForwardingPool):
    """Routes each model to its pool; no `home`: no step may ask a model that names no servers."""

    def __init__(self, home: Pool | None, elsewhere: Mapping[str, Pool]) -> None:
        self._home = home
        self._elsewhere = elsewhere

    def __getattr__(self, name: str) -> Any:
        """Return attributes that only some pools have (`stats`), from the home pool."""
        return getattr(self._home, name)

    async def ready(self, model: ModelSpec) -> None:
        """Open the pool that serves a model, unless it is open."""
        ready = getattr(self._of(model), "ready", None)
        if ready is not None:
            await ready(model)

    async def pool_of(self, model: ModelSpec) -> Pool:
        return self._of(model)

    def chat(self, request: ChatRequest) -> Stream:
        return self._of(request.model).chat(request)

    def _of(self, model: ModelSpec) -> Pool:
        pool = self._elsewhere.get(model.pool, self._home)
        if pool is None:
            raise EngineError(f"model '{model.ref}' is asked for by a step that declares no model.")
        return pool


class LookupPool(RoutedPool):
    """The pool of a plan: looks up models on this machine, and runs none.

    Counts tokens with the vocabularies of their files.
    """

    def __init__(self, settings: Settings) -> None:
        from paddock.engine.models.model_finder import ModelFinder

        super().__init__(None, {})
        self._n_ctx_tokens = settings.pool.n_ctx_tokens
        self._finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
        self._tokenizers: dict[str, LocalTokenizer] = {}

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens, without the tools' part.

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

    async def _tokenizer(self, model: ModelSpec) -> LocalTokenizer:
        facts = await self.facts(model)
        if facts.path not in self._tokenizers:
            from paddock.engine.backends.token_counting import LocalTokenizer

            self._tokenizers[facts.path] = LocalTokenizer(Path(facts.path), facts.parts)
        return self._tokenizers[facts.path]

    async def aclose(self) -> None:
        """Stop the counting processes."""
        for tokenizer in self._tokenizers.values():
            await tokenizer.aclose()

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Return a model's facts."""
        from paddock.engine.models.model_finder import with_context

        found = await asyncio.to_thread(self._finder.find, model.ref, self._n_ctx_tokens)
        return with_context(found, model.n_ctx_tokens)

"""Open the pools that serve a plan's models, and look up every model.

A model that names servers is served there. All others share one pool: the caller's, servers that
the settings name, this machine's service (started at the first model call: a run whose items are
all fresh starts nothing), or a pool inside this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.backends.answer import Answer
from paddock.engine.errors import EngineError, WrongModel
from paddock.engine.memory.pool_stats import PoolStats, stats_of
from paddock.engine.request import (
    DEFAULT_CTX_TOKENS,
    ChatRequest,
    ForwardingPool,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Reply,
    Stream,
    Tool,
)
from paddock.engine.system.records import Struct
from paddock.engine.system.server_address import ServerAddress
from paddock.engine.system.tasks import StopRequested, run_unless_stopped
from paddock.pipelines.errors import Fault, PipelineError
from paddock.runner.bind.bound import BoundPlan, BoundPool
from paddock.runner.bind.checks import requirements
from paddock.runner.bind.plan_walks import all_plans, all_steps
from paddock.runner.config.pipeline_secrets import Secrets
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.settings import Settings

from .run_models import RunModels

if TYPE_CHECKING:
    from paddock.engine.backends.balancer import BalancedPool
    from paddock.engine.backends.token_counting import LocalTokenizer
    from paddock.engine.models.model_finder import ModelFinder

OpenPool = Callable[[], AbstractAsyncContextManager[Pool]]


_READ_LIMITS = "servers.json"

Note = Callable[[str], None]
"""Shows one line."""


class LookupInterrupted(Exception):
    """The run was stopped while its models were looked up."""


class PoolOptions(Struct, frozen=True, kw_only=True):
    """Which pools serve a run's models, and how they are opened."""

    given: Pool | None = None
    """Serves all models in place of any other pool."""
    default: Pool | None = None
    """Serves all models that name no servers."""
    open_service: OpenPool | None = None
    """Opens the pool of this machine's service, in place of one inside this process."""
    is_plan: bool = False
    """Whether models are only looked up."""
    forbidden_pools: frozenset[str] = frozenset()
    """Pools elsewhere that a plan may not ask; facts of their models are the ledger's."""
    ledger: Ledger | None = None
    is_patient: bool = False
    """Whether to wait for servers elsewhere that are all away at the start, too."""
    secrets: Secrets | None = None
    stop: asyncio.Event | None = None
    note: Note = print
    besides: Sequence[ModelSpec] = ()
    """Models that no step names."""


@asynccontextmanager
async def open_pools(
    bound: BoundPlan, settings: Settings, options: PoolOptions
) -> AsyncIterator[tuple[RunModels, Pool]]:
    """Yield the run's models and pool; every named model is looked up before the start.

    Raises:
        ModelFaults: models that the pipeline names are not here, each with its place.
        PipelineError: models cannot do what the pipeline asks of them.
        EngineError: another model cannot be used, or a server cannot be asked.
        LookupInterrupted: `stop` was set before all were looked up.
    """
    used = {spec.key: spec for step in all_steps(bound.nodes) for spec in step.models}
    specs = (*used.values(), *options.besides)
    if options.given is not None:
        yield await _look_up_models(options.given, specs, options.stop, bound), options.given
        return
    opener = _PoolOpener(settings, options)
    async with AsyncExitStack() as stack:
        default = options.default
        named = {spec.pool for spec in specs}
        if default is None and "" in named:
            default = await stack.enter_async_context(opener.default())
        elsewhere: dict[str, Pool] = {}
        if options.ledger is not None and options.forbidden_pools:
            known = LedgerFactsPool(options.ledger, settings)
            elsewhere = dict.fromkeys(options.forbidden_pools, known)
        for plan in all_plans(bound):
            for name, declared in plan.pools.items():
                if name in named - elsewhere.keys():
                    remote = await opener.open_remote_pool(plan, declared)
                    elsewhere[name] = await stack.enter_async_context(remote)
        pool = default if default is not None and not elsewhere else RoutedPool(default, elsewhere)
        yield await _look_up_models(pool, specs, options.stop, bound), pool


def open_default_pool(settings: Settings) -> AbstractAsyncContextManager[Pool]:
    return _PoolOpener(settings, PoolOptions()).default()


def _model_finder(settings: Settings) -> ModelFinder:
    from paddock.engine.models.model_finder import ModelFinder  # only where models are named

    return ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)


class _PoolOpener(Struct, frozen=True):
    settings: Settings
    options: PoolOptions

    def default(self) -> AbstractAsyncContextManager[Pool]:
        settings, open_service = self.settings, self.options.open_service
        if settings.pool_urls:
            return self._servers(settings.pool_urls, settings.pool_key)
        if self.options.is_plan:
            return aclosing(LookupPool(settings))
        return OnDemandPool(settings) if open_service is None else open_service()

    async def open_remote_pool(self, bound: BoundPlan, pool: BoundPool) -> BalancedPool:
        """Return the pool of the servers that a model names.

        Raises:
            ModelNotFound: the model file whose vocabulary counts tokens is not there.
        """
        secrets = self.options.secrets
        scope = {"inputs": bound.inputs, "secrets": secrets.of(bound.file) if secrets else {}}
        key = "" if pool.key is None else str(pool.key.render(scope))
        if pool.tokenizer is None:
            return self._servers(pool.urls, key)
        located = await asyncio.to_thread(_model_finder(self.settings).locate, pool.tokenizer)
        return self._servers(pool.urls, key, located.path)

    def _servers(
        self, urls: Iterable[str], key: str, tokenizer: Path | None = None
    ) -> BalancedPool:
        from paddock.engine.backends import balancer, model_servers, truncation_check  # httpx

        find = partial(
            model_servers.detect_server,
            note=self.options.note,
            tokenizer=tokenizer,
            limits=truncation_check.ReadLimits(self.settings.state_dir / _READ_LIMITS),
            usual_ctx_tokens=self.settings.pool.n_ctx_tokens,
        )
        return balancer.BalancedPool(
            [balancer.ServerMember(url, partial(find, ServerAddress(url, key))) for url in urls],
            self.options.note,
            reach_s=self.settings.pool_wait_s,
            is_patient=self.options.is_patient,
        )


async def _look_up_models(
    pool: Pool, specs: Iterable[ModelSpec], stop: asyncio.Event | None, bound: BoundPlan
) -> RunModels:
    models = RunModels(pool.facts)

    async def look() -> None:
        faults: list[Fault] = []
        for spec in specs:
            try:
                await models.of(spec)
            except WrongModel as error:
                of_model = list(requirements.lookup_faults(error, spec, bound))
                if not of_model:  # a default, which has no place in the file
                    raise
                faults += of_model
        unfit = list(requirements.model_fact_faults(models.known, bound))
        if faults:
            raise requirements.ModelFaults([*faults, *unfit])
        if unfit:
            raise PipelineError(unfit)

    # A remote server that loads its model is waited for; a stop ends the wait.
    try:
        await run_unless_stopped(look(), stop or asyncio.Event())
    except StopRequested:
        raise LookupInterrupted("Interrupted before it began.") from None
    return models


class RoutedPool(ForwardingPool):
    """Routes each model to its pool; without `default` each step names servers."""

    def __init__(self, default: Pool | None, elsewhere: Mapping[str, Pool]) -> None:
        self._default = default
        self._elsewhere = elsewhere

    def stats(self) -> PoolStats:
        return stats_of(self._default)

    async def pool_of(self, model: ModelSpec) -> Pool:
        return self._of(model)

    def chat(self, request: ChatRequest) -> Stream:
        return self._of(request.model).chat(request)

    def _of(self, model: ModelSpec) -> Pool:
        pool = self._elsewhere.get(model.pool, self._default)
        if pool is None:
            raise EngineError(f"model '{model.ref}' is asked for by a step that declares no model.")
        return pool


class FactsPool(ForwardingPool):
    """Base of the pools of a plan: they know facts about models, and run none."""

    async def pool_of(self, model: ModelSpec) -> Pool:
        raise EngineError(f"model '{model.ref}' is asked for, but this is a plan.")

    def chat(self, request: ChatRequest) -> Stream:
        raise EngineError(f"model '{request.model.ref}' is asked for, but this is a plan.")


class LedgerFactsPool(FactsPool):
    """The pool of a plan that may not ask a server: facts are as the ledger last had them."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._n_ctx_tokens = settings.pool.n_ctx_tokens or DEFAULT_CTX_TOKENS

    async def facts(self, model: ModelSpec) -> ModelFacts:
        rows = self._ledger.rows(queries.LAST_DIGEST_OF_MODEL, model=model.ref)
        n_ctx_tokens = model.n_ctx_tokens or self._n_ctx_tokens
        return ModelFacts(
            name=model.ref,
            path="",
            digest=str(rows[0][0]) if rows else "",
            size_bytes=0,
            architecture="",
            role=model.role,
            n_ctx_train_tokens=n_ctx_tokens,
            n_ctx_tokens=n_ctx_tokens,
        )


class LookupPool(FactsPool):
    """The pool of a plan: looks up models on this machine.

    It counts tokens with the vocabularies of their files.
    """

    def __init__(self, settings: Settings) -> None:
        self._n_ctx_tokens = settings.pool.n_ctx_tokens
        self._finder = _model_finder(settings)
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
        from paddock.engine.backends.token_counting import LocalTokenizer  # only where tokens count

        facts = await self.facts(model)
        if facts.path not in self._tokenizers:
            self._tokenizers[facts.path] = LocalTokenizer(Path(facts.path), facts.parts)
        return self._tokenizers[facts.path]

    async def aclose(self) -> None:
        for tokenizer in self._tokenizers.values():
            await tokenizer.aclose()

    async def facts(self, model: ModelSpec) -> ModelFacts:
        find = self._finder.find_original
        facts = await asyncio.to_thread(find, model.ref, self._n_ctx_tokens)
        n_ctx = model.n_ctx_tokens
        return facts if n_ctx is None else facts.with_context(n_ctx)


class OnDemandPool(ForwardingPool):
    """A pool inside this process that opens at its first use, or by `ready`.

    A run whose items are all fresh only looks models up.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._facts = LookupPool(settings).facts
        """Looks models up while there is no pool."""
        self._stack = AsyncExitStack()
        self._pool: Pool | None = None
        self._opening: asyncio.Task[Pool] | None = None

    async def __aenter__(self) -> OnDemandPool:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        await self._stack.aclose()

    def stats(self) -> PoolStats:
        return stats_of(self._pool)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        return await (self._facts if self._pool is None else self._pool.facts)(model)

    def chat(self, request: ChatRequest) -> Stream:
        if self._pool is not None:
            return self._pool.chat(request)

        async def serve(answer: Answer) -> Reply:
            stream = (await self._opened()).chat(request)
            async for chunk in stream:
                answer.add(chunk)
            return await stream.reply()

        return Answer(request, serve)

    async def pool_of(self, model: ModelSpec) -> Pool:
        return await self._opened()

    async def _opened(self) -> Pool:
        """Return the pool, opened once for all callers; a cancelled caller stops nothing."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Pool:
        self._pool = await self._stack.enter_async_context(await self._source())
        return self._pool

    async def _source(self) -> AbstractAsyncContextManager[Pool]:
        """Return the pool to open; `ServicePool` has another one."""
        from paddock.engine.backends.local import LocalPool  # brings numpy

        return LocalPool(self._settings.pool, has_metrics=False)

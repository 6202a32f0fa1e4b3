"""A machine without models and the actor of its residents, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from paddock.engine.memory.loaded_models import ModelUse
from paddock.engine.memory.manager import ModelManager
from paddock.engine.memory.pool_stats import PoolEvents, UnloadReason
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.workers.worker_protocol import WorkerGone
from tests.fakes.worker import FakeMachine, FakeWorker

SETTINGS = PoolSettings(keep_alive_s=300, max_wait_s=5, step_timeout_s=30)


class Notes(PoolEvents):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.waited_s: list[float] = []
        self.n_turns = 0

    def loaded(self, model: str, seconds: float) -> None:
        self.lines.append(f"loaded {model}")

    def unloaded(self, model: str, why: UnloadReason) -> None:
        self.lines.append(f"unloaded {model}: {why}")

    def died(self, model: str, reason: str) -> None:
        self.lines.append(f"died {model}: {reason}")

    def waited(self, model: str, seconds: float) -> None:
        self.waited_s.append(seconds)

    def turn(self, model: str, report: Mapping[str, Any]) -> None:
        self.n_turns += 1


class House:
    def __init__(self, machine: FakeMachine, chosen: PoolSettings) -> None:
        self.machine = machine
        self.notes = Notes()
        fake: Any = machine
        self.residents = ModelManager(chosen, fake.start, fake, self.notes)

    def ask(self, name: str, **extra: Any) -> ModelUse:
        facts = self.machine.models[name].facts
        n_ctx = extra.pop("n_ctx_tokens", facts.n_ctx_tokens)
        return ModelUse(replace(facts, n_ctx_tokens=n_ctx), **extra)

    async def chat(self, name: str, n_tokens: int = 10, **extra: Any) -> str:
        """Have one answer made; once more where the worker dies, as the pool does."""
        ask = self.ask(name, **extra)
        for n_left in (2, 1, 0):
            try:
                async with self.residents.use(ask) as worker:
                    return await cast(FakeWorker, worker).chat(n_tokens)
            except WorkerGone:
                if not n_left:
                    raise
        raise AssertionError

    def there(self) -> dict[str, str]:
        return {model.facts.name: model.state for model in self.residents.resident()}


@asynccontextmanager
async def opened(machine: FakeMachine, chosen: PoolSettings = SETTINGS) -> AsyncIterator[House]:
    house = House(machine, chosen)
    try:
        yield house
    finally:
        await house.residents.close()
        assert machine.n_there == 0 and machine.taken == 0, "no worker is left behind"
    assert machine.taken_most <= machine.memory, "never more is taken than there is"


def now() -> float:
    return asyncio.get_running_loop().time()

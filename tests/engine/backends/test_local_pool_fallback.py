"""A build of llama.cpp that crashes on this processor: what the pool goes without, and remembers.

The crash is real: a preloaded library raises the signal within a decode (`tests/fakes/crash.c`).
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import ModelUnusable, WorkerLost
from paddock.engine.llama.build import LlamaBuild
from paddock.engine.memory.worker_starter import WorkerStarter
from paddock.engine.request import ChatRequest, EmbedRequest, ModelSpec
from paddock.engine.system.records import replace
from paddock.engine.workers.fallbacks import FallbackStore, rebuild_command, sound_build_gain
from paddock.engine.workers.worker_process import WORKER_COMMAND, WorkerProcess
from paddock.engine.workers.worker_protocol import WorkerOptions
from tests.engine.pools import SETTINGS, VECTORS, ask
from tests.fakes import faulty_worker, tiny
from tests.fakes.crashing import With, crashing

REBUILD = rebuild_command()


class Machine:
    """Pools of one machine, the starts of their workers, and what it remembers.

    Its chat model is a tiny one: each test starts several workers.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.settings = replace(SETTINGS, cache_dir=folder / "cache")
        self.starts: list[int] = []
        self.command: tuple[str, ...] = WORKER_COMMAND
        self.model = ModelSpec(str(tiny.llama(folder / "tiny.gguf")), n_ctx_tokens=2048)
        self._patch = patch

    def ask(self, text: str = "Hello", n_tokens: int = 4) -> ChatRequest:
        return ask(text, self.model, {"max_tokens": n_tokens})

    async def answer(self, pool: LocalPool) -> None:
        assert (await pool.chat(self.ask()).reply()).usage.completion_tokens

    def crashes(self, with_: With, number: signal.Signals = signal.SIGSEGV, after: int = 0) -> None:
        for name, value in crashing(self.folder, with_, number, after).items():
            self._patch.setenv(name, value)

    def remembered(self) -> dict[str, tuple[int, str]]:
        book = FallbackStore(self.settings.cache_dir)
        return {
            fallback.model: (fallback.fallback, fallback.reason) for fallback in book.all().values()
        }

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[LocalPool]:
        begin = WorkerStarter(self.settings, self.command)
        real = begin._started

        async def started(load: WorkerOptions, fallback: int, *rest: object) -> WorkerProcess:
            self.starts.append(fallback)
            return await real(load, fallback, *rest)  # type: ignore[arg-type]

        self._patch.setattr(begin, "_started", started)

        async with LocalPool(self.settings, start=begin) as pool:
            yield pool

    async def answer_in_a_new_pool(self) -> None:
        async with self.pool() as pool:
            await self.answer(pool)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


async def test_a_model_whose_first_decode_crashes_runs_without_extra_buffers(
    machine: Machine,
) -> None:
    machine.crashes("extra")
    async with machine.pool() as pool:
        await machine.answer(pool)
        (model,) = pool.stats().resident
        assert model.fallback == (
            "runs without extra buffer types, because its worker was killed by SIGSEGV "
            f"while warming up. {sound_build_gain()}: {REBUILD}"
        )
    assert machine.starts == [0, 1]
    (what,) = machine.remembered().values()
    assert what == (1, "killed by SIGSEGV while warming up")


async def test_what_helped_is_remembered_for_every_model_until_the_build_changes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.crashes("extra")
    await machine.answer_in_a_new_pool()

    machine.starts.clear()
    async with machine.pool() as pool:
        await machine.answer(pool)
        assert (await pool.embed(EmbedRequest(VECTORS, ("text",)))).vectors
    assert machine.starts == [1, 1], "nothing crashed, and nothing was tried"
    other = LlamaBuild("llama-cpp-python", tmp_path, "1.2.3")
    monkeypatch.setattr("paddock.engine.workers.fallbacks.find_build", lambda: other)
    machine.starts.clear()
    await machine.answer_in_a_new_pool()
    assert machine.starts == [0, 1], "of another build nothing is known"


@pytest.mark.parametrize(
    ("with_", "n_threads", "starts"), [("flash", 1, [0, 1, 2]), ("threads", 2, [0, 1, 2, 3])]
)
async def test_where_that_does_not_help_it_goes_without_more(
    machine: Machine, with_: With, n_threads: int, starts: list[int]
) -> None:
    machine.crashes(with_)
    machine.settings = replace(machine.settings, n_threads=n_threads)
    await machine.answer_in_a_new_pool()
    assert machine.starts == starts
    ((fallback, _),) = machine.remembered().values()
    assert fallback == starts[-1]


async def test_a_model_that_nothing_helps_is_refused_at_once_and_nothing_is_remembered(
    machine: Machine,
) -> None:
    machine.crashes("always")
    async with machine.pool() as pool:
        with pytest.raises(ModelUnusable) as caught:
            await machine.answer(pool)
        assert str(caught.value) == (
            f"model '{machine.model.ref}' cannot be used on this machine: its worker was killed by "
            "SIGSEGV while warming up, also without extra buffer types and flash attention. "
            "This builds llama.cpp again: " + REBUILD
        )
    assert machine.starts == [0, 1, 2], "with one thread it had been all the time"
    assert machine.remembered() == {}


async def test_a_crash_in_the_first_decodes_costs_no_request_an_attempt(machine: Machine) -> None:
    machine.crashes("flash", after=4)
    async with machine.pool() as pool:
        # What repeats is guessed: this takes more steps than a worker needs to prove itself.
        texts = [machine.ask(f"Tell a story about {n} llamas.", 400) for n in range(4)]
        replies = await asyncio.gather(*(pool.chat(text).reply() for text in texts))
        assert all(reply.usage.completion_tokens for reply in replies)
    assert machine.starts == [0, 1, 2]
    ((fallback, reason),) = machine.remembered().values()
    assert fallback == 2
    assert reason.startswith("killed by SIGSEGV while answering request")


async def test_a_build_that_crashes_in_every_answer_is_no_fault_of_the_request(
    machine: Machine,
) -> None:
    machine.crashes("always", after=4)
    async with machine.pool() as pool:
        with pytest.raises(ModelUnusable, match="killed by SIGSEGV while answering request 1"):
            await machine.answer(pool)
    assert machine.remembered() == {}


async def test_a_request_that_crashes_every_worker_is_given_up_and_the_model_stays_as_it_was(
    machine: Machine,
) -> None:
    machine.command = faulty_worker.command("poisoned")
    async with machine.pool() as pool:
        with pytest.raises(WorkerLost) as caught:
            await pool.chat(machine.ask("POISON")).reply()
        assert caught.value.reason.startswith("killed by SIGABRT while answering request 1")
        await machine.answer(pool)
        (model,) = pool.stats().resident
        assert model.fallback == ""
    assert machine.remembered() == {}


async def test_a_worker_that_others_kill_while_it_warms_up_goes_without_nothing(
    machine: Machine,
) -> None:
    machine.crashes("always", signal.SIGKILL)
    async with machine.pool() as pool:
        with pytest.raises(WorkerLost) as caught:
            await machine.answer(pool)
        words = "killed by SIGKILL while warming up; it was started 3 times"
        assert caught.value.reason == words
    assert machine.starts == [0, 0, 0]

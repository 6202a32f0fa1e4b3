"""A service that stays measures its models and copies them while it is idle, never in the way."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends import background_tuning
from paddock.engine.backends.background_tuning import MOST_ATTEMPTS, BackgroundTuner
from paddock.engine.backends.local import LocalPool
from paddock.engine.llama.quantise import quantise
from paddock.engine.memory.pool_stats import PoolStats
from paddock.engine.memory.worker_starter import WorkerStarter
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.profile import Profile
from paddock.engine.request import ChatRequest, Message, ModelSpec, Reply
from paddock.engine.settings import PoolSettings
from paddock.engine.system import files
from paddock.engine.system.records import record_from, replace
from paddock.engine.system.retry import Backoff
from paddock.engine.tuning import tuner
from paddock.engine.tuning.tuned_copies import TunedCopy
from paddock.engine.workers.fallbacks import FallbackStore
from paddock.engine.workers.worker_process import WORKER_COMMAND
from tests.engine.pools import CHAT, SETTINGS
from tests.fakes import faulty_worker, tiny, virtual
from tests.optional import present
from tests.waiting import eventually

HALF_WAY = """
import hashlib, pathlib, time
from paddock.engine.system.frame_processes import take_order
order, send = take_order()
source = pathlib.Path(order["model"]["original_path"])
data = source.read_bytes() + b"x"  # another file, and the same model
pathlib.Path(order["target"]).write_bytes(data)
(source.parent / "orders").open("a").write("x")
"""
SLEEPS = "time.sleep(60)"
REFUSES = "send({'copy': {**order['model'], 'why_none': 'it is no faster'}})"
COPIES = """
digest = hashlib.sha256(data).hexdigest()
made = {"path": order["target"], "digest": digest, "size_bytes": len(data)}
send({"copy": {**order["model"], **made}})
"""


class Machine:
    """A folder with a model of 8 bits, its pool's settings, and a stand-in that makes copies."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._script = folder, folder / "process.py"
        path = folder / "tiny.gguf"
        quantise(tiny.llama(folder / "floats.gguf"), path, "Q8_0", 1)
        self.model = ModelSpec(str(path), n_ctx_tokens=256)
        self.settings = replace(
            SETTINGS, models_dir=folder / "models", cache_dir=folder / "cache", profile_s=0.01
        )
        self.command = WORKER_COMMAND
        self.finder = ModelFinder(self.settings.models_dir, self.settings.cache_dir)
        self.original = self.finder.find_original(self.model.ref).digest
        monkeypatch.setattr(tuner, "_COMMAND", (sys.executable, str(self._script)))
        monkeypatch.setattr(background_tuning, "LOOK_S", 0.02)
        monkeypatch.setattr(background_tuning, "IDLE_S", 0.04)
        monkeypatch.setattr(background_tuning, "AGAIN", Backoff(0.01, 0.01))

    def process(self, script: str) -> None:
        self._script.write_text(HALF_WAY + script, "utf-8")

    @property
    def n_trials(self) -> int:
        orders = self.folder / "orders"
        return len(orders.read_text("utf-8")) if orders.exists() else 0

    @property
    def record(self) -> TunedCopy | None:
        return self.finder.tuned.record(self.original)

    def left(self) -> list[str]:
        return [file.name for file in self.folder.rglob("*.part")]

    @property
    def profile(self) -> Profile | None:
        found = [*(self.settings.cache_dir / "profiles").glob("*cpu*.json")]
        return record_from(Profile, files.read_json_object(found[0])) if found else None

    @asynccontextmanager
    async def serving(self, **changes: Any) -> AsyncIterator[LocalPool]:
        """Yield a pool that works while it is idle."""
        settings = replace(self.settings, **changes)
        start = WorkerStarter(settings, self.command)
        async with LocalPool(settings, start=start) as pool, BackgroundTuner(pool):
            yield pool


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


async def ask(pool: LocalPool, model: ModelSpec) -> Reply:
    request = ChatRequest(model, (Message("user", "Hello"),), {"max_tokens": 2}, truncates=True)
    return await pool.chat(request).reply()


async def test_an_idle_pool_makes_a_copy_that_computes_the_next_answer_under_the_same_identity(
    machine: Machine,
) -> None:
    machine.process(COPIES)
    async with machine.serving() as pool:
        before = await ask(pool, machine.model)
        facts = await pool.facts(machine.model)
        await eventually(
            lambda: [model.tuned_from for model in pool.stats().resident] == [machine.original]
        )
        after = await ask(pool, machine.model)
        served = await pool.facts(machine.model)
        assert before.digest == facts.digest == machine.original
        assert after.digest == served.digest != machine.original
        assert served.identity == facts.identity
    assert machine.left() == []
    async with machine.serving(is_exact=True) as pool:
        assert (await ask(pool, machine.model)).digest == machine.original


@pytest.mark.parametrize("at", ["load", "decode"])
async def test_a_copy_that_crashes_is_never_used_again_and_costs_no_model_its_buffers(
    machine: Machine, at: str
) -> None:
    machine.process(COPIES)
    machine.command = faulty_worker.command("bad-copy", at)
    async with machine.serving() as pool:
        await ask(pool, machine.model)
        await eventually(lambda: machine.n_trials)
        await eventually(lambda: machine.record)
        assert (await ask(pool, machine.model)).digest == machine.original
        (model,) = pool.stats().resident
        assert (model.tuned_from, model.fallback) == ("", "")
        await asyncio.sleep(0.3)
    why = present(machine.record).why_none
    assert why.startswith("it failed: ") and "killed by SIGABRT while" in why
    assert machine.n_trials == 1
    assert not any((machine.settings.models_dir / "blobs").iterdir())
    assert FallbackStore(machine.settings.cache_dir).all() == {}


async def test_a_request_ends_the_trial_at_once_and_it_is_begun_again(machine: Machine) -> None:
    machine.process(SLEEPS)
    async with machine.serving() as pool:
        await ask(pool, machine.model)
        await eventually(lambda: machine.left() and machine.n_trials == 1)
        await ask(pool, machine.model)
        await eventually(lambda: machine.n_trials == 2)
    assert machine.left() == [], "nor does the end of the service leave anything"
    assert machine.record is None


@pytest.mark.parametrize(
    ("settings", "n_services", "n_trials"),
    [({}, 2, 1), ({"is_exact": True}, 1, 0)],
    ids=["refused", "exact"],
)
async def test_a_refusal_is_not_tried_again_by_the_next_service_and_exact_tries_nothing(
    machine: Machine, settings: dict[str, Any], n_services: int, n_trials: int
) -> None:
    machine.process(REFUSES)
    for _ in range(n_services):
        async with machine.serving(**settings) as pool:
            await ask(pool, machine.model)
            await eventually(lambda: machine.n_trials == n_trials)
            await asyncio.sleep(0.3)
    assert machine.n_trials == n_trials
    why = machine.record.why_none if machine.record else ""
    assert why == ("it is no faster" if n_trials else "")


async def test_a_model_is_measured_in_its_first_idle_minute_until_nothing_disturbs_that(
    machine: Machine,
) -> None:
    begun = machine.folder / "begun"
    machine.command = faulty_worker.command("disturbed", 2, begun)
    async with machine.serving(profile_s=2.0, is_exact=True) as pool:
        await pool.load(machine.model)
        await eventually(lambda: machine.profile is not None)
        await eventually(lambda: not pool.unmeasured())
        assert present(machine.profile).prefill
        assert (await ask(pool, machine.model)).usage.completion_tokens
    assert len(begun.read_text("utf-8")) == 3
    async with machine.serving(profile_s=2.0, is_exact=True) as pool:
        await pool.load(machine.model)
        assert pool.unmeasured() == [], "what is known is not measured again"


async def test_a_request_ends_the_measurement(machine: Machine) -> None:
    begun = machine.folder / "begun"
    machine.command = faulty_worker.command("disturbed", 0, begun)
    # 60 s, which the small model does not take
    async with machine.serving(profile_s=60.0, is_exact=True, models_dir=Path("/no")) as pool:
        await pool.load(CHAT)
        await eventually(begun.exists)
        assert (await ask(pool, CHAT)).usage.completion_tokens
        assert pool.unmeasured(), "it was not measured to the end"
        await eventually(lambda: len(begun.read_text("utf-8")) == 2)


class IdlePool:
    """A pool with a loaded model that is always disturbed; measuring takes 12 s."""

    def __init__(self) -> None:
        self.settings = PoolSettings(is_exact=True)
        self.begun: list[float] = []
        self.n_ended = 0
        self.on_request: Any = None

    def stats(self) -> PoolStats:
        return PoolStats((), {})

    def unmeasured(self) -> list[str]:
        return ["digest"]

    async def measure(self, digest: str) -> None:
        assert digest == "digest"
        self.begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(12)
        self.n_ended += 1


def test_a_busy_machine_is_measured_after_growing_pauses_and_not_for_ever() -> None:
    pool = IdlePool()

    async def a_day() -> None:
        async with BackgroundTuner(pool):  # type: ignore[arg-type]
            await asyncio.sleep(24 * 3600)

    virtual.run(a_day())
    assert pool.begun[0] == background_tuning.IDLE_S
    pauses = [after - before for before, after in pairwise(pool.begun)]
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600]
    assert len(pool.begun) == pool.n_ended == MOST_ATTEMPTS

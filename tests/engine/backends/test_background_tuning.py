"""A service that stays makes faster copies of its models while it is idle, and never in the way."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends import background_tuning
from paddock.engine.backends.background_tuning import MOST_ATTEMPTS, BackgroundTuner
from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import ModelNotFound
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, EmbedRequest, Message, ModelSpec, Reply
from paddock.engine.settings import PoolSettings
from paddock.engine.system.files import held_file
from paddock.engine.tuning import tuner
from paddock.engine.tuning.tuned_copies import TunedCopyStore, TuningVerdict
from tests.engine.pools import SETTINGS
from tests.fakes import tiny
from tests.optional import present
from tests.waiting import eventually

SECRET = "the combination of the safe is 81-22-37"

HALF_WAY = """
import pathlib, sys, time
from paddock.engine.system.processes import take_order
order, send = take_order()
pathlib.Path(order["target"] + ".F16.part").write_text("half")
(pathlib.Path(order["source"]).parent / "orders").open("a").write("x")
"""
SLEEPS = "time.sleep(60)"
REFUSES = "send({'event': 'refused', 'gain': 1.02, 'is_measured': True}); time.sleep(60)"
GAINS = "send({'event': 'refused', 'gain': 1.92, 'is_measured': True}); time.sleep(60)"
# A copy with a byte more is another file, and the same model.
COPIES = """
import hashlib
data = pathlib.Path(order["source"]).read_bytes() + b"x"
pathlib.Path(order["target"]).write_bytes(data)
speeds = {"prompts": 1.0, "answer": 1.0, "answers": 1.0}
send({"event": "done", "format": "Q8_0", "digest": hashlib.sha256(data).hexdigest(),
      "size_bytes": len(data), "n_compared": order["n_documents"], "agreement": 1.0,
      "before": speeds, "after": speeds})
"""


class Machine:
    """A folder with a model, its pool's settings, and what stands for the tuning process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._script = folder, folder / "process.py"
        self.model = ModelSpec(str(tiny.llama(folder / "tiny.gguf")), n_ctx_tokens=256)
        self.settings = replace(
            SETTINGS, models_dir=folder / "models", cache_dir=folder / "cache", tune="auto"
        )
        monkeypatch.setattr(tuner, "_COMMAND", (sys.executable, str(self._script)))
        monkeypatch.setattr(background_tuning, "LOOK_S", 0.02)
        monkeypatch.setattr(background_tuning, "IDLE_S", 0.04)

    def process(self, script: str) -> None:
        self._script.write_text(HALF_WAY + script, "utf-8")

    @property
    def n_trials(self) -> int:
        orders = self.folder / "orders"
        return len(orders.read_text("utf-8")) if orders.exists() else 0

    @property
    def store(self) -> TunedCopyStore:
        return TunedCopyStore(self.settings.cache_dir)

    @property
    def original(self) -> str:
        finder = ModelFinder(self.settings.models_dir, self.settings.cache_dir)
        return finder.find_original(self.model.ref).digest

    def left(self) -> list[str]:
        return [file.name for file in self.folder.rglob("*.part")]

    def verdict(self) -> TuningVerdict:
        (verdict,) = self.store.verdicts()
        return verdict


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


async def ask(pool: LocalPool, model: ModelSpec, text: str = "Hello") -> Reply:
    request = ChatRequest(model, (Message("user", text),), {"max_tokens": 2}, truncates=True)
    return await pool.chat(request).reply()


@asynccontextmanager
async def serving(settings: PoolSettings) -> AsyncIterator[LocalPool]:
    """Yield a pool that tunes while it is idle."""
    async with LocalPool(settings) as pool, BackgroundTuner(pool):
        yield pool


async def refused(machine: Machine, settings: PoolSettings) -> None:
    """Wait until a service with these settings has refused a copy."""
    n_before = machine.n_trials
    async with serving(settings) as pool:
        await ask(pool, machine.model)
        await eventually(lambda: machine.n_trials > n_before and any(machine.store.verdicts()))
        await eventually(lambda: not machine.left())


async def tried_nothing(machine: Machine, settings: PoolSettings) -> bool:
    n_before = machine.n_trials
    async with serving(settings) as pool:
        await ask(pool, machine.model)
        await asyncio.sleep(0.3)
    return machine.n_trials == n_before


async def test_an_idle_pool_makes_a_copy_that_computes_the_next_answer_under_the_same_identity(
    machine: Machine,
) -> None:
    machine.process(COPIES)
    async with serving(machine.settings) as pool:
        before = await ask(pool, machine.model)
        facts = await pool.facts(machine.model)
        await eventually(lambda: machine.store.find(machine.original))
        await eventually(lambda: [model.tuned_from for model in pool.stats().resident] != [""])
        after = await ask(pool, machine.model)
        served = await pool.facts(machine.model)
        assert before.digest == facts.digest == machine.original
        assert after.digest == served.digest != machine.original
        assert served.identity == facts.identity
    assert machine.left() == []
    async with serving(replace(machine.settings, is_exact=True)) as pool:
        assert (await ask(pool, machine.model)).digest == machine.original


async def test_an_embedding_model_gets_its_copy_too_judged_by_the_texts_it_was_asked(
    machine: Machine,
) -> None:
    machine.process(COPIES)
    path = tiny.reranker(machine.folder / "embedder.gguf", pooling=1)
    model = ModelSpec(str(path), "embed")
    async with serving(machine.settings) as pool:
        texts = tuple(f"{number} {'a word ' * 28}" for number in range(64))
        before = await pool.embed(EmbedRequest(model, texts))
        await eventually(
            lambda: [model.tuned_from for model in pool.stats().resident] == [before.digest]
        )
        after = await pool.embed(EmbedRequest(model, ("a word",)))
        assert after.digest != before.digest
    (made,) = machine.store.all()
    assert made.n_documents == 64


async def test_a_request_ends_the_trial_at_once_and_it_is_begun_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:

    @contextmanager
    def slowly_removed(path: Path) -> Iterator[Path]:
        with held_file(path):
            try:
                yield path
            finally:
                time.sleep(0.3)

    monkeypatch.setattr("paddock.engine.system.files.held_file", slowly_removed)
    machine.process(SLEEPS)
    async with serving(machine.settings) as pool:
        await ask(pool, machine.model)
        await eventually(lambda: machine.left() and machine.n_trials == 1)
        await ask(pool, machine.model)
        await eventually(lambda: not machine.left())
        await eventually(lambda: machine.n_trials == 2)
    assert machine.left() == [], "nor does the end of the service leave anything"
    known = present(machine.store.verdict(machine.original))
    assert (known.text, known.n_attempts) == ("", 2)


@pytest.mark.parametrize(
    "known",
    [
        TuningVerdict("tiny", "", "`paddock tune --undo` refused one"),
        TuningVerdict("tiny", "", n_attempts=MOST_ATTEMPTS),
    ],
    ids=["undone by the user", "interrupted too often"],
)
async def test_what_the_user_undid_or_was_interrupted_too_often_is_not_tried(
    machine: Machine, known: TuningVerdict
) -> None:
    machine.process(SLEEPS)
    machine.store.keep_verdict(machine.original, known)
    assert await tried_nothing(machine, machine.settings)


async def test_a_refusal_is_said_and_not_tried_again_by_the_next_service(machine: Machine) -> None:
    machine.process(REFUSES)

    await refused(machine, machine.settings)
    async with serving(machine.settings) as pool:
        await ask(pool, machine.model)
        await eventually(lambda: not machine.left())
    assert machine.n_trials == 1
    assert machine.verdict().sentence == (
        f"{machine.model.ref} has no tuned copy: it would read documents 1.02 times as fast on "
        f"this machine"
    )


async def test_with_ask_only_the_gain_is_measured_and_the_command_said_until_it_is_auto(
    machine: Machine,
) -> None:
    machine.process(GAINS)
    async with serving(replace(machine.settings, tune="ask")) as pool:
        await ask(pool, machine.model)
        await eventually(lambda: any(machine.store.verdicts()))
    assert machine.verdict().sentence == (
        f"{machine.model.ref} has no tuned copy: it would read documents 1.92 times as fast on "
        f"this machine; `paddock tune {machine.model.ref}` makes one"
    )
    machine.process(COPIES)
    async with serving(machine.settings) as pool:
        await ask(pool, machine.model)
        await eventually(lambda: machine.store.find(machine.original))
    assert list(machine.store.verdicts()) == []


async def test_a_copy_is_judged_by_what_was_asked_which_is_written_nowhere(
    machine: Machine,
) -> None:
    machine.process(COPIES)
    async with serving(machine.settings) as pool:
        for number in range(3):
            await ask(pool, machine.model, f"{number}: {SECRET} " * 150)
        await eventually(lambda: machine.store.find(machine.original))
    (made,) = machine.store.all()
    assert (made.n_documents, made.n_compared) == (3, 3)
    files = [file for file in machine.folder.rglob("*") if file.is_file()]
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]


async def test_texts_for_names_without_a_model_are_not_kept_without_bound(machine: Machine) -> None:
    async with LocalPool(machine.settings) as pool, BackgroundTuner(pool) as tuner:
        for number in range(300):
            with pytest.raises(ModelNotFound):
                await ask(pool, ModelSpec(f"unknown-{number}"), f"{number:05}" * 4_000)
        kept = [text for used in tuner._used.values() for text in used.texts]
        assert 0 < sum(map(len, kept)) < 1_000_000  # all texts: 6,000,000


async def test_a_name_that_no_path_can_have_keeps_no_other_model_from_its_turn(
    machine: Machine,
) -> None:
    machine.process(COPIES)
    async with serving(machine.settings) as pool:
        for name in ("~no-such-user/x.gguf", "/a\0.gguf"):
            with pytest.raises(ModelNotFound):
                await ask(pool, ModelSpec(name))
        await ask(pool, machine.model)
        await eventually(lambda: machine.store.find(machine.original))


async def test_what_a_killed_service_left_goes_when_the_next_one_starts(machine: Machine) -> None:
    machine.process(SLEEPS)
    blobs, digest = machine.settings.models_dir / "blobs", machine.original
    blobs.mkdir(parents=True)
    machine.store.folder.mkdir(parents=True)
    (machine.store.folder / f"{digest}.lock").touch()
    for pid in (9999999, os.getppid()):  # which is another program's by now
        (blobs / f".{digest[:12]}-tuned.{pid}.part.F16.part").write_text("half")
    at_work = blobs / f".{digest[:12]}-tuned.0.part"
    half = blobs / f"{at_work.name}.F16.part"

    with held_file(at_work):  # by another user's service
        half.write_text("half")
        async with serving(machine.settings):
            await eventually(lambda: sorted(machine.left()) == [at_work.name, half.name])


async def test_near_tries_again_what_auto_refused_and_not_what_the_user_undid(
    machine: Machine,
) -> None:
    near = replace(machine.settings, tune="near")
    machine.process(REFUSES)

    await refused(machine, machine.settings)
    assert not machine.verdict().is_near
    await refused(machine, near)
    assert machine.verdict().is_near
    assert await tried_nothing(machine, near)
    undone = TuningVerdict("tiny", "", "`paddock tune --undo` refused one")
    machine.store.keep_verdict(machine.original, undone)
    assert await tried_nothing(machine, near)


@pytest.mark.parametrize("settings", [{"tune": "off"}, {"is_exact": True}])
async def test_off_is_off(machine: Machine, settings: dict[str, Any]) -> None:
    machine.process(SLEEPS)
    assert await tried_nothing(machine, replace(machine.settings, **settings))
    assert list(machine.store.verdicts()) == []

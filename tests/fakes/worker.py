"""A machine without models: sizes, speeds and crashes, in virtual time.

`FakeMachine` is what the manager asks about the machine (`memory.machine_probe`) and what starts
its workers. It keeps books of its own and notes whenever more is taken than there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from paddock.engine.memory.device_memory import Device, GpuMemory, MemoryAmount
from paddock.engine.memory.model_layout import LayoutRequest, ModelLayout
from paddock.engine.request import ModelFacts
from paddock.engine.system.records import replace
from paddock.engine.workers.death_reasons import WorkerEnd
from paddock.engine.workers.worker_protocol import (
    LoadBroken,
    WorkerGone,
    WorkerMemory,
    WorkerOptions,
)

Fault = Literal["none", "no memory", "abort", "hang", "killed for memory", "killed"]
NO_MEMORY = "ended with status 1: ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate"


@dataclass(slots=True)
class FakeModel:
    name: str
    size: int = 4
    """Bytes of its weights; each sequence takes `per_sequence` more."""
    per_sequence: int = 0
    growth: int = 0
    """Bytes that its context takes only with its fifth token."""
    load_s: float = 2.0
    token_s: float = 0.01
    n_parallel: int = 4
    n_ctx_tokens: int = 2048
    when_loading: list[Fault] = field(default_factory=list)
    """What befalls the next loads, the first first; then nothing does."""
    when_running: list[Fault] = field(default_factory=list)
    """What befalls each next worker at its third token."""

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(
            self.name, self.name, f"{self.name:0<64}", self.size, "fake", "chat", 1 << 20,
            self.n_ctx_tokens,
        )  # fmt: skip


class FakeWorker:
    """Implements what the manager asks of a worker."""

    def __init__(
        self, machine: FakeMachine, model: FakeModel, load: WorkerOptions, fault: Fault
    ) -> None:
        loop = asyncio.get_running_loop()
        self.load = load
        self.load_s = model.load_s
        self.last_turn_at = loop.time()
        self.slowest_step_s = model.token_s
        self.n_decoded_tokens = 0
        self.gone: asyncio.Future[WorkerEnd] = loop.create_future()
        self.on_turn: Callable[[Mapping[str, Any]], None] | None = None
        self.pid = 0
        self.n_requests = 0
        self.n_running = 0
        self.n_running_most = 0
        self.mapped_bytes = 0
        self.model = model
        self._machine = machine
        self._fault = fault
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def bytes(self) -> int:
        grown = self.model.growth if self.n_decoded_tokens >= 5 else 0
        return self.model.size + grown + self.model.per_sequence * self.load.n_parallel

    def measure(self) -> WorkerMemory:
        if self.gone.done():
            return WorkerMemory()
        yet = self.model.growth if self.n_decoded_tokens < 5 else 0
        return WorkerMemory(self.bytes + yet, 0, yet)

    async def chat(self, n_tokens: int = 10) -> str:
        """Make tokens; gives the name of the model that made them."""
        if self.gone.done():
            raise WorkerGone(self.gone.result())
        if not self.n_requests:
            self.last_turn_at = asyncio.get_running_loop().time()
        self.n_requests += 1
        self.n_running_most = max(self.n_running_most, self.n_requests)
        self._quiet.clear()
        try:
            for _ in range(n_tokens):
                await self._step()
        finally:
            self.n_requests -= 1
            if not self.n_requests:
                self._quiet.set()
        return self.model.name

    async def _step(self) -> None:
        await asyncio.wait({self.gone}, timeout=self.model.token_s)
        before = self.bytes
        self.n_decoded_tokens += 1
        self._machine.take(self.bytes - before)
        if self.n_decoded_tokens == 3:
            await self._suffer()
        if self.gone.done():
            raise WorkerGone(self.gone.result())
        self.last_turn_at = asyncio.get_running_loop().time()

    async def _suffer(self) -> None:
        if self._fault == "abort":
            self._end(WorkerEnd("killed by SIGABRT: GGML_ASSERT failed", -6))
        elif self._fault == "killed for memory":
            self._machine.n_oom_kills += 1
            self._end(WorkerEnd("killed by SIGKILL", -9))
        elif self._fault == "hang":
            await asyncio.wait({self.gone})

    async def widen(self, n_ctx_tokens: int, n_cells: int) -> None:
        await self._quiet.wait()
        await asyncio.sleep(0.1)
        self.load = replace(self.load, n_ctx_tokens=n_ctx_tokens, n_cells=n_cells)
        self._machine.log.append(f"widen {self.model.name}")

    async def stop(self) -> None:
        await asyncio.sleep(0.05)
        self._end(WorkerEnd("it was unloaded"))

    async def kill(self, end: WorkerEnd) -> None:
        self._end(end)

    def _end(self, end: WorkerEnd) -> None:
        if not self.gone.done():
            self._machine.taken -= self.bytes
            self.gone.set_result(end)


class FakeMachine:
    """So much memory, and these models."""

    def __init__(self, memory: int, *models: FakeModel) -> None:
        self.memory = memory
        self.models = {model.name: model for model in models}
        self.taken = 0
        self.taken_most = 0
        self.n_oom_kills = 0
        self.workers: list[FakeWorker] = []
        self.log: list[str] = []
        """`load a`, `loaded a`, `cancelled a`, `widen a`."""

    def n_loads(self, name: str | None = None) -> int:
        return sum(line == f"load {name}" if name else line[:5] == "load " for line in self.log)

    @property
    def n_there(self) -> int:
        return sum(not worker.gone.done() for worker in self.workers)

    def take(self, n_bytes: int) -> None:
        self.taken += n_bytes
        self.taken_most = max(self.taken_most, self.taken)

    # As the actor's surveyor

    async def probe_device(self) -> Device:
        return Device(1, self.memory - self.taken, False, n_oom_kills=self.n_oom_kills)

    async def layouts(self, wanted: LayoutRequest, device: Device) -> tuple[ModelLayout, ...]:
        model = self.models[wanted.facts.path]
        n_cells = wanted.n_cells_at_most or 1 << 30
        most = max(1, min(model.n_parallel, n_cells // wanted.n_ctx_tokens))
        sizes = [most >> shift for shift in range(most.bit_length())]
        return tuple(self._layout(model, wanted, n, n * 2 >= most) for n in sizes)

    def _layout(
        self, model: FakeModel, wanted: LayoutRequest, n: int, is_good: bool
    ) -> ModelLayout:
        n_ctx = wanted.n_ctx_tokens
        load = WorkerOptions(model.name, "chat", n_ctx, n * n_ctx, n, 512, 1)
        room = MemoryAmount(model.size + model.growth + model.per_sequence * n)
        return ModelLayout(load, room, model.load_s, is_good)

    async def wider(
        self, wanted: LayoutRequest, layout: ModelLayout, n_ctx_tokens: int
    ) -> tuple[ModelLayout, ...]:
        return (replace(layout, load=replace(layout.load, n_ctx_tokens=n_ctx_tokens)),)

    def refuse(self, load: WorkerOptions, error: LoadBroken) -> bool:
        return False

    def learn(
        self, wanted: LayoutRequest, load: WorkerOptions, taken: WorkerMemory, load_s: float
    ) -> None:
        """Forget it."""

    # As what starts workers

    async def start(self, load: WorkerOptions, timeout_s: float) -> FakeWorker:
        model = self.models[load.path]
        fault = model.when_loading.pop(0) if model.when_loading else "none"
        size = model.size + model.per_sequence * load.n_parallel
        self.log.append(f"load {model.name}")
        self.take(size)
        try:
            await _loaded(model, fault)
        except BaseException as error:
            self.taken -= size
            if isinstance(error, asyncio.CancelledError):
                self.log.append(f"cancelled {model.name}")
            raise
        running = model.when_running.pop(0) if model.when_running else "none"
        worker = FakeWorker(self, model, load, running)
        self.workers.append(worker)
        self.log.append(f"loaded {model.name}")
        return worker


class TwoCards(FakeMachine):
    """A machine with two graphics devices of so much memory each; a model lies on one of them."""

    def __init__(self, memory: int, *models: FakeModel) -> None:
        super().__init__(2 * memory, *models)
        self.card_memory = memory

    def cards(self) -> dict[int, list[str]]:
        """Return the models on each device."""
        there = [worker for worker in self.workers if not worker.gone.done()]
        return {
            card: [one.model.name for one in there if one.load.main_gpu == card] for card in (0, 1)
        }

    async def probe_device(self) -> Device:
        gpus = []
        for card in (0, 1):
            there = [one for one in self.workers if one.load.main_gpu == card]
            taken = sum(one.bytes for one in there if not one.gone.done())
            gpus.append(GpuMemory(f"card {card}", self.card_memory - taken, self.card_memory))
        return Device(1, 1 << 40, True, tuple(gpus))

    async def layouts(self, wanted: LayoutRequest, device: Device) -> tuple[ModelLayout, ...]:
        return tuple(
            replace(
                layout,
                load=replace(layout.load, main_gpu=card),
                room=MemoryAmount(0, tuple(layout.room.host * (card == one) for one in (0, 1))),
            )
            for layout in await super().layouts(wanted, device)
            for card in (0, 1)
        )


async def _loaded(model: FakeModel, fault: Fault) -> None:
    await asyncio.sleep(model.load_s)
    if fault == "no memory":
        raise LoadBroken(WorkerEnd(NO_MEMORY))
    if fault == "abort":
        raise LoadBroken(WorkerEnd("killed by SIGABRT", -6))
    if fault == "killed":
        raise LoadBroken(WorkerEnd("killed by SIGKILL", -9))

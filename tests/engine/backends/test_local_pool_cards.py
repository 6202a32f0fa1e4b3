"""Graphics devices that are listed and do not compute: the pool is laid out as they are."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import ModelTooLarge
from paddock.engine.memory import machine_probe
from paddock.engine.memory.device_memory import Device, GpuMemory
from paddock.engine.memory.worker_starter import WorkerStarter
from paddock.engine.request import ModelSpec
from paddock.engine.system.records import replace
from paddock.runner.cli.loaded_models import processor_text
from tests.engine.pools import SETTINGS, ask
from tests.fakes import faulty_worker
from tests.waiting import eventually

GIB = 1024**3
H100 = GpuMemory("NVIDIA H100", 78 * GIB, 80 * GIB, "GPU-1")
L4 = GpuMemory("NVIDIA L4", 22 * GIB, 24 * GIB, "GPU-2")

OpenPool = Callable[[str], LocalPool]


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[GpuMemory]:
    """What the driver lists, to be changed by a test."""
    listed = [H100]
    monkeypatch.setattr(
        machine_probe, "this_device", lambda: Device(1, 64 * GIB, True, tuple(listed))
    )
    return listed


@pytest.fixture
def pool_with(tmp_path: Path, cards: list[GpuMemory]) -> OpenPool:
    """Open a pool whose workers have a card with this fault; "": llama.cpp has none."""

    def opened(fault: str) -> LocalPool:
        settings = replace(SETTINGS, cache_dir=tmp_path / "cache")
        gone = tmp_path / "gone"
        if not fault:
            gone.touch()
        command = faulty_worker.command("card", fault, gone)
        return LocalPool(settings, start=WorkerStarter(settings, command))

    return opened


@pytest.mark.parametrize(
    ("fault", "listed", "why"),
    [
        ("", [H100], "llama.cpp finds 0 of 1 devices"),
        ("", [H100, L4], "llama.cpp finds 0 of 1 devices"),
        ("without kernels", [H100], "CUDA error: no kernel image is available for execution on "
         "the device"),
    ],
    ids=["the driver refuses", "two cards", "no kernels for the card"],
)  # fmt: skip
async def test_a_card_that_does_not_compute_leaves_its_models_to_the_processor_and_says_why(
    fault: str, listed: list[GpuMemory], why: str, noise: ModelSpec, cards: list[GpuMemory],
    pool_with: OpenPool, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    cards[:] = listed
    caplog.set_level("INFO")
    async with pool_with(fault) as pool:
        assert (await pool.chat(ask("Hello", noise)).reply()).text
        (model,) = pool.stats().resident
        assert model.fallback == f"runs on the processor: {why}"
        assert model.placed.startswith("all ") and model.placed.endswith(f"on the processor; {why}")
        assert (model.device_bytes, model.host_bytes > 0, model.n_parallel) == (0, True, 8)
        assert await pool.unload(noise.ref)
        assert (await pool.chat(ask("Hello", noise)).reply()).text
    assert caplog.text.count("is laid out without") == len(listed), "it is not tried again at once"


async def test_a_driver_that_goes_in_the_middle_costs_no_answer(
    noise: ModelSpec, pool_with: OpenPool
) -> None:
    async with pool_with("driver goes") as pool:
        requests = [ask(f"Tell of {n} llamas.", noise, {"max_tokens": 60}) for n in range(6)]
        replies = await asyncio.gather(*(pool.chat(request).reply() for request in requests))
        (model,) = pool.stats().resident
        assert model.fallback == "runs on the processor: llama.cpp finds 0 of 1 devices"
        assert all(reply.usage.completion_tokens for reply in replies)


async def test_a_card_that_stays_full_in_the_middle_refuses_each_request_by_name(
    noise: ModelSpec, pool_with: OpenPool
) -> None:
    async with pool_with("fills for good") as pool:
        requests = [ask(f"Tell of {n} llamas.", noise, {"max_tokens": 60}) for n in range(6)]
        found = await asyncio.gather(
            *(pool.chat(request).reply() for request in requests), return_exceptions=True
        )
        assert {getattr(error, "device", error) for error in found} == {"NVIDIA H100"}
        assert not pool.stats().resident


async def test_a_full_card_is_refused_with_its_name_who_holds_it_and_what_helps(
    noise: ModelSpec, cards: list[GpuMemory], pool_with: OpenPool
) -> None:
    async with pool_with("full") as pool:
        with pytest.raises(ModelTooLarge) as caught:
            await pool.chat(ask("Hello", noise)).reply()
        assert (caught.value.device, caught.value.holders) == ("NVIDIA H100", {"": 2 * GIB})
        cards[:] = [replace(H100, free_bytes=GIB // 1024)]
        with pytest.raises(ModelTooLarge) as caught:
            await pool.chat(ask("Hello", noise)).reply()
        needed = caught.value.needed_bytes // 1024**2
        assert str(caught.value) == (
            f"model '{noise.ref}' needs about {needed} MiB with its context on NVIDIA H100, and "
            "1 MiB are free there (others hold 81919 MiB). Use a smaller model or a smaller `ctx`, "
            "or let the processor compute what does not fit (PADDOCK_ALLOW_CPU=1) or all of it "
            "(PADDOCK_NUM_GPU=0, or `num_gpu: 0` among a request's options)."
        )
        assert (await pool.chat(ask("Hello", replace(noise, on_processor=True))).reply()).text


async def test_a_request_moves_a_model_to_the_processor_and_back(
    noise: ModelSpec, pool_with: OpenPool
) -> None:
    async with pool_with("sound") as pool:
        places = []
        for on_processor in (None, True, None, False, None):
            asked = ask("Hello", replace(noise, on_processor=on_processor))
            assert (await pool.chat(asked).reply()).text
            await eventually(lambda: len(pool.stats().resident) == 1)  # the other place is left
            (model,) = pool.stats().resident
            assert not model.fallback, "it was asked for"
            (count,) = pool.stats().loads.values()
            share = processor_text(model.host_layer_bytes + model.device_bytes, model.device_bytes)
            places.append((model.placed, share, count.loads))
        assert places[0][0].endswith(" on NVIDIA H100")
        assert places[1][0].endswith(" on the processor; num_gpu is 0")
        card, processor = (places[0][0], "100% GPU"), (places[1][0], "100% CPU")
        assert [place[:2] for place in places] == [card, processor, processor, card, card]
        assert [n_loads for *_, n_loads in places] == [1, 2, 2, 3, 3]

"""How models are laid out on made-up machines, and what that is taken to need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paddock.engine.gguf import Header
from paddock.engine.profile.choice import streams
from paddock.engine.request import ModelFacts
from paddock.engine.residency.devices import Device, GpuRoom
from paddock.engine.residency.fit import Layout, Wanted, layouts, wider
from paddock.engine.residency.room import Room
from paddock.engine.residency.sizes import Measured
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.load import Taken

GIB = 1 << 30
HEADER = Header(
    3,
    291,
    {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "llama.embedding_length": 4096,
    },
    {},
)
FACTS = ModelFacts("8b", "/8b.gguf", "d" * 64, 8 * GIB, "llama", "chat", 131_072, 4096)
EMBEDDER = replace(FACTS, name="vec", role="embed", size_bytes=GIB, n_ctx_train_tokens=512)
CPU = Device(n_threads=8, free_bytes=64 * GIB, is_gpu=False)
H200 = GpuRoom("NVIDIA H200", 139 * GIB, 141 * GIB, "GPU-1")
ONE_GPU = Device(16, 128 * GIB, is_gpu=True, gpus=(H200,))
SMALL_GPU = Device(16, 128 * GIB, True, (GpuRoom("NVIDIA T4", 6 * GIB, 6 * GIB, "GPU-2"),))
TWO_GPUS = Device(
    16,
    128 * GIB,
    True,
    (GpuRoom("L4", 8 * GIB, 24 * GIB, "GPU-a"), GpuRoom("L4", 22 * GIB, 24 * GIB, "GPU-b")),
)
SETTINGS = PoolSettings(num_parallel=4)


def lay(device: Device, settings: PoolSettings = SETTINGS, facts: ModelFacts = FACTS) -> Layout:
    return layouts(Wanted(facts, facts.n_ctx_tokens), HEADER, settings, device)[0]


def test_on_a_processor_everything_is_main_memory() -> None:
    layout = lay(CPU)
    assert layout.load.n_parallel == 4
    assert layout.load.n_cells == 6 * 4096, "four jobs, and two chats beside them"
    # 128 KiB for each token of the cache: 32 layers of 8 heads of 128 values, keys and values.
    assert layout.room == Room(8 * GIB + 6 * 4096 * 128 * 1024 + 256 * 1024 * 1024)
    assert layout.load.placed == "all 33 layers on the processor"


@pytest.mark.parametrize("n_parallel", [2, 4, 8, 16, 32])
def test_cells_for_n_contexts_hold_n_jobs_and_the_chats_beside_them(n_parallel: int) -> None:
    settings = PoolSettings(num_parallel=n_parallel, n_cells=n_parallel * 4096)
    load = lay(CPU, settings).load
    assert streams(load.n_cells, 4096, n_parallel) == (n_parallel, min(4, n_parallel // 2))


def test_fewer_sequences_come_after_more_and_a_quarter_is_a_last_resort() -> None:
    ways = layouts(Wanted(FACTS, 4096), HEADER, SETTINGS, CPU)
    assert [(way.load.n_parallel, way.is_good) for way in ways] == [
        (4, True),
        (2, True),
        (1, False),
    ]


def test_a_model_that_ran_out_of_memory_is_laid_out_smaller() -> None:
    ways = layouts(Wanted(FACTS, 4096, n_parallel_at_most=2), HEADER, SETTINGS, CPU)
    assert [way.load.n_parallel for way in ways] == [2, 1]


def test_on_one_device_all_layers_are_there_and_it_is_named_by_its_uuid() -> None:
    layout = lay(ONE_GPU)
    assert layout.load.placed == "33 of 33 layers on NVIDIA H200"
    assert (layout.load.n_gpu_layers, layout.load.visible_devices) == (-1, "GPU-1")
    assert layout.room.gpus[0] > 8 * GIB and layout.room.host == GIB // 2


def test_of_two_devices_the_one_with_more_room_is_all_that_the_worker_sees() -> None:
    layout = lay(TWO_GPUS)
    assert layout.load.visible_devices == "GPU-b"
    assert (layout.load.tensor_split, layout.load.main_gpu) == ((), 0)
    assert layout.room.gpus[0] == 0 < layout.room.gpus[1]


def test_the_main_device_that_was_asked_for_is_taken() -> None:
    assert lay(TWO_GPUS, replace(SETTINGS, main_gpu=0)).load.visible_devices == "GPU-a"


def test_what_is_larger_than_a_device_is_spread_over_two_by_layers() -> None:
    layout = lay(TWO_GPUS, facts=replace(FACTS, size_bytes=30 * GIB))
    assert layout.load.visible_devices == "GPU-a,GPU-b"
    assert layout.load.split_mode == "layer"
    assert sum(layout.load.tensor_split) == 1 and all(layout.room.gpus)
    assert layout.load.placed == "33 of 33 layers on L4, L4"


def test_nothing_spills_to_the_processor_unless_that_is_allowed() -> None:
    ways = layouts(Wanted(FACTS, 4096), HEADER, SETTINGS, SMALL_GPU)
    assert not any(SMALL_GPU.free.holds(way.room) for way in ways)
    allowed = layouts(Wanted(FACTS, 4096), HEADER, replace(SETTINGS, allow_cpu=True), SMALL_GPU)
    fitting = [way for way in allowed if SMALL_GPU.free.holds(way.room)]
    assert fitting and not any(way.is_good for way in fitting)
    assert fitting[0].load.n_gpu_layers == 17
    assert fitting[0].load.placed == (
        "17 of 33 layers on NVIDIA T4; it has no room for more (allow_cpu)"
    )


def test_layers_that_the_settings_keep_on_the_processor_are_told() -> None:
    half = lay(ONE_GPU, replace(SETTINGS, n_gpu_layers=16))
    assert half.load.placed == "16 of 33 layers on NVIDIA H200; num_gpu is 16"
    assert half.room.host > 4 * GIB
    none = lay(ONE_GPU, replace(SETTINGS, n_gpu_layers=0))
    assert none.load.placed == "all 33 layers on the processor; num_gpu is 0"
    assert not any(none.room.gpus)


def test_a_build_that_finds_no_device_says_so() -> None:
    hidden = replace(CPU, why_no_gpu='CUDA_VISIBLE_DEVICES=""')
    assert lay(hidden).load.placed == ('all 33 layers on the processor; CUDA_VISIBLE_DEVICES=""')


def test_what_was_measured_goes_before_the_arithmetic() -> None:
    seen = Measured(Taken(3 * GIB, 9 * GIB), load_s=4)
    (first, *_) = layouts(Wanted(FACTS, 4096), HEADER, SETTINGS, ONE_GPU, lambda load: seen)
    assert (first.room, first.load_s) == (Room(3 * GIB, (9 * GIB,)), 4)


def test_an_embedding_model_reads_its_longest_text_in_one_batch() -> None:
    load = lay(CPU, facts=EMBEDDER).load
    assert (load.n_batch_tokens, load.n_cells, load.n_parallel) == (512, 512, 32)


def test_a_wider_context_takes_more_cells_and_only_where_the_model_lies() -> None:
    layout = lay(ONE_GPU)
    ways = wider(layout, 65_536, HEADER)
    assert [way.load.n_ctx_tokens for way in ways] == [65_536] * len(ways)
    assert all(way.load.n_cells >= 65_536 for way in ways)
    assert all(way.room.host == layout.room.host for way in ways)
    assert ways[0].room.gpus[0] > layout.room.gpus[0]

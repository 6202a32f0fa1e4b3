"""How models are laid out on made-up machines, and what that is taken to need."""

from typing import Any

import pytest

from paddock.engine.gguf import GgufHeader, GgufTensor
from paddock.engine.memory.device_memory import Device, GpuMemory, MemoryAmount
from paddock.engine.memory.measured_sizes import MeasuredSize
from paddock.engine.memory.model_layout import (
    LayoutRequest,
    ModelLayout,
    compute_bytes,
    expert_bytes,
    layouts,
    wider,
)
from paddock.engine.profile.profile import DecodePoint, Profile
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.workers.worker_protocol import WorkerMemory

GIB = 1 << 30
HEADER = GgufHeader(
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
H200 = GpuMemory("NVIDIA H200", 139 * GIB, 141 * GIB, "GPU-1")
ONE_GPU = Device(16, 128 * GIB, is_gpu=True, gpus=(H200,))
SMALL_GPU = Device(16, 128 * GIB, True, (GpuMemory("NVIDIA T4", 6 * GIB, 6 * GIB, "GPU-2"),))
TWO_GPUS = Device(
    16,
    128 * GIB,
    True,
    (GpuMemory("L4", 8 * GIB, 24 * GIB, "GPU-a"), GpuMemory("L4", 22 * GIB, 24 * GIB, "GPU-b")),
)
SETTINGS = PoolSettings(num_parallel=4)
LLAMA_3B = GgufHeader(
    3,
    255,
    {
        "general.architecture": "llama",
        "llama.block_count": 28,
        "llama.attention.head_count": 24,
        "llama.attention.head_count_kv": 8,
        "llama.attention.key_length": 128,
        "llama.attention.value_length": 128,
        "llama.embedding_length": 3072,
        "llama.feed_forward_length": 8192,
        "llama.vocab_size": 128_256,
    },
    {},
)


def card(n_gib: float, taken_bytes: int = 0) -> Device:
    total = int(n_gib * GIB)
    gpu = GpuMemory("card", total - taken_bytes, total, "GPU-1")
    return Device(16, 128 * GIB, is_gpu=True, gpus=(gpu,))


def lay(
    device: Device, settings: PoolSettings = SETTINGS, facts: ModelFacts = FACTS
) -> ModelLayout:
    return layouts(LayoutRequest(facts, facts.n_ctx_tokens), HEADER, settings, device)[0]


@pytest.mark.parametrize("device", [CPU, card(24)])
def test_a_draft_model_has_cells_and_buffers_of_its_own(device: Device) -> None:
    facts = replace(FACTS, draft_path="small.gguf")
    alone = LayoutRequest(facts, 4096)
    both = replace(alone, draft=LLAMA_3B)
    settings = PoolSettings(num_parallel=4, n_cells=16 * 1024)
    plain, two = (layouts(request, HEADER, settings, device)[0] for request in (alone, both))
    assert plain.load == two.load
    cells = two.load.n_cells * 28 * 8 * 256 * 2
    buffers = compute_bytes(LLAMA_3B, replace(two.load, cache_layout="unified"))
    extra_bytes = two.room.total_bytes - plain.room.total_bytes
    assert buffers > 0 and abs(extra_bytes - cells - buffers) < 4
    grown, wide = (wider(two, 65_536, HEADER, draft)[0] for draft in (None, LLAMA_3B))
    assert wide.room.total_bytes - grown.room.total_bytes > cells
    filled, fewer = (
        layouts(request, HEADER, PoolSettings(), device)[0] for request in (alone, both)
    )
    assert device.free.holds(fewer.room)
    assert (fewer.load.n_cells < filled.load.n_cells) == device.is_gpu


def test_on_a_processor_everything_is_main_memory() -> None:
    layout = lay(CPU)
    assert layout.load.n_parallel == 4
    assert layout.load.n_cells == 6 * 4096, "four jobs, and two chats beside them"
    # 128 KiB for each token of the cache: 32 layers of 8 heads of 128 values, keys and values.
    needed = 8 * GIB + 6 * 4096 * 128 * 1024 + compute_bytes(HEADER, layout.load)
    assert layout.room == MemoryAmount(needed + 128 * 1024 * 1024)
    assert layout.load.placed == "all 33 layers on the processor"


@pytest.mark.parametrize(("total_gib", "wished", "n_tokens"), [
    (16, None, 13_107), (64, None, 52_428), (512, None, 65_536), (64, 256 * 1024**2, 2048),
])  # fmt: skip
def test_a_tenth_of_main_memory_keeps_conversations_but_never_more_than_8_gib(
    total_gib: int, wished: int | None, n_tokens: int
) -> None:
    device = replace(CPU, total_bytes=total_gib * GIB)
    layout = lay(device, replace(SETTINGS, shelf_bytes=wished))
    assert layout.load.n_host_cache_tokens == n_tokens, "of 128 KiB each"
    assert layout.room == lay(CPU).room, "nothing is reserved for it"


def test_fewer_cells_come_after_more_and_a_quarter_is_a_last_resort() -> None:
    ways = layouts(LayoutRequest(FACTS, 4096), HEADER, SETTINGS, CPU)
    assert [(way.load.n_cells, way.load.n_parallel, way.is_good) for way in ways] == [
        (24_576, 4, True),
        (12_288, 4, True),
        (6144, 4, False),
        (4096, 4, False),
    ]


def test_a_model_that_ran_out_of_memory_is_laid_out_smaller() -> None:
    for device in (CPU, ONE_GPU):
        ways = layouts(LayoutRequest(FACTS, 4096, n_cells_at_most=8192), HEADER, SETTINGS, device)
        assert [way.load.n_cells for way in ways] == [8192, 4096]


QWEN_14B = GgufHeader(
    3,
    579,
    {
        "general.architecture": "qwen2",
        "qwen2.block_count": 48,
        "qwen2.attention.head_count": 40,
        "qwen2.attention.head_count_kv": 8,
        "qwen2.embedding_length": 5120,
        "qwen2.feed_forward_length": 13_824,
        "qwen2.vocab_size": 152_064,
    },
    {},
)


@pytest.mark.parametrize(
    ("header", "size_bytes", "device", "n_parallel", "n_cells"),
    [
        pytest.param(HEADER, 8_540_000_000, ONE_GPU, 64, 72 * 4096, id="8B Q8_0 on an H200"),
        pytest.param(QWEN_14B, 8_990_000_000, card(12), 24, 12_288, id="14B Q4_K_M on 12 GB"),
        pytest.param(HEADER, 8_540_000_000, card(24), 64, 106_496, id="8B Q8_0 on 24 GB"),
        pytest.param(LLAMA_3B, 2_020_000_000, card(8), 64, 47_104, id="3B Q4_K_M on 8 GB"),
        pytest.param(LLAMA_3B, 2_020_000_000, card(4), 29, 14_848, id="3B Q4_K_M on 4 GB"),
    ],
)
def test_cells_and_places_follow_the_memory_of_the_card(
    header: GgufHeader, size_bytes: int, device: Device, n_parallel: int, n_cells: int
) -> None:
    facts = replace(FACTS, size_bytes=size_bytes)
    best = layouts(LayoutRequest(facts, 4096), header, PoolSettings(), device)[0]
    assert (best.load.n_parallel, best.load.n_cells) == (n_parallel, n_cells)
    assert best.is_good and device.free.holds(best.room)
    (total,) = (gpu.total_bytes for gpu in device.gpus)
    assert best.room.gpus[0] <= 0.9 * total + 1


def test_a_device_that_others_use_gives_what_is_left_and_no_less_than_is_good() -> None:
    alone = layouts(LayoutRequest(FACTS, 4096), HEADER, PoolSettings(), card(24))
    beside = layouts(LayoutRequest(FACTS, 4096), HEADER, PoolSettings(), card(24, 6 * GIB))
    assert alone[0].load.n_cells > beside[0].load.n_cells > 8 * 4096
    assert [way.load.n_cells for way in beside[1:]] == [49_152, 24_576, 12_288, 6144, 4096]
    assert [way.is_good for way in beside] == [True, True, *[False] * 4]
    crowded = card(24, 14 * GIB)
    ways = layouts(LayoutRequest(FACTS, 4096), HEADER, PoolSettings(), crowded)
    assert ways[0].load.n_cells == 12 * 4096 and not crowded.free.holds(ways[0].room)
    assert any(crowded.free.holds(way.room) for way in ways), "it need not wait for others to go"


def test_cells_leave_room_for_models_that_are_needed_next_to_it() -> None:
    alone, both = (
        layouts(LayoutRequest(FACTS, 4096, others_bytes=n), HEADER, PoolSettings(), card(24))[0]
        for n in (0, 5 * GIB)
    )
    freed = sum(alone.room.gpus) - sum(both.room.gpus)
    assert abs(freed - 5 * GIB) < GIB / 2


def test_what_a_user_sets_wins_over_the_memory_of_the_card() -> None:
    load = lay(card(24), PoolSettings(num_parallel=100)).load
    assert load.n_parallel == 100
    assert lay(card(24), PoolSettings(n_cells=9000)).load.n_cells == 10240, "with the chats' share"
    assert lay(ONE_GPU, PoolSettings(num_parallel=4)).load.n_cells == 6 * 4096
    assert lay(ONE_GPU, PoolSettings(num_parallel=1000)).load.n_parallel == 252
    spared = lay(card(24), PoolSettings(gpu_overhead_bytes=4 * GIB))
    assert lay(card(24), PoolSettings()).room.gpus[0] - spared.room.gpus[0] > 3 * GIB


def test_twice_as_many_places_need_a_profile_that_gains_by_them() -> None:
    def profile(n_at_128: float) -> Profile:
        points = (
            DecodePoint(64, 1024, False, 5000.0), DecodePoint(128, 1024, False, n_at_128)
        )  # fmt: skip
        return Profile("d", "gpu-h200", "b", 1.0, decode=points)

    def n_places(known: Profile | None) -> int:
        ways = layouts(LayoutRequest(FACTS, 4096), HEADER, PoolSettings(), ONE_GPU, profile=known)
        return ways[0].load.n_parallel

    assert [n_places(None), n_places(profile(5200)), n_places(profile(7000))] == [64, 64, 128]


def test_logits_are_in_the_buffer_for_the_rows_that_a_step_wants() -> None:
    load = replace(lay(card(12)).load, n_cells=1024, n_parallel=16)
    wide = GgufHeader(
        3, 0, {"general.architecture": "llama", "llama.embedding_length": 64,
        "llama.feed_forward_length": 256, "llama.vocab_size": 151_936}, {},
    )  # fmt: skip
    # Twenty slots, as many that cells move to, and 32 branches; for all 512 tokens: 311 MB.
    assert compute_bytes(wide, load) == 4 * (72 * 151_936 + 512 * 2 * 64)


def test_without_flash_attention_the_scores_are_in_the_buffer() -> None:
    load = replace(lay(CPU).load, n_cells=8192)
    smollm2 = GgufHeader(
        3, 0, {"general.architecture": "llama", "llama.embedding_length": 576,
        "llama.attention.head_count": 9, "llama.feed_forward_length": 1536,
        "llama.vocab_size": 49_152}, {},
    )  # fmt: skip
    # Reserved by llama.cpp for 8,192 cells in one stream: 21.51 and 166.38 MiB.
    on = compute_bytes(smollm2, replace(load, flash_attention="on"))
    off = compute_bytes(smollm2, replace(load, flash_attention="off"))
    assert (round(on / 2**20, 2), round(off / 2**20, 2)) == (28.75, 166.75)


def test_a_form_is_planned_by_its_size_and_with_adapters_the_original_by_its_own() -> None:
    tuned = replace(FACTS, ir="/8b.bin", ir_bytes=12 * GIB)
    settings = PoolSettings(num_parallel=4, n_cells=16 * 1024)
    requests = {
        (facts.ir, adapters): LayoutRequest(facts, 4096, adapters)
        for facts in (FACTS, tuned)
        for adapters in ((), ("a.gguf",))
    }
    plans = {key: layouts(it, HEADER, settings, CPU)[0] for key, it in requests.items()}
    assert plans["/8b.bin", ("a.gguf",)] == plans["", ("a.gguf",)]
    form, original = plans["/8b.bin", ()], plans["", ()]
    buffers = [compute_bytes(HEADER, plan.load) for plan in (form, original)]
    more = form.room.total_bytes - buffers[0] - (original.room.total_bytes - buffers[1])
    assert more == 4 * GIB


LARGE = replace(FACTS, size_bytes=30 * GIB)
HIDDEN = replace(CPU, why_no_gpu='CUDA_VISIBLE_DEVICES=""')


@pytest.mark.parametrize(
    ("device", "changes", "facts", "visible", "n_shares", "placed"),
    [
        (ONE_GPU, {}, FACTS, "GPU-1", 0, "33 of 33 layers on NVIDIA H200"),
        (TWO_GPUS, {}, FACTS, "GPU-b", 0, "33 of 33 layers on L4"),
        (TWO_GPUS, {"main_gpu": 0}, FACTS, "GPU-a", 0, "33 of 33 layers on L4"),
        (TWO_GPUS, {}, LARGE, "GPU-a,GPU-b", 2, "33 of 33 layers on L4, L4"),
        (ONE_GPU, {"n_gpu_layers": 16}, FACTS, "GPU-1", 0,
            "16 of 33 layers on NVIDIA H200; num_gpu is 16"),
        (ONE_GPU, {"n_gpu_layers": 0}, FACTS, "", 0,
            "all 33 layers on the processor; num_gpu is 0"),
        (HIDDEN, {}, FACTS, "", 0, 'all 33 layers on the processor; CUDA_VISIBLE_DEVICES=""'),
    ],
    ids=["one", "more room", "asked for", "larger than one", "some", "none", "hidden"],
)  # fmt: skip
def test_layers_lie_where_there_is_room_and_the_settings_put_them(
    device: Device, changes: dict[str, Any], facts: ModelFacts, visible: str, n_shares: int,
    placed: str,
) -> None:  # fmt: skip
    layout = lay(device, replace(SETTINGS, **changes), facts)
    load, gpus = layout.load, [*layout.room.gpus]
    assert (load.placed, len(load.tensor_split)) == (placed, n_shares)
    assert not any(gpus) if placed.startswith("all") else load.visible_devices == visible
    assert sum(load.tensor_split) in (0, 1)
    used = [gpu.uuid for gpu, room in zip(device.gpus, gpus, strict=False) if room]
    assert ",".join(used) == visible
    is_split = "16 of" in placed
    assert is_split == (layout.host_layer_bytes > 4 * GIB and device is ONE_GPU)


def test_nothing_spills_to_the_processor_unless_that_is_allowed() -> None:
    ways = layouts(LayoutRequest(FACTS, 4096), HEADER, SETTINGS, SMALL_GPU)
    assert not any(SMALL_GPU.free.holds(way.room) for way in ways)
    allowed = layouts(
        LayoutRequest(FACTS, 4096), HEADER, replace(SETTINGS, allow_cpu=True), SMALL_GPU
    )
    fitting = [way for way in allowed if SMALL_GPU.free.holds(way.room)]
    assert fitting and not any(way.is_good for way in fitting)
    assert fitting[0].load.n_gpu_layers == 23
    assert fitting[0].load.placed == (
        "23 of 33 layers on NVIDIA T4; it has no room for more (allow_cpu)"
    )


def test_of_a_mixture_of_experts_experts_go_to_the_processor_before_layers() -> None:
    # 24 layers with experts of 450 MB each in MXFP4, as in a 12 GB model of 20B weights.
    experts = tuple(
        GgufTensor(f"blk.{layer}.ffn_{name}_exps.weight", 39, (2880, 2880, 34))
        for layer in range(24)
        for name in ("up", "gate", "down")
    )
    values: dict[str, str | int | float | bool] = {
        "general.architecture": "gpt-oss",
        "gpt-oss.block_count": 24,
        "gpt-oss.attention.head_count": 64,
        "gpt-oss.attention.head_count_kv": 8,
        "gpt-oss.attention.key_length": 64,
        "gpt-oss.attention.value_length": 64,
        "gpt-oss.embedding_length": 2880,
    }
    header = GgufHeader(3, len(experts), values, {}, experts)
    assert {round(n / 1e6) for n in expert_bytes(header)} == {449}
    facts = replace(FACTS, size_bytes=12 * GIB)
    settings = replace(SETTINGS, allow_cpu=True)
    ways = layouts(LayoutRequest(facts, 4096), header, settings, card(8))
    way = next(way for way in ways if card(8).free.holds(way.room))
    assert (way.load.n_gpu_layers, way.is_good) == (-1, False)
    n = way.load.n_cpu_experts
    assert 8 < n < 14 and way.load.placed == (
        f"25 of 25 layers on card, the experts of {n} of them on the processor; "
        "it has no room for more (allow_cpu)"
    )
    assert way.room.host > n * 449_000_000 and way.room.gpus[0] > 7 * GIB
    strict = layouts(LayoutRequest(facts, 4096), header, SETTINGS, card(8))
    assert not any(layout.load.n_cpu_experts for layout in strict)


def test_what_was_measured_goes_before_the_arithmetic() -> None:
    seen = MeasuredSize(WorkerMemory(3 * GIB, 9 * GIB), load_s=4)
    (first, *_) = layouts(LayoutRequest(FACTS, 4096), HEADER, SETTINGS, ONE_GPU, lambda load: seen)
    assert (first.room, first.load_s) == (MemoryAmount(3 * GIB, (9 * GIB,)), 4)


def embedder(architecture: str) -> GgufHeader:
    return GgufHeader(
        3, 0, {"general.architecture": architecture, f"{architecture}.block_count": 28,
        f"{architecture}.attention.head_count": 16, f"{architecture}.attention.head_count_kv": 8,
        f"{architecture}.attention.key_length": 128, f"{architecture}.attention.value_length": 128,
        f"{architecture}.embedding_length": 1024, f"{architecture}.feed_forward_length": 3072,
        f"{architecture}.vocab_size": 151_669}, {},
    )  # fmt: skip


@pytest.mark.parametrize("device", [CPU, ONE_GPU])
def test_an_embedder_is_planned_with_the_logits_of_its_longest_text(device: Device) -> None:
    facts = replace(EMBEDDER, n_ctx_train_tokens=32_768)
    request = LayoutRequest(facts, 8192)
    ways, others = (
        layouts(request, embedder(name), PoolSettings(), device) for name in ("qwen3", "bert")
    )
    for causal, encoder in zip(ways, others, strict=True):
        assert causal.load == encoder.load and causal.is_good
        logits = 4 * causal.load.n_cells * 151_669
        cells = causal.load.n_cells * 28 * 8 * 256 * 2
        # llama.cpp copies the logits of a causal model, and keeps as much space for all others.
        assert causal.room.total_bytes > GIB + 2 * logits + cells
        assert GIB + logits < encoder.room.total_bytes < 3 * GIB + logits
        assert encoder.room.host > logits
        is_gpu = bool(device.gpus)
        assert (sum(causal.room.gpus) > logits) == is_gpu
    assert [way.load.n_cells for way in ways] == [8192, 4096, 2048, 1024, 512]
    assert {way.load.n_batch_tokens for way in ways} == {8192}, "longer texts may find memory"
    assert wider(ways[0], 16_384, embedder("qwen3")) == (ways[0],)


def test_a_wider_context_takes_more_cells_and_only_where_the_model_lies() -> None:
    layout = lay(ONE_GPU)
    ways = wider(layout, 65_536, HEADER)
    assert [way.load.n_ctx_tokens for way in ways] == [65_536] * len(ways)
    assert all(way.load.n_cells >= 65_536 for way in ways)
    assert all(way.room.host == layout.room.host for way in ways)
    assert ways[0].room.gpus[0] > layout.room.gpus[0]

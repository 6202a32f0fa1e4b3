"""Which graphics devices a model is put on, on made-up machines."""

from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.memory.device_memory import GpuMemory, Placement, placements, usable_gpus
from paddock.engine.system.hardware import CONTEXT_BYTES, Gpu


def gpus(*pairs: tuple[int, int]) -> list[GpuMemory]:
    return [GpuMemory(f"gpu {i}", free, total) for i, (free, total) in enumerate(pairs)]


def test_what_fits_on_one_goes_whole_onto_the_one_with_most_free_memory() -> None:
    ways = placements(10, gpus((12, 24), (20, 24), (2, 8)))
    assert ways == (Placement((1,), (1.0,), "none"), Placement((0,), (1.0,), "none"))


def test_a_busy_device_that_could_hold_it_is_waited_for_rather_than_splitting() -> None:
    assert placements(20, gpus((3, 24), (10, 16))) == (Placement((0,), (1.0,), "none"),)


def test_what_no_device_can_hold_is_spread_over_as_few_as_can() -> None:
    ways = placements(30, gpus((20, 24), (22, 24), (24, 24)))
    assert [way.gpus for way in ways] == [(1, 2), (0, 1, 2)]
    assert ways[0].shares == (22 / 46, 24 / 46)
    assert ways[0].split_mode == "layer"


def test_a_split_can_be_asked_for_or_forbidden() -> None:
    two = gpus((20, 24), (20, 24))
    assert placements(10, two, split_mode="row") == (Placement((0, 1), (0.5, 0.5), "row"),)
    assert placements(10, two, split_mode="tensor")[0].split_mode == "tensor"
    assert placements(30, two, split_mode="none") == (Placement((0,), (1.0,), "none"),)


def test_a_device_that_does_not_tell_its_size_is_taken_to_have_room() -> None:
    assert placements(10, gpus((0, 8)))[0].gpus == (0,)


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=5),
    st.none() | st.integers(0, 5),
)
def test_the_shares_are_always_one_whole(
    needed: int, sizes: list[tuple[int, int]], main_gpu: int | None
) -> None:
    rooms = gpus(*((min(pair), max(pair)) for pair in sizes))
    for way in placements(needed, rooms, main_gpu=main_gpu):
        assert abs(sum(way.shares) - 1) < 1e-9
        assert sum(way.room(1_000_000, rooms).gpus) >= 1_000_000 - len(rooms)


def test_only_devices_that_the_build_can_use_count() -> None:
    there = [Gpu("cuda", "L4", 24, "8.9", 20, "GPU-a"), Gpu("rocm", "gfx942")]
    assert usable_gpus(there, ["cuda"]) == (GpuMemory("L4", 20, 24, "GPU-a", CONTEXT_BYTES),)
    assert usable_gpus(there, ["hip"]) == (), "it does not tell its memory"
    assert usable_gpus(there, ["vulkan"]) == ()
    assert usable_gpus([], ["cuda"]) == ()


def test_a_model_is_never_spread_over_instances_of_divided_devices() -> None:
    parts = [GpuMemory("1g.18gb", 18, 18, f"MIG-{n}") for n in range(3)]
    assert placements(30, parts) == (Placement((0,), (1.0,), "none"),)
    (way,) = placements(30, [*parts, *gpus((20, 24), (22, 24))])
    assert way.gpus == (3, 4)


def test_what_a_workers_context_takes_counts_on_each_device() -> None:
    rooms = [GpuMemory("RTX 3060", 12, 12, "GPU-1", 1), GpuMemory("RTX 4090", 24, 24, "GPU-2", 1)]
    assert placements(23, rooms)[0].room(23, rooms).gpus == (0, 24)
    assert placements(24, rooms)[0].gpus == (0, 1)

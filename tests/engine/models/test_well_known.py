"""A proposal is the strongest model that fits and is quick enough."""

import pytest

from paddock.engine.models.pull_sources import parse_source
from paddock.engine.models.well_known import (
    MOST_DOCUMENT_S,
    WELL_KNOWN,
    Machine,
    MachineSpeed,
    measure_speed,
    propose,
)
from tests.optional import present

GB = 10**9
LAPTOP = MachineSpeed(flop_per_s=2e11, read_bytes_per_s=3e10)
WORKSTATION = MachineSpeed(flop_per_s=3e12, read_bytes_per_s=2e11)


@pytest.mark.parametrize(
    ("memory_gb", "speed", "name"),
    [
        (1, LAPTOP, None),
        (3, LAPTOP, "llama3.2:1b"),
        (8, LAPTOP, "llama3.2:3b"),  # larger ones fit, and take over a minute
        (64, LAPTOP, "qwen3:30b-instruct"),  # few of its weights compute each token
        (16, WORKSTATION, "qwen3:14b"),
        (64, WORKSTATION, "qwen3:32b"),
    ],
)
def test_it_fits_and_is_quick_enough(memory_gb: int, speed: MachineSpeed, name: str | None) -> None:
    found = propose(Machine(memory_gb * GB, is_gpu=False, speed=speed))
    assert (found and found.name) == name


def test_where_all_are_slow_the_fastest_is_proposed() -> None:
    slow = MachineSpeed(flop_per_s=1e9, read_bytes_per_s=1e9)
    found = present(propose(Machine(64 * GB, is_gpu=False, speed=slow)))
    assert found.name == "qwen3:0.6b"
    assert slow.document_s(found) > MOST_DOCUMENT_S


def test_on_a_graphics_device_the_strongest_that_fits_is_proposed() -> None:
    found = present(propose(Machine(12 * GB, is_gpu=True, speed=None)))
    assert found.name == "qwen3:14b"


def test_each_name_can_be_pulled_and_each_size_is_that_of_its_weights() -> None:
    for model in WELL_KNOWN:
        assert parse_source(model.name).name.short == model.name
        assert 0.45 < model.size_bytes / 1e9 / model.n_weights < 1.1, model.name  # 4 to 8 bits
        assert model.n_active <= model.n_weights


def test_this_machine_can_be_measured() -> None:
    speed = measure_speed(1)
    assert speed.flop_per_s > 0
    assert speed.read_bytes_per_s > 0

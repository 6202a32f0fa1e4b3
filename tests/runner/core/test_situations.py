"""What `plan` and `why` tell in many situations is what they told before."""

import os

from tests.runner.core.situations import GOLDEN, situations, told_now, unpacked

EVERY = int(os.environ.get("PADDOCK_TEST_SITUATIONS_EVERY", "5"))  # all take two minutes


def test_plans_and_reasons_in_situations_are_as_recorded() -> None:
    recorded = unpacked(GOLDEN.read_text("utf-8"))
    assert len(recorded) == len(situations())
    with told_now(situations()[::EVERY]) as told:
        for was, now in zip(recorded[::EVERY], told, strict=True):
            assert now.splitlines() == was.splitlines()

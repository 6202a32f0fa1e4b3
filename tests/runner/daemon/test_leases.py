"""When the local service may end: no one uses it, and has not for long enough."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paddock.runner.daemon.leases import FIRST_S, Leases

IDLE_S = 900.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_ends_when_no_one_has_used_it_for_long_enough() -> None:
    clock = Clock()
    leases = Leases(clock)
    with leases.lease("a", 1, "digest"):
        clock.now = 5000.0
        assert not leases.is_over(IDLE_S)
        assert leases.quiet_s == 0
    clock.now = 5899.0
    assert not leases.is_over(IDLE_S)
    clock.now = 5900.0
    assert leases.is_over(IDLE_S)


def test_a_request_without_a_lease_keeps_it_too() -> None:
    clock = Clock()
    leases = Leases(clock)
    with leases.request():
        clock.now = 5000.0
        assert not leases.is_over(IDLE_S)
    clock.now = 5001.0
    assert not leases.is_over(IDLE_S)


def test_without_idle_time_it_still_waits_for_what_started_it() -> None:
    clock = Clock()
    leases = Leases(clock)
    assert not leases.is_over(0.0)
    clock.now = FIRST_S
    assert leases.is_over(0.0)


def test_a_retired_one_ends_with_its_last_lease() -> None:
    leases = Leases(Clock())
    with leases.lease("a", 1, "digest"):
        leases.is_retired = True
        assert not leases.is_over(IDLE_S)
    assert leases.is_over(IDLE_S)


class InAnyOrder(RuleBasedStateMachine):
    """Leases come and go; the service never ends under one, and ends some time after the last."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.leases = Leases(self.clock)
        self.open: list[object] = []
        self.last = 0.0

    @rule(name=st.text(max_size=3))
    def come(self, name: str) -> None:
        lease = self.leases.lease(name, 1, "p")
        lease.__enter__()
        self.open.append(lease)

    @rule(place=st.integers(0, 5))
    def go(self, place: int) -> None:
        if self.open:
            lease = self.open.pop(place % len(self.open))
            lease.__exit__(None, None, None)  # type: ignore[attr-defined]
            self.last = self.clock.now

    @rule(seconds=st.floats(0, 500))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def never_under_a_lease(self) -> None:
        if not hasattr(self, "leases"):
            return
        quiet_s = self.clock.now - self.last
        if self.open or quiet_s < IDLE_S:
            assert not self.leases.is_over(IDLE_S)
        else:
            assert self.leases.is_over(IDLE_S)


TestInAnyOrder = InAnyOrder.TestCase
TestInAnyOrder.settings = settings(max_examples=40, deadline=None)

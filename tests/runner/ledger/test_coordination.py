"""Claims: an item is one participant's until it releases it or is dead by the database's clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.sharing import coordination as claims_module
from paddock.runner.ledger.sharing.coordination import Claims, JoinedJob
from tests.postgres import Postgres

LONG_S = 3600.0
DEAD_S = 2.0


@contextmanager
def participant(
    ledger: Ledger, name: str, dead_after_s: float = LONG_S, job: str = ""
) -> Iterator[tuple[Claims, JoinedJob]]:
    claims = ledger.claims(name, dead_after_s)
    joined = claims.join("place", f"run-{name}", job)
    assert isinstance(joined, JoinedJob)
    try:
        yield claims, joined
    finally:
        claims.leave()


def aged(url: str, seconds: float) -> None:
    """Wait until the server has been up for so long; before, it takes no participant for dead."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "select pg_sleep(greatest(0, %s - "
            "extract(epoch from clock_timestamp() - pg_postmaster_start_time())))",
            [seconds],
        )


def kill(claims: Claims) -> None:
    """Stop the heartbeats of a participant, as if it was killed long ago."""
    claims._is_over.set()
    claims._connection.rows(
        "update holders set seen = seen - 10000 where holder = :me", {"me": claims.holder}
    )


def test_an_item_is_claimed_by_one_and_free_when_it_is_released(url: str, tmp_path: Path) -> None:
    with (
        Ledger(tmp_path, url=url) as ledger,
        participant(ledger, "a") as (a, _),
        participant(ledger, "b") as (b, _),
    ):
        assert a.claim("s", ["1", "2"]) == {"1", "2"}
        assert b.claim("s", ["2", "3"]) == {"3"}
        assert a.claim("s", ["1"]) == {"1"}
        assert b.claim("t", ["1"]) == {"1"}
        assert b.holder_of("s", ["2"]) is not None
        b.release("s", ["1", "2", "3"])
        assert b.claim("s", ["1", "2"]) == frozenset()
        a.release("s", ["2"])
        assert b.claim("s", ["1", "2", "3"]) == {"2", "3"}
        assert a.holds("s", "1") and not a.holds("s", "2")


def test_a_participant_that_leaves_releases_everything(url: str, tmp_path: Path) -> None:
    with Ledger(tmp_path, url=url) as ledger, participant(ledger, "b") as (b, _):
        with participant(ledger, "a") as (a, _):
            a.claim("s", ["1"])
        assert b.claim("s", ["1"]) == {"1"}


def test_participants_that_are_present_at_a_time_do_one_job(url: str, tmp_path: Path) -> None:
    with Ledger(tmp_path, url=url) as ledger:
        with participant(ledger, "a") as (_, first), participant(ledger, "b") as (_, second):
            assert (first.job, first.n_others) == ("run-a", 0)
            assert (second.job, second.n_others) == ("run-a", 1)
        with participant(ledger, "c") as (claims, later):
            assert (later.job, later.n_others) == ("run-c", 0)
            assert not claims.drop_dead("place")
        with participant(ledger, "d", job="given") as (_, named):
            assert named.job == "given"


def test_a_server_that_has_just_started_takes_no_participant_for_dead(
    url: str, tmp_path: Path
) -> None:
    with (
        Ledger(tmp_path, url=url) as ledger,
        participant(ledger, "a") as (a, _),
        participant(ledger, "b") as (b, _),
    ):
        a.claim("s", ["1"])
        kill(a)
        # It runs for less than an hour, after which a silent one is dead here.
        assert b.claim("s", ["1"]) == frozenset()


def test_the_items_of_a_dead_participant_are_taken_over(url: str, tmp_path: Path) -> None:
    aged(url, DEAD_S)
    with (
        Ledger(tmp_path, url=url) as ledger,
        participant(ledger, "a", DEAD_S) as (a, _),
        participant(ledger, "b", DEAD_S) as (b, _),
    ):
        a.claim("s", ["1"])
        assert b.claim("s", ["1"]) == frozenset()
        kill(a)
        assert b.claim("s", ["1"]) == {"1"}
        assert not a.holds("s", "1")
        kill(a)  # asking has told that it lives
        with participant(ledger, "c", DEAD_S) as (c, joined):
            assert joined.n_others == 1
            assert c.drop_dead("place") and not c.drop_dead("place")


def test_no_item_is_claimed_by_another_while_its_holder_lives(
    server: Postgres, tmp_path: Path
) -> None:
    """Claims, releases, kills and new participants, in any order."""
    url = server.make("claims_rules")
    aged(url, DEAD_S)
    keys = st.sets(st.sampled_from("abcdef"), min_size=1)
    numbers = st.integers(0, 2)

    class Rules(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.ledger = Ledger(tmp_path, url=url)
            self.ledger.__enter__()
            self.n_begun = 0
            self.living: dict[int, Claims] = {}
            self.owned: dict[int, set[str]] = {}
            self.silent: list[Claims] = []

        @rule(number=numbers)
        def begin(self, number: int) -> None:
            if number not in self.living:
                self.n_begun += 1
                claims = self.ledger.claims(f"{number}-{self.n_begun}", DEAD_S)
                claims.join("place", "run")
                self.living[number], self.owned[number] = claims, set()

        @precondition(lambda self: self.living)
        @rule(number=numbers, items=keys)
        def claim(self, number: int, items: set[str]) -> None:
            if number in self.living:
                others = set().union(*(v for n, v in self.owned.items() if n != number))
                won = self.living[number].claim("s", items)
                assert won == items - others
                self.owned[number] |= won

        @precondition(lambda self: self.living)
        @rule(number=numbers, items=keys)
        def release(self, number: int, items: set[str]) -> None:
            if number in self.living:
                self.living[number].release("s", items)
                self.owned[number] -= items

        @rule(number=numbers)
        def die(self, number: int) -> None:
            if number in self.living:
                claims = self.living.pop(number)
                kill(claims)
                self.silent.append(claims)
                del self.owned[number]

        @invariant()
        def each_knows_what_it_holds(self) -> None:
            for number, claims in self.living.items():
                assert all(claims.holds("s", key) for key in self.owned[number])

        def teardown(self) -> None:
            for claims in (*self.living.values(), *self.silent):
                claims.leave()
            self.ledger.__exit__(None, None, None)

    Rules.TestCase.settings = settings(
        max_examples=12, stateful_step_count=15, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    case = Rules.TestCase()
    case.runTest()


def test_a_participant_that_was_silent_queries_before_it_writes_even_after_a_heartbeat(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep_s = 0.0
    monkeypatch.setattr(claims_module, "_monotonic_s", lambda: time.monotonic() + asleep_s)
    with Ledger(tmp_path, url=url) as ledger, participant(ledger, "a", DEAD_S) as (a, _):
        assert a.is_sure()
        asleep_s = 10 * DEAD_S
        assert not a.is_sure()
        deadline = time.monotonic() + 120
        while not a._is_recent(time.monotonic() + asleep_s) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not a.is_sure()

"""How often one caller may ask."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.api.request_limits import TokenBuckets
from paddock.engine.settings import ServiceSettings
from tests.engine.api.small_service import SmallService


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_full_at_first_and_fills_at_an_even_pace() -> None:
    clock = Clock()
    buckets = TokenBuckets(60, clock=clock)
    assert [buckets.take("a") for _ in range(60)] == [0.0] * 60
    assert buckets.take("a") == pytest.approx(1.0)
    clock.now += 0.5
    assert buckets.take("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert buckets.take("a") == 0.0
    assert buckets.take("b") == 0.0, "every caller has a bucket"


@given(st.integers(1, 100), st.lists(st.floats(0, 30), max_size=200))
def test_no_more_pass_than_the_bucket_and_the_pace_allow(
    per_minute: int, pauses: list[float]
) -> None:
    clock = Clock()
    buckets = TokenBuckets(per_minute, clock=clock)
    n_passed = 0
    for pause in pauses:
        clock.now += pause
        wait_s = buckets.take("a")
        n_passed += not wait_s
        assert 0 <= wait_s <= 60 / per_minute + 1e-6
    assert n_passed <= per_minute + sum(pauses) * per_minute / 60 + 1e-6


def test_the_table_never_grows_beyond_its_bound() -> None:
    buckets = TokenBuckets(1, n_most=10, clock=Clock())
    for n in range(1000):
        buckets.take(f"address {n}")
    assert len(buckets) == 10
    assert buckets.take("address 999") > 0, "the newest are known"
    assert buckets.take("address 5") == 0, "the oldest count anew"


def test_beyond_the_rate_the_answer_is_429_and_says_when() -> None:
    house = SmallService(ServiceSettings(rate_per_minute=2))
    assert [house.ask("/api/chat", "POST").status_code for _ in range(3)] == [200, 200, 429]
    refused = house.ask("/api/chat", "POST")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json() == {"error": "too many requests: this address may send 2 a minute"}
    error = house.ask("/v1/chat/completions", "POST").json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert house.ask("/api/chat", "POST", client="127.0.0.2").status_code == 200
    assert 'paddock_http_refused_total{reason="rate"} 3.0' in house.metrics()


def test_looking_whether_it_lives_is_not_counted() -> None:
    house = SmallService(ServiceSettings(rate_per_minute=1))
    for path in ("/", "/healthz", "/metrics", "/ui", "/ui/state.json"):
        assert [house.ask(path).status_code for _ in range(3)] == [200] * 3


def test_keys_have_rates_of_their_own_wherever_they_are_used(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first alice\nsecond bob\n")
    house = SmallService(ServiceSettings(rate_per_minute=1, api_keys_file=file))

    def ask(key: str, client: str) -> int:
        return house.ask(headers={"x-api-key": key}, client=client).status_code

    assert [ask("first", "127.0.0.1"), ask("first", "127.0.0.2")] == [200, 429]
    assert ask("second", "127.0.0.1") == 200
    assert [ask("wrong", "127.0.0.1") for _ in range(3)] == [401] * 3

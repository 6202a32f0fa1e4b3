"""Whatever is sent, an answer comes that clients can read, and the service lives on.

Bounded: some hundred requests.
"""

import math
from pathlib import Path

import httpx

from tests.conformance import fuzz_routes
from tests.live import CHAT, Live


def test_the_service_and_its_workers_live_on(live: Live, client: httpx.Client) -> None:
    assert live.n_deaths() == 0
    live.until_idle()
    body = {"model": CHAT, "prompt": "Hi", "stream": False, "options": {"num_predict": 2}}
    assert client.post("/api/generate", json=body).json()["done"]


def test_every_route_answers_odd_requests_within_its_own_words(live: Live, tmp_path: Path) -> None:
    # The same for minutes: `python -m tests.conformance.fuzz_routes --minutes 10`.
    tally = fuzz_routes.fuzz(live, tmp_path, seed=12, seconds=math.inf, most=120, n_clients=2)
    assert tally.wrong == []
    assert tally.n > 300


def test_no_request_decides_or_reads_a_review_for_one_who_may_not(tmp_path: Path) -> None:
    tally = fuzz_routes.Tally(1)
    fuzz_routes.fuzz_review(tmp_path, tally, seed=2, most=300)
    assert tally.wrong == []
    assert tally.statuses[500] == 0
    for state in ("accepted", "edited", "rejected", "open"):
        assert tally.by_route[f"review {state}"], f"nothing became {state}: nothing was tried"

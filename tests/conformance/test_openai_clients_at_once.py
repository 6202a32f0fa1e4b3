"""OpenAI's clients: many at once, and what becomes of a request whose client or worker goes."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from paddock.engine.settings import PoolSettings
from tests.conformance.openai_client import HI, speaking_to
from tests.live import CHAT, Live, live_service


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    with speaking_to(live) as client:
        yield client


def test_a_client_that_goes_away_frees_its_place(client: OpenAI, live: Live) -> None:
    for more in ({}, {"n": 3}):
        n_before = live.n_decoded()
        stream = client.chat.completions.create(
            model=CHAT, messages=HI, max_tokens=2000, stream=True, temperature=1.3,
            stop=["\u0000"], **more,
        )  # type: ignore[call-overload]  # fmt: skip
        next(iter(stream))
        stream.close()
        live.until_idle()
        assert live.n_decoded() - n_before < 2000


def test_who_no_longer_waits_for_a_whole_answer_frees_his_place(live: Live) -> None:
    body = {"model": CHAT, "messages": HI, "max_tokens": 4000, "temperature": 1.3, "n": 4}
    n_before = live.n_decoded()
    with live.client() as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=httpx.Timeout(60, read=1.0))
    live.until_idle()
    assert live.n_decoded() - n_before < 4000


def test_a_full_queue_is_told_with_when_to_come_back(tmp_path: Path) -> None:
    pool = PoolSettings(n_threads=1, num_parallel=1, max_queue=1)
    with live_service(tmp_path, pool) as live:
        answers: list[Any] = []

        def ask(number: int) -> None:
            body = {"model": CHAT, "messages": HI, "max_tokens": 60, "stream": number % 2 == 0}
            with live.client() as http:
                answers.append(http.post("/v1/chat/completions", json=body))

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(ask, range(12)))
        refused = [one for one in answers if one.status_code != 200]
        assert refused and len(refused) < len(answers)
        for one in refused:
            assert one.status_code == 503
            assert int(one.headers["retry-after"]) > 0
            assert one.json()["error"]["type"] == "api_error"
        with speaking_to(live, max_retries=20) as client, ThreadPoolExecutor(4) as threads:
            many = client.completions.create(model=CHAT, prompt=["A"] * 6, max_tokens=1)
            assert len(many.choices) == 6, "a call is let in as a whole"
            told = threads.map(
                lambda _: client.completions.create(model=CHAT, prompt="A", max_tokens=2), range(4)
            )
            assert all(one.choices for one in told), "clients come back by themselves"


def test_a_worker_that_dies_ends_a_stream_with_an_error(client: OpenAI, live: Live) -> None:
    stream = client.chat.completions.create(
        model=CHAT, messages=HI, max_tokens=2000, stream=True, temperature=1.3
    )
    with pytest.raises(openai.APIError, match="model runner has unexpectedly stopped"):
        for number, _ in enumerate(stream):
            if number == 3:

                async def kill() -> None:
                    for pid in live.service.pool.worker_pids():
                        os.kill(pid, signal.SIGKILL)

                live.call(kill())
    answer = client.chat.completions.create(model=CHAT, messages=HI, max_tokens=4)
    assert answer.choices[0].message.content, "the next one finds a new worker"

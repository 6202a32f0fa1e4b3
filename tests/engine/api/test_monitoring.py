"""What machines look at, on a running service: /metrics, /healthz, /readyz."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from paddock.engine.api.monitoring import HealthReport
from paddock.engine.workers.worker_process import ProbeResult
from tests.live import CHAT, Live, live_service
from tests.waiting import until

ASKED = {"model": CHAT, "prompt": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10,", "raw": True, "stream": False,
         "options": {"num_predict": 8, "temperature": 0}}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Yield a service of its own, which has had one request: its counts are the subject."""
    with live_service(tmp_path_factory.mktemp("counted")) as live:
        with live.client() as client:
            assert client.post("/api/generate", json=ASKED).status_code == 200
        yield live


def numbers(live: Live) -> dict[str, float]:
    """Return every sample of /metrics by its name and labels."""
    with live.client() as client:
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_have_the_pool_s_numbers_and_the_service_s(loaded: Live) -> None:
    said = f"paddock_said_tokens_total[('model', '{CHAT}')]"
    until(lambda: numbers(loaded)[said] >= 8)  # a worker reports them every second
    metrics = numbers(loaded)
    assert metrics[f"paddock_loads_total[('model', '{CHAT}')]"] == 1
    route = "[('method', 'POST'), ('route', '/api/generate'), ('status', '200')]"
    assert metrics[f"paddock_http_requests_total{route}"] == 1
    assert metrics["paddock_http_requests_running[]"] == 1, "this very one"


def test_health_asks_each_worker_for_a_token(loaded: Live) -> None:
    before = numbers(loaded)[f"paddock_said_tokens_total[('model', '{CHAT}')]"]
    with loaded.client() as client:
        answer = client.get("/healthz")
    assert answer.status_code == 200
    (worker,) = answer.json()["workers"]
    assert (worker["model"], worker["ok"]) == (CHAT, True)
    assert worker["seconds"] > 0
    assert numbers(loaded)[f"paddock_said_tokens_total[('model', '{CHAT}')]"] == before + 1


def test_a_worker_that_hangs_is_told_with_the_reason(
    loaded: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pids() -> tuple[int, ...]:
        return loaded.service.pool.worker_pids()

    (pid,) = loaded.call(pids())
    time.sleep(1.1)  # no report of before
    os.kill(pid, signal.SIGSTOP)
    try:
        with (
            loaded.client() as client,
            ThreadPoolExecutor() as threads,
            monkeypatch.context() as patched,
        ):
            patched.setattr("paddock.engine.api.monitoring.PROBE_TIMEOUT_S", 1.0)
            many = list(threads.map(lambda _: client.get("/healthz"), range(5)))
    finally:
        os.kill(pid, signal.SIGCONT)
    for answer in many:
        assert answer.status_code == 503
        assert answer.json()["error"] == f"{CHAT}: no token within 1 s"
        assert answer.headers["retry-after"]
    with loaded.client() as client:
        time.sleep(1.1)
        assert client.get("/healthz").status_code == 200


def test_ready_means_that_requests_are_taken(loaded: Live) -> None:
    with loaded.client() as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        loaded.service.is_stopping = True
        try:
            answer = client.get("/readyz")
        finally:
            loaded.service.is_stopping = False
    assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_they_answer_head_and_refuse_the_rest(loaded: Live, path: str) -> None:
    with loaded.client() as client:
        assert client.head(path).status_code == 200
        assert client.post(path).status_code == 405


WELL = ProbeResult("smollm2:135m", True, 0.05)
ILL = ProbeResult("qwen3:8b", False, 10.0, "no token within 10 s")


def test_strangers_are_told_no_names() -> None:
    assert HealthReport((WELL,), 0).value(in_full=False) == {"status": "ok"}
    body = HealthReport((WELL, ILL), 0).value(in_full=False)
    assert body == {"status": "unwell", "error": "a worker does not answer"}

"""A file of requests, answered once each; by a service, and without one."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live import CHAT, VECTORS, Live
from tests.runner.cli.commands.shell import PADDOCK, paddock
from tests.waiting import PATIENCE_S


def line(custom_id: str, url: str, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}) + "\n"


REQUESTS = (
    line("a", "/v1/embeddings", model=VECTORS, input="one")
    + line("b", "/v1/embeddings", model="nobody", input="two")
    + line("c", "/v1/embeddings", model=VECTORS, input=["three", "four"])
)


@pytest.fixture(params=["here", "service"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    home = {"PADDOCK_HOME": str(tmp_path / "home"), "PADDOCK_NUM_THREAD": "1"}
    if request.param == "here":
        return home
    service: Live = request.getfixturevalue("live")
    return {**home, "PADDOCK_HOST": service.url}


def answers(file: Path) -> dict[str, Any]:
    lines = (json.loads(text) for text in file.read_text().splitlines())
    return {line["custom_id"]: line["response"] for line in lines}


@contextmanager
def standing_still(live: Live, model: str) -> Iterator[None]:
    """Load a model and hold its worker still: no request to it is answered meanwhile."""

    async def workers() -> dict[str, int]:
        pool = live.service.pool
        names = (model.name for model in pool.stats().resident)
        return dict(zip(names, pool.worker_pids(), strict=True))

    with live.client() as client:
        client.post("/api/generate", json={"model": model}).raise_for_status()  # loads it
    worker = live.call(workers())[model]
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_every_request_is_answered_once(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(REQUESTS)
    ended = paddock("batch", "in.jsonl", "out.jsonl", environ=environ, cwd=tmp_path)
    assert (ended.status, ended.out) == (3, "3 of 3 requests answered, 1 failed: out.jsonl\n")
    found = answers(tmp_path / "out.jsonl")
    assert {name: response["status_code"] for name, response in found.items()} == {
        **{"a": 200, "b": 404, "c": 200}
    }
    assert len(found["c"]["body"]["data"]) == 2
    before = (tmp_path / "out.jsonl").read_bytes()
    again = paddock("batch", "in.jsonl", "out.jsonl", "--json", environ=environ, cwd=tmp_path)
    assert json.loads(again.out) == {"ok": False, "total": 3, "completed": 2, "failed": 1}
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_an_interrupted_batch_goes_on_where_it_stopped(live: Live, tmp_path: Path) -> None:
    environ = {"PADDOCK_HOME": str(tmp_path), "PADDOCK_HOST": live.url}
    body = {"model": CHAT, "messages": [{"role": "user", "content": "Write a story."}]}
    (tmp_path / "in.jsonl").write_text(
        line("0", "/v1/embeddings", model=VECTORS, input="one")
        + line("1", "/v1/embeddings", model=VECTORS, input="two")
        + "".join(
            line(str(n), "/v1/chat/completions", **body, max_tokens=8, seed=n) for n in range(2, 8)
        )
    )
    command = [PADDOCK, "batch", "in.jsonl", "out.jsonl", "--at-once", "1"]
    out = tmp_path / "out.jsonl"
    with (
        standing_still(live, CHAT),
        subprocess.Popen(
            command,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **environ},
            text=True,
        ) as process,
    ):
        while not (out.exists() and out.read_bytes().count(b"\n") == 2 and live.n_users()):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert stderr.endswith(
        "Interrupted. `paddock batch in.jsonl out.jsonl` continues where it stopped.\n"
    )
    begun = out.read_bytes()
    assert begun.count(b"\n") == 2
    ended = paddock("batch", "in.jsonl", "out.jsonl", environ=environ, cwd=tmp_path)
    assert ended.status == 0, ended.err
    assert out.read_bytes().startswith(begun)
    assert set(answers(out)) == {str(n) for n in range(8)}

"""Ollama's model management: lists, cards, copies, creations, blobs; and what says it is alive."""

import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import psutil
import pytest

from paddock.engine.errors import TrialTimeout
from paddock.engine.system.distribution import OLLAMA_API, own_version
from paddock.engine.trial_process import TrialProcess
from tests.conformance.rows import Row, check, ids
from tests.fakes import tiny
from tests.live import Live
from tests.waiting import until

CHAT, VECTORS = "smollm2:135m", "all-minilm"
JSON = {"content-type": "application/json; charset=utf-8"}

ALIVE = [
    Row("it says so", "GET /", None, 200, "Ollama is running"),
    Row("without a body", "HEAD /", None, 200, ""),
    Row("a version", "GET /api/version", None, 200,
        {"version": OLLAMA_API, "paddock": own_version()}, headers=JSON),
    Row("a version", "HEAD /api/version", None, 200, "", headers=JSON),
    Row("a list", "HEAD /api/tags", None, 200, "", headers=JSON),
    Row("no cloud", "GET /api/status", None, 200,
        {"cloud": {"disabled": True, "source": "paddock"}}, headers=JSON),
]  # fmt: skip


@pytest.mark.parametrize("row", ALIVE, ids=ids(ALIVE))
def test_the_service_says_that_it_is_there(client: httpx.Client, row: Row) -> None:
    check(client, row)


def test_every_api_lists_the_same_names(client: httpx.Client) -> None:
    names = {one["name"] for one in client.get("/api/tags").json()["models"]}
    assert names >= {"smollm2:135m", "all-minilm:latest"}
    assert {one["id"] for one in client.get("/v1/models").json()["data"]} == names
    anthropics = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert {one["id"] for one in anthropics.json()["data"]} == names


def listed(client: httpx.Client) -> dict[str, dict[str, Any]]:
    answer = client.get("/api/tags")
    assert answer.headers["content-type"] == JSON["content-type"]
    return {one["name"]: one for one in answer.json()["models"]}


def test_tags_lists_every_model_with_its_details_newest_first(client: httpx.Client) -> None:
    models = client.get("/api/tags").json()["models"]
    named = {one["name"]: one for one in models}
    assert {"smollm2:135m", "all-minilm:latest"} <= set(named)
    moments = [datetime.fromisoformat(one["modified_at"]) for one in models]
    assert moments == sorted(moments, reverse=True)
    chat = named["smollm2:135m"]
    assert chat["model"] == "smollm2:135m"
    assert re.fullmatch("[0-9a-f]{64}", chat["digest"])
    assert chat["size"] > 90_000_000
    assert chat["capabilities"] == ["completion", "decision"]
    assert chat["details"] == {
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "134.52M", "quantization_level": "Q4_1", "context_length": 8192,
        "embedding_length": 576,
    }  # fmt: skip
    assert named["all-minilm:latest"]["capabilities"] == ["embedding"]


def test_show_tells_everything_of_a_model(client: httpx.Client) -> None:
    for asked in ({"model": CHAT}, {"name": CHAT}, {"model": "SmolLM2:135M"}):
        told = client.post("/api/show", json=asked).json()
        assert told["details"]["family"] == "llama"
        assert told["capabilities"] == ["completion", "decision"]
        assert told["model_info"]["general.architecture"] == "llama"
        assert told["model_info"]["tokenizer.ggml.tokens"] == []
        assert "general.name" not in told["model_info"]
        assert told["template"]
        assert told["modelfile"].count("FROM ") >= 1
        assert datetime.fromisoformat(told["modified_at"]).tzinfo
        assert {"name", "type", "shape"} == set(told["tensors"][0])
    long = client.post("/api/show", json={"model": CHAT, "verbose": True}).json()
    assert len(long["model_info"]["tokenizer.ggml.tokens"]) == 49152
    other = client.post("/api/show", json={"model": CHAT, "system": "Be kind."}).json()
    assert other["system"] == "Be kind."


def test_a_parameter_that_changes_nothing_is_told(client: httpx.Client) -> None:
    made = {"model": "odd", "from": CHAT, "parameters": {"num_thread": 2, "glow": 3, "top_k": 4}}
    with client.stream("POST", "/api/create", json=made) as answer:
        told = [json.loads(line)["status"] for line in answer.iter_lines()]
    assert told[-1] == "success"
    assert [line for line in told if line.startswith("parameter")] == [
        "parameter 'num_thread' has no effect: it is set by PADDOCK_NUM_THREAD",
        "parameter 'glow' is not known and was left out",
    ]


def test_a_blob_is_sent_once_and_is_what_its_digest_says(live: Live, client: httpx.Client) -> None:
    content = b"\x00\x01 not a model \xff" * 200_000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    check(client, Row("not there yet", f"HEAD /api/blobs/{digest}", None, 404))
    check(client, Row("created", f"POST /api/blobs/{digest}", content, 201, ""))
    check(client, Row("exists", f"POST /api/blobs/{digest}", content, 200, ""))
    check(client, Row("there", f"HEAD /api/blobs/{digest}", None, 200, ""))
    check(client, Row("written with a dash", f"HEAD /api/blobs/{digest.replace(':', '-')}"))
    wrong = "sha256:" + "1" * 64
    check(client, Row("something else", f"POST /api/blobs/{wrong}", content, 400,
                      error=f'digest mismatch, expected "{wrong}", got "{digest}"'))  # fmt: skip
    left = [path.name for path in (live.root / "models" / "blobs").iterdir()]
    assert digest.replace(":", "-") in left
    assert not any(name.startswith(".") or "111111" in name for name in left)
    check(client, Row("no model", "POST /api/create", {
        "model": "y", "stream": False, "files": {"x.gguf": digest}}, 400))  # fmt: skip


def test_a_large_blob_is_never_whole_in_memory(live: Live, client: httpx.Client) -> None:
    piece, n = os.urandom(1024 * 1024), 96
    whole = hashlib.sha256()
    for _ in range(n):
        whole.update(piece)
    process, before, most = psutil.Process(), psutil.Process().memory_info().rss, 0

    def pieces() -> Iterator[bytes]:
        nonlocal most
        for _ in range(n):
            yield piece
            most = max(most, process.memory_info().rss)

    answer = client.post(f"/api/blobs/sha256:{whole.hexdigest()}", content=pieces())
    assert answer.status_code == 201
    assert most - before < 40 * 1024 * 1024, f"{(most - before) / 1e6:.0f} MB"


def test_half_a_blob_leaves_nothing(live: Live, client: httpx.Client) -> None:
    blobs = live.root / "models" / "blobs"
    digest = "sha256:" + "2" * 64
    head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n"
    head += "Content-Length: 9999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.service.settings.port), 30) as wire:
        wire.sendall(head.encode() + bytes(2_000_000))
        until(lambda: temporary_files(blobs))
    until(lambda: not temporary_files(blobs))
    check(client, Row("nothing", f"HEAD /api/blobs/{digest}", None, 404))


def temporary_files(blobs: Path) -> list[Path]:
    return list(blobs.glob(".*"))


def statuses(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post("/api/create", json=body)
    assert answer.headers["content-type"] == "application/x-ndjson", answer.text
    return [json.loads(line) for line in answer.content.splitlines()]


@pytest.mark.parametrize("stream", [True, False])
def test_a_template_that_a_busy_machine_cannot_compute_is_to_be_sent_again(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    busy = TrialTimeout("the chat template", 3.5)
    monkeypatch.setattr(TrialProcess, "ask", Mock(side_effect=busy))
    body = {"model": "busy", "from": CHAT, "template": "{{ messages }}?", "stream": stream}
    answer = client.post("/api/create", json=body)
    assert (answer.status_code, answer.json()["error"]) == (503, str(busy))
    assert int(answer.headers["retry-after"]) > 0


def test_a_creation_is_told_line_by_line(client: httpx.Client) -> None:
    lines = statuses(
        client,
        {
            "model": "reviewer", "from": CHAT, "system": "You review code.",
            "template": "{{ messages[0].content }}!",
            "license": ["MIT", "Apache-2.0"],
            "parameters": {"temperature": 0},
            "messages": [{"role": "user", "content": "x=1"},
                         {"role": "assistant", "content": "Fine."}],
        },
    )  # fmt: skip
    told = [line["status"] for line in lines]
    assert told[-2:] == ["writing manifest", "success"]
    assert any(re.fullmatch("(using existing|creating new) layer sha256:[0-9a-f]{64}", one)
               for one in told)  # fmt: skip
    shown = client.post("/api/show", json={"model": "reviewer"}).json()
    assert shown["system"] == "You review code."
    assert shown["template"] == "{{ messages[0].content }}!"
    assert shown["messages"][1] == {"role": "assistant", "content": "Fine."}
    assert "MIT" in shown["license"]
    assert shown["details"]["parent_model"] in (CHAT, "")
    body = {"model": "reviewer", "prompt": "y=2", "stream": False, "options": {"num_predict": 2}}
    assert client.post("/api/generate", json=body).json()["response"]


def test_pulls_of_what_is_nowhere_end_in_one_error_line(client: httpx.Client) -> None:
    asked = {"model": "127.0.0.1:9/library/none", "insecure": True}
    answer = client.post("/api/pull", json=asked)
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert answer.status_code == 200
    assert lines[0] == {"status": "pulling manifest"}
    assert set(lines[-1]) == {"error"}
    answer = client.post("/api/pull", json={**asked, "stream": False})
    assert answer.status_code == 500
    assert set(answer.json()) == {"error"}


def test_a_file_of_the_machine_cannot_be_pulled_by_any_client(client: httpx.Client) -> None:
    for source in ("/etc/passwd", "file:///etc/passwd", "./x.gguf", "~/x.gguf"):
        answer = client.post("/api/pull", json={"model": source, "stream": False})
        assert answer.status_code in (400, 500)
        assert "root:" not in answer.text


def test_ps_tells_what_is_in_memory_and_how_busy_it_is(client: httpx.Client) -> None:
    body = {"model": CHAT, "prompt": "Hi", "stream": False, "options": {"num_predict": 4}}
    client.post("/api/generate", json={**body, "keep_alive": "5m"})
    client.post("/api/embed", json={"model": VECTORS, "input": "Hi", "keep_alive": "20m"})
    told = client.get("/api/ps").json()
    first, second = (one for one in told["models"] if one["name"] in ("all-minilm:latest", CHAT))
    assert [first["name"], second["name"]] == ["all-minilm:latest", CHAT], "the longest first"
    assert told["queue_depth"] == 0
    for one in (first, second):
        assert one["model"] == one["name"]
        assert one["digest"] == listed(client)[one["name"]]["digest"]
        assert one["details"] == listed(client)[one["name"]]["details"]
        assert one["size"] > one["size_vram"] >= 0
        assert datetime.fromisoformat(one["expires_at"]).tzinfo
        assert one["context_length"] > 0
        assert one["queue_depth"] == 0
        assert one["state"] == "ready"
    assert second["tokens_per_second"] >= 0
    assert second["cache"]["used_tokens"] > 0


def test_the_list_says_what_a_file_says_of_decoding(live: Live, tmp_path: Path) -> None:
    file = tiny.llama(tmp_path / "cold.gguf", more={"general.sampling.temp": 0.5})
    live.add_model("cold", file)
    with live.client() as client:
        rows = client.get("/api/tags").json()["models"]
    assert {row["name"]: row.get("of_file") for row in rows}["cold:latest"] == {"temperature": 0.5}

"""Files and batches through OpenAI's own client, against a live service; what lies on the disk."""

import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from paddock.engine.api.batches import batch_lines
from paddock.engine.api.batches.batch_lines import (
    BatchLine,
    InvalidBatchFile,
    answer_result,
    check_lines,
    read_lines,
    recover_results,
)
from paddock.engine.api.batches.batch_runner import (
    BATCH_ID,
    FINAL_STATUSES,
    BatchRecord,
    BatchRunner,
    FileRecord,
    FileStore,
    RecordFolder,
)
from paddock.engine.api.openai.chat_completions import new_id
from paddock.engine.system import socket_owners
from tests.live import CHAT, VECTORS, Live
from tests.waiting import PATIENCE_S, until

CHATS, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
ROOT = Path(__file__).parents[4]


def connected(url: str) -> OpenAI:
    http = openai.DefaultHttpxClient(trust_env=False)
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    with connected(live.url) as client:
        yield client


def chat_line(number: int, **extra: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Count from {number}."}]
    body = {"model": CHAT, "messages": messages, "max_tokens": 6, "temperature": 0, **extra}
    return {"custom_id": f"n-{number}", "method": "POST", "url": CHATS, "body": body}


def written(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def begun(client: OpenAI, lines: list[dict[str, Any]], endpoint: Any = CHATS) -> Any:
    file = client.files.create(file=("in.jsonl", written(lines)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"who": "me"}
    )


def over(client: OpenAI, batch_id: str, within_s: float = PATIENCE_S) -> Any:
    ends = time.monotonic() + within_s
    while (batch := client.batches.retrieve(batch_id)).status not in FINAL_STATUSES:
        assert time.monotonic() < ends, batch
        time.sleep(0.1)
    return batch


def counts(client: OpenAI, batch_id: str) -> int:
    found = client.batches.retrieve(batch_id).request_counts
    return found.completed if found else 0


def results(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    lines = client.files.content(file_id).text.splitlines()
    by_id = {line["custom_id"]: line for line in map(json.loads, lines)}
    assert len(by_id) == len(lines), "each once"
    return by_id


def test_files_come_and_go(client: OpenAI) -> None:
    data = b'{"a": 1}\n' * 100_000
    file = client.files.create(file=("naïve \U0001f999.jsonl", data), purpose="user_data")
    assert (file.bytes, file.filename) == (len(data), "naïve \U0001f999.jsonl")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == data
    other = client.files.create(
        file=b"", purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert other.bytes == 0
    assert other.expires_at == other.created_at + 3600
    assert [file.id for file in client.files.list()][:2] == [other.id, file.id]
    assert [file.id for file in client.files.list(limit=1)][:2] == [other.id, file.id], "by pages"
    assert file.id not in [file.id for file in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            gone(file.id)


def test_files_and_batches_are_theirs_who_stored_them(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_as(user: int | None) -> None:
        monkeypatch.setattr(socket_owners, "client_owner", lambda client, server: user)

    ask_as(1000)
    batch = begun(client, [chat_line(1)])
    file_id = batch.input_file_id
    output = over(client, batch.id).output_file_id
    for other in (1001, None):
        ask_as(other)
        assert {file_id, output}.isdisjoint(file.id for file in client.files.list())
        assert batch.id not in [found.id for found in client.batches.list()]
        for ask in (client.files.content, client.files.delete, client.files.retrieve):
            for name in (file_id, output):
                with pytest.raises(openai.NotFoundError):
                    ask(name)
        for act in (client.batches.retrieve, client.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                act(batch.id)
        with pytest.raises(openai.BadRequestError, match="there is no file"):
            client.batches.create(
                input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
    ask_as(1000)
    assert client.files.content(output).text and client.files.delete(file_id).deleted
    ask_as(None)
    everyones = client.files.create(file=("a.jsonl", b"x"), purpose="batch")
    ask_as(1001)
    assert client.files.delete(everyones.id).deleted


def test_a_form_that_is_none_is_refused(live: Live) -> None:
    file = {"file": ("a.jsonl", b"x")}
    with live.client() as client:
        for options in (
            {"content": b"x"},
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            {"files": {"other": ("a", b"x")}, "data": {"purpose": "batch"}},
            {"files": file},
            {"files": file, "data": {"purpose": "mischief"}},
            {"files": file, "data": {"purpose": "batch", "expires_after[seconds]": "7"}},
            {"files": [("file", ("a", b"x")), ("file", ("b", b"y"))]},
        ):
            answer = client.post("/v1/files", **options)
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["type"] == "invalid_request_error"
        many = client.post("/v1/files", files=file, data={"x": "y" * 100_000})
        assert many.status_code == 413
        names = [(f"field-{number}", (None, b"")) for number in range(5_000)]
        assert client.post("/v1/files", files=names).status_code == 413, "empty ones count, too"
    folder = live.service.settings.state_dir / "files"
    assert not list(folder.glob(".*")), "nothing is left of what was refused"


def test_a_batch_has_an_answer_for_each_line(client: OpenAI) -> None:
    lines = [chat_line(number) for number in range(5)]
    lines.append(chat_line(5, model="no-such-model"))
    lines.append(chat_line(6, temperature="hot"))
    batch = begun(client, lines)
    assert batch.id.startswith("batch_")
    done = over(client, batch.id)
    assert done.status == "completed"
    assert done.request_counts.model_dump() == {"total": 7, "completed": 5, "failed": 2}
    assert done.metadata == {"who": "me"}
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
    assert set(good) == {f"n-{number}" for number in range(5)}
    whole = client.chat.completions.create(**lines[3]["body"])
    response = good["n-3"]["response"]
    assert response["status_code"] == 200
    assert response["body"]["object"] == "chat.completion"
    assert response["body"]["choices"][0]["message"]["content"]
    assert response["body"]["usage"]["completion_tokens"] == whole.usage.completion_tokens
    assert bad["n-5"]["response"]["status_code"] == 404
    assert bad["n-6"]["response"]["body"]["error"]["param"] == "temperature"
    assert done.usage.output_tokens == sum(
        line["response"]["body"]["usage"]["completion_tokens"] for line in good.values()
    )
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"
    assert next(iter(client.batches.list())).id == batch.id


def test_every_endpoint_can_be_asked_in_a_batch(client: OpenAI) -> None:
    bodies = {
        EMBEDDINGS: {"model": VECTORS, "input": ["a", "b"]},
        "/v1/completions": {"model": CHAT, "prompt": "One, two,", "max_tokens": 3},
        "/v1/responses": {"model": CHAT, "input": "Hi", "max_output_tokens": 16, "stream": True},
    }
    for url, body in bodies.items():
        line = {"custom_id": "a", "method": "POST", "url": url, "body": body}
        done = over(client, begun(client, [line], url).id)
        (result,) = results(client, done.output_file_id).values()
        assert result["response"]["body"]["usage"]


def test_wrong_lines_fail_a_batch_before_anything_is_run(client: OpenAI) -> None:
    lines = [chat_line(1), chat_line(1), {**chat_line(2), "url": EMBEDDINGS}]
    done = over(client, begun(client, lines).id)
    assert done.status == "failed"
    assert [(fault.line, fault.code) for fault in done.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "invalid_url"),
    ]
    assert done.output_file_id is None


def test_a_batch_that_cannot_be_is_refused(client: OpenAI) -> None:
    file = client.files.create(file=b"x", purpose="user_data")
    good: Any = {"input_file_id": file.id, "endpoint": CHATS, "completion_window": "24h"}
    for changes, param in (
        ({}, "input_file_id"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"endpoint": "/v1/images"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.batches.create(**{**good, **changes})
        assert caught.value.param == param
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")


def test_a_cancelled_batch_keeps_what_is_answered(client: OpenAI) -> None:
    long = [chat_line(number, max_tokens=300, stop=["\u0000"]) for number in range(40)]
    batch = begun(client, [chat_line(99, max_tokens=1), *long])
    until(lambda: counts(client, batch.id))
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = over(client, batch.id)
    assert done.status == "cancelled"
    assert 1 <= done.request_counts.completed < 41
    assert len(results(client, done.output_file_id)) == done.request_counts.completed
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_a_batch_whose_time_is_up_says_so_line_by_line(client: OpenAI, live: Live) -> None:
    async def run() -> str:
        batches = BatchRunner(live.service)
        source = live.root / "late.jsonl"
        long = [chat_line(number, max_tokens=400) for number in range(30)]
        source.write_bytes(written(long))
        record = BatchRecord(
            new_id("batch_"), CHATS, "file-x", "1m", time.time_ns(), int(time.time()) + 1
        )
        await batches.create(record, source)
        await batches._tasks.drain()
        return record.id

    done = over(client, live.call(run()))
    assert done.status == "expired"
    assert done.request_counts is not None
    assert done.request_counts.completed + done.request_counts.failed == 30
    late = [result for result in results(client, done.error_file_id).values() if result["error"]]
    assert late and all(result["error"]["code"] == "batch_expired" for result in late)


def test_a_chat_does_not_wait_for_a_batch(client: OpenAI) -> None:
    batch = begun(client, [chat_line(number, max_tokens=400) for number in range(40)])
    until(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    client.chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": "Hi"}], max_tokens=2
    )
    assert client.batches.retrieve(batch.id).status == "in_progress", "it is still running"
    client.batches.cancel(batch.id)
    over(client, batch.id)


def test_a_batch_is_run_by_one_process_at_a_time(client: OpenAI, live: Live) -> None:
    batch = begun(client, [chat_line(number) for number in range(6)])
    other = BatchRunner(live.service)
    live.call(other.start())
    done = over(client, batch.id)
    assert done.request_counts.completed == 6
    assert len(results(client, done.output_file_id)) == 6
    live.call(other.stop())


# Survival


@contextmanager
def process(root: Path) -> Iterator[tuple[subprocess.Popen[str], OpenAI]]:
    """Run a service in a process of its own, and kill it at the end."""
    command = [sys.executable, "-m", "tests.fakes.service", str(root)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            with connected(running.stdout.readline().strip()) as client:
                yield running, client
        finally:
            running.kill()


def test_a_batch_goes_on_after_kill_9_and_repeats_nothing(tmp_path: Path) -> None:
    with process(tmp_path) as (running, client):
        batch = begun(client, [chat_line(number, max_tokens=12) for number in range(24)])
        files = tmp_path / "service" / "files"
        found = files / f"file-{batch.id.removeprefix('batch_')}00.data"
        while not found.exists() or found.read_bytes().count(b"\n") < 3:
            time.sleep(0.02)
        running.kill()
        running.wait()
    before = [line for line in found.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]
    assert 3 <= len(before) < 24
    with process(tmp_path) as (_, client):
        done = over(client, batch.id, within_s=PATIENCE_S)
        assert done.status == "completed"
        assert done.request_counts.model_dump() == {"total": 24, "completed": 24, "failed": 0}
        text = client.files.content(done.output_file_id).content
        assert len(results(client, done.output_file_id)) == 24
    assert text.startswith(b"".join(before)), "what was answered before was not asked again"
    left = {path.suffix for path in (tmp_path / "service" / "batches").iterdir()}
    assert left == {".json"}


# Lines and results on the disk


def line(custom_id: Any = "a", **extra: Any) -> bytes:
    value = {"custom_id": custom_id, "method": "POST", "url": CHATS, "body": {"model": "m"}}
    return written([{**value, **extra}])


BAD_LINES = (
    (b"no JSON\n", "invalid_json_line", None),
    (b"[]\n", "invalid_json_line", None),
    (line(""), "missing_required_parameter", "custom_id"),
    (line(7), "missing_required_parameter", "custom_id"),
    (line("b", url="/v1/images"), "invalid_url", "url"),
    (line("b", method="GET"), "invalid_method", "method"),
    (line("b", body=[]), "missing_required_parameter", "body"),
    (line("b", body={}), "missing_required_parameter", "body.model"),
    (line("a"), "duplicate_custom_id", "custom_id"),
    (line("b" * 3000), "line_too_large", None),
)


def test_every_fault_of_a_file_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_lines, "MAX_LINE_BYTES", 2000)
    path = tmp_path / "in.jsonl"

    def faults(text: bytes) -> list[tuple[int, str, str | None]]:
        path.write_bytes(text)
        with pytest.raises(InvalidBatchFile) as caught:
            check_lines(path, (CHATS,))
        return [(fault.line, fault.code, fault.param) for fault in caught.value.faults]

    for bad, code, param in BAD_LINES:
        assert faults(line("a") + b"\n" + bad) == [(3, code, param)]
    assert len(faults(b"x\n" * 500)) == 100
    assert faults(b"\n \n") == [(1, "empty_file", None)]
    path.write_bytes(b"\xef\xbb\xbf" + line("a") + b" " * 1900 + line("b").rstrip())
    assert check_lines(path, (CHATS,)) == 2, "a byte order mark, no newline at the end"
    assert [line.custom_id for line in read_lines(path, {"a": True})] == ["b"]


@pytest.mark.parametrize("n_left", [1, 7, 30, 100])
def test_what_is_left_of_a_last_result_is_cut_off(tmp_path: Path, n_left: int) -> None:
    path = tmp_path / "out.jsonl"
    whole, cut = (answer_result(BatchLine(name, CHATS, {}), 200, {"x": "ü" * 50}) for name in "ab")
    path.write_bytes(whole + b"\n" + cut[:n_left])
    assert recover_results(path) == {"a": True}
    assert path.read_bytes() == whole + b"\n"


@pytest.mark.parametrize("other", [b"my diary\n", b"no newline", b'{"id": 7}\n', b"[1]\n"])
def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path, other: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(other)
    with pytest.raises(InvalidBatchFile, match=r"out\.jsonl:1: this line is no result of a batch"):
        recover_results(path)
    assert path.read_bytes() == other


def stored(files: FileStore, expires_at: int | None = None) -> FileRecord:
    record = FileRecord(new_id("file-"), "a.jsonl", "batch", 3, time.time_ns(), expires_at)
    data = files.new_data(record.id)
    data.write(b"abc")
    files.add(record, data)
    data.close()
    return record


def test_files_are_private_expire_and_are_whole_or_missing(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    old, new = stored(files, int(time.time()) - 1), stored(files, int(time.time()) + 60)
    assert files.find(old.id, "") is None
    assert not files.data_path(old.id).exists()
    assert FileStore(tmp_path).list() == [new], "another process sees it too"
    document = files.path(new.id, "json")
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.folder.iterdir()} == {0o600}
    document.write_bytes(document.read_bytes()[:20])
    assert files.list() == []
    for name in ("../x", "file-../../etc", "", "file-", "FILE-" + "a" * 24):
        assert files.find(name, "") is None
        assert RecordFolder(tmp_path, BatchRecord, BATCH_ID).find(name, "") is None


def test_records_of_earlier_versions_are_read(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    batches = RecordFolder(tmp_path / "batches", BatchRecord, BATCH_ID)
    file, own = stored(files), "5" * 24
    value = {
        **{"id": f"batch_{own}", "endpoint": CHATS, "input_file_id": file.id, "errors": []},
        **{"completion_window": "24h", "created_ns": 7_000_000_000, "expires_at": 99},
        **{"metadata": {}, "output_expires_s": None, "status": "in_progress", "total": 1},
        **{"reached": {"in_progress": 8}, "completed": 0, "failed": 0, "output_file_id": None},
        **{"error_file_id": None, "usage": None, "owner": ""},
    }
    batches.folder.mkdir()
    batches.path(f"batch_{own}", "json").write_text(json.dumps(value))
    (record,) = batches.list()
    assert (record.value()["created_at"], record.value()["in_progress_at"]) == (7, 8)

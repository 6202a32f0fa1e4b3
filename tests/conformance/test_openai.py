"""OpenAI's API as tables: what is sent, and what must come back; and what no one should send."""

import json
import re
from typing import Any

import httpx
import pytest

from tests.conformance.rows import Row, check, ids
from tests.live import CHAT, VECTORS, Live

TURN = [{"role": "user", "content": "Hi"}]
JSON = {"content-type": "application/json; charset=utf-8"}
SENT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": CHAT, "messages": TURN, "max_tokens": 2},
    "/v1/completions": {"model": CHAT, "prompt": "Hi", "max_tokens": 2},
    "/v1/responses": {"model": CHAT, "input": "Hi", "max_output_tokens": 2},
    "/v1/embeddings": {"model": VECTORS, "input": "Hi"},
}


def error(message: str, param: str | None = None, code: str | None = None, kind: str = "") -> Any:
    kind = kind or "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


EVERYWHERE = [
    row
    for path, good in SENT.items()
    for row in (
        Row("the plain call", f"POST {path}", good, headers=JSON),
        Row("curl -d sends a form's type", f"POST {path}", good,
            with_headers={"content-type": "application/x-www-form-urlencoded"}),
        Row("names in another case, unknown fields", f"POST {path}",
            {**{name.upper(): value for name, value in good.items()}, "foo": [1]}),
        Row("no body", f"POST {path}", None, 400, error("missing request body"), headers=JSON),
        Row("half an object", f"POST {path}", b'{"model": ', 400,
            re.compile('"type": ?"invalid_request_error"')),
        Row("a list", f"POST {path}", b"[]", 400, re.compile("must be a JSON object")),
        Row("a depth", f"POST {path}", b"[" * 100_000, 400, re.compile("nested too deeply")),
        Row("bytes", f"POST {path}", bytes(range(256)), 400, re.compile("malformed JSON")),
        Row("no model", f"POST {path}", {**good, "model": None}, 400,
            error("Missing required parameter: 'model'.", "model", "missing_required_parameter")),
        Row("a model that is not there", f"POST {path}", {**good, "model": "nobody"}, 404,
            error("model 'nobody' not found", "model", "model_not_found", "not_found_error")),
        Row("a model that is a path", f"POST {path}", {**good, "model": "../../etc/passwd"}, 400,
            error("invalid model name", "model", "invalid_model")),
        Row("a model of 10 kB", f"POST {path}", {**good, "model": "x" * 10_000}, 400,
            error("invalid model name", "model", "invalid_model")),
        Row("a model that is a number", f"POST {path}", {**good, "model": 7}, 400,
            error("Invalid type for 'model': expected a string, but got an integer instead.",
                  "model", "invalid_type")),
        Row("the wrong method", f"DELETE {path}", None, 405, "405 method not allowed"),
        Row("packed as nobody reads it", f"POST {path}", good, 415,
            re.compile("Content-Encoding: br"), with_headers={"content-encoding": "br"}),
    )
]  # fmt: skip

CHATS = [
    Row(claim, "POST /v1/chat/completions", {**SENT["/v1/chat/completions"], **sent}, 400, answer)
    for claim, sent, answer in (
        ("no messages", {"messages": []}, error("[] is too short - 'messages'", "messages")),
        ("messages left out", {"messages": None},
         error("[] is too short - 'messages'", "messages")),
        ("an image elsewhere",
         {"messages": [{"role": "user", "content": [
             {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}]},
         re.compile("image URLs are not fetched")),
        ("an image to a model that cannot see",
         {"messages": [{"role": "user", "content": [
             {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}]},
         re.compile("image")),
        ("a role of its own", {"messages": [{"role": "x", "content": "Hi"}]},
         re.compile("Supported values are: 'system', 'developer', 'user', 'assistant', 'tool'")),
        ("a schema that cannot be",
         {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
         re.compile('"type": ?"invalid_request_error"')),
        ("an embedding model", {"model": VECTORS},
         error(f'"{VECTORS}" does not support chat', "model")),
    )
]  # fmt: skip

OTHERS = [
    Row("an embedding of a chat model", "POST /v1/embeddings", {"model": CHAT, "input": "Hi"},
        400, error(f'"{CHAT}" does not support embeddings', "model")),
    Row("an encoding of its own", "POST /v1/embeddings",
        {**SENT["/v1/embeddings"], "encoding_format": "hex"}, 400,
        error("Invalid value for 'encoding_format' = hex. Supported values: "
              "['float', 'base64'].", "encoding_format")),
    Row("no input", "POST /v1/embeddings", {"model": VECTORS}, 400,
        error("invalid input", "input")),
    Row("an empty list", "POST /v1/embeddings", {"model": VECTORS, "input": []}, 400,
        error("invalid input", "input")),
    Row("an empty text", "POST /v1/embeddings", {"model": VECTORS, "input": ""}, 200),
    *(Row(f"{field}: {value}"[:40], "POST /v1/embeddings", {**SENT["/v1/embeddings"], field: value},
          400, re.compile(f'"param":"{field}"'))
      for field, value in (("dimensions", 0), ("dimensions", 385), ("input", [10**9]),
                           ("input", "x " * 600), ("model", CHAT), ("input_type", "query"),
                           ("messages", [{}]), ("output_dimension", 64))),
    Row("an empty prompt", "POST /v1/completions", {"model": CHAT, "prompt": [], "max_tokens": 1},
        400, error("invalid prompt", "prompt")),
    Row("a middle that the model cannot fill", "POST /v1/completions",
        {"model": CHAT, "prompt": "a", "suffix": "b"}, 400,
        error("this model cannot fill in the middle: its file names no tokens for it", "suffix")),
    Row("nothing to answer", "POST /v1/responses", {"model": CHAT}, 400,
        error("Missing required parameter: 'input'.", "input", "missing_required_parameter")),
    Row("a model's page", f"GET /v1/models/{CHAT}", None, 200, re.compile('"owned_by":"library"')),
    Row("nobody's page", "GET /v1/models/nobody", None, 404,
        error("model 'nobody' not found", "model", "model_not_found", "not_found_error")),
    Row("a path's page", "GET /v1/models/..%2F..%2Fetc%2Fpasswd", None, 400,
        error("invalid model name", "model", "invalid_model")),
    Row("a file that is none", "GET /v1/files/file-..%2Fx", None, 404),
    Row("a batch that is none", "GET /v1/batches/batch_x", None, 404,
        error("No such Batch object: 'batch_x'", "id", "not_found", "not_found_error")),
    Row("no such page", "GET /v1/nothing", None, 404,
        error("there is no GET /v1/nothing here", None, "unknown_url", "not_found_error")),
    Row("a page of nothing", "GET /v1/batches?limit=0", None, 400,
        error("Invalid value for 'limit': expected at least 1, not 0.", "limit")),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS := [*EVERYWHERE, *CHATS, *OTHERS], ids=ids(ROWS))
def test_every_endpoint_answers_by_the_table(client: httpx.Client, row: Row) -> None:
    check(client, row)


def test_streams_are_server_sent_events_and_end_as_clients_expect(client: httpx.Client) -> None:
    for path, sent in SENT.items():
        if path == "/v1/embeddings":
            continue
        answer = client.post(path, json={**sent, "stream": True})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        events = answer.text.removesuffix("\n\n").split("\n\n")
        lines = [line for event in events for line in event.split("\n")]
        assert all(line.startswith(("data: ", "event: ")) for line in lines)
        if path == "/v1/responses":
            last = json.loads(lines[-1].removeprefix("data: "))
            assert last["type"] in ("response.completed", "response.incomplete")
        else:
            assert events[-1] == "data: [DONE]"


def test_an_error_before_the_first_piece_has_its_status(client: httpx.Client) -> None:
    for path, sent in SENT.items():
        answer = client.post(path, json={**sent, "model": "nobody", "stream": True})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


# Anything at all: never a 5xx, never a dead worker


def test_after_all_that_the_same_worker_still_answers(client: httpx.Client, live: Live) -> None:
    check(client, EVERYWHERE[0])
    assert live.n_users() == 0
    assert live.n_deaths() == 0

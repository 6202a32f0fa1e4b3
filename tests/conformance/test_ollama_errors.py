"""Ollama's errors: status and text, word for word, for every endpoint."""

import json
import re
import threading
import time

import httpx
import pytest

from paddock.engine.trial_process import TRIAL_WALL_S
from tests.conformance.rows import Row, check, ids
from tests.live import Live

CHAT, VECTORS = "smollm2:135m", "all-minilm"
TURN = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}
DIGEST = "sha256:" + "0" * 64
JSON = {"content-type": "application/json; charset=utf-8"}
TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)
LONG = "word " * 9000

# 1.0: what every endpoint with a body does with bad ones
ENDPOINTS = (
    "POST /api/generate", "POST /api/chat", "POST /api/embed", "POST /api/embeddings",
    "POST /api/show", "POST /api/create", "POST /api/copy", "DELETE /api/delete",
    "POST /api/delete", "POST /api/pull", "POST /api/push",
)  # fmt: skip
BODIES = [
    row
    for ask in ENDPOINTS
    for row in (
        Row("no body", ask, None, 400, error="missing request body", headers=JSON),
        Row("blanks alone", ask, b" \n", 400, error="missing request body"),
        Row("cut JSON", ask, b'{"model": "sm', 400, re.compile("malformed JSON: ")),
        Row("two values", ask, b"{} {}", 400, re.compile("malformed JSON: ")),
        Row("no JSON", ask, b"model=smollm2", 400, re.compile("malformed JSON: ")),
        Row("NaN", ask, b'{"model": NaN}', 400, error="malformed JSON: NaN is not a JSON value"),
        Row("deep", ask, b"[" * 100_000, 400,
            error="malformed JSON: it is nested too deeply"),
        Row("deep, in the model", ask, b'{"model":' * 50_000, 400,
            error="malformed JSON: it is nested too deeply"),
        Row("many digits", ask, b'{"model": ' + b"9" * 5000 + b"}", 400,
            re.compile("malformed JSON: ")),
        Row("bytes", ask, bytes(range(256)), 400, re.compile("malformed JSON: ")),
        Row("a list", ask, b"[]", 400, error="the body must be a JSON object, not an array"),
        Row("a text", ask, b'"x"', 400, error="the body must be a JSON object, not a string"),
        Row("a number", ask, b"7", 400, error="the body must be a JSON object, not an integer"),
    )
]  # fmt: skip

NAMES = [
    Row(f"name {name[:20]!r}", ask, {"model": name, **more}, 400, error=error)
    for name in ("../secrets", "a/../b", "a b", "x" * 10_000, "naïve", "/etc/passwd", "./x.gguf",
                 "a:b:c", "a/b/c/d", "-x", "a//b", "x:", "C:\\x", "a\u0000b", "🦙")
    for ask, more, error in (
        ("POST /api/generate", {"prompt": "Hi"}, "invalid model name"),
        ("POST /api/chat", {"messages": TURN}, "invalid model name"),
        ("POST /api/embed", {"input": "Hi"}, "invalid model name"),
        ("POST /api/embeddings", {"prompt": "Hi"}, "invalid model name"),
        ("POST /api/show", {}, "invalid model name"),
        ("POST /api/pull", {}, "invalid model name"),
        ("POST /api/push", {}, "invalid model name"),
        ("POST /api/create", {"from": CHAT}, "invalid model name"),
        ("DELETE /api/delete", {}, f'name "{name}" is invalid'),
    )
]  # fmt: skip

NO_DURATIONS = {
    **{f'"{text}"': f'time: missing unit in duration "{text}"'
       for text in ("-1", "10", "1h30", "1.2.3s")},
    **{f'"{text}"': f'time: invalid duration "{text}"'
       for text in ("soon", "", "m", "-", "\u0663m")},
    '"5 m"': 'time: unknown unit " m" in duration "5 m"',
    '"5x"': 'time: unknown unit "x" in duration "5x"',
    '"3d"': 'time: unknown unit "d" in duration "3d"',
    "true": "Unsupported type: 'bool'",
    "[5]": "Unsupported type: '[]interface {}'",
    "{}": "Unsupported type: 'map[string]interface {}'",
}  # fmt: skip
"""By what stands in the body."""

THOUGHTS: tuple[object, ...] = (True, "medium", "high")
GENERATE = [
    Row("model ''", "POST /api/generate", {"model": ""}, 404, error="model '' not found"),
    Row("no model", "POST /api/generate", {}, 404, error="model '' not found"),
    Row("null is an empty object", "POST /api/generate", b"null", 404, error="model '' not found"),
    Row("missing model", "POST /api/generate", {"model": "x"}, 404, error="model 'x' not found"),
    Row("of another type", "POST /api/generate", {"model": 7}, 400,
        error="model: must be a string, not an integer"),
    *(
        Row(f"raw with {name}", "POST /api/generate",
            {"model": CHAT, "prompt": "Hi", "raw": True, name: value}, 400,
            error="raw mode does not support template, system, or context")
        for name, value in (("template", "{{ .Prompt }}"), ("system", "Be"), ("context", [1]))
    ),
    *(
        Row(f"top_logprobs {n}", "POST /api/generate",
            {"model": CHAT, "prompt": "Hi", "logprobs": True, "top_logprobs": n}, 400,
            error="top_logprobs must be between 0 and 20")
        for n in (-1, 21)
    ),
    *(
        Row(f"think {value!r}", "POST /api/generate",
            {"model": CHAT, "prompt": "Hi", "think": value}, 400,
            error=f'"{CHAT}" does not support thinking')
        for value in THOUGHTS
    ),
    *(
        Row(f"think {value!r}", "POST /api/generate", {"model": CHAT, "think": value}, 400,
            error=f'invalid think value: "{value}" '
            '(must be "high", "medium", "low", "max", true, or false)')
        for value in ("", "hard")
    ),
    Row("think 1", "POST /api/generate", {"model": CHAT, "think": 1}, 400,
        error='think must be a boolean or string ("high", "medium", "low", "max", true, or '
        "false)"),
    Row("embedding model", "POST /api/generate", {"model": VECTORS, "prompt": "Hi"}, 400,
        error=f'"{VECTORS}" does not support generate'),
    Row("suffix", "POST /api/generate", {"model": CHAT, "prompt": "def f(", "suffix": "return"},
        400, error="registry.ollama.ai/library/smollm2:135m does not support insert"),
    *(
        Row(f"option {name}", "POST /api/generate",
            {"model": CHAT, "prompt": "Hi", "options": {name: value}}, 500,
            error=f'option "{name}" must be of {wanted}')
        for name, value, wanted in (
            ("num_ctx", "4096", "type integer"),
            ("num_ctx", True, "type integer"),
            ("num_gpu", [1], "type integer"),
            ("num_predict", True, "type integer"),
            ("seed", {}, "type integer"),
            ("temperature", "hot", "type float32"),
            ("top_p", False, "type float32"),
            ("use_mmap", 1, "type boolean"),
            ("use_mmap", "yes", "type boolean"),
            ("stop", "END", "type array"),
            ("stop", ["a", 1], "an array of strings"),
            ("stop", ["x"] * 257, "an array of at most 256 strings"),
        )
    ),
    *(
        Row(f"format {shown}", "POST /api/generate",
            {"model": CHAT, "prompt": "Hi", "format": value}, 500,
            error=f'invalid format: "{shown}"; expected "json" or a valid JSON Schema object')
        for value, shown in (("xml", '\\"xml\\"'), (5, "5"), (["json"], '[\\"json\\"]'))
    ),
    Row("over-long", "POST /api/generate",
        {"model": CHAT, "prompt": LONG, "shift": False, "options": {"num_ctx": 512}}, 400,
        error=TOO_LONG),
    Row("over-long, not to be cut", "POST /api/generate",
        {"model": CHAT, "prompt": LONG, "truncate": False, "stream": False,
         "options": {"num_ctx": 512}}, 400, error=TOO_LONG),
    Row("images that are no base64", "POST /api/generate",
        {"model": CHAT, "prompt": "Hi", "images": ["!!"]}, 400,
        error="images.0: illegal base64 data"),
    Row("images where there are no eyes", "POST /api/generate",
        {"model": CHAT, "prompt": "Hi", "images": ["aGk="]}, 400,
        error="model 'smollm2:135m' cannot see images: it has no projector"),
    Row("a bad template", "POST /api/generate",
        {"model": CHAT, "prompt": "Hi", "template": "{{ .Prompt "}, 500, re.compile("error")),
    *(
        Row(f"a template that is {why}", "POST /api/generate",
            {"model": CHAT, "prompt": "Hi", "template": template, "stream": False}, 400,
            error=error)
        for why, template, error in (
            ("too long", " " * 100_001, "a chat template has at most 100,000 characters, "
             "not 100,001"),
            ("too deep", "{{" + "[" * 5000, "the model's chat template is nested too deeply"),
        )
    ),
    Row("a prompt of another type", "POST /api/generate", {"model": CHAT, "prompt": ["Hi"]}, 400,
        error="prompt: must be a string, not an array"),
    *(
        Row(f"keep_alive {value}", "POST /api/generate",
            {"model": CHAT, "keep_alive": json.loads(value)}, 400, error=error)
        for value, error in NO_DURATIONS.items()
    ),
]  # fmt: skip

CHATS = [
    Row("model ''", "POST /api/chat", {"messages": TURN}, 400, error="model is required"),
    Row("missing model", "POST /api/chat", {"model": "x", "messages": TURN}, 404,
        error="model 'x' not found"),
    Row("embedding model", "POST /api/chat", {"model": VECTORS, "messages": TURN}, 400,
        error=f'"{VECTORS}" does not support chat'),
    Row("think", "POST /api/chat", {"model": CHAT, "messages": TURN, "think": True}, 400,
        error=f'"{CHAT}" does not support thinking'),
    Row("tools", "POST /api/chat", {"model": CHAT, "messages": TURN, "tools": [TOOL]}, 400,
        error="registry.ollama.ai/library/smollm2:135m does not support tools"),
    Row("top_logprobs", "POST /api/chat", {"model": CHAT, "messages": TURN, "top_logprobs": 21},
        400, error="top_logprobs must be between 0 and 20"),
    Row("bad option", "POST /api/chat",
        {"model": CHAT, "messages": TURN, "options": {"seed": "x"}}, 500,
        error='option "seed" must be of type integer'),
    Row("bad format", "POST /api/chat", {"model": CHAT, "messages": TURN, "format": "xml"}, 500,
        error='invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
    Row("over-long", "POST /api/chat",
        {"model": CHAT, "messages": [{"role": "user", "content": LONG}], "shift": False,
         "options": {"num_ctx": 512}}, 400, error=TOO_LONG),
    Row("messages of another type", "POST /api/chat", {"model": CHAT, "messages": "Hi"}, 400,
        error="messages: must be an array, not a string"),
    Row("a turn of another type", "POST /api/chat", {"model": CHAT, "messages": ["Hi"]}, 400,
        error="messages.0: must be an object, not a string"),
    Row("content of another type", "POST /api/chat",
        {"model": CHAT, "messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400,
        error="messages.0.content: must be a string, not an array"),
    Row("images", "POST /api/chat",
        {"model": CHAT, "messages": [{"role": "user", "content": "?", "images": ["aGk="]}]}, 400,
        error="model 'smollm2:135m' cannot see images: it has no projector"),
    Row("images that are no base64", "POST /api/chat",
        {"model": CHAT, "messages": [{"role": "user", "content": "?", "images": ["é"]}]}, 400,
        error="messages.0.images.0: illegal base64 data"),
    Row("a tool without a name", "POST /api/chat",
        {"model": CHAT, "messages": TURN, "tools": [{"type": "function"}]}, 400,
        error="tools.0.function is required"),
]  # fmt: skip

ODD_INPUTS: tuple[object, ...] = (5, True, {}, [1], ["a", None], [["a"]])
EMBEDS = [
    Row("missing model", "POST /api/embed", {"model": "x", "input": "Hi"}, 404,
        error='model "x" not found, try pulling it first'),
    Row("model ''", "POST /api/embed", {"input": "Hi"}, 404,
        error='model "" not found, try pulling it first'),
    *(
        Row(f"input {value!r}", "POST /api/embed", {"model": VECTORS, "input": value}, 400,
            error="invalid input type")
        for value in ODD_INPUTS
    ),
    Row("too long", "POST /api/embed", {"model": VECTORS, "input": LONG, "truncate": False}, 400,
        error="the input length exceeds the context length"),
    Row("one of several too long", "POST /api/embed",
        {"model": VECTORS, "input": ["a", LONG], "truncate": False}, 400,
        error="the input length exceeds the context length"),
    Row("a chat model", "POST /api/embed", {"model": CHAT, "input": "Hi"}, 400,
        error=f'"{CHAT}" does not support embeddings'),
    Row("bad option", "POST /api/embed", {"model": VECTORS, "options": {"num_ctx": []}}, 500,
        error='option "num_ctx" must be of type integer'),
    Row("model ''", "POST /api/embeddings", {"prompt": "Hi"}, 400, error="model is required"),
    Row("missing model", "POST /api/embeddings", {"model": "x", "prompt": "Hi"}, 404,
        error='model "x" not found, try pulling it first'),
]  # fmt: skip

MODELS = [
    Row("no name", "POST /api/show", {}, 400, error="model is required"),
    Row("missing", "POST /api/show", {"model": "x"}, 404, error="model 'x' not found"),
    Row("missing", "POST /api/show", {"name": "x"}, 404, error="model 'x' not found"),
    Row("missing", "DELETE /api/delete", {"model": "x"}, 404, error="model 'x' not found"),
    Row("missing", "DELETE /api/delete", {"name": "x"}, 404, error="model 'x' not found"),
    Row("no name", "DELETE /api/delete", {}, 400, error="model is required"),
    Row("source", "POST /api/copy", {"source": "../x", "destination": "y"}, 400,
        error='source "../x" is invalid'),
    Row("destination", "POST /api/copy", {"source": CHAT, "destination": "../y"}, 400,
        error='destination "../y" is invalid'),
    Row("missing", "POST /api/copy", {"source": "x", "destination": "y"}, 404,
        error='model "x" not found'),
    Row("nothing to make it of", "POST /api/create", {"model": "y"}, 400,
        error="neither 'from' or 'files' was specified"),
    Row("no name", "POST /api/create", {"from": CHAT}, 400, error="invalid model name"),
    Row("a path out of its folder", "POST /api/create",
        {"model": "y", "files": {"/etc/x.gguf": DIGEST}}, 400, error="file path must be relative"),
    Row("a bad digest", "POST /api/create", {"model": "y", "files": {"x.gguf": "sha256:1"}}, 400,
        error="invalid digest format"),
    Row("two adapters", "POST /api/create",
        {"model": "y", "from": CHAT, "adapters": {"a.gguf": DIGEST, "b.gguf": DIGEST}}, 400,
        error="only one adapter is currently supported"),
    Row("no name", "POST /api/push", {}, 400, error="model is required"),
    Row("no name", "POST /api/pull", {}, 400, error="invalid model name"),
    *(
        Row(f"{digest[:12]!r}", f"{method} /api/blobs/{digest}", b"x" if method == "POST" else None,
            400, error=None if method == "HEAD" else "invalid digest format")
        for method in ("POST", "HEAD")
        for digest in ("x", "sha256:12", "md5:" + "0" * 64, "sha256:" + "g" * 64)
    ),
    Row("not there", f"HEAD /api/blobs/{DIGEST}", None, 404),
    Row("something else", f"POST /api/blobs/{DIGEST}", b"Hello", 400,
        error=f'digest mismatch, expected "{DIGEST}", got "sha256:'
        '185f8db32271fe25f561a6fc938b2e264306ec304eda518007d1764826381969"'),
]  # fmt: skip

ROUTES = [
    Row("unknown route", "GET /api/nothing", None, 404, "404 page not found",
        headers={"content-type": "text/plain*"}),
    Row("wrong method", "GET /api/generate", None, 405, "405 method not allowed",
        headers={"content-type": "text/plain*", "allow": "POST"}),
    Row("wrong method", "POST /api/tags", {}, 405, "405 method not allowed"),
    Row("nobody is signed in", "POST /api/me", {}, 401),
    Row("experiments", "GET /api/experimental/web_search", None, 404, "404 page not found"),
]  # fmt: skip

ROWS = [*BODIES, *NAMES, *GENERATE, *CHATS, *EMBEDS, *MODELS, *ROUTES]


@pytest.mark.parametrize("row", ROWS, ids=ids(ROWS))
def test_an_error_has_ollamas_status_and_words(client: httpx.Client, row: Row) -> None:
    if row.error == TOO_LONG:  # after a second of loading the headers would be sent before it
        client.post("/api/generate", json={"model": CHAT, "options": {"num_ctx": 512}})
    check(client, row)


def test_no_worker_died_of_any_of_them(live: Live, client: httpx.Client) -> None:
    answer = client.post("/api/generate", json={"model": CHAT, "prompt": "Hi", "stream": False,
                                                "options": {"num_predict": 3}})  # fmt: skip
    assert answer.json()["response"]
    assert live.n_deaths() == 0


HOSTILE = {
    "allOf": [
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {f"k{i}{j}": {"type": "string"}},
                    "required": [f"k{i}{j}"],
                }
                for j in range(4)
            ]
        }
        for i in range(6)
    ]
}


def test_no_one_waits_for_a_hostile_schema(live: Live, client: httpx.Client) -> None:
    ended: list[str] = []
    body = {"model": CHAT, "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
    client.post("/api/generate", json=body)

    def ask_hostile() -> None:
        with live.client() as other:
            answer = other.post("/api/generate", json={**body, "format": HOSTILE})
        ended.append(f"{answer.status_code} {answer.json()['error']}")

    hostile = threading.Thread(target=ask_hostile)
    hostile.start()
    time.sleep(0.2)
    assert client.post("/api/generate", json=body).json()["done"]
    ended.append("plain")
    hostile.join()
    plain, refusal = ended
    assert plain == "plain"
    late = f"503 the JSON Schema could not be computed within {TRIAL_WALL_S} s: "
    assert refusal.startswith(
        ("400 the JSON Schema cannot be used: it is too large or too complex", late)
    )  # by the processor that it got until then


def test_who_leaves_while_a_long_text_is_tokenised_leaves_nothing_behind(
    live: Live, client: httpx.Client
) -> None:
    body = {"model": CHAT, "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
    long = {**body, "prompt": "The ferry left at noon. " * 60_000, "truncate": False}
    assert client.post("/api/generate", json=long).status_code == 400
    with live.client() as other, pytest.raises(httpx.ReadTimeout):
        other.post("/api/generate", json=long, timeout=httpx.Timeout(60, read=0.02))
    assert client.post("/api/generate", json=body).json()["done"]
    live.until_idle()

"""Fields of other servers that the service honours, asked of a real model."""

import gzip
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from paddock.engine.settings import ServiceSettings
from tests.engine.pools import SURE_PROMPT
from tests.live import CHAT, Live
from tests.waiting import PATIENCE_S

HI = [{"role": "user", "content": "Say hi."}]
ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "1, 2, 3,"},
    "/v1/responses": {"input": "Say hi."},
}


def ask(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    body = {"model": CHAT, **ENDPOINTS.get(path, {}), "temperature": 0, **fields}
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    return client.post(path, json={limit: 60, **body})


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    assert "warning" not in answer.headers
    body = answer.json()
    if "output" in body:
        return str(body["output"][0]["content"][0]["text"])
    choice = body["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


SCHEMA = {"type": "object", "properties": {"wet": {"const": True}}, "required": ["wet"]}
WET = '{"wet":true}'
SPELLINGS: list[tuple[dict[str, Any], str]] = [
    ({"grammar": 'root ::= "ab" | "cd" "!"?'}, "ab|cd!?"),
    ({"grammar": 'start: "ab" | "cd"'}, "ab|cd"),
    ({"guided_grammar": '?start: "ab" NAME\nNAME: /[0-9]{3}/'}, "ab[0-9]{3}"),
    ({"json_schema": SCHEMA}, WET),
    ({"guided_json": SCHEMA}, WET),
    ({"guided_json": json.dumps(SCHEMA)}, WET),
    ({"guided_regex": "^[0-9]{4}-[xy]$"}, "[0-9]{4}-[xy]"),
    ({"guided_choice": ["never (so)", "é/<[5]>"]}, r"never \(so\)|é/<\[5\]>"),
    ({"structured_outputs": {"json": SCHEMA}}, WET),
    ({"structured_outputs": {"regex": "[ab]{3}"}}, "[ab]{3}"),
    ({"structured_outputs": {"choice": ["x y"]}}, "x y"),
    ({"structured_outputs": {"grammar": 'root ::= "q"'}}, "q"),
    ({"guided_json": {"const": 9007199254740991}}, "9007199254740991"),
]  # fmt: skip


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_constraint_is_honoured_in_each_spelling(client: httpx.Client, path: str) -> None:
    for fields, pattern in SPELLINGS:
        answer = said(ask(client, path, **fields))
        assert re.fullmatch(pattern, answer), (fields, answer)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_response_format_is_honoured(client: httpx.Client, path: str) -> None:
    with_schema = {"type": "json_object", "schema": SCHEMA}
    assert said(ask(client, path, response_format=with_schema)) == WET
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [7]}}}
    answer = ask(client, path, response_format=named)
    assert answer.headers.pop("warning") == '299 paddock "fields without effect: name"'
    assert said(answer) == "7"


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"grammar": 'root ::= "a"', "guided_choice": ["b"]},
         "Invalid value for 'guided_choice': `grammar` says what the answer must match already.",
         "guided_choice"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"},
         "Invalid value for 'guided_regex': `response_format` says what the answer must match "
         "already.", "guided_regex"),
        ({"grammar": "root ::= missing"},
         "the grammar cannot be read: line 1, column 10: Rule 'missing' not found", "grammar"),
        ({"grammar": "root ::= root"}, "the GBNF grammar cannot be used: no answer matches it",
         "grammar"),
        ({"grammar": "root ::= root", "stream": True},
         "the GBNF grammar cannot be used: no answer matches it", "grammar"),
        ({"guided_regex": "("}, "the regular expression cannot be used: at '(': unclosed group",
         "guided_regex"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
         "the JSON Schema cannot be enforced:\n", "response_format"),
        ({"guided_choice": []}, "Missing required parameter: 'guided_choice'.", "guided_choice"),
        ({"structured_outputs": {"choice": []}},
         "Missing required parameter: 'structured_outputs.choice'.", "structured_outputs.choice"),
        ({"guided_choice": ["a"], "ignore_eos": True},
         "Invalid value for 'guided_choice': it says where the answer ends, and so does "
         "`ignore_eos`.", "guided_choice"),
        ({"guided_regex": "a", "min_tokens": 2},
         "Invalid value for 'guided_regex': it says where the answer ends, and so does "
         "`min_tokens`.", "guided_regex"),
    ],
)  # fmt: skip
def test_a_constraint_that_cannot_be_kept_is_refused(
    client: httpx.Client, fields: dict[str, Any], reason: str, param: str
) -> None:
    for path in ("/v1/chat/completions", "/v1/completions"):
        answer = ask(client, path, **fields)
        error = answer.json()["error"]
        assert error["message"].startswith(reason)
        assert (answer.status_code, error["param"]) == (400, param)


# What comes next is likelier by far than all else, so that no rounding decides.
ALPHABET = {"path": "/v1/completions", "prompt": SURE_PROMPT}
H = [294]  # " h" of SmolLM2


def test_token_ids_and_lengths_decide_where_an_answer_ends(client: httpx.Client) -> None:
    whole = ask(client, "/v1/chat/completions", max_tokens=400).json()
    assert whole["choices"][0]["finish_reason"] == "stop"
    n_usual = whole["usage"]["completion_tokens"]
    limits = {"min_tokens": n_usual + 5, "max_tokens": n_usual + 140}
    longer = ask(client, "/v1/chat/completions", **limits).json()
    assert longer["usage"]["completion_tokens"] >= n_usual + 5
    endless = ask(client, "/v1/chat/completions", ignore_eos=True, max_tokens=n_usual + 20).json()
    assert endless["choices"][0]["finish_reason"] == "length"
    assert said(ask(client, **ALPHABET, max_tokens=6)) == " e f g h i j"
    cut = ask(client, **ALPHABET, max_tokens=6, stop_token_ids=H)
    assert (said(cut), cut.json()["choices"][0]["finish_reason"]) == (" e f g", "stop")
    kept_on = ask(client, **ALPHABET, max_tokens=6, stop_token_ids=H, min_tokens=5)
    assert kept_on.json()["usage"]["completion_tokens"] >= 5
    for without_end in ({"max_tokens": -1}, {"n_predict": -1, "max_tokens": None}):
        assert said(ask(client, **ALPHABET, **without_end, stop=["m"])) == " e f g h i j k l "


def test_variables_and_a_template_of_the_request_are_rendered(client: httpx.Client) -> None:
    template = "{% for d in documents %}{{ d.text }} {% endfor %}{{ messages[0].content }}{{ end }}"
    first, rest = SURE_PROMPT.split(" ", 1)
    fields = {"chat_template": template, "documents": [{"text": first}]}
    turn = [{"role": "user", "content": rest[:-2]}]
    chat = ask(client, "/v1/chat/completions", messages=turn, **fields, max_tokens=6,
               chat_template_kwargs={"end": rest[-2:]})  # fmt: skip
    assert said(chat) == " e f g h i j"
    unread = ask(client, "/v1/chat/completions", documents=[{"text": "a"}])
    assert unread.status_code == 400
    assert unread.json()["error"]["message"] == (
        "the model's chat template reads no `documents`; put the texts into a message"
    )
    fixed = ask(client, "/v1/chat/completions", chat_template_kwargs={"messages": []})
    assert fixed.json()["error"]["param"] == "chat_template_kwargs"


@pytest.mark.parametrize(("path", "fields"), [
    ("/v1/chat/completions", {"messages": HI, "max_tokens": 0}),
    ("/v1/chat/completions", {"messages": HI, "max_tokens": 0, "guided_choice": ["a", "b"]}),
    ("/chat/completions", {"messages": HI, "max_completion_tokens": 0}),
    ("/v1/completions", {"prompt": "Say hi.", "max_tokens": 0}),
    ("/v1/responses", {"input": "Say hi.", "max_output_tokens": 0}),
    ("/responses", {"input": "Say hi.", "max_output_tokens": 0}),
    ("/v1/messages", {"messages": HI, "max_tokens": 0}),
    ("/messages", {"messages": HI, "max_tokens": 0}),
])  # fmt: skip
@pytest.mark.parametrize("streams", [False, True])
def test_a_prompt_alone_is_read_where_no_token_is_allowed(
    client: httpx.Client, path: str, fields: dict[str, Any], streams: bool
) -> None:
    answer = client.post(path, json={"model": CHAT, **fields, "stream": streams})
    assert answer.status_code == 200, answer.text
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    for event in map(json.loads, events if streams else [answer.text]):
        texts = json.dumps([event.get(name) for name in ("choices", "output", "content", "delta")])
        assert not re.search(r'"(text|content|arguments)": "[^"]', texts), event
        usage = event.get("usage") or {}
        assert usage.get("completion_tokens", usage.get("output_tokens", 0)) == 0


def test_the_tokens_of_a_prompt_are_counted_as_an_answer_counts_them(client: httpx.Client) -> None:
    asked = {"model": CHAT, "instructions": "Be brief.", "input": "Say hi."}
    counted = client.post("/v1/responses/input_tokens", json=asked).json()
    answer = client.post("/v1/responses", json={**asked, "max_output_tokens": 1}).json()
    assert counted == {
        "object": "response.input_tokens", "input_tokens": answer["usage"]["input_tokens"],
    }  # fmt: skip


@pytest.mark.parametrize(("path", "fields"), [
    ("/completions", {"prompt": "1, 2", "max_tokens": 1}),
    ("/embeddings", {"model": "all-minilm", "input": "Hi"}),
    ("/messages/count_tokens", {"messages": HI}),
    ("/rerank", {"query": "a", "documents": ["b"]}),
    ("/models", None), (f"/models/{CHAT}", None),
])  # fmt: skip
def test_openais_and_anthropics_paths_need_no_v1(
    client: httpx.Client, path: str, fields: dict[str, Any] | None
) -> None:
    answers = []
    for prefix in ("", "/v1"):
        body = {"model": CHAT, **(fields or {})}
        answer = (
            client.get(prefix + path) if fields is None else client.post(prefix + path, json=body)
        )
        answers.append((answer.status_code, answer.json().keys()))
    assert answers[0] == answers[1] and answers[0][0] == (400 if "rerank" in path else 200)


@pytest.mark.parametrize(("kind", "status"), [
    ("web_search", 200), ("web_search_preview", 200), ("image_generation", 200),
    ("tool_search", 200), ("custom", 400), ("mcp", 400), ("code_interpreter", 400),
    ("file_search", 400), ("computer_use_preview", 400), ("local_shell", 400), ("shell", 400),
    ("apply_patch", 400),
])  # fmt: skip
def test_a_tool_of_openais_servers_is_named_or_refused_by_name(
    client: httpx.Client, kind: str, status: int
) -> None:
    tools = [{"type": kind, "name": "x"}, {"type": "function", "name": "f"}]
    answer = ask(client, "/v1/responses", tools=tools, max_output_tokens=1)
    assert answer.status_code == status
    if status == 200:
        assert f'tools without effect: {kind}"' in answer.headers["warning"]
    else:
        error = answer.json()["error"]
        how = "whose one parameter, a string, is the text" if kind == "custom" else "that does it"
        assert error["message"].endswith(
            f"tools of type '{kind}' are not supported here: models here call functions only. "
            f"Offer one {how}, and run it beside your client."
        )
        assert error["param"] == "tools[0].type"
    demanded = ask(client, "/v1/responses", tools=tools, tool_choice={"type": kind})
    assert demanded.status_code == 400 and kind in demanded.json()["error"]["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_demanded_tool_with_a_faulty_schema_is_named_with_the_place(
    client: httpx.Client, choice: Any
) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string, integer"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    answer = ask(client, "/v1/chat/completions", tools=[tool], tool_choice=choice)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, (
        "the tool 'f' cannot be demanded: at /properties/a/type: there is no type 'string, "
        "integer'. Known: 'string', 'number', 'integer', 'boolean', 'null', 'array', 'object'."
    ))  # fmt: skip


ARGUMENTS = {"type": "object", "properties": {"q": {"enum": ["u"]}}, "required": ["q"]}


def events(client: httpx.Client, path: str, **fields: Any) -> Iterator[dict[str, Any]]:
    for line in ask(client, path, stream=True, **fields).text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def test_functions_are_answered_by_a_function_call(client: httpx.Client) -> None:
    fields = {"functions": [{"name": "find", "parameters": ARGUMENTS}],
              "function_call": {"name": "find"}}  # fmt: skip
    (choice,) = ask(client, "/v1/chat/completions", **fields).json()["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "find", "arguments": '{"q": "u"}'}
    deltas = [event["choices"][0] for event in events(client, "/v1/chat/completions", **fields)]
    assert deltas[-1]["finish_reason"] == "function_call"
    calls = [
        found["delta"]["function_call"] for found in deltas if "function_call" in found["delta"]
    ]
    assert calls == [choice["message"]["function_call"]]
    history = [*HI, {"role": "assistant", "content": None, **choice["message"]},
               {"role": "function", "name": "find", "content": "42"}]  # fmt: skip
    assert said(ask(client, "/v1/chat/completions", messages=history, functions=fields["functions"],
                    function_call="none"))  # fmt: skip


def space(name: str, value: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"q": {"enum": [value]}}, "required": ["q"]}
    tool = {"type": "function", "name": "find", "parameters": schema}
    return {"type": "namespace", "name": name, "tools": [tool]}


def test_a_call_has_the_namespace_of_its_tool(client: httpx.Client) -> None:
    tools = [space("crm", "u"), space("mcp__shop__", "v")]
    for namespace, value in (("crm", "u"), ("mcp__shop__", "v")):
        choice = {"type": "function", "namespace": namespace, "name": "find"}
        fields: dict[str, Any] = {"tools": tools, "tool_choice": choice}
        (item,) = ask(client, "/v1/responses", **fields).json()["output"]
        found = (item["namespace"], item["name"], json.loads(item["arguments"]))
        assert found == (namespace, "find", {"q": value})
        done = [event["item"] for event in events(client, "/v1/responses", **fields)
                if event["type"] == "response.output_item.done"]  # fmt: skip
        assert [(item["namespace"], item["name"]) for item in done] == [(namespace, "find")]
        result = {"type": "function_call_output", "call_id": item["call_id"], "output": "4"}
        history = [{"role": "user", "content": "Hi"}, item, result]
        assert ask(client, "/v1/responses", tools=tools, input=history).status_code == 200
    unclear = ask(
        client, "/v1/responses", tools=tools, tool_choice={"type": "function", "name": "find"}
    )
    assert unclear.json()["error"]["message"] == (
        "the tool 'find' must be called, but is offered by several namespaces. Known: "
        "'crm__find', 'mcp__shop__find'."
    )
    alone = ask(client, "/v1/responses", tools=tools[:1],
                tool_choice={"type": "function", "name": "find"})  # fmt: skip
    assert alone.json()["output"][0]["namespace"] == "crm"


@pytest.mark.parametrize("name", ["none", "auto", "required"])
def test_a_tool_with_the_name_of_a_choice_can_be_forced(client: httpx.Client, name: str) -> None:
    tool = {"type": "function", "function": {"name": name, "parameters": ARGUMENTS}}
    choice = {"type": "function", "function": {"name": name}}
    answer = ask(client, "/v1/chat/completions", tools=[tool], tool_choice=choice)
    (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == name
    tools = [{"name": name, "input_schema": ARGUMENTS}]
    forced = {"type": "tool", "name": name}
    answer = ask(client, "/v1/messages", messages=HI, tools=tools, tool_choice=forced)
    assert [block["name"] for block in answer.json()["content"]] == [name]


def test_arguments_of_a_call_may_be_an_object(client: httpx.Client) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 2**60}}}
    turns = [*HI, {"role": "assistant", "tool_calls": [call]},
             {"role": "tool", "tool_call_id": "c1", "content": "x"}]  # fmt: skip
    assert said(ask(client, "/v1/chat/completions", messages=turns))


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages", "/v1/chat/completions"])
def test_packed_bodies_are_read_by_every_api(client: httpx.Client, path: str) -> None:
    plain = {"model": CHAT, "messages": HI, "max_tokens": 1, "stream": False,
             "options": {"num_predict": 1}}  # fmt: skip
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    packers = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
    for name, pack in packers.items():
        packed = pack(json.dumps(plain).encode())
        answer = client.post(path, content=packed, headers={"content-encoding": name})
        assert answer.status_code == 200, answer.text
        bomb = pack(b" " * (ServiceSettings().max_body_bytes + 10))
        answer = client.post(path, content=bomb, headers={"content-encoding": name})
        assert answer.status_code == 413
    for encoding, body, status in (("gzip", b"no", 400), ("br", b"no", 415), ("zstd", b"no", 400)):
        answer = client.post(path, content=body, headers={"content-encoding": encoding})
        assert answer.status_code == status, answer.text


def test_a_prompt_beyond_all_bounds_is_too_long_and_nothing_else(client: httpx.Client) -> None:
    text = "hi there. " * 500_000
    answer = ask(client, "/v1/chat/completions", messages=[{"role": "user", "content": text}])
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    answer = ask(client, "/v1/messages", messages=[{"role": "user", "content": text}])
    assert answer.json()["error"]["message"].startswith("prompt is too long: ")


def test_a_target_may_be_a_whole_address_of_this_machine(live: Live) -> None:
    port = int(live.url.rpartition(":")[2])
    for host, status in ((f"localhost:{port}", b"200"), ("evil.example", b"403"), ("[::1", b"404")):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            head = f"GET http://{host}/v1/models?a=b HTTP/1.1\r\nHost: localhost\r\n"
            connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 " + status


def test_sound_is_refused_with_what_there_is(client: httpx.Client) -> None:
    answer = client.post("/v1/audio/transcriptions", files={"file": b"RIFF"}, data={"model": CHAT})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == (
        "there is no /v1/audio/transcriptions: models here read texts and images, and answer with "
        "text"
    )
    part = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
    answer = ask(client, "/v1/chat/completions", messages=[{"role": "user", "content": [part]}])
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and "'input_audio' is not supported here. Supported" in message


def test_citations_are_refused_where_they_are_asked_for(client: httpx.Client) -> None:
    for enabled, status in ((True, 400), (False, 200)):
        block = {"type": "document", "source": {"type": "text", "data": "Water is wet."},
                 "citations": {"enabled": enabled}}  # fmt: skip
        answer = ask(client, "/v1/messages", messages=[{"role": "user", "content": [block]}])
        assert answer.status_code == status
        assert "warning" not in answer.headers

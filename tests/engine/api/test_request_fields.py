"""Every field of every client's requests: obeyed, refused, or named in `Warning`."""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import pytest

from paddock.engine.api import body_models
from paddock.engine.api.anthropic.messages import MessagesBody
from paddock.engine.api.batches import batch_endpoints
from paddock.engine.api.body_models import Body
from paddock.engine.api.ollama import embeddings as ollama_embeddings
from paddock.engine.api.ollama import generation
from paddock.engine.api.ollama.transfers import CreateBody
from paddock.engine.api.openai import chat_completions, responses_api
from paddock.engine.api.openai import embeddings as openai_embeddings
from paddock.engine.api.openai.chat_completions import read_chat, read_completion
from paddock.engine.api.openai.requests import _CONSTRAINT_KINDS, ApiCaller, _ConstraintKind
from paddock.engine.api.openai.responses_api import read_response
from paddock.engine.api.request_fields import (
    INNER_REFUSED,
    INNER_WITHOUT_EFFECT,
    REFUSED,
    WITHOUT_EFFECT,
)
from paddock.engine.models.model_recipe import ModelRecipe
from paddock.engine.sampling_values import OTHER_NAMES, PARAMETERS
from paddock.engine.system.records import replace
from tests.engine.api.fields_page import PAGE, fields_page
from tests.live import CHAT, VECTORS


def _words(text: str) -> set[str]:
    return set(text.split())


# Fields of vLLM's and llama-server's requests for an answer (November 2026) that OpenAI has not.
VLLM = _words("""top_k min_p repetition_penalty length_penalty stop_token_ids
    include_stop_str_in_output
    ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens
    truncation_side prompt_logprobs logprob_token_ids allowed_token_ids bad_words echo
    add_generation_prompt continue_final_message add_special_tokens documents chat_template
    chat_template_kwargs media_io_kwargs mm_processor_kwargs structured_outputs priority request_id
    session_id return_tokens_as_token_ids return_token_ids routed_experts_prompt_start
    return_token_offsets return_prompt_text return_mm_kwargs cache_salt kv_transfer_params
    ec_transfer_params vllm_xargs repetition_detection stream_interval use_beam_search watermarking
    thinking_token_budget include_reasoning guided_json guided_regex guided_choice guided_grammar
    guided_decoding_backend guided_whitespace_pattern""")
LLAMA_SERVER = _words("""verbose timings_per_token cache_prompt return_tokens return_progress
    sse_ping_interval n_predict n_indent n_keep n_discard n_cmpl n_cache_reuse t_max_predict_ms
    response_fields top_n_sigma xtc_probability xtc_threshold typical_p dynatemp_range
    dynatemp_exponent repeat_last_n repeat_penalty dry_multiplier dry_base dry_allowed_length
    dry_penalty_last_n mirostat mirostat_tau mirostat_eta adaptive_target adaptive_decay n_probs
    min_keep backend_sampling post_sampling_probs lora dry_sequence_breakers json_schema grammar
    grammar_lazy chat_format reasoning_format generation_prompt parse_tool_calls chat_parser
    preserved_tokens grammar_triggers reasoning_control reasoning_budget_tokens
    reasoning_budget_start_tag reasoning_budget_end_tags reasoning_budget_end_tag
    reasoning_budget_message ignore_eos samplers id_slot""")


def params(*modules: str) -> set[str]:
    """Return the fields of a request that an official client for Python knows.

    It is imported then: the clients take two seconds of a processor.
    """
    imported = map(import_module, modules)
    found = [getattr(one, name) for one in imported for name in dir(one) if "Params" in name]
    return {field for kind in found if hasattr(kind, "__total__") for field in get_type_hints(kind)}


def ollama_fields(name: str) -> set[str]:
    fields = getattr(import_module("ollama._types"), name).model_fields
    return {field.alias or own for own, field in fields.items()} - {"from_"}


ENDPOINTS: Mapping[str, tuple[type[Body], Callable[[], set[str]]]] = {
    "chat": (chat_completions._ChatBody, lambda: {
        *params("openai.types.chat.completion_create_params"), *VLLM, *LLAMA_SERVER,
    }),
    "completions": (chat_completions._CompletionBody, lambda: {
        *params("openai.types.completion_create_params"), *LLAMA_SERVER,
    }),
    "responses": (responses_api._ResponseBody,
        lambda: params("openai.types.responses.response_create_params")),
    "openai embeddings": (openai_embeddings.EmbeddingBody,
        lambda: params("openai.types.embedding_create_params")),
    "batches": (batch_endpoints._BatchBody, lambda: params("openai.types.batch_create_params")),
    "messages": (MessagesBody, lambda: params(
        "anthropic.types.message_create_params", "anthropic.types.beta.message_create_params",
    )),
    "count tokens": (MessagesBody, lambda: params("anthropic.types.message_count_tokens_params")),
    "ollama chat": (generation._OllamaChatBody, lambda: ollama_fields("ChatRequest")),
    "generate": (generation._GenerateBody, lambda: ollama_fields("GenerateRequest")),
    "embed": (ollama_embeddings._EmbedBody, lambda: ollama_fields("EmbedRequest")),
    "create": (CreateBody, lambda: ollama_fields("CreateRequest")),
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_field_of_the_clients_is_declared_or_in_the_table(endpoint: str) -> None:
    body, known = ENDPOINTS[endpoint]
    assert len(sent := known()) > 3
    assert sent - body.declared() - WITHOUT_EFFECT.keys() - REFUSED.keys() == set()


def test_the_page_of_fields_is_as_the_lists() -> None:
    assert PAGE.read_text("utf-8") == fields_page(), "run python -m tests.engine.api.fields_page"


def test_a_field_has_one_meaning_in_the_table() -> None:
    assert not REFUSED.keys() & WITHOUT_EFFECT.keys()
    assert not INNER_REFUSED.keys() & INNER_WITHOUT_EFFECT.keys()


INNER_TYPES = {
    "openai.types.chat": """ChatCompletionSystemMessageParam ChatCompletionUserMessageParam
        ChatCompletionAssistantMessageParam ChatCompletionToolMessageParam
        ChatCompletionContentPartTextParam ChatCompletionContentPartImageParam
        ChatCompletionMessageFunctionToolCallParam ChatCompletionFunctionToolParam
        ChatCompletionStreamOptionsParam""",
    "openai.types.chat.chat_completion_content_part_image_param": "ImageURL",
    "openai.types.shared_params": "FunctionDefinition ResponseFormatJSONSchema Reasoning",
    "openai.types.shared_params.response_format_json_schema": "JSONSchema",
    "openai.types.responses": """ResponseInputTextParam ResponseInputImageParam
        EasyInputMessageParam ResponseOutputMessageParam ResponseOutputTextParam
        ResponseFunctionToolCallParam ResponseReasoningItemParam FunctionToolParam
        ResponseTextConfigParam NamespaceToolParam
        ResponseFormatTextJSONSchemaConfigParam ToolChoiceAllowedParam ToolChoiceFunctionParam
        ResponseOutputRefusalParam""",
    "openai.types.responses.response_input_param": "FunctionCallOutput Message",
    "anthropic.types.beta": """BetaTextBlockParam BetaImageBlockParam BetaBase64ImageSourceParam
        BetaRequestDocumentBlockParam BetaSearchResultBlockParam BetaToolUseBlockParam
        BetaToolResultBlockParam BetaThinkingBlockParam BetaRedactedThinkingBlockParam BetaToolParam
        BetaThinkingConfigEnabledParam BetaThinkingConfigAdaptiveParam BetaOutputConfigParam
        BetaJSONOutputFormatParam BetaToolChoiceToolParam BetaPlainTextSourceParam
        BetaContentBlockSourceParam BetaUserMessageParam BetaSystemMessageParam""",
}  # fmt: skip


@pytest.mark.parametrize("module", INNER_TYPES)
def test_every_field_of_the_objects_that_clients_send_is_declared_or_listed(module: str) -> None:
    known = {*INNER_WITHOUT_EFFECT, *INNER_REFUSED}
    for kind in bodies():
        if kind.dialect == module.partition(".")[0]:
            known |= kind.declared()
    for name in INNER_TYPES[module].split():
        sent = get_type_hints(getattr(import_module(module), name)).keys()
        assert sent and sent - known == set(), name


TOOL = {"type": "function", "function": {"name": "f", "strict": True}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
# Of each field that requests for an answer declare: a value, with what it needs besides.
ANSWERS: dict[str, Any] = {
    "model": "n", "truncate": True, "truncate_prompt_tokens": -1, "temperature": 0.5, "top_p": 0.5,
    "frequency_penalty": 1.0, "presence_penalty": 1.0, "seed": 9, "stop": ["x"],
    "logit_bias": {"1": 2}, "top_k": 3, "repeat_last_n": 3, "min_p": 0.5, "typical_p": 0.5,
    "repeat_penalty": 1.5, "repetition_penalty": 1.5, "min_tokens": 3, "stop_token_ids": [3],
    "ignore_eos": True, "max_completion_tokens": 3, "max_output_tokens": 3, "max_tokens": -1,
    "n_predict": 3, "grammar": 'root ::= "x"', "json_schema": SCHEMA, "guided_json": SCHEMA,
    "guided_regex": "a+", "guided_choice": ["a"], "guided_grammar": 'start: "x"',
    "structured_outputs": {"regex": "a"}, "stream": True, "stop_sequences": ["x"],
    "guards_repetition": False,
}  # fmt: skip
CHATS: dict[str, Any] = ANSWERS | {
    "reasoning_effort": "low", "reasoning": {"effort": "low"}, "tools": [TOOL],
    "tool_choice": ("none", {"tools": [TOOL]}), "parallel_tool_calls": False,
    "top_logprobs": (3, {"logprobs": True}), "chat_template": "{{ x }}",
    "chat_template_kwargs": {"x": 1}, "documents": [{"text": "a"}],
}  # fmt: skip
OPENAI_HONOURED: Mapping[str, Any] = {
    "chat": (read_chat, chat_completions._ChatBody, {"messages": [{"role": "user", "content": ""}]},
             CHATS | {"messages": [{"role": "user", "content": "b"}], "functions": [{"name": "f"}],
                      "function_call": ("none", {"functions": [{"name": "f"}]}), "n": 2,
                      "logprobs": True, "response_format": {"type": "json_object"},
                      "stream_options": {"include_usage": True}}),
    "completions": (read_completion, chat_completions._CompletionBody, {"prompt": "a"},
                    ANSWERS | {"prompt": "b", "suffix": "x", "n": 2, "logprobs": 1, "echo": True,
                               "response_format": {"type": "json_object"},
                               "stream_options": {"include_usage": True}}),
    "responses": (read_response, responses_api._ResponseBody, {"input": "a"},
                  CHATS | {"input": "b", "instructions": "x", "metadata": {"a": "b"},
                           "text": {"format": {"type": "json_object"}}, "truncation": "auto",
                           "include": ["message.output_text.logprobs"], "top_logprobs": 3}),
}  # fmt: skip
# `best_of` must be `n`.
NO_EFFECT = {"completions": {"best_of"}}


HONOURED = [
    (endpoint, name)
    for endpoint, (_, body, _, _) in OPENAI_HONOURED.items()
    for name in sorted(body.declared() - NO_EFFECT.get(endpoint, set()))
]


@pytest.mark.parametrize(("endpoint", "name"), HONOURED)
def test_every_declared_field_changes_the_request(endpoint: str, name: str) -> None:
    read, _, base, values = OPENAI_HONOURED[endpoint]
    value, needed = values[name] if isinstance(values[name], tuple) else (values[name], {})
    plain = {"model": "m", "seed": 1, **base, **needed}
    assert read(plain, ApiCaller()) != read({**plain, name: value}, ApiCaller())


def test_every_declared_field_of_messages_changes_the_request() -> None:
    values: dict[str, Any] = {
        "model": "n", "max_tokens": 4, "messages": [{"role": "user", "content": "b"}],
        "system": "x", "thinking": {"type": "enabled"}, "temperature": 0.5, "top_p": 0.5,
        "top_k": 3, "guards_repetition": False, "stop_sequences": ["x"], "stream": True,
        "tools": [{"name": "f"}],
        "tool_choice": {"type": "any"}, "output_config": {"effort": "low"},
        "output_format": {"type": "json_schema", "schema": SCHEMA},
    }  # fmt: skip
    plain = {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "a"}]}

    def read(fields: Mapping[str, Any]) -> Any:
        found = MessagesBody.read(fields).messages_request("normal")
        return replace(found, request=replace(found.request, defaults={}))

    assert values.keys() == MessagesBody.declared()
    for name, value in values.items():
        assert read(plain) != read({**plain, name: value}), name


def bodies(kind: type[Body] = Body) -> Iterator[type[Body]]:
    for below in kind.__subclasses__():
        yield from (below, *bodies(below))


# Their types or validators refuse what cannot be had.
ONLY_CHECKED = {
    "_Citations.enabled", "_DocumentBlock.citations", "_SearchResultBlock.citations",
    "_UploadBody.anchor",
    *(f"_StructuredOutputs.{name}" for name in
      ("disable_any_whitespace", "structural_tag", "whitespace_pattern")),
}  # fmt: skip


def test_a_field_that_is_declared_and_read_nowhere_is_a_fault() -> None:
    read = {*ModelRecipe.__struct_fields__}  # copied by name
    read |= {"json_", *get_args(_ConstraintKind)}
    for file in Path(body_models.__file__ or "").parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        read |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    parameters = {*PARAMETERS, *OTHER_NAMES, *_CONSTRAINT_KINDS}
    ours = [kind for kind in bodies() if kind.__module__.startswith("paddock.")]
    assert len(ours) > 50
    unread = {
        f"{kind.__name__}.{name}"
        for kind in ours
        for name in kind.model_fields
        if name not in read and not (name in parameters and hasattr(kind, "sampling"))
    }
    assert unread == ONLY_CHECKED


HI = [{"role": "user", "content": "Hi"}]
LIVE: Mapping[str, tuple[dict[str, Any], type[Body]]] = {
    "/v1/chat/completions": ({"messages": HI, "max_tokens": 1}, chat_completions._ChatBody),
    "/v1/completions": ({"prompt": "Hi", "max_tokens": 1}, chat_completions._CompletionBody),
    "/v1/responses": ({"input": "Hi", "max_output_tokens": 1}, responses_api._ResponseBody),
    "/v1/embeddings": ({"model": VECTORS, "input": "Hi"}, openai_embeddings.EmbeddingBody),
    "/v1/messages": ({"messages": HI, "max_tokens": 1}, MessagesBody),
    "/api/chat": ({"messages": HI, "options": {"num_predict": 1}, "stream": False},
                  generation._OllamaChatBody),
    "/api/generate": ({"prompt": "Hi", "options": {"num_predict": 1}, "stream": False},
                      generation._GenerateBody),
    "/api/embed": ({"model": VECTORS, "input": "Hi"}, ollama_embeddings._EmbedBody),
}  # fmt: skip


@pytest.fixture(scope="module")
def client(live: Any) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client


@pytest.mark.parametrize("path", LIVE)
def test_every_other_field_is_refused_or_named(client: httpx.Client, path: str) -> None:
    base, body = LIVE[path]
    plain = {"model": CHAT, **base}
    for name in sorted(REFUSED.keys() - body.declared()):
        answer = client.post(path, json={**plain, name: "something"})
        assert answer.status_code == 400, (name, answer.text)
        error = answer.json()["error"]
        if path.startswith("/api/"):
            assert error == f"{name} is not supported here: {REFUSED[name].remedy}"
        elif path == "/v1/messages":
            assert error["type"] == "invalid_request_error" and error["message"].startswith(name)
        else:
            message = f"Unsupported parameter: '{name}'. {REFUSED[name].remedy}"
            assert (error["message"], error["param"]) == (message, name)
            assert error["code"] == "unsupported_parameter"
    if not path.startswith("/api/"):  # these ask for something, as `false` and 0
        for name, value in {
            "embd_normalize": 0,
            "normalize": False,
            "include_reasoning": False,
            "add_special_tokens": False,
            "reasoning_budget_tokens": 0,
        }.items():
            answer = client.post(path, json={**plain, name: value})
            assert answer.status_code == 400 and name in answer.text, name
    quiet = {name: known.neutral[0] for name, known in REFUSED.items() if known.neutral}
    quiet |= {"grammar": "", "mirostat": 0}
    quiet = {name: value for name, value in quiet.items() if name not in body.declared()}
    answer = client.post(path, json={**plain, **quiet})
    assert answer.status_code == 200, answer.text
    assert "warning" not in answer.headers
    for streams in (False, True) if "stream" in body.declared() else (False,):
        known = sorted(WITHOUT_EFFECT.keys() - body.declared())[::4][:19]  # so many are named
        more = {"frobnicate": 1, "no word": 1, "Glow": None, **dict.fromkeys(known, 1)}
        answer = client.post(path, json={**plain, **more, **({"stream": True} if streams else {})})
        assert answer.status_code == 200, answer.text
        named = sorted(more.keys() - {"no word", "Glow"})
        assert (
            answer.headers["warning"] == f'299 paddock "fields without effect: {", ".join(named)}"'
        )


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}
USE = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
PART = {"type": "text", "text": "Hi"}


def turns(role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"messages": [*HI, {"role": role, "content": "Yes", **fields}, *HI]}


INNER: Sequence[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", turns(content=[{**PART, "glow": 1, "id": "x"}]), "glow, id"),
    ("/v1/chat/completions", turns(name="Ada"), "name"),
    ("/v1/chat/completions", turns("assistant", annotations=[], refusal=None, audio=None), ""),
    ("/v1/chat/completions", turns("assistant", audio={"id": "audio_1"}), "!messages[1].audio"),
    ("/v1/chat/completions", turns("assistant", tool_calls=[{**CALL, "type": "custom"}]),
        "!messages[1].tool_calls[0].type"),
    ("/v1/chat/completions", {"response_format": {"type": "json_schema", "json_schema": {
        "name": "n", "description": "d", "schema": SCHEMA}}}, "description, name"),
    ("/v1/chat/completions", {"tools": [{**TOOL, "defer_loading": True}]}, "defer_loading, strict"),
    ("/v1/responses", {"input": [{"role": "user", "content": "a", "phase": "commentary"}],
        "reasoning": {"summary": "auto", "mode": "pro"}}, "mode, phase, summary"),
    ("/v1/responses", {"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "data:;base64,", "file_id": "f"}]}]},
        "!input[0].content[0].file_id"),
    ("/v1/responses", {"input": [{"type": "function_call", "name": "f", "call_id": "c", "id": "i",
        "caller": {"type": "program"}}]}, "!input[0].caller"),
    ("/v1/messages", {"system": [{**PART, "cache_control": {"type": "ephemeral"}}]},
        "cache_control"),
    ("/v1/messages", turns("assistant", content=[{**USE, "caller": {"type": "direct"}}]), ""),
    ("/v1/messages", {"tools": [{"name": "f", "allowed_callers": ["code_execution_20250825"]}]},
        "!tools.0.allowed_callers"),
    ("/v1/messages", {"thinking": {"type": "enabled", "budget_tokens": 9}}, "budget_tokens"),
    ("/api/chat", turns("assistant", tool_calls=[CALL], glow=1), "glow"),
    ("/api/chat", {"tools": [{"type": "web", "function": {"name": "f"}}]}, "!tools.0.type"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "more", "named"), INNER)
def test_a_field_within_a_field_is_obeyed_named_or_refused(
    client: httpx.Client, path: str, more: dict[str, Any], named: str
) -> None:
    answer = client.post(path, json={"model": CHAT, **LIVE[path][0], **more})
    if named.startswith("!"):
        error = answer.json()["error"]
        assert answer.status_code == 400 and named[1:] in str(error)
        return
    warning = f'299 paddock "fields without effect: {named}"' if named else None
    assert (answer.status_code, answer.headers.get("warning")) == (200, warning), answer.text


def test_a_constraint_among_ollamas_options_is_refused(client: httpx.Client) -> None:
    body = {"model": CHAT, "prompt": "Hi", "options": {"grammar": 'root ::= "x"'}}
    answer = client.post("/api/generate", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("options.grammar is not supported here: Say what")


def test_a_field_of_a_form_is_named(client: httpx.Client) -> None:
    form = {"purpose": "user_data", "expires_after[anchor]": "created_at", "glow": "1"}
    answer = client.post("/v1/files", files={"file": b"a"}, data=form)
    assert answer.headers["warning"] == '299 paddock "fields without effect: glow"'
    client.delete(f"/v1/files/{answer.json()['id']}")

"""Fields of requests that no body declares: refused, harmless, or named in the header `Warning`.

What a body's class declares is honoured. The other fields of OpenAI's, Anthropic's, Ollama's,
llama-server's and vLLM's requests are in these tables, which `Body` reads for every API. What would
change the answer is refused, with what to do in its place; above all, no constraint is dropped.
Unknown fields are named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from paddock.engine.api.request_log import note_without_effect


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONSTRAINT = (
    "Say what the answer must match in `response_format` (chat and text completions), "
    "`text.format` (Responses), `output_config.format` (Anthropic) or `format` (Ollama)."
)
_SAMPLER = "Use `temperature`, `top_k`, `top_p`, `min_p`, `typical_p` or a penalty."
_PLAIN_TEXT = "Answers are text without control tokens and stop strings."
_TEMPLATE = "The model's template decides; /v1/completions takes a prompt as it is."
_REASONING = "Use `reasoning_effort`, and `max_tokens` for the whole answer."
_REMEDIES = {
    CONSTRAINT: """format response_format grammar json_schema guided_json guided_json_object
        guided_regex guided_choice guided_grammar structured_outputs""",
    "JSON is written without white space here.": "guided_whitespace_pattern",
    "Send tools to a chat endpoint, under `tools`.": "tools functions function_call",
    "No call can be demanded here; /v1/chat/completions can.": "tool_choice",
    _SAMPLER: """mirostat samplers xtc_probability dry_multiplier top_n_sigma dynatemp_range
        adaptive_target min_keep n_indent""",
    "Answers in circles are ended; `guards_repetition: false` lets them go on.": """
        repetition_detection""",
    "Forbid tokens by a `logit_bias` of -100.": "bad_words",
    "Say what is allowed by `guided_choice` or `guided_regex`.": "allowed_token_ids",
    "Answers are sampled one by one; ask for several with `n`.": "use_beam_search",
    "Send a request for each answer.": "n n_cmpl best_of",
    "Answers are text only.": "modalities audio image width height steps",
    "There is no web search here; offer a tool of your own.": "web_search_options",
    "Run it beside your client, and offer its tools under `tools`.": "mcp_servers container skills",
    "Nothing is moderated here; check the answer yourself.": "moderation",
    "Nothing is stored here: send the whole conversation as `input`, by `store: false` of clients "
    'that keep it themselves (Agent Framework: `options={"store": False}`).': """
        previous_response_id conversation""",
    "Answers are not stored here; ask for a stream.": "background",
    "Put the texts into a message.": "documents",
    "Nothing is stored here; send the whole conversation, without `thread`.": "thread",
    "Nothing is summarised here; ask for a summary in a message.": "compaction",
    "What must no longer be read must not be sent; leave the message out.": "clear_at",
    "This endpoint has no template; /v1/chat/completions has.": """chat_template
        chat_template_kwargs""",
    _TEMPLATE: "add_generation_prompt add_special_tokens echo generation_prompt",
    "Use /v1/completions or /api/generate.": "suffix",
    "Chat, completions and Ollama's API send them.": "logprobs top_logprobs",
    "Use `logprobs` and `top_logprobs`.": """prompt_logprobs logprob_token_ids n_probs
        post_sampling_probs return_tokens_as_token_ids""",
    "Use /api/generate: its answer's `context` has them.": "return_tokens return_token_ids",
    "Use `_debug_render_only` of Ollama's API.": "return_prompt_text return_token_offsets",
    _PLAIN_TEXT: """include_stop_str_in_output skip_special_tokens
        spaces_between_special_tokens""",
    "Use `truncate: true`: what does not fit the context is cut.": "truncate_prompt_tokens",
    "Use `max_tokens`, or end the request when its time is up.": "t_max_predict_ms",
    _REASONING: "thinking_token_budget reasoning_budget_tokens include_reasoning",
    "All callers share one cache; start a service of your own.": "cache_salt",
    "Create a model with the adapter (`ADAPTER` in a Modelfile).": "lora",
    "It is a setting of another server; leave it out.": """vllm_xargs grammar_lazy grammar_triggers
        grammar_type preserved_tokens chat_format chat_parser response_fields kv_transfer_params
        ec_transfer_params reasoning_budget_start_tag reasoning_budget_end_tag
        reasoning_budget_end_tags reasoning_budget_message""",
    "Vectors have length 1 and little-endian float32.": """embd_normalize normalize use_activation
        embed_dtype endianness""",
}
REFUSED: Mapping[str, str] = {
    name: remedy for remedy, names in _REMEDIES.items() for name in _names(names)
}
"""What to do in its place, by a field's name; `false`, 0, "", [] and {} ask for nothing."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "tool_choice": ("auto",),
    **dict.fromkeys(("n", "n_cmpl", "best_of"), (1,)),
    **dict.fromkeys(("include_reasoning", "skip_special_tokens", "normalize"), (True,)),
    **dict.fromkeys(("spaces_between_special_tokens", "add_generation_prompt"), (True,)),
    **dict.fromkeys(("top_n_sigma", "adaptive_target", "t_max_predict_ms"), (-1,)),
    **dict.fromkeys(("thinking_token_budget", "reasoning_budget_tokens"), (-1,)),
    **{"use_activation": (True,), "embd_normalize": (2,), "embed_dtype": ("float32",)},
    "endianness": ("native", "little"),
}
"""Other values that ask for nothing: it is done anyway."""

HARMLESS = _names(
    """user safety_identifier metadata service_tier store prompt_cache_key prompt_cache_retention
    prompt_cache_options cache_control user_profile_id workspace_id inference_geo billing_policy
    diagnostics access_programs fallback_credit_token betas prediction cache_prompt id_slot
    n_cache_reuse priority request_id session_id speed stream_interval sse_ping_interval
    backend_sampling timings_per_token return_progress verbose background_options media_io_kwargs
    return_mm_kwargs client_metadata routed_experts_prompt_start dry_base dry_allowed_length
    dry_penalty_last_n
    dry_sequence_breakers length_penalty xtc_threshold mirostat_tau mirostat_eta dynatemp_exponent
    adaptive_decay stream_options guided_decoding_backend continue_final_message truncation_side
    parse_tool_calls
    """
)
"""Accounts, caches, speed, and what has an effect with another field alone. An answer that a
conversation ends with is always continued."""
NAMED = _names(
    """verbosity max_tool_calls context_management fallbacks id watermarking
    reasoning_format reasoning_control n_keep n_discard mm_processor_kwargs keep_alive options
    """
)
"""Known, and without effect here: named as unknown ones are."""
INNER_HARMLESS = _names(
    """type id object status index name description title detail cache_control annotations
    logprobs phase summary encrypted_content signature data media_type filename caller namespace
    citations refusal audio context include_obfuscation generate_summary
    prompt_cache_breakpoint defer_loading eager_input_streaming allowed_callers input_examples
    external_web_access search_context_size user_location search_content_types filters
    output_schema parsed source"""
)
_INNER_REFUSED = frozenset(("clear_at",))
ERROR_CODES: Mapping[str, str] = {"thread": "thread_unsupported_request"}
"""By a field that is refused: the code by which Anthropic's clients go on without it."""
_KNOWN = HARMLESS | REFUSED.keys()


def refusal(
    declared: Collection[str], fields: Mapping[str, Any], *, is_inner: bool
) -> tuple[str, str] | None:
    names = _INNER_REFUSED if is_inner else REFUSED.keys()
    for name in names & fields.keys():
        if name not in declared and fields[name] and fields[name] not in NEUTRAL.get(name, ()):
            return name, REFUSED[name]
    return None


def name_unknown(declared: Collection[str], fields: Iterable[str], *, is_inner: bool) -> None:
    """Name the fields without effect in the answer's header `Warning`."""
    known = INNER_HARMLESS if is_inner else _KNOWN
    note_without_effect("fields", (n for n in fields if n not in declared and n not in known))

"""What each field of a request means: obeyed, without effect, or refused with a reason.

A field that a body's class declares is obeyed. All others that clients of OpenAI's, Anthropic's,
Ollama's, llama-server's and vLLM's APIs send are in the lists below, which `Body` reads for every
API and examples/service/FIELDS.md shows. What would change the answer is refused, with what to do;
above all no constraint is dropped, and nothing that says where the conversation goes on. What has
no effect, and every unknown field, is named in the answer's header `Warning`. Objects within a
request (turns, parts, tools) have lists of their own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from paddock.engine.api.request_log import note_without_effect
from paddock.engine.system.records import Struct


class Refusal(Struct, frozen=True):
    remedy: str
    neutral: tuple[Any, ...] = ()
    """Values that ask for nothing: it is done anyway. None: `false`, 0, "", [] and {} do."""
    code: str | None = None
    """The word by which Anthropic's clients go on without the field."""


CONSTRAINT = (
    "Say what the answer must match in `response_format` (chat and text completions), "
    "`text.format` (Responses), `output_config.format` (Anthropic) or `format` (Ollama)."
)
_REFUSED = {
    CONSTRAINT: """format response_format grammar json_schema guided_json guided_json_object
        guided_regex guided_choice guided_grammar structured_outputs""",
    "JSON is written without white space here.": "guided_whitespace_pattern",
    "Send tools to a chat endpoint, under `tools`.": "tools functions function_call",
    "No call can be demanded here; /v1/chat/completions can.": 'tool_choice="auto"',
    "Use `temperature`, `top_k`, `top_p`, `min_p`, `typical_p` or a penalty.": """mirostat samplers
        xtc_probability dry_multiplier top_n_sigma=-1|0 dynatemp_range adaptive_target=-1 min_keep
        n_indent""",
    "Answers in circles are ended; `guards_repetition: false` lets them go on.": """
        repetition_detection""",
    "Forbid tokens by a `logit_bias` of -100.": "bad_words",
    "Say what is allowed by `guided_choice` or `guided_regex`.": "allowed_token_ids",
    "Answers are sampled one by one; ask for several with `n`.": "use_beam_search",
    "Send a request for each answer.": "n=1 n_cmpl=1 best_of=1",
    "Answers are text only.": 'modalities=["text"]|[] audio image width height steps',
    "There is no web search here; offer a tool of your own.": "web_search_options",
    "Run it beside your client, and offer its tools under `tools`.": "mcp_servers container skills",
    "Nothing is moderated here; check the answer yourself.": "moderation",
    "Nothing is stored here: send the whole conversation as `input`, by `store: false` of clients "
    'that keep it themselves (Agent Framework: `options={"store": False}`).': """
        previous_response_id conversation""",
    "Answers are not stored here; ask for a stream.": "background",
    "/v1/completions and /api/generate take a prompt; none are stored.": "prompt",
    "Put the texts into a message.": "documents",
    "Another endpoint takes it; put what it says into a field of this one.": """messages input
        instructions system template context images raw query""",
    "Nothing is stored here; send the whole conversation, without `thread`.": "thread",
    "Nothing is summarised here; ask for a summary in a message.": "compaction",
    "This endpoint has no template; /v1/chat/completions has.": """chat_template
        chat_template_kwargs""",
    "The model's template decides; /v1/completions takes a prompt as it is.": """
        add_generation_prompt=true add_special_tokens=null echo generation_prompt""",
    "Use /v1/completions or /api/generate.": "suffix",
    "Chat, completions and Ollama's API send them.": "logprobs top_logprobs",
    "Use `logprobs` and `top_logprobs`.": """prompt_logprobs logprob_token_ids n_probs
        post_sampling_probs return_tokens_as_token_ids""",
    "Use /api/generate: its answer's `context` has them.": "return_tokens return_token_ids",
    "Use `_debug_render_only` of Ollama's API.": "return_prompt_text return_token_offsets",
    "Answers are text without control tokens and stop strings.": """include_stop_str_in_output
        skip_special_tokens=true spaces_between_special_tokens=true|false""",
    "Use `truncate: true`: what does not fit the context is cut.": "truncate_prompt_tokens",
    "Use `max_tokens`, or end the request when its time is up.": "t_max_predict_ms=-1|0",
    "Use `reasoning_effort`, and `max_tokens` for the whole answer.": """thinking_token_budget=-1
        reasoning_budget_tokens=-1 include_reasoning=true""",
    "All callers share one cache; start a service of your own.": "cache_salt",
    "Create a model with the adapter (`ADAPTER` in a Modelfile).": "lora",
    "It is a setting of another server; leave it out.": """vllm_xargs grammar_lazy grammar_triggers
        grammar_type preserved_tokens chat_format chat_parser response_fields kv_transfer_params
        ec_transfer_params reasoning_budget_start_tag reasoning_budget_end_tag
        reasoning_budget_end_tags reasoning_budget_message""",
    "Vectors have length 1 and little-endian float32.": """embd_normalize=2 normalize=true
        use_activation=true embed_dtype="float32" endianness="native"|"little"
        output_dtype="float" """,
    "Use `dimensions`.": "output_dimension",
    "Nothing is put before a text here; write it there yourself.": """input_type task prompt_name
        instruction late_chunking""",
}
_INNER_REFUSED = {
    "Answers are not kept here; write what was said into `content`.": "audio",
    "Files are not kept here; send the text or the image itself.": "file_id file_url",
    "No program calls tools here; the model does.": """caller={"type":"direct"}
        allowed_callers=["direct"]""",
    "An image that is too large is scaled down.": 'transformations={"oversized_image":"downsize"}',
}


def _refusals(table: Mapping[str, str]) -> Mapping[str, Refusal]:
    return {
        name: Refusal(
            remedy,
            tuple(map(json.loads, neutral.split("|"))) if neutral else (),
            "thread_unsupported_request" if name == "thread" else None,
        )
        for remedy, entries in table.items()
        for name, _, neutral in (entry.partition("=") for entry in entries.split())
    }


REFUSED, INNER_REFUSED = _refusals(_REFUSED), _refusals(_INNER_REFUSED)
_WITHOUT_EFFECT = {
    "Accounts and records: none are kept here.": """user safety_identifier metadata service_tier
        store user_profile_id workspace_id inference_geo billing_policy diagnostics access_programs
        fallback_credit_token betas request_id session_id client_metadata id verbose
        background_options""",
    "Caches and speed: they change no answer.": """prompt_cache_key prompt_cache_retention
        prompt_cache_options cache_control prediction cache_prompt id_slot n_cache_reuse priority
        speed stream_interval sse_ping_interval backend_sampling timings_per_token return_progress
        media_io_kwargs return_mm_kwargs mm_processor_kwargs keep_alive""",
    "It counts only with another field, which is refused.": """routed_experts_prompt_start dry_base
        dry_allowed_length dry_penalty_last_n dry_sequence_breakers length_penalty xtc_threshold
        mirostat_tau mirostat_eta dynatemp_exponent adaptive_decay stream_options
        guided_decoding_backend truncation_side""",
    "An answer with which a conversation ends is always continued.": "continue_final_message",
    "Nothing here does it; the answer comes as without it.": """verbosity reasoning
        reasoning_effort max_tool_calls context_management fallbacks watermarking reasoning_format
        reasoning_control n_keep n_discard parse_tool_calls""",
    "Of Ollama's API alone; send its values as fields of their own.": "options",
}
_INNER_WITHOUT_EFFECT = {
    "What an object says of itself.": "type id object status index name title filename",
    "What an earlier answer says of itself; its text counts.": """annotations logprobs citations
        encrypted_content signature data phase parsed parsed_arguments action toolset_name""",
    "Caches and speed: they change no answer.": """cache_control prompt_cache_breakpoint
        include_obfuscation eager_input_streaming defer_loading""",
    "An image is read as it is, whatever is said of it.": "detail media_type",
    "Reasoning is sent whole, and has no limit but `max_tokens`.": """summary generate_summary
        budget_tokens task_budget""",
    "Only a demanded call is held to its schema.": "strict",
    "Nothing here does it; the answer comes as without it.": """description context mode verbosity
        async input_examples output_schema block_binding external_web_access search_context_size
        user_location search_content_types filters""",
}


def _names(table: Mapping[str, str]) -> Mapping[str, str]:
    return {name: why for why, names in table.items() for name in names.split()}


WITHOUT_EFFECT, INNER_WITHOUT_EFFECT = _names(_WITHOUT_EFFECT), _names(_INNER_WITHOUT_EFFECT)


def check_undeclared(
    declared: Collection[str], fields: Mapping[str, Any], *, is_inner: bool
) -> tuple[str, Refusal] | None:
    """Return a field that is refused; else name what has no effect in `Warning`."""
    refusals, others = INNER_REFUSED if is_inner else REFUSED, fields.keys() - declared
    for name in others & refusals.keys():
        neutral, value = refusals[name].neutral, fields[name]
        if value not in neutral and (value or (neutral and not is_inner)):
            return name, refusals[name]
    # An empty field of an object asks for nothing: clients send answers back with all of theirs.
    named = (name for name in others - refusals.keys() if fields[name] or not is_inner)
    note_without_effect("fields", named)
    return None

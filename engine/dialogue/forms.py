"""The forms of tool calls that templates do not show, and the tags of reasoning that they drop.

Each is taken from what the models' makers document or from what the models answer; `hint` is the
word in a template (or its vocabulary) that gives the family away.
"""

from __future__ import annotations

from dataclasses import dataclass

from .calls import CallForm, Lit, ParamForm, Part


@dataclass(frozen=True, slots=True)
class Tags:
    """What opens and closes reasoning."""

    opens: str
    closes: str


def json_form(
    opens: str,
    closes: str,
    *,
    name: str = "name",
    arguments: str = "arguments",
    is_list: bool = False,
) -> CallForm:
    """Give a form whose calls are JSON objects with a name and arguments."""
    first, last = ("[", "]") if is_list else ("", "")
    reads: tuple[Part, ...] = ("calls",)
    if opens:
        reads = (Lit(opens), "calls")
    return CallForm(
        reads=reads,
        writes=(
            Lit(f'{opens}{first}{{"{name}": "'),
            "name",
            Lit(f'", "{arguments}": '),
            "args",
            Lit(f"}}{last}{closes}"),
        ),
    )


def named_form(
    opens: str, between: str, closes: str, *, section_opens: str = "", section_closes: str = ""
) -> CallForm:
    """Give a form with the name outside of the JSON."""
    reads: tuple[Part, ...] = (Lit(opens), "name", Lit(between), "args")
    return CallForm(reads, (*reads, Lit(closes)), section_opens, section_closes)


HERMES = json_form("<tool_call>\n", "\n</tool_call>")
"""The most widely understood; described to models whose template knows no tools."""

LLAMA3 = json_form("", "", arguments="parameters")
_LLAMA3_TAGGED = json_form("<|python_tag|>", "", arguments="parameters")
_PYTHONIC = CallForm(("python",), LLAMA3.writes)
_MISTRAL = json_form("[TOOL_CALLS]", "", is_list=True)
_MISTRAL_NAMED = named_form("[TOOL_CALLS]", "[ARGS]", "")
_DEEPSEEK = named_form(
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",  # noqa: RUF001
    "\n```json\n",
    "\n```<｜tool▁call▁end｜>",  # noqa: RUF001
    section_opens="<｜tool▁calls▁begin｜>",  # noqa: RUF001
    section_closes="<｜tool▁calls▁end｜>",  # noqa: RUF001
)
_DEEPSEEK_SHORT = named_form(
    "<｜tool▁call▁begin｜>",  # noqa: RUF001
    "<｜tool▁sep｜>",  # noqa: RUF001
    "<｜tool▁call▁end｜>",  # noqa: RUF001
    section_opens="<｜tool▁calls▁begin｜>",  # noqa: RUF001
    section_closes="<｜tool▁calls▁end｜>",  # noqa: RUF001
)
_GRANITE = json_form("<|tool_call|>", "", is_list=True)
_COMMAND_R = json_form(
    "Action: ```json\n", "\n```", name="tool_name", arguments="parameters", is_list=True
)
_FUNCTOOLS = json_form(" functools", "", is_list=True)
_LFM = CallForm(
    (Lit("<|tool_call_start|>"), "python"),
    json_form("<|tool_call_start|>", "<|tool_call_end|>", is_list=True).writes,
)
_LFM_JSON = json_form("<|tool_call_start|>", "<|tool_call_end|>", is_list=True)
_FUNCTIONARY = named_form("<function=", ">", "</function>")
_QWEN_CODER = CallForm(
    reads=(Lit("<tool_call>\n<function="), "name", Lit(">\n"), "params"),
    writes=(
        Lit("<tool_call>\n<function="),
        "name",
        Lit(">\n"),
        "params",
        Lit("</function>\n</tool_call>"),
    ),
    param=ParamForm("<parameter=", ">\n", "\n</parameter>\n"),
)
_QWEN_CODER_OPEN = CallForm(
    # What Qwen3-Coder says when it forgets the outer tag.
    reads=(Lit("<function="), "name", Lit(">\n"), "params"),
    writes=(Lit("<function="), "name", Lit(">\n"), "params", Lit("</function>\n</tool_call>")),
    param=ParamForm("<parameter=", ">\n", "\n</parameter>\n"),
)
_GEMMA4 = CallForm(
    reads=(Lit("<|tool_call>call:"), "name", "gemma"),
    writes=(Lit("<|tool_call>call:"), "name", "gemma", Lit("<tool_call|>")),
)
_FUNCTION_GEMMA = CallForm(
    reads=(Lit("<start_function_call>call:"), "name", "gemma"),
    writes=(Lit("<start_function_call>call:"), "name", "gemma", Lit("<end_function_call>")),
)
_KIMI = CallForm(
    reads=(
        Lit("<|tool_call_begin|>functions."),
        "name",
        Lit(":"),
        "index",
        Lit("<|tool_call_argument_begin|>"),
        "args",
    ),
    writes=(
        Lit("<|tool_call_begin|>functions."),
        "name",
        Lit(":"),
        "index",
        Lit("<|tool_call_argument_begin|>"),
        "args",
        Lit("<|tool_call_end|>"),
    ),
    section_opens="<|tool_calls_section_begin|>",
    section_closes="<|tool_calls_section_end|>",
)

KNOWN_FORMS: tuple[tuple[str, tuple[CallForm, ...]], ...] = (
    ("<|python_tag|>", (_LLAMA3_TAGGED, LLAMA3, _PYTHONIC)),
    ('"parameters": dictionary of argument name', (LLAMA3, _PYTHONIC)),
    ("[TOOL_CALLS]", (_MISTRAL, _MISTRAL_NAMED)),
    ("<｜tool▁calls▁begin｜>", (_DEEPSEEK, _DEEPSEEK_SHORT)),  # noqa: RUF001
    ("<|tool_calls_section_begin|>", (_KIMI,)),
    ("<|tool_call_start|>", (_LFM, _LFM_JSON)),
    ("<start_function_call>", (_FUNCTION_GEMMA,)),
    ("<|tool_call>", (_GEMMA4,)),
    ("<|tool_call|>", (_GRANITE,)),
    ("<parameter=", (_QWEN_CODER, _QWEN_CODER_OPEN)),
    ("Action: ```json", (_COMMAND_R,)),
    ("functools[", (_FUNCTOOLS,)),
    ("<function=", (_FUNCTIONARY,)),
    ("<tool_call>", (HERMES,)),
)

THINK = Tags("<think>", "</think>")

KNOWN_TAGS: tuple[Tags, ...] = (
    THINK,
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<|channel>thought", "<channel|>"),
    Tags("<|inner_prefix|>", "<|inner_suffix|>"),
    Tags("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    Tags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<reasoning>", "</reasoning>"),
    Tags("<thought>", "</thought>"),
)

"""Templates in Go's language, as Ollama's packages have them: the Jinja of their families. Pure.

A model is rendered by Jinja alone. A Go template is recognised as one, and its family by the marks
in it, as llama.cpp recognises families (src/llama-chat.cpp, `llm_chat_detect_template`). Families
without a system turn of their own have its text before the next user turn's, by `TurnRules`.
"""

from __future__ import annotations

import json
import re

from paddock.engine.errors import BadRequest

# For models without a template: ChatML, which most instruction-tuned models have seen.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Ollama's for models without a template, `{{ .Prompt }}`, with or without `{{ .System }}` before it
_TEXTS_ALONE = "{{ messages | map(attribute='content') | join('\n\n') }}"
# The first question is in one pair of brackets with the system text before it.
_LLAMA2_USER = (
    "{% if message.role == 'user' and loop.previtem and loop.previtem.role == 'system' %}"
    "{{ message.content ~ ' [/INST]' }}{% elif message.role == 'user' %}"
)


def _turns(**turns: str) -> str:
    """Return the Jinja of a family: per role the text of a turn, its content as `…`.

    The assistant's text before its content is what opens an answer, without a space at its end.
    """
    cases = ""
    for role, text in turns.items():
        opens, _, closes = text.partition("…")
        parts = f"{json.dumps(opens)} ~ message.content ~ {json.dumps(closes)}"
        cases += f"{{% if message.role == '{role}' %}}{{{{ {parts} }}}}{{% endif %}}"
    answer = json.dumps(turns["assistant"].partition("…")[0].rstrip(" "))
    return (
        f"{{% for message in messages %}}{cases}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {answer} }}}}{{% endif %}}"
    )


_FAMILIES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("phi4", ("<|im_start|>", "<|im_sep|>"), _turns(
        system="<|im_start|>system<|im_sep|>…<|im_end|>",
        user="<|im_start|>user<|im_sep|>…<|im_end|>",
        assistant="<|im_start|>assistant<|im_sep|>…<|im_end|>")),
    ("chatml", ("<|im_start|>",), CHATML),
    ("mistral-v7", ("[INST]", "[SYSTEM_PROMPT]"), _turns(
        system="[SYSTEM_PROMPT]…[/SYSTEM_PROMPT]", user="[INST]…[/INST]", assistant="…</s>")),
    ("llama2", ("[INST]", "<<SYS>>"), _turns(
        system="[INST] <<SYS>>\n…\n<</SYS>>\n\n", user="[INST] … [/INST]",
        assistant=" … </s><s>").replace("{% if message.role == 'user' %}", _LLAMA2_USER)),
    ("mistral", ("[INST]",), _turns(user="[INST] …[/INST]", assistant=" …</s>")),
    ("command-r", ("<|START_OF_TURN_TOKEN|>",), _turns(
        system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>…<|END_OF_TURN_TOKEN|>",
        user="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>…<|END_OF_TURN_TOKEN|>",
        assistant="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>…<|END_OF_TURN_TOKEN|>")),
    ("phi3", ("<|assistant|>", "<|end|>"), _turns(
        system="<|system|>\n…<|end|>\n", user="<|user|>\n…<|end|>\n",
        assistant="<|assistant|>\n…<|end|>\n")),
    ("zephyr", ("<|assistant|>", "</s>"), _turns(
        system="<|system|>\n…</s>\n", user="<|user|>\n…</s>\n",
        assistant="<|assistant|>\n…</s>\n")),
    ("gemma", ("<start_of_turn>model",), _turns(
        user="<start_of_turn>user\n…<end_of_turn>\n",
        assistant="<start_of_turn>model\n…<end_of_turn>\n")),
    ("openchat", ("GPT4 Correct",), _turns(
        system="GPT4 Correct System: …<|end_of_turn|>", user="GPT4 Correct User: …<|end_of_turn|>",
        assistant="GPT4 Correct Assistant: …<|end_of_turn|>")),
    ("vicuna", ("USER:", "ASSISTANT:"), _turns(
        system="…\n\n", user="USER: …\n", assistant="ASSISTANT: …</s>\n")),
    ("deepseek-coder", ("### Instruction:", "<|EOT|>"), _turns(
        system="…", user="### Instruction:\n…\n", assistant="### Response:\n…\n<|EOT|>\n")),
    ("alpaca", ("### Instruction", "### Response"), _turns(
        system="…\n\n", user="### Instruction:\n…\n\n", assistant="### Response:\n…\n\n")),
    ("solar", ("### User:", "### Assistant:"), _turns(
        system="### System:\n…\n\n", user="### User:\n…\n\n",
        assistant="### Assistant:\n…</s>\n\n")),
    ("llama3", ("<|start_header_id|>",), _turns(
        system="<|start_header_id|>system<|end_header_id|>\n\n…<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n…<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n…<|eot_id|>")),
    ("llama4", ("<|header_start|>",), _turns(
        system="<|header_start|>system<|header_end|>\n\n…<|eot|>",
        user="<|header_start|>user<|header_end|>\n\n…<|eot|>",
        assistant="<|header_start|>assistant<|header_end|>\n\n…<|eot|>")),
    ("deepseek", ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"), _turns(
        system="…", user="<\uff5cUser\uff5c>…",
        assistant="<\uff5cAssistant\uff5c>…<\uff5cend▁of▁sentence\uff5c>")),
    ("granite", ("<|start_of_role|>",), _turns(
        system="<|start_of_role|>system<|end_of_role|>…<|end_of_text|>\n",
        user="<|start_of_role|>user<|end_of_role|>…<|end_of_text|>\n",
        assistant="<|start_of_role|>assistant<|end_of_role|>…<|end_of_text|>\n")),
    ("exaone", ("[|assistant|]",), _turns(
        system="[|system|]…[|endofturn|]\n", user="[|user|]…\n",
        assistant="[|assistant|]…[|endofturn|]\n")),
)  # fmt: skip
"""Families by the marks that their templates have: the first whose marks are all there counts."""


_ACTION = re.compile(r"\{\{(.*?)(?:\}\}|\Z)", re.DOTALL)
_QUOTED_TEXT = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`", re.DOTALL)
# What only Go templates have: a field with nothing before its dot, a variable with `$`, and
# keywords that Jinja writes between other brackets.
_GO_SYNTAX = re.compile(
    r"(?<![\w)\]\"'.])\.[A-Z]|\$|^-?\s*(?:range|if|else|end|with|define|block|template)\b|^-?\s*/\*"
)
_JINJA_STATEMENT = re.compile(r"\{%[-+]?\s*\w")
_INSERT_BEFORE = re.compile(
    r"\{\{- if \.Suffix \}\}.*?\{\{- else \}\}(.*)\{\{- end \}\}", re.DOTALL
)


def is_go_template(source: str) -> bool:
    """Return whether a template is written in Go's language, and not in Jinja's.

    >>> is_go_template("{{ .Prompt }}"), is_go_template("{{ prompt.Text }}")
    (True, False)
    """
    actions = (_QUOTED_TEXT.sub('""', found) for found in _ACTION.findall(source))
    return any(map(_GO_SYNTAX.search, actions)) and _JINJA_STATEMENT.search(source) is None


def jinja_template(source: str) -> str:
    """Return a template in Jinja, a Go template as that of its family.

    Raises:
        BadRequest: it is a Go template of no known family.
    """
    if found := _INSERT_BEFORE.fullmatch(source):
        source = found[1]
    if not is_go_template(source):
        return source
    for _, marks, jinja in _FAMILIES:
        if all(mark in source for mark in marks):
            return jinja
    if ".Prompt" in source and not re.sub(r"\{\{.*?\}\}", "", source, flags=re.DOTALL).strip():
        return _TEXTS_ALONE
    raise BadRequest(
        "the chat template is written in Go's language, and of no family that is known here "
        f"({', '.join(name for name, _, _ in _FAMILIES)}). Write it in Jinja, as Hugging Face's "
        "models have it; without one, the model's file's own is used."
    )


def served_template(own: str | None, of_file: str | None) -> str | None:
    """Return the Jinja template by which a model is rendered; None: it has none.

    `own`: of its package or Modelfile. A Go template comes from a package, and then the one of the
    model's file serves, which knows tools and reasoning.

    Raises:
        BadRequest: as `jinja_template`.
    """
    is_go = own is not None and is_go_template(own)
    return of_file if is_go and of_file else jinja_template(own) if own else of_file


def insert_form(before: str, after: str, middle: str, template: str) -> str:
    """Return a template as editors want it: with `.Suffix`, the mark of a model that inserts."""
    inserted = f"{before}{{{{ .Prompt }}}}{after}{{{{ .Suffix }}}}{middle}"
    return f"{{{{- if .Suffix }}}}{inserted}{{{{- else }}}}{template}{{{{- end }}}}"

"""Templates in Go's language, as Ollama's packages have them: the Jinja of their families. Pure.

A model is rendered by Jinja alone. A Go template is that of a family if, without tools, reasoning
and insertion, it writes nothing but the family's own marks and words, its user turn and the opening
of an answer among them. Any other is refused: its text would be lost. Line ends are the family's.
Families without a system turn have its text before the next user turn's, by `TurnRules`.
"""

from __future__ import annotations

import json
import re

from paddock.engine.errors import BadRequest, TemplateTooLarge

# The longest of llama.cpp's has 17,000; to compile so many takes 2 s and 200 MB at the worst.
MOST_TEMPLATE_CHARS = 100_000
# For models without a template: ChatML, which most instruction-tuned models have seen.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Ollama's for models without a template, `{{ .Prompt }}`, with or without `{{ .System }}` before it
_TEXTS_ALONE = "{{ messages | map(attribute='content') | join('\n\n') }}"
_FAMILIES: dict[str, dict[str, str]] = {
    "phi4": dict(
        system="<|im_start|>system<|im_sep|>…<|im_end|>",
        user="<|im_start|>user<|im_sep|>…<|im_end|>",
        assistant="<|im_start|>assistant<|im_sep|>…<|im_end|>"),
    "chatml": dict(
        system="<|im_start|>system\n…<|im_end|>\n", user="<|im_start|>user\n…<|im_end|>\n",
        assistant="<|im_start|>assistant\n…<|im_end|>\n"),
    "mistral": dict(user="[INST] …[/INST]", assistant=" …</s>"),
    "mistral-v7": dict(
        system="[SYSTEM_PROMPT]…[/SYSTEM_PROMPT]", user="[INST]…[/INST]", assistant="…</s>"),
    "llama2": dict(
        system="[INST] <<SYS>>\n…\n<</SYS>>\n\n", user="[INST] … [/INST]",
        assistant=" … </s><s>"),
    "command-r": dict(
        system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>…<|END_OF_TURN_TOKEN|>",
        user="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>…<|END_OF_TURN_TOKEN|>",
        assistant="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>…<|END_OF_TURN_TOKEN|>"),
    "phi3": dict(
        system="<|system|>\n…<|end|>\n", user="<|user|>\n…<|end|>\n",
        assistant="<|assistant|>\n…<|end|>\n"),
    "zephyr": dict(
        system="<|system|>\n…</s>\n", user="<|user|>\n…</s>\n",
        assistant="<|assistant|>\n…</s>\n"),
    "gemma": dict(
        user="<start_of_turn>user\n…<end_of_turn>\n",
        assistant="<start_of_turn>model\n…<end_of_turn>\n"),
    "openchat": dict(
        system="GPT4 Correct System: …<|end_of_turn|>", user="GPT4 Correct User: …<|end_of_turn|>",
        assistant="GPT4 Correct Assistant: …<|end_of_turn|>"),
    "vicuna": dict(
        system="…\n\n", user="USER: …\n", assistant="ASSISTANT: …</s>\n"),
    "alpaca": dict(
        system="…\n\n", user="### Instruction:\n…\n\n", assistant="### Response:\n…\n\n"),
    "deepseek-coder": dict(
        system="…", user="### Instruction:\n…\n", assistant="### Response:\n…\n<|EOT|>\n"),
    "solar": dict(
        system="### System:\n…\n\n", user="### User:\n…\n\n",
        assistant="### Assistant:\n…</s>\n\n"),
    "llama3": dict(
        system="<|start_header_id|>system<|end_header_id|>\n\n…<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n…<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n…<|eot_id|>"),
    "llama4": dict(
        system="<|header_start|>system<|header_end|>\n\n…<|eot|>",
        user="<|header_start|>user<|header_end|>\n\n…<|eot|>",
        assistant="<|header_start|>assistant<|header_end|>\n\n…<|eot|>"),
    "deepseek": dict(
        system="…", user="<\uff5cUser\uff5c>…",
        assistant="<\uff5cAssistant\uff5c>…<\uff5cend▁of▁sentence\uff5c>"),
    "granite": dict(
        system="<|start_of_role|>system<|end_of_role|>…<|end_of_text|>\n",
        user="<|start_of_role|>user<|end_of_role|>…<|end_of_text|>\n",
        assistant="<|start_of_role|>assistant<|end_of_role|>…<|end_of_text|>\n"),
    "exaone": dict(
        system="[|system|]…[|endofturn|]\n", user="[|user|]…\n",
        assistant="[|assistant|]…[|endofturn|]\n"),
}  # fmt: skip
"""Per family the text of a turn of each role, its content as `…`."""


# Written by the tokenizer, or ignored at the end of an answer.
_EDGES = frozenset(("<s>", "</s>", "<bos>", "<|begin_of_text|>", "<\uff5cbegin▁of▁sentence\uff5c>"))
_ROLES = ("system", "user", "assistant")
# A mark, a word, or a value: `…`, which may stand in a mark, as in `<|{{ .Role }}|>`.
_ATOM = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]|…|[^\s<\[…]+|\S")


def _jinja(family: str) -> str:
    """Return the Jinja of a family.

    The assistant's text before its content is what opens an answer, without a space at its end.
    """
    if family == "chatml":
        return CHATML
    cases = ""
    for role, text in _FAMILIES[family].items():
        opens, _, closes = text.partition("…")
        parts = f"{json.dumps(opens)} ~ message.content ~ {json.dumps(closes)}"
        cases += f"{{% if message.role == '{role}' %}}{{{{ {parts} }}}}{{% endif %}}"
    if family == "llama2":  # the first question is in one pair of brackets with the system text
        cases = cases.replace(
            "{% if message.role == 'user' %}",
            "{% if message.role == 'user' and loop.previtem and loop.previtem.role == 'system' %}"
            "{{ message.content ~ ' [/INST]' }}{% elif message.role == 'user' %}",
        )
    answer = json.dumps(_FAMILIES[family]["assistant"].partition("…")[0].rstrip(" "))
    return (
        f"{{% for message in messages %}}{cases}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {answer} }}}}{{% endif %}}"
    )


_ACTION = re.compile(r"\{\{(.*?)(?:\}\}|\Z)", re.DOTALL)
_QUOTED_TEXT = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`", re.DOTALL)
# What only Go templates have: a field with nothing before its dot, a variable with `$`, and
# keywords that Jinja writes between other brackets.
_GO_SYNTAX = re.compile(
    r"(?<![\w)\]\"'.])\.[A-Z]|\$|^-?\s*(?:range|if|else|end|with|define|block|template)\b|^-?\s*/\*"
)
_JINJA_STATEMENT = re.compile(r"\{%[-+]?\s*\w")
# What is absent where no tools, reasoning and insertion are asked for.
_ABSENT = re.compile(r"[$.\w]*\.(?:Tool\w*|Think\w*|IsThinkSet|Suffix)")
_BRANCH = re.compile(
    r"(?:(?P<opens>if|with|range|define|block)|else(?:\s+(?:if|with))?)\b(?:.*:=)?(?P<condition>.*)",
    re.DOTALL,
)
_WORD = re.compile(r"\"(?:\\.|[^\"\\])*\"|`[^`]*`|[()]|[^\s()\"`]+")
_INSERTS, _ELSE, _END = "{{- if .Suffix }}", "{{- else }}", "{{- end }}"


def is_go_template(source: str) -> bool:
    """Return whether a template is written in Go's language, and not in Jinja's.

    >>> is_go_template("{{ .Prompt }}"), is_go_template("{{ prompt.Text }}")
    (True, False)
    """
    actions = (_QUOTED_TEXT.sub('""', found) for found in _ACTION.findall(source))
    return any(map(_GO_SYNTAX.search, actions)) and _JINJA_STATEMENT.search(source) is None


def check_template_length(source: str) -> None:
    if len(source) > MOST_TEMPLATE_CHARS:
        raise TemplateTooLarge(
            f"a chat template has at most {MOST_TEMPLATE_CHARS:,} characters, not {len(source):,}"
        )


def jinja_template(source: str) -> str:
    """Return a template in Jinja, a Go template as that of its family.

    Raises:
        TemplateTooLarge: it is too long.
        BadRequest: it is a Go template of no known family.
    """
    check_template_length(source)
    head, found, rest = source.partition(_ELSE)
    if found and head.startswith(_INSERTS) and rest.endswith(_END):
        source = rest.removesuffix(_END)
    if not is_go_template(source):
        return source
    atoms = _ATOM.findall(_plain_text(source))
    for family, turns in _FAMILIES.items():
        if _is_of(turns, atoms):
            return _jinja(family)
    is_closed = source.count("{{") == source.count("}}")
    if is_closed and ".Prompt" in source and set(atoms) == {"…"}:
        return _TEXTS_ALONE
    raise BadRequest(
        "the chat template is written in Go's language, and says something else than the families "
        f"that are known here ({', '.join(_FAMILIES)}). Write it in Jinja, as Hugging Face's "
        "models have it; without one, the model's file's own is used."
    )


def _is_of(turns: dict[str, str], atoms: list[str]) -> bool:
    """Return whether a template's atoms are those of a family, and a turn among them in order."""
    own = _EDGES.union(*map(_ATOM.findall, turns.values()))
    if any(own.isdisjoint((atom, *_with_roles(atom))) for atom in set(atoms)):
        return False
    rest = iter(atoms)
    turn = _ATOM.findall(turns["user"] + turns["assistant"].partition("…")[0])
    return all(any(mark in (atom, *_with_roles(atom)) for atom in rest) for mark in turn)


def _with_roles(atom: str) -> list[str]:
    return [atom.replace("…", role) for role in _ROLES]


def _plain_text(source: str) -> str:
    """Return what a Go template writes without tools, reasoning and insertion, values as `…`."""
    pieces: list[str] = []
    is_written, end = True, 0
    blocks: list[tuple[bool, bool]] = []  # is it written around the block; is a branch of it taken
    for action in _ACTION.finditer(source):
        if is_written:
            pieces.append(source[end : action.start()])
        end = action.end()
        code = action[1].strip("- \n\t")
        if branch := _BRANCH.match(code):
            if branch["opens"]:
                blocks.append((is_written, False))
            around, is_taken = blocks.pop() if blocks else (True, False)
            truth = _truth(branch["condition"]) if branch["condition"] else True
            is_written = around and not is_taken and truth is not False
            blocks.append((around, is_taken or truth is True))
        elif re.match(r"end\b", code):
            is_written = blocks.pop()[0] if blocks else True
        elif is_written and not re.match(r"break\b|continue\b|/\*", code):
            is_set = re.match(r"\$\w+\s*:?=", code)
            for word in _WORD.findall(code):
                if word[0] in '"`':
                    pieces.append(re.sub(r"\\[nrt]|%[sv]", " ", word[1:-1]))
                elif word[0] in ".$" and not is_set:
                    pieces.append("…")
            continue
        pieces.append(" ")
    return "".join([*pieces, source[end:] if is_written else ""])


def _truth(condition: str) -> bool | None:
    """Return what a Go condition is without tools, reasoning and insertion; None: either."""
    calls: list[list[str | bool | None]] = [[]]
    for word in _WORD.findall(condition):
        if word == "(":
            calls.append([])
        elif word == ")" and len(calls) > 1:
            value = _value(calls.pop())
            calls[-1].append(value)
        else:
            calls[-1].append(word)
    return _value(calls[0])


def _value(call: list[str | bool | None]) -> bool | None:
    known = {"true": True, "false": False}
    values = [
        word if not isinstance(word, str) else False if _ABSENT.fullmatch(word) else known.get(word)
        for word in call
    ]
    match call:
        case ["not", _]:
            return None if values[1] is None else not values[1]
        case ["and", *_]:
            return False if False in values[1:] else None if None in values[1:] else True
        case ["or", *_]:
            return True if True in values[1:] else None if None in values[1:] else False
        case ["eq" | "ne", str(field), str(text)] if field.endswith(".Role"):
            return None if text.strip('"`') in _ROLES else call[0] == "ne"
    return values[0] if len(values) == 1 else None


def is_foreign(template: str | None) -> bool:
    """Return whether a template in place of the model's is none of a family that is known here."""
    return template is not None and not is_go_template(template)


def served_template(own: str | None, of_file: str | None) -> str | None:
    """Return the Jinja template by which a model is rendered; None: it has none.

    `own`: of its package or Modelfile. A Go template comes from a package, and then the one of the
    model's file serves, which knows tools and reasoning. Raises what `jinja_template` does.
    """
    check_template_length(own or "")
    is_go = own is not None and is_go_template(own)
    return of_file if is_go and of_file else jinja_template(own) if own else of_file


def insert_form(before: str, after: str, middle: str, template: str) -> str:
    """Return a template as editors want it: with `.Suffix`, the mark of a model that inserts."""
    inserted = f"{before}{{{{ .Prompt }}}}{after}{{{{ .Suffix }}}}{middle}"
    return f"{_INSERTS}{inserted}{_ELSE}{template}{_END}"

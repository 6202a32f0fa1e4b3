"""The tests of a `.prompt.yml` file: each row of its data a test, its evaluators the claims.

The file becomes a pipeline of one step, and is tested as any other. Reads files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paddock.pipelines import prompt_file, source
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.prompt_file import Evaluator, PromptFile, StringEvaluator, literal
from paddock.runner.binding.bind import check, plan_of

from .subjects import TestFile, tested

SIMILAR = 0.5
"""From which cosine on an answer is near the expected one; theirs passes from two stars of five."""
_NAMES = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
CASSETTES = "cassettes"
"""Where replies are recorded, beside the file."""
QUALITIES: Mapping[str, str] = {
    "coherence": "The text is coherent: its sentences follow from one another and are in order.",
    "fluency": "The text is written in fluent and correct language.",
    "relevance": "The text answers this: {input}",
    "groundedness": "The text says nothing that cannot be found in this: {context}",
}
"""What theirs of the prefix `github/` ask of an answer, in words for a model as judge."""


def of_prompt_file(file: Path) -> TestFile:
    """Read the tests of a prompt file.

    Raises:
        PipelineError: with every fault of the file.
    """
    document = source.read(file)
    found = prompt_file.read_document(document)
    lacking = [*_lacking(found, document)]
    if lacking:
        raise PipelineError(lacking)
    text = json.dumps(_pipeline(found, file), ensure_ascii=False)
    plan = plan_of(file, text)
    check(plan)
    stem = file.name.rpartition(".")[0]
    made = tested(file, plan.pipeline, stem, cassettes=CASSETTES, text=text)
    if found.model and not _is_ours(found.model):
        note = f"{file.name}: its model '{found.model}' is not asked, but the default one"
        return replace(made, notes=(note,))
    return made


def _lacking(found: PromptFile, document: source.Document) -> Iterator[Fault]:
    """Say what of the data and the evaluators cannot be used."""
    for index, row in enumerate(found.test_data):
        for name in found.variables:
            if name not in row:
                what = f"the messages read '{name}', which this row of `testData` does not have."
                mark = document.mark(("testData", index))
                yield Fault(what, f"Add `{name}: …` to it.", mark)
        for name in row:
            if name not in found.variables and any(
                f"{{{{{name}}}}}" in turn.content for turn in found.messages
            ):
                what = f"'{name}' cannot be the name of a variable."
                remedy = "Take letters, digits and `_` alone, in the messages as well."
                yield Fault(what, remedy, document.key_mark(("testData", index, name)))
    for index, one in enumerate(found.evaluators):
        yield from _lacking_in_string(found, index, one, document)
        if one.llm is not None and len({choice.choice for choice in one.llm.choices}) < 2:
            mark = document.mark(("evaluators", index, "llm", "choices"))
            what = "a judge that can only say one thing decides nothing."
            yield Fault(what, "Give it at least two different choices.", mark)
        name = (one.uses or "").removeprefix("github/")
        if one.uses is not None and name not in ("similarity", *QUALITIES):
            names = ", ".join(f"'github/{known}'" for known in ("similarity", *QUALITIES))
            mark = document.mark(("evaluators", index, "uses"))
            yield Fault(f"there is no evaluator '{one.uses}'.", f"Known: {names}.", mark)


def _lacking_in_string(
    found: PromptFile, index: int, one: Evaluator, document: source.Document
) -> Iterator[Fault]:
    """Say which names a string evaluator reads that some row of the data does not have."""
    written = {} if one.string is None else one.string.model_dump(by_alias=True, exclude_none=True)
    for key, text in written.items():
        for name in dict.fromkeys(_NAMES.findall(text)):
            rows = [n for n, row in enumerate(found.test_data, 1) if name not in row]
            if rows:
                what = f"`{key}` reads '{name}', which row {rows[0]} of `testData` does not have."
                remedy = f"Add `{name}: …` to each row, or write the words themselves."
                mark = document.mark(("evaluators", index, "string", key))
                yield Fault(what, remedy, mark)


def _pipeline(found: PromptFile, file: Path) -> dict[str, Any]:
    """Give the pipeline that asks once, with a test for each row."""
    vars_ = {name: f"{{{{ inputs.{_input(name)} }}}}" for name in found.variables}
    step = {
        "id": "answer",
        "uses": "chat",
        "with": {"prompt": {"file": file.name}, "vars": vars_},
    }
    made: dict[str, Any] = {
        "name": found.name or file.name,
        "inputs": {_input(name): {"type": "json"} for name in found.variables},
        "steps": [step],
        "returns": "steps.answer.text",
        "tests": [
            {
                "name": _name(number, row, found),
                "inputs": {_input(name): _literal(row[name]) for name in found.variables},
                "files": [file.name],
                "expect": [claim for one in found.evaluators for claim in _claims(one, row)],
            }
            for number, row in enumerate(found.test_data, 1)
        ],
    }
    if found.model and _is_ours(found.model):
        made["models"] = {"own": found.model}
    return made


def _is_ours(model: str) -> bool:
    """Tell a stored model's name from one of the catalogue that is gone: `publisher/name`."""
    return "/" not in model or model.startswith(("hf.co/", "./", "/")) or ":" in model


def _input(variable: str) -> str:
    """Give a name that an input may have."""
    return f"of_{variable.lower()}" if not re.match(r"[a-z][a-z0-9_]*\Z", variable) else variable


def _name(number: int, row: Mapping[str, Any], found: PromptFile) -> str:
    first = next((str(row[name]) for name in found.variables if name in row), "")
    words = " ".join(first.split())
    return f"{number}: {words[:47]}…" if len(words) > 48 else f"{number}: {words}".rstrip(": ")


def _literal(value: Any) -> Any:
    return literal(value) if isinstance(value, str) else value


def _claims(one: Evaluator, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if one.string is not None:
        told = one.string.model_copy(update=_with_row(one.string, row))
        if told.equals:
            yield {"equals": _literal(told.equals)}
        if told.contains:
            yield {"check": f"contains(text, {_quoted(told.contains)})"}
        if told.starts_with:
            yield {"check": f"text.strip().lower().startswith({_quoted(told.starts_with.lower())})"}
        if told.ends_with:
            yield {"check": f"text.strip().lower().endswith({_quoted(told.ends_with.lower())})"}
    elif one.llm is not None:
        judge = {
            "prompt": _filled(one.llm.prompt, row),
            "choices": {choice.choice: float(choice.score) for choice in one.llm.choices},
        }
        if one.llm.system_prompt:
            judge["system"] = one.llm.system_prompt
        yield {"judge": judge}
    elif one.uses == "github/similarity":
        yield {"similar": _literal(_text(row.get("expected", ""))), "at_least": SIMILAR}
    elif one.uses is not None:
        yield {"judge": _literal(_quality(one.uses, row))}


def _with_row(told: StringEvaluator, row: Mapping[str, Any]) -> dict[str, str]:
    """Return an evaluator's texts with a row's values in them."""
    return {
        name: _NAMES.sub(lambda found: _text(row.get(found[1], "")), text)
        for name, text in told.model_dump().items()
        if isinstance(text, str)
    }


def _quality(uses: str, row: Mapping[str, Any]) -> str:
    words = QUALITIES[uses.removeprefix("github/")]
    given = {"input": row.get("input", ""), "context": row.get("context", row.get("input", ""))}
    return words.format_map({name: _text(value) for name, value in given.items()})


def _filled(prompt: str, row: Mapping[str, Any]) -> str:
    """Put a row's values into a judge's prompt; the answer comes in when there is one."""
    parts = _NAMES.split(prompt)
    made = [_literal(parts[0])]
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        value = "{{ text }}" if name == "completion" else _literal(_text(row.get(name, "")))
        made += [value, _literal(text)]
    return "".join(made)


def _text(value: Any) -> str:
    """Write a value of a row as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _quoted(text: str) -> str:
    """Write a text as an expression has it."""
    return json.dumps(text, ensure_ascii=False)

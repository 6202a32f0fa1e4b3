"""A small server of OpenAI's API that reads invoices: which values it says, and how surely, is set.

It speaks HTTP on a port of its own, so that commands and processes of tests can ask it. The answer
to a prompt is that of the first document whose mark stands in it, as JSON token by token, each with
its log probability and a runner-up.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.http_server import Json, openai, serving

SURE = 0.99


@dataclass(frozen=True)
class Said:
    """An answer; `doubts` maps a field to its probability and the value that came second."""

    value: Mapping[str, Any]
    doubts: Mapping[str, tuple[float, str]] = field(default_factory=dict)

    def tokens(self) -> Iterator[Json]:
        """Yield the answer's tokens as the wire has them: keys are sure, a value is one token."""
        for at, (name, value) in enumerate(self.value.items()):
            yield _token(("{" if at == 0 else ",") + json.dumps(name) + ":")
            p, second = self.doubts.get(name, (SURE, "0"))
            mark = '"' if isinstance(value, str) else ""
            if mark:
                yield _token(mark)
            text = json.dumps(value, ensure_ascii=False)
            yield _token(text[1:-1] if mark else text, p, second)
            if mark:
                yield _token(mark)
        yield _token("}")


def _token(text: str, p: float = 1.0, second: str = "") -> Json:
    likely = [(text, p), *([(second, 1 - p)] if second and p < 1 else [])]
    return _logprob(text, p) | {"top_logprobs": [_logprob(*one) for one in likely]}


def _logprob(text: str, p: float) -> Json:
    return {"token": text, "logprob": math.log(p), "bytes": list(text.encode())}


class Clerk:
    """The server's state. `asked` are the prompts in the order of their coming."""

    def __init__(self) -> None:
        self.answers: dict[str, Said] = {}
        """By a text that stands in the document."""
        self.sends_logprobs = True
        self.asked: list[str] = []
        self.url = ""

    def said(self, prompt: str) -> Said:
        """Return the answer to a prompt; tests replace it to wait or to fail."""
        for mark, answer in self.answers.items():
            if mark in prompt:
                return answer
        return Said({"number": "", "total": 0, "pay_by": "1970-01-01"})

    def events(self, body: Json) -> list[Json]:
        prompt = "\n".join(str(turn["content"]) for turn in body["messages"])
        self.asked.append(prompt)
        tokens = list(self.said(prompt).tokens())
        has_logprobs = self.sends_logprobs and body.get("logprobs")
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens)}
        return [
            *(_event(one["token"], one if has_logprobs else None) for one in tokens),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]


def _event(text: str, logprob: Json | None) -> Json:
    choice: Json = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"choices": [choice | ({"logprobs": {"content": [logprob]}} if logprob else {})]}


@contextmanager
def clerk(answers: Mapping[str, Said]) -> Iterator[Clerk]:
    state = Clerk()
    state.answers = dict(answers)
    with serving(openai(state.events, "clerk")) as server:
        state.url = server.url
        yield state


PIPELINE = """\
name: bills
models:
  clerk: {ref: clerk, ctx: 8192, pool: {url: "URL"}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: bill
        uses: chat
        with: {model: clerk, prompt: "{{ steps.text.text }}"}
        reply:
          schema: {number: str, total: float, pay_by: date}
          evidence: steps.text
          confidence: true
        review: REVIEW
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}.json", text: "{{ steps.bill.output | tojson }}"}
    returns: {file: doc.relpath, bill: steps.bill.output}
  - id: table
    uses: files.write
    with: {path: out/all.json, text: "{{ steps.each.results | tojson }}"}
returns: {counts: steps.each.counts}
"""
DUE = "confidence.min < 0.8 or evidence.missing"


def pipeline(url: str, review: str = f'{{when: "{DUE}", ttl: 14d}}') -> str:
    """Return the pipeline of the guide with its model at `url`."""
    return PIPELINE.replace("URL", url).replace("REVIEW", review)

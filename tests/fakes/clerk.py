"""A small server of OpenAI's API that reads invoices: which values it says, and how surely, is set.

It speaks HTTP on a port of its own, so that commands and processes of tests can ask it. The answer
to a prompt is that of the first document whose mark stands in it, as JSON token by token, each with
its log probability and a runner-up.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
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


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._body(b'{"object": "list", "data": [{"id": "clerk", "object": "model"}]}')
        else:
            self._body(b'{"error": "no such route"}', status=404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path != "/v1/chat/completions":
            self._body(b'{"error": "no such route"}', status=404)
            return
        asked = json.loads(body)
        clerk = self.server.clerk
        prompt = "\n".join(str(turn["content"]) for turn in asked["messages"])
        clerk.asked.append(prompt)
        tokens = list(clerk.said(prompt).tokens())
        has_logprobs = clerk.sends_logprobs and asked.get("logprobs")
        events = [_event(one["token"], one if has_logprobs else None) for one in tokens]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens)}
        events += [
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]
        lines = [*map(json.dumps, events), "[DONE]"]
        self._body("".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream")

    def _body(
        self, body: bytes, media_type: str = "application/json", *, status: int = 200
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _event(text: str, logprob: Json | None) -> Json:
    choice: Json = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"choices": [choice | ({"logprobs": {"content": [logprob]}} if logprob else {})]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    clerk: Clerk


@contextmanager
def clerk(answers: Mapping[str, Said]) -> Iterator[Clerk]:
    state = Clerk()
    state.answers = dict(answers)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.clerk = state
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


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

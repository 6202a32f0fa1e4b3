"""Odd requests to every route of `paddock serve`, of the address of `paddock up`, and of `/review`.

A seed makes them again. As a script it goes on for some minutes and prints what was answered:

    python -m tests.conformance.fuzz_routes --minutes 10 --seed 1

What is wrong: a status of 500 without Ollama's own wording, an answer that is no JSON, words of our
inside (a traceback, a panic), a request without an answer, a worker that died.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import re
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paddock.engine.api.api_keys import KeyCheck, KeyRing
from paddock.engine.api.app import make_app
from paddock.engine.api.request_log import RequestLog
from paddock.engine.settings import ServiceSettings
from paddock.runner.review.page import PageAccess, ReviewPage
from paddock.runner.review.page_server import FolderDesks
from paddock.runner.schedule.up_status import make_status_app
from tests.live import CHAT, VECTORS, Live, live_service
from tests.runner.review.served_page import ServedPage

ANSWER_S = 90.0
OLLAMAS_500 = re.compile(
    r'option \\?".+" must be of |invalid format: |template|unknown type|cannot be reached: |'
    r"trusted hosts "
)
INSIDE = re.compile(r"Traceback|panicked|panic:|backtrace|internal server error|\.rs:")
ROUTES_OF_UP = (("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/status"), ("POST", "/digest"),
                ("POST", "/open"), ("PUT", "/open"), ("POST", "/nowhere"))  # fmt: skip

RAW = ("1" + "0" * 400, "-1" + "0" * 400, "1e999", "NaN", "-Infinity", "1e308", "0.1e-400")
"""Numbers as they are written into the body, since Python's own writer would not."""

NAMES = (CHAT, VECTORS, "nobody", "Nobody:v1", "../x", "a/b/c/d/e", "127.0.0.1:9/x/y", "hf:a/b",
         "x:", "http://127.0.0.1:9/x/y", "smollm2:135m ", "", "\x00", "/etc/passwd",
         "a" * 5_000)  # fmt: skip
TEXTS = ("", "Hi", "é🦙", "\ud800", "\x00", "a" * 20_000, "{{ .Prompt }}", "{% for a in b %}", "-1",
         "{{ range . }}{{ . }}{{ end }}", "{{ 'a' * 10**9 }}", "[INST]", "<|im_start|>", "data:,",
         "{% for i in range(10**9) %}a{% endfor %}", "json", "text", "5m", "1e9h", "auto",
         base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 50).decode(),
         "data:image/png;base64,AAAA")  # fmt: skip
NUMBERS = (0, -1, 1, 2, 4, 2**31 - 1, 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 2**64, 10**300, 0.5,
           -0.5, 1e300, 1e-300, 3.0)  # fmt: skip
SCHEMAS: tuple[Any, ...] = (
    {"type": "object"},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    {"type": "string", "minLength": 10**9},
    {"type": "integer", "multipleOf": 999983, "minimum": 1},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"$ref": "http://127.0.0.1:9/"},
    {"enum": [f"value {i}" for i in range(3_000)]},
    {"type": "string", "pattern": "(((a|b)*c){50}d){50}"},
    {"type": "string", "pattern": "("},
    {"allOf": [{"anyOf": [{"type": "object", "properties": {f"k{i}{j}": {"type": "string"}},
                           "required": [f"k{i}{j}"]} for j in range(4)]} for i in range(6)]},
    {"$defs": {f"d{i}": {"properties": {"n": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(2_000)},
     "$ref": "#/$defs/d0"},
    {"type": 7}, {"properties": []}, {"anyOf": {}}, True, [],
)  # fmt: skip
FIELDS = (
    "model", "name", "prompt", "input", "messages", "images", "format", "think", "suffix", "raw",
    "system", "template", "context", "tools", "keep_alive", "truncate", "shift", "dimensions",
    "from",
    "source", "destination", "files", "adapters", "parameters", "license", "quantize", "verbose",
    "logprobs", "top_logprobs", "options", "stream", "response_format", "tool_choice", "max_tokens",
    "max_completion_tokens", "n", "logit_bias", "stop", "stop_sequences", "seed", "temperature",
    "top_p",
    "top_k", "presence_penalty", "encoding_format", "stream_options", "thinking",
    "parallel_tool_calls",
    "metadata", "echo", "best_of", "reasoning", "reasoning_effort", "text", "instructions",
    "input_file_id", "endpoint", "completion_window", "output_config", "max_output_tokens",
)  # fmt: skip
OPTIONS = ("num_ctx", "num_predict", "seed", "temperature", "top_k", "top_p", "min_p", "stop",
           "num_keep",
           "num_batch", "num_gpu", "repeat_penalty", "repeat_last_n", "mirostat", "use_mmap", "x",
           "presence_penalty", "draft_num_predict")  # fmt: skip
ORIGINS = ("http://localhost:3000", "http://localhost:80@evil.example", "null", "http://localhost.",
           "https://evil.example", "app://x", "http://localhost.evil.example")  # fmt: skip


@dataclass
class Tally:
    """What was sent and answered."""

    seed: int
    statuses: Counter[int] = field(default_factory=Counter)
    by_route: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ollamas: Counter[str] = field(default_factory=Counter)
    """Answers of 500 in Ollama's words."""
    slowest_s: float = 0.0
    slowest: str = ""

    @property
    def n(self) -> int:
        return sum(self.statuses.values())


class Maker:
    """Makes requests from a seed."""

    def __init__(self, seed: int) -> None:
        self.some = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        some = self.some
        kind = some.randrange(12)
        if kind == 0:
            return None
        if kind == 1:
            return some.random() < 0.5
        if kind in (2, 3):
            return some.choice(NUMBERS)
        if kind == 4:
            return f"RAW{some.randrange(len(RAW))}"
        if kind in (5, 6, 7):
            return some.choice(TEXTS)
        if kind == 8:
            return some.choice(SCHEMAS)
        if kind == 9 and depth < 3:
            return [self.value(depth + 1) for _ in range(some.randrange(4))]
        if kind == 10 and depth < 3:
            return {some.choice(FIELDS): self.value(depth + 1) for _ in range(some.randrange(4))}
        return self.large()

    def large(self) -> Any:
        some = self.some
        deep: Any = 0
        if some.random() < 0.3:
            for _ in range(some.choice((70, 130, 400))):
                deep = [deep]
            return deep
        n = some.choice((100, 3_000))
        return [some.choice(("stop", 7, {"role": "user", "content": "Hi"}))] * n

    def body(self, path: str) -> dict[str, Any]:
        some = self.some
        turn = {"role": "user", "content": "Hi"}
        told: dict[str, Any] = {
            "model": VECTORS if "embed" in path else CHAT, "prompt": "Hi", "messages": [turn],
            "input": "Hi", "stream": some.random() < 0.3, "max_tokens": 2, "max_output_tokens": 16,
            "source": VECTORS, "destination": "twin", "name": "made", "from": VECTORS,
            "options": {"num_predict": 1, "num_ctx": 256}, "max_completion_tokens": 2,
            "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "input_file_id": "file-x",
        }  # fmt: skip
        if path in ("/api/create", "/api/push", "/api/pull", "/api/delete"):
            told["model"] = "127.0.0.1:9/x/made"
        for name in some.sample(FIELDS, some.randrange(4)):
            told[name] = self.odd(name)
        if some.random() < 0.3:
            told["options"] = {
                one: self.value() for one in some.sample(OPTIONS, some.randrange(1, 4))
            }
        options = told["options"]
        if isinstance(options, dict):
            options.setdefault("num_predict", 1)
        return told

    def odd(self, name: str) -> Any:
        some = self.some
        if name in ("model", "name", "source", "destination", "from") and some.random() < 0.7:
            return some.choice(NAMES)
        if name in ("format", "response_format", "output_config") and some.random() < 0.8:
            schema = some.choice(SCHEMAS)
            wrapped = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
            return schema if name == "format" else wrapped
        if name == "tools" and some.random() < 0.7:
            called = {
                "name": some.choice(("f", "a b", "", "é")),
                "parameters": some.choice(SCHEMAS),
            }
            return [{"type": "function", "function": called}] * some.choice((1, 300))
        if name == "messages" and some.random() < 0.7:
            return [
                {"role": some.choice(("user", "system", "tool", "assistant", "x", 7)),
                 "content": self.value(), "images": some.choice(([], ["AAAA"], "x", [7])),
                 "tool_calls": some.choice(([], [{}], "x"))}
                for _ in range(some.randrange(1, 4))
            ]  # fmt: skip
        return self.value()

    def content(self, path: str) -> bytes:
        if self.some.random() < 0.05:
            return self.some.randbytes(self.some.randrange(300))
        text = json.dumps(self.body(path))
        text = re.sub(r'"RAW(\d)"', lambda found: RAW[int(found[1])], text)
        if self.some.random() < 0.03:
            text = text[: self.some.randrange(len(text))]
        return text.encode("utf-8", "surrogatepass")

    def headers(self) -> dict[str, str]:
        some, told = self.some, dict[str, str]()
        if some.random() < 0.05:
            told["Origin"] = some.choice(ORIGINS)
        if some.random() < 0.03:
            told["Host"] = some.choice(("evil.example", "localhost:80@evil.example", "127.0.0.1"))
        if some.random() < 0.2:
            told["Content-Type"] = some.choice(
                ("application/json", "text/plain", "multipart/form-data")
            )
        return told

    def path(self, path: str) -> str:
        odd = ("x", "sha256:" + "0" * 64, "..%2f..%2fx", CHAT, "file-1", "%00", "a" * 3_000)
        return re.sub(r"\{[^}]*\}", lambda _: self.some.choice(odd), path)


def routes_of(live: Live) -> list[tuple[str, str]]:
    """Return each route of the service, with its method."""
    routes = [one for one in make_app(live.service).routes if isinstance(one, Route)]
    own = [(method, one.path) for one in routes for method in sorted(one.methods or ())]
    return [(method, path) for method, path in own if not path.startswith(("/paddock", "/ui"))]


def judge(tally: Tally, what: str, answer: httpx.Response) -> None:
    """Count an answer, and note what is wrong with it."""
    tally.statuses[answer.status_code] += 1
    said = answer.text
    if INSIDE.search(said):
        tally.wrong.append(f"{what}: words of our inside: {said[:300]}")
    if answer.status_code == 500:
        if OLLAMAS_500.search(said):
            tally.ollamas[re.sub(r'\\?"[^"]*"', '"…"', said)[:80]] += 1
        else:
            tally.wrong.append(f"{what}: 500: {said[:300]}")
    is_json = "json" in answer.headers.get("content-type", "")
    if is_json and answer.request.method != "HEAD":
        try:
            for line in answer.content.splitlines():
                json.loads(line)
        except ValueError:
            tally.wrong.append(f"{what}: no JSON: {said[:300]}")


def fuzz_serve(live: Live, tally: Tally, seed: int, ends_at: float, most: int) -> None:
    """Send requests to the service, one after the other."""
    maker, routes = Maker(seed), routes_of(live)
    with live.client() as client:
        for number in range(most):
            if time.monotonic() > ends_at:
                return
            method, path = maker.some.choice(routes)
            path = maker.path(path)
            content = maker.content(path) if method == "POST" or maker.some.random() < 0.2 else b""
            what = f"seed {seed} request {number} {method} {path[:60]}"
            began = time.monotonic()
            try:
                answer = client.request(
                    method, path, content=content, headers=maker.headers(), timeout=ANSWER_S
                )
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                tally.wrong.append(f"{what}: no answer: {error!r}")
                continue
            took_s = time.monotonic() - began
            if took_s > tally.slowest_s:
                tally.slowest_s, tally.slowest = took_s, what
            tally.by_route[f"{method} {path.split('/')[1][:20]}"] += 1
            judge(tally, what, answer)


def fuzz_up(folder: Path, tally: Tally, seed: int, most: int) -> None:
    """Send requests to the address of `paddock up`, with webhooks of one pipeline."""
    from tests.runner.schedule.test_webhooks import Door

    maker, door = Maker(seed), Door(folder)

    async def send() -> None:
        transport = httpx.ASGITransport(door.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for number in range(most):
                method, path = maker.some.choice(ROUTES_OF_UP)
                content, headers = maker.content(path), maker.headers()
                what = f"up seed {seed} request {number} {method} {path}"
                answer = await client.request(method, path, content=content, headers=headers)
                tally.by_route[f"up {method}"] += 1
                judge(tally, what, answer)

    asyncio.run(send())


REVIEWS_OF = {"anns.txt": ["ann"], "bens.txt": ["ben"], "both.txt": ["ann", "ben"], "open.txt": []}
"""Questions of the review page, and who may decide on each."""
INNER = "what only a reviewer may read"
CREDENTIALS = {"key-of-ann-0123456789": "ann", "key-of-ben-0123456789": "ben"}
TICKETS = ("", "x", "0" * 32, "token-of-the-owner", "\x00", "é", "a" * 9_000)
REVIEW_PATHS = (
    "/review", "/review/", "/review/page.js", "/review/api/queue", "/review/api/decided",
    "/review/api/accept", "/review/api/undo", "/review/api/nowhere",
    *(f"/review/api/reviews/{{id}}{act}" for act in (
        "", "/text", "/picture", "/lease", "/release", "/check", "/decide", "/undo", "/nowhere")),
)  # fmt: skip
DECIDING_PATHS = (
    "/review/api/accept",
    "/review/api/undo",
    *(f"/review/api/reviews/{{id}}/{act}" for act in ("decide", "decide", "undo", "release")),
)


class ReviewFuzz:
    """The review page as `up` and as `serve` have it, and who is who."""

    def __init__(self, folder: Path, seed: int, tally: Tally, *, is_serve: bool) -> None:
        self.maker, self.tally, self.is_serve = Maker(seed), tally, is_serve
        self.names = dict(CREDENTIALS)
        if not is_serve:  # there the whole service is behind the keys
            self.names["token-of-the-owner"] = "owner"
        self.what = f"review of {'serve' if is_serve else 'up'} seed {seed}"
        self.folder = folder
        keys = folder / "keys"
        keys.write_text("".join(f"{key} {name}\n" for key, name in CREDENTIALS.items()))
        served = ServedPage(folder)
        self.ids = [
            review.id
            for item, by in REVIEWS_OF.items()
            for review in served.ask(item, text=INNER, by=by, reason="x")
        ]
        token = None if is_serve else "token-of-the-owner"
        self.access = PageAccess(token, "owner", "It is here.", keys=keys)
        self.desks = FolderDesks(lambda: [folder])
        self.page = ReviewPage(self.desks, self.access)
        if is_serve:
            app = Starlette(routes=self.page.routes())
            self.app: Any = KeyCheck(app, ring=KeyRing(keys), request_log=RequestLog())
        else:
            self.app = make_status_app(dict, dict, _no_hook, more=self.page.routes())

    async def run(self, most: int) -> None:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        try:
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                for number in range(most):
                    client.cookies.clear()
                    await self.visit(client, number)
        finally:
            await self.page.close(self.desks.close)

    async def visit(self, client: httpx.AsyncClient, number: int) -> None:
        """Send some requests of one person, or of a stranger, with a cookie or without."""
        some = self.maker.some
        credential = some.choice((*CREDENTIALS, "token-of-the-owner", "a-key-of-nobody", ""))
        name = self.names.get(credential, "")
        headers: dict[str, str] = {}
        if credential and some.random() < 0.5:
            headers["Authorization"] = f"Bearer {credential}"
        elif credential:
            await client.post("/review", data={"token": credential})
        for _ in range(some.randrange(1, 6)):
            odd = self.maker.headers() if some.random() < 0.3 else {}
            is_strange = "Origin" in odd or odd.get("Host", "127.0.0.1") != "127.0.0.1"
            await self.request(client, number, headers | odd, "" if is_strange else name)

    async def request(
        self, client: httpx.AsyncClient, number: int, headers: dict[str, str], name: str
    ) -> None:
        some = self.maker.some
        method = some.choice(("GET", "POST", "POST", "PUT", "HEAD"))
        id_ = some.choice((*self.ids * 4, "x", "0" * 12, "%00", "..%2f..", "a" * 3_000))
        path = some.choice(REVIEW_PATHS)
        if some.random() < 0.5:
            method, path = "POST", some.choice(DECIDING_PATHS)
        path = path.replace("{id}", id_)
        what = f"{self.what} visit {number} {method} {path[:60]} by {name or 'a stranger'}"
        before = self.states()
        query = some.choice(("", "?source=0&start=0", "?source=9&page=-1", "?start=1e9&n=x"))
        answer = await client.request(
            method, path + query, content=self.body(path, id_), headers=headers
        )
        self.tally.by_route[f"review {method}"] += 1
        judge(self.tally, what, answer)
        is_page = path.startswith("/review/page") or path in ("/review", "/review/")
        if not name and not is_page and (INNER in answer.text or "R-1042" in answer.text):
            self.tally.wrong.append(f"{what}: told a stranger: {answer.text[:200]}")
        if any(secret in answer.text for secret in (*self.names, "token-of-the-owner")):
            self.tally.wrong.append(f"{what}: tells a secret")
        for item, (state, by) in self.states().items():
            if (state, by) == before[item]:
                continue
            self.tally.by_route[f"review {state}"] += 1
            may = REVIEWS_OF[item]
            if not name or (may and name not in may) or (state != "open" and by != name):
                self.tally.wrong.append(f"{what}: {item} became {state} by {by}")

    def body(self, path: str, id_: str) -> bytes:
        """Return a sound decision often enough that some are taken, else anything."""
        some = self.maker.some
        if some.random() < 0.4:
            return self.maker.content(path)
        if path == "/review":
            field = some.choice(("token", "ticket"))
            return f"{field}={some.choice(TICKETS)}".encode()
        asked = {one.id: one.question for desk in self.desks() for one in desk.waiting()}
        if path.endswith("/accept"):
            rows: Any = [[one, question[: some.choice((0, 4, 16, 64))]]
                         for one, question in asked.items() if some.random() < 0.5]  # fmt: skip
            return json.dumps({"rows": some.choice((rows, self.maker.value()))}).encode(
                "utf-8", "surrogatepass"
            )
        if path == "/review/api/undo":
            told = [one.together for desk in self.desks() for one in desk.decided()]
            return json.dumps({"together": [one for one in told if one] or "x"}).encode()
        odd = self.maker.value
        told_ = {
            "question": some.choice((*[asked.get(id_, "x")] * 3, odd())),
            "verb": some.choice(("accept", "edit", "edit", "reject", 7)),
            "reason": some.choice(("blurred", "", odd())),
            "changes": some.choice((*[{"total": "12"}] * 4, {"total": "x"}, odd())),
        }
        return json.dumps(told_).encode("utf-8", "surrogatepass")

    def states(self) -> dict[str, tuple[str, str | None]]:
        return {
            str(one.subject["item"]): (one.state, one.by)
            for desk in self.desks()
            for one in (*desk.waiting(), *desk.decided())
        }


async def _no_hook(request: Request) -> Response:
    return Response(status_code=404)


def fuzz_review(folder: Path, tally: Tally, seed: int, most: int) -> None:
    """Send requests to the review page of `up` and of `serve`, as two reviewers and strangers."""
    for is_serve in (False, True):
        place = folder / f"review-{is_serve}"
        place.mkdir(parents=True)
        asyncio.run(ReviewFuzz(place, seed, tally, is_serve=is_serve).run(most))


def deaths(live: Live) -> int:
    """Return how many workers have died."""

    async def count() -> int:
        models = live.service.pool.metrics.snapshot()
        return sum(one.n_deaths for one in models.values())

    return live.call(count())


def fuzz(live: Live, folder: Path, seed: int, seconds: float, most: int, n_clients: int) -> Tally:
    """Send requests until the time or their number is over."""
    tally, ends_at = Tally(seed), time.monotonic() + seconds
    clients = [
        threading.Thread(target=fuzz_serve, args=(live, tally, seed + number, ends_at, most))
        for number in range(n_clients)
    ]
    for client in clients:
        client.start()
    fuzz_up(folder, tally, seed, min(most, 2_000))
    fuzz_review(folder / "reviews", tally, seed, min(most, 1_000))
    for client in clients:
        client.join()
    if died := deaths(live):
        tally.wrong.append(f"{died} workers died")
    return tally


def main() -> None:
    """Fuzz as the command line says."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--minutes", type=float, default=10)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--clients", type=int, default=4)
    given = asked.parse_args()
    root = Path(tempfile.mkdtemp(prefix="paddock-fuzz-"))
    settings = ServiceSettings(trusted_hosts=("127.0.0.1",))
    with live_service(root, service=settings) as live:
        tally = fuzz(live, root, given.seed, given.minutes * 60, 1_000_000, given.clients)
    print(f"seed {given.seed}: {tally.n:,} requests in {given.minutes:g} minutes")
    print("statuses:", dict(sorted(tally.statuses.items())))
    print("500 in Ollama's words:", dict(tally.ollamas))
    print(f"slowest: {tally.slowest_s:.1f} s: {tally.slowest}")
    print(f"wrong: {len(tally.wrong)}")
    for one in tally.wrong[:50]:
        print(" ", one)


if __name__ == "__main__":
    main()

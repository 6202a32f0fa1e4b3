"""Odd requests to every route of `paddock serve`, of the address of `paddock up`, and of `/review`.

A seed makes them again. As a script it goes on for some minutes and prints what was answered:

    python -m tests.conformance.fuzz_routes --minutes 10 --seed 1

What is wrong: a status of 500 without Ollama's own wording, an answer that is no JSON, words of our
inside (a traceback, a panic), a request without an answer, a worker that died.
"""

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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paddock.engine.api.app import make_app, make_middleware
from paddock.engine.api.request_log import RequestLog
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.records import replace
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.review.page import ReviewPage, page_id
from paddock.runner.review.page_access import PageAccess
from paddock.runner.review.page_server import FolderReviews
from paddock.runner.schedule.up_status import make_status_app
from tests.live import CHAT, VECTORS, Live, live_service
from tests.runner.review.served_page import ServedPage
from tests.waiting import PATIENCE_S

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
BLOCKS = ("text", "image", "image_url", "input_text", "document", "search_result", "tool_use",
          "tool_result", "thinking", "function_call", "reasoning", "x", 7)  # fmt: skip
IN_BLOCKS = ("text", "source", "image_url", "id", "name", "input", "arguments", "tool_use_id",
             "content", "thinking", "summary", "is_error", "role")  # fmt: skip
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
                 "content": self.blocks() if some.random() < 0.5 else self.value(),
                 "images": some.choice(([], ["AAAA"], "x", [7])),
                 "tool_calls": some.choice(([], [{}], "x"))}
                for _ in range(some.randrange(1, 4))
            ]  # fmt: skip
        return self.value()

    def blocks(self) -> list[dict[str, Any]]:
        return [
            {"type": self.some.choice(BLOCKS), **{
                name: self.value() for name in self.some.sample(IN_BLOCKS, self.some.randrange(4))
            }}
            for _ in range(self.some.randrange(3))
        ]  # fmt: skip

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
    if answer.is_error and said not in ("", "404 page not found", "405 method not allowed"):
        path = answer.request.url.path
        if not is_error_of(path, answer.json() if is_json else None):
            tally.wrong.append(f"{what}: no error as clients of {path} read it: {said[:300]}")


def is_error_of(path: str, body: Any) -> bool:
    """Return whether an error has the form of the path's dialect."""
    error = body.get("error") if isinstance(body, dict) else None
    if path.startswith("/api/"):
        return isinstance(error, str) and len(body) == 1
    if path.startswith("/v1/messages"):
        return (
            isinstance(error, dict) and body.get("type") == "error" and bool(error.get("message"))
        )
    if path.startswith("/v1/"):
        return isinstance(error, dict) and set(error) == {"message", "type", "param", "code"}
    return True


def fuzz_serve(live: Live, tally: Tally, seed: int, ends_at: float, most: int) -> None:
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
                    method, path, content=content, headers=maker.headers(), timeout=PATIENCE_S
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
    from tests.runner.schedule.test_webhooks import Address, read

    maker, door = Maker(seed), Address(folder, read(folder / "digest.yaml"))

    async def send() -> None:
        await door.put_first()
        transport = httpx.ASGITransport(door.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for number in range(most):
                method, path = maker.some.choice(ROUTES_OF_UP)
                content, headers = maker.content(path), maker.headers()
                what = f"up seed {seed} request {number} {method} {path}"
                answer = await client.request(method, path, content=content, headers=headers)
                tally.by_route[f"up {method}"] += 1
                judge(tally, what, answer)
        await door.queue.close()

    asyncio.run(send())


REVIEWS_OF = {"anns.txt": ["ann"], "bens.txt": ["ben"], "both.txt": ["ann", "ben"], "open.png": []}
"""Questions of the review page, and who may decide on each."""
FOLDERS = ("harbour", "old/harbour")
"""Both have the same questions, as copies of a folder do."""
INNER = "only a reviewer of {place} may read this"
MARK = re.compile(INNER.format(place=r"(\S+)"))
CREDENTIALS = {"key-of-ann-0123456789": "ann", "key-of-ben-0123456789": "ben"}
OWNERS = {"token-of-the-owner": "owner"}
WRONG = ("a-key-of-nobody", "token-of-the-owne", "")
TICKETS = ("", "x", "0" * 32, "\x00", "é", "a" * 9_000)
STRANGE = (
    *({"Host": host} for host in ("evil.example", "localhost:80@evil.example", "127.0.0.1.x")),
    *({"Origin": origin} for origin in (*ORIGINS, "http://127.0.0.1:21000")),
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)
"""What a page of another origin, or of another name for this address, cannot but send."""
REVIEW_PATHS = (
    "/review", "/review/", "/review/page.js", "/review/api/queue", "/review/api/decided",
    "/review/api/accept", "/review/api/undo", "/review/api/nowhere",
    *(f"/review/api/reviews/{{id}}{act}" for act in (
        "", "/text", "/picture", "/lease", "/release", "/check", "/decide", "/undo", "/nowhere")),
)  # fmt: skip
DECIDING_PATHS = (
    "/review/api/accept",
    "/review/api/undo",
    *(f"/review/api/reviews/{{id}}/{act}" for act in ("decide", "decide", "undo", "undo")),
)


@dataclass
class ReviewDoor:
    """The review page as one command has it, and who may use it there."""

    name: str
    app: Any
    page: ReviewPage
    all_reviews: FolderReviews
    names: dict[str, str]
    """By credential."""


class ReviewFuzz:
    """The review page of two folders under `up`, and under `serve` with keys and without."""

    def __init__(self, folder: Path, seed: int, tally: Tally) -> None:
        self.maker, self.tally = Maker(seed), tally
        self.what = f"review seed {seed}"
        self.folders = [folder / name for name in FOLDERS]
        self.keys = folder / "keys"
        self.keys.write_text("".join(f"{key} {name}\n" for key, name in CREDENTIALS.items()))
        self.pictures: dict[str, bytes] = {}
        self.old_questions: list[str] = []
        self.n_asked = 0
        for at, one in enumerate(self.folders):
            one.mkdir(parents=True)
            Image.new("RGB", (8, 8), (90 * at, 0, 0)).save(one / "open.png")
            for item in REVIEWS_OF:
                self.ask(one, item)
        self.all_reviews = FolderReviews(lambda: self.folders)
        self.asked = self.reviews()
        """Each review as it was asked, by its id on the page."""
        self.doors = [self.door(name) for name in ("up", "serve with keys", "serve")]

    def place(self, folder: Path, item: str) -> str:
        return f"{'.'.join(folder.parts[-2:])}.{item}"

    def ask(self, folder: Path, item: str) -> None:
        """Ask, or ask again with another answer, as a run does after a document has changed."""
        self.n_asked += 1
        inner = INNER.format(place=self.place(folder, item))
        answer = {"number": f"R-1042 {inner}", "total": float(self.n_asked), "kind": "invoice",
                  "pay_by": None}  # fmt: skip
        is_picture = item.endswith(".png")
        source: dict[str, Any] = {
            "name": "text", "text": inner, "page_starts": [], "path": item if is_picture else None,
            "media_type": "image/png" if is_picture else "text/plain",
        }  # fmt: skip
        ServedPage(folder).ask(
            item, text=inner, answer=answer, by=REVIEWS_OF[item], sources=[source], reason="x",
            document_sha256=f"d{self.n_asked}", checks=["output.total < 1000000"],
        )  # fmt: skip

    def door(self, name: str) -> ReviewDoor:
        is_up, has_keys = name == "up", name != "serve"
        names = {
            **(CREDENTIALS if has_keys else {}),
            **(OWNERS if name != "serve with keys" else {}),
        }
        all_reviews = FolderReviews(lambda: self.folders)
        token = next(iter(OWNERS)) if OWNERS.items() <= names.items() else None
        keys = self.keys if has_keys else None
        page = ReviewPage(all_reviews, PageAccess(token, "owner", "It is here.", keys=keys))
        if is_up:
            app: Any = make_status_app(dict, dict, _no_hook, extra_routes=page.routes())
        else:
            middleware = make_middleware(ServiceSettings(api_keys_file=keys), RequestLog())
            app = Starlette(routes=page.routes(), middleware=middleware)
        return ReviewDoor(name, app, page, all_reviews, names)

    def reviews(self) -> dict[str, Review]:
        """Return every review as it stands, by its id on the page."""
        return {
            page_id(reviews, one.id): one
            for reviews in self.all_reviews()
            for one in (*reviews.waiting(is_whole=True), *reviews.decided(is_whole=True))
        }

    @asynccontextmanager
    async def client(self, door: ReviewDoor) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(door.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client

    async def run(self, most: int) -> None:
        try:
            for number in range(most):
                if number % 5 == 0:
                    self.open_all()
                await self.visit(number)
        finally:
            for door in self.doors:
                await door.page.close(door.all_reviews.close)
            self.all_reviews.close()

    def open_all(self) -> None:
        for reviews in self.all_reviews():
            for one in [*reviews.decided(is_whole=True)]:
                reviews.undo(one.id, (one.subject.by or ("ann",))[0])

    async def visit(self, number: int) -> None:
        """Send some requests of one person, or of a stranger, with a cookie or without."""
        some = self.maker.some
        door = some.choice(self.doors)
        credential = some.choice((*[*door.names] * 4, *CREDENTIALS, *OWNERS, *WRONG))
        name = door.names.get(credential, "")
        headers: dict[str, str] = {}
        async with self.client(door) as client:
            if credential and some.random() < 0.5:
                headers["Authorization"] = f"Bearer {credential}"
            elif credential and some.random() < 0.8:
                await client.post("/review", data={"token": credential})
                name = name if client.cookies else ""
            else:  # the cookie of another door
                other = some.choice([one for one in self.doors if one is not door])
                async with self.client(other) as elsewhere:
                    await elsewhere.post("/review", data={"token": credential})
                    client.cookies = elsewhere.cookies
                name = ""
            for _ in range(some.randrange(1, 6)):
                if some.random() < 0.05:
                    self.ask_again()
                odd = self.maker.headers() if some.random() < 0.3 else {}
                odd |= some.choice(STRANGE) if some.random() < 0.1 else {}
                is_strange = any(one.items() & odd.items() for one in STRANGE) or "Origin" in odd
                what = f"{self.what} visit {number} {door.name}"
                by = "" if is_strange else name
                await self.request(client, what, headers | odd, by)

    def ask_again(self) -> None:
        folder, item = self.maker.some.choice(self.folders), self.maker.some.choice([*REVIEWS_OF])
        before = self.reviews()
        self.ask(folder, item)
        for id_, one in self.reviews().items():
            if one.question != before[id_].question:
                self.old_questions.append(before[id_].question)
                self.asked[id_] = one

    async def request(
        self, client: httpx.AsyncClient, what: str, headers: dict[str, str], name: str
    ) -> None:
        some = self.maker.some
        method = some.choice(("GET", "GET", "POST", "POST", "PUT", "HEAD"))
        own = some.choice([*self.asked])
        id_ = some.choice((*[own] * 20, own.partition("-")[2], f"0-{own}", f"{own}-", "x", "0" * 12,
                           "%00", "..%2f..", "a" * 3_000))  # fmt: skip
        path = some.choice(REVIEW_PATHS)
        if some.random() < 0.5:
            method, path = "POST", some.choice(DECIDING_PATHS)
        path = path.replace("{id}", id_)
        what = f"{what} {method} {path[:60]} by {name or 'a stranger'}"
        before = self.reviews()
        query = some.choice(("", "?source=0&start=0", "?source=9&page=-1", "?start=1e9&n=x"))
        content = self.body(path, before.get(id_))
        answer = await client.request(method, path + query, content=content, headers=headers)
        self.tally.by_route[f"review {method}"] += 1
        self.judge_answer(what, answer, name, id_)
        after = self.reviews()
        changed = [one for one in after if _decision(after[one]) != _decision(before[one])]
        is_of_one = "/reviews/" in path
        if is_of_one and changed not in ([], [id_]):
            self.tally.wrong.append(f"{what}: it changed {changed}")
        for one in changed:
            self.judge_change(what, name, one, before[one], after[one])
            if after[one].is_decided and before[one].question[:16] not in content.decode(
                "utf-8", "replace"
            ):
                self.tally.wrong.append(f"{what}: it was not asked this: {content[:200]!r}")

    def judge_answer(self, what: str, answer: httpx.Response, name: str, id_: str) -> None:
        """Note what is wrong with an answer: who may read it, and of which document it is."""
        tally = self.tally
        judge(tally, what, answer)
        if answer.status_code >= 500:
            tally.wrong.append(f"{what}: {answer.status_code}: {answer.text[:200]}")
        marks = set(MARK.findall(answer.text))
        is_picture = answer.headers.get("content-type") == "image/png" and answer.content
        if not name and (marks or is_picture or "R-1042" in answer.text):
            tally.wrong.append(f"{what}: told a stranger: {answer.text[:200]}")
        if any(secret in answer.text for secret in (*CREDENTIALS, *OWNERS)):
            tally.wrong.append(f"{what}: tells a secret")
        if id_ in self.asked and "/reviews/" in what:
            asked = self.asked[id_]
            folder = next(
                one.ledger.folder.parent
                for one in self.all_reviews()
                if id_.startswith(one.folder_id)
            )
            if marks - {self.place(folder, str(asked.subject.item))}:
                tally.wrong.append(f"{what}: another document: {marks}")
            if is_picture and self.pictures.setdefault(id_, answer.content) != answer.content:
                tally.wrong.append(f"{what}: another picture")

    def judge_change(self, what: str, name: str, id_: str, before: Review, after: Review) -> None:
        """Note a decision that is not exactly what this person may do, and nothing else."""
        wrong, may = self.tally.wrong, before.subject.by
        self.tally.by_route[f"review {after.state}"] += 1
        item = f"{before.subject.item} became {after.state} by {after.by}"
        if not name or (may and name not in may):
            wrong.append(f"{what}: {item}, which they may not")
        if after.state == "open":
            if _decision(after) != _decision(self.asked[id_]):
                wrong.append(f"{what}: undone, and not as before: {after}")
            return
        none: dict[str, Any] = dict.fromkeys(("value", "reason", "together", "by"))
        undecided = replace(after, state="open", **none)
        if before.state != "open" or _decision(undecided) != _decision(before):
            wrong.append(f"{what}: {item}, and more: {before} {after}")
        if after.by != name or after.value != expected_value(before, after):
            wrong.append(f"{what}: {item} with {after.value}")

    def body(self, path: str, review: Review | None) -> bytes:
        """Return a sound decision often enough that some are taken, else anything."""
        some = self.maker.some
        if some.random() < 0.02:
            return b'{"json": "' + b"a" * (4 * 1024**2 + some.randrange(9)) + b'"}'
        if some.random() < 0.2:
            return self.maker.content(path)
        if path == "/review":
            secret = f"ticket={some.choice((*TICKETS, *OWNERS))}"
            return some.choice((secret, f"token={some.choice(TICKETS)}")).encode()
        if path.endswith("/accept"):
            rows: Any = [[id_, one.question[: some.choice((0, 4, 16, 64))]]
                         for id_, one in self.asked.items() if some.random() < 0.5]  # fmt: skip
            return json.dumps({"rows": some.choice((rows, self.maker.value()))}).encode(
                "utf-8", "surrogatepass"
            )
        if path == "/review/api/undo":
            told = [one.together for one in self.reviews().values()]
            return json.dumps({"together": [one for one in told if one] or "x"}).encode()
        odd = self.maker.value
        asked = review.question if review is not None else "x"
        told_ = {
            "question": some.choice((*[asked] * 4, *self.old_questions[-1:], odd())),
            "verb": some.choice(("accept", "edit", "edit", "reject", "reject", 7)),
            "reason": some.choice((*["blurred"] * 4, "", odd())),
            "changes": some.choice((*[{"total": "12"}] * 4, {"total": "x"}, odd())),
        }
        if some.random() < 0.1:
            told_["json"] = some.choice(("{", "7", json.dumps(odd()), odd()))
        return json.dumps(told_).encode("utf-8", "surrogatepass")


def _decision(review: Review) -> Review:
    """Return a review without what is no part of its decision: leases, when it was undone."""
    bare = replace(review, lease_by=None, lease_until=None)
    return bare if bare.is_decided else replace(bare, decided_at=None, is_applied=False)


def expected_value(before: Review, after: Review) -> Any:
    """Return the value that a decision has to have; of an edit what else was not edited."""
    answer = before.subject.answer
    if after.state == "rejected":
        return None
    return answer if after.state == "accepted" else {**answer, "total": after.value["total"]}


async def _no_hook(request: Request) -> Response:
    return Response(status_code=404)


def fuzz_review(folder: Path, tally: Tally, seed: int, most: int) -> None:
    """Send requests to the review page of `up` and of `serve`, as two reviewers and strangers."""
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(ReviewFuzz(folder, seed, tally).run(most))


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
    for client in clients:
        client.join()
    if died := live.n_deaths():  # the service may be older, and its workers killed by other tests
        tally.wrong.append(f"{died} workers died")
    return tally


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--minutes", type=float, default=10)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--clients", type=int, default=4)
    given = asked.parse_args()
    root = Path(tempfile.mkdtemp(prefix="paddock-fuzz-"))
    settings = ServiceSettings(trusted_hosts=("127.0.0.1",))
    with live_service(root, service=settings) as live:
        tally = fuzz(live, root, given.seed, given.minutes * 60, 1_000_000, given.clients)
        fuzz_review(root / "reviews", tally, given.seed, 1_000)
    print(f"seed {given.seed}: {tally.n:,} requests in {given.minutes:g} minutes")
    print("statuses:", dict(sorted(tally.statuses.items())))
    print("500 in Ollama's words:", dict(tally.ollamas))
    print(f"slowest: {tally.slowest_s:.1f} s: {tally.slowest}")
    print(f"wrong: {len(tally.wrong)}")
    for one in tally.wrong[:50]:
        print(" ", one)


if __name__ == "__main__":
    main()

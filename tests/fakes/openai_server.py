"""A small server of OpenAI's API that speaks as one program or another, and may cut prompts."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.pool import count

Json = dict[str, Any]


class OpenAIService:
    """A server that sends `answer` in pieces. `bodies` are the chats that it was asked for."""

    def __init__(self, kind: str = "other", *, answer: str = "It leaves at noon.") -> None:
        self.kind = kind
        self.answer = answer
        self.bodies: list[Json] = []
        self.inputs: list[list[str]] = []
        self.headers: Mapping[str, str] = {}
        self.n_most_tokens = 1 << 30
        """What is longer is cut without an error."""
        self.n_cut_tokens: int | None = None
        """What is left of a prompt that is cut; None: as much as it may have."""
        self.tells_usage = True
        self.leaves_out_cached = False
        """It reports only what it had not read before."""
        self.n_most_known: int | None = None
        """What is longer is refused."""
        self.count: Callable[[str], int] = count
        self._read: set[str] = set()
        self.refusal: tuple[int, Any, dict[str, str]] | None = None
        """Status, body and headers of every answer to come."""
        self.refuses_logprobs = False
        self.events: list[bytes] | None = None
        """What a chat answers with, in place of `answer`."""
        self.delta: Json | None = None
        self.finish = "stop"

    @property
    def transport(self) -> httpx.ASGITransport:
        """Return the way to it."""
        routes = [
            Route("/v1/models", self._models),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/embeddings", self._embed, methods=["POST"]),
        ]
        if self.kind == "vllm":
            routes.append(Route("/tokenize", self._tokenize, methods=["POST"]))
        if self.kind == "ollama":
            routes += [Route("/api/tags", self._tags), Route("/api/ps", self._tags)]
        return httpx.ASGITransport(Starlette(routes=routes))

    async def _models(self, request: Request) -> Response:
        self.headers = request.headers
        own: Json = {"id": "m:latest" if self.kind == "ollama" else "m", "object": "model"}
        if self.kind == "vllm":
            own |= {"owned_by": "vllm", "root": "org/m", "max_model_len": 500}
        return self._said({"object": "list", "data": [own]})

    async def _tags(self, request: Request) -> Response:
        one = {"name": "m:latest", "model": "m:latest", "digest": "abc123"}
        return JSONResponse({"models": [one]})

    async def _tokenize(self, request: Request) -> Response:
        body = await request.json()
        text = body.get("prompt") or " ".join(one["content"] for one in body["messages"])
        return JSONResponse({"count": count(text), "max_model_len": 500})

    async def _embed(self, request: Request) -> Response:
        texts = (await request.json())["input"]
        self.inputs.append(texts)
        n_tokens = sum(min(self.count(text), self.n_most_tokens) for text in texts)
        # The last first: their order is told by `index` alone.
        data = [{"index": at, "embedding": [3.0, float(at)]} for at in range(len(texts))][::-1]
        return self._said({"data": data, "usage": {"prompt_tokens": n_tokens}})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if self.refusal is not None:
            return self._said({})
        if self.refuses_logprobs and body.get("logprobs"):
            error = {"message": "logprobs are not supported with this model"}
            return JSONResponse({"error": error}, 400)
        texts = [str(one["content"]) for one in body["messages"]]
        n_sent = sum(map(self.count, texts))
        if self.n_most_known is not None and n_sent > self.n_most_known:
            error = {"message": "too long", "code": "context_length_exceeded"}
            return JSONResponse({"error": error}, 400)
        n_read = self._counted(n_sent)
        if self.leaves_out_cached:
            n_read = max(1, n_read - sum(self.count(text) for text in texts if text in self._read))
            self._read.update(texts)
        return StreamingResponse(self._events(n_read), media_type="text/event-stream")

    def _counted(self, n_sent: int) -> int:
        """Return how many tokens of a prompt are reported as read."""
        if n_sent <= self.n_most_tokens:
            return n_sent
        return self.n_most_tokens if self.n_cut_tokens is None else self.n_cut_tokens

    async def _events(self, n_read: int) -> AsyncIterator[bytes]:
        if self.events is not None:
            for event in self.events:
                yield event
            return
        yield b": a comment\n\n"
        words = self.answer.split(" ")
        for at, word in enumerate(words):
            yield _event({"content": word + (" " if at < len(words) - 1 else "")})
        if self.delta is not None:
            yield _event(self.delta)
        yield _event({}, self.finish)
        if self.tells_usage:
            usage = {"prompt_tokens": n_read, "completion_tokens": len(words)}
            yield b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\r\n\r\n"
        yield b"data: [DONE]\n\n"

    def _said(self, body: Json) -> Response:
        if self.refusal is None:
            return JSONResponse(body)
        status, refused, headers = self.refusal
        if isinstance(refused, str):
            return PlainTextResponse(refused, status, headers)
        return JSONResponse(refused, status, headers)


def _event(delta: Json, finish: str | None = None) -> bytes:
    told = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "model": "m"}
    return b"data: " + json.dumps(told).encode() + b"\n\n"

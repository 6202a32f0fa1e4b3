"""A small server of OpenAI's API that speaks as one program or another, and may cut prompts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.pool import count

Json = dict[str, Any]


class OpenAIService:
    """Says `answer` in pieces. `bodies` are the chats that it was asked for."""

    def __init__(self, kind: str = "other", *, answer: str = "It leaves at noon.") -> None:
        self.kind = kind
        self.answer = answer
        self.bodies: list[Json] = []
        self.headers: Mapping[str, str] = {}
        self.n_most_tokens = 1 << 30
        """What is longer is cut without a word."""
        self.tells_usage = True
        self.refusal: tuple[int, Any, dict[str, str]] | None = None
        """Status, body and headers of every answer to come."""
        self.events: list[bytes] | None = None
        """What a chat answers with, in place of `answer`."""
        self.delta: Json | None = None
        self.finish = "stop"

    @property
    def transport(self) -> httpx.ASGITransport:
        """Give the way to it."""
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
        n_tokens = min(sum(map(count, texts)), self.n_most_tokens)
        # The last first: their order is told by `index` alone.
        data = [{"index": at, "embedding": [3.0, float(at)]} for at in range(len(texts))][::-1]
        return self._said({"data": data, "usage": {"prompt_tokens": n_tokens}})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if self.refusal is not None:
            return self._said({})
        n_read = sum(count(str(one["content"])) for one in body["messages"])
        return StreamingResponse(
            self._events(min(n_read, self.n_most_tokens)), media_type="text/event-stream"
        )

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

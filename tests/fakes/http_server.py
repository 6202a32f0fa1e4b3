"""Small HTTP servers: a function answers each request, and what was asked is kept."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Json = dict[str, Any]


class Request(NamedTuple):
    """What was asked; `headers` are read by names in any case."""

    method: str
    path: str
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Answer(NamedTuple):
    body: bytes = b""
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = {}


NOT_FOUND = Answer(b"404 page not found", 404, "text/plain")
Responder = Callable[[Request], Answer]


class HttpServer(ThreadingHTTPServer):
    """A server on a free port of this machine."""

    daemon_threads = True

    def __init__(self, answer: Responder) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.seen: list[Request] = []
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}"


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        request = Request(self.command, self.path, self.headers, body)
        self.server.seen.append(request)
        answer = self.server.answer(request)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client was killed
            self.send_response(answer.status)
            self.send_header("content-type", answer.media_type)
            self.send_header("content-length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

    do_GET = do_POST = do_DELETE = do_HEAD = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def serving(answer: Responder) -> Iterator[HttpServer]:
    with HttpServer(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def by_path(**table: tuple[int, bytes]) -> Responder:
    """Answer by the path: `api__tags` is `/api/tags`."""
    answers = {
        "/" + path.replace("__", "/"): Answer(body, status)
        for path, (status, body) in table.items()
    }
    return lambda request: answers.get(request.path, NOT_FOUND)


def openai(chat: Callable[[Json], Answer | Iterable[Json]], model: str = "m") -> Responder:
    """Speak OpenAI's API: one model; `chat` gives the events of an answer, or another answer."""

    def answer(request: Request) -> Answer:
        if request.path == "/v1/models":
            listed = {"object": "list", "data": [{"id": model, "object": "model"}]}
            return Answer(json.dumps(listed).encode())
        if request.path != "/v1/chat/completions":
            return NOT_FOUND
        said = chat(request.json())
        if isinstance(said, Answer):
            return said
        lines = [*map(json.dumps, said), "[DONE]"]
        return Answer(
            "".join(f"data: {line}\n\n" for line in lines).encode(), media_type="text/event-stream"
        )

    return answer


def said(text: str, **usage: int) -> list[Json]:
    """Return the events of an answer that comes in one piece."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    return [
        {"choices": [choice], "model": "m"},
        *([{"choices": [], "usage": usage}] if usage else []),
    ]

"""A service whose model calls the first tool and says its result; it writes what clients send.

uv run python -m tests.conformance.record_clients FILE [COMMAND …]

FILE gets a line of JSON for each request whose fields are not all in another one of that client:
client, path, body, status, `Warning`, and why it was refused. Long texts are cut. Without a command
it waits; the command finds the address in PADDOCK_URL. So client_requests.jsonl was made.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tests.conformance.test_ollama_clients import TOOLS_TEMPLATE
from tests.fakes.tool_caller import call_tools
from tests.live import live_service

METHODS = ["GET", "HEAD", "POST", "DELETE", "OPTIONS"]
VALUES = ("arguments", "type", "role", "name", "tool_choice")


def shortened(value: Any, name: str = "") -> Any:
    """Return a body whose texts are short, with all of its fields."""
    if isinstance(value, str):
        return value if len(value) <= 24 or name in VALUES else value[:24] + "…"
    if isinstance(value, list):
        return [shortened(one, name) for one in value]
    if isinstance(value, dict):
        return {below: shortened(one, below) for below, one in value.items()}
    return value


def fields_in(value: Any, path: str = "") -> Iterator[str]:
    below = {"[]": value} if not isinstance(value, list | dict) else value
    for name, one in below.items() if isinstance(below, dict) else (("[]", one) for one in below):
        yield f"{path}.{name}"
        if isinstance(one, list | dict):
            yield from fields_in(one, f"{path}.{name}")


def proxy(url: str, file: Path) -> Starlette:
    client = httpx.AsyncClient(base_url=url, timeout=120, trust_env=False)
    lines: dict[tuple[Any, ...], str] = {}

    async def passed_on(request: Request) -> StreamingResponse:
        body = await request.body()
        own = {"host", "content-length", "accept-encoding", "connection"}
        headers = {name: value for name, value in request.headers.items() if name not in own}
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        sent = client.build_request(request.method, path, headers=headers, content=body)
        answer = await client.send(sent, stream=True)
        line = {"client": headers.get("user-agent", ""), "path": path, "status": answer.status_code}
        if "warning" in answer.headers:
            line["warning"] = answer.headers["warning"]
        if answer.status_code >= 400:
            line["why"] = (await answer.aread()).decode()[:500]
        with contextlib.suppress(ValueError):
            line["body"] = shortened(json.loads(body))
            key = (*(line[name] for name in ("client", "path", "status")), *fields_in(line["body"]))
            if not any(set(key) <= set(known) for known in lines):
                for known in [known for known in lines if set(known) < set(key)]:
                    del lines[known]
                lines[key] = json.dumps(line, ensure_ascii=False)
                file.write_text("".join(f"{one}\n" for one in lines.values()))  # noqa: ASYNC240

        async def pieces() -> AsyncIterator[bytes]:
            if answer.is_stream_consumed:
                yield answer.content
            else:
                async for piece in answer.aiter_bytes():
                    yield piece
            await answer.aclose()

        hop = {"content-length", "transfer-encoding", "connection", "content-encoding"}
        kept = {name: value for name, value in answer.headers.items() if name not in hop}
        return StreamingResponse(pieces(), answer.status_code, kept)

    return Starlette(routes=[Route("/{path:path}", passed_on, methods=METHODS)])


def main() -> None:
    file, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory() as root, live_service(Path(root)) as live:
        with live.client() as client:
            made = {"model": "caller", "from": "smollm2:135m", "template": TOOLS_TEMPLATE}
            client.post("/api/create", json={**made, "stream": False}).raise_for_status()
        door = socket.socket()
        door.bind(("127.0.0.1", int(os.environ.get("PADDOCK_PORT", 0))))
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(proxy(live.url, Path(file)), log_level="error"))
        with call_tools(live.service.pool):
            thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
            thread.start()
            print(url, flush=True)
            if command:
                sys.exit(subprocess.run(command, env={**os.environ, "PADDOCK_URL": url}).returncode)
            thread.join()


if __name__ == "__main__":
    main()

"""A stand-in for paperless-ngx, by the public description of its API (3.0.5, version 10).

Has what `examples/paperless` asks for: lists in pages, downloads, `PATCH` that replaces lists, bulk
edits that add to them, tokens, and refusals with the server's statuses and forms.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "paperless-17"
PAGE = 25
LISTS = ("correspondents", "document_types", "tags", "custom_fields")


class Paperless(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = int(self.server_address[1])
        self.lists: dict[str, list[dict[str, Any]]] = {name: [] for name in LISTS}
        self.documents: dict[int, dict[str, Any]] = {}
        self.files: dict[int, bytes] = {}
        self.requests: list[tuple[str, str, Any]] = []
        """Method, path and body of each."""
        self.faults: deque[int | str] = deque()
        """Of the next requests that change something: a status; `cut` after it was done."""
        self.before_write: Callable[[], None] = lambda: None
        self.delay_s = 0.0
        self.tokens = {TOKEN}
        self.broken: set[int] = set()
        """Documents whose file it cannot read."""
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, which: str, *names: str, **more: Any) -> None:
        rows = self.lists[which]
        rows += [{"id": len(rows) + n, "name": name, **more} for n, name in enumerate(names, 1)]

    def put(self, content: bytes, file_name: str, **fields: Any) -> int:
        number = max(self.documents, default=0) + 1
        self.files[number] = content
        empty: dict[str, Any] = {
            "correspondent": None,
            "document_type": None,
            "storage_path": None,
            "notes": [],
        }
        self.documents[number] = {
            **{"id": number, "title": file_name.rpartition(".")[0], **empty, "owner": 3},
            **{"tags": [], "custom_fields": [], "original_file_name": file_name, "content": ""},
            **{"versions": [{"id": number, "checksum": f"c{number}", "is_root": True}]},
            **fields,
        }
        return number

    def changes(self) -> list[tuple[str, str, Any]]:
        return [request for request in self.requests if request[0] != "GET"]


class _Handler(BaseHTTPRequestHandler):
    server: Paperless

    def do_GET(self) -> None:
        self._answer(None)

    def do_PATCH(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    do_POST = do_PATCH

    def _answer(self, body: Any) -> None:
        paperless, is_cut = self.server, False
        with paperless.lock:
            paperless.requests.append((self.command, self.path, body))
            if body is not None:
                paperless.before_write()
                if paperless.faults:
                    fault = paperless.faults.popleft()
                    is_cut = fault == "cut"
                    if not is_cut:
                        return self._send(int(fault), {"detail": "A fault."})
            if self.headers["Authorization"] not in {f"Token {one}" for one in paperless.tokens}:
                return self._send(401, {"detail": "Invalid token."})
            status, value = self._done(body)
        if body is not None:
            time.sleep(paperless.delay_s)
        if is_cut:
            self.close_connection = True
            return None
        return self._send(status, value)

    def _done(self, body: Any) -> tuple[int, Any]:
        paperless, asked = self.server, urlsplit(self.path)
        missing = (404, {"detail": "No Document matches the given query."})
        match [part for part in asked.path.split("/") if part]:
            case ["api", "documents", "bulk_edit"] if body is not None:
                return self._bulk_edit(body)
            case ["api", "documents", number, "download"]:
                content = paperless.files.get(int(number))
                if int(number) in paperless.broken:
                    return 500, {"detail": "Server Error"}
                return missing if content is None else (200, content)
            case ["api", "documents", number]:
                document = paperless.documents.get(int(number))
                if document is None:
                    return missing
                if body is not None and (fault := self._fault_of(body)):
                    return 400, fault
                document |= body or {}  # its lists are replaced
                return 200, document
            case ["api", which] if which == "documents" or which in LISTS:
                return 200, self._page(which, parse_qs(asked.query))
        return missing

    def _page(self, which: str, query: Mapping[str, list[str]]) -> dict[str, Any]:
        rows = list(self.server.lists.get(which, self.server.documents.values()))
        if which == "documents" and query.get("is_in_inbox") == ["true"]:
            inbox = {tag["id"] for tag in self.server.lists["tags"] if tag["is_inbox_tag"]}
            rows = [row for row in rows if inbox.intersection(row["tags"])]
        size, at = min(PAGE, int(query.get("page_size", [PAGE])[0])), int(query.get("page", [1])[0])
        fields = query["fields"][0].split(",") if "fields" in query else None
        found = rows[(at - 1) * size : at * size]
        link = None
        if at * size < len(rows):  # a server behind a proxy knows itself by another name
            kept = "&".join(f"{key}={of[0]}" for key, of in query.items() if key != "page")
            link = f"http://localhost:8000/api/{which}/?{kept}&page={at + 1}"
        shown = [row if fields is None else {key: row[key] for key in fields} for row in found]
        if which != "documents":  # this changes with each document
            shown = [{**row, "document_count": len(self.server.changes())} for row in shown]
        return {"count": len(rows), "next": link, "previous": None, "results": shown}

    def _fault_of(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        for key, which in (("correspondent", LISTS[0]), ("document_type", LISTS[1])):
            known = {None, *(row["id"] for row in self.server.lists[which])}
            if body.get(key) not in known:
                return {key: [f'Invalid pk "{body[key]}" - object does not exist.']}
        return {"title": ["Ensure this field has no more than 128 characters."]} if len(
            body.get("title", "")
        ) > 128 else None  # fmt: skip

    def _bulk_edit(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        documents, given = self.server.documents, body["parameters"]
        if not set(body["documents"]) <= documents.keys():
            return 400, {"documents": ["Some documents in documents don't exist."]}
        of_tags = body["method"] == "modify_tags"
        which = "tags" if of_tags else "custom_fields"
        added, removed = given[f"add_{which}"], given[f"remove_{which}"]
        known = {row["id"] for row in self.server.lists[which]}
        if not {int(one) for one in [*added, *removed]} <= known:
            return 400, {f"add_{which}": ["Some of these don't exist or were specified twice."]}
        for document in (documents[number] for number in body["documents"]):
            if of_tags:
                document["tags"] = sorted({*document["tags"], *added} - {*removed})
                continue
            values = {one["field"]: one["value"] for one in document["custom_fields"]}
            values |= {int(field): value for field, value in added.items()}
            kept = {field: value for field, value in values.items() if field not in removed}
            document["custom_fields"] = [{"field": at, "value": of} for at, of in kept.items()]
        return 200, {"result": "OK"}

    def _send(self, status: int, value: Any) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        kind = "application/pdf" if isinstance(value, bytes) else "application/json"
        self.send_header("Content-Type", kind)
        if status >= 500:
            self.send_header("Retry-After", "0")
        self.send_header("X-Api-Version", "10")
        self.send_header("X-Version", "3.0.5")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def paperless() -> Iterator[Paperless]:
    with Paperless() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()

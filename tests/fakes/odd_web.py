"""A small web server by plain sockets: it sends the bytes that a test gives for a path."""

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

Answers = bytes | list[bytes]
"""A whole answer with its head, or one for each request in turn, of which the last one stays."""


def answer(body: bytes, *lines: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    """Return an answer that says nothing of its end but by these lines of its head."""
    return "\r\n".join((f"HTTP/{version} {status}", *lines, "", "")).encode() + body


def sized(body: bytes, *lines: str, status: str = "200 OK", stated: int | None = None) -> bytes:
    length = len(body) if stated is None else stated
    return answer(body, f"Content-Length: {length}", *lines, status=status)


def chunked(body: bytes, *lines: str, size: int = 1000, is_ended: bool = True) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return answer(chunks + b"0\r\n\r\n" * is_ended, "Transfer-Encoding: chunked", *lines)


class OddWeb(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http://{self.host}/office/"
        self.gets, self.heads = dict[str, Answers](), dict[str, Answers]()
        self.requests = list[str]()

    def put(self, documents: Mapping[str, bytes]) -> None:
        """Have documents that are answered as they should be, and the page that links to them."""
        for name, body in documents.items():
            self.gets[name] = sized(body, f'ETag: "{name} {hash(body)}"')
            self.heads[name] = sized(body, f'ETag: "{name} {hash(body)}"').removesuffix(body)
        links = "".join(f'<a href="{name}">x</a>' for name in self.gets if name)
        self.gets[""] = sized(links.encode(), "Content-Type: text/html")


class _Connection(socketserver.StreamRequestHandler):
    server: OddWeb

    def handle(self) -> None:
        method, _, rest = self.rfile.readline().decode().partition(" ")
        while self.rfile.readline().strip():
            pass
        name = rest.partition(" ")[0].removeprefix("/office/")
        self.server.requests.append(f"{method} {name}")
        answers = (self.server.heads if method == "HEAD" else self.server.gets).get(name)
        if isinstance(answers, list):
            answers = answers.pop(0) if len(answers) > 1 else answers[0]
        nothing = sized(b"" if method == "HEAD" else b"none", status="404 Not Found")
        self.wfile.write(nothing if answers is None else answers)


@contextmanager
def odd_web() -> Iterator[OddWeb]:
    with OddWeb() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

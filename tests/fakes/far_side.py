"""A server of files and models in a thread, that can be as bad as the internet: it cuts, stalls,
redirects, asks for tokens, knows no ranges; and it counts what it sent."""

import base64
import datetime
import hashlib
import ipaddress
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.gguf import gguf_head
from tests.waiting import PATIENCE_S

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MODEL = "application/vnd.ollama.image.model"
TEMPLATE = "application/vnd.ollama.image.template"
CONFIG = "application/vnd.docker.container.image.v1+json"


def gguf(n_bytes: int = 4096, seed: int = 0, architecture: str = "llama") -> bytes:
    """Return a whole GGUF file of about so many bytes; its weights differ with the seed."""

    n_weights = max(1, n_bytes // 4)
    head = gguf_head({"general.architecture": architecture}, 1)
    head += struct.pack("<Q7sIQIQ", 7, b"weights", 1, n_weights, 0, 0)
    pattern = hashlib.sha256(str(seed).encode()).digest() * 257
    data = (pattern * (n_weights * 4 // len(pattern) + 1))[: n_weights * 4]
    return head + b"\0" * (-len(head) % 32) + data


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Seen:
    """One request, and what was sent for it."""

    method: str
    path: str
    headers: dict[str, str]
    target: str = ""
    """With its query."""
    status: int = 0
    n_sent: int = 0


@dataclass
class FarSide:
    """What is there, and how badly it behaves. Paths are without their query."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """By path: answered in this order before anything else."""
    etags: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """The next large answers are cut after so many bytes."""
    knows_ranges: bool = True
    bytes_per_s: float = 0.0
    stalls: int = 0
    """So many large answers stand still in the middle."""
    token: str = ""
    """Registry's paths want it; `/token` gives it."""
    password: tuple[str, str] | None = None
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    open_now: int = 0
    sending: int = 0
    most_open: int = 0

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def publish(self, repository: str, tag: str, **layers: bytes) -> str:
        """Put a model there, its `model` layer first; gives the manifest's path."""
        kinds = {"model": MODEL, "template": TEMPLATE, "config": CONFIG}
        told = []
        for kind, content in layers.items():
            self.files[f"/v2/{repository}/blobs/{digest_of(content)}"] = content
            media_type = kinds.get(kind, f"application/vnd.ollama.image.{kind}")
            layer = {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
            told.append(layer)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST}
        config = [layer for layer in told if layer["mediaType"] == CONFIG]
        if config:
            manifest["config"] = config[0]
        manifest["layers"] = [layer for layer in told if layer not in config]
        path = f"/v2/{repository}/manifests/{tag}"
        self.files[path] = json.dumps(manifest).encode()
        return path

    def sent(self, ending: str = "") -> int:
        """Return how many bytes were sent for paths that end so."""
        return sum(one.n_sent for one in self.seen if one.path.endswith(ending))

    def settle(self) -> None:
        """Wait until no one is being answered, so that the counts are final."""
        while self.open_now:
            time.sleep(0.01)

    def asked(self, ending: str) -> list[Seen]:
        return [one for one in self.seen if one.path.endswith(ending)]


def certificate(folder: Path) -> Path:
    """Make a certificate for this machine, signed by no one else; gives it with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(encoding))
    return file


@contextmanager
def far_side(tls: Path | None = None) -> Iterator[FarSide]:
    """Serve on a free port of this machine; `tls`: a certificate with its key."""
    side = FarSide()

    class Handler(_Handler):
        far = side

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    side.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield side
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    far: FarSide
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        headers = {key.lower(): value for key, value in self.headers.items()}
        seen = Seen(self.command, path, headers, self.path)
        with self.far.lock:
            self.far.seen.append(seen)
            self.far.open_now += 1
        try:
            self._answer(seen, path)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.far.lock:
                self.far.open_now -= 1

    do_HEAD = do_GET

    def _answer(self, seen: Seen, path: str) -> None:
        far = self.far
        if path == "/token" and path not in far.redirects:
            return self._give_token(seen)
        is_asking = far.token and path.startswith("/v2/")
        if is_asking and seen.headers.get("authorization") != f"Bearer {far.token}":
            realm = f'Bearer realm="{far.url}/token",service="far",scope="repository:x:pull"'
            return self._plain(seen, 401, b"{}", {"WWW-Authenticate": realm})
        if far.statuses.get(path):
            return self._plain(seen, far.statuses[path].pop(0), b"<html>no</html>", {})
        if path in far.redirects:
            return self._plain(seen, 307, b"", {"Location": far.redirects[path]})
        if path not in far.files:
            said = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
            return self._plain(seen, 404, said, {})
        return self._file(seen, path, far.files[path])

    def _give_token(self, seen: Seen) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        if self.far.password is not None:
            pair = base64.b64encode(":".join(self.far.password).encode()).decode()
            if seen.headers.get("authorization") != f"Basic {pair}":
                return self._plain(seen, 401, b'{"details":"incorrect username or password"}', {})
        assert asked["service"] == ["far"], "the service is passed on"
        assert asked["scope"] == ["repository:x:pull"], "the scope is passed on"
        return self._plain(seen, 200, json.dumps({"token": self.far.token}).encode(), {})

    def _plain(self, seen: Seen, status: int, body: bytes, headers: dict[str, str]) -> None:
        seen.status = status
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _file(self, seen: Seen, path: str, content: bytes) -> None:
        begin, end = 0, len(content)
        etag = self.far.etags.get(path, "")
        told = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        may = self.headers.get("If-Range", etag) == etag
        seen.status = 206 if told and self.far.knows_ranges and may else 200
        if told and seen.status == 206:
            begin, end = int(told[1]), min(int(told[2]) + 1, len(content))
        self.send_response(seen.status)
        self.send_header("Content-Length", str(end - begin))
        if seen.status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        if self.command != "HEAD":
            self._body(seen, content[begin:end])

    def _body(self, seen: Seen, body: bytes) -> None:
        far = self.far
        is_large = len(body) > 2000
        with far.lock:
            cut = far.cuts.pop(0) if is_large and far.cuts else len(body)
            is_stalling = is_large and far.stalls > 0
            far.stalls -= is_stalling
            far.sending += 1
            far.most_open = max(far.most_open, far.sending)
        step = max(1, int(far.bytes_per_s / 20)) if far.bytes_per_s else 64 * 1024
        if is_stalling:
            cut = min(cut, len(body) // 2)
        for at in range(0, cut, step):
            piece = body[at : min(at + step, cut)]
            if far.bytes_per_s:
                time.sleep(len(piece) / far.bytes_per_s)
            if at + step >= cut:  # who has the last piece may ask for the next part at once
                with far.lock:
                    far.sending -= 1
            self.wfile.write(piece)
            seen.n_sent += len(piece)
        if cut < len(body):
            if is_stalling:
                self.connection.settimeout(3600)
                self.connection.recv(1)  # until the other side gives up
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

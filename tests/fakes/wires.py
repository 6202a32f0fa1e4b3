"""What lies between two machines: a wire that is cut after some bytes, and a proxy for HTTP."""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Wire:
    """A way to another port; its next connections end after `cuts` bytes, up and down."""

    port: int = 0
    cuts: list[int] = field(default_factory=list)
    n_cut: int = 0
    n_bytes: int = 0
    """Up and down, over all connections that have ended."""
    asked: list[str] = field(default_factory=list)
    """Of a proxy: what it was asked for."""
    held: bytes = b""
    """The first request that begins with these bytes waits for six seconds."""


@contextmanager
def cutting_wire(target_port: int, port: int = 0) -> Iterator[Wire]:
    """Pass every connection on to a port of this machine.

    Its end cuts them, and refuses others until there is another wire at its port.
    """
    wire = Wire()

    def serve(client: socket.socket) -> None:
        limit = wire.cuts.pop(0) if wire.cuts else None
        with client, socket.create_connection(("127.0.0.1", target_port)) as target:
            n_bytes, is_cut = _pass_on(client, target, limit, wire)
            wire.n_cut += is_cut
            wire.n_bytes += n_bytes

    with _listening(serve, port) as wire.port:
        yield wire


@contextmanager
def http_proxy() -> Iterator[Wire]:
    """A proxy that speaks CONNECT."""
    wire = Wire()

    def serve(client: socket.socket) -> None:
        with client:
            head = _head(client)
            if not head:
                return
            method, address, _ = head.split(b" ", 2)
            wire.asked.append(f"{method.decode()} {address.decode()}")
            assert method == b"CONNECT"
            host, _, port = address.decode().rpartition(":")
            with socket.create_connection((host, int(port))) as target:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _pass_on(client, target, None)

    with _listening(serve) as port:
        wire.port = port
        yield wire


@contextmanager
def _listening(serve: object, port: int = 0) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", port))
    listener.settimeout(0.05)
    is_over = threading.Event()
    threads: dict[threading.Thread, socket.socket] = {}

    def guarded(client: socket.socket) -> None:
        with suppress(OSError):
            serve(client)  # type: ignore[operator]

    def accept() -> None:
        while not is_over.is_set():
            with suppress(TimeoutError):
                client, _ = listener.accept()
                client.settimeout(None)
                thread = threading.Thread(target=guarded, args=(client,), daemon=True)
                threads[thread] = client
                thread.start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        is_over.set()
        accepting.join()
        listener.close()
        for thread, client in threads.items():
            with suppress(OSError):  # it has ended by itself
                client.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


def _head(client: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = client.recv(4096)
        if not piece:
            return b""
        head += piece
    return head


def _pass_on(
    client: socket.socket, target: socket.socket, limit: int | None, wire: Wire | None = None
) -> tuple[int, bool]:
    """Pass bytes both ways until one side ends, or `limit` is reached: then both are cut."""
    n_bytes = 0
    while True:
        ready, _, _ = select.select([client, target], [], [], 20)
        if not ready:
            return n_bytes, False
        for one in ready:
            piece = one.recv(16 * 1024)
            if not piece:
                return n_bytes, False
            if limit is not None:
                piece = piece[: limit - n_bytes]
            if wire and wire.held and piece.startswith(wire.held):
                wire.held = b""
                time.sleep(6)
            (target if one is client else client).sendall(piece)
            n_bytes += len(piece)
            if n_bytes == limit:
                return n_bytes, True


@contextmanager
def raw_answers(answer: bytes, endless: bytes = b"") -> Iterator[str]:
    """Answer each connection with these bytes, then with `endless` until the client leaves.

    Gives the address.
    """

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            client.sendall(answer)
            while endless:
                client.sendall(endless)

    with _listening(serve) as port:
        yield f"http://127.0.0.1:{port}"

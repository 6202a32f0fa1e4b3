"""Which service is found, and which key it is shown."""

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from paddock.engine.api.app import get_key_proof, make_middleware
from paddock.engine.api.errors import with_error_responses
from paddock.engine.api.request_log import RequestLog
from paddock.engine.settings import ServiceSettings
from paddock.engine.system import light_http, socket_owners
from paddock.engine.system.key_proof import PROOF_PATH, home_secret, knows_key
from paddock.engine.system.records import replace
from paddock.runner.daemon import service_lookup
from paddock.runner.daemon.service_client import ServiceError
from paddock.runner.settings import Settings, read_settings
from tests.fakes.http_server import by_path, serving
from tests.waiting import PATIENCE_S

READY = (200, b'{"status":"ready"}')
OLLAMA = (200, b"Ollama is running")


def settings(tmp_path: Path, host: str, **variables: str) -> Settings:
    return read_settings(environ={"PADDOCK_HOST": host, **variables}, home=tmp_path)


def test_a_service_is_told_from_ollama_and_from_others(tmp_path: Path) -> None:
    with (
        serving(by_path(readyz=READY)) as ours,
        serving(by_path(**{"": OLLAMA})) as ollama,
        serving(by_path()) as other,
    ):
        kinds = [
            service_lookup.identify_server(settings(tmp_path, service.host).address)
            for service in (ours, ollama, other)
        ]
    assert kinds == ["paddock", "Ollama", "another program"]
    assert service_lookup.identify_server(settings(tmp_path, "127.0.0.1:1").address) is None


def test_where_no_service_runs_it_is_told_how_one_starts(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        service_lookup.all_services(settings(tmp_path, "127.0.0.1:1"))
    assert str(caught.value) == (
        "No model is in memory: no Paddock service runs.\n"
        "  The next `paddock run` starts one; `paddock serve` starts one for other programs."
    )
    with serving(by_path(**{"": OLLAMA})) as server, pytest.raises(ServiceError) as other:
        service_lookup.all_services(settings(tmp_path, server.host))
    assert f"runs (at http://{server.host} Ollama answers).\n" in str(other.value)


def test_objects_are_asked_and_sent_with_the_key(tmp_path: Path) -> None:
    with serving(
        by_path(readyz=READY, api__tags=(200, b'{"models":[]}'), api__copy=(200, b""))
    ) as server:
        client = service_lookup.find_service(
            settings(tmp_path, server.host, PADDOCK_API_KEY="a key")
        )
        assert client is not None
        with client:
            assert client.get("/api/tags") == {"models": []}
            assert client.post("/api/copy", {"source": "a", "destination": "b"}) == {}
    (_, _, headers, _), (method, path, _, body) = server.seen[-2:]
    assert headers["Authorization"] == "Bearer a key"
    assert (method, path, json.loads(body)) == (
        "POST",
        "/api/copy",
        {"source": "a", "destination": "b"},
    )


def test_the_key_is_shown_to_the_host_that_the_person_names(tmp_path: Path) -> None:
    own = read_settings(
        tmp_path,
        environ={"PADDOCK_API_KEY": "secret", "PADDOCK_HOST": "gpu.example"},
        home=tmp_path,
    )
    assert service_lookup._api_key(own) == ("secret", False)


def unwritten(tmp_path: Path, host: str, **variables: str) -> Settings:
    """Return settings in which an address is the default."""
    found = settings(tmp_path, host, **variables)
    return replace(found, origins={})


def test_an_address_that_no_one_wrote_is_asked_where_ones_own_process_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(by_path(readyz=READY, api__tags=(200, b"{}"))) as server:
        found = unwritten(tmp_path, server.host, PADDOCK_API_KEY="secret")
        client = service_lookup.find_service(found)
        assert client is not None
        with client:
            assert client.get("/api/tags") == {}
            n_own = len(server.seen)
            monkeypatch.setattr(socket_owners, "is_own_listener", lambda host, port: False)
            with pytest.raises(ServiceError, match="Another program listens at"):
                client.get("/api/tags")  # it has ended, and another user took its port
        assert service_lookup.find_service(found) is None
        assert service_lookup.identify_service(found) == "another user's program"
        assert {path for _, path, _, _ in server.seen[n_own:]} == {"/readyz"}
        monkeypatch.setattr(socket_owners, "is_own_listener", lambda host, port: None)
        assert service_lookup.find_service(found) is None  # nor does it know this user's secret
        assert not any("secret" in str(headers) for _, _, headers, _ in server.seen)
        named = service_lookup.find_service(settings(tmp_path, server.host))
        assert named is not None  # what a person writes is meant
        with named:
            assert named.get("/api/tags") == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TRIED: only root has processes of other users")
def test_another_users_listener_gets_nothing(tmp_path: Path) -> None:
    code = (
        "import os, socket; os.setuid(12345); s = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\ns.accept()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        host = f"127.0.0.1:{int(other.stdout.readline())}"
        try:
            port = int(host.rpartition(":")[2])
            assert socket_owners.listener_owner("127.0.0.1", port) == 12345
            assert service_lookup._is_ours(unwritten(tmp_path, host)) is False
        finally:
            other.kill()


@contextmanager
def proving(settings: ServiceSettings) -> Iterator[str]:
    """Yield the address of a service of which only readiness and proof answer."""
    app = Starlette(
        routes=[
            Route("/readyz", lambda request: JSONResponse({})),
            Route(PROOF_PATH, with_error_responses(get_key_proof)),
        ],
        middleware=make_middleware(settings, RequestLog()),
    )
    app.state.service = SimpleNamespace(settings=settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def relaying(host: str) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the address of a program that passes all on to another one, and what it saw."""
    seen: list[bytes] = []

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            seen.append(self.request.recv(65536))
            with socket.create_connection(host.split(":")) as real:  # type: ignore[arg-type]
                real.sendall(seen[-1])
                with suppress(OSError):
                    while data := real.recv(65536):
                        self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever).start()
        try:
            yield "{}:{}".format(*server.server_address), seen
        finally:
            server.shutdown()


def test_a_key_goes_only_to_who_proves_to_know_it(tmp_path: Path) -> None:
    keys, state = tmp_path / "keys", tmp_path / "state"
    keys.write_text("hush me\n")
    own = {"PADDOCK_API_KEYS": str(keys)}
    with proving(ServiceSettings(api_keys_file=keys, state_dir=state)) as host:
        url = f"http://{host}"
        assert not knows_key(url, home_secret(tmp_path / "other"), timeout_s=PATIENCE_S)
        assert knows_key(url, home_secret(state), timeout_s=PATIENCE_S)
        assert knows_key(url, "hush", timeout_s=PATIENCE_S) and not knows_key(
            url, "hush2", timeout_s=PATIENCE_S
        )
        for query in ("", "?nonce=&proof=", "?nonce=a&proof=b", "?nonce=a", f"?{'a=b&' * 500}"):
            assert light_http.get(f"{url}{PROOF_PATH}{query}", timeout_s=PATIENCE_S)[0] == 403
        client = service_lookup.find_service(unwritten(tmp_path, host, **own))
        assert client is not None and client.api_key == "hush"
        client.close()
        # Who passes the question on to the real server has another address.
        with relaying(host) as (elsewhere, seen):
            for variables in (own, {"PADDOCK_API_KEY": "hush"}):
                fooled = service_lookup.find_service(unwritten(tmp_path, elsewhere, **variables))
                assert fooled is not None and fooled.api_key == ""
                fooled.close()
            assert b"key-proof" in b"".join(seen) and b"hush" not in b"".join(seen)

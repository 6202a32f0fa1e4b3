"""Which service is found, and which key it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddock.runner.daemon import service_client
from paddock.runner.daemon.service_client import ServiceError
from paddock.runner.settings import Settings, read_settings
from tests.fakes.answers import OLLAMA, READY, serving


def settings(tmp_path: Path, host: str, **variables: str) -> Settings:
    return read_settings(environ={"PADDOCK_HOST": host, **variables}, home=tmp_path)


def test_a_service_is_told_from_ollama_and_from_others(tmp_path: Path) -> None:
    with serving(readyz=READY) as ours, serving(**{"": OLLAMA}) as ollama, serving() as other:
        kinds = [
            service_client.identify_server(settings(tmp_path, service.host).address)
            for service in (ours, ollama, other)
        ]
    assert kinds == ["paddock", "Ollama", "another program"]
    assert service_client.identify_server(settings(tmp_path, "127.0.0.1:1").address) is None


def test_a_service_that_is_ending_is_still_ours(tmp_path: Path) -> None:
    with serving(readyz=(503, b'{"status":"stopping"}')) as server:
        assert service_client.identify_server(settings(tmp_path, server.host).address) == "paddock"


def test_on_this_machine_no_service_is_needed(tmp_path: Path) -> None:
    assert service_client.find_service(settings(tmp_path, "127.0.0.1:1")) is None
    with serving(**{"": OLLAMA}) as server:
        assert service_client.find_service(settings(tmp_path, server.host)) is None


def test_another_machine_that_does_not_answer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_client, "is_this_machine", lambda address: False)
    with pytest.raises(ServiceError) as caught:
        service_client.find_service(settings(tmp_path, "127.0.0.1:1"))
    assert str(caught.value) == (
        "No service answers at http://127.0.0.1:1 (PADDOCK_HOST).\n  Start one there: paddock serve"
    )
    with serving(**{"": OLLAMA}) as server, pytest.raises(ServiceError) as caught:
        service_client.find_service(settings(tmp_path, server.host))
    assert str(caught.value) == (
        f"At http://{server.host} (PADDOCK_HOST) Ollama answers, not Paddock."
    )


def test_where_no_service_runs_it_is_told_how_one_starts(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        service_client.all_services(settings(tmp_path, "127.0.0.1:1"))
    assert str(caught.value) == (
        "No model is in memory: no Paddock service runs.\n"
        "  The next `paddock run` starts one; `paddock serve` starts one for other programs."
    )
    with serving(**{"": OLLAMA}) as server, pytest.raises(ServiceError) as other:
        service_client.all_services(settings(tmp_path, server.host))
    assert f"runs (at http://{server.host} Ollama answers).\n" in str(other.value)


def test_objects_are_asked_and_sent_with_the_key(tmp_path: Path) -> None:
    with serving(readyz=READY, api__tags=(200, b'{"models":[]}'), api__copy=(200, b"")) as server:
        client = service_client.find_service(
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
    assert service_client._api_key(own) == "secret"


def test_a_reader_of_the_services_keys_needs_no_other(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    environ = {"PADDOCK_API_KEYS": str(keys)}
    assert service_client._api_key(read_settings(environ=environ, home=tmp_path)) == ""
    keys.write_text(f"# ours\nsha256:{'0' * 64} ops\nplain me # mine\n")
    assert service_client._api_key(read_settings(environ=environ, home=tmp_path)) == "plain"
    environ["PADDOCK_API_KEY"] = "own"
    assert service_client._api_key(read_settings(environ=environ, home=tmp_path)) == "own"
    del environ["PADDOCK_API_KEY"]
    environ["PADDOCK_HOST"] = "gpu.example"
    assert service_client._api_key(read_settings(environ=environ, home=tmp_path)) == ""

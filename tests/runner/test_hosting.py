import threading
from pathlib import Path

import pytest

from paddock.runner.daemon import service_client
from paddock.runner.settings import Settings, read_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environ = {"PADDOCK_HOST": "127.0.0.1:1", "PADDOCK_API_KEYS": "/nowhere/keys"}
    return read_settings(environ=environ, home=tmp_path)


def test_a_command_without_a_service_asks_one_of_its_own_and_ends_it(settings: Settings) -> None:
    before = threading.active_count()
    with service_client.service_for_command(settings) as client:
        names = {model["name"] for model in client.get("/api/tags")["models"]}
    assert "all-minilm:latest" in names
    assert threading.active_count() <= before


def test_its_errors_come_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr("paddock.runner.daemon.embedded_service.make_server", broken)
    with pytest.raises(OSError, match="no"), service_client.service_for_command(settings):
        pass

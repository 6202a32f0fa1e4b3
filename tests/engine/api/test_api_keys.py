"""API keys: their file, and who is let in."""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.api import api_keys as keys_module
from paddock.engine.api.api_keys import InvalidKeyFile, KeyRing, key_command, read_keys
from paddock.engine.settings import ServiceSettings
from tests.engine.api.small_service import SmallService

SECRET = "d1f0c2a97be34f58"
HASHED = "sha256:" + hashlib.sha256(b"another-key").hexdigest()


def written(folder: Path, text: str) -> Path:
    file = folder / "keys"
    file.write_text(text, "utf-8")
    return file


def house(folder: Path, text: str = f"{SECRET} alice\n{HASHED}\nключ\n") -> SmallService:
    return SmallService(ServiceSettings(api_keys_file=written(folder, text)))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_file_holds_keys_or_their_hashes_with_names_and_comments(tmp_path: Path) -> None:
    text = (
        f"# ours\n{SECRET} alice  # since May\n\n  {HASHED.upper().replace('SHA', 'sha')}\nthird\n"
    )
    names = [key.name for key in read_keys(written(tmp_path, text))]
    digest = HASHED.removeprefix("sha256:")
    assert names[:2] == ["alice", f"key-{digest[:8]}"]
    assert len(names) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "{file}: there is no key in it.\n  Make one: {make}"),
        ("# none\n\n", "{file}: there is no key in it.\n  Make one: {make}"),
        (
            f"{SECRET}\nsha256:12ab\n",
            "{file}:2: 'sha256:' is not followed by 64 hexadecimal digits.\n"
            "  Hash a key by `printf %s KEY | sha256sum`.",
        ),
        (
            f"{SECRET} of my colleague\n",
            "{file}:1: what follows the key is not a name.\n  Write a key, a space, and one word.",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what_to_do(
    tmp_path: Path, text: str, says: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InvalidKeyFile) as broken:
        read_keys(file)
    assert str(broken.value) == says.format(file=file, make=key_command(file))


def test_the_command_that_makes_a_key_makes_one_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "keys of ours"
    assert os.system(key_command(file)) == 0
    assert os.system(key_command(file)) == 0
    assert len(read_keys(file)) == 2
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "headers",
    [
        bearer(SECRET),
        {"authorization": f"bearer  {SECRET}"},
        {"x-api-key": SECRET},
        bearer("another-key"),
        {"x-api-key": "ключ".encode()},
        {**bearer("ollama"), "x-api-key": SECRET},  # a client's stop-gap next to the real one
    ],
)
def test_a_client_with_a_key_is_let_in(tmp_path: Path, headers: Any) -> None:
    assert house(tmp_path).ask(headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer(""),
        bearer(HASHED),  # the hash is no key
        bearer(SECRET[:-1]),
        bearer(SECRET + "x"),
        {"Authorization": SECRET},
        {"Authorization": f"Basic {SECRET}"},
        {"x-api-key": "alice"},
    ],
)
def test_no_other_client_is(tmp_path: Path, headers: dict[str, str]) -> None:
    refused = house(tmp_path).ask("/api/chat", "POST", headers=headers, content=b"{}")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="paddock"'


def test_a_refusal_speaks_the_dialect_of_the_path(tmp_path: Path) -> None:
    service = house(tmp_path)
    without = "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
    assert service.ask("/api/tags").json() == {"error": without}
    openai = service.ask("/v1/models", headers=bearer("wrong")).json()["error"]
    assert (openai["message"], openai["code"]) == ("this API key is not known", "invalid_api_key")
    anthropic = service.ask("/v1/messages", "POST").json()
    assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "authentication_error")


@pytest.mark.parametrize("path", ["/", "/healthz", "/ui"])
def test_whether_it_lives_may_be_asked_without_a_key(tmp_path: Path, path: str) -> None:
    service = house(tmp_path)
    assert service.ask(path).status_code == 200
    assert service.ask(path, "HEAD").status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/ui/state.json", "/api/version", "/healthz/x"])
def test_everything_else_needs_one(tmp_path: Path, path: str) -> None:
    assert house(tmp_path).ask(path).status_code == 401


def test_the_journal_has_the_key_s_name_and_never_the_key(tmp_path: Path) -> None:
    service = house(tmp_path)
    service.ask(headers=bearer(SECRET))
    service.ask(headers=bearer("wrong"))
    assert [exchange.key for exchange in service.request_log.last] == ["alice", ""]
    assert 'paddock_http_refused_total{reason="key"} 1.0' in service.metrics()


def test_a_key_that_is_added_or_taken_away_counts_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys_module, "_CHECK_S", 0.0)
    file = written(tmp_path, "first\n")
    ring = KeyRing(file)
    assert ring.find(b"first")
    written(tmp_path, "first\nsecond\n")
    assert ring.find(b"second")
    written(tmp_path, "second  # the first one was lost\n")
    assert ring.find(b"first") is None
    # A broken file lets no one in, and says so; a mended one counts at once.
    with caplog.at_level(logging.ERROR):
        written(tmp_path, "")
        assert ring.find(b"second") is None
    assert "no API key is valid until this is corrected" in caplog.text
    file.unlink()
    assert ring.find(b"second") is None
    written(tmp_path, "second\n")
    assert ring.find(b"second")

"""Which pages may ask, and what a browser is told: CORS as WIRE 1.0 has it."""

from pathlib import Path

import pytest

from paddock.engine.api.cors import AllowedOrigins
from paddock.engine.settings import ServiceSettings
from tests.engine.api.small_service import SmallService

ALWAYS = [
    *(f"{scheme}://{host}{port}" for scheme in ("http", "https")
      for host in ("localhost", "127.0.0.1", "0.0.0.0") for port in ("", ":3000")),
    "app://obsidian.md", "app://.", "file://", "tauri://localhost", "vscode-webview://1ab2",
    "vscode-file://vscode-app", "chrome-extension://abc", "moz-extension://0-1", "HTTP://LOCALHOST",
]  # fmt: skip
NEVER = [
    "null", "https://evil.example", "http://localhost.evil.example", "http://localhost:80/x",
    "https://127.0.0.1.evil.example", "http://evil.example/http://localhost", "localhost",
    "http://192.168.1.5", "ftp://localhost", "http://localhost:80\nhttp://evil.example",
    "http://localhost:80@evil.example", "http://localhost:@evil.example", "http://localhost.",
    "http://localhost:80:80", "http://user@localhost", "http://localhost:3000.evil.example",
    "http://localhost:", "http://localhost:123456", "http://localhost:80?x", "http://localhost:80#x",
    "app://x@evil.example", "http://localhost\\.evil.example", "http://[::1]evil.example",
]  # fmt: skip


@pytest.mark.parametrize("origin", ALWAYS)
def test_pages_of_this_machine_and_desktop_programs_may_always_ask(origin: str) -> None:
    answer = SmallService().ask(headers={"Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", NEVER)
def test_other_pages_may_not(origin: str) -> None:
    assert not AllowedOrigins().allows(origin)


def test_a_page_that_may_not_ask_is_answered_by_403_before_anything_is_done() -> None:
    house = SmallService()
    refused = house.ask("/api/delete", "DELETE", headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    assert refused.json() == {
        "error": "origin 'https://evil.example' may not ask this service; "
        "its owner can allow it by PADDOCK_ORIGINS"
    }
    assert 'paddock_http_refused_total{reason="origin"} 1.0' in house.metrics()


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("https://chat.example", "https://chat.example", "http://chat.example"),
        ("https://*.example", "https://a.b.example", "https://example"),
        ("https://*.example", "https://a.example", "https://a.example.evil.org"),
        ("http://box:*", "http://box:8080", "http://box"),
        ("http://box:*", "http://box:80", "http://box:80@evil.example"),
        ("https://*.example", "https://a.example", "https://evil.org:80@a.example"),
        ("myapp://*", "myapp://anything", "yourapp://anything"),
        ("*", "https://stranger.example", ""),
        (" https://chat.example ", "https://chat.example", "https://chat.example.org"),
        ("https://a+b.example", "https://a+b.example", "https://aab.example"),
    ],
)
def test_origins_named_in_the_settings_may_ask_too(pattern: str, yes: str, no: str) -> None:
    origins = AllowedOrigins([pattern, ""])
    assert origins.allows(yes)
    assert origins.allows("http://localhost:1")
    assert not no or not origins.allows(no)


def test_a_preflight_is_answered_with_what_clients_send() -> None:
    preflight = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,authorization,x-stainless-os",
    }
    answer = SmallService().ask("/v1/chat/completions", "OPTIONS", headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    methods = answer.headers["access-control-allow-methods"].split(", ")
    assert {"GET", "POST", "DELETE", "HEAD"} <= set(methods)
    headers = set(answer.headers["access-control-allow-headers"].lower().split(","))
    assert {"content-type", "authorization", "x-stainless-os"} <= headers
    refused = SmallService().ask(
        "/v1/models", "OPTIONS", headers={**preflight, "Origin": "https://evil.example"}
    )
    assert refused.status_code == 403


def test_a_preflight_needs_no_key_since_browsers_send_none(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("secret-key-of-mine\n")
    house = SmallService(ServiceSettings(api_keys_file=file))
    headers = {"Origin": "http://localhost", "Access-Control-Request-Method": "GET"}
    assert house.ask("/v1/models", "OPTIONS", headers=headers).status_code == 200
    # And the page can read why it was refused.
    refused = house.ask("/v1/models", headers={"Origin": "http://localhost"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "http://localhost"


def test_the_service_s_own_page_and_programs_are_no_strangers() -> None:
    house = SmallService()
    assert "access-control-allow-origin" not in house.ask().headers
    own = house.ask(headers={"Origin": "http://localhost:11434"})
    assert own.status_code == 200
    behind_a_proxy = {"Host": "gpu.internal", "Origin": "https://gpu.internal"}
    assert house.ask(headers=behind_a_proxy).status_code == 200

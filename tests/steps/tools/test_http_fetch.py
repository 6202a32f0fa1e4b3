"""Only servers that are named are asked, wherever their names lead."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from paddock.steps.base import Roots, StepError, ToolResult
from paddock.steps.tools import http_fetch
from paddock.steps.tools.http_fetch import FetchRequest
from paddock.steps.tools.http_fetch import fetch as fetched
from paddock.steps.tools.tool import ToolContext
from tests.fakes.http_server import Answer, HttpServer, Request, serving
from tests.fakes.tools import FakeLog

LOG = FakeLog()
HERE = ["127.0.0.1"]
PAGES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/json": (200, {"Content-Type": "application/json"}, b'{"a": [1]}'),
    "/deep": (200, {"Content-Type": "application/json"}, b"[" * 1500 + b"]" * 1500),
    "/deeper": (200, {"Content-Type": "application/json"}, b"[" * 100 + b"]" * 100),
    "/page": (200, {"Content-Type": "text/html"}, b"<h1>Ferry</h1><script>no()</script>"),
    "/hiding": (
        200,
        {"Content-Type": "text/html"},
        "<meta charset=iso-8859-1><p>Grüße</p><p hidden>Pay now</p>".encode("latin-1"),
    ),
    "/text": (200, {"Content-Type": "text/plain; charset=latin-1"}, "Grüße".encode("latin-1")),
    "/image": (200, {"Content-Type": "image/png"}, b"\x89PNG"),
    "/large": (200, {"Content-Type": "text/plain"}, b"x" * 5000),
    "/none": (404, {"Content-Type": "text/plain"}, b"no such page"),
    "/broken": (503, {}, b""),
    "/there": (302, {"Location": "/json"}, b""),
    "/away": (302, {"Location": "http://evil.example/x"}, b""),
    "/metadata": (302, {"Location": "http://169.254.169.254/latest"}, b""),
    "/round": (302, {"Location": "/round"}, b""),
    "/file": (302, {"Location": "file:///etc/passwd"}, b""),
    "/bracket": (302, {"Location": "http://["}, b""),
    "/idna": (200, {"Content-Type": "text/plain; charset=idna"}, b"abc\xff"),
    "/undefined": (200, {"Content-Type": "text/html; charset=undefined"}, b"<p>abc"),
    "/halves": (200, {"Content-Type": "text/plain; charset=utf-7"}, b"a+2AA-"),
}


def page_of(request: Request) -> Answer:
    status, headers, body = PAGES[urlsplit(request.path).path]  # whole, where it is a proxy
    others = {name: value for name, value in headers.items() if name != "Content-Type"}
    return Answer(body, status, headers.get("Content-Type", ""), others)


def hosts(server: HttpServer) -> list[str | None]:
    return [request.headers["Host"] for request in server.seen]


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with serving(page_of) as made:
        yield made


@pytest.fixture
def base(server: HttpServer) -> str:
    return server.url


def fetch(url: str, hosts: list[str] | None = None, max_bytes: int = 4000) -> ToolResult:
    LOG.notes.clear()
    within = ToolContext(Roots(Path("/"), ()), LOG)
    request = FetchRequest(url, HERE if hosts is None else hosts, max_bytes)
    return asyncio.run(fetched(request, within))


def test_a_page_is_read_as_a_file_is_with_its_own_encoding_and_notes(base: str) -> None:
    assert fetch(f"{base}/hiding").value == "Grüße\n\n<!-- Pay now -->"
    assert LOG.notes == [
        f"'{base}/hiding': text that the page does not show is read as well "
        "(7 characters: 'Pay now')."
    ]


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("json", [{"a": [1]}]), ("page", ["# Ferry"]), ("text#part", ["Grüße"]),
        ("deep", ["[" * 1500 + "]" * 1500]), ("deeper", ["[" * 100 + "]" * 100]),
        ("idna", ["abc\ufffd"]), ("undefined", ["abc", "<p>abc"]), ("halves", ["a?"]),
    ],
)  # fmt: skip
def test_data_comes_as_data_and_a_page_as_what_a_reader_sees(
    base: str, path: str, values: list[Any]
) -> None:
    """An encoding that a server makes up is taken for UTF-8."""
    assert fetch(f"{base}/{path}").value in values


def refused(url: str, hosts: list[str] | None = None) -> str:
    result = fetch(url, hosts)
    assert result.is_error
    return result.text


def test_what_cannot_be_read_is_refused_in_a_sentence(base: str) -> None:
    assert refused(f"{base}/image") == f"'{base}/image' is not text but image/png."
    assert refused(f"{base}/large") == f"'{base}/large' has more than 4,000 bytes."
    assert refused(f"{base}/none") == f"'{base}/none' answers with status 404: no such page"


def test_trouble_that_may_pass_can_be_tried_again(base: str) -> None:
    for url in (f"{base}/broken", "http://127.0.0.1:9/", "http://no-such-host.invalid/"):
        with pytest.raises(StepError) as caught:
            fetch(url, [*HERE, "no-such-host.invalid"])
        assert caught.value.kind == "io"


def test_a_server_that_is_not_named_is_not_asked(base: str) -> None:
    assert refused(f"{base}/json", ["example.org"]) == (
        "'127.0.0.1' is not allowed; allowed: example.org."
    )
    assert "no address that begins with http" in refused("file:///etc/passwd")
    assert "no address that begins with http" in refused("//127.0.0.1/x")
    assert refused("http://me:key@127.0.0.1/") == ("a URL with a user name is not allowed.")


def test_a_redirect_is_followed_by_the_same_rules(base: str, server: HttpServer) -> None:
    assert fetch(f"{base}/there").value == {"a": [1]}
    assert "'evil.example' is not allowed" in refused(f"{base}/away")
    assert "'169.254.169.254' is not allowed" in refused(f"{base}/metadata")
    assert "no address that begins with http" in refused(f"{base}/file")
    assert refused(f"{base}/bracket") == f"'{base}/bracket' redirects to what is no address."
    assert refused(f"{base}/{'a' * 70_000}").endswith("…' is no address: URL too long.")
    assert refused(f"{base}/round") == f"'{base}/round' was redirected more than 5 times."


def test_a_name_that_leads_into_a_private_network_is_not_asked(
    base: str, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.server_port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    url = f"http://wiki.example:{server.server_port}/json"
    assert "is in a private network" in refused(url, ["wiki.example"])
    assert fetch(url, ["wiki.example", "127.0.0.0/8"]).value == {"a": [1]}
    assert hosts(server)[-1] == f"wiki.example:{server.server_port}"


@pytest.mark.parametrize(
    "url",
    ["http://2130706433:{}/json", "http://0x7f.1:{}/json", "http://[::ffff:127.0.0.1]:{}/json"],
)
def test_an_address_is_the_same_however_it_is_written(url: str, server: HttpServer) -> None:
    url = url.format(server.server_port)
    assert fetch(url, ["127.0.0.1"]).value == {"a": [1]}
    assert "'127.0.0.1' is not allowed" in refused(url, ["example.org"])


def test_a_port_of_the_list_is_the_only_one(server: HttpServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}/json"
    assert fetch(url, [f"127.0.0.1:{server.server_port}"]).value == {"a": [1]}
    assert "is not allowed" in refused(url, ["127.0.0.1:1"])


@pytest.fixture
def behind_a_proxy(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make our server the proxy: it is asked for whole addresses."""
    for name in ("NO_PROXY", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(socket, "getaddrinfo", resolver({}))


def resolver(known: dict[str, str]) -> Any:
    real = socket.getaddrinfo

    def lookup(host: str, port: Any, *rest: Any, **wishes: Any) -> list[Any]:
        if host in known:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], port))]
        if str(host).replace(".", "").isdigit():
            return real(host, port, *rest, **wishes)
        raise socket.gaierror("no such name")

    return lookup


@pytest.mark.usefixtures("behind_a_proxy")
def test_a_proxy_of_the_environment_is_asked_for_names_that_are_allowed(server: HttpServer) -> None:
    url = "http://docs.example/json"
    assert fetch(url, ["docs.example"]).value == {"a": [1]}
    assert hosts(server)[-1] == "docs.example"
    asked = len(server.seen)
    assert "'docs.example' is not allowed" in refused(url, ["example.org"])
    assert "'10.0.0.7' is not allowed" in refused("http://10.0.0.7/json", ["docs.example"])
    assert len(server.seen) == asked
    away = refused("http://docs.example/metadata", ["docs.example"])
    assert "'169.254.169.254' is not allowed" in away


@pytest.mark.usefixtures("behind_a_proxy")
def test_a_name_that_leads_inside_is_not_asked_of_a_proxy_either(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver({"wiki.example": "10.0.0.7"}))
    asked = len(server.seen)
    url = "http://wiki.example/json"
    assert "is in a private network" in refused(url, ["wiki.example"])
    assert len(server.seen) == asked
    assert fetch(url, ["wiki.example", "10.0.0.0/8"]).value == {"a": [1]}


@pytest.mark.usefixtures("behind_a_proxy")
def test_no_proxy_and_this_machine_are_asked_directly(
    base: str, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http_fetch.proxy_of("http", "localhost", 80) is None
    assert http_fetch.proxy_of("http", "127.0.0.1", 80) is None
    assert http_fetch.proxy_of("https", "docs.example", 443) is None, "only http has one"
    assert http_fetch.proxy_of("http", "docs.example", 80) == base
    monkeypatch.setenv("no_proxy", "docs.example, .wiki.example,10.0.0.0/8")
    for host in ("docs.example", "a.wiki.example", "10.1.2.3"):
        assert http_fetch.proxy_of("http", host, 80) is None
    assert http_fetch.proxy_of("http", "11.1.2.3", 80) == base
    monkeypatch.setenv("all_proxy", "proxy:3128")
    assert http_fetch.proxy_of("https", "other.example", 443) == "http://proxy:3128"


@pytest.mark.usefixtures("behind_a_proxy")
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "gopher://me:pass@proxy")
    with pytest.raises(StepError) as caught:
        fetch("http://docs.example/json", ["docs.example"])
    assert str(caught.value) == (
        "the proxy of the environment cannot be used. "
        "Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY: http:// and https:// proxies work."
    )
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(StepError, match=r"'http://docs.example/json' cannot be fetched: "):
        fetch("http://docs.example/json", ["docs.example"])

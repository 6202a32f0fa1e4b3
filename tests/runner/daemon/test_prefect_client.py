"""Prefect's API by plain HTTP, with the settings that Prefect's own client has."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paddock.engine.system import http
from paddock.runner.daemon.prefect_client import (
    PrefectRefusal,
    TrackingError,
    ask,
    check_prefect_api,
    client_options,
)
from tests.fakes.far_side import certificate
from tests.prefect_server import server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue"


@asynccontextmanager
async def answering(
    answer: bytes, heads: list[str], tls: ssl.SSLContext | None = None, after_s: float = 0.0
) -> AsyncIterator[str]:
    """Serve one answer to all requests, whose heads are kept; yield the address."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        await asyncio.sleep(after_s)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0, ssl=tls) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}/api"


async def test_a_server_that_asks_for_csrf_tokens_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_CSRF_PROTECTION_ENABLED", "true")
    with server(tmp_path) as url:
        options = client_options(url, {})
        async with http.client(**options) as api:
            flow = await ask(api, "POST", "/flows/", {"name": "kept"})
            assert (await ask(api, "POST", "/flows/filter", {}))[0]["id"] == flow["id"]


async def test_a_server_that_is_busy_for_seconds_is_there() -> None:
    async with answering(OK, [], after_s=5.5) as url:
        await check_prefect_api({"PREFECT_API_URL": url})


async def test_a_private_certificate_is_trusted_by_its_file_or_not_looked_at(
    tmp_path: Path,
) -> None:
    file = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    async with answering(OK, [], tls) as url:
        with pytest.raises(TrackingError, match="certificate verify failed"):
            await check_prefect_api({"PREFECT_API_URL": url})
        for variables in (
            {"PREFECT_API_SSL_CERT_FILE": str(file)},
            {"PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "true"},
        ):
            await check_prefect_api({"PREFECT_API_URL": url, **variables})
    with pytest.raises(TrackingError, match="No such file"):
        await check_prefect_api(
            {"PREFECT_API_URL": url, "PREFECT_API_SSL_CERT_FILE": str(tmp_path / "none.pem")}
        )


async def test_headers_of_a_gateway_are_sent_and_a_redirect_gets_none_of_them() -> None:
    theirs: list[str] = []
    own: list[str] = []
    environ = {"PREFECT_API_KEY": "k3y", "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Gate": "op3n"}'}
    async with answering(OK, theirs) as elsewhere:
        to = b"HTTP/1.1 307 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % elsewhere.encode()
        async with answering(to, own) as url:
            with pytest.raises(TrackingError, match=f"redirects to '{elsewhere}'"):
                await check_prefect_api({"PREFECT_API_URL": url, **environ})
            async with http.client(**client_options(url, environ)) as api:
                with pytest.raises(PrefectRefusal, match=f"a redirect to {elsewhere}"):
                    await ask(api, "POST", "/flows/", {})
    assert not theirs
    assert all("x-gate: op3n" in head and "bearer k3y" in head for head in own)


async def test_headers_that_are_no_json_are_an_error_that_names_the_variable() -> None:
    environ = {"PREFECT_CLIENT_CUSTOM_HEADERS": "X-Gate=open", "PREFECT_API_URL": "http://x/api"}
    with pytest.raises(TrackingError, match="PREFECT_CLIENT_CUSTOM_HEADERS is not JSON"):
        await check_prefect_api(environ)

"""Who may read the status of `paddock up`."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.system import socket_owners
from paddock.runner.schedule.up_status import StatusAccess, make_status_app

# With a port: a request that names none comes by no connection whose owner could be asked for.
OWN_URL = "http://localhost:4720"
KEY = {"authorization": "Bearer open-sesame"}


async def nothing(request: Request) -> Response:
    return Response(status_code=404)


def get(path: str, reader: StatusAccess | None = None, **headers: str) -> httpx.Response:
    app = make_status_app(lambda: {"prefect": True}, lambda: {"pid": 1}, nothing, reader)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=OWN_URL) as here:
            return await here.get(path, headers=headers)

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def caller(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Return what sets whose connection requests come by: these have none of their own."""

    def set_owner(owner: int | None) -> None:
        monkeypatch.setattr(socket_owners, "client_owner", lambda client, server: owner)

    set_owner(os.getuid())
    return set_owner


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("open-sesame\n")
    return file


def test_health_and_status_are_told_and_no_page_of_another_name_reads_them() -> None:
    def seen(path: str) -> tuple[int, Any]:
        answer = get(path)
        return answer.status_code, answer.json()

    assert seen("/healthz") == (200, {"ok": True})
    assert seen("/readyz") == (200, {"ready": True, "prefect": True})
    assert seen("/status") == (200, {"pid": 1})
    assert get("/status", host="evil.example").status_code == 403


def test_the_status_is_for_its_own_user_and_for_those_with_a_key(
    keys: Path, caller: Callable[[int | None], None]
) -> None:
    def status_for(reader: StatusAccess, **headers: str) -> int:
        return get("/status", reader, **headers).status_code

    everyone = StatusAccess(is_open=True, keys=keys)
    assert status_for(StatusAccess(is_open=True)) == 403
    assert status_for(everyone) == 401
    assert status_for(everyone, **{"x-api-key": "open-says-me"}) == 401
    assert status_for(everyone, **KEY) == 200
    assert status_for(StatusAccess(is_open=False, keys=keys)) == 200
    for owner in (os.getuid() + 1, None):
        caller(owner)
        assert status_for(StatusAccess()) == 403
        assert status_for(StatusAccess(keys=keys)) == 401
        assert status_for(StatusAccess(keys=keys), **KEY) == 200


def test_browsers_of_people_who_may_read_the_status_are_sent_to_the_console(
    keys: Path, caller: Callable[[int | None], None]
) -> None:
    def seen(reader: StatusAccess, **headers: str) -> httpx.Response:
        return get("/status", reader, **{"accept": "text/html,*/*", **headers})

    for reader in (StatusAccess(), StatusAccess(is_open=True, keys=keys)):
        answer = seen(reader)
        assert (answer.status_code, answer.headers["location"]) == (307, "/ui")
    assert seen(StatusAccess(), host="evil.example").status_code == 403
    caller(os.getuid() + 1)
    assert seen(StatusAccess()).status_code == 403
    assert seen(StatusAccess(), accept="application/json").status_code == 403

"""How a browser comes to the review page: without a secret in a command line, once, for a while."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from paddock.runner.review.page import ReviewPage
from paddock.runner.review.page_access import PageAccess
from tests.browser import Browser, needs_browser
from tests.fakes.process_list import watched_process_list
from tests.runner.review.served_page import ServedPage, signed_out
from tests.waiting import PATIENCE_S, until

API = "/review/api"
CLI = "from paddock.runner.cli.application import main; main()"
OPENER = """#!/bin/sh
echo "$1" > {address_file}.part && mv {address_file}.part {address_file}
sleep 2
"""
"""Takes an address, as browsers do, and stays in the process list for a while."""


@contextmanager
def reviewing(folder: Path, command: str = "review") -> Iterator[tuple[Path, str]]:
    """Run the command with a browser; yield the file that the browser got, and the token."""
    opener, address_file = folder / "opener", folder / "address"
    opener.write_text(OPENER.format(address_file=address_file))
    opener.chmod(0o700)
    environ = {**os.environ, "HOME": str(folder / "home"), "BROWSER": f"{opener} %s",
               "PADDOCK_HOME": str(folder / "state")}  # fmt: skip
    (folder / "home").mkdir()
    running = subprocess.Popen(
        [sys.executable, "-c", CLI, command, str(folder), "--as", "ann"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stderr is not None
    try:
        token = next(line for line in running.stderr if "this token" in line).split()[-1]
        until(address_file.exists)
        yield Path(address_file.read_text().strip().removeprefix("file://")), token
    finally:
        running.terminate()
        running.communicate(timeout=PATIENCE_S)


def posted(page: Path) -> tuple[str, dict[str, str]]:
    """Return where the browser's file posts, and what."""
    text = page.read_text()
    (address,), (ticket,) = (
        re.findall(rf'{name}="([^"]+)"', text.partition("<button>")[0].partition("<form")[2])
        for name in ("action", "value")
    )
    return address, {"ticket": ticket}


def test_no_command_line_has_what_opens_the_page_and_its_file_is_private(tmp_path: Path) -> None:
    ServedPage(tmp_path).ask("a.txt")
    with watched_process_list() as seen, reviewing(tmp_path) as (page, token):
        assert page.parent == tmp_path / "home"
        assert not page.name.startswith(".")  # browsers in packages do not read hidden files
        assert page.stat().st_mode & 0o777 == 0o600
        address, ticket = posted(page)
        with signed_out(address.removesuffix("/review")) as session:
            entered = session.post("/review", data=ticket, headers={"Origin": "null"})
            assert (entered.status_code, entered.headers["location"]) == (303, "/review")
            rows = session.get(f"{API}/queue").json()["rows"]
            assert [row["item"] for row in rows] == ["a.txt"]
            (cookie,) = {cookie.value for cookie in session.cookies.jar}  # one for each path
            assert cookie not in (None, token, ticket["ticket"])
        with signed_out(address.removesuffix("/review")) as other:
            again = other.post("/review", data=ticket)
            assert (again.status_code, "set-cookie" in again.headers) == (403, False)
            assert other.get(f"{API}/queue").status_code == 401
        until(lambda: not page.exists())
    assert seen.with_any(str(page)), "the browser was not seen"
    assert seen.with_any(token, ticket["ticket"], str(cookie)) == []


@needs_browser
def test_a_real_browser_comes_from_the_file_to_the_page(tmp_path: Path, chromium: Browser) -> None:
    ServedPage(tmp_path).ask("a.txt")
    with reviewing(tmp_path) as (page, _):
        shown = chromium.page(page.as_uri())
        shown.wait("document.querySelectorAll('.field').length")
        assert shown.ask("location.pathname + location.search") == "/review"
        assert shown.text("#who") == "You decide as ann."


@pytest.fixture
def access() -> PageAccess:
    return PageAccess("the-token-of-the-owner", "ann", "It is here.")


def client(access: PageAccess) -> TestClient:
    page = ReviewPage(list, access)
    return TestClient(
        Starlette(routes=page.routes()), base_url="http://localhost", follow_redirects=False
    )


def test_a_cookie_is_never_the_token_and_ends_with_the_process(access: PageAccess) -> None:
    for send in (
        {"method": "GET", "url": "/review?token=the-token-of-the-owner"},
        {"method": "POST", "url": "/review", "data": {"token": "the-token-of-the-owner"}},
    ):
        session = client(access)
        assert session.request(**send).status_code == 303
        assert session.get(f"{API}/queue").status_code == 200
        assert "the-token" not in "".join(str(cookie.value) for cookie in session.cookies.jar)
        later = client(PageAccess("the-token-of-the-owner", "ann", "It is here."))
        later.cookies = session.cookies
        assert later.get(f"{API}/queue").status_code == 401


def test_a_key_that_is_removed_ends_its_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.engine.api.api_keys._CHECK_S", 0.0)
    keys = tmp_path / "keys"
    keys.write_text("a-long-key-of-ann ann\na-long-key-of-ben ben\n")
    access = PageAccess("the-token-of-the-owner", "owner", "It is here.", keys=keys)
    ann, ben = client(access), client(access)
    for session, name in ((ann, "ann"), (ben, "ben")):
        assert session.post("/review", data={"token": f"a-long-key-of-{name}"}).status_code == 303
        assert session.get(f"{API}/queue").json()["by"] == name
    keys.write_text("a-long-key-of-ben ben # only\n")
    assert ann.get(f"{API}/queue").status_code == 401
    assert ben.get(f"{API}/queue").status_code == 200


FORMS = (b"", b"token=", b"ticket=", b"ticket=%ff%00", b"token=\xff", b"a" * 100_000,
         b"token=" + b"x" * 9000, b"ticket", b"&&&;")  # fmt: skip


@pytest.mark.parametrize("body", FORMS)
def test_a_form_without_a_known_secret_is_refused(access: PageAccess, body: bytes) -> None:
    answer = client(access).post("/review", content=body)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)

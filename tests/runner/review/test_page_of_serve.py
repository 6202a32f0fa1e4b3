"""`paddock serve` shows the review page of the folder where it was started, behind its keys."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.browser import Browser, needs_browser
from tests.forked import ForkServer
from tests.runner.core.test_interruptions import first_line
from tests.runner.review.served_page import ServedPage, signed_out

API = "/review/api"


@contextmanager
def serving(forks: ForkServer, folder: Path, *options: str) -> Iterator[str]:
    running = forks.paddock(
        "serve", "--port", "0", *options, cwd=folder, log=folder / "log",
        environ={**os.environ, "PADDOCK_HOME": str(folder / "home")},
    )  # fmt: skip
    try:
        line = first_line(running)
        assert line.startswith("Paddock serves at http"), line
        yield line.split()[3].rstrip(",")
    finally:
        running.terminate()
        running.wait()


def test_without_keys_the_owners_token_opens_it_also_before_there_is_a_ledger(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    with serving(fork_server, tmp_path) as address, signed_out(address) as session:
        assert session.get("/review").status_code == 200
        refused = session.get(f"{API}/queue")
        file = tmp_path / "home/review.token"
        assert refused.status_code == 401
        assert refused.json() == {"error": f"This page needs a token. It is in {file}."}
        assert file.stat().st_mode & 0o077 == 0
        entered = session.get("/review", params={"token": file.read_text().strip()})
        assert entered.status_code == 303
        assert session.get(f"{API}/queue").json()["rows"] == []
        assert not (tmp_path / ".paddock").exists()
        ServedPage(tmp_path).ask("a.txt")  # a run makes the ledger later
        unknown = session.get(f"{API}/reviews/{'0' * 12}")
        assert unknown.json()["error"].startswith("There is no review '000000000000'")
        assert [row["item"] for row in session.get(f"{API}/queue").json()["rows"]] == ["a.txt"]
        assert session.get("/api/tags").status_code == 200  # the models' API is as open as before
        assert "No run yet." in session.get("/ui/runs").text
        assert 'aria-current="page">Models' in session.get("/ui/models", follow_redirects=True).text


@needs_browser
def test_with_keys_a_keys_name_is_the_reviewers(
    tmp_path: Path, fork_server: ForkServer, chromium: Browser
) -> None:
    served_page = ServedPage(tmp_path)
    first, second = served_page.ask("a.txt", "b.txt", by=["ann"])
    keys = tmp_path / "keys"
    keys.write_text("a-long-key-of-ann ann\na-long-key-of-ben ben\n")
    with serving(fork_server, tmp_path, "--api-keys", str(keys)) as address:
        with signed_out(address) as session:
            assert session.get(f"{API}/queue").status_code == 401
            token = (tmp_path / "home/review.token").read_text().strip()
            as_ben = {"Authorization": "Bearer a-long-key-of-ben"}
            for path in ("/ui/runs", "/ui/pipelines", "/ui/settings"):
                assert session.get(path).status_code == 401
                assert session.get(path, headers=as_ben).status_code == 200
            assert session.get("/ui/state.json").status_code == 401
            assert session.post("/ui/sign-in", data={"token": token}).status_code == 403
            assert session.get(f"{API}/queue", headers=as_ben).json()["by"] == "ben"
            wrong = {"Authorization": f"Bearer {token}"}
            assert session.get(f"{API}/queue", headers=wrong).status_code == 401
            decision = {"question": first.question, "verb": "accept"}
            refused = session.post(
                f"{API}/reviews/{first.id}/decide", json=decision, headers=as_ben
            )
            assert refused.json()["error"] == (
                "'ben' may not decide on 'a.txt' (step 'bill'). Its reviewers are: ann."
            )
        page = chromium.page(f"{address}/review")
        page.wait("document.getElementById('token-dialog').open")
        page.type("a-long-key-of-ann")
        page.press("Enter", text="\r")
        page.wait("document.querySelectorAll('.field').length")
        assert page.text("#who") == "You decide as ann."
        page.wait("document.getElementById('document').getAttribute('aria-busy') === 'false'")
        page.press("Enter", text="\r")
        page.wait("document.getElementById('document-name').textContent === 'b.txt'")
        for path, heading in (("/ui", "Pipelines"), ("/ui/models", "Models"), ("/ui/runs", "Runs")):
            page.open(address + path)  # who signed in once is asked no more
            page.wait(f"document.querySelector('h1')?.textContent === '{heading}'")
    assert served_page.review(first.id).by == "ann"
    assert served_page.review(second.id).state == "open"

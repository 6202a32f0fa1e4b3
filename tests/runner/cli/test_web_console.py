"""The console's pages: runs, items with prompts and answers, pipelines, models, settings."""

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from xml.etree import ElementTree

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from paddock.engine.system.text import counted
from paddock.runner.api import validate
from paddock.runner.cli.console_actions import ConsoleSources
from paddock.runner.cli.console_run_pages import NotHere, pipeline_address
from paddock.runner.cli.console_serving import serve_console
from paddock.runner.cli.web_console import SIGN_IN, WebConsole
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.review.page_access import AccessRefused, PageAccess
from paddock.runner.settings import read_settings
from tests.browser import Browser, Page, needs_browser
from tests.runner.review.served_page import in_thread, signed_out
from tests.runner.world import World
from tests.waiting import PATIENCE_S

CLI = "from paddock.runner.cli.application import main; main()"
HOSTILE = "</pre><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>{{7*7}}"
NAMES = (
    "<img src=x onerror=window.hacked=3>.txt",
    "a&b \"q\" 'x' #?%20&page=2.txt",
    "päö 漢字.txt",
)


@contextmanager
def served(folder: Path, **flags: str) -> Iterator[str]:
    """Serve the console of a folder; yield its sign-in page with the token."""

    async def serve(tell: Callable[[str, str], None]) -> None:
        options = {"by": "ann", "opens_browser": False, "tell": tell}
        await serve_console(folder, read_settings(folder, flags=flags), None, options, flags)

    with in_thread(serve) as address:
        yield address


@contextmanager
def signed_in(address: str) -> Iterator[httpx.Client]:
    with signed_out(urljoin(address, "/")) as client:
        token = address.partition("token=")[2]
        assert "set-cookie" in client.post(SIGN_IN, data={"token": token}).headers
        yield client


def links(client: httpx.Client, path: str, kind: str) -> list[str]:
    """Return the addresses on a page that match."""
    found = re.findall(r'href="([^"]+)"', client.get(path).text)
    return [urljoin(path, unescape(link)) for link in found if re.search(kind, link)]


def record_runs(folder: Path, n: int, **fields: object) -> None:
    with Ledger(folder / ".paddock") as ledger:
        for number in range(n):
            row = {
                "run": f"run-{number:04}", "pipeline": "bills", "file": "bills.yaml",
                "started": 1_000.0 + number, "ended": 1_001.0 + number, "status": "completed",
            }  # fmt: skip
            RunStore(ledger).record_run({**row, **fields})


def opened(chromium: Browser, address: str, **size: int) -> Page:
    address, _, token = address.partition("?token=")
    page = chromium.page(address, **size)
    page.wait("document.getElementById('token') !== null")
    assert "`paddock console` printed it when it started last." in page.text("main p")
    page.ask("document.getElementById('token').focus()")
    page.type(token)
    page.press("Enter", text="\r")
    page.wait("document.querySelector('h1')?.textContent === 'Pipelines'")
    return page


def go(page: Page, path: str, heading: str) -> None:
    page.open(urljoin(str(page.ask("location.href")), path))
    page.wait(f"document.querySelector('h1')?.textContent === {json.dumps(heading)}")


def test_a_run_leads_to_each_items_document_prompt_answer_and_changes(
    world: World, tmp_path: Path
) -> None:
    world.documents(2)
    world.run()
    world.write("inbox/1.txt", "Another text.")
    with served(tmp_path) as address, signed_in(address) as client:
        (run,) = links(client, "/ui/runs", "/ui/runs/")
        assert run in client.get("/ui/pipelines").text
        assert links(client, run, "/ui/pipelines/") == [pipeline_address(world.file.resolve())]
        items = links(client, run, "/item")
        assert [httpx.URL(item).params["key"] for item in items] == ["digest", "0.txt", "1.txt"]
        first, second = (unescape(client.get(item).text) for item in items[1:])
        assert "inbox/0.txt, unchanged" in first
        assert "inbox/1.txt, changed since" in second
        assert "[user] Sum up: Document 0, about the ferry. (plain)" in first
        assert "<summary>Answer</summary>" in first
        assert "out/0.txt" in first
        (since,) = links(client, items[2], "since=1")
        assert "its document has changed: inbox/1.txt" in client.get(since).text
        assert client.get(f"{run}?named=1.TXT").text.count("/item?") == 1
        assert client.get(f"{run}?state=failed").text.count("/item?") == 0


def test_a_thousand_runs_are_shown_by_the_hundred(tmp_path: Path) -> None:
    record_runs(tmp_path, 1_000)
    with served(tmp_path) as address, signed_in(address) as client:
        pages = [links(client, f"/ui/runs?page={number}", "run-") for number in range(1, 12)]
        assert [len(page) for page in pages] == [100] * 10 + [0]
        assert pages[0][0].endswith("/run-0999")
        assert len({link for page in pages for link in page}) == 1_000
        assert links(client, "/ui/runs?page=10", "page=11") == []
        assert "this page has none" in client.get("/ui/runs?page=11").text
        for odd in ("-1", "x", "99999999", "²"):
            assert client.get("/ui/runs", params={"page": odd}).status_code == 200


def test_a_run_begins_with_what_failed_and_is_red_for_what_is_new(
    world: World, tmp_path: Path
) -> None:
    world.documents(2)
    world.write("inbox/1.txt", "\0\1")
    world.run()
    world.write("inbox/2.txt", "One more.")
    world.run()
    with served(tmp_path) as address, signed_in(address) as client:
        later, first = dict.fromkeys(links(client, "/ui/runs", "/ui/runs/"))
        assert links(client, "/ui/runs?show=failed", "/ui/runs/") == [first]
        page = client.get(later).text
        assert page.index("1 item not done before, and not tried again") < page.index("<table")
        file = pipeline_address(tmp_path / "pipeline.yaml")
        for path in (later, "/ui/pipelines", file):
            shown = client.get(path).text
            assert '<span class="s-completed">completed</span>' in shown, path
        assert "1 item not done</h2>" in client.get(first).text
        items = [link for link in links(client, later, "/item") if "key=1.txt" in link]
        assert len(items) == 2, "on top, and in its row"
        assert "is not text" in client.get(items[0]).text


def test_a_mistake_in_one_folder_is_that_folders_fault(tmp_path: Path) -> None:
    for name in ("sound", "wrong", "odd", "newer"):
        record_runs(tmp_path / name, 1, run=name)
    (tmp_path / "wrong/paddock.toml").write_text("oops = =")
    for name, change in (
        ("odd", "update runs set started = 'abc'"),
        ("newer", "update meta set value = 'x' where name = 'version'"),
    ):
        with closing(sqlite3.connect(tmp_path / name / ".paddock/ledger.sqlite")) as ledger, ledger:
            ledger.execute(change)
    with served(tmp_path) as address, signed_in(address) as client:
        for path in ("/ui/runs", "/ui/pipelines"):
            answer = client.get(path)
            assert answer.status_code == 200
            boxes = re.findall(r'<div class="error"><p>([^<]*)', answer.text)
            assert len(boxes) == 3
            for part in ("wrong/paddock.toml", "odd/.paddock/ledger", "newer/.paddock/ledger"):
                assert any(part in box for box in boxes)
        assert len(links(client, "/ui/runs", "/ui/runs/")) == 1


def test_pipelines_have_the_faults_that_validate_finds(world: World, tmp_path: Path) -> None:
    files = {
        "step.yaml": "steps: [{uses: nothing}]",
        "wants.yaml": "steps: [{uses: run, with: {command: [ls]}}]",
        "many.yaml": "steps: [{uses: chat, model: none, with: {promptt: x}}, {uses: nothing}]",
        "time.yaml": "on: {schedule: never}\nsteps: [{uses: files.scan, with: {root: .}}]",
    }
    for name, text in files.items():
        world.write(name, text)
    n_faults = {name: len(validate(tmp_path / name).faults) for name in files}
    assert not n_faults.pop("wants.yaml")
    assert all(n_faults.values())
    with served(tmp_path) as address, signed_in(address) as client:
        rows = client.get("/ui/pipelines").text.split("<tr>")
    for name, n in n_faults.items():
        (row,) = (row for row in rows if f">{name}<" in row)
        assert f">{counted(n, 'fault')}<" in row
    (row,) = (row for row in rows if ">wants.yaml<" in row)
    assert '"State">ready<' in row
    assert '"Wants">run<' in row


def steps_of(client: httpx.Client, file: Path) -> list[Any]:
    """Return the nested list on a pipeline's page: texts, each followed by the list within it."""

    def read(list_: ElementTree.Element) -> list[Any]:
        found: list[Any] = []
        for item in list_:
            inner = item.find("ul")
            texts = [item.text, *(part for e in item if e.tag != "ul" for part in (e.text, e.tail))]
            found.append(" ".join("".join(text or "" for text in texts).split()))
            found += [] if inner is None else [read(inner)]
        return found

    page = client.get(pipeline_address(file.resolve())).text
    return read(ElementTree.fromstring(re.findall(r"<ul>.*</ul>", page, re.DOTALL)[-1]))


def test_a_pipelines_page_has_its_steps_in_one_another_and_what_the_last_run_did(
    world: World, tmp_path: Path
) -> None:
    chosen = "steps.docs.files | rejectattr('name', 'eq', '<b>&lt;{') | list"
    world.edit("doc in steps.docs.files", f"doc in {chosen}")
    world.documents(2)
    world.write("inbox/broken.pdf", "no PDF")
    outer = world.write(
        "outer.yaml", "steps: [{id: all, uses: pipeline, with: {file: pipeline.yaml}}]"
    )
    over = f"each · for each doc in {chosen}"
    inner = ["docs · files.scan", over, ["text · files.read", "sum · chat", "files.write"],
             "digest · chat", "report · files.write"]  # fmt: skip
    with served(tmp_path) as address, signed_in(address) as client:
        assert steps_of(client, world.file) == inner
        assert steps_of(client, outer) == ["all · pipeline pipeline.yaml", inner]
        world.run()
        docs, block, body, digest, report = steps_of(client, world.file)
        assert docs.startswith("docs · files.scan · done")  # a slow one has its seconds
        assert report.startswith("report · files.write · done")
        assert block.startswith(f"{over} · 2 done · 1 quarantined")
        assert body[0].startswith("text · files.read · 3 times · 1 failed")
        assert body[1].startswith("sum · chat · 2 times")
        assert digest.startswith("digest · chat · 1 done")
        assert steps_of(client, outer)[1] == inner


def test_pipelines_of_up_show_what_is_at_work_what_waits_and_why(tmp_path: Path) -> None:
    World(tmp_path)
    file = str(tmp_path / "pipeline.yaml")
    texts = "next 2026-11-24 06:00 CET", "folder '/in': away (no share)"
    triggers = [{"text": text, "is_paused": text != texts[0]} for text in texts]
    job = {"run": "bold-crow", "pipeline": "summaries", "trigger": "watch", "attempt": 2}
    queued = {"pipeline": "summaries", "trigger": "webhook /a", "state": "<Scheduled>"}
    status = {
        "pid": 7, "prefect": "http://127.0.0.1:4200/api", "is_prefect_there": False,
        "pipelines": [{"file": file, "triggers": triggers, "missing": ["Allow"],
                       "is_open": False, "window": "22-6"}],
        "running": [{**job, "is_stopping": False}], "waiting": 4,
        "queue": [{**queued, "not_before": "2026-11-24T06:00:00+00:00"}],
        "faults": {"/in/x.yaml": "odd"},
    }  # fmt: skip
    sources = ConsoleSources(lambda: [tmp_path], read_settings(tmp_path), lambda: status)
    app = Starlette(routes=WebConsole(PageAccess("tok", "ann", ""), sources).routes())
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/ui/pipelines").status_code == 401
        page = client.get("/ui/pipelines", headers={"Authorization": "Bearer tok"}).text
    for words in (
        "next 2026-11-24 06:00 CET; folder &#39;/in&#39;: away (no share), paused; "
        "waits for its window 22-6; Allow",
        "Prefect does not answer at http://127.0.0.1:4200/api: runs go on without",
        'running</span>, attempt 2; bold-crow', "&lt;Scheduled&gt;", "3 more wait.",
        "/in/x.yaml: odd",
    ):  # fmt: skip
        assert words in page


def test_pages_and_actions_do_not_wait_for_pipelines_and_runs_that_are_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = World(tmp_path).file.resolve()
    (tmp_path / "broken.yaml").write_text("steps: [{uses: nothing}]")  # read at each look
    record_runs(tmp_path, 2)
    is_waiting, go = threading.Event(), threading.Event()

    def hang(*given: Any, **named: Any) -> Any:
        is_waiting.set()
        assert go.wait(PATIENCE_S)
        raise NotHere("It is late.")

    monkeypatch.setattr("paddock.runner.cli.console_run_pages.FIND_EVERY_S", 0.0)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PADDOCK_HOST", "127.0.0.1:9")
    sources = ConsoleSources(lambda: [tmp_path], read_settings(tmp_path))
    app = Starlette(routes=WebConsole(PageAccess("tok", "ann", ""), sources).routes())
    headers = {"Authorization": "Bearer tok"}
    client = TestClient(app, base_url="http://localhost", headers=headers, follow_redirects=False)
    with client as opened, ThreadPoolExecutor() as threads:
        assert opened.get("/ui/pipelines").status_code == 200
        run, other = re.findall('href="(/ui/runs/[^"]+)"', opened.get("/ui/runs").text)
        for path, reader in (
            (run, "console_run_pages.read_run_details"),
            ("/ui/runs", "console_run_pages.find_ledgers"),
            ("/ui/pipelines", "web_console.has_steps"),
        ):
            is_waiting.clear()
            go.clear()
            with monkeypatch.context() as patch:
                patch.setattr(f"paddock.runner.cli.{reader}", hang)
                late = threads.submit(opened.get, path)
                assert is_waiting.wait(PATIENCE_S)
                for page in ("/ui/pipelines", "/ui/runs", "/ui/models", pipeline_address(file)):
                    assert opened.get(page).status_code == 200
                nothing = hashlib.sha256(b"[]").hexdigest()
                allowed = opened.post(f"{pipeline_address(file)}/allow", data={"asks": nothing})
                assert allowed.status_code == 303, allowed.text
                assert opened.post(f"{other}/stop").status_code == 409
                assert not late.done()
                go.set()
                assert "It is late." in late.result(PATIENCE_S).text


def test_who_signs_in_comes_back_to_the_page_that_asked_for_it(tmp_path: Path) -> None:
    with (
        served(tmp_path) as address,
        httpx.Client(trust_env=False, verify=False, timeout=PATIENCE_S) as client,
    ):
        base, _, token = address.partition("/ui/sign-in?token=")
        for came_from, target in (
            ("/ui/runs?page=2&x=%22", "/ui/runs?page=2&amp;x=%22"),
            ("/ui/sign-in", "/ui/pipelines"),
            ("/review", "/ui/pipelines"),
            ("//evil.example/ui/x", "/ui/pipelines"),
            ("/ui/pipelines/0/run", "/ui/pipelines"),
            ("[", "/ui/pipelines"),
        ):
            before = "http://" if came_from == "[" else base
            answer = client.post(
                base + SIGN_IN, data={"token": token}, headers={"Referer": before + came_from}
            )
            assert f'data-next href="{target}"' in answer.text


def test_settings_show_origins_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_POOL_KEY", "a-very-secret-key")
    with served(tmp_path) as address, signed_in(address) as client:
        page = client.get("/ui/settings").text
        assert "a-very-secret-key" not in page
        assert "(set, not shown)" in page
        assert "PADDOCK_POOL_KEY" in page


@needs_browser
def test_names_prompts_and_answers_are_never_markup(
    world: World, tmp_path: Path, chromium: Browser
) -> None:
    for item in NAMES:
        world.write(f"inbox/{item}", HOSTILE)
    world.edit("name: summaries", f"name: summaries\ndescription: {json.dumps(HOSTILE)}")
    world.run()
    with served(tmp_path) as address, signed_in(address) as client:
        page = opened(chromium, address)
        (run,) = links(client, "/ui/runs", "/ui/runs/")
        go(page, run, "summaries")
        shown = page.ask(
            "[...document.querySelectorAll('tbody td.name')].map((node) => node.innerText)"
        )
        assert set(NAMES) <= set(shown)
        for item in links(client, run, "/item"):
            key = httpx.URL(item).params["key"]
            go(page, item + "&since=1", key)
            texts = page.ask(
                "[...document.querySelectorAll('pre')].map((node) => node.textContent)"
            )
            assert key == "digest" or any(HOSTILE in text for text in texts)
        go(page, "/ui/pipelines", "Pipelines")
        assert HOSTILE in page.text("tbody th")
        assert page.ask("document.querySelectorAll('main script, main img').length") == 0
        assert page.ask("window.hacked === undefined")
        assert page.complaints() == []
        base = urljoin(address, "/")
        assert all(url.startswith((base, "data:")) for url in page.asked_for())


def test_a_page_is_sent_again_by_server_sent_events_only_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.runner.cli.console_run_pages._LIST_LIVE_S", 1)
    record_runs(tmp_path, 1)
    events = {"Accept": "text/event-stream"}
    with served(tmp_path) as address, signed_in(address) as client:
        with client.stream("GET", "/ui/runs", headers=events) as answer:
            lines = filter(None, answer.iter_lines())
            first = json.loads(next(lines).removeprefix("data: "))
            assert (first["title"], "run-0000" in first["main"]) == ("Runs - Paddock", True)
            assert next(lines) == ":"
            record_runs(tmp_path, 1, run="newer", started=5_000.0)
            assert "newer" in next(line for line in lines if line != ":")
        ended = client.get(links(client, "/ui/runs", "newer")[0], headers=events).text
    assert ended.count("data: {") == 1
    assert ended.endswith("event: end\ndata: \n\n")


def test_a_session_that_ends_ends_its_watched_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(access: PageAccess, request: Request) -> str:
        raise AccessRefused(401, "This token is not known.", needs_token=True)

    monkeypatch.setattr("paddock.runner.cli.console_run_pages._LIST_LIVE_S", 1)
    events = {"Accept": "text/event-stream"}
    with (
        served(tmp_path) as address,
        signed_in(address) as client,
        client.stream("GET", "/ui/runs", headers=events) as answer,
    ):
        lines = filter(None, answer.iter_lines())
        assert next(lines).startswith("data: ")
        monkeypatch.setattr(PageAccess, "reviewer", refuse)
        assert set(lines) <= {":"}
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


@needs_browser
def test_a_watched_page_follows_new_runs_and_says_when_the_service_is_gone(
    tmp_path: Path, chromium: Browser
) -> None:
    record_runs(tmp_path, 1)
    with served(tmp_path) as address:
        page = opened(chromium, address)
        go(page, "/ui/runs", "Runs")
        page.ask("document.querySelector('tbody a').focus()")
        record_runs(tmp_path, 1, run="newer", started=5_000.0)
        page.wait("document.querySelector('main')?.textContent.includes('newer')")
        assert page.ask("document.activeElement.textContent") == "run-0000"
        assert page.ask("document.getElementById('away').hidden")
    page.wait("!document.getElementById('away').hidden")


@contextmanager
def commanded(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `paddock console pipes`; yield the process and its sign-in page with the token."""
    running = subprocess.Popen(
        [sys.executable, "-c", CLI, "console", "pipes", "--no-browser", *options],
        cwd=folder, env={**os.environ, "PADDOCK_HOME": str(folder / "home")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stderr is not None
    try:
        address = running.stdout.readline().strip()
        token = running.stderr.readline().rpartition(" ")[2].strip()
        yield running, f"{address}?token={token}"
    finally:
        running.kill()
        running.communicate(timeout=PATIENCE_S)


def test_the_command_serves_the_pages_of_a_folder_and_logs_who_did_what(tmp_path: Path) -> None:
    record_runs(tmp_path / "pipes", 1)
    file = World(tmp_path / "pipes").file.resolve()
    with commanded(tmp_path, "--as", "ann") as (running, address), signed_in(address) as client:
        assert links(client, "/ui/runs", "run-0000")
        assert client.get("/review/api/queue").json()["by"] == "ann"
        nothing = hashlib.sha256(b"[]").hexdigest()
        assert client.post(f"{pipeline_address(file)}/allow", data={"asks": nothing}).is_redirect
        running.terminate()
        assert f"{file}: allowed by ann" in running.communicate(timeout=PATIENCE_S)[1]

"""What is done on the console: runs start, stop and go on; consent; who may do it."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import httpx
import pytest

from paddock.runner.cli.console_run_pages import pipeline_address
from paddock.runner.ledger.run_history import LedgerFolder, PastRun, recent_runs
from tests.browser import Browser, Page, needs_browser
from tests.forked import ForkServer
from tests.runner.cli.commands.shell import invoke
from tests.runner.cli.forked_runs import fork_runs
from tests.runner.cli.test_mcp_server import COPY
from tests.runner.cli.test_web_console import HOSTILE, links, opened, served, signed_in
from tests.runner.world import World
from tests.waiting import PATIENCE_S, until

WAIT = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    max_parallel: 1
    do:
      - id: log
        uses: run
        with: {command: [sh, -c, "touch began; while [ ! -e go ]; do sleep 0.2; done"]}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "x"}}
"""


@pytest.fixture
def world(tmp_path: Path, fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> World:
    fork_runs(fork_server, monkeypatch)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("paddock.runner.cli.detached_run.BEGIN_S", 240.0)
    world = World(tmp_path / "box", COPY)
    world.documents(3)
    return world


@contextmanager
def console(folder: Path, **flags: str) -> Iterator[httpx.Client]:
    with served(folder, **flags) as address, signed_in(address) as client:
        client.timeout = httpx.Timeout(260)
        yield client


def runs_of(folder: Path) -> tuple[PastRun, ...]:
    return recent_runs([LedgerFolder(folder / ".paddock")], limit=9).runs


def ended(folder: Path) -> PastRun:
    """Wait until no run goes on; return the latest."""
    until(lambda: (all_ := runs_of(folder)) and all(run.status != "running" for run in all_))
    return runs_of(folder)[0]


def buttons(page: str) -> dict[str, bool]:
    found = re.findall(r"<button( type=\"button\" disabled)?>([^<]*)", page)
    return {name: not dead for dead, name in found}


def error_of(answer: httpx.Response) -> str:
    (words,) = re.findall(r'<div class="error"><(?:p|pre[^>]*)>([^<]*)', answer.text)
    return unescape(words)


def test_a_run_is_started_with_inputs_and_the_ledger_has_who_did(world: World) -> None:
    world.write("other/z.txt", "zebra")
    with console(world.folder) as client:
        page = pipeline_address(world.file.resolve())
        assert f"what is entered here begins at {world.folder}" in client.get(page).text
        wrong = client.post(f"{page}/run", data={"input.pause": "soon"})
        assert (wrong.status_code, runs_of(world.folder)) == (409, ())
        assert "input 'pause' must be a whole number" in error_of(wrong)
        outside = client.post(f"{page}/run", data={"input.folder": "/etc"})
        assert "input 'folder' leads outside the folder that is shown." in error_of(outside)
        begun = client.post(f"{page}/run", data={"input.folder": "other", "input.pause": ""})
        assert begun.status_code == 303
        past = ended(world.folder)
        assert begun.headers["location"].endswith(f"/{past.row.run}")
        assert (past.status, past.row.trigger) == ("completed", "console by ann")
        assert world.output("z.txt") == "zebra"
        assert "console by ann" in client.get("/ui/runs").text
        run = client.get(begun.headers["location"]).text
        assert buttons(run) == {"Run again": True, "Find": True}
        again = client.post(f"{begun.headers['location']}/again")
        assert again.status_code == 303
        assert ended(world.folder).row.given == past.row.given


def test_what_needs_consent_is_refused_until_a_person_allows_what_they_have_seen(
    world: World,
) -> None:
    file = world.write("log.yaml", "steps: [{id: log, uses: run, with: {command: [sleep, '0']}}]")
    with console(world.folder) as client:
        page = pipeline_address(file.resolve())
        shown = client.get(page).text
        assert "run `sleep 0`" in unescape(shown)
        assert "which needs &#39;run&#39;." in shown
        assert buttons(shown) == {"Allow": True, "Run": False}
        words = error_of(client.post(f"{page}/run"))
        assert "the pipeline wants to run `sleep 0`" in words
        assert "If you trust it: `--allow run`" in words
    with console(world.folder, allow="run") as client:
        assert f"If you trust it: `paddock allow '{file}'`." in error_of(client.post(f"{page}/run"))
        (consent,) = re.findall('name="asks" value="([^"]+)"', client.get(page).text)
        world.write("log.yaml", file.read_text().replace("'0'", "'0.1'"))
        late = client.post(f"{page}/allow", data={"asks": consent})
        assert late.status_code == 409
        assert "wants something else now than the page has shown" in error_of(late)
        (consent,) = re.findall('name="asks" value="([^"]+)"', client.get(page).text)
        assert client.post(f"{page}/allow", data={"asks": consent}).headers["location"] == page
        assert buttons(client.get(page).text) == {"Allow": False, "Run": True}
        assert client.post(f"{page}/run").status_code == 303
        assert ended(world.folder).status == "completed"
        world.write("log.yaml", file.read_text().replace("'0.1'", "'0.2'"))
        assert "no consent" in error_of(client.post(f"{page}/run"))


def waiting_run(client: httpx.Client, world: World) -> str:
    page = pipeline_address(world.write("wait.yaml", WAIT).resolve())
    (consent,) = re.findall('name="asks" value="([^"]+)"', client.get(page).text)
    client.post(f"{page}/allow", data={"asks": consent})
    run = client.post(f"{page}/run").headers["location"]
    until((world.folder / "began").exists)
    return run


def test_a_run_is_stopped_and_goes_on(world: World) -> None:
    with console(world.folder, allow="run") as client:
        run = waiting_run(client, world)
        assert buttons(client.get(run).text) == {
            "Stop after items in flight": True, "Stop at once": True, "Find": True,
        }  # fmt: skip
        assert client.post(f"{run}/stop").headers["location"] == run
        until(lambda: "0 of 3, stopping after items in flight" in client.get(run).text)
        (world.folder / "go").touch()
        past = ended(world.folder)
        assert (past.status, past.summary["counts"]["new"]) == ("budget", 1)
        assert error_of(client.post(f"{run}/stop")).endswith(
            "cannot be stopped here: It has ended."
        )
        client.post(f"{run}/again")
        assert ended(world.folder).summary["counts"]["new"] == 2


def test_a_failed_item_is_tried_again_alone(world: World) -> None:
    text = COPY.replace('with: {path: "{{ doc.path }}"}', 'with: {path: "side/{{ doc.relpath }}"}')
    side = world.write("side.yaml", text)
    with console(world.folder) as client:
        run = client.post(f"{pipeline_address(side.resolve())}/run").headers["location"]
        counts = ended(world.folder).summary["counts"]
        assert counts["failed"] + counts["quarantined"] == 3, counts
        for name in ("0", "1"):
            world.write(f"side/{name}.txt", "found")
        (item,) = set(links(client, run, "key=1.txt"))  # among what failed, and among all
        (only,) = re.findall('name="only" value="([^"]+)"', client.get(item).text)
        run = client.post(f"{run}/again", data={"only": only}).headers["location"]
        assert ended(world.folder).row.run == run.rpartition("/")[2]
        assert not (world.folder / "out/0.txt").exists()
        assert world.output("1.txt") == "found"


def test_a_clone_with_a_ledger_is_opened_and_none_of_its_runs_is_shown_until_it_is_adopted(
    world: World, tmp_path: Path, own_home: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "diary.txt").write_text("mine")
    run = world.run({"folder": str(private)}).run
    clone = Path(shutil.copytree(world.folder, tmp_path / "clone"))
    shutil.rmtree(clone / "out")
    with console(clone) as client:
        for place in ("/ui/pipelines", "/ui/runs", "/ui/runs?show=failed", "/review"):
            answer = client.get(place)
            assert (answer.status_code, run in answer.text) == (200, False), place
        assert f"`paddock adopt {clone}` says what" in unescape(client.get("/ui/runs").text)
        page = pipeline_address((clone / "pipeline.yaml").resolve())
        assert "was not made here" in error_of(client.post(f"{page}/run"))
    assert invoke("adopt", str(clone), "--yes").exit_code == 0
    with console(clone) as client:
        (shown,) = links(client, "/ui/runs", "/ui/runs/")
        page = unescape(client.get(shown).text)
        assert f"<dd>{private}, <b>out of the pipeline's folder</b></dd>" in page
        words = error_of(client.post(f"{shown}/again"))
        assert words.startswith(f"Input 'folder' of run '{run}' leads out of {clone}: {private}.")
        assert not (clone / "out").exists()
        assert client.post(f"{shown}/again", data={"outside": "yes"}).status_code == 303
        assert ended(clone).row.given == ended(world.folder).row.given


def test_only_who_may_decide_changes_anything(world: World) -> None:
    world.run()
    before = len(runs_of(world.folder))
    with console(world.folder) as client:
        pipeline = pipeline_address(world.file.resolve())
        (run,) = links(client, "/ui/runs", "/ui/runs/")
        (name, value), *_ = {(found.name, found.value) for found in client.cookies.jar}
        cookie = {"cookie": f"{name}={value}"}
        own = str(client.base_url).rstrip("/")
        paths = [f"{pipeline}/run", f"{pipeline}/allow", f"{run}/stop", f"{run}/again"]
        for path in paths:
            assert client.get(path).status_code == 405
            for headers, status in (
                ({}, 401),
                ({"authorization": "Bearer wrong"}, 401),
                ({**cookie, "origin": "http://127.0.0.1:1"}, 403),
                ({**cookie, "origin": "null"}, 403),
                ({**cookie, "sec-fetch-site": "same-site"}, 403),
                ({**cookie, "host": "evil.example"}, 403),
            ):
                answer = httpx.post(
                    f"{own}{path}", headers=headers, trust_env=False, timeout=PATIENCE_S
                )
                assert (path, headers, answer.status_code) == (path, headers, status)
        assert client.post(f"{pipeline}x/run").status_code == 404
        assert client.post(f"{run}x/again").status_code == 404
        large = client.post(f"{pipeline}/run", content=b"input.pause=" + b"1" * 2**21)
        assert large.status_code == 413
    assert len(runs_of(world.folder)) == before


@needs_browser
def test_a_pipeline_is_run_by_keyboard_and_its_page_follows_the_run(
    world: World, chromium: Browser
) -> None:
    world.edit("description: Copies documents.", f"description: {json.dumps(HOSTILE)}")
    with served(world.folder) as address:
        page = opened(chromium, address)
        page.ask("document.querySelector('tbody th a').focus()")
        page.press("Enter", text="\r")
        page.wait("document.querySelector('h1')?.textContent === 'copies'")
        assert HOSTILE in page.text("main")
        page.ask("document.getElementById('input.pause').focus()")
        page.type("0")
        page.press("Enter", text="\r")
        page.wait("location.pathname.startsWith('/ui/runs/')")
        page.wait("document.querySelector('main')?.textContent.includes('completed')")
        assert page.ask("window.hacked === undefined")
        assert page.complaints() == []
        page.ask(f"location.assign('{pipeline_address(world.file.resolve())}')")
        run = "document.querySelector('form[action$=\"/run\"] button')"
        page.wait(f"document.readyState === 'complete' && {run} !== null")
        page.ask(f"for (const _ of '123') {run}.click()")
        page.wait("location.pathname.startsWith('/ui/runs/')")
        page.wait("document.querySelector('main')?.textContent.includes('completed')")
        assert len(runs_of(world.folder)) == 2, "clicked three times, begun once"


def button(form: str) -> str:
    return f"document.querySelector('form[action$=\"{form}\"] button')"


def click(page: Page, form: str, label: str) -> None:
    is_there = f"{button(form)}?.textContent === {label!r}"
    page.wait(f"document.readyState === 'complete' && {is_there}")
    page.ask(f"{button(form)}.click()")

"""Runs that no one watches tell how they ended, by themselves; those by hand when asked."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.api import run_async
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.notify.receivers import Hook, hook
from tests.runner.world import SUMMARIES, World, run_arguments, settings

NOTIFY = """\
on:
  notify: {when: [failed, quarantined, recovered], webhook: "URL"}
"""
TWICE = """\
steps:
  - id: each
    for_each: n in [1, 1]
    key: n
    do: [{id: said, uses: prompt, with: {template: "{{ n }}"}}]
"""


class Noted(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def ran(world: World, noted: Noted | None = None, **options: Any) -> Report:
    return asyncio.run(
        run_async(
            world.file,
            {},
            *run_arguments(
                local=True,
                settings=replace(settings(world.folder), allow=frozenset({"network"})),
                pool=FakePool(),
                observer=noted or Noted(),
                **options,
            ),
        )
    )


def delivered(server: Hook) -> list[tuple[str, str]]:
    return [(got["event"], got["run"]) for got in server.got]


def test_a_run_by_schedule_tells_and_one_by_hand_when_asked(tmp_path: Path) -> None:
    with hook() as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + SUMMARIES)
        world.documents(2)
        bad = world.write("inbox/bad.pdf", "%PDF no")
        ran(world)
        assert delivered(server) == []
        report = ran(world, trigger="schedule")
        assert delivered(server) == [("quarantined", report.run)]
        bad.unlink()
        report = ran(world, notify=True)
        assert delivered(server)[1:] == [("recovered", report.run)]


def test_a_run_that_an_error_ends_tells_of_it(tmp_path: Path) -> None:
    with hook() as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + TWICE)
        with pytest.raises(PipelineError):
            ran(world, trigger="watch")
    ((event, _),) = delivered(server)
    assert event == "failed"
    assert "gives two items of block 'each' the same key '1'" in server.got[0]["message"]


def test_a_run_of_some_items_alone_tells_nothing(tmp_path: Path) -> None:
    with hook() as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + SUMMARIES)
        world.documents(2)
        world.write("inbox/bad.pdf", "%PDF no")
        ran(world, trigger="watch", only=["bad.pdf"])
        assert delivered(server) == []


def test_a_run_that_was_stopped_tells_nothing(tmp_path: Path) -> None:
    with hook() as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + SUMMARIES)
        world.documents(2)

        async def stopped() -> Report:
            stop = asyncio.Event()
            stop.set()
            own = replace(settings(tmp_path), allow=frozenset({"network"}))
            environment = RunEnvironment(pool=FakePool(), stop=stop, settings=own)
            options = RunOptions(local=True, trigger="watch")
            return await run_async(world.file, {}, options=options, environment=environment)

        assert asyncio.run(stopped()).status == "interrupted"
        assert delivered(server) == []


def test_what_could_not_be_told_is_told_even_if_watched_and_the_run_is_as_it_was(
    tmp_path: Path,
) -> None:
    with hook(410) as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + SUMMARIES)
        world.write("inbox/bad.pdf", "%PDF no")
        noted = Noted()
        assert ran(world, noted, trigger="watch").status == "quarantined"
    assert noted.notes[-1] == (
        "the notification by webhook that it has quarantined items was not delivered: 127.0.0.1 "
        "answered 410."
    )


def test_a_mail_that_cannot_be_sent_is_known_before_the_run(tmp_path: Path) -> None:
    mail = "on:\n  notify: {when: [failed], email: a@b.org}\n"
    noted = Noted()
    world = World(tmp_path, mail + SUMMARIES)
    world.documents(1)
    allowed = frozenset({"network"})
    assert ran(world, noted, trigger="watch", allow=allowed).status == "completed"
    assert noted.notes[0] == (
        "`on.notify` names a mail address, and no mail server is set; "
        "set PADDOCK_SMTP, such as smtp://user:password@mail.example.org."
    )


def test_secrets_reach_the_address_and_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hook() as server:
        monkeypatch.setenv("HOOK_TOKEN", "t0p-s3cret-t0ken")
        address = server.url.replace("t0ken", "{{ secrets.token }}")
        head = "secrets: {token: {env: HOOK_TOKEN}}\n" + NOTIFY.replace("URL", address)
        world = World(tmp_path, head + SUMMARIES)
        world.write("inbox/t0p-s3cret-t0ken.pdf", "%PDF no")
        ran(world, trigger="watch", allow=frozenset({"network", "secrets"}))
    assert server.paths == ["/hook?token=t0p-s3cret-t0ken"]
    assert "s3cret" not in json.dumps(server.got)

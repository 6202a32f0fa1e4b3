"""A model's server that refuses all requests stops the run, and leaves every output as it is."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends.neutral_request import NEUTRAL_TEXT
from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest
from paddock.engine.system.records import replace
from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress.report import Report
from tests.fakes import http_server
from tests.fakes.http_server import Answer, Json, openai, said
from tests.fakes.pool import FakePool
from tests.runner.world import each_document, settings, states

LABELS = """\
models: {writer: {ref: m, ctx: 8k, pool: {url: URLS}}}
""" + each_document("""\
      - {id: label, uses: chat, with: {model: writer, prompt: "Label: {{ steps.text.text }}"}}
    returns: {file: doc.relpath, label: steps.label.text}
  - {id: table, uses: files.write, with: {path: out.csv, rows: "{{ steps.each.results }}"}}
""")
AGENT = LABELS.replace(
    "uses: chat, with: {model: writer, prompt:",
    "uses: agent, with: {model: writer, tools: [files.read], prompt:",
)

Refuse = Callable[[str], tuple[int, Any] | None]


@dataclass
class Refusing:
    """A server of OpenAI's API that answers `OK`, or refuses what `refuse` says of a text."""

    refuse: Refuse
    url: str = ""

    def answer(self, body: Json) -> Answer | list[Json]:
        text = "\n".join(str(message["content"]) for message in body["messages"])
        refused = self.refuse(text)
        if refused is not None:
            status, said_of_it = refused
            return Answer(json.dumps(said_of_it).encode(), status)
        return said("OK", prompt_tokens=3 * len(text.split()), completion_tokens=1)


@contextmanager
def serving(refuse: Refuse) -> Iterator[Refusing]:
    own = Refusing(refuse)
    with http_server.serving(openai(own.answer)) as server:
        own.url = server.url
        yield own


def ran(folder: Path, text: str, *urls: str) -> Report:
    (folder / "p.yaml").write_text(text.replace("URLS", json.dumps(urls)))
    own = replace(settings(folder), allow=frozenset(["network"]))
    environment = RunEnvironment(settings=own)
    return run(folder / "p.yaml", {}, RunOptions(local=True), environment)


def documents(folder: Path, n: int) -> None:
    (folder / "inbox").mkdir()
    for number in range(n):
        (folder / f"inbox/{number}.txt").write_text(f"Document {number}, about the ferry.")


def answers(text: str) -> None:
    return None


@pytest.mark.parametrize(
    ("refusal", "n", "text"),
    [
        ((400, {"error": {"message": "unknown parameter"}}), 8, LABELS),
        ((400, {"error": {"message": "unknown parameter"}}), 1, AGENT),
        ((403, {"error": {"message": "forbidden"}}), 8, LABELS),
        ((404, {"error": {"message": "no such model"}}), 8, AGENT),
        ((429, {"error": {"message": "pay", "code": "insufficient_quota"}}), 1, LABELS),
    ],
    ids=["400", "400-agent", "403", "404-agent", "429"],
)
def test_a_server_that_refuses_everything_stops_the_run_and_empties_nothing(
    tmp_path: Path, refusal: tuple[int, Any], n: int, text: str
) -> None:
    documents(tmp_path, n)
    with serving(answers) as server:
        assert ran(tmp_path, text, server.url).status == "completed"
        before = (tmp_path / "out.csv").read_bytes()
        server.refuse = lambda _: refusal
        for _ in range(2):
            report = ran(tmp_path, text.replace("Label:", "The label:"), server.url)
            assert (report.status, report.exit_status()) == ("failed", 1)
            assert str(refusal[0]) in (report.message or "") or refusal[0] == 429
            assert states(report) == {}
            assert (tmp_path / "out.csv").read_bytes() == before
        server.refuse = answers
        report = ran(tmp_path, text.replace("Label:", "The label:"), server.url)
    assert (report.status, set(states(report).values())) == ("completed", {"stale"})


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"error": {"message": "blocked", "code": "content_filter"}}),
        (400, {"error": {"message": "this prompt has too many tokens"}}),
        (403, {"error": {"message": "your input was flagged"}}),
        (413, {"error": {"message": "request too large"}}),
    ],
    ids=lambda refusal: str(refusal[0]),
)
def test_what_a_server_refuses_of_a_document_quarantines_that_one(
    tmp_path: Path, refusal: tuple[int, Any]
) -> None:
    documents(tmp_path, 8)

    def refuse(text: str) -> tuple[int, Any] | None:
        return refusal if any(f"Document {n}," in text for n in (0, 1, 2)) else None

    with serving(refuse) as server:
        report = ran(tmp_path, LABELS, server.url)
    bad = {key for key, state in states(report).items() if state == "quarantined"}
    assert bad == {"0.txt", "1.txt", "2.txt"}
    assert (report.status, report.exit_status()) == ("quarantined", 3)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 6


HERE = LABELS.replace(", ctx: 8k, pool: {url: URLS}", "")


def refused_by(pool: FakePool, folder: Path, text: str = HERE) -> Report:
    (folder / "p.yaml").write_text(text)
    environment = RunEnvironment(settings=settings(folder), pool=pool)
    return run(folder / "p.yaml", {}, RunOptions(local=True), environment)


def template_that_raises(request: ChatRequest) -> str:
    raise BadRequest("the template raised: roles must alternate")


def test_a_model_here_that_refuses_every_document_stops_the_run(tmp_path: Path) -> None:
    documents(tmp_path, 8)
    assert refused_by(FakePool(), tmp_path).status == "completed"
    before = (tmp_path / "out.csv").read_bytes()
    pool = FakePool(answer=template_that_raises)
    report = refused_by(pool, tmp_path, HERE.replace("Label:", "The label:"))
    assert (report.status, states(report)) == ("failed", {})
    assert str(report.message).endswith(
        "p.yaml:8:14: m: it refuses requests whatever the document: the template raised: roles "
        "must alternate. Correct the step, or the model's `ref`, `params` or `pool`; the same "
        "command goes on."
    )
    neutral = [request for request in pool.chats if request.messages[-1].content == NEUTRAL_TEXT]
    assert len(neutral) == 1
    assert (tmp_path / "out.csv").read_bytes() == before

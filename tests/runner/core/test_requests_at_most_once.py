"""Requests that change something elsewhere: each is answered at most once, whatever breaks off."""

import os
import random
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.progress.report import Report
from paddock.runner.testing.suite_runner import SuiteOptions, read_suite, run_suites
from tests.fakes.counting_server import CountingServer, counting_server
from tests.fakes.far_side import certificate, far_side
from tests.fakes.pool import FakePool
from tests.forked import ForkServer
from tests.runner.killed_runs import kill_runs, run_to_end
from tests.runner.world import ALL, Notes, ReviewedWorld, carried_out, errors, states

N_KILLS = int(os.environ.get("PADDOCK_TEST_KILLS", "8"))
TOKEN = "geheim-17"
PIPELINE = """\
secrets: {token: {env: SEND_TOKEN}}
inputs: {tone: {type: str, default: plain}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: send
        uses: http.send
        with:
          url: http://127.0.0.1:PORT/bills
          hosts: ["127.0.0.1"]
          headers: {Authorization: "Token {{ secrets.token }}"}
          data: {name: "{{ doc.stem }}", text: "{{ steps.text.text }}"}
      - {uses: files.write, with: {path: "out/{{ doc.stem }}", text: "{{ steps.send.text }}"}}
    returns: {file: doc.relpath, status: steps.send.output.status, of: inputs.tone}
returns: steps.each.counts
"""


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with counting_server() as server:
        yield server


class Office(ReviewedWorld):
    def __init__(self, folder: Path, server: CountingServer) -> None:
        super().__init__(folder, PIPELINE.replace("PORT", str(server.port)))

    def put(self, name: str, text: str = "one") -> None:
        self.write(f"inbox/{name}.txt", text)

    def go(self, **wishes: Any) -> tuple[Report, list[str]]:
        notes = Notes()
        return carried_out(self, observer=notes, **wishes), notes.texts


@pytest.fixture
def office(tmp_path: Path, server: CountingServer, monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.setenv("SEND_TOKEN", TOKEN)
    made = Office(tmp_path, server)
    made.put("a")
    return made


def bodies(server: CountingServer) -> list[str]:
    return [body["text"] for _, _, body in server.seen]


def test_a_request_is_sent_once_and_again_only_where_it_is_another(
    office: Office, server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, notes = office.go()
    assert (report.status, notes, bodies(server)) == ("completed", [], ["one"])
    assert server.headers[0]["Authorization"] == f"Token {TOKEN}"
    monkeypatch.setenv("SEND_TOKEN", "another-one")
    assert office.go()[0].returns["fresh"] == 1
    office.go(inputs={"tone": "short"})  # done again, with the same request
    (office.folder / "inbox/a.txt").rename(office.folder / "inbox/b.txt")
    office.edit('doc.stem }}", text', "'bill' }}\", text")
    office.go()
    (office.folder / "inbox/b.txt").rename(office.folder / "inbox/c.txt")
    office.go()
    assert bodies(server) == ["one", "one"], "the second one has another name in it"
    for text in ("two", "one"):  # and back: the last one counts
        office.put("c", text)
        office.go()
    assert bodies(server) == ["one", "one", "two", "one"]
    assert len({key for key, *_ in server.seen}) == 4
    office.go(force=["send"])
    assert len(server.seen) == 5


def test_a_server_with_a_certificate_of_its_own_is_told_nothing(office: Office) -> None:
    with far_side(tls=certificate(office.folder)) as far:
        office.edit(office.text.split("url: ")[1].split("\n")[0], f"{far.url}/bills")
        report, _ = office.go()
        assert "SSL_CERT_FILE names authorities of your own" in errors(report)["a.txt"]
        assert (report.returns["waiting"], far.seen) == (0, [])


def test_what_may_pass_is_tried_again_by_the_same_key(
    office: Office, server: CountingServer
) -> None:
    server.faults += [503, 429]
    report, _ = office.go()
    assert (report.status, len(server.seen)) == ("completed", 3)
    assert len({key for key, *_ in server.seen}) == 1
    office.put("a", "two")
    server.faults += [503] * 4
    report, _ = office.go()
    assert (
        'answers with status 503: {"id": 7}. The next run tries again.' in errors(report)["a.txt"]
    )
    office.go()
    assert len({key for key, *_ in server.seen}) == 2
    assert server.answered.total() == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, 'answers with status 400: {"id": 1}. Once that is mended: `run --retry-failed`.'),
        (401, "Renew the secret in `headers`, or its rights; the next run goes on."),
    ],
)
def test_a_refusal_is_told_and_nothing_is_lost(
    office: Office, server: CountingServer, status: int, said: str
) -> None:
    server.faults += [status]
    report, _ = office.go()
    assert said in errors(report)["a.txt"]
    assert TOKEN not in errors(report)["a.txt"]
    office.go(retry_failed=status == 400)
    assert server.answered.total() == 1


def test_a_server_that_is_away_was_sent_nothing(office: Office, server: CountingServer) -> None:
    office.edit(f":{server.port}/", ":9/")
    report, _ = office.go()
    assert "cannot be reached" in errors(report)["a.txt"]
    office.edit(":9/", f":{server.port}/")
    assert office.go()[0].status == "completed"


@pytest.mark.parametrize("verb", ["accept", "reject"])
def test_what_is_unknown_after_a_cut_is_asked_and_never_sent_by_itself(
    office: Office, server: CountingServer, verb: str
) -> None:
    server.faults += ["cut"]
    report, _ = office.go()
    assert states(report) == {"a.txt": "waiting"}
    (question,) = office.waiting().values()
    assert (question.subject.answer or {})["unknown"]
    assert "was sent, and a cut left it unknown" in str(question.subject.outputs)
    assert states(office.go()[0]) == {"a.txt": "waiting"}
    office.decide("a.txt", verb, reason="it is not there" if verb == "reject" else "")
    report, _ = office.go()
    assert len(server.seen) == 1
    if verb == "reject":
        assert states(report) == {"a.txt": "quarantined"}
        server.faults += ["cut"]
        assert states(office.go(retry_failed=True)[0]) == {"a.txt": "waiting"}
        assert states(office.go()[0]) == {"a.txt": "waiting"}, "an old decision is of the first try"
        assert [key for key, *_ in server.seen] == [server.seen[0][0]] * 2
    else:
        assert office.output("a")
        office.put("a", "two")
        office.go()
        assert bodies(server) == ["one", "two"]


def test_a_plan_and_a_test_send_nothing_and_the_ledger_has_no_secret(
    office: Office, server: CountingServer
) -> None:
    assert states(office.plan(allow=ALL)) == {"a.txt": "new"}
    office.write(
        "pipeline.yaml", f"{office.text}tests: [{{name: dry, expect: [{{exists: inbox}}]}}]\n"
    )
    (suite,) = run_suites(
        [read_suite(office.file)],
        SuiteOptions("auto", pool=FakePool(), flags={"allow": ",".join(ALL)}),
    )
    assert [case.passed for case in suite.cases] == [True]
    assert server.seen == []
    office.go()
    for file in (office.folder / ".paddock").rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", "the pipeline wants to send to 127.0.0.1, which needs 'network'"),
        ('["127.0.0.1"]', '["{{ inputs.tone }}"]', "`hosts` is known before a run"),
        ('["127.0.0.1"]', '["10.0.0.0/99"]', "`hosts`: "),
        ("Token {{ secrets.token }}", "{{ doc.stem }}", "text (doc.stem) in its `headers`"),
    ],
)  # fmt: skip
def test_servers_are_known_and_agreed_to_before_a_run(
    office: Office, old: str, new: str, said: str
) -> None:
    office.edit(old, new) if old else None
    with pytest.raises(PipelineError) as raised:
        office.run(allow=["secrets"])
    assert said in str(raised.value)


def test_no_request_that_was_answered_is_sent_twice_whatever_kills_the_run(
    office: Office, server: CountingServer, fork_server: ForkServer
) -> None:
    dice, numbers = random.Random(74), count(1)
    server.delay_s = 0.05
    office.edit("for_each:", "max_parallel: 4\n    for_each:")

    def more_documents() -> None:
        for number in islice(numbers, dice.randrange(5, 20)):
            office.put(f"d{number}", f"text {number}")
        server.faults = dice.choices([201, 503, 429], [8, 1, 1], k=20)

    kill_runs(fork_server, office, N_KILLS, dice, more_documents)
    server.faults = []
    run_to_end(fork_server, office)
    waiting, sent = office.waiting(), [body["name"] for _, _, body in server.seen]
    print(f"{N_KILLS} kills, {next(numbers)} documents, {server.answered.total()} answered, "
          f"{len(waiting)} asked, most answers of one {max(server.answered.values())}")  # fmt: skip
    assert max(server.answered.values()) == 1
    assert {*sent} | {key.removesuffix(".txt") for key in waiting} == {
        path.stem for path in (office.folder / "inbox").iterdir()
    }

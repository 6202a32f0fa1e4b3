"""A mailbox as a source of documents, in a real Dovecot: each mail once, whatever breaks off."""

import errno
import json
import os
import random
import re
import socket
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.progress.report import Report
from paddock.steps.run_end import FolderAtEnd
from paddock.steps.sources import mirror
from tests.fakes.dovecot import PASSWORD, PROGRAM, Dovecot, dovecot, is_here, mail
from tests.forked import ForkServer
from tests.runner.killed_runs import kill_runs, run_to_end
from tests.runner.schedule.up_process import UpFolder
from tests.runner.world import Notes, World, carried_out

pytestmark = pytest.mark.skipif(not is_here(), reason=f"{PROGRAM} is not here (dovecot-imapd)")
PIPELINE = """\
secrets: {mail: {env: MAIL_PASSWORD}}
steps:
  - id: docs
    uses: files.scan
    with:
      root: mail
      mailbox: {host: 127.0.0.1, port: PORT, user: office, password: "{{ secrets.mail }}", MORE}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - uses: files.write
        with: {path: "out/{{ doc.stem }}.txt", text: "{{ steps.text.text }}"}
    returns: {file: doc.relpath}
returns: steps.each.counts
"""
N_KILLS = int(os.environ.get("PADDOCK_TEST_KILLS", "8"))
FLAG = "flag: paddock"
BILL = re.compile(r"Subject: (Bill \d+)")


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with dovecot() as server:
        yield server


@pytest.fixture(autouse=True)
def _known(server: Dovecot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)


class Office(World):
    """A pipeline over a folder of the account that is its own."""

    def __init__(self, folder: Path, server: Dovecot, more: str = FLAG, port: int = 0) -> None:
        self.box, self.server = folder.name[:40], server
        text = PIPELINE.replace("PORT", str(port or server.port))
        super().__init__(folder, text.replace("MORE", f"folder: {self.box}, {more}"))

    def put(self, *numbers: int) -> None:
        self.server.put(*map(mail, numbers), folder=self.box)

    def go(self) -> tuple[Report, list[str]]:
        notes = Notes()
        return carried_out(self, observer=notes), notes.texts

    def bills(self) -> list[str]:
        """Return which bill each output is of."""
        texts = [path.read_text() for path in (self.folder / "out").glob("*.txt")]
        return sorted(found[1] for text in texts if (found := BILL.search(text)))

    def flagged(self) -> int:
        return self.server.search("KEYWORD paddock", self.box)


def bills(*numbers: int) -> list[str]:
    return sorted(f"Bill {number}" for number in numbers)


def test_each_mail_is_a_document_once_and_flagged_once_its_outputs_are_recorded(
    tmp_path: Path, server: Dovecot
) -> None:
    office = Office(tmp_path, server)
    office.put(1, 2, 3)
    report, notes = office.go()
    assert (report.status, notes) == ("completed", [])
    assert office.bills() == bills(1, 2, 3)
    assert office.flagged() == 3
    office.put(4)
    again, _ = office.go()
    assert (again.returns["fresh"], again.returns["new"]) == (3, 1)
    assert office.bills() == bills(1, 2, 3, 4)
    assert (office.flagged(), server.search("SEEN", office.box)) == (4, 0)


def test_a_mail_that_failed_or_is_not_read_is_not_flagged(tmp_path: Path, server: Dovecot) -> None:
    office = Office(tmp_path, server)
    office.put(1)
    server.put(b"Subject: Bill 2\r\nFrom: a@example.org\r\n\r\n" + b"x" * 4_000, folder=office.box)
    office.edit('path: "{{ doc.path }}"}', 'path: "{{ doc.path }}", max_bytes: 2KiB}')
    office.go()
    assert (office.bills(), office.flagged()) == (bills(1), 1)


def test_done_mails_are_moved_and_their_results_stay(tmp_path: Path, server: Dovecot) -> None:
    office = Office(tmp_path, server, f"move: 'Büro & {tmp_path.name[:30]}'")
    office.put(1, 2)
    _, notes = office.go()  # there is no such folder yet
    assert "does not do MOVE" in notes[0]
    assert "The next run does it." in notes[0]
    target = f'"B&APw-ro &- {tmp_path.name[:30]}"'
    with server.box(target):
        pass
    report, notes = office.go()
    assert (notes, report.returns["fresh"]) == ([], 2)
    assert (server.search("ALL", office.box), server.search("ALL", target)) == (0, 2)
    again, _ = office.go()
    assert (again.returns["fresh"], again.returns["deleted"]) == (2, 0)
    assert office.bills() == bills(1, 2)


def test_a_mailbox_that_is_away_is_not_one_that_is_empty(tmp_path: Path, server: Dovecot) -> None:
    office = Office(tmp_path, server)
    office.put(1, 2)
    office.go()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    office.edit(str(server.port), str(port))
    report, notes = office.go()
    assert (report.status, report.returns["fresh"]) == ("completed", 2)
    assert notes == [
        f"docs: '{office.box}' of office at 127.0.0.1 is away, it does not answer: Connection "
        f"refused. Its documents of before stand."
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{env: MAIL_PASSWORD}", "{env: WRONG_PASSWORD}", "does not let 'office' in: "),
        ("host: 127.0.0.1", "host: localhost", "has a certificate that is not valid for 'localh"),
        ("host: 127.0.0.1", "host: example.org, tls: off", "is elsewhere, and would see the pass"),
        ("folder: ", "folder: no-", "has no such folder: "),
        ('password: "{{ secrets.mail }}"', "token: [sh, -c, exit 3]", "command of `token` prints"),
        ('password: "{{ secrets.mail }}"', "token: [printf, old]", "does not let 'office' in: "),
    ],
)  # fmt: skip
def test_a_server_that_refuses_is_a_sentence_and_nothing_is_lost(
    tmp_path: Path, server: Dovecot, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    monkeypatch.setenv("WRONG_PASSWORD", "wrong-17")
    office = Office(tmp_path, server)
    office.put(1)
    office.go()
    office.edit(old, new)
    with server.knowing("another"):  # without it all tokens are refused for now only
        report, _ = office.go()
    assert (report.status, said in (report.message or "")) == ("failed", True), report.message
    assert PASSWORD not in (report.message or "")
    assert office.bills() == bills(1)


@pytest.mark.parametrize("break_at", range(700, 26_000, 2_300))
def test_a_server_that_breaks_off_loses_nothing(
    tmp_path: Path, server: Dovecot, monkeypatch: pytest.MonkeyPatch, break_at: int
) -> None:
    monkeypatch.setattr(mirror, "_BATCH", 3)
    with server.cut_off(break_at) as port:
        office = Office(tmp_path, server, port=port)
        office.put(*range(12))
        report, _ = office.go()
        assert report.status == "completed"
    office.edit(str(port), str(server.port))
    office.go()
    assert office.bills() == bills(*range(12))
    assert office.flagged() == 12


def test_runs_that_are_killed_at_random_do_each_mail_once(
    tmp_path: Path, server: Dovecot, fork_server: ForkServer
) -> None:
    dice, office = random.Random(74), Office(tmp_path, server)
    numbers = count()

    def more_mails() -> None:
        office.put(*islice(numbers, dice.randrange(1, 30)))

    kill_runs(fork_server, office, N_KILLS, dice, more_mails)
    run_to_end(fork_server, office)
    n_mails = next(numbers)
    assert office.bills() == bills(*range(n_mails))
    assert len([*(tmp_path / "mail").glob("*.eml")]) == n_mails
    assert office.flagged() == n_mails


def test_a_mailbox_that_is_numbered_anew_has_the_same_mails(tmp_path: Path) -> None:
    with dovecot() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(server.certificate))
        office = Office(tmp_path, server)
        office.box = "INBOX"
        office.edit(f"folder: {tmp_path.name[:40]}", "folder: INBOX")
        same = mail(3, message_id="<twice@example.org>")
        nameless = mail(4).replace(b"Message-ID: <4@example.org>\r\n", b"")
        server.put(mail(1), mail(2), same, same, nameless)
        office.go()
        first = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
        assert len(first) == 5
        for shift in (3, 100):  # some UIDs are those of other mails now
            server.number_anew(shift)
            report, notes = office.go()
            assert (report.returns["fresh"], report.returns["new"], notes) == (5, 0, [])
        server.put(mail(6))
        report, _ = office.go()
        assert (report.returns["fresh"], report.returns["new"]) == (5, 1)
        now = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
        assert now.items() > first.items()
        assert office.flagged() == 6


def test_a_large_mail_and_one_without_room_are_told_and_fetched_once_they_may(
    tmp_path: Path, server: Dovecot
) -> None:
    office = Office(tmp_path, server, f"max_bytes: 2KiB, keeps: 700B, {FLAG}")
    office.put(1, 2, 3)
    server.put(mail(4, "x" * 4_000), folder=office.box)
    _, notes = office.go()
    assert len(office.bills()) == 2
    assert "2 documents of" in notes[0]
    assert "larger than `max_bytes` (2,048), or than what `keeps` (700) leaves free: " in notes[0]
    office.edit("max_bytes: 2KiB, keeps: 700B", "max_bytes: 9KiB")
    office.go()
    assert (office.bills(), office.flagged()) == (bills(1, 2, 3, 4), 4)


def test_a_token_is_asked_for_at_each_login_and_may_expire_between_two(
    tmp_path: Path, server: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office(tmp_path, server)
    office.edit('password: "{{ secrets.mail }}"', "token: [cat, token.txt]")
    office.write("token.txt", "first\n")
    office.put(1)
    with server.knowing("first") as good:
        report, notes = office.go()
        assert (report.status, notes, office.bills(), office.flagged()) == (
            "completed",
            [],
            bills(1),
            1,
        )
        good[:] = ["second"]
        office.put(2)
        report, _ = office.go()
        assert "does not let 'office' in" in (report.message or "")
        assert "first" not in (report.message or "")
        office.write("token.txt", "second\n")
        office.go()
        assert (office.bills(), office.flagged()) == (bills(1, 2), 2)
        finish = mirror.Mirror.finish

        def finish_later(self: mirror.Mirror, at_end: FolderAtEnd) -> list[str]:
            good[:] = ["third"]  # it expires amid the run
            return finish(self, at_end)

        monkeypatch.setattr(mirror.Mirror, "finish", finish_later)
        office.put(3)
        report, notes = office.go()
        assert (report.status, office.bills(), office.flagged()) == ("completed", bills(1, 2, 3), 2)
        assert "is not told what is done, does not let 'office' in" in notes[0]
        assert "The next run does it." in notes[0]
        office.write("token.txt", "third\n")
        office.go()
        assert office.flagged() == 3


@pytest.mark.parametrize("tls", ["starttls", "off"])
def test_a_server_on_this_machine_may_be_asked_otherwise(
    tmp_path: Path, server: Dovecot, tls: str
) -> None:
    office = Office(tmp_path, server, f"tls: {tls}, since: 2026-01-01", server.plain_port)
    office.put(1)
    office.go()
    assert office.bills() == bills(1)
    office.edit("2026-01-01", "2100-01-01")
    office.put(2)
    office.go()
    assert office.bills() == bills(1)


@pytest.mark.parametrize("more", [FLAG, "move: Archive"])
def test_what_another_machine_did_before_is_told(
    tmp_path: Path, server: Dovecot, more: str
) -> None:
    with server.box("Archive"):
        pass
    office = Office(tmp_path, server, more)
    there = Office(tmp_path / "there", server, more)
    there.edit("folder: there", f"folder: {office.box}")
    office.put(1, 2)
    office.edit("do:", "if: inputs.goes_on == 'yes'\n    do:")
    office.edit("steps:", "inputs: {goes_on: {type: str, default: 'no'}}\nsteps:")
    office.go()  # it has the mails, and does none
    there.go()
    office.edit("'no'}", "'yes'}")
    _, notes = office.go()
    assert "2 documents of" in notes[0]
    assert "marked or moved by another one before: does another machine work on it?" in notes[0]


def test_a_disk_that_is_full_is_no_server_that_is_away(
    tmp_path: Path, server: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mirror, "write_atomically", full)
    office = Office(tmp_path, server)
    office.put(1)
    report, _ = office.go()
    assert report.status == "failed"
    assert "cannot be written: the disk is full" in (report.message or "")


@pytest.mark.parametrize(
    "more", [["../out/x.eml"], ["pipeline.yaml"], ["2026.eml", "1:1 (FLAGS)\r\nx LOGOUT"]]
)
def test_an_index_that_others_wrote_reaches_no_other_file_and_no_server(
    tmp_path: Path, server: Dovecot, more: list[str]
) -> None:
    office = Office(tmp_path, server)
    office.put(1)
    name, identity = (*more, "7:1")[:2]
    copy = {"identity": identity, "name": name, "size_bytes": 9, "marker": "<1@example.org>"}
    office.write("mail/.source.json", json.dumps({"cursor": "x\r\n:1", "copies": {identity: copy}}))
    before = office.file.read_text()
    report, _ = office.go()
    assert (report.status, office.bills(), office.flagged()) == ("completed", bills(1), 1)
    assert office.file.read_text() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] != ["x.eml"]


def test_a_mail_that_was_not_fetched_before_all_were_renumbered_is_itself(tmp_path: Path) -> None:
    with dovecot() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(server.certificate))
        office = Office(tmp_path, server, f"max_bytes: 2KiB, {FLAG}")
        office.edit(f"folder: {tmp_path.name[:40]}", "folder: INBOX")
        server.put(mail(1, "x" * 4_000), mail(2), mail(3, "x" * 4_000))
        office.go()
        with server.box() as box:
            box.uid("STORE", "1", "+FLAGS", "(\\Deleted)")
            box.expunge()
        server.number_anew(1)
        office.edit("max_bytes: 2KiB", "max_bytes: 9KiB")
        office.go()
        server.put(mail(4))  # its number is that of an earlier one
        office.go()
        office.box = "INBOX"
        assert (office.bills(), office.flagged()) == (bills(2, 3, 4), 3)


def test_a_watch_of_the_folder_listens_to_the_mailbox(
    tmp_path: Path, server: Dovecot, up: UpFolder
) -> None:
    office = Office(up.folder / tmp_path.name, server)
    watch = "on: {watch: [{path: mail, settle: 0.2s, batch: 0.2s}]}\nsteps:"
    office.edit("steps:", watch)
    office.put(1)
    up.environ |= {name: os.environ[name] for name in ("SSL_CERT_FILE", "MAIL_PASSWORD")}
    up.start("--allow", "network,secrets")
    up.until(lambda: office.bills() == bills(1))
    office.put(2)  # the server says that it came
    up.until(lambda: office.bills() == bills(1, 2))
    office.put(3)
    up.until(lambda: office.bills() == bills(1, 2, 3))
    up.until(lambda: office.flagged() == 3)
    server.stop()  # it comes back with another mail
    up.until(lambda: "is asked again" in up.log_text())
    server.start()
    office.put(4)
    up.until(lambda: office.bills() == bills(1, 2, 3, 4))
    up.stop()
    assert "Traceback" not in up.log_text()


def test_a_plan_asks_no_server_and_a_run_needs_leave(tmp_path: Path, server: Dovecot) -> None:
    office = Office(tmp_path, server)
    office.put(1)
    plan = office.plan(allow=frozenset({"secrets"}))
    assert not (tmp_path / "mail").exists()
    assert plan.items == ()
    assert "is not asked: its documents are those of earlier runs." in plan.remarks[0]
    with pytest.raises(PipelineError, match="wants to fetch the mails of office at 127"):
        office.run()
    office.edit('password: "{{ secrets.mail }}"', "token: [printf, x]")
    with pytest.raises(PipelineError, match="wants to run `printf x`"):
        office.run()


def test_no_document_says_which_server_is_shown_the_password(
    tmp_path: Path, server: Dovecot
) -> None:
    office = Office(tmp_path, server)
    office.edit("- id: docs", "- {id: asked, uses: files.read, with: {path: a.txt}}\n  - id: docs")
    office.edit("host: 127.0.0.1", "host: '{{ steps.asked.text }}'")
    with pytest.raises(PipelineError, match=r"step 'docs' has untrusted text"):
        office.go()

"""Mailboxes of other servers than Dovecot: each mail once, whatever they say less."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.runner.progress.report import Report
from paddock.steps.sources.mailbox import Account, open_mailbox
from tests.fakes.dovecot import mail
from tests.fakes.other_imap import PROGRAMS, OtherImap, other_imap
from tests.runner.world import Notes, World, carried_out

PIPELINE = """\
steps:
  - id: docs
    uses: files.scan
    with:
      root: mail
      mailbox: {host: 127.0.0.1, port: PORT, tls: "off", user: office, password: x, MORE}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
returns: steps.each.counts
"""


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[OtherImap]:
    if not (program := PROGRAMS[request.param]).exists():
        pytest.skip(f"{program} is not here (.ci/run unpacks it)")
    with other_imap(request.param) as made:
        made.put(*map(mail, range(1, 4)))
        yield made


class Office(World):
    def __init__(self, folder: Path, server: OtherImap, more: str) -> None:
        text = PIPELINE.replace("PORT", str(server.port)).replace("MORE", more)
        super().__init__(folder, text)

    def go(self) -> tuple[Report, str]:
        notes = Notes()
        return carried_out(self, observer=notes), " ".join(notes.texts)

    def bills(self) -> list[int]:
        texts = [path.read_text() for path in (self.folder / "mail").glob("*.eml")]
        return sorted(int(re.findall(r"The bill (\d+) is", text)[0]) for text in texts)


def test_each_mail_comes_once_and_is_flagged(tmp_path: Path, server: OtherImap) -> None:
    office = Office(tmp_path, server, "flag: paddock")
    assert (office.go()[1], office.bills()) == ("", [1, 2, 3])
    server.put(mail(4), b"Subject: none\r\n\r\nThe bill 5 is here.\r\n")
    report, told = office.go()
    assert (told, office.bills(), report.returns["fresh"]) == ("", [1, 2, 3, 4, 5], 3)
    assert server.search("KEYWORD paddock") == 5
    assert (office.go()[0].returns["fresh"], server.search("SEEN")) == (5, 0)


def test_a_watch_hears_of_mails_that_come(server: OtherImap) -> None:
    given = {"host": "127.0.0.1", "port": server.port, "tls": "off", "user": "office"}
    with open_mailbox(Account.model_validate({**given, "password": "x"}), "x") as mailbox:
        before = mailbox.cursor()
        mailbox.wait(0.1)
        assert mailbox.cursor() == before
        server.put(mail(4))
        assert mailbox.cursor() != before


@pytest.mark.parametrize(
    ("written", "name"), [("INBOX.Bills", "INBOX.Bills"), ("INBOX.Büro", "INBOX.B&APw-ro")]
)
def test_a_folder_has_the_name_that_the_server_gives_it(
    tmp_path: Path, server: OtherImap, written: str, name: str
) -> None:
    server.put(mail(7), folder=name)
    short = Office(tmp_path / "short", server, f"folder: {written.removeprefix('INBOX.')}")
    assert f"{written}" in (short.go()[0].message or "")
    office = Office(tmp_path, server, f"folder: {written}")
    assert (office.go()[1], office.bills()) == ("", [7])

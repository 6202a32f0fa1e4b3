"""Mails in a real Dovecot whose numbers, folder, server or state are others now: each is once."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.progress.report import Report
from tests.fakes.dovecot import PASSWORD, PROGRAM, Dovecot, dovecot, is_here, mail
from tests.runner.core.moved_worlds import MovedWorld
from tests.runner.world import Notes, carried_out

pytestmark = pytest.mark.skipif(not is_here(), reason=f"{PROGRAM} is not here (dovecot-imapd)")
PIPELINE = """\
secrets: {mail: {env: MAIL_PASSWORD}}
steps:
  - id: docs
    uses: files.scan
    with:
      root: mail
      mailbox: {host: 127.0.0.1, port: PORT, user: office, password: "{{ secrets.mail }}",
                folder: INBOX, MORE}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - uses: files.write
        with: {path: "out/{{ doc.stem }}.txt", text: "{{ steps.text.text }}"}
    returns: {file: doc.relpath}
returns: steps.each.counts
"""
OLD_COPY = (
    '%s: {"identity": %s, "name": %s, "size_bytes": %s, "marker": %s, "is_here": true, '
    '"is_done": true, "is_changed": false}'
)
"""Written at 6e7386861."""
X = "<x@example.org>"
BILL = re.compile(r"^Subject: (.*)", re.MULTILINE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dovecot]:
    with dovecot() as made:
        monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
        monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)
        yield made


class House(MovedWorld):
    def __init__(self, folder: Path, server: Dovecot, more: str = "flag: paddock") -> None:
        self.server = server
        text = PIPELINE.replace("PORT", str(server.port)).replace("MORE", more)
        super().__init__(folder / "here", text)

    def go(self, **wishes: Any) -> tuple[Report, list[str]]:
        notes = Notes()
        report = carried_out(self, observer=notes, **wishes)
        assert report.status in ("completed", "quarantined"), report.message
        return report, [text for text in notes.texts if "127.0.0.1" in text]

    def mails(self, folder: str = "mail") -> list[str]:
        """Return the subject of each copy."""
        texts = (path.read_text() for path in (self.folder / folder).glob("*.eml"))
        return sorted(found[1].strip() for text in texts if (found := BILL.search(text)))

    def flagged(self, folder: str = "INBOX") -> int:
        return self.server.search("KEYWORD paddock", folder)

    def rename_copies(self) -> None:
        (self.folder / "mail").rename(self.folder / "post")
        self.edit("root: mail", "root: post")

    def as_earlier_version(self) -> None:
        """Have what an earlier version noted beside the copies, in place of the state."""
        (path,) = self.states.glob("mailbox-*.json")
        index = json.loads(path.read_text())
        validity, following = index["cursor"].split(":")[:2]
        known = (OLD_COPY % tuple(map(json.dumps, (
            identity, identity, *map(copy.get, ("name", "size_bytes", "marker")))))
            for identity, copy in index["copies"].items()
        )  # fmt: skip
        copies = ", ".join(known)
        old = f'{{"cursor": "{validity}:{following}", "copies": {{{copies}}}, "former": []}}'
        self.write("mail/.source.json", old)
        self.lose_state()

    def number_anew(self) -> None:
        self.server.number_anew(40)

    def old_and_anew(self) -> None:
        self.as_earlier_version()
        self.number_anew()

    def lost_and_anew(self) -> None:
        self.lose_state()
        self.number_anew()

    def renamed_and_anew(self) -> None:
        self.rename_copies()
        self.rename_base()
        self.number_anew()

    def plain_port(self) -> None:
        self.edit(f"port: {self.server.port}", f"tls: off, port: {self.server.plain_port}")

    def by_another_name(self) -> None:
        self.edit("host: 127.0.0.1", "host: localhost")
        self.plain_port()


def bills(*numbers: int) -> list[str]:
    return sorted(f"Bill {number}" for number in numbers)


MOVES: dict[str, Callable[[House], None]] = {
    "pipeline renamed": House.rename_pipeline,
    "base renamed": House.rename_base,
    "copies renamed": House.rename_copies,
    "state lost": House.lose_state,
    "old index": House.as_earlier_version,
    "new numbers": House.number_anew,
    "old index, new numbers": House.old_and_anew,
    "state lost, new numbers": House.lost_and_anew,
    "all renamed, new numbers": House.renamed_and_anew,
    "another port": House.plain_port,
    "another name of the server": House.by_another_name,
}


@pytest.mark.parametrize("move", MOVES.values(), ids=[*MOVES])
def test_whatever_moves_each_mail_is_there_once_and_flagged(
    tmp_path: Path, server: Dovecot, move: Callable[[House], None]
) -> None:
    house = House(tmp_path, server)
    twins = [mail(3).replace(b"Message-ID: <3@example.org>\r\n", b"")] * 2
    server.put(mail(1, message_id=X), mail(2, message_id=X), *twins)
    house.go()
    assert (house.mails(), house.flagged()) == (bills(1, 2, 3, 3), 4)
    server.put(mail(4, message_id=X))
    move(house)
    folder = "mail" if "root: mail" in house.text else "post"
    house.go()
    server.put(mail(5, message_id=X))
    house.go()
    assert (house.mails(folder), house.flagged()) == (bills(1, 2, 3, 3, 4, 5), 6)


@pytest.mark.parametrize("more", ["flag: paddock", "move: Archive"])
def test_a_message_id_that_comes_again_is_another_mail_after_new_numbers(
    tmp_path: Path, server: Dovecot, more: str
) -> None:
    with server.box("Archive"):
        pass
    house = House(tmp_path, server, more)
    server.put(mail(1, "Of 1.", message_id=X))
    house.go()
    server.put(mail(1, "Of 2.", message_id=X))  # the same head and size
    house.number_anew()
    _, notes = house.go()
    texts = [path.read_text() for path in (house.folder / "mail").glob("*.eml")]
    assert sorted(text.split()[-1] for text in texts) == ["1.", "2."]
    assert notes == []
    marked = house.flagged() if "flag" in more else server.search("ALL", "Archive")
    assert marked == 2


def test_of_two_mails_with_one_message_id_that_one_is_flagged_which_is_done(
    tmp_path: Path, server: Dovecot
) -> None:
    house = House(tmp_path, server)
    house.edit('path: "{{ doc.path }}"}', 'path: "{{ doc.path }}", max_bytes: 2KiB}')
    server.put(mail(1, "x" * 4_000, message_id=X))
    house.go()
    server.put(mail(2, message_id=X))
    for _ in range(2):
        house.number_anew()
        house.go()
        assert house.mails() == bills(1, 2)
        assert server.search("KEYWORD paddock SUBJECT 2") == house.flagged() == 1


def test_another_folder_of_the_same_uidvalidity_is_another_place(
    tmp_path: Path, server: Dovecot
) -> None:
    house = House(tmp_path, server)
    server.put(mail(1), mail(2))
    server.put(mail(3), mail(1), folder="Bills")
    server.stop()
    (inbox, below) = (server.home / "mail" / each for each in ("", ".Bills"))
    validity = re.search(r" V\d+ ", (inbox / "dovecot-uidlist").read_text())
    assert validity
    text = re.sub(r" V\d+ ", validity[0], (below / "dovecot-uidlist").read_text())
    (below / "dovecot-uidlist").write_text(text)
    for index in below.glob("dovecot.index*"):
        index.unlink()
    server.start()
    house.go()
    house.edit("folder: INBOX", "folder: Bills")
    house.go()
    assert house.mails() == bills(1, 2, 3)
    server.put(mail(4))
    house.edit("folder: Bills", "folder: INBOX")
    house.go()
    assert (house.mails(), house.flagged()) == (bills(1, 2, 3, 4), 3)


def test_another_server_that_takes_over_has_the_same_mails(
    tmp_path: Path, server: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, server)
    server.put(mail(1), mail(2), mail(3))
    house.go()
    next((house.folder / "mail").glob("*-1.eml")).unlink()  # its document is deleted
    with dovecot() as other:
        monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
        other.put(mail(9), mail(3), mail(2), mail(1))
        house.edit(str(server.port), str(other.port))
        house.go()
        assert house.mails() == bills(2, 3, 9)


def test_a_folder_that_was_removed_and_made_again_is_read_whole(
    tmp_path: Path, server: Dovecot
) -> None:
    house = House(tmp_path, server)
    server.put(*map(mail, range(5)))
    house.go()
    server.stop()  # the same UIDVALIDITY, and numbers from the first one on
    head = (server.home / "mail/dovecot-uidlist").read_text().split()[:3]
    for path in [*server.home.glob("mail/cur/*"), *server.home.glob("mail/new/*")]:
        path.unlink()
    for path in server.home.glob("mail/dovecot.index*"):
        path.unlink()
    uidlist = " ".join([*head[:2], "N1", *head[3:]])
    (server.home / "mail/dovecot-uidlist").write_text(f"{uidlist}\n")
    server.start()
    server.put(mail(11), mail(12))
    house.go()
    assert house.mails() == bills(0, 1, 2, 3, 4, 11, 12)


def test_a_mail_that_was_filed_or_deleted_here_does_not_come_again(
    tmp_path: Path, server: Dovecot
) -> None:
    house = House(tmp_path, server)
    house.edit(
        '{path: "out/{{ doc.stem }}.txt", text: "{{ steps.text.text }}"}',
        '{path: "{{ doc.path }}", to: "filed/{{ doc.name }}"}',
    )
    house.edit("files.write", "files.move")
    server.put(mail(1), mail(2))
    house.go()
    assert (house.mails(), house.mails("filed")) == ([], bills(1, 2))
    server.put(mail(3))
    for _ in range(2):
        house.number_anew()
        house.go()
        assert (house.mails(), house.mails("filed")) == ([], bills(1, 2, 3))


def test_a_mail_in_two_folders_that_fill_one_is_one_document(
    tmp_path: Path, server: Dovecot
) -> None:
    house = House(tmp_path, server)
    start, end = house.text.index("  - id: docs"), house.text.index("  - id: each")
    first = house.text[start:end]
    second = first.replace("id: docs", "id: more").replace("INBOX", "Bills")
    house.edit(first, second + first)
    server.put(mail(1), mail(2))
    server.put(mail(2), mail(3), folder="Bills")
    house.go()
    house.go()
    assert house.mails() == bills(1, 2, 3)
    assert (house.flagged(), house.flagged("Bills")) == (2, 2)

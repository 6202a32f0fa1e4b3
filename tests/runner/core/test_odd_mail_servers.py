"""Mail servers that answer in another way: each mail comes whole and once, or is named."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from paddock.runner.progress.report import Report
from paddock.steps.sources.mailbox import Account, open_mailbox
from paddock.steps.sources.mirror import SourceAway
from tests.fakes.dovecot import mail
from tests.fakes.odd_imap import (
    DAY,
    HEADER,
    Form,
    OddImap,
    head,
    literal,
    odd_imap,
    quoted,
    refused,
    whole,
)
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
      - uses: files.write
        with: {path: "out/{{ doc.stem }}.txt", text: "{{ steps.text.text }}"}
returns: steps.each.counts
"""


@pytest.fixture
def server() -> Iterator[OddImap]:
    with odd_imap() as made:
        made.mails = {n: mail(n) for n in (1, 2, 3)}
        yield made


class Office(World):
    def __init__(self, folder: Path, server: OddImap, more: str = "max_bytes: 1MiB") -> None:
        super().__init__(folder, PIPELINE.replace("PORT", f"{server.port}").replace("MORE", more))

    def go(self) -> tuple[Report, str]:
        notes = Notes()
        return carried_out(self, observer=notes), " ".join(notes.texts)

    def bills(self) -> list[int]:
        """Return which bills came, by what the copies hold."""
        texts = [path.read_bytes() for path in (self.folder / "mail").glob("*.eml")]
        assert not [text for text in texts if b",50 Euro." not in text]
        return sorted(int(re.findall(rb"The bill (\d+) is", text)[0]) for text in texts)


def body(form: bytes) -> Form:
    """Return what answers so, with the mail's place, its UID, and itself in one of two forms."""

    def answer(n: int, uid: int, content: bytes) -> bytes:
        numbered = form.replace(b"%N", b"%d" % n).replace(b"%UID", b"%d" % uid)
        return numbered.replace(b"%LITERAL", literal(content)).replace(b"%Q", quoted(content))

    return answer


SAYS_ALL = {
    "as a quoted string": b"* %N FETCH (UID %UID BODY[] %Q)\r\n",
    "the UID behind the mail": b"* %N FETCH (BODY[] %LITERAL UID %UID)\r\n",
    "in two answers": b"* %N FETCH (UID %UID)\r\n* %N FETCH (BODY[] %LITERAL)\r\n",
    "among others that nobody asked for": b"* %N FETCH (FLAGS (\\Seen))\r\n* 99 EXISTS\r\n"
    b"* %N FETCH (UID %UID BODY[] %LITERAL)\r\n* %N FETCH (UID 777 FLAGS (\\Recent))\r\n",
    "in small letters": b"* %N FETCH (uid %UID body[] %LITERAL)\r\n",
    "with more items": b'* %N FETCH (FLAGS (\\Seen $X) X-L ("a\\"b)" {2}\r\n)( ) MODSEQ (12) '
    b"UID %UID BODY[] %LITERAL)\r\n",
    "while another mail is removed": b"* 7 EXPUNGE\r\n* %N FETCH (UID %UID BODY[] %LITERAL)\r\n",
}  # fmt: skip
SAYS_LESS = {
    "NIL": body(b"* %N FETCH (UID %UID BODY[] NIL)\r\n"),
    "an empty string": body(b'* %N FETCH (UID %UID BODY[] "")\r\n'),
    "an empty literal": body(b"* %N FETCH (UID %UID BODY[] {0}\r\n)\r\n"),
    "nothing": body(b""),
    "its start": body(b"* %N FETCH (UID %UID BODY[]<0> %LITERAL)\r\n"),
    "a list that does not end": body(b"* %N FETCH (UID %UID BODY[] %LITERAL\r\n"),
    "another mail's number": body(b"* %N FETCH (UID 777 BODY[] %LITERAL)\r\n"),
    "no number, and others moved up": body(b"* 1 EXPUNGE\r\n* %N FETCH (BODY[] %LITERAL)\r\n"),
    "a refusal": refused("NO [UNAVAILABLE] Server error while fetching messages"),
    "a command error": refused("BAD it cannot"),
    "half, and the end of the connection": body(b"* %N FETCH (UID %UID BODY[] {9000}\r\nFromCLOSE"),
    "BYE": body(b"* BYE internal error\r\nCLOSE"),
    "what is too large": lambda n, uid, content: whole(n, uid, b"x" * 3_000_000),
}
HEADS = {
    "no size": partial(head, size=b"FLAGS ()"),
    "a size of 0": partial(head, size=b"RFC822.SIZE 0"),
    "a wrong size": partial(head, size=b"RFC822.SIZE 10"),
    "a size in words": partial(head, size=b"RFC822.SIZE many"),
    "no day": partial(head, day=b"FLAGS ()"),
    "a day that is none": partial(head, day=b'INTERNALDATE "99-Xxx-2026"'),
    "NIL": lambda n, uid, text: b"* %d FETCH (UID %d RFC822.SIZE 400 %s %s NIL)\r\n"
    % (n, uid, DAY, HEADER),
    "a quoted string": lambda n, uid, text: b'* %d FETCH (UID %d RFC822.SIZE 400 %s %s "")\r\n'
    % (n, uid, DAY, HEADER),
    "names in quotes": lambda n, uid, text: head(n, uid, text).replace(b"DATE F", b'"DATE" F'),
    "nothing": lambda n, uid, text: b"",
    "a refusal": refused("NO [SERVERBUG] corrupt"),
}  # fmt: skip


@pytest.mark.parametrize("form", SAYS_ALL.values(), ids=SAYS_ALL)
@pytest.mark.parametrize("of", [0, 2], ids=["all", "one"])
def test_a_mail_comes_whole_in_each_form_that_it_may_have(
    tmp_path: Path, server: OddImap, form: bytes, of: int
) -> None:
    server.bodies[of], office = body(form), Office(tmp_path, server)
    assert (office.go()[1], office.bills()) == ("", [1, 2, 3])


@pytest.mark.parametrize("form", SAYS_LESS.values(), ids=SAYS_LESS)
def test_a_mail_that_does_not_come_is_named_holds_up_no_other_and_comes_later(
    tmp_path: Path, server: OddImap, form: Form
) -> None:
    server.bodies[2], office = form, Office(tmp_path, server)
    for bill in (4, 5):
        report, told = office.go()
        assert (report.status, office.bills()) == ("completed", [*{1, 3, *range(4, bill)}])
        assert "1 document of 'INBOX' of office at 127.0.0.1 not fetched: " in told
        assert "-2.eml" in told
        server.mails[bill] = mail(bill)
    server.bodies.clear()
    office.edit("1MiB", "8MiB")  # what is too large is asked for once it may come
    assert (office.go()[1], office.bills()) == ("", [1, 2, 3, 4, 5])


@pytest.mark.parametrize("form", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("of", [0, 2], ids=["all", "one"])
def test_a_mail_comes_whatever_its_header_says(
    tmp_path: Path, server: OddImap, form: Form, of: int
) -> None:
    server.heads[of], office = form, Office(tmp_path, server)
    assert (office.go()[1], office.bills()) == ("", [1, 2, 3])
    server.mails[4] = mail(4)
    assert (office.go()[1], office.bills()) == ("", [1, 2, 3, 4])


def test_a_mail_that_was_removed_meanwhile_is_not_missed(tmp_path: Path, server: OddImap) -> None:
    def removed(n: int, uid: int, content: bytes) -> bytes:
        server.mails.pop(2, None)
        return b""

    server.bodies[2], office = removed, Office(tmp_path, server)
    assert (office.go()[1], office.bills()) == ("", [1, 3])


def test_mails_come_in_any_order(tmp_path: Path, server: OddImap) -> None:
    server.is_backwards, office = True, Office(tmp_path, server)
    assert (office.go()[1], office.bills()) == ("", [1, 2, 3])


def test_an_empty_mail_is_a_mail_where_the_server_says_that_it_is_empty(
    tmp_path: Path, server: OddImap
) -> None:
    server.mails[2] = b""
    server.heads[2] = partial(head, size=b"RFC822.SIZE 0")
    server.bodies[2] = body(b"* %N FETCH (UID %UID RFC822.SIZE 0 BODY[] {0}\r\n)\r\n")
    office = Office(tmp_path, server)
    assert office.go()[1] == ""
    assert sorted(path.stat().st_size > 0 for path in (tmp_path / "mail").glob("*.eml")) == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "select",
    [
        b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n",
        b"* OK [UIDNEXT 1] n\r\n* OK [UIDVALIDITY 7] v\r\n* 2 EXISTS\r\n* 3 EXISTS\r\n",
        b"* 1 FETCH (FLAGS ())\r\n* OK [UIDVALIDITY 7] v\r\n* 3 EXISTS\r\n* 0 RECENT\r\n",
        b"* 3 EXISTS\r\nTAG OK [UIDVALIDITY 7] done\r\n",
        b"* 3 EXISTS\r\n* OK no numbers that last\r\n",
    ],
    ids=["no UIDNEXT", "a wrong UIDNEXT", "another order", "with the end", "no UIDVALIDITY"],
)  # fmt: skip
def test_a_folder_says_more_or_less_of_itself(
    tmp_path: Path, server: OddImap, select: bytes
) -> None:
    office = Office(tmp_path, server)
    for n_there in (3, 3, 4, 5):
        if n_there not in server.mails:
            server.mails[n_there] = mail(n_there)
        server.answers["EXAMINE"] = select.replace(b"* 3 EXISTS", b"* %d EXISTS" % n_there)
        assert office.go()[1] == ""
        assert office.bills() == [*range(1, n_there + 1)]


@pytest.mark.parametrize(
    ("command", "answer", "then", "told"),
    [
        ("SEARCH", b"* SEARCH 1\r\n* SEARCH 3 2\r\n* SEARCH\r\n", [1, 2, 3], ""),
        ("SEARCH", b"* SEARCH" + b" 1 2 3" * 250_000 + b"\r\n", [1, 2, 3], ""),
        ("SEARCH", b"", [], ""),
        ("SEARCH", b"* SEARCH 3\r\n", [3], ""),
        ("SEARCH", b"TAG NO [UNAVAILABLE] later\r\n", [], "is away, it does not do SEARCH"),
        ("EXAMINE", b"TAG NO [INUSE] locked\r\n", [], "is away, it is not ready: [INUSE] locked"),
        ("LOGIN", b"TAG NO [UNAVAILABLE] later\r\n", [], "is away, it is not ready: [UNAVAILABLE"),
        ("LOGIN", b"* BYE too many\r\nTAG NO x\r\n", [], "is away, it broke off: "),
        ("EXAMINE", b"CLOSE", [], "is away, it broke off: "),
        ("SEARCH", b"CLOSE", [], "is away, it broke off: "),
    ],
)
def test_a_short_or_refused_listing_is_none_and_the_next_run_has_all(
    tmp_path: Path, server: OddImap, command: str, answer: bytes, then: list[int], told: str
) -> None:
    server.answers[command], office = answer, Office(tmp_path, server)
    report, note = office.go()
    assert (report.status, office.bills()) == ("completed", then)
    assert told in note
    server.answers.clear()
    assert (office.go()[1], office.bills()) == ("", [1, 2, 3])


def test_a_server_that_lets_nobody_in_now_is_away(tmp_path: Path, server: OddImap) -> None:
    server.greeting = b"* BYE too many connections\r\n"
    report, note = Office(tmp_path, server).go()
    assert (report.status, "is away, it greets otherwise" in note) == ("completed", True)


def test_mails_that_came_before_another_day_is_asked_for_come(
    tmp_path: Path, server: OddImap
) -> None:
    office = Office(tmp_path, server, "since: 2026-03-01")
    server.answers["SEARCH"] = b"* SEARCH 3\r\n"
    office.go()
    assert office.bills() == [3]
    server.answers.clear()
    office.edit("since: 2026-03-01", "since: 2026-01-01")
    office.go()
    assert office.bills() == [1, 2, 3]


@pytest.mark.parametrize(
    ("more", "odd", "told"),
    [
        ("flag: paddock", {"permanent_flags": b"* OK [PERMANENTFLAGS (\\Seen \\Draft)] f\r\n"},
         r"keeps no flag 'paddock', but \DRAFT, \SEEN"),
        ("flag: paddock", {"permanent_flags": b"* OK [PERMANENTFLAGS ()] f\r\n"},
         "keeps no flag 'paddock', but none"),
        ("flag: paddock", {"permanent_flags": b"", "keeps_flags": False},
         "says that it keeps the flag 'paddock', and does not"),
        ("flag: \\Seen", {"keeps_flags": False}, "says that it keeps the flag '\\Seen', and does"),
        ("flag: paddock", {"answers": {"SELECT": b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n"
         b"* OK [READ-ONLY] r\r\n"}}, "does not let its mails be marked"),
        ("move: Done", {"moves": False}, "says that it moved mails to 'Done', and did not"),
        ("flag: paddock", {"answers": {"STORE": b"TAG NO [LIMIT] too many flags\r\n"}},
         "it does not do STORE: [LIMIT] too many flags"),
    ],
)  # fmt: skip
def test_a_mail_is_done_on_the_server_only_where_that_keeps_it(
    tmp_path: Path, server: OddImap, more: str, odd: dict[str, object], told: str
) -> None:
    usual = {name: getattr(server, name) for name in odd}
    for name, value in odd.items():
        setattr(server, name, value)
    office = Office(tmp_path, server, more)
    report, note = office.go()
    assert (report.status, office.bills()) == ("completed", [1, 2, 3])
    assert "is not told what is done, " in note
    assert told in note
    for name, value in usual.items():
        setattr(server, name, {} if name == "answers" else value)
    assert office.go()[1] == ""
    marked = sum(bool(flags) for flags in server.flags.values())
    assert marked + (3 - len(server.mails)) == 3


@pytest.mark.parametrize("flags", [b"(\\Seen \\*)", b"(paddock)", b"(PADDOCK)"])
def test_a_flag_that_a_folder_keeps_is_set(tmp_path: Path, server: OddImap, flags: bytes) -> None:
    server.permanent_flags = b"* OK [PERMANENTFLAGS %s] f\r\n" % flags
    assert Office(tmp_path, server, "flag: paddock").go()[1] == ""
    assert len(server.flags) == 3


def test_a_folder_that_is_not_there_is_told_with_those_that_are(
    tmp_path: Path, server: OddImap
) -> None:
    report, _ = Office(tmp_path, server, "folder: Büro").go()
    assert "has no such folder: no such mailbox" in f"{report.message}"
    assert "it has INBOX, INBOX.Büro." in f"{report.message}"


# --- of a watch


@pytest.fixture
def account(server: OddImap) -> Account:
    given = {"host": "127.0.0.1", "port": server.port, "tls": "off"}
    return Account.model_validate({**given, "user": "office", "password": "x"})


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"uid_next": False},
        {"answers": {"EXAMINE": b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT 1] n\r\n"}},
    ],
    ids=["UIDNEXT", "no UIDNEXT", "the same UIDNEXT"],
)
def test_a_watch_looks_again_once_a_mail_came(
    server: OddImap, account: Account, odd: dict[str, object]
) -> None:
    for name, value in odd.items():
        setattr(server, name, value)
    with open_mailbox(account, "x") as mailbox:
        before = mailbox.cursor()
        assert mailbox.cursor() == before
        server.mails[9] = mail(9)
        if server.answers:
            server.answers["EXAMINE"] = server.answers["EXAMINE"].replace(b"* 3", b"* 4")
        assert mailbox.cursor() != before
        del server.mails[9]
        server.mails[10] = mail(10)
        after = mailbox.cursor()
        assert after != before


@pytest.mark.parametrize(
    "answer",
    [
        b"TAG NO I do not\r\n",
        b"* 4 EXISTS\r\n+ idling\r\nTAG OK done\r\n",
        b"+ idling\r\n* 4 EXISTS\r\nTAG OK done\r\n",
    ],
    ids=["refuses", "says so before", "says so after"],
)
def test_a_watch_that_waits_hears_a_server_that_speaks_early(
    server: OddImap, account: Account, answer: bytes
) -> None:
    server.capabilities += " IDLE"
    server.answers["IDLE"] = answer
    with open_mailbox(account, "x") as mailbox:
        mailbox.wait(0.01)
        assert mailbox.cursor() == "7:3:3"


def test_a_server_that_closes_while_a_watch_waits_is_away(
    server: OddImap, account: Account
) -> None:
    server.capabilities += " IDLE"
    server.answers["IDLE"] = b"CLOSE"
    with open_mailbox(account, "x") as mailbox, pytest.raises(SourceAway, match="closed the conn"):
        mailbox.wait(60)

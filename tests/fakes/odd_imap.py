"""A small IMAP server that does one thing in another way than Dovecot, by law or against it."""

import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Form = Callable[[int, int, bytes], bytes]
"""What FETCH answers of a mail: its place, its UID and its bytes or header."""
HEADER = b"BODY[HEADER.FIELDS (MESSAGE-ID DATE FROM SUBJECT)]"
DAY = b'INTERNALDATE "02-Mar-2026 10:00:00 +0100"'


class Closed(Exception):
    """The server closes the connection."""


def literal(text: bytes) -> bytes:
    return b"{%d}\r\n%s" % (len(text), text)


def quoted(text: bytes) -> bytes:
    flat = text.replace(b"\r\n", b" ").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%s"' % flat


def whole(n: int, uid: int, text: bytes) -> bytes:
    return b"* %d FETCH (UID %d BODY[] %s)\r\n" % (n, uid, literal(text))


def head(n: int, uid: int, text: bytes, *, size: bytes = b"", day: bytes = DAY) -> bytes:
    said = size or b"RFC822.SIZE %d" % (len(text) + 50)
    parts = (n, uid, said, day, HEADER, literal(text))
    return b"* %d FETCH (UID %d %s %s %s %s)\r\n" % parts


class OddImap(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port = int(self.server_address[1])
        self.mails = dict[int, bytes]()
        self.flags = dict[int, set[str]]()
        self.commands = list[str]()
        self.bodies, self.heads = dict[int, Form](), dict[int, Form]()
        """Of these mails it answers otherwise; of 0: of all."""
        self.answers = dict[str, bytes]()
        """Its whole answer to a command but the line with the tag; that begins with `TAG `, if it
        is given."""
        self.capabilities, self.greeting = "IMAP4rev1 MOVE", b"* OK ready\r\n"
        self.validity, self.uid_next = b"* OK [UIDVALIDITY 7] v\r\n", True
        self.permanent_flags = b"* OK [PERMANENTFLAGS (\\Seen \\*)] f\r\n"
        self.keeps_flags = self.moves = True
        self.is_backwards = False


class _Connection(socketserver.StreamRequestHandler):
    server: OddImap

    def handle(self) -> None:
        with suppress(Closed, OSError):
            self.wfile.write(self.server.greeting)
            while line := self.rfile.readline():
                if line == b"DONE\r\n":
                    continue
                tag, command, rest = (*line.decode().strip().split(" ", 2), "")[:3]
                if command == "UID":
                    command, _, rest = rest.partition(" ")
                self.server.commands.append(f"{command} {rest}".strip())
                self._answer(tag, command.upper(), rest)

    def _answer(self, tag: str, command: str, rest: str) -> None:
        server, end = self.server, f"{tag} OK done\r\n".encode()
        if (given := server.answers.get(command)) is not None:
            if given == b"CLOSE":
                raise Closed
            body, is_ended, told = given.rpartition(b"TAG ")
            end = f"{tag} ".encode() + told if is_ended else end
            given = body if is_ended else given
            self.wfile.write(given + end)
            return
        answer = b""
        try:
            match command:
                case "CAPABILITY":
                    answer = f"* CAPABILITY {server.capabilities}\r\n".encode()
                case "LIST":
                    answer = b'* LIST () "." INBOX\r\n* LIST () "." "INBOX.B&APw-ro"\r\n'
                case "SELECT" | "EXAMINE":
                    if rest != '"INBOX"':
                        end = f"{tag} NO no such mailbox\r\n".encode()
                    else:
                        answer = self._selected()
                case "SEARCH":
                    found = " ".join(map(str, self._found(rest)))
                    answer = f"* SEARCH {found}".strip().encode() + b"\r\n"
                case "STORE":
                    if server.keeps_flags:
                        for uid in self._uids(rest.split()[0]):
                            server.flags.setdefault(uid, set()).add(rest.split("(")[1][:-1])
                case "MOVE":
                    for uid in self._uids(rest.split()[0]) if server.moves else ():
                        del server.mails[uid]
                case "FETCH":
                    self._fetch(*rest.split(" ", 1))
        except _Refused as refusal:
            end = f"{tag} {refusal}\r\n".encode()
        self.wfile.write(answer + end)

    def _selected(self) -> bytes:
        server = self.server
        uid_next = b"* OK [UIDNEXT %d] n\r\n" % (max(server.mails, default=0) + 1)
        told = b"* %d EXISTS\r\n" % len(server.mails)
        return told + server.validity + uid_next * server.uid_next + server.permanent_flags

    def _uids(self, numbers: str, *, are_places: bool = False) -> list[int]:
        there = sorted(self.server.mails)
        last = len(there) if are_places else (there or [0])[-1]
        found = set[int]()
        for part in numbers.split(","):
            ends = [last if end == "*" else int(end) for end in part.split(":")]
            wanted = range(min(ends), max(ends) + 1)
            found |= {uid for n, uid in enumerate(there, 1) if (n if are_places else uid) in wanted}
        return sorted(found)

    def _found(self, rest: str) -> list[int]:
        words = rest.split()
        if words[0] != "UID":
            return self._uids(words[0], are_places=True)
        found = self._uids(words[1])
        if len(words) == 2 or words[2] == "SINCE":
            return found
        flag = words[3] if "KEYWORD" in words[2] else "\\" + words[2].removeprefix("UN").title()
        has = not words[2].startswith("UN")
        return [uid for uid in found if (flag in self.server.flags.get(uid, ())) == has]

    def _fetch(self, numbers: str, what: str) -> None:
        server, uids = self.server, self._uids(numbers)
        for uid in reversed(uids) if server.is_backwards else uids:
            content, n = server.mails[uid], sorted(server.mails).index(uid) + 1
            if "HEADER" in what:
                lines = content.partition(b"\r\n\r\n")[0].split(b"\r\n")
                named = [x for x in lines if re.match(rb"(Message-ID|Date|From|Subject):", x)]
                form = server.heads.get(uid) or server.heads.get(0) or head
                answer = form(n, uid, b"\r\n".join((*named, b"", b"")))
            elif "BODY" in what:
                form = server.bodies.get(uid) or server.bodies.get(0) or whole
                answer = form(n, uid, content)
            else:
                answer = b"* %d FETCH (UID %d)\r\n" % (n, uid)
            self.wfile.write(answer.partition(b"CLOSE")[0])
            if b"CLOSE" in answer:
                raise Closed


class _Refused(Exception):
    pass


def refused(text: str) -> Form:
    def form(n: int, uid: int, content: bytes) -> bytes:
        raise _Refused(text)

    return form


@contextmanager
def odd_imap() -> Iterator[OddImap]:
    with OddImap() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

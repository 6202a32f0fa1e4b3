"""A real Dovecot of its own user in a folder of its own, on a free port of loopback."""

import grp
import imaplib
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.benchmarks.processes import free_port
from tests.fakes.far_side import certificate as write_certificate
from tests.fakes.wires import cutting_wire
from tests.waiting import PATIENCE_S

PROGRAM = "/usr/sbin/dovecot"
USER, PASSWORD = "office", "geheim-17"
_CONFIG = """\
protocols = imap
listen = 127.0.0.1
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
ssl = yes
ssl_cert = <{home}/certificate.pem
ssl_key = <{home}/certificate.pem
disable_plaintext_auth = yes
auth_mechanisms = plain xoauth2
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
mail_location = maildir:{home}/mail
first_valid_uid = {uid}
first_valid_gid = {gid}
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {home}/oauth2.conf
}}
passdb {{
  driver = static
  mechanisms = plain
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={home}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    address = 127.0.0.1
    port = {plain_port}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0600
  }}
}}
mail_max_userip_connections = 100
"""


def mail(number: int, text: str = "", *, message_id: str = "") -> bytes:
    message = EmailMessage()
    message["From"], message["To"] = "Ann Gull <ann@example.org>", "office@example.org"
    message["Subject"], message["Date"] = f"Bill {number}", "Mon, 02 Mar 2026 10:00:00 +0100"
    message["Message-ID"] = message_id or f"<{number}@example.org>"
    message.set_content(text or f"The bill {number} is of {number},50 Euro.\n")
    return message.as_bytes().replace(b"\n", b"\r\n")


class Dovecot:
    def __init__(self, home: Path, port: int, plain_port: int, token_port: int) -> None:
        self.home, self.port = home, port
        self.plain_port, self.token_port = plain_port, token_port
        self.certificate = home / "certificate.pem"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        owner = self.home.stat()
        as_other = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        with (self.home / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [PROGRAM, "-F", "-c", str(self.home / "dovecot.conf")],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                **(as_other if os.getuid() == 0 else {}),  # type: ignore[call-overload]
            )
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise TimeoutError((self.home / "stderr").read_text() + (self.home / "log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    @contextmanager
    def box(self, folder: str = "INBOX") -> Iterator[imaplib.IMAP4]:
        context = ssl.create_default_context(cafile=str(self.certificate))
        imap = imaplib.IMAP4_SSL("127.0.0.1", self.port, ssl_context=context, timeout=PATIENCE_S)
        try:
            imap.login(USER, PASSWORD)
            imap.create(folder)
            imap.select(folder)
            yield imap
        finally:
            imap.logout()

    def put(self, *mails: bytes, folder: str = "INBOX") -> None:
        with self.box(folder) as imap:
            for data in mails:
                assert imap.append(folder, "", "", data)[0] == "OK"

    def search(self, what: str, folder: str = "INBOX") -> int:
        with self.box(folder) as imap:
            return len((imap.uid("SEARCH", what)[1][0] or b"").split())

    def number_anew(self, shift: int = 100) -> None:
        """Give its mails other UIDs in another order, under another UIDVALIDITY."""
        self.stop()
        uidlist = self.home / "mail" / "dovecot-uidlist"
        head, *lines = uidlist.read_text().splitlines()
        version, *fields = head.split()
        numbers = [line.partition(" ") for line in reversed(lines)]
        anew = [f"{n + shift} {rest}" for n, (_, _, rest) in enumerate(numbers)]
        fields = [
            f"V{int(f[1:]) + 1}" if f[0] == "V" else f"N{shift + len(lines)}" if f[0] == "N" else f
            for f in fields
        ]
        uidlist.write_text("\n".join((" ".join((version, *fields)), *anew, "")))
        for index in (self.home / "mail").glob("dovecot.index*"):
            index.unlink()
        self.start()

    @contextmanager
    def knowing(self, *tokens: str) -> Iterator[list[str]]:
        """Serve what it asks about tokens of OAuth; these are good as long as they are listed."""
        good = [*tokens]

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_good = self.path.rpartition("=")[2] in good
                self.send_response(200 if is_good else 401)
                self.end_headers()
                self.wfile.write(json.dumps({"username": USER} if is_good else {}).encode())

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", self.token_port), Answer) as answers:
            threading.Thread(target=answers.serve_forever, daemon=True).start()
            yield good
            answers.shutdown()

    @contextmanager
    def cut_off(self, after_bytes: int) -> Iterator[int]:
        """Yield a port that leads to it, and cuts each connection after so many bytes."""
        with cutting_wire(self.port) as wire:
            wire.cuts = [after_bytes] * 100
            yield wire.port


def is_here() -> bool:
    return Path(PROGRAM).exists()


@contextmanager
def dovecot() -> Iterator[Dovecot]:
    home = Path(tempfile.mkdtemp(prefix="paddock-dovecot-"))
    owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    port, plain_port, token_port = free_port(), free_port(), free_port()
    write_certificate(home)
    values = {"home": home, "port": port, "plain_port": plain_port,
              "user": owner.pw_name, "uid": owner.pw_uid,
              "gid": owner.pw_gid, "group": grp.getgrgid(owner.pw_gid).gr_name,
              "password": PASSWORD}  # fmt: skip
    (home / "dovecot.conf").write_text(_CONFIG.format(**values))
    asked = f"http://127.0.0.1:{token_port}/?access_token="
    (home / "oauth2.conf").write_text(f"tokeninfo_url = {asked}\nusername_attribute = username\n")
    if os.getuid() == 0:
        for path in (home, *home.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    server = Dovecot(home, port, plain_port, token_port)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)

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
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.benchmarks.processes import free_port
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
ssl_cert = <{home}/cert.pem
ssl_key = <{home}/key.pem
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
        self.certificate = home / "cert.pem"
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
        """Yield a port that leads to it, and cuts each connection after so many bytes of it."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(
                target=self._serve_cut, args=(server, after_bytes), daemon=True
            ).start()
            yield server.getsockname()[1]

    def _serve_cut(self, server: socket.socket, after_bytes: int) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                there = socket.create_connection(("127.0.0.1", self.port))
                threading.Thread(target=_pass_on, args=(client, there, None), daemon=True).start()
                back = (there, client, after_bytes)
                threading.Thread(target=_pass_on, args=back, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, most: int | None) -> None:
    with suppress(OSError):
        while piece := source.recv(4096):
            target.sendall(piece if most is None else piece[:most])
            if most is not None and (most := most - len(piece)) <= 0:
                break
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def is_here() -> bool:
    return Path(PROGRAM).exists()


@contextmanager
def dovecot() -> Iterator[Dovecot]:
    home = Path(tempfile.mkdtemp(prefix="paddock-dovecot-"))
    owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    port, plain_port, token_port = free_port(), free_port(), free_port()
    _write_certificate(home)
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


def _write_certificate(home: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    alternatives = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (home / "cert.pem").write_bytes(certificate.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (home / "key.pem").write_bytes(key.private_bytes(pem, *private))

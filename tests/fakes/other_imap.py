"""Real Courier and Cyrus from packages that lie beside the system (`.ci/run` puts them there).

Debian's packages of IMAP servers exclude one another, so these are unpacked, not installed.
"""

import imaplib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.benchmarks.processes import free_port
from tests.waiting import PATIENCE_S

BESIDE = Path(os.environ.get("PADDOCK_TEST_IMAP", "/var/tmp/paddock-imap"))
PROGRAMS = {
    "courier": BESIDE / "courier/usr/bin/imapd",
    "cyrus": BESIDE / "cyrus/usr/lib/cyrus/bin/master",
}
_CAPABILITIES = "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE SORT QUOTA IDLE"


class OtherImap:
    """A server that lets `office` in with any password; its folders begin with `INBOX.`."""

    def __init__(self, port: int) -> None:
        self.port = port

    @contextmanager
    def box(self, folder: str = "INBOX", user: str = "office") -> Iterator[imaplib.IMAP4]:
        imap = imaplib.IMAP4("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            imap.login(user, "x")
            imap.create(folder)
            imap.select(folder)
            yield imap
        finally:
            imap.logout()

    def put(self, *mails: bytes, folder: str = "INBOX") -> None:
        with self.box(folder) as imap:
            for data in mails:
                assert imap.append(folder, "", "", data)[0] == "OK"

    def search(self, what: str) -> int:
        with self.box() as imap:
            return len((imap.uid("SEARCH", what)[1][0] or b"").split())


@contextmanager
def other_imap(kind: str) -> Iterator[OtherImap]:
    home = Path(tempfile.mkdtemp(prefix=f"paddock-{kind}-"))
    home.chmod(0o755)
    root, port = BESIDE / kind, free_port()
    folders = [root / name for name in ("usr/lib", "usr/lib/x86_64-linux-gnu", "usr/lib/cyrus/lib")]
    libraries = {"LD_LIBRARY_PATH": ":".join(map(str, [*folders, root / "lib/x86_64-linux-gnu"]))}
    started = _courier if kind == "courier" else _cyrus
    try:
        with started(home, port, {**os.environ, **libraries}):
            yield OtherImap(port)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _courier(home: Path, port: int, environ: Mapping[str, str]) -> Iterator[None]:
    """Greet and log in, which is another program's duty there, then leave all to its imapd."""
    for name in ("cur", "new", "tmp"):
        (home / "Maildir" / name).mkdir(parents=True)
    own = {"TCPREMOTEIP": "127.0.0.1", "TCPREMOTEPORT": "1", "HOME": str(home)}
    own |= {"IMAP_CAPABILITY": _CAPABILITIES, "IMAP_KEYWORDS": "1"}

    def serve(client: socket.socket) -> None:
        with client, client.makefile("rb", buffering=0) as lines, suppress(OSError):
            client.sendall(b"* OK Courier-IMAP ready.\r\n")
            while line := lines.readline():
                tag, command, *_ = line.decode().split()
                if command == "LOGIN":
                    hand_over(client, tag)
                    return
                client.sendall(f"* CAPABILITY {_CAPABILITIES}\r\n{tag} OK done\r\n".encode())

    def hand_over(client: socket.socket, tag: str) -> None:
        with subprocess.Popen(
            [PROGRAMS["courier"], "Maildir"],
            cwd=home,
            env={**environ, **own},
            stdin=client.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as imapd:
            assert imapd.stdout is not None
            try:
                for line in imapd.stdout:
                    is_greeting = line.startswith(b"* PREAUTH")
                    client.sendall(f"{tag} OK done\r\n".encode() if is_greeting else line)
                client.shutdown(socket.SHUT_RDWR)
            finally:
                imapd.kill()

    with socket.create_server(("127.0.0.1", port)) as server:
        threads = list[threading.Thread]()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=serve, args=(server.accept()[0],)))
                    threads[-1].start()

        threads.append(threading.Thread(target=accept))
        threads[0].start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE_S)


@contextmanager
def _cyrus(home: Path, port: int, environ: Mapping[str, str]) -> Iterator[None]:
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    for name in ("lib", "spool"):
        (home / name).mkdir()
    programs, config = PROGRAMS["cyrus"].parent, home / "imapd.conf"
    settings = {"configdirectory": home / "lib", "partition-default": home / "spool",
                "defaultpartition": "default", "admins": "cyrus", "cyrus_user": user,
                "allowplaintext": "yes", "sasl_pwcheck_method": "alwaystrue",
                "altnamespace": "no", "unixhierarchysep": "no",
                "idlesocket": home / "idle"}  # fmt: skip
    config.write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    (home / "cyrus.conf").write_text(
        f'START {{\n  recover cmd="{programs}/ctl_cyrusdb -C {config} -r"\n}}\n'
        f'SERVICES {{\n  imap cmd="{programs}/imapd -C {config}" listen="127.0.0.1:{port}" '
        f'prefork=0 proto="tcp4"\n}}\nEVENTS {{\n}}\n'
    )
    if os.getuid() == 0:
        for path in (home, *home.iterdir()):
            shutil.chown(path, user)
    plugins = PROGRAMS["cyrus"].parents[2] / "x86_64-linux-gnu/sasl2"
    process = subprocess.Popen(
        [PROGRAMS["cyrus"], "-C", config, "-M", home / "cyrus.conf", "-p", home / "pid"],
        env={**environ, "SASL_PATH": str(plugins)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with OtherImap(port).box("user.office", "cyrus"):
                    break
            except (OSError, imaplib.IMAP4.error):
                if time.monotonic() > end or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)

"""Real servers of documents on loopback: S3 (moto), SFTP (OpenSSH), a web server's pages."""

import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.benchmarks.processes import free_port
from tests.waiting import PATIENCE_S

SSHD = "/usr/sbin/sshd"
KINDS = ("s3", "sftp", "http")


class Place:
    """A folder `office` there; `url` and `options` are those of the step."""

    url: str
    options: dict[str, Any]

    def put(self, name: str, content: bytes) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def objects(self) -> dict[str, bytes]:
        """Return what is there, by name."""
        raise NotImplementedError

    def stop(self) -> None:
        """Do not answer any more."""
        raise NotImplementedError


class S3(Place):
    def __init__(self) -> None:
        import boto3  # type: ignore[import-untyped]
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        # All of a process have one memory
        self._bucket, endpoint = f"papers-{uuid.uuid4().hex}", f"http://{host}:{port}"
        self.url = f"s3://{self._bucket}/office"
        keys = {"key": "a", "secret": "b"}
        self.options = {"endpoint_url": endpoint, **keys}
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="a",
            aws_secret_access_key="b",
            region_name="us-east-1",
        )
        self._client.create_bucket(Bucket=self._bucket)

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=f"office/{name}", Body=content)

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=f"office/{name}")

    def objects(self) -> dict[str, bytes]:
        found = self._client.list_objects_v2(Bucket=self._bucket).get("Contents", [])
        return {
            each["Key"].removeprefix("office/"): self._client.get_object(
                Bucket=self._bucket, Key=each["Key"]
            )["Body"].read()
            for each in found
        }

    def stop(self) -> None:
        with suppress(Exception):
            self._server.stop()


class _Folder(Place):
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "office"
        self.folder.mkdir(parents=True)
        self._version = time.time() - 1000

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._version += 10  # its times count seconds
        os.utime(path, (self._version, self._version))

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def objects(self) -> dict[str, bytes]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}


class Sftp(_Folder):
    def __init__(self, folder: Path, home: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        for key in ("host", "user"):
            path = folder / key
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        public = (folder / "host.pub").read_text().split()[:2]
        (home / ".ssh").mkdir(parents=True)
        known = f"[127.0.0.1]:{self.port} {' '.join(public)}\n"
        (home / ".ssh/known_hosts").write_text(known)
        settings = {"Port": self.port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host",
                    "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no",
                    "PermitRootLogin": "yes", "UsePAM": "no", "PidFile": "none",
                    "Subsystem": "sftp internal-sftp"}  # fmt: skip
        config = folder / "sshd_config"
        config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            time.sleep(0.05)
        user = os.environ.get("USER") or "root"
        self.url = f"sftp://127.0.0.1:{self.port}{self.folder}"
        self.options = {"username": user, "key_filename": str(folder / "user")}

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)


class Web(_Folder):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        handler = functools.partial(_QuietHandler, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url, self.options = f"http://127.0.0.1:{self._server.server_port}/office/", {}
        self.refused = _QuietHandler.refused = dict[str, int]()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    refused: ClassVar[dict[str, int]]
    """Status by path."""

    def send_head(self) -> Any:
        if status := self.refused.get(self.path):
            return self.send_error(status)
        return super().send_head()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def place(kind: str, folder: Path, home: Path) -> Iterator[Place]:
    made = S3() if kind == "s3" else Sftp(folder, home) if kind == "sftp" else Web(folder)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def place_or_skip(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if kind == "sftp" and not Path(SSHD).exists():
        pytest.skip(f"{SSHD} is not here (openssh-server)")
    monkeypatch.setenv("HOME", str(folder / "home"))
    with place(kind, folder / "there", folder / "home") as made:
        yield made

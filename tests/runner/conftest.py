"""One PostgreSQL for the tests that need one, a database for each test; folders of pipelines."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.forked import ForkServer
from tests.postgres import Postgres, postgres
from tests.runner.schedule.up_process import UpFolder
from tests.runner.world import World

_numbers = count()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new home, which trusts no folder."""
    monkeypatch.delenv("PADDOCK_TRUST_STATE")
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "own-home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "own-home"


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
def url(server: Postgres) -> str:
    return server.make(f"ledger{next(_numbers)}")


@pytest.fixture
def up(tmp_path: Path, prefect_api: str, fork_server: ForkServer) -> Iterator[UpFolder]:
    """Yield a folder of pipelines; the `paddock up` that the test starts ends with it."""
    folder = tmp_path / "pipes"
    folder.mkdir()
    made = UpFolder(folder, prefect_api, forks=fork_server)
    yield made
    made.stop()

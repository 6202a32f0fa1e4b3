"""One PostgreSQL for the tests of this folder, a database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.postgres import Postgres, postgres

_numbers = count()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("postgres") / "server") as running:
        yield running


@pytest.fixture
def url(server: Postgres) -> str:
    return server.make(f"ledger{next(_numbers)}")

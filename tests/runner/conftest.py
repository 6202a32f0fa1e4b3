"""One PostgreSQL for the tests that need one, a database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.postgres import Postgres, postgres

_numbers = count()


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
def url(server: Postgres) -> str:
    return server.make(f"ledger{next(_numbers)}")

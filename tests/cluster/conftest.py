"""One PostgreSQL with a Prefect server for the tests of clusters: both take 8 s to start."""

from collections.abc import Iterator

import pytest

from tests.cluster.three_workers import Servers, servers


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[Servers]:
    with servers() as started:
        yield started

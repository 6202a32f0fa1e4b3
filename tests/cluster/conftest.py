"""One PostgreSQL with a Prefect server for the tests of clusters: both take 8 s to start."""

import pytest

from tests.cluster.three_workers import Servers, servers
from tests.forked import ForkServer
from tests.prefect_server import shared


@pytest.fixture(scope="module")
def shared_servers(fork_server: ForkServer) -> Servers:
    found: Servers = shared("servers", servers)
    found.forks = fork_server
    return found

"""What the tests of the HTTP service share."""

from collections.abc import Iterator

import httpx
import pytest

from tests.live import Live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client

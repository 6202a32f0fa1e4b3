"""The pool of the shared service, for tests that run in its event loop."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from paddock.engine.backends.local import LocalPool
from tests.live import Live


@pytest.fixture(scope="module")
def run_coroutine(live: Live) -> Callable[[Coroutine[Any, Any, None]], None]:
    return live.run


@pytest.fixture(scope="module")
def pool(live: Live, run_coroutine: object) -> LocalPool:
    return live.service.pool

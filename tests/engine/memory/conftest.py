"""Virtual time for the tests of the model manager."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.fakes import virtual


@pytest.fixture
def run_coroutine() -> Callable[[Coroutine[Any, Any, None]], None]:
    return virtual.run

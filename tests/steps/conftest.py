from pathlib import Path

import pytest

from tests.fakes.tools import FakeOutputs, FakeTools, tools


@pytest.fixture
def outputs() -> FakeOutputs:
    return FakeOutputs()


@pytest.fixture
def hands(tmp_path: Path, outputs: FakeOutputs) -> FakeTools:
    return tools(tmp_path, outputs=outputs)

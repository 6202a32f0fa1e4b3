from pathlib import Path

import pytest

from tests.runner.compare.bills import Bills


@pytest.fixture
def bills(tmp_path: Path) -> Bills:
    return Bills(tmp_path)

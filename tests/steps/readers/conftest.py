from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def placed(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def placed(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return placed

from pathlib import Path
from typing import Any

import pytest

from paddock.steps.files.rows import FilesRows
from paddock.steps.files.write import FilesWrite
from tests.fakes.tools import Call, FakeOutputs, FakeTools, carried_out


@pytest.fixture
def read(tmp_path: Path, hands: FakeTools) -> Call:
    def read(path: str = "a.xlsx", data: str | bytes | None = None, **wishes: Any) -> Any:
        if data is not None:
            (tmp_path / path).write_bytes(data.encode() if isinstance(data, str) else data)
        return carried_out(FilesRows(), hands, path=path, **wishes)

    return read


@pytest.fixture
def write(hands: FakeTools, outputs: FakeOutputs) -> Call:
    def write(path: str, rows: Any, **wishes: Any) -> None:
        outputs.next_run()
        carried_out(FilesWrite(), hands, path=path, rows=rows, **wishes)

    return write

from typing import Any

import pytest

from paddock.steps.files.write import FilesWrite
from tests.fakes.tools import Call, FakeOutputs, FakeTools, carried_out


@pytest.fixture
def write(hands: FakeTools, outputs: FakeOutputs) -> Call:
    def write(path: str, **wishes: Any) -> Any:
        outputs.next_run()
        return carried_out(FilesWrite(), hands, path=path, **wishes)

    return write

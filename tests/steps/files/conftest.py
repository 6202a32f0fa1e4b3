import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.steps.files.write import FilesWrite, FilesWriteOutput, FilesWriteParams
from tests.fakes.tools import FakeOutputs, FakeTools, tools


@pytest.fixture
def outputs() -> FakeOutputs:
    return FakeOutputs()


@pytest.fixture
def hands(tmp_path: Path, outputs: FakeOutputs) -> FakeTools:
    return tools(tmp_path, outputs=outputs)


@pytest.fixture
def write(hands: FakeTools, outputs: FakeOutputs) -> Callable[..., FilesWriteOutput]:
    def write(path: str, **wishes: Any) -> FilesWriteOutput:
        outputs.next_run()
        return asyncio.run(FilesWrite().run(FilesWriteParams(path=path, **wishes), hands))

    return write
